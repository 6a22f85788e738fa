//! Whose packets are taken, and where packets go: latching, bleed, injection, hostile packets.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::net::SocketAddr;

use common::*;
use edge_media::command::*;
use edge_media::event::*;
use edge_media::{Component, DropCause};
use media_core::rtp::rtcp::{Compound, CompoundWriter, Packet, ReportBlock};
use media_core::rtp::stats::ReceptionReport;
use media_core::units::Ssrc;
use proptest::prelude::*;

const ATTACKER: &str = "203.0.113.66:4444";

fn bridge(latching: Latching) -> (Rig, PortKey, PortKey) {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |leg| leg.latching = latching);
    let b = rig.add_leg(1, |_| {});
    rig.connect(a, b);
    rig.connect(b, a);
    // Both are sent to from now on.
    rig.run(60);
    (rig, a, b)
}

#[test]
fn a_source_is_learnt_by_rule_and_once() {
    // Rule, then sources in order and whether their packets are taken.
    let sdp = "192.0.2.10:20000";
    let cases: [(Latching, &[(&str, bool)]); 5] = [
        (Latching::Off, &[("192.0.2.10:20002", false), (sdp, true), ("192.0.2.11:20000", false)]),
        (Latching::SdpNetwork, &[(sdp, true), ("192.0.2.10:30000", false), (sdp, true)]),
        (Latching::SdpNetwork, &[("192.0.2.10:30000", true), (sdp, false)]),
        (Latching::SdpNetwork, &[(ATTACKER, false), ("192.0.2.99:1", true), (ATTACKER, false)]),
        (Latching::Any, &[("198.51.100.7:9", true), (ATTACKER, false), (sdp, false)]),
    ];
    for (rule, steps) in cases {
        let (mut rig, a, _) = bridge(rule);
        let mut talker = Talker::new(5);
        let mut learnt = None;
        for (source, taken) in steps {
            let before = rig.worker.stats().packets_from_endpoints;
            let packet = talker.frame(1);
            rig.packet(a, Some(address(source)), &packet);
            rig.run(20);
            let count = rig.worker.stats().packets_from_endpoints - before;
            assert_eq!(count == 1, *taken, "{rule:?} {source}");
            if *taken {
                learnt.get_or_insert(address(source));
            }
            let to = rig.rtp_to(a).last().unwrap().to;
            assert_eq!(to, Some(learnt.unwrap_or(address(sdp))), "{rule:?} {source}");
        }
        let events: Vec<_> =
            rig.events.iter().filter(|e| matches!(e, WorkerEvent::Latched { .. })).collect();
        assert_eq!(events.len(), usize::from(learnt != Some(address(sdp))), "{rule:?}");
        assert_eq!(
            rig.events.iter().filter(|e| **e == WorkerEvent::FirstPacket { port: a }).count(),
            1
        );
    }
}

#[test]
fn a_new_address_of_signalling_is_learnt_anew() {
    let (mut rig, a, b) = bridge(Latching::SdpNetwork);
    let mut talker = Talker::new(5);
    let old = address("192.0.2.10:30000");
    let packet = talker.frame(1);
    rig.packet(a, Some(old), &packet);
    // The same once more changes nothing.
    rig.command(WorkerCommand::UpdateLeg { port: a, config: leg(0) });
    let packet = talker.frame(1);
    rig.packet(a, None, &packet);
    assert_eq!(rig.worker.stats().packets_from_endpoints, 2);
    let new = address("198.51.100.20:6000");
    let config = LegConfig { remote_rtp: Some(new), latch_epoch: 1, ..leg(0) };
    rig.command(WorkerCommand::UpdateLeg { port: a, config });
    assert_eq!(rig.net.peers.last(), Some(&(a, Component::Rtp, None)));
    rig.run(20);
    assert_eq!(rig.rtp_to(a).last().unwrap().to, Some(new));
    let packet = talker.clone().frame(1);
    rig.packet(a, Some(old), &packet);
    assert_eq!(rig.dropped(DropCause::ForeignSource), 1);
    let packet = talker.frame(1);
    rig.packet(a, Some(address("198.51.100.20:7000")), &packet);
    rig.run(20);
    assert_eq!(rig.rtp_to(a).last().unwrap().to, Some(address("198.51.100.20:7000")));
    assert_continuous(&rig.rtp_to(b), 60_000);
}

