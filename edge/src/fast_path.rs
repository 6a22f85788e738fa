//! The kernel fast path in this daemon: `edge-xdp` under the worker's [`edge_media::offload`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_media::offload::{CLOCK_START_US, Offload, OffloadId, Progress};
use edge_uring::socket::TOS_EXPEDITED_FORWARDING;
use edge_xdp::{Attached, FastPath, Limits, Mode, Refused, Stream, StreamId, StreamTable};
use link_daemon::metrics::Metrics;
use link_daemon::metrics::prometheus_client::collector::Collector;
use link_daemon::metrics::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use link_daemon::metrics::prometheus_client::metrics::counter::ConstCounter;
use media_core::rtp::settled::floor;
use media_core::rtp::stats::Counted;
use media_core::units::RtpTime;

use crate::config::Media;

/// Own and far addresses at once: far fewer than streams, as calls come from carriers.
const HOPS_PER_WORKER: u32 = 1_024;

/// Loads the program and attaches it where the configuration says. `None`, with the reason in the
/// log, if it is off or cannot be had: then everything is relayed through sockets.
pub fn start(config: &Media, streams_max: u32, metrics: &Metrics) -> Option<FastPath> {
    let mode = config.xdp?;
    let tables = u32::from(config.workers);
    // The legs of a call are on one worker, and all of them may be.
    let limits = Limits {
        streams_max: streams_max.saturating_mul(tables),
        hops_max: HOPS_PER_WORKER * tables,
        tables,
    };
    let mut path = match FastPath::load(limits) {
        Ok(path) => {
            tracing::info!(%limits, "kernel fast path is loaded");
            path
        }
        Err(error) => {
            tracing::warn!(%error, "kernel fast path is off");
            return None;
        }
    };
    for interface in &config.xdp_interfaces {
        match path.attach(interface, mode) {
            Ok(attached) => tracing::info!(%interface, mode = attached.name(), "kernel fast path"),
            Err(error) => tracing::warn!(%error, "no kernel fast path there"),
        }
    }
    if path.attached().is_empty() {
        tracing::warn!("kernel fast path is off: no interface runs it");
        return None;
    }
    if !config.xdp_coalesce.is_zero() {
        coalesce(&mut path, config.xdp_coalesce);
    }
    let (attached, coalesced) = (attached(&path), path.coalesced() as u64);
    metrics.collector(Box::new(PathCollector { counts: path.counts(), attached, coalesced }));
    Some(path)
}

/// What an interface cannot it goes without.
fn coalesce(path: &mut FastPath, wait: Duration) {
    let interfaces: Vec<String> = path.attached().iter().map(|(name, _)| name.clone()).collect();
    for interface in interfaces {
        match path.coalesce(&interface, wait) {
            Ok(()) => tracing::info!(%interface, ?wait, "packets are collected"),
            Err(error) => tracing::warn!(%interface, %error, "packets are not collected there"),
        }
    }
}

fn attached(path: &FastPath) -> (u64, u64) {
    let of = |wanted| path.attached().iter().filter(|(_, mode)| *mode == wanted).count() as u64;
    (of(Attached::Native), of(Attached::Generic))
}

/// From the names of the configuration; `None` is off.
pub const MODES: [(&str, Option<Mode>); 4] = [
    ("off", None),
    ("auto", Some(Mode::Auto)),
    ("native", Some(Mode::Native)),
    ("generic", Some(Mode::Generic)),
];

#[derive(Debug)]
struct PathCollector {
    counts: Arc<edge_xdp::Counts>,
    attached: (u64, u64),
    coalesced: u64,
}

