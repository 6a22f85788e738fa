//! Jitter buffer for streams that are decoded here (mixing, collecting, transcoding).
//!
//! Packets go in as they come and come out in order at the consumer's pace, one [`Pop`] per frame
//! time. Playing starts when the target delay is buffered, or has passed since the first packet;
//! after an underrun it starts anew. The target is fixed or follows the measured delay variation.
//! All storage is allocated in [`JitterBuffer::new`].

use crate::rtp::seq::{SeqExtender, TimestampExtender};
use crate::units::{RtpTime, Ssrc};

/// Steps of the sequence number beyond this, either way, restart the buffer.
const SEQ_JUMP_PACKETS: u64 = 1000;
/// Frames between two that are dropped to reduce the delay.
const CATCH_UP_FRAMES: u32 = 25;
/// The lowest transit time is raised by this per packet, so that clock drift is followed.
const DRIFT_US_PER_PACKET: i64 = 20;

/// Capacities and delays. All in the units of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JitterConfig {
    /// RTP clock rate in hertz.
    pub clock_rate_hz: u32,
    /// Most packets held, 4–1024.
    pub packets_max: usize,
    /// Longest payload held; longer packets are refused and counted.
    pub payload_bytes_max: usize,
    /// Delay at the start, and for ever if `adaptive` is not set.
    pub target_ms: u32,
    /// Whether the target follows the measured variation of delay.
    pub adaptive: bool,
    /// Bounds of the adaptive target.
    pub target_ms_min: u32,
    /// Bounds of the adaptive target; audio beyond this much more than the target is dropped.
    pub target_ms_max: u32,
}

impl JitterConfig {
    /// 40 ms at first, adapting from 20 to 200 ms, for frames of up to 480 bytes.
    #[must_use]
    pub const fn adaptive(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz,
            packets_max: 64,
            payload_bytes_max: 480,
            target_ms: 40,
            adaptive: true,
            target_ms_min: 20,
            target_ms_max: 200,
        }
    }
}

/// One packet to be buffered.
#[derive(Debug, Clone, Copy)]
pub struct JitterPacket<'a> {
    /// Synchronisation source; another one restarts the buffer.
    pub ssrc: Ssrc,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: RtpTime,
    /// Duration of the payload in timestamp units; 0 for packets without audio (telephone
    /// events), which only explain their sequence number.
    pub units: u32,
    /// Payload.
    pub payload: &'a [u8],
}

/// What became of an inserted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It will be played.
    Buffered,
    /// It was there before.
    Duplicate,
    /// Its time is over.
    Late,
    /// Longer than a slot.
    TooLong,
}

/// What to play for the next frame time.
#[derive(Debug, PartialEq, Eq)]
pub enum Pop<'a> {
    /// Decode this.
    Frame {
        /// Payload.
        payload: &'a [u8],
        /// Timestamp.
        timestamp: RtpTime,
        /// Duration in timestamp units.
        units: u32,
    },
    /// A packet is missing: conceal one frame.
    Lost,
    /// The sender pauses: play silence or comfort noise.
    Silence,
    /// Nothing to play: before the start, or underrun.
    Empty,
}

/// What happened in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JitterCounters {
    /// Frames played.
    pub played: u64,
    /// Frames concealed.
    pub lost: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets that came twice.
    pub duplicate: u64,
    /// Packets longer than a slot.
    pub too_long: u64,
    /// Frames dropped to reduce the delay or because the buffer was full.
    pub dropped: u64,
    /// Times the buffer ran empty, at pauses of the sender too.
    pub underruns: u64,
    /// Restarts by a new source or a jump.
    pub restarts: u64,
}

#[derive(Debug, Clone)]
struct Slot {
    seq: Option<u64>,
    timestamp: RtpTime,
    units: u32,
    len: usize,
}

/// See the module page.
#[derive(Debug, Clone)]
pub struct JitterBuffer {
    config: JitterConfig,
    slots: Vec<Slot>,
    payloads: Vec<u8>,
    ssrc: Option<Ssrc>,
    extender: SeqExtender,
    time: TimestampExtender,
    /// Next sequence number to play; set by the first packet.
    next_seq: u64,
    /// Timestamp that is due next; meaningful while playing.
    next_timestamp: RtpTime,
    last_units: u32,
    playing: bool,
    first_arrival_us: Option<u64>,
    target_us: u64,
    lowest_transit_us: Option<i64>,
    peak_us: i64,
    frames_since_drop: u32,
    counters: JitterCounters,
}

