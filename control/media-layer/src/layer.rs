//! The one door: ask for media, get a prompt.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use link_proto::media::PromptKey;
use media_core::units::SampleRate;
use reqwest::Client;
use tokio::sync::{Semaphore, oneshot};

use crate::cache::{Cache, UrlEntry, key_of};
use crate::decode;
use crate::error::MediaError;
use crate::fetch::{self, Fetched};
use crate::freshness::{Freshness, freshness};
use crate::speech::SpeechRequest;
use crate::ssml::{self, Part};

/// Media parameters of every prompt: part of its key.
const FORMAT: &[u8] = b"pcm16 8000 Hz mono v1";

/// Limits and places.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// Folder of processed media. Made if it is not there.
    pub cache_folder: PathBuf,
    /// Size of that folder in bytes, above which what was not used lately is removed.
    pub cache_bytes_max: u64,
    /// `http://…/speech` of a speech service; see [`crate::speech::SpeechService`].
    pub speech_url: Option<String>,
    /// Authorities of origins beside those of the system.
    pub authorities: Vec<reqwest::Certificate>,
    /// Limit for connecting to an origin.
    pub connect_timeout: Duration,
    /// Limit for a whole request.
    pub total_timeout: Duration,
    /// Largest file of an origin in bytes.
    pub source_bytes_max: usize,
    /// Longest prompt in ms.
    pub prompt_ms_max: u64,
    /// Longest text to say in characters.
    pub text_chars_max: usize,
    /// Conversions at a time.
    pub transcodes_max: usize,
    /// How long media that must not be stored stays for the call that asked for it, and how long
    /// media in use is safe from removal.
    pub use_time: Duration,
}

