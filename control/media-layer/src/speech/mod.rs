//! Speech as an HTTP service: `POST /speech {text, voice, language, rate}`, the text perhaps with
//! SSML, answers a WAV file. Another engine is reached by an URL that answers the same request with
//! any audio file.

mod engine;
mod say_as;
mod service;
mod ssml;

pub use engine::{Engine, EngineError};
pub(crate) use service::LEVEL;
pub use service::{Speaker, SpeechConfig, SpeechRequest, SpeechService};
