//! Media of an edge: one worker is the whole state of one media thread. No sockets, no locks.
//!
//! * [`command`] – what signalling tells a worker.
//! * [`event`] – what a worker reports.
//! * [`recording`] – what it hands to the recorder.

pub mod command;
pub mod event;
pub mod recording;
