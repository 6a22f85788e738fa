//! Looks into a raw message without parsing it: for threads that only have to find its owner.

use super::name::HeaderName;
use super::scan;

/// How far into a datagram we look, bytes.
const PEEK_BYTES_MAX: usize = 16 * 1024;

/// The Call-ID of a raw message, trimmed. `None` if there is none, or if it is folded in a way only
/// the parser understands.
pub fn call_id(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = bytes.get(..PEEK_BYTES_MAX).unwrap_or(bytes);
    let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n' | 0)).count();
    for line in bytes.get(lead..)?.split(|b| *b == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        // Only lines that begin like "Call-ID" or "i" are looked at.
        if !matches!(line.first(), Some(b'C' | b'c' | b'I' | b'i')) {
            continue;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = scan::trim(line.get(..colon)?);
        if HeaderName::parse(name) == HeaderName::CallId {
            let value = scan::trim(line.get(colon + 1..)?);
            return (!value.is_empty()).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_compact_names() {
        for (text, expect) in [
            ("INVITE sip:a@b SIP/2.0\r\nCall-ID: x@y\r\n\r\n", Some("x@y")),
            ("\r\nINVITE sip:a@b SIP/2.0\r\nContact: <i:x>\r\ni :  z \r\n\r\n", Some("z")),
            ("SIP/2.0 200 OK\ncall-id:q\n\n", Some("q")),
            ("INVITE sip:a@b SIP/2.0\r\nFrom: x\r\n\r\nCall-ID: body\r\n", None),
            ("", None),
        ] {
            assert_eq!(call_id(text.as_bytes()), expect.map(str::as_bytes), "{text}");
        }
    }
}
