//! The media layer as the core's task sees it, and the ports of its parts.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use control_core::io::{MediaFailure, MediaFile, MediaRequest};
use control_media_layer::speech::{Engine, Speaker, SpeechConfig};
use control_media_layer::transcode::Transcoder;
use control_media_layer::{
    self as media_layer, MediaConfig, MediaParts, MediaService, RemoteCache, Spoken,
};
use link_daemon::drain::Shutdown;
use link_daemon::metrics::Metrics;
use link_proto::AccountSid;
use link_proto::media::PromptKey;
use reqwest::Certificate;

use crate::config::{self, Config, Media, Part};
use crate::core_task::{Boxed, MediaLayer};
use crate::metrics::register_media;

/// The media layer of this process and what it offers to others.
#[derive(Clone)]
pub struct Prompts {
    cache: Cache,
    transcoder: Transcoder,
    /// Ends with the last clone.
    _service: Arc<MediaService>,
}

#[derive(Clone)]
enum Cache {
    Here(media_layer::MediaLayer),
    There(Arc<RemoteCache>),
}

impl Prompts {
    /// Opens the cache below the data folder and starts the services.
    ///
    /// # Errors
    /// If the folder cannot be made or the port is not to be had.
    pub fn start(config: &Config, authorities: Vec<Certificate>) -> anyhow::Result<Self> {
        let all = [Part::Cache, Part::Transcoder, Part::Speech];
        let Config { media, speech, prompts, data_folder, .. } = config;
        Self::start_parts(&all, media, speech, prompts, data_folder, authorities)
    }

    /// The same for a process that offers some parts only.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_parts(
        parts: &[Part],
        media: &Media,
        speech: &config::Speech,
        prompts: &config::Prompts,
        data_folder: &Path,
        authorities: Vec<Certificate>,
    ) -> anyhow::Result<Self> {
        let listener = MediaService::bind(media.listen)
            .with_context(|| format!("media layer: {}", media.listen))?;
        let here = listener.local_addr()?;
        let offers = |part| parts.contains(&part);
        let speaker = speaker(speech).filter(|_| offers(Part::Speech) && media.speech.is_empty());
        let own = speaker.as_ref().map(|_| format!("http://{here}/speech"));
        let folder = data_folder.join("prompts");
        let settings = MediaConfig {
            cache_bytes_max: whole(prompts.cache_bytes_max),
            source_bytes_max: usize::try_from(prompts.file_bytes_max).unwrap_or(usize::MAX),
            speech_urls: media.speech.iter().cloned().chain(own).collect(),
            speech_name: media.speech_name.clone(),
            transcoder_urls: media.transcoder.clone(),
            authorities,
            ..MediaConfig::at(&folder)
        };
        let transcoder = Transcoder::new(settings.transcode())?;
        let cache = if media.cache.is_empty() {
            let layer = media_layer::MediaLayer::with(settings, transcoder.clone());
            Cache::Here(layer.with_context(|| folder.display().to_string())?)
        } else {
            Cache::There(Arc::new(RemoteCache::new(&media.cache)?))
        };
        let offered = MediaParts {
            cache: match &cache {
                Cache::Here(layer) if offers(Part::Cache) => Some(layer.clone()),
                _ => None,
            },
            transcoder: offers(Part::Transcoder).then(|| transcoder.clone()),
            speaker,
        };
        let service = MediaService::start(listener, offered).context("media layer")?;
        tracing::info!("media layer at http://{here}");
        Ok(Self { cache, transcoder, _service: Arc::new(service) })
    }

    /// Shows its counters.
    pub fn register(&self, metrics: &Metrics) {
        let this = self.clone();
        register_media(metrics, move || match &this.cache {
            Cache::Here(layer) => layer.stats(),
            Cache::There(_) => media_layer::MediaStats {
                transcodes: this.transcoder.counts().0,
                ..Default::default()
            },
        });
    }

    /// Removes once a minute what must not be kept.
    pub async fn sweep(self, mut shutdown: Shutdown) {
        let minute = std::time::Duration::from_secs(60);
        while tokio::time::timeout(minute, shutdown.requested()).await.is_err() {
            if let Cache::Here(layer) = self.cache.clone() {
                let _ = tokio::task::spawn_blocking(move || layer.sweep(SystemTime::now())).await;
            }
        }
    }
}

fn speaker(speech: &config::Speech) -> Option<Speaker> {
    let engines = match speech.engine {
        config::Engine::Off => return None,
        config::Engine::Auto => Vec::new(),
        config::Engine::EspeakNg => vec![Engine::EspeakNg],
        config::Engine::Flite => vec![Engine::Flite],
        config::Engine::Festival => vec![Engine::Festival],
    };
    let processes_max = speech.processes_max;
    let speaker = Speaker::new(&SpeechConfig { engines, processes_max, ..SpeechConfig::default() });
    let engines: Vec<_> = speaker.engines().iter().map(|engine| engine.program()).collect();
    if engines.is_empty() {
        tracing::warn!("no speech engine is installed: Say will fail");
    } else {
        tracing::info!(engines = engines.join(", "), "speech service runs");
    }
    Some(speaker)
}

fn whole(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

impl MediaLayer for Prompts {
    fn prepare(
        &self,
        _account: AccountSid,
        media: MediaRequest,
    ) -> Boxed<Result<MediaFile, MediaFailure>> {
        let cache = self.cache.clone();
        let request = match media {
            MediaRequest::Url { url } => media_layer::MediaRequest::url(url),
            MediaRequest::Speech { text, voice, language } => {
                media_layer::MediaRequest::Speech(Spoken { text, voice, language })
            }
        };
        Box::pin(async move {
            let prompt = match cache {
                Cache::Here(layer) => layer.get(request).await,
                Cache::There(remote) => remote.get(&request).await,
            };
            prompt
                .map(|prompt| MediaFile { key: prompt.key, duration_ms: prompt.duration_ms })
                .map_err(|error| MediaFailure { code: error.code, message: error.message })
        })
    }

    fn bytes(&self, key: PromptKey) -> Boxed<Option<bytes::Bytes>> {
        let cache = self.cache.clone();
        Box::pin(async move {
            let bytes = match cache {
                Cache::Here(layer) => layer.open(&key).await,
                Cache::There(remote) => remote.open(&key).await,
            };
            bytes.map(bytes::Bytes::from)
        })
    }
}
