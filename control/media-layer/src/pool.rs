//! Instances of one part of the media layer that run as processes of their own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response, StatusCode};

use crate::error::MediaError;
use crate::failure::describe;

/// How long an instance that did not answer is passed over.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// Base URLs that are used in turn. One that does not answer is passed over for a while, and what
/// it was asked goes to the next.
pub(crate) struct Pool {
    what: &'static str,
    instances: Vec<Instance>,
    next: AtomicUsize,
    begun: Instant,
}

struct Instance {
    url: String,
    /// ms since `begun` until which it is passed over.
    down_until_ms: AtomicU64,
}

impl Pool {
    /// `what` names the part in errors; URLs are without slash at the end.
    pub(crate) fn new(what: &'static str, urls: &[String]) -> Self {
        let instance = |url: &String| Instance {
            url: url.trim_end_matches('/').to_owned(),
            down_until_ms: AtomicU64::new(0),
        };
        Self {
            what,
            instances: urls.iter().map(instance).collect(),
            next: AtomicUsize::new(0),
            begun: Instant::now(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// All instances in the order to try: the next in turn first, those passed over last.
    fn order(&self, now_ms: u64) -> Vec<&Instance> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len().max(1);
        let (before, from) = self.instances.split_at(first.min(self.instances.len()));
        let mut order: Vec<_> = from.iter().chain(before).collect();
        order.sort_by_key(|i| i.down_until_ms.load(Ordering::Relaxed) > now_ms);
        order
    }

    /// Sends what `build` makes of a base URL to one instance after the other until one answers.
    /// 503 of an instance means that it is busy.
    pub(crate) async fn send(
        &self,
        client: &Client,
        build: impl Fn(&Client, &str) -> RequestBuilder,
    ) -> Result<Response, MediaError> {
        let mut last = format!("no {} is configured", self.what);
        for instance in self.order(self.now_ms()) {
            match build(client, &instance.url).send().await {
                Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                    last = format!("{} {} is busy", self.what, instance.url);
                }
                Ok(response) => {
                    instance.down_until_ms.store(0, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    let until = self.now_ms().saturating_add(PASSED_OVER.as_millis() as u64);
                    instance.down_until_ms.store(until, Ordering::Relaxed);
                    last = format!("{} {}: {}", self.what, instance.url, describe(error));
                    tracing::warn!("{last}; passed over");
                }
            }
        }
        Err(MediaError::internal(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_take_turns_and_the_dead_come_last() {
        let urls = ["http://a".to_owned(), "http://b/".to_owned(), "http://c".to_owned()];
        let pool = Pool::new("part", &urls);
        let names = |now| pool.order(now).iter().map(|i| i.url.clone()).collect::<Vec<_>>();
        assert_eq!(names(0), ["http://a", "http://b", "http://c"]);
        assert_eq!(names(0), ["http://b", "http://c", "http://a"]);
        pool.instances[2].down_until_ms.store(10, Ordering::Relaxed);
        assert_eq!(names(5), ["http://a", "http://b", "http://c"]);
        assert_eq!(names(5)[2], "http://c");
        assert_eq!(names(10)[0], "http://b");
        assert!(Pool::new("part", &[]).order(0).is_empty());
    }
}
