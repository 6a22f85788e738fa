//! Whole regions on one clock: next event = smallest deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_core::api::{ApiAction, ApiError, ApiReply, ApiRequest};
use control_core::directory::Directory;
use control_core::io::{
    Effect, FetchFailure, FetchFailureKind, FetchRequest, Input as ControlInput, MediaFailure,
    MediaFile, MediaRequest,
};
use control_core::record::{CallRecord, CallbackRow};
use edge_core::Input as EdgeInput;
use edge_media::command::Prompt;
use link_proto::media::PromptKey;
use link_proto::message::{Hello, Message, RecordingHeader};
use link_proto::table::Resources;
use link_proto::{AccountSid, NodeId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::app_server::AppServers;
use crate::clock::Clock;
use crate::control_node::{self, ControlNode};
use crate::edge_node::{self, EdgeNode, prompt};
use crate::faults::{Faults, Kind};
use crate::net::{Arrival, Datagram, Net, TrunkPacket};
use crate::phone::{self, Act, Party, Phones, Script};
use crate::replay::Trace;

/// Regions: 0 has an edge only, 1 is the core region with its media node.
pub const REGIONS: usize = 2;

/// Something that happens at its time. Fields are numbers of edges, processes and connections.
#[allow(missing_docs)]
#[derive(Debug)]
pub enum Parcel {
    /// Work beside signalling is done.
    EdgeInput { edge: usize, boot: u64, shard: usize, input: Box<EdgeInput> },
    /// An edge is killed.
    EdgeCrash { edge: usize },
    /// An edge starts.
    EdgeStart { edge: usize },
    /// Control is killed; then so many ms pass.
    ControlCrash { down_ms: u64 },
    /// Control is killed as soon as something waits for its commit; then so many ms pass.
    ControlCrashBusy { down_ms: u64 },
    /// Control starts.
    ControlStart,
    /// A link is cut, and cannot be made again for so many ms.
    Cut { edge: usize, down_ms: u64 },
    /// An edge tries to reach control.
    Connect { edge: usize, boot: u64 },
    /// A message on a link.
    Up { edge: usize, conn: u64, message: Box<Message> },
    /// A message on a link.
    Down { edge: usize, conn: u64, message: Box<Message> },
    /// An edge notices that its connection is gone.
    EdgeNotices { edge: usize, boot: u64, conn: u64 },
    /// Control notices that a connection is gone.
    ControlNotices { edge: usize, conn: u64 },
    /// Work beside control's core is done.
    ControlInput { boot: u64, input: Box<ControlInput> },
    /// An attempt at a callback has ended.
    CallbackDone { boot: u64, row: Box<CallbackRow>, ok: bool },
    /// The pause after a failed attempt is over.
    CallbackAgain { boot: u64, row: Box<CallbackRow> },
    /// A recording arrives at control, if it can.
    Upload { edge: usize, header: RecordingHeader },
    /// A phone calls.
    Dial { region: usize, number: String, party: Party, script: Script },
    /// A phone does something.
    Phone { region: usize, act: Act },
    /// An API request; `plan` names the call it is about.
    Api { plan: usize, account: AccountSid, action: Request },
    /// Somebody sets the wall clock.
    ClockStep { by_ms: i64 },
    /// The end of chaos.
    Heal,
}

/// An API request of a plan.
#[derive(Debug, Clone)]
pub enum Request {
    /// `POST Calls`.
    Create(Vec<(String, String)>),
    /// `POST Calls/{sid}` of the first leg of the plan.
    Update(Vec<(String, String)>),
}

/// A link between an edge and control.
#[derive(Debug, Default, Clone)]
struct Link {
    /// Newest connection.
    conn: u64,
    /// It works.
    alive: bool,
    /// Connections cannot be made before.
    blocked_until: Option<Instant>,
    last_up: Option<Instant>,
    last_down: Option<Instant>,
    attempts: u32,
}

/// What was answered to API requests.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Plan.
    pub plan: usize,
    /// What.
    pub result: Result<Box<CallRecord>, ApiError>,
}

