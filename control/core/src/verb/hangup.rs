//! Hangup: the end.

use super::Verb;
use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;

pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> Verb {
    Attributes::new(element, &[], warnings);
    Verb::Hangup
}
