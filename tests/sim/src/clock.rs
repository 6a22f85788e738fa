//! The one clock of a run: monotonic time that jumps from event to event, and a wall clock that
//! may be set beside it.

use std::time::{Duration, Instant};

/// Wall time at the start of every run, in ms since 1970.
const START_UNIX_MS: u64 = 1_800_000_000_000;

/// Virtual time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    now: Instant,
    wall_steps_ms: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Time zero. The value of the machine's clock is only an anchor: every run sees differences.
    #[allow(clippy::disallowed_methods)]
    pub fn new() -> Self {
        let start = Instant::now();
        Self { start, now: start, wall_steps_ms: 0 }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Moves on; never back.
    pub fn advance(&mut self, to: Instant) {
        self.now = self.now.max(to);
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.start)
    }

    /// Time from the start to `at`.
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// That many ms after the start.
    pub fn at_ms(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Wall clock in ms since 1970.
    pub fn unix_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        (START_UNIX_MS + elapsed).saturating_add_signed(self.wall_steps_ms)
    }

    /// Somebody sets the wall clock. Monotonic time knows nothing of it.
    pub fn step_wall(&mut self, by_ms: i64) {
        self.wall_steps_ms += by_ms;
    }
}