impl MediaConfig {
    /// Defaults around a folder.
    pub fn at(cache_folder: impl Into<PathBuf>) -> Self {
        Self {
            cache_folder: cache_folder.into(),
            cache_bytes_max: 2 << 30,
            speech_url: None,
            authorities: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
            source_bytes_max: 40 << 20,
            prompt_ms_max: 20 * 60 * 1000,
            text_chars_max: 4096,
            transcodes_max: 2,
            use_time: Duration::from_secs(600),
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MediaRequest {
    /// Audio at a URL.
    Url {
        /// Absolute http or https URL.
        url: String,
    },
    /// Speech.
    Speech {
        /// Text, perhaps with a few tags of SSML.
        text: String,
        /// As in the document: `man`, `woman`, `alice`, ….
        voice: String,
        /// BCP 47, for example `en-US`.
        language: String,
    },
}

/// Media that is ready: 8 kHz mono 16-bit PCM in a WAV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Names this content for ever: other content has another key.
    pub key: PromptKey,
    /// Length in ms.
    pub duration_ms: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaStats {
    /// Requests.
    pub requests: u64,
    /// Answered from the cache without asking anybody.
    pub hits: u64,
    /// Answered after the origin said that nothing has changed.
    pub revalidated: u64,
    /// Waited for another request for the same thing.
    pub collapsed: u64,
    /// Requests to origins.
    pub origin_requests: u64,
    /// Texts given to the speech service.
    pub speech_requests: u64,
    /// Failures.
    pub failures: u64,
    /// Bytes kept on disk.
    pub cache_bytes: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    hits: AtomicU64,
    revalidated: AtomicU64,
    collapsed: AtomicU64,
    origin_requests: AtomicU64,
    speech_requests: AtomicU64,
    failures: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

type Waiters = Vec<oneshot::Sender<Result<Prompt, MediaError>>>;

/// The media layer. Cheap to clone.
#[derive(Clone)]
pub struct MediaLayer {
    inner: Arc<Inner>,
}

struct Inner {
    config: MediaConfig,
    client: Client,
    cache: Cache,
    transcodes: Semaphore,
    running: Mutex<HashMap<MediaRequest, Waiters>>,
    counters: Counters,
}

impl MediaLayer {
    /// Opens the cache. The process must have installed its rustls crypto provider.
    pub fn new(config: MediaConfig) -> Result<Self, MediaError> {
        let client = fetch::client(&config)?;
        let cache = Cache::open(&config.cache_folder, config.cache_bytes_max, config.use_time)
            .map_err(internal)?;
        let transcodes = Semaphore::new(config.transcodes_max.max(1));
        let running = Mutex::default();
        let counters = Counters::default();
        Ok(Self { inner: Arc::new(Inner { config, client, cache, transcodes, running, counters }) })
    }

    /// Has a prompt ready. Whoever asks for the same thing meanwhile gets the same answer.
    pub async fn get(&self, request: MediaRequest) -> Result<Prompt, MediaError> {
        count(&self.inner.counters.requests);
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            let waiters = running.entry(request.clone()).or_default();
            waiters.push(sender);
            waiters.len() == 1
        };
        if first {
            let inner = Arc::clone(&self.inner);
            // A task of its own: it goes on when the first caller loses interest.
            tokio::spawn(async move {
                let leader = Leader { inner, request };
                let result = leader.inner.prepare(&leader.request).await;
                leader.finish(&result);
            });
        } else {
            count(&self.inner.counters.collapsed);
        }
        let gone = || MediaError::new(MediaError::INTERNAL, "the media task has failed");
        let result = receiver.await.unwrap_or_else(|_| Err(gone()));
        if result.is_err() {
            count(&self.inner.counters.failures);
        }
        result
    }

    /// The WAV file of a prompt, for whoever streams it to an edge.
    pub async fn open(&self, key: &PromptKey) -> Option<Vec<u8>> {
        let path = self.inner.cache.file(key)?;
        tokio::fs::read(path).await.ok()
    }

    /// Removes what must not be kept any longer at `now`. To be called now and then.
    pub fn sweep(&self, now: SystemTime) {
        self.inner.cache.evict(now);
    }

    /// Counters.
    pub fn stats(&self) -> MediaStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MediaStats {
            requests: read(&counters.requests),
            hits: read(&counters.hits),
            revalidated: read(&counters.revalidated),
            collapsed: read(&counters.collapsed),
            origin_requests: read(&counters.origin_requests),
            speech_requests: read(&counters.speech_requests),
            failures: read(&counters.failures),
            cache_bytes: self.inner.cache.bytes(),
        }
    }
}

/// The one task that does the work. Frees the waiters even if the work panics.
struct Leader {
    inner: Arc<Inner>,
    request: MediaRequest,
}

impl Leader {
    fn waiters(&self) -> Waiters {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.request).unwrap_or_default()
    }

    fn finish(self, result: &Result<Prompt, MediaError>) {
        for waiter in self.waiters() {
            let _ = waiter.send(result.clone());
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        drop(self.waiters());
    }
}

fn internal(error: impl std::fmt::Display) -> MediaError {
    MediaError::new(MediaError::INTERNAL, error.to_string())
}

impl Inner {
    async fn prepare(self: &Arc<Self>, request: &MediaRequest) -> Result<Prompt, MediaError> {
        match request {
            MediaRequest::Url { url } => self.from_url(url).await,
            MediaRequest::Speech { text, voice, language } => {
                self.speech(text, voice, language).await
            }
        }
    }

    async fn from_url(self: &Arc<Self>, url: &str) -> Result<Prompt, MediaError> {
        check_url(url)?;
        let known = self.cache.url(url);
        if let Some(entry) = &known
            && entry.fresh_until > SystemTime::now()
            && let Some(prompt) = self.cache.prompt(&entry.key)
        {
            count(&self.counters.hits);
            return Ok(prompt);
        }
        let validators = known.as_ref().map(|e| e.validators.clone()).unwrap_or_default();
        count(&self.counters.origin_requests);
        let bytes_max = self.config.source_bytes_max;
        let fetched = fetch::fetch(&self.client, url, &validators, bytes_max).await?;
        let now = SystemTime::now();
        let (headers, mime, validators, bytes) = match fetched {
            Fetched::Body { headers, mime, validators, bytes } => {
                (headers, mime, validators, bytes)
            }
            Fetched::NotModified { headers } => {
                let unasked = || MediaError::new(MediaError::RETRIEVAL, "HTTP 304 without a cause");
                let entry = known.ok_or_else(unasked)?;
                let prompt = self.cache.prompt(&entry.key).ok_or_else(unasked)?;
                count(&self.counters.revalidated);
                self.remember(entry, freshness(&headers, now), now);
                return Ok(prompt);
            }
        };
        let length_ms_max = self.config.prompt_ms_max;
        let samples = self.blocking(move || decode::decode(&bytes, &mime, length_ms_max)).await?;
        let fresh = freshness(&headers, now);
        let until = (fresh == Freshness::DoNotKeep).then(|| now + self.config.use_time);
        let prompt = self.keep(None, samples, until).await?;
        let key = prompt.key.clone();
        let entry = UrlEntry { url: url.to_owned(), key, validators, fresh_until: now };
        self.remember(entry, fresh, now);
        Ok(prompt)
    }

    fn remember(&self, entry: UrlEntry, fresh: Freshness, now: SystemTime) {
        // A year is for ever here, and no sum of times can overflow.
        let year = Duration::from_secs(365 * 86_400);
        let result = match fresh {
            Freshness::DoNotKeep => {
                self.cache.forget_url(&entry.url);
                Ok(())
            }
            Freshness::Fresh(time) => {
                self.cache.put_url(&UrlEntry { fresh_until: now + time.min(year), ..entry })
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "media cache: cannot remember a URL");
        }
    }

    async fn speech(
        self: &Arc<Self>,
        text: &str,
        voice: &str,
        language: &str,
    ) -> Result<Prompt, MediaError> {
        let parts = ssml::parse(text);
        if parts.is_empty() {
            return Err(MediaError::new(MediaError::EMPTY_TEXT, "there is no text to say"));
        }
        if text.chars().count() > self.config.text_chars_max {
            let message =
                format!("the text is longer than {} characters", self.config.text_chars_max);
            return Err(MediaError::new(MediaError::LONG_TEXT, message));
        }
        let key = key_of(&[
            b"speech",
            FORMAT,
            text.as_bytes(),
            voice.as_bytes(),
            language.as_bytes(),
            self.config.speech_url.as_deref().map_or("", speech_path).as_bytes(),
        ]);
        if let Some(prompt) = self.cache.prompt(&key) {
            count(&self.counters.hits);
            return Ok(prompt);
        }
        let mut samples = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => samples.extend(self.say(text, voice, language).await?),
                Part::Break { length_ms } => {
                    samples.resize(samples.len() + SampleRate::HZ_8000.samples_in_ms(length_ms), 0);
                }
            }
        }
        self.keep(Some(key), samples, None).await
    }

