//! The memory of a provided-buffer ring, which the kernel reads: entries, and the tail that says how
//! many of them count.

use std::mem::size_of;

use io_uring::types::BufRingEntry;

use crate::pages::Pages;
use crate::sync::AtomicU16;

pub(crate) struct Entries(Pages);

impl Entries {
    pub(crate) fn new(count: u16) -> Self {
        Entries(Pages::new(usize::from(count) * size_of::<BufRingEntry>()))
    }

    pub(crate) fn address(&self) -> u64 {
        self.0.at(0) as u64
    }

    /// Changes the entry at `place`, which must lie beyond the tail that the kernel knows.
    pub(crate) fn write(&mut self, place: u16, change: impl FnOnce(&mut BufRingEntry)) {
        let entry = self.0.at(usize::from(place) * size_of::<BufRingEntry>());
        // SAFETY: the place is a whole entry inside the pages, aligned since entries are 16 bytes
        // in a page; beyond the tail the kernel does not read it. Zeroed bytes are a valid entry.
        change(unsafe { &mut *entry.cast::<BufRingEntry>() });
    }

    /// Entries before the tail are the kernel's to read.
    pub(crate) fn tail(&self) -> &AtomicU16 {
        let first = self.0.at(0).cast::<BufRingEntry>();
        // SAFETY: `first` is the first entry of the ring and zeroed memory is a valid entry.
        let tail = unsafe { BufRingEntry::tail(first) }.cast_mut();
        // SAFETY: the tail is an aligned u16 inside the ring; the kernel only reads it.
        unsafe { AtomicU16::from_ptr(tail) }
    }

    /// The kernel may still read here: never give it back.
    pub(crate) fn leak(&mut self) {
        self.0.leak();
    }

    #[cfg(test)]
    pub(crate) fn read(&self, place: u16) -> (u64, u32, u16) {
        let entry = self.0.at(usize::from(place) * size_of::<BufRingEntry>());
        // SAFETY: a whole, initialised entry inside the ring; no kernel runs in the unit test.
        let entry = unsafe { &*entry.cast::<BufRingEntry>() };
        (entry.addr(), entry.len(), entry.bid())
    }
}
