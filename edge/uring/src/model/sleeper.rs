use std::sync::Arc;

use loom::model;
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::queue::Queue;
use crate::Sleeper;

/// In place of tokio's `Notify`: one permit, kept until it is taken.
struct Permit {
    there: Mutex<bool>,
    changed: Condvar,
}

impl Permit {
    fn give(&self) {
        *self.there.lock().expect("lock") = true;
        self.changed.notify_one();
    }

    fn take(&self) {
        let mut there = self.there.lock().expect("lock");
        while !*there {
            there = self.changed.wait(there).expect("lock");
        }
        *there = false;
    }
}

/// The trunk's thread, and the rings of two media threads.
struct Trunk {
    sleeper: Sleeper,
    permit: Permit,
    rings: [Queue; 2],
}

impl Trunk {
    fn new() -> Arc<Self> {
        let permit = Permit { there: Mutex::new(false), changed: Condvar::new() };
        Arc::new(Trunk { sleeper: Sleeper::default(), permit, rings: Default::default() })
    }

    /// A media thread: packets into its ring, then the bell, that many times.
    fn produce(self: &Arc<Self>, ring: usize, batches: usize) -> thread::JoinHandle<()> {
        let trunk = Arc::clone(self);
        thread::spawn(move || {
            for _ in 0..batches {
                trunk.rings[ring].push();
                if trunk.sleeper.must_be_woken() {
                    trunk.permit.give();
                }
            }
        })
    }

    /// The loop of the trunk's thread, until it has taken so many packets from the rings. For the
    /// first `beats` rounds it keeps a beat, which ends every wait.
    fn run(&self, mut beats: usize, packets: usize) {
        let mut taken = [0; 2];
        while taken.iter().sum::<usize>() < packets {
            if beats > 0 {
                beats -= 1;
            } else if self.sleeper.falls_asleep(|| self.pushed() == taken) {
                self.permit.take();
            }
            self.sleeper.stays_awake();
            taken = self.pushed();
        }
    }

    fn pushed(&self) -> [usize; 2] {
        [self.rings[0].pushed(), self.rings[1].pushed()]
    }
}

fn check(batches: [usize; 2], beats: usize, nudged: bool) {
    model(move || {
        let trunk = Trunk::new();
        let mut others: Vec<_> = (0..2)
            .filter(|&ring| batches[ring] > 0)
            .map(|ring| trunk.produce(ring, batches[ring]))
            .collect();
        if nudged {
            let trunk = Arc::clone(&trunk);
            others.push(thread::spawn(move || trunk.permit.give()));
        }
        trunk.run(beats, batches.iter().sum());
        for other in others {
            other.join().expect("other thread");
        }
    });
}

#[test]
fn packets_of_one_thread_are_seen() {
    check([3, 0], 0, false);
}

#[test]
fn packets_of_two_threads_are_seen() {
    check([1, 2], 0, false);
}

#[test]
fn packets_are_seen_when_a_beat_ends() {
    check([2, 0], 2, false);
}

#[test]
fn packets_are_seen_when_something_else_wakes_the_thread() {
    check([2, 0], 0, true);
}
