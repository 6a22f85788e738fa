//! Call flows in the manner of RFC 3665, and the races and faults that break B2BUAs.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{Faults, SDP, World, sdp};
use sip_core::auth::Credentials;
use sip_core::{
    Body, CommandError, Destination, DialogHandle, Event, Header, HeaderName, Input, Message,
    Method, NameAddr, Reason, RequestOutcome, RequestParams, Transport, Uri,
};

fn world() -> World {
    World::new(1, Faults::NONE, 2)
}

/// A message as one line: `INVITE`, `180 INVITE`.
fn line(message: &Message) -> String {
    let method = message.method().map(|m| m.to_string()).unwrap_or_default();
    match message.status() {
        Some(status) => format!("{status} {method}"),
        None => method,
    }
}

/// What has been sent since the last call, as `0>1 INVITE`. Each message is also given to rsip: on
/// messages both understand the two parsers must agree.
fn trace(world: &mut World) -> Vec<String> {
    let addrs: Vec<SocketAddr> = world.agents.iter().map(|agent| agent.addr).collect();
    let name = |addr: &SocketAddr| match addrs.iter().position(|a| a == addr) {
        Some(index) => index.to_string(),
        None => "x".to_owned(),
    };
    let log = std::mem::take(&mut world.log);
    log.iter()
        .map(|(from, to, bytes)| {
            let message = Message::parse(bytes).expect("our own writing");
            compare_with_rsip(bytes, &message);
            format!("{}>{} {}", name(from), name(to), line(&message))
        })
        .collect()
}

fn compare_with_rsip(bytes: &[u8], ours: &Message) {
    use rsip::prelude::*;
    let theirs = rsip::SipMessage::try_from(bytes).expect("rsip reads what we write");
    let call_id = theirs.call_id_header().expect("Call-ID").value().to_owned();
    assert_eq!(Some(call_id), ours.call_id().map(|id| id.into_owned()));
    let cseq = theirs.cseq_header().and_then(|h| h.typed()).expect("CSeq");
    assert_eq!(Some(cseq.seq), ours.cseq().map(|c| c.number));
    let from = theirs.from_header().and_then(|h| h.typed()).expect("From");
    let tag = from.tag().map(|tag| tag.value().to_owned());
    assert_eq!(tag, ours.from().and_then(|f| f.tag().map(str::to_owned)));
    let to = theirs.to_header().and_then(|h| h.typed()).expect("To");
    let tag = to.tag().map(|tag| tag.value().to_owned());
    assert_eq!(tag, ours.to().and_then(|t| t.tag().map(str::to_owned)));
    assert_eq!(theirs.body().as_slice(), &ours.body[..]);
}

fn incoming(world: &mut World, agent: usize) -> DialogHandle {
    match world.event(agent) {
        Some(Event::Incoming { handle, .. }) => handle,
        other => panic!("no incoming call but {other:?}"),
    }
}

/// A call between agent 0 and 1, answered and acknowledged.
fn established(world: &mut World) -> (DialogHandle, DialogHandle) {
    let caller = world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(world, 1);
    world.with(1, |sip, now| sip.accept(now, callee, Vec::new(), sdp())).expect("accept");
    world.run_ms(10);
    assert_eq!(world.word(0), "answered");
    assert_eq!(world.word(1), "ack");
    trace(world);
    (caller, callee)
}

fn finish(world: &mut World) {
    world.run_ms(70_000);
    assert!(world.idle(), "something is left");
}

