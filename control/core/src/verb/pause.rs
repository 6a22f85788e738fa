//! Pause: silence. As the first verb of an unanswered call it delays the answer.

use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;
use crate::error_code::PAUSE_LENGTH;

/// Length in ms.
pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> u64 {
    let mut attributes = Attributes::new(element, &["length"], warnings);
    attributes.number("length", 1..=86_400, PAUSE_LENGTH).unwrap_or(1) * 1_000
}
