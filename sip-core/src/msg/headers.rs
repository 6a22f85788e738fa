//! One header and the ordered list of headers. Bytes that came from the wire stay as they came.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::name::HeaderName;
use super::scan;

/// One header line (with its folded continuation lines), without the final line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: HeaderName,
    raw: Bytes,
    name_len: u32,
    value_at: u32,
}

impl Header {
    /// A header of ours. Line ends and NUL in `value` become spaces, so that a value from outside
    /// cannot add headers.
    pub fn new(name: HeaderName, value: impl AsRef<[u8]>) -> Header {
        Header::build(name, name.as_str().as_bytes(), value.as_ref())
    }

    /// A header by its name as text; `None` if the name is not a token.
    pub fn named(name: &str, value: impl AsRef<[u8]>) -> Option<Header> {
        let legal = !name.is_empty() && name.bytes().all(scan::is_token);
        legal.then(|| {
            Header::build(HeaderName::parse(name.as_bytes()), name.as_bytes(), value.as_ref())
        })
    }

    fn build(name: HeaderName, spelled: &[u8], value: &[u8]) -> Header {
        let mut raw = BytesMut::with_capacity(spelled.len() + 2 + value.len());
        raw.extend_from_slice(spelled);
        raw.extend_from_slice(b": ");
        let clean = |b: &u8| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { *b };
        raw.extend(scan::trim(value).iter().map(clean));
        let name_len = spelled.len() as u32;
        Header { name, raw: raw.freeze(), name_len, value_at: name_len + 2 }
    }

    pub(crate) fn from_wire(name: HeaderName, raw: Bytes, name_len: u32, value_at: u32) -> Header {
        Header { name, raw, name_len, value_at }
    }

    /// The name.
    pub fn name(&self) -> HeaderName {
        self.name
    }

    /// The name as written.
    pub fn spelling(&self) -> &str {
        let bytes = self.raw.get(..self.name_len as usize).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The whole line as it came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The value, trimmed, folding left in place.
    pub fn value_raw(&self) -> &[u8] {
        scan::trim(self.raw.get(self.value_at as usize..).unwrap_or_default())
    }

    /// The value with folded lines joined by one space (RFC 3261 §7.3.1).
    pub fn value(&self) -> Cow<'_, [u8]> {
        let raw = self.value_raw();
        if !raw.iter().any(|b| matches!(b, b'\r' | b'\n')) {
            return Cow::Borrowed(raw);
        }
        let mut out = Vec::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) {
            let (line, tail) = rest.split_at(at);
            out.extend_from_slice(line);
            while out.last().is_some_and(|b| scan::is_lws(*b)) {
                out.pop();
            }
            out.push(b' ');
            rest = scan::trim(tail);
        }
        out.extend_from_slice(rest);
        Cow::Owned(out)
    }

    /// The value as text; bytes that are not UTF-8 are replaced.
    pub fn value_str(&self) -> Cow<'_, str> {
        match self.value() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// True for this name, long or compact, in any case.
    pub fn is_named(&self, name: &str) -> bool {
        match HeaderName::parse(name.as_bytes()) {
            HeaderName::Other => self.spelling().eq_ignore_ascii_case(name),
            known => self.name == known,
        }
    }
}

/// Headers in the order of the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    list: Vec<Header>,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(count: usize) -> Self {
        Headers { list: Vec::with_capacity(count) }
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.list.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Appends one.
    pub fn push(&mut self, header: Header) {
        self.list.push(header);
    }

    /// Appends one of ours.
    pub fn add(&mut self, name: HeaderName, value: impl AsRef<[u8]>) {
        self.list.push(Header::new(name, value));
    }

    /// Puts one in front of all others.
    pub fn push_front(&mut self, header: Header) {
        self.list.insert(0, header);
    }

    /// The first of that name.
    pub fn first(&self, name: HeaderName) -> Option<&Header> {
        self.list.iter().find(|header| header.name == name)
    }

    /// All of that name, in order.
    pub fn all(&self, name: HeaderName) -> impl Iterator<Item = &Header> {
        self.list.iter().filter(move |header| header.name == name)
    }

    /// The first with this name, for headers that are not in [`HeaderName`].
    pub fn named(&self, name: &str) -> Option<&Header> {
        self.list.iter().find(|header| header.is_named(name))
    }

    /// Removes all of that name.
    pub fn remove(&mut self, name: HeaderName) {
        self.list.retain(|header| header.name != name);
    }

    /// Replaces the first of that name, or appends.
    pub fn set(&mut self, name: HeaderName, value: impl AsRef<[u8]>) {
        let header = Header::new(name, value);
        match self.list.iter_mut().find(|header| header.name == name) {
            Some(slot) => *slot = header,
            None => self.list.push(header),
        }
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<T: IntoIterator<Item = Header>>(iter: T) -> Self {
        Headers { list: iter.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_inject_headers() {
        let header = Header::new(HeaderName::Reason, "a\r\nVia: evil");
        assert_eq!(&header.raw()[..], b"Reason: a  Via: evil");
        assert!(Header::named("X Y", "v").is_none());
        assert!(Header::named("X-Y:", "v").is_none());
    }

    #[test]
    fn folding_is_joined_in_values_only() {
        let raw = Bytes::from_static(b"Subject : I know\r\n\t you're there,\r\n  pick up ");
        let header = Header::from_wire(HeaderName::Subject, raw.clone(), 7, 9);
        assert_eq!(header.value_str(), "I know you're there, pick up");
        assert_eq!(header.raw(), &raw);
        assert_eq!(header.spelling(), "Subject");
        assert!(header.is_named("s"));
    }
}
