//! When relayed streams will have been quiet for too long: one number per port, side by side.
//!
//! Each relayed packet moves its port's number on, and hardly any ever comes due. So nothing is
//! kept in order: all of them are looked through at the earliest time that any of them could be due,
//! as it stood when they were looked through last.

use crate::limits::WATCHDOG_GRID_US;

const NEVER_US: u64 = u64::MAX;

/// Times are rounded up to the grid of watchdogs, so that thousands of relayed legs do not wake the
/// thread one by one between their packets.
pub(crate) const fn on_grid(due_us: u64) -> u64 {
    due_us.next_multiple_of(WATCHDOG_GRID_US)
}

#[derive(Debug)]
pub(crate) struct QuietWatch {
    /// By port: from when on it is quiet if nothing more is relayed.
    quiet_us: Vec<u64>,
    watched: usize,
    /// When to look next.
    look_us: u64,
    /// How far a look has come, and the earliest time in what it saw.
    next: usize,
    least_us: u64,
}

impl QuietWatch {
    pub(crate) fn new(ports_max: u32) -> Self {
        let quiet_us = vec![NEVER_US; ports_max as usize];
        Self { quiet_us, watched: 0, look_us: NEVER_US, next: 0, least_us: NEVER_US }
    }

    /// Watches a port, or does not.
    pub(crate) fn set(&mut self, port: u32, quiet_us: Option<u64>) {
        let Some(place) = self.quiet_us.get_mut(port as usize) else { return };
        self.watched -= usize::from(*place != NEVER_US);
        self.watched += usize::from(quiet_us.is_some());
        *place = quiet_us.unwrap_or(NEVER_US);
        if let Some(quiet_us) = quiet_us {
            self.look_us = self.look_us.min(on_grid(quiet_us));
            self.least_us = self.least_us.min(quiet_us);
        }
    }

    /// A packet was relayed: if the port is watched, it is not quiet before `quiet_us`.
    pub(crate) fn move_on(&mut self, port: u32, quiet_us: u64) {
        if let Some(place) = self.quiet_us.get_mut(port as usize)
            && *place != NEVER_US
        {
            let sooner = quiet_us < std::mem::replace(place, quiet_us);
            if sooner {
                self.set(port, Some(quiet_us));
            }
        }
    }

    /// When [`Self::next_due`] may find something.
    pub(crate) fn next_look_us(&self) -> Option<u64> {
        (self.look_us != NEVER_US).then_some(self.look_us)
    }

    /// The next port that is quiet by now, with its time on the grid. It has to be set anew before
    /// the next call. `None`: that was all of them.
    pub(crate) fn next_due(&mut self, now_us: u64) -> Option<(u64, u32)> {
        if now_us < self.look_us {
            return None;
        }
        while let Some(quiet_us) = self.quiet_us.get(self.next).copied() {
            let port = self.next as u32;
            self.next += 1;
            if quiet_us == NEVER_US {
                continue;
            }
            let due_us = on_grid(quiet_us);
            if due_us <= now_us {
                return Some((due_us, port));
            }
            self.least_us = self.least_us.min(quiet_us);
        }
        let least_us = std::mem::replace(&mut self.least_us, NEVER_US);
        self.look_us = if least_us == NEVER_US { NEVER_US } else { on_grid(least_us) };
        self.next = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u32, Option<u64>),
        Packet(u32),
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..8, prop::option::of(1u64..150_000))
                .prop_map(|(port, in_us)| Step::Set(port, in_us)),
            (0u32..8).prop_map(Step::Packet),
            Just(Step::Look),
        ]
    }

    proptest! {
        /// Against a map that is searched each time: nobody is found early, nobody is found later than
        /// at the look that is asked for.
        #[test]
        fn who_is_quiet_is_found_on_time(steps in prop::collection::vec((step(), 0u64..30_000), 1..300)) {
            let mut watch = QuietWatch::new(8);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now_us = 1_000_000;
            for (step, pause_us) in steps {
                // Time does not pass a look that was asked for.
                now_us = watch.next_look_us().map_or(now_us + pause_us, |look| (now_us + pause_us).min(look.max(now_us)));
                match step {
                    Step::Set(port, in_us) => {
                        let quiet_us = in_us.map(|us| now_us + us);
                        watch.set(port, quiet_us);
                        match quiet_us {
                            Some(quiet_us) => { model.insert(port, quiet_us); }
                            None => { model.remove(&port); }
                        }
                    }
                    Step::Packet(port) => {
                        watch.move_on(port, now_us + 100_000);
                        model.entry(port).and_modify(|quiet_us| *quiet_us = now_us + 100_000);
                    }
                    Step::Look => {
                        let due: Vec<u32> = model.iter().filter(|(_, us)| on_grid(**us) <= now_us).map(|(port, _)| *port).collect();
                        let mut found = Vec::new();
                        while let Some((due_us, port)) = watch.next_due(now_us) {
                            prop_assert_eq!(due_us, on_grid(model[&port]));
                            watch.set(port, None);
                            model.remove(&port);
                            found.push(port);
                        }
                        prop_assert_eq!(found, due);
                    }
                }
                let least = model.values().map(|us| on_grid(*us)).min();
                prop_assert!(watch.next_look_us().unwrap_or(u64::MAX) <= least.unwrap_or(u64::MAX));
            }
        }
    }
}
