//! Receiver and sender statistics (RFC 3550 §6.4, appendices A.1, A.3 and A.8).

use super::seq::SeqExtender;
use crate::units::{RtpTime, Ssrc};

/// Packets in order before a source is believed (RFC 3550 A.1, MIN_SEQUENTIAL).
const MIN_SEQUENTIAL: u8 = 2;
/// Largest step ahead that is loss and not a restart (RFC 3550 A.1).
pub(super) const MAX_DROPOUT: u64 = 3000;
/// Largest step back that is reordering and not a restart (RFC 3550 A.1).
pub(super) const MAX_MISORDER: u64 = 100;
/// A step of transit time beyond this is a pause or a new time base, not jitter.
pub(super) const JITTER_BREAK_SECONDS: u32 = 10;

/// Jitter in 1/16 units after a packet whose transit time differs by so many units (RFC 3550 A.8).
pub(super) const fn jitter_after(jitter_q4: u32, difference_units: u32) -> u32 {
    let decay = jitter_q4.saturating_add(8) >> 4;
    jitter_q4.saturating_add(difference_units).saturating_sub(decay)
}

/// The window (bit n: number `highest - n` came) after a packet `step` ahead of the highest.
pub(super) const fn window_after(window: u64, step: u64) -> u64 {
    if step < 64 { (window << step) | 1 } else { 1 }
}

/// What a packet did to the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The source is still on probation; the packet is not counted in reports.
    Probation,
    /// The next packet or one further ahead.
    InOrder,
    /// Behind the highest number, seen for the first time.
    Reordered,
    /// A number seen before (within the last 64).
    Duplicate,
    /// A jump that may be a restart; believed when the next packet follows it.
    Jump,
    /// The source restarted its numbers, or another SSRC took over.
    Restarted,
}

/// Reception figures for a report block (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceptionReport {
    /// Fraction lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Cumulative packets lost, within 24 bits signed; negative with duplicates.
    pub cumulative_lost_packets: i32,
    /// Cycles and highest sequence number.
    pub extended_highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter_units: u32,
}

/// Figures over the whole life of a leg, across changes of SSRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverTotals {
    /// Packets that came, duplicates and probation included.
    pub packets: u64,
    /// Payload bytes that came.
    pub payload_bytes: u64,
    /// Packets that never came.
    pub lost_packets: u64,
    /// Numbers that came again.
    pub duplicate_packets: u64,
    /// Packets overtaken by a later one.
    pub reordered_packets: u64,
    /// Sources seen: SSRC changes and restarts of numbering, the first included.
    pub sources: u64,
    /// Longest time between two packets, in microseconds.
    pub gap_us_max: u64,
}

/// Where a source stands: what the next packet of it is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// Source.
    pub ssrc: Ssrc,
    /// Extended sequence number that counting began with: one before it changes what is expected.
    pub first: u64,
    /// Highest extended sequence number.
    pub highest: u64,
    /// Bit n: number `highest - n` came.
    pub window: u64,
    /// Jitter in 1/16 units.
    pub jitter_q4: u32,
    /// Highest jitter so far in units.
    pub jitter_units_max: u32,
    /// Relative transit time of the last packet that told one.
    pub transit: Option<u32>,
    /// Its timestamp.
    pub timestamp: RtpTime,
}

/// Packets counted elsewhere, at least the first of which is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Packets, doubles and overtaken ones included.
    pub packets: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// Overtaken packets.
    pub reordered: u64,
    /// When the first one came, in microseconds.
    pub first_us: u64,
    /// When the last one came, in microseconds.
    pub last_us: u64,
    /// Longest time between two of them, in microseconds.
    pub gap_us_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    ssrc: Ssrc,
    seq: SeqExtender,
    base: u64,
    received: u64,
    duplicates: u64,
    /// Bit n: number `highest - n` came.
    window: u64,
    expected_prior: u64,
    received_prior: u64,
    probation: u8,
    bad_seq: Option<u16>,
    last_transit: Option<u32>,
    last_timestamp: RtpTime,
    jitter_q4: u32,
}

/// Statistics of what one endpoint sends to us. `arrival_us` is a monotonic clock in microseconds.
#[derive(Debug, Clone)]
pub struct ReceiverStats {
    clock_rate_hz: u32,
    source: Option<Known>,
    totals: ReceiverTotals,
    jitter_units_max: u32,
    last_arrival_us: Option<u64>,
    gap_us_max: u64,
}

