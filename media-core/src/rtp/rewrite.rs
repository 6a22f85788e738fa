//! Continuity of one outgoing stream that is fed by changing sources.
//!
//! An endpoint sees one SSRC for the whole call, whatever feeds it: a relayed party, a player,
//! silence, another party. The rules, in the order in which they are applied:
//!
//! 1. **Identity.** Every packet leaves with the one outgoing SSRC.
//! 2. **Switch.** A packet whose [`SourceId`] differs from the last one's starts a new source: it
//!    gets the sequence number after the highest one sent, the marker bit, and a timestamp that
//!    lies at least one frame after the highest one sent and otherwise as far as media time has
//!    gone on. Sequence numbers thus have no hole at a switch and timestamps never step back.
//! 3. **Within a source** both numbers keep a fixed distance to the incoming ones. Losses stay
//!    visible as holes, overtaken packets keep their place, duplicates stay duplicates, pauses
//!    (DTX) stay pauses, and the marker bit is kept.
//! 4. **Overtaken at a switch.** Packets older than the one that started the source are skipped:
//!    their numbers were given to the source before.
//! 5. **Break within a source.** Another SSRC, a sequence number more than 3000 ahead or 100
//!    behind (RFC 3550 A.1), or a timestamp far off from media time, counts as a switch.
//! 6. **Lead.** Frames of two sources that meet closer than a frame's duration push timestamps
//!    ahead of media time. The lead is remembered and worked off at later switches; a switch that
//!    would make it more than one and a half frames is put off by a packet, at most three times.
//!
//! Media time (`now`) is a clock in RTP units of the outgoing stream, with any origin.

use super::packet::{RtpFields, RtpViewMut};
use super::seq::SeqExtender;
use super::stats::{MAX_DROPOUT, MAX_MISORDER};
use crate::units::{PayloadType, RtpTime, Ssrc};

/// Timestamps further from media time than this many frames break the source (30 s at 20 ms).
const TIME_BREAK_FRAMES: u32 = 1500;
/// Switches put off in a row to bound the lead.
const PUT_OFF_MAX: u8 = 3;
/// Longest frame that is believed when learnt from timestamps, in units of the first frame length.
const FRAME_GROWTH_MAX: u32 = 6;

/// Transit time after a packet that had `transit`.
pub(super) const fn smoothed_transit(before: u32, transit: u32) -> u32 {
    before.wrapping_add_signed(transit.wrapping_sub(before) as i32 / 16)
}

/// Names what feeds the stream. A new talk spurt of a generated source takes a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId(pub u32);

/// Numbers of an incoming packet, before rewriting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: RtpTime,
    /// Synchronisation source.
    pub ssrc: Ssrc,
    /// Marker bit.
    pub marker: bool,
}

/// Numbers of an outgoing packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: RtpTime,
    /// Synchronisation source, the same for the life of the stream.
    pub ssrc: Ssrc,
    /// Marker bit.
    pub marker: bool,
}

impl Outgoing {
    /// These numbers with a payload type, for [`super::write_header`].
    #[must_use]
    pub const fn with_payload_type(self, payload_type: PayloadType) -> RtpFields {
        RtpFields {
            marker: self.marker,
            payload_type,
            seq: self.seq,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        }
    }
}

/// Why a packet must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// Older than the packet that started its source (rule 4).
    BeforeSwitch,
    /// Overtaken, and its timestamp does not belong to the source any more (rule 5).
    Stale,
    /// The switch is put off by this packet (rule 6).
    Lead,
}

/// What was done over the life of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RewriteCounters {
    /// Sources started, breaks within a source included.
    pub switches: u64,
    /// Breaks within a source (rule 5).
    pub breaks: u64,
    /// Packets skipped by rule 4 or 5.
    pub skipped_late_packets: u64,
    /// Packets skipped by rule 6.
    pub skipped_lead_packets: u64,
}

