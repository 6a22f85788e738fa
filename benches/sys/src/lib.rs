//! The floor of the relay benches: what forwarding costs with nothing but the forwarding.
//!
//! Sockets come in couples (0 with 1, 2 with 3 …); what one receives the other sends, byte for byte.
//! One io_uring: multishot receive into provided buffers, registered files, the buffer that was
//! received is the buffer that is sent, successful sends do not complete. No header is read, nothing
//! is counted per packet but the packets themselves. It is written apart from the edge's own ring
//! code on purpose, so that a weakness there does not lower the floor with it.

pub mod packet;

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

const BUFFERS: u16 = 4096;
const BUFFER_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
const GROUP: u16 = 0;
/// The kernel's own thread sleeps after so long without work.
const KERNEL_THREAD_IDLE_MS: u32 = 1;
/// Of an RTP header (RFC 3550 §5.1).
const SSRC_AT: usize = 8;
/// Marks completions of failed sends.
const SEND: u64 = 1 << 63;

/// Page-aligned zeroed memory that is never given back: the kernel may write to it until the
/// process ends.
fn pages(bytes: usize) -> *mut u8 {
    let layout = match Layout::from_size_align(bytes, PAGE_BYTES) {
        Ok(layout) if bytes > 0 => layout,
        _ => handle_alloc_error(Layout::new::<u8>()),
    };
    // SAFETY: the size is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start
}

struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let entries = pages(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        let memory = pages(usize::from(BUFFERS) * BUFFER_BYTES);
        Self { entries, memory, tail: 0 }
    }

    fn at(&self, id: u16) -> *mut u8 {
        assert!(id < BUFFERS, "the kernel names buffers that it was lent");
        // SAFETY: inside the allocation, as `id` is below the number of buffers.
        unsafe { self.memory.add(usize::from(id) * BUFFER_BYTES) }
    }

    fn lend(&mut self, id: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        let address = self.at(id) as u64;
        // SAFETY: `place` is below the number of entries.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY: beyond the tail, so that the kernel does not read it; zeroed memory is valid.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn show(&self) {
        // SAFETY: the first entry of the ring; zeroed memory is a valid entry.
        let tail = unsafe { BufRingEntry::tail(self.entries) }.cast_mut();
        // SAFETY: an aligned u16 in the ring, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// What the floor saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct FloorCounts {
    /// Datagrams received.
    pub received: u64,
    /// Sends that failed.
    pub send_failed: u64,
    /// Receives that were armed again, for want of buffers for example.
    pub armed_again: u64,
}

/// How the floor sends and enters the kernel: what could be done otherwise, to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Sends copy; one system call a batch.
    #[default]
    Plain,
    /// Sends that do not copy: the kernel tells when a buffer is free again.
    ZeroCopy,
    /// A thread of the kernel takes submissions without a system call.
    KernelThread,
    /// The last socket receives for all others, which only send. Whose datagram it is, its SSRC says:
    /// the number of the socket that would have received it. No relay can do that, as callers choose
    /// their SSRC; it shows what a socket for each leg costs.
    OneReceives,
}

struct Floor {
    ring: IoUring,
    way: Way,
    buffers: Buffers,
    /// Buffers of queued sends: lent again after the submit, which copies.
    used: Vec<u16>,
    sockets: Vec<UdpSocket>,
    counts: FloorCounts,
}

