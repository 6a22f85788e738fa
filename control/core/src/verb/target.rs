//! Number and Sip: whom Dial calls, and what the called party goes through before the conversation.

use serde::{Deserialize, Serialize};

use crate::directory::{StatusTarget, UrlMethod};
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::parse::check_nested;
use crate::doc::xml::{Element, Node};
use crate::error_code::{
    DIAL_NESTED, DIAL_NOUN_METHOD, DIAL_NUMBER, DIAL_SIP, SCHEMA, SEND_DIGITS, VERB_UNKNOWN,
};

const KNOWN: &[&str] = &[
    "sendDigits",
    "url",
    "method",
    "byoc",
    "statusCallback",
    "statusCallbackEvent",
    "statusCallbackMethod",
    "machineDetection",
    "machineDetectionTimeout",
    "machineDetectionSpeechThreshold",
    "machineDetectionSpeechEndThreshold",
    "machineDetectionSilenceTimeout",
    "amdStatusCallback",
    "amdStatusCallbackMethod",
    "username",
    "password",
];
const HEADERS_MAX: usize = 32;
const URIS_MAX: usize = 10;

/// Somebody to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialTarget {
    /// Number or SIP URI (without header part).
    pub to: String,
    /// Headers of the SIP URI.
    pub headers: Vec<(String, String)>,
    /// Digits to be played to the callee after the answer.
    pub send_digits: Option<String>,
    /// Credentials.
    pub username: Option<String>,
    /// Credentials.
    pub password: Option<String>,
    /// Status callback of the leg.
    pub status: Option<StatusTarget>,
    /// Document that the called party goes through before the conversation.
    #[serde(default)]
    pub screen: Option<UrlMethod>,
    /// Nested URIs, one of which is called after the other until one can be reached; then
    /// [`Self::to`] is the first of them.
    #[serde(default)]
    pub uris: Vec<SipUri>,
}

/// A `Uri` inside `Sip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SipUri {
    /// SIP URI.
    pub to: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Lower ones are called first.
    pub priority: u16,
    /// Share among those of equal priority.
    pub weight: u16,
    /// Credentials.
    pub username: Option<String>,
    /// Credentials.
    pub password: Option<String>,
}

pub(super) fn noun(
    child: &Element,
    warnings: &mut Vec<DocError>,
) -> Result<Option<DialTarget>, DocError> {
    let target = match child.name.as_str() {
        "Number" => {
            check_nested(child, &[], warnings)?;
            number(&child.text(), warnings)
        }
        "Sip" => sip_noun(child, warnings)?,
        "Client" | "Conference" | "Queue" | "Application" | "Sim" | "WhatsApp" => {
            let message = format!("Dial: {} is not available", child.name);
            return Err(DocError::new(VERB_UNKNOWN, message));
        }
        name => {
            let message = format!("{name} is not allowed inside Dial");
            return Err(DocError::new(DIAL_NESTED, message));
        }
    };
    let mut a = Attributes::new(child, KNOWN, warnings);
    let Some(mut target) = target else { return Ok(None) };
    if a.text("machineDetection").is_some_and(|mode| !mode.eq_ignore_ascii_case("none")) {
        a.warn(VERB_UNKNOWN, format!("{}: machineDetection is not available", child.name));
    }
    let given = |a: &Attributes<'_>, name| a.text(name).filter(|text| !text.is_empty());
    target.username = given(&a, "username").or(target.username);
    target.password = given(&a, "password").or(target.password);
    target.send_digits = given(&a, "sendDigits");
    if target.send_digits.as_deref().is_some_and(|digits| !are_digits(digits)) {
        a.bad("sendDigits", SEND_DIGITS);
        target.send_digits = None;
    }
    let method = a.method("method", DIAL_NOUN_METHOD);
    target.screen = given(&a, "url").map(|url| UrlMethod { url, method });
    target.status = status(&mut a, child.name == "Sip");
    Ok(Some(target))
}

fn are_digits(digits: &str) -> bool {
    digits.len() <= 32 && digits.chars().all(|c| "0123456789ABCD*#wW".contains(c))
}

