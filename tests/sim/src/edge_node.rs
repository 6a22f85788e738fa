//! An edge: signalling shards with their media workers, and the shell's duties around them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_core::{
    ControlIndex, EdgeConfig, EdgeCore, Input, LinkInput, LinkOutput, Output, Provider,
};
use edge_media::Component;
use edge_media::command::{OpKey, PortKey, Prompt, RecorderHandle, WorkerCommand};
use link_proto::media::PromptKey;
use link_proto::message::{LiveLeg, Message, Reconcile, RecordingHeader};
use link_proto::table::{NodeEntry, Resources, Tables};
use link_proto::{CallSid, ChannelId, NodeId, RegionId};
use rand::RngExt as _;
use rand::rngs::StdRng;
use sip_core::{SipConfig, Transport};

use crate::media::{Media, Outbox, Sent};
use crate::net::{SIP_PORT, edge_ip, phone_ip};

/// Signalling shards of an edge.
pub const SHARDS: u32 = 3;
/// Ports of one shard.
const PORTS_PER_SHARD: u32 = 128;

/// What an edge wants of the world.
#[derive(Debug)]
pub enum Want {
    /// A datagram from one of its sockets.
    Send {
        /// Its socket.
        from: SocketAddr,
        /// Peer.
        to: SocketAddr,
        /// Content.
        bytes: Bytes,
    },
    /// A packet to another edge.
    Trunk {
        /// Receiver.
        to: NodeId,
        /// Channel.
        channel: ChannelId,
        /// RTP.
        bytes: Bytes,
    },
    /// A message to control.
    Link(Message),
    /// An input for a shard after a while; the work beside signalling.
    Later {
        /// Shard.
        shard: usize,
        /// How long.
        after: Duration,
        /// What.
        input: Input,
    },
    /// A prompt for a shard.
    Prompt {
        /// Shard.
        shard: usize,
        /// Which.
        key: PromptKey,
    },
    /// A recording is to be uploaded.
    Upload(RecordingHeader),
}

/// One shard.
pub struct Shard {
    /// Signalling.
    pub core: EdgeCore,
    /// Its media worker.
    pub media: Media,
    /// Nodes by the number that signalling gave them.
    peers: BTreeMap<u32, NodeId>,
}

/// A process of an edge.
pub struct Life {
    /// Shards.
    pub shards: Vec<Shard>,
    /// Which shard has a session.
    sessions: BTreeMap<CallSid, usize>,
    /// Sockets by port.
    pub sockets: BTreeMap<PortKey, SocketAddr>,
    by_address: BTreeMap<SocketAddr, (usize, PortKey, Component)>,
    channels: BTreeMap<(NodeId, ChannelId), (usize, u32)>,
    channel_ports: BTreeMap<PortKey, (NodeId, ChannelId)>,
    recordings: BTreeMap<RecorderHandle, RecordingHeader>,
    recorder_next: u32,
    socket_next: u16,
    /// Connection to control that the process believes in.
    pub link: Option<u64>,
    /// Packets of a leg handed to a trunk.
    pub trunk_packets: u64,
    /// Bounds that were exceeded.
    pub violations: Vec<String>,
}

/// An edge over all its lives.
pub struct EdgeNode {
    /// As others know it.
    pub entry: NodeEntry,
    /// Number of its region.
    pub region: usize,
    /// The present process; `None` while it is down.
    pub life: Option<Life>,
    /// Number of the present process.
    pub boot: u64,
    /// On its disk.
    tables: Tables,
    real_media: bool,
    /// Wants, in order.
    pub wants: Vec<Want>,
    /// How often sockets are not to be had, per mille.
    pub ports_exhausted: u32,
    /// How often that was.
    pub allocations_refused: u64,
    rng: StdRng,
    outbox: Outbox,
}

/// Name of the edge of a region.
pub fn edge_name(region: usize) -> NodeId {
    NodeId(
        ["edge-eu", "edge-core"]
            .get(region)
            .map_or_else(|| format!("edge-{region}"), |n| (*n).to_owned()),
    )
}

