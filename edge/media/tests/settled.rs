//! Streams that have settled: nobody can tell by packets or figures that theirs took the short way.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use common::*;
use edge_media::Component;
use edge_media::command::*;
use edge_media::event::*;
use proptest::prelude::*;

/// What an endpoint does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Talk,
    Lose,
    Repeat,
    /// The next two packets in the other order.
    Overtake,
    Key(u8),
    /// As long as this, in ms.
    Pause(u64),
    /// Another SSRC.
    Restart,
    OtherCodec,
    Report,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => Just(Step::Talk),
        3 => Just(Step::Lose),
        3 => Just(Step::Repeat),
        3 => Just(Step::Overtake),
        1 => (0u8..12).prop_map(Step::Key),
        2 => (0u64..400).prop_map(Step::Pause),
        1 => Just(Step::Restart),
        1 => Just(Step::OtherCodec),
        1 => Just(Step::Report),
    ]
}

struct Call {
    rig: Rig,
    ports: [PortKey; 2],
    talkers: [Talker; 2],
}

impl Call {
    fn new(settles: bool) -> Self {
        let mut rig = Rig::new();
        let ports =
            [rig.add_leg(0, |leg| leg.rtcp_mux = true), rig.add_leg(1, |leg| leg.send = PCMA)];
        rig.connect(ports[0], ports[1]);
        rig.connect(ports[1], ports[0]);
        let mut talkers = [Talker::new(5), Talker::new(6)];
        talkers[0].payload_type = PCMA.payload_type;
        if !settles {
            // Somebody listens, for a key that nobody presses.
            for (number, port) in ports.into_iter().enumerate() {
                let (op, keys) = (op(number as u32), "D".to_owned());
                rig.command(WorkerCommand::StartWatch { op, port, keys });
                rig.command(WorkerCommand::StartOp { op });
            }
        }
        Self { rig, ports, talkers }
    }

    fn packet(&mut self, side: usize, packet: &[u8]) {
        let tied =
            self.rig.net.peers.iter().any(|(port, component, _)| {
                (*port, *component) == (self.ports[side], Component::Rtp)
            });
        let source = (!tied).then(|| endpoint(side as u32));
        self.rig.packet(self.ports[side], source, packet);
    }

    fn take(&mut self, side: usize, step: Step) {
        match step {
            Step::Talk => {
                let packet = self.talkers[side].frame(1);
                self.packet(side, &packet);
            }
            Step::Lose => drop(self.talkers[side].frame(2)),
            Step::Repeat => {
                let packet = self.talkers[side].frame(3);
                self.packet(side, &packet);
                self.packet(side, &packet);
            }
            Step::Overtake => {
                let first = self.talkers[side].frame(4);
                let second = self.talkers[side].frame(5);
                self.packet(side, &second);
                self.packet(side, &first);
            }
            Step::Key(event) => {
                for packet in self.talkers[side].digit(event) {
                    self.packet(side, &packet);
                    self.rig.run(20);
                }
            }
            Step::Pause(ms) => {
                self.rig.run(ms);
                let talker = &mut self.talkers[side];
                talker.timestamp = talker.timestamp.wrapping_add(ms as u32 * 8);
            }
            Step::Restart => self.talkers[side].ssrc += 10,
            Step::OtherCodec => {
                let mut other = self.talkers[side].clone();
                other.payload_type ^= PCMA.payload_type;
                let packet = other.frame(6);
                self.talkers[side].seq = other.seq;
                self.talkers[side].timestamp = other.timestamp;
                self.packet(side, &packet);
            }
            // An empty receiver report on the port of RTP: for the leg with mux, refused at the other.
            Step::Report => self.packet(side, &[0x80, 201, 0, 1, 0, 0, 0, 5]),
        }
        self.rig.run(10);
    }

