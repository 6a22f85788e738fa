//! The graph and its construction.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{PlanError, PlanInput, find};
use crate::ids::{CallSid, ChannelId, NodeId, OpId, RegionId};
use crate::media::{AudioCodec, LinkPath, MediaCommand, Port};
use crate::table::{Resource, ResourceUse};

/// A program and the node that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Where it runs.
    pub node: NodeId,
    /// For which leg.
    pub leg: CallSid,
    /// The command that starts it.
    pub command: MediaCommand,
}

/// A leg extended to a node that is not its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The leg.
    pub leg: CallSid,
    /// Its home.
    pub home: NodeId,
    /// The other node.
    pub far: NodeId,
    /// The leg's codec.
    pub codec: AudioCodec,
    /// The leg's payload type of telephone-event.
    pub telephone_event: Option<u8>,
}

/// `from` is the source of `to` on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wire {
    /// Where.
    pub node: NodeId,
    /// The port that is fed. First of the two: a port has one source.
    pub to: Port,
    /// Its source.
    pub from: Port,
    /// How.
    pub path: LinkPath,
}

/// Processors, channels and wires of one session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MediaGraph {
    /// Programs by operation.
    pub processors: BTreeMap<OpId, Processor>,
    /// Trunk channels.
    pub channels: BTreeMap<ChannelId, Channel>,
    /// Wires.
    pub wires: BTreeSet<Wire>,
    /// Home of each leg.
    pub homes: BTreeMap<CallSid, NodeId>,
    /// Region of each node that takes part.
    pub regions: BTreeMap<NodeId, RegionId>,
}

impl MediaGraph {
    /// Forgets a program that ended by itself, so that [`super::difference`] does not stop it.
    pub fn forget(&mut self, op: OpId) {
        self.processors.remove(&op);
    }

    /// Forgets everything on a node that is gone, and every channel from and to it with what uses
    /// them. Returns the channels: their other ends are to be closed.
    pub fn forget_node(&mut self, node: &NodeId) -> BTreeMap<ChannelId, Channel> {
        self.processors.retain(|_, processor| processor.node != *node);
        let ends_there = |channel: &Channel| channel.home == *node || channel.far == *node;
        let gone: BTreeMap<ChannelId, Channel> = self
            .channels
            .iter()
            .filter(|(_, c)| ends_there(c))
            .map(|(k, c)| (*k, c.clone()))
            .collect();
        self.channels.retain(|id, _| !gone.contains_key(id));
        let uses = |port: &Port| matches!(port, Port::Channel(id) if gone.contains_key(id));
        self.wires.retain(|w| w.node != *node && !uses(&w.from) && !uses(&w.to));
        self.homes.retain(|_, home| home != node);
        gone
    }

    /// Forgets a leg that ended: its node has taken away the port and everything on it.
    pub fn forget_leg(&mut self, leg: CallSid) {
        let port = Port::Leg(leg);
        self.wires.retain(|wire| wire.from != port && wire.to != port);
        let home = self.homes.remove(&leg);
        self.processors
            .retain(|_, processor| processor.leg != leg || Some(&processor.node) != home.as_ref());
    }

    /// The port that stands for a leg on a node.
    pub fn port_of(&self, leg: CallSid, node: &NodeId) -> Option<Port> {
        if self.homes.get(&leg) == Some(node) {
            return Some(Port::Leg(leg));
        }
        let reaches = |channel: &Channel| channel.leg == leg && channel.far == *node;
        self.channels.iter().find(|(_, c)| reaches(c)).map(|(id, _)| Port::Channel(*id))
    }

    /// The leg that a port stands for.
    pub fn leg_of(&self, port: Port) -> Option<CallSid> {
        match port {
            Port::Leg(leg) => Some(leg),
            Port::Channel(id) => self.channels.get(&id).map(|channel| channel.leg),
        }
    }

    /// What the graph uses of each node.
    pub fn usage(&self) -> BTreeMap<NodeId, ResourceUse> {
        let mut usage: BTreeMap<NodeId, ResourceUse> = BTreeMap::new();
        for processor in self.processors.values() {
            let resource = match processor.command {
                MediaCommand::Play { .. } => Resource::Play,
                MediaCommand::Collect { .. } | MediaCommand::Watch { .. } => Resource::Collect,
                MediaCommand::Record { .. } => Resource::Record,
                _ => continue,
            };
            usage.entry(processor.node.clone()).or_default().take(resource);
        }
        let transcoded = self.wires.iter().filter(|wire| wire.path == LinkPath::Transcode);
        let pairs: BTreeSet<(&NodeId, Port, Port)> = transcoded
            .map(|wire| (&wire.node, wire.from.min(wire.to), wire.from.max(wire.to)))
            .collect();
        for (node, _, _) in pairs {
            usage.entry(node.clone()).or_default().take(Resource::Transcode);
        }
        usage
    }

