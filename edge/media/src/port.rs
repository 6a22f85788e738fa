//! One port: what is known of its endpoint or channel, what arrives, and what is sent.

use std::net::SocketAddr;

use link_proto::ChannelId;
use media_core::codec::Codec;
use media_core::dtmf::Digit;
use media_core::dtmf::event::{EventReceiver, EventSender};
use media_core::rtp::rewrite::{SourceId, StreamRewriter};
use media_core::rtp::stats::{ReceiverStats, SenderStats};
use media_core::units::{PayloadType, RtpTime, Ssrc};

use crate::command::{
    AudioCodec, ChannelConfig, Direction, LegConfig, PayloadMapping, PortKey, SessionKey,
};
use crate::digits::Doubles;
use crate::event::RegionCounters;
use crate::latch::Latch;
use crate::limits::{
    DIGITS_WAITING_MAX, LISTENERS_MAX, PTIME_MS_MAX, RELAY_QUIET_US, RELAY_SPACING_US_MAX,
    SINKS_MAX, TAPS_MAX,
};
use crate::list::List;
use crate::offload::OffloadState;
use crate::quiet::on_grid;
use crate::worker::Random;

/// RTP clock of all present codecs, and of telephone-event beside them.
pub(crate) const CLOCK_HZ: u32 = 8_000;
/// Longest CNAME that is kept.
const CNAME_BYTES_MAX: usize = 32;
/// Sender reports whose answers are recognised.
const REPORTS_KEPT: usize = 4;

pub(crate) const fn codec_of(codec: AudioCodec) -> Codec {
    match codec {
        AudioCodec::Pcmu => Codec::Pcmu,
        AudioCodec::Pcma => Codec::Pcma,
    }
}

/// What a payload type means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Audio(AudioCodec),
    Event,
}

/// What arrives. What every packet needs comes first; see [`Port`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Inbound {
    codecs: [Option<(u8, AudioCodec)>; LegConfig::CODECS_MAX],
    pub(crate) telephone_event: Option<u8>,
    pub(crate) seen: bool,
    pub(crate) timed_out: bool,
    /// When the media timeout started to run, or the last packet came.
    pub(crate) alive_us: u64,
    /// From when on a packet has the stream offered, and taken back first if it has left: see
    /// [`crate::offload`].
    pub(crate) offer_us: u64,
    pub(crate) stats: ReceiverStats,
    /// Programs that take what arrives here.
    pub(crate) listeners: List<LISTENERS_MAX>,
    /// Detector for DTMF in the audio, while somebody listens and there is no telephone-event.
    pub(crate) detector: Option<u32>,
    pub(crate) events: EventReceiver,
    pub(crate) doubles: Doubles,
    /// Timestamp of an event that came by signalling before: its packets are not relayed.
    pub(crate) doubled_event: Option<RtpTime>,
}

impl Inbound {
    fn new(now_us: u64) -> Self {
        Self {
            codecs: [None; LegConfig::CODECS_MAX],
            telephone_event: None,
            listeners: List::new(),
            stats: ReceiverStats::new(CLOCK_HZ),
            events: EventReceiver::new(CLOCK_HZ),
            doubles: Doubles::default(),
            doubled_event: None,
            seen: false,
            detector: None,
            alive_us: now_us,
            offer_us: 0,
            timed_out: false,
        }
    }

    pub(crate) fn set_codecs(&mut self, receive: impl Iterator<Item = PayloadMapping>) {
        self.codecs = [None; LegConfig::CODECS_MAX];
        for (place, mapping) in self.codecs.iter_mut().zip(receive) {
            *place = Some((mapping.payload_type, mapping.codec));
        }
    }

    /// The payload type by which a codec arrives.
    pub(crate) fn payload_type_of(&self, codec: AudioCodec) -> Option<u8> {
        let mut codecs = self.codecs.iter().flatten();
        codecs.find(|(_, known)| *known == codec).map(|(number, _)| *number)
    }

    pub(crate) fn content(&self, payload_type: PayloadType) -> Option<Content> {
        let number = payload_type.get();
        if self.telephone_event == Some(number) {
            return Some(Content::Event);
        }
        let mut codecs = self.codecs.iter().flatten();
        codecs.find(|(known, _)| *known == number).map(|(_, codec)| Content::Audio(*codec))
    }
}

/// What feeds a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    None,
    /// Another port, by slot.
    Port(u32),
    /// A play program, by its place.
    Play(u32),
}

