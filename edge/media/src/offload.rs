//! Relays that need no processing leave their ports: the shell may have a kernel for such a stream, and
//! what it does not take is relayed by [`crate::settled`] on the short way. Before anything about a
//! stream changes it is taken back, with whatever was done meanwhile.
//!
//! A stream is offered by its own packets. The look for quiet relays (each [`RELAY_QUIET_US`]) catches
//! up with what was counted elsewhere, so that silence, reports and timeouts go by the same figures as
//! without it.

use std::net::SocketAddr;

use media_core::rtp::rewrite::Relaying;
use media_core::rtp::stats::{Counted, Reception};
use media_core::units::RtpTime;

use crate::command::{AudioCodec, PortKey, WorkerCommand};
use crate::limits::RELAY_QUIET_US;
use crate::port::{CLOCK_HZ, Exit, Kind, Port, Source};
use crate::tx::Tx;
use crate::worker::{At, START_US, Worker};

/// What the worker's clock shows when it is made, in µs.
pub const CLOCK_START_US: u64 = START_US;
/// The kernel is offered a stream that was taken back or refused again after this time in µs, and after
/// twice the time if it did not stay.
const AGAIN_US: u64 = 200_000;
/// The longest such time, in µs.
const AGAIN_US_MAX: u64 = 10_000_000;
/// A stream that stays for so long in µs has stayed.
const STAYED_US: u64 = 5_000_000;
/// A stream that cannot leave, or has just come back, is looked at again after this time in µs.
const OFFER_US: u64 = 100_000;

/// Names a stream that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadId(pub u64);

/// A stream as it stands. Times are on the worker's clock ([`CLOCK_START_US`]), in ns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offload {
    /// Leg that it arrives at.
    pub from: PortKey,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Leg that it leaves by.
    pub to: PortKey,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// Its payload type; others stay here.
    pub payload_type_in: u8,
    /// The payload type that it leaves with.
    pub payload_type_out: u8,
    /// RTP clock in Hz, also of media time.
    pub clock_rate_hz: u32,
    /// Counting.
    pub reception: Reception,
    /// Rewriting.
    pub relaying: Relaying,
}

/// What became of a stream since it was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Highest sequence number, extended as in [`Offload::reception`].
    pub highest: u64,
    /// As [`Reception::window`].
    pub window: u64,
    /// As [`Reception::jitter_q4`].
    pub jitter_q4: u32,
    /// As [`Reception::jitter_units_max`].
    pub jitter_units_max: u32,
    /// As [`Reception::transit`].
    pub transit_in: Option<u32>,
    /// As [`Reception::timestamp`].
    pub timestamp: RtpTime,
    /// All packets since then.
    pub counted: Counted,
    /// Highest incoming timestamp.
    pub highest_in: RtpTime,
    /// Highest outgoing timestamp.
    pub highest_out: RtpTime,
    /// Timestamp of the last packet sent.
    pub last_out: RtpTime,
    /// As [`Relaying::transit`].
    pub transit_out: u32,
    /// As [`Relaying::frame_units`].
    pub frame_units: u32,
    /// Time between the last two packets in µs, if it is known.
    pub spacing_us: Option<u64>,
}

/// Who has a stream.
#[derive(Debug, Clone, Copy)]
enum Carrier {
    Kernel(OffloadId),
    Settled,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    carrier: Carrier,
    sink: u32,
    since_us: u64,
    /// Of the reception, when handed over; the rewriter counts on its own scale.
    highest: u64,
    relaying: Relaying,
    /// What was taken over of it so far.
    merged: Counted,
}

/// State of what arrives at one port.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OffloadState {
    running: Option<Running>,
    /// When the kernel may be offered it.
    kernel_us: u64,
    wait_us: u64,
}

impl OffloadState {
    fn put_off(&mut self, now_us: u64, stayed: bool) {
        let longer = (self.wait_us * 2).clamp(AGAIN_US, AGAIN_US_MAX);
        self.wait_us = if stayed { AGAIN_US } else { longer };
        self.kernel_us = now_us + self.wait_us;
    }
}

/// The same figures without what was taken over before.
fn new_part(all: &Counted, before: &Counted) -> Counted {
    Counted {
        packets: all.packets.saturating_sub(before.packets),
        payload_bytes: all.payload_bytes.saturating_sub(before.payload_bytes),
        duplicates: all.duplicates.saturating_sub(before.duplicates),
        reordered: all.reordered.saturating_sub(before.reordered),
        // Between the parts there is a gap that is in the longest one.
        first_us: if before.packets == 0 { all.first_us } else { before.last_us },
        last_us: all.last_us,
        gap_us_max: if all.gap_us_max > before.gap_us_max { all.gap_us_max } else { 0 },
    }
}

impl Worker {
    /// The port whose packets feed this one.
    fn feeding(&self, slot: u32) -> Option<u32> {
        match self.ports.get(slot)?.out.source {
            Source::Port(from) => Some(from),
            Source::None | Source::Play(_) => None,
        }
    }

