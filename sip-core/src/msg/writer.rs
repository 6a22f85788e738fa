//! The writer. Headers go out byte for byte as they are held; only Content-Length is ours.

use bytes::{BufMut, Bytes, BytesMut};

use super::headers::Header;
use super::name::HeaderName;
use super::{Headers, Message, StartLine, reason_phrase};

/// Writes a message with a Content-Length that fits its body.
pub fn write(message: &Message) -> Bytes {
    let size = message.headers.iter().map(|h| h.raw().len() + 2).sum::<usize>();
    let mut out = BytesMut::with_capacity(size + message.body.len() + 160);
    match &message.start {
        StartLine::Request { method, uri } => {
            out.put_slice(method.as_str().as_bytes());
            out.put_u8(b' ');
            out.put_slice(uri);
            out.put_slice(b" SIP/2.0\r\n");
        }
        StartLine::Response { status, reason } => {
            out.put_slice(format!("SIP/2.0 {status} ").as_bytes());
            out.put_slice(reason);
            out.put_slice(b"\r\n");
        }
    }
    let mut length_written = false;
    for header in &message.headers {
        if header.name() == HeaderName::ContentLength {
            if length_written {
                continue;
            }
            length_written = true;
            let right = header.value_str().parse() == Ok(message.body.len());
            if !right {
                out.put_slice(format!("Content-Length: {}\r\n", message.body.len()).as_bytes());
                continue;
            }
        }
        out.put_slice(header.raw());
        out.put_slice(b"\r\n");
    }
    if !length_written {
        out.put_slice(format!("Content-Length: {}\r\n", message.body.len()).as_bytes());
    }
    out.put_slice(b"\r\n");
    out.put_slice(&message.body);
    out.freeze()
}

/// See [`Message::response_to`].
pub fn response_to(request: &Message, status: u16, reason: &str, to_tag: Option<&str>) -> Message {
    let mut headers = Headers::with_capacity(request.headers.len().min(16) + 4);
    for header in &request.headers {
        match header.name() {
            HeaderName::To => headers.push(match to_tag {
                Some(tag) => tagged(header, tag),
                None => header.clone(),
            }),
            HeaderName::Via | HeaderName::From | HeaderName::CallId | HeaderName::CSeq => {
                headers.push(header.clone());
            }
            // RFC 3261 §8.2.6.1: a 100 repeats the Timestamp.
            HeaderName::Timestamp if status == 100 => headers.push(header.clone()),
            _ => {}
        }
    }
    let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
    let clean: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = StartLine::Response { status, reason: Bytes::from(clean) };
    Message { start, headers, body: Bytes::new() }
}

/// The To header with our tag; its other bytes stay as they are.
fn tagged(header: &Header, tag: &str) -> Header {
    let value = header.value();
    let has_tag = super::NameAddr::parse(&value).is_some_and(|to| to.tag().is_some());
    if has_tag {
        return header.clone();
    }
    let mut value = value.into_owned();
    value.extend_from_slice(b";tag=");
    value.extend_from_slice(tag.as_bytes());
    Header::new(HeaderName::To, value)
}
