//! The thread of a media loop: named, pinned inside the process's affinity mask, waking on time.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::doorbell::Doorbell;
use crate::io::Io;
use crate::limits::{Limits, WaitConfig};
use crate::ring::RingFlags;
use crate::stats::Stats;
use crate::turn::{Driver, Loop};

/// How a media thread is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadConfig {
    /// Name of the thread, at most 15 bytes are shown by the system.
    pub name: String,
    /// Capacities.
    pub limits: Limits,
    /// Waiting.
    pub wait: WaitConfig,
    /// Core to pin to; it must be one of [`cores_allowed`]. `None`: not pinned.
    pub core: Option<usize>,
    /// SCHED_FIFO at this priority (1 to 99) if the process may. `None`: the usual scheduling.
    pub fifo_priority: Option<u8>,
}

impl Default for ThreadConfig {
    fn default() -> Self {
        ThreadConfig {
            name: "media-0".to_owned(),
            limits: Limits::default(),
            wait: WaitConfig::default(),
            core: None,
            fifo_priority: None,
        }
    }
}

/// Why a media thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No thread.
    #[error("media thread {name}: {error}")]
    Thread {
        /// Its name.
        name: String,
        /// The system's answer.
        error: io::Error,
    },
    /// No ring: io_uring forbidden or too old, memlock or descriptors exhausted, wrong limits.
    #[error("media thread {name}: io_uring: {error}")]
    Ring {
        /// Its name.
        name: String,
        /// The system's answer.
        error: io::Error,
    },
    /// The core is outside the affinity mask.
    #[error("media thread {name}: core {core} is not one of {allowed:?}")]
    Core {
        /// Its name.
        name: String,
        /// The core asked for.
        core: usize,
        /// The cores of the process.
        allowed: Vec<usize>,
    },
}

/// What a started thread got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Flags that the kernel granted.
    pub ring: RingFlags,
    /// Core it is pinned to.
    pub core: Option<usize>,
    /// SCHED_FIFO is on; false also when it was asked for and refused.
    pub fifo: bool,
}

/// A running media thread. Dropping it leaves the thread alone; `stop` ends it.
#[derive(Debug)]
pub struct MediaThread {
    /// Wakes the thread.
    pub doorbell: Arc<Doorbell>,
    /// What it got.
    pub started: Started,
    handle: JoinHandle<(Stats, io::Result<()>)>,
}

impl MediaThread {
    /// True when the loop has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Asks the loop to end and waits for it.
    ///
    /// # Errors
    /// What ended the loop before, or `Other` if the driver panicked.
    pub fn stop(self) -> io::Result<Stats> {
        self.doorbell.request_stop();
        match self.handle.join() {
            Ok((stats, Ok(()))) => Ok(stats),
            Ok((_, Err(error))) => Err(error),
            Err(_) => Err(io::Error::other("media thread panicked")),
        }
    }
}

/// The cores of the process's affinity mask.
pub fn cores_allowed() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Starts a media thread and returns once its ring runs. `make` builds the driver on the thread
/// and may add sockets. `clock` must read the monotonic clock.
///
/// # Errors
/// [`SpawnError`]; no thread is left behind.
pub fn spawn<D, F>(
    config: ThreadConfig,
    doorbell: Arc<Doorbell>,
    clock: fn() -> Instant,
    make: F,
) -> Result<MediaThread, SpawnError>
where
    D: Driver,
    F: FnOnce(&mut Io) -> D + Send + 'static,
{
    let name = config.name.clone();
    if let Some(core) = config.core {
        let allowed = cores_allowed();
        if !allowed.contains(&core) {
            return Err(SpawnError::Core { name, core, allowed });
        }
    }
    let (report, reported) = mpsc::sync_channel(1);
    let bell = Arc::clone(&doorbell);
    let body = move || {
        let (core, fifo) = settle_thread(&config);
        let mut turns = match Loop::new(config.limits, config.wait, bell, clock) {
            Ok(turns) => turns,
            Err(error) => {
                let _ = report.send(Err(error));
                return (Stats::default(), Ok(()));
            }
        };
        let mut driver = make(turns.io());
        let _ = report.send(Ok(Started { ring: turns.io().ring_flags(), core, fifo }));
        let result = turns.run(&mut driver);
        (*turns.io().stats(), result)
    };
    let handle = std::thread::Builder::new()
        .name(name.clone())
        .spawn(body)
        .map_err(|error| SpawnError::Thread { name: name.clone(), error })?;
    match reported.recv() {
        Ok(Ok(started)) => Ok(MediaThread { doorbell, started, handle }),
        Ok(Err(error)) => Err(SpawnError::Ring { name, error }),
        Err(_) => Err(SpawnError::Thread { name, error: io::Error::other("driver panicked") }),
    }
}

/// Pins, sets the timer slack and the scheduling class of the calling thread.
fn settle_thread(config: &ThreadConfig) -> (Option<usize>, bool) {
    let pinned =
        config.core.filter(|&id| core_affinity::set_for_current(core_affinity::CoreId { id }));
    // The default slack of 50 µs would make every deadline that late.
    // SAFETY: an option with integer arguments, for the calling thread only.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64) };
    let fifo = config.fifo_priority.is_some_and(|priority| {
        let parameters = libc::sched_param { sched_priority: i32::from(priority.clamp(1, 99)) };
        // SAFETY: the parameters live through the call; 0 is the calling thread.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) == 0 }
    });
    (pinned, fifo)
}
