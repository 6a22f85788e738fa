//! Commit before act: transactions of the core in order, their effects only after the commit.
//!
//! Transactions are handed to the store without waiting; it commits them in groups and in order.
//! When one fails for a reason that may pass (disk full, queue full), everything from it on is
//! committed again in order, so that an older state never overwrites a newer one; what it does is
//! idempotent. Nothing is released meanwhile, and the core takes no more inputs once
//! [`ENTRIES_MAX`] transactions wait: the edges keep their events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control_core::io::{Effect, Output, StoreOp};
use control_store::{Durability, Job, Store, StoreError};
use tokio::sync::{Notify, oneshot};

use crate::rows::Rows;

/// Transactions that may wait for their commit.
pub const ENTRIES_MAX: usize = 4_096;

/// Pause before a failed commit is repeated.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Takes transactions. Implemented by [`StoreWriter`]; tests have their own.
pub trait Commit {
    /// Commits `ops`; `done` is called once, from any thread.
    fn commit(
        &self,
        ops: &[StoreOp],
        durability: Durability,
        done: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
    );
}

/// The store, with the core's records turned into its rows.
pub struct StoreWriter {
    /// Store.
    pub store: Store,
    /// Conversion.
    pub rows: Rows,
}

impl Commit for StoreWriter {
    fn commit(
        &self,
        ops: &[StoreOp],
        durability: Durability,
        done: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
    ) {
        let ops = ops.iter().map(|op| self.rows.op(op)).collect();
        // A refusal is also told to `done`.
        let _ = self.store.submit(Job { ops, durability, done });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    Committed,
    /// To be committed again, with everything after it.
    Failed,
    /// Will never be committed: its effects must not happen.
    Void,
}

struct Entry {
    number: u64,
    output: Output,
    state: State,
    /// Told when this entry is released.
    waiter: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Completions {
    results: Mutex<Vec<(u64, Result<(), StoreError>)>>,
    notify: Notify,
}

/// Transactions that are not released yet.
pub struct CommitQueue<C> {
    writer: C,
    entries: VecDeque<Entry>,
    next_number: u64,
    in_flight: usize,
    /// A failure was seen: wait until nothing is in flight, then begin again at the first entry.
    failing: bool,
    /// As the store's last answer was: a repeat that is under way changes nothing.
    stuck: bool,
    completions: Arc<Completions>,
    voided: u64,
    retried: u64,
}

impl<C: Commit> CommitQueue<C> {
    /// Empty.
    pub fn new(writer: C) -> Self {
        Self {
            writer,
            entries: VecDeque::new(),
            next_number: 0,
            in_flight: 0,
            failing: false,
            stuck: false,
            completions: Arc::default(),
            voided: 0,
            retried: 0,
        }
    }

    /// Adds a transaction and hands it over, unless an earlier one has to be repeated first.
    pub fn push(&mut self, output: Output) {
        self.enter(output, None);
    }

    /// Tells `waiter` once everything that was pushed before is committed.
    pub fn push_waiter(&mut self, waiter: oneshot::Sender<()>) {
        self.enter(Output::default(), Some(waiter));
    }

    fn enter(&mut self, output: Output, waiter: Option<oneshot::Sender<()>>) {
        let number = self.next_number;
        self.next_number += 1;
        // Nothing to write: released in its turn, without a round through the store.
        let state = if output.ops.is_empty() { State::Committed } else { State::Waiting };
        self.entries.push_back(Entry { number, output, state, waiter });
        if !self.failing && state == State::Waiting {
            self.submit(self.entries.len() - 1);
        }
    }

    /// Whether the core may take inputs.
    pub fn has_room(&self) -> bool {
        self.entries.len() < ENTRIES_MAX
    }

    /// The store could not write the last time: who can be told to come back is told so.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Everything is committed and released.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A failed commit has to be repeated by [`Self::retry`], after [`RETRY_AFTER`].
    pub fn wants_retry(&self) -> bool {
        self.failing && self.in_flight == 0
    }

    /// How many transactions were given up, and how many commits were repeated.
    pub fn failures(&self) -> (u64, u64) {
        (self.voided, self.retried)
    }

    /// Ends when the store has something to tell; then call [`Self::collect`].
    pub fn changed(&self) -> impl Future<Output = ()> + 'static {
        let completions = self.completions.clone();
        async move { completions.notify.notified().await }
    }

    /// Takes in what the store has told and returns the effects that may happen now, in order.
    pub fn collect(&mut self) -> Vec<Effect> {
        let lock = self.completions.results.lock();
        let results = std::mem::take(&mut *lock.unwrap_or_else(PoisonError::into_inner));
        for (number, result) in results {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.settle(number, result);
        }
        let mut effects = Vec::new();
        while let Some(front) = self.entries.front() {
            match front.state {
                State::Committed => {}
                State::Void => self.voided += 1,
                State::Waiting | State::InFlight | State::Failed => break,
            }
            let void = front.state == State::Void;
            if let Some(entry) = self.entries.pop_front()
                && !void
            {
                effects.extend(entry.output.then);
                if let Some(waiter) = entry.waiter {
                    // It may not wait any more.
                    let _ = waiter.send(());
                }
            }
        }
        effects
    }

    /// Hands everything that is not released over again, in order.
    pub fn retry(&mut self) {
        if !self.wants_retry() {
            return;
        }
        self.failing = false;
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get_mut(index) else { break };
            if entry.output.ops.is_empty() || entry.state == State::Void {
                continue;
            }
            self.retried += 1;
            self.submit(index);
        }
    }

