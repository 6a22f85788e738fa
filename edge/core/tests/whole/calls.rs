//! Calls through a whole edge core: real SIP peers, a scripted control node, a pretended worker.

use std::time::Duration;

use edge_core::{Input, LegState};
use edge_media::command::WorkerCommand;
use edge_media::event::WorkerEvent;
use link_proto::call::{Blame, CallCommand, CallEvent, DialParams, EndReason, OnPeerEnd};
use link_proto::media::{
    AudioCodec, CollectEnd, CollectRules, LinkPath, MediaCommand, MediaEvent, PlayEnd, PlayItem,
    Port, PromptKey, RecordEnd, RecordRules, StartWhen,
};
use link_proto::message::CommandResult;
use link_proto::{CallSid, OpId, RecordingSid};
use sip_core::Header;

use crate::world::phone::Manner;
use crate::world::{self, ALICE, BOB, World};

fn play(op: u32, leg: CallSid) -> CallCommand {
    let items = vec![PlayItem::Prompt { key: PromptKey("greeting".to_owned()), times: 1 }];
    CallCommand::Media(MediaCommand::Play { op: OpId(op), port: Port::Leg(leg), items })
}

fn hangup() -> CallCommand {
    CallCommand::Hangup { reason: EndReason::Hangup, whose: Blame::Customer }
}

fn dial_to(uri: &str) -> DialParams {
    DialParams {
        to: uri.to_owned(),
        from: "+4930111".to_owned(),
        codecs: vec![AudioCodec::Pcmu, AudioCodec::Pcma],
        timeout_ms: 20_000,
        headers: vec![("X-Trace".to_owned(), "7".to_owned())],
        username: None,
        password: None,
        near_leg: None,
    }
}

fn link(from: CallSid, to: CallSid) -> CallCommand {
    CallCommand::Media(MediaCommand::Link {
        from: Port::Leg(from),
        to: Port::Leg(to),
        path: LinkPath::Relay,
    })
}

impl World {
    fn command(&mut self, session: CallSid, leg: CallSid, command: CallCommand) -> u64 {
        let id = self.control.send(session, leg, command);
        self.pump();
        id
    }

    fn is_done(&self, session: CallSid, id: u64) -> bool {
        self.control.result(session, id) == Some(&CommandResult::Done)
    }

    fn offer_call(&mut self) -> CallSid {
        self.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
        self.run_ms(100);
        self.control.offered()
    }

    fn accepted_call(&mut self) -> CallSid {
        let leg = self.offer_call();
        self.command(leg, leg, CallCommand::Accept { codec: None });
        self.run_ms(100);
        assert!(self.control.is_answered(leg));
        leg
    }

    fn dial_bob(&mut self, session: CallSid) -> CallSid {
        let bob = CallSid([0xb0; 16]);
        let id = self.command(session, bob, CallCommand::Dial(dial_to("sip:bob@10.0.1.2:5060")));
        assert!(self.is_done(session, id));
        let couple = CallCommand::Couple {
            peer: bob,
            on_peer_end: OnPeerEnd::Hold,
            peer_on_end: OnPeerEnd::End,
        };
        let id = self.command(session, session, couple);
        assert!(self.is_done(session, id));
        self.run_ms(100);
        bob
    }

    /// Alice talks with Bob.
    fn bridged(&mut self) -> (CallSid, CallSid) {
        let alice = self.accepted_call();
        let bob = self.dial_bob(alice);
        assert!(self.control.is_answered(bob));
        for (from, to) in [(alice, bob), (bob, alice)] {
            let id = self.command(alice, to, link(from, to));
            assert!(self.is_done(alice, id));
        }
        assert_eq!(self.worker.sources.len(), 2);
        (alice, bob)
    }
}

