//! One deadline per transaction and per call, ordered by time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::event::DialogHandle;
use crate::transaction::TransactionId;

/// Whose timer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Transaction(TransactionId),
    Call(DialogHandle),
}

#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    by_time: BTreeSet<(Instant, Timer)>,
    by_owner: BTreeMap<Timer, Instant>,
}

impl TimerQueue {
    /// Sets, moves or (with `None`) stops the timer of an owner.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.by_owner.insert(timer, at),
            None => self.by_owner.remove(&timer),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, timer));
        }
        if let Some(at) = at {
            self.by_time.insert((at, timer));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due; its owner sets it anew.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.remove(&(at, timer));
        self.by_owner.remove(&timer);
        Some(timer)
    }
}
