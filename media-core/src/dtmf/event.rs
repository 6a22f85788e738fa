//! Telephone events in RTP (RFC 4733), both ways.
//!
//! All packets of one event carry its start as timestamp; that is the key by which repeats, lost
//! first packets and lost end packets are told from new events.

use super::Digit;
use crate::rtp::rewrite::{Outgoing, SourceId, StreamRewriter};
use crate::units::{RtpTime, Ssrc};

/// Bytes of one event payload.
pub const EVENT_BYTES: usize = 4;
/// Packets that carry the end bit (RFC 4733 §2.5.1.4).
const END_PACKETS: u8 = 3;
/// An event without packets for this long is over though its end was never seen.
const SILENT_END_US: u64 = 150_000;
/// A timestamp this far behind the last event's is a repeat and not a new time base, in seconds.
const REPEAT_S: u32 = 5;
/// An event without packets for this long after its end is forgotten: test tools and some gateways
/// play the same recorded packets for every press.
const REMEMBER_US: u64 = 400_000;

/// Contents of an event payload (RFC 4733 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPayload {
    /// Event code; 0–15 are DTMF digits.
    pub event: u8,
    /// End bit.
    pub end: bool,
    /// Power in −dBm0, 0–63.
    pub volume: u8,
    /// Duration so far in timestamp units.
    pub duration_units: u16,
}

impl EventPayload {
    /// Reads the first event of a payload; `None` when it is shorter than four bytes.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[event, flags, d0, d1] = payload.first_chunk::<EVENT_BYTES>()?;
        Some(Self {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration_units: u16::from_be_bytes([d0, d1]),
        })
    }

    /// The payload's bytes; the reserved bit is 0.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; EVENT_BYTES] {
        let [d0, d1] = self.duration_units.to_be_bytes();
        [self.event, ((self.end as u8) << 7) | (self.volume & 0x3f), d0, d1]
    }
}

/// What the receiver reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigitEvent {
    /// A key went down.
    Start(Digit),
    /// The key went up.
    End {
        /// Which key.
        digit: Digit,
        /// How long it was down, in milliseconds, as far as it is known.
        duration_ms: u32,
    },
}

/// What the receiver dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounters {
    /// Digits reported.
    pub digits: u64,
    /// Packets of an event that was already over.
    pub repeated_packets: u64,
    /// Events above 15, which are not digits.
    pub ignored_events: u64,
    /// Payloads shorter than four bytes.
    pub malformed_packets: u64,
    /// Digits whose end was inferred from silence or from the next digit.
    pub ends_inferred: u64,
}

#[derive(Debug, Clone, Copy)]
struct Active {
    digit: Digit,
    ssrc: Ssrc,
    timestamp: RtpTime,
    duration_units: u32,
    last_raw_units: u16,
    last_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Finished {
    digit: Digit,
    ssrc: Ssrc,
    timestamp: RtpTime,
    last_us: u64,
}

/// Receives events of one stream. Clock: monotonic microseconds by argument.
#[derive(Debug, Clone)]
pub struct EventReceiver {
    clock_rate_hz: u32,
    active: Option<Active>,
    finished: Option<Finished>,
    counters: EventCounters,
}

impl EventReceiver {
    /// A receiver for a payload clock of `clock_rate_hz`.
    #[must_use]
    pub fn new(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz: clock_rate_hz.max(1),
            active: None,
            finished: None,
            counters: EventCounters::default(),
        }
    }

    /// Takes one packet of the negotiated payload type. Reports at most an end (of the digit
    /// before or of this one) and a start; an end that follows its own start in one packet (all
    /// earlier packets lost) comes second.
    pub fn on_packet(
        &mut self,
        ssrc: Ssrc,
        timestamp: RtpTime,
        payload: &[u8],
        now_us: u64,
    ) -> [Option<DigitEvent>; 3] {
        let Some(event) = EventPayload::parse(payload) else {
            self.counters.malformed_packets += 1;
            return [None; 3];
        };
        let Some(digit) = Digit::from_event(event.event) else {
            self.counters.ignored_events += 1;
            return [None; 3];
        };
        if self.is_over(ssrc, timestamp, digit, now_us) {
            self.counters.repeated_packets += 1;
            return [None; 3];
        }
        let mut inferred = None;
        let mut start = None;
        if let Some(active) = self.active
            && !self.continues(&active, ssrc, timestamp, digit)
        {
            if ssrc == active.ssrc && self.is_behind(timestamp, active.timestamp) {
                self.counters.repeated_packets += 1;
                return [None; 3];
            }
            self.counters.ends_inferred += 1;
            inferred = self.finish(now_us);
        }
        match &mut self.active {
            None => {
                start = Some(DigitEvent::Start(digit));
                self.counters.digits += 1;
                self.active = Some(Active {
                    digit,
                    ssrc,
                    timestamp,
                    duration_units: u32::from(event.duration_units),
                    last_raw_units: event.duration_units,
                    last_us: now_us,
                });
            }
            Some(active) => active.prolong(timestamp, event.duration_units, now_us),
        }
        let end = if event.end { self.finish(now_us) } else { None };
        [inferred, start, end]
    }

    /// Reports the end of a digit whose packets stopped. Call at [`Self::deadline_us`] or any tick.
    pub fn on_time(&mut self, now_us: u64) -> Option<DigitEvent> {
        if now_us < self.deadline_us()? {
            return None;
        }
        self.counters.ends_inferred += 1;
        self.finish(now_us)
    }

