//! Relay, filling and switches of source, as an endpoint sees them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::sync::Arc;

use common::*;
use edge_media::DropCause;
use edge_media::command::*;
use edge_media::event::*;
use media_core::codec::g711;

fn prompt(ms: usize, times: u32) -> ProgramItem {
    ProgramItem::Prompt { prompt: Arc::new(Prompt { samples: vec![4_000; ms * 8] }), times }
}

/// Both talk for `ms`; the second one half a frame behind the first.
fn talk(rig: &mut Rig, a: &mut (PortKey, Talker), b: &mut (PortKey, Talker), ms: u64) {
    for _ in 0..ms / 20 {
        let packet = a.1.frame(0x11);
        rig.packet(a.0, Some(endpoint(a.0.index)), &packet);
        rig.run(10);
        let packet = b.1.frame(0x22);
        rig.packet(b.0, Some(endpoint(b.0.index)), &packet);
        rig.run(10);
    }
}

/// Memory is named for legs that there are, and the leg that a packet leaves by.
#[test]
fn what_a_packet_will_need_is_known_before_it_comes() {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |_| {}));
    let named = |rig: &Rig, port: PortKey| {
        let bytes = std::cell::Cell::new((0, 0));
        rig.worker.foresee(port, |_, size| bytes.set((bytes.get().0 + size, bytes.get().1)));
        rig.worker.foresee_sink(port, |_, size| bytes.set((bytes.get().0, bytes.get().1 + size)));
        bytes.get()
    };
    assert!(named(&rig, a).0 > 100, "{:?}", named(&rig, a));
    assert_eq!((named(&rig, a).1, rig.worker.foreseen_sink(a)), (0, None), "feeds nobody");
    rig.connect(a, b);
    assert!(named(&rig, a).1 > 100, "{:?}", named(&rig, a));
    assert_eq!(rig.worker.foreseen_sink(a), Some(b.index));
    assert_eq!(named(&rig, key(5)), (0, 0));
}

/// While the thread is behind nobody knows who is quiet: no silence in the place of packets that may
/// be waiting, and none of them is refused for it.
#[test]
fn a_thread_that_is_behind_takes_nobody_for_quiet() {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |_| {}));
    rig.connect(a, b);
    let mut talker = Talker::new(9);
    let mut talk = |rig: &mut Rig, count: u32| {
        for _ in 0..count {
            let packet = talker.frame(0x11);
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(20);
        }
    };
    talk(&mut rig, 20);
    let to_b = |rig: &Rig| rig.rtp_to(b).len();
    let before = to_b(&rig);
    for _ in 0..20 {
        rig.net.behind_us += 20_000;
        rig.run(20);
    }
    assert_eq!(to_b(&rig), before, "silence in the place of waiting packets");
    rig.net.behind_us = 0;
    talk(&mut rig, 10);
    assert_eq!(to_b(&rig), before + 10);
    rig.run(200);
    let filled = to_b(&rig);
    assert!(filled > before + 10, "now it is quiet");
    // Who is quiet already waits as well while packets of others do.
    rig.net.behind_us = 60_000;
    rig.run(200);
    assert_eq!(to_b(&rig), filled, "silence while the thread is far behind");
    rig.net.behind_us = 0;
    rig.run(200);
    assert!(to_b(&rig) > filled, "and again");
}

