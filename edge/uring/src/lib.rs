//! The mechanics of a media thread: one io_uring, its sockets, its buffers, its waiting.
//!
//! This crate moves datagrams and wakes up in time. It knows nothing of RTP or calls, reads no
//! clock of its own and never logs. What happens to a datagram is decided by the [`Driver`] that
//! [`Loop`] drives; what the driver wants done goes into [`Io`].
//!
//! ```text
//!            ┌──────────────── one turn ────────────────┐
//!  enter ──▶ completions ──▶ Driver::on_datagram ──▶ Io ──▶ one enter: submit all, wait
//!            (bounded)        same buffer, in place        until completion or deadline
//! ```
//!
//! * A datagram lies in a provided buffer; a forward sends that very buffer. A non-blocking UDP
//!   send copies at submit, so a buffer goes back to the kernel as soon as the submit returned.
//! * Successful sends do not complete; only failures do, and they are counted and reported.
//! * A socket starts unconnected (every datagram carries its source) and is connected when its
//!   peer is known. What was queued before is delivered with its source.
//! * Everything is sized by [`Limits`] at start; a turn allocates nothing.
//!
//! Nearly all `unsafe` of the edge lives here, one operation per block.

mod buf_ring;
mod doorbell;
#[cfg_attr(all(test, tandem_loom), path = "model/entries.rs")]
mod entries;
#[cfg_attr(all(test, tandem_loom), path = "model/event.rs")]
mod event;
mod io;
mod limits;
#[cfg(all(test, tandem_loom))]
mod model;
mod pages;
mod prefetch;
mod recv;
mod ring;
mod send;
mod settle;
mod sleeper;
pub mod socket;
mod stats;
mod sync;
mod table;
mod thread;
mod timer;
mod turn;
mod user_data;
mod wake_up;

pub use doorbell::Doorbell;
pub use io::Io;
pub use limits::{Limits, LimitsError, WaitConfig};
pub use prefetch::prefetch;
pub use ring::RingFlags;
pub use sleeper::Sleeper;
pub use stats::Stats;
pub use table::SocketId;
pub use thread::{MediaThread, SpawnError, Started, ThreadConfig, cores_allowed, spawn};
pub use turn::{Datagram, Driver, Foresight, Loop};
