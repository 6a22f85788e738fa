//! The hub: takes inputs to the session they belong to, and turns what the session wants into one
//! transaction with its effects.

use std::collections::VecDeque;
use std::time::Instant;

use link_proto::CallSid;
use rand::rngs::StdRng;

use crate::directory::Directory;
use crate::io::{Input, Output};

/// Settings of the core. Times in ms.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreConfig {
    /// Base of URLs that point at this API, without slash at the end: `https://api.example.com`.
    pub public_url: String,
    /// Voice for `Say` without `voice`.
    pub voice: String,
    /// Language for `Say` without `language`.
    pub language: String,
    /// What a caller hears when everything has failed.
    pub error_message: String,
    /// A session without a live leg at any edge is ended after this long.
    pub sweep_after_ms: u64,
    /// A leg that a reconnected edge no longer has, and about which nothing more is heard, is
    /// ended after this long.
    pub lost_leg_after_ms: u64,
    /// Longest instruction document in bytes.
    pub document_bytes_max: usize,
    /// Sessions at once; more are refused with 503.
    pub sessions_max: usize,
    /// Country whose ringback a waiting caller hears.
    pub ringback_country: String,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1".to_owned(),
            voice: "man".to_owned(),
            language: "en-US".to_owned(),
            error_message: "An application error has occurred. Goodbye.".to_owned(),
            sweep_after_ms: 60_000,
            lost_leg_after_ms: 5_000,
            document_bytes_max: 64 * 1024,
            sessions_max: 10_000,
            ringback_country: "us".to_owned(),
        }
    }
}

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Sessions that exist now.
    pub sessions: u64,
    /// Sessions begun.
    pub sessions_begun: u64,
    /// Sessions ended.
    pub sessions_ended: u64,
    /// Inbound calls to unknown numbers.
    pub unknown_number: u64,
    /// Calls refused for lack of room.
    pub overload: u64,
    /// Events that were there already.
    pub events_repeated: u64,
    /// Events that came with a hole before them and were left to be sent again.
    pub events_early: u64,
    /// Events about sessions or legs that are unknown.
    pub events_unknown: u64,
    /// Commands refused by edges.
    pub commands_refused: u64,
    /// Commands sent again after a reconnect.
    pub commands_resent: u64,
    /// Results that nobody waited for any more.
    pub results_stale: u64,
    /// Fetches.
    pub fetches: u64,
    /// Fetches that failed or gave no usable document.
    pub fetches_failed: u64,
    /// Fallbacks that took over.
    pub fallbacks_taken: u64,
    /// Sessions ended by the sweeper.
    pub swept: u64,
    /// Sessions ended because of a defect of ours.
    pub internal_errors: u64,
    /// Legs lost with their edge.
    pub legs_lost: u64,
    /// Session states that could not be read at start.
    pub states_unreadable: u64,
}

/// The brain of control.
pub struct ControlCore {
    config: CoreConfig,
    directory: Directory,
    rng: StdRng,
    outputs: VecDeque<Output>,
    metrics: Metrics,
}

impl ControlCore {
    /// A core that knows nothing yet. `rng` mints identifiers.
    pub fn new(config: CoreConfig, directory: Directory, rng: StdRng) -> Self {
        Self { config, directory, rng, outputs: VecDeque::new(), metrics: Metrics::default() }
    }

    /// Takes the sessions that the store holds, before any other input. Each entry is `(session,
    /// epoch, json)` of the last [`crate::StoreOp::PutSession`].
    pub fn load(
        &mut self,
        now: Instant,
        unix_ms: u64,
        sessions: impl IntoIterator<Item = (CallSid, u64, String)>,
    ) {
        let _ = (now, unix_ms, sessions.into_iter().count());
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, unix_ms: u64, input: Input) {
        let _ = (now, unix_ms, &self.config, &self.rng);
        if let Input::Directory(directory) = input {
            self.directory = *directory;
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        let _ = (now, unix_ms);
    }

    /// The next transaction with its effects.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Counters.
    pub fn metrics(&self) -> Metrics {
        self.metrics
    }

    /// Nodes and routes as the edges shall have them: the directory's, with connected edges added.
    /// Its version rises when it changes.
    pub fn tables(&self) -> &link_proto::table::Tables {
        &self.directory.tables
    }
}