/// What is sent. What every packet needs comes first; see [`Port`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Outbound {
    pub(crate) codec: AudioCodec,
    pub(crate) payload_type: PayloadType,
    pub(crate) telephone_event: Option<PayloadType>,
    /// The relayed source has delivered a packet and is not quiet.
    pub(crate) begun: bool,
    pub(crate) relay_id: SourceId,
    pub(crate) event: Option<EventSender>,
    pub(crate) stream: StreamRewriter,
    pub(crate) sent: SenderStats,
    pub(crate) last_us: Option<u64>,
    /// When the last packet was relayed.
    relayed_us: u64,
    /// Time between the last two of them.
    spacing_us: u64,
    /// Recordings of what is sent. Empty for nearly every port: whoever forwards packets without
    /// this worker has to look at it.
    pub(crate) taps: List<TAPS_MAX>,
    pub(crate) source: Source,
    pub(crate) frame_id: SourceId,
    ids: u32,
    pub(crate) ptime_ms: u32,
    /// When the next frame made here is due.
    pub(crate) tick_us: Option<u64>,
    pub(crate) digits: List<DIGITS_WAITING_MAX>,
    /// Not before then is it worth looking whether the source is quiet.
    pub(crate) look_us: u64,
}

/// Silence that is filled up, by the time between the last two packets, both in µs.
pub(crate) fn quiet_after_us(spacing_us: u64) -> u64 {
    let is_stream = spacing_us <= RELAY_SPACING_US_MAX;
    if is_stream { RELAY_QUIET_US.max(2 * spacing_us) } else { RELAY_QUIET_US }
}

impl Outbound {
    fn new(ssrc: u32, mapping: PayloadMapping, random: &mut Random) -> Self {
        let (seq, time) = (random.next() as u16, random.next() as u32);
        Self {
            codec: mapping.codec,
            payload_type: PayloadType::new_truncated(mapping.payload_type),
            telephone_event: None,
            ptime_ms: 20,
            stream: StreamRewriter::new(Ssrc(ssrc), seq, RtpTime(time), 160),
            sent: SenderStats::default(),
            source: Source::None,
            begun: false,
            relay_id: SourceId(0),
            frame_id: SourceId(1),
            ids: 2,
            tick_us: None,
            event: None,
            digits: List::new(),
            last_us: None,
            relayed_us: 0,
            spacing_us: 0,
            look_us: 0,
            taps: List::new(),
        }
    }

    pub(crate) fn fresh_id(&mut self) -> SourceId {
        self.ids = self.ids.wrapping_add(1);
        SourceId(self.ids)
    }

    pub(crate) fn ptime_us(&self) -> u64 {
        u64::from(self.ptime_ms) * 1_000
    }

    pub(crate) fn units(&self) -> u32 {
        self.ptime_ms * (CLOCK_HZ / 1_000)
    }

    /// When the rhythm of frames made here begins: at once, but not closer to the last packet than
    /// a frame.
    pub(crate) fn rhythm_start_us(&self, now_us: u64) -> u64 {
        self.last_us.map_or(now_us, |last| now_us.max(last + self.ptime_us()))
    }

    /// A packet is relayed now.
    pub(crate) fn note_relayed(&mut self, now_us: u64) {
        self.spacing_us = now_us.saturating_sub(self.relayed_us);
        self.relayed_us = now_us;
        self.last_us = Some(now_us);
    }

    /// Silence of a relayed source that is filled up, in µs: more than one packet of a source that
    /// sends long ones.
    pub(crate) fn quiet_after_us(&self) -> u64 {
        quiet_after_us(self.spacing_us)
    }

    /// Packets were relayed elsewhere, the last one at `now_us` and so many µs behind the one before.
    pub(crate) const fn note_relayed_elsewhere(&mut self, now_us: u64, spacing_us: u64) {
        self.spacing_us = spacing_us;
        self.relayed_us = now_us;
    }

    pub(crate) fn start_rhythm(&mut self, now_us: u64) {
        if self.tick_us.is_none() {
            self.tick_us = Some(self.rhythm_start_us(now_us));
        }
    }

    pub(crate) fn push_digit(&mut self, digit: Digit) {
        // More than sixteen waiting digits are no dialling any more.
        let _ = self.digits.push(u32::from(digit.event()));
    }
}