#[test]
fn lat_02_inbound_call_is_offered_played_to_and_ended() {
    let mut world = World::new(1);
    let headers = vec![Header::named("X-Customer", "42").unwrap()];
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", headers));
    world.run_ms(100);
    let leg = world.control.offered();
    match world.control.events_of(leg)[0] {
        CallEvent::Offered(offered) => {
            assert_eq!((offered.from.as_str(), offered.to.as_str()), ("+4930111", "+4930222"));
            assert_eq!(offered.caller_name.as_deref(), Some("Alice A"));
            assert_eq!((offered.provider.as_str(), offered.source.as_str()), ("phones", ALICE));
            assert_eq!(offered.sip_domain, "10.0.0.1");
            assert_eq!(offered.headers, [("X-Customer".to_owned(), "42".to_owned())]);
            assert_eq!(offered.codecs, [AudioCodec::Pcmu, AudioCodec::Pcma]);
        }
        other => panic!("{other:?}"),
    }
    world.command(leg, leg, CallCommand::Accept { codec: Some(AudioCodec::Pcma) });
    world.command(leg, leg, play(1, leg));
    world.run_ms(100);
    assert!(world.phone(ALICE).answer_body().contains("RTP/AVP 8 101"));
    assert_eq!(world.control.media(), [&MediaEvent::PlayStarted { op: OpId(1) }]);
    world.worker.finish_plays();
    world.pump();
    world.run_ms(1);
    let done = MediaEvent::PlayDone { op: OpId(1), end: PlayEnd::Finished };
    assert_eq!(world.control.media().last(), Some(&&done));
    let config = world.worker.legs.values().next().unwrap();
    assert!(config.answered && config.remote_rtp == Some("10.0.1.1:7000".parse().unwrap()));
    assert_eq!((config.send.payload_type, config.telephone_event_receive), (8, Some(101)));
    world.run_ms(1_900);
    world.command(leg, leg, hangup());
    world.run_ms(100);
    let reason = world.phone(ALICE).ended_with();
    assert_eq!(reason.as_deref(), Some("Q.850;cause=16;text=\"Normal call clearing\""));
    match world.control.events_of(leg).last() {
        Some(CallEvent::Ended { reason, whose, sip_status, stats, answered_ms }) => {
            assert_eq!((*reason, *whose), (EndReason::Hangup, Blame::Customer));
            assert_eq!((*sip_status, stats.packets_received), (None, 50));
            assert!((2_000..2_200).contains(answered_ms), "{answered_ms}");
        }
        other => panic!("{other:?}"),
    }
    world.check_clean();
}

#[test]
fn lat_04_bridge_callee_hangs_up_and_the_caller_goes_on() {
    let mut world = World::new(2);
    let (alice, bob) = world.bridged();
    world.with_phone(BOB, |bob, now| bob.hang_up(now));
    world.run_ms(300);
    assert_eq!(world.control.ended(bob), Some(EndReason::RemoteBye));
    assert_eq!(world.control.ended(alice), None);
    assert!(world.worker.sources.is_empty());
    world.command(alice, alice, play(1, alice));
    world.run_ms(100);
    assert_eq!(world.control.media(), [&MediaEvent::PlayStarted { op: OpId(1) }]);
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(300);
    assert_eq!(world.control.ended(alice), Some(EndReason::RemoteBye));
    let done = MediaEvent::PlayDone { op: OpId(1), end: PlayEnd::LegEnded };
    assert_eq!(world.control.media().last(), Some(&&done));
    world.check_clean();
}

#[test]
fn bridge_caller_hangs_up_and_the_callee_ends_too() {
    let mut world = World::new(3);
    let (alice, bob) = world.bridged();
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(300);
    assert_eq!(world.control.ended(alice), Some(EndReason::RemoteBye));
    assert_eq!(world.control.ended(bob), Some(EndReason::PeerEnded));
    let ends = |e: &&link_proto::message::EventMessage| matches!(e.event, CallEvent::Ended { .. });
    let ends: Vec<CallSid> = world.control.events.iter().filter(ends).map(|e| e.leg).collect();
    assert_eq!(ends, [alice, bob], "the cause is reported before what follows from it");
    let reason = world.phone(BOB).ended_with();
    assert_eq!(reason.as_deref(), Some("Q.850;cause=16;text=\"Normal call clearing\""));
    world.check_clean();
}