fn status(a: &mut Attributes<'_>, sip: bool) -> Option<StatusTarget> {
    let url = a.text("statusCallback").filter(|url| !url.is_empty())?;
    let default = if sip { "" } else { "completed" };
    let events = a.text("statusCallbackEvent").unwrap_or_else(|| default.to_owned());
    let mut known = Vec::new();
    for event in events.split([' ', ',']).filter(|event| !event.is_empty()) {
        if matches!(event, "initiated" | "ringing" | "answered" | "completed") {
            known.push(event.to_owned());
        } else {
            a.warn(SCHEMA, format!("statusCallbackEvent: {event:?} is no event of a call"));
        }
    }
    let method = a.method("statusCallbackMethod", DIAL_NOUN_METHOD);
    Some(StatusTarget { target: UrlMethod { url, method }, events: known })
}

fn plain(to: String) -> DialTarget {
    DialTarget {
        to,
        headers: Vec::new(),
        send_digits: None,
        username: None,
        password: None,
        status: None,
        screen: None,
        uris: Vec::new(),
    }
}

pub(super) fn number(text: &str, warnings: &mut Vec<DocError>) -> Option<DialTarget> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if is_sip(text) {
        return sip(text, warnings);
    }
    let digits: String = text.chars().filter(|c| !" -().".contains(*c)).collect();
    let fine = |c: char| c.is_ascii_digit() || "+*#".contains(c);
    if digits.is_empty() || digits.len() > 32 || !digits.chars().all(fine) {
        warnings.push(DocError::new(DIAL_NUMBER, "Dial: not a phone number"));
        return None;
    }
    Some(plain(digits))
}

