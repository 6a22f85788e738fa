//! Record: what the caller says. Verbs after it are reached only if nothing was recorded.

use serde::{Deserialize, Serialize};

use crate::directory::UrlMethod;
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;
use crate::error_code::{
    RECORD_ATTRIBUTE, RECORD_FINISH, RECORD_LENGTH, RECORD_METHOD, RECORD_TIMEOUT, VERB_UNKNOWN,
};
use crate::io::Method;

const KNOWN: &[&str] = &[
    "action",
    "method",
    "timeout",
    "finishOnKey",
    "maxLength",
    "playBeep",
    "trim",
    "recordingStatusCallback",
    "recordingStatusCallbackMethod",
    "recordingStatusCallbackEvent",
    "transcribe",
    "transcribeCallback",
    "recordingConfigurationId",
];

/// The verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `None` = current document.
    pub action: Option<String>,
    /// Method.
    pub method: Method,
    /// Silence in ms that ends it; 0 = off.
    pub timeout_ms: u64,
    /// Keys that end it.
    pub finish_on: String,
    /// Longest recording in ms.
    pub length_max_ms: u64,
    /// A tone first.
    pub beep: bool,
    /// Silence at both ends is removed.
    pub trim: bool,
    /// Where its status goes.
    pub callback: Option<UrlMethod>,
    /// Which status: `in-progress`, `completed`, `absent`.
    pub callback_events: Vec<String>,
}

pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> Record {
    let mut a = Attributes::new(element, KNOWN, warnings);
    if a.boolean("transcribe", false, RECORD_ATTRIBUTE) {
        a.warn(VERB_UNKNOWN, "Record: transcription is not available");
    }
    let trims = [("trim-silence", true), ("do-not-trim", false)];
    Record {
        action: a.text("action"),
        timeout_ms: a.number("timeout", 0..=86_400, RECORD_TIMEOUT).unwrap_or(5) * 1_000,
        method: a.method("method", RECORD_METHOD),
        finish_on: a.keys("finishOnKey", "0123456789*#", "1234567890*#", RECORD_FINISH),
        length_max_ms: a.number("maxLength", 1..=86_400, RECORD_LENGTH).unwrap_or(3_600) * 1_000,
        beep: a.boolean("playBeep", true, RECORD_ATTRIBUTE),
        trim: a.word("trim", &trims, RECORD_ATTRIBUTE).unwrap_or(true),
        callback: callback(&mut a),
        callback_events: callback_events(&a),
    }
}

/// `recordingStatusCallback` with its method.
pub(super) fn callback(attributes: &mut Attributes<'_>) -> Option<UrlMethod> {
    let url = attributes.text("recordingStatusCallback").filter(|url| !url.is_empty())?;
    let method = attributes.method("recordingStatusCallbackMethod", RECORD_METHOD);
    Some(UrlMethod { url, method })
}

/// `recordingStatusCallbackEvent`.
pub(super) fn callback_events(attributes: &Attributes<'_>) -> Vec<String> {
    let text = attributes.text("recordingStatusCallbackEvent");
    let text = text.unwrap_or_else(|| "completed".to_owned());
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
