//! The parts of the media layer as HTTP services.
//!
//! * cache: `GET /media?url=…` or `?text=…&voice=…&language=…` answers ready media; `POST /media`
//!   with a [`MediaRequest`] as JSON answers a [`Prompt`]; `GET /media/{key}` its bytes.
//! * transcoding proxy: `/transcode`, see [`crate::transcode`].
//! * text-to-speech: `/speech`, see [`crate::speech`].
//!
//! A failure is a status of 400 and above with `{"code": …, "message": …}`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use link_proto::media::PromptKey;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::MediaError;
use crate::layer::{MediaLayer, MediaRequest, Prompt, Spoken};
use crate::speech::Speaker;
use crate::transcode::{self, Format, Transcoder, passed_on};

/// What a process offers.
#[derive(Clone, Default)]
pub struct MediaParts {
    /// The cache.
    pub cache: Option<MediaLayer>,
    /// The transcoding proxy.
    pub transcoder: Option<Transcoder>,
    /// Text-to-speech.
    pub speaker: Option<Speaker>,
}

impl MediaParts {
    fn router(self) -> Router {
        let mut router = Router::new().route("/health", get(|| async { "ok" }));
        if let Some(layer) = self.cache {
            let cache = Router::new()
                .route("/media", get(media).post(prepare))
                .route("/media/{key}", get(by_key))
                .with_state(layer);
            router = router.merge(cache);
        }
        if let Some(transcoder) = self.transcoder {
            router = router.merge(transcode::router(transcoder));
        }
        if let Some(speaker) = self.speaker {
            router = router.merge(speaker.router());
        }
        router
    }
}

/// The running services. End when dropped.
pub struct MediaService {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl MediaService {
    /// A socket for them.
    ///
    /// # Errors
    /// If the port is not to be had.
    pub fn bind(listen: SocketAddr) -> std::io::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Serves. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn start(listener: std::net::TcpListener, parts: MediaParts) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let router = parts.router();
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the media layer's port broke");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MediaService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn media(
    State(layer): State<MediaLayer>,
    Query(mut parameters): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut take = |name| parameters.remove(name);
    let request = match (take("url"), take("text")) {
        (Some(url), _) => MediaRequest::Url { url, headers: passed_on(&headers) },
        (None, Some(text)) => {
            let (voice, language) = (take("voice"), take("language"));
            let (voice, language) = (voice.unwrap_or_default(), language.unwrap_or_default());
            MediaRequest::Speech(Spoken { text, voice, language })
        }
        (None, None) => return MediaError::new(MediaError::URL, "neither url nor text").response(),
    };
    match layer.get(request).await {
        Ok(prompt) => file(&layer, &prompt.key).await,
        Err(error) => error.response(),
    }
}

async fn prepare(State(layer): State<MediaLayer>, Json(request): Json<MediaRequest>) -> Response {
    match layer.get(request).await {
        Ok(prompt) => Json::<Prompt>(prompt).into_response(),
        Err(error) => error.response(),
    }
}

async fn by_key(State(layer): State<MediaLayer>, Path(key): Path<String>) -> Response {
    file(&layer, &PromptKey(key)).await
}

async fn file(layer: &MediaLayer, key: &PromptKey) -> Response {
    let Some(bytes) = layer.open(key).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", key.0);
    let headers = [(header::CONTENT_TYPE, Format::PROMPT.mime().to_owned()), (header::ETAG, tag)];
    (headers, bytes).into_response()
}
