//! Calls of an edge: sessions with their legs, and what happens to them.

mod bridge;
mod hold;
mod inbound;
pub(crate) mod leg;
mod outbound;
mod reinvite;
pub(crate) mod session;
mod teardown;
