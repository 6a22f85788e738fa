//! Requests to origins. A prompt's request carries none of the call's parameters.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use reqwest::{Client, Response, StatusCode};

use crate::error::MediaError;
use crate::failure::{classify, describe};
use crate::freshness::{Fields, fields};

/// What to ask an origin for.
#[derive(Debug, Clone, Default)]
pub(crate) struct OriginRequest {
    pub(crate) url: String,
    /// Request header fields that are passed on; see [`crate::MediaRequest::Url`].
    pub(crate) headers: Fields,
    /// `If-None-Match`.
    pub(crate) etag: Option<String>,
    /// `If-Modified-Since`.
    pub(crate) last_modified: Option<String>,
}

impl OriginRequest {
    /// Puts the header fields on a request.
    pub(crate) fn dress(&self, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(date) = &self.last_modified {
            request = request.header(IF_MODIFIED_SINCE, date);
        }
        request
    }
}

/// An answer of an origin, or of a transcoding proxy in front of it.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// 304: what is kept may be used again.
    NotModified { fields: Fields },
    /// A new body.
    Body { fields: Fields, mime: String, bytes: Vec<u8> },
}

/// The client for origins and for other parts of the media layer.
pub(crate) fn client(
    connect: Duration,
    total: Duration,
    authorities: &[reqwest::Certificate],
) -> Result<Client, MediaError> {
    Client::builder()
        .user_agent(concat!("Tandem/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::limited(10))
        .connect_timeout(connect)
        .timeout(total)
        .tls_certs_merge(authorities.iter().cloned())
        .referer(false)
        .no_proxy()
        .build()
        .map_err(|error| MediaError::internal(describe(error)))
}

pub(crate) async fn fetch(
    client: &Client,
    request: &OriginRequest,
    bytes_max: usize,
) -> Result<Fetched, MediaError> {
    let response = request.dress(client.get(&request.url)).send().await.map_err(failed)?;
    let status = response.status();
    if status != StatusCode::NOT_MODIFIED && !status.is_success() {
        return Err(MediaError::new(MediaError::RETRIEVAL, format!("HTTP {status}")));
    }
    read(response, bytes_max).await
}

/// Reads a success or a 304.
pub(crate) async fn read(response: Response, bytes_max: usize) -> Result<Fetched, MediaError> {
    let headers = response.headers();
    let fields = fields(headers);
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(Fetched::NotModified { fields });
    }
    let mime =
        headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map_or_else(String::new, plain);
    let bytes = body(response, bytes_max).await?;
    Ok(Fetched::Body { fields, mime, bytes })
}

/// A media type without parameters, in lower case.
pub(crate) fn plain(mime: &str) -> String {
    mime.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The whole body, or an error as soon as it is too large.
pub(crate) async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, MediaError> {
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