#[test]
fn the_received_buffer_is_sent_on_with_a_new_header() {
    let mut rig = Rig::new();
    let (a, b) =
        (rig.add_leg(0, |_| {}), rig.add_leg(1, |leg| leg.telephone_event_send = Some(96)));
    rig.connect(a, b);
    let mut talker = Talker::new(9);
    for n in 0..20 {
        let packet = talker.frame(n);
        rig.packet(a, Some(endpoint(0)), &packet);
        rig.run(20);
    }
    let relayed: Vec<_> = rig.rtp_to(b).into_iter().filter(|sent| sent.forwarded).collect();
    assert_eq!(relayed.len(), 20);
    for (n, sent) in relayed.iter().enumerate() {
        assert_eq!(sent.to, Some(endpoint(1)));
        assert_eq!(sent.rtp().payload(), [n as u8; 160]);
        assert_eq!(sent.rtp().ssrc().0, 0xa001);
        assert_eq!(sent.rtp().payload_type().get(), 0);
    }
    assert!(relayed[0].rtp().marker(), "a talk spurt begins");
    for packet in talker.digit(5) {
        rig.packet(a, Some(endpoint(0)), &packet);
    }
    let last = rig.rtp_to(b).last().copied().unwrap().clone();
    assert_eq!((last.rtp().payload_type().get(), last.rtp().payload()[0]), (96, 5));
    assert_continuous(&rig.rtp_to(b), 60_000);
    assert_eq!(rig.worker.stats().packets_relayed, 28);
}

#[test]
fn overtaken_and_lost_packets_stay_what_they_are() {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |leg| leg.answered = false));
    rig.connect(a, b);
    let mut talker = Talker::new(9);
    let packets: Vec<_> = (0..6).map(|n| talker.frame(n)).collect();
    for n in [0, 2, 1, 5, 5] {
        rig.packet(a, Some(endpoint(0)), &packets[n]);
        rig.run(20);
    }
    let relayed: Vec<_> = rig.rtp_to(b).into_iter().filter(|sent| sent.forwarded).collect();
    let first = relayed[0].rtp().seq();
    let seqs: Vec<u16> = relayed.iter().map(|sent| sent.rtp().seq().wrapping_sub(first)).collect();
    assert_eq!(seqs, [0, 2, 1, 5, 5]);
}

#[test]
fn laws_are_converted_without_delay() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |leg| leg.receive = vec![PCMA]);
    let b = rig.add_leg(1, |leg| leg.send = PCMU);
    rig.connect(a, b);
    let mut talker = Talker { payload_type: 8, ..Talker::new(3) };
    let payload: Vec<u8> = (0..160).collect();
    let packet = talker.next(&payload);
    rig.packet(a, Some(endpoint(0)), &packet);
    let sent = rig.rtp_to(b);
    let sent = sent.iter().find(|sent| sent.forwarded).unwrap();
    assert_eq!(sent.us, rig.us());
    let mut expected = payload;
    g711::alaw_to_ulaw_in_place(&mut expected);
    assert_eq!(sent.rtp().payload(), expected);
    assert_eq!(rig.worker.stats().packets_transcoded, 1);
}

#[test]
fn an_answered_leg_without_a_source_is_filled_in_a_rhythm_of_its_own() {
    let mut rig = Rig::new();
    rig.run_to(3_217);
    let a = rig.add_leg(0, |leg| leg.send = PCMA);
    rig.run(200);
    let sent = rig.rtp_to(a);
    assert_eq!(sent.len(), 9);
    assert_eq!(sent[0].us, 3_217 + 40_000, "a program or a source may come first");
    assert!(sent.iter().all(|sent| sent.rtp().payload() == [g711::ALAW_SILENCE; 160]));
    assert_continuous(&sent, 20_000);
}

#[test]
fn legs_that_want_nothing_get_nothing() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |leg| leg.direction = Direction::RecvOnly);
    let b = rig.add_leg(1, |leg| leg.answered = false);
    let c = rig.add_leg(2, |leg| leg.remote_rtp = None);
    rig.connect(b, a);
    let packet = Talker::new(1).frame(1);
    rig.packet(b, Some(endpoint(1)), &packet);
    rig.run(500);
    for port in [a, b, c] {
        assert!(rig.rtp_to(port).is_empty());
    }
    assert_eq!(rig.dropped(DropCause::NotSendable), 1);
}

