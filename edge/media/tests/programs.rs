//! Play, collect, record, watch, and what becomes of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::sync::Arc;

use common::*;
use edge_media::command::*;
use edge_media::event::*;
use edge_media::recording::RecorderMessage;
use link_proto::OpId;
use media_core::codec::Codec;
use media_core::dtmf::{Digit, detect, generate};
use media_core::units::SampleRate;

fn prompt(ms: usize, times: u32) -> ProgramItem {
    ProgramItem::Prompt { prompt: Arc::new(Prompt { samples: vec![4_000; ms * 8] }), times }
}

fn collect(rig: &mut Rig, number: u32, port: PortKey, change: impl FnOnce(&mut CollectProgram)) {
    let mut program = CollectProgram {
        digits_max: Some(4),
        finish_on: "#".to_owned(),
        timeout_ms: 5_000,
        timer: ProgramStart::Now,
        stops_play: None,
    };
    change(&mut program);
    rig.command(WorkerCommand::StartCollect { op: op(number), port, program });
}

fn press(rig: &mut Rig, port: PortKey, talker: &mut Talker, keys: &str) {
    for key in keys.chars() {
        let event = Digit::from_char(key).unwrap().event();
        for packet in talker.digit(event) {
            rig.packet(port, Some(endpoint(port.index)), &packet);
            rig.run(20);
        }
    }
}

fn done(rig: &Rig, number: u32) -> Option<(String, CollectEnd)> {
    rig.events.iter().find_map(|event| match event {
        WorkerEvent::CollectDone { op: done, digits, end } if *done == op(number) => {
            Some((digits.clone(), *end))
        }
        _ => None,
    })
}

fn count(rig: &Rig, wanted: impl Fn(&WorkerEvent) -> bool) -> usize {
    rig.events.iter().filter(|event| wanted(event)).count()
}

#[test]
fn the_first_prompt_does_not_wait_for_the_rhythm_of_silence() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    rig.run(7);
    let begin = rig.us();
    rig.play(1, a, vec![prompt(200, 1)]);
    rig.run(100);
    let sent = rig.rtp_to(a);
    assert_eq!(sent[0].us, begin);
    assert!(sent[0].rtp().payload().iter().any(|byte| *byte != 0xff), "not silence");
}

#[test]
fn a_prompt_is_paced_and_ends_once() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |leg| leg.answered = false);
    rig.run(7);
    rig.play(1, a, vec![prompt(100, 2), ProgramItem::Beep { length_ms: 40 }]);
    assert_eq!(rig.worker.next_deadline(), Some(rig.now()), "the first frame does not wait");
    rig.run(1_000);
    let sent = rig.rtp_to(a);
    assert_eq!(sent[0].us, 7_000);
    assert_continuous(&sent, 20_000);
    let mut samples = Vec::new();
    for packet in sent.iter().take(12) {
        let mut frame = [0; 160];
        Codec::Pcmu.decode(packet.rtp().payload(), &mut frame);
        samples.extend(frame);
    }
    assert!(samples[..1_600].iter().all(|s| (s - 4_000).abs() < 100));
    assert!(samples[1_600..].iter().any(|s| s.abs() > 5_000), "beep");
    assert!(sent[0].rtp().marker() && !sent[1].rtp().marker() && !sent[13].rtp().marker());
    let end = WorkerEvent::PlayDone { op: op(1), end: PlayEnd::Finished };
    assert_eq!(count(&rig, |event| *event == end), 1);
    assert_eq!(count(&rig, |event| *event == WorkerEvent::PlayStarted { op: op(1) }), 1);
    assert!(matches!(rig.worker.poll_returned(), Some(edge_media::Returned::Leg(_))));
    assert!(matches!(rig.worker.poll_returned(), Some(edge_media::Returned::Items(_))));
}

#[test]
fn the_next_program_replaces_the_one_that_plays() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    rig.play(1, a, vec![prompt(1_000, 0)]);
    rig.run(333);
    rig.play(2, a, vec![ProgramItem::Ringback { country: *b"gb" }]);
    rig.run(333);
    rig.command(WorkerCommand::StopOp { op: op(2) });
    rig.command(WorkerCommand::StopOp { op: op(2) });
    rig.play(3, a, vec![]);
    rig.run(100);
    rig.play(4, key(9), vec![prompt(10, 1)]);
    let ends: Vec<_> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            WorkerEvent::PlayDone { op, end } => Some((op.op.0, *end)),
            _ => None,
        })
        .collect();
    let expected = [
        (1, PlayEnd::Stopped),
        (2, PlayEnd::Stopped),
        (3, PlayEnd::Finished),
        (4, PlayEnd::LegEnded),
    ];
    assert_eq!(ends, expected);
    assert_continuous(&rig.rtp_to(a), 20_000);
}

