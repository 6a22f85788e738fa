//! Dial: connects the caller with one of several targets; the first that answers wins.

use serde::{Deserialize, Serialize};

use super::record::{callback, callback_events};
use crate::directory::{StatusTarget, UrlMethod};
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::{Element, Node};
use crate::error_code::{
    DIAL_ATTRIBUTE, DIAL_METHOD, DIAL_NESTED, DIAL_NUMBER, DIAL_RECORD, DIAL_SIP, DIAL_STAR,
    DIAL_TIME_LIMIT, DIAL_TOO_MANY, SCHEMA, VERB_UNKNOWN,
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
const KNOWN_TARGET: &[&str] = &[
    "sendDigits",
    "url",
    "method",
    "byoc",
    "statusCallback",
    "statusCallbackEvent",
    "statusCallbackMethod",
    "machineDetection",
    "machineDetectionTimeout",
    "machineDetectionSpeechThreshold",
    "machineDetectionSpeechEndThreshold",
    "machineDetectionSilenceTimeout",
    "amdStatusCallback",
    "amdStatusCallbackMethod",
    "username",
    "password",
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
}

/// Somebody to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialTarget {
    /// Number or SIP URI (without header part).
    pub to: String,
    /// Headers of the SIP URI.
    pub headers: Vec<(String, String)>,
    /// Digits to be played to the callee after the answer.
    pub send_digits: Option<String>,
    /// Credentials.
    pub username: Option<String>,
    /// Credentials.
    pub password: Option<String>,
    /// Status callback of the leg.
    pub status: Option<StatusTarget>,
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
    let timeout_s = a.number("timeout", 5..=600, DIAL_ATTRIBUTE).unwrap_or(30);
    let records = [
        ("do-not-record", None),
        ("false", None),
        ("true", Some(DialRecord { dual: false })),
        ("record-from-answer", Some(DialRecord { dual: false })),
        ("record-from-ringing", Some(DialRecord { dual: false })),
        ("record-from-answer-dual", Some(DialRecord { dual: true })),
        ("record-from-ringing-dual", Some(DialRecord { dual: true })),
    ];
    let trims = [("trim-silence", true), ("do-not-trim", false)];
    let mut dial = Dial {
        action: a.text("action"),
        method: a.method("method", DIAL_METHOD),
        timeout_ms: timeout_s * 1_000 + TIMEOUT_BUFFER_MS,
        hangup_on: hangup_keys(&mut a),
        time_limit_ms: a.number("timeLimit", 1..=86_400, DIAL_TIME_LIMIT).unwrap_or(14_400) * 1_000,
        caller_id: a.text("callerId").filter(|id| !id.is_empty()),
        record: a.word("record", &records, DIAL_RECORD).flatten(),
        trim: a.word("trim", &trims, DIAL_RECORD).unwrap_or(false),
        recording_callback: callback(&mut a),
        recording_callback_events: callback_events(&a),
        answer_on_bridge: a.boolean("answerOnBridge", false, SCHEMA),
        ring_tone: a.text("ringTone").map(|c| c.to_ascii_lowercase()),
        sequential: a.boolean("sequential", false, SCHEMA),
        targets: Vec::new(),
    };
    if a.text("referUrl").is_some() {
        a.warn(VERB_UNKNOWN, "Dial: referUrl is not available");
    }
    for child in &element.children {
        match child {
            Node::Text(text) => dial.targets.extend(number(text.trim(), warnings)),
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

fn noun(child: &Element, warnings: &mut Vec<DocError>) -> Result<Option<DialTarget>, DocError> {
    let text = child.text();
    let target = match child.name.as_str() {
        "Number" => number(&text, warnings),
        "Sip" => sip(&text, warnings),
        "Client" | "Conference" | "Queue" | "Application" | "Sim" | "WhatsApp" => {
            let message = format!("Dial: {} is not available", child.name);
            return Err(DocError::new(VERB_UNKNOWN, message));
        }
        name => {
            let message = format!("{name} is not allowed inside Dial");
            return Err(DocError::new(DIAL_NESTED, message));
        }
    };
    let sip = child.name == "Sip";
    let mut a = Attributes::new(child, KNOWN_TARGET, warnings);
    let Some(mut target) = target else { return Ok(None) };
    for name in ["url", "machineDetection"] {
        if a.text(name).is_some() {
            a.warn(VERB_UNKNOWN, format!("{}: {name} is not available", child.name));
        }
    }
    target.username = a.text("username");
    target.password = a.text("password");
    target.send_digits = a.text("sendDigits").filter(|digits| {
        digits.len() <= 32 && digits.chars().all(|c| "0123456789ABCD*#wW".contains(c))
    });
    if let Some(url) = a.text("statusCallback").filter(|url| !url.is_empty()) {
        let default = if sip && a.text("statusCallbackEvent").is_none() { "" } else { "completed" };
        let events = a.text("statusCallbackEvent").unwrap_or_else(|| default.to_owned());
        let events = events.split([' ', ',']).filter(|e| !e.is_empty()).map(str::to_owned);
        let method = a.method("statusCallbackMethod", DIAL_METHOD);
        target.status =
            Some(StatusTarget { target: UrlMethod { url, method }, events: events.collect() });
    }
    Ok(Some(target))
}

fn plain(to: String) -> DialTarget {
    DialTarget {
        to,
        headers: Vec::new(),
        send_digits: None,
        username: None,
        password: None,
        status: None,
    }
}

fn number(text: &str, warnings: &mut Vec<DocError>) -> Option<DialTarget> {
    if text.is_empty() {
        return None;
    }
    if text.starts_with("sip:") || text.starts_with("sips:") {
        return sip(text, warnings);
    }
    let digits: String = text.chars().filter(|c| !" -().".contains(*c)).collect();
    let fine = |c: char| c.is_ascii_digit() || "+*#".contains(c);
    if digits.is_empty() || digits.len() > 32 || !digits.chars().all(fine) {
        warnings.push(DocError::new(DIAL_NUMBER, "Dial: not a phone number"));
        return None;
    }
    Some(plain(digits))
}

fn sip(text: &str, warnings: &mut Vec<DocError>) -> Option<DialTarget> {
    let (uri, headers) = text.split_once('?').unwrap_or((text, ""));
    let host = uri.strip_prefix("sips:").or_else(|| uri.strip_prefix("sip:"));
    let clean = |part: &str| !part.is_empty() && !part.chars().any(|c| " <>\"\r\n".contains(c));
    if !host.is_some_and(clean) || uri.len() >= 255 || headers.len() >= 1_024 {
        warnings.push(DocError::new(DIAL_SIP, "Dial: not a SIP URI"));
        return None;
    }
    let allowed = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-")
            || matches!(
                name.as_str(),
                "user-to-user" | "remote-party-id" | "p-preferred-identity" | "p-called-party-id"
            )
    };
    let mut target = plain(uri.to_owned());
    for (name, value) in url::form_urlencoded::parse(headers.as_bytes()) {
        if allowed(&name) && !value.contains(['\r', '\n']) && !name.contains(['\r', '\n', ':']) {
            target.headers.push((name.into_owned(), value.into_owned()));
        } else {
            warnings.push(DocError::new(DIAL_SIP, "Dial: header of the SIP URI is not allowed"));
        }
    }
    Some(target)
}