    fn settle(&mut self, number: u64, result: Result<(), StoreError>) {
        let Some(first) = self.entries.front().map(|entry| entry.number) else { return };
        // Numbers have no holes, so the distance from the first one is the index.
        let index = number.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) else { return };
        let broken_rule =
            matches!(result, Err(StoreError::StaleEpoch { .. } | StoreError::Conflict(_)));
        self.stuck = result.is_err() && !broken_rule;
        match result {
            Ok(()) => entry.state = State::Committed,
            Err(error @ (StoreError::StaleEpoch { .. } | StoreError::Conflict(_))) => {
                // A rule that a repeat would break again: another owner, or a defect of ours.
                tracing::error!(%error, "a transaction was refused; its effects are left out");
                entry.state = State::Void;
            }
            Err(error) => {
                if !self.failing {
                    tracing::debug!(%error, "a transaction is to be written again");
                }
                entry.state = State::Failed;
                self.failing = true;
            }
        }
    }

    fn submit(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.state = State::InFlight;
        self.in_flight += 1;
        let accepted = |effect: &Effect| matches!(effect, Effect::Reply(_));
        // Writes accepted from the API survive a power cut; the others are sent again by edges.
        let durability = match entry.output.then.iter().any(accepted) {
            true => Durability::Synced,
            false => Durability::Process,
        };
        let (number, completions) = (entry.number, self.completions.clone());
        let done = Box::new(move |result| {
            let lock = completions.results.lock();
            lock.unwrap_or_else(PoisonError::into_inner).push((number, result));
            completions.notify.notify_one();
        });
        self.writer.commit(&entry.output.ops, durability, done);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use control_core::io::FetchId;
    use link_proto::CallSid;

    use super::*;

    type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

    /// Keeps what it is given until the test decides.
    #[derive(Clone, Default)]
    struct Script(Rc<RefCell<VecDeque<(u8, Done)>>>);

    impl Script {
        /// Answers the oldest commit and returns which it was.
        fn answer(&self, result: Result<(), StoreError>) -> u8 {
            let (name, done) = self.0.borrow_mut().pop_front().unwrap();
            done(result);
            name
        }
    }

    impl Commit for Script {
        fn commit(&self, ops: &[StoreOp], _: Durability, done: Done) {
            let [StoreOp::DeleteSession { session }] = ops else { panic!("one op") };
            self.0.borrow_mut().push_back((session.0[0], done));
        }
    }

    fn output(name: u8, with_op: bool) -> Output {
        let op = StoreOp::DeleteSession { session: CallSid([name; 16]) };
        let ops = if with_op { vec![op] } else { vec![] };
        Output { ops, then: vec![Effect::CancelFetch(FetchId(u64::from(name)))] }
    }

    fn names(effects: Vec<Effect>) -> Vec<u64> {
        effects
            .into_iter()
            .map(|effect| match effect {
                Effect::CancelFetch(FetchId(name)) => name,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn queue() -> (CommitQueue<Script>, Script) {
        let script = Script::default();
        (CommitQueue::new(script.clone()), script)
    }

    #[test]
    fn effects_wait_for_their_commit_and_for_everything_before() {
        let (mut queue, script) = queue();
        for (name, with_op) in [(1, true), (2, false), (3, true)] {
            queue.push(output(name, with_op));
        }
        assert!(names(queue.collect()).is_empty(), "nothing is committed");
        assert_eq!(script.answer(Ok(())), 1);
        assert_eq!(names(queue.collect()), [1, 2]);
        assert_eq!(script.answer(Ok(())), 3);
        assert_eq!(names(queue.collect()), [3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn after_a_failure_everything_is_repeated_in_order() {
        let (mut queue, script) = queue();
        for name in 1..=3 {
            queue.push(output(name, true));
        }
        assert_eq!(script.answer(Ok(())), 1);
        assert_eq!(script.answer(Err(StoreError::DiskFull)), 2);
        assert_eq!(names(queue.collect()), [1]);
        assert!(!queue.wants_retry(), "3 is still on its way");
        queue.push(output(4, true));
        assert_eq!(script.answer(Ok(())), 3, "4 is held back");
        assert!(names(queue.collect()).is_empty(), "3 is committed but comes after 2");
        assert!(queue.wants_retry() && !queue.is_stuck(), "3 could be written");
        queue.retry();
        for expect in 2..=4 {
            assert_eq!(script.answer(Ok(())), expect);
        }
        assert_eq!(names(queue.collect()), [2, 3, 4]);
        assert_eq!(queue.failures(), (0, 3));
    }

    #[test]
    fn it_is_stuck_until_the_store_can_write_again() {
        let (mut queue, script) = queue();
        queue.push(output(1, true));
        script.answer(Err(StoreError::DiskFull));
        assert!(queue.collect().is_empty() && queue.is_stuck());
        queue.retry();
        assert!(queue.is_stuck(), "nobody knows yet");
        script.answer(Err(StoreError::DiskFull));
        assert!(queue.collect().is_empty() && queue.is_stuck());
        queue.retry();
        script.answer(Ok(()));
        assert_eq!(names(queue.collect()), [1]);
        assert!(!queue.is_stuck());
    }

    #[test]
    fn a_broken_rule_costs_its_own_effects_only() {
        let (mut queue, script) = queue();
        queue.push(output(1, true));
        queue.push(output(2, true));
        let stale = StoreError::StaleEpoch { sid: "CA".into(), stored: 2, given: 1 };
        script.answer(Err(stale));
        let (waiter, mut told) = oneshot::channel();
        queue.push_waiter(waiter);
        assert!(queue.collect().is_empty());
        assert!(told.try_recv().is_err(), "2 is not committed");
        script.answer(Ok(()));
        assert_eq!(names(queue.collect()), [2]);
        assert_eq!(told.try_recv(), Ok(()));
        assert_eq!(queue.failures(), (1, 0));
        assert!(!queue.wants_retry());
    }
}
