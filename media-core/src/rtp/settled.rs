//! A relayed stream that has settled: one source, one payload type, nothing but the rewriting of its
//! header to be done. All that [`ReceiverStats`](super::stats::ReceiverStats) and
//! [`StreamRewriter`](super::rewrite::StreamRewriter) keep of such a stream lies in two cache lines,
//! because with thousands of streams most of a packet's time is waiting for memory.
//!
//! The arithmetic is that of those two, so that a stream can come from them and go back to them at any
//! packet: see [`ReceiverStats::resume`](super::stats::ReceiverStats::resume) and
//! [`StreamRewriter::resume`](super::rewrite::StreamRewriter::resume). A packet that is anything but the
//! next ones of such a stream is refused and changes nothing: it is for them to judge.

use super::packet::FIXED_HEADER_BYTES;
use super::rewrite::{Relaying, smoothed_transit};
use super::seq::seq_distance;
use super::stats::{
    Counted, JITTER_BREAK_SECONDS, MAX_DROPOUT, MAX_MISORDER, Reception, jitter_after, window_after,
};
use crate::units::{PayloadType, RtpTime, Ssrc};

/// Version 2, no padding, no extension, no contributing source.
const PLAIN: u8 = 0x80;
const MARKER: u8 = 0x80;

/// State of one stream. The order is that of cache lines: what every packet needs lies in the first two,
/// what stays as it is before what changes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct SettledStream {
    ssrc_in: Ssrc,
    ssrc_out: Ssrc,
    timestamp_offset: u32,
    seq_offset: u16,
    payload_type_in: PayloadType,
    payload_type_out: PayloadType,
    break_units: u32,
    frame_units_max: u32,
    jitter_break_units: u32,
    frame_units: u32,
    /// See [`floor`].
    floor: u64,
    highest: u64,
    window: u64,
    packets: u64,
    payload_bytes: u64,
    last_us: u64,
    gap_us_max: u64,
    jitter_q4: u32,
    jitter_units_max: u32,
    /// Media time minus incoming timestamp of the last packet that told one.
    transit_in: u32,
    timestamp: RtpTime,
    highest_in: RtpTime,
    highest_out: RtpTime,
    last_out: RtpTime,
    transit_out: u32,
    first_us: u64,
    // Seldom needed.
    duplicates: u64,
    reordered: u64,
    /// Of the rewriter minus that of the reception.
    highest_apart: i64,
    first: u64,
    relaying: Relaying,
}

/// The number, as extended in [`Reception`], up to which packets change more than where a stream stands:
/// those that its source began with in the rewriter, and those from before counting began.
#[must_use]
pub fn floor(reception: &Reception, relaying: &Relaying) -> u64 {
    let since_anchor = relaying.highest.saturating_sub(relaying.anchor);
    let anchor = reception.highest.saturating_sub(since_anchor);
    anchor.max(reception.first.saturating_sub(1))
}

/// What every packet needs of a [`SettledStream`], in bytes.
pub const SETTLED_HOT_BYTES: usize = 128;
const _: () = assert!(std::mem::offset_of!(SettledStream, duplicates) == SETTLED_HOT_BYTES);

impl SettledStream {
    /// A stream as it stands, whose last packet came at `last_us`. `None` while its transit time is not
    /// known, or if both sides have not seen the same packets.
    #[must_use]
    pub fn new(
        reception: &Reception,
        relaying: &Relaying,
        payload_types: (PayloadType, PayloadType),
        clock_rate_hz: u32,
        last_us: u64,
    ) -> Option<Self> {
        let same = relaying.ssrc_in == reception.ssrc
            && relaying.highest as u16 == reception.highest as u16;
        let transit_in = reception.transit.filter(|_| same)?;
        Some(Self {
            ssrc_in: relaying.ssrc_in,
            ssrc_out: relaying.ssrc_out,
            timestamp_offset: relaying.timestamp_offset,
            seq_offset: relaying.seq_offset,
            payload_type_in: payload_types.0,
            payload_type_out: payload_types.1,
            break_units: relaying.break_units,
            frame_units_max: relaying.frame_units_max,
            jitter_break_units: clock_rate_hz.saturating_mul(JITTER_BREAK_SECONDS),
            frame_units: relaying.frame_units,
            floor: floor(reception, relaying),
            highest: reception.highest,
            window: reception.window,
            packets: 0,
            payload_bytes: 0,
            last_us,
            gap_us_max: 0,
            jitter_q4: reception.jitter_q4,
            jitter_units_max: reception.jitter_units_max,
            transit_in,
            timestamp: reception.timestamp,
            highest_in: relaying.highest_in,
            highest_out: relaying.highest_out,
            last_out: relaying.highest_out,
            transit_out: relaying.transit,
            first_us: 0,
            duplicates: 0,
            reordered: 0,
            highest_apart: relaying.highest.wrapping_sub(reception.highest) as i64,
            first: reception.first,
            relaying: *relaying,
        })
    }

