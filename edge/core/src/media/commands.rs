//! Ports of a session, and media commands that become worker commands.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_media::command::{ChannelConfig, OpKey, PortKey, RecordPause, WorkerCommand};
use link_proto::call::{Blame, CallEvent, EndReason};
use link_proto::media::{AudioCodec, LinkPath, MediaCommand, MediaEvent, Port};
use link_proto::{CallSid, ChannelId, NodeId, OpId};
use rand::RngExt as _;

use crate::call::leg::LegEnd;
use crate::call::session::Call;
use crate::core::EdgeCore;
use crate::io::{Fact, Output};
use crate::ports::{PortOwner, PortRecord, PortState};
use crate::timers::TimerKey;

/// How long the shell may take to bind sockets.
const ALLOCATION_MAX: Duration = Duration::from_secs(5);
/// How long a worker may take to let go of a port before its sockets are closed anyway.
const REMOVAL_MAX: Duration = Duration::from_secs(10);
/// Snapshots of a session that may wait for the worker's answer.
const SNAPSHOTS_MAX: usize = 64;
/// Media commands of a session that may wait for sockets.
const WAITING_MAX: usize = 256;

impl EdgeCore {
    /// Asks for the sockets of a leg.
    pub(crate) fn allocate_leg_port(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
    ) -> Option<PortKey> {
        let worker = self.calls.get(&session)?.worker;
        let port = self.ports.insert(PortRecord {
            session,
            owner: PortOwner::Leg(leg),
            worker,
            state: PortState::Allocating,
            source: None,
            transcoding: false,
            addresses: None,
            channel: None,
            trunk_up: true,
            heard: true,
        })?;
        self.timers.set(TimerKey::Allocation(port), now + ALLOCATION_MAX);
        self.push(Output::AllocateMedia { port, worker });
        Some(port)
    }

    pub(crate) fn on_media_allocated(
        &mut self,
        now: Instant,
        port: PortKey,
        rtp: SocketAddr,
        rtcp: SocketAddr,
    ) {
        self.timers.cancel(TimerKey::Allocation(port));
        let Some(record) = self.ports.get_mut(port) else { return };
        let (worker, session) = (record.worker, record.session);
        if record.state != PortState::Allocating {
            // The leg has ended meanwhile.
            self.release_port(port);
            return;
        }
        record.state = PortState::Ready;
        record.addresses = Some((rtp, rtcp));
        let PortOwner::Leg(sid) = record.owner else { return };
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        leg.media.set_addresses(rtp, rtcp);
        let config = leg.media.config().clone();
        let inbound = leg.inbound;
        let Some(key) = self.calls.get(&session).map(|call| call.key) else { return };
        self.worker(worker, WorkerCommand::AddLeg { port, session: key, config });
        if inbound {
            self.inbound_ready(now, sid);
        } else {
            self.outbound_ready(now, sid);
        }
        self.run_waiting(now, session);
    }

    pub(crate) fn on_media_allocation_failed(&mut self, now: Instant, port: PortKey, why: String) {
        self.timers.cancel(TimerKey::Allocation(port));
        let Some(record) = self.ports.get(port) else { return };
        let (session, owner, state) = (record.session, record.owner, record.state);
        self.ports.remove(port);
        if state == PortState::Allocating
            && let PortOwner::Leg(sid) = owner
        {
            self.counters.calls_refused_capacity += 1;
            self.fact(Fact::Trouble { call: sid, why });
            let end = LegEnd::new(EndReason::Overload, Blame::Us);
            self.end_leg(now, sid, end.with_status(503));
        }
        self.run_waiting(now, session);
    }

    /// Gives the worker what was negotiated about a leg.
    pub(crate) fn update_worker_leg(&mut self, sid: CallSid) {
        let Some(leg) = self.legs.get(&sid) else { return };
        let mut config = leg.media.config().clone();
        if leg.media.is_held() {
            config.media_timeout_ms = None;
        }
        let port = leg.port;
        if let Some(record) = self.ports.get(port).filter(|r| r.state == PortState::Ready) {
            self.worker(record.worker, WorkerCommand::UpdateLeg { port, config });
        }
    }

