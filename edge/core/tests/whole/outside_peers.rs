//! What outside peers do that a proper phone of ours does not: odd contacts, forks, requests nobody
//! serves, hosts that are down, loops.

use std::time::Duration;

use bytes::Bytes;
use edge_core::{EdgeConfig, Input};
use link_proto::CallSid;
use link_proto::call::{CallCommand, DialParams, EndReason};
use link_proto::media::AudioCodec;
use link_proto::message::CommandResult;
use link_proto::table::Tables;
use sip_core::{Body, Event, Header, HeaderName, Message, Method, RequestOutcome};

use crate::world::phone::Manner;
use crate::world::{ALICE, BOB, World, address, config};

const BOB_LEG: CallSid = CallSid([0xb0; 16]);

fn offer(world: &mut World, headers: Vec<Header>) -> CallSid {
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", headers));
    world.run_ms(100);
    world.control.offered()
}

fn accepted(world: &mut World, headers: Vec<Header>) -> CallSid {
    let leg = offer(world, headers);
    world.control.send(leg, leg, CallCommand::Accept { codec: None });
    world.pump();
    world.run_ms(100);
    assert!(world.control.is_answered(leg));
    leg
}

fn dial(world: &mut World, session: CallSid, uri: &str) -> u64 {
    let dial = CallCommand::Dial(DialParams {
        to: uri.to_owned(),
        from: "+4930111".to_owned(),
        codecs: vec![AudioCodec::Pcmu],
        timeout_ms: 20_000,
        headers: Vec::new(),
        username: None,
        password: None,
        near_leg: Some(session),
    });
    let id = world.control.send(session, BOB_LEG, dial);
    world.pump();
    id
}

fn hang_up(world: &mut World, session: CallSid, leg: CallSid) {
    let hangup =
        CallCommand::Hangup { reason: EndReason::Hangup, whose: link_proto::call::Blame::Customer };
    world.control.send(session, leg, hangup);
    world.pump();
    world.run_ms(100);
}

/// The latest message that the edge sent there and that begins so.
fn sent(world: &World, to: &str, start: &str) -> Option<Message> {
    let to = address(to);
    let of_start = |(at, bytes): &&(_, Bytes)| *at == to && bytes.starts_with(start.as_bytes());
    let found = world.sent.iter().rev().find(of_start)?;
    Message::parse(&found.1).ok()
}

fn header(message: &Message, name: HeaderName) -> String {
    message.headers.first(name).map(|h| h.value_str().into_owned()).unwrap_or_default()
}

/// Sends a request in Alice's call; the answer.
fn ask(world: &mut World, method: Method, body: Option<Body>) -> Message {
    world.with_phone(ALICE, |alice, now| {
        let call = alice.call.expect("a call");
        alice.events.clear();
        alice.sip.request(now, call, method, Vec::new(), body).expect("in a dialog");
    });
    world.run_ms(50);
    let answer = |event: &Event| match event {
        Event::RequestDone { outcome: RequestOutcome::Response(response), .. } => {
            Some((**response).clone())
        }
        _ => None,
    };
    world.phone(ALICE).events.iter().find_map(answer).expect("an answer")
}

#[test]
fn what_is_not_served_is_not_promised() {
    let mut world = World::new(1);
    let leg = accepted(&mut world, Vec::new());
    let answer = sent(&world, ALICE, "SIP/2.0 200").expect("200");
    let allow = header(&answer, HeaderName::Allow);
    assert_eq!(allow, "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO");
    for method in [Method::Message, Method::Notify, Method::Refer, Method::Subscribe] {
        let answer = ask(&mut world, method.clone(), None);
        assert_eq!(answer.status(), Some(405), "{method}");
        assert_eq!(header(&answer, HeaderName::Allow), allow, "{method}");
    }
    let picture = Body::new("application/media_control+xml", "<x/>");
    let answer = ask(&mut world, Method::Info, Some(picture));
    assert_eq!(answer.status(), Some(415));
    assert!(header(&answer, HeaderName::Accept).contains("application/dtmf-relay"));
    assert!(world.control.ended(leg).is_none());
    hang_up(&mut world, leg, leg);
    world.check_clean();
}

#[test]
fn a_host_that_is_down_fails_at_once_if_the_report_is_true() {
    for (quotes_us, expect) in [(true, Some(EndReason::Unreachable)), (false, None)] {
        let mut world = World::new(2);
        let leg = accepted(&mut world, Vec::new());
        world.phones.remove(&address(BOB));
        dial(&mut world, leg, "sip:bob@10.0.1.2:5060");
        world.run_ms(20);
        let invite = sent(&world, BOB, "INVITE").expect("an INVITE").to_bytes();
        let quoted = if quotes_us { invite.slice(..300) } else { Bytes::from_static(b"INVITE") };
        world.input(Input::Undelivered { to: address(BOB), quoted });
        world.run_ms(300);
        assert_eq!(world.control.ended(BOB_LEG), expect);
        let counted = (world.edge.counters().icmp_believed, world.edge.counters().icmp_ignored);
        assert_eq!(counted, if quotes_us { (1, 0) } else { (0, 1) });
        hang_up(&mut world, leg, leg);
    }
}

