//! [`EdgeCore`]: the hub. It owns the state and only dispatches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_media::command::{SessionKey, WorkerCommand};
use link_proto::CallSid;
use link_proto::call::{Blame, CallEvent, EndReason};
use link_proto::table::Tables;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sip_core::{DialogHandle, Header, HeaderName, Message, Method, SipEndpoint, Transport};

use crate::admission::{Admission, Verdict};
use crate::call::leg::{Leg, LegEnd};
use crate::call::session::Call;
use crate::config::{EdgeConfig, Settings};
use crate::controls::Controls;
use crate::counters::Counters;
use crate::delivery::Deliveries;
use crate::io::{ControlIndex, Fact, Input, LinkInput, Output, ResolveId};
use crate::media::op::PromptWaits;
use crate::ports::Ports;
use crate::route_table::RouteCalls;
use crate::shard::call_id_of;
use crate::timers::{TimerKey, Timers};

/// One signalling shard of an edge. See the crate page.
pub struct EdgeCore {
    pub(crate) config: EdgeConfig,
    pub(crate) sip: SipEndpoint,
    pub(crate) rng: StdRng,
    pub(crate) admission: Admission,
    pub(crate) tables: Tables,
    /// Nodes by the number under which workers know their trunks.
    pub(crate) peers: Vec<(link_proto::NodeId, bool)>,
    pub(crate) controls: Controls,
    pub(crate) deliveries: Deliveries,
    pub(crate) calls: BTreeMap<CallSid, Call>,
    pub(crate) by_session_key: BTreeMap<SessionKey, CallSid>,
    pub(crate) legs: BTreeMap<CallSid, Leg>,
    pub(crate) by_dialog: BTreeMap<DialogHandle, CallSid>,
    /// Call-IDs of inbound legs, so that a repeated INVITE of theirs is never shed.
    pub(crate) inbound_call_ids: BTreeSet<Vec<u8>>,
    pub(crate) ports: Ports,
    pub(crate) prompts: PromptWaits,
    pub(crate) resolving: BTreeMap<ResolveId, CallSid>,
    pub(crate) resolve_next: u64,
    pub(crate) route_calls: RouteCalls,
    /// Events of sessions that the route table drives.
    pub(crate) route_events: VecDeque<(CallSid, CallSid, CallEvent)>,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
    pub(crate) draining: bool,
    clock: (Instant, u64),
    outputs: VecDeque<Output>,
}

impl EdgeCore {
    /// A shard that knows no control node yet. `tables` are those kept on disk.
    pub fn new(mut config: EdgeConfig, tables: Tables, mut rng: StdRng, now: Instant) -> Self {
        // Digits by INFO; there is no transfer and no messaging yet.
        config.sip.served_methods = vec![Method::Info];
        let sip_rng = StdRng::from_seed(rng.random());
        let mut core = Self {
            sip: SipEndpoint::new(config.sip.clone(), sip_rng),
            admission: Admission::new(config.providers.clone(), now),
            ports: Ports::new(config.shard, config.ports_max, config.workers),
            deliveries: Deliveries::new(config.sessions_kept_max, config.events_max),
            rng,
            tables: Tables::default(),
            peers: Vec::new(),
            controls: Controls::new(&config.controls),
            calls: BTreeMap::new(),
            by_session_key: BTreeMap::new(),
            legs: BTreeMap::new(),
            by_dialog: BTreeMap::new(),
            inbound_call_ids: BTreeSet::new(),
            prompts: PromptWaits::default(),
            resolving: BTreeMap::new(),
            resolve_next: 0,
            route_calls: RouteCalls::default(),
            route_events: VecDeque::new(),
            timers: Timers::default(),
            counters: Counters::default(),
            draining: false,
            clock: (now, 0),
            outputs: VecDeque::new(),
            config,
        };
        core.tables = tables;
        core
    }

