//! Calls of an edge, without sockets, clock or threads.
//!
//! [`EdgeCore`] is one signalling shard. SIP datagrams, control's messages and the reports of media
//! workers go in; SIP datagrams, events for control and worker commands come out. The four doors are
//! `handle_input`, `handle_timeout`, `poll_output`, `poll_timeout`.
//!
//! * [`io`] – the border: [`Input`], [`Output`].
//! * [`config`] – [`EdgeConfig`], providers.
//! * `admission` – who is let in, decided before parsing.
//! * `call` – legs, bridges, hold, teardown. The edge alone owns its dialogs.
//! * `media` – offer and answer; media commands become worker commands.
//! * `control` – numbering, repeats, and what happens while no control node is there.
//! * `controls` – which control node gets a new call.
//! * `route_table` – calls that need no instructions.
//! * [`reject`] – the one table from the end of a leg to SIP and back.
//! * [`shard`] – which shard a raw message belongs to.

mod admission;
mod call;
pub mod config;
mod control;
mod controls;
mod core;
pub mod counters;
mod delivery;
mod identity;
pub mod io;
mod media;
mod ports;
pub mod reject;
mod route_table;
pub mod shard;
mod sip_events;
mod timers;
pub mod view;

pub use call::leg::LegState;
pub use config::{Cidr, ControlChoice, EdgeConfig, Provider, Settings};
pub use core::EdgeCore;
pub use counters::Counters;
pub use io::{ControlIndex, Fact, Input, LinkInput, LinkOutput, Output, ResolveId};
pub use shard::{call_id_of, shard_of};
pub use view::LegView;
