//! RTP and RTCP (RFC 3550): views, statistics and continuity of outgoing streams.

pub mod ext;
pub mod mux;
pub mod packet;
pub mod rewrite;
pub mod rtcp;
pub mod seq;
pub mod settled;
pub mod stats;

pub use mux::{PacketKind, classify};
pub use packet::{RtpFields, RtpHeader, RtpParseError, RtpView, RtpViewMut, write_header};
pub use rewrite::{SourceId, StreamRewriter};
pub use settled::SettledStream;