#[test]
fn a_loop_through_us_has_an_end() {
    for (hops, beyond) in [("5", Some("4")), ("1", None)] {
        let mut world = World::new(3);
        let limit = vec![Header::new(HeaderName::MaxForwards, hops)];
        let leg = accepted(&mut world, limit);
        let id = dial(&mut world, leg, "sip:bob@10.0.1.2:5060");
        world.run_ms(100);
        let refused = matches!(world.control.result(leg, id), Some(CommandResult::Refused { .. }));
        assert_eq!(refused, beyond.is_none());
        let invite = sent(&world, BOB, "INVITE");
        let went = invite.map(|invite| header(&invite, HeaderName::MaxForwards));
        assert_eq!(went.as_deref(), beyond);
        hang_up(&mut world, leg, leg);
    }
}

fn behind_nat(nat: bool) -> EdgeConfig {
    let mut config = config();
    config.providers[0].nat = nat;
    config
}

#[test]
fn field_18_requests_go_where_they_can_arrive() {
    let elsewhere = "10.0.1.77:5060";
    for (contact, nat, to) in [
        ("<sip:a@10.0.1.77>", false, elsewhere),
        ("<sip:a@10.0.1.77>", true, ALICE),
        ("<sip:a@10.0.1.77;transport=tcp>", false, ALICE),
        ("<sip:a@phone.invalid>", false, ALICE),
        ("<sip:a@10.0.1.77:0>", false, ALICE),
        ("<tel:+4930111>", false, ALICE),
    ] {
        let mut world = World::with(4, behind_nat(nat), Tables::default());
        let odd = vec![Header::new(HeaderName::Contact, contact)];
        let leg = accepted(&mut world, odd);
        hang_up(&mut world, leg, leg);
        assert!(sent(&world, to, "BYE").is_some(), "{contact} {nat}");
        world.run(Duration::from_secs(100));
    }
}

#[test]
fn a_reinvite_that_asks_for_an_offer_and_does_not_answer_changes_nothing() {
    let mut world = World::new(5);
    let leg = accepted(&mut world, Vec::new());
    world.with_phone(ALICE, |alice, now| {
        let call = alice.call.expect("a call");
        alice.sip.reinvite(now, call, Vec::new(), None).expect("established");
    });
    world.run_ms(50);
    // The phone gives up the answer after half the time of a transaction; here it comes at once.
    world.with_phone(ALICE, |alice, now| {
        let call = alice.call.expect("a call");
        alice.sip.ack(now, call, Body::new("text/plain", "?")).expect("an ACK is owed");
    });
    world.run_ms(500);
    assert_eq!(world.control.ended(leg), None);
    world.with_phone(ALICE, |alice, now| alice.reinvite(now, "sendonly"));
    world.run_ms(100);
    let held = |event: &Event| matches!(event, Event::ReInviteAnswered { .. });
    assert!(world.phone(ALICE).events.iter().filter(|event| held(event)).count() == 2);
    hang_up(&mut world, leg, leg);
    world.check_clean();
}

#[test]
fn an_answered_call_without_media_of_our_family_is_refused() {
    let mut world = World::new(6);
    let six = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\n\
               m=audio 7000 RTP/AVP 0\r\n";
    world.phone(ALICE).first_offer = Some(Body::sdp(six));
    world.with_phone(ALICE, |alice, now| alice.dial(now, "+4930222", Vec::new()));
    world.run_ms(100);
    assert_eq!(world.phone(ALICE).failed(), Some(488));
    world.check_clean();
}

#[test]
fn a_callee_that_rings_for_ever_and_a_fork_that_ends_report_no_ringing_twice() {
    let mut world = World::new(7);
    let leg = accepted(&mut world, Vec::new());
    world.phone(BOB).manner = Manner::Ring;
    dial(&mut world, leg, "sip:bob@10.0.1.2:5060");
    world.run_ms(100);
    world.with_phone(BOB, |bob, now| {
        let call = bob.call.expect("a call");
        bob.sip.provisional(now, call, 180, "", Vec::new(), None).expect("rings");
        bob.sip.provisional(now, call, 199, "", Vec::new(), None).expect("RFC 6228");
    });
    world.run_ms(100);
    let ringing = |event: &&&link_proto::call::CallEvent| {
        matches!(event, link_proto::call::CallEvent::Ringing { .. })
    };
    assert_eq!(world.control.events_of(BOB_LEG).iter().filter(ringing).count(), 1);
    hang_up(&mut world, leg, BOB_LEG);
    hang_up(&mut world, leg, leg);
    world.check_clean();
}
