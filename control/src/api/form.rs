//! Parameters of a query or a form: names in order, values may repeat.
//!
//! Reading is strict. What cannot be decoded, and control characters that would travel on into SIP
//! messages, callbacks and logs, are refused with the name of the parameter.

use control_store::TimeRange;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::error::Failure;

/// Decoded parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form(pub(super) Vec<(String, String)>);

/// Parameters that may be given several times.
const LISTS: [&str; 2] = ["StatusCallbackEvent", "RecordingStatusCallbackEvent"];
/// Parameters whose value is a text of several lines.
const TEXTS: [&str; 3] = ["Twiml", "FallbackUrls", "VoiceFallbackUrls"];
/// Longest value of a parameter that is no such text.
const CHARACTERS_MAX: usize = 4_096;
const DAY_MS: i64 = 86_400_000;
/// Longest name for people.
const FRIENDLY_NAME_CHARACTERS_MAX: usize = 64;

impl Form {
    /// # Errors
    /// What cannot be decoded or is not allowed anywhere.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Failure> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let mut half = || decode(halves.next().unwrap_or_default());
            let name = half().ok_or_else(|| {
                Failure::parameter("the name of a parameter is not percent-encoded UTF-8")
            })?;
            let value = half().ok_or_else(|| {
                Failure::parameter(format!("{}: not percent-encoded UTF-8", shown(&name)))
            })?;
            check(&name, &value)?;
            let before = parameters.iter().find(|(known, _)| *known == name);
            if before.is_some_and(|(_, known)| *known != value) && !LISTS.contains(&&*name) {
                return Err(Failure::parameter(format!("{name} is given more than once")));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The last value of that name, as it came.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A value that filters: empty means none.
    pub(super) fn filter(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// `FriendlyName`, if it is there and not empty.
    pub(super) fn friendly_name(&self) -> Result<Option<String>, Failure> {
        let name = self.filter("FriendlyName");
        if name.as_ref().is_some_and(|name| name.chars().count() > FRIENDLY_NAME_CHARACTERS_MAX) {
            let most = FRIENDLY_NAME_CHARACTERS_MAX;
            return Err(Failure::parameter(format!("FriendlyName: at most {most} characters")));
        }
        Ok(name)
    }

    /// Parameters that name what is not available here: refused if they ask for anything.
    pub(super) fn refuse(&self, names: &[&str]) -> Result<(), Failure> {
        let asked = names.iter().find(|name| self.filter(name).is_some());
        asked.map_or(Ok(()), |name| Err(Failure::parameter(format!("{name} is not available"))))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(text) => Err(Failure::parameter(format!("{name}: {text} is not true or false"))),
        }
    }

    /// Changes `slot` if the parameter is there; an empty value clears it. URLs must be absolute.
    pub(super) fn url(&self, name: &str, slot: &mut Option<String>) -> Result<(), Failure> {
        let Some(text) = self.get(name).map(str::trim) else { return Ok(()) };
        if text.is_empty() {
            *slot = None;
            return Ok(());
        }
        let good = url::Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !good {
            return Err(Failure::new(400, 21_402, format!("{name}: {text} is not a valid URL")));
        }
        *slot = Some(text.to_owned());
        Ok(())
    }

    /// Changes `slot` if the parameter is there: GET or POST.
    pub(super) fn method(&self, name: &str, slot: &mut Option<String>) -> Result<(), Failure> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(()) };
        let method = text.to_ascii_uppercase();
        if !matches!(method.as_str(), "GET" | "POST") {
            return Err(Failure::new(400, 21_403, format!("{name}: {text} is not a valid method")));
        }
        *slot = Some(method);
        Ok(())
    }

    /// Changes `slot` if the parameter is there; an empty value clears it.
    pub(super) fn text(&self, name: &str, slot: &mut Option<String>) {
        if let Some(text) = self.get(name) {
            *slot = (!text.is_empty()).then(|| text.to_owned());
        }
    }

    /// `Name`, `Name>` and `Name<` as a range. A date without time means the whole day for
    /// `Name`, and its midnight for the other two.
    pub(super) fn range(&self, name: &str) -> Result<TimeRange, Failure> {
        let mut range = TimeRange::default();
        if let Some(text) = self.filter(name) {
            let (from_ms, mut to_ms) = moment(name, &text)?;
            if from_ms.rem_euclid(DAY_MS) == 0 {
                // SDKs turn a date into its midnight: the day is meant.
                to_ms = from_ms.saturating_add(DAY_MS - 1);
            }
            range = TimeRange { from_ms: Some(from_ms), to_ms: Some(to_ms) };
        }
        for (suffix, is_from) in [(">", true), ("<", false)] {
            let name = format!("{name}{suffix}");
            if let Some(text) = self.filter(&name) {
                let (first_ms, last_ms) = moment(&name, &text)?;
                let whole_second = last_ms.saturating_sub(first_ms) < 1000;
                if is_from {
                    range.from_ms = Some(first_ms);
                } else {
                    // Times are shown in whole seconds: what shows this second is meant as well.
                    range.to_ms = Some(if whole_second { last_ms } else { first_ms });
                }
            }
        }
        Ok(range)
    }
}

