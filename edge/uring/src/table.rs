//! The sockets of one media thread: a slab whose index is also the slot in the ring's file table.

use std::net::{SocketAddr, UdpSocket};

use crate::user_data::GENERATION_MASK;

/// Names a socket of one media thread. Stale after removal: a reused slot has a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl SocketId {
    /// Index below `sockets_max`, for tables beside this one.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// What to do when the running receive has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Arm again.
    Keep,
    /// Change the peer first (`None`: any source).
    Peer(Option<SocketAddr>),
    /// Give the slot back.
    Close,
}

/// What every datagram needs lies in the first cache line.
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub generation: u32,
    /// `None`: the slot is free.
    pub udp: Option<UdpSocket>,
    pub token: u64,
    /// The address this socket is connected to.
    pub peer: Option<SocketAddr>,
    pub next: Next,
    /// The running receive is a `recvmsg`.
    pub receives_source: bool,
    /// A multishot receive is with the kernel.
    pub armed: bool,
    /// A cancel of it is with the kernel.
    pub cancelling: bool,
    /// The slot stands in the list of slots to settle at the end of the turn.
    pub listed: bool,
    /// Datagrams that may still lie in the socket from before the peer changed.
    pub drain_datagrams_max: u32,
}

pub(crate) const SLOT_BYTES: usize = std::mem::size_of::<Slot>();
/// Of the part of a slot that every datagram needs.
pub(crate) const HOT_BYTES: usize = 64;
const _: () = assert!(std::mem::offset_of!(Slot, next) + 8 <= HOT_BYTES);

pub(crate) struct SocketTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: u32,
}

impl SocketTable {
    pub(crate) fn new(sockets_max: u32) -> Self {
        let slots = (0..sockets_max)
            .map(|_| Slot {
                udp: None,
                generation: 0,
                token: 0,
                peer: None,
                next: Next::Keep,
                receives_source: false,
                armed: false,
                cancelling: false,
                listed: false,
                drain_datagrams_max: 0,
            })
            .collect();
        SocketTable { slots, free: (0..sockets_max).rev().collect(), open: 0 }
    }

    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    /// Takes a slot, or gives the socket back when there is none.
    pub(crate) fn insert(&mut self, udp: UdpSocket, token: u64) -> Result<SocketId, UdpSocket> {
        let Some(index) = self.free.pop() else { return Err(udp) };
        let Some(slot) = self.slots.get_mut(index as usize) else { return Err(udp) };
        slot.udp = Some(udp);
        slot.token = token;
        slot.peer = None;
        slot.next = Next::Keep;
        slot.armed = false;
        slot.cancelling = false;
        slot.drain_datagrams_max = 0;
        self.open += 1;
        Ok(SocketId { index, generation: slot.generation })
    }

    /// Frees the slot; ids and completions of the old generation are stale from here on.
    pub(crate) fn release(&mut self, index: u32) -> Option<(SocketId, UdpSocket)> {
        let slot = self.slots.get_mut(index as usize)?;
        let udp = slot.udp.take()?;
        let id = SocketId { index, generation: slot.generation };
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(index);
        self.open -= 1;
        Some((id, udp))
    }

    /// The slot of a socket that is open and not being removed.
    pub(crate) fn live(&mut self, id: SocketId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize).filter(|slot| {
            slot.generation == id.generation && slot.udp.is_some() && slot.next != Next::Close
        })
    }

    pub(crate) fn is_live(&self, id: SocketId) -> bool {
        self.slots.get(id.index as usize).is_some_and(|slot| {
            slot.generation == id.generation && slot.udp.is_some() && slot.next != Next::Close
        })
    }

    /// The slot that a completion belongs to, also while it is being removed.
    pub(crate) fn at(&mut self, index: u32, generation: u32) -> Option<&mut Slot> {
        self.slots
            .get_mut(index as usize)
            .filter(|slot| slot.generation == generation && slot.udp.is_some())
    }

    /// Where a slot lies.
    pub(crate) fn place(&self, index: u32) -> Option<*const u8> {
        self.slots.get(index as usize).map(|slot| (&raw const *slot).cast())
    }

    pub(crate) fn token(&self, index: u32) -> Option<u64> {
        self.slots.get(index as usize).map(|slot| slot.token)
    }

    pub(crate) fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize).filter(|slot| slot.udp.is_some())
    }

    /// Number of receives that are with the kernel.
    pub(crate) fn armed(&self) -> usize {
        self.slots.iter().filter(|slot| slot.armed).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_old_ids_are_stale() {
        let mut table = SocketTable::new(2);
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let a = table.insert(bind(), 1).expect("free slot");
        let b = table.insert(bind(), 2).expect("free slot");
        assert!(table.insert(bind(), 3).is_err());
        assert_eq!(table.open(), 2);
        assert!(table.release(a.index).is_some());
        assert!(table.release(a.index).is_none());
        let c = table.insert(bind(), 4).expect("freed slot");
        assert_eq!(c.index, a.index);
        assert!(!table.is_live(a));
        assert!(table.is_live(b) && table.is_live(c));
        assert_eq!(table.live(c).map(|slot| slot.token), Some(4));
    }
}
