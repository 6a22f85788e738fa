//! Congestion control for a path whose rate is provisioned.
//!
//! RTP does not slow down when packets are lost; a window that shrinks would only turn loss into
//! delay. So the window is constant: what the provisioned rate puts on the longest round trip,
//! and never more. Whoever configures the rate answers for the path carrying it.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};

/// A constant window from rate and round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvisionedRate {
    /// Bytes per second.
    pub rate_bytes_per_s: u64,
    /// Largest round-trip time.
    pub round_trip_max: Duration,
}

impl ProvisionedRate {
    /// Bytes in flight at most; never below ten full packets, so that a short path still starts.
    pub fn window_bytes(&self) -> u64 {
        let bytes = u128::from(self.rate_bytes_per_s) * self.round_trip_max.as_micros() / 1_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(WINDOW_BYTES_MIN)
    }
}

const WINDOW_BYTES_MIN: u64 = 10 * 1_500;

impl ControllerFactory for ProvisionedRate {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(Constant(self.window_bytes()))
    }
}

#[derive(Debug, Clone)]
struct Constant(u64);

impl Controller for Constant {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        self.0
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.0
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_rate_times_round_trip_and_ignores_loss() {
        for (rate_bytes_per_s, round_trip_ms, window) in [
            (10_000_000, 200, 2_000_000),
            (1_000, 10, WINDOW_BYTES_MIN),
            (u64::MAX, 2_000, u64::MAX),
        ] {
            let round_trip_max = Duration::from_millis(round_trip_ms);
            let rate = ProvisionedRate { rate_bytes_per_s, round_trip_max };
            let now = crate::clock::now();
            let mut controller = Arc::new(rate).build(now, 1_200);
            controller.on_congestion_event(now, now, true, 100_000);
            assert_eq!(controller.window(), window);
        }
    }
}