#[test]
fn learning_anew_for_the_same_address_needs_the_same_ssrc() {
    let (mut rig, a, b) = bridge(Latching::Any);
    let mut talker = Talker::new(5);
    let (old, moved) = (address("198.51.100.7:9000"), address("198.51.100.8:9100"));
    let packet = talker.frame(0x44);
    rig.packet(a, Some(old), &packet);
    let config = LegConfig { latching: Latching::Any, latch_epoch: 1, ..leg(0) };
    rig.command(WorkerCommand::UpdateLeg { port: a, config });
    rig.run(20);
    assert_eq!(rig.rtp_to(a).last().unwrap().to, Some(old), "it goes on to where it went");
    let sprayed = Talker::new(666).frame(0xee);
    rig.packet(a, Some(address(ATTACKER)), &sprayed);
    assert_eq!(rig.dropped(DropCause::ForeignSource), 1);
    let packet = talker.frame(0x44);
    rig.packet(a, Some(moved), &packet);
    rig.packet(a, Some(old), &sprayed);
    rig.run(40);
    assert_eq!(rig.rtp_to(a).last().unwrap().to, Some(moved));
    assert!(rig.rtp_to(b).iter().all(|sent| sent.rtp().payload()[0] != 0xee));
}

#[test]
fn another_ssrc_from_the_same_source_is_the_same_party() {
    let (mut rig, a, b) = bridge(Latching::SdpNetwork);
    for ssrc in [5, 6] {
        let mut talker = Talker::new(ssrc);
        for _ in 0..25 {
            let packet = talker.frame(1);
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(20);
        }
    }
    assert!(rig.worker.stats().packets_relayed >= 48);
    assert_continuous(&rig.rtp_to(b), 60_000);
}

/// 24 kinds of packets that must change nothing.
fn hostile() -> Vec<(&'static str, SocketAddr, Component, Vec<u8>, DropCause)> {
    use DropCause::{ForeignSource, Malformed, MalformedRtcp, NotRtp, PayloadType};
    let good = Talker::new(77).frame(1);
    let peer = endpoint(0);
    let rtcp_peer = SocketAddr::new(peer.ip(), peer.port() + 1);
    let attacker = address(ATTACKER);
    let change = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    let mut bad_csrc = good[..20].to_vec();
    bad_csrc[0] = 0x8f;
    let mut huge_extension = good.clone();
    huge_extension[0] = 0x90;
    huge_extension[12..16].copy_from_slice(&[0xbe, 0xde, 0xff, 0xff]);
    let mut cut_extension = good[..14].to_vec();
    cut_extension[0] = 0x90;
    let mut padding = good.clone();
    padding[0] = 0xa0;
    let mut padding_long = padding.clone();
    *padding.last_mut().unwrap() = 0;
    *padding_long.last_mut().unwrap() = 255;
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    let (rtp, rtcp) = (Component::Rtp, Component::Rtcp);
    vec![
        ("empty", peer, rtp, vec![], NotRtp),
        ("one byte", peer, rtp, vec![0x80], NotRtp),
        ("short", peer, rtp, good[..11].to_vec(), Malformed),
        ("version 0", peer, rtp, change(0, 0x00), NotRtp),
        ("version 1", peer, rtp, change(0, 0x40), NotRtp),
        ("version 3", peer, rtp, change(0, 0xc0), NotRtp),
        ("CSRC list too long", peer, rtp, bad_csrc, Malformed),
        ("huge extension", peer, rtp, huge_extension, Malformed),
        ("cut extension", peer, rtp, cut_extension, Malformed),
        ("no padding", peer, rtp, padding, Malformed),
        ("too much padding", peer, rtp, padding_long, Malformed),
        ("payload type", peer, rtp, change(1, 18), PayloadType),
        ("payload type with marker", peer, rtp, change(1, 0x80 | 33), PayloadType),
        ("STUN", peer, rtp, vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], NotRtp),
        ("DTLS", peer, rtp, vec![22, 0xfe, 0xfd, 0, 0], NotRtp),
        ("TURN", peer, rtp, vec![0x40, 0, 0, 4, 1, 2, 3, 4], NotRtp),
        ("RTCP on the port of RTP", peer, rtp, report.to_vec(), NotRtp),
        ("RTP on the port of RTCP", rtcp_peer, rtcp, good.clone(), NotRtp),
        ("foreign RTP", attacker, rtp, good.clone(), ForeignSource),
        ("foreign RTCP", attacker, rtcp, report.to_vec(), ForeignSource),
        (
            "foreign RTCP by RTP's port",
            attacker,
            rtcp,
            vec![0x81, 203, 0, 1, 0, 0, 0, 5],
            ForeignSource,
        ),
        ("RTCP cut", rtcp_peer, rtcp, vec![0x80, 201, 0, 9, 0, 0, 0, 9], MalformedRtcp),
        ("RTCP count", rtcp_peer, rtcp, vec![0x9f, 201, 0, 1, 0, 0, 0, 9], MalformedRtcp),
        (
            "RTCP of version 2 in part",
            rtcp_peer,
            rtcp,
            [&report[..], &[0x40, 200, 0, 0]].concat(),
            MalformedRtcp,
        ),
    ]
}

