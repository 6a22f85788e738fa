//! What a completion belongs to, packed in its 64 bits: kind (8), generation (24), index (32).

/// The operation that completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Multishot receive on a connected socket.
    Recv,
    /// Multishot receive with source address.
    RecvFrom,
    /// A send that failed (successes do not complete).
    Send,
    /// A cancel that found nothing to cancel.
    Cancel,
    /// The doorbell was rung.
    Doorbell,
    /// A timeout has ended.
    Timer,
}

pub(crate) const GENERATION_MASK: u32 = 0x00ff_ffff;

pub(crate) fn pack(kind: Kind, index: u32, generation: u32) -> u64 {
    let kind = match kind {
        Kind::Recv => 1_u64,
        Kind::RecvFrom => 2,
        Kind::Send => 3,
        Kind::Cancel => 4,
        Kind::Doorbell => 5,
        Kind::Timer => 6,
    };
    kind << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(index)
}

pub(crate) fn unpack(user_data: u64) -> Option<(Kind, u32, u32)> {
    let kind = match user_data >> 56 {
        1 => Kind::Recv,
        2 => Kind::RecvFrom,
        3 => Kind::Send,
        4 => Kind::Cancel,
        5 => Kind::Doorbell,
        6 => Kind::Timer,
        _ => return None,
    };
    Some((kind, user_data as u32, (user_data >> 32) as u32 & GENERATION_MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_is_unpacked() {
        let kinds =
            [Kind::Recv, Kind::RecvFrom, Kind::Send, Kind::Cancel, Kind::Doorbell, Kind::Timer];
        for kind in kinds {
            for (index, generation) in [(0, 0), (7, 1), (u32::MAX, GENERATION_MASK)] {
                assert_eq!(unpack(pack(kind, index, generation)), Some((kind, index, generation)));
            }
        }
        assert_eq!(unpack(0), None);
        assert_eq!(unpack(u64::MAX), None);
    }
}
