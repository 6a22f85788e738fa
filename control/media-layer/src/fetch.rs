//! Requests to origins. A prompt's request carries none of the call's parameters.

use reqwest::header::{
    CONTENT_TYPE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Client, StatusCode};

use crate::error::MediaError;
use crate::failure::{classify, describe};
use crate::layer::MediaConfig;

/// What a later request can be made conditional with.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl Validators {
    fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v: &reqwest::header::HeaderValue| v.to_str().ok())
                .map(str::to_owned)
        };
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }
}

/// An answer of an origin.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// 304: what is kept may be used again.
    NotModified { headers: HeaderMap },
    /// A new body.
    Body { headers: HeaderMap, mime: String, validators: Validators, bytes: Vec<u8> },
}

/// The client for origins and for the speech service.
pub(crate) fn client(config: &MediaConfig) -> Result<Client, MediaError> {
    Client::builder()
        .user_agent(concat!("Tandem/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::limited(10))
        .connect_timeout(config.connect_timeout)
        .timeout(config.total_timeout)
        .tls_certs_merge(config.authorities.iter().cloned())
        .referer(false)
        .no_proxy()
        .build()
        .map_err(|error| MediaError::new(MediaError::INTERNAL, describe(error)))
}

pub(crate) async fn fetch(
    client: &Client,
    url: &str,
    validators: &Validators,
    bytes_max: usize,
) -> Result<Fetched, MediaError> {
    let mut request = client.get(url);
    if let Some(etag) = &validators.etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    if let Some(date) = &validators.last_modified {
        request = request.header(IF_MODIFIED_SINCE, date);
    }
    let response = request.send().await.map_err(failed)?;
    let headers = response.headers().clone();
    match response.status() {
        StatusCode::NOT_MODIFIED => return Ok(Fetched::NotModified { headers }),
        status if !status.is_success() => {
            return Err(MediaError::new(MediaError::RETRIEVAL, format!("HTTP {status}")));
        }
        _ => {}
    }
    let mime = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mime = mime.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let validators = Validators::from_headers(&headers);
    let bytes = body(response, bytes_max).await?;
    Ok(Fetched::Body { headers, mime, validators, bytes })
}

/// The whole body, or an error as soon as it is too large.
pub(crate) async fn body(
    mut response: reqwest::Response,
    bytes_max: usize,
) -> Result<Vec<u8>, MediaError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len().saturating_add(chunk.len()) > bytes_max {
            let message = format!("the file is larger than {bytes_max} bytes");
            return Err(MediaError::new(MediaError::TOO_LARGE, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub(crate) fn failed(error: reqwest::Error) -> MediaError {
    MediaError::new(classify(&error).code(), describe(error))
}
