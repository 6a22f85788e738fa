//! A control node: the core, a store in memory that outlives it, and the shell's duties.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use control_core::directory::Directory;
use control_core::io::{Effect, Input, Output, StoreOp};
use control_core::record::{Alert, CallRecord, CallbackRow, RecordingRecord, TimelineRow};
use control_core::{ControlCore, CoreConfig};
use link_proto::message::{Hello, Message, Orphans, Welcome};
use link_proto::{CallSid, NodeId, RecordingSid, RegionId};
use rand::RngExt as _;
use rand::rngs::StdRng;

/// What survives a crash.
#[derive(Debug, Default)]
pub struct Store {
    /// State of sessions with their epochs.
    pub sessions: BTreeMap<CallSid, (u64, String)>,
    /// Records of legs.
    pub calls: BTreeMap<CallSid, CallRecord>,
    /// Callbacks that have not been delivered.
    pub outbox: BTreeMap<String, CallbackRow>,
    /// Every callback row there ever was.
    pub callbacks: BTreeMap<String, CallbackRow>,
    /// Alerts.
    pub alerts: Vec<Alert>,
    /// Recordings.
    pub recordings: BTreeMap<RecordingSid, RecordingRecord>,
    /// Timelines.
    pub timeline: BTreeMap<(CallSid, u64), TimelineRow>,
    /// Requests that were logged.
    pub requests: u64,
    /// Writes that break a rule of the store.
    pub violations: Vec<String>,
}

impl Store {
    fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::PutSession { session, epoch, json } => {
                if self.sessions.get(&session).is_some_and(|(stored, _)| *stored > epoch) {
                    self.violations.push(format!("{session}: epoch {epoch} is over"));
                }
                self.sessions.insert(session, (epoch, json));
            }
            StoreOp::DeleteSession { session } => {
                self.sessions.remove(&session);
            }
            StoreOp::PutCall(record) => self.put_call(*record),
            StoreOp::PutCallback(row) => {
                if !self.callbacks.contains_key(&row.key) {
                    self.callbacks.insert(row.key.clone(), (*row).clone());
                    self.outbox.insert(row.key.clone(), *row);
                }
            }
            StoreOp::PutAlert(alert) => self.alerts.push(*alert),
            StoreOp::PutRecording(record) => {
                self.recordings.insert(record.sid, *record);
            }
            StoreOp::CompleteRecording { recording, duration_ms, .. } => {
                if let Some(row) = self.recordings.get_mut(&recording) {
                    row.status = control_core::record::RecordingStatus::Completed;
                    row.duration_ms = Some(duration_ms);
                }
            }
            StoreOp::PutTimeline(row) => {
                let key = (row.session, row.sequence);
                if self.timeline.insert(key, *row).is_some() {
                    self.violations.push(format!("timeline row {key:?} written twice"));
                }
            }
            StoreOp::PutRequestLog(_) => self.requests += 1,
            // No call of a plan verifies a number.
            StoreOp::PutCallerId(_) => {}
        }
    }

    /// A record that has ended never changes its end.
    fn put_call(&mut self, record: CallRecord) {
        if let Some(old) = self.calls.get(&record.sid)
            && old.status.is_terminal()
            && (old.status, old.end_reason, old.ended_unix_ms)
                != (record.status, record.end_reason, record.ended_unix_ms)
        {
            let new = (record.status, record.end_reason);
            let old = (old.status, old.end_reason);
            self.violations.push(format!("{}: ended twice: {old:?}, then {new:?}", record.sid));
        }
        self.calls.insert(record.sid, record);
    }
}

/// What control wants of the world.
#[derive(Debug)]
pub enum Want {
    /// A message to an edge.
    Link(NodeId, Message),
    /// An effect that leads out: fetch, prompt, API reply.
    Effect(Effect),
    /// A callback is to be tried.
    Callback(Box<CallbackRow>),
}

struct Pending {
    due: Instant,
    output: Output,
}

/// The process.
struct Life {
    core: ControlCore,
    commits: VecDeque<Pending>,
    /// Connections by edge.
    links: BTreeMap<NodeId, (u64, Hello)>,
    tables_version: u64,
    /// Callback queues (call and URL) with an attempt under way, or waiting for their next.
    busy: BTreeSet<(CallSid, String)>,
}

/// Control over all its lives.
pub struct ControlNode {
    /// The store.
    pub store: Store,
    /// Number of the present process.
    pub boot: u64,
    life: Option<Life>,
    directory: Directory,
    config: CoreConfig,
    /// Wants, in order.
    pub wants: Vec<Want>,
    rng: StdRng,
    /// Sessions that loading found.
    pub sessions_loaded: u64,
    internal_errors: u64,
}