    /// Learns what was done elsewhere with what arrives at this port and with what feeds it.
    pub(crate) fn catch_up<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        for from in [Some(slot), self.feeding(slot)].into_iter().flatten() {
            let Some(running) = self.ports.get(from).and_then(|port| port.offload.running) else {
                continue;
            };
            if let Carrier::Kernel(id) = running.carrier
                && let Some(progress) = tx.offloaded(id)
            {
                self.merge(from, running, &progress);
            }
            self.catch_up_settled(from);
            let last_us = self.ports.get(from).map_or(0, |port| port.input.alive_us);
            let sink = self.ports.get(running.sink);
            let quiet_after_us = sink.map_or(RELAY_QUIET_US, |sink| sink.out.quiet_after_us());
            if at.us.saturating_sub(last_us) >= quiet_after_us {
                // What is quiet is filled with silence, and that is made here.
                self.take_back_source(from, at, tx);
            }
        }
    }

    /// Learns what became of what arrives at this port, if it is a settled stream.
    fn catch_up_settled(&mut self, from: u32) {
        if let Some(port) = self.ports.get(from)
            && let Some(running) = port.offload.running
            && matches!(running.carrier, Carrier::Settled)
            && let Some(progress) = self.settled.progress(port.key)
        {
            self.merge(from, running, &progress);
        }
    }

    /// Before a port's times are computed anew: they go by the latest packets.
    pub(crate) fn catch_up_times(&mut self, slot: u32) {
        for from in [Some(slot), self.feeding(slot)].into_iter().flatten() {
            self.catch_up_settled(from);
        }
    }

    /// Takes back what arrives at this port.
    pub(crate) fn take_back_source<T: Tx>(&mut self, from: u32, at: At, tx: &mut T) {
        let Some(port) = self.ports.get_mut(from) else { return };
        let Some(running) = port.offload.running.take() else { return };
        port.input.offer_us = at.us + OFFER_US;
        let progress = match running.carrier {
            Carrier::Kernel(id) => {
                let stayed = at.us.saturating_sub(running.since_us) >= STAYED_US;
                port.offload.put_off(at.us, stayed);
                self.stats.withdrawals += 1;
                tx.withdraw(id)
            }
            Carrier::Settled => self.settled.end(port.key),
        };
        if let Some(progress) = progress {
            self.merge(from, running, &progress);
        }
        self.schedule(running.sink);
        self.schedule(from);
    }

    /// Takes back what this port is fed: it will leave otherwise.
    pub(crate) fn take_back_feeding<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        if let Some(from) = self.feeding(slot) {
            self.take_back_source(from, at, tx);
        }
    }

    /// Takes back what arrives at this port, and what it is fed.
    fn take_back<T: Tx>(&mut self, slot: u32, at: At, tx: &mut T) {
        self.take_back_source(slot, at, tx);
        self.take_back_feeding(slot, at, tx);
    }

    /// Before a command: whatever it touches is to be here.
    pub(crate) fn take_back_for<T: Tx>(&mut self, command: &WorkerCommand, at: At, tx: &mut T) {
        let (first, second) = match command {
            WorkerCommand::AddLeg { .. } | WorkerCommand::AddChannel { .. } => return,
            WorkerCommand::UpdateLeg { port, .. }
            | WorkerCommand::RemovePort { port }
            | WorkerCommand::StartPlay { port, .. }
            | WorkerCommand::StartCollect { port, .. }
            | WorkerCommand::StartWatch { port, .. }
            | WorkerCommand::InjectDigit { port, .. } => (self.ports.find(*port), None),
            WorkerCommand::StartRecord { port, program, .. } => {
                let with = program.with.and_then(|with| self.ports.find(with));
                (self.ports.find(*port), with)
            }
            WorkerCommand::Connect { from, to, .. } | WorkerCommand::Disconnect { from, to } => {
                (self.ports.find(*from), self.ports.find(*to))
            }
            WorkerCommand::StartOp { op }
            | WorkerCommand::StopOp { op }
            | WorkerCommand::PauseRecord { op, .. } => {
                let op = self.ops.find(*op).and_then(|place| self.ops.get(place));
                (op.map(|op| op.port), None)
            }
            WorkerCommand::Snapshot { session, .. } => {
                for slot in 0..self.ports.places() {
                    if self.ports.get(slot).is_some_and(|port| port.session == *session) {
                        self.catch_up(slot, at, tx);
                    }
                }
                return;
            }
        };
        for slot in [first, second].into_iter().flatten() {
            self.take_back(slot, at, tx);
        }
    }

    fn merge(&mut self, from: u32, running: Running, progress: &Progress) {
        let new = new_part(&progress.counted, &running.merged);
        if new.packets == 0 {
            return;
        }
        let Some(port) = self.ports.get_mut(from) else { return };
        let reception = Reception {
            ssrc: running.relaying.ssrc_in,
            // Nothing from before it was forwarded.
            first: progress.highest,
            highest: progress.highest,
            window: progress.window,
            jitter_q4: progress.jitter_q4,
            jitter_units_max: progress.jitter_units_max,
            transit: progress.transit_in,
            timestamp: progress.timestamp,
        };
        port.input.stats.resume(&reception, &new);
        port.input.alive_us = port.input.alive_us.max(new.last_us);
        port.counters.packets_from_endpoints += new.packets;
        if let Some(running) = &mut port.offload.running {
            running.merged = progress.counted;
        }
        let by_kernel = match running.carrier {
            Carrier::Kernel(_) => new.packets,
            // Counted packet by packet.
            Carrier::Settled => 0,
        };
        self.stats.packets_from_endpoints += by_kernel;
        let Some(sink) = self.ports.get_mut(running.sink) else { return };
        let highest = running.relaying.highest + progress.highest.saturating_sub(running.highest);
        sink.out.stream.resume(&Relaying {
            highest,
            highest_in: progress.highest_in,
            highest_out: progress.highest_out,
            transit: progress.transit_out,
            frame_units: progress.frame_units,
            ..running.relaying
        });
        sink.out.sent.resume(progress.last_out, &new);
        sink.out.last_us = sink.out.last_us.max(Some(new.last_us));
        if let Some(spacing_us) = progress.spacing_us {
            sink.out.note_relayed_elsewhere(new.last_us, spacing_us);
        }
        sink.counters.packets_to_endpoints += new.packets;
        self.stats.packets_to_endpoints += by_kernel;
        self.stats.packets_relayed += by_kernel;
        self.stats.packets_offloaded += by_kernel;
    }

    /// Lets what arrives at this port leave it, if nothing but relaying is to be done.
    pub(crate) fn offer<T: Tx>(&mut self, from: u32, at: At, tx: &mut T) {
        let Some(input) = self.ports.get_mut(from) else { return };
        input.input.offer_us = at.us + OFFER_US;
        let [sink] = *input.sinks.as_slice() else { return };
        let (Some(input), Some(output)) = (self.ports.get(from), self.ports.get(sink)) else {
            return;
        };
        let Some(offload) = plain_relay(input, output, at) else { return };
        let kernel = if tx.offloads() && at.us >= input.offload.kernel_us {
            self.offer_to_kernel(from, &offload, at, tx)
        } else {
            None
        };
        let Some(input) = self.ports.get_mut(from) else { return };
        let kernel_us = if tx.offloads() { input.offload.kernel_us } else { u64::MAX };
        let carrier = match kernel {
            Some(id) => Carrier::Kernel(id),
            None if self.settled.begin(&offload, sink, at.us, kernel_us) => Carrier::Settled,
            None => return,
        };
        // Its next packet that comes here shall be looked at.
        input.input.offer_us = 0;
        input.offload.running = Some(Running {
            carrier,
            sink,
            since_us: at.us,
            highest: offload.reception.highest,
            relaying: offload.relaying,
            merged: Counted::default(),
        });
    }

    fn offer_to_kernel<T: Tx>(
        &mut self,
        from: u32,
        offload: &Offload,
        at: At,
        tx: &mut T,
    ) -> Option<OffloadId> {
        let id = tx.offload(offload);
        if id.is_some() {
            self.stats.offloads += 1;
        } else {
            self.stats.offloads_refused += 1;
            self.ports.get_mut(from)?.offload.put_off(at.us, false);
        }
        id
    }
}

