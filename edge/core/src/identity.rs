//! Parties and headers between SIP and control: numbers, names, forwarding, `X-` headers.

use std::net::SocketAddr;

use sip_core::msg::{Host, Scheme};
use sip_core::{Destination, Header, HeaderName, IncomingCall, Message, NameAddr, Transport, Uri};

/// Most headers that go through either way.
pub(crate) const HEADERS_MAX: usize = 32;
/// Longest value of such a header in bytes.
pub(crate) const HEADER_BYTES_MAX: usize = 1_024;
/// Longest party in an event in bytes.
const PARTY_BYTES_MAX: usize = 512;

/// The party of a URI: E.164 number if its user part looks like one, else the URI.
pub(crate) fn party(uri: &Uri) -> String {
    let user = uri.user_decoded().unwrap_or_default();
    // RFC 3261 §19.1.6: the user part may carry telephone-subscriber parameters.
    let number = user.split(';').next().unwrap_or_default();
    let plain: String = match uri.scheme() {
        Scheme::Tel => number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect(),
        _ => number.to_owned(),
    };
    if looks_like_number(&plain) {
        return plain;
    }
    let text = match (uri.scheme(), uri.host()) {
        (Scheme::Sip | Scheme::Sips, Some(host)) => {
            let scheme = if uri.scheme() == Scheme::Sips { "sips" } else { "sip" };
            let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
            match uri.user() {
                Some(user) => format!("{scheme}:{user}@{host}{port}"),
                None => format!("{scheme}:{host}{port}"),
            }
        }
        _ => uri.as_str().to_owned(),
    };
    truncated(text, PARTY_BYTES_MAX)
}

/// `+` and digits, or digits alone, 3 to 15 of them (E.164 §6.2.1).
pub(crate) fn looks_like_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (3..=15).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit())
}

fn truncated(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Display name of the calling party.
pub(crate) fn caller_name(call: &IncomingCall) -> Option<String> {
    let name = call.from.display.clone().filter(|name| !name.is_empty())?;
    Some(truncated(name, PARTY_BYTES_MAX))
}

/// Who forwarded the call: the latest Diversion (RFC 5806), else the last but one entry of
/// History-Info (RFC 7044).
pub(crate) fn forwarded_from(request: &Message) -> Option<String> {
    if let Some(latest) = request.values(HeaderName::Diversion).first() {
        return NameAddr::parse(latest).map(|addr| party(&addr.uri));
    }
    let history = request.values(HeaderName::HistoryInfo);
    let before_last = history.len().checked_sub(2)?;
    NameAddr::parse(history.get(before_last)?).map(|addr| party(&addr.uri))
}

fn goes_through(name: &str) -> bool {
    let x = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
    x || name.eq_ignore_ascii_case("user-to-user")
}

/// `X-` headers and User-to-User (RFC 7433) of a request, in order, bounded.
pub(crate) fn custom_headers(request: &Message) -> Vec<(String, String)> {
    request
        .headers
        .iter()
        .filter(|header| goes_through(header.spelling()))
        .take(HEADERS_MAX)
        .map(|header| {
            let value = truncated(header.value_str().into_owned(), HEADER_BYTES_MAX);
            (header.spelling().to_owned(), value)
        })
        .collect()
}

/// The same for an outbound INVITE. Headers that are ours to write are refused by name.
pub(crate) fn outbound_headers(headers: &[(String, String)]) -> Result<Vec<Header>, String> {
    const ALLOWED: &[&str] =
        &["diversion", "p-asserted-identity", "p-preferred-identity", "privacy", "subject"];
    if headers.len() > HEADERS_MAX {
        return Err(format!("more than {HEADERS_MAX} headers"));
    }
    headers
        .iter()
        .map(|(name, value)| {
            let lower = name.to_ascii_lowercase();
            let allowed = goes_through(name) || ALLOWED.contains(&lower.as_str());
            let header = (allowed && value.len() <= HEADER_BYTES_MAX)
                .then(|| Header::named(name, value.as_bytes()))
                .flatten();
            header.ok_or_else(|| format!("header {name:?} not allowed"))
        })
        .collect()
}

/// The calling party of an outbound leg.
pub(crate) fn from_party(from: &str, host: &str) -> Option<NameAddr> {
    let uri =
        if from.contains(':') { Uri::parse(from)? } else { Uri::sip(Some(from), host, None)? };
    Some(NameAddr::new(uri))
}

/// Where a request URI says to send: an address, or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NextHop {
    Address(Destination),
    Name { host: String, port: Option<u16>, transport: Transport },
}

