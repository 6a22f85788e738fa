//! Connection overrides in the fragment of a configured URL: `#ct=2000&rc=3&rp=5xx,ct`.

use serde::{Deserialize, Serialize};

/// Time limits and retries of one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// `ct`: connect, 100–10,000 ms.
    pub connect_ms: u64,
    /// `rt`: silence while reading, 100–15,000 ms.
    pub read_ms: u64,
    /// `tt`: everything, 100–15,000 ms.
    pub total_ms: u64,
    /// `rc`: retries, 0–5.
    pub retries: u32,
    /// `rp`: what is retried.
    pub retry_on: Vec<RetryOn>,
    /// `sni`: false leaves server name indication (and the check of the name) out.
    pub sni: bool,
}

/// What `rp` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Status 400–499.
    Status4xx,
    /// Status 500–599.
    Status5xx,
    /// Connect or TLS failure.
    Connect,
    /// Read timeout.
    Read,
    /// Everything.
    All,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            read_ms: 15_000,
            total_ms: 15_000,
            retries: 1,
            retry_on: vec![RetryOn::Connect],
            sni: true,
        }
    }
}
