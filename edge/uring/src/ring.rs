//! The io_uring itself: set-up with fallbacks, submitting, waiting until a deadline.

use std::io;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

use crate::buf_ring::BufRing;
use crate::limits::Limits;

/// The one group of provided buffers.
pub(crate) const BUFFER_GROUP: u16 = 0;

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_ABS_TIMER: u32 = 1 << 5;

/// What the kernel granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFlags {
    /// Only this thread submits (kernel 6.0).
    pub single_issuer: bool,
    /// Completions are worked off only inside our own `enter` (kernel 6.1).
    pub defer_taskrun: bool,
    /// No interrupts between processors for completions (kernel 5.19).
    pub coop_taskrun: bool,
    /// Waits end at an absolute time (kernel 6.12); else relative to a second clock reading.
    pub absolute_timer: bool,
    /// Waits can collect a batch (kernel 6.12).
    pub batch_wait: bool,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Everything was submitted; completions may be there or the time is over.
    Done,
    /// The kernel takes no submissions for now; reap completions and come again.
    Busy,
}

pub(crate) struct Ring {
    ring: IoUring,
    flags: RingFlags,
    clock: fn() -> Instant,
    /// One instant and the same moment of CLOCK_MONOTONIC in nanoseconds.
    anchor: (Instant, u64),
}

impl Ring {
    /// # Errors
    /// When the kernel has no io_uring, forbids it, or has no multishot receive.
    pub(crate) fn new(limits: &Limits, clock: fn() -> Instant) -> io::Result<Self> {
        let (ring, mut flags) = build(limits)?;
        flags.batch_wait = ring.params().is_feature_min_timeout();
        let anchor = anchor(clock)?;
        let mut ring = Ring { ring, flags, clock, anchor };
        ring.flags.absolute_timer = ring.probe_absolute_timer();
        Ok(ring)
    }

    pub(crate) fn flags(&self) -> RingFlags {
        self.flags
    }

