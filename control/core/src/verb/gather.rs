//! Gather (alias Collect): digits from the caller, with prompts that the first digit stops.

use serde::{Deserialize, Serialize};

use super::{PlayContent, Verb, pause, play, say};
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::parse::check_nested;
use crate::doc::xml::Element;
use crate::error_code::{
    GATHER_ACTION, GATHER_DIGITS, GATHER_FINISH, GATHER_METHOD, GATHER_NESTED, GATHER_SPEECH,
    GATHER_TIMEOUT, PLAY_DIGITS, SCHEMA,
};
use crate::io::Method;

const KNOWN: &[&str] = &[
    "input",
    "action",
    "successUrl",
    "method",
    "timeout",
    "finishOnKey",
    "numDigits",
    "actionOnEmptyResult",
    "speechTimeout",
    "maxSpeechTime",
    "language",
    "hints",
    "profanityFilter",
    "speechModel",
    "enhanced",
    "bargeIn",
    "partialResultCallback",
    "partialResultCallbackMethod",
    "debug",
];

/// The verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gather {
    /// `None` = current document.
    pub action: Option<String>,
    /// Method.
    pub method: Method,
    /// Silence on the keypad in ms.
    pub timeout_ms: u64,
    /// Keys that end it; empty = none.
    pub finish_on: String,
    /// Digits that end it.
    pub digits_max: Option<u32>,
    /// Ask the action also without digits.
    pub action_on_empty: bool,
    /// Whether a digit stops the prompts.
    pub barge_in: bool,
    /// Say, Play and Pause.
    pub prompts: Vec<Verb>,
}

pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> Result<Gather, DocError> {
    let mut attributes = Attributes::new(element, KNOWN, warnings);
    let inputs = [("dtmf", 0), ("speech", 1), ("dtmf speech", 2), ("speech dtmf", 2)];
    match attributes.word("input", &inputs, GATHER_ACTION) {
        Some(1) => return Err(DocError::new(GATHER_SPEECH, "Gather by speech is not available")),
        Some(2) => attributes.warn(GATHER_SPEECH, "Gather by speech is not available, only dtmf"),
        _ => {}
    }
    let mut gather = Gather {
        action: attributes.text("action").or_else(|| attributes.text("successUrl")),
        method: attributes.method("method", GATHER_METHOD),
        timeout_ms: attributes.number("timeout", 0..=3_600, GATHER_TIMEOUT).unwrap_or(5) * 1_000,
        finish_on: attributes.keys("finishOnKey", "0123456789*#", "#", GATHER_FINISH),
        digits_max: attributes
            .number("numDigits", 1..=1_000, GATHER_DIGITS)
            .and_then(|n| u32::try_from(n).ok()),
        action_on_empty: attributes.boolean("actionOnEmptyResult", false, SCHEMA),
        barge_in: attributes.boolean("bargeIn", true, SCHEMA),
        prompts: Vec::new(),
    };
    for child in element.elements() {
        match child.name.as_str() {
            "Say" => check_nested(child, say::MARKUP, warnings)?,
            "Play" | "Pause" => check_nested(child, &[], warnings)?,
            _ => {}
        }
        let prompt = match child.name.as_str() {
            "Say" => say::parse(child, warnings)?.map(Verb::Say),
            "Play" => play::parse(child, warnings)?.map(Verb::Play),
            "Pause" => Some(Verb::Pause(pause::parse(child, warnings))),
            name => {
                let message = format!("{name} is not allowed inside Gather");
                return Err(DocError::new(GATHER_NESTED, message));
            }
        };
        if let Some(Verb::Play(play)) = &prompt
            && matches!(play.content, PlayContent::Digits(_))
        {
            return Err(DocError::new(PLAY_DIGITS, "Play digits is not allowed inside Gather"));
        }
        gather.prompts.extend(prompt);
    }
    Ok(gather)
}
