//! The one door: ask for media, get a prompt.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use link_proto::media::PromptKey;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

use crate::cache::{Cache, key_of};
use crate::error::MediaError;
use crate::fetch;
use crate::origin::Proxy;
use crate::pool::Pool;
use crate::transcode::{TranscodeConfig, Transcoder};

/// Media parameters of every prompt: part of its key.
pub(crate) const FORMAT: &[u8] = b"pcm16 8000 Hz mono v1";

/// Limits and places.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// Folder of processed media. Made if it is not there.
    pub cache_folder: PathBuf,
    /// Size of that folder in bytes, above which what was not used lately is removed.
    pub cache_bytes_max: u64,
    /// `http://…/speech` of speech services; see [`crate::speech::SpeechService`].
    pub speech_urls: Vec<String>,
    /// What speaks there: part of the key of speech that is kept.
    pub speech_name: String,
    /// `http://host:port` of transcoding proxies; empty = in this process.
    pub transcoder_urls: Vec<String>,
    /// Authorities of origins beside those of the system.
    pub authorities: Vec<reqwest::Certificate>,
    /// Limit for connecting to an origin or to another part.
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
        let limits = TranscodeConfig::default();
        Self {
            cache_folder: cache_folder.into(),
            cache_bytes_max: 2 << 30,
            speech_urls: Vec::new(),
            speech_name: String::new(),
            transcoder_urls: Vec::new(),
            authorities: Vec::new(),
            connect_timeout: limits.connect_timeout,
            total_timeout: limits.total_timeout,
            source_bytes_max: limits.source_bytes_max,
            prompt_ms_max: limits.length_ms_max,
            text_chars_max: 4096,
            transcodes_max: limits.transcodes_max,
            use_time: Duration::from_secs(600),
        }
    }

    /// The limits that the transcoding proxy shares.
    pub fn transcode(&self) -> TranscodeConfig {
        TranscodeConfig {
            connect_timeout: self.connect_timeout,
            total_timeout: self.total_timeout,
            authorities: self.authorities.clone(),
            source_bytes_max: self.source_bytes_max,
            length_ms_max: self.prompt_ms_max,
            transcodes_max: self.transcodes_max,
        }
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaRequest {
    /// Audio at a URL.
    Url {
        /// Absolute http or https URL.
        url: String,
        /// `accept` and `accept-language` if the asker has any; the origin may choose by them.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Speech.
    Speech(Spoken),
}

impl MediaRequest {
    /// Audio at a URL, whatever its language.
    pub fn url(url: impl Into<String>) -> Self {
        Self::Url { url: url.into(), headers: BTreeMap::new() }
    }
}

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spoken {
    /// Text, perhaps with SSML.
    pub text: String,
    /// As in the document: `man`, `woman`, `alice`, ….
    #[serde(default)]
    pub voice: String,
    /// BCP 47, for example `en-US`.
    #[serde(default)]
    pub language: String,
}

/// Media that is ready: 8 kHz mono 16-bit PCM in a WAV file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Answered with stale media, which is asked for again meanwhile or whose origin fails.
    pub stale: u64,
    /// Waited for another request for the same thing.
    pub collapsed: u64,
    /// Requests to origins.
    pub origin_requests: u64,
    /// Texts given to the speech service.
    pub speech_requests: u64,
    /// Files that were converted in this process.
    pub transcodes: u64,
    /// Failures.
    pub failures: u64,
    /// Bytes kept on disk.
    pub cache_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) revalidated: AtomicU64,
    pub(crate) stale: AtomicU64,
    collapsed: AtomicU64,
    pub(crate) origin_requests: AtomicU64,
    pub(crate) speech_requests: AtomicU64,
    failures: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

type Waiters = Vec<oneshot::Sender<Result<Prompt, MediaError>>>;

/// The cache, and behind it whatever makes media. Cheap to clone.
#[derive(Clone)]
pub struct MediaLayer {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: MediaConfig,
    pub(crate) client: Client,
    pub(crate) cache: Cache,
    pub(crate) proxy: Proxy,
    pub(crate) speech: Pool,
    transcoder: Transcoder,
    work: Semaphore,
    running: Mutex<HashMap<MediaRequest, Waiters>>,
    refreshing: Mutex<HashSet<MediaRequest>>,
    pub(crate) counters: Counters,
}

impl MediaLayer {
    /// Opens the cache. The process must have installed its rustls crypto provider.
    ///
    /// # Errors
    /// If the folder cannot be used or TLS cannot be set up.
    pub fn new(config: MediaConfig) -> Result<Self, MediaError> {
        let transcoder = Transcoder::new(config.transcode())?;
        Self::with(config, transcoder)
    }

    /// The same with a transcoding proxy that others use as well.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(config: MediaConfig, transcoder: Transcoder) -> Result<Self, MediaError> {
        let client =
            fetch::client(config.connect_timeout, config.total_timeout, &config.authorities)?;
        let cache = Cache::open(&config.cache_folder, config.cache_bytes_max, config.use_time)
            .map_err(MediaError::internal)?;
        let proxies = Pool::new("transcoding proxy", &config.transcoder_urls);
        let proxy = if proxies.is_empty() {
            Proxy::Here(transcoder.clone())
        } else {
            Proxy::There(proxies, client.clone())
        };
        let speech = Pool::new("speech service", &config.speech_urls);
        let work = Semaphore::new(config.transcodes_max.max(1));
        let (running, refreshing) = Default::default();
        let counters = Counters::default();
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                client,
                cache,
                proxy,
                speech,
                transcoder,
                work,
                running,
                refreshing,
                counters,
            }),
        })
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
            stale: read(&counters.stale),
            collapsed: read(&counters.collapsed),
            origin_requests: read(&counters.origin_requests),
            speech_requests: read(&counters.speech_requests),
            transcodes: self.inner.transcoder.counts().0,
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

impl Inner {
    async fn prepare(self: &Arc<Self>, request: &MediaRequest) -> Result<Prompt, MediaError> {
        match request {
            MediaRequest::Url { url, headers } => self.from_url(url, headers).await,
            MediaRequest::Speech(spoken) => self.speech(spoken).await,
        }
    }

    /// True for the first one who wants to refresh it.
    pub(crate) fn begin_refresh(&self, request: &MediaRequest) -> bool {
        let mut refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        refreshing.insert(request.clone())
    }

    pub(crate) fn end_refresh(&self, request: &MediaRequest) {
        self.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(request);
    }

    pub(crate) async fn keep(
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
            inner.cache.put(&key, &samples, until).map_err(MediaError::internal)
        })
        .await
    }

    /// Work for the processor or the disk, a few at a time.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
    ) -> Result<T, MediaError> {
        let _permit = self.work.acquire().await.map_err(MediaError::internal)?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| MediaError::new(MediaError::TYPE, "the file cannot be decoded"))?
    }
}