#[test]
fn rfc_3665_3_1_answered_call() {
    let mut world = world();
    let caller = world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    world
        .with(1, |sip, now| sip.provisional(now, callee, 180, "", Vec::new(), None))
        .expect("ringing");
    world.run_ms(3000);
    world.with(1, |sip, now| sip.accept(now, callee, Vec::new(), sdp())).expect("accept");
    world.run_ms(3000);
    let reason = Header::new(HeaderName::Reason, Reason::sip(200, "done").to_string());
    world.with(0, |sip, now| sip.bye(now, caller, vec![reason])).expect("bye");
    world.run_ms(10);
    assert_eq!(
        trace(&mut world),
        [
            "0>1 INVITE",
            "1>0 100 INVITE",
            "1>0 180 INVITE",
            "1>0 200 INVITE",
            "0>1 ACK",
            "0>1 BYE",
            "1>0 200 BYE"
        ]
    );
    assert_eq!(world.word(0), "provisional 180");
    match world.event(0) {
        Some(Event::Answered { sdp, remote_tag, .. }) => {
            assert_eq!(sdp.as_deref(), Some(SDP.as_bytes()));
            assert!(remote_tag.is_some());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.word(0), "ended LocalBye");
    assert_eq!(world.word(1), "ack");
    match world.event(1) {
        Some(Event::Ended { reason: sip_core::EndReason::RemoteBye { reasons }, .. }) => {
            assert_eq!(reasons, [Reason::sip(200, "done")]);
        }
        other => panic!("{other:?}"),
    }
    finish(&mut world);
}

#[test]
fn rfc_3665_3_8_busy_and_3_9_no_answer() {
    let mut world = world();
    world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    let retry = Header::new(HeaderName::RetryAfter, "9");
    world.with(1, |sip, now| sip.reject(now, callee, 486, "Busy", vec![retry])).expect("reject");
    world.run_ms(10);
    assert_eq!(trace(&mut world), ["0>1 INVITE", "1>0 100 INVITE", "1>0 486 INVITE", "0>1 ACK"]);
    match world.event(0) {
        Some(Event::Failed { status: 486, response: Some(response), .. }) => {
            assert_eq!(response.reason(), "Busy");
            assert_eq!(response.number(HeaderName::RetryAfter), Some(9));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.word(1), "ended Rejected");
    finish(&mut world);

    // Nobody there: seven INVITEs, then timer B.
    let mut params = world.params(1);
    params.target = Destination::udp("192.0.2.99:5060".parse().expect("address"));
    world.with(0, |sip, now| sip.invite(now, params)).expect("room");
    world.run_ms(40_000);
    assert_eq!(trace(&mut world), vec!["0>x INVITE"; 7]);
    assert_eq!(world.word(0), "failed 408 Timeout");
    finish(&mut world);
}

#[test]
fn rfc_3665_3_7_cancel_with_its_reason() {
    let mut world = world();
    let caller = world.invite(0, 1);
    // Cancelled before any answer: the CANCEL waits for the 1xx (drachtio-srf's ghost call).
    let reason = Reason::sip(200, "Call completed elsewhere");
    let header = Header::new(HeaderName::Reason, reason.to_string());
    world.with(0, |sip, now| sip.cancel(now, caller, vec![header])).expect("cancel");
    assert_eq!(trace(&mut world), ["0>1 INVITE"]);
    world.run_ms(10);
    assert_eq!(
        trace(&mut world),
        ["1>0 100 INVITE", "0>1 CANCEL", "1>0 200 CANCEL", "1>0 487 INVITE", "0>1 ACK"]
    );
    assert_eq!(world.word(0), "failed 487 Canceled");
    incoming(&mut world, 1);
    match world.event(1) {
        Some(Event::Canceled { reasons, .. }) => assert_eq!(reasons, [reason]),
        other => panic!("{other:?}"),
    }
    finish(&mut world);
}

#[test]
fn cancel_crossing_the_answer_ends_in_bye() {
    let mut world = world();
    let caller = world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    trace(&mut world);
    world.with(0, |sip, now| sip.cancel(now, caller, Vec::new())).expect("cancel");
    world.with(1, |sip, now| sip.accept(now, callee, Vec::new(), sdp())).expect("accept");
    world.run_ms(10);
    assert_eq!(
        trace(&mut world),
        ["0>1 CANCEL", "1>0 200 INVITE", "1>0 200 CANCEL", "0>1 ACK", "0>1 BYE", "1>0 200 BYE"]
    );
    assert_eq!(world.word(0), "ended CanceledAfterAnswer");
    assert_eq!((world.word(1), world.word(1)), ("ack".to_owned(), "ended RemoteBye".to_owned()));
    finish(&mut world);
}

#[test]
fn byes_crossing_each_other_end_both_legs_once() {
    let mut world = world();
    let (caller, callee) = established(&mut world);
    world.with(0, |sip, now| sip.bye(now, caller, Vec::new())).expect("bye");
    world.with(1, |sip, now| sip.bye(now, callee, Vec::new())).expect("bye");
    world.run_ms(10);
    assert_eq!(trace(&mut world), ["0>1 BYE", "1>0 BYE", "1>0 200 BYE", "0>1 200 BYE"]);
    assert_eq!((world.word(0), world.word(1)), ("ended LocalBye".into(), "ended LocalBye".into()));
    assert_eq!((world.word(0), world.word(1)), ("-".into(), "-".into()));
    finish(&mut world);
}

#[test]
fn a_bye_of_the_callee_waits_for_the_ack() {
    let mut world = world();
    world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    trace(&mut world);
    world.with(1, |sip, now| {
        sip.accept(now, callee, Vec::new(), sdp()).expect("accept");
        sip.bye(now, callee, Vec::new()).expect("kept for later");
    });
    assert_eq!(trace(&mut world), ["1>0 200 INVITE"]);
    world.run_ms(10);
    assert_eq!(trace(&mut world), ["0>1 ACK", "1>0 BYE", "0>1 200 BYE"]);
    assert_eq!((world.word(1), world.word(1)), ("ack".into(), "ended LocalBye".into()));
}

#[test]
fn without_ack_the_answer_is_repeated_and_the_call_ended() {
    let mut world = world();
    world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    trace(&mut world);
    world.faults.loss_percent = 100;
    world.with(1, |sip, now| sip.accept(now, callee, Vec::new(), sdp())).expect("accept");
    world.run_ms(32_100);
    let sent = trace(&mut world);
    let answers = sent.iter().filter(|l| *l == "1>0 200 INVITE").count();
    // 0, .5, 1.5, 3.5, then every 4 s up to 31.5 s (RFC 3261 §13.3.1.4).
    assert_eq!(answers, 11, "{sent:?}");
    assert_eq!(sent.last().map(String::as_str), Some("1>0 BYE"));
    assert_eq!(world.agents[1].sip.counters().ack_timeouts, 1);
    world.run_ms(40_000);
    assert_eq!(world.word(1), "ended AckTimeout");
}

#[test]
fn a_repeated_answer_gets_the_same_ack() {
    let mut world = world();
    world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    world.with(1, |sip, now| sip.accept(now, callee, Vec::new(), sdp())).expect("accept");
    let limit = world.now + Duration::from_millis(1);
    while world.step(limit) {}
    // The ACK on its way is lost: take it off by delivering nothing of it.
    let acks: Vec<Bytes> =
        world.log.iter().filter(|l| l.2.starts_with(b"ACK")).map(|l| l.2.clone()).collect();
    assert_eq!(acks.len(), 1);
    let answer = world.log.iter().rfind(|l| l.2.starts_with(b"SIP/2.0 200")).expect("200").clone();
    world.deliver(answer.0, answer.1, answer.2);
    let again: Vec<Bytes> =
        world.log.iter().filter(|l| l.2.starts_with(b"ACK")).map(|l| l.2.clone()).collect();
    assert_eq!(again.len(), 2);
    assert_eq!(again[0], again[1]);
    assert_eq!(world.agents[0].sip.counters().ack_retransmissions_sent, 1);
    assert_eq!((world.word(0), world.word(0)), ("answered".to_owned(), "-".to_owned()));
}

/// The last request of agent 0 that begins with `start`.
fn last_request(world: &World, start: &str) -> Message {
    let found = world.log.iter().rfind(|l| l.2.starts_with(start.as_bytes())).expect("sent");
    Message::parse(&found.2).expect("legal")
}

/// Delivers a response to agent 0 as if `peer` had sent it.
fn answer_from(
    world: &mut World,
    peer: &str,
    request: &Message,
    status: u16,
    tag: &str,
    extra: &[(&str, &str)],
    body: &str,
) {
    let mut response = Message::response_to(request, status, "", Some(tag));
    for (name, value) in extra {
        response.headers.push(Header::named(name, value).expect("a token"));
    }
    if !body.is_empty() {
        response.headers.add(HeaderName::ContentType, "application/sdp");
        response.body = Bytes::copy_from_slice(body.as_bytes());
    }
    let (from, to) = (peer.parse().expect("address"), world.agents[0].addr);
    world.deliver(from, to, response.to_bytes());
}

#[test]
fn forks_ring_apart_and_late_answers_are_ended() {
    let mut world = world();
    world.invite(0, 1);
    let invite = last_request(&world, "INVITE");
    let peer = "192.0.2.50:5060";
    let a = [("Contact", "<sip:a@192.0.2.51>")];
    let b = [("Contact", "<sip:b@192.0.2.52>")];
    answer_from(&mut world, peer, &invite, 183, "fork-a", &a, SDP);
    answer_from(&mut world, peer, &invite, 180, "fork-b", &b, "");
    for (expect_tag, expect_status, has_sdp) in [("fork-a", 183, true), ("fork-b", 180, false)] {
        match world.event(0) {
            Some(Event::Provisional { early_dialog, status, sdp, .. }) => {
                assert_eq!(early_dialog.as_deref(), Some(expect_tag));
                assert_eq!((status, sdp.is_some()), (expect_status, has_sdp));
            }
            other => panic!("{other:?}"),
        }
    }
    world.log.clear();
    answer_from(&mut world, peer, &invite, 200, "fork-b", &b, SDP);
    answer_from(&mut world, peer, &invite, 200, "fork-a", &a, SDP);
    answer_from(&mut world, peer, &invite, 200, "fork-a", &a, SDP);
    let sent: Vec<String> = world
        .log
        .iter()
        .map(|(_, to, bytes)| {
            let message = Message::parse(bytes).expect("legal");
            let tag = message.to().and_then(|t| t.tag().map(str::to_owned)).unwrap_or_default();
            format!("{} {tag} {}", line(&message), to.ip())
        })
        .collect();
    assert_eq!(
        sent,
        [
            "ACK fork-b 192.0.2.52",
            "ACK fork-a 192.0.2.51",
            "BYE fork-a 192.0.2.51",
            "ACK fork-a 192.0.2.51"
        ]
    );
    assert_eq!((world.word(0), world.word(0)), ("answered".to_owned(), "-".to_owned()));
    assert_eq!(world.agents[0].sip.counters().forks_ended, 1);
}

#[test]
fn a_route_set_is_kept_in_order_by_the_caller() {
    let mut world = world();
    let caller = world.invite(0, 1);
    let invite = last_request(&world, "INVITE");
    let extra = [
        ("Contact", "<sip:far@10.0.0.9:5099>"),
        ("Record-Route", "<sip:192.0.2.78;lr>, <sip:192.0.2.77:5066;lr>"),
    ];
    answer_from(&mut world, "192.0.2.77:5066", &invite, 200, "t", &extra, SDP);
    world.with(0, |sip, now| sip.bye(now, caller, Vec::new())).expect("bye");
    for method in ["ACK", "BYE"] {
        let request = last_request(&world, method);
        let routes = request.name_addrs(HeaderName::Route).expect("routes");
        let routes: Vec<_> = routes.iter().map(|r| r.uri.as_str().to_owned()).collect();
        assert_eq!(routes, ["sip:192.0.2.77:5066;lr", "sip:192.0.2.78;lr"]);
        assert_eq!(request.request_uri().expect("URI").as_str(), "sip:far@10.0.0.9:5099");
    }
    let to = world.log.last().expect("sent").1;
    assert_eq!(to.to_string(), "192.0.2.77:5066");
}

#[test]
fn a_private_contact_is_reached_by_the_way_it_came() {
    let mut world = world();
    let caller = world.invite(0, 1);
    let invite = last_request(&world, "INVITE");
    let extra = [("Contact", "<sip:phone@192.168.1.7:5060>")];
    answer_from(&mut world, "203.0.113.9:40123", &invite, 200, "t", &extra, SDP);
    assert_eq!(world.log.last().expect("ACK").1.to_string(), "203.0.113.9:40123");
    let to = Destination::udp("203.0.113.10:5060".parse().expect("address"));
    world.with(0, |sip, now| {
        sip.set_destination(caller, to).expect("known");
        sip.bye(now, caller, Vec::new()).expect("bye");
    });
    assert_eq!(world.log.last().expect("BYE").1.to_string(), "203.0.113.10:5060");
}

#[test]
fn delayed_offer_both_ways() {
    let mut world = world();
    let mut params = world.params(1);
    params.body = None;
    let caller = world.with(0, |sip, now| sip.invite(now, params)).expect("room");
    world.run_ms(10);
    match world.event(1) {
        Some(Event::Incoming { handle, call }) => {
            assert_eq!(call.sdp, None);
            world.with(1, |sip, now| sip.accept(now, handle, Vec::new(), sdp())).expect("accept");
        }
        other => panic!("{other:?}"),
    }
    world.run_ms(1200);
    // No ACK before the user's answer; the 200 is repeated meanwhile.
    assert!(!trace(&mut world).iter().any(|l| l.ends_with("ACK")));
    assert_eq!((world.word(0), world.word(0)), ("answered".to_owned(), "-".to_owned()));
    world.with(0, |sip, now| sip.ack(now, caller, Body::sdp(SDP))).expect("owed");
    world.run_ms(10);
    assert_eq!(world.word(1), "ack sdp");
    let again = world.with(0, |sip, now| sip.ack(now, caller, Body::sdp(SDP)));
    assert_eq!(again, Err(CommandError::State));

    // A re-INVITE without offer works the same way.
    world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), None)).expect("established");
    world.run_ms(10);
    let Some(Event::ReInvite { handle, sdp: None, .. }) = world.event(1) else {
        panic!("no re-INVITE")
    };
    world
        .with(1, |sip, now| sip.respond_reinvite(now, handle, 200, "", Vec::new(), sdp()))
        .expect("waits");
    world.run_ms(10);
    assert_eq!(world.word(0), "reinvite answered");
    world.with(0, |sip, now| sip.ack(now, caller, Body::sdp(SDP))).expect("owed");
    world.run_ms(10);
    assert_eq!(world.word(1), "ack sdp");
}

