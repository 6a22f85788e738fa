//! Dial: connects the caller with one of several targets; the first that answers wins.

use link_proto::media::RecordTrack;
use serde::{Deserialize, Serialize};

use super::record::{callback, callback_events};
use super::target::{DialTarget, noun, number};
use crate::directory::UrlMethod;
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::{Element, Node};
use crate::error_code::{
    DIAL_ATTRIBUTE, DIAL_METHOD, DIAL_RECORD, DIAL_STAR, DIAL_TIME_LIMIT, DIAL_TOO_MANY, SCHEMA,
    VERB_UNKNOWN,
};
use crate::io::Method;

const KNOWN: &[&str] = &[
    "action",
    "method",
    "timeout",
    "hangupOnStar",
    "hangupOnKey",
    "timeLimit",
    "callerId",
    "record",
    "trim",
    "recordingTrack",
    "recordingStatusCallback",
    "recordingStatusCallbackMethod",
    "recordingStatusCallbackEvent",
    "recordingConfigurationId",
    "answerOnBridge",
    "ringTone",
    "sequential",
    "referUrl",
    "referMethod",
    "callReason",
    "events",
    "passports",
];
const TARGETS_MAX: usize = 10;
/// Unanswered calls are given up that much later than the document says.
const TIMEOUT_BUFFER_MS: u64 = 5_000;

/// The verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dial {
    /// `None` = next verb.
    pub action: Option<String>,
    /// Method.
    pub method: Method,
    /// ms until an unanswered target is given up, buffer included.
    pub timeout_ms: u64,
    /// Keys of the caller that end the other leg; empty = none.
    #[serde(default)]
    pub hangup_on: String,
    /// Longest conversation in ms.
    pub time_limit_ms: u64,
    /// `None` = the caller's.
    pub caller_id: Option<String>,
    /// Record the conversation.
    pub record: Option<DialRecord>,
    /// Silence at both ends of the recording is removed.
    pub trim: bool,
    /// Where the status of the recording goes.
    pub recording_callback: Option<UrlMethod>,
    /// Which status.
    pub recording_callback_events: Vec<String>,
    /// Answer the caller only when a target has answered.
    pub answer_on_bridge: bool,
    /// Country of the ringback.
    pub ring_tone: Option<String>,
    /// One target after the other.
    pub sequential: bool,
    /// Whom.
    pub targets: Vec<DialTarget>,
}

/// How a conversation is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialRecord {
    /// Two channels.
    pub dual: bool,
    /// From the beginning of the verb, not only from the answer.
    #[serde(default)]
    pub ringing: bool,
    /// Whose voice: `Received` is the caller's, `Sent` the other's.
    #[serde(default = "both")]
    pub track: RecordTrack,
}

fn both() -> RecordTrack {
    RecordTrack::Both
}

/// Countries that `ringTone` may name; `uk` and `us-old` are the ecosystem's own.
const COUNTRIES: &[&str] = &[
    "at", "au", "be", "bg", "br", "ca", "ch", "cl", "cn", "cz", "de", "dk", "ee", "es", "fi", "fr",
    "gb", "gr", "hk", "hu", "ie", "il", "in", "it", "jp", "kr", "lt", "mx", "my", "nl", "no", "nz",
    "ph", "pl", "pt", "ru", "se", "sg", "th", "tw", "uk", "us", "us-old", "ve", "za",
];

/// `ringTone` as a country of ISO 3166; `None` = the default.
fn ring_tone(a: &mut Attributes<'_>) -> Option<String> {
    let text = a.text("ringTone").map(|code| code.to_ascii_lowercase())?;
    match text.as_str() {
        "" | "automatic" => None,
        "uk" => Some("gb".to_owned()),
        "us-old" => Some("us".to_owned()),
        country if COUNTRIES.contains(&country) => Some(text),
        _ => {
            a.bad("ringTone", SCHEMA);
            None
        }
    }
}

/// `record` and `recordingTrack`.
fn record(a: &mut Attributes<'_>) -> Option<DialRecord> {
    let from_answer = DialRecord { dual: false, ringing: false, track: RecordTrack::Both };
    let words = [
        ("do-not-record", None),
        ("false", None),
        ("true", Some(from_answer)),
        ("record-from-answer", Some(from_answer)),
        ("record-from-ringing", Some(DialRecord { ringing: true, ..from_answer })),
        ("record-from-answer-dual", Some(DialRecord { dual: true, ..from_answer })),
        ("record-from-ringing-dual", Some(DialRecord { dual: true, ringing: true, ..from_answer })),
    ];
    let tracks = [
        ("both", RecordTrack::Both),
        ("inbound", RecordTrack::Received),
        ("outbound", RecordTrack::Sent),
    ];
    let track = a.word("recordingTrack", &tracks, DIAL_RECORD).unwrap_or(RecordTrack::Both);
    let how = a.word("record", &words, DIAL_RECORD).flatten()?;
    Some(DialRecord { track, dual: how.dual && track == RecordTrack::Both, ..how })
}

/// `hangupOnStar`, and the keys of `hangupOnKey` beside it.
fn hangup_keys(a: &mut Attributes<'_>) -> String {
    let mut keys = a.keys("hangupOnKey", "0123456789*#", "", DIAL_STAR);
    if a.boolean("hangupOnStar", false, DIAL_STAR) && !keys.contains('*') {
        keys.push('*');
    }
    keys
}

pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> Result<Dial, DocError> {
    let mut a = Attributes::new(element, KNOWN, warnings);
    let timeout_s = a.clamped("timeout", 5..=600, DIAL_ATTRIBUTE).unwrap_or(30);
    let trims = [("trim-silence", true), ("do-not-trim", false)];
    let mut dial = Dial {
        action: a.text("action"),
        method: a.method("method", DIAL_METHOD),
        timeout_ms: timeout_s * 1_000 + TIMEOUT_BUFFER_MS,
        hangup_on: hangup_keys(&mut a),
        time_limit_ms: a.clamped("timeLimit", 1..=86_400, DIAL_TIME_LIMIT).unwrap_or(14_400)
            * 1_000,
        caller_id: a.text("callerId").filter(|id| !id.is_empty()),
        record: record(&mut a),
        trim: a.word("trim", &trims, DIAL_RECORD).unwrap_or(false),
        recording_callback: callback(&mut a),
        recording_callback_events: callback_events(&a),
        answer_on_bridge: a.boolean("answerOnBridge", false, SCHEMA),
        ring_tone: ring_tone(&mut a),
        sequential: a.boolean("sequential", false, SCHEMA),
        targets: Vec::new(),
    };
    if a.text("referUrl").is_some() {
        a.warn(VERB_UNKNOWN, "Dial: referUrl is not available");
    }
    for child in &element.children {
        match child {
            Node::Text(text) => dial.targets.extend(number(text, warnings)),
            Node::Element(child) => dial.targets.extend(noun(child, warnings)?),
        }
    }
    if dial.targets.len() > TARGETS_MAX {
        let message = format!("Dial with more than {TARGETS_MAX} targets");
        warnings.push(DocError::new(DIAL_TOO_MANY, message));
        dial.targets.truncate(TARGETS_MAX);
    }
    Ok(dial)
}
