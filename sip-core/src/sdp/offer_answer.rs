//! Offer and answer for one audio stream (RFC 3264), G.711-style codecs and telephone-event
//! (RFC 4733). Other sections of an offer are refused with port 0 and kept in place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use super::session::{Direction, Line, Media, Session};

/// An audio encoding with its payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecSpec {
    /// RTP payload type.
    pub payload_type: u8,
    /// Encoding name; compared without case.
    pub name: String,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
    /// Channels.
    pub channels: u8,
    /// `fmtp` value.
    pub fmtp: Option<String>,
}

impl CodecSpec {
    /// G.711 µ-law, payload type 0.
    pub fn pcmu() -> CodecSpec {
        CodecSpec::fixed(0, "PCMU")
    }

    /// G.711 A-law, payload type 8.
    pub fn pcma() -> CodecSpec {
        CodecSpec::fixed(8, "PCMA")
    }

    fn fixed(payload_type: u8, name: &str) -> CodecSpec {
        CodecSpec { payload_type, name: name.to_owned(), clock_rate: 8000, channels: 1, fmtp: None }
    }

    /// True if both name the same encoding, whatever the payload type and fmtp.
    pub fn same_encoding(&self, other: &CodecSpec) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
            && self.clock_rate == other.clock_rate
            && self.channels == other.channels
    }

    fn is_telephone_event(&self) -> bool {
        self.name.eq_ignore_ascii_case("telephone-event") && self.clock_rate == 8000
    }
}

/// What our side has to offer for one audio stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// Advertised address.
    pub addr: IpAddr,
    /// RTP port.
    pub rtp_port: u16,
    /// RTCP port, used when RTCP is not multiplexed.
    pub rtcp_port: u16,
    /// Offer or accept rtcp-mux (RFC 5761).
    pub rtcp_mux: bool,
    /// Codecs, best first.
    pub codecs: Vec<CodecSpec>,
    /// Payload type of telephone-event in our offers; `None` neither offers nor accepts it.
    pub telephone_event: Option<u8>,
    /// What we want to do.
    pub direction: Direction,
    /// Packet time, milliseconds.
    pub ptime_ms: u16,
}

/// What both sides agreed to, from our point of view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Where our RTP goes; `None` while the peer holds with an address of zeros.
    pub remote_rtp: Option<SocketAddr>,
    /// Where our RTCP goes; equal to `remote_rtp` when multiplexed.
    pub remote_rtcp: Option<SocketAddr>,
    /// RTCP shares the RTP port.
    pub rtcp_mux: bool,
    /// The codec; its payload type is the one we send with.
    pub codec: CodecSpec,
    /// The payload type that the peer sends this codec with.
    pub receive_payload_type: u8,
    /// All codecs both know, with the payload types we would send with.
    pub common_codecs: Vec<CodecSpec>,
    /// Payload type of the telephone-events that we send.
    pub telephone_event_send: Option<u8>,
    /// Payload type of the telephone-events that we receive.
    pub telephone_event_receive: Option<u8>,
    /// Our direction.
    pub direction: Direction,
    /// Packet time we send with, milliseconds.
    pub ptime_ms: u16,
}

/// Why there is no session; the SIP answer is 488.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// No audio section that we can use.
    #[error("no usable audio stream")]
    NoAudio,
    /// No codec in common.
    #[error("no codec in common")]
    NoCodec,
    /// The connection address is missing, not a literal address, of the other family than ours, or
    /// one of many.
    #[error("no usable connection address")]
    Address,
}

/// Our side's memory over the offers and answers of one dialog: the `o=` line and the sections.
#[derive(Clone, Debug)]
pub struct SessionState {
    session_id: u64,
    version: u64,
    last: Option<Session>,
    /// The sections of the last description, ours being at `audio_index`; an offer must keep
    /// their number and order (RFC 3264 §8).
    sections: Vec<Media>,
    audio_index: usize,
}

impl SessionState {
    /// A new session; `session_id` is any number, below 2^63 for the sake of peers.
    pub fn new(session_id: u64) -> SessionState {
        SessionState {
            session_id: session_id >> 1,
            version: 1,
            last: None,
            sections: Vec::new(),
            audio_index: 0,
        }
    }

    /// Puts the `o=` line in; the version rises when anything changed (RFC 3264 §8).
    fn seal(&mut self, addr: IpAddr, media: Vec<Media>) -> Session {
        let family = if addr.is_ipv4() { "IP4" } else { "IP6" };
        let mut session = Session {
            lines: vec![
                Line::new('v', "0"),
                Line::new('o', String::new()),
                Line::new('s', "-"),
                Line::new('c', format!("IN {family} {addr}")),
                Line::new('t', "0 0"),
            ],
            media,
        };
        if let Some(last) = &self.last
            && *last != session
        {
            self.version += 1;
        }
        self.last = Some(session.clone());
        if let Some(origin) = session.lines.iter_mut().find(|line| line.kind == 'o') {
            origin.value = format!("- {} {} IN {family} {addr}", self.session_id, self.version);
        }
        session
    }

