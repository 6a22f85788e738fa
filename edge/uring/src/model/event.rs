//! In place of an eventfd: its counter. The kernel keeps it under a lock, and so does the model.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use loom::sync::{Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct Event {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Event { count: Mutex::new(0), changed: Condvar::new() })
    }

    pub(crate) fn signal(&self) {
        *self.count.lock().expect("lock") += 1;
        self.changed.notify_one();
    }

    pub(crate) fn clear(&self) {
        *self.count.lock().expect("lock") = 0;
    }

    /// Returns when the descriptor is readable. loom reports it if that can never be.
    pub(crate) fn wait(&self) {
        let mut count = self.count.lock().expect("lock");
        while *count == 0 {
            count = self.changed.wait(count).expect("lock");
        }
    }

    /// The read that waits in the ring completes.
    pub(crate) fn read(&self) {
        self.wait();
        self.clear();
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("no ring runs in a model")
    }
}
