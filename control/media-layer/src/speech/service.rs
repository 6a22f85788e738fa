//! The HTTP side of speech: SSML in pieces to an engine, the pieces to one file.

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

use media_core::container::wav;
use media_core::resample::resample;
use media_core::units::SampleRate;

use super::engine::{Engine, EngineError, Utterance};
use super::ssml::{self, Part, SILENT_DB, Style};
use crate::transcode::decode;

/// Body of `POST /speech`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeechRequest {
    /// Text, perhaps with SSML (see [`super`]).
    pub text: String,
    /// As in the document.
    #[serde(default)]
    pub voice: String,
    /// BCP 47.
    #[serde(default)]
    pub language: String,
    /// Times the usual speed.
    #[serde(default = "usual")]
    pub rate: f32,
}

fn usual() -> f32 {
    1.0
}

/// Response header: the level is even already, with louder and softer parts on purpose.
pub(crate) const LEVEL: &str = "x-tandem-level";
/// Longest audio that is made.
const LENGTH_MS_MAX: u64 = 20 * 60 * 1_000;
/// Runs of an engine for one request.
const PIECES_MAX: usize = 200;
const RATE: SampleRate = SampleRate::HZ_8000;

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

/// What speaks: engines and the limits of their use. Cheap to clone.
#[derive(Clone)]
pub struct Speaker {
    shared: Arc<Shared>,
}

struct Shared {
    engines: Vec<Engine>,
    processes: Semaphore,
    inside: AtomicUsize,
    inside_max: usize,
    timeout: Duration,
}

impl Speaker {
    /// With the engines of the configuration, or those that are installed.
    pub fn new(config: &SpeechConfig) -> Self {
        let engines = if config.engines.is_empty() {
            Engine::installed(&std::env::var_os("PATH").unwrap_or_default())
        } else {
            config.engines.clone()
        };
        let processes_max = config.processes_max.max(1);
        let shared = Shared {
            engines,
            processes: Semaphore::new(processes_max),
            inside: AtomicUsize::new(0),
            inside_max: processes_max.saturating_add(config.waiting_max),
            timeout: config.timeout,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The engines that it uses, best first. Empty = nothing is installed.
    pub fn engines(&self) -> &[Engine] {
        &self.shared.engines
    }

    /// `/speech` and `/speech/health`.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/speech", post(speech))
            .route("/speech/health", get(health))
            .layer(DefaultBodyLimit::max(64 << 10))
            .with_state(self.clone())
    }
}

/// The running service. Ends when dropped.
pub struct SpeechService {
    address: SocketAddr,
    task: JoinHandle<()>,
    speaker: Speaker,
}

impl SpeechService {
    /// Binds and serves. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// If no port is to be had.
    pub fn start(config: &SpeechConfig) -> std::io::Result<Self> {
        let speaker = Speaker::new(config);
        let router = speaker.router();
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "speech service ended");
            }
        });
        Ok(Self { address, task, speaker })
    }

    /// `http://…/speech`.
    pub fn url(&self) -> String {
        format!("http://{}/speech", self.address)
    }

    /// The engines that it uses, best first. Empty = nothing is installed.
    pub fn engines(&self) -> &[Engine] {
        self.speaker.engines()
    }
}

impl Drop for SpeechService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn health(State(Speaker { shared }): State<Speaker>) -> Response {
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

async fn speech(
    State(Speaker { shared }): State<Speaker>,
    Json(request): Json<SpeechRequest>,
) -> Response {
    let before = shared.inside.fetch_add(1, Ordering::AcqRel);
    let _inside = Inside(&shared.inside);
    if before >= shared.inside_max {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait").into_response();
    }
    let Ok(_permit) = shared.processes.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    match shared.say(&request).await {
        Ok(samples) => {
            let file = wav::write_pcm16(RATE, &samples);
            ([(header::CONTENT_TYPE.as_str(), "audio/wav"), (LEVEL, "even")], file).into_response()
        }
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

impl Shared {
    /// One piece after the other, each in its style.
    async fn say(&self, request: &SpeechRequest) -> Result<Vec<i16>, EngineError> {
        let mut samples = Vec::new();
        for part in ssml::parse(&request.text).into_iter().take(PIECES_MAX) {
            match part {
                Part::Break { length_ms } => {
                    samples.resize(samples.len() + RATE.samples_in_ms(length_ms), 0);
                }
                Part::Text { text, style } => {
                    samples.extend(self.say_piece(&text, &style, request).await?);
                }
            }
            if RATE.ms_of_samples(samples.len() as u64) > LENGTH_MS_MAX {
                break;
            }
        }
        // An expletive alone: not to be heard, but no failure.
        samples.resize(samples.len().max(RATE.samples_in_ms(20)), 0);
        Ok(samples)
    }

    async fn say_piece(
        &self,
        text: &str,
        style: &Style,
        request: &SpeechRequest,
    ) -> Result<Vec<i16>, EngineError> {
        let language = style.language.as_deref().unwrap_or(&request.language);
        let engine = Engine::choose(&self.engines, language)
            .ok_or_else(|| EngineError::Missing(language.to_owned()))?;
        let rate = if request.rate.is_finite() { request.rate.clamp(0.2, 4.0) } else { 1.0 };
        let utterance = Utterance {
            text,
            voice: &request.voice,
            language,
            rate: (style.rate * rate).clamp(0.2, 4.0),
            pitch: style.pitch,
        };
        let (file, faster) = engine.speak(&utterance, self.timeout).await?;
        let gain_db = style.gain_db;
        let failed = move |error: &dyn std::fmt::Display| {
            EngineError::Failed(engine.program(), error.to_string())
        };
        let work = move || {
            let (rate, samples) = wav::read(&file).map_err(|e| failed(&e))?;
            // Casts of floats saturate.
            let rate = SampleRate((rate.hz() as f32 * faster) as u32);
            let mut samples = resample(&samples, rate, RATE).map_err(|e| failed(&e))?;
            decode::normalise(&mut samples);
            let gain = if gain_db <= SILENT_DB { 0.0 } else { 10f32.powf(gain_db / 20.0) };
            for sample in &mut samples {
                *sample = (f32::from(*sample) * gain) as i16;
            }
            Ok(samples)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| failed(&e))?
    }
}
