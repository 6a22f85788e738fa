//! Message borders on streams (RFC 3261 §18.3): bytes in, whole messages out.

use bytes::{Bytes, BytesMut};

use crate::msg::parser::MESSAGE_BYTES_MAX;
use crate::msg::{HeaderName, scan};

/// Why a stream cannot go on; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// No end of message within the limit.
    #[error("message on stream too large")]
    TooLarge,
    /// RFC 3261 §18.3: on streams Content-Length is mandatory.
    #[error("no usable Content-Length on stream")]
    ContentLength,
}

/// Cuts a byte stream into messages. Holds at most one message beyond what was pushed last.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    /// How far the header block has been searched, so that slow peers cost linear time.
    searched: usize,
}

impl StreamFramer {
    /// An empty framer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read. Call [`StreamFramer::next_message`] until `None` afterwards.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// [`FramingError`]; the stream has lost its borders.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FramingError> {
        if self.searched == 0 {
            // Keep-alives (RFC 5626 §3.5.1) and stray line ends between messages.
            let lead = self.buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            let _ = self.buffer.split_to(lead);
        }
        let Some(body_at) = self.find_body() else {
            if self.buffer.len() > MESSAGE_BYTES_MAX {
                return Err(FramingError::TooLarge);
            }
            return Ok(None);
        };
        let head = self.buffer.get(..body_at).unwrap_or_default();
        let length = content_length(head).ok_or(FramingError::ContentLength)?;
        let total = body_at.checked_add(length).ok_or(FramingError::TooLarge)?;
        if total > MESSAGE_BYTES_MAX {
            return Err(FramingError::TooLarge);
        }
        if self.buffer.len() < total {
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some(self.buffer.split_to(total).freeze()))
    }

    /// Index behind the empty line.
    fn find_body(&mut self) -> Option<usize> {
        let from = self.searched.saturating_sub(3);
        let bytes = self.buffer.get(from..).unwrap_or_default();
        for (index, byte) in bytes.iter().enumerate() {
            if *byte != b'\n' {
                continue;
            }
            let before = bytes.get(..index).unwrap_or_default();
            if before.ends_with(b"\n") || before.ends_with(b"\n\r") {
                // The next call starts over from here, should the body not be complete yet.
                self.searched = from + index;
                return Some(from + index + 1);
            }
        }
        self.searched = self.buffer.len();
        None
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|b| *b == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = scan::trim(line.get(..colon)?);
        (HeaderName::parse(name) == HeaderName::ContentLength).then_some(())?;
        std::str::from_utf8(scan::trim(line.get(colon + 1..)?)).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nl : 3\r\n\r\nabc";
    const TWO: &[u8] = b"BYE sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn any_cut_gives_the_same_messages() {
        let stream = [b"\r\n\r\n", ONE, b"\r\n", TWO, ONE].concat();
        for step in 1..stream.len() {
            let mut framer = StreamFramer::new();
            let mut out = Vec::new();
            for chunk in stream.chunks(step) {
                framer.push(chunk);
                while let Some(message) = framer.next_message().expect("well framed") {
                    out.push(message);
                }
            }
            assert_eq!(out, [ONE, TWO, ONE], "step {step}");
            assert_eq!(framer.buffered_bytes(), 0);
        }
    }

    #[test]
    fn lost_borders_are_errors() {
        let mut framer = StreamFramer::new();
        framer.push(b"OPTIONS sip:a@b SIP/2.0\r\n\r\n");
        assert_eq!(framer.next_message(), Err(FramingError::ContentLength));
        let mut framer = StreamFramer::new();
        framer.push(b"X: y\r\nContent-Length: 99999999999999999999\r\n\r\n");
        assert_eq!(framer.next_message(), Err(FramingError::ContentLength));
        let mut framer = StreamFramer::new();
        framer.push(b"X: y\r\nContent-Length: 70000\r\n\r\n");
        assert_eq!(framer.next_message(), Err(FramingError::TooLarge));
        let mut framer = StreamFramer::new();
        framer.push(&vec![b'x'; MESSAGE_BYTES_MAX + 1]);
        assert_eq!(framer.next_message(), Err(FramingError::TooLarge));
    }
}
