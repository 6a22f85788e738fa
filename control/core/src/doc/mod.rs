//! Instruction documents: from bytes and a content type to verbs.

pub mod attribute;
pub mod charset;
pub mod mime;
pub mod parse;
pub mod template;
pub mod xml;

use serde::{Deserialize, Serialize};

use crate::verb::Verb;

/// A document that can be run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// In order.
    pub verbs: Vec<Verb>,
    /// What is wrong with it without stopping it.
    #[serde(skip)]
    pub warnings: Vec<DocError>,
}

/// Something wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct DocError {
    /// Error code.
    pub code: u32,
    /// In words.
    pub message: String,
}

impl DocError {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
