//! A session description that keeps every line it was read from.

use std::net::IpAddr;

/// Media direction (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// We send only.
    SendOnly,
    /// We receive only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// From the two halves.
    pub fn from_parts(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// True if the one who says it sends.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// True if the one who says it receives.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// As the other side sees it.
    pub fn reversed(self) -> Direction {
        Direction::from_parts(self.receives(), self.sends())
    }

    /// What both agree to.
    pub fn and(self, other: Direction) -> Direction {
        Direction::from_parts(self.sends() && other.sends(), self.receives() && other.receives())
    }

    /// Attribute name.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// From an attribute name.
    pub fn from_name(name: &str) -> Option<Direction> {
        let all =
            [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
        all.into_iter().find(|direction| direction.as_str() == name)
    }
}

/// One line, e.g. `a=rtpmap:0 PCMU/8000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The letter before `=`.
    pub kind: char,
    /// What follows.
    pub value: String,
}

impl Line {
    /// A line.
    pub fn new(kind: char, value: impl Into<String>) -> Line {
        Line { kind, value: value.into() }
    }

    /// The attribute in an `a=` line.
    pub fn attribute(&self) -> Option<Attribute<'_>> {
        (self.kind == 'a').then(|| match self.value.split_once(':') {
            Some((name, value)) => Attribute { name: name.trim(), value: value.trim() },
            None => Attribute { name: self.value.trim(), value: "" },
        })
    }
}

/// Name and value of an `a=` line; the value is empty for flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a str,
}

/// A `c=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The address text, a name perhaps.
    pub address: String,
    /// The literal address, if it is one.
    pub ip: Option<IpAddr>,
}

/// One `m=` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image` …
    pub kind: String,
    /// Port; 0 refuses the stream.
    pub port: u16,
    /// Number of ports, if written.
    pub port_count: Option<u16>,
    /// `RTP/AVP` …
    pub protocol: String,
    /// Formats: payload types for RTP.
    pub formats: Vec<String>,
    /// The lines after `m=`, in order.
    pub lines: Vec<Line>,
}

/// A session description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The lines before the first `m=`, in order.
    pub lines: Vec<Line>,
    /// Media sections.
    pub media: Vec<Media>,
}

/// Why a session description could not be read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Larger than [`crate::sdp::parser::SDP_BYTES_MAX`] or with too many lines or sections.
    #[error("session description too large (line {line})")]
    TooLarge {
        /// Line number from 1.
        line: usize,
    },
    /// A line that is not `letter=value`, or a malformed `m=` line.
    #[error("malformed line {line} in session description")]
    Syntax {
        /// Line number from 1.
        line: usize,
    },
    /// The first line is not `v=0`.
    #[error("session description does not begin with v=0")]
    Version,
}

fn first_value(lines: &[Line], kind: char) -> Option<&str> {
    lines.iter().find(|line| line.kind == kind).map(|line| line.value.as_str())
}

fn attributes<'a>(lines: &'a [Line], name: &'a str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(Line::attribute).filter(move |a| a.name == name).map(|a| a.value)
}

fn direction(lines: &[Line]) -> Option<Direction> {
    lines.iter().filter_map(Line::attribute).find_map(|a| Direction::from_name(a.name))
}

fn connection(lines: &[Line]) -> Option<Connection> {
    let value = first_value(lines, 'c')?;
    let mut words = value.split_ascii_whitespace();
    let address = words.nth(2)?;
    let address = address.split('/').next().unwrap_or(address).to_owned();
    let ip = address.parse().ok();
    Some(Connection { address, ip })
}

impl Media {
    /// First value of an attribute of this section.
    pub fn attribute<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        attributes(&self.lines, name).next()
    }

    /// All values of an attribute of this section.
    pub fn attributes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        attributes(&self.lines, name)
    }

    /// True for RTP without or with feedback, clear or secure.
    pub fn is_rtp(&self) -> bool {
        self.protocol.starts_with("RTP/") || self.protocol.starts_with("UDP/TLS/RTP/")
    }

    /// The direction of this section alone.
    pub fn direction(&self) -> Option<Direction> {
        direction(&self.lines)
    }

    /// The `c=` line of this section alone.
    pub fn connection(&self) -> Option<Connection> {
        connection(&self.lines)
    }

    /// Encoding name, clock rate and channels of a payload type: its rtpmap, else RFC 3551.
    pub fn encoding(&self, payload_type: u8) -> Option<(String, u32, u8)> {
        let mapped = self.attributes("rtpmap").find_map(|value| {
            let (pt, rest) = value.split_once(' ')?;
            (pt.trim().parse::<u8>().ok()? == payload_type).then_some(())?;
            let mut parts = rest.trim().split('/');
            let name = parts.next()?.to_owned();
            let rate = parts.next()?.parse().ok()?;
            let channels = parts.next().map_or(Some(1), |c| c.parse().ok())?;
            Some((name, rate, channels))
        });
        mapped.or_else(|| {
            let (name, rate) = match payload_type {
                0 => ("PCMU", 8000),
                3 => ("GSM", 8000),
                8 => ("PCMA", 8000),
                9 => ("G722", 8000),
                18 => ("G729", 8000),
                _ => return None,
            };
            Some((name.to_owned(), rate, 1))
        })
    }

    /// The `fmtp` of a payload type.
    pub fn fmtp(&self, payload_type: u8) -> Option<&str> {
        self.attributes("fmtp").find_map(|value| {
            let (pt, rest) = value.split_once(' ')?;
            (pt.trim().parse::<u8>().ok()? == payload_type).then_some(rest.trim())
        })
    }
}

impl Session {
    /// The `o=` line's session id and version.
    pub fn origin_version(&self) -> Option<(&str, u64)> {
        let mut words = first_value(&self.lines, 'o')?.split_ascii_whitespace();
        Some((words.nth(1)?, words.next()?.parse().ok()?))
    }

    /// First value of a session attribute.
    pub fn attribute<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        attributes(&self.lines, name).next()
    }

    /// The `c=` line in force for a section.
    pub fn connection_of(&self, media: &Media) -> Option<Connection> {
        media.connection().or_else(|| connection(&self.lines))
    }

    /// The direction in force for a section; an address of zeros is hold (RFC 3264 §8.4).
    pub fn direction_of(&self, media: &Media) -> Direction {
        let said = media.direction().or_else(|| direction(&self.lines));
        let said = said.unwrap_or(Direction::SendRecv);
        let held =
            self.connection_of(media).and_then(|c| c.ip).is_some_and(|ip| ip.is_unspecified());
        if held { Direction::from_parts(said.sends(), false) } else { said }
    }
}
