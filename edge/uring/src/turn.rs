//! The loop of a media thread and the trait it drives.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::cqueue;

use crate::doorbell::Doorbell;
use crate::io::Io;
use crate::limits::{Limits, WaitConfig};
use crate::prefetch::prefetch;
use crate::recv::Received;
use crate::table::{HOT_BYTES, SocketId};
use crate::user_data::{Kind, unpack};
use crate::wake_up::WakeUp;

/// One received datagram, in the buffer it arrived in.
pub struct Datagram<'a> {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// The token given to [`Io::add_socket`].
    pub token: u64,
    /// Where it came from; `None` on a connected socket: from its peer.
    pub source: Option<SocketAddr>,
    /// The datagram.
    pub data: &'a mut [u8],
    /// Free bytes directly behind it in the same buffer, for what makes it longer. They hold old
    /// bytes.
    pub room: &'a mut [u8],
}

/// Steps in which the driver names memory that a datagram will need; what one step names is near in
/// the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foresight {
    /// What belongs to the socket itself.
    Own,
    /// What that leads to.
    Next,
    /// The last of it.
    Last,
}

/// What a media thread does with what happens. All calls come from the one thread.
pub trait Driver {
    /// A datagram arrived.
    fn on_datagram(&mut self, now: Instant, datagram: Datagram<'_>, io: &mut Io);

    /// A datagram of the socket with this token comes soon: may [`crate::prefetch`] memory. In the
    /// last step it tells the socket that will be sent on, if it knows.
    fn foresee(&self, token: u64, step: Foresight) -> Option<SocketId> {
        let _ = (token, step);
        None
    }

    /// The doorbell was rung: read the command queues.
    fn on_doorbell(&mut self, now: Instant, io: &mut Io);

    /// `next_deadline` has passed. Called before datagrams, at most once a turn.
    fn on_deadline(&mut self, now: Instant, io: &mut Io);

    /// When to wake at the latest.
    fn next_deadline(&self) -> Option<Instant>;

    /// All events of this turn were handed over; what is queued now goes out together.
    fn on_batch_end(&mut self, now: Instant, io: &mut Io) {
        let _ = (now, io);
    }

    /// A send failed; its datagram is lost and counted. The socket may be gone already.
    fn on_send_error(&mut self, now: Instant, socket: SocketId, errno: i32) {
        let _ = (now, socket, errno);
    }

    /// A deferred change of peer failed; the socket keeps the one it had.
    fn on_connect_error(&mut self, now: Instant, socket: SocketId, error: &io::Error) {
        let _ = (now, socket, error);
    }

    /// The kernel has let go of a removed socket; dropping it frees its port.
    fn on_removed(&mut self, now: Instant, socket: SocketId, udp: UdpSocket, io: &mut Io) {
        let _ = (now, socket, io);
        drop(udp);
    }
}

/// The ring of one thread and the loop around it. Make it on the thread that runs it.
pub struct Loop {
    io: Io,
    batch: Box<[MaybeUninit<cqueue::Entry>]>,
    wait: WaitConfig,
    wake_up: WakeUp,
    clock: fn() -> Instant,
}

impl Loop {
    /// Takes all memory and registers it. `clock` must read the monotonic clock.
    ///
    /// # Errors
    /// Limits out of range; no io_uring; the kernel is too old (6.1 is needed); memlock or
    /// descriptors exhausted.
    pub fn new(
        limits: Limits,
        wait: WaitConfig,
        doorbell: Arc<Doorbell>,
        clock: fn() -> Instant,
    ) -> io::Result<Self> {
        let batch: Vec<_> =
            (0..limits.completions_per_turn_max).map(|_| MaybeUninit::uninit()).collect();
        let io = Io::new(limits, doorbell, clock)?;
        let batch = batch.into_boxed_slice();
        let wake_up = WakeUp::new(wait.lead_max);
        Ok(Loop { io, batch, wait, wake_up, clock })
    }

    /// For what has to be done before the loop runs.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Turns until the driver or the doorbell says stop.
    ///
    /// # Errors
    /// When the kernel refuses to be entered at all.
    pub fn run<D: Driver>(&mut self, driver: &mut D) -> io::Result<()> {
        while !self.io.stopping {
            self.turn(driver)?;
        }
        Ok(())
    }