impl ReceiverStats {
    /// Empty statistics for a payload clock of `clock_rate_hz`.
    #[must_use]
    pub fn new(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz,
            source: None,
            totals: ReceiverTotals::default(),
            jitter_units_max: 0,
            last_arrival_us: None,
            gap_us_max: 0,
        }
    }

    /// Counts one packet.
    pub fn on_packet(
        &mut self,
        ssrc: Ssrc,
        seq: u16,
        timestamp: RtpTime,
        payload_bytes: usize,
        arrival_us: u64,
    ) -> Arrival {
        self.totals.packets += 1;
        self.totals.payload_bytes += payload_bytes as u64;
        if let Some(last) = self.last_arrival_us {
            let gap = arrival_us.saturating_sub(last);
            self.gap_us_max = self.gap_us_max.max(gap);
            self.totals.gap_us_max = self.totals.gap_us_max.max(gap);
        }
        self.last_arrival_us = Some(arrival_us);
        let arrival = match &mut self.source {
            Some(known) if known.ssrc == ssrc => known.update(seq, &mut self.totals),
            other => {
                let replaced = other.is_some();
                if let Some(old) = other.take() {
                    self.totals.lost_packets += old.missing();
                }
                self.totals.sources += 1;
                *other = Some(Known::new(ssrc, seq, timestamp));
                if replaced { Arrival::Restarted } else { Arrival::Probation }
            }
        };
        if matches!(arrival, Arrival::InOrder | Arrival::Reordered | Arrival::Restarted)
            && let Some(known) = &mut self.source
        {
            known.update_jitter(timestamp, arrival_us, self.clock_rate_hz);
            self.jitter_units_max = self.jitter_units_max.max(known.jitter_q4 >> 4);
        }
        arrival
    }

    /// Where the present source stands, for one who goes on counting elsewhere. `None` while the
    /// source is on probation or may have jumped.
    #[must_use]
    pub fn reception(&self) -> Option<Reception> {
        let known = self.source.as_ref()?;
        if known.probation > 0 || known.bad_seq.is_some() {
            return None;
        }
        Some(Reception {
            ssrc: known.ssrc,
            first: known.base,
            highest: known.seq.highest()?,
            window: known.window,
            jitter_q4: known.jitter_q4,
            jitter_units_max: self.jitter_units_max,
            transit: known.last_transit,
            timestamp: known.last_timestamp,
        })
    }

    /// Takes over what was counted elsewhere since [`Self::reception`] or the last call of this.
    pub fn resume(&mut self, now: &Reception, counted: &Counted) {
        let Some(known) = self.source.as_mut().filter(|known| known.ssrc == now.ssrc) else {
            return;
        };
        if counted.packets == 0 {
            return;
        }
        known.seq = SeqExtender::at(now.highest);
        known.window = now.window;
        known.jitter_q4 = now.jitter_q4;
        known.last_transit = now.transit;
        known.last_timestamp = now.timestamp;
        known.received += counted.packets;
        known.duplicates += counted.duplicates;
        self.jitter_units_max = self.jitter_units_max.max(now.jitter_units_max);
        let totals = &mut self.totals;
        totals.packets += counted.packets;
        totals.payload_bytes += counted.payload_bytes;
        totals.duplicate_packets += counted.duplicates;
        totals.reordered_packets += counted.reordered;
        let before = self.last_arrival_us.replace(counted.last_us);
        let first = before.map_or(0, |before| counted.first_us.saturating_sub(before));
        let gap = first.max(counted.gap_us_max);
        self.gap_us_max = self.gap_us_max.max(gap);
        totals.gap_us_max = totals.gap_us_max.max(gap);
    }

    /// The SSRC in force.
    #[must_use]
    pub fn ssrc(&self) -> Option<Ssrc> {
        self.source.as_ref().map(|k| k.ssrc)
    }

    /// When the last packet came, in microseconds.
    #[must_use]
    pub const fn last_arrival_us(&self) -> Option<u64> {
        self.last_arrival_us
    }

    /// Interarrival jitter in timestamp units (RFC 3550 A.8).
    #[must_use]
    pub fn jitter_units(&self) -> u32 {
        self.source.as_ref().map_or(0, |k| k.jitter_q4 >> 4)
    }

    /// Interarrival jitter in microseconds.
    #[must_use]
    pub fn jitter_us(&self) -> u64 {
        u64::from(self.jitter_units()) * 1_000_000 / u64::from(self.clock_rate_hz.max(1))
    }

    /// Highest jitter so far in timestamp units.
    #[must_use]
    pub const fn jitter_units_max(&self) -> u32 {
        self.jitter_units_max
    }

    /// Figures over the whole life, losses of the present source included.
    #[must_use]
    pub fn totals(&self) -> ReceiverTotals {
        let mut totals = self.totals;
        totals.lost_packets += self.source.as_ref().map_or(0, |k| k.missing());
        totals
    }

    /// Longest time between two packets since the last call of this, in microseconds. A pause
    /// that is still going on is not part of it.
    pub fn take_gap_us_max(&mut self) -> u64 {
        std::mem::take(&mut self.gap_us_max)
    }

    /// Forgets when the last packet came, so that a pause that was asked for (hold, a change of
    /// mode that stops the sender) is not counted as a gap.
    pub const fn forget_arrival(&mut self) {
        self.last_arrival_us = None;
    }

    /// Figures for the next report block; moves the interval for `fraction_lost`. `None` while no
    /// source is past probation.
    pub fn take_report(&mut self) -> Option<ReceptionReport> {
        let known = self.source.as_mut()?;
        if known.probation > 0 {
            return None;
        }
        let expected = known.expected();
        let expected_interval = expected.saturating_sub(known.expected_prior);
        let received_interval = known.received.saturating_sub(known.received_prior);
        known.expected_prior = expected;
        known.received_prior = known.received;
        let lost = expected_interval.saturating_sub(received_interval);
        let fraction = (lost << 8).checked_div(expected_interval).unwrap_or(0).min(255);
        Some(ReceptionReport {
            fraction_lost: fraction as u8,
            cumulative_lost_packets: known.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            extended_highest_seq: known.seq.highest().unwrap_or(0).wrapping_sub(0x1_0000) as u32,
            jitter_units: known.jitter_q4 >> 4,
        })
    }
}

