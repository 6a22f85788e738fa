//! What a media thread counts, copied out of it once a second.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_media::stats::LATENESS_BUCKETS;
use edge_media::{DropCause, WorkerStats};
use edge_xdp::Refused;
use link_daemon::metrics::Metrics;
use link_daemon::metrics::prometheus_client::collector::Collector;
use link_daemon::metrics::prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use link_daemon::metrics::prometheus_client::metrics::counter::ConstCounter;
use link_daemon::metrics::prometheus_client::metrics::gauge::ConstGauge;

/// What the shell of a worker lost or could not do.
#[derive(Debug, Default)]
pub(crate) struct OwnStats {
    pub(crate) trunk_ring_full: u64,
    pub(crate) sockets_refused: u64,
    pub(crate) connects_failed: u64,
    pub(crate) events_delayed: u64,
    pub(crate) recorder_full: u64,
    pub(crate) offload_full: u64,
    pub(crate) offload_no_hop: u64,
    pub(crate) offload_other: u64,
}

impl OwnStats {
    /// Why the kernel fast path did not take a stream.
    pub(crate) const fn count_refused(&mut self, refused: Refused) {
        match refused {
            Refused::Full => self.offload_full += 1,
            Refused::NoHop => self.offload_no_hop += 1,
            Refused::Unsuited | Refused::Taken => self.offload_other += 1,
        }
    }
}

/// Names of all counters but the lateness, in the order of their values.
const NAMES: [&str; 52] = [
    "packets_from_endpoints",
    "packets_to_endpoints",
    "packets_from_trunk",
    "packets_to_trunk",
    "packets_relayed",
    "packets_transcoded",
    "packets_fill",
    "rtcp_received",
    "rtcp_sent",
    "latched",
    "digits",
    "digits_doubled",
    "refused",
    "detectors_missing",
    "sinks_refused",
    "stalls",
    "ports",
    "programs",
    "dropped_unknown_port",
    "dropped_not_rtp",
    "dropped_malformed",
    "dropped_payload_type",
    "dropped_foreign_source",
    "dropped_malformed_rtcp",
    "dropped_no_sink",
    "dropped_not_sendable",
    "dropped_no_telephone_event",
    "dropped_switch",
    "dropped_replaced",
    "dropped_too_long",
    "ring_datagrams",
    "ring_sends",
    "ring_send_failed",
    "ring_sends_refused",
    "ring_sends_dropped",
    "ring_receive_no_buffers",
    "ring_socket_drops",
    "ring_completion_overflows",
    "ring_sockets",
    "dropped_trunk_ring_full",
    "sockets_refused",
    "connects_failed",
    "events_delayed",
    "recorder_blocks_dropped",
    "packets_settled",
    "offload_packets",
    "offload_streams",
    "offload_withdrawn",
    "offload_refused",
    "offload_refused_full",
    "offload_refused_no_hop",
    "offload_refused_other",
];

/// What there is at present.
const GAUGES: [&str; 3] = ["ports", "programs", "ring_sockets"];

/// Counters of a media thread, copied once a second.
#[derive(Debug)]
pub struct MediaCounters {
    values: [AtomicU64; NAMES.len()],
    lateness: [AtomicU64; LATENESS_BUCKETS],
}

impl Default for MediaCounters {
    fn default() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; NAMES.len()],
            lateness: [const { AtomicU64::new(0) }; LATENESS_BUCKETS],
        }
    }
}

impl MediaCounters {
    /// Shows them among the metrics of the process, as `tandem_edge_media_…` (`media_1_…` for the
    /// second thread and so on).
    pub(crate) fn register(self: &Arc<Self>, metrics: &Metrics, index: u16) {
        let area = if index == 0 { "media".to_owned() } else { format!("media_{index}") };
        metrics.collector(Box::new(MediaCollector { counters: Arc::clone(self), area }));
    }