#[test]
fn a_program_waits_for_an_address_and_goes_on_unheard_on_hold() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |leg| leg.remote_rtp = None);
    rig.play(1, a, vec![prompt(1_000, 1)]);
    rig.run(3_000);
    assert_eq!(count(&rig, |event| matches!(event, WorkerEvent::PlayStarted { .. })), 0);
    let mut config = leg(0);
    rig.command(WorkerCommand::UpdateLeg { port: a, config: config.clone() });
    rig.run(500);
    config.direction = Direction::Inactive;
    rig.command(WorkerCommand::UpdateLeg { port: a, config });
    rig.run(600);
    assert_eq!(count(&rig, |event| matches!(event, WorkerEvent::PlayDone { .. })), 1);
    assert!((24..=26).contains(&rig.rtp_to(a).len()));
}

#[test]
fn programs_play_into_the_trunk_as_well() {
    let mut rig = Rig::new();
    let far = rig.add_channel(1, 9);
    let digits = ProgramItem::Digits { digits: "12".to_owned() };
    rig.play(1, far, vec![prompt(200, 1), digits]);
    rig.run(2_000);
    let sent: Vec<_> = rig.net.sent.iter().filter(|sent| sent.trunk.is_some()).collect();
    let events = sent.iter().filter(|sent| sent.rtp().payload_type().get() == 101).count();
    assert_eq!(events, 14);
    assert_continuous(&sent, 60_000);
    let last_us = sent.last().unwrap().us;
    assert!(last_us < 1_000_000, "channels are not filled: {last_us}");
}

#[test]
fn keys_are_collected_by_the_rules() {
    let cases: [(&str, &str, CollectEnd); 4] = [
        ("1234", "1234", CollectEnd::Complete),
        ("12#", "12", CollectEnd::FinishKey('#')),
        ("7", "7", CollectEnd::Timeout),
        ("", "", CollectEnd::Timeout),
    ];
    for (keys, digits, end) in cases {
        let mut rig = Rig::new();
        let a = rig.add_leg(0, |_| {});
        collect(&mut rig, 1, a, |_| {});
        rig.run(1_000);
        press(&mut rig, a, &mut Talker::new(1), keys);
        rig.run(6_000);
        assert_eq!(done(&rig, 1), Some((digits.to_owned(), end)), "{keys}");
        assert_eq!(
            count(&rig, |e| matches!(e, WorkerEvent::CollectBegun { .. })),
            usize::from(!keys.is_empty())
        );
    }
}

#[test]
fn the_timer_waits_for_its_command() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    collect(&mut rig, 1, a, |program| program.timer = ProgramStart::OnCommand);
    rig.run(60_000);
    assert_eq!(done(&rig, 1), None);
    rig.command(WorkerCommand::StartOp { op: op(1) });
    rig.run(4_999);
    assert_eq!(done(&rig, 1), None);
    rig.run(1);
    assert_eq!(done(&rig, 1), Some((String::new(), CollectEnd::Timeout)));
}

#[test]
fn the_first_digit_stops_the_program() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    rig.play(1, a, vec![prompt(10_000, 1)]);
    collect(&mut rig, 2, a, |program| program.stops_play = Some(OpId(1)));
    rig.run(500);
    press(&mut rig, a, &mut Talker::new(1), "5");
    let stopped = WorkerEvent::PlayDone { op: op(1), end: PlayEnd::Stopped };
    assert_eq!(count(&rig, |event| *event == stopped), 1);
    assert_continuous(&rig.rtp_to(a), 20_000);
}

#[test]
fn the_first_digit_cuts_a_program_of_another_node() {
    let mut rig = Rig::new();
    let (a, far) = (rig.add_leg(0, |_| {}), rig.add_channel(1, 5));
    rig.connect(far, a);
    collect(&mut rig, 2, a, |program| program.stops_play = Some(OpId(1)));
    let mut channel = Talker::new(4);
    let mut heard = |rig: &mut Rig| {
        let packet = channel.frame(0x33);
        rig.trunk_packet(1, 5, &packet);
        rig.run(20);
        rig.rtp_to(a).last().unwrap().rtp().payload()[0] == 0x33
            || rig.rtp_to(a).iter().rev().nth(1).unwrap().rtp().payload()[0] == 0x33
    };
    for _ in 0..10 {
        heard(&mut rig);
    }
    assert!(heard(&mut rig));
    press(&mut rig, a, &mut Talker::new(1), "5");
    assert!(!heard(&mut rig));
    assert_continuous(&rig.rtp_to(a), 60_000);
}

