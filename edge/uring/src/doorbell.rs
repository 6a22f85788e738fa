//! How other threads wake a media thread: an eventfd whose read waits in the ring.
//!
//! Push into a bounded queue first, then ring. Rings are merged: until the thread has woken, only
//! the first one makes a system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::event::Event;
use crate::sync::{AtomicBool, Ordering};

/// The doorbell of one thread. The other direction (media to signalling) uses one as well: its
/// descriptor becomes readable, `clear` makes it quiet again.
#[derive(Debug)]
pub struct Doorbell {
    event: Event,
    rung: AtomicBool,
    stop: AtomicBool,
}

impl Doorbell {
    /// # Errors
    /// Those of `eventfd(2)`, in practice: no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = Event::new()?;
        Ok(Doorbell { event, rung: AtomicBool::new(false), stop: AtomicBool::new(false) })
    }

    /// Wakes the thread; what was pushed before is visible to it.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.event.signal();
        }
    }

    /// Takes the ring away before the queues are read, so that a later push rings again. True if
    /// the thread is to stop: asked afterwards, as a request may have been merged into this ring.
    pub(crate) fn answer(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel);
        self.stop.load(Ordering::Acquire)
    }

    /// For a waiter outside a ring (`AsyncFd`): makes the descriptor unreadable, then the queues
    /// can be read. True if it had been rung.
    pub fn clear(&self) -> bool {
        // In this order: a ring between the two would leave `rung` set and nothing to read.
        self.event.clear();
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Asks the loop to end after its current turn.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.as_raw_fd()
    }

    #[cfg(all(test, tandem_loom))]
    pub(crate) fn event(&self) -> &Event {
        &self.event
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_fd().as_raw_fd()
    }
}

#[cfg(all(test, not(tandem_loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn rings_are_merged_until_cleared() {
        let bell = Doorbell::new().expect("eventfd");
        assert!(!bell.clear());
        bell.ring();
        bell.ring();
        assert!(bell.clear());
        assert!(!bell.clear());
        bell.ring();
        assert!(bell.clear());
    }
}