    /// All values by name, lateness aside; those of [`GAUGES`] are no counters.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.values.iter().map(|value| value.load(Ordering::Relaxed)))
    }

    /// One counter; 0 for names that there are not.
    pub fn get(&self, name: &str) -> u64 {
        self.read().find(|(known, _)| *known == name).map_or(0, |(_, value)| value)
    }

    /// How late deadlines were handled: entry `n` counts those below 2ⁿ µs, the last one the rest.
    pub fn lateness(&self) -> [u64; LATENESS_BUCKETS] {
        std::array::from_fn(|n| self.lateness[n].load(Ordering::Relaxed))
    }

    /// Copies everything; called by the media thread.
    pub(crate) fn store(&self, worker: &WorkerStats, io: &edge_uring::Stats, own: &OwnStats) {
        let dropped = DropCause::ALL.map(|cause| worker.dropped_for(cause));
        let values = [
            worker.packets_from_endpoints,
            worker.packets_to_endpoints,
            worker.packets_from_trunk,
            worker.packets_to_trunk,
            worker.packets_relayed,
            worker.packets_transcoded,
            worker.packets_fill,
            worker.rtcp_received,
            worker.rtcp_sent,
            worker.latched,
            worker.digits,
            worker.digits_doubled,
            worker.refused,
            worker.detectors_missing,
            worker.sinks_refused,
            worker.stalls,
            worker.ports,
            worker.ops,
        ];
        let ring = [
            io.datagrams,
            io.sends,
            io.send_failed(),
            io.sends_refused,
            io.sends_dropped_ring,
            io.receive_no_buffers,
            io.socket_drops,
            io.completion_overflows,
            io.sockets_added.saturating_sub(io.sockets_removed),
            own.trunk_ring_full,
            own.sockets_refused,
            own.connects_failed,
            own.events_delayed,
            own.recorder_full,
        ];
        let offload = [
            worker.packets_settled,
            worker.packets_offloaded,
            worker.offloads,
            worker.withdrawals,
            worker.offloads_refused,
            own.offload_full,
            own.offload_no_hop,
            own.offload_other,
        ];
        let all = values.into_iter().chain(dropped).chain(ring).chain(offload);
        for (place, value) in self.values.iter().zip(all) {
            place.store(value, Ordering::Relaxed);
        }
        for (place, value) in self.lateness.iter().zip(worker.lateness.buckets) {
            place.store(value, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct MediaCollector {
    counters: Arc<MediaCounters>,
    area: String,
}

impl Collector for MediaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.counters.read() {
            let full = format!("tandem_edge_{}_{name}", self.area);
            let help = name.replace('_', " ");
            if GAUGES.contains(&name) {
                let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                metric.encode(encoder.encode_descriptor(
                    &full,
                    &help,
                    None,
                    metric.metric_type(),
                )?)?;
            } else {
                let metric = ConstCounter::new(value);
                metric.encode(encoder.encode_descriptor(
                    &full,
                    &help,
                    None,
                    metric.metric_type(),
                )?)?;
            }
        }
        let mut below_us = 1u64;
        for count in self.counters.lateness() {
            let full = format!("tandem_edge_{}_tick_late_below_{below_us}_us", self.area);
            let metric = ConstCounter::new(count);
            let help = "deadlines handled so late, in no lower class";
            metric.encode(encoder.encode_descriptor(&full, help, None, metric.metric_type())?)?;
            below_us *= 2;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_place() {
        let mut worker = WorkerStats { packets_relayed: 5, ports: 7, ..WorkerStats::default() };
        worker.dropped[DropCause::ForeignSource as usize] = 3;
        worker.dropped[DropCause::TooLong as usize] = 4;
        let io = edge_uring::Stats {
            datagrams: 9,
            socket_drops: 2,
            sockets_added: 8,
            sockets_removed: 3,
            ..Default::default()
        };
        let own = OwnStats { recorder_full: 11, offload_other: 6, ..OwnStats::default() };
        let counters = Arc::new(MediaCounters::default());
        counters.store(&worker, &io, &own);
        let expected = [
            ("packets_relayed", 5),
            ("ports", 7),
            ("dropped_foreign_source", 3),
            ("dropped_too_long", 4),
            ("ring_datagrams", 9),
            ("ring_socket_drops", 2),
            ("ring_sockets", 5),
            ("recorder_blocks_dropped", 11),
            ("offload_refused_other", 6),
        ];
        for (name, value) in expected {
            assert_eq!(counters.get(name), value, "{name}");
        }
        for (cause, (name, _)) in DropCause::ALL.iter().zip(counters.read().skip(18)) {
            assert_eq!(name.strip_prefix("dropped_"), Some(cause.name()));
        }
        let metrics = Metrics::new("edge");
        counters.register(&metrics, 0);
        assert!(metrics.encode().contains("tandem_edge_media_packets_relayed_total 5"));
    }
}
