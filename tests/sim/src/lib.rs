//! Whole regions on one clock, from one seed.
//!
//! The real cores of edges, control and phones, the real media workers (or a model of them), a
//! network that loses, doubles, delays and reorders, links that break, processes that are killed.
//! A run has two phases: while chaos lasts, nothing wrong may happen; then everything heals, and
//! every call has to come to its right end.
//!
//! * [`world`] – the loop: next event = smallest deadline. [`clock`], [`net`], [`faults`].
//! * [`edge_node`], [`control_node`] – cores with what a shell does around them. [`media`] is the
//!   worker of a shard, [`model_media`] its model without packets.
//! * [`phone`], [`app_server`] – those outside.
//! * [`workload`] – draws calls; [`reference`](mod@reference) – what should become of them.
//! * [`checkers`] – what must hold. [`replay`] – hash and text of what happened.
//! * [`run`] – one seed from beginning to verdict.

pub mod app_server;
pub mod checkers;
pub mod clock;
pub mod control_node;
pub mod edge_node;
pub mod faults;
pub mod media;
pub mod model_media;
pub mod net;
pub mod phone;
pub mod reference;
pub mod replay;
pub mod run;
pub mod workload;
pub mod world;