    /// Counts a packet that came at `arrival_us`, which is media time `now`, and rewrites its header for
    /// sending. False if it is not for here: then neither it nor the stream was changed.
    #[inline]
    pub fn relay(&mut self, packet: &mut [u8], arrival_us: u64, now: RtpTime) -> bool {
        let payload_bytes = packet.len().wrapping_sub(FIXED_HEADER_BYTES);
        let Some(header) = packet.first_chunk_mut::<FIXED_HEADER_BYTES>() else { return false };
        let [first, marker_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *header;
        if first != PLAIN
            || marker_type & !MARKER != self.payload_type_in.get()
            || u32::from_be_bytes([c0, c1, c2, c3]) != self.ssrc_in.0
        {
            return false;
        }
        let seq = u16::from_be_bytes([s0, s1]);
        let step = i64::from(seq_distance(seq, self.highest as u16));
        if step > MAX_DROPOUT as i64
            || step < -(MAX_MISORDER as i64)
            || self.highest.saturating_add_signed(step) <= self.floor
        {
            return false;
        }
        let timestamp = RtpTime(u32::from_be_bytes([t0, t1, t2, t3]));
        let out = timestamp.add(self.timestamp_offset);
        let expected = RtpTime(now.0.wrapping_sub(self.transit_out));
        if out.since(expected).unsigned_abs() > self.break_units {
            return false;
        }
        self.count(payload_bytes, arrival_us);
        self.last_out = out;
        if step > 0 {
            self.advance(step as u64, timestamp, out, now);
        } else if !self.place_behind(step.unsigned_abs()) {
            return self.write(header, seq, out);
        }
        self.note_jitter(timestamp, now);
        self.write(header, seq, out)
    }

    fn count(&mut self, payload_bytes: usize, arrival_us: u64) {
        if self.packets == 0 {
            self.first_us = arrival_us;
        } else {
            self.gap_us_max = self.gap_us_max.max(arrival_us.saturating_sub(self.last_us));
        }
        self.last_us = arrival_us;
        self.packets += 1;
        self.payload_bytes += payload_bytes as u64;
    }

    /// The packet is the furthest so far.
    fn advance(&mut self, step: u64, timestamp: RtpTime, out: RtpTime, now: RtpTime) {
        let units = timestamp.since(self.highest_in);
        self.highest += step;
        self.window = window_after(self.window, step);
        if units > 0 {
            if step == 1 && units as u32 <= self.frame_units_max {
                self.frame_units = units as u32;
            }
            self.highest_in = timestamp;
        }
        if out.is_after(self.highest_out) {
            self.highest_out = out;
            self.transit_out = smoothed_transit(self.transit_out, now.0.wrapping_sub(out.0));
        }
    }

    /// The packet is so many behind the furthest. False if it came before.
    fn place_behind(&mut self, back: u64) -> bool {
        let bit = 1u64.checked_shl(back as u32).unwrap_or(0);
        if self.window & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.window |= bit;
        self.reordered += 1;
        true
    }

    fn note_jitter(&mut self, timestamp: RtpTime, now: RtpTime) {
        if timestamp == self.timestamp {
            return;
        }
        let transit = now.0.wrapping_sub(timestamp.0);
        let difference = (transit.wrapping_sub(self.transit_in) as i32).unsigned_abs();
        if difference < self.jitter_break_units {
            self.jitter_q4 = jitter_after(self.jitter_q4, difference);
            self.jitter_units_max = self.jitter_units_max.max(self.jitter_q4 >> 4);
        }
        self.timestamp = timestamp;
        self.transit_in = transit;
    }

    fn write(&self, header: &mut [u8; FIXED_HEADER_BYTES], seq: u16, out: RtpTime) -> bool {
        let [s0, s1] = seq.wrapping_add(self.seq_offset).to_be_bytes();
        let [t0, t1, t2, t3] = out.0.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc_out.0.to_be_bytes();
        let marker_type = (header[1] & MARKER) | self.payload_type_out.get();
        *header = [PLAIN, marker_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3];
        true
    }

    /// What was counted since the stream came here.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        Counted {
            packets: self.packets,
            payload_bytes: self.payload_bytes,
            duplicates: self.duplicates,
            reordered: self.reordered,
            first_us: self.first_us,
            last_us: self.last_us,
            gap_us_max: self.gap_us_max,
        }
    }

    /// Where its reception stands.
    #[must_use]
    pub const fn reception(&self) -> Reception {
        Reception {
            ssrc: self.ssrc_in,
            first: self.first,
            highest: self.highest,
            window: self.window,
            jitter_q4: self.jitter_q4,
            jitter_units_max: self.jitter_units_max,
            transit: Some(self.transit_in),
            timestamp: self.timestamp,
        }
    }

    /// Where its rewriting stands.
    #[must_use]
    pub const fn relaying(&self) -> Relaying {
        Relaying {
            highest: self.highest.saturating_add_signed(self.highest_apart),
            highest_in: self.highest_in,
            highest_out: self.highest_out,
            transit: self.transit_out,
            frame_units: self.frame_units,
            ..self.relaying
        }
    }

    /// When the last packet came, in microseconds.
    #[must_use]
    pub const fn last_us(&self) -> u64 {
        self.last_us
    }

    /// Timestamp of the last packet sent.
    #[must_use]
    pub const fn last_out(&self) -> RtpTime {
        self.last_out
    }
}

#[cfg(test)]
#[path = "settled_tests.rs"]
mod tests;