    /// Takes a port away from its worker. True if the worker will report its counters.
    pub(crate) fn remove_port(&mut self, now: Instant, session: CallSid, port: PortKey) -> bool {
        let Some(record) = self.ports.get_mut(port) else { return false };
        let (state, worker) = (record.state, record.worker);
        record.state = PortState::Removing;
        if state != PortState::Ready {
            return false;
        }
        self.worker(worker, WorkerCommand::RemovePort { port });
        self.timers.set(TimerKey::PortRemoval(port), now + REMOVAL_MAX);
        let fed: Vec<_> = self
            .calls
            .get(&session)
            .map(|call| {
                self.ports_of(call).filter(|fed| self.source_of(*fed) == Some(port)).collect()
            })
            .unwrap_or_default();
        for fed in fed {
            self.set_source(now, fed, None);
        }
        true
    }

    fn ports_of<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = PortKey> + 'a {
        let legs = call.legs.iter().filter_map(|leg| self.legs.get(leg)).map(|leg| leg.port);
        legs.chain(call.channels.values().copied())
    }

    fn source_of(&self, port: PortKey) -> Option<PortKey> {
        self.ports.get(port).and_then(|record| record.source)
    }

    /// Notes what feeds a port; a leg that is fed by nobody may need control.
    pub(crate) fn set_source(&mut self, now: Instant, port: PortKey, source: Option<PortKey>) {
        let Some(record) = self.ports.get_mut(port) else { return };
        record.source = source;
        record.transcoding = false;
        if let PortOwner::Leg(leg) = record.owner {
            self.review_hold(now, leg);
        }
    }

    /// Forgets a port whose worker has let it go.
    pub(crate) fn release_port(&mut self, port: PortKey) {
        self.timers.cancel(TimerKey::PortRemoval(port));
        self.timers.cancel(TimerKey::Allocation(port));
        let Some(record) = self.ports.remove(port) else { return };
        if matches!(record.owner, PortOwner::Leg(_)) {
            self.push(Output::ReleaseMedia { port, worker: record.worker });
        }
    }

    /// [`link_proto::call::CallCommand::Media`].
    pub(crate) fn media_command(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        command: MediaCommand,
    ) -> Result<(), String> {
        if matches!(command, MediaCommand::OpenChannel { .. }) {
            self.open_call(session, self.driver_by_command(session))?;
        }
        let Some(call) = self.calls.get(&session) else {
            return match command {
                // Nothing is left here that could be stopped or closed.
                MediaCommand::Stop { .. }
                | MediaCommand::Unlink { .. }
                | MediaCommand::CloseChannel { .. } => Ok(()),
                _ => Err(format!("session {session} has nothing here")),
            };
        };
        if call.waiting.is_empty() && !self.must_wait(call, &command) {
            return self.run_media(now, session, leg, command);
        }
        let Some(call) = self.calls.get_mut(&session) else { return Ok(()) };
        if call.waiting.len() >= WAITING_MAX {
            return Err("too many media commands wait for sockets".to_owned());
        }
        call.waiting.push_back((leg, command));
        Ok(())
    }

    /// Carries out what waited for sockets, as far as it can be.
    pub(crate) fn run_waiting(&mut self, now: Instant, session: CallSid) {
        while let Some(call) = self.calls.get(&session)
            && let Some((_, command)) = call.waiting.front()
            && !self.must_wait(call, command)
        {
            let Some(call) = self.calls.get_mut(&session) else { return };
            let Some((leg, command)) = call.waiting.pop_front() else { return };
            let failed = command.clone();
            if self.run_media(now, session, leg, command).is_err() {
                self.report_failed(now, session, leg, &failed);
            }
        }
    }

    /// Reports the programs that would have run on a leg which has ended before its sockets, or those
    /// of another leg, were bound.
    pub(crate) fn fail_waiting_of(&mut self, now: Instant, session: CallSid, sid: CallSid) {
        let Some(call) = self.calls.get_mut(&session) else { return };
        let (failed, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut call.waiting)
            .into_iter()
            .partition(|(_, command)| runs_on(command) == Some(Port::Leg(sid)));
        call.waiting = others;
        for (leg, command) in failed {
            self.report_failed(now, session, leg, &command);
        }
    }

    /// True if the command names a leg whose sockets are not bound yet.
    fn must_wait(&self, call: &Call, command: &MediaCommand) -> bool {
        let ports = match command {
            MediaCommand::Link { from, to, .. } | MediaCommand::Unlink { from, to } => {
                [Some(*from), Some(*to)]
            }
            MediaCommand::Play { port, .. }
            | MediaCommand::Collect { port, .. }
            | MediaCommand::Watch { port, .. } => [Some(*port), None],
            MediaCommand::Record { port, rules, .. } => [Some(*port), rules.with],
            _ => [None, None],
        };
        ports
            .into_iter()
            .flatten()
            .filter_map(|port| self.find_port(call, port))
            .any(|key| self.ports.get(key).is_some_and(|port| port.state == PortState::Allocating))
    }

    fn find_port(&self, call: &Call, port: Port) -> Option<PortKey> {
        match port {
            Port::Leg(sid) => {
                let leg = self.legs.get(&sid).filter(|leg| leg.is_live())?;
                call.legs.contains(&sid).then_some(leg.port)
            }
            Port::Channel(channel) => call.channels.get(&channel).copied(),
        }
    }

    /// Key and worker of a port that can be used now.
    pub(crate) fn usable_port(
        &self,
        session: CallSid,
        port: Port,
    ) -> Result<(PortKey, u16), String> {
        let call = self.calls.get(&session);
        call.and_then(|call| self.find_port(call, port))
            .and_then(|key| Some((key, self.ports.get(key)?)))
            .filter(|(_, record)| record.state == PortState::Ready)
            .map(|(key, record)| (key, record.worker))
            .ok_or_else(|| format!("port {port:?} is not alive in this session"))
    }

    fn run_media(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        command: MediaCommand,
    ) -> Result<(), String> {
        match command {
            MediaCommand::OpenChannel { channel, peer, codec, telephone_event } => {
                self.open_channel(session, channel, &peer, codec, telephone_event)
            }
            MediaCommand::CloseChannel { channel } => {
                self.close_channel(now, session, channel);
                Ok(())
            }
            MediaCommand::Link { from, to, path } => self.link(now, session, from, to, path),
            MediaCommand::Unlink { from, to } => {
                // Ends of ports may have overtaken the command.
                if let (Ok((from, _)), Ok((to, worker))) =
                    (self.usable_port(session, from), self.usable_port(session, to))
                    && self.source_of(to) == Some(from)
                {
                    self.worker(worker, WorkerCommand::Disconnect { from, to });
                    self.set_source(now, to, None);
                }
                Ok(())
            }
            MediaCommand::Play { op, port, items } => self.play(now, session, leg, op, port, items),
            MediaCommand::Collect { op, port, rules } => {
                self.collect(session, leg, op, port, rules)
            }
            MediaCommand::Record { op, port, rules } => {
                self.record(now, session, leg, op, port, rules)
            }
            MediaCommand::Watch { op, port, keys } => self.watch(session, leg, op, port, keys),
            MediaCommand::PauseRecord { op, silence } => {
                let pause = if silence { RecordPause::Silence } else { RecordPause::Skip };
                self.pause_record(session, op, Some(pause));
                Ok(())
            }
            MediaCommand::ResumeRecord { op } => {
                self.pause_record(session, op, None);
                Ok(())
            }
            MediaCommand::Start { op } => {
                self.start_op(session, op);
                Ok(())
            }
            MediaCommand::Stop { op } => {
                self.stop_op(now, session, op);
                Ok(())
            }
            MediaCommand::Snapshot { phase } => {
                self.snapshot(now, session, leg, phase);
                Ok(())
            }
        }
    }

    fn link(
        &mut self,
        now: Instant,
        session: CallSid,
        from: Port,
        to: Port,
        path: LinkPath,
    ) -> Result<(), String> {
        let (from_key, _) = self.usable_port(session, from)?;
        let (to_key, worker) = self.usable_port(session, to)?;
        if from_key == to_key {
            return Err(format!("port {to:?} cannot feed itself"));
        }
        if path == LinkPath::Transcode {
            self.expect_transcoder(from_key, to_key)?;
        }
        self.stop_waiting_plays(now, session, to_key);
        self.worker(worker, WorkerCommand::Connect { from: from_key, to: to_key, path });
        self.set_source(now, to_key, Some(from_key));
        if let Some(record) = self.ports.get_mut(to_key) {
            record.transcoding = path == LinkPath::Transcode;
        }
        Ok(())
    }

    fn open_channel(
        &mut self,
        session: CallSid,
        channel: ChannelId,
        peer: &NodeId,
        codec: AudioCodec,
        telephone_event: Option<u8>,
    ) -> Result<(), String> {
        let call = self.calls.get(&session).ok_or("no such session")?;
        let (worker, key) = (call.worker, call.key);
        if call.channels.contains_key(&channel) {
            return Err(format!("channel {} is open already", channel.0));
        }
        let peer_index = self.peer_index(peer)?;
        let up = self.peers.get(peer_index as usize).is_none_or(|(_, up)| *up);
        let record = PortRecord {
            session,
            owner: PortOwner::Channel(channel),
            worker,
            state: PortState::Ready,
            source: None,
            transcoding: false,
            addresses: None,
            channel: Some((peer_index, codec)),
            trunk_up: up,
            heard: true,
        };
        let port = self.ports.insert(record).ok_or("no room for another port")?;
        if let Some(call) = self.calls.get_mut(&session) {
            call.channels.insert(channel, port);
        }
        let local_ssrc = self.rng.random();
        let config =
            ChannelConfig { peer: peer_index, channel, codec, telephone_event, local_ssrc };
        self.worker(worker, WorkerCommand::AddChannel { port, session: key, config });
        Ok(())
    }

    /// Removes a trunk channel, if it is there.
    pub(crate) fn close_channel(&mut self, now: Instant, session: CallSid, channel: ChannelId) {
        let call = self.calls.get(&session);
        let Some(port) = call.and_then(|call| call.channels.get(&channel).copied()) else { return };
        self.remove_port(now, session, port);
        self.end_ops_of(now, session, port);
        if let Some(call) = self.calls.get_mut(&session) {
            call.channels.remove(&channel);
        }
        self.drop_call_if_over(session);
    }

    /// The number under which workers know the trunk to a node.
    fn peer_index(&mut self, peer: &NodeId) -> Result<u32, String> {
        if let Some(index) = self.peers.iter().position(|(node, _)| node == peer) {
            return u32::try_from(index).map_err(|_| "too many nodes".to_owned());
        }
        if !self.tables.nodes.iter().any(|entry| entry.node == *peer) {
            return Err(format!("node {peer} is not in the tables"));
        }
        self.peers.push((peer.clone(), true));
        let index = self.peers.len() - 1;
        self.announce_peer(index);
        u32::try_from(index).map_err(|_| "too many nodes".to_owned())
    }

    /// Tells the shell where a peer is (again).
    pub(crate) fn announce_peer(&mut self, index: usize) {
        let Some((name, _)) = self.peers.get(index) else { return };
        let entry = self.tables.nodes.iter().find(|entry| entry.node == *name).cloned();
        if let (Some(node), Ok(peer)) = (entry, u32::try_from(index)) {
            self.push(Output::TrunkPeer { peer, node });
        }
    }

    pub(crate) fn on_trunk_state(&mut self, now: Instant, peer: u32, up: bool) {
        match self.peers.get_mut(peer as usize) {
            Some(entry) => entry.1 = up,
            None => return,
        }
        let affected: Vec<_> = self
            .ports
            .iter()
            .filter(|(_, record)| record.channel.is_some_and(|(of, _)| of == peer))
            .filter(|(_, record)| record.trunk_up != up && record.state == PortState::Ready)
            .filter_map(|(key, record)| match record.owner {
                PortOwner::Channel(channel) => Some((key, record.session, channel)),
                PortOwner::Leg(_) => None,
            })
            .collect();
        for (port, session, channel) in affected {
            if let Some(record) = self.ports.get_mut(port) {
                record.trunk_up = up;
            }
            let event = CallEvent::Media(MediaEvent::ChannelState { channel, up });
            let leg = self.leg_to_report_on(session, session);
            self.emit(now, session, leg, event);
            let legs = self.calls.get(&session).map(|call| call.legs.clone()).unwrap_or_default();
            for leg in legs {
                self.review_hold(now, leg);
            }
        }
    }

    fn snapshot(&mut self, now: Instant, session: CallSid, leg: CallSid, phase: u32) {
        let Some(call) = self.calls.get(&session) else { return };
        let key = call.key;
        let ready = self
            .ports_of(call)
            .filter_map(|port| self.ports.get(port))
            .find(|record| record.state == PortState::Ready)
            .map(|record| record.worker);
        if let Some(call) = self.calls.get_mut(&session) {
            if call.snapshots.len() >= SNAPSHOTS_MAX {
                call.snapshots.pop_first();
            }
            call.snapshots.insert(phase, leg);
        }
        match ready {
            Some(worker) => {
                self.worker(worker, WorkerCommand::Snapshot { session: key, phase });
            }
            None => self.report_snapshot(now, session, phase, Default::default()),
        }
    }

    /// Key of a program of a session.
    pub(crate) fn op_key(&self, session: CallSid, op: OpId) -> Option<OpKey> {
        self.calls.get(&session).map(|call| OpKey { session: call.key, op })
    }
}

/// The port that a program is to run on.
fn runs_on(command: &MediaCommand) -> Option<Port> {
    match command {
        MediaCommand::Play { port, .. }
        | MediaCommand::Collect { port, .. }
        | MediaCommand::Record { port, .. } => Some(*port),
        _ => None,
    }
}
