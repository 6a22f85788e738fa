//! Signalling's end of a media thread: commands in, events out, both bounded.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use edge_media::command::{PortKey, WorkerCommand};
use edge_media::event::WorkerEvent;
use edge_uring::Doorbell;
use tokio::sync::Notify;

/// What crosses from signalling to a media thread.
#[derive(Debug)]
pub enum ToMedia {
    /// The sockets of a leg. Comes before the leg's `AddLeg`.
    Sockets {
        /// Leg.
        port: PortKey,
        /// RTP.
        rtp: UdpSocket,
        /// RTCP.
        rtcp: UdpSocket,
    },
    /// A command.
    Command(WorkerCommand),
    /// Close the sockets of a leg. Comes after the leg's `PortRemoved`.
    Release {
        /// Leg.
        port: PortKey,
    },
}

/// The queues of one media thread; the thread holds clones of the same `Arc`s.
#[derive(Debug, Clone)]
pub struct MediaQueues {
    /// To the thread. It reads them when the doorbell rings.
    pub commands: Arc<ArrayQueue<ToMedia>>,
    /// From the thread.
    pub events: Arc<ArrayQueue<WorkerEvent>>,
    /// Wakes the thread.
    pub doorbell: Arc<Doorbell>,
    /// Wakes signalling: rung by the thread when it has put events into the queue.
    pub wake: Arc<Notify>,
}

impl MediaQueues {
    /// Queues of `entries_max` each. `wake` is shared by all media threads of a shard.
    ///
    /// # Errors
    /// If there is no descriptor left for the doorbell.
    pub fn new(entries_max: usize, wake: Arc<Notify>) -> std::io::Result<Self> {
        Ok(Self {
            commands: Arc::new(ArrayQueue::new(entries_max)),
            events: Arc::new(ArrayQueue::new(entries_max)),
            doorbell: Arc::new(Doorbell::new()?),
            wake,
        })
    }
}

/// Signalling's side. What does not fit into the queue waits here, in order: a command about a
/// call that exists is never lost, and a new call is refused while anything waits.
#[derive(Debug)]
pub struct MediaHandle {
    queues: MediaQueues,
    waiting: VecDeque<ToMedia>,
    rung: bool,
}

impl MediaHandle {
    /// Takes over the queues.
    pub fn new(queues: MediaQueues) -> Self {
        Self { queues, waiting: VecDeque::new(), rung: false }
    }

    /// Whether the queue is full: no new legs then.
    pub fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Queues one message; [`Self::flush`] rings the bell.
    pub fn push(&mut self, message: ToMedia) {
        if self.waiting.is_empty() {
            if let Err(message) = self.queues.commands.push(message) {
                self.waiting.push_back(message);
            }
        } else {
            self.waiting.push_back(message);
        }
        self.rung = true;
    }

    /// Wakes the thread if there is something for it. Call once per turn.
    pub fn flush(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            if let Err(message) = self.queues.commands.push(message) {
                self.waiting.push_front(message);
                break;
            }
            self.rung = true;
        }
        if self.rung {
            self.rung = false;
            self.queues.doorbell.ring();
        }
    }

    /// The next event of the thread.
    pub fn event(&mut self) -> Option<WorkerEvent> {
        self.queues.events.pop()
    }
}