    /// When the active digit ends unless packets come.
    #[must_use]
    pub fn deadline_us(&self) -> Option<u64> {
        self.active.map(|a| a.last_us.saturating_add(SILENT_END_US))
    }

    /// The key that is down.
    #[must_use]
    pub fn active(&self) -> Option<Digit> {
        self.active.map(|a| a.digit)
    }

    /// What was reported and dropped.
    #[must_use]
    pub const fn counters(&self) -> EventCounters {
        self.counters
    }

    fn finish(&mut self, now_us: u64) -> Option<DigitEvent> {
        let active = self.active.take()?;
        self.finished = Some(Finished {
            digit: active.digit,
            ssrc: active.ssrc,
            timestamp: active.timestamp,
            last_us: now_us,
        });
        let ms = u64::from(active.duration_units) * 1000 / u64::from(self.clock_rate_hz);
        Some(DigitEvent::End { digit: active.digit, duration_ms: ms as u32 })
    }

    /// The same event, or its next segment: an event longer than 0xffff units goes on with a new
    /// timestamp (RFC 4733 §2.5.1.3).
    fn continues(&self, active: &Active, ssrc: Ssrc, timestamp: RtpTime, digit: Digit) -> bool {
        if active.ssrc != ssrc || active.digit != digit {
            return false;
        }
        timestamp == active.timestamp
            || (active.last_raw_units == u16::MAX
                && timestamp == active.timestamp.add(u32::from(u16::MAX)))
    }

    /// A packet of the last finished event or of one before it.
    fn is_over(&mut self, ssrc: Ssrc, timestamp: RtpTime, digit: Digit, now_us: u64) -> bool {
        let Some(mut last) = self.finished else { return false };
        let remembered = now_us.saturating_sub(last.last_us) < REMEMBER_US;
        let same = timestamp == last.timestamp && digit == last.digit;
        if !remembered || last.ssrc != ssrc || !(same || self.is_behind(timestamp, last.timestamp))
        {
            return false;
        }
        last.last_us = now_us;
        self.finished = Some(last);
        true
    }

    fn is_behind(&self, timestamp: RtpTime, last: RtpTime) -> bool {
        let behind = last.since(timestamp);
        behind > 0 && (behind as u32) < self.clock_rate_hz.saturating_mul(REPEAT_S)
    }
}

impl Active {
    fn prolong(&mut self, timestamp: RtpTime, raw_units: u16, now_us: u64) {
        self.last_us = self.last_us.max(now_us);
        if timestamp != self.timestamp {
            self.timestamp = timestamp;
            self.duration_units = self.duration_units.saturating_add(u32::from(raw_units));
            self.last_raw_units = raw_units;
        } else if raw_units > self.last_raw_units {
            let step = u32::from(raw_units - self.last_raw_units);
            self.duration_units = self.duration_units.saturating_add(step);
            self.last_raw_units = raw_units;
        }
    }
}

/// Sends one event: a packet at once, one each tick, and three with the end bit.
///
/// Numbers come from the stream's [`StreamRewriter`], so the audio stream's sequence goes on
/// through the event. Audio that was replaced goes on with a new [`SourceId`].
#[derive(Debug, Clone)]
pub struct EventSender {
    digit: Digit,
    volume: u8,
    source: SourceId,
    step_units: u16,
    total_units: u16,
    sent_units: u16,
    timestamp: Option<RtpTime>,
    ends_left: u8,
}

impl EventSender {
    /// An event that starts with the next tick and lasts `total_units`, rounded up to whole ticks
    /// of `step_units` and cut to what one event can carry (8.19 s at 8 kHz, so that it never
    /// needs segments, RFC 4733 §2.5.1.3). `volume` is in −dBm0.
    #[must_use]
    pub fn new(
        digit: Digit,
        source: SourceId,
        total_units: u32,
        step_units: u16,
        volume: u8,
    ) -> Self {
        let step_units = step_units.max(1);
        let ticks_max = u16::MAX / step_units;
        let ticks = total_units.div_ceil(u32::from(step_units)).clamp(1, u32::from(ticks_max));
        Self {
            digit,
            volume: volume.min(63),
            source,
            step_units,
            total_units: (ticks as u16).saturating_mul(step_units),
            sent_units: 0,
            timestamp: None,
            ends_left: END_PACKETS,
        }
    }

    /// Whether everything was sent.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.ends_left == 0
    }

    /// Whether the key is up and only end packets remain: [`Self::poll`] may be called again in
    /// the same tick.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.sent_units >= self.total_units
    }

    /// The next packet's numbers and payload; `None` when done. Call once per tick, and while
    /// [`Self::is_ending`] until `None`.
    pub fn poll(
        &mut self,
        stream: &mut StreamRewriter,
        now: RtpTime,
    ) -> Option<(Outgoing, [u8; EVENT_BYTES])> {
        if self.is_done() {
            return None;
        }
        let marker = self.timestamp.is_none();
        let timestamp = *self.timestamp.get_or_insert_with(|| stream.event_timestamp(now));
        if !self.is_ending() {
            self.sent_units = self.sent_units.saturating_add(self.step_units);
        }
        let end = self.is_ending();
        if end {
            self.ends_left -= 1;
        }
        let payload = EventPayload {
            event: self.digit.event(),
            end,
            volume: self.volume,
            duration_units: self.sent_units,
        };
        let out = stream.generate_event(self.source, timestamp, marker, now);
        Some((out, payload.to_bytes()))
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
