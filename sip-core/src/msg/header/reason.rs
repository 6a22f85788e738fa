//! Reason (RFC 3326).

use std::fmt;

use super::params::Params;
use crate::msg::scan;

/// One Reason value, e.g. `Q.850;cause=16;text="Normal call clearing"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// `SIP`, `Q.850` or another registered protocol.
    pub protocol: String,
    /// Cause code.
    pub cause: Option<u16>,
    /// Text, unquoted.
    pub text: Option<String>,
}

impl Reason {
    /// A reason with protocol `SIP`.
    pub fn sip(cause: u16, text: &str) -> Reason {
        Reason { protocol: "SIP".to_owned(), cause: Some(cause), text: Some(text.to_owned()) }
    }

    /// Reads one value.
    pub fn parse(bytes: &[u8]) -> Option<Reason> {
        let text = String::from_utf8_lossy(bytes);
        let at = text.find(';').unwrap_or(text.len());
        let (protocol, params) = text.split_at(at);
        let protocol = protocol.trim();
        if protocol.is_empty() || !protocol.bytes().all(scan::is_token) {
            return None;
        }
        let params = Params::parse(params)?;
        Some(Reason {
            protocol: protocol.to_owned(),
            cause: params.get("cause").and_then(|cause| cause.parse().ok()),
            text: params.unquoted("text"),
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol)?;
        if let Some(cause) = self.cause {
            write!(f, ";cause={cause}")?;
        }
        if let Some(text) = &self.text {
            write!(f, ";text={}", scan::quote(text))?;
        }
        Ok(())
    }
}
