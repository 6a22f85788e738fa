//! The transcoding proxy: `GET /transcode?url=…&format=…` passes the request to the origin and
//! turns the answer's audio into what is wanted; the rules for caches pass through unchanged.
//! `POST /transcode?format=…` converts its body.

pub(crate) mod decode;
mod format;
mod opus;
mod proxy;

pub use format::Format;
pub use proxy::{TranscodeConfig, Transcoder, encode_wav};
pub(crate) use proxy::{check_url, passed_on, router};
