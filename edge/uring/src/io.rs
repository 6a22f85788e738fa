//! What a driver may ask for: add, connect and remove sockets, send, stop.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};

use crate::buf_ring::BufRing;
use crate::doorbell::Doorbell;
use crate::limits::Limits;
use crate::pages::Pages;
use crate::ring::{Entered, Ring, RingFlags};
use crate::send::{Current, TxSlots};
use crate::socket;
use crate::stats::Stats;
use crate::table::{Next, SocketId, SocketTable};
use crate::timer::Timer;
use crate::user_data::{Kind, pack, unpack};

/// The ring, buffers and sockets of one media thread, as the driver sees them.
pub struct Io {
    pub(crate) ring: Ring,
    pub(crate) rx: BufRing,
    pub(crate) tx: TxSlots,
    /// Where datagrams are read by system call while a socket changes its peer.
    pub(crate) drain: Pages,
    /// Queued sends point into `drain`.
    pub(crate) drain_referenced: bool,
    pub(crate) sockets: SocketTable,
    /// Slots to settle at the end of the turn: arm, drain or close.
    pub(crate) unsettled: Vec<u32>,
    /// Receive buffers that queued sends refer to; lent again after the next submit.
    pub(crate) waiting: Vec<u16>,
    /// The datagram being handled.
    pub(crate) current: Option<Current>,
    /// Tells the kernel how much room a source address has.
    pub(crate) recvmsg_header: Box<libc::msghdr>,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) doorbell_count: Box<u64>,
    pub(crate) doorbell_armed: bool,
    pub(crate) timer: Timer,
    /// A receive of this turn ended for want of buffers.
    pub(crate) starved: bool,
    pub(crate) stopping: bool,
    /// The last entry into the kernel took in what had come, and did not only send.
    pub(crate) took_in: bool,
    /// When a turn last began with few enough completions to know that no more were waiting.
    pub(crate) caught_up: Instant,
    pub(crate) stats: Stats,
    pub(crate) limits: Limits,
    pub(crate) fatal: Option<io::Error>,
}

