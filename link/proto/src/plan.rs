//! The media plan: where each processor runs and which way each leg's media goes.
//!
//! [`plan`] is a pure function. Control evaluates it at every change of a session's state, and an
//! edge evaluates it alone for calls that need no instructions. Its result, a [`MediaGraph`], names
//! every processor, trunk channel and wire; *local, hairpin, edge-to-edge, backhaul, direct* are
//! labels that [`MediaGraph::flows`] computes from it, per direction. [`difference`] turns two
//! graphs into ordered commands: make, then break.
//!
//! A leg lives on its home node. Where another node has to hear it or speak to it, the leg is
//! *extended* to that node by one trunk channel, and the channel is the leg's port there:
//!
//! ```text
//!   home node                         other node
//!   Leg ⇄ Channel ═══ media trunk ═══ Channel ⇄ player, recorder, transcoder, another leg
//! ```

mod difference;
mod graph;
mod label;

pub use difference::{NodeCommand, difference};
pub use graph::{Channel, MediaGraph, Processor, Wire};
pub use label::{Flow, FlowSource, Mode};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{CallSid, NodeId, OpId, RegionId};
use crate::media::{
    AudioCodec, CollectRules, LinkPath, MediaCommand, PlayItem, RecordRules, RecordTrack, StartWhen,
};
use crate::table::{NodeEntry, Resource, ResourceUse, Resources};
use graph::Builder;

/// What the plan has to know about a leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegFacts {
    /// Which leg.
    pub leg: CallSid,
    /// The node that owns it.
    pub node: NodeId,
    /// The codec it speaks.
    pub codec: AudioCodec,
    /// Payload type of telephone-event on it.
    pub telephone_event: Option<u8>,
}

/// Something that the session needs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Play towards a leg.
    Play {
        /// Operation.
        op: OpId,
        /// Leg.
        leg: CallSid,
        /// In order.
        items: Vec<PlayItem>,
        /// Contains synthesised speech.
        speech: bool,
    },
    /// Collect digits from a leg.
    Collect {
        /// Operation.
        op: OpId,
        /// Leg.
        leg: CallSid,
        /// Rules.
        rules: CollectRules,
    },
    /// Report keys of a leg.
    Watch {
        /// Operation.
        op: OpId,
        /// Leg.
        leg: CallSid,
        /// Keys.
        keys: String,
    },
    /// Record a leg, or two. `rules.with` is set by the plan.
    Record {
        /// Operation.
        op: OpId,
        /// Leg.
        leg: CallSid,
        /// Second leg.
        with: Option<CallSid>,
        /// Rules.
        rules: RecordRules,
    },
    /// `to` hears `from` (early media).
    Feed {
        /// Who speaks.
        from: CallSid,
        /// Who hears.
        to: CallSid,
    },
    /// Both hear each other.
    Bridge {
        /// One leg.
        a: CallSid,
        /// The other leg.
        b: CallSid,
    },
}

/// Preferences that hold for every session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Core regions in order of preference; the others follow in the order of the node list.
    pub core_regions: Vec<RegionId>,
}

/// Everything that the plan depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanInput {
    /// Legs that take part.
    pub legs: Vec<LegFacts>,
    /// What they need.
    pub needs: Vec<Need>,
    /// Nodes with their resources.
    pub nodes: Vec<NodeEntry>,
    /// What others use of them now; counts against [`NodeEntry::limits`].
    #[serde(default)]
    pub used: BTreeMap<NodeId, ResourceUse>,
    /// Preferences.
    pub policy: Policy,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A need names a leg that is not in the input.
    #[error("leg {0} is not part of the session")]
    UnknownLeg(CallSid),
    /// The home of a leg is not in the node list.
    #[error("node {0} is not known")]
    UnknownNode(NodeId),
    /// No available node has the resource, or has any of it left.
    #[error("no node can {resource} for leg {leg}")]
    NoResource {
        /// In words: `play`, `collect`, `record`, `transcode`.
        resource: &'static str,
        /// For whom.
        leg: CallSid,
    },
    /// Two needs want to be the source of one leg.
    #[error("leg {0} would have two sources")]
    TwoSources(CallSid),
}

/// Places every need.
///
/// A processor runs on the leg's home node if that has the resource and some of it left, else on another node of the
/// same region, else in a core region in the order of [`Policy::core_regions`].
///
/// # Errors
/// See [`PlanError`]; the graph in force stays as it is.
pub fn plan(input: &PlanInput) -> Result<MediaGraph, PlanError> {
    let mut builder = Builder::new(input);
    // Plays first: a collector or recorder that waits for one has to know where it runs.
    for need in &input.needs {
        if let Need::Play { op, leg, items, speech } = need {
            let can = |r: &Resources| r.play && (r.speech || !speech);
            let node = builder.choose(*leg, Resource::Play, can)?;
            let port = builder.towards(*leg, &node)?;
            builder.source(*leg)?;
            let command = MediaCommand::Play { op: *op, port, items: items.clone() };
            builder.processor(*op, *leg, node, command);
        }
    }
    for need in &input.needs {
        place(input, &mut builder, need)?;
    }
    Ok(builder.finish())
}