#[test]
fn an_answer_that_is_never_given_ends_the_call() {
    let mut world = world();
    let mut params = world.params(1);
    params.body = None;
    world.with(0, |sip, now| sip.invite(now, params)).expect("room");
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    world.with(1, |sip, now| sip.accept(now, callee, Vec::new(), sdp())).expect("accept");
    finish(&mut world);
    assert_eq!((world.word(0), world.word(0)), ("answered".into(), "ended Expired".into()));
    assert_eq!((world.word(1), world.word(1)), ("ack".into(), "ended RemoteBye".into()));
}

#[test]
fn reinvites_in_glare_are_both_refused_and_both_succeed_later() {
    let mut world = world();
    let (caller, callee) = established(&mut world);
    world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), sdp())).expect("established");
    world.with(1, |sip, now| sip.reinvite(now, callee, Vec::new(), sdp())).expect("established");
    let pending = world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), sdp()));
    assert_eq!(pending, Err(CommandError::Pending));
    let mut answered = [0, 0];
    let limit = world.now + Duration::from_secs(20);
    while world.step(limit) {
        for (agent, count) in answered.iter_mut().enumerate() {
            match world.event(agent) {
                Some(Event::ReInvite { handle, .. }) => world
                    .with(agent, |sip, now| {
                        sip.respond_reinvite(now, handle, 200, "", Vec::new(), sdp())
                    })
                    .expect("waits"),
                Some(Event::ReInviteAnswered { .. }) => *count += 1,
                Some(Event::AckReceived { .. }) | None => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(answered, [1, 1]);
    assert!(world.agents[0].sip.counters().glare >= 1);
    let sent = trace(&mut world);
    assert_eq!(sent.iter().filter(|l| l.contains("491")).count(), 2, "{sent:?}");
}

#[test]
fn bye_during_reinvite_leaves_nothing() {
    let mut world = world();
    let (caller, callee) = established(&mut world);
    world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), sdp())).expect("established");
    world.run_ms(10);
    assert_eq!(world.word(1), "reinvite");
    world.with(1, |sip, now| sip.bye(now, callee, Vec::new())).expect("bye");
    world.run_ms(10);
    let sent = trace(&mut world);
    assert!(sent.contains(&"1>0 487 INVITE".to_owned()), "{sent:?}");
    assert_eq!(world.word(1), "ended LocalBye");
    assert_eq!(
        (world.word(0), world.word(0)),
        ("reinvite failed 487".into(), "ended RemoteBye".into())
    );
    finish(&mut world);
}