/// A scheme is written in any case (RFC 3986 §3.1).
fn is_sip(text: &str) -> bool {
    let scheme = text.split(':').next().unwrap_or_default();
    scheme.len() < text.len()
        && (scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips"))
}

fn sip(text: &str, warnings: &mut Vec<DocError>) -> Option<DialTarget> {
    let text = text.trim();
    let (uri, headers) = text.split_once('?').unwrap_or((text, ""));
    let clean = |part: &str| !part.is_empty() && !part.chars().any(|c| " <>\"\r\n\t".contains(c));
    let host = uri.split_once(':').filter(|_| is_sip(uri));
    if !host.is_some_and(|(_, host)| clean(host)) || uri.len() >= 255 || headers.len() >= 1_024 {
        warnings.push(DocError::new(DIAL_SIP, "Dial: not a SIP URI"));
        return None;
    }
    let (scheme, rest) = host?;
    let mut target = plain(format!("{}:{rest}", scheme.to_ascii_lowercase()));
    for (name, value) in url::form_urlencoded::parse(headers.as_bytes()) {
        add_header(&mut target, name.into_owned(), value.into_owned(), warnings);
    }
    Some(target)
}

fn add_header(target: &mut DialTarget, name: String, value: String, warnings: &mut Vec<DocError>) {
    let lower = name.to_ascii_lowercase();
    let allowed = lower.starts_with("x-")
        || matches!(
            lower.as_str(),
            "user-to-user" | "remote-party-id" | "p-preferred-identity" | "p-called-party-id"
        );
    let token = lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let fine = allowed && token && !value.chars().any(char::is_control);
    if fine && target.headers.len() < HEADERS_MAX {
        target.headers.push((name, value));
    } else {
        warnings.push(DocError::new(DIAL_SIP, "Dial: header of the SIP URI is not allowed"));
    }
}

/// A URI as text, or several `Uri`, with `Headers` beside.
fn sip_noun(
    element: &Element,
    warnings: &mut Vec<DocError>,
) -> Result<Option<DialTarget>, DocError> {
    let text: String = element
        .children
        .iter()
        .filter_map(|child| match child {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        })
        .collect();
    let (mut uris, mut headers) = (Vec::new(), Vec::new());
    for child in element.elements() {
        match child.name.as_str() {
            "Uri" => uris.extend(sip_uri(child, warnings)),
            "Headers" => headers.extend(child.elements().filter(|child| child.name == "Header")),
            "Header" => headers.push(child),
            name => {
                let message = format!("{name} is not allowed inside Sip");
                return Err(DocError::new(DIAL_NESTED, message));
            }
        }
    }
    uris.truncate(URIS_MAX);
    uris.sort_by_key(|uri: &SipUri| uri.priority);
    let target = match uris.first() {
        Some(first) if text.trim().is_empty() => {
            let first = plain(first.to.clone());
            Some(DialTarget { uris, ..first })
        }
        _ => sip(&text, warnings),
    };
    let Some(mut target) = target else { return Ok(None) };
    for header in headers {
        let a = Attributes::new(header, &["name", "value"], warnings);
        let pair = a.text("name").zip(a.text("value"));
        if let Some((name, value)) = pair {
            add_header(&mut target, name, value, warnings);
        }
    }
    Ok(Some(target))
}

fn sip_uri(element: &Element, warnings: &mut Vec<DocError>) -> Option<SipUri> {
    let target = sip(&element.text(), warnings)?;
    let known = ["priority", "weight", "username", "password"];
    let mut a = Attributes::new(element, &known, warnings);
    let mut number = |name, default| {
        let number = a.number(name, 0..=u64::from(u16::MAX), DIAL_SIP);
        number.and_then(|n| u16::try_from(n).ok()).unwrap_or(default)
    };
    let (priority, weight) = (number("priority", 10), number("weight", 10));
    Some(SipUri {
        to: target.to,
        headers: target.headers,
        priority,
        weight,
        username: a.text("username"),
        password: a.text("password"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::xml;

    fn parsed(xml: &str) -> (Option<DialTarget>, Vec<u32>) {
        let element = xml::read(xml.as_bytes(), None, 10_000).unwrap();
        let mut warnings = Vec::new();
        let target = noun(&element, &mut warnings).unwrap();
        (target, warnings.iter().map(|warning| warning.code).collect())
    }

    #[test]
    fn tel_05_a_sip_noun_has_uris_and_headers() {
        let (target, warnings) = parsed(
            "<Sip url='s.xml' method='GET' sendDigits='1w'>\
             <Uri priority='2' username='u' password='p'>sip:second@h</Uri>\
             <Uri priority='1' weight='5'>SIP:first@h?x-b=2</Uri>\
             <Headers><Header name='X-A' value='1'/><Header name='Via' value='2'/></Headers></Sip>",
        );
        let target = target.unwrap();
        assert_eq!(target.to, "sip:first@h");
        let uris: Vec<_> = target.uris.iter().map(|u| (u.to.as_str(), u.priority)).collect();
        assert_eq!(uris, [("sip:first@h", 1), ("sip:second@h", 2)]);
        assert_eq!(target.uris[0].headers, [("x-b".to_owned(), "2".to_owned())]);
        assert_eq!(target.uris[1].username.as_deref(), Some("u"));
        assert_eq!(target.headers, [("X-A".to_owned(), "1".to_owned())]);
        assert_eq!(target.screen.map(|s| s.url).as_deref(), Some("s.xml"));
        assert_eq!(target.send_digits.as_deref(), Some("1w"));
        assert_eq!(warnings, [13224], "Via is ours to write");
    }

    #[test]
    fn tel_05_what_a_target_must_not_have_is_told() {
        for (xml, to, expected) in [
            ("<Number sendDigits='12x'>+1 (555) 1</Number>", Some("+15551"), vec![13222]),
            ("<Number url='a'>+1555</Number>", Some("+1555"), vec![]),
            ("<Number machineDetection='Enable'>1</Number>", Some("1"), vec![13750]),
            ("<Number machineDetection='none'>1</Number>", Some("1"), vec![]),
            (
                "<Number statusCallback='a' statusCallbackEvent='answered x'>1</Number>",
                Some("1"),
                vec![12200],
            ),
            ("<Number>one</Number>", None, vec![13223]),
            ("<Sip>sip:</Sip>", None, vec![13224]),
            ("<Sip>sip:a b@h</Sip>", None, vec![13224]),
            ("<Sip>sip:a@h?X-A=1%0d%0aVia:x</Sip>", Some("sip:a@h"), vec![13224]),
        ] {
            let (target, warnings) = parsed(xml);
            assert_eq!(target.map(|t| t.to).as_deref(), to, "{xml}");
            assert_eq!(warnings, expected, "{xml}");
        }
    }
}