/// Name of a region.
pub fn region_name(region: usize) -> RegionId {
    RegionId(["eu", "core"].get(region).map_or_else(|| format!("r{region}"), |n| (*n).to_owned()))
}

impl EdgeNode {
    /// An edge that is down. Region 1 is the core region.
    pub fn new(region: usize, resources: Resources, real_media: bool, rng: StdRng) -> Self {
        let entry = NodeEntry {
            node: edge_name(region),
            region: region_name(region),
            trunk_address: format!("{}:7000", edge_ip(region)),
            resources,
            limits: link_proto::table::ResourceLimits::default(),
            core: region == 1,
            available: true,
        };
        Self {
            entry,
            region,
            life: None,
            boot: 0,
            tables: Tables::default(),
            real_media,
            wants: Vec::new(),
            ports_exhausted: 0,
            allocations_refused: 0,
            rng,
            outbox: Outbox::default(),
        }
    }

    /// Its SIP socket.
    pub fn sip_address(&self) -> SocketAddr {
        SocketAddr::new(edge_ip(self.region), SIP_PORT)
    }

    fn config(&self, shard: u32) -> EdgeConfig {
        let sip = SipConfig::new(edge_ip(self.region).to_string(), SIP_PORT, [7; 32]);
        let mut config = EdgeConfig::new(self.entry.node.clone(), sip);
        config.region = self.entry.region.clone();
        config.resources = self.entry.resources;
        (config.shard, config.shards) = (shard, SHARDS);
        config.ports_max = PORTS_PER_SHARD;
        config.legs_max = 64;
        config.events_max = 200;
        let network = phone_ip(self.region).to_string();
        config.providers = vec![Provider {
            name: "phones".to_owned(),
            networks: network.parse().ok().into_iter().collect(),
            nat: false,
            calls_per_s_max: 100,
        }];
        // The phones of the model send nothing.
        config.media_timeout = self.real_media.then_some(Duration::from_secs(60));
        config
    }

    /// The process starts.
    pub fn start(&mut self, now: Instant, unix_ms: u64) {
        self.boot += 1;
        let ports_edge = PORTS_PER_SHARD * SHARDS;
        let mut shards = Vec::new();
        for shard in 0..SHARDS {
            let rng: StdRng = rand::SeedableRng::seed_from_u64(self.rng.random());
            let mut core = EdgeCore::new(self.config(shard), self.tables.clone(), rng, now);
            core.handle_input(now, Input::WallClock { unix_ms });
            let media = Media::new(self.real_media, ports_edge, self.rng.random(), now);
            shards.push(Shard { core, media, peers: BTreeMap::new() });
        }
        self.life = Some(Life {
            shards,
            sessions: BTreeMap::new(),
            sockets: BTreeMap::new(),
            by_address: BTreeMap::new(),
            channels: BTreeMap::new(),
            channel_ports: BTreeMap::new(),
            recordings: BTreeMap::new(),
            recorder_next: 0,
            socket_next: 10_000 + (self.boot as u16 % 50) * 1_000,
            link: None,
            trunk_packets: 0,
            violations: Vec::new(),
        });
        self.settle(now);
    }

    /// The process is killed.
    pub fn kill(&mut self) {
        self.life = None;
        self.wants.clear();
        self.outbox.sent.clear();
    }