#[test]
fn digits_come_once_whichever_way() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    collect(&mut rig, 1, a, |program| program.digits_max = None);
    let mut talker = Talker::new(1);
    let inject = |rig: &mut Rig, digit| {
        rig.command(WorkerCommand::InjectDigit { port: a, digit, duration_ms: 160 });
    };
    press(&mut rig, a, &mut talker, "1");
    inject(&mut rig, '1');
    rig.run(500);
    inject(&mut rig, '2');
    press(&mut rig, a, &mut talker, "2");
    rig.run(500);
    inject(&mut rig, '3');
    rig.run(500);
    // The end packets are lost, then the same key again.
    for packet in talker.digit(4).iter().take(3) {
        rig.packet(a, Some(endpoint(0)), packet);
        rig.run(20);
    }
    rig.run(300);
    press(&mut rig, a, &mut talker, "4");
    rig.run(6_000);
    assert_eq!(done(&rig, 1), Some(("12344".to_owned(), CollectEnd::Timeout)));
    assert_eq!(rig.worker.stats().digits_doubled, 2);
}

#[test]
fn keys_in_the_audio_count_where_there_is_no_telephone_event() {
    for telephone_event in [None, Some(101)] {
        let mut rig = Rig::new();
        let a = rig.add_leg(0, |leg| leg.telephone_event_receive = telephone_event);
        collect(&mut rig, 1, a, |_| {});
        let mut talker = Talker::new(1);
        let samples = generate::render("159#", SampleRate::HZ_8000, 100, 100);
        for frame in samples.chunks_exact(160) {
            let mut payload = [0; 160];
            Codec::Pcmu.encode(frame, &mut payload);
            let packet = talker.next(&payload);
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(20);
        }
        let expected =
            telephone_event.is_none().then(|| ("159".to_owned(), CollectEnd::FinishKey('#')));
        assert_eq!(done(&rig, 1), expected);
    }
}

#[test]
fn digits_are_played_as_tones_to_a_leg_without_telephone_event() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |leg| leg.telephone_event_send = None);
    rig.play(1, a, vec![ProgramItem::Digits { digits: "42".to_owned() }]);
    rig.run(600);
    let mut detector = detect::DtmfDetector::new(SampleRate::HZ_8000).unwrap();
    let mut heard = String::new();
    for sent in rig.rtp_to(a) {
        let mut frame = [0; 160];
        Codec::Pcmu.decode(sent.rtp().payload(), &mut frame);
        detector.process(&frame, |event| {
            if let detect::ToneEvent::Start(digit) = event {
                heard.push(digit.as_char());
            }
        });
    }
    assert_eq!(heard, "42");
}

#[test]
fn watched_keys_are_reported_each_time() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    rig.command(WorkerCommand::StartWatch { op: op(1), port: a, keys: "*".to_owned() });
    let mut talker = Talker::new(1);
    press(&mut rig, a, &mut talker, "1*2**");
    assert_eq!(count(&rig, |e| *e == WorkerEvent::Key { op: op(1), key: '*' }), 3);
    rig.command(WorkerCommand::StopOp { op: op(1) });
    press(&mut rig, a, &mut talker, "*");
    assert_eq!(count(&rig, |e| matches!(e, WorkerEvent::Key { .. })), 3);
}

fn record(rig: &mut Rig, port: PortKey, change: impl FnOnce(&mut RecordProgram)) {
    let mut program = RecordProgram {
        recorder: RecorderHandle(5),
        with: None,
        track: edge_media::command::RecordTrack::Received,
        paused: None,
        dual_channel: false,
        start: ProgramStart::Now,
        length_max_ms: 3_600_000,
        silence_timeout_ms: 0,
        finish_on: String::new(),
        trim_silence: false,
    };
    change(&mut program);
    rig.command(WorkerCommand::StartRecord { op: op(8), port, program });
}

/// What the recorder got: samples per channel, and the range that is kept.
fn recorded(rig: &Rig) -> (Vec<Vec<i16>>, Option<(u64, u64)>) {
    let mut channels = vec![Vec::new(), Vec::new()];
    let mut kept = None;
    for message in &rig.net.recorded {
        match message {
            RecorderMessage::Audio(block) => {
                let count = usize::from(block.channels);
                for pair in block.samples[..160 * count].chunks_exact(count) {
                    for (channel, sample) in channels.iter_mut().zip(pair) {
                        channel.push(*sample);
                    }
                }
            }
            RecorderMessage::Finish { recorder, first_sample, sample_count } => {
                assert_eq!(*recorder, RecorderHandle(5));
                assert_eq!(kept.replace((*first_sample, *sample_count)), None);
            }
        }
    }
    (channels, kept)
}