#[test]
fn tel_outcomes_of_a_dial_are_named() {
    for (manner, expect, status, whose) in [
        (Manner::Refuse(486), EndReason::Busy, Some(486), Blame::Callee),
        (Manner::Refuse(603), EndReason::Refused, Some(603), Blame::Callee),
        (Manner::Refuse(404), EndReason::Unreachable, Some(404), Blame::Carrier),
        (Manner::Refuse(480), EndReason::NoAnswer, Some(480), Blame::Callee),
        (Manner::Refuse(503), EndReason::Refused, Some(503), Blame::Carrier),
        (Manner::Ring, EndReason::NoAnswer, Some(408), Blame::Callee),
    ] {
        let mut world = World::new(4);
        world.phone(BOB).manner = manner;
        let alice = world.accepted_call();
        let bob = world.dial_bob(alice);
        world.run(Duration::from_secs(25));
        match world.control.events_of(bob).last() {
            Some(CallEvent::Ended { reason, sip_status, whose: blame, .. }) => {
                assert_eq!((*reason, *sip_status, *blame), (expect, status, whose), "{manner:?}");
            }
            other => panic!("{manner:?}: {other:?}"),
        }
        assert_eq!(world.control.ended(alice), None);
        world.with_phone(ALICE, |alice, now| alice.hang_up(now));
        world.check_clean();
    }
}

#[test]
fn field_11_cancel_while_ringing_reaches_the_callee() {
    let mut world = World::new(5);
    world.phone(BOB).manner = Manner::Ring;
    let alice = world.offer_call();
    world.command(alice, alice, CallCommand::Progress { early_media: false });
    let bob = world.dial_bob(alice);
    let ringing = CallEvent::Ringing { status: 180, early_media: false };
    assert_eq!(world.control.events_of(bob), [&ringing]);
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(500);
    assert_eq!(world.control.ended(alice), Some(EndReason::RemoteCancel));
    assert_eq!(world.control.ended(bob), Some(EndReason::PeerEnded));
    assert_eq!(world.phone(ALICE).failed(), Some(487));
    assert!(world.phone(BOB).ended_with().is_some());
    world.check_clean();
}

#[test]
fn field_11_cancel_that_crosses_the_answer_ends_with_bye() {
    let mut world = World::new(6);
    world.phone(BOB).manner = Manner::Ring;
    let alice = world.accepted_call();
    let bob = world.dial_bob(alice);
    // Bob's 200 is on the wire while control gives the leg up.
    world.faults.delay_max_ms = 20;
    world.with_phone(BOB, |bob, now| bob.answer(now));
    let give_up = CallCommand::Hangup { reason: EndReason::Canceled, whose: Blame::Us };
    world.command(alice, bob, give_up);
    world.run(Duration::from_secs(3));
    assert_eq!(world.control.ended(bob), Some(EndReason::Canceled));
    assert!(!world.control.is_answered(bob));
    assert!(world.phone(BOB).ended_with().is_some(), "Bob's phone is not left talking");
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.check_clean();
}

#[test]
fn early_media_goes_through_and_the_answer_repeats_it() {
    let mut world = World::new(7);
    world.phone(BOB).manner = Manner::EarlyMedia;
    let alice = world.offer_call();
    let bob = world.dial_bob(alice);
    let ringing = CallEvent::Ringing { status: 183, early_media: true };
    assert_eq!(world.control.events_of(bob), [&ringing]);
    world.command(alice, alice, CallCommand::Progress { early_media: true });
    world.command(alice, alice, link(bob, alice));
    world.run_ms(50);
    let remotes: Vec<_> = world.worker.legs.values().map(|leg| leg.remote_rtp).collect();
    assert!(remotes.iter().all(Option::is_some), "{remotes:?}");
    assert!(world.worker.legs.values().all(|leg| !leg.answered));
    world.with_phone(BOB, |bob, now| bob.answer(now));
    world.run_ms(50);
    assert!(world.control.is_answered(bob));
    world.command(alice, alice, CallCommand::Accept { codec: None });
    world.run_ms(50);
    let early = world.phone(ALICE).events.iter().find_map(|event| match event {
        sip_core::Event::Provisional { status: 183, sdp, .. } => sdp.clone(),
        _ => None,
    });
    let early = String::from_utf8_lossy(&early.expect("early SDP")).into_owned();
    assert_eq!(world.phone(ALICE).answer_body(), early);
    world.command(alice, alice, hangup());
    world.check_clean();
}

