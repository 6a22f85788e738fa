//! Receive buffers lent to the kernel through a provided-buffer ring.
//!
//! A buffer is either *lent* (its entry lies between the kernel's head and our tail) or *ours*
//! (a completion named it and [`BufRing::publish`] has not been called since). Only one's own
//! buffers may be read or written.

use crate::entries::Entries;
use crate::pages::Pages;
use crate::sync::Ordering;

pub(crate) struct BufRing {
    entries: Entries,
    buffers: Pages,
    count: u16,
    buffer_bytes: u32,
    /// Our copy of the tail: entries up to here are written.
    tail: u16,
    /// Buffers that are ours at the moment.
    ours: u16,
}

impl BufRing {
    /// `count` is a power of two. All buffers start as ours; `publish_all` lends them.
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> Self {
        assert!(count.is_power_of_two(), "ring size is a power of two");
        BufRing {
            entries: Entries::new(count),
            buffers: Pages::new(usize::from(count) * buffer_bytes as usize),
            count,
            buffer_bytes,
            tail: 0,
            ours: count,
        }
    }

    pub(crate) fn entries_address(&self) -> u64 {
        self.entries.address()
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes as usize
    }

    /// Lends every buffer; called once, before the first receive.
    pub(crate) fn publish_all(&mut self) {
        assert_eq!(self.ours, self.count, "nothing lent yet");
        for id in 0..self.count {
            self.write_entry(id);
        }
        self.commit();
    }

    /// A completion handed this buffer to us. `None` for an id that was never lent.
    pub(crate) fn take(&mut self, id: u16) -> Option<*mut u8> {
        if id >= self.count || self.ours >= self.count {
            return None;
        }
        self.ours += 1;
        Some(self.buffers.at(usize::from(id) * self.buffer_bytes as usize))
    }

    /// Writes the buffer's entry; the kernel sees it after [`BufRing::commit`].
    pub(crate) fn write_entry(&mut self, id: u16) {
        debug_assert!(self.ours > 0, "only our own buffers can be lent");
        let address = self.buffers.at(usize::from(id) * self.buffer_bytes as usize) as u64;
        // Beyond the tail that `commit` stored last, where the kernel does not read.
        self.entries.write(self.tail & (self.count - 1), |entry| {
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        });
        self.tail = self.tail.wrapping_add(1);
        self.ours = self.ours.saturating_sub(1);
    }

    /// Shows the kernel all entries written so far.
    pub(crate) fn commit(&mut self) {
        self.entries.tail().store(self.tail, Ordering::Release);
    }

    /// Lends one buffer at once.
    pub(crate) fn publish(&mut self, id: u16) {
        self.write_entry(id);
        self.commit();
    }

    pub(crate) fn leak(&mut self) {
        self.entries.leak();
        self.buffers.leak();
    }

    /// What the kernel sees.
    #[cfg(all(test, tandem_loom))]
    pub(crate) fn shared(&self) -> std::sync::Arc<crate::entries::Shared> {
        self.entries.shared()
    }
}

#[cfg(all(test, not(tandem_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_lent_once_and_comes_back() {
        let mut ring = BufRing::new(4, 256);
        ring.publish_all();
        assert_eq!(ring.ours, 0);
        let bids: Vec<u16> = (0..4).map(|place| ring.entries.read(place).2).collect();
        assert_eq!(bids, [0, 1, 2, 3]);
        let first = ring.take(2).expect("lent");
        assert_eq!(first as u64, ring.entries.read(2).0);
        // SAFETY: the buffer is ours and 256 bytes long.
        let bytes = unsafe { std::slice::from_raw_parts_mut(first, 256) };
        bytes.fill(7);
        ring.publish(2);
        assert_eq!(ring.entries.read(0), (first as u64, 256, 2));
        assert_eq!(ring.ours, 0);
    }

    #[test]
    fn tail_wraps_and_unknown_ids_are_refused() {
        let mut ring = BufRing::new(2, 256);
        ring.publish_all();
        assert!(ring.take(2).is_none());
        for turn in 0..70_000_u32 {
            let id = (turn % 2) as u16;
            assert!(ring.take(id).is_some());
            ring.publish(id);
        }
        assert_eq!(ring.tail, (70_002_u32 % 65_536) as u16);
    }

    #[test]
    fn more_buffers_than_were_lent_cannot_be_taken() {
        let mut ring = BufRing::new(2, 256);
        assert!(ring.take(0).is_none());
        ring.publish_all();
        assert!(ring.take(0).is_some() && ring.take(1).is_some());
        assert!(ring.take(0).is_none());
    }
}