impl Known {
    fn new(ssrc: Ssrc, seq: u16, timestamp: RtpTime) -> Self {
        let mut extender = SeqExtender::new();
        let base = extender.extend(seq);
        Self {
            ssrc,
            seq: extender,
            base,
            received: 1,
            duplicates: 0,
            window: 1,
            expected_prior: 0,
            received_prior: 0,
            probation: MIN_SEQUENTIAL - 1,
            bad_seq: None,
            last_transit: None,
            last_timestamp: timestamp,
            jitter_q4: 0,
        }
    }

    fn restart(&mut self, seq: u16) {
        self.seq = SeqExtender::new();
        self.base = self.seq.extend(seq);
        self.received = 1;
        self.duplicates = 0;
        self.window = 1;
        self.expected_prior = 0;
        self.received_prior = 0;
        self.bad_seq = None;
        self.last_transit = None;
    }

    fn expected(&self) -> u64 {
        self.seq.highest().map_or(0, |h| (h + 1).saturating_sub(self.base))
    }

    fn lost(&self) -> i64 {
        if self.probation > 0 {
            return 0;
        }
        self.expected() as i64 - self.received as i64
    }

    /// Packets that never came; unlike [`Self::lost`], duplicates do not make up for them.
    fn missing(&self) -> u64 {
        u64::try_from(self.lost() + self.duplicates as i64).unwrap_or(0)
    }

    fn update(&mut self, seq: u16, totals: &mut ReceiverTotals) -> Arrival {
        let highest = self.seq.highest().unwrap_or(self.base);
        let extended = self.seq.peek(seq);
        if self.probation > 0 {
            if extended == highest + 1 {
                // RFC 3550 A.1 counts from the packet that ends probation; counting from the
                // first keeps short streams exact.
                self.probation -= 1;
            } else if extended != highest {
                self.restart(seq);
                self.probation = MIN_SEQUENTIAL - 1;
                return Arrival::Probation;
            }
        } else if extended > highest + MAX_DROPOUT || extended + MAX_MISORDER < highest {
            if self.bad_seq == Some(seq) {
                totals.lost_packets += self.missing();
                totals.sources += 1;
                self.restart(seq);
                return Arrival::Restarted;
            }
            self.bad_seq = Some(seq.wrapping_add(1));
            return Arrival::Jump;
        }
        self.bad_seq = None;
        self.place(extended, highest, totals)
    }