    /// Door 1.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        self.dispatch(now, input);
        self.settle(now);
    }

    /// Door 2: runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sip.handle_timeout(now);
        self.settle(now);
        while let Some(key) = self.timers.pop_due(now) {
            self.on_timer(now, key);
            self.settle(now);
        }
    }

    /// Door 3: the next thing to do; drain to `None` after each of the other doors.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Door 4: when to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.sip.poll_timeout(), self.timers.next()].into_iter().flatten().min()
    }

    fn dispatch(&mut self, now: Instant, input: Input) {
        match input {
            Input::Datagram { source, local, transport, bytes } => {
                self.on_datagram(now, source, local, transport, bytes);
            }
            Input::SendFailed { to } => {
                self.sip.handle_input(now, sip_core::Input::SendFailed { to });
            }
            Input::Undelivered { to, quoted } => self.on_undelivered(now, to, &quoted),
            Input::Link(control, input) => self.on_link(now, control, input),
            Input::Worker { event, .. } => self.on_worker_event(now, event),
            Input::MediaAllocated { port, rtp, rtcp } => {
                self.on_media_allocated(now, port, rtp, rtcp);
            }
            Input::MediaAllocationFailed { port, why } => {
                self.on_media_allocation_failed(now, port, why);
            }
            Input::PromptReady { key, prompt } => self.on_prompt(now, &key, Some(prompt)),
            Input::PromptFailed { key, .. } => self.on_prompt(now, &key, None),
            Input::RecordingReady { op, recorder } => self.on_recorder(now, op, Some(recorder)),
            Input::RecordingFailed { op, .. } => self.on_recorder(now, op, None),
            Input::TrunkState { peer, up } => self.on_trunk_state(now, peer, up),
            Input::Resolved { id, address } => self.on_resolved(now, id, address),
            Input::WallClock { unix_ms } => self.clock = (now, unix_ms),
            Input::Settings(settings) => self.change(now, *settings),
            Input::Drain { end_after } => self.drain(now, end_after),
        }
    }

    fn on_link(&mut self, now: Instant, control: ControlIndex, input: LinkInput) {
        match input {
            LinkInput::Connected => self.on_control_connected(now, control),
            LinkInput::Disconnected => self.on_control_lost(now, control),
            LinkInput::Command(command) => self.on_command(now, control, command),
            LinkInput::CommandUnusable { about, why } => {
                self.on_command_unusable(control, about, why);
            }
            LinkInput::Refused(refused) => self.on_refused(now, &refused),
            LinkInput::EventAck(ack) => self.on_event_ack(&ack),
            LinkInput::Orphans(orphans) => self.on_orphans(now, control, orphans),
            LinkInput::Tables(tables) => {
                if self.controls.take_tables(control, tables) && self.use_tables() {
                    self.push(Output::PersistTables(self.tables.clone()));
                }
            }
        }
    }

    fn on_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local: SocketAddr,
        transport: Transport,
        bytes: Bytes,
    ) {
        let verdict = self.admission.judge(now, source.ip(), &bytes, self.sip.token_key());
        let known =
            |bytes: &[u8]| call_id_of(bytes).is_some_and(|id| self.inbound_call_ids.contains(id));
        match verdict {
            Verdict::Drop => self.counters.datagrams_unlisted += 1,
            Verdict::Shed if !known(&bytes) => {
                self.counters.calls_shed_rate += 1;
                self.shed(source, local, transport, &bytes);
            }
            Verdict::Pass | Verdict::Shed => {
                let input = sip_core::Input::Datagram { source, local, transport, bytes };
                self.sip.handle_input(now, input);
            }
        }
    }

    /// RFC 3261 §18.4. Anybody can send an ICMP error, but only who saw the datagram can quote it.
    fn on_undelivered(&mut self, now: Instant, to: SocketAddr, quoted: &[u8]) {
        if !self.sip.token_key().carries(quoted) {
            self.counters.icmp_ignored += 1;
            return;
        }
        self.counters.icmp_believed += 1;
        let to = sip_core::Destination::udp(to);
        self.sip.handle_input(now, sip_core::Input::SendFailed { to });
    }

    /// 503 without any state; the ACK that follows matches nothing and is absorbed.
    fn shed(&mut self, source: SocketAddr, local: SocketAddr, transport: Transport, bytes: &Bytes) {
        let Ok(request) = Message::parse(bytes) else { return };
        let Some(via) = request.top_via().filter(|_| request.is_method(&Method::Invite)) else {
            return;
        };
        let from = sip_core::Destination { addr: source, transport, local: Some(local) };
        let to = sip_core::transport::response_destination(&via, from);
        // RFC 3261 §8.2.7: a stateless UAS answers a retransmission with the same To tag.
        let tag = format!("{:08x}", crate::shard::shard_of(bytes, u32::MAX));
        let mut response = Message::response_to(&request, 503, "", Some(&tag));
        response.headers.push(self.retry_after());
        self.push(Output::Send { to, bytes: response.to_bytes() });
    }

    pub(crate) fn retry_after(&self) -> Header {
        Header::new(HeaderName::RetryAfter, self.config.retry_after_s.to_string())
    }

    /// Carries on until nothing inside has anything to say.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.sip.poll_output() {
                match output {
                    sip_core::Output::Send { to, bytes } => self.push(Output::Send { to, bytes }),
                    sip_core::Output::Event(event) => self.on_sip_event(now, event),
                }
            } else if let Some((session, leg, event)) = self.route_events.pop_front() {
                self.on_route_event(now, session, leg, &event);
            } else {
                break;
            }
        }
    }

    fn on_timer(&mut self, now: Instant, key: TimerKey) {
        match key {
            TimerKey::Offer(leg) => {
                self.end_leg(now, leg, LegEnd::new(EndReason::ControlLost, Blame::Us));
            }
            TimerKey::Dial(leg) => self.on_dial_timeout(now, leg),
            TimerKey::Ack(leg) => {
                // The endpoint has begun its BYE at the same moment and would report this only
                // when that is answered, or 32 s later.
                self.end_leg(now, leg, LegEnd::new(EndReason::AckTimeout, Blame::Carrier));
            }
            TimerKey::TimeLimit(leg) => {
                self.end_leg(now, leg, LegEnd::new(EndReason::TimeLimit, Blame::Us));
            }
            TimerKey::ControlHold(leg) if self.can_be_offered_again(leg) => {
                self.offer_again(now, leg);
            }
            TimerKey::ControlHold(leg) => {
                self.counters.control_lost += 1;
                self.end_leg(now, leg, LegEnd::new(EndReason::ControlLost, Blame::Us));
            }
            TimerKey::Stats(leg) => {
                self.counters.stats_late += 1;
                self.finish_leg(now, leg);
            }
            TimerKey::PortRemoval(port) => self.release_port(port),
            TimerKey::Allocation(port) => {
                self.on_media_allocation_failed(now, port, "no answer from the shell".to_owned());
            }
            TimerKey::OpReady(op) => self.on_op_not_ready(now, op),
            TimerKey::Drain => self.end_all(now, LegEnd::new(EndReason::Drain, Blame::Us)),
        }
    }

    /// Legs that are up keep what they were made with.
    fn change(&mut self, now: Instant, settings: Settings) {
        let Settings { providers, routes, resources, limits, .. } = settings;
        self.admission = Admission::new(providers.clone(), now);
        if self.controls.tables().is_none() && self.tables.version == 0 {
            self.tables.routes = routes;
        }
        let config = &mut self.config;
        (config.providers, config.resources, config.limits) = (providers, resources, limits);
        config.legs_max = settings.legs_max.min(config.sip.dialogs_max);
        config.media_timeout = settings.media_timeout;
        config.control_lost_hold = settings.control_lost_hold;
    }

    fn drain(&mut self, now: Instant, end_after: Duration) {
        self.draining = true;
        self.sip.set_available(false);
        self.timers.set(TimerKey::Drain, now + end_after);
    }

    /// Wall time of `now` in ms since 1970.
    pub(crate) fn unix_ms(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.clock.0).as_millis();
        self.clock.1.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn fact(&mut self, fact: Fact) {
        self.push(Output::Fact(fact));
    }

    pub(crate) fn worker(&mut self, worker: u16, command: WorkerCommand) {
        self.push(Output::Worker { worker, command });
    }
}