    /// One turn: deadline, completions, settling, submit and wait.
    ///
    /// # Errors
    /// As [`Loop::run`].
    pub fn turn<D: Driver>(&mut self, driver: &mut D) -> io::Result<()> {
        let now = (self.clock)();
        let io = &mut self.io;
        io.stats.turns += 1;
        self.wake_up.woke(now, !io.ring.has_completions());
        if io.took_in && io.ring.ready() < CAUGHT_UP {
            io.caught_up = now;
        }
        if driver.next_deadline().is_some_and(|deadline| deadline <= now) {
            io.stats.deadlines += 1;
            io.timer.on_deadline();
            driver.on_deadline(now, io);
        }
        if io.ring.overflowed() {
            io.stats.completion_overflows += 1;
        }
        let completions = io.ring.fill(&mut self.batch);
        if completions.len() >= FORESEEN_MIN {
            foresee(io, driver, completions);
        }
        for entry in completions.iter() {
            dispatch(io, now, driver, entry);
        }
        io.settle(now, driver);
        driver.on_batch_end(now, io);
        let deadline = driver.next_deadline();
        self.io.took_in = self.submit_and_wait(now, deadline);
        match self.io.fatal.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Submits, and sleeps if there is nothing to do. True if the kernel was asked for what has come.
    fn submit_and_wait(&mut self, now: Instant, deadline: Option<Instant>) -> bool {
        if self.io.stopping || self.io.is_unsettled() || self.io.starved {
            self.poll();
            return true;
        }
        if self.io.ring.has_completions() {
            // Entered for more, the kernel would fill further buffers while these wait, until none is
            // left and receives end.
            self.io.flush();
            return false;
        }
        // What a wake-up takes is not slept, but looked through.
        let ahead = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let near = ahead.filter(|ahead| self.wake_up.is_near(*ahead)).unwrap_or_default();
        let look = self.wait.busy_poll.max(near);
        if !look.is_zero() {
            let (found, time) = self.spin(look, deadline);
            if !near.is_zero() {
                self.wake_up.looked(time);
            }
            if found {
                return true;
            }
        }
        let batch = self.wait.batch_completions.max(1);
        let want = if self.wait.batch_wait.is_zero() { 1 } else { batch };
        self.io.stats.enters += 1;
        let limit = self.io.wait_limit(now, deadline).map(|deadline| {
            let ahead = deadline.saturating_duration_since(now);
            let lead = self.wake_up.lead(ahead);
            self.wake_up.sleeps(deadline, ahead, lead);
            deadline.checked_sub(lead).unwrap_or(deadline)
        });
        let entered = self.io.ring.wait(want, limit, self.wait.batch_wait);
        self.io.after_enter(entered);
        true
    }

    fn poll(&mut self) {
        self.io.stats.enters += 1;
        let entered = self.io.ring.poll();
        self.io.after_enter(entered);
    }

    /// Looks for completions until there are some, the deadline or the end of `time`. Whether the turn
    /// should not sleep, and how long it looked.
    fn spin(&mut self, time: Duration, deadline: Option<Instant>) -> (bool, Duration) {
        let begin = (self.clock)();
        let time = time.min(Duration::from_secs(1));
        loop {
            self.poll();
            let now = (self.clock)();
            let looked = now.saturating_duration_since(begin);
            let due = deadline.is_some_and(|deadline| deadline <= now);
            if due || self.io.ring.has_completions() || self.io.stopping {
                return (true, looked);
            }
            if looked >= time {
                return (false, looked);
            }
        }
    }
}

/// The kernel works off some twenty sockets at an entry, more only if they are asked for: if an entry
/// left fewer completions than this, no socket was waiting for the next one.
const CAUGHT_UP: usize = 16;

/// A single datagram has nothing to wait for its memory at the same time.
const FORESEEN_MIN: usize = 2;

/// With thousands of sockets, most of a datagram's time outside the kernel is waiting for memory. The
/// ways to it of a whole batch are gone at the same time.
fn foresee<D: Driver>(io: &Io, driver: &D, completions: &[cqueue::Entry]) {
    let sockets = || {
        completions.iter().filter_map(|entry| match unpack(entry.user_data()) {
            Some((Kind::Recv | Kind::RecvFrom, index, _)) => Some(index),
            _ => None,
        })
    };
    let near = |index: u32| {
        if let Some(place) = io.sockets.place(index) {
            prefetch(place, HOT_BYTES);
        }
    };
    sockets().for_each(near);
    for step in [Foresight::Own, Foresight::Next, Foresight::Last] {
        for token in sockets().filter_map(|index| io.sockets.token(index)) {
            if let Some(target) = driver.foresee(token, step) {
                near(target.index);
            }
        }
    }
}

fn dispatch<D: Driver>(io: &mut Io, now: Instant, driver: &mut D, entry: &cqueue::Entry) {
    let Some((kind, index, generation)) = unpack(entry.user_data()) else { return };
    let (result, flags) = (entry.result(), entry.flags());
    match kind {
        Kind::Recv | Kind::RecvFrom => {
            io.on_receive(now, driver, &Received { kind, index, generation, result, flags });
        }
        Kind::Send => {
            if result < 0 {
                io.stats.count_send_error(-result);
                driver.on_send_error(now, SocketId { index, generation }, -result);
            }
        }
        // The receive had ended by itself: its own completion says the rest.
        Kind::Cancel => {}
        Kind::Timer => io.timer.on_end(),
        Kind::Doorbell => {
            io.doorbell_armed = false;
            io.stats.doorbells += 1;
            io.stopping |= io.doorbell.answer();
            driver.on_doorbell(now, io);
            io.arm_doorbell();
        }
    }
}
