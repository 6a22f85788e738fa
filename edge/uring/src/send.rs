//! Sending: the received buffer in place, or bytes written to a transmit slot.
//!
//! Every send is non-blocking and copied by the kernel at submit, so slots and buffers are free
//! again after each submit. Transmit slots and addresses are therefore handed out in order and
//! all taken back at once.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;

use io_uring::{opcode, squeue, types};

use crate::io::Io;
use crate::pages::Pages;
use crate::table::SocketId;
use crate::user_data::{Kind, pack};

/// The datagram that the driver is looking at.
pub(crate) struct Current {
    pub start: *mut u8,
    /// Bytes that a forward may send, the datagram and the room behind it.
    pub bytes: usize,
    /// A queued send points to it.
    pub referenced: bool,
}

/// A socket address in the kernel's form.
#[repr(C)]
#[derive(Clone, Copy)]
union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Transmit slots and destination addresses, one of each per submission entry.
pub(crate) struct TxSlots {
    slots: Pages,
    slot_bytes: usize,
    slots_max: usize,
    slots_used: usize,
    addresses: Box<[RawAddress]>,
    addresses_used: usize,
}

impl TxSlots {
    pub(crate) fn new(count: u32, slot_bytes: u32) -> Self {
        let zero = RawAddress { v6: raw_v6(&SocketAddrV6::new([0; 16].into(), 0, 0, 0)) };
        TxSlots {
            slots: Pages::new(count as usize * slot_bytes as usize),
            slot_bytes: slot_bytes as usize,
            slots_max: count as usize,
            slots_used: 0,
            addresses: vec![zero; count as usize].into_boxed_slice(),
            addresses_used: 0,
        }
    }

    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slots_used >= self.slots_max || self.addresses_used >= self.addresses.len()
    }

    /// The next slot, valid until `reset`.
    pub(crate) fn take_slot(&mut self) -> Option<*mut u8> {
        if self.slots_used >= self.slots_max {
            return None;
        }
        let start = self.slots.at(self.slots_used * self.slot_bytes);
        self.slots_used += 1;
        Some(start)
    }

    fn take_address(
        &mut self,
        address: SocketAddr,
    ) -> Option<(*const libc::sockaddr, libc::socklen_t)> {
        let place = self.addresses.get_mut(self.addresses_used)?;
        self.addresses_used += 1;
        let length = match address {
            SocketAddr::V4(v4) => {
                place.v4 = raw_v4(&v4);
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                place.v6 = raw_v6(&v6);
                size_of::<libc::sockaddr_in6>()
            }
        };
        Some(((&raw const *place).cast(), length as libc::socklen_t))
    }

    /// Everything was submitted: all slots are free again.
    pub(crate) fn reset(&mut self) {
        self.slots_used = 0;
        self.addresses_used = 0;
    }
}

impl Io {
    /// Sends a range of the received buffer on a connected socket, in place. The range may reach
    /// into `Datagram::room`. May be called several times for one datagram: all of them send the
    /// bytes as they are when the driver returns. False: not queued, and counted.
    pub fn forward(&mut self, socket: SocketId, range: Range<usize>) -> bool {
        self.forward_to(socket, None, range)
    }

    /// As [`Io::forward`], to an address when the socket is not connected.
    pub fn forward_to(
        &mut self,
        socket: SocketId,
        destination: Option<SocketAddr>,
        range: Range<usize>,
    ) -> bool {
        let Some(current) = &self.current else { return self.refuse() };
        if range.start > range.end || range.end > current.bytes {
            return self.refuse();
        }
        // SAFETY: the range was just checked to lie inside the buffer.
        let start = unsafe { current.start.add(range.start) };
        if !self.make_room() {
            return false;
        }
        // SAFETY: the buffer is lent again only after the submit that follows this entry, because
        // `referenced` is set below.
        let queued = unsafe { self.queue_send(socket, destination, start, range.len()) };
        if queued && let Some(current) = &mut self.current {
            current.referenced = true;
        }
        queued
    }

    /// Copies `bytes` to a transmit slot and sends them. False: not queued, and counted.
    pub fn send_copy(
        &mut self,
        socket: SocketId,
        destination: Option<SocketAddr>,
        bytes: &[u8],
    ) -> bool {
        self.send_with(socket, destination, |slot| {
            let Some(part) = slot.get_mut(..bytes.len()) else { return 0 };
            part.copy_from_slice(bytes);
            bytes.len()
        })
    }

    /// Sends what `write` puts into a transmit slot; it returns the length. Zero or more than the
    /// slot sends nothing. False: not queued, and counted.
    pub fn send_with(
        &mut self,
        socket: SocketId,
        destination: Option<SocketAddr>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        if !self.sockets.is_live(socket) {
            return self.refuse();
        }
        if !self.make_room() {
            return false;
        }
        let slot_bytes = self.tx.slot_bytes();
        let Some(start) = self.tx.take_slot() else { return self.drop_for_ring() };
        // SAFETY: a slot is `slot_bytes` long, was zeroed at start, and is handed out only once
        // between two submits; the slice ends before the entry is queued.
        let slot = unsafe { std::slice::from_raw_parts_mut(start, slot_bytes) };
        let length = write(slot);
        if length == 0 || length > slot_bytes {
            return self.refuse();
        }
        // SAFETY: the slot stays as it is until the next submit resets all slots.
        unsafe { self.queue_send(socket, destination, start, length) }
    }

    /// After this, one entry, one slot and one address are free.
    pub(crate) fn make_room(&mut self) -> bool {
        if !self.ring.is_full() && !self.tx.is_full() {
            return true;
        }
        self.flush() || self.drop_for_ring()
    }

    /// # Safety
    /// `length` bytes at `start` must stay valid and unchanged until the next submit.
    unsafe fn queue_send(
        &mut self,
        socket: SocketId,
        destination: Option<SocketAddr>,
        start: *const u8,
        length: usize,
    ) -> bool {
        let connected = match self.sockets.live(socket) {
            Some(slot) => slot.peer.is_some(),
            None => return self.refuse(),
        };
        let Ok(length) = u32::try_from(length) else { return self.refuse() };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let mut send = opcode::Send::new(types::Fixed(socket.index), start, length).flags(flags);
        match (connected, destination) {
            (false, None) => return self.refuse(),
            (_, Some(address)) => {
                let Some((pointer, size)) = self.tx.take_address(address) else {
                    return self.drop_for_ring();
                };
                send = send.dest_addr(pointer).dest_addr_len(size);
            }
            (true, None) => {}
        }
        let entry = send.build().flags(squeue::Flags::SKIP_SUCCESS).user_data(pack(
            Kind::Send,
            socket.index,
            socket.generation,
        ));
        // SAFETY: the bytes are valid until the submit by our contract; the address lies in a slot
        // that is reused only after it.
        if !unsafe { self.ring.push(&entry) } {
            return self.drop_for_ring();
        }
        self.stats.sends += 1;
        true
    }

    fn refuse(&mut self) -> bool {
        self.stats.sends_refused += 1;
        false
    }

    fn drop_for_ring(&mut self) -> bool {
        self.stats.sends_dropped_ring += 1;
        false
    }
}

fn raw_v4(address: &SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn raw_v6(address: &SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
        sin6_scope_id: address.scope_id(),
    }
}
