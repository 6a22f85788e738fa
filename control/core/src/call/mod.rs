//! Sessions: one call with all its legs and the instructions that it follows.
//!
//! * `session` — the state that is written down after every input, and who is told what.
//! * `legs` — life of a leg from creation to its end, records and status callbacks.
//! * `needs` — what the current verb needs from media, and the graph that gives it.
//! * `end` — the table from reasons to statuses.
//! * `turn` — what one input may read and what it wants done.

pub mod end;
pub(crate) mod legs;
pub(crate) mod needs;
pub(crate) mod recording;
pub(crate) mod session;
pub(crate) mod timeline;
pub(crate) mod turn;
