//! The media layer as the core's task sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use control_core::io::{MediaFailure, MediaFile, MediaRequest};
use control_media_layer::speech::{Engine, SpeechConfig, SpeechService};
use control_media_layer::{self as media_layer, MediaConfig};
use link_daemon::drain::Shutdown;
use link_proto::AccountSid;
use link_proto::media::PromptKey;
use reqwest::Certificate;

use crate::config::{self, Config};
use crate::core_task::{Boxed, MediaLayer};

/// The media layer of this process and its speech service.
#[derive(Clone)]
pub struct Prompts {
    layer: media_layer::MediaLayer,
    /// Ends with the last clone.
    _speech: Option<Arc<SpeechService>>,
}

impl Prompts {
    /// Opens the cache below the data folder and starts the speech service.
    ///
    /// # Errors
    /// If the folder cannot be made or no port can be had.
    pub fn start(config: &Config, authorities: Vec<Certificate>) -> anyhow::Result<Self> {
        let engines = match config.speech.engine {
            config::Engine::Off => None,
            config::Engine::Auto => Some(Vec::new()),
            config::Engine::EspeakNg => Some(vec![Engine::EspeakNg]),
            config::Engine::Flite => Some(vec![Engine::Flite]),
            config::Engine::Festival => Some(vec![Engine::Festival]),
        };
        let speech = engines.map(|engines| {
            SpeechService::start(SpeechConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                engines,
                processes_max: config.speech.processes_max,
                ..SpeechConfig::default()
            })
        });
        let speech = speech.transpose().context("speech service")?;
        if let Some(service) = &speech {
            let engines: Vec<_> = service.engines().iter().map(|e| e.program()).collect();
            if engines.is_empty() {
                tracing::warn!("no speech engine is installed: Say will fail");
            } else {
                tracing::info!(engines = engines.join(", "), "speech service runs");
            }
        }
        let folder = config.data_folder.join("prompts");
        let layer = media_layer::MediaLayer::new(MediaConfig {
            cache_bytes_max: whole(config.prompts.cache_bytes_max),
            source_bytes_max: usize::try_from(config.prompts.file_bytes_max).unwrap_or(usize::MAX),
            authorities,
            speech_url: speech.as_ref().map(SpeechService::url),
            ..MediaConfig::at(&folder)
        })
        .with_context(|| folder.display().to_string())?;
        Ok(Self { layer, _speech: speech.map(Arc::new) })
    }

    /// Removes once a minute what must not be kept.
    pub async fn sweep(self, mut shutdown: Shutdown) {
        let minute = std::time::Duration::from_secs(60);
        while tokio::time::timeout(minute, shutdown.requested()).await.is_err() {
            let layer = self.layer.clone();
            let _ = tokio::task::spawn_blocking(move || layer.sweep(SystemTime::now())).await;
        }
    }
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
        let layer = self.layer.clone();
        let request = match media {
            MediaRequest::Url { url } => media_layer::MediaRequest::Url { url },
            MediaRequest::Speech { text, voice, language } => {
                media_layer::MediaRequest::Speech { text, voice, language }
            }
        };
        Box::pin(async move {
            let prompt = layer.get(request).await;
            prompt
                .map(|prompt| MediaFile { key: prompt.key, duration_ms: prompt.duration_ms })
                .map_err(|error| MediaFailure { code: error.code, message: error.message })
        })
    }

    fn bytes(&self, key: PromptKey) -> Boxed<Option<bytes::Bytes>> {
        let layer = self.layer.clone();
        Box::pin(async move { layer.open(&key).await.map(bytes::Bytes::from) })
    }
}
