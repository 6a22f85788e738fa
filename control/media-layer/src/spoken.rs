//! Speech: the cache in front of speech services.

use std::sync::Arc;

use crate::cache::key_of;
use crate::error::MediaError;
use crate::fetch;
use crate::layer::{FORMAT, Inner, Prompt, Spoken, count};
use crate::speech::{LEVEL, SpeechRequest};
use crate::transcode::{Format, decode};

impl Inner {
    pub(crate) async fn speech(self: &Arc<Self>, spoken: &Spoken) -> Result<Prompt, MediaError> {
        let Spoken { text, voice, language } = spoken;
        if text.trim().is_empty() {
            return Err(MediaError::new(MediaError::EMPTY_TEXT, "there is no text to say"));
        }
        if text.chars().count() > self.config.text_chars_max {
            let message =
                format!("the text is longer than {} characters", self.config.text_chars_max);
            return Err(MediaError::new(MediaError::LONG_TEXT, message));
        }
        let key = key_of(&[
            b"speech 2",
            FORMAT,
            text.as_bytes(),
            voice.as_bytes(),
            language.as_bytes(),
            self.config.speech_name.as_bytes(),
        ]);
        if let Some(prompt) = self.cache.prompt(&key) {
            count(&self.counters.hits);
            return Ok(prompt);
        }
        let samples = self.say(spoken).await?;
        self.keep(Some(key), samples, None).await
    }

    /// One request to a speech service.
    async fn say(self: &Arc<Self>, spoken: &Spoken) -> Result<Vec<i16>, MediaError> {
        let Spoken { text, voice, language } = spoken.clone();
        let request = SpeechRequest { text, voice, language, rate: 1.0 };
        let body = serde_json::to_vec(&request).map_err(MediaError::internal)?;
        count(&self.counters.speech_requests);
        let build = |client: &reqwest::Client, url: &str| {
            client.post(url).header("content-type", "application/json").body(body.clone())
        };
        let response = self.speech.send(&self.client, build).await?;
        let (status, even) = (response.status(), response.headers().contains_key(LEVEL));
        let mime = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let mime = mime.map_or_else(String::new, fetch::plain);
        let bytes = fetch::body(response, self.config.source_bytes_max).await?;
        if !status.is_success() {
            let why = String::from_utf8_lossy(bytes.get(..bytes.len().min(300)).unwrap_or(&[]));
            return Err(MediaError::internal(format!("speech service: {status}: {why}")));
        }
        let length_ms_max = self.config.prompt_ms_max;
        self.blocking(move || {
            let rate = Format::PROMPT.rate();
            let mut samples = decode::decode(&bytes, &mime, rate, length_ms_max)?;
            if !even {
                decode::normalise(&mut samples);
            }
            Ok(samples)
        })
        .await
    }
}
