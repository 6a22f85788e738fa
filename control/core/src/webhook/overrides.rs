//! Connection overrides in the fragment of a configured URL: `#ct=2000&rc=3&rp=5xx,ct`.
//!
//! The fragment is stripped before the URL is signed and requested.

use serde::{Deserialize, Serialize};

use crate::error_code;
use crate::io::FetchFailureKind;

/// Time limits and retries of one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// `ct`: connect, 100–10,000 ms.
    pub connect_ms: u64,
    /// `rt`: silence while reading, 100–15,000 ms.
    pub read_ms: u64,
    /// `tt`: everything, 100–15,000 ms.
    pub total_ms: u64,
    /// `rc`: retries, 0–5.
    pub retries: u32,
    /// `rp`: what is retried.
    pub retry_on: Vec<RetryOn>,
    /// `sni`: false leaves server name indication (and the check of the name) out.
    pub sni: bool,
}

/// What `rp` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Status 400–499.
    Status4xx,
    /// Status 500–599.
    Status5xx,
    /// Connect or TLS failure.
    Connect,
    /// Read timeout.
    Read,
    /// Everything.
    All,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            read_ms: 15_000,
            total_ms: 15_000,
            retries: 1,
            retry_on: vec![RetryOn::Connect],
            sni: true,
        }
    }
}

/// How one attempt ended, as far as retries care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A response with that status.
    Status(u16),
    /// No response.
    Failure(FetchFailureKind),
}

impl Overrides {
    /// Whether an attempt that ended so may be repeated. A response that broke off is not.
    pub fn retries_after(&self, attempt: Attempt) -> bool {
        use FetchFailureKind as Kind;
        let wants = |what| self.retry_on.contains(&what) || self.retry_on.contains(&RetryOn::All);
        match attempt {
            Attempt::Status(400..=499) => wants(RetryOn::Status4xx),
            Attempt::Status(500..=599) => wants(RetryOn::Status5xx),
            Attempt::Status(_) => false,
            Attempt::Failure(
                Kind::Dns | Kind::ConnectTimeout | Kind::Refused | Kind::Connect | Kind::Tls,
            ) => wants(RetryOn::Connect),
            Attempt::Failure(Kind::ReadTimeout) => wants(RetryOn::Read),
            Attempt::Failure(_) => false,
        }
    }
}

/// Splits a configured URL into the URL to request and its overrides. What cannot be used is
/// reported as an error code beside the defaults that take its place.
pub fn split(configured: &str) -> (String, Overrides, Option<u32>) {
    let Some((url, fragment)) = configured.split_once('#') else {
        return (configured.to_owned(), Overrides::default(), None);
    };
    let mut overrides = Overrides::default();
    let mut problem = None;
    for (name, value) in url::form_urlencoded::parse(fragment.as_bytes()) {
        let number = |low: u64, high: u64| value.parse().ok().filter(|n| (low..=high).contains(n));
        let fine = match name.as_ref() {
            "ct" => set(&mut overrides.connect_ms, number(100, 10_000)),
            "rt" => set(&mut overrides.read_ms, number(100, 15_000)),
            "tt" => set(&mut overrides.total_ms, number(100, 15_000)),
            "rc" => set(&mut overrides.retries, number(0, 5).map(|n| n as u32)),
            "rp" => set(&mut overrides.retry_on, policies(&value)),
            "sni" => set(&mut overrides.sni, matches!(&*value, "y" | "n").then_some(value == "y")),
            // There is one place that requests come from.
            "e" => true,
            _ => true,
        };
        if !fine {
            problem = Some(error_code::RETRY_POLICY_INVALID);
        }
    }
    (url.to_owned(), overrides, problem)
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

fn policies(list: &str) -> Option<Vec<RetryOn>> {
    list.split(',')
        .map(|name| match name.trim() {
            "4xx" => Some(RetryOn::Status4xx),
            "5xx" => Some(RetryOn::Status5xx),
            "ct" => Some(RetryOn::Connect),
            "rt" => Some(RetryOn::Read),
            "all" => Some(RetryOn::All),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_read_and_stripped() {
        let (url, o, problem) = split("http://h/x?y=1#ct=2000&rt=300&tt=400&rc=3&rp=5xx,rt&sni=n");
        assert_eq!((url.as_str(), problem), ("http://h/x?y=1", None));
        assert_eq!((o.connect_ms, o.read_ms, o.total_ms, o.retries), (2000, 300, 400, 3));
        assert_eq!(o.retry_on, [RetryOn::Status5xx, RetryOn::Read]);
        assert!(!o.sni);
        assert_eq!(split("http://h/").1, Overrides::default());
        for bad in ["ct=5", "ct=x", "rc=6", "rp=ct,3xx", "sni=maybe", "tt=15001"] {
            let (_, o, problem) = split(&format!("http://h/#{bad}"));
            assert_eq!((o, problem), (Overrides::default(), Some(11243)), "{bad}");
        }
    }

    #[test]
    fn retries_follow_the_policy() {
        use FetchFailureKind as Kind;
        let default = Overrides::default();
        assert!(default.retries_after(Attempt::Failure(Kind::Refused)));
        assert!(!default.retries_after(Attempt::Failure(Kind::ReadTimeout)));
        assert!(!default.retries_after(Attempt::Status(503)));
        let all = split("http://h/#rp=all").1;
        assert!(all.retries_after(Attempt::Status(503)));
        assert!(all.retries_after(Attempt::Failure(Kind::ReadTimeout)));
        assert!(!all.retries_after(Attempt::Failure(Kind::Protocol)));
        assert!(!all.retries_after(Attempt::Status(200)));
    }
}
