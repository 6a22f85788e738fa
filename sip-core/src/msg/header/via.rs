//! Via (RFC 3261 §20.42).

use std::fmt;

use super::params::Params;
use crate::msg::scan;
use crate::msg::uri::{Host, parse_host_port};

/// The magic cookie of RFC 3261 branches.
pub const BRANCH_COOKIE: &str = "z9hG4bK";

/// One Via value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// Transport as written: `UDP`, `TLS` …
    pub transport: String,
    /// Host of sent-by.
    pub host: Host,
    /// Port of sent-by, if written.
    pub port: Option<u16>,
    /// branch, received, rport and others.
    pub params: Params,
}

impl Via {
    /// Reads one value; `SIP / 2.0 / UDP` with spaces is legal.
    pub fn parse(bytes: &[u8]) -> Option<Via> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (protocol, rest) = text.split_once('/')?;
        let (version, rest) = rest.split_once('/')?;
        if !protocol.trim().eq_ignore_ascii_case("SIP") || version.trim() != "2.0" {
            return None;
        }
        let rest = rest.trim_start();
        let transport_end = rest.find(|c: char| c.is_ascii_whitespace())?;
        let (transport, rest) = rest.split_at(transport_end);
        if transport.is_empty() || !transport.bytes().all(scan::is_token) {
            return None;
        }
        let params_at = rest.find(';').unwrap_or(rest.len());
        let (sent_by, params) = rest.split_at(params_at);
        let (host, port) = parse_host_port(sent_by)?;
        // RFC 4475 §3.1.2.1: semicolons with nothing between them.
        let empty = |param: &str| param.trim().is_empty();
        if !params.contains('"') && params.split(';').skip(1).any(empty) {
            return None;
        }
        Some(Via { transport: transport.to_owned(), host, port, params: Params::parse(params)? })
    }

    /// The branch, if it has one.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch").filter(|branch| !branch.is_empty())
    }

    /// The branch, if it is one of RFC 3261 (cookie and something behind it).
    pub fn rfc3261_branch(&self) -> Option<&str> {
        self.branch().filter(|branch| {
            branch.len() > BRANCH_COOKIE.len()
                && branch
                    .get(..BRANCH_COOKIE.len())
                    .is_some_and(|cookie| cookie.eq_ignore_ascii_case(BRANCH_COOKIE))
        })
    }

    /// `host:port` in lower case, for transaction keys.
    pub fn sent_by_key(&self) -> String {
        let mut key = self.host.to_string();
        key.make_ascii_lowercase();
        if let Some(port) = self.port {
            key.push_str(&format!(":{port}"));
        }
        key
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaced_and_ipv6_vias() {
        let via = Via::parse(b"SIP  / 2.0 /UDP\r\n 192.0.2.2 : 5061 ; branch = z9hG4bK1 ;rport")
            .expect("legal");
        assert_eq!(via.to_string(), "SIP/2.0/UDP 192.0.2.2:5061;branch=z9hG4bK1;rport");
        assert_eq!(via.rfc3261_branch(), Some("z9hG4bK1"));
        let via =
            Via::parse(b"SIP/2.0/TLS [2001:db8::9:1];received=[2001:db8::9:255]").expect("legal");
        assert_eq!((via.port, via.sent_by_key().as_str()), (None, "[2001:db8::9:1]"));
        assert_eq!(via.branch(), None);
        assert_eq!(Via::parse(b"SIP/2.0/UDP h;branch=z9hG4bK").expect("v").rfc3261_branch(), None);
    }

    #[test]
    fn bad_vias_are_refused() {
        for text in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/3.0/UDP h",
            "SIP/2.0/UDP h:x",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP h;=x",
            "SIP/2.0/UDP h;;branch=z9hG4bK1",
            "SIP/2.0/UDP h;",
        ] {
            assert!(Via::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