/// One part of a pair; `None` if it is not what it should be.
fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn check(name: &str, value: &str) -> Result<(), Failure> {
    let text = TEXTS.contains(&name);
    let control = |c: char| c.is_control() && !(text && matches!(c, '\n' | '\r' | '\t'));
    if name.chars().any(char::is_control) || value.chars().any(control) {
        return Err(Failure::parameter(format!("{}: control characters", shown(name))));
    }
    if !text && value.chars().nth(CHARACTERS_MAX).is_some() {
        let message = format!("{}: more than {CHARACTERS_MAX} characters", shown(name));
        return Err(Failure::parameter(message));
    }
    Ok(())
}

/// A name that somebody made up, fit for a message.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

/// First and last ms of what a text names.
fn moment(name: &str, text: &str) -> Result<(i64, i64), Failure> {
    if let Ok(at) = text.parse::<Timestamp>() {
        let second = at.as_second().saturating_mul(1000);
        return Ok((second, second.saturating_add(999)));
    }
    let date = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    let wrong = || Failure::parameter(format!("{name}: {text} is not a date"));
    let begin = date.ok_or_else(wrong)?.timestamp().as_millisecond();
    Ok((begin, begin.saturating_add(DAY_MS - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_their_literal_names() {
        let form = |text: &str| Form::parse(text.as_bytes()).unwrap().range("StartTime");
        let range = |from_ms, to_ms| Ok(TimeRange { from_ms, to_ms });
        assert_eq!(form(""), range(None, None));
        assert_eq!(
            form("StartTime%3E=2024-01-01T00%3A00%3A00Z"),
            range(Some(1_704_067_200_000), None)
        );
        assert_eq!(form("StartTime<=2024-01-01"), range(None, Some(1_704_067_200_000)));
        assert_eq!(
            form("StartTime%3C=2024-01-01T00%3A00%3A05Z"),
            range(None, Some(1_704_067_205_999))
        );
        assert_eq!(
            form("StartTime=2024-01-01"),
            range(Some(1_704_067_200_000), Some(1_704_153_599_999))
        );
        assert_eq!(form("StartTime=2024-01-01T00%3A00%3A00Z"), form("StartTime=2024-01-01"));
        assert_eq!(
            form("StartTime=2024-01-01T00%3A00%3A01Z"),
            range(Some(1_704_067_201_000), Some(1_704_067_201_999))
        );
        assert_eq!(form("StartTime=yesterday").unwrap_err().status, 400);
    }

    #[test]
    fn reading_is_strict() {
        let check = |text: &[u8], expected: &str| match Form::parse(text) {
            Ok(form) => assert_eq!(format!("{:?}", form.0), expected),
            Err(failure) => {
                assert_eq!((failure.status, failure.code), (400, 20_422));
                assert_eq!(failure.message, expected);
            }
        };
        check(b"", "[]");
        check(b"&&a=1&b", r#"[("a", "1"), ("b", "")]"#);
        check(b"a=%C3%A4+%26%3d%E2%9C%93=", "[(\"a\", \"\u{e4} &=\u{2713}=\")]");
        check(b"A=%zz", "A: not percent-encoded UTF-8");
        check(b"A=%4", "A: not percent-encoded UTF-8");
        check(b"A=%ff", "A: not percent-encoded UTF-8");
        check(b"%=1", "the name of a parameter is not percent-encoded UTF-8");
        check(b"A=x%0d%0aEvil:%20y", "A: control characters");
        check(b"A=%00", "A: control characters");
        check(b"A=%C2%85", "A: control characters");
        check(b"A%0a=1", "A\\n: control characters");
        check(b"Twiml=%0d%0a%09", r#"[("Twiml", "\r\n\t")]"#);
        check(b"Twiml=%00", "Twiml: control characters");
        check(b"To=1&To=2", "To is given more than once");
        check(b"To=1&To=1", r#"[("To", "1"), ("To", "1")]"#);
        assert!(Form::parse(b"StatusCallbackEvent=ringing&StatusCallbackEvent=answered").is_ok());
        let long = format!("A={}", "x".repeat(4_097));
        check(long.as_bytes(), "A: more than 4096 characters");
    }

    #[test]
    fn urls_and_methods() {
        let form = Form::parse(b"A=http%3A%2F%2Fx%2Fy&B=ftp%3A%2F%2Fx&C=&M=get&N=PUT").unwrap();
        let mut slot = Some("old".to_owned());
        form.url("absent", &mut slot).unwrap();
        assert_eq!(slot.as_deref(), Some("old"));
        form.url("A", &mut slot).unwrap();
        assert_eq!(slot.as_deref(), Some("http://x/y"));
        assert_eq!(form.url("B", &mut slot).unwrap_err().code, 21_402);
        form.url("C", &mut slot).unwrap();
        assert_eq!(slot, None);
        form.method("M", &mut slot).unwrap();
        assert_eq!(slot.as_deref(), Some("GET"));
        assert_eq!(form.method("N", &mut slot).unwrap_err().code, 21_403);
    }
}
