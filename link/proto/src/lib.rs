//! What an edge and a control node must agree on, without any I/O.
//!
//! * [`ids`] — typed identifiers; a SIP leg and its REST `Call` share one [`CallSid`].
//! * [`envelope`] — version, region, action, features, supported, required around every message.
//! * [`message`] — the messages themselves; [`codec`] turns them into bounded CBOR frames.
//! * [`call`] — [`call::CallEvent`] (edge → control) and [`call::CallCommand`] (control → edge).
//! * [`media`] — programs (play, collect, record, watch), ports and links between ports.
//! * [`plan`] — the media plan: needs, legs, resources → [`plan::MediaGraph`], and the difference
//!   of two graphs as ordered commands.
//! * [`table`] — providers, trunks and routes pushed to an edge.
//! * [`session`] — per-call sequences, acknowledgement, resend, command idempotence, epochs.
//!
//! Unknown fields are ignored and unknown actions are answered, so that two releases can talk.

pub mod call;
pub mod codec;
pub mod envelope;
pub mod ids;
pub mod media;
pub mod message;
pub mod plan;
pub mod session;
pub mod table;

pub use ids::{
    AccountSid, ApplicationSid, CallSid, ChannelId, NodeId, OpId, PhoneNumberSid, RecordingSid,
    RegionId,
};