    /// One run of the speech service.
    async fn say(
        self: &Arc<Self>,
        text: String,
        voice: &str,
        language: &str,
    ) -> Result<Vec<i16>, MediaError> {
        let missing = || internal("no speech service is configured");
        let url = self.config.speech_url.as_deref().ok_or_else(missing)?;
        let request =
            SpeechRequest { text, voice: voice.to_owned(), language: language.to_owned() };
        let body = serde_json::to_vec(&request).map_err(internal)?;
        count(&self.counters.speech_requests);
        let sent = self.client.post(url).header("content-type", "application/json").body(body);
        let response = sent.send().await.map_err(fetch::failed)?;
        let status = response.status();
        let bytes = fetch::body(response, self.config.source_bytes_max).await?;
        if !status.is_success() {
            let why = String::from_utf8_lossy(bytes.get(..bytes.len().min(300)).unwrap_or(&[]));
            return Err(internal(format!("speech service: {status}: {why}")));
        }
        let length_ms_max = self.config.prompt_ms_max;
        self.blocking(move || {
            let mut samples = decode::decode(&bytes, "audio/wav", length_ms_max)?;
            decode::normalise(&mut samples);
            Ok(samples)
        })
        .await
    }

    async fn keep(
        self: &Arc<Self>,
        key: Option<PromptKey>,
        samples: Vec<i16>,
        until: Option<SystemTime>,
    ) -> Result<Prompt, MediaError> {
        let inner = Arc::clone(self);
        self.blocking(move || {
            let key = key.unwrap_or_else(|| {
                let pcm: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
                key_of(&[b"audio", FORMAT, &pcm])
            });
            inner.cache.put(&key, &samples, until).map_err(internal)
        })
        .await
    }

    /// Work for the processor or the disk, a few at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
    ) -> Result<T, MediaError> {
        let _permit = self.transcodes.acquire().await.map_err(internal)?;
        // Damaged files may well hit a defect of a decoder; that is the file's failure.
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| MediaError::new(MediaError::TYPE, "the file cannot be decoded"))?
    }
}

/// The part of the speech service's URL that says what speaks: a new port is no new voice.
fn speech_path(url: &str) -> &str {
    url.split("://")
        .nth(1)
        .and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)))
        .unwrap_or("")
}

fn check_url(url: &str) -> Result<(), MediaError> {
    let wrong = |why: String| MediaError::new(11100, why);
    let parsed = url::Url::parse(url).map_err(|error| wrong(format!("invalid URL: {error}")))?;
    match parsed.scheme() {
        "http" | "https" => Ok(()),
        other => Err(wrong(format!("invalid URL: scheme {other}"))),
    }
}
