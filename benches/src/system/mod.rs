//! Packets through systems that forward them.
//!
//! ```text
//!   core of the load                      core of the system
//!   generator ── bulk/sampled A ──► leg A ─┐
//!             ◄── bulk/sampled B ── leg B ◄┘      and the other way round
//! ```

pub mod choices;
pub mod edge;
pub mod flood;
pub mod floor;
pub mod generator;
pub mod hostile;
pub mod kernel;
pub mod loops;
pub mod measure;
pub mod media_memory;
pub mod relay;
pub mod rtpengine;
pub mod scale;
pub mod sip;
pub mod tick;
pub mod trunk;
pub mod trunk_flow;
pub mod trunk_world;
pub mod xdp;
mod xdp_line;

use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::machine::Cores;

/// One call of so many has its packets timed one by one.
pub const SAMPLE_EVERY: usize = 64;

/// Where a system sends to: the generator's addresses of side A and side B.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// For most calls.
    pub bulk: [SocketAddr; 2],
    /// For every [`SAMPLE_EVERY`]th call.
    pub sampled: [SocketAddr; 2],
}

impl Ends {
    /// The generator's address for one side of a call.
    pub fn of(&self, call: usize, side: usize) -> SocketAddr {
        if is_sampled(call) { self.sampled[side] } else { self.bulk[side] }
    }
}

/// Whether this call's packets are timed. Its place differs from one group of calls to the next, so
/// that packets at the head of a burst, which find the system idle, count no more than others.
pub fn is_sampled(call: usize) -> bool {
    call % SAMPLE_EVERY == call / SAMPLE_EVERY * 13 % SAMPLE_EVERY
}

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The edge, driven over SIP by a route without instructions.
    Edge,
    /// The same with `media.keep_awake` off.
    EdgeAsleep,
    /// rtpengine in user space, driven by its control protocol.
    Rtpengine,
    /// Connected sockets on an io_uring, and nothing else.
    Floor,
    /// The same on processors that do not sleep, as an edge has it while it is busy.
    FloorAwake,
}

impl Kind {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "tandem-edge",
            Self::EdgeAsleep => "tandem-edge, keep_awake never",
            Self::Rtpengine => "rtpengine",
            Self::Floor => "floor",
            Self::FloorAwake => "floor, processors kept awake",
        }
    }
}

/// A system that runs with its calls set up. Ends with its owner.
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Where it takes SIP; unspecified for systems that take none.
    pub sip: SocketAddr,
    /// Address of leg A and leg B of each call.
    pub legs: Vec<[SocketAddr; 2]>,
    /// Keeps processes and sockets.
    pub guard: Box<dyn Any>,
}

/// For systems without SIP.
pub const NO_SIP: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// What all systems need to start.
#[derive(Debug, Clone)]
pub struct Place {
    /// Cores.
    pub cores: Cores,
    /// The `tandem` program.
    pub tandem: PathBuf,
}

/// Starts a system on its core and sets up its calls.
///
/// # Errors
/// In words.
pub fn start(kind: Kind, place: &Place, calls: usize, ends: &Ends) -> anyhow::Result<Running> {
    match kind {
        Kind::Edge => edge::start(place, calls, ends, ""),
        Kind::EdgeAsleep => edge::start(place, calls, ends, edge::ASLEEP),
        Kind::Rtpengine => rtpengine::start(place, calls, ends),
        Kind::Floor => floor::start(place, calls, ends, floor::FloorWay::Plain),
        Kind::FloorAwake => floor::start_awake(place, calls, ends),
    }
}
