//! Phones that call, are called, speak and listen; by the one or by the thousand.
//!
//! For tests and demonstrations: describe a [`Phone`] (address, codecs, tone, script of
//! [`Step`]s), plug it into a [`PhoneBank`], read its [`PhoneReport`]. For load: give a caller
//! [`Traffic`] and read its [`Totals`], or let [`load`] do the whole run with a verdict.
//!
//! ```text
//!  Phone ── script ──► PhoneBank (one thread: epoll, timerfd)
//!                        SIP: sip-core's endpoint, one per phone
//!                        RTP: one socket per call, a packet each 20 ms, calls spread over 20 slots
//!                      ──► PhoneReport: timeline, RTP statistics, onsets sent, sounds heard
//! ```
//!
//! All times are nanoseconds of CLOCK_MONOTONIC ([`clock::now_ns`]), arrivals as the kernel
//! stamped them, so that reports of several phones, banks and processes of one machine can be
//! compared. A phone's voice is bursts of a tone in a rhythm of its own ([`Source::Bursts`]): the
//! frequency tells who is heard, the rhythm gives the delay ([`mouth_to_ear_ms`]).

mod bank;
pub mod clock;
mod codec;
mod digits;
mod ear;
mod engine;
pub mod load;
mod media;
mod phone;
mod receive;
mod report;
mod sdp;
mod source;

pub use bank::{BankConfig, BankError, PhoneBank, PhoneHandle};
pub use codec::Codec;
pub use digits::DigitMethod;
pub use ear::{Burst, Heard, SAME_TONE_HZ};
pub use engine::Totals;
pub use phone::{Detail, Phone, Step, Traffic};
pub use receive::{Arrival, RtpReceived, RtpWindow};
pub use report::{
    End, EventKind, MouthToEar, PhoneReport, RhythmMatch, Role, RtpSent, TimelineEvent, Whose,
    mouth_to_ear, mouth_to_ear_ms, rhythm_match,
};
pub use source::Source;
