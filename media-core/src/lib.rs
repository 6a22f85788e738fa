//! Media without input or output: RTP, codecs, tones, DTMF, jitter buffer, containers.
//!
//! Nothing here opens a socket, reads a clock or starts a thread. Functions that run once per
//! packet neither allocate nor fail after validation.
//!
//! A relayed packet is validated once and rewritten in the buffer it came in:
//!
//! ```
//! use media_core::rtp::{PacketKind, RtpViewMut, SourceId, StreamRewriter, classify};
//! use media_core::units::{RtpTime, Ssrc};
//!
//! let mut datagram = [0u8; 172];
//! datagram[0] = 0x80; // version 2, PCMU
//! let mut stream = StreamRewriter::new(Ssrc(0x1234), 100, RtpTime(5000), 160);
//!
//! assert_eq!(classify(&datagram), PacketKind::Rtp);
//! let mut packet = RtpViewMut::parse(&mut datagram)?;
//! stream.rewrite(&mut packet, SourceId(1), RtpTime(0)).expect("first packet of a source");
//! assert_eq!((packet.header().ssrc, packet.header().seq), (Ssrc(0x1234), 100));
//!
//! // Now a player feeds the stream: the endpoint sees the next number and a later timestamp.
//! let next = stream.generate(SourceId(2), 160, RtpTime(160)).expect("not ahead of time");
//! assert_eq!((next.seq, next.timestamp, next.marker), (101, RtpTime(5160), true));
//! # Ok::<(), media_core::rtp::RtpParseError>(())
//! ```

pub mod codec;
pub mod container;
pub mod dtmf;
pub mod frame;
pub mod jitter;
pub mod mix;
pub mod plc;
pub mod quality;
pub mod resample;
pub mod rtp;
pub mod tone;
pub mod tone_detect;
pub mod units;
