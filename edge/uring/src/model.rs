//! The models that `make loom` runs: the code of this crate that threads meet in, under every
//! interleaving and every value that a load may return.
//!
//! `event` and `entries` have stand-ins here, because loom sees no system calls and no memory
//! behind raw pointers. What the other side of a queue or ring does is as weakly ordered as it may
//! be, so that what the models show rests on the code of this crate alone.
//!
//! A wake-up that is lost leaves all threads waiting, which loom reports as a deadlock.

mod buffers;
mod doorbell;
mod queue;
mod sleeper;
