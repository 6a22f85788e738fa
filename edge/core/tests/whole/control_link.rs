//! The control link breaks, control restarts, repeats itself, or stays away.

use std::time::Duration;

use edge_core::config::ControlChoice;
use edge_core::{ControlIndex, Input, LinkInput};
use edge_media::command::WorkerCommand;
use edge_media::event::WorkerEvent;
use link_proto::call::{Blame, CallCommand, CallEvent, DialParams, EndReason, OnPeerEnd};
use link_proto::media::{
    AudioCodec, LinkPath, MediaCommand, MediaEvent, PlayItem, Port, PromptKey,
};
use link_proto::message::{CommandMessage, CommandResult, Orphans};
use link_proto::table::{NodeEntry, Resources, Route, Tables};
use link_proto::{CallSid, ChannelId, NodeId, OpId, RegionId};

use crate::world::control::Control;
use crate::world::phone::Manner;
use crate::world::{self, ALICE, BOB, CAROL, World};

const BOB_LEG: CallSid = CallSid([0xb0; 16]);

fn hangup() -> CallCommand {
    CallCommand::Hangup { reason: EndReason::Hangup, whose: Blame::Customer }
}

fn dial(to: &str) -> CallCommand {
    CallCommand::Dial(DialParams {
        to: to.to_owned(),
        from: "+4930111".to_owned(),
        codecs: vec![AudioCodec::Pcmu],
        timeout_ms: 30_000,
        headers: Vec::new(),
        username: None,
        password: None,
        near_leg: None,
    })
}

fn send(world: &mut World, session: CallSid, leg: CallSid, command: CallCommand) -> u64 {
    let id = world.control.send(session, leg, command);
    world.pump();
    id
}

fn offer(world: &mut World) -> CallSid {
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(100);
    world.control.offered()
}

fn bridge(world: &mut World) -> CallSid {
    let alice = offer(world);
    send(world, alice, alice, CallCommand::Accept { codec: None });
    send(world, alice, BOB_LEG, dial("sip:bob@10.0.1.2"));
    send(
        world,
        alice,
        alice,
        CallCommand::Couple {
            peer: BOB_LEG,
            on_peer_end: OnPeerEnd::Hold,
            peer_on_end: OnPeerEnd::End,
        },
    );
    world.run_ms(100);
    for (from, to) in [(alice, BOB_LEG), (BOB_LEG, alice)] {
        let (from, to) = (Port::Leg(from), Port::Leg(to));
        let link = MediaCommand::Link { from, to, path: LinkPath::Relay };
        send(world, alice, alice, CallCommand::Media(link));
    }
    assert!(world.control.is_answered(BOB_LEG));
    alice
}

#[test]
fn lat_14_a_conversation_goes_on_without_control_and_its_end_is_reported_later() {
    let mut world = World::new(1);
    let alice = bridge(&mut world);
    world.disconnect();
    world.run(Duration::from_secs(600));
    assert_eq!(world.edge.legs_live(), 2, "nobody notices");
    world.with_phone(BOB, |bob, now| bob.hang_up(now));
    world.run(Duration::from_secs(20));
    assert_eq!(world.edge.legs_live(), 1, "the callee has ended, the caller is held");
    assert_eq!(world.phone(ALICE).ended_with(), None);
    assert_eq!(world.control.ended(BOB_LEG), None);
    world.connect();
    world.run_ms(100);
    assert_eq!(world.control.ended(BOB_LEG), Some(EndReason::RemoteBye));
    let listed = &world.control.reconciles.last().unwrap().legs;
    assert_eq!(listed.len(), 2, "the ended leg is listed until its end is known: {listed:?}");
    world.run(Duration::from_secs(60));
    assert_eq!(world.control.ended(alice), None, "with control there, patience is over");
    send(&mut world, alice, alice, hangup());
    world.check_clean();
}

