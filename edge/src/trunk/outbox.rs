//! What goes to one peer: packs RTP packets into datagrams, holds back what the provisioned rate
//! or the path does not take, and drops the oldest first. Sans-IO.
//!
//! Full datagrams of one connection have the same size to the byte, because the kernel's
//! segmentation offload takes them in one call only then.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::{BufMut as _, Bytes, BytesMut};
use link_proto::ChannelId;

use super::wire::{self, Alias, Head};
use crate::trunk_ring::age_us;

/// Nothing older is sent, in µs.
pub const AGE_US_MAX: u32 = 40_000;
/// Memory taken at a time, for some tens of datagrams.
const ARENA_BYTES: usize = 64 << 10;
/// After so many full datagrams the last one is filled up as well, so that it goes out with them.
const FULL_BEFORE_PADDING: usize = 8;

/// Channel numbers are hashes already.
pub type ChannelMap<V> = HashMap<ChannelId, V, BuildHasherDefault<ChannelHasher>>;

/// Takes a channel's number for its hash.
#[derive(Debug, Default)]
pub struct ChannelHasher(u64);

impl Hasher for ChannelHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Numbers of tests are small; the table looks at the high bits as well.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What was dropped, in RTP packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Waited too long, in the ring or here.
    pub stale: u64,
    /// Longer than a datagram of the path.
    pub too_long: u64,
}

#[derive(Debug)]
struct Datagram {
    bytes: BytesMut,
    packets: u32,
    oldest_us: u32,
}

/// A datagram to be sent now.
#[derive(Debug)]
pub struct Ready {
    /// The datagram.
    pub bytes: Bytes,
    /// RTP packets in it.
    pub packets: u32,
}

/// Packs and holds back.
#[derive(Debug, Default)]
pub struct Outbox {
    aliases: ChannelMap<Alias>,
    open: Option<Datagram>,
    arena: BytesMut,
    waiting: VecDeque<Datagram>,
    /// Full ones of this round.
    full: usize,
    sequence: u16,
    dropped: Dropped,
}

impl Outbox {
    /// Of a new connection: the peer has to announce its aliases again.
    pub fn reset(&mut self) {
        *self = Self { dropped: self.dropped, ..Self::default() };
    }

    /// The peer wants a channel's packets under this alias.
    pub fn set_alias(&mut self, channel: ChannelId, alias: Alias) {
        self.aliases.insert(channel, alias);
    }

    /// The channel is closed.
    pub fn forget(&mut self, channel: ChannelId) {
        self.aliases.remove(&channel);
    }

    /// Adds a packet that was put into the ring at `at_us`. `size_max`: of a datagram.
    pub fn push(
        &mut self,
        channel: ChannelId,
        packet: (&[u8], &[u8]),
        at_us: u32,
        now_us: u32,
        size_max: usize,
    ) {
        if age_us(now_us, at_us) > AGE_US_MAX {
            self.dropped.stale += 1;
            return;
        }
        let alias = self.aliases.get(&channel).copied();
        let length = packet.0.len() + packet.1.len();
        let head = if alias.is_some() { wire::SHORT_BYTES } else { wire::LONG_BYTES };
        if length > wire::PACKET_BYTES_MAX || wire::HEAD_BYTES + head + length > size_max {
            self.dropped.too_long += 1;
            return;
        }
        let datagram = self.room_for(head + length, at_us, size_max);
        wire::put_packet_head(&mut datagram.bytes, alias, channel, length);
        datagram.bytes.put_slice(packet.0);
        datagram.bytes.put_slice(packet.1);
        datagram.packets += 1;
        if age_us(datagram.oldest_us, at_us) > 0 {
            datagram.oldest_us = at_us;
        }
    }

    /// Tells the peer our alias for a channel.
    pub fn announce(&mut self, channel: ChannelId, alias: Alias, now_us: u32, size_max: usize) {
        let datagram = self.room_for(wire::ANNOUNCEMENT_BYTES, now_us, size_max);
        wire::put_announcement(&mut datagram.bytes, channel, alias);
    }

