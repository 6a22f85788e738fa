//! Building one signed request.

use crate::io::{HttpRequest, Method};
use crate::webhook::sign;

/// Header that is equal in all attempts and repeats of one request.
pub const IDEMPOTENCY_HEADER: &str = "I-Twilio-Idempotency-Token";

/// The URL as it goes over the wire, which is what its receiver can check the signature of: without
/// fragment, the path at least a slash, what is not allowed in a URL percent-encoded. One that
/// cannot be read stays as it is and fails later.
fn on_the_wire(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) => {
            parsed.set_fragment(None);
            parsed.into()
        }
        Err(_) => url.to_owned(),
    }
}

/// A complete request: parameters in the query of a GET or the form of a POST, signed.
pub fn build(
    url: &str,
    method: Method,
    params: &[(String, String)],
    auth_token: &str,
    token: &str,
    unix_ms: u64,
) -> HttpRequest {
    let encoded = || {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(params);
        form.finish()
    };
    let url = on_the_wire(url);
    let (url, body, signed): (String, Option<String>, &[(String, String)]) = match method {
        Method::Get if params.is_empty() => (url, None, &[]),
        Method::Get => {
            let separator = match url.contains('?') {
                true if url.ends_with(['?', '&']) => "",
                true => "&",
                false => "?",
            };
            (format!("{url}{separator}{}", encoded()), None, &[])
        }
        Method::Post => (url, Some(encoded()), params),
    };
    let mut headers = vec![
        (sign::HEADER.to_owned(), sign::sha1(auth_token, &url, signed)),
        (sign::HEADER_SHA256.to_owned(), sign::sha256(auth_token, unix_ms / 1000, &url, signed)),
        (IDEMPOTENCY_HEADER.to_owned(), token.to_owned()),
        ("Accept".to_owned(), "*/*".to_owned()),
        ("User-Agent".to_owned(), "TwilioProxy/1.1 Tandem".to_owned()),
    ];
    if body.is_some() {
        let value = "application/x-www-form-urlencoded; charset=UTF-8".to_owned();
        headers.push(("Content-Type".to_owned(), value));
    }
    HttpRequest { method, url, headers, body }
}

/// Date of a callback: RFC 2822, UTC.
pub fn rfc2822(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let stamp = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    jiff::fmt::rfc2822::to_string(&stamp.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default()
}

/// An absolute URL from one that may be relative to `base`. `None` if neither is usable.
/// The text is kept as written where it is absolute already: it is what gets signed.
pub fn resolve(base: Option<&str>, reference: &str) -> Option<String> {
    let reference = reference.trim();
    match url::Url::parse(reference) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {
            Some(reference.to_owned())
        }
        Ok(_) => None,
        Err(url::ParseError::RelativeUrlWithoutBase) => {
            let base = url::Url::parse(base?).ok()?;
            if reference.is_empty() {
                return Some(base.to_string());
            }
            Some(base.join(reference).ok()?.to_string())
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_carries_parameters_in_the_query_and_signs_the_whole_url() {
        let params = vec![("A b".to_owned(), "+1".to_owned())];
        let get = build("http://h/x?k=v", Method::Get, &params, "s", "t", 0);
        assert_eq!(get.url, "http://h/x?k=v&A+b=%2B1");
        assert_eq!(get.body, None);
        assert_eq!(get.headers[0].1, sign::sha1("s", &get.url, &[]));
        let post = build("http://h/x", Method::Post, &params, "s", "t", 0);
        assert_eq!(post.body.as_deref(), Some("A+b=%2B1"));
        assert_eq!(post.headers[0].1, sign::sha1("s", "http://h/x", &params));
    }

    #[test]
    fn tel_03_what_is_signed_is_what_the_receiver_sees() {
        let params = vec![("A".to_owned(), "b c".to_owned())];
        for (configured, get, post) in [
            ("http://h", "http://h/?A=b+c", "http://h/"),
            ("http://h?x", "http://h/?x&A=b+c", "http://h/?x"),
            ("http://h/a?", "http://h/a?A=b+c", "http://h/a?"),
            ("http://h/a?x=1&", "http://h/a?x=1&A=b+c", "http://h/a?x=1&"),
            (
                "http://h/ü x?q=ü y#z",
                "http://h/%C3%BC%20x?q=%C3%BC%20y&A=b+c",
                "http://h/%C3%BC%20x?q=%C3%BC%20y",
            ),
            ("http://H:80/a/../b", "http://h/b?A=b+c", "http://h/b"),
            (
                "https://h:8443/%7Ea?b=%2f+%20",
                "https://h:8443/%7Ea?b=%2f+%20&A=b+c",
                "https://h:8443/%7Ea?b=%2f+%20",
            ),
            ("http://u:p%20w@h/", "http://u:p%20w@h/?A=b+c", "http://u:p%20w@h/"),
            (
                "http://bücher.example/",
                "http://xn--bcher-kva.example/?A=b+c",
                "http://xn--bcher-kva.example/",
            ),
        ] {
            let request = |method| build(configured, method, &params, "s", "t", 0);
            assert_eq!(request(Method::Get).url, get);
            assert_eq!(request(Method::Post).url, post);
            assert_eq!(request(Method::Post).headers[0].1, sign::sha1("s", post, &params));
        }
    }

    #[test]
    fn dates_and_relative_urls() {
        assert_eq!(rfc2822(1_700_000_000_000), "Tue, 14 Nov 2023 22:13:20 +0000");
        let base = Some("http://h/a/b.xml?x=1");
        for (reference, expected) in [
            ("c.xml", Some("http://h/a/c.xml")),
            ("/c", Some("http://h/c")),
            ("", Some("http://h/a/b.xml?x=1")),
            ("https://o/x y", Some("https://o/x y")),
            ("ftp://o/", None),
            ("http://", None),
        ] {
            assert_eq!(resolve(base, reference).as_deref(), expected, "{reference}");
        }
        assert_eq!(resolve(None, "c.xml"), None);
    }
}