    /// Every node that this graph needs commands on.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let processors = self.processors.values().map(|p| p.node.clone());
        let channels = self.channels.values().flat_map(|c| [c.home.clone(), c.far.clone()]);
        let wires = self.wires.iter().map(|w| w.node.clone());
        processors.chain(channels).chain(wires).chain(self.homes.values().cloned()).collect()
    }
}

/// The number of the channel that extends `leg` to `far`: FNV-1a over the node's name, seeded by
/// the random bytes of the leg.
fn channel_id(leg: CallSid, far: &NodeId) -> ChannelId {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in leg.0.iter().chain(far.as_str().as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    ChannelId(hash)
}

/// Builds a [`MediaGraph`] while needs are placed.
pub(super) struct Builder<'a> {
    input: &'a PlanInput,
    graph: MediaGraph,
    fed: BTreeSet<CallSid>,
    taken: BTreeMap<NodeId, ResourceUse>,
    transcoders: BTreeMap<(CallSid, CallSid), NodeId>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(input: &'a PlanInput) -> Self {
        let mut graph = MediaGraph::default();
        for facts in &input.legs {
            graph.homes.insert(facts.leg, facts.node.clone());
        }
        Self {
            input,
            graph,
            fed: BTreeSet::new(),
            taken: BTreeMap::new(),
            transcoders: BTreeMap::new(),
        }
    }

    pub(super) fn input(&self) -> &'a PlanInput {
        self.input
    }

    /// What this plan takes of a node so far.
    pub(super) fn taken(&self, node: &NodeId) -> ResourceUse {
        self.taken.get(node).copied().unwrap_or_default()
    }

    pub(super) fn takes(&mut self, node: &NodeId, resource: Resource) {
        self.taken.entry(node.clone()).or_default().take(resource);
    }

    /// Where two legs are transcoded already.
    pub(super) fn transcoder_of(&self, first: CallSid, second: CallSid) -> Option<NodeId> {
        self.transcoders.get(&(first, second)).cloned()
    }

    pub(super) fn transcodes(&mut self, first: CallSid, second: CallSid, node: &NodeId) {
        self.takes(node, Resource::Transcode);
        self.transcoders.insert((first, second), node.clone());
    }

    /// The port on `node` that takes what is to be sent to `leg`.
    pub(super) fn towards(&mut self, leg: CallSid, node: &NodeId) -> Result<Port, PlanError> {
        let Some((home, channel)) = self.extend(leg, node)? else { return Ok(Port::Leg(leg)) };
        let (to, from) = (Port::Leg(leg), Port::Channel(channel));
        self.wire(&home, from, to, LinkPath::Relay);
        Ok(Port::Channel(channel))
    }

    /// The port on `node` where what `leg` says arrives.
    pub(super) fn from(&mut self, leg: CallSid, node: &NodeId) -> Result<Port, PlanError> {
        let Some((home, channel)) = self.extend(leg, node)? else { return Ok(Port::Leg(leg)) };
        let (to, from) = (Port::Channel(channel), Port::Leg(leg));
        self.wire(&home, from, to, LinkPath::Relay);
        Ok(Port::Channel(channel))
    }

    fn extend(
        &mut self,
        leg: CallSid,
        node: &NodeId,
    ) -> Result<Option<(NodeId, ChannelId)>, PlanError> {
        let facts = find(self.input, leg)?;
        if facts.node == *node {
            return Ok(None);
        }
        let id = channel_id(leg, node);
        let channel = Channel {
            leg,
            home: facts.node.clone(),
            far: node.clone(),
            codec: facts.codec,
            telephone_event: facts.telephone_event,
        };
        self.graph.channels.insert(id, channel);
        Ok(Some((facts.node.clone(), id)))
    }

    /// Claims the one source that a leg may have.
    pub(super) fn source(&mut self, leg: CallSid) -> Result<(), PlanError> {
        if self.fed.insert(leg) { Ok(()) } else { Err(PlanError::TwoSources(leg)) }
    }

    pub(super) fn wire(&mut self, node: &NodeId, from: Port, to: Port, path: LinkPath) {
        self.graph.wires.insert(Wire { node: node.clone(), to, from, path });
    }

    pub(super) fn processor(
        &mut self,
        op: OpId,
        leg: CallSid,
        node: NodeId,
        command: MediaCommand,
    ) {
        self.graph.processors.insert(op, Processor { node, leg, command });
    }

    pub(super) fn processor_node(&self, op: OpId) -> Option<&NodeId> {
        self.graph.processors.get(&op).map(|processor| &processor.node)
    }

    pub(super) fn finish(mut self) -> MediaGraph {
        for node in self.graph.nodes() {
            if let Some(entry) = self.input.nodes.iter().find(|entry| entry.node == node) {
                self.graph.regions.insert(node, entry.region.clone());
            }
        }
        self.graph
    }
}
