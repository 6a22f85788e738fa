//! How RTP crosses between a media thread and the trunk thread: one byte ring each way, bounded,
//! one producer and one consumer, no allocation.
//!
//! A record is a fixed head (time, peer, channel, length) and the packet. A full ring drops the
//! packet; the caller counts it. Old audio is worth nothing, so nobody waits, and the time tells
//! the trunk what has become stale.

use std::time::Instant;

use link_proto::ChannelId;
use rtrb::{Consumer, Producer, RingBuffer};

/// Bytes in front of each packet: time (4), peer (4), channel (8), length (2).
const HEAD_BYTES: usize = 18;

/// Largest packet that crosses, in bytes.
pub const PACKET_BYTES_MAX: usize = 2_048;

/// Which channel a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Number of the peer node.
    pub peer: u32,
    /// Channel.
    pub channel: ChannelId,
}

/// Turns instants into µs that fit into a record: they wrap after 71 minutes, so only differences
/// of a few seconds mean anything. All threads of an edge share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(Instant);

impl Epoch {
    /// Any instant before the threads start.
    pub fn new(start: Instant) -> Self {
        Self(start)
    }

    /// µs since the epoch, wrapped.
    pub fn us(self, now: Instant) -> u32 {
        now.saturating_duration_since(self.0).as_micros() as u32
    }
}

/// How much later `now_us` is than `then_us`; zero if it is earlier, as clocks of two threads may
/// have it.
pub fn age_us(now_us: u32, then_us: u32) -> u32 {
    let age = now_us.wrapping_sub(then_us);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// The writing end.
#[derive(Debug)]
pub struct PacketSender(Producer<u8>);

/// The reading end.
#[derive(Debug)]
pub struct PacketReceiver(Consumer<u8>);

/// A packet in the ring, in two parts if it lies across the ring's end.
#[derive(Debug, Clone, Copy)]
pub struct Crossing<'a> {
    /// Channel.
    pub address: Address,
    /// When it was put into the ring; see [`Epoch`].
    pub at_us: u32,
    /// The packet.
    pub packet: (&'a [u8], &'a [u8]),
}

/// A ring of `bytes`.
pub fn ring(bytes: usize) -> (PacketSender, PacketReceiver) {
    let (producer, consumer) = RingBuffer::new(bytes.max(2 * PACKET_BYTES_MAX));
    (PacketSender(producer), PacketReceiver(consumer))
}

impl PacketSender {
    /// Puts one packet into the ring. False if there is no room or the packet is too long.
    pub fn send(&mut self, address: Address, at_us: u32, packet: &[u8]) -> bool {
        let Ok(length) = u16::try_from(packet.len()) else { return false };
        if packet.len() > PACKET_BYTES_MAX {
            return false;
        }
        let Ok(mut chunk) = self.0.write_chunk(HEAD_BYTES + packet.len()) else { return false };
        let mut head = [0u8; HEAD_BYTES];
        head[..4].copy_from_slice(&at_us.to_be_bytes());
        head[4..8].copy_from_slice(&address.peer.to_be_bytes());
        head[8..16].copy_from_slice(&address.channel.0.to_be_bytes());
        head[16..].copy_from_slice(&length.to_be_bytes());
        let (first, second) = chunk.as_mut_slices();
        copy_into(first, second, 0, &head);
        copy_into(first, second, HEAD_BYTES, packet);
        chunk.commit_all();
        true
    }
}

