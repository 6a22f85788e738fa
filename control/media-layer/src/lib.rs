//! The HTTP media layer between call router and application server: ask for a URL or a sentence,
//! get telephony-ready media.
//!
//! [`MediaLayer::get`] fetches (with an HTTP cache in front of the origin), decodes what the bytes
//! turn out to be, converts it to 8 kHz mono and keeps the result under a key of its content; many
//! calls that ask for one thing at once cause one request and one conversion. Speech comes from an
//! HTTP service ([`speech::SpeechService`]) that runs a speech engine as a child process; another
//! service with the same interface can stand in for it. [`MediaLayer::open`] gives the bytes to
//! whoever streams them to an edge.

mod cache;
mod decode;
mod error;
pub mod failure;
mod fetch;
mod freshness;
mod layer;
pub mod speech;
mod ssml;

pub use error::MediaError;
pub use layer::{MediaConfig, MediaLayer, MediaRequest, MediaStats, Prompt};
