//! Speech as an HTTP service: `POST /speech {text, voice, language}` answers a WAV file.

mod engine;
mod service;

pub use engine::{Engine, EngineError};
pub use service::{SpeechConfig, SpeechRequest, SpeechService};
