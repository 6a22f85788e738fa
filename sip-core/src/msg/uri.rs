//! URIs (RFC 3261 §19.1, RFC 3966). The text is kept as it came; parts are ranges into it, so an
//! escaped user part is never rewritten.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

/// Longest URI we read, bytes.
pub const URI_BYTES_MAX: usize = 16 * 1024;

/// Scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Anything else; only the text is known.
    Other,
}

/// Host of a URI or a Via.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A name, as written.
    Name(String),
}

impl Host {
    /// Reads a host; IPv6 needs its brackets.
    pub fn parse(text: &str) -> Option<Host> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().ok().map(|ip| Host::Ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
            return Some(Host::Ip(IpAddr::V4(ip)));
        }
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        (!text.is_empty() && text.bytes().all(legal)).then(|| Host::Name(text.to_owned()))
    }

    /// The literal address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Ip(ip) => write!(f, "{ip}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Splits `host[:port]` (brackets around IPv6, spaces around the colon tolerated).
pub fn parse_host_port(text: &str) -> Option<(Host, Option<u16>)> {
    let text = text.trim();
    let host_end = match text.strip_prefix('[') {
        Some(_) => text.find(']')? + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let host = Host::parse(text.get(..host_end)?.trim())?;
    let rest = text.get(host_end..)?.trim();
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':')?.trim();
    (!port.is_empty() && port.bytes().all(|c| c.is_ascii_digit())).then_some(())?;
    Some((host, Some(port.parse().ok()?)))
}

/// A URI that keeps its text.
#[derive(Clone, Debug)]
pub struct Uri {
    text: String,
    scheme: Scheme,
    user: Option<Range<usize>>,
    host: Option<Host>,
    port: Option<u16>,
    params: Range<usize>,
    headers: Range<usize>,
}

impl Uri {
    /// Reads a URI. Refused are white space, control bytes and, for `sip` and `sips`, a missing or
    /// malformed host.
    pub fn parse(text: &str) -> Option<Uri> {
        let scheme_end = text.find(':')?;
        let scheme_text = text.get(..scheme_end)?;
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
        if text.len() > URI_BYTES_MAX
            || !scheme_text.bytes().next()?.is_ascii_alphabetic()
            || !scheme_text.bytes().all(legal)
            || text.bytes().any(|c| c <= b' ' || matches!(c, 0x7f | b'<' | b'>' | b'"'))
        {
            return None;
        }
        let scheme = match scheme_text {
            s if s.eq_ignore_ascii_case("sip") => Scheme::Sip,
            s if s.eq_ignore_ascii_case("sips") => Scheme::Sips,
            s if s.eq_ignore_ascii_case("tel") => Scheme::Tel,
            _ => Scheme::Other,
        };
        let start = scheme_end + 1;
        match scheme {
            Scheme::Sip | Scheme::Sips => Uri::parse_sip(text, scheme, start),
            Scheme::Tel => Uri::parse_tel(text, start),
            Scheme::Other => (text.len() > start).then(|| Uri::bare(text, scheme)),
        }
    }

    fn bare(text: &str, scheme: Scheme) -> Uri {
        let end = text.len()..text.len();
        let text = text.to_owned();
        Uri { text, scheme, user: None, host: None, port: None, params: end.clone(), headers: end }
    }

    fn parse_sip(text: &str, scheme: Scheme, start: usize) -> Option<Uri> {
        let rest = text.get(start..)?;
        // The user part may contain ';' and '?', the rest may not contain '@' before the headers.
        let before_at = rest.find('@');
        let host_at = start + before_at.map_or(0, |at| at + 1);
        let mut uri = Uri::bare(text, scheme);
        if let Some(at) = before_at {
            let user = rest.get(..at)?;
            let name = user.find(':').unwrap_or(user.len());
            if name == 0 || !escapes_are_whole(user) {
                return None;
            }
            uri.user = Some(start..start + name);
        }
        let tail = text.get(host_at..)?;
        let headers_at = tail.find('?').unwrap_or(tail.len());
        let params_at = tail.get(..headers_at)?.find(';').unwrap_or(headers_at);
        let (host, port) = parse_host_port(tail.get(..params_at)?)?;
        uri.host = Some(host);
        uri.port = port;
        uri.params = host_at + params_at..host_at + headers_at;
        uri.headers = host_at + headers_at..text.len();
        escapes_are_whole(tail).then_some(uri)
    }

    fn parse_tel(text: &str, start: usize) -> Option<Uri> {
        let rest = text.get(start..)?;
        let number_end = rest.find(';').unwrap_or(rest.len());
        let number = rest.get(..number_end)?;
        // RFC 3966 §3: digits and visual separators; local numbers also hex, * and #.
        let legal = |c: u8| c.is_ascii_hexdigit() || b"+-.()*#%".contains(&c);
        if number.is_empty() || !number.bytes().all(legal) {
            return None;
        }
        let mut uri = Uri::bare(text, Scheme::Tel);
        uri.user = Some(start..start + number_end);
        uri.params = start + number_end..text.len();
        Some(uri)
    }