#[test]
fn silence_covers_a_source_that_is_quiet() {
    let mut rig = Rig::new();
    // Only the receiver is answered, so that all silence is its own.
    let (a, b) = (rig.add_leg(0, |leg| leg.answered = false), rig.add_leg(1, |_| {}));
    rig.connect(a, b);
    let mut talker = Talker::new(9);
    for round in 0..5 {
        for _ in 0..25 {
            let packet = talker.frame(round);
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(20);
        }
        // Late packets are left alone; a real pause is filled.
        let fill = rig.worker.stats().packets_fill;
        let skipped = rig.dropped(DropCause::Switch);
        rig.run(60);
        assert_eq!(rig.worker.stats().packets_fill, fill, "round {round}, {skipped} skipped");
        rig.run(440);
        talker.timestamp = talker.timestamp.wrapping_add(8 * 500);
    }
    assert_continuous(&rig.rtp_to(b), 100_000);
    assert!(rig.rtp_to(b).iter().filter(|sent| !sent.forwarded).count() > 80);
}

/// Packets of 120 ms are further apart than the pause that is filled up otherwise.
#[test]
fn long_packets_are_not_filled_up_between() {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |leg| leg.answered = false), rig.add_leg(1, |_| {}));
    rig.connect(a, b);
    let mut talker = Talker::new(9);
    let mut fills = Vec::new();
    for spacing_ms in [120, 20, 120] {
        for _ in 0..10 {
            let packet = talker.frame(0x11);
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(spacing_ms);
            talker.timestamp = talker.timestamp.wrapping_add(8 * (spacing_ms as u32 - 20));
        }
        fills.push(rig.worker.stats().packets_fill);
    }
    // Only the first pause of its kind may be taken for silence.
    assert!(fills[0] <= 2, "{fills:?}");
    assert_eq!(fills[1], fills[0], "{fills:?}");
    assert!(fills[2] <= fills[1] + 2, "{fills:?}");
    // The end is noticed all the same: after twice the time between packets.
    rig.run(1_000);
    let end = rig.worker.stats().packets_fill;
    assert!((35..=45).contains(&(end - fills[2])), "{} frames", end - fills[2]);
    // Somebody who sends one packet now and then is no stream: everything between is filled.
    for _ in 0..3 {
        let packet = talker.frame(0x11);
        rig.packet(a, Some(endpoint(0)), &packet);
        rig.run(400);
        talker.timestamp = talker.timestamp.wrapping_add(8 * 380);
    }
    let filled = rig.worker.stats().packets_fill - end;
    assert!((42..=48).contains(&filled), "{filled} frames");
}

#[test]
fn switches_leave_no_gap_and_no_hole() {
    let mut rig = Rig::new();
    let mut a = (rig.add_leg(0, |_| {}), Talker::new(1));
    let mut b = (rig.add_leg(1, |_| {}), Talker::new(2));
    let mut channel = Talker::new(3);
    let far = rig.add_channel(2, 77);
    rig.play(1, a.0, vec![prompt(333, 1)]);
    rig.run(500);
    rig.connect(a.0, b.0);
    rig.connect(b.0, a.0);
    talk(&mut rig, &mut a, &mut b, 300);
    for round in 0..12u64 {
        // A program, the other leg, a far node, nothing: in and out at odd moments.
        rig.run(round % 7);
        rig.play(10 + round as u32, a.0, vec![prompt(90, 0)]);
        talk(&mut rig, &mut a, &mut b, 200);
        rig.run(round % 5);
        rig.connect(b.0, a.0);
        talk(&mut rig, &mut a, &mut b, 200);
        rig.connect(far, a.0);
        for _ in 0..10 {
            let packet = channel.frame(0x33);
            rig.run(13);
            rig.trunk_packet(1, 77, &packet);
            rig.run(7);
        }
        rig.command(WorkerCommand::Disconnect { from: far, to: a.0 });
        rig.run(100);
    }
    assert_continuous(&rig.rtp_to(a.0), 60_000);
    let heard: Vec<u8> = rig.rtp_to(a.0).iter().map(|sent| sent.rtp().payload()[80]).collect();
    for value in [0x22, 0x33] {
        let count = heard.iter().filter(|heard| **heard == value).count();
        assert!(
            count >= 90,
            "{count} packets of 0x{value:x}: at most some are lost at each switch"
        );
    }
    rig.command(WorkerCommand::RemovePort { port: a.0 });
    let Some(WorkerEvent::PortRemoved { stats, .. }) = rig.events.last() else { panic!() };
    assert!(stats.longest_gap_out_us <= 60_000, "{}", stats.longest_gap_out_us);
}

