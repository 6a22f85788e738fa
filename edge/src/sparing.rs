//! Lines of the log that somebody outside can cause: so many a second, the rest is counted.

use std::time::{Duration, Instant};

/// Lines of one kind in a second.
const LINES_PER_S_MAX: u32 = 20;

/// Which lines of one kind are written.
#[derive(Debug, Default)]
pub struct Sparing {
    second: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Sparing {
    /// Whether a line is to be written now, and if so how many were left out since the last one that
    /// was.
    pub fn line(&mut self, now: Instant) -> Option<u64> {
        let is_over = |start| now.saturating_duration_since(start) >= Duration::from_secs(1);
        if self.second.is_none_or(is_over) {
            self.second = Some(now);
            self.written = 0;
        }
        if self.written >= LINES_PER_S_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_and_not_written() {
        let mut sparing = Sparing::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let first: Vec<_> = (0..1_000).filter_map(|_| sparing.line(at(5))).collect();
        assert_eq!(first, [0; LINES_PER_S_MAX as usize]);
        assert_eq!(sparing.line(at(1_004)), None);
        // The next second begins with what was left out.
        assert_eq!(sparing.line(at(1_005)), Some(1_000 - u64::from(LINES_PER_S_MAX) + 1));
        assert_eq!(sparing.line(at(1_006)), Some(0));
    }
}
