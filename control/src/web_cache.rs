//! Documents by GET that may be used again, or asked for with their validators (RFC 9111 as far as
//! one reader needs it). POST is never kept.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use control_core::io::{FetchRequest, FetchResponse, Method};
use link_proto::AccountSid;

/// Bytes of all bodies that are kept.
const BYTES_MAX: usize = 16 << 20;

/// Whose, and the URL with its query and credentials.
type Key = (AccountSid, String);

struct Kept {
    response: FetchResponse,
    fresh_until: Option<Instant>,
}

/// Bounded in bytes; what was kept first goes first.
#[derive(Default)]
pub(crate) struct WebCache {
    by_key: HashMap<Key, Kept>,
    order: VecDeque<Key>,
    bytes: usize,
}

fn key(request: &FetchRequest) -> Option<Key> {
    let of_get = request.request.method == Method::Get;
    of_get.then(|| (request.account, request.request.url.clone()))
}

impl WebCache {
    /// A response that may be used without asking.
    pub(crate) fn fresh(&self, now: Instant, request: &FetchRequest) -> Option<FetchResponse> {
        let kept = self.by_key.get(&key(request)?)?;
        kept.fresh_until.is_some_and(|until| now < until).then(|| kept.response.clone())
    }

    /// What is kept, to be asked about. The caller holds it until the answer is there.
    pub(crate) fn kept(&self, request: &FetchRequest) -> Option<FetchResponse> {
        self.by_key.get(&key(request)?).map(|kept| kept.response.clone())
    }

    /// Takes an answer; a 304 becomes what was kept.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        request: &FetchRequest,
        kept: Option<FetchResponse>,
        response: FetchResponse,
    ) -> FetchResponse {
        let Some(key) = key(request) else { return response };
        if let (304, Some(kept)) = (response.status, kept) {
            if let Some(here) = self.by_key.get_mut(&key) {
                here.fresh_until = Rules::of(&response).fresh_until(now);
            }
            return FetchResponse { elapsed_ms: response.elapsed_ms, ..kept };
        }
        self.forget(&key);
        let rules = Rules::of(&response);
        let usable = rules.fresh_until(now).is_some() || rules.validated;
        if response.status == 200 && rules.keep && usable {
            self.keep(now, key, &response, &rules);
        }
        response
    }

    fn keep(&mut self, now: Instant, key: Key, response: &FetchResponse, rules: &Rules) {
        self.bytes += response.body.len();
        let kept = Kept { response: response.clone(), fresh_until: rules.fresh_until(now) };
        self.by_key.insert(key.clone(), kept);
        self.order.push_back(key);
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.front().cloned() else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.by_key.remove(key) {
            self.bytes = self.bytes.saturating_sub(kept.response.body.len());
            self.order.retain(|known| known != key);
        }
    }
}

/// Headers that make the server say whether it has anything newer than this.
pub(crate) fn validators(kept: Option<&FetchResponse>) -> Vec<(&'static str, String)> {
    [("If-None-Match", "etag"), ("If-Modified-Since", "last-modified")]
        .into_iter()
        .filter_map(|(asks, says)| Some((asks, kept?.header(says)?.to_owned())))
        .collect()
}

/// What a response allows.
struct Rules {
    keep: bool,
    validated: bool,
    age_max: Option<Duration>,
}

