//! The kernel fast path: RTP streams that need no processing are forwarded by an XDP program, before
//! the kernel's own network stack and without a system call.
//!
//! ```text
//! interface ─► forward.bpf.c ── known stream, plain packet ──► rewritten, sent (XDP_TX or redirect)
//!                    └───────── everything else ─────────────► the socket, as ever (XDP_PASS)
//! ```
//!
//! * [`FastPath`] – the loaded program: interfaces, counters, next hops.
//! * [`StreamTable`] – one media thread's share of the streams: [`StreamTable::offload`],
//!   [`StreamTable::progress`], [`StreamTable::withdraw`]. No lock, no wait.
//! * Next hops are found by a thread of their own (`hops`) from the kernel's routes and neighbours, and
//!   kept up to date; a stream without one stays in user space.
//!
//! A stream belongs either to the kernel program or to user space. Both do the same arithmetic
//! (RFC 3550 A.1, A.3, A.8), and [`Progress`] is the whole of what changes, so that a stream moves
//! between them at any packet without a hole or a double.
//!
//! [`FastPath::coalesce`] makes an interface that is busy wake the processor less often, which is most
//! of what a packet costs there.
//!
//! The program goes up with: other sources, payload types and SSRCs; padding, header extensions and
//! contributing sources; jumps of sequence numbers or time; IP options and fragments; IPv6 without a
//! UDP checksum. It does not verify checksums but updates them, so that a broken packet stays broken
//! for its receiver.

mod attach;
mod coalesce;
mod hops;
mod layout;
mod memory;
mod netlink;
mod places;
mod program;
mod table;
pub mod testing;

pub use attach::{AttachError, Attached, Mode};
pub use layout::{Progress, Stream};
pub use program::{Counters, Counts, FastPath, Limits, LoadError};
pub use table::{Refused, StreamId, StreamTable};

/// How long a busy interface had best collect packets: at 100,000 packets a second a packet costs
/// two thirds of what it does uncollected, and is delayed by at most a fiftieth of the time that it
/// carries. Longer saves less and less, and a ring of 256 entries would fill at 600,000 packets a second.
pub const COALESCE_USUAL: std::time::Duration = std::time::Duration::from_micros(400);

/// The clock of the kernel program, in ns.
#[must_use]
pub fn clock_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap_or(0))
}