fn record_done(rig: &Rig) -> Option<(u64, RecordEnd)> {
    rig.events.iter().find_map(|event| match event {
        WorkerEvent::RecordDone { duration_ms, end, .. } => Some((*duration_ms, *end)),
        _ => None,
    })
}

fn code(sample: i16) -> [u8; 160] {
    let mut payload = [0; 160];
    Codec::Pcmu.encode(&[sample; 160], &mut payload);
    payload
}

#[test]
fn a_recording_is_as_long_as_the_clock_says() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    record(&mut rig, a, |_| {});
    let mut talker = Talker::new(1);
    for n in 0..1_000 {
        // Every tenth packet is lost, and for two seconds nothing comes at all.
        let packet = talker.next(&code(8_000));
        if n % 10 != 3 && !(400..500).contains(&n) {
            rig.packet(a, Some(endpoint(0)), &packet);
        }
        rig.run(20);
    }
    rig.command(WorkerCommand::StopOp { op: op(8) });
    let (channels, kept) = recorded(&rig);
    assert_eq!(record_done(&rig), Some((20_000, RecordEnd::Stopped)));
    assert_eq!(kept, Some((0, 160_000)));
    assert_eq!(channels[0].len(), 160_000);
    let silent = channels[0].iter().filter(|s| **s == 0).count() / 8;
    assert!((1_900..2_200).contains(&silent), "{silent} ms of silence");
}

#[test]
fn two_ports_are_two_channels_or_a_mix() {
    for dual_channel in [true, false] {
        let mut rig = Rig::new();
        let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |_| {}));
        record(&mut rig, a, |program| {
            program.with = Some(key(1));
            program.dual_channel = dual_channel;
        });
        let (mut x, mut y) = (Talker::new(1), Talker::new(2));
        for n in 0..100 {
            let packet = x.next(&code(8_031));
            rig.packet(a, Some(endpoint(0)), &packet);
            let packet = y.next(&code(1_000));
            if n < 50 {
                rig.packet(b, Some(endpoint(1)), &packet);
            }
            if n == 60 {
                rig.command(WorkerCommand::RemovePort { port: b });
            }
            rig.run(20);
        }
        rig.command(WorkerCommand::RemovePort { port: a });
        assert_eq!(record_done(&rig), Some((2_000, RecordEnd::LegEnded)));
        let (channels, _) = recorded(&rig);
        let near = |value: i16, wanted: i16| (value - wanted).abs() < 300;
        let (early, late) = (160 * 25, 160 * 80);
        if dual_channel {
            assert!(near(channels[0][early], 8_031) && near(channels[1][early], 1_000));
            assert!(near(channels[0][late], 8_031) && channels[1][late] == 0);
        } else {
            assert!(near(channels[0][early], 9_031) && near(channels[0][late], 8_031));
        }
    }
}

#[test]
fn silence_ends_a_recording_only_while_rtp_arrives() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    record(&mut rig, a, |program| {
        program.silence_timeout_ms = 3_000;
        program.trim_silence = true;
    });
    let mut talker = Talker::new(1);
    let mut speak = |rig: &mut Rig, sample: i16, ms: u64| {
        for _ in 0..ms / 20 {
            let packet = talker.next(&code(sample));
            rig.packet(a, Some(endpoint(0)), &packet);
            rig.run(20);
        }
    };
    speak(&mut rig, 0, 1_000);
    speak(&mut rig, 8_000, 2_000);
    rig.run(20_000);
    assert_eq!(record_done(&rig), None, "nothing arrives: nobody is silent");
    speak(&mut rig, 0, 2_500);
    assert_eq!(record_done(&rig), None);
    speak(&mut rig, 0, 1_000);
    let (duration_ms, end) = record_done(&rig).unwrap();
    assert_eq!(end, RecordEnd::Silence);
    assert!((2_100..=2_300).contains(&duration_ms), "trimmed to {duration_ms} ms");
    let (first, _) = recorded(&rig).1.unwrap();
    assert!((160 * 40..=160 * 52).contains(&first), "{first}");
}