impl Rules {
    fn of(response: &FetchResponse) -> Self {
        let said = response.header("cache-control").unwrap_or_default().to_ascii_lowercase();
        let mut words = said.split(',').map(str::trim);
        let has = |word: &str| said.split(',').any(|said| said.trim() == word);
        let seconds = words.find_map(|word| word.strip_prefix("max-age=")?.parse().ok());
        let told = response.header("age").and_then(|age| age.trim().parse().ok()).unwrap_or(0);
        // The answer depends on more than the URL, or sets state.
        let own = response.header("vary").is_some() || response.header("set-cookie").is_some();
        Self {
            keep: !has("no-store") && !own,
            validated: response.header("etag").or(response.header("last-modified")).is_some(),
            age_max: seconds
                .filter(|_| !has("no-cache"))
                .map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(told))),
        }
    }

    fn fresh_until(&self, now: Instant) -> Option<Instant> {
        let age_max = self.age_max.filter(|age| !age.is_zero())?;
        now.checked_add(age_max.min(Duration::from_secs(86_400)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, url: &str) -> FetchRequest {
        FetchRequest {
            id: control_core::io::FetchId(1),
            session: link_proto::CallSid([1; 16]),
            account: AccountSid([1; 16]),
            request: control_core::io::HttpRequest {
                method,
                url: url.to_owned(),
                headers: Vec::new(),
                body: None,
            },
            overrides: Default::default(),
            body_bytes_max: 100,
            cookies: Vec::new(),
        }
    }

    fn response(status: u16, headers: &[(&str, &str)]) -> FetchResponse {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        FetchResponse { status, headers, body: vec![b'x'; 10], elapsed_ms: 1 }
    }

    #[test]
    fn tel_04_cache_directives_are_honoured() {
        let now = clock();
        let later = now + Duration::from_secs(61);
        let etag = ("ETag", "\"1\"");
        for (method, headers, fresh_now, fresh_later, asked_with) in [
            (Method::Get, vec![], false, false, 0),
            (Method::Get, vec![etag], false, false, 1),
            (Method::Get, vec![etag, ("Last-Modified", "x")], false, false, 2),
            (Method::Get, vec![("Cache-Control", "max-age=60")], true, false, 0),
            (Method::Get, vec![("Cache-Control", "max-age=90"), ("Age", "40")], true, false, 0),
            (Method::Get, vec![("Cache-Control", "no-cache, max-age=90"), etag], false, false, 1),
            (Method::Get, vec![("Cache-Control", "max-age=90, no-store"), etag], false, false, 0),
            (
                Method::Get,
                vec![("Cache-Control", "max-age=90"), ("Vary", "Cookie")],
                false,
                false,
                0,
            ),
            (Method::Post, vec![("Cache-Control", "max-age=90"), etag], false, false, 0),
        ] {
            let mut cache = WebCache::default();
            let ask = request(method, "http://h/?a=1");
            assert_eq!(cache.answered(now, &ask, None, response(200, &headers)).status, 200);
            assert_eq!(cache.fresh(now, &ask).is_some(), fresh_now, "{headers:?}");
            assert_eq!(cache.fresh(later, &ask).is_some(), fresh_later, "{headers:?}");
            assert_eq!(validators(cache.kept(&ask).as_ref()).len(), asked_with, "{headers:?}");
            assert_eq!(cache.kept(&request(method, "http://h/?a=2")), None);
        }
    }

    #[test]
    fn tel_04_what_has_not_changed_is_used_again() {
        let (mut cache, now) = (WebCache::default(), clock());
        let ask = request(Method::Get, "http://h/");
        let first = response(200, &[("ETag", "1"), ("Content-Type", "text/xml")]);
        cache.answered(now, &ask, None, first);
        let same = FetchResponse { status: 304, ..Default::default() };
        let again = cache.answered(now, &ask, cache.kept(&ask), same);
        assert_eq!((again.status, again.header("content-type")), (200, Some("text/xml")));
        assert_eq!(again.body.len(), 10);
        cache.answered(now, &ask, None, response(500, &[]));
        assert_eq!(cache.kept(&ask), None, "an error is newer");
        assert_eq!((cache.bytes, cache.order.len()), (0, 0));
        for n in 0..3 {
            let ask = request(Method::Get, &format!("http://h/{n}"));
            let big =
                FetchResponse { body: vec![0; BYTES_MAX / 2], ..response(200, &[("ETag", "1")]) };
            cache.answered(now, &ask, None, big);
        }
        assert_eq!(cache.by_key.len(), 2, "the oldest has gone");
    }

    fn clock() -> Instant {
        link_daemon::clock::now()
    }
}
