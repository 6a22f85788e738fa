//! Session descriptions (RFC 8866) and offer/answer for audio (RFC 3264).

pub mod offer_answer;
pub mod parser;
pub mod session;
pub mod writer;

pub use offer_answer::{
    CodecSpec, LocalMedia, NegotiateError, Negotiated, SessionState, negotiate_answer,
    negotiate_offer,
};
pub use session::{Attribute, Connection, Direction, Line, Media, SdpError, Session};