/// Longest time from a turn to its commit.
const COMMIT_MAX: Duration = Duration::from_micros(4_000);

impl ControlNode {
    /// A node that is down.
    pub fn new(directory: Directory, rng: StdRng) -> Self {
        let config = CoreConfig {
            core_regions: vec![RegionId::from("core")],
            public_url: "http://control.test".to_owned(),
            ..CoreConfig::default()
        };
        Self {
            store: Store::default(),
            boot: 0,
            life: None,
            directory,
            config,
            wants: Vec::new(),
            rng,
            sessions_loaded: 0,
            internal_errors: 0,
        }
    }

    /// The process is there.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// The process starts and loads its sessions.
    pub fn start(&mut self, now: Instant, unix_ms: u64) {
        self.boot += 1;
        let rng: StdRng = rand::SeedableRng::seed_from_u64(self.rng.random());
        let mut core = ControlCore::new(self.config.clone(), self.directory.clone(), rng);
        let stored = self.store.sessions.iter();
        let sessions: Vec<_> = stored.map(|(sid, (e, json))| (*sid, *e, json.clone())).collect();
        self.sessions_loaded += sessions.len() as u64;
        core.load(now, unix_ms, sessions);
        self.life = Some(Life {
            core,
            commits: VecDeque::new(),
            links: BTreeMap::new(),
            tables_version: 0,
            busy: BTreeSet::new(),
        });
        self.settle(now);
        self.send_callbacks();
    }

    /// The process is killed. The first `committed` transactions that wait make it to the disk;
    /// no effect of theirs gets out. Returns how many did.
    pub fn kill(&mut self, committed: usize) -> usize {
        let Some(mut life) = self.life.take() else { return 0 };
        self.internal_errors += life.core.metrics().internal_errors;
        let committed = committed.min(life.commits.len());
        for pending in life.commits.drain(..committed) {
            for op in pending.output.ops {
                self.store.apply(op);
            }
        }
        self.wants.clear();
        committed
    }

    /// Transactions that wait for their commit.
    pub fn uncommitted(&self) -> usize {
        self.life.as_ref().map_or(0, |life| life.commits.len())
    }