impl Floor {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: a receive points to nothing but the buffer group, which is never freed; a
            // send points to a provided buffer, which is lent again only after the submit.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit(0)?;
        }
    }

    /// After a submit the kernel has copied all sends; its own thread may have some before it.
    fn submit(&mut self, wait_for: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wait_for) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.way != Way::KernelThread || self.ring.submission().is_empty() {
            for id in self.used.drain(..) {
                self.buffers.lend(id);
            }
            self.buffers.show();
        }
        Ok(())
    }

    fn send(&mut self, socket: u32, id: u16, length: u32, data: u64) -> io::Result<()> {
        let (to, start) = (Fixed(socket), self.buffers.at(id));
        if self.way == Way::ZeroCopy {
            let send = opcode::SendZc::new(to, start, length).flags(libc::MSG_DONTWAIT);
            // The notice that the buffer is free names it.
            return self.push(&send.build().user_data(SEND | u64::from(id)));
        }
        let send = opcode::Send::new(to, start, length).flags(libc::MSG_DONTWAIT).build();
        self.push(&send.flags(squeue::Flags::SKIP_SUCCESS).user_data(SEND | data))?;
        self.used.push(id);
        Ok(())
    }

    fn ssrc(&self, id: u16) -> u32 {
        // SAFETY: inside the buffer, which is initialised and not lent at present.
        u32::from_be(unsafe { self.buffers.at(id).add(SSRC_AT).cast::<u32>().read_unaligned() })
    }

    fn arm(&mut self, socket: u32) -> io::Result<()> {
        let entry =
            opcode::RecvMulti::new(Fixed(socket), GROUP).build().user_data(u64::from(socket));
        self.push(&entry)
    }

    fn on_completion(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (data, result) = (completion.user_data(), completion.result());
        if data & SEND != 0 {
            self.counts.send_failed += u64::from(result < 0);
            if self.way == Way::ZeroCopy && !cqueue::more(completion.flags()) {
                self.used.push(data as u16);
            }
            return Ok(());
        }
        let socket = data as u32;
        if let (Ok(length), Some(id)) =
            (u32::try_from(result), cqueue::buffer_select(completion.flags()))
        {
            self.counts.received += 1;
            let from = if self.way == Way::OneReceives { self.ssrc(id) } else { socket };
            self.send(from ^ 1, id, length, data)?;
        }
        if !cqueue::more(completion.flags()) {
            self.counts.armed_again += 1;
            self.arm(socket)?;
        }
        Ok(())
    }
}

/// Forwards between couples of connected sockets until `stop` says so, which is asked after every
/// batch of completions.
///
/// # Errors
/// When the kernel has no io_uring with multishot receive, or of `io_uring_enter(2)`.
pub fn forward(
    sockets: Vec<UdpSocket>,
    way: Way,
    mut stop: impl FnMut(&FloorCounts) -> bool,
) -> io::Result<FloorCounts> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_cqsize(16_384);
    match way {
        Way::Plain | Way::ZeroCopy | Way::OneReceives => builder.setup_defer_taskrun(),
        Way::KernelThread => builder.setup_sqpoll(KERNEL_THREAD_IDLE_MS),
    };
    let ring = builder.build(512)?;
    let mut buffers = Buffers::new();
    for id in 0..BUFFERS {
        buffers.lend(id);
    }
    buffers.show();
    let files: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    ring.submitter().register_files(&files)?;
    // SAFETY: page-aligned memory of that many entries, never freed.
    unsafe {
        ring.submitter().register_buf_ring_with_flags(buffers.entries as u64, BUFFERS, GROUP, 0)
    }?;
    let used = Vec::with_capacity(usize::from(BUFFERS));
    let mut floor = Floor { ring, way, buffers, used, sockets, counts: FloorCounts::default() };
    let all = floor.sockets.len() as u32;
    let first = if way == Way::OneReceives { all.saturating_sub(1) } else { 0 };
    for socket in first..all {
        floor.arm(socket)?;
    }
    let mut batch = Vec::with_capacity(64);
    loop {
        // One system call a batch: it sends, and takes in what has come meanwhile.
        floor.submit(1)?;
        loop {
            batch.extend(floor.ring.completion().take(64));
            if batch.is_empty() {
                break;
            }
            for completion in &batch {
                floor.on_completion(completion)?;
            }
            batch.clear();
        }
        if stop(&floor.counts) {
            return Ok(floor.counts);
        }
    }
}