    /// The datagram that has room for so many more bytes.
    fn room_for(&mut self, bytes: usize, at_us: u32, size_max: usize) -> &mut Datagram {
        let full = |open: &Datagram| open.bytes.len() + bytes > size_max;
        if self.open.as_ref().is_some_and(full) {
            self.close(Some(size_max));
            self.full += 1;
        }
        self.open.get_or_insert_with(|| {
            if self.arena.capacity() < size_max {
                self.arena.reserve(ARENA_BYTES.max(size_max));
            }
            // What follows in the arena is cut off when the datagram is complete.
            let mut bytes = std::mem::take(&mut self.arena);
            wire::put_head(&mut bytes);
            Datagram { bytes, packets: 0, oldest_us: at_us }
        })
    }

    fn close(&mut self, padded_to: Option<usize>) {
        let Some(mut open) = self.open.take() else { return };
        if let Some(size) = padded_to {
            wire::pad(&mut open.bytes, size);
        }
        let bytes = open.bytes.split();
        self.arena = open.bytes;
        self.waiting.push_back(Datagram { bytes, ..open });
    }

    /// Ends a round: what is open goes out as it is.
    pub fn finish(&mut self, size_max: usize) {
        let padded_to = (self.full >= FULL_BEFORE_PADDING).then_some(size_max);
        self.close(padded_to);
        self.full = 0;
    }

    /// The next datagram if it is no longer than `room_bytes`. Stale ones are dropped on the way.
    pub fn take(&mut self, now_us: u32, room_bytes: usize) -> Option<Ready> {
        loop {
            let front = self.waiting.front()?;
            let stale = age_us(now_us, front.oldest_us) > AGE_US_MAX;
            if !stale && front.bytes.len() > room_bytes {
                return None;
            }
            let Datagram { mut bytes, packets, .. } = self.waiting.pop_front()?;
            if stale {
                self.dropped.stale += u64::from(packets);
                continue;
            }
            wire::set_head(&mut bytes, Head { sequence: self.sequence, sent_us: now_us });
            self.sequence = self.sequence.wrapping_add(1);
            return Some(Ready { bytes: bytes.freeze(), packets });
        }
    }

    /// Something is held back.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What was dropped since this was asked last.
    pub fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Record;
    use super::*;

    const SIZE: usize = 1_414;

    fn push(outbox: &mut Outbox, channel: u64, length: usize, at_us: u32) {
        let packet = vec![channel as u8; length];
        let (a, b) = packet.split_at(length / 3);
        outbox.push(ChannelId(channel), (a, b), at_us, at_us, SIZE);
    }

    fn alias(slot: u16) -> Alias {
        Alias { slot, generation: 3 }
    }

    fn taken(outbox: &mut Outbox, now_us: u32) -> Vec<Ready> {
        std::iter::from_fn(|| outbox.take(now_us, usize::MAX)).collect()
    }

    #[test]
    fn full_datagrams_have_one_size_and_hold_every_packet_in_order() {
        for (count, lengths) in [(100, 172..173), (333, 40..90), (3, 172..173), (80, 12..1_300)] {
            let mut outbox = Outbox::default();
            let spread = lengths.end - lengths.start;
            for n in 0..count {
                outbox.set_alias(ChannelId(n), alias(n as u16));
                push(&mut outbox, n, lengths.start + (n as usize * 7) % spread, 0);
            }
            outbox.finish(SIZE);
            let all = taken(&mut outbox, 5);
            let (last, full) = all.split_last().unwrap();
            assert!(full.iter().all(|ready| ready.bytes.len() == SIZE));
            assert_eq!(last.bytes.len() == SIZE, full.len() >= FULL_BEFORE_PADDING, "{count}");
            let mut next = 0u64;
            for (place, ready) in all.iter().enumerate() {
                let (head, records) = wire::parse(&ready.bytes).unwrap();
                assert_eq!(head, Head { sequence: place as u16, sent_us: 5 });
                for record in records {
                    let Ok(Record::Short { alias, packet }) = record else { panic!("{record:?}") };
                    assert_eq!(u64::from(alias.slot), next);
                    assert_eq!(packet.len(), lengths.start + (next as usize * 7) % spread);
                    assert!(packet.iter().all(|byte| *byte == next as u8));
                    next += 1;
                }
            }
            assert_eq!(next, count);
        }
    }

