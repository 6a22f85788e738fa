//! Redirect: goes on with another document; an empty URL means the same one again.

use serde::{Deserialize, Serialize};

use crate::doc::DocError;
use crate::doc::attribute::Attributes;
use crate::doc::xml::Element;
use crate::error_code::REDIRECT_METHOD;
use crate::io::Method;

/// The verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Absolute, relative, or empty.
    pub url: String,
    /// Method.
    pub method: Method,
}

pub(crate) fn parse(element: &Element, warnings: &mut Vec<DocError>) -> Redirect {
    let mut attributes = Attributes::new(element, &["method"], warnings);
    Redirect { method: attributes.method("method", REDIRECT_METHOD), url: element.text() }
}
