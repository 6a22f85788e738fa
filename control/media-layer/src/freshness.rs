//! How long a response may be used: the part of RFC 9111 that prompts need.

use std::time::{Duration, SystemTime};

use reqwest::header::{AGE, CACHE_CONTROL, EXPIRES, HeaderMap};

/// What the headers of a response allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// `no-store` or `private`: not kept beyond the use (RFC 9111 §5.2.2.5, §5.2.2.7).
    DoNotKeep,
    /// May be used without asking until then. Zero = ask each time (§5.2.2.4, or nothing said).
    Fresh(Duration),
}

/// Reads `Cache-Control`, `Expires` and `Age`. Without any of them nothing is guessed: the origin
/// is asked each time, with validators if it gave some.
pub(crate) fn freshness(headers: &HeaderMap, now: SystemTime) -> Freshness {
    let text =
        |name| headers.get(name).and_then(|v: &reqwest::header::HeaderValue| v.to_str().ok());
    let mut max_age = None;
    let mut shared_max_age = None;
    for value in headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()) {
        for directive in value.split(',').map(|d| d.trim().to_ascii_lowercase()) {
            let (name, argument) = directive.split_once('=').unwrap_or((&directive, ""));
            let seconds = || argument.trim_matches('"').parse::<u64>().ok();
            match name {
                "no-store" | "private" => return Freshness::DoNotKeep,
                "no-cache" => return Freshness::Fresh(Duration::ZERO),
                "max-age" => max_age = seconds().or(Some(0)),
                "s-maxage" => shared_max_age = seconds().or(Some(0)),
                _ => {}
            }
        }
    }
    let age = text(AGE).and_then(|age| age.trim().parse::<u64>().ok()).unwrap_or(0);
    if let Some(seconds) = shared_max_age.or(max_age) {
        return Freshness::Fresh(Duration::from_secs(seconds.saturating_sub(age)));
    }
    let expires = text(EXPIRES).and_then(|date| httpdate::parse_http_date(date).ok());
    let left = expires.and_then(|at| at.duration_since(now).ok());
    Freshness::Fresh(left.unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn med_02_directives() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let fresh = |seconds| Freshness::Fresh(Duration::from_secs(seconds));
        let cases: [(&[(&str, &str)], Freshness); 9] = [
            (&[], fresh(0)),
            (&[("cache-control", "max-age=60")], fresh(60)),
            (&[("cache-control", "public, MAX-AGE=60"), ("age", "20")], fresh(40)),
            (&[("cache-control", "max-age=60, s-maxage=5")], fresh(5)),
            (&[("cache-control", "no-cache, max-age=60")], fresh(0)),
            (&[("cache-control", "no-store")], Freshness::DoNotKeep),
            (&[("cache-control", "private, max-age=9")], Freshness::DoNotKeep),
            (&[("expires", "Sun, 06 Nov 1994 08:49:47 GMT")], fresh(10)),
            (&[("expires", "0")], fresh(0)),
        ];
        for (headers, expected) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            assert_eq!(freshness(&map, now), expected, "{headers:?}");
        }
    }
}