fn place(input: &PlanInput, builder: &mut Builder<'_>, need: &Need) -> Result<(), PlanError> {
    match need {
        Need::Play { .. } => Ok(()),
        Need::Collect { op, leg, rules } => {
            let node = builder.choose(*leg, Resource::Collect, |r| r.collect)?;
            let port = builder.from(*leg, &node)?;
            let timer = builder.start_seen_from(&node, rules.timer);
            let rules = CollectRules { timer, ..rules.clone() };
            builder.processor(*op, *leg, node, MediaCommand::Collect { op: *op, port, rules });
            Ok(())
        }
        Need::Watch { op, leg, keys } => {
            let node = builder.choose(*leg, Resource::Collect, |r| r.collect)?;
            let port = builder.from(*leg, &node)?;
            let command = MediaCommand::Watch { op: *op, port, keys: keys.clone() };
            builder.processor(*op, *leg, node, command);
            Ok(())
        }
        Need::Record { op, leg, with, rules } => {
            let node = builder.choose(*leg, Resource::Record, |r| r.record)?;
            let home = &find(input, *leg)?.node;
            if rules.track != RecordTrack::Received && node != *home {
                // Only there is known what is sent to the leg.
                return Err(PlanError::NoResource { resource: Resource::Record.name(), leg: *leg });
            }
            let port = builder.from(*leg, &node)?;
            let with = match with {
                Some(other) => Some(builder.from(*other, &node)?),
                None => None,
            };
            let start = builder.start_seen_from(&node, rules.start);
            let rules = RecordRules { start, with, ..rules.clone() };
            builder.processor(*op, *leg, node, MediaCommand::Record { op: *op, port, rules });
            Ok(())
        }
        Need::Feed { from, to } => feed(input, builder, *from, *to),
        Need::Bridge { a, b } => {
            feed(input, builder, *a, *b)?;
            feed(input, builder, *b, *a)
        }
    }
}

/// `to` hears `from`. Both directions of a bridge choose the same node because the choice does not
/// depend on the order of the two.
fn feed(
    input: &PlanInput,
    builder: &mut Builder<'_>,
    from: CallSid,
    to: CallSid,
) -> Result<(), PlanError> {
    let (speaker, hearer) = (find(input, from)?, find(input, to)?);
    let (path, node) = if speaker.codec != hearer.codec {
        (LinkPath::Transcode, transcoder(input, builder, from.min(to), from.max(to))?)
    } else {
        (LinkPath::Relay, hearer.node.clone().min(speaker.node.clone()))
    };
    builder.source(to)?;
    let heard_from = builder.from(from, &node)?;
    let said_to = builder.towards(to, &node)?;
    builder.wire(&node, heard_from, said_to, path);
    Ok(())
}

/// Where two legs of different codecs meet. A node of the region of either leg wins over a core
/// region; both directions are one use of it.
fn transcoder(
    input: &PlanInput,
    builder: &mut Builder<'_>,
    first: CallSid,
    second: CallSid,
) -> Result<NodeId, PlanError> {
    if let Some(node) = builder.transcoder_of(first, second) {
        return Ok(node);
    }
    let find = |leg| builder.find_place(leg, Resource::Transcode, |r: &Resources| r.transcode);
    let near = |leg| home_region(input, leg).ok().zip(find(leg).ok());
    let near = |leg| near(leg).filter(|(home, n)| region_of(input, n) == Some(*home));
    let node = match near(first).or_else(|| near(second)) {
        Some((_, node)) => node,
        None => find(first)?,
    };
    builder.transcodes(first, second, &node);
    Ok(node)
}

fn find(input: &PlanInput, leg: CallSid) -> Result<&LegFacts, PlanError> {
    input.legs.iter().find(|facts| facts.leg == leg).ok_or(PlanError::UnknownLeg(leg))
}

fn region_of<'a>(input: &'a PlanInput, node: &NodeId) -> Option<&'a RegionId> {
    input.nodes.iter().find(|entry| entry.node == *node).map(|entry| &entry.region)
}

fn home_region(input: &PlanInput, leg: CallSid) -> Result<&RegionId, PlanError> {
    let home = &find(input, leg)?.node;
    region_of(input, home).ok_or_else(|| PlanError::UnknownNode(home.clone()))
}

impl Builder<'_> {
    /// Takes a resource at the best place for a leg.
    fn choose(
        &mut self,
        leg: CallSid,
        resource: Resource,
        can: impl Fn(&Resources) -> bool,
    ) -> Result<NodeId, PlanError> {
        let node = self.find_place(leg, resource, can)?;
        self.takes(&node, resource);
        Ok(node)
    }

    fn find_place(
        &self,
        leg: CallSid,
        resource: Resource,
        can: impl Fn(&Resources) -> bool,
    ) -> Result<NodeId, PlanError> {
        let input = self.input();
        let home = &find(input, leg)?.node;
        let region = home_region(input, leg)?;
        let rank = |entry: &NodeEntry| {
            if entry.node == *home {
                0
            } else if entry.region == *region {
                1
            } else {
                let preferred = input.policy.core_regions.iter().position(|r| *r == entry.region);
                2 + preferred.unwrap_or(input.policy.core_regions.len())
            }
        };
        input
            .nodes
            .iter()
            // The home node still serves its own legs while it drains.
            .filter(|entry| can(&entry.resources) && (entry.available || entry.node == *home))
            .filter(|entry| entry.region == *region || entry.core)
            .filter(|entry| self.has_room(entry, resource))
            .min_by_key(|entry| rank(entry))
            .map(|entry| entry.node.clone())
            .ok_or(PlanError::NoResource { resource: resource.name(), leg })
    }

    fn has_room(&self, entry: &NodeEntry, resource: Resource) -> bool {
        let used = self.input().used.get(&entry.node).map_or(0, |used| used.of(resource));
        let taken = self.taken(&entry.node).of(resource);
        entry.limits.of(resource).is_none_or(|max| used.saturating_add(taken) < max)
    }

    /// A start that waits for a play program on another node has to be commanded.
    fn start_seen_from(&self, node: &NodeId, start: StartWhen) -> StartWhen {
        match start {
            StartWhen::AfterPlay(play) if self.processor_node(play) != Some(node) => {
                StartWhen::OnCommand
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
