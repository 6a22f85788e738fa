//! Parameters of a query or a form: names in order, values may repeat.

use control_store::TimeRange;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::error::Failure;

/// Decoded parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form(pub(super) Vec<(String, String)>);

impl Form {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// The last value of that name, as it came.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A value that filters: empty means none.
    pub(super) fn filter(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(text) => {
                Err(Failure::new(400, 20_001, format!("{name}: {text} is not a boolean")))
            }
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
            let (from_ms, to_ms) = moment(name, &text)?;
            range = TimeRange { from_ms: Some(from_ms), to_ms: Some(to_ms) };
        }
        for (suffix, is_from) in [(">", true), ("<", false)] {
            let name = format!("{name}{suffix}");
            if let Some(text) = self.filter(&name) {
                let (at_ms, _) = moment(&name, &text)?;
                let border = if is_from { &mut range.from_ms } else { &mut range.to_ms };
                *border = Some(at_ms);
            }
        }
        Ok(range)
    }
}

/// First and last ms of what a text names.
fn moment(name: &str, text: &str) -> Result<(i64, i64), Failure> {
    if let Ok(at) = text.parse::<Timestamp>() {
        let second = at.as_second().saturating_mul(1000);
        return Ok((second, second.saturating_add(999)));
    }
    let date = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    let wrong = || Failure::new(400, 20_001, format!("{name}: {text} is not a date"));
    let begin = date.ok_or_else(wrong)?.timestamp().as_millisecond();
    Ok((begin, begin.saturating_add(86_399_999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_their_literal_names() {
        let form = |text: &str| Form::parse(text.as_bytes()).range("StartTime");
        let range = |from_ms, to_ms| Ok(TimeRange { from_ms, to_ms });
        assert_eq!(form(""), range(None, None));
        assert_eq!(
            form("StartTime%3E=2024-01-01T00%3A00%3A00Z"),
            range(Some(1_704_067_200_000), None)
        );
        assert_eq!(form("StartTime<=2024-01-01"), range(None, Some(1_704_067_200_000)));
        assert_eq!(
            form("StartTime=2024-01-01"),
            range(Some(1_704_067_200_000), Some(1_704_153_599_999))
        );
        assert_eq!(form("StartTime=yesterday").unwrap_err().status, 400);
    }

    #[test]
    fn urls_and_methods() {
        let form = Form::parse(b"A=http%3A%2F%2Fx%2Fy&B=ftp%3A%2F%2Fx&C=&M=get&N=PUT");
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
