//! The little of SDP (RFC 8866, RFC 3264) that a phone with one audio stream needs. Written apart
//! from the product's, so that a mistake there is not repeated here.

use std::net::{IpAddr, SocketAddr};

use crate::codec::Codec;

/// Payload type under which we offer telephone events.
pub const EVENT_PAYLOAD_TYPE: u8 = 101;

/// Media direction, as the describer sees it (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaDirection {
    /// `sendrecv`
    SendRecv,
    /// `sendonly`
    SendOnly,
    /// `recvonly`
    RecvOnly,
    /// `inactive`
    Inactive,
}

impl MediaDirection {
    fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.name() == name)
    }

    /// What the answer to an offer of this direction is (RFC 3264 §6.1).
    pub fn answered(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            other => other,
        }
    }

    /// Whether the other side of a description may send to its describer.
    pub fn peer_may_send(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// What a description says about its first audio stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Where its describer wants RTP.
    pub addr: SocketAddr,
    /// Codecs that we speak, in the describer's order.
    pub codecs: Vec<Codec>,
    /// Payload type of telephone events at 8 kHz.
    pub event_payload_type: Option<u8>,
    /// Direction.
    pub direction: MediaDirection,
}

/// Writes an offer or answer.
pub fn write(
    rtp: SocketAddr,
    version: u64,
    codecs: &[Codec],
    event_payload_type: Option<u8>,
    direction: MediaDirection,
) -> String {
    let family = if rtp.is_ipv4() { "IP4" } else { "IP6" };
    let ip = rtp.ip();
    let types = codecs.iter().map(|codec| codec.payload_type()).chain(event_payload_type);
    let types: Vec<String> = types.map(|payload_type| payload_type.to_string()).collect();
    let mut out = format!(
        "v=0\r\no=phone {id} {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {types}\r\n",
        id = rtp.port(),
        port = rtp.port(),
        types = types.join(" ")
    );
    for codec in codecs {
        out += &format!("a=rtpmap:{} {}/8000\r\n", codec.payload_type(), codec.name());
    }
    if let Some(payload_type) = event_payload_type {
        out += &format!(
            "a=rtpmap:{payload_type} telephone-event/8000\r\na=fmtp:{payload_type} 0-15\r\n"
        );
    }
    out += &format!("a=ptime:20\r\na={}\r\n", direction.name());
    out
}

/// Reads the first audio stream of a description.
///
/// # Errors
/// What is missing or wrong, for the timeline.
pub fn read(bytes: &[u8]) -> Result<Described, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "SDP is not UTF-8".to_owned())?;
    let mut session_ip: Option<IpAddr> = None;
    let mut media_ip: Option<IpAddr> = None;
    let mut direction = MediaDirection::SendRecv;
    let mut event_payload_type = None;
    let mut audio: Option<(u16, Vec<u8>)> = None;
    for line in text.lines() {
        let Some((kind, value)) = line.trim_end().split_once('=') else { continue };
        match kind {
            "m" if audio.is_some() => break,
            "m" if value.starts_with("audio ") => audio = Some(media_line(value)?),
            "c" => {
                let ip = value.split_whitespace().nth(2).and_then(|ip| ip.parse().ok());
                let ip = ip.ok_or_else(|| format!("SDP c= line '{value}' has no address"))?;
                *(if audio.is_some() { &mut media_ip } else { &mut session_ip }) = Some(ip);
            }
            "a" => {
                direction = MediaDirection::of(value).unwrap_or(direction);
                if let Some((payload_type, encoding)) =
                    value.strip_prefix("rtpmap:").and_then(|map| map.split_once(' '))
                    && encoding.to_ascii_lowercase().starts_with("telephone-event/8000")
                {
                    event_payload_type = payload_type.parse().ok();
                }
            }
            _ => {}
        }
    }
    let (port, types) = audio.ok_or("SDP has no audio stream")?;
    let ip = media_ip.or(session_ip).ok_or("SDP has no c= line")?;
    // RFC 3264 §8.4: the old way of holding.
    if ip.is_unspecified() {
        direction = MediaDirection::Inactive;
    }
    Ok(Described {
        addr: SocketAddr::new(ip, port),
        codecs: types.iter().filter_map(|&pt| Codec::of_payload_type(pt)).collect(),
        event_payload_type,
        direction,
    })
}

fn media_line(value: &str) -> Result<(u16, Vec<u8>), String> {
    let wrong = || format!("SDP m= line '{value}' is not understood");
    let mut fields = value.split_whitespace().skip(1);
    let port = fields.next().and_then(|port| port.split('/').next()?.parse().ok());
    let port = port.ok_or_else(wrong)?;
    if !fields.next().is_some_and(|profile| profile.starts_with("RTP/")) {
        return Err(wrong());
    }
    Ok((port, fields.filter_map(|payload_type| payload_type.parse().ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_can_be_read() {
        for addr in ["127.0.0.1:4000", "[::1]:4002"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let codecs = [Codec::Pcma, Codec::Pcmu];
            let text = write(addr, 1, &codecs, Some(101), MediaDirection::SendOnly);
            let expect = Described {
                addr,
                codecs: codecs.to_vec(),
                event_payload_type: Some(101),
                direction: MediaDirection::SendOnly,
            };
            assert_eq!(read(text.as_bytes()), Ok(expect));
        }
    }

    #[test]
    fn others_descriptions_are_read() {
        let text = "v=0\no=- 1 1 IN IP4 10.0.0.1\ns=-\nc=IN IP4 10.0.0.1\nt=0 0\na=inactive\n\
            m=audio 5000 RTP/AVP 18 0 96\nc=IN IP4 10.0.0.2\na=rtpmap:96 Telephone-Event/8000\n\
            a=sendrecv\nm=video 6000 RTP/AVP 31\na=inactive\n";
        let read = read(text.as_bytes()).unwrap();
        assert_eq!(read.addr, "10.0.0.2:5000".parse().unwrap());
        assert_eq!((read.codecs, read.event_payload_type), (vec![Codec::Pcmu], Some(96)));
        assert_eq!(read.direction, MediaDirection::SendRecv);
        assert!(super::read(b"v=0\r\n").is_err());
        assert!(super::read(b"c=IN IP4\r\nm=audio 1 RTP/AVP 0\r\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "([vocmats]=[ -~]{0,40}\n){0,12}") {
            let _ = read(text.as_bytes());
        }
    }
}
