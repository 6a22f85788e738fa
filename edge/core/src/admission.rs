//! Who is let in, decided on the raw datagram (LAT-01, OPS-06).
//!
//! A datagram passes if it comes from a configured provider or carries a token that we minted.
//! Everything else is dropped without a word. New calls of a provider are rate-limited; what is
//! above gets 503 with Retry-After before any state exists.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sip_core::TokenKey;

use crate::config::Provider;

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Parse it.
    Pass,
    /// Silence.
    Drop,
    /// A new call beyond the rate: 503.
    Shed,
}

/// Token bucket that holds one second's worth.
#[derive(Debug)]
struct Bucket {
    per_s: u32,
    /// Millionths of a call.
    level: u64,
    filled_at: Instant,
}

impl Bucket {
    const CALL: u64 = 1_000_000;

    fn take(&mut self, now: Instant) -> bool {
        let full = u64::from(self.per_s).saturating_mul(Self::CALL);
        let passed = now.saturating_duration_since(self.filled_at).min(Duration::from_secs(1));
        let earned = (passed.as_micros() as u64).saturating_mul(u64::from(self.per_s));
        self.level = self.level.saturating_add(earned).min(full);
        self.filled_at = now;
        match self.level.checked_sub(Self::CALL) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Admission {
    providers: Vec<(Provider, Bucket)>,
}

impl Admission {
    pub(crate) fn new(providers: Vec<Provider>, now: Instant) -> Self {
        let with_bucket = |provider: Provider| {
            let per_s = provider.calls_per_s_max;
            let level = u64::from(per_s).saturating_mul(Bucket::CALL);
            (provider, Bucket { per_s, level, filled_at: now })
        };
        Self { providers: providers.into_iter().map(with_bucket).collect() }
    }

    /// The provider that an address belongs to.
    pub(crate) fn provider(&self, address: IpAddr) -> Option<&Provider> {
        self.index(address).and_then(|index| self.providers.get(index)).map(|(p, _)| p)
    }

    fn index(&self, address: IpAddr) -> Option<usize> {
        self.providers
            .iter()
            .position(|(provider, _)| provider.networks.iter().any(|net| net.contains(address)))
    }

    pub(crate) fn judge(
        &mut self,
        now: Instant,
        source: IpAddr,
        bytes: &[u8],
        token: &TokenKey,
    ) -> Verdict {
        let Some(index) = self.index(source) else {
            return if token.carries(bytes) { Verdict::Pass } else { Verdict::Drop };
        };
        // RFC 3261 §7.5: line ends before a message do not count.
        let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n' | 0)).count();
        let message = bytes.get(lead..).unwrap_or_default();
        // A new call has no token of ours; a re-INVITE has one in its To tag. A retransmitted
        // INVITE counts again, which only makes the limit a little stricter in a flood.
        if message.starts_with(b"INVITE ")
            && let Some((_, bucket)) = self.providers.get_mut(index)
            && !bucket.take(now)
            && !token.carries(bytes)
        {
            return Verdict::Shed;
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn admission(now: Instant) -> Admission {
        let provider = Provider {
            name: "p".to_owned(),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            nat: false,
            calls_per_s_max: 2,
        };
        Admission::new(vec![provider], now)
    }

    #[test]
    fn lat_01_only_providers_and_our_own_tokens_pass() {
        let now = Instant::now();
        let token = TokenKey::new(&[3; 32]);
        let ours = token.mint(&mut StdRng::seed_from_u64(1));
        let mut admission = admission(now);
        let mut judge = |source: &str, text: &str| {
            admission.judge(now, source.parse().unwrap(), text.as_bytes(), &token)
        };
        assert_eq!(judge("10.1.1.1", "OPTIONS sip:x SIP/2.0"), Verdict::Pass);
        assert_eq!(judge("11.1.1.1", "OPTIONS sip:x SIP/2.0"), Verdict::Drop);
        assert_eq!(
            judge("11.1.1.1", &format!("SIP/2.0 200 OK\r\nVia: z9hG4bK{ours}")),
            Verdict::Pass
        );
    }

    #[test]
    fn ops_06_new_calls_are_shed_above_the_rate() {
        let start = Instant::now();
        let token = TokenKey::new(&[3; 32]);
        let tag = token.mint(&mut StdRng::seed_from_u64(1));
        let mut admission = admission(start);
        let mut judge = |ms: u64, text: &str| {
            let now = start + Duration::from_millis(ms);
            admission.judge(now, "10.1.1.1".parse().unwrap(), text.as_bytes(), &token)
        };
        let invite = "INVITE sip:x SIP/2.0\r\n";
        assert_eq!(
            [0, 0, 0].map(|ms| judge(ms, invite)),
            [Verdict::Pass, Verdict::Pass, Verdict::Shed]
        );
        assert_eq!(judge(0, &format!("{invite}To: <sip:x>;tag={tag}\r\n")), Verdict::Pass);
        let led = format!("\r\n\0\r\n{invite}");
        assert_eq!([600, 600].map(|ms| judge(ms, &led)), [Verdict::Pass, Verdict::Shed]);
    }
}