impl JitterBuffer {
    /// An empty buffer; the only place that allocates.
    #[must_use]
    pub fn new(config: JitterConfig) -> Self {
        let config = JitterConfig {
            clock_rate_hz: config.clock_rate_hz.max(1),
            packets_max: config.packets_max.clamp(4, 1024),
            payload_bytes_max: config.payload_bytes_max.clamp(1, 1 << 16),
            target_ms_max: config.target_ms_max.clamp(config.target_ms_min, 10_000),
            ..config
        };
        let slot = Slot { seq: None, timestamp: RtpTime(0), units: 0, len: 0 };
        Self {
            slots: vec![slot; config.packets_max],
            payloads: vec![0; config.packets_max * config.payload_bytes_max],
            ssrc: None,
            extender: SeqExtender::new(),
            time: TimestampExtender::new(),
            next_seq: 0,
            next_timestamp: RtpTime(0),
            last_units: config.clock_rate_hz / 50,
            playing: false,
            first_arrival_us: None,
            target_us: u64::from(config.target_ms) * 1000,
            lowest_transit_us: None,
            peak_us: 0,
            frames_since_drop: 0,
            counters: JitterCounters::default(),
            config,
        }
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> JitterCounters {
        self.counters
    }

    /// Delay that is aimed at, in milliseconds.
    #[must_use]
    pub const fn target_ms(&self) -> u32 {
        (self.target_us / 1000) as u32
    }

    /// Audio buffered, in milliseconds, holes included.
    #[must_use]
    pub fn buffered_ms(&self) -> u32 {
        (self.buffered_us() / 1000) as u32
    }

    /// Forgets all packets and the source; keeps counters and the learnt target.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.seq = None;
        }
        self.ssrc = None;
        self.extender = SeqExtender::new();
        self.time = TimestampExtender::new();
        self.playing = false;
        self.first_arrival_us = None;
        self.lowest_transit_us = None;
    }

    /// Takes a packet that came at `arrival_us` (monotonic).
    pub fn insert(&mut self, packet: &JitterPacket<'_>, arrival_us: u64) -> Inserted {
        if packet.payload.len() > self.config.payload_bytes_max {
            self.counters.too_long += 1;
            return Inserted::TooLong;
        }
        let seq = self.place(packet);
        if seq < self.next_seq || self.is_past(packet) {
            self.counters.late += 1;
            self.measure(packet, arrival_us);
            return Inserted::Late;
        }
        self.make_room(seq);
        let index = self.index(seq);
        let Some(slot) = self.slots.get_mut(index) else { return Inserted::Late };
        if slot.seq == Some(seq) {
            self.counters.duplicate += 1;
            return Inserted::Duplicate;
        }
        *slot = Slot {
            seq: Some(seq),
            timestamp: packet.timestamp,
            units: packet.units,
            len: packet.payload.len(),
        };
        let start = index * self.config.payload_bytes_max;
        if let Some(room) = self.payloads.get_mut(start..start + packet.payload.len()) {
            room.copy_from_slice(packet.payload);
        }
        self.first_arrival_us.get_or_insert(arrival_us);
        self.measure(packet, arrival_us);
        Inserted::Buffered
    }

    /// What to play now. Call once per frame time; the frame's duration is the sender's.
    pub fn pop(&mut self, now_us: u64) -> Pop<'_> {
        if !self.playing && !self.try_start(now_us) {
            return Pop::Empty;
        }
        self.catch_up();
        let Some(seq) = self.oldest() else {
            self.playing = false;
            self.first_arrival_us = None;
            self.counters.underruns += 1;
            return Pop::Empty;
        };
        let index = self.index(seq);
        let Some(slot) = self.slots.get(index) else { return Pop::Empty };
        let (timestamp, units, len) = (slot.timestamp, slot.units, slot.len);
        let ahead = timestamp.since(self.next_timestamp);
        let ahead_max = self.units_of_us(u64::from(self.config.target_ms_max) * 1000);
        if ahead > 0 && ahead as u32 >= self.last_units && ahead as u64 <= ahead_max {
            self.next_timestamp = self.next_timestamp.add(self.last_units);
            if seq > self.next_seq {
                self.counters.lost += 1;
                return Pop::Lost;
            }
            return Pop::Silence;
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.seq = None;
        }
        self.next_seq = seq + 1;
        self.next_timestamp = timestamp.add(units);
        self.last_units = units;
        self.counters.played += 1;
        self.frames_since_drop = self.frames_since_drop.saturating_add(1);
        let start = index * self.config.payload_bytes_max;
        let payload = self.payloads.get(start..start + len).unwrap_or_default();
        Pop::Frame { payload, timestamp, units }
    }

    /// Extended sequence number; restarts the buffer when the packet does not belong to the source.
    fn place(&mut self, packet: &JitterPacket<'_>) -> u64 {
        if self.ssrc == Some(packet.ssrc) {
            let seq = self.extender.peek(packet.seq);
            let highest = self.extender.highest().unwrap_or(seq);
            let time_jump = packet.timestamp.since(self.next_timestamp).unsigned_abs()
                > self.config.clock_rate_hz.saturating_mul(10);
            if seq.abs_diff(highest) <= SEQ_JUMP_PACKETS && !(self.playing && time_jump) {
                return self.extender.extend(packet.seq);
            }
        }
        if self.ssrc.is_some() {
            self.counters.restarts += 1;
            let held = self.slots.iter().filter(|s| s.seq.is_some() && s.units > 0).count();
            self.counters.dropped += held as u64;
        }
        self.clear();
        self.ssrc = Some(packet.ssrc);
        let seq = self.extender.extend(packet.seq);
        // Packets overtaken by the first one are still welcome.
        self.next_seq = seq.saturating_sub(self.slots.len() as u64 / 2);
        seq
    }

    fn is_past(&self, packet: &JitterPacket<'_>) -> bool {
        self.playing && packet.units > 0 && packet.timestamp.since(self.next_timestamp) < 0
    }

    fn try_start(&mut self, now_us: u64) -> bool {
        let Some(first_us) = self.first_arrival_us else { return false };
        let waited = now_us.saturating_sub(first_us);
        if self.buffered_us() < self.target_us && waited < self.target_us {
            return false;
        }
        let Some(seq) = self.oldest() else { return false };
        let Some(slot) = self.slots.get(self.index(seq)) else { return false };
        self.next_timestamp = slot.timestamp;
        self.next_seq = seq;
        self.playing = true;
        true
    }

    /// Moves on until `seq` has a slot.
    fn make_room(&mut self, seq: u64) {
        let first = (seq + 1).saturating_sub(self.slots.len() as u64);
        while self.next_seq < first {
            match self.oldest() {
                Some(oldest) if oldest < first => self.drop_oldest(),
                _ => self.next_seq = first,
            }
        }
    }

    /// Drops a frame now and then while much more than the target is buffered.
    fn catch_up(&mut self) {
        let frame_us = self.us_of_units(self.last_units);
        let excess = self.buffered_us().saturating_sub(self.target_us + 2 * frame_us);
        let far = excess > u64::from(self.config.target_ms_max) * 1000;
        if excess > 0 && (far || self.frames_since_drop >= CATCH_UP_FRAMES) {
            self.frames_since_drop = 0;
            self.drop_oldest();
        }
    }

    /// Gives up the next sequence number, whether its packet is there or not.
    fn drop_oldest(&mut self) {
        let seq = self.oldest().unwrap_or(self.next_seq);
        let index = self.index(seq);
        if let Some(slot) = self.slots.get_mut(index)
            && slot.seq.take() == Some(seq)
        {
            self.next_timestamp = slot.timestamp.add(slot.units);
            self.counters.dropped += u64::from(slot.units > 0);
        }
        self.next_seq = seq + 1;
    }

    /// Lowest sequence number with audio; passes over packets without.
    fn oldest(&mut self) -> Option<u64> {
        for seq in self.next_seq..self.next_seq + self.slots.len() as u64 {
            let index = self.index(seq);
            let slot = self.slots.get_mut(index)?;
            if slot.seq != Some(seq) {
                continue;
            }
            if slot.units > 0 {
                return Some(seq);
            }
            if seq == self.next_seq {
                slot.seq = None;
                self.next_seq = seq + 1;
            }
        }
        None
    }

    fn index(&self, seq: u64) -> usize {
        (seq % self.slots.len() as u64) as usize
    }

    fn buffered_us(&self) -> u64 {
        let mut span: Option<(RtpTime, RtpTime)> = None;
        for slot in self.slots.iter().filter(|s| s.units > 0) {
            if slot.seq.is_none_or(|seq| seq < self.next_seq) {
                continue;
            }
            let end = slot.timestamp.add(slot.units);
            let (first, last) = span.unwrap_or((slot.timestamp, end));
            let first = if first.is_after(slot.timestamp) { slot.timestamp } else { first };
            let last = if end.is_after(last) { end } else { last };
            span = Some((first, last));
        }
        let Some((first, last)) = span else { return 0 };
        let from = if self.playing { self.next_timestamp } else { first };
        self.us_of_units(u32::try_from(last.since(from)).unwrap_or(0))
    }

    /// Follows the variation of transit times: peak above the lowest, forgotten over some seconds.
    fn measure(&mut self, packet: &JitterPacket<'_>, arrival_us: u64) {
        if packet.units == 0 {
            return;
        }
        let units = u128::from(self.time.extend(packet.timestamp.0));
        let media_us = units * 1_000_000 / u128::from(self.config.clock_rate_hz);
        let media_us = i64::try_from(media_us).unwrap_or(i64::MAX);
        let transit = i64::try_from(arrival_us).unwrap_or(i64::MAX).saturating_sub(media_us);
        let lowest = self
            .lowest_transit_us
            .map_or(transit, |l| l.saturating_add(DRIFT_US_PER_PACKET).min(transit));
        self.lowest_transit_us = Some(lowest);
        let above = transit.saturating_sub(lowest);
        self.peak_us = above.max(self.peak_us - self.peak_us / 256);
        if self.config.adaptive {
            let frame_us = self.us_of_units(packet.units);
            let wanted = u64::try_from(self.peak_us).unwrap_or(0) + frame_us / 2;
            let min = u64::from(self.config.target_ms_min) * 1000;
            let max = u64::from(self.config.target_ms_max) * 1000;
            self.target_us = wanted.clamp(min, max);
        }
    }

    fn us_of_units(&self, units: u32) -> u64 {
        u64::from(units) * 1_000_000 / u64::from(self.config.clock_rate_hz)
    }

    fn units_of_us(&self, us: u64) -> u64 {
        us * u64::from(self.config.clock_rate_hz) / 1_000_000
    }
}

#[cfg(test)]
#[path = "jitter_tests.rs"]
mod tests;