    #[test]
    fn a_flush_of_g711_takes_eight_packets_a_datagram() {
        let mut outbox = Outbox::default();
        outbox.set_alias(ChannelId(1), alias(1));
        (0..80).for_each(|_| push(&mut outbox, 1, 172, 0));
        outbox.finish(SIZE);
        let all = taken(&mut outbox, 0);
        assert_eq!(all.len(), 10);
        assert!(all.iter().all(|ready| ready.packets == 8 && ready.bytes.len() == SIZE));
    }

    #[test]
    fn a_channel_without_alias_is_named_in_full() {
        let mut outbox = Outbox::default();
        push(&mut outbox, 7, 20, 0);
        outbox.announce(ChannelId(8), alias(9), 0, SIZE);
        outbox.set_alias(ChannelId(7), alias(1));
        push(&mut outbox, 7, 20, 0);
        outbox.forget(ChannelId(7));
        push(&mut outbox, 7, 20, 0);
        outbox.finish(SIZE);
        let all = taken(&mut outbox, 0);
        let (_, records) = wire::parse(&all[0].bytes).unwrap();
        let records: Vec<_> = records.map(Result::unwrap).collect();
        let packet = &[7u8; 20][..];
        let long = Record::Long { channel: ChannelId(7), packet };
        let announced = Record::Announcement { channel: ChannelId(8), alias: alias(9) };
        assert_eq!(records, [long, announced, Record::Short { alias: alias(1), packet }, long]);
        assert_eq!(all[0].packets, 3);
    }

    #[test]
    fn nothing_older_than_40_ms_leaves() {
        let mut outbox = Outbox::default();
        // The path takes nothing for 200 ms while a packet comes each ms.
        for now in 0..200u32 {
            push(&mut outbox, 1, 172, now * 1_000);
            outbox.finish(SIZE);
            assert!(outbox.take(now * 1_000, 100).is_none());
            assert!(outbox.waiting.len() <= 41, "the oldest are dropped meanwhile");
        }
        let all = taken(&mut outbox, 200_000);
        assert_eq!(all.len(), 40, "those of the last 40 ms");
        assert_eq!(outbox.take_dropped(), Dropped { stale: 160, too_long: 0 });
        // What became stale before it was packed.
        outbox.push(ChannelId(1), (&[0; 172], &[]), 100_000, 140_001, SIZE);
        outbox.push(ChannelId(1), (&[0; SIZE], &[]), 100_000, 100_000, SIZE);
        outbox.finish(SIZE);
        assert!(!outbox.is_waiting());
        assert_eq!(outbox.take_dropped(), Dropped { stale: 1, too_long: 1 });
    }

    #[test]
    fn a_new_connection_begins_anew() {
        let mut outbox = Outbox::default();
        outbox.set_alias(ChannelId(1), alias(1));
        push(&mut outbox, 1, 20, 0);
        outbox.finish(SIZE);
        outbox.reset();
        assert!(!outbox.is_waiting());
        push(&mut outbox, 1, 20, 0);
        outbox.finish(SIZE);
        let all = taken(&mut outbox, 0);
        let (head, mut records) = wire::parse(&all[0].bytes).unwrap();
        assert_eq!(head.sequence, 0);
        assert!(matches!(records.next(), Some(Ok(Record::Long { .. }))));
    }
}
