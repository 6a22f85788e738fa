use std::sync::Arc;

use loom::model;
use loom::thread;

use super::queue::Queue;
use crate::Doorbell;

/// A bell, and one queue per producer.
struct Door<const PRODUCERS: usize> {
    bell: Doorbell,
    queues: [Queue; PRODUCERS],
}

impl<const PRODUCERS: usize> Door<PRODUCERS> {
    fn new() -> Arc<Self> {
        let queues = std::array::from_fn(|_| Queue::default());
        Arc::new(Door { bell: Doorbell::new().expect("model"), queues })
    }

    /// Starts a thread that pushes and rings, that many times.
    fn produce(self: &Arc<Self>, queue: usize, pushes: usize) -> thread::JoinHandle<()> {
        let door = Arc::clone(self);
        thread::spawn(move || {
            for _ in 0..pushes {
                door.queues[queue].push();
                door.bell.ring();
            }
        })
    }

    fn have(&self, pushes: [usize; PRODUCERS]) -> bool {
        self.queues.iter().zip(pushes).all(|(queue, pushes)| queue.pushed() == pushes)
    }

    /// The turns of a media thread until everything was seen.
    fn turn_until(&self, pushes: [usize; PRODUCERS]) {
        while !self.have(pushes) {
            self.bell.event().read();
            self.bell.answer();
        }
    }
}

#[test]
fn what_one_thread_pushed_is_seen() {
    model(|| {
        let door = Door::<1>::new();
        let producer = door.produce(0, 3);
        door.turn_until([3]);
        producer.join().expect("producer");
    });
}

#[test]
fn what_two_threads_pushed_is_seen() {
    model(|| {
        let door = Door::<2>::new();
        let producers = [door.produce(0, 1), door.produce(1, 2)];
        door.turn_until([1, 2]);
        for producer in producers {
            producer.join().expect("producer");
        }
    });
}

#[test]
fn a_waiter_outside_a_ring_sees_what_was_pushed() {
    model(|| {
        let door = Door::<2>::new();
        let producers = [door.produce(0, 1), door.produce(1, 2)];
        while !door.have([1, 2]) {
            door.bell.event().wait();
            door.bell.clear();
        }
        for producer in producers {
            producer.join().expect("producer");
        }
    });
}

#[test]
fn a_request_to_stop_is_seen_and_what_was_pushed_before_it() {
    model(|| {
        let door = Door::<2>::new();
        let other = door.produce(0, 1);
        let stopper = {
            let door = Arc::clone(&door);
            thread::spawn(move || {
                door.queues[1].push();
                door.bell.request_stop();
            })
        };
        loop {
            door.bell.event().read();
            if door.bell.answer() {
                break;
            }
        }
        assert_eq!(door.queues[1].pushed(), 1);
        other.join().expect("producer");
        stopper.join().expect("stopper");
    });
}
