//! How RTP crosses between a media thread and the trunk thread: one byte ring each way, bounded,
//! one producer and one consumer, no allocation.
//!
//! A record is a fixed head (peer, channel, length) and the packet. A full ring drops the packet;
//! the caller counts it. Old audio is worth nothing, so nobody waits.

use link_proto::ChannelId;
use rtrb::{Consumer, Producer, RingBuffer};

/// Bytes in front of each packet: peer (4), channel (8), length (2).
const HEAD_BYTES: usize = 14;

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

/// The writing end.
#[derive(Debug)]
pub struct PacketSender(Producer<u8>);

/// The reading end.
#[derive(Debug)]
pub struct PacketReceiver(Consumer<u8>);

/// A ring of `bytes`.
pub fn ring(bytes: usize) -> (PacketSender, PacketReceiver) {
    let (producer, consumer) = RingBuffer::new(bytes.max(2 * PACKET_BYTES_MAX));
    (PacketSender(producer), PacketReceiver(consumer))
}

impl PacketSender {
    /// Puts one packet into the ring. False if there is no room or the packet is too long.
    pub fn send(&mut self, address: Address, packet: &[u8]) -> bool {
        let Ok(length) = u16::try_from(packet.len()) else { return false };
        if packet.len() > PACKET_BYTES_MAX {
            return false;
        }
        let Ok(mut chunk) = self.0.write_chunk(HEAD_BYTES + packet.len()) else { return false };
        let mut head = [0u8; HEAD_BYTES];
        head[..4].copy_from_slice(&address.peer.to_be_bytes());
        head[4..12].copy_from_slice(&address.channel.0.to_be_bytes());
        head[12..].copy_from_slice(&length.to_be_bytes());
        let (first, second) = chunk.as_mut_slices();
        copy_into(first, second, 0, &head);
        copy_into(first, second, HEAD_BYTES, packet);
        chunk.commit_all();
        true
    }
}

impl PacketReceiver {
    /// Takes one packet out into `packet` and returns its address and length.
    pub fn receive(&mut self, packet: &mut [u8; PACKET_BYTES_MAX]) -> Option<(Address, usize)> {
        let mut head = [0u8; HEAD_BYTES];
        {
            let chunk = self.0.read_chunk(HEAD_BYTES).ok()?;
            let (first, second) = chunk.as_slices();
            copy_out(first, second, 0, &mut head);
        }
        let [p0, p1, p2, p3, c0, c1, c2, c3, c4, c5, c6, c7, l0, l1] = head;
        let length = usize::from(u16::from_be_bytes([l0, l1])).min(PACKET_BYTES_MAX);
        let chunk = self.0.read_chunk(HEAD_BYTES + length).ok()?;
        let (first, second) = chunk.as_slices();
        copy_out(first, second, HEAD_BYTES, packet.get_mut(..length)?);
        chunk.commit_all();
        let address = Address {
            peer: u32::from_be_bytes([p0, p1, p2, p3]),
            channel: ChannelId(u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7])),
        };
        Some((address, length))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Copies `bytes` to position `at` of two slices that follow each other.
fn copy_into(first: &mut [u8], second: &mut [u8], at: usize, bytes: &[u8]) {
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

/// The reverse of [`copy_into`].
fn copy_out(first: &[u8], second: &[u8], at: usize, bytes: &mut [u8]) {
    let split = first.len().saturating_sub(at).min(bytes.len());
    let (head, tail) = bytes.split_at_mut(split);
    if let Some(place) = first.get(at..at + head.len()) {
        head.copy_from_slice(place);
    }
    let start = (at + split).saturating_sub(first.len());
    if let Some(place) = second.get(start..start + tail.len()) {
        tail.copy_from_slice(place);
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
            if sent < 5_000 && sender.send(address, &packet(sent)) {
                sent += 1;
                continue;
            }
            let (address, length) = receiver.receive(&mut buffer).unwrap();
            assert_eq!(address.channel, ChannelId(received));
            assert_eq!(address.peer, (received % 7) as u32);
            assert_eq!(&buffer[..length], packet(received).as_slice());
            received += 1;
        }
        assert!(receiver.is_empty());
        assert!(receiver.receive(&mut buffer).is_none());
    }

    #[test]
    fn a_full_ring_and_a_long_packet_are_refused_whole() {
        let (mut sender, mut receiver) = ring(0);
        let address = Address { peer: 1, channel: ChannelId(2) };
        assert!(!sender.send(address, &[0; PACKET_BYTES_MAX + 1]));
        let mut count = 0;
        while sender.send(address, &[7; 200]) {
            count += 1;
        }
        let mut buffer = [0u8; PACKET_BYTES_MAX];
        let mut seen = 0;
        while let Some((_, length)) = receiver.receive(&mut buffer) {
            assert_eq!(length, 200);
            seen += 1;
        }
        assert_eq!(seen, count);
    }
}