#[test]
fn field_13_an_invite_without_offer_gets_ours() {
    let mut world = World::new(8);
    world.phone(ALICE).offerless = true;
    world.phone(ALICE).formats = "8 101";
    let leg = world.offer_call();
    world.command(leg, leg, CallCommand::Accept { codec: None });
    world.command(leg, leg, play(1, leg));
    world.run_ms(200);
    let codec = world.control.events_of(leg).iter().find_map(|event| match event {
        CallEvent::Answered { codec, .. } => Some(*codec),
        _ => None,
    });
    assert_eq!(codec, Some(AudioCodec::Pcma));
    world.command(leg, leg, hangup());
    world.check_clean();
}

#[test]
fn calls_are_refused_with_a_truthful_status() {
    let mut world = World::new(9);
    world.phone(ALICE).formats = "18";
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(100);
    assert_eq!(world.phone(ALICE).failed(), Some(488));
    assert!(world.control.events.is_empty());

    let mut world = World::new(9);
    world.allocation_ms = None;
    let leg = world.offer_call();
    assert_eq!(world.phone(ALICE).failed(), Some(503));
    assert_eq!(world.control.ended(leg), Some(EndReason::Overload));
    world.check_clean();

    let mut world = World::new(9);
    let leg = world.offer_call();
    let reject = CallCommand::Reject { status: 404, reason: "No such number".to_owned() };
    world.command(leg, leg, reject);
    world.run_ms(100);
    assert_eq!(world.phone(ALICE).failed(), Some(404));
    assert_eq!(world.control.ended(leg), Some(EndReason::Rejected));
    world.check_clean();

    let mut world = World::new(9);
    world.input(Input::Drain { end_after: Duration::from_secs(60) });
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(100);
    assert_eq!(world.phone(ALICE).failed(), Some(503));
}

#[test]
fn a_drain_ends_what_is_left_and_dials_no_more() {
    let mut world = World::new(10);
    let alice = world.accepted_call();
    world.input(Input::Drain { end_after: Duration::from_secs(5) });
    let dial = CallCommand::Dial(dial_to("sip:bob@10.0.1.2"));
    let id = world.command(alice, CallSid([0xb0; 16]), dial);
    assert!(matches!(world.control.result(alice, id), Some(CommandResult::Refused { .. })));
    world.run(Duration::from_secs(4));
    assert_eq!(world.control.ended(alice), None);
    world.run(Duration::from_secs(2));
    assert_eq!(world.control.ended(alice), Some(EndReason::Drain));
    assert!(world.phone(ALICE).ended_with().unwrap().contains("Shutting down"));
    world.check_clean();
}

#[test]
fn control_that_does_not_answer_an_offer_costs_the_call_alone() {
    let mut world = World::new(11);
    let leg = world.offer_call();
    world.run(Duration::from_secs(61));
    assert_eq!(world.phone(ALICE).failed(), Some(503));
    assert_eq!(world.control.ended(leg), Some(EndReason::ControlLost));
    world.check_clean();
}

#[test]
fn hold_is_answered_here_and_stops_the_media_timeout() {
    let mut world = World::new(12);
    let (alice, bob) = world.bridged();
    world.with_phone(ALICE, |alice, now| alice.reinvite(now, "sendonly"));
    world.run_ms(100);
    assert_eq!(world.control.events_of(alice).last(), Some(&&CallEvent::Hold { on: true }));
    let held = world.worker.legs.values().filter(|leg| leg.media_timeout_ms.is_none());
    assert_eq!(held.count(), 1);
    assert!(!world.phone(BOB).events.iter().any(|e| matches!(e, sip_core::Event::ReInvite { .. })));
    let ports: Vec<_> = world.worker.legs.keys().copied().collect();
    world.input(Input::Worker { worker: 0, event: WorkerEvent::MediaTimeout { port: ports[0] } });
    assert_eq!(world.control.ended(alice), None, "no timeout on hold");
    world.with_phone(ALICE, |alice, now| alice.reinvite(now, "sendrecv"));
    world.run_ms(100);
    assert_eq!(world.control.events_of(alice).last(), Some(&&CallEvent::Hold { on: false }));
    assert!(world.worker.legs.values().all(|leg| leg.media_timeout_ms.is_some()));
    world.command(alice, bob, hangup());
    world.command(alice, alice, hangup());
    world.check_clean();
}

