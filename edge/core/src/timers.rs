//! One ordered set of deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use edge_media::command::{OpKey, PortKey};
use link_proto::CallSid;

/// What a deadline is about. Setting it again moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// Control has not answered an offered call.
    Offer(CallSid),
    /// An outbound leg is not answered.
    Dial(CallSid),
    /// Our 200 is not acknowledged.
    Ack(CallSid),
    /// The permitted length of a call.
    TimeLimit(CallSid),
    /// A leg needs control and none is there.
    ControlHold(CallSid),
    /// The worker has not reported the counters of a leg that ended.
    Stats(CallSid),
    /// The worker has not reported the removal of a port.
    PortRemoval(PortKey),
    /// The shell has not answered the allocation of a port.
    Allocation(PortKey),
    /// The prompts of a play program, or the file of a recording, are not there.
    OpReady(OpKey),
    /// Patience of a drain.
    Drain,
}

/// Deadlines, at most one per key.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, TimerKey)>,
    by_key: BTreeMap<TimerKey, Instant>,
}

impl Timers {
    pub(crate) fn set(&mut self, key: TimerKey, at: Instant) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.order.remove(&(old, key));
        }
        self.order.insert((at, key));
    }

    pub(crate) fn is_set(&self, key: TimerKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        if let Some(old) = self.by_key.remove(&key) {
            self.order.remove(&(old, key));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<TimerKey> {
        let (at, key) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, key));
        self.by_key.remove(&key);
        Some(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_moves_and_fires_once() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let key = TimerKey::Dial(CallSid([1; 16]));
        let mut timers = Timers::default();
        timers.set(key, at(1));
        timers.set(key, at(3));
        timers.set(TimerKey::Drain, at(2));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(3)), Some(TimerKey::Drain));
        assert_eq!(timers.pop_due(at(3)), Some(key));
        assert_eq!(timers.pop_due(at(9)), None);
        timers.set(key, at(1));
        timers.cancel(key);
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }
}
