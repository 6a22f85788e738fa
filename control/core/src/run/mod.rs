//! The runner: position in the document, and how each verb is carried out.
//!
//! * `runner` — the position, what the session does at present, the ends.
//! * `fetch` — one document after the other: retries, redirects, fallback, the last resort.
//! * `prompts` — Say, Play and Pause, merged into one play program, also inside Gather.
//! * `gathering`, `recording`, `dialing` — the verbs with a life of their own.
//! * `screening` — the document of a called party before it is connected.
//! * `control` — the REST actions; `form` — their parameters.
//! * `verification` — the call that verifies a caller id.

pub(crate) mod control;
pub(crate) mod dialing;
pub(crate) mod fetch;
pub(crate) mod form;
pub(crate) mod gathering;
pub(crate) mod prompts;
pub(crate) mod recording;
pub(crate) mod runner;
pub(crate) mod screening;
pub(crate) mod verification;
