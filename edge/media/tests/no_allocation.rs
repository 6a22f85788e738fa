//! Packets and ticks of a running worker allocate nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{PCMA, SESSION, Talker, endpoint, key, leg, limits, op};
use edge_media::command::*;
use edge_media::recording::RecorderMessage;
use edge_media::{Component, Tx, Worker, WorkerConfig};
use link_proto::ChannelId;

/// Counts what is sent, and keeps nothing.
#[derive(Default)]
struct Sink(u64);

impl Tx for Sink {
    fn forward(&mut self, _: PortKey, _: Component, _: SocketAddr, _: &[u8]) {
        self.0 += 1;
    }
    fn send(&mut self, _: PortKey, _: Component, _: SocketAddr, _: &[u8]) {
        self.0 += 1;
    }
    fn trunk(&mut self, _: u32, _: ChannelId, _: &[u8]) {
        self.0 += 1;
    }
    fn set_peer(&mut self, _: PortKey, _: Component, _: Option<SocketAddr>) {}
    fn record(&mut self, _: RecorderMessage) {
        self.0 += 1;
    }
}

#[test]
fn packets_and_ticks_allocate_nothing() {
    let start = Instant::now();
    let mut worker = Worker::new(WorkerConfig { limits: limits(), seed: 1 }, start);
    let mut sink = Sink::default();
    let mut commands = Vec::new();
    for index in 0..3 {
        let mut config = leg(index);
        if index == 1 {
            (config.send, config.telephone_event_receive) = (PCMA, None);
        }
        commands.push(WorkerCommand::AddLeg { port: key(index), session: SESSION, config });
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (key(from), key(to));
        commands.push(WorkerCommand::Connect { from, to, path: LinkPath::Transcode });
    }
    let items = vec![
        ProgramItem::Digits { digits: "12".to_owned() },
        ProgramItem::Ringback { country: *b"de" },
    ];
    commands.push(WorkerCommand::StartPlay { op: op(1), port: key(2), items });
    commands.push(WorkerCommand::StartWatch { op: op(2), port: key(1), keys: "*".to_owned() });
    let program = RecordProgram {
        recorder: RecorderHandle(1),
        with: Some(key(1)),
        track: edge_media::command::RecordTrack::Received,
        paused: None,
        dual_channel: true,
        start: ProgramStart::Now,
        length_max_ms: 600_000,
        silence_timeout_ms: 0,
        finish_on: String::new(),
        trim_silence: false,
    };
    let both = RecordProgram {
        recorder: RecorderHandle(2),
        with: None,
        track: edge_media::command::RecordTrack::Both,
        ..program.clone()
    };
    commands.push(WorkerCommand::StartRecord { op: op(3), port: key(0), program });
    commands.push(WorkerCommand::StartRecord { op: op(4), port: key(1), program: both });
    for command in commands {
        worker.handle_command(start, command, &mut sink);
    }
    let mut packets = Vec::new();
    let mut talkers = [Talker::new(1), Talker::new(2)];
    for n in 0..400u64 {
        for (index, talker) in talkers.iter_mut().enumerate() {
            if n % 50 == 7 {
                let digit = talker.digit(10).remove((n % 3) as usize);
                packets.push((n * 20, key(index as u32), Some(endpoint(index as u32)), digit));
            }
            let index = index as u32;
            packets.push((n * 20 + 3, key(index), Some(endpoint(index)), talker.frame(n as u8)));
        }
    }
    let counted = allocation_counter::measure(|| {
        for (ms, port, source, packet) in &mut packets {
            let now = start + Duration::from_millis(*ms);
            worker.handle_tick(now, &mut sink);
            worker.handle_packet(now, *port, Component::Rtp, *source, packet, &mut sink);
            while worker.poll_event().is_some() {}
        }
    });
    let stats = worker.stats();
    assert!(stats.packets_relayed > 700 && stats.rtcp_sent > 0 && sink.0 > 1_500, "{stats:?}");
    assert_eq!(counted.count_total, 0);
    assert_eq!(counted.count_current, 0, "freed");
}
