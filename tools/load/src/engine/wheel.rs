//! Twenty slots of one millisecond: each call in a slot sends when its slot comes round, each
//! 20 ms. Calls are spread over the slots, so that hundreds that were set up in step do not send
//! in one burst.

const SLOTS: u64 = 20;
const SLOT_NS: u64 = 1_000_000;
/// Slots that are caught up after a stall; older ones are skipped.
const CATCH_UP_SLOTS: u64 = 10 * SLOTS;

/// The pacing of all calls.
#[derive(Debug, Default)]
pub struct Wheel {
    slots: [Vec<usize>; SLOTS as usize],
    /// Number of the slot (milliseconds since the clock's zero) that comes next.
    next: u64,
    count: usize,
}

impl Wheel {
    /// Adds a call to the emptiest slot; the soonest one of several.
    pub fn add(&mut self, now_ns: u64, leg: usize) {
        if self.count == 0 {
            self.next = now_ns / SLOT_NS + 1;
        }
        let first = self.next.max(now_ns / SLOT_NS + 1);
        let best = (first..first + SLOTS).min_by_key(|slot| self.slot(*slot).len());
        let best = best.unwrap_or(first);
        self.slots[(best % SLOTS) as usize].push(leg);
        self.count += 1;
    }

    /// Takes a call out.
    pub fn remove(&mut self, leg: usize) {
        for slot in &mut self.slots {
            if let Some(at) = slot.iter().position(|known| *known == leg) {
                slot.swap_remove(at);
                self.count -= 1;
                return;
            }
        }
    }

    /// When the next slot with calls is due.
    pub fn next_ns(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        (self.next..self.next + SLOTS)
            .find(|slot| !self.slot(*slot).is_empty())
            .map(|slot| slot * SLOT_NS)
    }

    /// The next slot that is due: its time, and its calls appended to `legs`.
    pub fn poll(&mut self, now_ns: u64, legs: &mut Vec<usize>) -> Option<u64> {
        let now = now_ns / SLOT_NS;
        if now.saturating_sub(self.next) > CATCH_UP_SLOTS {
            self.next = now - CATCH_UP_SLOTS;
        }
        if self.next > now || self.count == 0 {
            return None;
        }
        let slot = self.next;
        self.next += 1;
        legs.extend_from_slice(self.slot(slot));
        Some(slot * SLOT_NS)
    }

    fn slot(&self, slot: u64) -> &Vec<usize> {
        &self.slots[(slot % SLOTS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_sends_each_20_ms_and_calls_are_spread() {
        let mut wheel = Wheel::default();
        for leg in 0..40 {
            wheel.add(5_000_000, leg);
        }
        let mut sent = vec![Vec::new(); 40];
        for now_ms in 6..=105u64 {
            let mut legs = Vec::new();
            while let Some(due) = wheel.poll(now_ms * 1_000_000, &mut legs) {
                assert_eq!(due, now_ms * 1_000_000);
            }
            assert_eq!(legs.len(), 2, "two calls a slot");
            legs.iter().for_each(|leg| sent[*leg].push(now_ms));
        }
        assert!(sent.iter().all(|at| at.len() == 5 && at[1] - at[0] == 20));
    }

    #[test]
    fn a_stall_is_caught_up() {
        let mut wheel = Wheel::default();
        wheel.add(0, 7);
        let mut legs = Vec::new();
        while wheel.poll(101_000_000, &mut legs).is_some() {}
        assert_eq!(legs.len(), 6, "at 1, 21 … 101 ms");
        wheel.remove(7);
        assert_eq!(wheel.next_ns(), None);
    }
}
