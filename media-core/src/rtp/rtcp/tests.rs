use super::ntp::dlsr_from_us;
use super::*;
use crate::rtp::stats::ReceptionReport;
use crate::units::{RtpTime, Ssrc};
use proptest::prelude::*;

fn block(ssrc: u32, lost: i32) -> ReportBlock {
    ReportBlock {
        ssrc: Ssrc(ssrc),
        reception: ReceptionReport {
            fraction_lost: 12,
            cumulative_lost_packets: lost,
            extended_highest_seq: 70_000,
            jitter_units: 33,
        },
        lsr: 0x1234_5678,
        dlsr: 99,
    }
}

const INFO: SenderInfo = SenderInfo {
    ntp: NtpTime(0x1111_2222_3333_4444),
    timestamp: RtpTime(0xdead_beef),
    packets: 1000,
    payload_bytes: 160_000,
};

fn compound() -> Vec<u8> {
    let mut buffer = [0xffu8; 512];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.sender_report(Ssrc(7), &INFO, &[block(8, -5), block(9, 5)]).unwrap();
    writer.receiver_report(Ssrc(7), &[block(10, 0x7f_ffff)]).unwrap();
    writer.sdes_cname(Ssrc(7), b"leg@edge").unwrap();
    writer.bye(Ssrc(7), b"done").unwrap();
    let len = writer.len();
    buffer[..len].to_vec()
}

#[test]
fn written_compound_reads_back() {
    let bytes = compound();
    let packets: Vec<Packet> = Compound::parse(&bytes).unwrap().packets().collect();
    let [
        Packet::SenderReport { ssrc, info, blocks },
        Packet::ReceiverReport { blocks: rr, .. },
        Packet::Sdes(items),
        Packet::Bye(bye),
    ] = &packets[..]
    else {
        panic!("{packets:?}")
    };
    assert_eq!((*ssrc, *info), (Ssrc(7), INFO));
    assert_eq!(blocks.clone().collect::<Vec<_>>(), [block(8, -5), block(9, 5)]);
    assert_eq!(rr.clone().collect::<Vec<_>>(), [block(10, 0x7f_ffff)]);
    let items: Vec<_> = items.clone().collect();
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].kind, items[0].text), (sdes::ITEM_CNAME, &b"leg@edge"[..]));
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [Ssrc(7)]);
    assert_eq!(bye.reason, Some(&b"done"[..]));
}

#[test]
fn oracle_reads_what_we_write() {
    let bytes = compound();
    let parsed = rtcp_types::Compound::parse(&bytes).unwrap();
    let packets: Vec<_> = parsed.map(|p| p.unwrap()).collect();
    let rtcp_types::Packet::Sr(sr) = &packets[0] else { panic!("{packets:?}") };
    assert_eq!((sr.ssrc(), sr.ntp_timestamp()), (7, INFO.ntp.0));
    assert_eq!(
        (sr.rtp_timestamp(), sr.packet_count(), sr.octet_count()),
        (0xdead_beef, 1000, 160_000)
    );
    let blocks: Vec<_> = sr.report_blocks().collect();
    assert_eq!((blocks[0].ssrc(), blocks[0].fraction_lost()), (8, 12));
    assert_eq!(blocks[0].cumulative_lost(), 0x00ff_fffb);
    assert_eq!(blocks[1].extended_sequence_number(), 70_000);
    let rtcp_types::Packet::Sdes(sdes) = &packets[2] else { panic!("{packets:?}") };
    let chunk = sdes.chunks().next().unwrap();
    assert_eq!(chunk.items().next().unwrap().value(), b"leg@edge");
    let rtcp_types::Packet::Bye(bye) = &packets[3] else { panic!("{packets:?}") };
    assert_eq!(bye.reason(), Some(&b"done"[..]));
}

#[test]
fn too_small_buffers_stay_untouched() {
    for room in 0..28 {
        let mut buffer = vec![0xee; room];
        let mut writer = CompoundWriter::new(&mut buffer);
        assert_eq!(writer.sender_report(Ssrc(1), &INFO, &[]), None);
        assert!(writer.is_empty());
        assert!(buffer.iter().all(|b| *b == 0xee));
    }
    let mut buffer = [0; 2000];
    let mut writer = CompoundWriter::new(&mut buffer);
    assert_eq!(writer.receiver_report(Ssrc(1), &[block(1, 1); 32]), None);
    assert_eq!(writer.sdes_cname(Ssrc(1), &[b'a'; 256]), None);
    assert_eq!(writer.sdes_cname(Ssrc(1), &[b'a'; 255]), Some(()));
}

