//! How values look in answers.

use jiff::Timestamp;
use serde_json::Value;

/// Version in paths and in `api_version`.
pub(super) const API_VERSION: &str = "2010-04-01";

/// RFC 2822 in UTC, the day with two digits.
pub(super) fn date(unix_ms: i64) -> String {
    let at = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// RFC 2822, or null.
pub(super) fn date_or_null(unix_ms: Option<i64>) -> Value {
    unix_ms.map_or(Value::Null, |at| date(at).into())
}

/// Numbers are strings.
pub(super) fn number_or_null(number: Option<i64>) -> Value {
    number.map_or(Value::Null, |number| number.to_string().into())
}

/// `/2010-04-01/Accounts/{account}/{rest}.json`.
pub(super) fn uri(account: &str, rest: &str) -> String {
    format!("/{API_VERSION}/Accounts/{account}/{rest}.json")
}

/// A list's own path, with the extension that the next page is to have.
pub(super) fn list_path(path: &str) -> String {
    let known = |path: &str| [".json", ".xml", ".csv"].iter().any(|e| path.ends_with(e));
    if known(path) { path.to_owned() } else { format!("{path}.json") }
}