impl Io {
    /// Must be called on the thread that will run the loop.
    pub(crate) fn new(
        limits: Limits,
        doorbell: Arc<Doorbell>,
        clock: fn() -> Instant,
    ) -> io::Result<Self> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        limits.validate().map_err(invalid)?;
        let mut ring = Ring::new(&limits, clock)?;
        let mut rx = BufRing::new(limits.rx_buffers, limits.rx_buffer_bytes);
        // One more file than sockets: the doorbell.
        // SAFETY: `Io` owns both; its `drop` ends all receives before the buffers go, or leaks
        // them.
        unsafe { ring.register(limits.sockets_max + 1, &rx) }?;
        ring.set_file(limits.sockets_max, doorbell.raw())?;
        rx.publish_all();
        let mut io = Io {
            ring,
            rx,
            tx: TxSlots::new(limits.submission_entries, limits.tx_slot_bytes),
            drain: Pages::new(limits.rx_buffer_bytes as usize),
            drain_referenced: false,
            sockets: SocketTable::new(limits.sockets_max),
            unsettled: Vec::with_capacity(limits.sockets_max as usize),
            waiting: Vec::with_capacity(usize::from(limits.rx_buffers)),
            current: None,
            recvmsg_header: Box::new(recvmsg_header()),
            doorbell,
            doorbell_count: Box::new(0),
            doorbell_armed: false,
            timer: Timer::default(),
            starved: false,
            stopping: false,
            took_in: true,
            caught_up: clock(),
            stats: Stats::default(),
            limits,
            fatal: None,
        };
        io.arm_doorbell();
        Ok(io)
    }

    /// Counters since start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// For how long, at `now`, more has been waiting than one turn hands over: whatever arrived since
    /// then may not have been seen yet. Zero in a turn that has all of it.
    pub fn behind(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.caught_up)
    }

    /// Sockets that are open now.
    pub fn sockets_open(&self) -> u32 {
        self.sockets.open()
    }

    /// What the kernel granted at set-up.
    pub fn ring_flags(&self) -> RingFlags {
        self.ring.flags()
    }

    /// Ends the loop after this turn.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Starts receiving on a bound socket, with sources. The token comes with every datagram.
    /// Two system calls; not for the packet path.
    ///
    /// # Errors
    /// The socket comes back when all slots are taken or the kernel refuses it.
    pub fn add_socket(&mut self, udp: UdpSocket, token: u64) -> Result<SocketId, UdpSocket> {
        // A non-blocking socket would end the waiting receive instead of letting it wait.
        if udp.set_nonblocking(false).is_err() {
            return Err(udp);
        }
        let fd = udp.as_raw_fd();
        let id = self.sockets.insert(udp, token)?;
        if self.ring.set_file(id.index, fd).is_err() {
            return match self.sockets.release(id.index) {
                Some((_, udp)) => Err(udp),
                None => unreachable!("the slot was just filled"),
            };
        }
        self.stats.sockets_added += 1;
        self.list(id.index);
        Ok(id)
    }

    /// Ties the socket to its peer: the kernel then drops foreign datagrams and finds routes once.
    ///
    /// A socket that had no peer is connected at once. Datagrams that were queued before are still
    /// delivered, each with its source; later ones carry none. On a socket that has a peer, the
    /// change takes place within a turn, when its running receive has ended; until then datagrams
    /// carry the old peer as their source. `None` opens the socket to any source again.
    ///
    /// # Errors
    /// Of `connect(2)`, or `NotFound` for a stale id. Failures of a deferred change are reported
    /// by `Driver::on_connect_error`.
    pub fn connect(&mut self, socket: SocketId, peer: Option<SocketAddr>) -> io::Result<()> {
        let slot = self.sockets.live(socket).ok_or(io::ErrorKind::NotFound)?;
        let Some(udp) = &slot.udp else { return Err(io::ErrorKind::NotFound.into()) };
        match (slot.peer, peer) {
            (None, None) => return Ok(()),
            (None, Some(address)) => {
                // The bound counts what is queued now; asked for after connecting, so that
                // everything that can be foreign is inside it.
                udp.connect(address)?;
                slot.drain_datagrams_max = socket::queued_datagrams_max(udp);
                slot.peer = peer;
                slot.next = Next::Keep;
            }
            (Some(_), _) => slot.next = Next::Peer(peer),
        }
        self.end_receive(socket.index);
        Ok(())
    }

    /// Stops receiving; the driver gets the socket back by `on_removed` when the kernel has let go
    /// of it, within a turn or two. False for a stale id.
    pub fn remove(&mut self, socket: SocketId) -> bool {
        let Some(slot) = self.sockets.live(socket) else { return false };
        slot.next = Next::Close;
        self.end_receive(socket.index);
        true
    }

    /// Datagrams that the kernel dropped because the socket's buffer was full (SO_MEMINFO).
    ///
    /// # Errors
    /// `NotFound` for a stale id.
    pub fn socket_drops(&mut self, socket: SocketId) -> io::Result<u32> {
        let slot = self.sockets.live(socket).ok_or(io::ErrorKind::NotFound)?;
        slot.udp.as_ref().ok_or(io::ErrorKind::NotFound.into()).and_then(socket::drops)
    }

    /// The address a socket is bound to.
    ///
    /// # Errors
    /// `NotFound` for a stale id.
    pub fn local_addr(&mut self, socket: SocketId) -> io::Result<SocketAddr> {
        let slot = self.sockets.live(socket).ok_or(io::ErrorKind::NotFound)?;
        slot.udp.as_ref().ok_or(io::ErrorKind::NotFound.into()).and_then(UdpSocket::local_addr)
    }

    /// Cancels the running receive, or lists the slot when there is none.
    fn end_receive(&mut self, index: u32) {
        let Some(slot) = self.sockets.slot(index) else { return };
        if !slot.armed {
            self.list(index);
            return;
        }
        if slot.cancelling {
            return;
        }
        let kind = if slot.receives_source { Kind::RecvFrom } else { Kind::Recv };
        let target = pack(kind, index, slot.generation);
        let own = pack(Kind::Cancel, index, slot.generation);
        slot.cancelling = true;
        let entry = opcode::AsyncCancel::new(target)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(own);
        // SAFETY: a cancel points to nothing.
        if !unsafe { self.push(&entry) } {
            if let Some(slot) = self.sockets.slot(index) {
                slot.cancelling = false;
            }
            // Tried again at the end of the turn.
            self.list(index);
        }
    }

    /// Notes a slot for the end of the turn.
    pub(crate) fn list(&mut self, index: u32) {
        if let Some(slot) = self.sockets.slot(index)
            && !slot.listed
        {
            slot.listed = true;
            self.unsettled.push(index);
        }
    }

    pub(crate) fn retry_cancel(&mut self, index: u32) {
        self.end_receive(index);
    }

    pub(crate) fn arm_doorbell(&mut self) {
        let file = types::Fixed(self.limits.sockets_max);
        let count: *mut u64 = &raw mut *self.doorbell_count;
        let entry =
            opcode::Read::new(file, count.cast(), 8).build().user_data(pack(Kind::Doorbell, 0, 0));
        // SAFETY: the count is boxed and lives as long as `Io`, whose drop ends the read or leaks.
        self.doorbell_armed = unsafe { self.push(&entry) };
    }

    /// Queues an entry, submitting first when the queue is full.
    ///
    /// # Safety
    /// As [`Ring::push`].
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        if self.ring.is_full() && !self.flush() {
            return false;
        }
        // SAFETY: passed on to the caller.
        unsafe { self.ring.push(entry) }
    }

    /// Submits without waiting. True when everything was taken: sends have then been copied, and
    /// their buffers are free.
    pub(crate) fn flush(&mut self) -> bool {
        self.stats.enters += 1;
        let entered = self.ring.submit();
        self.after_enter(entered)
    }

    pub(crate) fn after_enter(&mut self, entered: io::Result<Entered>) -> bool {
        match entered {
            Ok(Entered::Done) => {
                self.recycle();
                true
            }
            Ok(Entered::Busy) => {
                self.stats.submit_busy += 1;
                false
            }
            Err(error) => {
                self.fatal = Some(error);
                self.stopping = true;
                false
            }
        }
    }

    fn recycle(&mut self) {
        self.tx.reset();
        self.drain_referenced = false;
        if let Some(current) = &mut self.current {
            current.referenced = false;
        }
        if !self.waiting.is_empty() {
            for id in self.waiting.drain(..) {
                self.rx.write_entry(id);
            }
            self.rx.commit();
        }
    }
}

/// Only the length of the name matters to a multishot receive.
fn recvmsg_header() -> libc::msghdr {
    // SAFETY: all fields are integers or pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = crate::limits::RECVMSG_NAME_BYTES as libc::socklen_t;
    header
}

impl Drop for Io {
    fn drop(&mut self) {
        // The kernel must not write to buffers that are gone: end every receive first.
        let cancelled = self.ring.cancel_all();
        for _ in 0..100 {
            if self.sockets.armed() == 0 {
                break;
            }
            let mut batch = [const { std::mem::MaybeUninit::uninit() }; 64];
            for entry in self.ring.fill(&mut batch) {
                let more = io_uring::cqueue::more(entry.flags());
                if let Some((kind, index, generation)) = unpack(entry.user_data())
                    && matches!(kind, Kind::Recv | Kind::RecvFrom)
                    && !more
                    && let Some(slot) = self.sockets.at(index, generation)
                {
                    slot.armed = false;
                }
            }
            if self.ring.poll().is_err() {
                break;
            }
        }
        self.ring.release_files();
        if !cancelled || self.sockets.armed() > 0 {
            self.rx.leak();
            std::mem::forget(std::mem::take(&mut self.doorbell_count));
        }
    }
}
