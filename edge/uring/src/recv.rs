//! Receiving: arming multishot receives and reading their completions.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Instant;

use io_uring::{cqueue, opcode, types};

use crate::io::Io;
use crate::limits::{RECVMSG_NAME_BYTES, RECVMSG_PREFIX_BYTES};
use crate::ring::BUFFER_GROUP;
use crate::send::Current;
use crate::table::{Next, SocketId};
use crate::turn::{Datagram, Driver};
use crate::user_data::{Kind, pack};

/// A completed receive: what it was, whose it is, what the kernel says.
pub(crate) struct Received {
    pub kind: Kind,
    pub index: u32,
    pub generation: u32,
    pub result: i32,
    pub flags: u32,
}

/// A datagram in memory, on its way to the driver. `length` is at most `capacity`.
pub(crate) struct Arrival {
    pub socket: SocketId,
    pub token: u64,
    pub source: Option<SocketAddr>,
    pub start: *mut u8,
    pub length: usize,
    pub capacity: usize,
}

/// Payload of a buffer: where it starts, its length, and its source if the kernel wrote one.
struct Payload {
    offset: usize,
    length: usize,
    source: Option<SocketAddr>,
}

impl Io {
    /// Hands the datagram to the driver, gives the buffer back, notes the end of a receive.
    pub(crate) fn on_receive<D: Driver>(&mut self, now: Instant, driver: &mut D, done: &Received) {
        if let Some(buffer) = cqueue::buffer_select(done.flags)
            && let Some(start) = self.rx.take(buffer)
        {
            let referenced =
                done.result >= 0 && self.deliver(now, driver, done, start, done.result as usize);
            if referenced {
                self.waiting.push(buffer);
            } else {
                self.rx.publish(buffer);
            }
        }
        if !cqueue::more(done.flags) {
            self.on_receive_end(done);
        }
    }

    /// True if a queued send still points to the buffer.
    fn deliver<D: Driver>(
        &mut self,
        now: Instant,
        driver: &mut D,
        done: &Received,
        start: *mut u8,
        written: usize,
    ) -> bool {
        let capacity = self.rx.buffer_bytes();
        let Some(slot) = self.sockets.at(done.index, done.generation) else {
            self.stats.datagrams_after_remove += 1;
            return false;
        };
        if slot.next == Next::Close {
            self.stats.datagrams_after_remove += 1;
            return false;
        }
        let token = slot.token;
        // While a change of peer is under way, what comes is from the old one.
        let old_peer = if matches!(slot.next, Next::Peer(_)) { slot.peer } else { None };
        let payload = if done.kind == Kind::RecvFrom {
            // SAFETY: the kernel wrote `written` bytes, at most the buffer's size, and the buffer
            // is ours; this view ends before the driver gets its own.
            let bytes = unsafe { std::slice::from_raw_parts(start, written.min(capacity)) };
            parse_recvmsg(bytes)
        } else if written < capacity {
            Some(Payload { offset: 0, length: written, source: old_peer })
        } else {
            None
        };
        let Some(payload) = payload else {
            self.stats.datagrams_truncated += 1;
            return false;
        };
        let arrival = Arrival {
            socket: SocketId { index: done.index, generation: done.generation },
            token,
            source: payload.source,
            // SAFETY: the offset is inside the buffer.
            start: unsafe { start.add(payload.offset) },
            length: payload.length,
            capacity: capacity - payload.offset,
        };
        // SAFETY: the bytes up to the buffer's end are ours until this returns or, if referenced,
        // until the next submit.
        unsafe { self.present(now, driver, arrival) }
    }

    /// Shows a datagram to the driver. True if a queued send points to it afterwards.
    ///
    /// # Safety
    /// The arrival's `capacity` bytes at `start` must be initialised, used by nobody else, and
    /// stay so until the next submit if this returns true.
    pub(crate) unsafe fn present<D: Driver>(
        &mut self,
        now: Instant,
        driver: &mut D,
        arrival: Arrival,
    ) -> bool {
        let Arrival { socket, token, source, start, length, capacity } = arrival;
        self.stats.datagrams += 1;
        self.current = Some(Current { start, bytes: capacity, referenced: false });
        // SAFETY: exclusive and initialised by our contract. `Io` keeps only the raw address and
        // makes no reference from it; the kernel reads it at submit.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, capacity) };
        let (data, room) = bytes.split_at_mut(length);
        driver.on_datagram(now, Datagram { socket, token, source, data, room }, self);
        self.current.take().is_some_and(|current| current.referenced)
    }

