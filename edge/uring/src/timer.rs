//! A deadline that the kernel keeps over many waits.
//!
//! A wait with a time limit sets a timer up and takes it down again, which a virtual machine pays
//! dearly for. A thread that is woken by packets many times before its deadline leaves that to one
//! timeout of the ring. Where the deadline itself is what wakes, the limit of the wait is more
//! punctual, and stays.

use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::types::{TimeoutFlags, Timespec};

use crate::io::Io;
use crate::user_data::{Kind, pack};

/// So many waits between two deadlines are many.
const WAITS_MIN: u32 = 4;
/// What is nearer is not worth a timer.
const AHEAD_MIN: Duration = Duration::from_millis(1);

/// The timeout that is with the kernel.
#[derive(Default)]
pub(crate) struct Timer {
    /// When it ends; `None`: there is none.
    at: Option<Instant>,
    /// Read by the kernel at submit.
    time: Box<Timespec>,
    /// Waits since the last deadline.
    waits: u32,
}

impl Timer {
    /// The deadline has passed.
    pub(crate) fn on_deadline(&mut self) {
        self.waits = 0;
    }

    /// Its completion came.
    pub(crate) fn on_end(&mut self) {
        self.at = None;
    }
}

impl Io {
    /// Before a wait: the deadline that it has to end by itself, because no timer does in time.
    pub(crate) fn wait_limit(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        let deadline = deadline?;
        if self.timer.at.is_some_and(|at| at <= deadline) {
            return None;
        }
        self.timer.waits = self.timer.waits.saturating_add(1);
        let ahead = deadline.saturating_duration_since(now);
        let worth_it = self.timer.waits > WAITS_MIN && ahead >= AHEAD_MIN;
        let absolute = self.ring.flags().absolute_timer;
        if self.timer.at.is_some() || !worth_it || !absolute || self.ring.is_full() {
            return Some(deadline);
        }
        *self.timer.time = self.ring.timespec(deadline);
        let entry = opcode::Timeout::new(&raw const *self.timer.time)
            .flags(TimeoutFlags::ABS)
            .build()
            .user_data(pack(Kind::Timer, 0, 0));
        // SAFETY: the time is boxed; it changes only when no timeout is there, and the kernel reads
        // it at the submit that follows at once.
        if !unsafe { self.ring.push(&entry) } {
            return Some(deadline);
        }
        self.timer.at = Some(deadline);
        self.stats.timers += 1;
        None
    }
}
