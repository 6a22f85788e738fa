//! The HTTP media layer between call router and application server: ask for a URL or a sentence,
//! get telephony-ready media.
//!
//! Three parts, each an HTTP service of its own that others can use; in one process they are
//! joined without the detour, and each can also run in processes of its own ([`MediaService`]):
//!
//! * the cache, [`MediaLayer`]: keeps *processed* media by the rules of RFC 9111; many calls that
//!   ask for one thing at once cause one request and one conversion.
//! * the transcoding proxy, [`transcode::Transcoder`]: fetches what it is asked for and turns what
//!   the bytes are into what the asker can use.
//! * text-to-speech, [`speech::SpeechService`]: runs a speech engine as a child process; another
//!   service with the same interface can stand in for it.

mod cache;
mod error;
pub mod failure;
mod fetch;
mod freshness;
mod layer;
mod origin;
mod pool;
mod remote;
mod service;
pub mod speech;
mod spoken;
pub mod transcode;

pub use error::MediaError;
pub use layer::{MediaConfig, MediaLayer, MediaRequest, MediaStats, Prompt, Spoken};
pub use remote::RemoteCache;
pub use service::{MediaParts, MediaService};
