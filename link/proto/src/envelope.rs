//! The envelope around every link message (LAT-09).
//!
//! Unknown fields are ignored by construction (CBOR maps decoded by name). A receiver checks
//! `required` against what it supports and refuses the message by name if something is missing.

use serde::{Deserialize, Serialize};

use crate::ids::RegionId;

/// Version of the link protocol that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Features that this build understands when a message lists them under `required`.
pub const SUPPORTED_FEATURES: &[&str] =
    &["call/1", "media/1", "trunk/1", "prompt/1", "recording/1", "table/1", "reconcile/1"];

/// A link message on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u16,
    /// Region of the sender.
    pub region: RegionId,
    /// What the body is: `event`, `command`, `hello`, …
    pub action: String,
    /// Features of the sender that this message makes use of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Features that the sender would understand in an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported: Vec<String>,
    /// Features that the receiver must understand; otherwise it refuses the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// The typed body as a CBOR value.
    pub body: ciborium::Value,
}

impl Envelope {
    /// The names under `required` that this build does not support.
    pub fn unmet(&self) -> Vec<String> {
        let known = |name: &String| SUPPORTED_FEATURES.contains(&name.as_str());
        self.required.iter().filter(|name| !known(name)).cloned().collect()
    }
}