impl PacketReceiver {
    /// Hands at most `packets_max` packets over where they lie, and frees their room at once.
    /// Returns how many.
    pub fn drain(&mut self, packets_max: usize, mut each: impl FnMut(Crossing<'_>)) -> usize {
        let Ok(chunk) = self.0.read_chunk(self.0.slots()) else { return 0 };
        let (first, second) = chunk.as_slices();
        let (mut at, mut count) = (0, 0);
        while count < packets_max && at + HEAD_BYTES <= first.len() + second.len() {
            let (address, at_us, length) = head(first, second, at);
            let packet = parts(first, second, at + HEAD_BYTES, length);
            each(Crossing { address, at_us, packet });
            at += HEAD_BYTES + length;
            count += 1;
        }
        chunk.commit(at);
        count
    }

    /// Takes one packet out into `packet` and returns its address and length.
    pub fn receive(&mut self, packet: &mut [u8; PACKET_BYTES_MAX]) -> Option<(Address, usize)> {
        let mut taken = None;
        self.drain(1, |crossing| {
            let (first, second) = crossing.packet;
            let length = first.len() + second.len();
            if let Some(place) = packet.get_mut(..length) {
                let (head, tail) = place.split_at_mut(first.len());
                head.copy_from_slice(first);
                tail.copy_from_slice(second);
                taken = Some((crossing.address, length));
            }
        });
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn head(first: &[u8], second: &[u8], at: usize) -> (Address, u32, usize) {
    let mut bytes = [0u8; HEAD_BYTES];
    let (a, b) = parts(first, second, at, HEAD_BYTES);
    let (left, right) = bytes.split_at_mut(a.len());
    left.copy_from_slice(a);
    right.copy_from_slice(b);
    let [t0, t1, t2, t3, p0, p1, p2, p3, c0, c1, c2, c3, c4, c5, c6, c7, l0, l1] = bytes;
    let address = Address {
        peer: u32::from_be_bytes([p0, p1, p2, p3]),
        channel: ChannelId(u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7])),
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    (address, u32::from_be_bytes([t0, t1, t2, t3]), length)
}

/// `length` bytes at position `at` of two slices that follow each other. Whole records are
/// committed, so they are there.
fn parts<'a>(first: &'a [u8], second: &'a [u8], at: usize, length: usize) -> (&'a [u8], &'a [u8]) {
    if let Some(part) = first.get(at..at + length) {
        return (part, &[]);
    }
    let head = first.get(at..).unwrap_or_default();
    let start = at.saturating_sub(first.len());
    (head, second.get(start..start + length - head.len()).unwrap_or_default())
}

/// Copies `bytes` to position `at` of two slices that follow each other.
fn copy_into(first: &mut [u8], second: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = first.get_mut(at..at + bytes.len()) {
        return place.copy_from_slice(bytes);
    }
    let split = first.len().saturating_sub(at).min(bytes.len());
    let (head, tail) = bytes.split_at(split);
    if let Some(place) = first.get_mut(at..at + head.len()) {
        place.copy_from_slice(head);
    }
    let start = (at + split).saturating_sub(first.len());
    if let Some(place) = second.get_mut(start..start + tail.len()) {
        place.copy_from_slice(tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_cross_whole_in_order_at_every_wrap() {
        let (mut sender, mut receiver) = ring(0);
        let mut buffer = [0u8; PACKET_BYTES_MAX];
        let (mut sent, mut received) = (0u64, 0u64);
        let packet = |n: u64| vec![n as u8; (n as usize * 37) % 1_500];
        while received < 5_000 {
            let address = Address { peer: (sent % 7) as u32, channel: ChannelId(sent) };
            if sent < 5_000 && sender.send(address, sent as u32, &packet(sent)) {
                sent += 1;
                continue;
            }
            let (address, length) = receiver.receive(&mut buffer).unwrap();
            assert_eq!(address.channel, ChannelId(received));
            assert_eq!(address.peer, (received % 7) as u32);
            assert_eq!(&buffer[..length], packet(received).as_slice());
            received += 1;
            let more = received.is_multiple_of(3);
            received += receiver.drain(if more { 2 } else { 0 }, |crossing| {
                let channel = crossing.address.channel.0;
                let (first, second) = crossing.packet;
                assert_eq!([first, second].concat(), packet(channel));
                assert_eq!(u64::from(crossing.at_us), channel);
            }) as u64;
        }
        assert!(receiver.is_empty());
        assert!(receiver.receive(&mut buffer).is_none());
    }

    #[test]
    fn a_full_ring_and_a_long_packet_are_refused_whole() {
        let (mut sender, mut receiver) = ring(0);
        let address = Address { peer: 1, channel: ChannelId(2) };
        assert!(!sender.send(address, 0, &[0; PACKET_BYTES_MAX + 1]));
        let mut count = 0;
        while sender.send(address, 0, &[7; 200]) {
            count += 1;
        }
        let mut seen = 0;
        receiver.drain(usize::MAX, |crossing| {
            assert_eq!(crossing.packet.0.len() + crossing.packet.1.len(), 200);
            seen += 1;
        });
        assert_eq!(seen, count);
    }

    #[test]
    fn ages_survive_the_wrap_and_clocks_that_differ() {
        for (now, then, age) in [(5, 2, 3), (2, u32::MAX - 7, 10), (10, 12, 0), (7, 7, 0)] {
            assert_eq!(age_us(now, then), age, "{now} {then}");
        }
    }
}