#[test]
fn lat_14_a_caller_without_callee_and_control_is_ended_with_a_reason() {
    let mut world = World::new(2);
    let alice = bridge(&mut world);
    world.disconnect();
    world.run(Duration::from_secs(100));
    world.with_phone(BOB, |bob, now| bob.hang_up(now));
    world.run(Duration::from_secs(29));
    assert_eq!(world.edge.legs_live(), 1);
    world.run(Duration::from_secs(2));
    assert_eq!(world.edge.legs_live(), 0);
    let reason = world.phone(ALICE).ended_with();
    assert_eq!(reason.as_deref(), Some("SIP;cause=503;text=\"Call control lost\""));
    world.connect();
    world.run_ms(100);
    assert_eq!(world.control.ended(alice), Some(EndReason::ControlLost));
    world.check_clean();
}

#[test]
fn a_caller_who_waits_for_control_is_ended_too_but_a_short_cut_does_no_harm() {
    for (away_s, expect) in [(20, None), (40, Some(EndReason::ControlLost))] {
        let mut world = World::new(3);
        let leg = offer(&mut world);
        send(&mut world, leg, leg, CallCommand::Accept { codec: None });
        world.run_ms(100);
        world.disconnect();
        world.run(Duration::from_secs(away_s));
        world.connect();
        world.run(Duration::from_secs(40));
        assert_eq!(world.control.ended(leg), expect, "{away_s} s");
        send(&mut world, leg, leg, hangup());
        world.check_clean();
    }
}

#[test]
fn a_new_call_without_control_is_refused_and_not_offered_later() {
    let mut world = World::new(4);
    world.disconnect();
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(100);
    assert_eq!(world.phone(ALICE).failed(), Some(503));
    let refusal = world.sent.iter().find(|(_, bytes)| bytes.starts_with(b"SIP/2.0 503"));
    let text = String::from_utf8_lossy(&refusal.unwrap().1).into_owned();
    assert!(text.contains("Retry-After: 5"), "{text}");
    world.connect();
    world.run_ms(100);
    assert!(world.control.events.is_empty());
    assert_eq!(world.edge.counters().calls_refused_no_control, 1);
    world.check_clean();
}