    /// A `sip:` URI from parts; the user part is escaped where it must be.
    pub fn sip(user: Option<&str>, host: &str, port: Option<u16>) -> Option<Uri> {
        let mut text = String::from("sip:");
        if let Some(user) = user.filter(|user| !user.is_empty()) {
            escape_user(user, &mut text);
            text.push('@');
        }
        match host.contains(':') && !host.starts_with('[') {
            true => text.push_str(&format!("[{host}]")),
            false => text.push_str(host),
        }
        if let Some(port) = port {
            text.push_str(&format!(":{port}"));
        }
        Uri::parse(&text)
    }

    /// The text as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// User part (or the telephone number of a `tel:` URI), still escaped.
    pub fn user(&self) -> Option<&str> {
        self.user.clone().and_then(|range| self.text.get(range))
    }

    /// User part with `%xx` resolved.
    pub fn user_decoded(&self) -> Option<String> {
        self.user().map(unescape)
    }

    /// Host.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// Port, if written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A URI parameter: `Some("")` if it has no value.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.text.get(self.params.clone())?.split(';').skip(1).find_map(|param| {
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Headers after `?`, without it.
    pub fn headers(&self) -> &str {
        let text = self.text.get(self.headers.clone()).unwrap_or_default();
        text.strip_prefix('?').unwrap_or(text)
    }

    /// The text without `?headers` (a request URI must not have them, RFC 3261 §19.1.1).
    pub fn without_headers(&self) -> &str {
        self.text.get(..self.headers.start).unwrap_or(&self.text)
    }

    /// Equality for our own purposes: scheme, user, host, port and the parameters that RFC 3261
    /// §19.1.4 names as never ignored.
    pub fn equivalent(&self, other: &Uri) -> bool {
        let host = |uri: &Uri| uri.host.as_ref().map(|host| host.to_string().to_ascii_lowercase());
        let named = ["user", "ttl", "method", "maddr", "transport"];
        self.scheme == other.scheme
            && self.user_decoded() == other.user_decoded()
            && host(self) == host(other)
            && self.port == other.port
            && named.iter().all(|name| {
                let value = |uri: &Uri| uri.param(name).map(str::to_ascii_lowercase);
                value(self) == value(other)
            })
    }
}

impl PartialEq for Uri {
    /// Textual equality; see [`Uri::equivalent`] for the RFC's.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Uri {}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn escapes_are_whole(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|part| part.as_bytes().get(..2).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)))
}

/// Resolves `%xx`; what is not UTF-8 afterwards is replaced.
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let hex = bytes.get(index + 1..index + 3).and_then(|h| std::str::from_utf8(h).ok());
        match hex.filter(|_| byte == b'%').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(value) => {
                out.push(value);
                index += 3;
            }
            None => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escape_user(user: &str, out: &mut String) {
    for byte in user.bytes() {
        // RFC 3261 §25.1: unreserved and user-unreserved.
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, user: Option<&str>, host: Option<&str>, port: Option<u16>) {
        let uri = Uri::parse(text).unwrap_or_else(|| panic!("{text} is legal"));
        assert_eq!(uri.as_str(), text);
        assert_eq!(uri.user(), user, "{text}");
        assert_eq!(uri.host().map(ToString::to_string).as_deref(), host, "{text}");
        assert_eq!(uri.port(), port, "{text}");
    }

    #[test]
    fn uris_keep_their_text() {
        check("sip:alice@atlanta.com", Some("alice"), Some("atlanta.com"), None);
        check(
            "sip:alice:pw@atlanta.com:5061;a=b?h=v",
            Some("alice"),
            Some("atlanta.com"),
            Some(5061),
        );
        check("sip:[2001:db8::1]:5060;lr", None, Some("[2001:db8::1]"), Some(5060));
        check("SIPS:%75se%72@10.0.0.1", Some("%75se%72"), Some("10.0.0.1"), None);
        check(
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com",
            Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"),
            Some("example.com"),
            None,
        );
        check("tel:+1-212-555-0101;phone-context=x", Some("+1-212-555-0101"), None, None);
        check("urn:service:sos", None, None, None);
    }

    #[test]
    fn bad_uris_are_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            "sip:@host",
            "sip:a@",
            "sip:a@h:99999",
            "sip:a@h:",
            "sip:a b@h",
            "sip:a%4@h",
            "sip:a@[::1",
            "tel:",
            "tel:abc xyz",
            "1sip:a@b",
            "sip:a@h<",
            "sip:a@ho^st",
        ] {
            assert!(Uri::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn parts_are_escaped_and_decoded() {
        let uri = Uri::sip(Some("a b@c"), "::1", Some(5070)).expect("legal");
        assert_eq!(uri.as_str(), "sip:a%20b%40c@[::1]:5070");
        assert_eq!(uri.user_decoded().as_deref(), Some("a b@c"));
        let uri = Uri::parse("sip:h;transport=TCP;lr?Subject=x").expect("legal");
        assert_eq!((uri.param("transport"), uri.param("LR")), (Some("TCP"), Some("")));
        assert_eq!((uri.headers(), uri.without_headers()), ("Subject=x", "sip:h;transport=TCP;lr"));
        assert!(Uri::parse("sip:%61@H").expect("a").equivalent(&Uri::parse("sip:a@h").expect("b")));
    }
}