impl Collector for PathCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = self.counts.read();
        let rows = [
            ("forwarded", "Packets forwarded by the kernel", counters.forwarded),
            ("up_busy", "Packets sent up: the stream was held", counters.up_busy),
            ("up_withdrawn", "Packets sent up: the stream was taken back", counters.up_withdrawn),
            ("up_source", "Packets sent up: another source", counters.up_source),
            ("up_shape", "Packets sent up: not plain RTP", counters.up_shape),
            ("up_payload_type", "Packets sent up: payload type", counters.up_payload_type),
            ("up_ssrc", "Packets sent up: another SSRC", counters.up_ssrc),
            ("up_sequence", "Packets sent up: a jump of numbers", counters.up_sequence),
            ("up_timestamp", "Packets sent up: far from media time", counters.up_timestamp),
            ("up_no_hop", "Packets sent up: no next hop", counters.up_no_hop),
            ("interfaces_native", "Interfaces with the program in the driver", self.attached.0),
            ("interfaces_generic", "Interfaces with the program in the stack", self.attached.1),
            ("interfaces_coalesced", "Interfaces that collect packets", self.coalesced),
        ];
        for (name, help, value) in rows {
            let metric = ConstCounter::new(value);
            let name = format!("tandem_edge_xdp_{name}");
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// One worker's share.
#[derive(Debug)]
pub struct Lane {
    table: StreamTable,
    /// The kernel's clock when that of the worker shows zero.
    clock_zero_ns: u64,
}

impl Lane {
    /// To be made at the very time at which the worker is made.
    #[must_use]
    pub fn new(table: StreamTable) -> Self {
        let clock_zero_ns = edge_xdp::clock_ns().wrapping_sub(CLOCK_START_US * 1_000);
        Self { table, clock_zero_ns }
    }

    /// `local` and `out_local` are the addresses of the legs' sockets.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn offload(
        &mut self,
        offload: &Offload,
        local: SocketAddr,
        out_local: SocketAddr,
    ) -> Result<OffloadId, Refused> {
        let stream = stream(offload, local, out_local, self.clock_zero_ns);
        self.table.offload(&stream).map(|id| OffloadId(id.number()))
    }

    /// See [`edge_media::Tx::offloaded`].
    #[must_use]
    pub fn progress(&self, id: OffloadId) -> Option<Progress> {
        self.table.progress(StreamId::of(id.0)?).map(|progress| of_kernel(&progress))
    }

    /// See [`edge_media::Tx::withdraw`].
    pub fn withdraw(&mut self, id: OffloadId) -> Option<Progress> {
        self.table.withdraw(StreamId::of(id.0)?).map(|progress| of_kernel(&progress))
    }
}

fn stream(
    offload: &Offload,
    local: SocketAddr,
    out_local: SocketAddr,
    clock_zero_ns: u64,
) -> Stream {
    let Offload { reception, relaying, .. } = offload;
    Stream {
        local,
        peer: offload.source,
        out_local,
        out_peer: offload.destination,
        payload_type_in: offload.payload_type_in,
        payload_type_out: offload.payload_type_out,
        ssrc_in: relaying.ssrc_in.0,
        ssrc_out: relaying.ssrc_out.0,
        seq_offset: relaying.seq_offset,
        timestamp_offset: relaying.timestamp_offset,
        traffic_class: TOS_EXPEDITED_FORWARDING as u8,
        frame_units_max: relaying.frame_units_max,
        break_units: relaying.break_units,
        clock_rate_hz: offload.clock_rate_hz,
        clock_zero_ns,
        start: edge_xdp::Progress {
            floor: floor(reception, relaying),
            highest: reception.highest,
            window: reception.window,
            jitter_q4: reception.jitter_q4,
            jitter_units_max: reception.jitter_units_max,
            transit_in: reception.transit.unwrap_or(0),
            transit_in_known: u32::from(reception.transit.is_some()),
            timestamp_last: reception.timestamp.0,
            timestamp_highest_in: relaying.highest_in.0,
            timestamp_highest_out: relaying.highest_out.0,
            transit_out: relaying.transit,
            frame_units: relaying.frame_units,
            ..edge_xdp::Progress::default()
        },
    }
}

fn of_kernel(progress: &edge_xdp::Progress) -> Progress {
    Progress {
        highest: progress.highest,
        window: progress.window,
        jitter_q4: progress.jitter_q4,
        jitter_units_max: progress.jitter_units_max,
        transit_in: (progress.transit_in_known != 0).then_some(progress.transit_in),
        timestamp: RtpTime(progress.timestamp_last),
        counted: Counted {
            packets: progress.packets,
            payload_bytes: progress.payload_bytes,
            duplicates: progress.duplicates,
            reordered: progress.reordered,
            first_us: progress.first_ns / 1_000,
            last_us: progress.last_ns / 1_000,
            gap_us_max: progress.gap_ns_max / 1_000,
        },
        highest_in: RtpTime(progress.timestamp_highest_in),
        highest_out: RtpTime(progress.timestamp_highest_out),
        last_out: RtpTime(progress.timestamp_last_out),
        transit_out: progress.transit_out,
        frame_units: progress.frame_units,
        spacing_us: None,
    }
}