#[test]
fn lat_11_media_timeout_of_the_callee_leaves_the_caller() {
    let mut world = World::new(13);
    let (alice, bob) = world.bridged();
    let callee_port = *world.worker.legs.keys().nth(1).unwrap();
    let timeout = WorkerEvent::MediaTimeout { port: callee_port };
    world.input(Input::Worker { worker: 0, event: timeout });
    world.run_ms(300);
    assert_eq!(world.control.ended(bob), Some(EndReason::MediaTimeout));
    assert_eq!(world.control.ended(alice), None);
    let reason = world.phone(BOB).ended_with().unwrap();
    assert_eq!(reason, "SIP;cause=408;text=\"Media timeout\"");
    let caller_port = *world.worker.legs.keys().next().unwrap();
    let timeout = WorkerEvent::MediaTimeout { port: caller_port };
    world.input(Input::Worker { worker: 0, event: timeout });
    world.run_ms(300);
    match world.control.events_of(alice).last() {
        Some(CallEvent::Ended {
            reason: EndReason::MediaTimeout, whose: Blame::Caller, ..
        }) => {}
        other => panic!("{other:?}"),
    }
    world.check_clean();
}

#[test]
fn lat_11_media_timeout_of_the_caller_ends_both() {
    let mut world = World::new(14);
    let (alice, bob) = world.bridged();
    let caller_port = *world.worker.legs.keys().next().unwrap();
    let timeout = WorkerEvent::MediaTimeout { port: caller_port };
    world.input(Input::Worker { worker: 0, event: timeout });
    world.run_ms(300);
    assert_eq!(world.control.ended(alice), Some(EndReason::MediaTimeout));
    assert_eq!(world.control.ended(bob), Some(EndReason::PeerEnded));
    world.check_clean();
}

#[test]
fn a_time_limit_ends_the_leg_after_its_answer() {
    let mut world = World::new(15);
    let leg = world.offer_call();
    world.command(leg, leg, CallCommand::TimeLimit { limit_ms: 5_000 });
    world.run(Duration::from_secs(6));
    world.command(leg, leg, CallCommand::Accept { codec: None });
    world.run(Duration::from_secs(4));
    assert_eq!(world.control.ended(leg), None);
    world.run(Duration::from_secs(2));
    assert_eq!(world.control.ended(leg), Some(EndReason::TimeLimit));
    world.check_clean();
}

fn collect(op: u32, leg: CallSid, play: u32) -> CallCommand {
    CallCommand::Media(MediaCommand::Collect {
        op: OpId(op),
        port: Port::Leg(leg),
        rules: CollectRules {
            digits_max: Some(1),
            finish_on: "#".to_owned(),
            timeout_ms: 5_000,
            timer: StartWhen::AfterPlay(OpId(play)),
            stops_play: Some(OpId(play)),
        },
    })
}

#[test]
fn a_digit_stops_the_prompt_and_is_collected() {
    let mut world = World::new(16);
    let leg = world.accepted_call();
    world.command(leg, leg, play(1, leg));
    world.command(leg, leg, collect(2, leg, 1));
    world.run_ms(10);
    // By SIP INFO: the worker hears of it as of one by RTP.
    world.with_phone(ALICE, |alice, now| {
        let call = alice.call.unwrap();
        let body = bytes::Bytes::from_static(b"Signal=1\r\nDuration=160\r\n");
        alice.sip.info(now, call, "application/dtmf-relay", body).unwrap();
    });
    world.run_ms(50);
    let digits = "1".to_owned();
    let media: Vec<_> = world.control.media().into_iter().cloned().collect();
    assert_eq!(media[0], MediaEvent::PlayStarted { op: OpId(1) });
    assert_eq!(media[1], MediaEvent::CollectBegun { op: OpId(2) });
    let done = MediaEvent::CollectDone { op: OpId(2), digits, end: CollectEnd::Complete };
    assert!(media.contains(&done));
    assert!(media.contains(&MediaEvent::PlayDone { op: OpId(1), end: PlayEnd::Stopped }));
    world.command(leg, leg, hangup());
    world.check_clean();
}

