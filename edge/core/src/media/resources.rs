//! What is in use of the resources that configuration limits (LAT-06).
//!
//! Control counts for itself and places what does not fit elsewhere; the limit is kept here all the
//! same, because several control nodes may give commands to one edge.

use std::collections::BTreeSet;

use edge_media::command::PortKey;
use link_proto::table::{Resource, ResourceUse};

use super::op::{Op, OpKind};
use crate::core::EdgeCore;

impl EdgeCore {
    /// What is in use now. What was told to stop is not.
    pub(crate) fn used(&self) -> ResourceUse {
        self.used_but(None)
    }

    /// The same without a play towards `port`, whose place a new one takes.
    fn used_but(&self, port: Option<PortKey>) -> ResourceUse {
        let mut used = ResourceUse::default();
        let ops = self.calls.values().flat_map(|call| call.ops.values());
        for op in ops.filter(|op| !op.stopping) {
            match op.kind {
                OpKind::Play if Some(op.port) == port => {}
                _ => used.take(resource_of(op)),
            }
        }
        let pairs: BTreeSet<(PortKey, PortKey)> = self
            .ports
            .iter()
            .filter(|(_, record)| record.transcoding)
            .filter_map(|(key, record)| record.source.map(|from| (key.min(from), key.max(from))))
            .collect();
        used.transcodes = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
        used
    }

    /// Whether there is room for one more program; `port` is where a play is to be heard.
    pub(crate) fn expect_room(
        &self,
        resource: Resource,
        port: Option<PortKey>,
    ) -> Result<(), String> {
        match self.config.limits.of(resource) {
            Some(max) if self.used_but(port).of(resource) >= max => {
                Err(format!("all {max} of {} are in use", resource.name()))
            }
            _ => Ok(()),
        }
    }

    /// Whether two ports may be transcoded; both directions are one use.
    pub(crate) fn expect_transcoder(&self, from: PortKey, to: PortKey) -> Result<(), String> {
        let back = self.ports.get(from);
        let other_way = back.is_some_and(|port| port.transcoding && port.source == Some(to));
        if other_way { Ok(()) } else { self.expect_room(Resource::Transcode, None) }
    }
}

fn resource_of(op: &Op) -> Resource {
    match op.kind {
        OpKind::Play => Resource::Play,
        OpKind::Collect { .. } | OpKind::Watch => Resource::Collect,
        OpKind::Record { .. } => Resource::Record,
    }
}
