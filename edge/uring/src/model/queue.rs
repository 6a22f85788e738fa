use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::Relaxed;

/// How many entries a producer has put into its queue. Without any ordering of its own, unlike the
/// real ones.
#[derive(Debug, Default)]
pub(super) struct Queue(AtomicUsize);

impl Queue {
    /// By its one producer.
    pub(super) fn push(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    /// Entries pushed so far, as far as they are visible.
    pub(super) fn pushed(&self) -> usize {
        self.0.load(Relaxed)
    }
}
