//! The keyed token in what we mint.
//!
//! Branches, tags and Call-IDs of ours contain `tdm` + 16 hex digits of nonce + 16 hex digits of
//! HMAC-SHA-256 over the nonce. A datagram that carries one is a response to us or a request in a
//! dialog of ours; admission lets it through before anything is parsed. The token proves that we
//! minted it at some time, not that its sender is the peer: it opens the door to the parser, no
//! more.

use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;

const MARK: &[u8] = b"tdm";
const HALF_LEN: usize = 16;
/// Length of a token, bytes.
pub const TOKEN_LEN: usize = MARK.len() + 2 * HALF_LEN;
/// How far into a datagram we look, bytes.
const SCAN_BYTES_MAX: usize = 8 * 1024;
/// Candidates that are checked by HMAC before we give up on a datagram.
const CANDIDATES_MAX: usize = 6;

/// The key, prepared for many tokens.
#[derive(Clone)]
pub struct TokenKey {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// Prepares a key.
    pub fn new(key: &[u8; 32]) -> TokenKey {
        // An HMAC key shorter than the block is padded with zeros (RFC 2104 §2), so this is the
        // same as `new_from_slice` but cannot fail.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        TokenKey { mac: Hmac::new(&block) }
    }

    /// A new token.
    pub fn mint(&self, rng: &mut impl Rng) -> String {
        let nonce = format!("{:016x}", rng.next_u64());
        let tag = self.tag(nonce.as_bytes());
        format!("tdm{nonce}{tag:016x}")
    }

    /// The token of these bytes, the same each time: for answers without state (RFC 3261 §8.2.7).
    pub fn mint_for(&self, bytes: &[u8]) -> String {
        let nonce = format!("{:016x}", self.tag(bytes));
        let tag = self.tag(nonce.as_bytes());
        format!("tdm{nonce}{tag:016x}")
    }

    /// True if `bytes` (a raw datagram, or any text) carry a token of this key. Cost: one scan of
    /// at most 8 KiB and at most six HMACs.
    pub fn carries(&self, bytes: &[u8]) -> bool {
        let bytes = bytes.get(..SCAN_BYTES_MAX).unwrap_or(bytes);
        let mut rest = bytes;
        let mut candidates = 0;
        while let Some(at) = rest.iter().position(|b| *b == MARK[0]) {
            rest = rest.get(at..).unwrap_or_default();
            if let Some(token) = rest.get(..TOKEN_LEN)
                && token.starts_with(MARK)
                && let Some((nonce, tag)) = token.get(MARK.len()..).map(|t| t.split_at(HALF_LEN))
                && nonce.iter().chain(tag).all(u8::is_ascii_hexdigit)
            {
                if self.matches(nonce, tag) {
                    return true;
                }
                candidates += 1;
                if candidates >= CANDIDATES_MAX {
                    return false;
                }
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        false
    }

    fn tag(&self, nonce: &[u8]) -> u64 {
        let mut mac = self.mac.clone();
        mac.update(nonce);
        let bytes = mac.finalize().into_bytes();
        bytes.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn matches(&self, nonce: &[u8], tag: &[u8]) -> bool {
        let given = std::str::from_utf8(tag).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
        given.is_some_and(|given| given ^ self.tag(nonce) == 0)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn only_own_tokens_are_carried() {
        let mut rng = StdRng::seed_from_u64(1);
        let key = TokenKey::new(&[7; 32]);
        let other = TokenKey::new(&[8; 32]);
        let token = key.mint(&mut rng);
        assert_eq!(token.len(), TOKEN_LEN);
        let datagram =
            format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP t;branch=z9hG4bK{token}\r\n\r\n");
        assert!(key.carries(datagram.as_bytes()));
        let same = key.mint_for(b"call-1");
        assert!(key.carries(same.as_bytes()) && key.mint_for(b"call-1") == same);
        assert_ne!(key.mint_for(b"call-2"), same);
        assert!(!other.carries(datagram.as_bytes()));
        let forged = datagram.replace(&token[3..5], "zz");
        assert!(!key.carries(forged.as_bytes()));
        assert!(!key.carries(b"tdm"));
        assert!(!key.carries(b""));
        let flipped: String = token
            .char_indices()
            .map(|(i, c)| if i == 5 { if c == '0' { '1' } else { '0' } } else { c })
            .collect();
        assert!(!key.carries(flipped.as_bytes()));
    }

    #[test]
    fn a_flood_of_candidates_is_bounded() {
        let key = TokenKey::new(&[7; 32]);
        let bogus = format!("tdm{}", "0".repeat(32)).repeat(8);
        let mut rng = StdRng::seed_from_u64(1);
        let datagram = format!("{bogus}{}", key.mint(&mut rng));
        assert!(!key.carries(datagram.as_bytes()));
    }
}
