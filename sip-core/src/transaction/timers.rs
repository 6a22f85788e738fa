//! Timer values of RFC 3261 §17 and Appendix A.

use std::time::Duration;

/// T1, T2, T4 and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerConfig {
    /// Round-trip estimate.
    pub t1: Duration,
    /// Longest interval between retransmissions of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// Longest time a message stays in the network.
    pub t4: Duration,
    /// Wait for INVITE response retransmissions on unreliable transports.
    pub timer_d: Duration,
}

impl Default for TimerConfig {
    fn default() -> Self {
        TimerConfig {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            timer_d: Duration::from_secs(32),
        }
    }
}

impl TimerConfig {
    /// 64·T1: timers B, F, H, J, L, M and the wait for the ACK of a 2xx.
    pub fn transaction_timeout(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// Doubles an interval up to T2 (timers E, G and the 2xx of the UAS core).
    pub fn next_capped(&self, interval: Duration) -> Duration {
        interval.saturating_mul(2).min(self.t2)
    }
}
