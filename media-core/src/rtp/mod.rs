//! RTP and RTCP (RFC 3550): views, statistics and continuity of outgoing streams.

pub mod mux;
pub mod packet;
pub mod seq;

pub use mux::{PacketKind, classify};
pub use packet::{RtpFields, RtpHeader, RtpParseError, RtpView, RtpViewMut, write_header};
