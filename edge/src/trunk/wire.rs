//! What a trunk datagram looks like. Sans-IO.
//!
//! ```text
//! datagram  sequence (2)  time sent, µs (4)  record …
//! record    slot (16 bits)  generation (5 bits)  length (11 bits)  RTP packet
//! ```
//!
//! The receiver chooses slot and generation (an [`Alias`]) for each channel that it has open and
//! announces them; until the sender has heard of it, the packet is sent under the channel's whole
//! number. Slot 65535 is none: its generation tells the kind of a special record. All numbers are
//! big-endian. Eight G.711 packets of 20 ms fill a datagram of the usual size to the last byte.

use bytes::{BufMut as _, BytesMut};
use link_proto::ChannelId;

/// Bytes in front of the first record.
pub const HEAD_BYTES: usize = 6;
/// Bytes in front of a packet whose channel has an alias.
pub const SHORT_BYTES: usize = 4;
/// Bytes in front of a packet whose channel has none.
pub const LONG_BYTES: usize = SHORT_BYTES + 8;
/// Bytes of an announcement.
pub const ANNOUNCEMENT_BYTES: usize = LONG_BYTES + 4;
/// Longest packet.
pub const PACKET_BYTES_MAX: usize = 2_047;
/// Slots are below this.
pub const SLOTS_MAX: u16 = u16::MAX;
/// Generations are below this.
pub const GENERATIONS: u8 = 32;

const SPECIAL: u16 = u16::MAX;
const PADDING: u8 = 0;
const LONG: u8 = 1;
const ANNOUNCEMENT: u8 = 2;

/// The receiver's short name of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// Place in the receiver's table.
    pub slot: u16,
    /// Which use of that place, so that a late packet does not reach the next channel.
    pub generation: u8,
}

/// The head of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Counts datagrams of a connection.
    pub sequence: u16,
    /// Sender's clock.
    pub sent_us: u32,
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A packet under an alias of the receiver.
    Short {
        /// Alias.
        alias: Alias,
        /// RTP.
        packet: &'a [u8],
    },
    /// A packet under the channel's number.
    Long {
        /// Channel.
        channel: ChannelId,
        /// RTP.
        packet: &'a [u8],
    },
    /// The sender of this wants the channel's packets under that alias.
    Announcement {
        /// Channel.
        channel: ChannelId,
        /// Alias.
        alias: Alias,
    },
}

fn word(slot: u16, generation: u8, length: usize) -> u32 {
    u32::from(slot) << 16 | u32::from(generation & 0x1f) << 11 | (length as u32 & 0x7ff)
}

/// Begins a datagram; [`set_head`] completes it when it is sent.
pub fn put_head(bytes: &mut BytesMut) {
    bytes.put_bytes(0, HEAD_BYTES);
}

/// Fills in the head.
pub fn set_head(bytes: &mut BytesMut, head: Head) {
    if let Some(place) = bytes.first_chunk_mut::<HEAD_BYTES>() {
        let [s0, s1] = head.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = head.sent_us.to_be_bytes();
        *place = [s0, s1, t0, t1, t2, t3];
    }
}

/// Appends the head of a packet's record; the packet follows.
pub fn put_packet_head(
    bytes: &mut BytesMut,
    alias: Option<Alias>,
    channel: ChannelId,
    length: usize,
) {
    match alias {
        Some(alias) => bytes.put_u32(word(alias.slot, alias.generation, length)),
        None => {
            bytes.put_u32(word(SPECIAL, LONG, length));
            bytes.put_u64(channel.0);
        }
    }
}

/// Appends an announcement.
pub fn put_announcement(bytes: &mut BytesMut, channel: ChannelId, alias: Alias) {
    bytes.put_u32(word(SPECIAL, ANNOUNCEMENT, 0));
    bytes.put_u64(channel.0);
    bytes.put_u32(word(alias.slot, alias.generation, 0));
}

/// Fills up to `size` bytes with what receivers pass over.
pub fn pad(bytes: &mut BytesMut, size: usize) {
    if bytes.len() + SHORT_BYTES <= size {
        bytes.put_u32(word(SPECIAL, PADDING, 0));
    }
    if bytes.len() < size {
        bytes.resize(size, 0);
    }
}

/// Reads a datagram.
#[derive(Debug, Clone)]
pub struct Records<'a>(&'a [u8]);

