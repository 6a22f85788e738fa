//! The HTTP side of speech.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::engine::{Engine, EngineError};

/// Body of `POST /speech`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeechRequest {
    /// Plain text.
    pub text: String,
    /// As in the document.
    #[serde(default)]
    pub voice: String,
    /// BCP 47.
    #[serde(default)]
    pub language: String,
}

/// How the service runs.
#[derive(Debug, Clone)]
pub struct SpeechConfig {
    /// Where to listen; port 0 = any.
    pub listen: SocketAddr,
    /// Engines to use, best first; empty = what is installed.
    pub engines: Vec<Engine>,
    /// Child processes at a time.
    pub processes_max: usize,
    /// Requests that may wait for one.
    pub waiting_max: usize,
    /// Longest run of a child process.
    pub timeout: Duration,
}

impl Default for SpeechConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            engines: Vec::new(),
            processes_max: 2,
            waiting_max: 64,
            timeout: Duration::from_secs(10),
        }
    }
}

/// The running service. Ends when dropped.
pub struct SpeechService {
    address: SocketAddr,
    task: JoinHandle<()>,
    engines: Vec<Engine>,
}

struct Shared {
    engines: Vec<Engine>,
    processes: Semaphore,
    inside: AtomicUsize,
    inside_max: usize,
    timeout: Duration,
}

impl SpeechService {
    /// Binds and serves. To be called inside a tokio runtime.
    pub fn start(config: SpeechConfig) -> std::io::Result<Self> {
        let engines = if config.engines.is_empty() {
            Engine::installed(&std::env::var_os("PATH").unwrap_or_default())
        } else {
            config.engines
        };
        let processes_max = config.processes_max.max(1);
        let shared = Arc::new(Shared {
            engines: engines.clone(),
            processes: Semaphore::new(processes_max),
            inside: AtomicUsize::new(0),
            inside_max: processes_max.saturating_add(config.waiting_max),
            timeout: config.timeout,
        });
        let router = Router::new()
            .route("/speech", post(speech))
            .route("/health", get(health))
            .layer(DefaultBodyLimit::max(64 << 10))
            .with_state(shared);
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "speech service ended");
            }
        });
        Ok(Self { address, task, engines })
    }

    /// `http://…/speech`.
    pub fn url(&self) -> String {
        format!("http://{}/speech", self.address)
    }

    /// The engines that it uses, best first. Empty = nothing is installed.
    pub fn engines(&self) -> &[Engine] {
        &self.engines
    }
}

impl Drop for SpeechService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let names: Vec<_> = shared.engines.iter().map(|engine| engine.program()).collect();
    let status = if names.is_empty() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, names.join(" ")).into_response()
}

/// Counts a request while it is inside.
struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn speech(State(shared): State<Arc<Shared>>, Json(request): Json<SpeechRequest>) -> Response {
    let before = shared.inside.fetch_add(1, Ordering::AcqRel);
    let _inside = Inside(&shared.inside);
    if before >= shared.inside_max {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait").into_response();
    }
    let Ok(_permit) = shared.processes.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let SpeechRequest { text, voice, language } = request;
    let result = match Engine::choose(&shared.engines, &language) {
        Some(engine) => engine.speak(&text, &voice, &language, shared.timeout).await,
        None => Err(EngineError::Missing(language)),
    };
    match result {
        Ok(file) => ([(header::CONTENT_TYPE, "audio/wav")], file).into_response(),
        Err(error) => {
            let status = match error {
                EngineError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
                EngineError::Missing(_) => StatusCode::NOT_IMPLEMENTED,
                EngineError::Failed(..) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, error.to_string()).into_response()
        }
    }
}
