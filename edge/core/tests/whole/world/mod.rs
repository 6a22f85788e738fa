//! An edge core on a virtual clock, with phones, a control node that is scripted by the test, and a
//! media worker that pretends to play.
#![allow(missing_docs)]

pub mod control;
pub mod phone;
pub mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_core::{
    ControlIndex, EdgeConfig, EdgeCore, Input, LinkInput, LinkOutput, Output, Provider,
};
use edge_media::command::{PortKey, Prompt, RecorderHandle};
use link_proto::NodeId;
use link_proto::table::Tables;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sip_core::{SipConfig, Transport};

use control::Control;
use phone::Phone;
use worker::FakeWorker;

pub const EDGE: &str = "10.0.0.1:5060";
pub const ALICE: &str = "10.0.1.1:5060";
pub const BOB: &str = "10.0.1.2:5060";
pub const CAROL: &str = "10.0.1.3:5060";

#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub loss_percent: u32,
    pub duplicate_percent: u32,
    pub delay_max_ms: u64,
}

#[derive(Debug)]
pub enum Parcel {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Bytes },
    ToEdge(Input),
}

pub struct World {
    pub now: Instant,
    pub edge: EdgeCore,
    pub phones: BTreeMap<SocketAddr, Phone>,
    pub control: Control,
    /// The control node that [`Self::control`] is, of those that the edge knows.
    pub index: ControlIndex,
    pub worker: FakeWorker,
    pub faults: Faults,
    /// Sockets are bound after so many ms; `None` = never to be had.
    pub allocation_ms: Option<u64>,
    /// Prompts come after so many ms; `None` = they fail.
    pub prompt_ms: Option<u64>,
    pub sent: Vec<(SocketAddr, Bytes)>,
    pub allocated: BTreeMap<PortKey, bool>,
    pub outputs: Vec<String>,
    pub persisted: Option<Tables>,
    pub names: BTreeMap<String, SocketAddr>,
    parcels: BTreeMap<(Instant, u64), Parcel>,
    parcel_next: u64,
    port_next: u16,
    rng: StdRng,
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn config() -> EdgeConfig {
    let sip = SipConfig::new("10.0.0.1", 5060, [7; 32]);
    let mut config = EdgeConfig::new(NodeId::from("edge-eu"), sip);
    config.providers = vec![Provider {
        name: "phones".to_owned(),
        networks: vec!["10.0.1.0/24".parse().expect("a network")],
        nat: false,
        calls_per_s_max: 100,
    }];
    config
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, config(), Tables::default())
    }

    pub fn with(seed: u64, config: EdgeConfig, tables: Tables) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let edge_rng = StdRng::from_seed(rng.random());
        let mut world = Self {
            now,
            edge: EdgeCore::new(config, tables, edge_rng, now),
            phones: BTreeMap::new(),
            control: Control::default(),
            index: ControlIndex(0),
            worker: FakeWorker::default(),
            faults: Faults::default(),
            allocation_ms: Some(0),
            prompt_ms: Some(0),
            sent: Vec::new(),
            allocated: BTreeMap::new(),
            outputs: Vec::new(),
            persisted: None,
            names: BTreeMap::new(),
            parcels: BTreeMap::new(),
            parcel_next: 0,
            port_next: 20_000,
            rng,
        };
        for (n, text) in [ALICE, BOB, CAROL].into_iter().enumerate() {
            let phone = Phone::new(address(text), StdRng::seed_from_u64(seed * 10 + n as u64));
            world.phones.insert(address(text), phone);
        }
        world.input(Input::WallClock { unix_ms: 1_700_000_000_000 });
        world.connect();
        world
    }

    pub fn phone(&mut self, text: &str) -> &mut Phone {
        self.phones.get_mut(&address(text)).expect("a phone")
    }

    /// Does something with a phone, then lets the world take notice.
    pub fn with_phone<T>(&mut self, text: &str, act: impl FnOnce(&mut Phone, Instant) -> T) -> T {
        let now = self.now;
        let result = act(self.phone(text), now);
        self.pump();
        result
    }

    pub fn input(&mut self, input: Input) {
        self.edge.handle_input(self.now, input);
        self.pump();
    }

    pub fn connect(&mut self) {
        self.control.connected = true;
        self.input(Input::Link(self.index, LinkInput::Connected));
        for command in self.control.unanswered() {
            self.input(Input::Link(self.index, LinkInput::Command(command)));
        }
    }

    pub fn disconnect(&mut self) {
        self.control.connected = false;
        self.input(Input::Link(self.index, LinkInput::Disconnected));
    }

    pub fn later(&mut self, after: Duration, parcel: Parcel) {
        self.parcel_next += 1;
        self.parcels.insert((self.now + after, self.parcel_next), parcel);
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let faults = self.faults;
        let copies = if self.rng.random_range(0..100) < faults.duplicate_percent { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.random_range(0..100) < faults.loss_percent {
                continue;
            }
            let delay = Duration::from_millis(self.rng.random_range(0..=faults.delay_max_ms));
            self.later(delay, Parcel::Datagram { from, to, bytes: bytes.clone() });
        }
    }

    /// Takes every output of every party until there is none.
    pub fn pump(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.edge.poll_output() {
                idle = false;
                self.on_edge_output(output);
            }
            let mut mail = Vec::new();
            for phone in self.phones.values_mut() {
                mail.extend(phone.pump(self.now));
            }
            for (from, to, bytes) in mail {
                idle = false;
                self.post(from, to, &bytes);
            }
            for (after, event) in self.worker.take_events() {
                idle = false;
                self.later(after, Parcel::ToEdge(Input::Worker { worker: 0, event }));
            }
            for input in self.control.take_inputs() {
                idle = false;
                self.edge.handle_input(self.now, Input::Link(self.index, input));
            }
            if idle {
                return;
            }
        }
    }

    fn on_edge_output(&mut self, output: Output) {
        match output {
            Output::Send { to, bytes } => {
                self.sent.push((to.addr, bytes.clone()));
                self.post(address(EDGE), to.addr, &bytes);
            }
            Output::Link(_, output) => {
                assert!(
                    self.control.connected || matches!(output, LinkOutput::CommandAck(_)),
                    "{output:?} while control is away"
                );
                self.control.receive(output);
            }
            Output::AllocateMedia { port, .. } => self.allocate(port),
            Output::ReleaseMedia { port, .. } => {
                assert_eq!(self.allocated.remove(&port), Some(true), "released twice: {port:?}");
            }
            Output::Worker { command, .. } => self.worker.receive(command),
            Output::FetchPrompt { key } => {
                let input = match self.prompt_ms {
                    Some(_) => {
                        let prompt = Prompt { samples: vec![0; 8_000] }.into();
                        Input::PromptReady { key, prompt }
                    }
                    None => Input::PromptFailed { key, why: "gone".to_owned() },
                };
                let after = Duration::from_millis(self.prompt_ms.unwrap_or(0));
                self.later(after, Parcel::ToEdge(input));
            }
            Output::OpenRecording { op, .. } => {
                let input = Input::RecordingReady { op, recorder: RecorderHandle(1) };
                self.later(Duration::ZERO, Parcel::ToEdge(input));
            }
            Output::Resolve { id, host, .. } => {
                let address = self.names.get(&host).copied();
                self.later(
                    Duration::from_millis(5),
                    Parcel::ToEdge(Input::Resolved { id, address }),
                );
            }
            Output::PersistTables(tables) => self.persisted = Some(tables),
            other @ (Output::CloseRecording { .. }
            | Output::DropRecording { .. }
            | Output::TrunkPeer { .. }
            | Output::Fact(_)) => self.outputs.push(format!("{other:?}")),
        }
    }

    fn allocate(&mut self, port: PortKey) {
        let Some(ms) = self.allocation_ms else {
            let why = "ports exhausted".to_owned();
            self.later(Duration::ZERO, Parcel::ToEdge(Input::MediaAllocationFailed { port, why }));
            return;
        };
        self.allocated.insert(port, true);
        self.port_next += 2;
        let at = |port: u16| SocketAddr::new("10.0.0.1".parse().expect("ip"), port);
        let (rtp, rtcp) = (at(self.port_next), at(self.port_next + 1));
        let input = Input::MediaAllocated { port, rtp, rtcp };
        self.later(Duration::from_millis(ms), Parcel::ToEdge(input));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let phones = self.phones.values().filter_map(|phone| phone.sip.poll_timeout());
        let parcel = self.parcels.keys().next().map(|(at, _)| *at);
        phones.chain(parcel).chain(self.edge.poll_timeout()).min()
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::ToEdge(input) => self.edge.handle_input(self.now, input),
            Parcel::Datagram { from, to, bytes } if to == address(EDGE) => {
                let transport = Transport::Udp;
                let input = Input::Datagram { source: from, local: to, transport, bytes };
                self.edge.handle_input(self.now, input);
            }
            Parcel::Datagram { from, to, bytes } => {
                if let Some(phone) = self.phones.get_mut(&to) {
                    phone.receive(self.now, from, bytes);
                }
            }
        }
    }

    /// Lets so much time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.pump();
        while let Some(at) = self.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let due = self.parcels.keys().next().copied().filter(|(at, _)| *at <= self.now);
            if let Some(parcel) = due.and_then(|key| self.parcels.remove(&key)) {
                self.deliver(parcel);
            } else {
                self.edge.handle_timeout(self.now);
                for phone in self.phones.values_mut() {
                    phone.sip.handle_timeout(self.now);
                }
            }
            self.pump();
        }
        self.now = until;
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// Sends a raw datagram to the edge.
    pub fn datagram(&mut self, from: &str, text: &str) {
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        let input = Input::Datagram {
            source: address(from),
            local: address(EDGE),
            transport: Transport::Udp,
            bytes,
        };
        self.input(input);
    }

    /// After all calls: every leg ended exactly once and nothing is left anywhere.
    pub fn check_clean(&mut self) {
        self.run(Duration::from_secs(100));
        self.control.check_ends();
        for (name, count) in self.edge.residue() {
            assert_eq!(count, 0, "{name} left");
        }
        assert!(self.allocated.is_empty(), "sockets left: {:?}", self.allocated);
        assert!(self.worker.is_empty(), "worker keeps {:?}", self.worker);
        for phone in self.phones.values() {
            assert_eq!(phone.sip.dialogs_live(), 0, "{} keeps a call", phone.address);
        }
    }
}
