//! Reads session descriptions. Order of lines and missing `t=`, `s=`, `o=` are tolerated: devices
//! leave them out, and a B2BUA has no use for the rule.

use super::session::{Line, Media, SdpError, Session};

/// Largest session description, bytes.
pub const SDP_BYTES_MAX: usize = 32 * 1024;
/// Most lines.
pub const LINES_MAX: usize = 1024;
/// Most `m=` sections.
pub const MEDIA_MAX: usize = 32;
/// Most formats of a section.
pub const FORMATS_MAX: usize = 128;

impl Session {
    /// Reads a session description. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// [`SdpError`] with the number of the line.
    pub fn parse(bytes: &[u8]) -> Result<Session, SdpError> {
        if bytes.len() > SDP_BYTES_MAX {
            return Err(SdpError::TooLarge { line: 0 });
        }
        let text = String::from_utf8_lossy(bytes);
        let mut session = Session::default();
        let mut seen_version = false;
        for (index, raw) in text.split('\n').enumerate() {
            let line = index + 1;
            // Devices pad their descriptions with blanks and NUL bytes.
            let raw = raw.strip_suffix('\r').unwrap_or(raw);
            if raw.chars().all(|c| c == '\0' || c.is_whitespace()) {
                continue;
            }
            if line > LINES_MAX {
                return Err(SdpError::TooLarge { line });
            }
            let (kind, value) = raw.split_once('=').ok_or(SdpError::Syntax { line })?;
            let mut letters = kind.trim().chars();
            let (Some(kind), None) = (letters.next(), letters.next()) else {
                return Err(SdpError::Syntax { line });
            };
            if !seen_version {
                (kind == 'v' && value.trim() == "0").then_some(()).ok_or(SdpError::Version)?;
                seen_version = true;
            }
            if kind == 'm' {
                if session.media.len() >= MEDIA_MAX {
                    return Err(SdpError::TooLarge { line });
                }
                session.media.push(parse_media(value).ok_or(SdpError::Syntax { line })?);
                continue;
            }
            let lines = match session.media.last_mut() {
                Some(media) => &mut media.lines,
                None => &mut session.lines,
            };
            lines.push(Line::new(kind, value));
        }
        if seen_version { Ok(session) } else { Err(SdpError::Version) }
    }
}

fn parse_media(value: &str) -> Option<Media> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next()?.to_owned();
    let ports = words.next()?;
    let (port, port_count) = match ports.split_once('/') {
        Some((port, count)) => (port, Some(count.parse().ok()?)),
        None => (ports, None),
    };
    let port = port.parse().ok()?;
    let protocol = words.next()?.to_owned();
    let formats: Vec<String> = words.take(FORMATS_MAX).map(str::to_owned).collect();
    Some(Media { kind, port, port_count, protocol, formats, lines: Vec::new() })
}
