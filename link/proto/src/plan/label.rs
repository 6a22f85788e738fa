//! What a graph means for each leg: who is heard, by which mode, through which regions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MediaGraph, Wire};
use crate::ids::{CallSid, NodeId, OpId, RegionId};
use crate::media::{MediaCommand, Port};

/// The way that media takes, as operators speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A processor in the leg's own region.
    Local,
    /// Two legs of one region, and the media does not leave it.
    Hairpin,
    /// Two legs of two regions, and no third region in between.
    EdgeToEdge,
    /// Through a processor in a region that is not the leg's own.
    Backhaul,
    /// Between the endpoints, without a gateway.
    Direct,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Hairpin => "hairpin",
            Self::EdgeToEdge => "edge-to-edge",
            Self::Backhaul => "backhaul",
            Self::Direct => "direct",
        })
    }
}

/// The other end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowSource {
    /// What another leg says.
    Leg(CallSid),
    /// What a player sends.
    Player(OpId),
    /// What this leg says goes to a collector, recorder or watcher.
    Listener(OpId),
}

/// One direction of media at one leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Whose media.
    pub leg: CallSid,
    /// Heard by the leg from there, or said by the leg to there ([`FlowSource::Listener`]).
    pub other: FlowSource,
    /// The label.
    pub mode: Mode,
    /// Regions on the way, from source to destination, without repetition.
    pub regions: Vec<RegionId>,
}

impl MediaGraph {
    /// The flows of every leg, ordered by leg.
    pub fn flows(&self) -> Vec<Flow> {
        let mut flows = Vec::new();
        for (op, processor) in &self.processors {
            let listener = !matches!(processor.command, MediaCommand::Play { .. });
            let Some(home) = self.homes.get(&processor.leg) else { continue };
            let (path, other) = if listener {
                ([home, &processor.node], FlowSource::Listener(*op))
            } else {
                ([&processor.node, home], FlowSource::Player(*op))
            };
            let regions = self.regions_of(path.into_iter());
            let mode = if regions.len() > 1 { Mode::Backhaul } else { Mode::Local };
            flows.push(Flow { leg: processor.leg, other, mode, regions });
        }
        for wire in &self.wires {
            flows.extend(self.flow_through(wire));
        }
        flows.sort_by_key(|flow| (flow.leg, flow.other));
        flows
    }

    /// The flow whose two legs meet at this wire, if it is not a mere extension of one leg.
    fn flow_through(&self, wire: &Wire) -> Option<Flow> {
        let (speaker, hearer) = (self.leg_of(wire.from)?, self.leg_of(wire.to)?);
        if speaker == hearer {
            return None;
        }
        let (from, to) = (self.homes.get(&speaker)?, self.homes.get(&hearer)?);
        let regions = self.regions_of([from, &wire.node, to].into_iter());
        let region = |node| self.regions.get(node);
        let mode = match regions.len() {
            0 | 1 => Mode::Hairpin,
            2 if region(from) != region(to) => Mode::EdgeToEdge,
            _ => Mode::Backhaul,
        };
        Some(Flow { leg: hearer, other: FlowSource::Leg(speaker), mode, regions })
    }

    fn regions_of<'a>(&self, path: impl Iterator<Item = &'a NodeId>) -> Vec<RegionId> {
        let mut regions: Vec<RegionId> = Vec::new();
        for node in path {
            let Some(region) = self.regions.get(node) else { continue };
            if regions.last() != Some(region) {
                regions.push(region.clone());
            }
        }
        regions
    }

    /// Whether any of the graph's media crosses a border between regions.
    pub fn leaves_a_region(&self) -> bool {
        let region = |node| self.regions.get(node);
        self.channels.values().any(|channel| region(&channel.home) != region(&channel.far))
    }

    /// Whether this port's packets travel in a trunk.
    pub fn is_trunk(port: Port) -> bool {
        matches!(port, Port::Channel(_))
    }
}
