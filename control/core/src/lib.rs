//! The whole brain of control, without any I/O: number → application → signed webhook →
//! instruction document → verbs → media needs → commands; records, callbacks, alerts.
//!
//! [`ControlCore`] has four doors: [`ControlCore::handle_input`], [`ControlCore::handle_timeout`],
//! [`ControlCore::poll_output`], [`ControlCore::poll_timeout`]. Beside the monotonic `now` each
//! takes the wall clock (`unix_ms`), which is only ever written down for people.
//!
//! Commit before act: the only output is [`Output`], a transaction and the effects that may be
//! released once it is committed. The shell keeps the order of outputs.
//!
//! * [`io`] — inputs, outputs, effects, store operations.
//! * [`record`] — what the store keeps: calls, callbacks, alerts, recordings, timeline, requests.
//! * [`directory`] — accounts, numbers, applications, nodes and routes, pushed by the shell.
//! * [`api`] — the REST actions that change calls.
//! * [`doc`] — instruction documents; [`verb`] — one file per verb; [`run`] — the runner.
//! * [`webhook`] — parameters, signature, connection overrides, fallback.
//! * [`call`] — sessions, legs, media needs, ends.
//! * [`error_code`] — the one table of error codes.

pub mod api;
pub mod call;
mod core;
pub mod directory;
pub mod doc;
pub mod error_code;
pub mod geography;
pub mod io;
pub mod record;
pub mod run;
pub mod verb;
pub mod webhook;

pub use crate::core::{ControlCore, CoreConfig, Metrics};
pub use crate::io::{Effect, Input, Output, StoreOp};
