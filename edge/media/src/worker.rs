//! The state of one media thread and its doors.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use media_core::dtmf::detect::DtmfDetector;
use media_core::units::{RtpTime, SampleRate};

use crate::command::{LegConfig, ProgramItem};
use crate::deadlines::Deadlines;
use crate::event::WorkerEvent;
use crate::limits::{COPY_BYTES_MAX, WorkerLimits};
use crate::list::Pool;
use crate::op::OpTable;
use crate::path::record::Tracks;
use crate::port::{CLOCK_HZ, Port};
use crate::quiet::QuietWatch;
use crate::settled::SettledStreams;
use crate::stats::{DropCause, WorkerStats};
use crate::table::PortTable;
use crate::tx::Tx;

/// Time at which a worker starts on its own scale: not zero, so that early times can be told
/// from none.
pub(crate) const START_US: u64 = 1_000_000;

/// How a worker is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Capacities.
    pub limits: WorkerLimits,
    /// For first sequence numbers and timestamps (RFC 3550 §5.1) and the times of reports.
    pub seed: u64,
}

/// Memory that came with a command and is not needed any more. It is to be freed elsewhere: a
/// prompt may be megabytes.
#[derive(Debug)]
pub enum Returned {
    /// Items of a play program.
    Items(Vec<ProgramItem>),
    /// Parameters of a leg.
    Leg(LegConfig),
    /// Keys.
    Text(String),
}

/// An empty queue begins at its beginning again, so that it stays in the memory that it has touched
/// instead of wandering through all of its capacity.
fn pop_and_rewind<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if first.is_none() {
        queue.clear();
    }
    first
}

/// SplitMix64: for numbers that need not be secret.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Half to one and a half of `us`.
    pub(crate) fn around(&mut self, us: u64) -> u64 {
        us / 2 + self.next() % us.max(1)
    }
}

/// A moment on the scale of the worker: in µs, and as RTP timestamp of media time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) us: u64,
    pub(crate) rtp: RtpTime,
}

impl At {
    pub(crate) const fn new(us: u64) -> Self {
        Self { us, rtp: RtpTime((us * (CLOCK_HZ as u64 / 1_000) / 1_000) as u32) }
    }
}

/// All media of one thread. See the crate page.
#[derive(Debug)]
pub struct Worker {
    epoch: Instant,
    /// The time of the last call, on both scales.
    latest: (Instant, At),
    pub(crate) ports: PortTable,
    pub(crate) ops: OpTable,
    pub(crate) deadlines: Deadlines,
    pub(crate) quiet: QuietWatch,
    pub(crate) tracks: Pool<Tracks>,
    pub(crate) detectors: Pool<DtmfDetector>,
    pub(crate) events: VecDeque<WorkerEvent>,
    pub(crate) returned: VecDeque<Returned>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) stats: WorkerStats,
    pub(crate) random: Random,
    pub(crate) settled: SettledStreams,
}

pub(crate) fn new_detector() -> DtmfDetector {
    match DtmfDetector::new(SampleRate::HZ_8000) {
        Some(detector) => detector,
        None => unreachable!("8 kHz is a rate of the detector"),
    }
}

impl Worker {
    /// Takes all memory that packets will need.
    #[must_use]
    pub fn new(config: WorkerConfig, now: Instant) -> Self {
        let limits = config.limits;
        let waiting = (limits.ports_max as usize + limits.ops_max as usize) * 2;
        Self {
            epoch: now,
            latest: (now, At::new(START_US)),
            ports: PortTable::new(limits.ports_edge_max, limits.ports_max),
            ops: OpTable::new(limits.ops_max),
            deadlines: Deadlines::new(limits.ports_max),
            quiet: QuietWatch::new(limits.ports_max),
            tracks: Pool::new(limits.recordings_max, Tracks::new),
            detectors: Pool::new(limits.detectors_max, new_detector),
            events: VecDeque::with_capacity(waiting),
            returned: VecDeque::with_capacity(waiting),
            scratch: vec![0; COPY_BYTES_MAX],
            stats: WorkerStats::default(),
            random: Random(config.seed),
            settled: SettledStreams::new(limits.ports_edge_max, limits.ports_max),
        }
    }

