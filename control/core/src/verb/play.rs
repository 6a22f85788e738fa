//! Play: audio from a URL, or DTMF.

use serde::{Deserialize, Serialize};

use super::loops;
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;
use crate::error_code::{PLAY_DIGITS, PLAY_LOOP, URL_INVALID};

const DIGITS_MAX: usize = 256;

/// The verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Play {
    /// What.
    pub content: PlayContent,
    /// How often.
    pub times: u32,
}

/// What is played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlayContent {
    /// Audio: URL, absolute or relative, maybe with a template.
    Url(String),
    /// DTMF with `w` and `W` pauses.
    Digits(String),
}

pub(crate) fn parse(
    element: &Element,
    warnings: &mut Vec<DocError>,
) -> Result<Option<Play>, DocError> {
    let mut attributes = Attributes::new(element, &["loop", "digits"], warnings);
    let times = loops(&mut attributes, PLAY_LOOP);
    if let Some(digits) = attributes.text("digits") {
        let fine = |c: char| matches!(c, '0'..='9' | 'A'..='D' | '*' | '#' | 'w' | 'W');
        if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.chars().all(fine) {
            attributes.warn(PLAY_DIGITS, "Play digits must be out of 0-9 A-D * # w W");
            return Ok(None);
        }
        return Ok(Some(Play { content: PlayContent::Digits(digits), times }));
    }
    let url = element.text();
    if url.is_empty() {
        attributes.warn(URL_INVALID, "Play without URL");
        return Ok(None);
    }
    Ok(Some(Play { content: PlayContent::Url(url), times }))
}
