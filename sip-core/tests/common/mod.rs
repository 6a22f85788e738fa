//! Two or more endpoints on one virtual clock and a bad network.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sip_core::{
    Body, Destination, DialogHandle, Event, Input, InviteParams, NameAddr, Output, SipConfig,
    SipEndpoint, Transport, Uri,
};

/// What the network does to datagrams.
#[derive(Clone, Copy)]
pub struct Faults {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    pub delay_max_ms: u64,
    /// One byte is replaced.
    pub corrupt_percent: u64,
}

impl Faults {
    pub const NONE: Faults =
        Faults { loss_percent: 0, duplicate_percent: 0, delay_max_ms: 0, corrupt_percent: 0 };
}

/// A user agent with what it has been told.
pub struct Agent {
    pub addr: SocketAddr,
    pub sip: SipEndpoint,
    pub events: VecDeque<Event>,
}

/// Agents, datagrams in flight, a clock.
pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub rng: StdRng,
    pub faults: Faults,
    pub agents: Vec<Agent>,
    pub transport: Transport,
    in_flight: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Bytes)>,
    sequence: u64,
    /// Every datagram sent, lost ones included: (from, to, bytes).
    pub log: Vec<(SocketAddr, SocketAddr, Bytes)>,
}

pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                       m=audio 4000 RTP/AVP 0\r\n";

pub fn sdp() -> Option<Body> {
    Some(Body::sdp(SDP))
}

impl World {
    pub fn new(seed: u64, faults: Faults, agents: usize) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let start = Instant::now();
        let agents = (0..agents)
            .map(|index| {
                let addr: SocketAddr = format!("192.0.2.{}:5060", index + 1).parse().expect("addr");
                let mut config = SipConfig::new(addr.ip().to_string(), 5060, [index as u8; 32]);
                config.call_max = Duration::from_secs(600);
                let sip = SipEndpoint::new(config, StdRng::seed_from_u64(rng.next_u64()));
                Agent { addr, sip, events: VecDeque::new() }
            })
            .collect();
        World {
            start,
            now: start,
            rng,
            faults,
            agents,
            transport: Transport::Udp,
            in_flight: BTreeMap::new(),
            sequence: 0,
            log: Vec::new(),
        }
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.rng.next_u64() % 100 < percent
    }

    pub fn params(&self, to: usize) -> InviteParams {
        let uri = |user: &str| {
            Uri::parse(&format!("sip:{user}@{}", self.agents[to].addr)).expect("legal")
        };
        InviteParams {
            body: sdp(),
            ..InviteParams::new(
                Destination::new(self.transport, self.agents[to].addr),
                uri("bob"),
                NameAddr::new(Uri::parse("sip:alice@example.com").expect("legal")),
                NameAddr::new(uri("bob")),
            )
        }
    }

    pub fn invite(&mut self, from: usize, to: usize) -> DialogHandle {
        let params = self.params(to);
        let now = self.now;
        let handle = self.agents[from].sip.invite(now, params).expect("room for a call");
        self.flush(from);
        handle
    }

    /// Runs one command on an agent and sends what it says.
    pub fn with<R>(&mut self, agent: usize, run: impl FnOnce(&mut SipEndpoint, Instant) -> R) -> R {
        let now = self.now;
        let result = run(&mut self.agents[agent].sip, now);
        self.flush(agent);
        result
    }

    /// Puts a datagram on the wire, faults applied.
    pub fn transmit(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        self.log.push((from, to, bytes.clone()));
        let copies = 1 + u64::from(self.percent(self.faults.duplicate_percent));
        for _ in 0..copies {
            if self.percent(self.faults.loss_percent) {
                continue;
            }
            let mut bytes = bytes.clone();
            if self.percent(self.faults.corrupt_percent) {
                let mut copy = bytes.to_vec();
                let at = (self.rng.next_u64() as usize) % copy.len();
                copy[at] = self.rng.next_u64() as u8;
                bytes = copy.into();
            }
            let delay = 1 + self.rng.next_u64() % (self.faults.delay_max_ms + 1);
            self.sequence += 1;
            let key = (self.now + Duration::from_millis(delay), self.sequence);
            self.in_flight.insert(key, (from, to, bytes));
        }
    }

    pub fn flush(&mut self, agent: usize) {
        while let Some(output) = self.agents[agent].sip.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    let from = self.agents[agent].addr;
                    self.transmit(from, to.addr, bytes);
                }
                Output::Event(event) => self.agents[agent].events.push_back(event),
            }
        }
    }

    /// Moves to the next thing that happens, at most until `limit`. False if nothing happens.
    pub fn step(&mut self, limit: Instant) -> bool {
        let datagram = self.in_flight.keys().next().map(|(at, _)| *at);
        let timer = self.agents.iter().filter_map(|agent| agent.sip.poll_timeout()).min();
        let Some(next) = datagram.into_iter().chain(timer).min().filter(|at| *at <= limit) else {
            self.now = self.now.max(limit);
            return false;
        };
        self.now = self.now.max(next);
        if datagram == Some(next) {
            if let Some((_, (from, to, bytes))) = self.in_flight.pop_first() {
                self.deliver(from, to, bytes);
            }
            return true;
        }
        for index in 0..self.agents.len() {
            let now = self.now;
            self.agents[index].sip.handle_timeout(now);
            self.flush(index);
        }
        true
    }

    pub fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let (now, transport) = (self.now, self.transport);
        if let Some(index) = self.agents.iter().position(|agent| agent.addr == to) {
            let input = Input::Datagram { source: from, local: to, transport, bytes };
            self.agents[index].sip.handle_input(now, input);
            self.flush(index);
        }
    }

    /// Lets `ms` pass; nobody acts on events.
    pub fn run_ms(&mut self, ms: u64) {
        let limit = self.now + Duration::from_millis(ms);
        while self.step(limit) {}
    }

    pub fn event(&mut self, agent: usize) -> Option<Event> {
        self.agents[agent].events.pop_front()
    }

    /// The next event of an agent as one word and its handle.
    pub fn word(&mut self, agent: usize) -> String {
        self.event(agent).as_ref().map_or_else(|| "-".to_owned(), describe)
    }

    pub fn idle(&self) -> bool {
        self.agents
            .iter()
            .all(|agent| agent.sip.dialogs_live() == 0 && agent.sip.transactions_live() == 0)
    }
}