#[test]
fn events_wait_for_their_commit_and_are_sent_again_in_order() {
    let mut world = World::new(5);
    world.control.mute = true;
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(100);
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(500);
    assert!(world.control.events.is_empty());
    // Control lost what it had not committed, then comes back.
    world.disconnect();
    world.control.mute = false;
    world.connect();
    world.run_ms(10);
    let leg = world.control.offered();
    assert_eq!(world.control.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(world.control.ended(leg), Some(EndReason::RemoteCancel));
    assert!(world.control.reconciles.last().unwrap().legs.is_empty(), "it is new, not unknown");
    assert_eq!(world.edge.counters().events_resent, 2);
    world.check_clean();
}

#[test]
fn a_repeated_command_is_answered_from_memory() {
    let mut world = World::new(6);
    let leg = offer(&mut world);
    let items = vec![PlayItem::Prompt { key: PromptKey("a".to_owned()), times: 1 }];
    let play = MediaCommand::Play { op: OpId(1), port: Port::Leg(leg), items };
    let commands = [CallCommand::Accept { codec: None }, CallCommand::Media(play)];
    let messages: Vec<_> = (1..)
        .zip(commands)
        .map(|(id, command)| CommandMessage { session: leg, id, epoch: 1, leg, command })
        .collect();
    for _ in 0..3 {
        for message in &messages {
            world.input(Input::Link(ControlIndex(0), LinkInput::Command(message.clone())));
        }
        world.run_ms(50);
    }
    assert!(world.control.acks.iter().all(|ack| ack.result == CommandResult::Done));
    assert_eq!(world.control.acks.len(), 6);
    let plays = world.worker.log.iter().filter(|c| matches!(c, WorkerCommand::StartPlay { .. }));
    assert_eq!(plays.count(), 1);
    assert_eq!(world.edge.counters().commands_repeated, 4);
    // A gap is not carried out: what is missing comes again.
    let ahead = CommandMessage { session: leg, id: 4, epoch: 1, leg, command: hangup() };
    world.input(Input::Link(ControlIndex(0), LinkInput::Command(ahead)));
    world.run_ms(50);
    assert_eq!(world.control.ended(leg), None);
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(500);
    // The session is over; a repeat is still one.
    world.input(Input::Link(ControlIndex(0), LinkInput::Command(messages[0].clone())));
    assert_eq!(world.control.acks.last().unwrap().result, CommandResult::Done);
    world.check_clean();
}

#[test]
fn an_old_owner_is_refused() {
    let mut world = World::new(7);
    let leg = offer(&mut world);
    world.control.epoch = 2;
    send(&mut world, leg, leg, CallCommand::Accept { codec: None });
    world.run_ms(50);
    let stale = CommandMessage { session: leg, id: 2, epoch: 1, leg, command: hangup() };
    world.input(Input::Link(ControlIndex(0), LinkInput::Command(stale)));
    let refused = &world.control.acks.last().unwrap().result;
    assert!(matches!(refused, CommandResult::Refused { .. }), "{refused:?}");
    world.run_ms(500);
    assert_eq!(world.control.ended(leg), None);
    assert_eq!(world.edge.counters().commands_old_epoch, 1);
    send(&mut world, leg, leg, hangup());
    world.check_clean();
}

#[test]
fn sessions_that_control_does_not_know_are_ended() {
    let mut world = World::new(8);
    let alice = bridge(&mut world);
    let orphans = Orphans { sessions: vec![alice, CallSid([9; 16])] };
    world.input(Input::Link(ControlIndex(0), LinkInput::Orphans(orphans)));
    world.run_ms(500);
    assert_eq!(world.edge.legs_live(), 0);
    assert!(world.phone(ALICE).ended_with().is_some() && world.phone(BOB).ended_with().is_some());
    assert_eq!(world.control.ended(alice), None, "who does not know it is told nothing");
    assert_eq!(world.edge.counters().orphans, 1);
}

#[test]
fn commands_to_what_is_not_there_are_refused() {
    let mut world = World::new(9);
    let leg = offer(&mut world);
    let nobody = CallSid([9; 16]);
    let link =
        MediaCommand::Link { from: Port::Leg(leg), to: Port::Leg(nobody), path: LinkPath::Relay };
    let couple = CallCommand::Couple {
        peer: nobody,
        on_peer_end: OnPeerEnd::End,
        peer_on_end: OnPeerEnd::End,
    };
    for (who, command) in [
        (nobody, hangup()),
        (nobody, CallCommand::Accept { codec: None }),
        (leg, couple),
        (leg, CallCommand::Media(link)),
        (leg, CallCommand::Reject { status: 200, reason: String::new() }),
        (leg, dial("sip:bob@10.0.1.2")),
        (BOB_LEG, dial("not a number")),
        (BOB_LEG, dial("sip:bob@10.0.1.2;transport=tcp")),
    ] {
        let id = send(&mut world, leg, who, command.clone());
        let result = world.control.result(leg, id);
        assert!(matches!(result, Some(CommandResult::Refused { .. })), "{command:?}: {result:?}");
    }
    let unknown = CommandMessage { session: nobody, id: 7, epoch: 1, leg, command: hangup() };
    world.input(Input::Link(ControlIndex(0), LinkInput::Command(unknown)));
    assert_eq!(world.control.acks.last().unwrap().session, nobody);
    assert_eq!(world.edge.legs_live(), 1);
    send(&mut world, leg, leg, hangup());
    world.check_clean();
}

fn routes(without_instructions: bool) -> Tables {
    let route = Route {
        prefix: "+4930".to_owned(),
        node: NodeId::from("edge-eu"),
        uri: "sip:{number}@10.0.1.2:5060".to_owned(),
        without_instructions,
    };
    Tables { version: 3, nodes: Vec::new(), routes: vec![route] }
}

#[test]
fn lat_15_a_number_without_instructions_is_connected_with_and_without_control() {
    for (seed, connected) in [(10, true), (11, false)] {
        let mut world = World::with(seed, world::config(), routes(true));
        if !connected {
            world.disconnect();
        }
        world.phone(BOB).manner = Manner::EarlyMedia;
        world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
        world.run_ms(200);
        assert_eq!(world.worker.sources.len(), 1, "the caller hears the callee's early media");
        world.with_phone(BOB, |bob, now| bob.answer(now));
        world.run_ms(200);
        assert!(world.phone(ALICE).answered());
        assert_eq!(world.worker.sources.len(), 2);
        assert!(world.control.events.is_empty());
        world.run(Duration::from_secs(120));
        assert_eq!(world.edge.legs_live(), 2);
        world.with_phone(BOB, |bob, now| bob.hang_up(now));
        world.run_ms(500);
        assert!(world.phone(ALICE).ended_with().is_some());
        world.check_clean();
    }
}

#[test]
fn lat_15_the_caller_hears_the_truth_when_the_far_side_refuses() {
    for (manner, status) in [(Manner::Refuse(486), 486), (Manner::Refuse(404), 404)] {
        let mut world = World::with(12, world::config(), routes(true));
        world.phone(BOB).manner = manner;
        world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
        world.run_ms(500);
        assert_eq!(world.phone(ALICE).failed(), Some(status));
        world.check_clean();
    }
    let mut world = World::with(13, world::config(), routes(true));
    world.phone(BOB).manner = Manner::Ring;
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(500);
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(500);
    assert!(world.phone(BOB).ended_with().is_some());
    world.check_clean();
}

#[test]
fn tables_are_kept_and_older_ones_are_not() {
    let mut world = World::with(14, world::config(), routes(false));
    let newer = Tables { version: 4, ..routes(true) };
    world.input(Input::Link(ControlIndex(0), LinkInput::Tables(newer.clone())));
    assert_eq!(world.persisted.as_ref(), Some(&newer));
    world.persisted = None;
    world.input(Input::Link(ControlIndex(0), LinkInput::Tables(routes(false))));
    assert_eq!(world.persisted, None);
    // Numbers are dialled by the table as well.
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+33123", Vec::new()));
    world.run_ms(100);
    let leg = world.control.offered();
    send(&mut world, leg, BOB_LEG, dial("+4930999"));
    world.run_ms(100);
    assert!(world.control.is_answered(BOB_LEG));
    for leg_to_end in [BOB_LEG, leg] {
        send(&mut world, leg, leg_to_end, hangup());
    }
    world.check_clean();
}

fn worker_event(event: WorkerEvent) -> Input {
    Input::Worker { worker: 0, event }
}

fn media_node() -> Tables {
    let node = NodeEntry {
        node: NodeId::from("media-core"),
        region: RegionId::from("core"),
        trunk_address: "10.9.0.1:7000".to_owned(),
        resources: Resources::default(),
        limits: link_proto::table::ResourceLimits::default(),
        core: true,
        available: true,
    };
    Tables { version: 1, nodes: vec![node], routes: Vec::new() }
}

#[test]
fn lat_06_a_leg_is_wired_to_a_trunk_channel() {
    let mut world = World::with(15, world::config(), media_node());
    let leg = offer(&mut world);
    send(&mut world, leg, leg, CallCommand::Accept { codec: None });
    world.run_ms(50);
    let open = |peer: &str| {
        CallCommand::Media(MediaCommand::OpenChannel {
            channel: ChannelId(5),
            peer: NodeId::from(peer),
            codec: AudioCodec::Pcmu,
            telephone_event: Some(101),
        })
    };
    let id = send(&mut world, leg, leg, open("nowhere"));
    assert!(matches!(world.control.result(leg, id), Some(CommandResult::Refused { .. })));
    send(&mut world, leg, leg, open("media-core"));
    assert!(world.outputs.iter().any(|o| o.contains("TrunkPeer") && o.contains("10.9.0.1:7000")));
    let (channel, leg_port) = (Port::Channel(ChannelId(5)), Port::Leg(leg));
    for (from, to) in [(channel, leg_port), (leg_port, channel)] {
        let link = MediaCommand::Link { from, to, path: LinkPath::Relay };
        send(&mut world, leg, leg, CallCommand::Media(link));
    }
    assert_eq!(world.worker.sources.len(), 2);
    // A conversation over the trunk goes on while control is away, but not without the trunk.
    world.disconnect();
    world.run(Duration::from_secs(100));
    assert_eq!(world.edge.legs_live(), 1);
    world.input(Input::TrunkState { peer: 0, up: false });
    world.run(Duration::from_secs(20));
    world.input(Input::TrunkState { peer: 0, up: true });
    world.run(Duration::from_secs(40));
    assert_eq!(world.edge.legs_live(), 1);
    // Nor does it go on when the far side has fallen silent for good.
    let channel_port = *world.worker.channels.keys().next().unwrap();
    world.input(worker_event(WorkerEvent::MediaTimeout { port: channel_port }));
    world.run(Duration::from_secs(20));
    world.input(worker_event(WorkerEvent::FirstPacket { port: channel_port }));
    world.run(Duration::from_secs(40));
    assert_eq!(world.edge.legs_live(), 1);
    world.connect();
    world.run_ms(50);
    let states: Vec<bool> = world
        .control
        .media()
        .iter()
        .filter_map(|event| match event {
            MediaEvent::ChannelState { channel: ChannelId(5), up } => Some(*up),
            _ => None,
        })
        .collect();
    assert_eq!(states, [false, true]);
    let unlink = MediaCommand::Unlink { from: channel, to: leg_port };
    send(&mut world, leg, leg, CallCommand::Media(unlink));
    assert_eq!(world.worker.sources.len(), 1);
    let close = MediaCommand::CloseChannel { channel: ChannelId(5) };
    send(&mut world, leg, leg, CallCommand::Media(close));
    send(&mut world, leg, leg, hangup());
    world.check_clean();
}

#[test]
fn lat_14_a_trunk_that_stays_silent_without_control_ends_the_leg() {
    let mut world = World::with(21, world::config(), media_node());
    let leg = offer(&mut world);
    send(&mut world, leg, leg, CallCommand::Accept { codec: None });
    let open = MediaCommand::OpenChannel {
        channel: ChannelId(5),
        peer: NodeId::from("media-core"),
        codec: AudioCodec::Pcmu,
        telephone_event: None,
    };
    let (from, to) = (Port::Channel(ChannelId(5)), Port::Leg(leg));
    let link = MediaCommand::Link { from, to, path: LinkPath::Relay };
    for command in [open, link] {
        send(&mut world, leg, leg, CallCommand::Media(command));
    }
    world.run_ms(50);
    world.disconnect();
    let port = *world.worker.channels.keys().next().unwrap();
    world.input(worker_event(WorkerEvent::MediaTimeout { port }));
    world.run(Duration::from_secs(31));
    assert_eq!(world.edge.legs_live(), 0);
    world.connect();
    let close = MediaCommand::CloseChannel { channel: ChannelId(5) };
    send(&mut world, leg, leg, CallCommand::Media(close));
    assert_eq!(world.control.ended(leg), Some(EndReason::ControlLost));
    world.check_clean();
}

#[test]
fn lat_06_a_media_node_without_legs_plays_into_a_channel() {
    let mut world = World::with(16, world::config(), media_node());
    let session = CallSid([7; 16]);
    let channel = ChannelId(1);
    let open = MediaCommand::OpenChannel {
        channel,
        peer: NodeId::from("media-core"),
        codec: AudioCodec::Pcmu,
        telephone_event: None,
    };
    let items = vec![PlayItem::Beep { length_ms: 100 }];
    let play = MediaCommand::Play { op: OpId(1), port: Port::Channel(channel), items };
    for command in [open, play] {
        send(&mut world, session, session, CallCommand::Media(command));
    }
    world.run_ms(10);
    assert_eq!(world.control.media(), [&MediaEvent::PlayStarted { op: OpId(1) }]);
    let close = MediaCommand::CloseChannel { channel };
    send(&mut world, session, session, CallCommand::Media(close));
    world.run_ms(10);
    assert!(matches!(world.control.media().last(), Some(MediaEvent::PlayDone { .. })));
    world.check_clean();
}

#[test]
fn lat_01_strangers_hear_nothing() {
    let mut world = World::new(17);
    let options = "OPTIONS sip:10.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 10.0.9.9;branch=z9hG4bK1\n\
                   From: <sip:a@x>;tag=1\nTo: <sip:b@x>\nCall-ID: c\nCSeq: 1 OPTIONS\n\
                   Max-Forwards: 70\nContent-Length: 0\n\n";
    for source in ["10.0.9.9:5060", "8.8.8.8:1"] {
        world.datagram(source, options);
    }
    world.datagram("10.0.9.9:5060", "rubbish");
    world.run_ms(100);
    assert!(world.sent.is_empty());
    assert_eq!(world.edge.counters().datagrams_unlisted, 3);
    world.datagram(CAROL, options);
    world.run_ms(100);
    assert!(world.sent.iter().any(|(_, bytes)| bytes.starts_with(b"SIP/2.0 200")));
}

#[test]
fn ops_06_a_flood_is_shed_without_state() {
    let mut config = world::config();
    config.providers[0].calls_per_s_max = 1;
    let mut world = World::with(18, config, Tables::default());
    for n in 0..5 {
        let invite = format!(
            "INVITE sip:+4930222@10.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 10.0.1.3;branch=z9hG4bK{n}\n\
             From: <sip:a@x>;tag=1\nTo: <sip:b@x>\nCall-ID: c{n}\nCSeq: 1 INVITE\n\
             Contact: <sip:a@10.0.1.3>\nMax-Forwards: 70\nContent-Length: 0\n\n"
        );
        world.datagram(CAROL, &invite);
    }
    let shed = world.sent.iter().filter(|(_, bytes)| bytes.starts_with(b"SIP/2.0 503")).count();
    assert_eq!((shed, world.edge.counters().calls_shed_rate), (4, 4));
    assert_eq!(world.edge.legs_live(), 1);
    assert!(world.sent.iter().any(|(_, b)| String::from_utf8_lossy(b).contains("Retry-After: 5")));
    let events = world.control.events.iter().filter(|e| matches!(e.event, CallEvent::Offered(_)));
    assert_eq!(events.count(), 1);
}

#[test]
fn a_repeated_invite_of_a_call_is_never_shed() {
    let mut config = world::config();
    config.providers[0].calls_per_s_max = 1;
    let mut world = World::with(19, config, Tables::default());
    let invite = "INVITE sip:+4930222@10.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP 10.0.1.3;branch=z9hG4bK1\n\
                  From: <sip:a@x>;tag=1\nTo: <sip:b@x>\nCall-ID: same\nCSeq: 1 INVITE\n\
                  Contact: <sip:a@10.0.1.3>\nMax-Forwards: 70\nContent-Length: 0\n\n";
    for _ in 0..4 {
        world.datagram(CAROL, invite);
    }
    assert!(!world.sent.iter().any(|(_, bytes)| bytes.starts_with(b"SIP/2.0 503")));
    assert_eq!(world.edge.legs_live(), 1);
}

#[test]
fn events_are_bounded_while_control_is_away_but_ends_are_kept() {
    let mut config = world::config();
    config.events_max = 10;
    let mut world = World::with(20, config, Tables::default());
    let alice = bridge(&mut world);
    let keys = "*".to_owned();
    let watch = MediaCommand::Watch { op: OpId(1), port: Port::Leg(alice), keys };
    send(&mut world, alice, alice, CallCommand::Media(watch));
    world.run_ms(10);
    let port = world.worker.programs.values().next().unwrap().0;
    world.disconnect();
    for _ in 0..50 {
        world.worker.press(port, '*');
        world.pump();
        world.run_ms(1);
    }
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(500);
    world.connect();
    world.run_ms(10);
    let keys = world.control.media().iter().filter(|e| matches!(e, MediaEvent::Key { .. })).count();
    assert_eq!((keys, world.edge.counters().events_dropped), (10, 40));
    assert_eq!(world.control.ended(alice), Some(EndReason::RemoteBye));
    assert_eq!(world.control.ended(BOB_LEG), Some(EndReason::PeerEnded));
    world.check_clean();
}

/// Two control nodes; the first gets the call and goes away.
fn offered_to_the_first(seed: u64) -> (World, CallSid) {
    let mut config = world::config();
    config.controls = vec![ControlChoice::default(); 2];
    config.controls[1].priority = 1;
    let mut world = World::with(seed, config, Tables::default());
    let leg = offer(&mut world);
    (world, leg)
}

/// From now on the world's control is the other node.
fn switch_to(world: &mut World, index: u16, control: Control) -> Control {
    world.index = ControlIndex(index);
    std::mem::replace(&mut world.control, control)
}

#[test]
fn lat_14_a_call_that_its_control_has_not_begun_with_goes_to_another() {
    let (mut world, old) = offered_to_the_first(31);
    world.disconnect();
    world.run_ms(200);
    let first = switch_to(&mut world, 1, Control::default());
    world.connect();
    world.run_ms(1_500);
    let new = world.control.offered();
    assert_ne!(new, old, "another name");
    assert_eq!(world.edge.counters().calls_offered_again, 1);
    assert_eq!(world.phone(ALICE).failed(), None);
    send(&mut world, new, new, CallCommand::Accept { codec: None });
    world.run_ms(100);
    assert!(world.control.is_answered(new));
    // The first one comes back and learns that the call is none of its own any more.
    let second = switch_to(&mut world, 0, first);
    world.connect();
    world.run_ms(100);
    assert_eq!(world.control.ended(old), Some(EndReason::ControlLost));
    switch_to(&mut world, 1, second);
    send(&mut world, new, new, hangup());
    world.run_ms(2_000);
    assert_eq!(world.edge.legs_live(), 0);
    assert_eq!(world.allocated.values().filter(|live| **live).count(), 0, "no sockets are left");
}

#[test]
fn a_control_that_is_back_at_once_or_has_begun_keeps_its_call() {
    // Back within the grace.
    let (mut world, leg) = offered_to_the_first(32);
    world.disconnect();
    world.run_ms(300);
    world.connect();
    world.run_ms(3_000);
    assert_eq!(world.edge.counters().calls_offered_again, 0);
    send(&mut world, leg, leg, CallCommand::Accept { codec: None });
    world.run_ms(100);
    assert!(world.control.is_answered(leg));
    send(&mut world, leg, leg, hangup());
    world.check_clean();
    // It had begun: only it knows how to go on.
    let (mut world, leg) = offered_to_the_first(33);
    send(&mut world, leg, leg, CallCommand::Progress { early_media: false });
    world.disconnect();
    let first = switch_to(&mut world, 1, Control::default());
    world.connect();
    world.run_ms(5_000);
    assert!(world.control.events.is_empty());
    switch_to(&mut world, 0, first);
    world.connect();
    send(&mut world, leg, leg, hangup());
    world.run_ms(2_000);
    assert_eq!(world.edge.legs_live(), 0);
}

#[test]
fn a_caller_that_gives_up_before_the_call_is_offered_again_is_gone() {
    let (mut world, _) = offered_to_the_first(34);
    world.disconnect();
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(300);
    switch_to(&mut world, 1, Control::default());
    world.connect();
    world.run_ms(3_000);
    assert!(world.control.events.is_empty());
    assert_eq!(world.edge.legs_live(), 0);
}
