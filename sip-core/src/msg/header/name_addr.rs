//! From, To, Contact, Route and the like: `name-addr` or `addr-spec` with parameters
//! (RFC 3261 §20.10, §25.1).

use std::fmt;

use super::params::Params;
use crate::msg::scan;
use crate::msg::uri::Uri;

/// A display name, a URI and header parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// Display name without quotes and escapes.
    pub display: Option<String>,
    /// The URI.
    pub uri: Uri,
    /// Parameters of the header (`tag`, `expires` …), not of the URI.
    pub params: Params,
}

impl NameAddr {
    /// A bare URI.
    pub fn new(uri: Uri) -> NameAddr {
        NameAddr { display: None, uri, params: Params::default() }
    }

    /// Reads one value (not a comma list). Without angle brackets, parameters belong to the header
    /// (RFC 3261 §20.10).
    pub fn parse(bytes: &[u8]) -> Option<NameAddr> {
        let lossy = String::from_utf8_lossy(bytes);
        let text = lossy.trim();
        let open = match text.as_bytes().first()? {
            b'"' => {
                let quoted = scan::quoted_len(text.as_bytes())?;
                let rest = text.get(quoted..)?;
                let gap = rest.len() - rest.trim_start().len();
                rest.trim_start().starts_with('<').then_some(quoted + gap)?
            }
            _ => match text.find('<') {
                Some(open) => open,
                None => return NameAddr::parse_bare(text),
            },
        };
        let display = display_name(text.get(..open)?.trim())?;
        let rest = text.get(open + 1..)?;
        let close = rest.find('>')?;
        let uri = Uri::parse(rest.get(..close)?.trim())?;
        let tail = rest.get(close + 1..)?.trim();
        (tail.is_empty() || tail.starts_with(';')).then_some(())?;
        Some(NameAddr { display, uri, params: Params::parse(tail)? })
    }

    fn parse_bare(text: &str) -> Option<NameAddr> {
        // RFC 3261 §20: a URI with comma, question mark or semicolon needs brackets. A ';' before
        // '@' is taken as part of the user, as RFC 4475 §3.1.1.13 shows for the strict reading.
        let at = text.find('@').unwrap_or(0);
        let params_at = text.get(at..)?.find(';').map_or(text.len(), |i| at + i);
        let (uri, params) = text.split_at(params_at);
        Some(NameAddr {
            display: None,
            uri: Uri::parse(uri.trim())?,
            params: Params::parse(params)?,
        })
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// The same with this tag.
    pub fn with_tag(mut self, tag: &str) -> NameAddr {
        self.params.set("tag", Some(tag));
        self
    }
}

/// `None` on bad syntax, `Some(None)` if there is no name.
fn display_name(text: &str) -> Option<Option<String>> {
    if text.is_empty() {
        return Some(None);
    }
    if text.starts_with('"') {
        return Some(Some(scan::unquote(text)));
    }
    // Tokens with spaces between them; letters beyond ASCII are common and harmless.
    let legal = |c: char| !c.is_ascii() || c.is_ascii_whitespace() || scan::is_token(c as u8);
    text.chars().all(legal).then(|| Some(text.to_owned()))
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", scan::quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, display: Option<&str>, uri: &str, tag: Option<&str>) {
        let addr = NameAddr::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text} is legal"));
        assert_eq!(addr.display.as_deref(), display, "{text}");
        assert_eq!(addr.uri.as_str(), uri, "{text}");
        assert_eq!(addr.tag(), tag, "{text}");
        let again = NameAddr::parse(addr.to_string().as_bytes()).expect("own writing is legal");
        assert_eq!(again, addr);
    }

    #[test]
    fn name_addrs() {
        check("Alice <sip:a@h>;tag=1", Some("Alice"), "sip:a@h", Some("1"));
        check(
            r#""A \"B\" ;tag=no <sip:x@y>" <sip:a@h>;tag=1"#,
            Some(r#"A "B" ;tag=no <sip:x@y>"#),
            "sip:a@h",
            Some("1"),
        );
        check("sip:a@h;tag=9", None, "sip:a@h", Some("9"));
        check("<sip:a@h;lr;x=y> ; tag = 3", None, "sip:a@h;lr;x=y", Some("3"));
        check(
            "caller<sip:caller@example.com>;tag=323",
            Some("caller"),
            "sip:caller@example.com",
            Some("323"),
        );
        check("tel:+15550100", None, "tel:+15550100", None);
        check("<sip:user@[2001:db8::10]>", None, "sip:user@[2001:db8::10]", None);
        check("sip:j.user;x=1@h;tag=8", None, "sip:j.user;x=1@h", Some("8"));
    }

    #[test]
    fn bad_name_addrs() {
        for text in [
            "",
            "\"open <sip:a@h>",
            "<sip:a@h",
            "Bell, Alexander <sip:a@h>",
            "<>",
            "\"x\" sip:a@h",
            "<sip:a@h> junk",
        ] {
            assert!(NameAddr::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