#[test]
fn keys_length_and_start_rule_a_recording() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    let mut talker = Talker::new(1);
    record(&mut rig, a, |program| program.length_max_ms = 1_000);
    rig.run(2_000);
    assert_eq!(record_done(&rig), Some((1_000, RecordEnd::LengthMax)));
    rig.events.clear();
    record(&mut rig, a, |program| {
        program.start = ProgramStart::OnCommand;
        program.finish_on = "#".to_owned();
    });
    rig.run(1_000);
    press(&mut rig, a, &mut talker, "#");
    assert_eq!(record_done(&rig), None, "it has not begun");
    rig.command(WorkerCommand::StartOp { op: op(8) });
    rig.run(1_000);
    press(&mut rig, a, &mut talker, "1#");
    let (duration_ms, end) = record_done(&rig).unwrap();
    assert_eq!(end, RecordEnd::FinishKey('#'));
    assert!((1_140..=1_180).contains(&duration_ms), "{duration_ms}");
}

#[test]
fn programs_that_find_no_room_say_so() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    for number in 0..9 {
        collect(&mut rig, number, a, |_| {});
    }
    assert_eq!(done(&rig, 8), Some((String::new(), CollectEnd::Stopped)));
    rig.play(20, a, vec![prompt(10, 1)]);
    let failed = WorkerEvent::PlayDone { op: op(20), end: PlayEnd::Failed };
    assert_eq!(count(&rig, |event| *event == failed), 1);
    record(&mut rig, a, |_| {});
    assert_eq!(record_done(&rig), Some((0, RecordEnd::Failed)));
    for index in 1..10 {
        rig.add_leg(index, |_| {});
    }
    assert_eq!(count(&rig, |e| matches!(e, WorkerEvent::PortRefused { .. })), 2);
    assert_eq!(rig.worker.stats().refused, 5);
}

#[test]
fn removed_ports_end_their_programs_and_leave_nothing() {
    let mut rig = Rig::new();
    for generation in 0..20 {
        let port = PortKey { index: 3, generation };
        rig.command(WorkerCommand::AddLeg { port, session: SESSION, config: leg(3) });
        rig.play(1, port, vec![prompt(1_000, 0)]);
        collect(&mut rig, 2, port, |_| {});
        record(&mut rig, port, |_| {});
        rig.command(WorkerCommand::StartWatch { op: op(4), port, keys: "*".to_owned() });
        rig.run(100);
        rig.events.clear();
        rig.command(WorkerCommand::RemovePort { port });
        assert_eq!(rig.events.len(), 4);
        let WorkerEvent::PortRemoved { stats, .. } = &rig.events[3] else { panic!() };
        assert_eq!(stats.packets_sent, 6);
        assert!(rig.events[..3].iter().all(|event| matches!(
            event,
            WorkerEvent::PlayDone { end: PlayEnd::LegEnded, .. }
                | WorkerEvent::CollectDone { end: CollectEnd::LegEnded, .. }
                | WorkerEvent::RecordDone { end: RecordEnd::LegEnded, .. }
        )));
        let stats = rig.worker.stats();
        assert_eq!((stats.ports, stats.ops), (0, 0));
        assert_eq!(rig.worker.next_deadline(), None);
    }
    assert_eq!(rig.worker.stats().refused, 0);
}

#[test]
fn media_timeouts_run_only_where_rtp_is_due() {
    let mut rig = Rig::new();
    let timeouts = |rig: &Rig| count(rig, |e| matches!(e, WorkerEvent::MediaTimeout { .. }));
    let mut config = LegConfig { media_timeout_ms: Some(3_000), answered: false, ..leg(0) };
    rig.command(WorkerCommand::AddLeg { port: key(0), session: SESSION, config: config.clone() });
    rig.run(10_000);
    assert_eq!(timeouts(&rig), 0, "not answered");
    config.answered = true;
    rig.command(WorkerCommand::UpdateLeg { port: key(0), config: config.clone() });
    let mut talker = Talker::new(1);
    for _ in 0..500 {
        let packet = talker.frame(1);
        rig.packet(key(0), Some(endpoint(0)), &packet);
        rig.run(20);
    }
    rig.run(2_960);
    assert_eq!(timeouts(&rig), 0);
    rig.run(60);
    assert_eq!(timeouts(&rig), 1);
    rig.run(10_000);
    assert_eq!(timeouts(&rig), 1, "once");
    let packet = talker.frame(1);
    rig.packet(key(0), Some(endpoint(0)), &packet);
    rig.run(3_100);
    assert_eq!(timeouts(&rig), 2, "again after RTP came");
    config.direction = Direction::SendOnly;
    rig.command(WorkerCommand::UpdateLeg { port: key(0), config: config.clone() });
    rig.run(10_000);
    config.direction = Direction::SendRecv;
    rig.command(WorkerCommand::UpdateLeg { port: key(0), config });
    rig.run(2_900);
    assert_eq!(timeouts(&rig), 2, "hold is not silence");
    rig.run(200);
    assert_eq!(timeouts(&rig), 3);
}
