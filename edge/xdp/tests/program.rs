//! Single runs of the program on single frames.

mod common;

use common::{ETHERNET_BYTES, LIMITS, Packet, frame, is_sound, offload, stream, world};
use edge_xdp::testing::{Verdict, run};
use edge_xdp::{Refused, Stream};

fn frame_of(stream: &Stream, packet: &Packet) -> Vec<u8> {
    frame(stream.peer, stream.local, &packet.bytes())
}

#[test]
fn a_plain_packet_is_rewritten_with_sound_checksums() {
    let Some((_line, mut path, mut table)) = world(LIMITS) else { return };
    for (version, without_check) in [(4, false), (4, true), (6, false)] {
        let stream = stream(version, 20_000, 30_000);
        let id = offload(&mut table, &stream);
        let mut sent = frame_of(&stream, &Packet::next(&stream, 1));
        let udp = ETHERNET_BYTES + if version == 4 { 20 } else { 40 };
        if without_check {
            sent[udp + 6..udp + 8].copy_from_slice(&[0, 0]);
        }
        let (verdict, out, _) = run(&mut path, &sent, 1).expect("run");
        assert_eq!(verdict, Verdict::Redirected);
        assert!(is_sound(&out), "IPv{version}");
        assert_eq!(out[udp + 6..udp + 8] == [0, 0], without_check);
        assert_ne!(out[..12], sent[..12], "addresses of the other link");
        let (tos, ttl) =
            if version == 4 { (out[15], out[22]) } else { (out[14] << 4 | out[15] >> 4, out[21]) };
        assert_eq!((tos, ttl), (0xb8, 64));
        let expected = Packet {
            first: 0x80,
            payload_type: 8,
            seq: 1_501,
            timestamp: 16_160 + 5_000_000,
            ssrc: 0x8888_9999,
        };
        let rtp = udp + 8;
        assert_eq!(out[rtp..rtp + 12], expected.bytes()[..12]);
        assert_eq!(out[rtp + 12..], sent[rtp + 12..]);
        let expected = frame(stream.out_local, stream.out_peer, &out[rtp..]);
        assert_eq!(out[udp..udp + 6], expected[udp..udp + 6], "ports and length");
        let from_ip = if version == 4 { 26..34 } else { 22..54 };
        assert_eq!(out[from_ip.clone()], expected[from_ip]);
        let progress = table.withdraw(id).expect("was there");
        assert_eq!((progress.packets, progress.payload_bytes), (1, 160));
        assert_eq!((progress.highest, progress.window), (65_536 + 501, 0x1ff));
        assert_eq!(progress.timestamp_last_out, 16_160 + 5_000_000);
        assert_eq!(run(&mut path, &sent, 1).expect("run").0, Verdict::Up, "withdrawn");
    }
    assert_eq!(path.counters().forwarded, 3);
}

#[test]
fn a_broken_checksum_stays_broken() {
    let Some((_line, mut path, mut table)) = world(LIMITS) else { return };
    for version in [4, 6] {
        let stream = stream(version, 20_000, 30_000);
        let id = offload(&mut table, &stream);
        let mut broken = frame_of(&stream, &Packet::next(&stream, 1));
        *broken.last_mut().expect("payload") ^= 0x10;
        let (verdict, out, _) = run(&mut path, &broken, 1).expect("run");
        assert_eq!(verdict, Verdict::Redirected);
        assert!(!is_sound(&out));
        table.withdraw(id);
    }
}

#[test]
fn losses_overtaking_and_doubles_are_counted_as_in_user_space() {
    let Some((_line, mut path, mut table)) = world(LIMITS) else { return };
    let stream = stream(4, 20_000, 30_000);
    let id = offload(&mut table, &stream);
    for ahead in [1, 2, 5, 4, 5, 1, 9] {
        let sent = frame_of(&stream, &Packet::next(&stream, ahead));
        assert_eq!(run(&mut path, &sent, 1).expect("run").0, Verdict::Redirected);
    }
    let progress = table.progress(id).expect("there");
    assert_eq!((progress.packets, progress.duplicates, progress.reordered), (7, 2, 1));
    assert_eq!(progress.highest, 65_536 + 509);
    // Of the last ten numbers: 509, 505, 504, 502, 501, 500.
    assert_eq!(progress.window & 0x3ff, 0b11_1011_0001, "{:b}", progress.window);
    assert_eq!(table.withdraw(id), Some(progress));
    assert_eq!(table.withdraw(id), None);
}

