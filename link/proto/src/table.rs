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
    /// The route with the longest prefix of `number`.
    pub fn route(&self, number: &str) -> Option<&Route> {
        self.routes
            .iter()
            .filter(|route| number.starts_with(route.prefix.as_str()))
            .max_by_key(|route| route.prefix.len())
    }
}
