//! The atomics of what threads share: the standard library's, or loom's in the build that runs the
//! models (`make loom`).

#[cfg(all(test, tandem_loom))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};
#[cfg(not(all(test, tandem_loom)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};
