//! A control node as edges and operators see it.

mod call;
mod edge;
mod link;
mod process;
