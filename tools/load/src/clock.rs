//! The one clock of all measurements: CLOCK_MONOTONIC in nanoseconds, the same in every process.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

fn read_ns(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux; a failure would be a broken kernel.
    clock_gettime(clock)
        .map_or(0, |time| u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

/// Translates between the clocks that libraries and the kernel use and [`now_ns`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    instant_ns: u64,
}

impl Clock {
    /// Ties `Instant` to CLOCK_MONOTONIC (which is what it is on Linux, without saying so).
    pub fn new() -> Self {
        Self { instant: Instant::now(), instant_ns: now_ns() }
    }

    /// The `Instant` at `ns`.
    pub fn instant(&self, ns: u64) -> Instant {
        self.instant + Duration::from_nanos(ns.saturating_sub(self.instant_ns))
    }

    /// CLOCK_MONOTONIC at `instant`.
    pub fn ns(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.instant).as_nanos();
        self.instant_ns + u64::try_from(since).unwrap_or(u64::MAX / 2)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC now: kernel receive stamps are in the
/// former. Read per batch, so that a clock step spoils at most one batch.
pub fn realtime_ahead_ns() -> u64 {
    let before = now_ns();
    let real = read_ns(ClockId::CLOCK_REALTIME);
    let after = now_ns();
    real.saturating_sub(before + (after - before) / 2)
}

/// Milliseconds between two instants, as people read them.
pub fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    (to_ns as f64 - from_ns as f64) / 1e6
}
