//! A world around `ControlCore`: scripted edges, a web server and a store in memory, one virtual
//! clock. The edges use the real sequence, acknowledgement and idempotence rules of `link-proto`.
#![allow(clippy::missing_panics_doc)]

pub mod edge;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use control_core::api::{ApiAction, ApiReply, ApiRequest};
use control_core::directory::{
    Account, Directory, Fallback, Number, StatusTarget, UrlMethod, VoiceUrls,
};
use control_core::io::{
    Effect, FetchFailure, FetchFailureKind, FetchRequest, FetchResponse, Input, MediaFailure,
    MediaFile, MediaRequest, Method, StoreOp,
};
use control_core::record::{
    Alert, CallRecord, CallbackRow, CallerIdRecord, RecordingRecord, RequestLogRow, TimelineEvent,
    TimelineRow,
};
use control_core::{ControlCore, CoreConfig};
use edge::Edge;
use link_proto::media::PromptKey;
use link_proto::table::{NodeEntry, Resources, Route};
use link_proto::{AccountSid, CallSid, NodeId, PhoneNumberSid, RegionId};
use rand::SeedableRng as _;

pub const ACCOUNT: AccountSid = AccountSid([0xac; 16]);
pub const SECRET: &str = "secret";
pub const NUMBER: &str = "+15550001";

