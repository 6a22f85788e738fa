//! A thread that looks at its queues by itself while it is awake, and has to be woken only when it
//! sleeps: so that those who fill the queues make a system call only then.
//!
//! ```text
//!   the thread                        the others
//!   asleep = true                     put into a queue
//!   ─────────────── fence on both sides ───────────────
//!   a last look at the queues         asleep? then wake it
//! ```
//!
//! Each writes before it reads what the other has written, so at least one of them sees the other.

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether one thread sleeps. How it is woken is the owner's business, but waking must be kept for
/// a thread that is only about to sleep.
#[derive(Debug, Default)]
pub struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// To be called after something was put into a queue. If true, the caller has to wake the
    /// thread, and nobody else will.
    pub fn must_be_woken(&self) -> bool {
        // Pairs with the one in `falls_asleep`.
        fence(Ordering::SeqCst);
        let asleep = &self.asleep;
        asleep.load(Ordering::Relaxed)
            && asleep.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// By the thread itself: true if it may wait to be woken. `nothing_waits` is the last look at
    /// all its queues.
    pub fn falls_asleep(&self, nothing_waits: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the one in `must_be_woken`.
        fence(Ordering::SeqCst);
        nothing_waits()
    }

    /// By the thread itself, before it works: spares the others waking it.
    pub fn stays_awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(tandem_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let sleeper = Sleeper::default();
        assert!(!sleeper.must_be_woken());
        assert!(sleeper.falls_asleep(|| true));
        assert!(sleeper.must_be_woken());
        assert!(!sleeper.must_be_woken());
        assert!(!sleeper.falls_asleep(|| false));
        sleeper.stays_awake();
        assert!(!sleeper.must_be_woken());
    }
}
