//! The core-region service around `control-core`: store, edges' connections, HTTP in both
//! directions, prompts.
//!
//! * [`config`] — every key, all errors at once.
//! * [`assemble`] — builds the parts and starts them; [`run`] is the whole life of the service.
//! * [`core_task`] — the one task that owns the core; [`commit_queue`] — commit before act;
//!   [`rows`] and [`directory`] — between the core's records and the store.
//! * [`link_server`] — the edges.
//! * [`metrics`] — what `/metrics` shows.
//!
//! Decisions about calls are made in `control-core` alone.

pub mod assemble;
pub mod commit_queue;
pub mod config;
pub mod core_task;
pub mod directory;
pub mod link_server;
pub mod metrics;
pub mod rows;
pub mod services;

pub use assemble::{Control, run, start};
pub use config::Config;