    /// When [`Self::handle_tick`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline_us = self.deadlines.first().map(|(due_us, _)| due_us);
        let due_us = [deadline_us, self.quiet.next_look_us()].into_iter().flatten().min()?;
        Some(self.epoch + Duration::from_micros(due_us.saturating_sub(START_US)))
    }

    /// Next event. Drain after each call of another door.
    pub fn poll_event(&mut self) -> Option<WorkerEvent> {
        pop_and_rewind(&mut self.events)
    }

    /// Next piece of memory that is to be freed elsewhere. Drain now and then.
    pub fn poll_returned(&mut self) -> Option<Returned> {
        pop_and_rewind(&mut self.returned)
    }

    /// Counters since the worker was made.
    #[must_use]
    pub fn stats(&self) -> WorkerStats {
        let mut stats = self.stats;
        let settled = self.settled.packets();
        stats.packets_settled = settled;
        stats.packets_from_endpoints += settled;
        stats.packets_to_endpoints += settled;
        stats.packets_relayed += settled;
        stats.ports = self.ports.len() as u64;
        stats.ops = self.ops.len() as u64;
        stats
    }

    /// All that comes in one turn of the thread comes at the same time.
    pub(crate) fn at(&mut self, now: Instant) -> At {
        if now != self.latest.0 {
            let since = now.saturating_duration_since(self.epoch);
            // In 64 bits: for 128 there is no machine instruction.
            let us = START_US + since.as_secs() * 1_000_000 + u64::from(since.subsec_micros());
            self.latest = (now, At::new(us));
        }
        self.latest.1
    }

    /// Handles deadlines that have come, at most a bounded number of ports. Call it before packets.
    pub fn handle_tick<T: Tx>(&mut self, now: Instant, tx: &mut T) {
        let at = self.at(now);
        for _ in 0..crate::limits::DEADLINES_PER_CALL_MAX {
            let Some((due_us, slot)) = self.next_due(at.us) else {
                return;
            };
            self.stats.lateness.add(at.us.saturating_sub(due_us));
            self.tick_port(slot, at, tx);
            self.schedule(slot);
        }
    }

    /// A port whose time has come: first those that have deadlines, then those that fell silent.
    fn next_due(&mut self, now_us: u64) -> Option<(u64, u32)> {
        while let Some((due_us, slot)) = self.deadlines.first().filter(|(due, _)| *due <= now_us) {
            // Packets move the media timeout on without telling.
            let moved = self.due_us(slot);
            if moved.is_some_and(|moved_us| moved_us <= now_us) {
                return Some((due_us, slot));
            }
            self.deadlines.set(slot, moved);
        }
        self.quiet.next_due(now_us)
    }

    /// Computes a port's next deadline anew, and whether it is watched for falling silent.
    pub(crate) fn schedule(&mut self, slot: u32) {
        self.catch_up_times(slot);
        let due = self.due_us(slot);
        self.deadlines.set(slot, due);
        self.quiet.set(slot, self.ports.get(slot).and_then(Port::quiet_us));
    }

    fn due_us(&self, slot: u32) -> Option<u64> {
        let port = self.ports.get(slot)?;
        let listeners = port.input.listeners.as_slice().iter();
        let programs = listeners
            .filter_map(|place| self.ops.get(*place).filter(|op| op.port == slot)?.due_us());
        programs.chain(port.due_us()).min()
    }

    pub(crate) fn emit(&mut self, event: WorkerEvent) {
        self.events.push_back(event);
    }

    pub(crate) fn drop_packet(&mut self, slot: u32, cause: DropCause) {
        self.stats.drop(cause);
        if let Some(port) = self.ports.get_mut(slot) {
            port.dropped += 1;
        }
    }
}