/// What the web server does with a path.
#[derive(Clone)]
pub enum Page {
    Xml(String),
    Typed(&'static str, Vec<u8>),
    Status(u16),
    Redirect(u16, String),
    /// A document that sets a cookie.
    Cookie(&'static str, String),
    Fail(FetchFailureKind),
    /// Never answers.
    Silent,
}

pub fn xml(inner: &str) -> Page {
    Page::Xml(format!("<Response>{inner}</Response>"))
}

#[derive(Default)]
pub struct Store {
    pub sessions: BTreeMap<CallSid, (u64, String)>,
    pub calls: BTreeMap<CallSid, CallRecord>,
    pub callbacks: BTreeMap<String, CallbackRow>,
    pub alerts: Vec<Alert>,
    pub recordings: BTreeMap<String, RecordingRecord>,
    pub caller_ids: Vec<CallerIdRecord>,
    pub timeline: Vec<TimelineRow>,
    pub log: Vec<RequestLogRow>,
}

pub struct World {
    pub core: ControlCore,
    pub directory: Directory,
    pub now: Instant,
    pub unix_ms: u64,
    pub store: Store,
    pub edges: BTreeMap<NodeId, Edge>,
    pub pages: BTreeMap<String, Page>,
    pub fetched: Vec<FetchRequest>,
    pub prepared: Vec<MediaRequest>,
    pub media_failure: Option<u32>,
    pub replies: Vec<ApiReply>,
    pub orphans: Vec<CallSid>,
    pub commits: usize,
    /// The process dies after this commit, before its effects.
    pub crash_at: Option<usize>,
    seed: u64,
}

pub fn entry(name: &str, region: &str, core: bool, resources: Resources) -> NodeEntry {
    NodeEntry {
        node: NodeId::from(name),
        region: RegionId::from(region),
        trunk_address: "127.0.0.1:1".to_owned(),
        resources,
        limits: link_proto::table::ResourceLimits::default(),
        core,
        available: true,
    }
}

pub fn post(url: &str) -> UrlMethod {
    UrlMethod { url: url.to_owned(), method: Method::Post }
}

pub const ALL_EVENTS: [&str; 4] = ["initiated", "ringing", "answered", "completed"];

fn directory() -> Directory {
    let mut directory = Directory::default();
    let account = Account { auth_token: SECRET.to_owned(), active: true, ..Account::default() };
    directory.accounts.insert(ACCOUNT, account);
    let events = ALL_EVENTS.map(str::to_owned).to_vec();
    let number = Number {
        sid: PhoneNumberSid([0x17; 16]),
        account: ACCOUNT,
        application: None,
        voice: VoiceUrls {
            voice: Some(post("http://app/start")),
            fallbacks: vec![Fallback { target: post("http://backup/start"), classes: vec![] }],
            status: vec![StatusTarget { target: post("http://app/status"), events }],
        },
    };
    directory.numbers.insert(NUMBER.to_owned(), number);
    directory.tables.routes.push(Route {
        prefix: "+4".to_owned(),
        node: NodeId::from("core-1"),
        uri: "sip:{number}@10.0.0.1".to_owned(),
        without_instructions: false,
    });
    directory
}

impl World {
    pub fn new() -> Self {
        Self::with(Resources::default())
    }

    /// `resources` of the edge in region `eu`; the media node `core-1` has all.
    pub fn with(resources: Resources) -> Self {
        let directory = directory();
        let rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut world = Self {
            core: ControlCore::new(CoreConfig::default(), directory.clone(), rng),
            directory,
            now: Instant::now(),
            unix_ms: 1_700_000_000_000,
            store: Store::default(),
            edges: BTreeMap::new(),
            pages: BTreeMap::new(),
            fetched: Vec::new(),
            prepared: Vec::new(),
            media_failure: None,
            replies: Vec::new(),
            orphans: Vec::new(),
            commits: 0,
            crash_at: None,
            seed: 1,
        };
        for entry in [
            entry("eu-1", "eu", false, resources),
            entry("core-1", "core", true, Resources::default()),
        ] {
            let node = entry.node.clone();
            world.edges.insert(node.clone(), Edge::new(entry));
            world.connect(&node);
        }
        world
    }

    pub fn page(mut self, path: &str, page: Page) -> Self {
        self.set_page(path, page);
        self
    }

    pub fn set_page(&mut self, path: &str, page: Page) {
        let url = if path.contains("://") { path.to_owned() } else { format!("http://app/{path}") };
        self.pages.insert(url, page);
    }

    pub fn eu(&mut self) -> &mut Edge {
        self.edges.get_mut(&NodeId::from("eu-1")).unwrap()
    }

    pub fn edge(&mut self, name: &str) -> &mut Edge {
        self.edges.get_mut(&NodeId::from(name)).unwrap()
    }

    /// Hello, reconcile and everything unacknowledged.
    pub fn connect(&mut self, node: &NodeId) {
        let edge = self.edges.get_mut(node).unwrap();
        edge.connected = true;
        let (entry, boot, legs) = (edge.entry.clone(), edge.boot, edge.live_legs());
        self.input(Input::EdgeUp { entry, boot, legs });
        let again = self.edges.get_mut(node).unwrap().unacknowledged();
        for message in again {
            self.input(Input::LinkEvent { node: node.clone(), message });
        }
        self.pump();
    }

    pub fn disconnect(&mut self, node: &NodeId) {
        self.edges.get_mut(node).unwrap().connected = false;
        self.input(Input::EdgeDown { node: node.clone() });
        self.pump();
    }

    fn input(&mut self, input: Input) {
        self.core.handle_input(self.now, self.unix_ms, input);
    }

    /// kill -9: everything that is not in the store is lost.
    pub fn crash(&mut self) {
        self.seed += 1;
        let rng = rand::rngs::StdRng::seed_from_u64(self.seed);
        self.core = ControlCore::new(CoreConfig::default(), self.directory.clone(), rng);
        for edge in self.edges.values_mut() {
            edge.connected = false;
        }
    }

    pub fn restart(&mut self) {
        let rows: Vec<_> =
            self.store.sessions.iter().map(|(sid, (e, json))| (*sid, *e, json.clone())).collect();
        self.core.load(self.now, self.unix_ms, rows);
        self.pump();
        for node in self.edges.keys().cloned().collect::<Vec<_>>() {
            self.connect(&node);
        }
    }

    pub fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.unix_ms += ms;
        self.core.handle_timeout(self.now, self.unix_ms);
        self.pump();
    }

    pub fn api(&mut self, action: ApiAction) -> ApiReply {
        self.input(Input::Api(ApiRequest { reply: 7, account: ACCOUNT, action }));
        self.pump();
        self.replies.pop().expect("a reply")
    }

    pub fn create_call(&mut self, form: &[(&str, &str)]) -> ApiReply {
        self.api(ApiAction::CreateCall { form: owned(form) })
    }

    pub fn update_call(&mut self, call: CallSid, form: &[(&str, &str)]) -> ApiReply {
        self.api(ApiAction::UpdateCall { call, form: owned(form) })
    }

    /// Lets an edge do something, then lets everything run.
    pub fn at<R>(&mut self, node: &str, act: impl FnOnce(&mut Edge) -> R) -> R {
        let result = act(self.edge(node));
        self.pump();
        result
    }

    pub fn inbound(&mut self) -> CallSid {
        self.at("eu-1", |edge| edge.offer("+441110", NUMBER))
    }

    /// Until nothing moves any more.
    pub fn pump(&mut self) {
        loop {
            let mut moved = false;
            while let Some(output) = self.core.poll_output() {
                moved = true;
                self.commit(output.ops);
                self.commits += 1;
                if self.crash_at == Some(self.commits) {
                    self.crash();
                    self.restart();
                    break;
                }
                self.release(output.then);
            }
            for node in self.edges.keys().cloned().collect::<Vec<_>>() {
                let edge = self.edges.get_mut(&node).unwrap();
                let unix_ms = self.unix_ms;
                let inputs: VecDeque<Input> = edge.take_outgoing(unix_ms);
                moved |= !inputs.is_empty();
                for input in inputs {
                    self.input(input);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn commit(&mut self, ops: Vec<StoreOp>) {
        for op in ops {
            match op {
                StoreOp::PutSession { session, epoch, json } => {
                    self.store.sessions.insert(session, (epoch, json));
                }
                StoreOp::DeleteSession { session } => {
                    self.store.sessions.remove(&session);
                }
                StoreOp::PutCall(row) => {
                    self.store.calls.insert(row.sid, *row);
                }
                StoreOp::PutCallback(row) => {
                    let old = self.store.callbacks.insert(row.key.clone(), *row);
                    assert!(old.is_none(), "a callback was made twice");
                }
                StoreOp::PutAlert(row) => self.store.alerts.push(*row),
                StoreOp::PutRecording(row) => {
                    self.store.recordings.insert(row.sid.to_string(), *row);
                }
                StoreOp::CompleteRecording { recording, duration_ms, unix_ms, .. } => {
                    if let Some(row) = self.store.recordings.get_mut(&recording.to_string()) {
                        row.status = control_core::record::RecordingStatus::Completed;
                        row.duration_ms = Some(duration_ms);
                        row.updated_unix_ms = unix_ms;
                    }
                }
                StoreOp::PutCallerId(row) => self.store.caller_ids.push(*row),
                StoreOp::PutTimeline(row) => self.store.timeline.push(*row),
                StoreOp::PutRequestLog(row) => self.store.log.push(*row),
            }
        }
    }

    fn release(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Command { node, message } => {
                    if let Some(edge) = self.edges.get_mut(&node).filter(|edge| edge.connected) {
                        edge.command(message);
                    }
                }
                Effect::AckEvent { node, ack } => {
                    if let Some(edge) = self.edges.get_mut(&node).filter(|edge| edge.connected) {
                        edge.acknowledged(&ack);
                    }
                }
                Effect::Orphans { sessions, .. } => self.orphans.extend(sessions),
                Effect::Fetch(request) => self.serve(*request),
                Effect::PrepareMedia { id, media, .. } => {
                    self.prepared.push(media.clone());
                    let result = match self.media_failure {
                        Some(code) => Err(MediaFailure { code, message: "no".to_owned() }),
                        None => {
                            let key = PromptKey(format!("{media:?}"));
                            Ok(MediaFile { key, duration_ms: 1_000 })
                        }
                    };
                    self.input(Input::MediaReady { id, result });
                }
                Effect::Reply(reply) => self.replies.push(reply),
                Effect::CancelFetch(_)
                | Effect::CallbacksWaiting
                | Effect::DirectoryChanged
                | Effect::Publish(_) => {}
            }
        }
    }

    fn serve(&mut self, request: FetchRequest) {
        check_signature(&request);
        let path = request.request.url.split('?').next().unwrap().to_owned();
        let page = self.pages.get(&path).cloned().unwrap_or(Page::Status(404));
        let id = request.id;
        self.fetched.push(request);
        let response = |status, headers: Vec<(&str, String)>, body: Vec<u8>| {
            let headers = headers.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
            Ok(FetchResponse { status, headers, body, elapsed_ms: 10 })
        };
        let result = match page {
            Page::Silent => return,
            Page::Xml(text) => {
                let kind = ("Content-Type", "text/xml".to_owned());
                response(200, vec![kind], text.into_bytes())
            }
            Page::Cookie(cookie, text) => {
                let kind = ("Content-Type", "text/xml".to_owned());
                let set = ("Set-Cookie", cookie.to_owned());
                response(200, vec![kind, set], text.into_bytes())
            }
            Page::Typed(kind, body) => response(200, vec![("content-type", kind.into())], body),
            Page::Status(status) => response(status, vec![], b"oops".to_vec()),
            Page::Redirect(status, to) => response(status, vec![("Location", to)], vec![]),
            Page::Fail(kind) => {
                Err(FetchFailure { kind, message: "failed".to_owned(), elapsed_ms: 10 })
            }
        };
        self.input(Input::FetchDone { id, result });
    }

    // ---- what the tests ask ----

    /// Parameters of the last request to a URL.
    pub fn params(&self, url: &str) -> BTreeMap<String, String> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://app/{url}") };
        let at = |r: &&FetchRequest| r.request.url.split('?').next() == Some(url.as_str());
        let request = self.fetched.iter().rev().find(at).unwrap_or_else(|| panic!("no {url}"));
        params_of(&request.request)
    }

    pub fn paths(&self) -> Vec<String> {
        let path = |r: &FetchRequest| r.request.url.split('?').next().unwrap().to_owned();
        self.fetched.iter().map(path).collect()
    }

    pub fn count(&self, path: &str) -> usize {
        self.paths().iter().filter(|p| p.ends_with(path)).count()
    }

    pub fn callbacks(&self, call: CallSid) -> Vec<(String, BTreeMap<String, String>)> {
        let mut rows: Vec<_> =
            self.store.callbacks.values().filter(|row| row.call == call).collect();
        rows.sort_by_key(|row| row.sequence);
        rows.iter().map(|row| (row.event.clone(), params_of(&row.request))).collect()
    }

    pub fn events(&self, call: CallSid) -> String {
        let names: Vec<String> = self.callbacks(call).into_iter().map(|(event, _)| event).collect();
        names.join(" ")
    }

    pub fn status(&self, call: CallSid) -> &'static str {
        self.store.calls[&call].status.as_str()
    }

    pub fn alerts(&self) -> Vec<u32> {
        self.store.alerts.iter().map(|alert| alert.code).collect()
    }

    pub fn labels(&self) -> Vec<String> {
        let labels = |row: &TimelineRow| match &row.event {
            TimelineEvent::Graph { labels, .. } => {
                let all: Vec<_> = labels.iter().map(|label| label.label.clone()).collect();
                Some(all.join(","))
            }
            _ => None,
        };
        self.store.timeline.iter().filter_map(labels).collect()
    }

    /// Nothing lives, nothing is kept, and every leg has had one end.
    pub fn assert_over(&mut self) {
        assert!(self.store.sessions.is_empty(), "a session is left");
        assert_eq!(self.core.metrics().sessions, 0);
        for edge in self.edges.values() {
            assert!(edge.live_legs().is_empty(), "a leg is left at {}", edge.entry.node);
        }
        for call in self.store.calls.values() {
            assert!(call.status.is_terminal(), "{} is {:?}", call.sid, call.status);
            let ended = |row: &&TimelineRow| {
                row.leg == Some(call.sid) && matches!(row.event, TimelineEvent::LegEnded { .. })
            };
            let ends = self.store.timeline.iter().filter(ended).count();
            assert_eq!(ends, 1, "ends of {:?}", call.direction);
            let rows: Vec<&CallbackRow> =
                self.store.callbacks.values().filter(|row| row.call == call.sid).collect();
            let last = rows.iter().filter(|row| row.event == "completed").count();
            let wanted = usize::from(!rows.is_empty());
            assert_eq!(last, wanted, "terminal callbacks of {:?}", call.direction);
        }
        assert_eq!(self.core.metrics().internal_errors, 0);
    }
}

pub fn owned(form: &[(&str, &str)]) -> Vec<(String, String)> {
    form.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

fn params_of(request: &control_core::io::HttpRequest) -> BTreeMap<String, String> {
    let query = request.url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let text = request.body.as_deref().unwrap_or(query);
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// Every request that leaves is signed as its receiver will check it.
fn check_signature(request: &FetchRequest) {
    let body = request.request.body.as_deref().unwrap_or_default();
    let form: Vec<(String, String)> =
        url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let expected = control_core::webhook::sign::sha1(SECRET, &request.request.url, &form);
    let header = |name: &str| {
        request.request.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    };
    assert_eq!(header("X-Twilio-Signature"), Some(expected));
    assert!(header("I-Twilio-Idempotency-Token").is_some());
}