#[test]
fn the_timer_of_a_collection_starts_when_the_prompt_has_ended() {
    let mut world = World::new(17);
    let leg = world.accepted_call();
    world.command(leg, leg, play(1, leg));
    world.command(leg, leg, collect(2, leg, 1));
    world.run_ms(10);
    let starts = |world: &World| {
        let start = |c: &&WorkerCommand| matches!(c, WorkerCommand::StartOp { .. });
        world.worker.log.iter().filter(start).count()
    };
    assert_eq!(starts(&world), 0);
    world.worker.finish_plays();
    world.pump();
    world.run_ms(1);
    assert_eq!(starts(&world), 1);
    world.command(leg, leg, hangup());
    world.check_clean();
    let done =
        |e: &&&MediaEvent| matches!(e, MediaEvent::CollectDone { end: CollectEnd::LegEnded, .. });
    assert_eq!(world.control.media().iter().filter(done).count(), 1);
}

#[test]
fn prompts_that_fail_or_are_late_fail_the_play_alone() {
    for (prompt_ms, until_ms) in [(None, 10), (Some(60_000), 10_100)] {
        let mut world = World::new(18);
        world.prompt_ms = prompt_ms;
        let leg = world.accepted_call();
        world.command(leg, leg, play(1, leg));
        world.run_ms(until_ms);
        let done = MediaEvent::PlayDone { op: OpId(1), end: PlayEnd::Failed };
        assert_eq!(world.control.media(), [&done]);
        world.command(leg, leg, hangup());
        world.check_clean();
    }
}

#[test]
fn a_newer_source_stops_a_play_that_waits_for_its_prompt() {
    let mut world = World::new(19);
    world.prompt_ms = Some(500);
    let leg = world.accepted_call();
    world.command(leg, leg, play(1, leg));
    world.command(leg, leg, play(2, leg));
    world.run_ms(1_000);
    let media: Vec<_> = world.control.media().into_iter().cloned().collect();
    let stopped = MediaEvent::PlayDone { op: OpId(1), end: PlayEnd::Stopped };
    assert_eq!(media, [stopped, MediaEvent::PlayStarted { op: OpId(2) }]);
    world.command(leg, leg, hangup());
    world.check_clean();
}

#[test]
fn media_commands_wait_for_sockets() {
    let mut world = World::new(20);
    world.allocation_ms = Some(300);
    let leg = world.offer_call();
    world.command(leg, leg, CallCommand::Accept { codec: None });
    world.command(leg, leg, play(1, leg));
    assert!(world.worker.log.is_empty());
    world.run_ms(400);
    assert!(world.control.is_answered(leg));
    assert_eq!(world.control.media(), [&MediaEvent::PlayStarted { op: OpId(1) }]);
    world.command(leg, leg, CallCommand::Media(MediaCommand::Snapshot { phase: 3 }));
    world.run_ms(1);
    assert!(matches!(
        world.control.media().last(),
        Some(MediaEvent::Snapshot { phase: 3, packets_to_endpoints: 5, .. })
    ));
    world.command(leg, leg, hangup());
    world.check_clean();
}

#[test]
fn a_leg_that_ends_before_its_sockets_are_bound_leaves_nothing() {
    let mut world = World::new(21);
    world.allocation_ms = Some(300);
    let leg = world.offer_call();
    world.command(leg, leg, play(1, leg));
    world.with_phone(ALICE, |alice, now| alice.hang_up(now));
    world.run_ms(1_000);
    assert_eq!(world.control.ended(leg), Some(EndReason::RemoteCancel));
    world.check_clean();
    assert_eq!(world.edge.residue()[2], ("ports", 0));
}

#[test]
fn host_names_are_resolved_by_the_shell() {
    for known in [true, false] {
        let mut world = World::new(22);
        if known {
            world.names.insert("pbx.example".to_owned(), world::address(BOB));
        }
        let bob = CallSid([0xb0; 16]);
        world.command(bob, bob, CallCommand::Dial(dial_to("sip:bob@pbx.example")));
        world.run_ms(200);
        assert_eq!(world.control.is_answered(bob), known);
        if known {
            world.command(bob, bob, hangup());
        } else {
            assert_eq!(world.control.ended(bob), Some(EndReason::Unreachable));
        }
        world.check_clean();
    }
}