#[test]
fn a_leg_whose_source_vanishes_is_filled() {
    let mut rig = Rig::new();
    let mut a = (rig.add_leg(0, |_| {}), Talker::new(1));
    let mut b = (rig.add_leg(1, |_| {}), Talker::new(2));
    rig.connect(a.0, b.0);
    rig.connect(b.0, a.0);
    talk(&mut rig, &mut a, &mut b, 400);
    rig.command(WorkerCommand::RemovePort { port: b.0 });
    rig.run(400);
    assert_continuous(&rig.rtp_to(a.0), 40_000);
    let packet = b.1.frame(1);
    rig.packet(b.0, None, &packet);
    assert_eq!(rig.dropped(DropCause::UnknownPort), 1);
}

#[test]
fn several_receivers_get_the_same_audio() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    let b = rig.add_leg(1, |leg| leg.send = PCMA);
    let c = rig.add_channel(2, 5);
    let d = rig.add_leg(3, |_| {});
    for to in [b, c, d] {
        rig.connect(a, to);
    }
    let packet = Talker::new(1).frame(0x55);
    rig.packet(a, Some(endpoint(0)), &packet);
    let relayed = |port| rig.rtp_to(port).into_iter().rev().find(|s| s.rtp().payload()[0] != 0xff);
    assert_eq!(relayed(b).unwrap().rtp().payload(), [g711::ULAW_TO_ALAW[0x55]; 160]);
    assert_eq!(relayed(d).unwrap().rtp().payload(), [0x55; 160]);
    let trunk: Vec<_> = rig.net.sent.iter().filter(|sent| sent.trunk.is_some()).collect();
    assert_eq!((trunk.len(), trunk[0].rtp().payload()), (1, &[0x55; 160][..]));
    assert_eq!(rig.net.sent.iter().filter(|sent| sent.forwarded).count(), 1);
}

#[test]
fn counters_tell_where_packets_went() {
    let mut rig = Rig::new();
    let mut a = (rig.add_leg(0, |_| {}), Talker::new(1));
    let far = rig.add_channel(2, 5);
    rig.connect(a.0, far);
    for _ in 0..50 {
        let packet = a.1.frame(1);
        rig.packet(a.0, Some(endpoint(0)), &packet);
        rig.run(20);
    }
    rig.command(WorkerCommand::Snapshot { session: SESSION, phase: 4 });
    let Some(WorkerEvent::Snapshot { phase: 4, counters, .. }) = rig.events.last() else {
        panic!()
    };
    assert_eq!(counters.packets_out_of_region, 50);
    assert_eq!(counters.packets_from_endpoints, 50);
    assert_eq!(counters.packets_to_endpoints, rig.rtp_to(a.0).len() as u64);
}

#[test]
fn a_digit_by_signalling_reaches_the_receivers_once() {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |_| {}));
    rig.connect(a, b);
    let mut talker = Talker::new(1);
    for n in 0..50 {
        let packet = talker.frame(1);
        rig.packet(a, Some(endpoint(0)), &packet);
        if n == 10 {
            rig.command(WorkerCommand::InjectDigit { port: a, digit: '7', duration_ms: 100 });
        }
        rig.run(20);
    }
    let sent = rig.rtp_to(b);
    let events: Vec<_> = sent.iter().filter(|s| s.rtp().payload_type().get() == 101).collect();
    assert_eq!(events.len(), 7);
    assert!(events.iter().all(|sent| sent.rtp().payload()[0] == 7));
    assert_eq!(events.iter().filter(|sent| sent.rtp().payload()[1] & 0x80 != 0).count(), 3);
    assert_continuous(&sent, 60_000);
    assert!(rig.dropped(DropCause::Replaced) >= 6);
}
