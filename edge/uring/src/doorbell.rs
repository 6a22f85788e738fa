//! How other threads wake a media thread: an eventfd whose read waits in the ring.
//!
//! Push into a bounded queue first, then ring. Rings are merged: until the thread has woken, only
//! the first one makes a system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The doorbell of one thread. The other direction (media to signalling) uses one as well: its
/// descriptor becomes readable, `clear` makes it quiet again.
#[derive(Debug)]
pub struct Doorbell {
    event: OwnedFd,
    rung: AtomicBool,
    stop: AtomicBool,
}

impl Doorbell {
    /// # Errors
    /// Those of `eventfd(2)`, in practice: no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Doorbell { event, rung: AtomicBool::new(false), stop: AtomicBool::new(false) })
    }

    /// Wakes the thread; what was pushed before is visible to it.
    pub fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let one = 1_u64;
        // The only failure is a counter at its maximum: then the descriptor is readable anyway.
        // SAFETY: eight bytes are read from a live u64; the descriptor is open.
        let _ = unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Takes the ring away before the queues are read, so that a later push rings again.
    pub(crate) fn answer(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// For a waiter outside a ring (`AsyncFd`): makes the descriptor unreadable, then the queues
    /// can be read. True if it had been rung.
    pub fn clear(&self) -> bool {
        let mut count = 0_u64;
        // SAFETY: eight bytes are written to a live u64; the descriptor is open and non-blocking.
        let _ = unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8) };
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Asks the loop to end after its current turn.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
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
