//! MED-10: recordings of what a port sends, beside what arrives there.

mod common;

use common::*;
use edge_media::command::*;
use edge_media::recording::RecorderMessage;
use media_core::codec::Codec;
use std::sync::Arc;

fn record(rig: &mut Rig, port: PortKey, track: RecordTrack) {
    let program = RecordProgram {
        recorder: RecorderHandle(5),
        with: None,
        track,
        paused: None,
        dual_channel: track == RecordTrack::Both,
        start: ProgramStart::Now,
        length_max_ms: 3_600_000,
        silence_timeout_ms: 0,
        finish_on: String::new(),
        trim_silence: false,
    };
    rig.command(WorkerCommand::StartRecord { op: op(8), port, program });
}

/// One value for every 20 ms of each channel: a sample from the middle.
fn blocks(rig: &Rig) -> Vec<[i16; 2]> {
    let audio = rig.net.recorded.iter().filter_map(|message| match message {
        RecorderMessage::Audio(block) => Some(block),
        RecorderMessage::Finish { .. } => None,
    });
    let middle = |block: &edge_media::recording::AudioBlock| match block.channels {
        2 => [block.samples[160], block.samples[161]],
        _ => [block.samples[80], 0],
    };
    audio.map(middle).collect()
}

fn code(sample: i16) -> [u8; 160] {
    let mut payload = [0; 160];
    Codec::Pcmu.encode(&[sample; 160], &mut payload);
    payload
}

fn near(value: i16, wanted: i16) -> bool {
    (value - wanted).abs() < 300
}

fn prompt(sample: i16, ms: usize) -> Vec<ProgramItem> {
    let prompt = Arc::new(Prompt { samples: vec![sample; ms * 8] });
    vec![ProgramItem::Prompt { prompt, times: 1 }]
}

#[test]
fn what_is_relayed_and_what_is_played_is_the_second_channel() {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |leg| leg.send = PCMA));
    rig.connect(a, b);
    rig.connect(b, a);
    record(&mut rig, b, RecordTrack::Both);
    let (mut x, mut y) = (Talker::new(1), Talker::new(2));
    for n in 0..150 {
        if n == 100 {
            rig.play(1, b, prompt(4_000, 1_000));
        }
        let packet = x.next(&code(8_031));
        rig.packet(a, Some(endpoint(0)), &packet);
        let packet = y.next(&code(1_000));
        rig.packet(b, Some(endpoint(1)), &packet);
        rig.run(20);
    }
    // Nothing of it is different for the two who talk.
    assert!(rig.rtp_to(b).len() >= 149 && rig.rtp_to(a).len() >= 149);
    let blocks = blocks(&rig);
    assert!(near(blocks[50][0], 1_000) && near(blocks[50][1], 8_031), "{:?}", blocks[50]);
    assert!(near(blocks[130][0], 1_000) && near(blocks[130][1], 4_000), "{:?}", blocks[130]);
}

#[test]
fn one_direction_alone_and_interruptions() {
    for (track, wanted) in [(RecordTrack::Received, 1_000), (RecordTrack::Sent, 4_000)] {
        for pause in [RecordPause::Silence, RecordPause::Skip] {
            let mut rig = Rig::new();
            let a = rig.add_leg(0, |_| {});
            record(&mut rig, a, track);
            rig.play(1, a, prompt(4_000, 10_000));
            let mut talker = Talker::new(1);
            for n in 0..200 {
                let change = match n {
                    50 => Some(Some(pause)),
                    150 => Some(None),
                    _ => None,
                };
                if let Some(pause) = change {
                    rig.command(WorkerCommand::PauseRecord { op: op(8), pause });
                }
                let packet = talker.next(&code(1_000));
                rig.packet(a, Some(endpoint(0)), &packet);
                rig.run(20);
            }
            rig.command(WorkerCommand::StopOp { op: op(8) });
            let blocks = blocks(&rig);
            let loud = blocks.iter().filter(|block| near(block[0], wanted)).count();
            let length = if pause == RecordPause::Silence { 200 } else { 100 };
            assert!((length - 2..=length + 1).contains(&blocks.len()), "{}", blocks.len());
            assert!((90..=102).contains(&loud), "{track:?} {pause:?}: {loud}");
            // The port is as it was.
            let before = blocks.len();
            rig.run(200);
            assert_eq!(blocks.len(), before);
        }
    }
}

#[test]
fn recordings_of_what_is_sent_are_limited() {
    let mut rig = Rig::new();
    let a = rig.add_leg(0, |_| {});
    record(&mut rig, a, RecordTrack::Sent);
    rig.command(WorkerCommand::RemovePort { port: a });
    let b = rig.add_leg(1, |_| {});
    record(&mut rig, b, RecordTrack::Sent);
    rig.run(100);
    rig.command(WorkerCommand::StopOp { op: op(8) });
    let finished = |m: &&RecorderMessage| matches!(m, RecorderMessage::Finish { .. });
    assert_eq!(rig.net.recorded.iter().filter(finished).count(), 2);
}