    /// The next deadline of any shard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let shards = self.life.iter().flat_map(|life| life.shards.iter());
        shards.flat_map(|s| [s.core.poll_timeout(), s.media.next_deadline()]).flatten().min()
    }

    /// Which of its parts are due.
    pub fn due(&self, now: Instant) -> String {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let shards = self.life.iter().flat_map(|life| life.shards.iter());
        let parts = shards.map(|s| (due(s.core.poll_timeout()), due(s.media.next_deadline())));
        format!("{} (core, media): {:?}", self.entry.node, parts.collect::<Vec<_>>())
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..SHARDS as usize {
            let shard = self.life.as_mut().and_then(|life| life.shards.get_mut(index));
            let Some(shard) = shard else { return };
            if shard.core.poll_timeout().is_some_and(|at| at <= now) {
                shard.core.handle_timeout(now);
            }
            if shard.media.next_deadline().is_some_and(|at| at <= now) {
                shard.media.tick(now, &mut self.outbox);
                self.send_all(index);
            }
        }
        self.settle(now);
    }

    /// An input for one shard.
    pub fn input(&mut self, now: Instant, shard: usize, input: Input) {
        if let Some(shard) = self.life.as_mut().and_then(|life| life.shards.get_mut(shard)) {
            shard.core.handle_input(now, input);
        }
        self.settle(now);
    }

    /// The wall clock was set.
    pub fn wall_clock(&mut self, now: Instant, unix_ms: u64) {
        for shard in 0..SHARDS as usize {
            self.input(now, shard, Input::WallClock { unix_ms });
        }
    }

    /// A datagram arrives.
    pub fn datagram(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let local = self.sip_address();
        let Some(life) = &mut self.life else { return };
        if to == local {
            let call_id = edge_core::call_id_of(&bytes).unwrap_or_default();
            let shard = edge_core::shard_of(call_id, SHARDS) as usize;
            let (source, transport) = (from, Transport::Udp);
            return self.input(now, shard, Input::Datagram { source, local, transport, bytes });
        }
        let Some((index, port, component)) = life.by_address.get(&to).copied() else { return };
        if let Some(shard) = life.shards.get_mut(index) {
            shard.media.packet(now, port, component, from, &bytes, &mut self.outbox);
        }
        self.send_all(index);
        self.settle(now);
    }

    /// A trunk packet arrives.
    pub fn trunk_packet(&mut self, now: Instant, from: &NodeId, channel: ChannelId, bytes: &[u8]) {
        let Some(life) = &mut self.life else { return };
        let Some((index, peer)) = life.channels.get(&(from.clone(), channel)).copied() else {
            return;
        };
        if let Some(shard) = life.shards.get_mut(index) {
            shard.media.trunk_packet(now, peer, channel, bytes, &mut self.outbox);
        }
        self.send_all(index);
        self.settle(now);
    }

    /// The link is up: every shard says what is alive, in one message, before any event.
    pub fn connected(&mut self, now: Instant, connection: u64) {
        let Some(life) = &mut self.life else { return };
        life.link = Some(connection);
        for shard in &mut life.shards {
            shard.core.handle_input(now, Input::Link(ControlIndex(0), LinkInput::Connected));
        }
        self.settle(now);
        let mut legs: Vec<LiveLeg> = Vec::new();
        self.wants.retain(|want| match want {
            Want::Link(Message::Reconcile(reconcile)) => {
                legs.extend(reconcile.legs.iter().cloned());
                false
            }
            _ => true,
        });
        let at = self.wants.iter().position(|want| matches!(want, Want::Link(_)));
        let reconcile = Want::Link(Message::Reconcile(Reconcile { legs }));
        self.wants.insert(at.unwrap_or(self.wants.len()), reconcile);
    }

    /// The link is lost.
    pub fn disconnected(&mut self, now: Instant) {
        if let Some(life) = &mut self.life {
            life.link = None;
        }
        for shard in 0..SHARDS as usize {
            self.input(now, shard, Input::Link(ControlIndex(0), LinkInput::Disconnected));
        }
    }

    /// A message from control.
    pub fn message(&mut self, now: Instant, message: Message) {
        let Some(life) = &mut self.life else { return };
        let (session, input) = match message {
            Message::Command(command) => (command.session, LinkInput::Command(command)),
            Message::EventAck(ack) => (ack.session, LinkInput::EventAck(ack)),
            Message::Orphans(orphans) => {
                return self.input_all(now, &LinkInput::Orphans(orphans));
            }
            Message::Tables(tables) => return self.input_all(now, &LinkInput::Tables(tables)),
            _ => return,
        };
        let own = usize::from(session.0[0]) % SHARDS as usize;
        let shard = *life.sessions.entry(session).or_insert(own);
        self.input(now, shard, Input::Link(ControlIndex(0), input));
    }

    fn input_all(&mut self, now: Instant, input: &LinkInput) {
        for shard in 0..SHARDS as usize {
            self.input(now, shard, Input::Link(ControlIndex(0), input.clone()));
        }
    }

    /// Carries out everything until nothing is left to do.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            for index in 0..SHARDS as usize {
                while let Some(output) = self.shard(index).and_then(|s| s.core.poll_output()) {
                    idle = false;
                    self.output(now, index, output);
                }
                while let Some(event) = self.shard(index).and_then(|s| s.media.poll_event()) {
                    idle = false;
                    if let Some(shard) = self.shard(index) {
                        let input = Input::Worker { worker: 0, event };
                        shard.core.handle_input(now, input);
                    }
                }
            }
            if idle {
                return;
            }
        }
    }

    fn shard(&mut self, index: usize) -> Option<&mut Shard> {
        self.life.as_mut()?.shards.get_mut(index)
    }

    /// Sends what the worker of a shard has just produced: peers are numbered by shard.
    fn send_all(&mut self, index: usize) {
        let Some(life) = &mut self.life else { return };
        for sent in self.outbox.sent.drain(..) {
            match sent {
                Sent::Rtp { port, component, to, bytes } => {
                    let Some(socket) = life.sockets.get(&port).copied() else {
                        life.violations.push(format!("RTP out of {port:?}, which has no socket"));
                        continue;
                    };
                    let offset = u16::from(component == Component::Rtcp);
                    let from = SocketAddr::new(socket.ip(), socket.port() + offset);
                    self.wants.push(Want::Send { from, to, bytes });
                }
                Sent::Trunk { peer, channel, bytes } => {
                    life.trunk_packets += 1;
                    let peers = life.shards.get(index).map(|shard| &shard.peers);
                    if let Some(to) = peers.and_then(|peers| peers.get(&peer)).cloned() {
                        self.wants.push(Want::Trunk { to, channel, bytes });
                    }
                }
            }
        }
    }

    fn output(&mut self, now: Instant, index: usize, output: Output) {
        match output {
            Output::Send { to, bytes } => {
                let from = self.sip_address();
                self.wants.push(Want::Send { from, to: to.addr, bytes });
            }
            Output::Link(_, output) => self.link_output(index, output),
            Output::AllocateMedia { port, .. } => self.allocate(index, port),
            Output::ReleaseMedia { port, .. } => self.release(port),
            Output::Worker { command, .. } => self.worker_command(now, index, command),
            Output::FetchPrompt { key } => self.wants.push(Want::Prompt { shard: index, key }),
            Output::OpenRecording { op, recording, session, leg, channels, control: _ } => {
                let header = RecordingHeader {
                    recording,
                    session,
                    leg,
                    duration_ms: 0,
                    channels,
                    control: None,
                };
                self.open_recording(index, op, header);
            }
            Output::CloseRecording { recorder, duration_ms, .. } => {
                let life = self.life.as_mut();
                if let Some(header) = life.and_then(|life| life.recordings.remove(&recorder)) {
                    self.wants.push(Want::Upload(RecordingHeader { duration_ms, ..header }));
                }
            }
            Output::DropRecording { recorder } => {
                if let Some(life) = &mut self.life {
                    life.recordings.remove(&recorder);
                }
            }
            Output::TrunkPeer { peer, node } => {
                if let Some(shard) = self.shard(index) {
                    shard.peers.insert(peer, node.node);
                }
                // Trunks between two regions are always there.
                self.later(index, 5, Input::TrunkState { peer, up: true });
            }
            Output::Resolve { id, host, port, .. } => {
                let address =
                    host.parse().ok().map(|ip| SocketAddr::new(ip, port.unwrap_or(SIP_PORT)));
                self.later(index, 3, Input::Resolved { id, address });
            }
            Output::PersistTables(tables) => self.tables = tables,
            Output::Fact(_) => {}
        }
    }

    fn later(&mut self, shard: usize, after_ms: u64, input: Input) {
        self.wants.push(Want::Later { shard, after: Duration::from_millis(after_ms), input });
    }

    fn link_output(&mut self, index: usize, output: LinkOutput) {
        let message = match output {
            LinkOutput::Event(event) => {
                if let Some(life) = &mut self.life {
                    life.sessions.insert(event.session, index);
                }
                Message::Event(event)
            }
            LinkOutput::CommandAck(ack) => Message::CommandAck(ack),
            LinkOutput::Reconcile(reconcile) => Message::Reconcile(reconcile),
        };
        self.wants.push(Want::Link(message));
    }

    fn allocate(&mut self, index: usize, port: PortKey) {
        if self.rng.random_range(0..1_000) < self.ports_exhausted {
            self.allocations_refused += 1;
            let why = "ports exhausted".to_owned();
            return self.later(index, 0, Input::MediaAllocationFailed { port, why });
        }
        let Some(life) = &mut self.life else { return };
        life.socket_next = if life.socket_next > 64_000 { 10_000 } else { life.socket_next + 2 };
        let ip = edge_ip(self.region);
        let rtp = SocketAddr::new(ip, life.socket_next);
        let rtcp = SocketAddr::new(ip, life.socket_next + 1);
        if life.sockets.insert(port, rtp).is_some() {
            life.violations.push(format!("sockets of {port:?} allocated twice"));
        }
        life.by_address.insert(rtp, (index, port, Component::Rtp));
        life.by_address.insert(rtcp, (index, port, Component::Rtcp));
        let after_ms = self.rng.random_range(0..3);
        self.later(index, after_ms, Input::MediaAllocated { port, rtp, rtcp });
    }

    fn release(&mut self, port: PortKey) {
        let Some(life) = &mut self.life else { return };
        match life.sockets.remove(&port) {
            Some(_) => life.by_address.retain(|_, (_, of, _)| *of != port),
            None => life.violations.push(format!("sockets of {port:?} released twice")),
        }
    }

    fn open_recording(&mut self, index: usize, op: OpKey, header: RecordingHeader) {
        let Some(life) = &mut self.life else { return };
        life.recorder_next += 1;
        let recorder = RecorderHandle(life.recorder_next);
        life.recordings.insert(recorder, header);
        self.later(index, 4, Input::RecordingReady { op, recorder });
    }

    fn worker_command(&mut self, now: Instant, index: usize, command: WorkerCommand) {
        let Some(life) = &mut self.life else { return };
        let Some(shard) = life.shards.get_mut(index) else { return };
        if let WorkerCommand::AddChannel { port, config, .. } = &command
            && let Some(node) = shard.peers.get(&config.peer)
        {
            let address = (node.clone(), config.channel);
            life.channels.insert(address.clone(), (index, config.peer));
            life.channel_ports.insert(*port, address);
        }
        if let WorkerCommand::RemovePort { port } = &command
            && let Some(address) = life.channel_ports.remove(port)
        {
            life.channels.remove(&address);
        }
        shard.media.command(now, command, &mut self.outbox);
        self.send_all(index);
    }

    /// What is left of calls, by name.
    pub fn residue(&self) -> Vec<(String, usize)> {
        let Some(life) = &self.life else { return Vec::new() };
        let mut left = Vec::new();
        for (index, shard) in life.shards.iter().enumerate() {
            let name = |what: &str| format!("{}/{index} {what}", self.entry.node);
            left.extend(shard.core.residue().map(|(what, count)| (name(what), count)));
            left.push((name("media"), shard.media.residue()));
        }
        left.push((format!("{} sockets", self.entry.node), life.sockets.len()));
        left.push((format!("{} recordings", self.entry.node), life.recordings.len()));
        left.push((format!("{} channels", self.entry.node), life.channels.len()));
        left.retain(|(_, count)| *count > 0);
        left
    }
}

/// A prompt of that length.
pub fn prompt(length_ms: u64) -> Arc<Prompt> {
    let sample = |n: u64| ((n * 2_654_435_761) >> 20) as i16 / 8;
    Arc::new(Prompt { samples: (0..length_ms * 8).map(sample).collect() })
}
