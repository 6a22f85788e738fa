//! Tables that control pushes and every edge keeps on disk.

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, RegionId};

/// What a node can do for media. A resource can be switched off by configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Play prompts and tones.
    pub play: bool,
    /// Collect digits.
    pub collect: bool,
    /// Record.
    pub record: bool,
    /// Transcode between codecs.
    pub transcode: bool,
    /// Synthesised speech may be played here.
    pub speech: bool,
}

impl Default for Resources {
    fn default() -> Self {
        Self { play: true, collect: true, record: true, transcode: true, speech: true }
    }
}

/// A resource of a node that can be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Play programs.
    Play,
    /// Collections and watches of digits.
    Collect,
    /// Recordings.
    Record,
    /// Conversations between different codecs.
    Transcode,
}

impl Resource {
    /// In words, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Collect => "collect",
            Self::Record => "record",
            Self::Transcode => "transcode",
        }
    }
}

/// How many of each resource a node gives at once; `None` = as many as its capacity allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// Play programs.
    pub plays_max: Option<u32>,
    /// Collections and watches.
    pub collects_max: Option<u32>,
    /// Recordings.
    pub records_max: Option<u32>,
    /// Conversations between different codecs.
    pub transcodes_max: Option<u32>,
}

impl ResourceLimits {
    /// The limit of one resource.
    pub fn of(&self, resource: Resource) -> Option<u32> {
        match resource {
            Resource::Play => self.plays_max,
            Resource::Collect => self.collects_max,
            Resource::Record => self.records_max,
            Resource::Transcode => self.transcodes_max,
        }
    }
}

/// How many of each resource are in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceUse {
    /// Play programs.
    pub plays: u32,
    /// Collections and watches.
    pub collects: u32,
    /// Recordings.
    pub records: u32,
    /// Conversations between different codecs.
    pub transcodes: u32,
}

impl ResourceUse {
    /// What is in use of one resource.
    pub fn of(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Play => self.plays,
            Resource::Collect => self.collects,
            Resource::Record => self.records,
            Resource::Transcode => self.transcodes,
        }
    }

    /// One more.
    pub fn take(&mut self, resource: Resource) {
        let place = match resource {
            Resource::Play => &mut self.plays,
            Resource::Collect => &mut self.collects,
            Resource::Record => &mut self.records,
            Resource::Transcode => &mut self.transcodes,
        };
        *place = place.saturating_add(1);
    }

    /// Combines each resource with that of another.
    #[must_use]
    pub fn zip(self, other: Self, with: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            plays: with(self.plays, other.plays),
            collects: with(self.collects, other.collects),
            records: with(self.records, other.records),
            transcodes: with(self.transcodes, other.transcodes),
        }
    }
}

/// A node that takes part in media, as all the others know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// `host:port` of its media trunk.
    pub trunk_address: String,
    /// What it can do.
    pub resources: Resources,
    /// How much of it at once.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// True for a media node of a core region.
    pub core: bool,
    /// False while it drains or is unreachable.
    pub available: bool,
}

/// A number prefix and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Longest match on the dialled number or SIP user; empty = default route.
    pub prefix: String,
    /// Node that owns the trunk.
    pub node: NodeId,
    /// SIP URI pattern; `{number}` is replaced, for example `sip:{number}@10.0.0.7:5060`.
    pub uri: String,
    /// Calls to this prefix need no instructions: the edge connects them by itself (LAT-15).
    #[serde(default)]
    pub without_instructions: bool,
}

/// Everything that is pushed to an edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tables {
    /// Rises with every change.
    pub version: u64,
    /// Other media nodes.
    pub nodes: Vec<NodeEntry>,
    /// Routes.
    pub routes: Vec<Route>,
}

impl Tables {
    /// The route with the longest prefix of `number`; of equal ones the last.
    pub fn route(&self, number: &str) -> Option<&Route> {
        self.route_by(number, |_| true)
    }

    /// The route with the longest prefix of `number`; of equal ones the last whose node is `good`,
    /// if there is one.
    pub fn route_by(&self, number: &str, good: impl Fn(&NodeId) -> bool) -> Option<&Route> {
        self.routes
            .iter()
            .filter(|route| number.starts_with(route.prefix.as_str()))
            .max_by_key(|route| (route.prefix.len(), good(&route.node)))
    }
}
