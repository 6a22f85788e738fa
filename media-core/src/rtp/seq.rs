//! Sequence numbers and timestamps unrolled from their circles.

/// Signed distance from `earlier` to `later` on the circle of 2¹⁶, −32768…32767.
#[must_use]
pub const fn seq_distance(later: u16, earlier: u16) -> i16 {
    later.wrapping_sub(earlier) as i16
}

/// Unrolls 16-bit sequence numbers: the extended number next to the highest seen so far.
///
/// Extended numbers start in cycle 1 (65536 + first), so that a packet overtaken by the first one
/// still has a positive number.
#[derive(Debug, Clone, Copy, Default)]
pub struct SeqExtender {
    highest: Option<u64>,
}

impl SeqExtender {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// One that has seen numbers up to `highest`.
    #[must_use]
    pub const fn at(highest: u64) -> Self {
        Self { highest: Some(highest) }
    }

    /// Extended number of `seq`; moves the highest forward if `seq` is ahead of it.
    pub fn extend(&mut self, seq: u16) -> u64 {
        let extended = self.peek(seq);
        if self.highest.is_none_or(|h| extended > h) {
            self.highest = Some(extended);
        }
        extended
    }

    /// Extended number of `seq` without moving the highest.
    #[must_use]
    pub fn peek(&self, seq: u16) -> u64 {
        match self.highest {
            None => 0x1_0000 + u64::from(seq),
            Some(highest) => {
                let distance = i64::from(seq_distance(seq, highest as u16));
                highest.saturating_add_signed(distance)
            }
        }
    }

    /// Highest extended number seen.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Unrolls 32-bit RTP timestamps in the same way; starts in cycle 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimestampExtender {
    last: Option<u64>,
}

impl TimestampExtender {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// Extended timestamp of `timestamp`, next to the highest seen.
    pub fn extend(&mut self, timestamp: u32) -> u64 {
        let extended = match self.last {
            None => 0x1_0000_0000 + u64::from(timestamp),
            Some(last) => {
                let distance = timestamp.wrapping_sub(last as u32) as i32;
                last.saturating_add_signed(i64::from(distance))
            }
        };
        if self.last.is_none_or(|l| extended > l) {
            self.last = Some(extended);
        }
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wraps_and_steps_back() {
        let mut seq = SeqExtender::new();
        assert_eq!(seq.extend(65535), 0x1_ffff);
        assert_eq!(seq.extend(0), 0x2_0000);
        assert_eq!(seq.extend(65534), 0x1_fffe);
        assert_eq!(seq.highest(), Some(0x2_0000));
        let mut first = SeqExtender::new();
        assert_eq!(first.extend(0), 0x1_0000);
        assert_eq!(first.extend(65535), 0xffff);
    }

    proptest! {
        #[test]
        fn follows_an_unrolled_walk(start in 0u64..70_000, steps in prop::collection::vec(-100i64..2000, 1..200)) {
            let mut seq = SeqExtender::new();
            let mut truth = 0x1_0000 + start % 65_536;
            let mut highest = truth;
            prop_assert_eq!(seq.extend(truth as u16), truth);
            for step in steps {
                truth = highest.saturating_add_signed(step);
                highest = highest.max(truth);
                prop_assert_eq!(seq.extend(truth as u16), truth);
            }
        }

        #[test]
        fn timestamps_follow(start: u32, steps in prop::collection::vec(-100_000i64..100_000_000, 1..100)) {
            let mut ts = TimestampExtender::new();
            let mut highest = 0x1_0000_0000 + u64::from(start);
            prop_assert_eq!(ts.extend(start), highest);
            for step in steps {
                let truth = highest.saturating_add_signed(step);
                highest = highest.max(truth);
                prop_assert_eq!(ts.extend(truth as u32), truth);
            }
        }
    }
}
