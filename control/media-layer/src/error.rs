//! Why media cannot be had.

/// A failure with the ecosystem's error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{code}: {message}")]
pub struct MediaError {
    /// 11200–11237 not fetched, 11750 too large, 13420 wrong type, 13520 nothing to say, 12400 ours.
    pub code: u32,
    /// In words, for the alert.
    pub message: String,
}

impl MediaError {
    /// The URL is none.
    pub const URL: u32 = 11100;
    /// The retrieval failed.
    pub const RETRIEVAL: u32 = 11200;
    /// Too large or too long.
    pub const TOO_LARGE: u32 = 11750;
    /// Not audio, or not of a kind that can be played.
    pub const TYPE: u32 = 13420;
    /// No text to say.
    pub const EMPTY_TEXT: u32 = 13520;
    /// The text is too long.
    pub const LONG_TEXT: u32 = 13521;
    /// A failure of ours.
    pub const INTERNAL: u32 = 12400;

    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(Self::INTERNAL, error.to_string())
    }

    /// As the parts of the media layer tell it to each other.
    pub(crate) fn response(&self) -> axum::response::Response {
        use axum::http::StatusCode;
        use axum::response::IntoResponse as _;
        let status = match self.code {
            Self::URL | Self::EMPTY_TEXT | Self::LONG_TEXT => StatusCode::BAD_REQUEST,
            Self::TYPE => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        };
        (status, axum::Json(self)).into_response()
    }

    /// The other way round; `status` and body of a response that is no success.
    pub(crate) fn from_response(status: u16, body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or(&[]));
            Self::internal(format!("media layer: HTTP {status}: {text}"))
        })
    }
}