    /// The body of an offer for `local` (first or later).
    pub fn offer(&mut self, local: &LocalMedia) -> Bytes {
        let codecs = local.codecs.iter().map(|codec| (codec.payload_type, codec));
        let section =
            audio_section(local, "RTP/AVP", codecs, local.telephone_event, local.rtcp_mux);
        let mut media: Vec<Media> = self.sections.iter().map(refused).collect();
        match media.get_mut(self.audio_index) {
            Some(slot) => *slot = section,
            None => media.push(section),
        }
        self.seal(local.addr, media).to_bytes()
    }
}

/// Answers an offer: the body of the answer and what was agreed.
///
/// # Errors
/// [`NegotiateError`]; the session stays as it was.
pub fn negotiate_offer(
    offer: &Session,
    local: &LocalMedia,
    state: &mut SessionState,
) -> Result<(Bytes, Negotiated), NegotiateError> {
    let (index, theirs) = usable_audio(offer)?;
    let pairs = common(theirs, &local.codecs);
    let (codec, _) = pairs.first().cloned().ok_or(NegotiateError::NoCodec)?;
    let event = local.telephone_event.and_then(|_| telephone_event(theirs));
    let rtcp_mux = local.rtcp_mux && theirs.attribute("rtcp-mux").is_some();
    let their_direction = offer.direction_of(theirs);
    let direction = local.direction.and(their_direction.reversed());
    let remote = remote_addresses(offer, theirs, rtcp_mux, local.addr)?;
    let ptime_ms = ptime(theirs, local.ptime_ms);
    let ours = LocalMedia { direction, ptime_ms, ..local.clone() };
    // RFC 3264 §6.1: the answer uses the offer's payload types.
    let answer_codec = [(codec.payload_type, &codec)];
    let section = audio_section(&ours, &theirs.protocol, answer_codec.into_iter(), event, rtcp_mux);
    let mut media: Vec<Media> = offer.media.iter().map(refused).collect();
    if let Some(slot) = media.get_mut(index) {
        *slot = section;
    }
    state.sections = offer.media.clone();
    state.audio_index = index;
    let answer = state.seal(local.addr, media).to_bytes();
    let agreed = Negotiated {
        remote_rtp: remote.0,
        remote_rtcp: remote.1,
        rtcp_mux,
        receive_payload_type: codec.payload_type,
        codec,
        common_codecs: pairs.into_iter().map(|(theirs, _)| theirs).collect(),
        telephone_event_send: event,
        telephone_event_receive: event,
        direction,
        ptime_ms,
    };
    Ok((answer, agreed))
}

/// Reads the answer to an offer that `state.offer(local)` made.
///
/// # Errors
/// [`NegotiateError`]; the call has no media then.
pub fn negotiate_answer(
    answer: &Session,
    local: &LocalMedia,
    state: &mut SessionState,
) -> Result<Negotiated, NegotiateError> {
    let (index, theirs) = usable_audio(answer)?;
    let pairs = common(theirs, &local.codecs);
    let (codec, ours) = pairs.first().cloned().ok_or(NegotiateError::NoCodec)?;
    let event = local.telephone_event.and_then(|_| telephone_event(theirs));
    let rtcp_mux = local.rtcp_mux && theirs.attribute("rtcp-mux").is_some();
    let remote = remote_addresses(answer, theirs, rtcp_mux, local.addr)?;
    state.sections = answer.media.clone();
    state.audio_index = index;
    Ok(Negotiated {
        remote_rtp: remote.0,
        remote_rtcp: remote.1,
        rtcp_mux,
        codec,
        receive_payload_type: ours.payload_type,
        common_codecs: pairs.into_iter().map(|(theirs, _)| theirs).collect(),
        telephone_event_send: event,
        telephone_event_receive: event.and(local.telephone_event),
        direction: local.direction.and(answer.direction_of(theirs).reversed()),
        ptime_ms: ptime(theirs, local.ptime_ms),
    })
}

fn usable_audio(session: &Session) -> Result<(usize, &Media), NegotiateError> {
    let usable = |media: &Media| {
        media.kind == "audio"
            && media.port != 0
            && matches!(media.protocol.as_str(), "RTP/AVP" | "RTP/AVPF")
    };
    session.media.iter().enumerate().find(|(_, media)| usable(media)).ok_or(NegotiateError::NoAudio)
}

/// The encodings of a section in its order.
fn encodings(media: &Media) -> impl Iterator<Item = CodecSpec> {
    media.formats.iter().filter_map(|format| {
        let payload_type: u8 = format.parse().ok().filter(|pt| *pt < 128)?;
        let (name, clock_rate, channels) = media.encoding(payload_type)?;
        let fmtp = media.fmtp(payload_type).map(str::to_owned);
        Some(CodecSpec { payload_type, name, clock_rate, channels, fmtp })
    })
}

