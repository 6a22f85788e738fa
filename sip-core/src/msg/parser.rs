//! The parser: finds the start line, header lines and the body without copying, then checks what
//! every element needs (RFC 3261 §8.1.1). A message that breaks a rule but says enough about its
//! sender gets the bytes of an answer.

use bytes::Bytes;

use super::headers::{Header, Headers};
use super::name::HeaderName;
use super::{CSeq, Message, Method, NameAddr, StartLine, Via, scan, writer};
use crate::error::{ParseError, ParseErrorKind};

/// Largest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 65_536;
/// Most header lines.
pub const HEADERS_MAX: usize = 256;
/// Most values of one list header that we look at.
pub const LIST_VALUES_MAX: usize = 256;
/// Most parts of a multipart body that we look at.
const PARTS_MAX: usize = 16;
/// RFC 2046 §5.1.1; it also keeps the search for the boundary linear.
const BOUNDARY_LEN_MAX: usize = 70;

/// Reads one message. See [`Message::parse`].
pub fn parse(bytes: &Bytes) -> Result<Message, ParseError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(ParseError::new(MESSAGE_BYTES_MAX, "message", ParseErrorKind::TooLarge));
    }
    // RFC 3261 §7.5: ignore CRLF before the start line.
    let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n' | 0)).count();
    if lead == bytes.len() {
        return Err(ParseError::new(0, "message", ParseErrorKind::Empty));
    }
    let line_end = line_end(bytes, lead);
    let start = parse_start_line(bytes, lead, line_end.content)?;
    let block = parse_headers(bytes, line_end.next);
    let mut message = Message {
        start: start.line,
        headers: block.headers,
        body: bytes.slice(block.body_at.min(bytes.len())..),
    };
    let verdict = match (start.version_ok, block.error) {
        (false, _) => Err(ParseError::new(lead, "start line", ParseErrorKind::Version)),
        (true, Some(error)) => Err(error),
        (true, None) => check(&mut message, block.body_at),
    };
    match verdict {
        Ok(()) => Ok(message),
        Err(mut error) => {
            error.answer = answer_for(&message, &error);
            Err(error)
        }
    }
}

struct LineEnd {
    /// End of the line's content.
    content: usize,
    /// Start of the next line.
    next: usize,
}

/// Ends at LF; a CR before it does not belong to the content. LF-only lines are tolerated.
fn line_end(bytes: &[u8], from: usize) -> LineEnd {
    let rest = bytes.get(from..).unwrap_or_default();
    match rest.iter().position(|b| *b == b'\n') {
        Some(at) => {
            let cr = at > 0 && rest.get(at - 1) == Some(&b'\r');
            LineEnd { content: from + at - usize::from(cr), next: from + at + 1 }
        }
        None => LineEnd { content: bytes.len(), next: bytes.len() },
    }
}

struct Start {
    line: StartLine,
    version_ok: bool,
}

fn parse_start_line(bytes: &Bytes, from: usize, to: usize) -> Result<Start, ParseError> {
    let syntax = |at: usize| ParseError::new(at, "start line", ParseErrorKind::Syntax);
    // White space at the end of the line is tolerated (RFC 4475 §3.1.2.11).
    let line = bytes.get(from..to).unwrap_or_default().trim_ascii_end();
    let first = line.iter().position(|b| *b == b' ').ok_or(syntax(from))?;
    let (head, rest) = line.split_at(first);
    if head.len() > 4 && head.get(..4).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/")) {
        let rest = scan::trim(rest);
        let (code, reason) = rest.split_at_checked(3).ok_or(syntax(from + first))?;
        let digits = code.iter().all(u8::is_ascii_digit);
        let status = std::str::from_utf8(code).ok().and_then(|c| c.parse::<u16>().ok());
        let status = status.filter(|s| digits && (100..700).contains(s));
        let status = status.ok_or(syntax(from + first))?;
        if !reason.is_empty() && reason.first() != Some(&b' ') {
            return Err(syntax(from + first));
        }
        let line = StartLine::Response { status, reason: bytes.slice_ref(scan::trim(reason)) };
        return Ok(Start { line, version_ok: head.eq_ignore_ascii_case(b"SIP/2.0") });
    }
    let method = Method::parse(head).ok_or(syntax(from))?;
    let last = line.iter().rposition(|b| *b == b' ').ok_or(syntax(from))?;
    let version = line.get(last + 1..).unwrap_or_default();
    let uri = scan::trim(line.get(first..last).unwrap_or_default());
    if !version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/")) {
        // Not answerable: it may be HTTP or noise.
        return Err(syntax(from + last));
    }
    let line = StartLine::Request { method, uri: bytes.slice_ref(uri) };
    Ok(Start { line, version_ok: version.eq_ignore_ascii_case(b"SIP/2.0") })
}