/// An event as one word.
pub fn describe(event: &Event) -> String {
    match event {
        Event::Incoming { .. } => "incoming".to_owned(),
        Event::Canceled { .. } => "canceled".to_owned(),
        Event::Provisional { status, .. } => format!("provisional {status}"),
        Event::Answered { .. } => "answered".to_owned(),
        Event::Failed { status, cause, .. } => format!("failed {status} {cause:?}"),
        Event::AckReceived { sdp, .. } => format!("ack{}", if sdp.is_some() { " sdp" } else { "" }),
        Event::Ended { reason, .. } => match reason {
            sip_core::EndReason::RemoteBye { .. } => "ended RemoteBye".to_owned(),
            other => format!("ended {other:?}"),
        },
        Event::ReInvite { .. } => "reinvite".to_owned(),
        Event::ReInviteAnswered { .. } => "reinvite answered".to_owned(),
        Event::ReInviteFailed { status, .. } => format!("reinvite failed {status}"),
        Event::Info { .. } => "info".to_owned(),
        Event::Refer { .. } => "refer".to_owned(),
        Event::Request { .. } => "request".to_owned(),
        Event::RequestDone { .. } => "done".to_owned(),
    }
}

/// The leg an event speaks of.
pub fn handle_of(event: &Event) -> Option<DialogHandle> {
    match event {
        Event::Incoming { handle, .. }
        | Event::Canceled { handle, .. }
        | Event::Provisional { handle, .. }
        | Event::Answered { handle, .. }
        | Event::Failed { handle, .. }
        | Event::AckReceived { handle, .. }
        | Event::Ended { handle, .. }
        | Event::ReInvite { handle, .. }
        | Event::ReInviteAnswered { handle, .. }
        | Event::ReInviteFailed { handle, .. }
        | Event::Info { handle, .. }
        | Event::Refer { handle, .. }
        | Event::Request { handle, .. } => Some(*handle),
        Event::RequestDone { handle, .. } => *handle,
    }
}

pub fn is_terminal(event: &Event) -> bool {
    matches!(event, Event::Canceled { .. } | Event::Failed { .. } | Event::Ended { .. })
}