#[test]
fn a_lost_worker_does_not_hold_up_the_end_of_a_leg() {
    let mut world = World::new(23);
    let leg = world.accepted_call();
    let before = world.edge.legs(world.now);
    assert_eq!((before.len(), before[0].state), (1, LegState::Answered));
    world.worker.deaf = true;
    world.command(leg, leg, play(1, leg));
    world.run_ms(1);
    world.command(leg, leg, hangup());
    world.run_ms(150);
    assert_eq!(world.control.ended(leg), None, "the counters are awaited");
    world.run_ms(100);
    assert_eq!(world.control.ended(leg), Some(EndReason::Hangup));
    assert_eq!(world.edge.counters().stats_late, 1);
    assert!(!world.allocated.is_empty(), "its worker may still use the sockets");
    world.run(Duration::from_secs(11));
    assert!(world.allocated.is_empty());
    let done = MediaEvent::PlayDone { op: OpId(1), end: PlayEnd::LegEnded };
    assert_eq!(world.control.media().last(), Some(&&done));
}

#[test]
fn a_recording_starts_after_the_beep_and_is_handed_over() {
    let mut world = World::new(24);
    let leg = world.accepted_call();
    let recording = RecordingSid([3; 16]);
    let items = vec![PlayItem::Beep { length_ms: 500 }];
    let beep = MediaCommand::Play { op: OpId(1), port: Port::Leg(leg), items };
    let rules = RecordRules {
        recording,
        with: None,
        track: Default::default(),
        dual_channel: false,
        start: StartWhen::AfterPlay(OpId(1)),
        length_max_ms: 60_000,
        silence_timeout_ms: 5_000,
        finish_on: "#".to_owned(),
        trim_silence: true,
    };
    let record = MediaCommand::Record { op: OpId(2), port: Port::Leg(leg), rules };
    for command in [beep, record] {
        world.command(leg, leg, CallCommand::Media(command));
    }
    world.run_ms(10);
    let starts = |world: &World| {
        let start = |c: &&WorkerCommand| matches!(c, WorkerCommand::StartOp { .. });
        world.worker.log.iter().filter(start).count()
    };
    assert_eq!(starts(&world), 0);
    world.worker.finish_plays();
    world.pump();
    world.run_ms(1);
    assert_eq!(starts(&world), 1);
    world.command(leg, leg, CallCommand::Media(MediaCommand::Stop { op: OpId(2) }));
    world.run_ms(1);
    let end = RecordEnd::Stopped;
    let done = MediaEvent::RecordDone { op: OpId(2), recording, duration_ms: 1_234, end };
    assert_eq!(world.control.media().last(), Some(&&done));
    assert!(world.outputs.iter().any(|o| o.contains("CloseRecording") && o.contains("1234")));
    world.command(leg, leg, hangup());
    world.check_clean();
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_call() {
    let mut world = World::new(25);
    let leg = world.offer_call();
    world.phones.remove(&world::address(ALICE));
    world.command(leg, leg, CallCommand::Accept { codec: None });
    world.run(Duration::from_secs(31));
    assert_eq!(world.control.ended(leg), None);
    world.run(Duration::from_secs(2));
    assert_eq!(world.control.ended(leg), Some(EndReason::AckTimeout));
    let byes = world.sent.iter().filter(|(_, bytes)| bytes.starts_with(b"BYE ")).count();
    assert!(byes >= 1);
    world.check_clean();
}

#[test]
fn a_callee_that_is_not_there_times_out() {
    let mut world = World::new(26);
    world.phones.remove(&world::address(BOB));
    let bob = CallSid([0xb0; 16]);
    let params = DialParams { timeout_ms: 60_000, ..dial_to("sip:bob@10.0.1.2") };
    world.command(bob, bob, CallCommand::Dial(params));
    world.run(Duration::from_secs(33));
    assert_eq!(world.control.ended(bob), Some(EndReason::Timeout));
    world.check_clean();
}

#[test]
fn a_call_that_begins_on_hold_says_so() {
    let mut world = World::new(27);
    let body = world::phone::sdp(world::address(ALICE), "0 101", "sendonly");
    world.phone(ALICE).first_offer = Some(body);
    let leg = world.accepted_call();
    assert!(world.control.events_of(leg).contains(&&CallEvent::Hold { on: true }));
    world.command(leg, leg, hangup());
    world.check_clean();
}