/// The SIP side of a port. What every packet asks for comes first; see [`Port`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Leg {
    pub(crate) direction: Direction,
    pub(crate) answered: bool,
    pub(crate) mux: bool,
    pub(crate) latch: Latch,
    pub(crate) timeout_us: Option<u64>,
    cname: [u8; CNAME_BYTES_MAX],
    cname_len: usize,
    pub(crate) report_us: u64,
    /// Middle NTP words of our last sender reports.
    pub(crate) reports: [u32; REPORTS_KEPT],
    pub(crate) reports_next: usize,
    /// Middle NTP word of the endpoint's last sender report, and when it came.
    pub(crate) heard: Option<(u32, u64)>,
    pub(crate) round_trip_us: u64,
}

impl Leg {
    pub(crate) fn cname(&self) -> &[u8] {
        self.cname.get(..self.cname_len).unwrap_or_default()
    }

    fn set_cname(&mut self, cname: &str) {
        self.cname_len = cname.len().min(CNAME_BYTES_MAX);
        for (to, from) in self.cname.iter_mut().zip(cname.bytes()) {
            *to = from;
        }
    }

    /// Whether the media timeout runs.
    pub(crate) fn is_expecting(&self) -> bool {
        self.answered && self.direction.receives()
    }
}

/// Which one it is lies in front.
#[derive(Debug)]
#[repr(u8)]
#[allow(clippy::large_enum_variant, reason = "slots are all of one size anyway")]
pub(crate) enum Kind {
    Leg(Leg),
    Channel { peer: u32, channel: ChannelId },
}

/// Where a packet leaves a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Endpoint(SocketAddr),
    Trunk(u32, ChannelId),
}

/// With thousands of legs, most of a packet's time here is waiting for memory, so the order of fields
/// is that of cache lines: two lines that a packet needs at both its ports, four of [`Inbound`] where
/// it arrives, four of [`Outbound`] where it leaves. What is looked at seldom lies behind.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Port {
    pub(crate) key: PortKey,
    pub(crate) counters: RegionCounters,
    /// Ports that this one feeds.
    pub(crate) sinks: List<SINKS_MAX>,
    pub(crate) kind: Kind,
    pub(crate) session: SessionKey,
    pub(crate) dropped: u64,
    /// What arrives here, in the kernel or not.
    pub(crate) offload: OffloadState,
    pub(crate) input: Inbound,
    pub(crate) out: Outbound,
}

/// Of a cache line.
pub(crate) const LINE_BYTES: usize = 64;
const _: () = {
    use std::mem::offset_of;
    let leg = offset_of!(Port, kind) + align_of::<Leg>();
    assert!(leg + offset_of!(Leg, latch) + Latch::HOT_BYTES <= 2 * LINE_BYTES);
    assert!(offset_of!(Inbound, listeners) + 4 <= 4 * LINE_BYTES);
    assert!(offset_of!(Outbound, taps) + 4 <= 4 * LINE_BYTES);
    assert!(offset_of!(Port, input).is_multiple_of(LINE_BYTES));
    assert!(offset_of!(Port, out).is_multiple_of(LINE_BYTES));
};

impl Port {
    pub(crate) fn leg(
        key: PortKey,
        session: SessionKey,
        config: &LegConfig,
        now_us: u64,
        random: &mut Random,
    ) -> Self {
        let leg = Leg {
            latch: Latch::new(),
            mux: false,
            direction: Direction::SendRecv,
            answered: false,
            timeout_us: None,
            cname: [0; CNAME_BYTES_MAX],
            cname_len: 0,
            report_us: now_us + random.around(crate::limits::RTCP_INTERVAL_US / 2),
            reports: [0; REPORTS_KEPT],
            reports_next: 0,
            heard: None,
            round_trip_us: 0,
        };
        let out = Outbound::new(config.local_ssrc, config.send, random);
        Self::new(key, session, Kind::Leg(leg), out, now_us)
    }

    pub(crate) fn channel(
        key: PortKey,
        session: SessionKey,
        config: &ChannelConfig,
        now_us: u64,
        random: &mut Random,
    ) -> Self {
        let payload_type = config.codec.static_payload_type();
        let mapping = PayloadMapping { payload_type, codec: config.codec };
        let kind = Kind::Channel { peer: config.peer, channel: config.channel };
        let out = Outbound::new(config.local_ssrc, mapping, random);
        let mut port = Self::new(key, session, kind, out, now_us);
        port.input.set_codecs(std::iter::once(mapping));
        port.input.telephone_event = config.telephone_event;
        port.out.telephone_event = config.telephone_event.and_then(PayloadType::new);
        port
    }