/// The stream from `input` to `output`, if both ends are settled and nobody else wants it.
fn plain_relay(input: &Port, output: &Port, at: At) -> Option<Offload> {
    let (Kind::Leg(leg), Some(Exit::Endpoint(destination))) = (&input.kind, output.exit()) else {
        return None;
    };
    let out = &output.out;
    let alone = input.input.listeners.as_slice().is_empty()
        && output.out.taps.as_slice().is_empty()
        && input.input.detector.is_none();
    let flows = out.begun
        && output.is_filled()
        && at.us.saturating_sub(out.last_us?) < RELAY_QUIET_US
        && !input.input.timed_out;
    let settled = leg.latch.is_learnt() && out.event.is_none() && out.digits.as_slice().is_empty();
    if !(alone && flows && settled) {
        return None;
    }
    let codec: AudioCodec = out.codec;
    let reception = input.input.stats.reception()?;
    let relaying = out.stream.relaying(out.relay_id)?;
    // Both have seen the same packets.
    let same =
        relaying.ssrc_in == reception.ssrc && relaying.highest as u16 == reception.highest as u16;
    same.then_some(Offload {
        from: input.key,
        source: leg.latch.rtp()?,
        to: output.key,
        destination,
        payload_type_in: input.input.payload_type_of(codec)?,
        payload_type_out: out.payload_type.get(),
        clock_rate_hz: CLOCK_HZ,
        reception,
        relaying,
    })
}
