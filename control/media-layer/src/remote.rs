//! Caches that run as processes of their own.

use std::time::Duration;

use link_proto::media::PromptKey;
use reqwest::{Client, StatusCode};

use crate::error::MediaError;
use crate::fetch;
use crate::layer::{MediaRequest, Prompt};
use crate::pool::Pool;

/// Largest prompt: 20 minutes of PCM.
const PROMPT_BYTES_MAX: usize = 32 << 20;

/// The same door as [`crate::MediaLayer`], to caches elsewhere.
pub struct RemoteCache {
    pool: Pool,
    urls: Vec<String>,
    client: Client,
}

impl RemoteCache {
    /// Caches at `http://host:port`. The process must have installed its rustls crypto provider.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(urls: &[String]) -> Result<Self, MediaError> {
        let client = fetch::client(Duration::from_secs(2), Duration::from_secs(30), &[])?;
        let urls: Vec<_> = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { pool: Pool::new("media cache", &urls), urls, client })
    }

    /// Has a prompt ready.
    ///
    /// # Errors
    /// As [`crate::MediaLayer::get`], or if no cache answers.
    pub async fn get(&self, request: &MediaRequest) -> Result<Prompt, MediaError> {
        let body = serde_json::to_vec(request).map_err(MediaError::internal)?;
        let build = |client: &Client, base: &str| {
            let post = client.post(format!("{base}/media"));
            post.header("content-type", "application/json").body(body.clone())
        };
        let response = self.pool.send(&self.client, build).await?;
        let status = response.status();
        let bytes = fetch::body(response, 64 << 10).await?;
        if !status.is_success() {
            return Err(MediaError::from_response(status.as_u16(), &bytes));
        }
        serde_json::from_slice(&bytes).map_err(MediaError::internal)
    }

    /// The WAV file of a prompt, from whichever cache has it.
    pub async fn open(&self, key: &PromptKey) -> Option<Vec<u8>> {
        for base in &self.urls {
            let response = self.client.get(format!("{base}/media/{}", key.0)).send().await;
            if let Ok(response) = response
                && response.status() == StatusCode::OK
                && let Ok(bytes) = fetch::body(response, PROMPT_BYTES_MAX).await
            {
                return Some(bytes);
            }
        }
        None
    }
}