struct HeaderBlock {
    headers: Headers,
    body_at: usize,
    error: Option<ParseError>,
}

/// Reads header lines up to the empty line or the limit. The first malformed line is kept as
/// `error`, and the rest is read all the same, so that an answer can be made.
fn parse_headers(bytes: &Bytes, mut at: usize) -> HeaderBlock {
    let mut headers = Headers::with_capacity(16);
    let mut error = None;
    while at < bytes.len() {
        let mut end = line_end(bytes, at);
        if end.content == at {
            return HeaderBlock { headers, body_at: end.next, error };
        }
        // RFC 3261 §7.3.1: a line that begins with white space continues the one before.
        while matches!(bytes.get(end.next), Some(b' ' | b'\t')) {
            end = line_end(bytes, end.next);
        }
        if headers.len() >= HEADERS_MAX {
            error = Some(ParseError::new(at, "headers", ParseErrorKind::TooLarge));
            break;
        }
        let raw = bytes.slice(at..end.content);
        match parse_header_line(raw) {
            Some(header) => headers.push(header),
            None => {
                let syntax = || ParseError::new(at, "header line", ParseErrorKind::Syntax);
                error.get_or_insert_with(syntax);
            }
        }
        at = end.next;
    }
    // No empty line at the end: tolerated when there is no body, as many devices do.
    HeaderBlock { headers, body_at: bytes.len(), error }
}

fn parse_header_line(raw: Bytes) -> Option<Header> {
    let colon = raw.iter().position(|b| *b == b':')?;
    // White space before the colon is legal (RFC 3261 §25.1 HCOLON) and not part of the name.
    let name = scan::trim(raw.get(..colon)?);
    if name.is_empty() || !name.iter().copied().all(scan::is_token) || raw.first() != name.first() {
        return None;
    }
    let (name_len, value_at) = (name.len() as u32, colon as u32 + 1);
    let name = HeaderName::parse(name);
    Some(Header::from_wire(name, raw, name_len, value_at))
}