/// How packets of a relayed source are rewritten (rule 3), and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relaying {
    /// The source.
    pub ssrc_in: Ssrc,
    /// The stream.
    pub ssrc_out: Ssrc,
    /// Outgoing sequence number minus incoming.
    pub seq_offset: u16,
    /// Outgoing timestamp minus incoming.
    pub timestamp_offset: u32,
    /// Highest extended incoming sequence number.
    pub highest: u64,
    /// The one that the source began with (rule 4).
    pub anchor: u64,
    /// Highest incoming timestamp.
    pub highest_in: RtpTime,
    /// Highest outgoing timestamp.
    pub highest_out: RtpTime,
    /// Media time minus outgoing timestamp, smoothed over 16 packets.
    pub transit: u32,
    /// Duration of a packet.
    pub frame_units: u32,
    /// Longest duration that is learnt.
    pub frame_units_max: u32,
    /// A timestamp further from media time breaks the source (rule 5).
    pub break_units: u32,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    None,
    Relayed { id: SourceId, ssrc: Ssrc, seq: SeqExtender, anchor: u64, highest_in: RtpTime },
    Generated { id: SourceId, next: RtpTime },
}

impl Source {
    fn is(&self, wanted: SourceId) -> bool {
        match self {
            Self::None => false,
            Self::Relayed { id, .. } | Self::Generated { id, .. } => *id == wanted,
        }
    }
}

/// Keeps one outgoing RTP stream continuous; see the module page for the rules.
#[derive(Debug, Clone)]
pub struct StreamRewriter {
    ssrc: Ssrc,
    source: Source,
    seq_offset: u16,
    timestamp_offset: u32,
    highest_seq: u16,
    highest_timestamp: RtpTime,
    /// Media time minus timestamp, smoothed: where the receiver expects the stream to be.
    transit: u32,
    frame_units: u32,
    first_frame_units: u32,
    lead_units: i32,
    put_off: u8,
    started: bool,
    counters: RewriteCounters,
}

impl StreamRewriter {
    /// A stream that will start with `first_seq` and `first_timestamp` (both should be random,
    /// RFC 3550 §5.1). `frame_units` is the usual duration of a packet, at least 1.
    #[must_use]
    pub fn new(ssrc: Ssrc, first_seq: u16, first_timestamp: RtpTime, frame_units: u32) -> Self {
        let frame_units = frame_units.clamp(1, 1 << 16);
        Self {
            ssrc,
            source: Source::None,
            seq_offset: 0,
            timestamp_offset: 0,
            highest_seq: first_seq.wrapping_sub(1),
            highest_timestamp: first_timestamp,
            transit: 0,
            frame_units,
            first_frame_units: frame_units,
            lead_units: 0,
            put_off: 0,
            started: false,
            counters: RewriteCounters::default(),
        }
    }

