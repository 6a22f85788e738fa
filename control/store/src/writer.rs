//! The store thread: takes what waits into one transaction, commits, then tells everybody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use rusqlite::Connection;

use crate::apply::apply;
use crate::error::StoreError;
use crate::migrate;
use crate::op::StoreOp;
use crate::read::Reader;

/// Where the store lives and what bounds it.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Database file; `-wal` and `-shm` files appear beside it.
    pub path: PathBuf,
    /// Jobs that may wait. More are refused with [`StoreError::QueueFull`].
    pub queue_jobs_max: usize,
    /// Operations in one transaction.
    pub batch_ops_max: usize,
    /// Idle read connections that are kept.
    pub readers_max: usize,
    /// Largest size of the database file in bytes; `None` = as large as the disk allows.
    pub size_bytes_max: Option<u64>,
}

impl StoreConfig {
    /// Defaults for one control node.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            queue_jobs_max: 8192,
            batch_ops_max: 2048,
            readers_max: 4,
            size_bytes_max: None,
        }
    }
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of the process (kill -9). Not necessarily a power cut.
    Process,
    /// A power cut: synced to the disk before the job is done. For writes accepted from the API.
    Synced,
}

/// Operations that happen together or not at all.
pub struct Job {
    /// In order.
    pub ops: Vec<StoreOp>,
    /// What the commit must survive.
    pub durability: Durability,
    /// Called on the store thread once, after the commit or the failure, in order of submission.
    /// Must not block.
    pub done: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions committed.
    pub commits: u64,
    /// Jobs that were committed.
    pub jobs: u64,
    /// Jobs that failed.
    pub jobs_failed: u64,
    /// Jobs refused for lack of room in the queue.
    pub jobs_refused: u64,
    /// Jobs that wait.
    pub queue_jobs: u64,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    jobs: AtomicU64,
    jobs_failed: AtomicU64,
    jobs_refused: AtomicU64,
}

/// The open store. Cheap to clone; the thread ends, after writing what waits, with the last clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    reader: Reader,
}

struct Inner {
    queue: Option<Sender<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

impl Store {
    /// Opens or creates the database, brings its schema up to date and starts the store thread.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let mut connection = Connection::open(&config.path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.set_prepared_statement_cache_capacity(64);
        migrate::migrate(&mut connection, migrate::latest())?;
        if let Some(size) = config.size_bytes_max {
            let page: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            let pages = (size / u64::from(page.max(1))).clamp(1, 1 << 31);
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        let (sender, receiver) = bounded(config.queue_jobs_max.max(1));
        let counters = Arc::new(Counters::default());
        let mut writer = Writer {
            connection,
            synced: None,
            ops_max: config.batch_ops_max.max(1),
            counters: Arc::clone(&counters),
            complained: None,
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| StoreError::Database(format!("cannot start the thread: {error}")))?;
        let reader = Reader::new(&config.path, config.readers_max);
        let thread = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { queue: Some(sender), thread, counters }), reader })
    }

    /// Hands over a job without waiting. When refused, `done` is called at once with the error,
    /// which is also returned.
    pub fn submit(&self, job: Job) -> Result<(), StoreError> {
        let queue = self.inner.queue.as_ref().ok_or(StoreError::Closed)?;
        let (job, error) = match queue.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job)) => (job, StoreError::QueueFull),
            Err(TrySendError::Disconnected(job)) => (job, StoreError::Closed),
        };
        self.inner.counters.jobs_refused.fetch_add(1, Ordering::Relaxed);
        (job.done)(Err(error.clone()));
        Err(error)
    }

    /// Writes and waits for the commit. Blocks the calling thread.
    pub fn commit(&self, durability: Durability, ops: Vec<StoreOp>) -> Result<(), StoreError> {
        let (sender, receiver) = bounded(1);
        let done = Box::new(move |result| {
            let _ = sender.try_send(result);
        });
        self.submit(Job { ops, durability, done })?;
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Reads.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        let counters = &self.inner.counters;
        StoreStats {
            commits: counters.commits.load(Ordering::Relaxed),
            jobs: counters.jobs.load(Ordering::Relaxed),
            jobs_failed: counters.jobs_failed.load(Ordering::Relaxed),
            jobs_refused: counters.jobs_refused.load(Ordering::Relaxed),
            queue_jobs: self.inner.queue.as_ref().map_or(0, |queue| queue.len() as u64),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last clone may be dropped by a completion on the store thread itself.
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

struct Writer {
    connection: Connection,
    /// What `PRAGMA synchronous` is set to; `None` = not yet set.
    synced: Option<bool>,
    ops_max: usize,
    counters: Arc<Counters>,
    /// When a failure was last told in the log; `None` = the last transaction was written.
    complained: Option<Instant>,
}

/// How often the log says that nothing can be written.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

impl Writer {
    fn run(&mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut ops = first.ops.len();
            let mut batch = vec![first];
            while ops < self.ops_max
                && let Ok(job) = queue.try_recv()
            {
                ops = ops.saturating_add(job.ops.len());
                batch.push(job);
            }
            self.write(batch);
        }
    }

    /// One transaction for the whole batch, one savepoint for each job.
    fn write(&mut self, batch: Vec<Job>) {
        let mut results = Vec::with_capacity(batch.len());
        let written = self.try_write(&batch, &mut results);
        if let Err(error) = written {
            self.complain(&error);
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            results.clear();
            results.resize(batch.len(), Err(error));
        } else {
            if self.complained.take().is_some() {
                tracing::info!("the store can write again");
            }
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
        }
        for (job, result) in batch.into_iter().zip(results) {
            let counter =
                if result.is_ok() { &self.counters.jobs } else { &self.counters.jobs_failed };
            counter.fetch_add(1, Ordering::Relaxed);
            (job.done)(result);
        }
    }

    /// One line at first, then one for every while that it goes on.
    fn complain(&mut self, error: &StoreError) {
        let now = Instant::now();
        if self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAIN_EVERY) {
            tracing::error!(%error, "the store cannot write; it is tried again and again");
            self.complained = Some(now);
        }
    }

    fn try_write(
        &mut self,
        batch: &[Job],
        results: &mut Vec<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let synced = batch.iter().any(|job| job.durability == Durability::Synced);
        if self.synced != Some(synced) {
            // In WAL mode NORMAL survives kill -9; FULL also syncs the log at the commit.
            let level = if synced { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.synced = Some(synced);
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for job in batch {
            self.connection.execute_batch("SAVEPOINT job")?;
            let result = job.ops.iter().try_for_each(|op| apply(&self.connection, op));
            if let Err(error) = &result {
                // A full disk or an I/O error has rolled the whole transaction back, or will make
                // the commit fail: it is everybody's failure. A broken rule is the job's alone.
                let own = matches!(error, StoreError::Conflict(_) | StoreError::StaleEpoch { .. });
                if !own || self.connection.is_autocommit() {
                    return Err(error.clone());
                }
                self.connection.execute_batch("ROLLBACK TO job")?;
            }
            self.connection.execute_batch("RELEASE job")?;
            results.push(result);
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }
}
