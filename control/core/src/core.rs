//! The hub: takes inputs to the session they belong to, and turns what the session wants into one
//! transaction with its effects.

mod link;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use link_proto::table::Tables;
use link_proto::{AccountSid, CallSid, RecordingSid, RegionId};
use rand::rngs::StdRng;

use crate::api::{ApiAction, ApiError, ApiReply, ApiRequest};
use crate::call::session::Session;
use crate::call::turn::{Nodes, Turn, Waiting};
use crate::directory::Directory;
use crate::error_code;
use crate::io::{Effect, Input, Output, StoreOp};
use crate::run::{control, form, verification};

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
    /// Legs of an edge that stays away are ended after this long, and their session with them.
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
    /// Core regions in order of preference, for what a region lacks.
    pub core_regions: Vec<RegionId>,
    /// Shown by calls that verify a caller id, if the account has no number of its own.
    pub verification_from: String,
    /// After the last leg has ended, recordings and requests under way get this long.
    pub linger_ms: u64,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1".to_owned(),
            voice: "man".to_owned(),
            language: "en-US".to_owned(),
            error_message: "An application error has occurred. Goodbye.".to_owned(),
            sweep_after_ms: 120_000,
            lost_leg_after_ms: 5_000,
            document_bytes_max: 64 * 1024,
            sessions_max: 10_000,
            ringback_country: "us".to_owned(),
            core_regions: Vec::new(),
            verification_from: "anonymous".to_owned(),
            linger_ms: 60_000,
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
    /// Events that could not be read.
    pub events_unusable: u64,
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
    nodes: Nodes,
    rng: StdRng,
    sessions: BTreeMap<CallSid, Session>,
    /// Every leg that lives, and its session.
    legs: BTreeMap<CallSid, CallSid>,
    recordings: BTreeMap<RecordingSid, CallSid>,
    waiting: Waiting,
    deadlines: BTreeSet<(Instant, CallSid)>,
    armed: BTreeMap<CallSid, Instant>,
    outputs: VecDeque<Output>,
    metrics: Metrics,
}

impl ControlCore {
    /// A core that knows nothing yet. `rng` mints identifiers.
    pub fn new(config: CoreConfig, directory: Directory, rng: StdRng) -> Self {
        let mut core = Self {
            config,
            directory: Directory::default(),
            nodes: Nodes::default(),
            rng,
            sessions: BTreeMap::new(),
            legs: BTreeMap::new(),
            recordings: BTreeMap::new(),
            waiting: Waiting::default(),
            deadlines: BTreeSet::new(),
            armed: BTreeMap::new(),
            outputs: VecDeque::new(),
            metrics: Metrics::default(),
        };
        core.set_directory(directory);
        core
    }

