//! The verbs. Each file holds one verb: its attributes with defaults and limits, what may stand
//! inside, its error codes, and how it is carried out.
//!
//! | verb | attributes (default) | nested | codes |
//! |---|---|---|---|
//! | Say | voice, language, loop (1; 0 = 1,000) | text | 13510 13520 13521 |
//! | Play | loop (1; 0 = 1,000), digits | URL | 11100 13410 13430 |
//! | Pause | length (1 s) | – | 13910 |
//! | Gather | action, method (POST), timeout (5 s), finishOnKey (#), numDigits, actionOnEmptyResult (false), input (dtmf) | Say Play Pause | 13310–13335 |
//! | Record | action, method (POST), timeout (5 s), finishOnKey (any key), maxLength (3,600 s), playBeep (true), trim (trim-silence), recordingStatusCallback/Method/Event | – | 13610–13617 |
//! | Dial | action, method (POST), timeout (30 s), hangupOnStar (false), hangupOnKey (none; an addition of ours), timeLimit (14,400 s), callerId, record (do-not-record), recordingTrack (both), trim (do-not-trim), recordingStatusCallback/Method/Event, answerOnBridge (false), ringTone, sequential (false) | Number Sip | 13210–13233 |
//! | Number, Sip in Dial | url, method (POST), sendDigits, statusCallback/Method/Event; Sip: username, password | Uri, Headers in Sip | 13221–13224 |
//! | Redirect | method (POST) | URL | 13710 |
//! | Reject | reason (rejected) | – | 13810 |
//! | Hangup | – | – | – |

pub mod dial;
pub mod gather;
pub mod hangup;
pub mod pause;
pub mod play;
pub mod record;
pub mod redirect;
pub mod reject;
pub mod say;
pub mod target;

use serde::{Deserialize, Serialize};

pub use dial::Dial;
pub use gather::Gather;
pub use play::{Play, PlayContent};
pub use record::Record;
pub use redirect::Redirect;
pub use say::Say;
pub use target::{DialTarget, SipUri};

/// How often `loop="0"` plays at most.
pub const LOOPS_MAX: u32 = 1_000;

/// A verb, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Verb {
    /// Speak.
    Say(Say),
    /// Play audio or digits.
    Play(Play),
    /// Wait that many ms.
    Pause(u64),
    /// Collect digits.
    Gather(Gather),
    /// Record the caller.
    Record(Record),
    /// Connect with somebody.
    Dial(Dial),
    /// Go on with another document.
    Redirect(Redirect),
    /// Refuse the call: true = busy.
    Reject(bool),
    /// End the call.
    Hangup,
}

impl Verb {
    /// Name in documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Say(_) => "Say",
            Self::Play(_) => "Play",
            Self::Pause(_) => "Pause",
            Self::Gather(_) => "Gather",
            Self::Record(_) => "Record",
            Self::Dial(_) => "Dial",
            Self::Redirect(_) => "Redirect",
            Self::Reject(_) => "Reject",
            Self::Hangup => "Hangup",
        }
    }
}

/// `loop` as a number of times; 0 means [`LOOPS_MAX`].
fn loops(attributes: &mut crate::doc::attribute::Attributes<'_>, code: u32) -> u32 {
    match attributes.clamped("loop", 0..=u64::from(LOOPS_MAX), code) {
        None => 1,
        Some(0) => LOOPS_MAX,
        Some(times) => u32::try_from(times).unwrap_or(LOOPS_MAX),
    }
}
