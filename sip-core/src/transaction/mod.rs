//! The four transaction machines (RFC 3261 §17, RFC 6026) and their table.
//!
//! A machine knows its state, its timers and the bytes it repeats. It is told of messages and time
//! and says what to do as an [`Effect`]; it never sees a socket, a dialog or another machine.

pub mod client_invite;
pub mod client_non_invite;
pub mod key;
pub mod server_invite;
pub mod server_non_invite;
pub mod table;
pub mod timers;

use std::time::Instant;

use bytes::Bytes;

pub use client_invite::ClientInvite;
pub use client_non_invite::ClientNonInvite;
pub use key::{ClientKey, MergeKey, ServerKey};
pub use server_invite::ServerInvite;
pub use server_non_invite::ServerNonInvite;
pub use table::{Entry, Machine, Table, TransactionId};
pub use timers::TimerConfig;

/// What a machine wants done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Send these bytes to the peer of the transaction.
    pub send: Option<Bytes>,
    /// `send` is a repetition (for the counters).
    pub repeated: bool,
    /// Hand the message at hand to the user of the transaction.
    pub to_user: bool,
    /// The transaction ended without a final response (timers B, F), without ACK (H), or was never
    /// answered by its user.
    pub timed_out: bool,
}

impl Effect {
    pub(crate) fn nothing() -> Effect {
        Effect::default()
    }

    pub(crate) fn to_user() -> Effect {
        Effect { to_user: true, ..Effect::default() }
    }

    pub(crate) fn timed_out() -> Effect {
        Effect { timed_out: true, ..Effect::default() }
    }

    pub(crate) fn send(bytes: Bytes) -> Effect {
        Effect { send: Some(bytes), ..Effect::default() }
    }

    pub(crate) fn repeat(bytes: Bytes) -> Effect {
        Effect { send: Some(bytes), repeated: true, ..Effect::default() }
    }
}

/// True if `timer` is set and due.
pub(crate) fn is_due(timer: Option<Instant>, now: Instant) -> bool {
    timer.is_some_and(|at| at <= now)
}

/// The earliest of some timers.
pub(crate) fn earliest(timers: &[Option<Instant>]) -> Option<Instant> {
    timers.iter().flatten().min().copied()
}