    /// Takes the sessions that the store holds, before any other input. Each entry is `(session,
    /// epoch, json)` of the last [`crate::StoreOp::PutSession`].
    pub fn load(
        &mut self,
        now: Instant,
        unix_ms: u64,
        sessions: impl IntoIterator<Item = (CallSid, u64, String)>,
    ) {
        for (sid, epoch, json) in sessions {
            let Ok(mut session) = serde_json::from_str::<Session>(&json) else {
                // Nobody can carry on with it; its edges are told when they report its legs.
                self.metrics.states_unreadable += 1;
                let ops = vec![StoreOp::DeleteSession { session: sid }];
                self.outputs.push_back(Output { ops, then: Vec::new() });
                continue;
            };
            session.epoch = epoch.max(session.epoch) + 1;
            for (node, link) in &session.links {
                if let Some(entry) = &link.entry {
                    self.nodes.known.entry(node.clone()).or_insert_with(|| entry.clone());
                }
            }
            self.nodes.occupy(session.media.usage());
            self.sessions.insert(sid, session);
            self.with_session(now, unix_ms, sid, |session, turn| session.resume(turn));
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, unix_ms: u64, input: Input) {
        match input {
            Input::Directory(directory) => self.set_directory(*directory),
            Input::EdgeUp { entry, boot, legs } => {
                self.edge_up(now, unix_ms, entry, boot, &legs);
            }
            Input::EdgeChanged { entry } => {
                if self.nodes.up.contains_key(&entry.node) {
                    self.nodes.known.insert(entry.node.clone(), entry);
                    self.tables_changed();
                }
            }
            Input::Settings(settings) => {
                let public_url = std::mem::take(&mut self.config.public_url);
                self.config = CoreConfig { public_url, ..*settings };
            }
            Input::Load { node, load } => {
                if self.nodes.up.contains_key(&node) {
                    self.nodes.loaded(&node, &load);
                }
            }
            Input::EdgeDown { node } => self.edge_down(now, unix_ms, &node),
            Input::LinkEvent { node, message } => self.link_event(now, unix_ms, node, message),
            Input::EventUnusable { node, about, why } => {
                self.event_unusable(now, unix_ms, &node, about, &why);
            }
            Input::CommandAck { node, ack } => self.command_ack(now, unix_ms, &node, ack),
            Input::FetchDone { id, result } => match self.waiting.fetches.remove(&id) {
                Some(sid) => {
                    let done = |session: &mut Session, turn: &mut Turn<'_>| {
                        let screened = session.run_that_fetches(id);
                        session.in_run(turn, screened, |session, turn| {
                            session.fetch_done(turn, id, result);
                        });
                    };
                    self.with_session(now, unix_ms, sid, done);
                }
                None => self.metrics.results_stale += 1,
            },
            Input::MediaReady { id, result } => match self.waiting.media.remove(&id) {
                Some((sid, screened, slot)) => {
                    let done = |session: &mut Session, turn: &mut Turn<'_>| {
                        session.in_run(turn, screened, |session, turn| {
                            session.media_ready(turn, slot, result);
                        });
                    };
                    self.with_session(now, unix_ms, sid, done);
                }
                None => self.metrics.results_stale += 1,
            },
            Input::RecordingStored { recording, duration_ms, channels } => {
                let Some(sid) = self.recordings.get(&recording).copied() else {
                    // An edge that was away for long: nobody waits for it any more, it is kept.
                    self.metrics.results_stale += 1;
                    let op =
                        StoreOp::CompleteRecording { recording, duration_ms, channels, unix_ms };
                    self.outputs.push_back(Output { ops: vec![op], then: Vec::new() });
                    return;
                };
                self.with_session(now, unix_ms, sid, |session, turn| {
                    session.recording_stored(turn, recording, duration_ms, channels);
                });
            }
            Input::Api(request) => self.api(now, unix_ms, request),
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        let due: Vec<CallSid> = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, session)| *session)
            .collect();
        for sid in due {
            self.with_session(now, unix_ms, sid, |session, turn| session.handle_timeout(turn));
        }
    }

    /// The next transaction with its effects.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Counters.
    pub fn metrics(&self) -> Metrics {
        Metrics { sessions: self.sessions.len() as u64, ..self.metrics }
    }

    /// Nodes and routes as the edges shall have them: the directory's, with the nodes that said
    /// hello. Its version rises when it changes.
    pub fn tables(&self) -> &Tables {
        &self.nodes.tables
    }

    fn set_directory(&mut self, directory: Directory) {
        for entry in &directory.tables.nodes {
            if !self.nodes.up.contains_key(&entry.node) {
                self.nodes.known.insert(entry.node.clone(), entry.clone());
            }
        }
        self.nodes.tables.routes.clone_from(&directory.tables.routes);
        self.nodes.tables.version = self.nodes.tables.version.max(directory.tables.version);
        self.directory = directory;
        self.tables_changed();
    }

    fn tables_changed(&mut self) {
        self.nodes.tables.nodes = self.nodes.known.values().cloned().collect();
        self.nodes.tables.version += 1;
    }

    /// Lets the session of a call carry out an API action about it.
    fn change_call(
        &mut self,
        now: Instant,
        unix_ms: u64,
        reply: u64,
        account: AccountSid,
        call: CallSid,
        change: impl FnOnce(&mut Session, &mut Turn<'_>) -> Result<(), ApiError>,
    ) {
        let sid = self.legs.get(&call).copied();
        let owner = sid.and_then(|sid| self.sessions.get(&sid)).map(|s| s.account);
        let (Some(sid), true) = (sid, owner == Some(account)) else {
            let error = form::error(400, error_code::API_NOT_IN_STATE, "");
            let answer = Effect::Reply(ApiReply { reply, result: Err(error) });
            return self.outputs.push_back(Output { ops: Vec::new(), then: vec![answer] });
        };
        self.with_session(now, unix_ms, sid, |session, turn| match change(session, turn) {
            Ok(()) => answer(turn, session, call, reply),
            Err(error) => turn.effect(Effect::Reply(ApiReply { reply, result: Err(error) })),
        });
    }

    fn api(&mut self, now: Instant, unix_ms: u64, request: ApiRequest) {
        let ApiRequest { reply, account, action } = request;
        match action {
            ApiAction::CreateCall { form } => {
                let create = |turn: &mut Turn<'_>| control::create_call(turn, account, &form);
                self.begin(now, unix_ms, reply, create);
            }
            ApiAction::VerifyCallerId { code, form } => {
                let create =
                    |turn: &mut Turn<'_>| verification::verify(turn, account, &code, &form);
                self.begin(now, unix_ms, reply, create);
            }
            ApiAction::UpdateCall { call, form } => {
                self.change_call(now, unix_ms, reply, account, call, |session, turn| {
                    session.update_call(turn, call, &form)
                });
            }
            ApiAction::StartRecording { call, recording, form } => {
                self.change_call(now, unix_ms, reply, account, call, |session, turn| {
                    session.start_recording(turn, call, recording, &form)
                });
            }
            ApiAction::UpdateRecording { call, recording, form } => {
                self.change_call(now, unix_ms, reply, account, call, |session, turn| {
                    session.update_recording(turn, call, recording, &form)
                });
            }
        }
    }

    fn refuse(&mut self, reply: u64, error: ApiError) {
        let answer = Effect::Reply(ApiReply { reply, result: Err(error) });
        self.outputs.push_back(Output { ops: Vec::new(), then: vec![answer] });
    }

    /// A session that the API begins.
    fn begin(
        &mut self,
        now: Instant,
        unix_ms: u64,
        reply: u64,
        create: impl FnOnce(&mut Turn<'_>) -> Result<Session, ApiError>,
    ) {
        if self.sessions.len() >= self.config.sessions_max {
            self.metrics.overload += 1;
            let error = form::error(429, error_code::API_OVERLOAD, "");
            return self.refuse(reply, error);
        }
        let mut turn = self.turn(now, unix_ms);
        match create(&mut turn) {
            Ok(session) => {
                let sid = session.sid;
                answer(&mut turn, &session, sid, reply);
                let done = Settled::from(turn);
                self.metrics.sessions_begun += 1;
                self.settle(now, session, done);
            }
            Err(error) => self.refuse(reply, error),
        }
    }

    fn turn(&mut self, now: Instant, unix_ms: u64) -> Turn<'_> {
        Turn {
            now,
            unix_ms,
            config: &self.config,
            directory: &self.directory,
            nodes: &self.nodes,
            rng: &mut self.rng,
            waiting: &mut self.waiting,
            metrics: &mut self.metrics,
            out: Output::default(),
            new_legs: BTreeSet::new(),
        }
    }

    /// Gives a session its turn, then writes it down.
    fn with_session(
        &mut self,
        now: Instant,
        unix_ms: u64,
        sid: CallSid,
        act: impl FnOnce(&mut Session, &mut Turn<'_>),
    ) {
        let Some(mut session) = self.sessions.remove(&sid) else {
            self.metrics.results_stale += 1;
            return;
        };
        self.nodes.release(session.media.usage());
        let mut turn = self.turn(now, unix_ms);
        act(&mut session, &mut turn);
        session.check_finished(&mut turn);
        let done = Settled::from(turn);
        self.settle(now, session, done);
    }

    /// One transaction out of a turn.
    fn settle(&mut self, now: Instant, mut session: Session, done: Settled) {
        let sid = session.sid;
        for leg in done.new_legs {
            self.legs.insert(leg, sid);
        }
        if let Some(at) = self.armed.remove(&sid) {
            self.deadlines.remove(&(at, sid));
        }
        let mut out = done.out;
        for op in &out.ops {
            match op {
                StoreOp::PutRecording(record) => {
                    self.recordings.insert(record.sid, sid);
                }
                // At once: whoever is told of it may use it.
                StoreOp::PutCallerId(record) => {
                    let ids = self.directory.caller_ids.entry(record.account).or_default();
                    ids.insert(record.phone_number.clone());
                }
                _ => {}
            }
        }
        self.recordings
            .retain(|recording, of| *of != sid || session.recordings.contains_key(recording));
        if session.finished {
            self.metrics.sessions_ended += 1;
            self.legs.retain(|_, of| *of != sid);
            out.ops.push(StoreOp::DeleteSession { session: sid });
            self.outputs.push_back(out);
            return;
        }
        if let Some(at) = session.poll_timeout() {
            self.deadlines.insert((at, sid));
            self.armed.insert(sid, at);
        }
        // A turn that did nothing but take an acknowledgement is not worth a transaction: after a
        // restart the command is sent again, and answered again.
        if !(out.ops.is_empty() && out.then.is_empty()) {
            session.timeline.rebase(now);
            match serde_json::to_string(&session) {
                Ok(json) => {
                    let epoch = session.epoch;
                    out.ops.push(StoreOp::PutSession { session: sid, epoch, json });
                }
                Err(_) => self.metrics.internal_errors += 1,
            }
            self.outputs.push_back(out);
        }
        self.nodes.occupy(session.media.usage());
        self.sessions.insert(sid, session);
    }
}

/// What a turn leaves behind.
struct Settled {
    out: Output,
    new_legs: BTreeSet<CallSid>,
}

impl From<Turn<'_>> for Settled {
    fn from(turn: Turn<'_>) -> Self {
        Self { out: turn.out, new_legs: turn.new_legs }
    }
}

fn answer(turn: &mut Turn<'_>, session: &Session, leg: CallSid, reply: u64) {
    let result = match session.legs.get(&leg) {
        Some(leg) => Ok(Box::new(leg.record.clone())),
        None => Err(form::error(404, error_code::API_NOT_FOUND, "")),
    };
    turn.effect(Effect::Reply(ApiReply { reply, result }));
}
