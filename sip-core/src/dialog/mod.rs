//! Dialogs (RFC 3261 §12) and the INVITE usage on top of them. Data and rules only; what is sent
//! and when is decided in [`crate::endpoint`].

pub mod call;
pub mod route_set;
pub mod state;

pub use call::{AnswerRetransmission, Call, CallState, InboundOffer, OutboundOffer};
pub use route_set::RouteSet;
pub use state::{CSeqCheck, Dialog};