    fn place(&mut self, extended: u64, highest: u64, totals: &mut ReceiverTotals) -> Arrival {
        if extended > highest {
            let step = extended - highest;
            self.window = window_after(self.window, step);
            self.seq.extend(extended as u16);
            self.received += 1;
            return Arrival::InOrder;
        }
        self.received += 1;
        let bit = 1u64.checked_shl((highest - extended) as u32).unwrap_or(0);
        if self.window & bit != 0 {
            totals.duplicate_packets += 1;
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.window |= bit;
        totals.reordered_packets += 1;
        // A packet from before the first one widens what is expected.
        self.base = self.base.min(extended);
        Arrival::Reordered
    }

    fn update_jitter(&mut self, timestamp: RtpTime, arrival_us: u64, clock_rate_hz: u32) {
        // Packets that share a timestamp (RFC 4733 updates) say nothing about transit time.
        if self.last_transit.is_some() && timestamp == self.last_timestamp {
            return;
        }
        self.last_timestamp = timestamp;
        let transit = (units(arrival_us, clock_rate_hz) as u32).wrapping_sub(timestamp.0);
        if let Some(last) = self.last_transit.replace(transit) {
            let d = (transit.wrapping_sub(last) as i32).unsigned_abs();
            if d < clock_rate_hz.saturating_mul(JITTER_BREAK_SECONDS) {
                self.jitter_q4 = jitter_after(self.jitter_q4, d);
            }
        }
    }
}

/// A time in microseconds in units of the clock, rounded down. Second by second: for a quotient of 128
/// bits there is no machine instruction.
const fn units(us: u64, clock_rate_hz: u32) -> u64 {
    let (seconds, rest_us) = (us / 1_000_000, us % 1_000_000);
    seconds.wrapping_mul(clock_rate_hz as u64) + rest_us * clock_rate_hz as u64 / 1_000_000
}

/// Counts for a sender report (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderStats {
    /// Packets sent.
    pub packets: u64,
    /// Payload bytes sent, without header and padding.
    pub payload_bytes: u64,
    /// Timestamp of the last packet and when it was sent, in microseconds.
    pub last: Option<(RtpTime, u64)>,
    /// Longest time between two packets, in microseconds.
    pub gap_us_max: u64,
}

impl SenderStats {
    /// Counts one packet sent at `now_us`.
    pub fn on_packet(&mut self, timestamp: RtpTime, payload_bytes: usize, now_us: u64) {
        if let Some((_, last_us)) = self.last {
            self.gap_us_max = self.gap_us_max.max(now_us.saturating_sub(last_us));
        }
        self.packets += 1;
        self.payload_bytes += payload_bytes as u64;
        self.last = Some((timestamp, now_us));
    }

    /// Takes over packets that were sent elsewhere; `timestamp` is that of the last one.
    pub fn resume(&mut self, timestamp: RtpTime, counted: &Counted) {
        if counted.packets == 0 {
            return;
        }
        let first = self.last.map_or(0, |(_, last_us)| counted.first_us.saturating_sub(last_us));
        self.gap_us_max = self.gap_us_max.max(first).max(counted.gap_us_max);
        self.packets += counted.packets;
        self.payload_bytes += counted.payload_bytes;
        self.last = Some((timestamp, counted.last_us));
    }

    /// Longest time between two packets since the last call of this, in microseconds.
    pub fn take_gap_us_max(&mut self) -> u64 {
        std::mem::take(&mut self.gap_us_max)
    }

    /// RTP timestamp that belongs to `now_us`, for a sender report.
    #[must_use]
    pub fn timestamp_at(&self, now_us: u64, clock_rate_hz: u32) -> RtpTime {
        let Some((timestamp, at_us)) = self.last else { return RtpTime(0) };
        timestamp.add(units(now_us.saturating_sub(at_us), clock_rate_hz) as u32)
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
