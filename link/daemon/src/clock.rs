//! The only place that reads time. Cores get it as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for every deadline and measurement.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall clock since 1970, only for what people read, certificates and nonces.
#[allow(clippy::disallowed_methods)]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall clock in ms since 1970.
pub fn unix_ms() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}
