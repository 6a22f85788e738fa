//! A control node as edges and operators see it.

// Helpers outside of `#[test]` functions are tests, too.
#![allow(clippy::unwrap_used)]

mod call;
mod edge;
mod link;
mod process;
