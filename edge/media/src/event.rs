//! What a media worker reports to signalling.

use std::net::SocketAddr;

pub use link_proto::call::LegStats;
pub use link_proto::media::{CollectEnd, PlayEnd, RecordEnd};

use crate::command::{OpKey, PortKey, SessionKey};

/// Packets by where they went, for the proof that media stays in its region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegionCounters {
    /// RTP packets handed to a trunk or sent to an address of another region.
    pub packets_out_of_region: u64,
    /// RTP packets sent to endpoints.
    pub packets_to_endpoints: u64,
    /// RTP packets received from endpoints.
    pub packets_from_endpoints: u64,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerEvent {
    /// First RTP packet from the endpoint that was accepted.
    FirstPacket {
        /// Leg.
        port: PortKey,
    },
    /// The remote RTP address was learnt from a packet and differs from the one in SDP.
    Latched {
        /// Leg.
        port: PortKey,
        /// Where RTP goes from now on.
        source: SocketAddr,
    },
    /// No RTP for the configured time. Once, until RTP arrives again.
    MediaTimeout {
        /// Leg.
        port: PortKey,
    },
    /// The first packet of a play program was sent.
    PlayStarted {
        /// Program.
        op: OpKey,
    },
    /// A play program ended. Exactly once per started program.
    PlayDone {
        /// Program.
        op: OpKey,
        /// Why.
        end: PlayEnd,
    },
    /// The first digit of a collection arrived.
    CollectBegun {
        /// Program.
        op: OpKey,
    },
    /// A collection ended. Exactly once.
    CollectDone {
        /// Program.
        op: OpKey,
        /// Without the finish key.
        digits: String,
        /// Why.
        end: CollectEnd,
    },
    /// A recording ended. Exactly once.
    RecordDone {
        /// Program.
        op: OpKey,
        /// Length in ms after trimming.
        duration_ms: u64,
        /// Why.
        end: RecordEnd,
    },
    /// A watched key was pressed.
    Key {
        /// Program.
        op: OpKey,
        /// Key.
        key: char,
    },
    /// Counters of the present ports of a session.
    Snapshot {
        /// Session.
        session: SessionKey,
        /// From the command.
        phase: u32,
        /// Sums.
        counters: RegionCounters,
    },
    /// A port is gone. Its sockets may be released. Exactly once per removed port.
    PortRemoved {
        /// Port.
        port: PortKey,
        /// Counters of its life.
        stats: LegStats,
        /// Its part of the session's sums.
        counters: RegionCounters,
    },
    /// The worker has no room for the port or program.
    PortRefused {
        /// Port.
        port: PortKey,
    },
}