    fn end(mut self) -> (Vec<Vec<u8>>, Vec<WorkerEvent>, u64) {
        for port in self.ports {
            self.rig.command(WorkerCommand::RemovePort { port });
        }
        let rtp = self.ports.iter().flat_map(|port| self.rig.rtp_to(*port));
        let sent = rtp.map(|sent| [&sent.us.to_be_bytes(), &sent.bytes[..]].concat()).collect();
        let stats = self.rig.worker.stats();
        let of_ports = |event: &WorkerEvent| !format!("{event:?}").contains("OpKey");
        let events = self.rig.events.into_iter().filter(of_ports).collect();
        (sent, events, stats.packets_settled)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn packets_events_and_figures_are_those_of_the_long_way(
        steps in prop::collection::vec((0usize..2, step()), 50..400),
    ) {
        let (mut short, mut long) = (Call::new(true), Call::new(false));
        for (side, step) in steps {
            short.take(side, step);
            long.take(side, step);
        }
        let (short, long) = (short.end(), long.end());
        prop_assert_eq!(short.0, long.0);
        prop_assert_eq!(short.1, long.1);
        prop_assert_eq!(long.2, 0, "the model settles nothing");
    }
}

fn bridge() -> (Rig, PortKey, PortKey) {
    let mut rig = Rig::new();
    let (a, b) = (rig.add_leg(0, |_| {}), rig.add_leg(1, |_| {}));
    rig.connect(a, b);
    rig.connect(b, a);
    (rig, a, b)
}

fn talk(rig: &mut Rig, port: PortKey, talker: &mut Talker, packets: u32) {
    for _ in 0..packets {
        let packet = talker.frame(7);
        rig.packet(port, Some(endpoint(port.index)), &packet);
        rig.run(20);
    }
}

#[test]
fn nearly_all_packets_of_a_steady_stream_take_the_short_way() {
    let (mut rig, a, _) = bridge();
    talk(&mut rig, a, &mut Talker::new(5), 500);
    let stats = rig.worker.stats();
    assert!(stats.packets_settled >= 490, "{stats:?}");
    assert_eq!((stats.packets_relayed, stats.packets_from_endpoints), (500, 500));
}

#[test]
fn a_settled_stream_follows_its_receiver_to_a_new_address() {
    let (mut rig, a, b) = bridge();
    let mut talker = Talker::new(5);
    talk(&mut rig, a, &mut talker, 50);
    assert!(rig.worker.stats().packets_settled > 0);
    assert_eq!(rig.rtp_to(b).last().unwrap().to, Some(endpoint(1)));
    // Within the network of SDP, as behind a NAT.
    let moved = address("192.0.2.99:1");
    let packet = Talker::new(6).frame(8);
    rig.packet(b, Some(moved), &packet);
    let settled = rig.worker.stats().packets_settled;
    talk(&mut rig, a, &mut talker, 50);
    assert!(rig.rtp_to(b).iter().rev().take(50).all(|sent| sent.to == Some(moved)));
    assert!(rig.worker.stats().packets_settled > settled, "and it settles again");
}

#[test]
fn a_foreign_source_gets_nothing_out_of_a_settled_stream() {
    let (mut rig, a, b) = bridge();
    let mut talker = Talker::new(5);
    talk(&mut rig, a, &mut talker, 50);
    let (sent, settled) = (rig.rtp_to(b).len(), rig.worker.stats().packets_settled);
    let packet = talker.clone().frame(9);
    rig.packet(a, Some(address("203.0.113.66:4444")), &packet);
    assert_eq!(rig.rtp_to(b).len(), sent);
    assert_eq!(rig.dropped(edge_media::DropCause::ForeignSource), 1);
    talk(&mut rig, a, &mut talker, 1);
    assert_eq!(rig.worker.stats().packets_settled, settled + 1, "it stayed settled");
}

#[test]
fn a_settled_stream_that_stops_is_filled_and_times_out() {
    let (mut rig, a, b) = bridge();
    let config = LegConfig { media_timeout_ms: Some(2_000), ..leg(0) };
    rig.command(WorkerCommand::UpdateLeg { port: a, config });
    talk(&mut rig, a, &mut Talker::new(5), 100);
    assert!(rig.worker.stats().packets_settled > 0);
    rig.run(3_000);
    assert!(rig.events.contains(&WorkerEvent::MediaTimeout { port: a }));
    assert_continuous(&rig.rtp_to(b), 200_000);
}
