//! SIP (RFC 3261) and SDP (RFC 8866, RFC 3264) without sockets, clock or threads.
//!
//! Bytes and `now` go in; bytes, events and the next deadline come out. [`SipEndpoint`] is the hub
//! with the four doors `handle_input`, `handle_timeout`, `poll_output`, `poll_timeout`; calls are
//! driven by its methods (`invite`, `provisional`, `accept`, `bye` …), each of which takes `now`.
//!
//! * [`msg`] – a parser and writer that keep what they do not understand byte for byte.
//! * [`transaction`] – the four machines of RFC 3261 §17 with RFC 6026.
//! * [`dialog`] – dialogs, several early ones per INVITE, route sets, CSeq.
//! * [`sdp`] – session descriptions and the offer/answer model for audio.
//! * [`token`] – the keyed token in every branch, tag and Call-ID we mint, so that a datagram which
//!   answers us is recognised before it is parsed.
//! * [`framing`] – message borders on streams (RFC 3261 §18.3).

//!
//! A caller without a network:
//!
//! ```
//! use std::time::Instant;
//! use rand::{SeedableRng, rngs::StdRng};
//! use sip_core::*;
//!
//! let config = SipConfig::new("192.0.2.1", 5060, [0; 32]);
//! let mut sip = SipEndpoint::new(config, StdRng::seed_from_u64(1));
//! let uri = Uri::parse("sip:bob@192.0.2.2").unwrap();
//! let me = NameAddr::new(Uri::parse("sip:alice@192.0.2.1").unwrap());
//! let target = Destination::udp("192.0.2.2:5060".parse().unwrap());
//! let params = InviteParams::new(target, uri.clone(), me, NameAddr::new(uri));
//! let now = Instant::now();
//! let leg = sip.invite(now, params).unwrap();
//! let Some(Output::Send { to, bytes }) = sip.poll_output() else { panic!("an INVITE goes out") };
//! assert_eq!(to, target);
//! assert!(bytes.starts_with(b"INVITE sip:bob@192.0.2.2 SIP/2.0\r\n"));
//! // Nobody answers: timer A sends it again half a second later.
//! let at = sip.poll_timeout().unwrap();
//! assert_eq!(at - now, sip.config().timers.t1);
//! sip.handle_timeout(at);
//! assert!(matches!(sip.poll_output(), Some(Output::Send { .. })));
//! assert!(sip.call_id(leg).is_some());
//! ```

pub mod auth;
pub mod config;
pub mod counters;
pub mod dialog;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod framing;
pub mod msg;
pub mod sdp;
pub mod token;
pub mod transaction;
pub mod transport;

pub use config::{SentBy, SipConfig};
pub use counters::Counters;
pub use endpoint::SipEndpoint;
pub use error::{CommandError, ParseError};
pub use event::{
    Body, DialogHandle, EndReason, Event, FailCause, IncomingCall, Input, InviteParams, Output,
    RequestId, RequestOutcome, RequestParams,
};
pub use msg::{
    Header, HeaderName, Headers, Message, Method, NameAddr, Params, Reason, StartLine, Uri, Via,
};
pub use token::TokenKey;
pub use transaction::timers::TimerConfig;
pub use transport::{Destination, Transport};