/// First hop of a request URI (RFC 3263 §4 without the DNS part).
pub(crate) fn next_hop(uri: &Uri) -> Result<NextHop, String> {
    if uri.scheme() != Scheme::Sip {
        return Err(format!("cannot call {uri}"));
    }
    let transport = match uri.param("transport") {
        None => Transport::Udp,
        Some(name) => Transport::from_name(name).ok_or_else(|| format!("transport {name}"))?,
    };
    if transport != Transport::Udp {
        return Err(format!("transport {transport} is not available"));
    }
    match uri.host().ok_or_else(|| format!("no host in {uri}"))? {
        Host::Ip(ip) => {
            let port = uri.port().unwrap_or_else(|| transport.default_port());
            Ok(NextHop::Address(Destination::new(transport, SocketAddr::new(*ip, port))))
        }
        Host::Name(host) => Ok(NextHop::Name { host: host.clone(), port: uri.port(), transport }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn tel_parties_are_numbers_or_uris() {
        for (uri, expect) in [
            ("sip:+4930123456@10.0.0.1;user=phone", "+4930123456"),
            ("sip:1000@pbx", "1000"),
            ("sip:12@pbx", "sip:12@pbx"),
            ("sip:alice@pbx.example:5070;transport=udp", "sip:alice@pbx.example:5070"),
            ("sip:+4930;phone-context=x@pbx", "+4930"),
            ("tel:+49-30-1234", "+49301234"),
            ("sip:pbx.example", "sip:pbx.example"),
        ] {
            assert_eq!(party(&Uri::parse(uri).unwrap()), expect);
        }
    }

    #[test]
    fn forwarding_is_found() {
        for (headers, expect) in [
            ("Diversion: <sip:+491@a>;reason=x, <sip:+492@a>\r\n", Some("+491")),
            ("Diversion: <sip:+49111@a>\r\n", Some("+49111")),
            ("History-Info: <sip:+49222@a>;index=1, <sip:+49333@a>;index=1.1\r\n", Some("+49222")),
            ("History-Info: <sip:+49222@a>;index=1\r\n", None),
            ("", None),
        ] {
            let text = format!(
                "INVITE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a>;tag=1\r\n\
                 To: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n{headers}X-A: 1\r\n\
                 User-to-User: 2\r\nX-B: 3\r\n\r\n"
            );
            let message = Message::parse(&Bytes::from(text)).unwrap();
            assert_eq!(forwarded_from(&message).as_deref(), expect, "{headers}");
            let names: Vec<_> = custom_headers(&message).into_iter().map(|(n, v)| n + &v).collect();
            assert_eq!(names, ["X-A1", "User-to-User2", "X-B3"]);
        }
    }

    #[test]
    fn headers_of_ours_are_refused() {
        let headers = |name: &str| outbound_headers(&[(name.to_owned(), "v".to_owned())]);
        assert!(headers("X-Trace").is_ok() && headers("Diversion").is_ok());
        for name in ["Via", "Contact", "Content-Length", "X Y", ""] {
            assert!(headers(name).is_err(), "{name}");
        }
    }

    #[test]
    fn next_hops() {
        let hop = |text: &str| next_hop(&Uri::parse(text).unwrap());
        let address = |text: &str| Ok(NextHop::Address(Destination::udp(text.parse().unwrap())));
        assert_eq!(hop("sip:a@10.0.0.1"), address("10.0.0.1:5060"));
        assert_eq!(hop("sip:a@[::1]:7;transport=UDP"), address("[::1]:7"));
        let name = NextHop::Name { host: "pbx".into(), port: Some(9), transport: Transport::Udp };
        assert_eq!(hop("sip:a@pbx:9"), Ok(name));
        for text in ["sip:a@h;transport=tcp", "sips:a@h", "tel:+49301", "sip:a@h;transport=x"] {
            assert!(hop(text).is_err(), "{text}");
        }
    }
}