    /// The outgoing SSRC.
    #[must_use]
    pub const fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// Whether anything was sent.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.started
    }

    /// Highest sequence number and timestamp sent; meaningless before the first packet.
    #[must_use]
    pub const fn highest(&self) -> (u16, RtpTime) {
        (self.highest_seq, self.highest_timestamp)
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> RewriteCounters {
        self.counters
    }

    /// How packets of a relayed source are rewritten now, for one who goes on elsewhere. `None` if
    /// another source feeds the stream.
    #[must_use]
    pub fn relaying(&self, source: SourceId) -> Option<Relaying> {
        let Source::Relayed { id, ssrc, seq, anchor, highest_in } = self.source else {
            return None;
        };
        let highest = seq.highest().filter(|_| id == source)?;
        Some(Relaying {
            ssrc_in: ssrc,
            ssrc_out: self.ssrc,
            seq_offset: self.seq_offset,
            timestamp_offset: self.timestamp_offset,
            highest,
            anchor,
            highest_in,
            highest_out: self.highest_timestamp,
            transit: self.transit,
            frame_units: self.frame_units,
            frame_units_max: self.first_frame_units * FRAME_GROWTH_MAX,
            break_units: TIME_BREAK_FRAMES * self.first_frame_units,
        })
    }

    /// Takes over where the relayed source has come to elsewhere.
    pub fn resume(&mut self, now: &Relaying) {
        if let Source::Relayed { seq, highest_in, .. } = &mut self.source {
            *seq = SeqExtender::at(now.highest);
            *highest_in = now.highest_in;
            self.highest_seq = (now.highest as u16).wrapping_add(self.seq_offset);
            self.highest_timestamp = now.highest_out;
            self.transit = now.transit;
            self.frame_units = now.frame_units;
        }
    }

    /// Outgoing timestamp that belongs to media time `now`, for sender reports.
    #[must_use]
    pub const fn timestamp_at(&self, now: RtpTime) -> RtpTime {
        RtpTime(now.0.wrapping_sub(self.transit))
    }

    /// Rewrites SSRC, sequence number, timestamp and marker of a relayed packet in place.
    ///
    /// # Errors
    /// The packet must not be sent, and was not changed.
    pub fn rewrite(
        &mut self,
        packet: &mut RtpViewMut<'_>,
        source: SourceId,
        now: RtpTime,
    ) -> Result<(), SkipReason> {
        let header = packet.header();
        let incoming = Incoming {
            seq: header.seq,
            timestamp: header.timestamp,
            ssrc: header.ssrc,
            marker: header.marker,
        };
        let out = self.map(incoming, source, now)?;
        packet.set_seq(out.seq);
        packet.set_timestamp(out.timestamp);
        packet.set_ssrc(out.ssrc);
        packet.set_marker(out.marker);
        Ok(())
    }

    /// Outgoing numbers for a relayed packet.
    ///
    /// # Errors
    /// The packet must not be sent.
    pub fn map(
        &mut self,
        incoming: Incoming,
        source: SourceId,
        now: RtpTime,
    ) -> Result<Outgoing, SkipReason> {
        let Source::Relayed { id, ssrc, seq: extender, anchor, highest_in } = self.source else {
            return self.start_relayed(incoming, source, now);
        };
        if id != source {
            return self.start_relayed(incoming, source, now);
        }
        let extended = extender.peek(incoming.seq);
        let highest = extender.highest().unwrap_or(anchor);
        if ssrc != incoming.ssrc
            || extended > highest + MAX_DROPOUT
            || extended + MAX_MISORDER < highest
        {
            self.counters.breaks += 1;
            return self.start_relayed(incoming, source, now);
        }
        let ahead = extended > highest;
        if !self.is_plausible(incoming.timestamp, now) {
            if ahead {
                self.counters.breaks += 1;
                return self.start_relayed(incoming, source, now);
            }
            self.counters.skipped_late_packets += 1;
            return Err(SkipReason::Stale);
        }
        if extended < anchor {
            self.counters.skipped_late_packets += 1;
            return Err(SkipReason::BeforeSwitch);
        }
        let out = Outgoing {
            seq: incoming.seq.wrapping_add(self.seq_offset),
            timestamp: incoming.timestamp.add(self.timestamp_offset),
            ssrc: self.ssrc,
            marker: incoming.marker || extended == anchor,
        };
        if ahead {
            self.advance_relayed(incoming, extended - highest, highest_in);
            self.note_sent(out, now);
        }
        Ok(out)
    }

    /// Numbers for a frame made here (player, tone, silence) that lasts `units`. Frames of one
    /// `source` follow each other without a gap; after a pause take a new [`SourceId`].
    ///
    /// # Errors
    /// Nothing may be sent now; the frame is to be offered again at the next tick.
    pub fn generate(
        &mut self,
        source: SourceId,
        units: u32,
        now: RtpTime,
    ) -> Result<Outgoing, SkipReason> {
        let (timestamp, marker) = match self.source {
            Source::Generated { id, next } if id == source => (next, false),
            _ => (self.anchor_timestamp(now)?, true),
        };
        self.source = Source::Generated { id: source, next: timestamp.add(units) };
        self.frame_units = units.clamp(1, self.first_frame_units * FRAME_GROWTH_MAX);
        let out =
            Outgoing { seq: self.highest_seq.wrapping_add(1), timestamp, ssrc: self.ssrc, marker };
        self.note_sent(out, now);
        Ok(out)
    }

    /// Timestamp at which an event (RFC 4733 §2.5.1.1) that begins now must be sent.
    #[must_use]
    pub fn event_timestamp(&self, now: RtpTime) -> RtpTime {
        if !self.started {
            return self.highest_timestamp;
        }
        let due = self.timestamp_at(now);
        let next = self.highest_timestamp.add(self.frame_units);
        if due.is_after(next) { due } else { next }
    }

    /// Numbers for a packet made here with a timestamp of its own, as all packets of one event
    /// have ([`Self::event_timestamp`]). Keeps the source that feeds the stream only if it is
    /// `source`; a relayed source goes on by a switch.
    pub fn generate_event(
        &mut self,
        source: SourceId,
        timestamp: RtpTime,
        marker: bool,
        now: RtpTime,
    ) -> Outgoing {
        if !self.source.is(source) {
            self.counters.switches += 1;
        }
        if !self.started {
            self.transit = now.0.wrapping_sub(timestamp.0);
        }
        let end = self.event_timestamp(now);
        self.source = Source::Generated { id: source, next: end };
        let out =
            Outgoing { seq: self.highest_seq.wrapping_add(1), timestamp, ssrc: self.ssrc, marker };
        self.note_sent(out, now);
        out
    }

    fn start_relayed(
        &mut self,
        incoming: Incoming,
        source: SourceId,
        now: RtpTime,
    ) -> Result<Outgoing, SkipReason> {
        let timestamp = self.anchor_timestamp(now)?;
        let out = Outgoing {
            seq: self.highest_seq.wrapping_add(1),
            timestamp,
            ssrc: self.ssrc,
            marker: true,
        };
        let mut extender = SeqExtender::new();
        let anchor = extender.extend(incoming.seq);
        self.seq_offset = out.seq.wrapping_sub(incoming.seq);
        self.timestamp_offset = timestamp.0.wrapping_sub(incoming.timestamp.0);
        self.source = Source::Relayed {
            id: source,
            ssrc: incoming.ssrc,
            seq: extender,
            anchor,
            highest_in: incoming.timestamp,
        };
        self.note_sent(out, now);
        Ok(out)
    }

    /// Timestamp of the first packet of a new source (rules 2 and 6).
    fn anchor_timestamp(&mut self, now: RtpTime) -> Result<RtpTime, SkipReason> {
        if !self.started {
            self.counters.switches += 1;
            self.transit = now.0.wrapping_sub(self.highest_timestamp.0);
            return Ok(self.highest_timestamp);
        }
        let frame = self.frame_units as i32;
        let elapsed = self.timestamp_at(now).since(self.highest_timestamp);
        let wanted = elapsed.saturating_sub(self.lead_units);
        let advance = wanted.max(frame);
        let lead = self.lead_units.saturating_add(advance.saturating_sub(elapsed));
        let lead_max = frame + frame / 2;
        if lead > lead_max && self.put_off < PUT_OFF_MAX {
            self.put_off += 1;
            self.counters.skipped_lead_packets += 1;
            return Err(SkipReason::Lead);
        }
        self.put_off = 0;
        self.lead_units = lead.clamp(0, lead_max);
        self.counters.switches += 1;
        let timestamp = self.highest_timestamp.add(advance as u32);
        // The new source starts where the receiver is led to expect it.
        self.transit = now.0.wrapping_sub(timestamp.0);
        Ok(timestamp)
    }

    fn is_plausible(&self, incoming: RtpTime, now: RtpTime) -> bool {
        let out = incoming.add(self.timestamp_offset);
        out.since(self.timestamp_at(now)).unsigned_abs()
            <= TIME_BREAK_FRAMES * self.first_frame_units
    }

    fn advance_relayed(&mut self, incoming: Incoming, packets: u64, highest_in: RtpTime) {
        let step = incoming.timestamp.since(highest_in);
        if packets == 1 && step > 0 {
            let step = step as u32;
            if step <= self.first_frame_units * FRAME_GROWTH_MAX {
                self.frame_units = step;
            }
        }
        if let Source::Relayed { seq, highest_in, .. } = &mut self.source {
            seq.extend(incoming.seq);
            if step > 0 {
                *highest_in = incoming.timestamp;
            }
        }
    }

    fn note_sent(&mut self, out: Outgoing, now: RtpTime) {
        self.highest_seq = out.seq;
        let advances = !self.started || out.timestamp.is_after(self.highest_timestamp);
        self.started = true;
        if advances {
            self.highest_timestamp = out.timestamp;
            let transit = now.0.wrapping_sub(out.timestamp.0);
            self.transit = smoothed_transit(self.transit, transit);
        }
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
