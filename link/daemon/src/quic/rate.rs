//! Congestion control for a path whose rate is provisioned.
//!
//! RTP does not slow down when packets are lost; a window that shrinks would only turn loss into
//! delay, and delay into stale audio. So nothing waits inside QUIC: the sender asks [`Budget`] how
//! much may leave now, and drops what has become too old meanwhile. Two bounds hold: the
//! provisioned rate, and what that rate puts on the longest round trip without being acknowledged.
//! Whoever configures the rate answers for the path carrying it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory};

/// A rate and the longest round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvisionedRate {
    /// Bytes per second.
    pub rate_bytes_per_s: u64,
    /// Largest round-trip time.
    pub round_trip_max: Duration,
}

impl ProvisionedRate {
    /// Unacknowledged bytes at most; never below some full packets, so that a short path starts.
    pub fn in_flight_bytes_max(&self) -> u64 {
        let waits = self.round_trip_max + ACK_DELAY_MAX;
        let bytes = u128::from(self.rate_bytes_per_s) * waits.as_micros() / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(IN_FLIGHT_BYTES_MIN)
    }

    /// Bytes that may leave at once after silence: 20 ms of the rate.
    fn burst_bytes(&self) -> u64 {
        (self.rate_bytes_per_s / 50).max(BURST_BYTES_MIN)
    }
}

const IN_FLIGHT_BYTES_MIN: u64 = 64 << 10;
const BURST_BYTES_MIN: u64 = 64 << 10;
/// Within this time the peer acknowledges what it has received.
pub(super) const ACK_DELAY_MAX: Duration = Duration::from_millis(20);

impl ControllerFactory for ProvisionedRate {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(Provisioned { rate: *self, in_flight: Arc::default() })
    }
}

/// Knows what is in flight and holds nothing back: QUIC neither paces nor blocks under a window
/// that is never full. What leaves is added by [`Budget::spend`] (QUIC would count bare
/// acknowledgements as well, which nobody acknowledges), and put right by each acknowledgement.
#[derive(Debug, Clone)]
struct Provisioned {
    rate: ProvisionedRate,
    in_flight: Arc<AtomicU64>,
}

impl Controller for Provisioned {
    fn on_end_acks(&mut self, _: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.in_flight.store(in_flight, Ordering::Relaxed);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, lost_bytes: u64) {
        let less = |bytes: u64| Some(bytes.saturating_sub(lost_bytes));
        let _ = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        u64::MAX
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        u64::MAX
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// How much may leave now.
#[derive(Debug)]
pub struct Budget {
    rate: ProvisionedRate,
    in_flight: Arc<AtomicU64>,
    /// Millionths of a byte.
    tokens: u128,
    at: Instant,
}

const MILLION: u128 = 1_000_000;

impl Budget {
    /// Of a connection whose transport has the provisioned rate; `None` for any other.
    pub fn of(connection: &Connection, now: Instant) -> Option<Self> {
        let controller = connection.congestion_state().into_any();
        let controller = controller.downcast::<Provisioned>().ok()?;
        Some(Self::new(controller.rate, controller.in_flight.clone(), now))
    }

    fn new(rate: ProvisionedRate, in_flight: Arc<AtomicU64>, now: Instant) -> Self {
        let tokens = u128::from(rate.burst_bytes()) * MILLION;
        Self { rate, in_flight, tokens, at: now }
    }

    /// Bytes that may leave now.
    pub fn bytes(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let full = u128::from(self.rate.burst_bytes()) * MILLION;
        let more = since.as_micros().saturating_mul(u128::from(self.rate.rate_bytes_per_s));
        self.tokens = self.tokens.saturating_add(more).min(full);
        let rate = u64::try_from(self.tokens / MILLION).unwrap_or(u64::MAX);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        rate.min(self.rate.in_flight_bytes_max().saturating_sub(in_flight))
    }

    /// So many bytes leave.
    pub fn spend(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(u128::from(bytes) * MILLION);
        self.in_flight.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_flight_is_rate_times_round_trip() {
        for (rate_bytes_per_s, round_trip_ms, bytes) in [
            (10_000_000, 180, 2_000_000),
            (1_000, 10, IN_FLIGHT_BYTES_MIN),
            (u64::MAX, 2_000, u64::MAX),
        ] {
            let round_trip_max = Duration::from_millis(round_trip_ms);
            let rate = ProvisionedRate { rate_bytes_per_s, round_trip_max };
            assert_eq!(rate.in_flight_bytes_max(), bytes);
        }
    }

    #[test]
    fn no_more_than_the_rate_leaves_and_loss_changes_nothing() {
        let start = crate::clock::now();
        let round_trip_max = Duration::from_millis(180);
        let rate = ProvisionedRate { rate_bytes_per_s: 5_000_000, round_trip_max };
        let mut controller = Provisioned { rate, in_flight: Arc::default() };
        let mut budget = Budget::new(rate, controller.in_flight.clone(), start);
        let mut left = 0u64;
        for ms in 0..1_000u64 {
            let now = start + Duration::from_millis(ms);
            while budget.bytes(now) >= 1_400 {
                budget.spend(1_400);
                left += 1_400;
            }
            // Every second millisecond half of it is lost, the rest is acknowledged.
            controller.on_congestion_event(now, now, false, 2_500);
            controller.on_end_acks(now, 0, false, None);
        }
        assert!((5_090_000..=5_100_000).contains(&left), "a second and 20 ms: {left}");
        assert_eq!(controller.window(), u64::MAX);
    }

    #[test]
    fn without_acknowledgements_a_round_trip_leaves() {
        let start = crate::clock::now();
        let rate = ProvisionedRate {
            rate_bytes_per_s: 5_000_000,
            round_trip_max: Duration::from_millis(180),
        };
        let mut controller = Provisioned { rate, in_flight: Arc::default() };
        let mut budget = Budget::new(rate, controller.in_flight.clone(), start);
        let mut left = 0u64;
        for ms in 0..1_000 {
            let now = start + Duration::from_millis(ms);
            while budget.bytes(now) >= 1_000 {
                budget.spend(1_000);
                left += 1_000;
            }
        }
        assert_eq!(left, 1_000_000);
        controller.on_end_acks(start, 400_000, false, None);
        let now = start + Duration::from_secs(2);
        assert_eq!(budget.bytes(now), rate.burst_bytes());
    }
}