/// Everything.
pub struct World {
    /// Time.
    pub clock: Clock,
    /// Lines.
    pub net: Net,
    /// Edges by region.
    pub edges: Vec<EdgeNode>,
    /// Control.
    pub control: ControlNode,
    /// Phones by region.
    pub phones: Vec<Phones>,
    /// Web servers.
    pub apps: AppServers,
    /// What may go wrong now.
    pub faults: Faults,
    /// What went wrong so far.
    pub hits: BTreeMap<Kind, u64>,
    /// API answers.
    pub answered: Vec<Answered>,
    /// API requests that were made.
    pub api_requests: u64,
    /// What happened.
    pub trace: Trace,
    links: Vec<Link>,
    queue: BTreeMap<(Instant, u64), Parcel>,
    queue_next: u64,
    replies: BTreeMap<(u64, u64), usize>,
    reply_next: u64,
    prompts: BTreeMap<PromptKey, Arc<Prompt>>,
    accounts: Vec<AccountSid>,
    rng: StdRng,
    /// Events so far.
    pub steps: u64,
    crash_when_busy: Option<u64>,
    /// Events since the clock moved last.
    standing: u32,
    /// Something happens again and again without time passing.
    pub stalled: Option<String>,
}

/// Events at one moment above which nothing sensible can be going on.
const STANDING_MAX: u32 = 20_000;

/// How a world is made.
pub struct Setup {
    /// Seed of everything.
    pub seed: u64,
    /// Real media workers with RTP, or the model.
    pub real_media: bool,
    /// Numbers, applications, routes.
    pub directory: Directory,
    /// Web servers.
    pub apps: AppServers,
    /// What may go wrong.
    pub faults: Faults,
    /// Resources by region.
    pub resources: [Resources; REGIONS],
    /// Keep the text of the trace.
    pub verbose: bool,
}

