//! Content-Type (RFC 3261 §20.15).

use super::params::Params;

/// A media type in lower case with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// boundary, charset …
    pub params: Params,
}

impl MediaType {
    /// Reads a value.
    pub fn parse(bytes: &[u8]) -> Option<MediaType> {
        let text = std::str::from_utf8(bytes).ok()?;
        let at = text.find(';').unwrap_or(text.len());
        let (essence, params) = text.split_at(at);
        let (kind, subtype) = essence.split_once('/')?;
        let essence = format!("{}/{}", kind.trim(), subtype.trim()).to_ascii_lowercase();
        Some(MediaType { essence, params: Params::parse(params)? })
    }
}