    /// Registers the file table and the provided buffers.
    ///
    /// # Safety
    /// `buffers` must outlive every receive of this ring.
    pub(crate) unsafe fn register(&mut self, files: u32, buffers: &BufRing) -> io::Result<()> {
        self.ring.submitter().register_files_sparse(files)?;
        let (address, count) = (buffers.entries_address(), buffers.count());
        // SAFETY: the address is page-aligned memory of `count` entries; the caller keeps it alive.
        unsafe {
            self.ring.submitter().register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0)
        }
    }

    pub(crate) fn set_file(&mut self, index: u32, fd: i32) -> io::Result<()> {
        self.ring.submitter().register_files_update(index, &[fd]).map(drop)
    }

    pub(crate) fn queued(&mut self) -> usize {
        self.ring.submission().len()
    }

    pub(crate) fn is_full(&mut self) -> bool {
        self.ring.submission().is_full()
    }

    /// True if the entry was queued, false if the queue is full.
    ///
    /// # Safety
    /// What the entry points to must stay valid until it is submitted, and for a receive until it
    /// has ended.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    pub(crate) fn fill<'a>(
        &mut self,
        batch: &'a mut [std::mem::MaybeUninit<cqueue::Entry>],
    ) -> &'a mut [cqueue::Entry] {
        self.ring.completion().fill(batch)
    }

    /// Completions that are there.
    pub(crate) fn ready(&mut self) -> usize {
        self.ring.completion().len()
    }

    pub(crate) fn has_completions(&mut self) -> bool {
        self.ready() > 0
    }

    /// True while the kernel keeps completions that did not fit.
    pub(crate) fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Submits all that is queued without waiting.
    pub(crate) fn submit(&mut self) -> io::Result<Entered> {
        for _ in 0..4 {
            let queued = self.queued();
            if queued == 0 {
                return Ok(Entered::Done);
            }
            // SAFETY: no argument is passed; queued entries are valid by `push`'s contract.
            let entered = unsafe { self.ring.submitter().enter::<()>(queued as u32, 0, 0, None) };
            match entered {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(Entered::Busy),
                    _ => return Err(error),
                },
            }
        }
        Ok(if self.queued() == 0 { Entered::Done } else { Entered::Busy })
    }

    /// Submits all that is queued and runs what completed, without sleeping.
    pub(crate) fn poll(&mut self) -> io::Result<Entered> {
        self.enter(0, None, Duration::ZERO)
    }

    /// Submits all that is queued and sleeps until `want` completions or the deadline.
    pub(crate) fn wait(
        &mut self,
        want: u32,
        deadline: Option<Instant>,
        batch_wait: Duration,
    ) -> io::Result<Entered> {
        self.enter(want, deadline, batch_wait)
    }

    fn enter(
        &mut self,
        want: u32,
        deadline: Option<Instant>,
        batch_wait: Duration,
    ) -> io::Result<Entered> {
        let queued = self.queued() as u32;
        if deadline.is_none() && want <= 1 {
            // SAFETY: no argument is passed; entries are valid by `push`'s contract.
            let entered =
                unsafe { self.ring.submitter().enter::<()>(queued, want, ENTER_GETEVENTS, None) };
            return self.entered(entered);
        }
        let mut flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        let mut args = SubmitArgs::new();
        if self.flags.batch_wait && want > 1 {
            args = args.min_wait_usec(u32::try_from(batch_wait.as_micros()).unwrap_or(u32::MAX));
        }
        let timespec = deadline.map(|deadline| self.timespec(deadline)).unwrap_or_default();
        if deadline.is_some() {
            args = args.timespec(&timespec);
            if self.flags.absolute_timer {
                flags |= ENTER_ABS_TIMER;
            }
        }
        // SAFETY: the argument has the kernel's layout of `io_uring_getevents_arg` and outlives
        // the call, as does the timespec it points to; entries are valid by `push`'s contract.
        let entered = unsafe { self.ring.submitter().enter(queued, want, flags, Some(&args)) };
        self.entered(entered)
    }

    fn entered(&mut self, entered: io::Result<usize>) -> io::Result<Entered> {
        match entered {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR) => {}
                Some(libc::EBUSY | libc::EAGAIN) => return Ok(Entered::Busy),
                _ => return Err(error),
            },
        }
        Ok(if self.queued() == 0 { Entered::Done } else { Entered::Busy })
    }

    pub(crate) fn timespec(&self, deadline: Instant) -> Timespec {
        let nanoseconds = if self.flags.absolute_timer {
            let ahead = deadline.saturating_duration_since(self.anchor.0);
            let ahead = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
            self.anchor.1.saturating_add(ahead)
        } else {
            let ahead = deadline.saturating_duration_since((self.clock)());
            u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX)
        };
        Timespec::new().sec(nanoseconds / 1_000_000_000).nsec((nanoseconds % 1_000_000_000) as u32)
    }

    /// An absolute time in the past ends a wait at once, or is refused.
    fn probe_absolute_timer(&mut self) -> bool {
        let timespec = Timespec::new().sec(0).nsec(1);
        let args = SubmitArgs::new().timespec(&timespec);
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG | ENTER_ABS_TIMER;
        // SAFETY: as in `enter`; nothing is queued.
        let entered = unsafe { self.ring.submitter().enter(0, 1, flags, Some(&args)) };
        entered.is_err_and(|error| error.raw_os_error() == Some(libc::ETIME))
    }

    /// Lets go of all files now; closing the ring alone would do so some time later.
    pub(crate) fn release_files(&mut self) {
        let _ = self.ring.submitter().unregister_files();
    }

    /// Cancels everything and waits up to a second for it.
    pub(crate) fn cancel_all(&mut self) -> bool {
        let timeout = Timespec::new().sec(1);
        match self.ring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any()) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        }
    }
}

fn build(limits: &Limits) -> io::Result<(IoUring, RingFlags)> {
    let wishes = [
        RingFlags {
            single_issuer: true,
            defer_taskrun: true,
            coop_taskrun: true,
            ..RingFlags::default()
        },
        RingFlags { single_issuer: true, coop_taskrun: true, ..RingFlags::default() },
        RingFlags { coop_taskrun: true, ..RingFlags::default() },
        RingFlags::default(),
    ];
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in wishes {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_submit_all().setup_cqsize(limits.completion_entries());
        if flags.single_issuer {
            builder.setup_single_issuer();
        }
        if flags.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if flags.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        match builder.build(limits.submission_entries) {
            Ok(ring) => return Ok((ring, flags)),
            // Unknown flag: ask for less. Anything else would fail the same way.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Pairs the caller's clock (an `Instant`, which is CLOCK_MONOTONIC) with the kernel's count.
fn anchor(clock: fn() -> Instant) -> io::Result<(Instant, u64)> {
    let mut best: Option<(Duration, Instant, u64)> = None;
    for _ in 0..8 {
        let before = clock();
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live timespec.
        if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let width = clock().saturating_duration_since(before);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        let count = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
        if best.is_none_or(|(narrowest, _, _)| width < narrowest) {
            best = Some((width, before + width / 2, count));
        }
    }
    best.map(|(_, instant, count)| (instant, count))
        .ok_or_else(|| io::Error::other("no clock reading"))
}
