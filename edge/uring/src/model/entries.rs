//! In place of the memory that the kernel reads: the same entries, with loom watching that no entry
//! is read and written at a time.

use std::mem::MaybeUninit;
use std::sync::Arc;

use io_uring::types::BufRingEntry;
use loom::cell::UnsafeCell;

use crate::sync::AtomicU16;

pub(crate) struct Shared {
    entries: Vec<UnsafeCell<BufRingEntry>>,
    tail: AtomicU16,
}

// SAFETY: loom fails the model at the first access to an entry that is not ordered after the last.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

pub(crate) struct Entries(Arc<Shared>);

impl Entries {
    pub(crate) fn new(count: u16) -> Self {
        // SAFETY: zeroed memory is a valid entry.
        let entry = || UnsafeCell::new(unsafe { MaybeUninit::zeroed().assume_init() });
        let entries = (0..count).map(|_| entry()).collect();
        Entries(Arc::new(Shared { entries, tail: AtomicU16::new(0) }))
    }

    pub(crate) fn address(&self) -> u64 {
        unreachable!("no ring runs in a model")
    }

    pub(crate) fn write(&mut self, place: u16, change: impl FnOnce(&mut BufRingEntry)) {
        let write = |entry: *mut BufRingEntry| {
            // SAFETY: the pointer is that of a live cell, and loom checks that it is ours alone.
            change(unsafe { &mut *entry });
        };
        self.0.entries[usize::from(place)].with_mut(write);
    }

    pub(crate) fn tail(&self) -> &AtomicU16 {
        &self.0.tail
    }

    pub(crate) fn leak(&mut self) {}

    /// What the kernel sees.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }
}

impl Shared {
    pub(crate) fn tail(&self) -> &AtomicU16 {
        &self.tail
    }

    /// Address, length and number of the buffer at `place`.
    pub(crate) fn read(&self, place: u16) -> (u64, u32, u16) {
        self.entries[usize::from(place)].with(|entry| {
            // SAFETY: the pointer is that of a live cell, and loom checks that nobody writes to it.
            let entry = unsafe { &*entry };
            (entry.addr(), entry.len(), entry.bid())
        })
    }
}