#[test]
fn hostile_packets_are_counted_and_change_nothing() {
    let all = hostile();
    assert_eq!(all.len(), 24);
    for learnt in [false, true] {
        for (name, source, component, bytes, cause) in &all {
            let (mut rig, a, _) = bridge(Latching::SdpNetwork);
            if learnt {
                let packet = Talker::new(5).frame(1);
                rig.packet(a, Some(endpoint(0)), &packet);
            }
            let (before, sent, events) = (rig.worker.stats(), rig.net.sent.len(), rig.events.len());
            let peers = rig.net.peers.len();
            rig.packet_on(a, *component, Some(*source), bytes);
            assert_eq!(rig.dropped(*cause), 1, "{name}: {:?}", rig.worker.stats().dropped);
            let mut after = rig.worker.stats();
            after.dropped = before.dropped;
            assert_eq!(after, before, "{name}");
            assert_eq!((rig.net.sent.len(), rig.events.len()), (sent, events), "{name}");
            assert_eq!(rig.net.peers.len(), peers, "{name}");
        }
    }
}

fn report(ssrc: u32, about: u32, lsr: u32) -> Vec<u8> {
    let mut buffer = [0; 64];
    let reception = ReceptionReport { fraction_lost: 3, ..ReceptionReport::default() };
    let block = ReportBlock { ssrc: Ssrc(about), reception, lsr, dlsr: 65_536 / 10 };
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.receiver_report(Ssrc(ssrc), &[block]).unwrap();
    let length = writer.len();
    buffer[..length].to_vec()
}

#[test]
fn reports_are_sent_and_only_true_answers_give_a_round_trip() {
    for mux in [false, true] {
        let mut rig = Rig::new();
        let rtcp = if mux { endpoint(0) } else { address("192.0.2.10:20001") };
        let component = if mux { Component::Rtp } else { Component::Rtcp };
        let a = rig.add_leg(0, |leg| {
            (leg.rtcp_mux, leg.remote_rtcp) = (mux, Some(rtcp));
        });
        let mut talker = Talker::new(5);
        for _ in 0..1_500 {
            let packet = talker.frame(1);
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(20);
        }
        let reports: Vec<Sent> = rig
            .net
            .sent
            .iter()
            .filter(|sent| sent.bytes[1] == 200 && sent.component == component)
            .cloned()
            .collect();
        assert!((4..=9).contains(&reports.len()), "{} reports in 30 s", reports.len());
        let last = reports.last().unwrap();
        assert_eq!(last.to, Some(rtcp));
        let mut packets = Compound::parse(&last.bytes).unwrap().packets();
        let Some(Packet::SenderReport { ssrc, info, mut blocks }) = packets.next() else {
            panic!()
        };
        assert_eq!((ssrc, blocks.next().unwrap().ssrc), (Ssrc(0xa000), Ssrc(5)));
        assert!(info.packets > 1_000);
        let Some(Packet::Sdes(mut items)) = packets.next() else { panic!() };
        assert_eq!(items.next().unwrap().text, b"leg@edge");
        let lsr = info.ntp.middle();
        // 150 ms after our report, of which the endpoint held it 100 ms.
        rig.net.us = last.us + 150_000;
        for (about, lsr) in [(0xa000, lsr ^ 1), (0xbad, lsr), (0xa000, 0)] {
            rig.packet_on(a, component, Some(rtcp), &report(5, about, lsr));
        }
        rig.packet_on(a, component, Some(rtcp), &report(5, 0xa000, lsr));
        rig.packet_on(a, component, Some(rtcp), &report(5, 0xa000, lsr.wrapping_add(77)));
        rig.command(WorkerCommand::RemovePort { port: a });
        let Some(WorkerEvent::PortRemoved { stats, .. }) = rig.events.last() else { panic!() };
        assert!(stats.round_trip_us.abs_diff(50_000) < 100, "{}", stats.round_trip_us);
        assert_eq!((stats.packets_received, stats.packets_lost), (1_500, 0));
    }
}

