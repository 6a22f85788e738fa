//! Which URL is asked after a failure.
//!
//! One *incident* is a failed request and the fallbacks tried for it. A fallback that answers is
//! the primary for the rest of the session: later incidents begin with it (FBK-03).

use serde::{Deserialize, Serialize};

use crate::directory::{ErrorClass, Failure, Fallback, UrlMethod};
use crate::io::Method;
use crate::webhook::request;

/// Most fallbacks of a number, an application or a call.
pub const FALLBACKS_MAX: usize = 10;

/// The fallbacks of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fallbacks {
    /// In order, as configured when the session began.
    pub list: Vec<Fallback>,
    /// The one that is primary now, if one has answered.
    pub taken: Option<usize>,
}

impl Fallbacks {
    /// The next fallback for an error, beginning with index `from` of this incident.
    /// `failed_url` is not asked again.
    pub fn next(&self, failure: Failure, from: Option<usize>, failed_url: &str) -> Option<usize> {
        let start = from.or(self.taken).unwrap_or(0);
        (start..self.list.len()).find(|index| {
            self.list.get(*index).is_some_and(|fallback| {
                let is_of = |class: &ErrorClass| class.matches(failure);
                (fallback.classes.is_empty() || fallback.classes.iter().any(is_of))
                    && fallback.target.url != failed_url
            })
        })
    }
}

/// One entry of a list as the API has it: a URL, or an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Url(String),
    Object(Object),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    url: String,
    #[serde(default = "post")]
    method: String,
    #[serde(default)]
    on: Vec<ErrorClass>,
}

fn post() -> String {
    "POST".to_owned()
}

/// Reads a list of fallbacks as the API takes it: a JSON array of URLs or of objects
/// `{"url": …, "method": "GET" or "POST", "on": [classes]}`. Empty text is an empty list.
///
/// # Errors
/// In words.
pub fn parse_list(text: &str) -> Result<Vec<Fallback>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> =
        serde_json::from_str(text).map_err(|error| format!("not a list of fallbacks: {error}"))?;
    if entries.len() > FALLBACKS_MAX {
        return Err(format!("more than {FALLBACKS_MAX} fallbacks"));
    }
    entries.into_iter().map(fallback).collect()
}

fn fallback(entry: Entry) -> Result<Fallback, String> {
    let Object { url, method, on } = match entry {
        Entry::Url(url) => Object { url, method: post(), on: Vec::new() },
        Entry::Object(object) => object,
    };
    let absolute = request::resolve(None, &url);
    let url = absolute.ok_or_else(|| format!("{url:?} is not a valid URL"))?;
    let method = Method::parse(&method).ok_or_else(|| format!("{method:?} is not a method"))?;
    Ok(Fallback { target: UrlMethod { url, method }, classes: on })
}

/// The same list as JSON text, every entry an object.
pub fn show_list(list: &[Fallback]) -> serde_json::Value {
    let object = |fallback: &Fallback| {
        serde_json::json!({
            "url": fallback.target.url,
            "method": fallback.target.method.as_str(),
            "on": fallback.classes,
        })
    };
    list.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback(url: &str, classes: &[ErrorClass]) -> Fallback {
        let target = UrlMethod { url: url.to_owned(), method: Method::Post };
        Fallback { target, classes: classes.to_vec() }
    }

    fn failure(code: u32) -> Failure {
        Failure { code, status: None }
    }

    #[test]
    fn fbk_01_fallbacks_are_asked_in_order_and_by_class() {
        let mut all = Fallbacks {
            list: vec![
                fallback("a", &[ErrorClass::Customer]),
                fallback("b", &[]),
                fallback("c", &[ErrorClass::Communication]),
            ],
            taken: None,
        };
        assert_eq!(all.next(failure(11205), None, "x"), Some(1));
        assert_eq!(all.next(failure(12100), None, "x"), Some(0));
        assert_eq!(all.next(failure(12100), Some(1), "x"), Some(1));
        assert_eq!(all.next(failure(11205), Some(2), "x"), Some(2));
        assert_eq!(all.next(failure(11205), Some(3), "x"), None);
        all.taken = Some(1);
        assert_eq!(all.next(failure(11205), None, "x"), Some(1), "the one taken is primary");
        assert_eq!(all.next(failure(11205), None, "b"), Some(2), "but not after its own failure");
    }

    #[test]
    fn classes_and_their_codes() {
        for (class, inside, outside) in [
            ("communication", vec![11200, 11203, 11210, 11237], vec![11215, 11100, 12100, 12400]),
            ("customer", vec![11215, 11770, 11750, 12300, 13420, 14106], vec![11200, 12400]),
            ("dns", vec![11210], vec![11205]),
            ("connect", vec![11201, 11202, 11205], vec![11203, 11210, 11220]),
            ("tls", vec![11220, 11235, 11236, 11237], vec![11205]),
            ("timeout", vec![11201, 11203], vec![11202]),
            ("12100", vec![12100], vec![12200]),
        ] {
            let parsed = ErrorClass::try_from(class.to_owned()).unwrap();
            assert!(inside.iter().all(|code| parsed.matches(failure(*code))), "{class}");
            assert!(!outside.iter().any(|code| parsed.matches(failure(*code))), "{class}");
            assert_eq!(String::from(parsed), class);
        }
        let answered = |status| Failure { code: 11200, status: Some(status) };
        assert!(ErrorClass::Http5xx.matches(answered(503)));
        assert!(!ErrorClass::Http5xx.matches(answered(404)));
        assert!(ErrorClass::Http4xx.matches(answered(404)));
        assert!(!ErrorClass::Http4xx.matches(failure(11200)));
    }

    #[test]
    fn lists_are_read_and_shown() {
        let text =
            r#"["http://a/1", {"url": "https://b/", "method": "get", "on": ["tls", "11200"]}]"#;
        let list = parse_list(text).unwrap();
        assert_eq!(list[0].target.method, Method::Post);
        assert_eq!(list[1].classes, [ErrorClass::Tls, ErrorClass::Code(11200)]);
        let shown = show_list(&list);
        assert_eq!(shown[1]["method"], "GET");
        assert_eq!(parse_list(&shown.to_string()).unwrap(), list);
        assert_eq!(parse_list(" "), Ok(Vec::new()));
        for bad in [
            "{}",
            "nonsense",
            r#"["ftp://a"]"#,
            r#"[{"url": "http://a/", "on": ["rain"]}]"#,
            r#"[{"url": "http://a/", "method": "PUT"}]"#,
            r#"[{"url": "http://a/", "more": 1}]"#,
        ] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
        let long: Vec<String> = (0..11).map(|n| format!("\"http://a/{n}\"")).collect();
        assert!(parse_list(&format!("[{}]", long.join(","))).is_err());
    }
}
