//! A session at this edge: its legs, channels, programs and what waits for sockets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use edge_media::command::{PortKey, SessionKey};
use edge_media::event::RegionCounters;
use link_proto::media::MediaCommand;
use link_proto::{CallSid, ChannelId, OpId};

use crate::io::ControlIndex;
use crate::media::op::Op;

/// Who tells the session what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// A control node, the same to the end.
    Control(ControlIndex),
    /// The route table of this edge (LAT-15).
    RouteTable,
}

/// A session at this edge.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) key: SessionKey,
    pub(crate) driver: Driver,
    pub(crate) worker: u16,
    pub(crate) legs: BTreeSet<CallSid>,
    pub(crate) channels: BTreeMap<ChannelId, PortKey>,
    pub(crate) ops: BTreeMap<OpId, Op>,
    /// Media commands behind one that needs sockets which are not bound yet.
    pub(crate) waiting: VecDeque<(CallSid, MediaCommand)>,
    /// Snapshots asked for: phase and the leg to report them on.
    pub(crate) snapshots: BTreeMap<u32, CallSid>,
    /// Counters of ports that are gone.
    pub(crate) counted: RegionCounters,
}

impl Driver {
    /// The control node, if it is one.
    pub(crate) fn control(self) -> Option<ControlIndex> {
        match self {
            Self::Control(control) => Some(control),
            Self::RouteTable => None,
        }
    }
}

impl Call {
    pub(crate) fn new(key: SessionKey, driver: Driver, worker: u16) -> Self {
        Self {
            key,
            driver,
            worker,
            legs: BTreeSet::new(),
            channels: BTreeMap::new(),
            ops: BTreeMap::new(),
            waiting: VecDeque::new(),
            snapshots: BTreeMap::new(),
            counted: RegionCounters::default(),
        }
    }

    /// Nothing is left of it here.
    pub(crate) fn is_over(&self) -> bool {
        self.legs.is_empty() && self.channels.is_empty() && self.ops.is_empty()
    }
}