#[test]
fn a_refused_reinvite_leaves_the_call_as_it_was() {
    let mut world = world();
    let (caller, _) = established(&mut world);
    world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), sdp())).expect("established");
    world.run_ms(10);
    let Some(Event::ReInvite { handle, .. }) = world.event(1) else { panic!("no re-INVITE") };
    world
        .with(1, |sip, now| sip.respond_reinvite(now, handle, 488, "", Vec::new(), None))
        .expect("waits");
    world.run_ms(10);
    assert_eq!(world.word(0), "reinvite failed 488");
    assert_eq!(world.agents[0].sip.dialogs_live(), 1);
    // Now one the user never answers: the endpoint refuses it before the peer's timer.
    world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), sdp())).expect("established");
    world.run_ms(30_000);
    assert_eq!(world.word(0), "reinvite failed 500");
}

#[test]
fn info_goes_there_and_its_answer_comes_back() {
    let mut world = world();
    let (caller, _) = established(&mut world);
    let sent = world
        .with(0, |sip, now| sip.info(now, caller, "application/dtmf-relay", "Signal=5".into()))
        .expect("established");
    world.run_ms(10);
    match world.event(1) {
        Some(Event::Info { id, content_type, body, .. }) => {
            assert_eq!(content_type, "application/dtmf-relay");
            assert_eq!(&body[..], b"Signal=5");
            world
                .with(1, |sip, now| sip.respond(now, id, 200, "", Vec::new(), None))
                .expect("waits");
            let twice = world.with(1, |sip, now| sip.respond(now, id, 200, "", Vec::new(), None));
            assert_eq!(twice, Err(CommandError::Unknown));
        }
        other => panic!("{other:?}"),
    }
    world.run_ms(10);
    match world.event(0) {
        Some(Event::RequestDone { handle, id, outcome: RequestOutcome::Response(response) }) => {
            assert_eq!((handle, id, response.status()), (Some(caller), sent, Some(200)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_forgot_the_dialog_ends_the_leg() {
    let mut world = world();
    let (caller, _) = established(&mut world);
    world.agents[1].addr = "192.0.2.200:5060".parse().expect("address");
    world.with(0, |sip, now| sip.info(now, caller, "x/y", "".into())).expect("established");
    let info = last_request(&world, "INFO");
    answer_from(&mut world, "192.0.2.2:5060", &info, 481, "t", &[], "");
    assert_eq!(world.word(0), "done");
    assert_eq!(trace(&mut world), ["0>x INFO", "0>x BYE"]);
    world.run_ms(33_000);
    assert_eq!(world.word(0), "ended TransactionTimeout");
}

/// Sends a raw request to agent 0 and gives back the answer's line and the whole answer.
fn ask(world: &mut World, text: &str) -> (String, Option<Message>) {
    world.log.clear();
    let to = world.agents[0].addr;
    let bytes = Bytes::from(text.replace('\n', "\r\n"));
    world.deliver("192.0.2.66:5066".parse().expect("address"), to, bytes);
    let answers: Vec<Message> =
        world.log.iter().filter_map(|l| Message::parse(&l.2).ok()).collect();
    match answers.last() {
        Some(answer) => (line(answer), answers.last().cloned()),
        None => ("silence".to_owned(), None),
    }
}

fn request(start: &str, branch: &str, extra: &str) -> String {
    let method = start.split(' ').next().unwrap_or_default();
    format!(
        "{start} SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.66:5066;branch=z9hG4bK{branch}\n\
         From: <sip:a@h>;tag=f\nTo: <sip:b@h>\nCall-ID: c{branch}\nCSeq: 1 {method}\n{extra}\n"
    )
}

#[test]
fn what_the_rfc_says_to_strangers() {
    let mut world = world();
    for (start, extra, expect) in [
        ("OPTIONS sip:b@h", "", "200 OPTIONS"),
        // A neighbour that asks whether we live; nothing is forwarded.
        ("OPTIONS sip:b@h", "Max-Forwards: 0\n", "200 OPTIONS"),
        ("INVITE sip:b@h", "Max-Forwards: 0\n", "483 INVITE"),
        ("INVITE sip:b@h", "Require: 100rel, x\n", "420 INVITE"),
        ("INVITE http://b", "", "416 INVITE"),
        ("INVITE sips:b@h", "", "416 INVITE"),
        ("INVITE sip:b@h", "Accept: text/x\n", "406 INVITE"),
        ("INVITE sip:b@h", "Max-Forwards: abc\n", "400 INVITE"),
        ("REGISTER sip:h", "", "405 REGISTER"),
        ("SUBSCRIBE sip:b@h", "", "405 SUBSCRIBE"),
        ("REFER sip:b@h", "Refer-To: <sip:c@h>\n", "405 REFER"),
        ("BYE sip:b@h", "", "481 BYE"),
        ("CANCEL sip:b@h", "", "481 CANCEL"),
        ("NEWTHING sip:b@h", "", "501 NEWTHING"),
        ("ACK sip:b@h", "", "silence"),
    ] {
        let branch = format!("{}{}", start.replace([' ', ':', '@', '/'], ""), extra.len());
        let (answer, _) = ask(&mut world, &request(start, &branch, extra));
        assert_eq!(answer, expect, "{start} {extra}");
    }
    let (_, answer) = ask(&mut world, &request("INVITE sip:b@h", "u", "Require: 100rel, x\n"));
    let unsupported = answer.expect("420").option_tags(HeaderName::Unsupported);
    assert_eq!(unsupported, ["100rel", "x"]);
    let with_tag =
        request("INFO sip:b@h", "t", "").replace("To: <sip:b@h>", "To: <sip:b@h>;tag=zz");
    assert_eq!(ask(&mut world, &with_tag).0, "481 INFO");
    let body = request("INVITE sip:b@h", "body", "Content-Type: text/html\nContent-Length: 1\n\nx");
    assert_eq!(ask(&mut world, &body).0, "415 INVITE");
    let counters = *world.agents[0].sip.counters();
    assert_eq!((counters.acks_unmatched, counters.cancels_unmatched), (1, 1));
    assert_eq!(counters.parse_errors_answered, 1);
    assert_eq!(world.agents[0].sip.dialogs_live(), 0);
    assert_eq!(world.word(0), "-");
}

#[test]
fn repeated_and_merged_requests() {
    let mut world = world();
    let invite = request("INVITE sip:b@h", "one", "Contact: <sip:a@192.0.2.66:5066>\n");
    assert_eq!(ask(&mut world, &invite).0, "100 INVITE");
    assert_eq!(ask(&mut world, &invite).0, "100 INVITE");
    let merged = invite.replace("z9hG4bKone", "z9hG4bKtwo");
    assert_eq!(ask(&mut world, &merged).0, "482 INVITE");
    assert_eq!((world.word(0), world.word(0)), ("incoming".to_owned(), "-".to_owned()));
    let counters = world.agents[0].sip.counters();
    assert_eq!((counters.request_retransmissions_received, counters.requests_merged), (1, 1));
}

#[test]
fn a_cancel_with_another_via_still_cancels() {
    let mut world = world();
    assert_eq!(ask(&mut world, &request("INVITE sip:b@h", "v1", "")).0, "100 INVITE");
    let cancel = request("CANCEL sip:b@h", "v1", "").replace("192.0.2.66:5066;", "proxy.example;");
    assert_eq!(ask(&mut world, &cancel).0, "487 INVITE");
    assert_eq!((world.word(0), world.word(0)), ("incoming".into(), "canceled".into()));
}

#[test]
fn a_peer_of_rfc_2543_can_call_cancel_and_acknowledge() {
    let mut world = world();
    let old = |method: &str, to: &str| {
        format!(
            "{method} sip:b@h SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.66:5066\nFrom: <sip:a@h>;tag=f\n\
             To: <sip:b@h>{to}\nCall-ID: old\nCSeq: 4 {method}\n\n"
        )
    };
    assert_eq!(ask(&mut world, &old("INVITE", "")).0, "100 INVITE");
    assert_eq!(ask(&mut world, &old("INVITE", "")).0, "100 INVITE");
    let (answer, refusal) = ask(&mut world, &old("CANCEL", ""));
    assert_eq!(answer, "487 INVITE");
    let tag = refusal.and_then(|m| m.to()).and_then(|t| t.tag().map(str::to_owned)).expect("tag");
    assert_eq!(ask(&mut world, &old("ACK", &format!(";tag={tag}"))).0, "silence");
    assert_eq!((world.word(0), world.word(0)), ("incoming".into(), "canceled".into()));
    // T4 later the acknowledged transaction is gone; an unacknowledged one would repeat its 487.
    world.log.clear();
    world.run_ms(20_000);
    assert!(trace(&mut world).is_empty());
    assert_eq!(world.agents[0].sip.counters().acks_unmatched, 0);
}

#[test]
fn answers_follow_rport_and_a_malformed_request_is_told() {
    let mut world = world();
    let text = request("OPTIONS sip:b@h", "r", "").replace(":5066;branch", ":9;rport;branch");
    let (_, answer) = ask(&mut world, &text);
    let via = answer.and_then(|a| a.top_via()).expect("Via");
    assert_eq!(
        (via.params.get("rport"), via.params.get("received")),
        (Some("5066"), Some("192.0.2.66"))
    );
    assert_eq!(world.log[0].1.to_string(), "192.0.2.66:5066");
    let text = request("OPTIONS sip:b@h", "s", "").replace(":5066;branch", ":7777;branch");
    ask(&mut world, &text);
    assert_eq!(world.log[0].1.to_string(), "192.0.2.66:7777");
    let text =
        request("OPTIONS sip:b@h", "m", "l: 99\n").replace(":5066;branch", ":9;rport;branch");
    let (line, answer) = ask(&mut world, &text);
    assert_eq!(line, "400 OPTIONS");
    assert!(answer.is_some_and(|a| a.reason().contains("Content-Length")));
    assert_eq!(world.log[0].1.to_string(), "192.0.2.66:5066");
}

#[test]
fn beyond_the_limits_is_503_and_existing_calls_go_on() {
    let mut world = World::new(3, Faults::NONE, 2);
    let mut config = world.agents[1].sip.config().clone();
    config.dialogs_max = 1;
    use rand::SeedableRng;
    world.agents[1].sip = sip_core::SipEndpoint::new(config, rand::rngs::StdRng::seed_from_u64(5));
    let (caller, _) = established(&mut world);
    world.invite(0, 1);
    world.run_ms(10);
    match world.event(0) {
        Some(Event::Failed { status: 503, response: Some(response), .. }) => {
            assert_eq!(response.number(HeaderName::RetryAfter), Some(5));
        }
        other => panic!("{other:?}"),
    }
    let params = world.params(0);
    let full = world.with(1, |sip, now| sip.invite(now, params));
    assert_eq!(full, Err(CommandError::Capacity));
    world.with(0, |sip, now| sip.bye(now, caller, Vec::new())).expect("bye");
    world.run_ms(10);
    assert_eq!(world.word(0), "ended LocalBye");
    assert_eq!(world.agents[1].sip.counters().capacity_refused, 2);
}

#[test]
fn challenges_are_answered_once() {
    let mut world = world();
    let mut params = world.params(1);
    params.credentials =
        Some(Credentials { username: "u".to_owned(), password: "p".to_owned(), realm: None });
    world.with(0, |sip, now| sip.invite(now, params)).expect("room");
    let first = last_request(&world, "INVITE");
    let challenge = [(
        "Proxy-Authenticate",
        "Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256",
    )];
    answer_from(&mut world, "192.0.2.2:5060", &first, 407, "t", &challenge, "");
    let second = last_request(&world, "INVITE");
    assert_eq!(second.cseq().map(|c| c.number), Some(2));
    assert_eq!(second.call_id(), first.call_id());
    assert_ne!(second.top_via(), first.top_via());
    assert_eq!(second.headers.all(HeaderName::Via).count(), 1);
    let header = second.headers.first(HeaderName::ProxyAuthorization).expect("answered");
    assert!(header.value_str().contains("nc=00000001"));
    answer_from(&mut world, "192.0.2.2:5060", &second, 407, "t", &challenge, "");
    assert_eq!(world.word(0), "failed 407 Response");
}

#[test]
fn a_challenged_bye_and_reinvite_are_sent_again() {
    let mut world = world();
    let mut params = world.params(1);
    params.credentials =
        Some(Credentials { username: "u".to_owned(), password: "p".to_owned(), realm: None });
    let caller = world.with(0, |sip, now| sip.invite(now, params)).expect("room");
    let invite = last_request(&world, "INVITE");
    let contact = [("Contact", "<sip:192.0.2.2>")];
    let peer = "192.0.2.2:5060";
    answer_from(&mut world, peer, &invite, 200, "t", &contact, SDP);
    let challenge = [("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n\"")];
    world.with(0, |sip, now| sip.reinvite(now, caller, Vec::new(), sdp())).expect("established");
    let first = last_request(&world, "INVITE");
    answer_from(&mut world, peer, &first, 401, "t", &challenge, "");
    let second = last_request(&world, "INVITE");
    assert!(second.headers.first(HeaderName::Authorization).is_some());
    answer_from(&mut world, peer, &second, 200, "t", &contact, SDP);
    world.with(0, |sip, now| sip.bye(now, caller, Vec::new())).expect("bye");
    let bye = last_request(&world, "BYE");
    answer_from(&mut world, peer, &bye, 401, "t", &challenge, "");
    let again = last_request(&world, "BYE");
    let numbers = [&invite, &first, &second, &bye, &again].map(|m| m.cseq().map(|c| c.number));
    assert_eq!(numbers, [Some(1), Some(2), Some(3), Some(4), Some(5)]);
    answer_from(&mut world, peer, &again, 200, "t", &[], "");
    let words: Vec<_> = (0..3).map(|_| world.word(0)).collect();
    assert_eq!(words, ["answered", "reinvite answered", "ended LocalBye"]);
}

#[test]
fn requests_outside_dialogs() {
    let mut world = world();
    let target = Destination::udp(world.agents[1].addr);
    let uri = Uri::parse("sip:192.0.2.2").expect("legal");
    let params = RequestParams {
        method: Method::Options,
        target,
        request_uri: uri.clone(),
        from: NameAddr::new(uri.clone()),
        to: NameAddr::new(uri),
        call_id: None,
        cseq: 1,
        headers: Vec::new(),
        body: None,
        credentials: None,
    };
    let id = world.with(0, |sip, now| sip.send_request(now, params.clone())).expect("room");
    world.run_ms(10);
    match world.event(0) {
        Some(Event::RequestDone {
            handle: None,
            id: done,
            outcome: RequestOutcome::Response(r),
        }) => {
            assert_eq!((done, r.status()), (id, Some(200)));
            assert!(r.headers.first(HeaderName::Allow).is_some());
        }
        other => panic!("{other:?}"),
    }
    world.faults.loss_percent = 100;
    world.with(0, |sip, now| sip.send_request(now, params.clone())).expect("room");
    world.run_ms(33_000);
    assert!(matches!(
        world.event(0),
        Some(Event::RequestDone { outcome: RequestOutcome::Timeout, .. })
    ));
    world.with(0, |sip, now| {
        sip.send_request(now, params).expect("room");
        sip.handle_input(now, Input::SendFailed { to: target });
    });
    assert!(matches!(
        world.event(0),
        Some(Event::RequestDone { outcome: RequestOutcome::Transport, .. })
    ));
}

#[test]
fn admission_knows_its_own_datagrams() {
    let mut world = world();
    let (caller, _) = established(&mut world);
    let key = world.agents[0].sip.token_key().clone();
    let other = world.agents[1].sip.token_key().clone();
    world.with(1, |_, _| {});
    world.with(0, |sip, now| sip.bye(now, caller, Vec::new())).expect("bye");
    world.run_ms(10);
    for (from, _, bytes) in &world.log {
        // Both ways carry the caller's tag, and the callee's in the dialog.
        assert!(key.carries(bytes) && other.carries(bytes), "from {from}");
    }
    assert!(!key.carries(request("INVITE sip:b@h", "x", "").as_bytes()));
}

#[test]
fn streams_do_not_retransmit() {
    let mut world = world();
    world.transport = Transport::Tcp;
    let (caller, _) = established(&mut world);
    world.with(0, |sip, now| sip.bye(now, caller, Vec::new())).expect("bye");
    world.run_ms(10);
    assert_eq!(trace(&mut world), ["0>1 BYE", "1>0 200 BYE"]);
    // Only the Accepted states of the INVITE (RFC 6026) are still there.
    assert_eq!(world.agents[0].sip.transactions_live(), 1);
    world.faults.loss_percent = 100;
    world.invite(0, 1);
    world.run_ms(33_000);
    assert_eq!(trace(&mut world), ["0>1 INVITE"]);
}

#[test]
fn a_caller_that_hangs_up_while_it_rings_with_bye() {
    let mut world = world();
    world.invite(1, 0);
    world.run_ms(10);
    let callee = incoming(&mut world, 0);
    world
        .with(0, |sip, now| sip.provisional(now, callee, 180, "", Vec::new(), None))
        .expect("ringing");
    let ringing = Message::parse(&world.log.last().expect("180").2).expect("legal");
    let mut bye = Message::request(Method::Bye, &Uri::parse("sip:b@h").expect("legal"));
    bye.headers.add(HeaderName::Via, "SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKbye");
    for name in [HeaderName::From, HeaderName::To, HeaderName::CallId] {
        bye.headers.push(ringing.headers.first(name).expect("there").clone());
    }
    bye.headers.add(HeaderName::CSeq, "2 BYE");
    world.log.clear();
    let (from, to) = (world.agents[1].addr, world.agents[0].addr);
    world.deliver(from, to, bye.to_bytes());
    assert_eq!(trace(&mut world), ["0>1 200 BYE", "0>1 487 INVITE"]);
    assert_eq!(world.word(0), "ended RemoteBye");
}

#[test]
fn a_ringing_call_has_an_end_and_its_180_is_refreshed() {
    let mut world = world();
    world.invite(0, 1);
    world.run_ms(10);
    let callee = incoming(&mut world, 1);
    world
        .with(1, |sip, now| sip.provisional(now, callee, 180, "", Vec::new(), None))
        .expect("ringing");
    world.run_ms(301_000);
    assert_eq!(world.word(1), "ended Expired");
    let sent = trace(&mut world);
    assert_eq!(sent.iter().filter(|l| *l == "1>0 180 INVITE").count(), 5, "{sent:?}");
    assert!(sent.contains(&"1>0 480 INVITE".to_owned()));
    finish(&mut world);
}