/// A datagram that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes head and records apart; `None` if it is too short for a head.
pub fn parse(datagram: &[u8]) -> Option<(Head, Records<'_>)> {
    let (head, rest) = datagram.split_first_chunk::<HEAD_BYTES>()?;
    let [s0, s1, t0, t1, t2, t3] = *head;
    let sequence = u16::from_be_bytes([s0, s1]);
    let sent_us = u32::from_be_bytes([t0, t1, t2, t3]);
    Some((Head { sequence, sent_us }, Records(rest)))
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Option<Record<'a>>, Malformed> {
        let Some((first, rest)) = self.0.split_first_chunk::<SHORT_BYTES>() else {
            // What is too short for a record can only be padding.
            return if self.0.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(Malformed) };
        };
        let first = u32::from_be_bytes(*first);
        let (slot, generation) = ((first >> 16) as u16, (first >> 11 & 0x1f) as u8);
        let length = (first & 0x7ff) as usize;
        if slot != SPECIAL {
            let (packet, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
            self.0 = rest;
            return Ok(Some(Record::Short { alias: Alias { slot, generation }, packet }));
        }
        if generation == PADDING {
            return Ok(None);
        }
        let (channel, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
        let channel = ChannelId(u64::from_be_bytes(*channel));
        match generation {
            LONG => {
                let (packet, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                Ok(Some(Record::Long { channel, packet }))
            }
            ANNOUNCEMENT => {
                let (alias, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
                self.0 = rest;
                let alias = u32::from_be_bytes(*alias);
                let alias =
                    Alias { slot: (alias >> 16) as u16, generation: (alias >> 11 & 0x1f) as u8 };
                Ok(Some(Record::Announcement { channel, alias }))
            }
            _ => Err(Malformed),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.read().transpose();
        if !matches!(record, Some(Ok(_))) {
            self.0 = &[];
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let alias = Alias { slot: 65_534, generation: 31 };
        let channel = ChannelId(0x0102_0304_0506_0708);
        let packet = [7u8; PACKET_BYTES_MAX];
        let mut bytes = BytesMut::new();
        put_head(&mut bytes);
        put_packet_head(&mut bytes, Some(alias), channel, packet.len());
        bytes.put_slice(&packet);
        put_announcement(&mut bytes, channel, alias);
        put_packet_head(&mut bytes, None, channel, 0);
        for extra in 0..9 {
            let mut padded = bytes.clone();
            let size = padded.len() + extra;
            pad(&mut padded, size);
            assert_eq!(padded.len(), size);
            set_head(&mut padded, Head { sequence: 9, sent_us: 77 });
            let (head, records) = parse(&padded).unwrap();
            assert_eq!(head, Head { sequence: 9, sent_us: 77 });
            let records: Vec<_> = records.map(Result::unwrap).collect();
            let expected = [
                Record::Short { alias, packet: &packet },
                Record::Announcement { channel, alias },
                Record::Long { channel, packet: &[] },
            ];
            assert_eq!(records, expected, "{extra} bytes of padding");
        }
    }

    #[test]
    fn eight_packets_of_g711_fill_a_datagram_of_the_usual_size() {
        // 1452 bytes of UDP payload less QUIC's own.
        assert_eq!(HEAD_BYTES + 8 * (SHORT_BYTES + 172), 1_414);
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let mut state = 1u64;
        for round in 0..20_000usize {
            let bytes: Vec<u8> = (0..round % 97)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Many ones, so that special records are common.
                    ((state >> 33) as u8) | if state >> 63 == 0 { 0xff } else { 0 }
                })
                .collect();
            if let Some((_, records)) = parse(&bytes) {
                let read: usize = records
                    .map(|record| match record {
                        Ok(Record::Short { packet, .. } | Record::Long { packet, .. }) => {
                            packet.len()
                        }
                        _ => 0,
                    })
                    .sum();
                assert!(read <= bytes.len());
            }
        }
        let cut = [0u8, 1, 0, 0, 0, 0, 0, 1, 0, 200, 5];
        let (_, mut records) = parse(&cut).unwrap();
        assert_eq!(records.next(), Some(Err(Malformed)));
        assert_eq!(records.next(), None);
        assert!(parse(&cut[..5]).is_none());
    }
}