type Change = fn(&mut Vec<u8>);

/// Frames of a known stream that are not for the program. Each must go up as it came and change
/// nothing.
#[test]
fn everything_else_goes_up_unchanged() {
    let Some((_line, mut path, mut table)) = world(LIMITS) else { return };
    let stream = stream(4, 20_000, 30_000);
    let id = offload(&mut table, &stream);
    const RTP: usize = 42;
    let cases: [(&str, Change); 27] = [
        ("IP options", |f| f[14] = 0x46),
        ("no IP version", |f| f[14] = 0x55),
        ("more fragments", |f| f[20] = 0x20),
        ("a later fragment", |f| f[21] = 8),
        ("TCP", |f| f[23] = 6),
        ("IP length beyond the frame", |f| f[16] = 4),
        ("IP length below the header", |f| (f[16], f[17]) = (0, 19)),
        ("UDP length other than IP's", |f| f[39] ^= 1),
        ("UDP length below a header", |f| (f[38], f[39], f[16], f[17]) = (0, 7, 0, 27)),
        ("shorter than RTP", |f| (f[38], f[39], f[16], f[17]) = (0, 19, 0, 39)),
        ("cut off", |f| f.truncate(RTP + 11)),
        ("no Ethernet", |f| f.truncate(13)),
        ("VLAN", |f| (f[12], f[13]) = (0x81, 0x00)),
        ("ARP", |f| (f[12], f[13]) = (0x08, 0x06)),
        ("foreign address", |f| f[29] ^= 1),
        ("foreign port", |f| f[35] ^= 1),
        ("another port of ours", |f| f[37] ^= 2),
        ("STUN", |f| f[RTP] = 0),
        ("DTLS", |f| f[RTP] = 22),
        ("RTP version 1", |f| f[RTP] = 0x40),
        ("padding", |f| f[RTP] |= 0x20),
        ("header extension", |f| f[RTP] |= 0x10),
        ("contributing source", |f| f[RTP] |= 1),
        ("RTCP", |f| f[RTP + 1] = 200),
        ("telephone-event", |f| f[RTP + 1] = 101),
        ("another SSRC", |f| f[RTP + 8] ^= 1),
        ("a jump of sequence numbers", |f| f[RTP + 2] ^= 0x40),
    ];
    let before = table.progress(id).expect("there");
    let good = frame_of(&stream, &Packet::next(&stream, 1));
    let mut checked = 0;
    for (name, change) in cases {
        let mut sent = good.clone();
        change(&mut sent);
        // The kernel takes no frames below an Ethernet header for a run.
        if sent.len() < ETHERNET_BYTES {
            assert!(run(&mut path, &sent, 1).is_err());
            continue;
        }
        let (verdict, out, _) = run(&mut path, &sent, 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(verdict, Verdict::Up, "{name}");
        assert_eq!(out, sent, "{name}: the frame");
        assert_eq!(table.progress(id), Some(before), "{name}: the state");
        checked += 1;
    }
    assert_eq!(checked, 26);
    let numbers: [(&str, i32, u32); 5] = [
        ("far behind", -101, 0),
        ("from before the move", -50, 0),
        ("far ahead", 3_001, 0),
        ("timestamp far ahead", 1, 300_000),
        ("timestamp far behind", 1, 300_000_u32.wrapping_neg()),
    ];
    for (name, ahead, shift) in numbers {
        let mut packet = Packet::next(&stream, ahead);
        packet.timestamp = packet.timestamp.wrapping_add(shift);
        let (verdict, ..) = run(&mut path, &frame_of(&stream, &packet), 1).expect("run");
        assert_eq!((verdict, table.progress(id)), (Verdict::Up, Some(before)), "{name}");
    }
    let (verdict, ..) = run(&mut path, &good, 1).expect("run");
    assert_eq!(verdict, Verdict::Redirected, "the stream itself goes on");
}

#[test]
fn ipv6_without_a_checksum_or_with_other_headers_goes_up() {
    let Some((_line, mut path, mut table)) = world(LIMITS) else { return };
    let stream = stream(6, 20_000, 30_000);
    offload(&mut table, &stream);
    let good = frame_of(&stream, &Packet::next(&stream, 1));
    let cases: [(&str, Change); 5] = [
        ("no checksum", |f| (f[60], f[61]) = (0, 0)),
        ("extension header", |f| f[20] = 44),
        ("payload length", |f| f[19] ^= 1),
        ("version", |f| f[14] = 0x40),
        ("foreign address", |f| f[30] ^= 1),
    ];
    for (name, change) in cases {
        let mut sent = good.clone();
        change(&mut sent);
        let (verdict, out, _) = run(&mut path, &sent, 1).expect("run");
        assert_eq!((verdict, out), (Verdict::Up, sent), "{name}");
    }
    assert_eq!(run(&mut path, &good, 1).expect("run").0, Verdict::Redirected);
}

#[test]
fn a_full_table_a_taken_address_and_an_unknown_hop_are_told() {
    let Some((line, _path, mut table)) = world(LIMITS) else { return };
    let ids: Vec<_> =
        (0..8).map(|n| offload(&mut table, &stream(4, 20_000 + n * 4, 30_000))).collect();
    assert_eq!(table.offload(&stream(4, 21_000, 30_000)), Err(Refused::Full));
    table.withdraw(ids[3]).expect("there");
    assert_eq!(table.offload(&stream(4, 20_000, 30_000)), Err(Refused::Taken));
    let mut mixed = stream(4, 21_000, 30_000);
    mixed.out_peer = stream(6, 0, 0).out_peer;
    assert_eq!(table.offload(&mixed), Err(Refused::Unsuited));
    let mut slow = stream(4, 21_000, 30_000);
    slow.clock_rate_hz = 44_100;
    assert_eq!(table.offload(&slow), Err(Refused::Unsuited));
    let mut nowhere = stream(4, 21_000, 30_000);
    nowhere.out_peer = "203.0.113.1:9".parse().expect("address");
    for _ in 0..50 {
        assert_eq!(table.offload(&nowhere), Err(Refused::NoHop));
    }
    assert_eq!(table.len(), 7);
    offload(&mut table, &stream(4, 21_000, 30_000));
    // The neighbour goes: so does the hop, and with it what would be sent to nobody.
    line.middle.sh("ip link set e1 down").expect("down");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    table.withdraw(ids[0]);
    while table.offload(&stream(4, 20_000, 30_000)) != Err(Refused::NoHop) {
        assert!(std::time::Instant::now() < end, "the hop stays");
        table.withdraw(ids[0]);
        std::thread::yield_now();
    }
}

/// The program and user space agree on where a stream's place is noted, in each bucket.
#[test]
fn each_of_many_streams_is_found() {
    let limits = edge_xdp::Limits { streams_max: 600, ..LIMITS };
    let Some((_line, mut path, mut table)) = world(limits) else { return };
    let streams: Vec<_> = (0..300)
        .flat_map(|n| [4, 6].map(|version| stream(version, 20_000 + n * 2, 30_000)))
        .map(|stream| (offload(&mut table, &stream), stream))
        .collect();
    for (_, stream) in &streams {
        let sent = frame_of(stream, &Packet::next(stream, 1));
        assert_eq!(run(&mut path, &sent, 1).expect("run").0, Verdict::Redirected, "{stream:?}");
    }
    for (id, _) in &streams {
        assert_eq!(table.withdraw(*id).map(|progress| progress.packets), Some(1));
    }
    for (_, stream) in &streams {
        let sent = frame_of(stream, &Packet::next(stream, 1));
        assert_eq!(run(&mut path, &sent, 1).expect("run").0, Verdict::Up);
    }
}

/// What leaves is what would come next, so that every repeat goes the way of a real packet.
#[test]
fn the_program_takes_little_time() {
    let Some((_line, mut path, mut table)) = world(LIMITS) else { return };
    const REPEATS: u32 = 200_000;
    for version in [4, 6] {
        let stream = common::endless(version);
        let id = offload(&mut table, &stream);
        let sent = frame_of(&stream, &Packet::next(&stream, 1));
        let (verdict, out, time) = run(&mut path, &sent, REPEATS).expect("run");
        assert_eq!(verdict, Verdict::Redirected);
        assert!(is_sound(&out), "after {REPEATS} changes of its checksum");
        assert_eq!(table.progress(id).map(|p| p.packets), Some(u64::from(REPEATS)));
        println!("IPv{version}: {} ns a packet", time.as_nanos());
        assert!(time.as_nanos() < 1_000, "{time:?}");
    }
}
