//! The proxy itself and its HTTP side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use media_core::container::wav;
use reqwest::Client;
use tokio::sync::Semaphore;

use super::decode;
use super::format::Format;
use crate::error::MediaError;
use crate::fetch::{self, Fetched, OriginRequest};

/// Request header fields that reach the origin: what a response may be chosen by.
pub(crate) const PASSED_ON: [&str; 2] = ["accept", "accept-language"];

/// Limits.
#[derive(Debug, Clone)]
pub struct TranscodeConfig {
    /// Limit for connecting to an origin.
    pub connect_timeout: Duration,
    /// Limit for a whole request.
    pub total_timeout: Duration,
    /// Authorities of origins beside those of the system.
    pub authorities: Vec<reqwest::Certificate>,
    /// Largest file of an origin in bytes.
    pub source_bytes_max: usize,
    /// Longest audio in ms.
    pub length_ms_max: u64,
    /// Conversions at a time.
    pub transcodes_max: usize,
}

impl Default for TranscodeConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
            authorities: Vec::new(),
            source_bytes_max: 40 << 20,
            length_ms_max: 20 * 60 * 1000,
            transcodes_max: 2,
        }
    }
}

/// The transcoding proxy. Cheap to clone.
#[derive(Clone)]
pub struct Transcoder {
    inner: Arc<Inner>,
}

struct Inner {
    config: TranscodeConfig,
    client: Client,
    permits: Semaphore,
    transcodes: AtomicU64,
    unchanged: AtomicU64,
}

impl Transcoder {
    /// A proxy. The process must have installed its rustls crypto provider.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(config: TranscodeConfig) -> Result<Self, MediaError> {
        let client =
            fetch::client(config.connect_timeout, config.total_timeout, &config.authorities)?;
        let permits = Semaphore::new(config.transcodes_max.max(1));
        let (transcodes, unchanged) = Default::default();
        Ok(Self { inner: Arc::new(Inner { config, client, permits, transcodes, unchanged }) })
    }

    /// Conversions so far, and files that passed unchanged.
    pub fn counts(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.inner.transcodes), read(&self.inner.unchanged))
    }

    /// Asks the origin; a new body is converted.
    pub(crate) async fn get(
        &self,
        request: &OriginRequest,
        format: Format,
    ) -> Result<Fetched, MediaError> {
        let bytes_max = self.inner.config.source_bytes_max;
        match fetch::fetch(&self.inner.client, request, bytes_max).await? {
            Fetched::Body { fields, mime, bytes } => {
                let bytes = self.convert(bytes, mime, format).await?;
                Ok(Fetched::Body { fields, mime: format.mime().to_owned(), bytes })
            }
            unchanged => Ok(unchanged),
        }
    }

    /// Turns a file into another format; what is suitable already stays as it is.
    async fn convert(
        &self,
        bytes: Vec<u8>,
        mime: String,
        format: Format,
    ) -> Result<Vec<u8>, MediaError> {
        let length_ms_max = self.inner.config.length_ms_max;
        if format.is(&bytes, &mime) && shorter_than(&bytes, format, length_ms_max) {
            self.inner.unchanged.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        let _permit = self.inner.permits.acquire().await.map_err(MediaError::internal)?;
        self.inner.transcodes.fetch_add(1, Ordering::Relaxed);
        let work = move || {
            let rate = format.rate();
            let samples = decode::decode(&bytes, &mime, rate, length_ms_max)?;
            format.encode(&samples, rate, 1)
        };
        // Damaged files may well hit a defect of a decoder; that is the file's failure.
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| MediaError::new(MediaError::TYPE, "the file cannot be decoded"))?
    }
}

/// Two bytes a sample in WAV, one in G.711.
fn shorter_than(bytes: &[u8], format: Format, length_ms_max: u64) -> bool {
    let width = if matches!(format, Format::Wav(_)) { 2 } else { 1 };
    format.rate().ms_of_samples(bytes.len() as u64 / width) <= length_ms_max
}

/// A 16-bit PCM WAV file with one or two channels in another format, for example a recording.
///
/// # Errors
/// If it is no such file or the encoder fails.
pub fn encode_wav(file: &[u8], format: Format) -> Result<Vec<u8>, MediaError> {
    let wrong = |error: wav::WavError| MediaError::new(MediaError::TYPE, error.to_string());
    let header = wav::WavHeader::parse(file).map_err(wrong)?;
    let spec = header.spec;
    if spec.encoding != wav::Encoding::Pcm16 || !(1..=2).contains(&spec.channels) {
        return Err(MediaError::new(MediaError::TYPE, "not 16-bit PCM with one or two channels"));
    }
    let samples = header.data(file).chunks_exact(2);
    let samples: Vec<i16> = samples.map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    format.encode(&samples, spec.rate, spec.channels)
}

/// `/transcode`.
pub(crate) fn router(transcoder: Transcoder) -> Router {
    let bytes_max = transcoder.inner.config.source_bytes_max;
    Router::new()
        .route("/transcode", get(proxied).post(posted))
        .layer(DefaultBodyLimit::max(bytes_max))
        .with_state(transcoder)
}

type Parameters = Query<BTreeMap<String, String>>;

fn format_of(parameters: &Parameters) -> Result<Format, MediaError> {
    parameters.get("format").map_or(Ok(Format::PROMPT), |name| name.parse())
}

async fn proxied(
    State(transcoder): State<Transcoder>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Response {
    let text = |name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let request = OriginRequest {
        url: parameters.get("url").cloned().unwrap_or_default(),
        headers: passed_on(&headers),
        etag: text(header::IF_NONE_MATCH),
        last_modified: text(header::IF_MODIFIED_SINCE),
    };
    let result = match (check_url(&request.url), format_of(&parameters)) {
        (Ok(()), Ok(format)) => transcoder.get(&request, format).await,
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    let (status, fields, mime, bytes) = match result {
        Ok(Fetched::NotModified { fields }) => (StatusCode::NOT_MODIFIED, fields, None, Vec::new()),
        Ok(Fetched::Body { fields, mime, bytes }) => (StatusCode::OK, fields, Some(mime), bytes),
        Err(error) => return error.response(),
    };
    let mut response = (status, bytes).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in fields.into_iter().chain(mime.map(|mime| ("content-type".into(), mime))) {
        let name = header::HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, header::HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The request header fields of [`PASSED_ON`].
pub(crate) fn passed_on(headers: &HeaderMap) -> BTreeMap<String, String> {
    let of = |name: &'static str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name.to_owned(), value.to_owned()))
    };
    PASSED_ON.into_iter().filter_map(of).collect()
}

async fn posted(
    State(transcoder): State<Transcoder>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mime = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mime = mime.map_or_else(String::new, fetch::plain);
    let result = match format_of(&parameters) {
        Ok(format) => {
            let converted = transcoder.convert(body.to_vec(), mime, format).await;
            converted.map(|bytes| ([(header::CONTENT_TYPE, format.mime())], bytes).into_response())
        }
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| error.response())
}

/// Only http and https are fetched.
pub(crate) fn check_url(url: &str) -> Result<(), MediaError> {
    let wrong = |why: String| MediaError::new(MediaError::URL, why);
    let parsed = url::Url::parse(url).map_err(|error| wrong(format!("invalid URL: {error}")))?;
    match parsed.scheme() {
        "http" | "https" => Ok(()),
        other => Err(wrong(format!("invalid URL: scheme {other}"))),
    }
}
