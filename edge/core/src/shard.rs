//! Which signalling shard a message belongs to: a hash of its Call-ID, always, so that any socket
//! thread can hand over the raw bytes, CANCEL and retransmissions included.

/// The shard of a Call-ID. FNV-1a; must never change between shards of one process.
pub fn shard_of(call_id: &[u8], shards: u32) -> u32 {
    let hash = call_id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) % u64::from(shards.max(1))) as u32
}

/// The Call-ID of a raw message, found without parsing it. `None` if there is none in its head.
pub fn call_id_of(datagram: &[u8]) -> Option<&[u8]> {
    datagram.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::trim_ascii).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let name = name.trim_ascii_end();
        let known = name.eq_ignore_ascii_case(b"call-id") || name.eq_ignore_ascii_case(b"i");
        let value = value.get(1..)?.trim_ascii();
        (known && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_are_found_in_raw_messages() {
        for (text, expect) in [
            ("INVITE sip:a SIP/2.0\r\nCall-ID: abc@x\r\n\r\n", Some("abc@x")),
            ("BYE sip:a SIP/2.0\r\nVia: x\r\ni:  q \r\n\r\n", Some("q")),
            ("BYE sip:a SIP/2.0\ncall-id :1\n\n", Some("1")),
            ("BYE sip:a SIP/2.0\r\nCall-ID:\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(call_id_of(text.as_bytes()), expect.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn shards_are_used_evenly() {
        let mut counts = [0u32; 3];
        for n in 0..3_000 {
            counts[shard_of(format!("call-{n}@host").as_bytes(), 3) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert_eq!(shard_of(b"x", 0), 0);
    }
}