#[test]
fn each_error_is_found() {
    let cases: [(&[u8], RtcpParseError); 7] = [
        (&[], RtcpParseError::TooShort),
        (&[0x80, 201, 0, 1], RtcpParseError::TooShort),
        (&[0x40, 201, 0, 1, 0, 0, 0, 1], RtcpParseError::Version),
        (&[0x81, 201, 0, 1, 0, 0, 0, 1], RtcpParseError::Count),
        (&[0x82, 203, 0, 1, 0, 0, 0, 1], RtcpParseError::Count),
        (&[0xa0, 201, 0, 1, 0, 0, 0, 3], RtcpParseError::Padding),
        (&[0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0x80, 203, 0, 0], RtcpParseError::Padding),
    ];
    for (bytes, error) in cases {
        assert_eq!(Compound::parse(bytes).err(), Some(error), "{bytes:?}");
    }
}

#[test]
fn round_trip_of_the_rfc_example() {
    // RFC 3550 figure 2: A = 0xb710:8000, DLSR 0x0005:4000, LSR 0xb705:2000, delay 6.125 s.
    let now = NtpTime(0xb710_8000 << 16);
    assert_eq!(round_trip_us(now, 0xb705_2000, 0x0005_4000), Some(6_125_000));
    assert_eq!(round_trip_us(now, 0, 0), None);
    assert_eq!(round_trip_us(now, 0xb710_8001, 0), None);
    assert_eq!(round_trip_us(now, 0xb710_7000, 0x2000), None);
    assert_eq!(dlsr_from_us(5_250_000), 0x0005_4000);
    assert_eq!(dlsr_from_us(u64::MAX), u32::MAX);
    assert_eq!(NtpTime::from_unix_us(500_000).0, (2_208_988_800 << 32) | (1 << 31));
}

#[test]
fn both_ends_agree_on_the_round_trip() {
    // We send a report at 10 s; it takes 30 ms; the peer answers after 2 s; 50 ms back.
    let sent = NtpTime::from_unix_us(10_000_000);
    let mut peer = LastSenderReport::default();
    assert_eq!(peer.lsr_and_dlsr(5), (0, 0));
    peer.on_report(sent, 777_000_000);
    let (lsr, dlsr) = peer.lsr_and_dlsr(779_000_000);
    let now = NtpTime::from_unix_us(10_000_000 + 30_000 + 2_000_000 + 50_000);
    let round_trip = round_trip_us(now, lsr, dlsr).unwrap();
    assert!(round_trip.abs_diff(80_000) < 50, "{round_trip}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_end(mut bytes in prop::collection::vec(any::<u8>(), 0..200), types in prop::collection::vec(198u8..210, 0..4)) {
        // Make the first header plausible, so that bodies are reached.
        if let (Some(t), true) = (types.first(), bytes.len() >= 8) {
            bytes[0] = 0x80 | (bytes[0] & 0x03);
            bytes[1] = *t;
            let words = bytes.len() / 4 - 1;
            bytes[2..4].copy_from_slice(&(words as u16).to_be_bytes());
            bytes.truncate(words * 4 + 4);
        }
        let Ok(compound) = Compound::parse(&bytes) else { return Ok(()) };
        let mut bytes_seen = 0;
        for packet in compound.packets() {
            bytes_seen += 4;
            match packet {
                Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                    prop_assert!(blocks.count() <= 31);
                }
                Packet::Sdes(items) => prop_assert!(items.count() <= bytes.len()),
                Packet::Bye(bye) => prop_assert!(bye.ssrcs().count() <= 31),
                Packet::Other { body, .. } => prop_assert!(body.len() < bytes.len()),
            }
        }
        prop_assert!(bytes_seen <= bytes.len());
    }

    #[test]
    fn blocks_survive(ssrc: u32, fraction: u8, lost in -0x80_0000..0x80_0000, seq: u32, jitter: u32, lsr: u32, dlsr: u32) {
        let block = ReportBlock {
            ssrc: Ssrc(ssrc),
            reception: ReceptionReport {
                fraction_lost: fraction, cumulative_lost_packets: lost,
                extended_highest_seq: seq, jitter_units: jitter,
            },
            lsr, dlsr,
        };
        let mut buffer = [0; 32];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.receiver_report(Ssrc(1), &[block]).unwrap();
        let Some(Packet::ReceiverReport { mut blocks, .. }) = Compound::parse(&buffer).unwrap().packets().next() else { panic!() };
        prop_assert_eq!(blocks.next(), Some(block));
    }
}