/// (theirs, ours) for each encoding both know, in their order.
fn common(theirs: &Media, ours: &[CodecSpec]) -> Vec<(CodecSpec, CodecSpec)> {
    encodings(theirs)
        .filter_map(|their| {
            let our = ours.iter().find(|our| our.same_encoding(&their))?.clone();
            Some((their, our))
        })
        .collect()
}

fn telephone_event(media: &Media) -> Option<u8> {
    encodings(media).find(CodecSpec::is_telephone_event).map(|codec| codec.payload_type)
}

/// A packet time that we can make: multiples of 10 ms up to 60.
fn ptime(media: &Media, default_ms: u16) -> u16 {
    let read = |name| media.attribute(name).and_then(|v| v.trim().parse::<u16>().ok());
    let usable = |ms: &u16| (10..=60).contains(ms) && ms.is_multiple_of(10);
    let wanted = read("ptime").filter(usable).unwrap_or(default_ms);
    match read("maxptime").filter(usable) {
        Some(max) => wanted.min(max),
        None => wanted,
    }
}

type RtpAndRtcp = (Option<SocketAddr>, Option<SocketAddr>);

fn remote_addresses(
    session: &Session,
    media: &Media,
    rtcp_mux: bool,
    local: IpAddr,
) -> Result<RtpAndRtcp, NegotiateError> {
    let connection = session.connection_of(media).ok_or(NegotiateError::Address)?;
    let ip = connection.ip.ok_or(NegotiateError::Address)?;
    if ip.is_unspecified() {
        return Ok((None, None));
    }
    // A stream of one call has one receiver, of our family.
    let reachable = |ip: IpAddr| {
        ip.is_ipv4() == local.is_ipv4()
            && !ip.is_multicast()
            && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
    };
    if !reachable(ip) {
        return Err(NegotiateError::Address);
    }
    let rtp = SocketAddr::new(ip, media.port);
    if rtcp_mux {
        return Ok((Some(rtp), Some(rtp)));
    }
    // RFC 3605: a=rtcp:53020 [IN IP4 126.16.64.4]
    let said = media.attribute("rtcp").and_then(|value| {
        let mut words = value.split_ascii_whitespace();
        let port: u16 = words.next()?.parse().ok().filter(|port| *port != 0)?;
        let named = words.nth(2).and_then(|ip| ip.parse().ok());
        Some(SocketAddr::new(named.filter(|ip| reachable(*ip)).unwrap_or(ip), port))
    });
    let next = media.port.checked_add(1).map(|port| SocketAddr::new(ip, port));
    Ok((Some(rtp), said.or(next)))
}

/// A section of the other side (or an old one of ours), refused in its place.
fn refused(media: &Media) -> Media {
    // A section that names no format still needs one (RFC 8866 §5.14).
    let formats =
        if media.formats.is_empty() { vec!["0".to_owned()] } else { media.formats.clone() };
    Media { port: 0, port_count: None, formats, lines: Vec::new(), ..media.clone() }
}

fn audio_section<'a>(
    local: &LocalMedia,
    protocol: &str,
    codecs: impl Iterator<Item = (u8, &'a CodecSpec)>,
    telephone_event: Option<u8>,
    rtcp_mux: bool,
) -> Media {
    let mut formats = Vec::new();
    let mut lines = Vec::new();
    for (payload_type, codec) in codecs {
        formats.push(payload_type.to_string());
        let channels = match codec.channels {
            1 => String::new(),
            more => format!("/{more}"),
        };
        let map = format!("rtpmap:{payload_type} {}/{}{channels}", codec.name, codec.clock_rate);
        lines.push(Line::new('a', map));
        if let Some(fmtp) = &codec.fmtp {
            lines.push(Line::new('a', format!("fmtp:{payload_type} {fmtp}")));
        }
    }
    if let Some(payload_type) = telephone_event {
        formats.push(payload_type.to_string());
        lines.push(Line::new('a', format!("rtpmap:{payload_type} telephone-event/8000")));
        lines.push(Line::new('a', format!("fmtp:{payload_type} 0-15")));
    }
    lines.push(Line::new('a', format!("ptime:{}", local.ptime_ms)));
    lines.push(Line::new('a', local.direction.as_str()));
    if rtcp_mux {
        lines.push(Line::new('a', "rtcp-mux"));
        lines.push(Line::new('a', format!("rtcp:{}", local.rtp_port)));
    } else if local.rtp_port.checked_add(1) != Some(local.rtcp_port) {
        lines.push(Line::new('a', format!("rtcp:{}", local.rtcp_port)));
    }
    Media {
        kind: "audio".to_owned(),
        port: local.rtp_port,
        port_count: None,
        protocol: protocol.to_owned(),
        formats,
        lines,
    }
}
