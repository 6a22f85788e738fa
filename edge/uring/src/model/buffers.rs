use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::model;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::thread;

use super::super::entries::Shared;
use crate::buf_ring::BufRing;

const COUNT: u16 = 2;
const BUFFER_BYTES: u32 = 256;
/// How often each side looks for what the other has done; more than there are buffers, so that
/// places are used again.
const LOOKS: usize = 4;

/// The completion queue: numbers of buffers that the kernel has filled.
struct Completions {
    bids: Vec<UnsafeCell<u16>>,
    tail: AtomicUsize,
}

// SAFETY: loom fails the model at the first access that is not ordered after the last.
unsafe impl Send for Completions {}
// SAFETY: as above.
unsafe impl Sync for Completions {}

impl Completions {
    fn new() -> Arc<Self> {
        let bids = (0..LOOKS).map(|_| UnsafeCell::new(0)).collect();
        Arc::new(Completions { bids, tail: AtomicUsize::new(0) })
    }

    fn push(&self, at: usize, bid: u16) {
        // SAFETY: the pointer is that of a live cell, and loom checks that it is ours alone.
        self.bids[at].with_mut(|place| unsafe { *place = bid });
        self.tail.store(at + 1, Release);
    }

    fn get(&self, at: usize) -> Option<u16> {
        // SAFETY: the pointer is that of a live cell, and loom checks that nobody writes to it.
        let bid = || self.bids[at].with(|place| unsafe { *place });
        (at < self.tail.load(Acquire)).then(bid)
    }
}

/// The kernel: takes one buffer at each look, if there is one.
fn kernel(ring: &Shared, completions: &Completions) {
    let mut with_us = Vec::new();
    let mut head = 0;
    for _ in 0..LOOKS {
        if ring.tail().load(Acquire) == head {
            continue;
        }
        let (address, bytes, bid) = ring.read(head & (COUNT - 1));
        assert_eq!(bytes, BUFFER_BYTES, "an entry that is not written");
        assert!(bid < COUNT);
        with_us.push((address, bid));
        completions.push(usize::from(head), bid);
        head += 1;
    }
    for (address, bid) in &with_us {
        assert!(with_us.iter().all(|(a, b)| (a == address) == (b == bid)), "{with_us:?}");
    }
}

/// Written entries are whole when the kernel sees the tail, and no place is written again that the
/// kernel may still read.
#[test]
fn the_kernel_reads_whole_entries() {
    model(|| {
        let mut ring = BufRing::new(COUNT, BUFFER_BYTES);
        let completions = Completions::new();
        let kernel = {
            let (shared, completions) = (ring.shared(), Arc::clone(&completions));
            thread::spawn(move || kernel(&shared, &completions))
        };
        ring.publish_all();
        let mut seen = 0;
        for _ in 0..LOOKS {
            let Some(bid) = completions.get(seen) else { continue };
            assert!(ring.take(bid).is_some(), "a buffer that was lent");
            ring.publish(bid);
            seen += 1;
        }
        kernel.join().expect("kernel");
    });
}