/// What every message must have, and Content-Length (RFC 3261 §18.3).
fn check(message: &mut Message, body_at: usize) -> Result<(), ParseError> {
    use ParseErrorKind::{Duplicate, Missing, Syntax, Truncated};
    let fail = |field, kind| Err(ParseError::new(body_at, field, kind));
    for (name, field) in [
        (HeaderName::From, "From"),
        (HeaderName::To, "To"),
        (HeaderName::CallId, "Call-ID"),
        (HeaderName::CSeq, "CSeq"),
        (HeaderName::ContentLength, "Content-Length"),
        (HeaderName::MaxForwards, "Max-Forwards"),
    ] {
        let mut all = message.headers.all(name);
        let first = all.next().map(Header::value);
        let required = !matches!(name, HeaderName::ContentLength | HeaderName::MaxForwards);
        if required && first.is_none() {
            return fail(field, Missing);
        }
        if all.any(|other| Some(other.value()) != first) {
            return fail(field, Duplicate);
        }
    }
    let Some(via) = message.headers.first(HeaderName::Via) else {
        return fail("Via", Missing);
    };
    let via = via.value();
    let Some(Some(_)) = scan::split_outside(&via, b',').next().map(Via::parse) else {
        return fail("Via", Syntax);
    };
    let header = |name| message.headers.first(name).map(Header::value).unwrap_or_default();
    if NameAddr::parse(&header(HeaderName::From)).is_none() {
        return fail("From", Syntax);
    }
    if NameAddr::parse(&header(HeaderName::To)).is_none() {
        return fail("To", Syntax);
    }
    if header(HeaderName::CallId).is_empty() {
        return fail("Call-ID", Syntax);
    }
    let Some(cseq) = CSeq::parse(&header(HeaderName::CSeq)) else {
        return fail("CSeq", Syntax);
    };
    if let StartLine::Request { method, .. } = &message.start {
        if *method != cseq.method {
            return fail("CSeq", Syntax);
        }
        if message.request_uri().is_none() {
            return fail("Request-URI", Syntax);
        }
        let hops = message.headers.first(HeaderName::MaxForwards).map(Header::value_str);
        if hops.is_some_and(|hops| hops.parse::<u8>().is_err()) {
            return fail("Max-Forwards", Syntax);
        }
    }
    let Some(length) = message.headers.first(HeaderName::ContentLength) else {
        return Ok(());
    };
    let Ok(length) = length.value_str().parse::<usize>() else {
        return fail("Content-Length", Syntax);
    };
    if length > message.body.len() {
        return fail("Content-Length", Truncated);
    }
    message.body.truncate(length);
    Ok(())
}

/// The answer to a request that broke a rule: possible if it is not an ACK and has what an answer
/// must repeat. If its Via cannot be read, the answer goes to where the request came from.
fn answer_for(message: &Message, error: &ParseError) -> Option<Box<Message>> {
    let StartLine::Request { method, .. } = &message.start else {
        return None;
    };
    if *method == Method::Ack {
        return None;
    }
    use HeaderName::{CSeq, CallId, From, To, Via};
    let all = [Via, From, To, CallId, CSeq];
    if all.iter().any(|name| message.headers.first(*name).is_none()) {
        return None;
    }
    let (status, reason) = match error.kind {
        ParseErrorKind::Version => (505, String::new()),
        ParseErrorKind::TooLarge => (513, String::new()),
        kind => (400, format!("Bad Request: {} {kind}", error.field)),
    };
    let tag = message.to().is_none_or(|to| to.tag().is_none()).then_some("malformed");
    Some(Box::new(writer::response_to(message, status, &reason, tag)))
}

/// The first part of a multipart body with the wanted type (RFC 2046 §5.1.1).
pub(super) fn multipart_part(body: &Bytes, boundary: &str, wanted: &str) -> Option<Bytes> {
    if boundary.is_empty() || boundary.len() > BOUNDARY_LEN_MAX {
        return None;
    }
    let delimiter = format!("--{boundary}");
    let mut at = find(body, delimiter.as_bytes(), 0)? + delimiter.len();
    for _ in 0..PARTS_MAX {
        let end = find(body, delimiter.as_bytes(), at)?;
        let part = part_of(body, line_end(body, at).next, end);
        if let Some(found) = part.filter(|part| part.0 == wanted) {
            return Some(found.1);
        }
        at = end + delimiter.len();
    }
    None
}

/// Type and content of the part between two delimiters.
fn part_of(body: &Bytes, mut at: usize, end: usize) -> Option<(String, Bytes)> {
    let mut essence = "text/plain".to_owned();
    loop {
        if at >= end {
            return None;
        }
        let line = line_end(body, at);
        if line.content == at {
            break;
        }
        if let Some(header) = parse_header_line(body.slice(at..line.content))
            && header.name() == HeaderName::ContentType
        {
            essence = super::MediaType::parse(&header.value())?.essence;
        }
        at = line.next;
    }
    let at = line_end(body, at).next;
    let content = body.get(at..end)?;
    // The line end before the delimiter belongs to the delimiter.
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    Some((essence, body.slice_ref(content)))
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = haystack.get(from..)?;
    rest.windows(needle.len().max(1)).position(|window| window == needle).map(|at| from + at)
}