    fn new(key: PortKey, session: SessionKey, kind: Kind, out: Outbound, now_us: u64) -> Self {
        Self {
            key,
            session,
            kind,
            input: Inbound::new(now_us),
            out,
            sinks: List::new(),
            dropped: 0,
            counters: RegionCounters::default(),
            offload: OffloadState::default(),
        }
    }

    /// Takes over everything that signalling says about a leg.
    pub(crate) fn configure(
        &mut self,
        config: &LegConfig,
        now_us: u64,
    ) -> crate::latch::PeerChanges {
        let Kind::Leg(leg) = &mut self.kind else { return Default::default() };
        let was_expecting = leg.is_expecting();
        let was_timed = was_expecting && leg.timeout_us.is_some();
        let sent = leg.direction.sends();
        leg.mux = config.rtcp_mux;
        leg.direction = config.direction;
        leg.answered = config.answered;
        leg.timeout_us = config.media_timeout_ms.map(|ms| u64::from(ms) * 1_000);
        leg.set_cname(&config.cname);
        if leg.is_expecting() && !was_expecting {
            self.input.stats.forget_arrival();
        }
        if leg.is_expecting() && leg.timeout_us.is_some() && !was_timed {
            // From here on: what was silent on hold has the whole time to speak again.
            self.input.alive_us = now_us;
            self.input.timed_out = false;
        }
        if sent && !leg.direction.sends() {
            // A pause that was asked for is not a gap.
            self.out.sent.last = None;
        }
        self.input.set_codecs(config.receive.iter().copied());
        self.input.telephone_event = config.telephone_event_receive;
        self.out.codec = config.send.codec;
        self.out.payload_type = PayloadType::new_truncated(config.send.payload_type);
        self.out.telephone_event = config.telephone_event_send.and_then(PayloadType::new);
        self.out.ptime_ms = config.ptime_ms.clamp(10, PTIME_MS_MAX) / 10 * 10;
        leg.latch.update(config)
    }

    pub(crate) const fn is_channel(&self) -> bool {
        matches!(self.kind, Kind::Channel { .. })
    }

    /// Where packets go now; `None` while there is no address or the endpoint wants none.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match &self.kind {
            Kind::Leg(leg) if leg.direction.sends() => leg.latch.rtp().map(Exit::Endpoint),
            Kind::Leg(_) => None,
            Kind::Channel { peer, channel } => Some(Exit::Trunk(*peer, *channel)),
        }
    }

    /// Whether frames have to be made here: for a program, for a digit, or as silence.
    pub(crate) fn makes_frames(&self) -> bool {
        if self.out.event.is_some() || !self.out.digits.as_slice().is_empty() {
            return true;
        }
        match self.out.source {
            Source::Play(_) => true,
            Source::Port(_) if self.out.begun => false,
            Source::Port(_) | Source::None => self.is_filled(),
        }
    }

    /// Nothing was sent yet and there is only silence to send: what comes first shall not wait for
    /// a rhythm that silence has begun.
    pub(crate) fn is_waiting_for_first_source(&self) -> bool {
        let out = &self.out;
        out.last_us.is_none()
            && out.event.is_none()
            && out.digits.as_slice().is_empty()
            && !matches!(out.source, Source::Play(_))
    }

    /// Whether silence is sent when no source speaks.
    pub(crate) fn is_filled(&self) -> bool {
        match &self.kind {
            Kind::Leg(leg) => {
                (leg.answered || self.out.stream.has_started())
                    && leg.direction.sends()
                    && leg.latch.rtp().is_some()
            }
            Kind::Channel { .. } => false,
        }
    }

    /// Why and when this port has to be looked at next, programs aside.
    pub(crate) fn due_us(&self) -> Option<u64> {
        let mut due = None;
        let mut at = |time: u64| due = Some(due.map_or(time, |other: u64| other.min(time)));
        if self.makes_frames() {
            at(self.out.tick_us.unwrap_or(0));
        }
        if let Kind::Leg(leg) = &self.kind {
            at(on_grid(leg.report_us));
            if let Some(timeout_us) = leg.timeout_us
                && leg.is_expecting()
                && !self.input.timed_out
            {
                at(on_grid(self.input.alive_us + timeout_us));
            }
        }
        due
    }

    /// From when on what is relayed here is quiet, if it has begun and would be filled up then.
    pub(crate) fn quiet_us(&self) -> Option<u64> {
        let relays = matches!(self.out.source, Source::Port(_)) && !self.makes_frames();
        let out = &self.out;
        let quiet_us = out.last_us.unwrap_or(0) + out.quiet_after_us();
        (relays && self.is_filled()).then(|| quiet_us.max(out.look_us))
    }
}
