//! Telling protocols apart on one port by the first bytes (RFC 7983 §7, RFC 5761 §4).

/// What a datagram looks like; not yet validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// First byte 0–3 (RFC 8489).
    Stun,
    /// First byte 16–19 (RFC 6189).
    Zrtp,
    /// First byte 20–63 (RFC 9147).
    Dtls,
    /// First byte 64–79: TURN channel data (RFC 8656).
    TurnChannel,
    /// First byte 128–191 and no RTCP packet type.
    Rtp,
    /// First byte 128–191 and packet type 192–223.
    Rtcp,
    /// Anything else, and datagrams too short to tell.
    Unknown,
}

/// Sorts a datagram by its first two bytes.
///
/// RFC 5761 keeps RTP payload types 64–95 unused with RTP/RTCP on one port, because with the
/// marker bit they read as RTCP types 192–223.
#[must_use]
pub fn classify(datagram: &[u8]) -> PacketKind {
    match datagram {
        [0..=3, ..] => PacketKind::Stun,
        [16..=19, ..] => PacketKind::Zrtp,
        [20..=63, ..] => PacketKind::Dtls,
        [64..=79, ..] => PacketKind::TurnChannel,
        [128..=191, 192..=223, ..] => PacketKind::Rtcp,
        [128..=191, _, ..] => PacketKind::Rtp,
        _ => PacketKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => PacketKind::Stun,
                16..=19 => PacketKind::Zrtp,
                20..=63 => PacketKind::Dtls,
                64..=79 => PacketKind::TurnChannel,
                128..=191 => PacketKind::Rtp,
                _ => PacketKind::Unknown,
            };
            assert_eq!(classify(&[first, 0]), expected, "{first}");
        }
    }

    #[test]
    fn rtcp_types_and_short_input() {
        for second in 0..=255u8 {
            let rtcp = (192..=223).contains(&second);
            assert_eq!(classify(&[0x80, second]) == PacketKind::Rtcp, rtcp, "{second}");
        }
        assert_eq!(classify(&[]), PacketKind::Unknown);
        assert_eq!(classify(&[0x80]), PacketKind::Unknown);
    }
}