impl World {
    /// Everything is up, nothing is connected yet.
    pub fn new(setup: Setup) -> Self {
        let mut rng = StdRng::seed_from_u64(setup.seed);
        let mut split = || StdRng::seed_from_u64(rng.random());
        let clock = Clock::new();
        let faults = setup.faults;
        let edges = (0..REGIONS).map(|region| {
            EdgeNode::new(region, setup.resources[region], setup.real_media, split())
        });
        let edges = edges.collect();
        let phones = (0..REGIONS).map(|region| Phones::new(region, setup.real_media, split()));
        let phones = phones.collect();
        let control = ControlNode::new(setup.directory, split());
        let accounts = setup.apps.customers.iter().map(|customer| customer.account).collect();
        let net = Net::new(REGIONS, faults.sip, faults.rtp, faults.trunk, setup.seed);
        let mut world = Self {
            clock,
            net,
            edges,
            control,
            phones,
            apps: setup.apps,
            faults,
            hits: BTreeMap::new(),
            answered: Vec::new(),
            api_requests: 0,
            trace: Trace::new(setup.verbose),
            links: vec![Link::default(); REGIONS],
            queue: BTreeMap::new(),
            queue_next: 0,
            replies: BTreeMap::new(),
            reply_next: 0,
            prompts: BTreeMap::new(),
            accounts,
            rng,
            steps: 0,
            crash_when_busy: None,
            standing: 0,
            stalled: None,
        };
        world.start_control();
        for edge in 0..REGIONS {
            world.start_edge(edge);
        }
        world
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Puts something into the future.
    pub fn later(&mut self, after: Duration, parcel: Parcel) {
        self.at(self.now() + after, parcel);
    }

    /// Puts something into the future.
    pub fn at(&mut self, at: Instant, parcel: Parcel) {
        self.queue_next += 1;
        self.queue.insert((at, self.queue_next), parcel);
    }

    fn later_ms(&mut self, ms: u64, parcel: Parcel) {
        self.later(Duration::from_millis(ms), parcel);
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.random_range(0..1_000) < per_mille
    }

    /// Counts a fault.
    pub fn hit(&mut self, kind: Kind) {
        *self.hits.entry(kind).or_default() += 1;
    }

    fn next_at(&self) -> Option<Instant> {
        let edges = self.edges.iter().filter_map(EdgeNode::poll_timeout);
        let phones = self.phones.iter().filter_map(Phones::poll_timeout);
        let others = [
            self.queue.first_key_value().map(|((at, _), _)| *at),
            self.net.poll_timeout(),
            self.control.poll_timeout(),
        ];
        edges.chain(phones).chain(others.into_iter().flatten()).min()
    }

    /// Lets time pass until `until`, or until nothing is left to happen. False in that case.
    pub fn run_until(&mut self, until: Instant) -> bool {
        loop {
            self.pump();
            let Some(at) = self.next_at() else { return false };
            if at > until {
                self.clock.advance(until);
                return true;
            }
            self.standing = if at > self.now() { 0 } else { self.standing + 1 };
            if self.standing > STANDING_MAX {
                self.stalled.get_or_insert(self.who_is_due());
                return false;
            }
            self.clock.advance(at);
            self.step();
            if self.control.uncommitted() > 0
                && let Some(down_ms) = self.crash_when_busy.take()
            {
                self.crash_control(down_ms);
            }
        }
    }

    fn who_is_due(&self) -> String {
        let now = self.now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let edges =
            self.edges.iter().filter(|edge| due(edge.poll_timeout())).map(|edge| edge.due(now));
        let mut who: Vec<String> = edges.collect();
        if due(self.control.poll_timeout()) {
            who.push("control".to_owned());
        }
        let phones = self.phones.iter().filter(|phones| due(phones.poll_timeout()));
        who.extend(phones.map(|phones| format!("phones at {}", phones.address)));
        format!("time stands still at {:?}: {who:?} due", self.clock.elapsed())
    }

    fn step(&mut self) {
        self.steps += 1;
        let now = self.now();
        let due = self.queue.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at <= now);
        if let Some(parcel) = due.and_then(|key| self.queue.remove(&key)) {
            return self.deliver(parcel);
        }
        if let Some(arrival) = self.net.poll(now) {
            return self.arrive(arrival);
        }
        let unix_ms = self.clock.unix_ms();
        if self.control.poll_timeout().is_some_and(|at| at <= now) {
            self.control.handle_timeout(now, unix_ms);
        }
        for edge in &mut self.edges {
            if edge.poll_timeout().is_some_and(|at| at <= now) {
                edge.handle_timeout(now);
            }
        }
        for phones in &mut self.phones {
            if phones.poll_timeout().is_some_and(|at| at <= now) {
                phones.handle_timeout(now);
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let now = self.now();
        match arrival {
            Arrival::Datagram(Datagram { from, to, bytes }) => {
                self.trace.datagram(self.clock.elapsed(), from, to, &bytes);
                if let Some(edge) = self.edges.iter_mut().find(|e| e.sip_address().ip() == to.ip())
                {
                    edge.datagram(now, from, to, bytes);
                } else if let Some(phones) =
                    self.phones.iter_mut().find(|p| p.address.ip() == to.ip())
                {
                    phones.datagram(now, from, to, bytes);
                }
            }
            Arrival::Trunk(TrunkPacket { from, to, channel, bytes }) => {
                let name = edge_node::edge_name(from);
                self.trace.trunk(self.clock.elapsed(), from, channel, &bytes);
                if let Some(edge) = self.edges.get_mut(to) {
                    edge.trunk_packet(now, &name, channel, &bytes);
                }
            }
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        let (now, unix_ms) = (self.now(), self.clock.unix_ms());
        self.trace.parcel(self.clock.elapsed(), &parcel);
        match parcel {
            Parcel::EdgeInput { edge, boot, shard, input } => {
                if let Some(edge) = self.edges.get_mut(edge).filter(|edge| edge.boot == boot) {
                    edge.input(now, shard, *input);
                }
            }
            Parcel::EdgeCrash { edge } => self.crash_edge(edge),
            Parcel::EdgeStart { edge } => self.start_edge(edge),
            Parcel::ControlCrash { down_ms } => self.crash_control(down_ms),
            Parcel::ControlCrashBusy { down_ms } => self.crash_when_busy = Some(down_ms),
            Parcel::ControlStart => self.start_control(),
            Parcel::Cut { edge, down_ms } => self.cut(edge, down_ms),
            Parcel::Connect { edge, boot } => self.connect(edge, boot),
            Parcel::Up { edge, conn, message } => {
                if self.works(edge, conn) {
                    let name = edge_node::edge_name(edge);
                    self.control.message(now, unix_ms, &name, conn, *message);
                }
            }
            Parcel::Down { edge, conn, message } => {
                if self.works(edge, conn) {
                    self.message_to_edge(edge, conn, *message);
                }
            }
            Parcel::EdgeNotices { edge, boot, conn } => self.edge_notices(edge, boot, conn),
            Parcel::ControlNotices { edge, conn } => {
                let name = edge_node::edge_name(edge);
                self.control.link_lost(now, unix_ms, &name, conn);
            }
            Parcel::ControlInput { boot, input } => {
                if boot == self.control.boot {
                    self.control.input(now, unix_ms, *input);
                }
            }
            Parcel::CallbackDone { boot, row, ok } => {
                if ok {
                    self.control.callback_delivered(boot, &row.key);
                } else {
                    self.later_ms(1_000, Parcel::CallbackAgain { boot, row });
                }
            }
            Parcel::CallbackAgain { boot, row } => self.control.callback_again(boot, &row),
            Parcel::Upload { edge, header } => self.upload(edge, header),
            Parcel::Dial { region, number, party, script } => {
                let edge = self.edges.get(region).map(EdgeNode::sip_address);
                if let (Some(edge), Some(phones)) = (edge, self.phones.get_mut(region)) {
                    phones.dial(now, edge, &number, party, script);
                }
            }
            Parcel::Phone { region, act } => {
                if let Some(phones) = self.phones.get_mut(region) {
                    phones.act(now, act);
                }
            }
            Parcel::Api { plan, account, action } => self.api(plan, account, action),
            Parcel::ClockStep { by_ms } => {
                self.clock.step_wall(by_ms);
                let unix_ms = self.clock.unix_ms();
                for edge in &mut self.edges {
                    edge.wall_clock(now, unix_ms);
                }
                self.hit(Kind::ClockStep);
            }
            Parcel::Heal => self.heal(),
        }
    }

    fn heal(&mut self) {
        for (kind, count) in
            [Kind::Loss, Kind::Duplication, Kind::Reordering].into_iter().zip(self.net.disturbed())
        {
            self.hits.insert(kind, count);
        }
        self.faults.heal();
        self.crash_when_busy = None;
        let Faults { sip, rtp, trunk, .. } = self.faults.clone();
        self.net.configure(sip, rtp, trunk);
        for link in &mut self.links {
            link.blocked_until = None;
        }
        for edge in &mut self.edges {
            edge.ports_exhausted = 0;
        }
        if !self.control.is_up() {
            self.start_control();
        }
        for edge in 0..self.edges.len() {
            if self.edges[edge].life.is_none() {
                self.start_edge(edge);
            }
        }
    }

    // Processes

    fn start_control(&mut self) {
        if !self.control.is_up() {
            self.control.start(self.now(), self.clock.unix_ms());
        }
    }

    fn crash_control(&mut self, down_ms: u64) {
        if !self.control.is_up() {
            return;
        }
        let most = self.control.uncommitted();
        let committed = self.rng.random_range(0..=most);
        self.hit(Kind::ControlCrash);
        if self.control.kill(committed) > 0 {
            self.hit(Kind::ControlCrashAfterCommit);
        }
        for edge in 0..self.links.len() {
            self.break_link(edge, 0);
        }
        self.later_ms(down_ms, Parcel::ControlStart);
    }

    fn start_edge(&mut self, edge: usize) {
        let (now, unix_ms) = (self.now(), self.clock.unix_ms());
        let exhausted = self.faults.ports_exhausted;
        let Some(node) = self.edges.get_mut(edge).filter(|edge| edge.life.is_none()) else {
            return;
        };
        node.ports_exhausted = exhausted;
        node.start(now, unix_ms);
        let boot = node.boot;
        self.later_ms(10, Parcel::Connect { edge, boot });
    }

    fn crash_edge(&mut self, edge: usize) {
        let Some(node) = self.edges.get_mut(edge).filter(|edge| edge.life.is_some()) else {
            return;
        };
        node.kill();
        self.hit(Kind::EdgeCrash);
        self.break_link(edge, 0);
        let down_ms = self.rng.random_range(200..8_000);
        self.later_ms(down_ms, Parcel::EdgeStart { edge });
    }

    // Links

    fn works(&self, edge: usize, conn: u64) -> bool {
        self.links.get(edge).is_some_and(|link| link.alive && link.conn == conn)
    }

    fn cut(&mut self, edge: usize, down_ms: u64) {
        self.hit(Kind::LinkCut);
        self.break_link(edge, down_ms);
    }

    /// The connection is gone; each end notices by itself.
    fn break_link(&mut self, edge: usize, down_ms: u64) {
        let now = self.now();
        let Some(link) = self.links.get_mut(edge) else { return };
        link.blocked_until = Some(now + Duration::from_millis(down_ms));
        if !std::mem::take(&mut link.alive) {
            return;
        }
        let conn = link.conn;
        let boot = self.edges.get(edge).map_or(0, |edge| edge.boot);
        let notice = self.rng.random_range(0..2_000);
        self.later_ms(notice, Parcel::EdgeNotices { edge, boot, conn });
        let notice = self.rng.random_range(0..2_000);
        self.later_ms(notice, Parcel::ControlNotices { edge, conn });
    }

    fn connect(&mut self, edge: usize, boot: u64) {
        let now = self.now();
        let Some(node) = self.edges.get(edge).filter(|edge| edge.boot == boot) else { return };
        if node.life.as_ref().is_none_or(|life| life.link.is_some()) {
            return;
        }
        let hello = Hello {
            node: node.entry.clone(),
            boot,
            version_min: link_proto::envelope::PROTOCOL_VERSION,
        };
        let control_up = self.control.is_up();
        let Some(link) = self.links.get_mut(edge) else { return };
        let blocked = link.blocked_until.is_some_and(|until| until > now);
        link.attempts = (link.attempts + 1).min(5);
        let pause_ms = (50 << link.attempts).min(1_000);
        // An attempt that leads to nothing is given up and made again.
        let again = if blocked || !control_up || link.alive { pause_ms } else { 5_000 };
        if !blocked && control_up && !link.alive {
            *link = Link { conn: link.conn + 1, alive: true, ..Link::default() };
            self.send_up(edge, Message::Hello(hello));
        }
        self.later_ms(again, Parcel::Connect { edge, boot });
    }

    fn send_up(&mut self, edge: usize, message: Message) {
        let (low, high) = self.faults.link_delay_ms;
        let delay = Duration::from_millis(self.rng.random_range(low..high));
        let now = self.now();
        let Some(link) = self.links.get_mut(edge).filter(|link| link.alive) else { return };
        let at = link.last_up.map_or(now + delay, |last| last.max(now + delay));
        link.last_up = Some(at);
        let (conn, message) = (link.conn, Box::new(message));
        self.at(at, Parcel::Up { edge, conn, message });
    }

    fn send_down(&mut self, node: &NodeId, message: Message) {
        let Some(edge) = self.edges.iter().position(|edge| edge.entry.node == *node) else {
            return;
        };
        let Some(believed) = self.control.connection(node) else { return };
        let (low, high) = self.faults.link_delay_ms;
        let delay = Duration::from_millis(self.rng.random_range(low..high));
        let now = self.now();
        let link = self.links.get_mut(edge).filter(|link| link.alive && link.conn == believed);
        let Some(link) = link else { return };
        let at = link.last_down.map_or(now + delay, |last| last.max(now + delay));
        link.last_down = Some(at);
        let (conn, message) = (link.conn, Box::new(message));
        self.at(at, Parcel::Down { edge, conn, message });
    }

    fn message_to_edge(&mut self, edge: usize, conn: u64, message: Message) {
        let now = self.now();
        let Some(node) = self.edges.get_mut(edge) else { return };
        if let Message::Welcome(_) = message {
            node.connected(now, conn);
            if let Some(link) = self.links.get_mut(edge) {
                link.attempts = 0;
            }
        } else if node.life.as_ref().is_some_and(|life| life.link == Some(conn)) {
            node.message(now, message);
        }
    }

    fn edge_notices(&mut self, edge: usize, boot: u64, conn: u64) {
        let now = self.now();
        let Some(node) = self.edges.get_mut(edge).filter(|edge| edge.boot == boot) else { return };
        if node.life.as_ref().is_some_and(|life| life.link == Some(conn)) {
            node.disconnected(now);
            self.later_ms(50, Parcel::Connect { edge, boot });
        }
    }

    // Wants

    /// Takes what every party wants until nobody wants anything.
    fn pump(&mut self) {
        loop {
            let mut idle = true;
            for edge in 0..self.edges.len() {
                let wants = self.edges.get_mut(edge).map(|edge| std::mem::take(&mut edge.wants));
                for want in wants.unwrap_or_default() {
                    idle = false;
                    self.edge_wants(edge, want);
                }
            }
            for region in 0..self.phones.len() {
                let wants = self.phones.get_mut(region).map(|p| std::mem::take(&mut p.wants));
                for want in wants.unwrap_or_default() {
                    idle = false;
                    self.phone_wants(region, want);
                }
            }
            for want in std::mem::take(&mut self.control.wants) {
                idle = false;
                self.control_wants(want);
            }
            if idle {
                return;
            }
        }
    }

    fn edge_wants(&mut self, edge: usize, want: edge_node::Want) {
        let now = self.now();
        let boot = self.edges.get(edge).map_or(0, |edge| edge.boot);
        match want {
            edge_node::Want::Send { from, to, bytes } => {
                self.net.send(now, Datagram { from, to, bytes });
            }
            edge_node::Want::Trunk { to, channel, bytes } => {
                let to = self.edges.iter().position(|edge| edge.entry.node == to);
                if let Some(to) = to {
                    self.net.send_trunk(now, TrunkPacket { from: edge, to, channel, bytes });
                }
            }
            edge_node::Want::Link(message) => self.send_up(edge, message),
            edge_node::Want::Later { shard, after, input } => {
                let input = Box::new(input);
                self.later(after, Parcel::EdgeInput { edge, boot, shard, input });
            }
            edge_node::Want::Prompt { shard, key } => {
                let failed = self.chance(self.faults.prompt_failed);
                let input = match self.prompts.get(&key).filter(|_| !failed) {
                    Some(prompt) => EdgeInput::PromptReady { key, prompt: prompt.clone() },
                    None => {
                        self.hit(Kind::PromptFailed);
                        EdgeInput::PromptFailed { key, why: "not there".to_owned() }
                    }
                };
                let (after, input) = (self.rng.random_range(0..200), Box::new(input));
                self.later_ms(after, Parcel::EdgeInput { edge, boot, shard, input });
            }
            edge_node::Want::Upload(header) => {
                self.later_ms(200, Parcel::Upload { edge, header });
            }
        }
    }

    fn upload(&mut self, edge: usize, header: RecordingHeader) {
        if !self.control.is_up() || !self.links.get(edge).is_some_and(|link| link.alive) {
            return self.later_ms(1_000, Parcel::Upload { edge, header });
        }
        let (recording, duration_ms) = (header.recording, header.duration_ms);
        let channels = u32::from(header.channels);
        let input = ControlInput::RecordingStored { recording, duration_ms, channels };
        self.control.input(self.now(), self.clock.unix_ms(), input);
    }

    fn phone_wants(&mut self, region: usize, want: phone::Want) {
        match want {
            phone::Want::Send { from, to, bytes, sure: true } => {
                let edge = self.edges.iter().position(|e| e.sip_address().ip() == to.ip());
                if let Some(edge) = edge {
                    let now = self.now();
                    if let Some(node) = self.edges.get_mut(edge) {
                        node.datagram(now, from, to, bytes);
                    }
                }
            }
            phone::Want::Send { from, to, bytes, .. } => {
                self.net.send(self.now(), Datagram { from, to, bytes });
            }
            phone::Want::Later(after, act) => self.later(after, Parcel::Phone { region, act }),
        }
    }

    fn control_wants(&mut self, want: control_node::Want) {
        match want {
            control_node::Want::Link(node, message) => self.send_down(&node, message),
            control_node::Want::Callback(row) => self.try_callback(row),
            control_node::Want::Effect(effect) => match effect {
                Effect::Fetch(request) => self.fetch(*request),
                Effect::PrepareMedia { id, media, .. } => {
                    let (result, after_ms) = self.prepare(media);
                    let input = Box::new(ControlInput::MediaReady { id, result });
                    let boot = self.control.boot;
                    self.later_ms(after_ms, Parcel::ControlInput { boot, input });
                }
                Effect::Reply(ApiReply { reply, result }) => {
                    if let Some(plan) = self.replies.remove(&(self.control.boot, reply)) {
                        self.answered.push(Answered { plan, result });
                    }
                }
                _ => {}
            },
        }
    }

    fn fetch(&mut self, request: FetchRequest) {
        let FetchRequest { id, request, overrides, .. } = request;
        let at_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut result = self.apps.handle(at_ms, &request);
        if self.chance(self.faults.web_broken) {
            self.hit(Kind::WebBroken);
            let kind = match self.rng.random_range(0..3) {
                0 => FetchFailureKind::Refused,
                1 => FetchFailureKind::Protocol,
                _ => FetchFailureKind::Dns,
            };
            result = Err(FetchFailure { kind, message: format!("{kind:?}"), elapsed_ms: 30 });
        } else if self.chance(self.faults.web_slow) {
            self.hit(Kind::WebSlow);
            let slow_ms = self.rng.random_range(500..20_000);
            if let Ok(response) = &mut result {
                response.elapsed_ms += slow_ms;
            }
        }
        let limit_ms = overrides.total_ms;
        let took_ms = match &result {
            Ok(response) => response.elapsed_ms,
            Err(failure) => failure.elapsed_ms,
        };
        if took_ms > limit_ms {
            let (kind, elapsed_ms) = (FetchFailureKind::TotalTimeout, limit_ms);
            result = Err(FetchFailure { kind, message: "too slow".to_owned(), elapsed_ms });
        }
        let input = Box::new(ControlInput::FetchDone { id, result });
        let boot = self.control.boot;
        self.later_ms(took_ms.min(limit_ms), Parcel::ControlInput { boot, input });
    }

    fn prepare(&mut self, media: MediaRequest) -> (Result<MediaFile, MediaFailure>, u64) {
        if self.chance(self.faults.prompt_failed) {
            self.hit(Kind::PromptFailed);
            let message = "it is broken".to_owned();
            return (Err(MediaFailure { code: 12_400, message }), 50);
        }
        let (name, duration_ms) = match media {
            MediaRequest::Url { url } => {
                let length = url.rsplit("ms=").next().and_then(|n| n.parse().ok());
                (url, length.unwrap_or(1_000))
            }
            MediaRequest::Speech { text, .. } => {
                let length = 60 * text.len() as u64;
                (text, length)
            }
        };
        let key = PromptKey(name);
        self.prompts.entry(key.clone()).or_insert_with(|| prompt(duration_ms));
        let after_ms = self.rng.random_range(5..300);
        (Ok(MediaFile { key, duration_ms }), after_ms)
    }

    fn try_callback(&mut self, row: Box<CallbackRow>) {
        let at_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ok = !self.chance(self.faults.callback_broken);
        // A request that fails for the sender may have arrived all the same.
        if ok || self.chance(500) {
            self.apps.take(at_ms, &row.request);
        }
        if !ok {
            self.hit(Kind::CallbackBroken);
        }
        let (boot, after_ms) = (self.control.boot, self.rng.random_range(5..100));
        self.later_ms(after_ms, Parcel::CallbackDone { boot, row, ok });
    }

    fn api(&mut self, plan: usize, account: AccountSid, request: Request) {
        if !self.control.is_up() {
            return;
        }
        let action = match request {
            Request::Create(form) => ApiAction::CreateCall { form },
            Request::Update(form) => {
                let Some(call) = self.first_leg(plan) else { return };
                ApiAction::UpdateCall { call, form }
            }
        };
        self.api_requests += 1;
        self.reply_next += 1;
        let reply = self.reply_next;
        self.replies.insert((self.control.boot, reply), plan);
        let input = ControlInput::Api(ApiRequest { reply, account, action });
        self.control.input(self.now(), self.clock.unix_ms(), input);
    }

    /// The first leg of a plan, as the store knows it: by its number, or by the API's answer.
    pub fn first_leg(&self, plan: usize) -> Option<link_proto::CallSid> {
        let mut answers = self.answered.iter().filter(|answered| answered.plan == plan);
        if let Some(record) = answers.find_map(|answered| answered.result.as_ref().ok()) {
            return Some(record.sid);
        }
        let suffix = format!("{plan:04}");
        let records = self.control.store.calls.values();
        let mut first = records.filter(|r| r.parent.is_none() && r.to.starts_with("+49"));
        first.find(|record| record.to.ends_with(&suffix)).map(|record| record.sid)
    }

    /// Accounts of the customers in order.
    pub fn accounts(&self) -> &[AccountSid] {
        &self.accounts
    }

    /// Brings `hits` up to date with what nodes count themselves.
    pub fn count_hits(&mut self) {
        let refused: u64 = self.edges.iter().map(|edge| edge.allocations_refused).sum();
        if refused > 0 {
            self.hits.insert(Kind::PortsExhausted, refused);
        }
        self.hits.retain(|_, count| *count > 0);
    }
}
