//! How long a response may be used: the part of RFC 9111 and RFC 5861 that prompts need.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;

/// Header fields of a response that the cache works with, names in lower case. Fields that came
/// several times are joined by commas.
pub(crate) type Fields = BTreeMap<String, String>;

/// What of a response is kept and passed on.
pub(crate) const FIELDS: [&str; 8] = [
    "age",
    "cache-control",
    "content-language",
    "date",
    "etag",
    "expires",
    "last-modified",
    "vary",
];

/// Picks [`FIELDS`] out of a response.
pub(crate) fn fields(headers: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for name in FIELDS {
        let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
        if !values.is_empty() {
            fields.insert(name.to_owned(), values.join(", "));
        }
    }
    fields
}

/// What the headers of a response allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// False: not kept beyond the use (`no-store`, `private`; RFC 9111 §5.2.2.5, §5.2.2.7; answers
    /// to requests with credentials, §3.5).
    pub(crate) keep: bool,
    /// May be used without asking for so long. Zero = ask each time (§5.2.2.4, or nothing said).
    pub(crate) fresh: Duration,
    /// After that it may be used at once while it is asked for again (RFC 5861 §3).
    pub(crate) while_revalidate: Duration,
    /// After that it may be used if the origin fails (RFC 5861 §4).
    pub(crate) if_error: Duration,
}

#[derive(Default)]
struct Directives {
    no_store: bool,
    private: bool,
    no_cache: bool,
    /// `public`, `must-revalidate` or `s-maxage`: allows answers to requests with credentials.
    shared: bool,
    must_revalidate: bool,
    max_age_s: Option<u64>,
    shared_max_age_s: Option<u64>,
    while_revalidate_s: u64,
    if_error_s: u64,
}

fn directives(text: &str) -> Directives {
    let mut found = Directives::default();
    for directive in text.split(',').map(|d| d.trim().to_ascii_lowercase()) {
        let (name, argument) = directive.split_once('=').unwrap_or((&directive, ""));
        let seconds = argument.trim_matches('"').parse::<u64>().ok();
        match name {
            "no-store" => found.no_store = true,
            "private" => found.private = true,
            "no-cache" => found.no_cache = true,
            "public" => found.shared = true,
            "must-revalidate" | "proxy-revalidate" => {
                found.must_revalidate = true;
                found.shared = true;
            }
            // What is no number counts as stale (§4.2.1).
            "max-age" => found.max_age_s = seconds.or(Some(0)),
            "s-maxage" => {
                found.shared_max_age_s = seconds.or(Some(0));
                found.must_revalidate = true;
                found.shared = true;
            }
            "stale-while-revalidate" => found.while_revalidate_s = seconds.unwrap_or(0),
            "stale-if-error" => found.if_error_s = seconds.unwrap_or(0),
            _ => {}
        }
    }
    found
}

/// Reads `Cache-Control`, `Expires`, `Date`, `Age` and `Vary`. Without any of them nothing is
/// guessed: the origin is asked each time, with validators if it gave some. `credentials`: the
/// request carried some.
pub(crate) fn policy(fields: &Fields, credentials: bool, now: SystemTime) -> Policy {
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let date = |name| httpdate::parse_http_date(text(name)).ok();
    let said = directives(text("cache-control"));
    let ask = Policy {
        keep: !(said.no_store || said.private || (credentials && !said.shared)),
        fresh: Duration::ZERO,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
    };
    // `Vary: *` never matches (§4.1).
    let never_matches = text("vary").split(',').any(|name| name.trim() == "*");
    if !ask.keep || said.no_cache || never_matches {
        return ask;
    }
    let sent = date("date").unwrap_or(now);
    let apparent = now.duration_since(sent).unwrap_or(Duration::ZERO);
    let told = Duration::from_secs(text("age").trim().parse().unwrap_or(0));
    let lifetime = match said.shared_max_age_s.or(said.max_age_s) {
        Some(seconds) => Duration::from_secs(seconds),
        None => date("expires").and_then(|at| at.duration_since(sent).ok()).unwrap_or_default(),
    };
    let stale = |seconds| if said.must_revalidate { 0 } else { seconds };
    Policy {
        fresh: lifetime.saturating_sub(apparent.max(told)),
        while_revalidate: Duration::from_secs(stale(said.while_revalidate_s)),
        if_error: Duration::from_secs(stale(said.if_error_s)),
        ..ask
    }
}

/// The request header fields that a response was chosen by (§4.1), in lower case.
pub(crate) fn varies_by(fields: &Fields) -> Vec<String> {
    let names = fields.get("vary").map_or("", String::as_str).split(',');
    let names = names.map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !name.is_empty() && name != "*").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)], credentials: bool) -> Policy {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        policy(&fields, credentials, now)
    }

    #[test]
    fn med_02_directives() {
        let cases: [(&[(&str, &str)], Option<u64>); 15] = [
            (&[], Some(0)),
            (&[("cache-control", "max-age=60")], Some(60)),
            (&[("cache-control", "public, MAX-AGE=60"), ("age", "20")], Some(40)),
            (&[("cache-control", "max-age=60, s-maxage=5")], Some(5)),
            (&[("cache-control", "no-cache, max-age=60")], Some(0)),
            (&[("cache-control", "max-age=soon")], Some(0)),
            (&[("cache-control", "no-store")], None),
            (&[("cache-control", "private, max-age=9")], None),
            (&[("cache-control", "max-age=60"), ("vary", "accept, *")], Some(0)),
            (&[("cache-control", "max-age=60"), ("vary", "accept")], Some(60)),
            // 1994-11-06 08:49:37 is now.
            (&[("expires", "Sun, 06 Nov 1994 08:49:47 GMT")], Some(10)),
            (&[("expires", "0")], Some(0)),
            (
                &[
                    ("expires", "Sun, 06 Nov 1994 08:49:57 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:49:27 GMT"),
                ],
                Some(20),
            ),
            (
                &[("cache-control", "max-age=60"), ("date", "Sun, 06 Nov 1994 08:49:27 GMT")],
                Some(50),
            ),
            (
                &[("cache-control", "max-age=9"), ("expires", "Sun, 06 Nov 2094 08:49:37 GMT")],
                Some(9),
            ),
        ];
        for (fields, expected) in cases {
            let policy = read(fields, false);
            assert_eq!(policy.keep.then_some(policy.fresh.as_secs()), expected, "{fields:?}");
        }
    }

    #[test]
    fn med_02_stale_use_and_credentials() {
        let stale = |text: &str| {
            let policy = read(&[("cache-control", text)], false);
            (policy.while_revalidate.as_secs(), policy.if_error.as_secs())
        };
        assert_eq!(stale("max-age=1, stale-while-revalidate=30, stale-if-error=60"), (30, 60));
        assert_eq!(stale("max-age=1, stale-while-revalidate=30, must-revalidate"), (0, 0));
        assert_eq!(stale("max-age=1"), (0, 0));
        assert!(!read(&[("cache-control", "max-age=60")], true).keep);
        assert!(read(&[("cache-control", "max-age=60, public")], true).keep);
    }
}
