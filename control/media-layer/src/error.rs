//! Why media cannot be had.

/// A failure with the ecosystem's error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct MediaError {
    /// 11200–11237 not fetched, 11750 too large, 13420 wrong type, 13520 nothing to say, 12400 ours.
    pub code: u32,
    /// In words, for the alert.
    pub message: String,
}

impl MediaError {
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
}