    /// The next deadline: a commit or a timer of the core.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let life = self.life.as_ref()?;
        let commit = life.commits.front().map(|pending| pending.due);
        [commit, life.core.poll_timeout()].into_iter().flatten().min()
    }

    /// Commits and timers that are due.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        while let Some(life) = &mut self.life {
            if life.commits.front().is_none_or(|pending| pending.due > now) {
                break;
            }
            let Some(pending) = life.commits.pop_front() else { break };
            for op in pending.output.ops {
                self.store.apply(op);
            }
            for effect in pending.output.then {
                self.release(effect);
            }
        }
        if let Some(life) = &mut self.life
            && life.core.poll_timeout().is_some_and(|at| at <= now)
        {
            life.core.handle_timeout(now, unix_ms);
        }
        self.settle(now);
    }

    /// An input for the core.
    pub fn input(&mut self, now: Instant, unix_ms: u64, input: Input) {
        if let Some(life) = &mut self.life {
            life.core.handle_input(now, unix_ms, input);
        }
        self.settle(now);
    }

    /// A message from an edge over a connection.
    pub fn message(&mut self, now: Instant, unix_ms: u64, from: &NodeId, conn: u64, m: Message) {
        let Some(life) = &mut self.life else { return };
        if let Message::Hello(hello) = m {
            life.links.insert(from.clone(), (conn, hello));
            let welcome = Welcome {
                node: NodeId::from("control"),
                region: RegionId::from("core"),
                version: link_proto::envelope::PROTOCOL_VERSION,
            };
            let tables = life.core.tables().clone();
            self.wants.push(Want::Link(from.clone(), Message::Welcome(welcome)));
            self.wants.push(Want::Link(from.clone(), Message::Tables(tables)));
            return;
        }
        let Some((_, hello)) = life.links.get(from).filter(|(current, _)| *current == conn) else {
            return;
        };
        let node = from.clone();
        let input = match m {
            Message::Reconcile(reconcile) => {
                let (entry, boot) = (hello.node.clone(), hello.boot);
                Input::EdgeUp { entry, boot, legs: reconcile.legs }
            }
            Message::Event(message) => Input::LinkEvent { node, message },
            Message::CommandAck(ack) => Input::CommandAck { node, ack },
            _ => return,
        };
        self.input(now, unix_ms, input);
    }

    /// The connection is lost, unless a newer one has replaced it.
    pub fn link_lost(&mut self, now: Instant, unix_ms: u64, node: &NodeId, conn: u64) {
        let Some(life) = &mut self.life else { return };
        if life.links.get(node).is_some_and(|(current, _)| *current == conn) {
            life.links.remove(node);
            self.input(now, unix_ms, Input::EdgeDown { node: node.clone() });
        }
    }

    /// The connection over which messages to that edge go.
    pub fn connection(&self, node: &NodeId) -> Option<u64> {
        Some(self.life.as_ref()?.links.get(node)?.0)
    }

    fn settle(&mut self, now: Instant) {
        let Some(life) = &mut self.life else { return };
        while let Some(output) = life.core.poll_output() {
            let took =
                Duration::from_micros(self.rng.random_range(100..COMMIT_MAX.as_micros() as u64));
            let last = life.commits.back().map_or(now, |pending| pending.due);
            // Group commit: what comes shortly after another goes with it.
            let due =
                if self.rng.random_range(0..2) == 0 { last.max(now) } else { last.max(now + took) };
            life.commits.push_back(Pending { due, output });
        }
        let version = life.core.tables().version;
        if version != life.tables_version {
            life.tables_version = version;
            for node in life.links.keys() {
                let tables = Message::Tables(life.core.tables().clone());
                self.wants.push(Want::Link(node.clone(), tables));
            }
        }
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Command { node, message } => {
                self.wants.push(Want::Link(node, Message::Command(message)));
            }
            Effect::AckEvent { node, ack } => {
                self.wants.push(Want::Link(node, Message::EventAck(ack)));
            }
            Effect::Orphans { node, sessions } => {
                self.wants.push(Want::Link(node, Message::Orphans(Orphans { sessions })));
            }
            Effect::CallbacksWaiting => self.send_callbacks(),
            Effect::Publish(_) => {}
            effect => self.wants.push(Want::Effect(effect)),
        }
    }

    /// Tries the first row of every queue that is not busy.
    fn send_callbacks(&mut self) {
        let Some(life) = &mut self.life else { return };
        let mut first: BTreeMap<(CallSid, String), &CallbackRow> = BTreeMap::new();
        for row in self.store.outbox.values() {
            let queue = (row.call, row.configured_url.clone());
            let known = first.entry(queue).or_insert(row);
            if row.sequence < known.sequence {
                *known = row;
            }
        }
        for (queue, row) in first {
            if life.busy.insert(queue) {
                self.wants.push(Want::Callback(Box::new(row.clone())));
            }
        }
    }

    /// An attempt has ended well.
    pub fn callback_delivered(&mut self, boot: u64, key: &str) {
        if boot != self.boot || self.life.is_none() {
            return;
        }
        if let (Some(row), Some(life)) = (self.store.outbox.remove(key), &mut self.life) {
            life.busy.remove(&(row.call, row.configured_url));
        }
        self.send_callbacks();
    }

    /// The pause after a failed attempt is over.
    pub fn callback_again(&mut self, boot: u64, row: &CallbackRow) {
        if boot == self.boot
            && let Some(life) = &mut self.life
        {
            life.busy.remove(&(row.call, row.configured_url.clone()));
            self.send_callbacks();
        }
    }

    /// What is left of calls, by name.
    pub fn residue(&self) -> Vec<(String, usize)> {
        let Some(life) = &self.life else { return vec![("control is down".to_owned(), 1)] };
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut left = vec![
            ("control sessions".to_owned(), count(life.core.metrics().sessions)),
            ("control timers".to_owned(), usize::from(life.core.poll_timeout().is_some())),
            ("control commits".to_owned(), life.commits.len()),
            ("stored sessions".to_owned(), self.store.sessions.len()),
            ("outbox rows".to_owned(), self.store.outbox.len()),
            ("unreadable states".to_owned(), count(life.core.metrics().states_unreadable)),
        ];
        left.retain(|(_, count)| *count > 0);
        left
    }

    /// Defects that the core has noticed in all its lives.
    pub fn internal_errors(&self) -> u64 {
        self.internal_errors + self.metrics().internal_errors
    }

    /// Counters of the present core.
    pub fn metrics(&self) -> control_core::Metrics {
        self.life.as_ref().map(|life| life.core.metrics()).unwrap_or_default()
    }
}
