//! Reject: refuses a call that has not been answered. Later it is reported as 13810 and ends it.

use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;
use crate::error_code::SCHEMA;

/// Whether the reason is `busy`.
pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> bool {
    let mut attributes = Attributes::new(element, &["reason"], warnings);
    attributes.word("reason", &[("rejected", false), ("busy", true)], SCHEMA).unwrap_or(false)
}
