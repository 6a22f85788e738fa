//! The end of a turn for sockets whose receive has ended: change the peer, read what was queued
//! before the change, arm again, or give the slot back.
//!
//! ```text
//!  recvmsg, any source ──connect()──▶ connected, cancelled ──ended──▶ drain with source ──▶ recv
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::time::Instant;

use socket2::SockRef;

use crate::io::Io;
use crate::recv::Arrival;
use crate::socket;
use crate::table::{Next, SocketId};
use crate::turn::Driver;

/// Datagrams read by system call in one go, so that one socket cannot hold up a turn.
const DRAIN_BATCH_MAX: u32 = 32;

impl Io {
    pub(crate) fn settle<D: Driver>(&mut self, now: Instant, driver: &mut D) {
        // Receives that starved need buffers, which come back with a submit.
        let scarce = self.waiting.len() * 2 > usize::from(self.rx.count());
        if (self.starved || scarce) && self.flush() {
            self.starved = false;
        }
        if !self.doorbell_armed {
            self.arm_doorbell();
        }
        // The driver may list more slots meanwhile: those are for the next turn.
        let listed = self.unsettled.len();
        for place in 0..listed {
            let Some(index) = self.unsettled.get(place).copied() else { break };
            if let Some(slot) = self.sockets.slot(index) {
                slot.listed = false;
            }
            self.settle_one(now, driver, index);
        }
        self.unsettled.drain(..listed);
    }

    /// True if a slot waits for the next turn, which must then come without sleeping.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    fn settle_one<D: Driver>(&mut self, now: Instant, driver: &mut D, index: u32) {
        let Some(slot) = self.sockets.slot(index) else { return };
        if slot.armed {
            if slot.next != Next::Keep || slot.drain_datagrams_max > 0 {
                self.retry_cancel(index);
            }
            return;
        }
        match slot.next {
            Next::Close => return self.close(now, driver, index),
            Next::Peer(peer) => {
                slot.next = Next::Keep;
                let id = SocketId { index, generation: slot.generation };
                let Some(udp) = &slot.udp else { return };
                let changed = match peer {
                    Some(address) => udp.connect(address),
                    None => socket::disconnect(udp),
                };
                // Even when it failed the socket is read with sources once.
                slot.drain_datagrams_max = socket::queued_datagrams_max(udp);
                match changed {
                    Ok(()) => slot.peer = peer,
                    Err(error) => driver.on_connect_error(now, id, &error),
                }
            }
            Next::Keep => {}
        }
        if !self.drain(now, driver, index) || !self.arm_if_idle(index) {
            self.list(index);
        }
    }

    fn arm_if_idle(&mut self, index: u32) -> bool {
        match self.sockets.slot(index) {
            // The driver may have removed or reconnected it while it was drained.
            Some(slot) if slot.next == Next::Keep => self.arm(index),
            Some(_) => false,
            None => true,
        }
    }

    /// Reads queued datagrams with their sources. True when all that may be old were read.
    fn drain<D: Driver>(&mut self, now: Instant, driver: &mut D, index: u32) -> bool {
        for _ in 0..DRAIN_BATCH_MAX {
            let Some(slot) = self.sockets.slot(index) else { return true };
            if slot.drain_datagrams_max == 0 || slot.next == Next::Close {
                return true;
            }
            // The buffer still holds the last datagram if that is to be sent.
            if self.drain_referenced && !self.flush() {
                return false;
            }
            let capacity = self.rx.buffer_bytes();
            let start = self.drain.at(0);
            let Some(slot) = self.sockets.slot(index) else { return true };
            let id = SocketId { index, generation: slot.generation };
            let token = slot.token;
            let Some(udp) = &slot.udp else { return true };
            // SAFETY: the drain buffer is that long and initialised, nobody else uses it as no
            // queued send points to it; `MaybeUninit<u8>` has the layout of `u8`.
            let buffer = unsafe {
                std::slice::from_raw_parts_mut(start.cast::<MaybeUninit<u8>>(), capacity)
            };
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            match SockRef::from(udp).recv_from_with_flags(buffer, flags) {
                Ok((length, source)) => {
                    slot.drain_datagrams_max -= 1;
                    if length > capacity {
                        self.stats.datagrams_truncated += 1;
                        continue;
                    }
                    self.stats.datagrams_drained += 1;
                    let source = source.as_socket();
                    // SAFETY: as above; before the buffer is used again `drain_referenced` is
                    // cleared by a submit.
                    self.drain_referenced = unsafe {
                        self.present(
                            now,
                            driver,
                            Arrival { socket: id, token, source, start, length, capacity },
                        )
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.drain_datagrams_max = 0;
                    return true;
                }
                Err(error) => {
                    slot.drain_datagrams_max -= 1;
                    self.stats.count_receive_end(error.raw_os_error().unwrap_or(0));
                }
            }
        }
        self.sockets.slot(index).is_none_or(|slot| slot.drain_datagrams_max == 0)
    }

    fn close<D: Driver>(&mut self, now: Instant, driver: &mut D, index: u32) {
        // Queued sends name the file by its slot: they must be out before the slot changes.
        if self.ring.queued() > 0 && !self.flush() {
            return self.list(index);
        }
        if self.ring.set_file(index, -1).is_err() {
            return self.list(index);
        }
        let Some((id, udp)) = self.sockets.release(index) else { return };
        self.stats.sockets_removed += 1;
        self.stats.socket_drops += u64::from(socket::drops(&udp).unwrap_or(0));
        driver.on_removed(now, id, udp, self);
    }
}
