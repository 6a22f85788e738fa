//! CSeq (RFC 3261 §20.16).

use crate::msg::Method;
use crate::msg::scan;

/// Sequence number and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31 in requests (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// Method of the request.
    pub method: Method,
}

impl CSeq {
    /// Reads a value. Numbers from 2^31 on are refused.
    pub fn parse(bytes: &[u8]) -> Option<CSeq> {
        let bytes = scan::trim(bytes);
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, method) = bytes.split_at(digits);
        if !method.first().copied().is_some_and(scan::is_lws) {
            return None;
        }
        let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        let method = Method::parse(scan::trim(method))?;
        (number < 1 << 31).then_some(CSeq { number, method })
    }
}
