//! Media at a URL: the cache in front of the transcoding proxy.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use media_core::container::wav;
use reqwest::Client;

use crate::cache::UrlEntry;
use crate::error::MediaError;
use crate::fetch::{self, Fetched, OriginRequest};
use crate::freshness::{Fields, policy, varies_by};
use crate::layer::{FORMAT, Inner, MediaRequest, Prompt, count};
use crate::pool::Pool;
use crate::transcode::{Format, Transcoder, check_url};

/// The transcoding proxy that the cache asks.
pub(crate) enum Proxy {
    /// In this process.
    Here(Transcoder),
    /// In processes of its own.
    There(Pool, Client),
}

impl Proxy {
    async fn get(&self, request: &OriginRequest, bytes_max: usize) -> Result<Fetched, MediaError> {
        let (pool, client) = match self {
            Self::Here(transcoder) => return transcoder.get(request, Format::PROMPT).await,
            Self::There(pool, client) => (pool, client),
        };
        let query = query(&request.url, Format::PROMPT);
        let build = |client: &Client, base: &str| {
            request.dress(client.get(format!("{base}/transcode?{query}")))
        };
        let response = pool.send(client, build).await?;
        let status = response.status();
        if status == reqwest::StatusCode::NOT_MODIFIED || status.is_success() {
            return fetch::read(response, bytes_max).await;
        }
        let body = fetch::body(response, 64 << 10).await?;
        Err(MediaError::from_response(status.as_u16(), &body))
    }
}

fn query(url: &str, format: Format) -> String {
    let parameters = [("url", url), ("format", &format.to_string())];
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

impl Inner {
    pub(crate) async fn from_url(
        self: &Arc<Self>,
        url: &str,
        headers: &Fields,
    ) -> Result<Prompt, MediaError> {
        check_url(url)?;
        let now = SystemTime::now();
        let known = self.cache.url(url, FORMAT, headers);
        if let Some(entry) = &known
            && entry.refresh_until > now
            && let Some(prompt) = self.cache.prompt(&entry.key)
        {
            count(&self.counters.hits);
            if entry.fresh_until <= now {
                count(&self.counters.stale);
                self.refresh(url, headers);
            }
            return Ok(prompt);
        }
        let error_until = known.as_ref().map(|entry| (entry.error_until, entry.key.clone()));
        let result = self.ask(url, headers, known).await;
        match (&result, error_until) {
            (Err(error), Some((until, key))) if until > now && is_origins(error) => {
                let kept = self.cache.prompt(&key).inspect(|_| {
                    count(&self.counters.stale);
                    tracing::info!(url, %error, "stale media is used: the origin fails");
                });
                kept.map_or(result, Ok)
            }
            _ => result,
        }
    }

    /// Asks the origin while somebody else already plays what is stale. Once at a time.
    fn refresh(self: &Arc<Self>, url: &str, headers: &Fields) {
        let request = MediaRequest::Url { url: url.to_owned(), headers: headers.clone() };
        if !self.begin_refresh(&request) {
            return;
        }
        let inner = Arc::clone(self);
        let (url, headers) = (url.to_owned(), headers.clone());
        tokio::spawn(async move {
            let known = inner.cache.url(&url, FORMAT, &headers);
            if let Err(error) = inner.ask(&url, &headers, known).await {
                tracing::warn!(url, %error, "media cache: not refreshed");
            }
            inner.end_refresh(&request);
        });
    }

    /// Asks the origin through the proxy, with the validators of what is kept.
    async fn ask(
        self: &Arc<Self>,
        url: &str,
        headers: &Fields,
        known: Option<UrlEntry>,
    ) -> Result<Prompt, MediaError> {
        let field = |name: &str| known.as_ref().and_then(|entry| entry.fields.get(name).cloned());
        let request = OriginRequest {
            url: url.to_owned(),
            headers: headers.clone(),
            etag: field("etag"),
            last_modified: field("last-modified"),
        };
        count(&self.counters.origin_requests);
        let (fields, bytes) = match self.proxy.get(&request, self.config.source_bytes_max).await? {
            Fetched::Body { fields, bytes, .. } => (fields, bytes),
            Fetched::NotModified { fields } => {
                let unasked = || MediaError::new(MediaError::RETRIEVAL, "HTTP 304 without a cause");
                let mut entry = known.ok_or_else(unasked)?;
                let prompt = self.cache.prompt(&entry.key).ok_or_else(unasked)?;
                count(&self.counters.revalidated);
                // What the answer does not mention stays as it was, but for its age.
                entry.fields.remove("age");
                entry.fields.remove("date");
                entry.fields.extend(fields);
                self.remember(entry, headers);
                return Ok(prompt);
            }
        };
        let now = SystemTime::now();
        let kept = policy(&fields, has_credentials(url), now).keep;
        let until = (!kept).then(|| now + self.config.use_time);
        let read = move || {
            wav::read(&bytes)
                .map(|(_, samples)| samples)
                .map_err(|error| MediaError::internal(format!("transcoding proxy: {error}")))
        };
        let samples = self.blocking(read).await?;
        let prompt = self.keep(None, samples, until).await?;
        let entry = UrlEntry {
            url: url.to_owned(),
            selected_by: Fields::new(),
            key: prompt.key.clone(),
            fields,
            fresh_until: now,
            refresh_until: now,
            error_until: now,
        };
        self.remember(entry, headers);
        Ok(prompt)
    }

    fn remember(&self, entry: UrlEntry, headers: &Fields) {
        let now = SystemTime::now();
        let policy = policy(&entry.fields, has_credentials(&entry.url), now);
        if !policy.keep {
            return self.cache.forget_url(&entry.url, FORMAT, headers);
        }
        // A year is for ever here, and no sum of times can overflow.
        let year = Duration::from_secs(365 * 86_400);
        let after = |from: SystemTime, time: Duration| from + time.min(year);
        let fresh_until = after(now, policy.fresh);
        let value = |name: &String| headers.get(name).cloned().unwrap_or_default();
        let entry = UrlEntry {
            selected_by: varies_by(&entry.fields).iter().map(|n| (n.clone(), value(n))).collect(),
            fresh_until,
            refresh_until: after(fresh_until, policy.while_revalidate),
            error_until: after(fresh_until, policy.if_error),
            ..entry
        };
        if let Err(error) = self.cache.put_url(&entry, FORMAT, headers) {
            tracing::warn!(%error, "media cache: cannot remember a URL");
        }
    }
}

/// Failures that a stale answer may hide (RFC 5861 §4): of the origin and the way to it.
fn is_origins(error: &MediaError) -> bool {
    (MediaError::RETRIEVAL..11_300).contains(&error.code) && !error.message.starts_with("HTTP 4")
}

/// `http://user:password@…`: the answer is personal unless the origin says otherwise.
fn has_credentials(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}