    fn on_receive_end(&mut self, done: &Received) {
        let Some(slot) = self.sockets.at(done.index, done.generation) else { return };
        slot.armed = false;
        slot.cancelling = false;
        if done.result < 0 {
            self.stats.count_receive_end(-done.result);
            self.starved |= done.result == -libc::ENOBUFS;
        } else {
            self.stats.receive_ended += 1;
        }
        self.list(done.index);
    }

    /// Arms the receive that fits the socket's state. False if the ring takes nothing now.
    pub(crate) fn arm(&mut self, index: u32) -> bool {
        let Some(slot) = self.sockets.slot(index) else { return true };
        let file = types::Fixed(index);
        let generation = slot.generation;
        let with_source = slot.peer.is_none();
        let entry = if with_source {
            opcode::RecvMsgMulti::new(file, &raw const *self.recvmsg_header, BUFFER_GROUP)
                .build()
                .user_data(pack(Kind::RecvFrom, index, generation))
        } else {
            opcode::RecvMulti::new(file, BUFFER_GROUP).build().user_data(pack(
                Kind::Recv,
                index,
                generation,
            ))
        };
        // SAFETY: the message header is boxed and lives as long as `Io`; buffers come from the
        // registered ring, which outlives every receive.
        if !unsafe { self.push(&entry) } {
            return false;
        }
        if let Some(slot) = self.sockets.slot(index) {
            slot.armed = true;
            slot.receives_source = with_source;
        }
        true
    }
}

/// Reads what multishot `recvmsg` puts in front of the payload: `io_uring_recvmsg_out` (name
/// length, control length, payload length, flags), then the name. `None` if truncated or broken.
fn parse_recvmsg(bytes: &[u8]) -> Option<Payload> {
    let word = |at: usize| -> Option<u32> {
        bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    };
    let (name_bytes, payload_bytes, flags) = (word(0)?, word(8)?, word(12)?);
    if flags & libc::MSG_TRUNC as u32 != 0 || name_bytes as usize > RECVMSG_NAME_BYTES {
        return None;
    }
    let name = bytes.get(16..16 + name_bytes as usize)?;
    let length = payload_bytes as usize;
    if RECVMSG_PREFIX_BYTES.checked_add(length)? > bytes.len() {
        return None;
    }
    Some(Payload { offset: RECVMSG_PREFIX_BYTES, length, source: Some(parse_name(name)?) })
}

fn parse_name(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(0..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port)))
        }
        libc::AF_INET6 => {
            let flow = u32::from_ne_bytes(name.get(4..8)?.try_into().ok()?);
            let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &[u8], payload: &[u8], flags: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, 0, payload.len() as u32, flags] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(name);
        bytes.resize(RECVMSG_PREFIX_BYTES, 0);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn name_v4() -> Vec<u8> {
        let mut name = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        name.extend_from_slice(&[0x13, 0x88, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        name
    }

    #[test]
    fn source_and_payload_are_read() {
        let payload = parse_recvmsg(&message(&name_v4(), b"abc", 0)).expect("whole");
        assert_eq!(payload.source, Some("192.0.2.7:5000".parse().expect("address")));
        assert_eq!((payload.offset, payload.length), (RECVMSG_PREFIX_BYTES, 3));
    }

    #[test]
    fn truncated_and_broken_headers_are_refused() {
        let whole = message(&name_v4(), b"abc", 0);
        for length in 0..whole.len() {
            assert!(parse_recvmsg(&whole[..length]).is_none(), "{length}");
        }
        assert!(parse_recvmsg(&message(&name_v4(), b"abc", libc::MSG_TRUNC as u32)).is_none());
        assert!(parse_recvmsg(&message(&[9; 16], b"abc", 0)).is_none());
        assert!(parse_recvmsg(&message(&[], b"abc", 0)).is_none());
    }
}
