//! Media without input or output: RTP, codecs, tones, DTMF, jitter buffer, containers.
//!
//! Nothing here opens a socket, reads a clock or starts a thread. Functions that run once per
//! packet neither allocate nor fail after validation.

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