/// What an attacker may try at any time.
#[derive(Debug, Clone)]
enum Step {
    Spray { port: u32, kind: u8, spoof_ssrc: bool },
    Talk { port: u32 },
    Reinvite { port: u32 },
    Wait { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u32..2, 0u8..6, any::<bool>())
            .prop_map(|(port, kind, spoof_ssrc)| Step::Spray { port, kind, spoof_ssrc }),
        6 => (0u32..2).prop_map(|port| Step::Talk { port }),
        1 => (0u32..2).prop_map(|port| Step::Reinvite { port }),
        2 => (1u64..60).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Nothing is ever sent to the sprayer and nothing of his is relayed, whatever happens
    /// before, during and after set-up.
    #[test]
    fn nothing_bleeds_and_nothing_is_injected(
        steps in steps(), rule in prop_oneof![Just(Latching::Off), Just(Latching::SdpNetwork)]
    ) {
        let mut rig = Rig::new();
        let mut epoch = 0;
        for index in 0..2 {
            rig.add_leg(index, |leg| leg.latching = rule);
        }
        rig.connect(key(0), key(1));
        rig.connect(key(1), key(0));
        let mut talkers = [Talker::new(5), Talker::new(6)];
        let attackers = [ATTACKER, "192.0.3.10:20000", "[2001:db8::66]:9"].map(address);
        for (n, step) in steps.into_iter().enumerate() {
            let attacker = attackers[n % attackers.len()];
            match step {
                Step::Spray { port, kind, spoof_ssrc } => {
                    let spoofed = talkers[port as usize].clone();
                    let mut talker = if spoof_ssrc { spoofed } else { Talker::new(666) };
                    let (component, bytes) = match kind {
                        0 | 1 => (Component::Rtp, talker.frame(0xee)),
                        2 => (Component::Rtp, talker.digit(10).remove(0)),
                        3 => (Component::Rtcp, report(talker.ssrc, 0xa000 + port, 0)),
                        4 => (Component::Rtp, report(talker.ssrc, 0xa000 + port, 0)),
                        _ => (Component::Rtp, vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]),
                    };
                    rig.packet_on(key(port), component, Some(attacker), &bytes);
                }
                Step::Talk { port } => {
                    let packet = talkers[port as usize].frame(0x44);
                    rig.packet(key(port), Some(endpoint(port)), &packet);
                    rig.run(20);
                }
                Step::Reinvite { port } => {
                    epoch += 1;
                    let config = LegConfig { latching: rule, latch_epoch: epoch, ..leg(port) };
                    rig.command(WorkerCommand::UpdateLeg { port: key(port), config });
                }
                Step::Wait { ms } => rig.run(ms),
            }
        }
        for sent in &rig.net.sent {
            let to = sent.to.map(|to| to.ip());
            prop_assert!(to == Some(endpoint(0).ip()) || to == Some(endpoint(1).ip()));
            let payload = sent.bytes.get(12..).unwrap_or_default();
            prop_assert!(payload != [0xee; 160], "injected");
        }
        prop_assert!(rig.net.peers.iter().all(|(_, _, peer)| peer.is_none_or(|peer| !attackers.contains(&peer))));
        let latched = rig.events.iter().any(|event| matches!(event, WorkerEvent::Latched { .. }));
        prop_assert!(!latched);
    }
}
