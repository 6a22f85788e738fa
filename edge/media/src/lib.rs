//! Media of an edge: one [`Worker`] is the whole state of one media thread. No sockets, no locks,
//! no clock; nothing is allocated for a packet.
//!
//! * [`command`] – what signalling tells a worker, [`event`] – what a worker reports,
//!   [`recording`] – what it hands to the recorder, [`tx`] – what it wants sent.
//! * A packet: `ingress` (sort, source check, statistics) → `path/forward` (rewrite in place,
//!   send the same buffer) with taps `digits` and `path/record` beside it.
//! * A relay that needs no processing is settled: its packets take a short way (`settled`), or the
//!   kernel's ([`offload`]), until anything about it changes.
//! * A deadline: `tick` (fill, programs, timeouts, reports); one per port, in `deadlines`. Relayed
//!   streams are watched for falling silent in `quiet`.
//!
//! What keeps a stream towards an endpoint without gaps: a leg that was answered, or that was sent
//! anything, gets a frame of silence every packet time in a rhythm of its own whenever no source
//! speaks. That is the case while it has no source, while a new source has not delivered its first
//! packet, and while a relayed source has been quiet for [`limits::RELAY_QUIET_US`] (network jitter
//! stays below that, so it is not filled up; DTX and dead endpoints exceed it).

pub mod command;
mod commands;
mod deadlines;
mod digits;
mod dump;
mod egress;
pub mod event;
mod foresee;
mod ingress;
mod latch;
pub mod limits;
mod list;
pub mod offload;
mod op;
mod path;
mod port;
mod quiet;
pub mod recording;
mod rtcp;
mod settled;
pub mod stats;
mod table;
mod tick;
pub mod tx;
mod worker;

pub use limits::WorkerLimits;
pub use stats::{DropCause, WorkerStats};
pub use tx::{Component, Tx};
pub use worker::{Returned, Worker, WorkerConfig};
