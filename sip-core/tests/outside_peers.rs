//! What an endpoint says to requests that its user does not serve and to bodies it cannot read.

mod common;

use bytes::Bytes;
use common::{Faults, World};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sip_core::{Event, HeaderName, Message, Method, Output, SipConfig, SipEndpoint, Transport};

fn endpoint(served: Vec<Method>) -> SipEndpoint {
    let mut config = SipConfig::new("192.0.2.1", 5060, [1; 32]);
    config.served_methods = served;
    SipEndpoint::new(config, StdRng::seed_from_u64(1))
}

/// Gives one datagram to an endpoint: what it sends, and what it reports.
fn hear(sip: &mut SipEndpoint, text: &str) -> (Vec<Message>, Vec<Event>) {
    let (mut sent, mut events) = (Vec::new(), Vec::new());
    let input = sip_core::Input::Datagram {
        source: "192.0.2.66:5060".parse().expect("address"),
        local: "192.0.2.1:5060".parse().expect("address"),
        transport: Transport::Udp,
        bytes: Bytes::from(text.replace('\n', "\r\n")),
    };
    sip.handle_input(std::time::Instant::now(), input);
    while let Some(output) = sip.poll_output() {
        match output {
            Output::Send { bytes, .. } => sent.push(Message::parse(&bytes).expect("our own")),
            Output::Event(event) => events.push(event),
        }
    }
    (sent, events)
}

fn invite(headers: &str, body: &str) -> String {
    format!(
        "INVITE sip:b@h SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bK{}\nMax-Forwards: 70\n\
         From: <sip:a@h>;tag=1\nTo: <sip:b@h>\nCall-ID: c{}\nCSeq: 1 INVITE\n\
         Contact: <sip:a@192.0.2.66>\n{headers}\n{body}",
        headers.len(),
        headers.len(),
    )
}

#[test]
fn options_tell_what_is_served() {
    for (served, expect) in [
        (vec![], "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE"),
        (vec![Method::Info], "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO"),
    ] {
        let mut sip = endpoint(served);
        let (sent, _) = hear(&mut sip, &invite("", "").replace("INVITE", "OPTIONS"));
        let allow = sent[0].headers.first(HeaderName::Allow).expect("Allow").value_str();
        assert_eq!(allow, expect);
    }
}

#[test]
fn a_flood_of_what_is_refused_takes_no_room() {
    let mut sip = endpoint(vec![]);
    for n in 0..1_000 {
        for (method, expect) in
            [("REGISTER", 405), ("OPTIONS", 200), ("BYE", 481), ("NEWTHING", 501), ("CANCEL", 481)]
        {
            let text = invite("", "")
                .replace("INVITE", method)
                .replace("z9hG4bK0", &format!("z9hG4bK{n}"));
            let (first, _) = hear(&mut sip, &text);
            let (again, _) = hear(&mut sip, &text);
            assert_eq!(first[0].status(), Some(expect), "{method}");
            assert_eq!(first[0].to_bytes(), again[0].to_bytes(), "RFC 3261 §8.2.7: the same tag");
        }
    }
    assert_eq!(sip.transactions_live(), 0);
}

#[test]
fn who_is_not_available_says_so() {
    let mut sip = endpoint(vec![]);
    let options = invite("", "").replace("INVITE", "OPTIONS");
    sip.set_available(false);
    let (sent, _) = hear(&mut sip, &options);
    assert_eq!(sent[0].status(), Some(503));
    assert!(sent[0].headers.first(HeaderName::RetryAfter).is_some());
    sip.set_available(true);
    assert_eq!(hear(&mut sip, &options).0[0].status(), Some(200));
}

#[test]
fn a_body_that_may_be_ignored_is_no_reason_to_refuse() {
    let mut sip = endpoint(vec![]);
    let isup = "Content-Type: application/isup\n";
    let (sent, _) = hear(&mut sip, &invite(isup, "x"));
    assert_eq!(sent[0].status(), Some(415));
    assert!(sent[0].headers.first(HeaderName::Accept).is_some());
    for disposition in ["signal;handling=required", "signal", "signal;handling"] {
        let more = format!("{isup}Content-Disposition: {disposition}\n");
        assert_eq!(hear(&mut sip, &invite(&more, "x")).0[0].status(), Some(415), "{disposition}");
    }
    let more = format!("{isup}Content-Disposition: signal ; Handling = Optional\n");
    let (sent, events) = hear(&mut sip, &invite(&more, "x"));
    assert_eq!(sent[0].status(), Some(100));
    assert!(matches!(&events[..], [Event::Incoming { call, .. }] if call.sdp.is_none()));
}

#[test]
fn what_the_caller_accepts_must_be_what_we_answer_with() {
    let mut sip = endpoint(vec![]);
    for (accept, expect) in [
        ("text/plain", 406),
        ("text/plain, application/pidf+xml;q=1", 406),
        ("application/sdp;level=1, text/html", 100),
        ("application/*", 100),
        ("*/*", 100),
        ("", 100),
    ] {
        let (sent, _) = hear(&mut sip, &invite(&format!("Accept: {accept}\n"), ""));
        assert_eq!(sent[0].status(), Some(expect), "{accept:?}");
    }
}

#[test]
fn an_answer_goes_to_the_source_if_the_via_cannot_be_read() {
    let mut world = World::new(1, Faults::NONE, 1);
    let text = invite("", "").replace("UDP 192.0.2.66;", "UDP 192.0.2.66;;,;,,");
    let from = "192.0.2.66:4711".parse().expect("address");
    let to = world.agents[0].addr;
    world.with(0, |sip, now| {
        let (transport, bytes) = (Transport::Udp, Bytes::from(text.replace('\n', "\r\n")));
        let input = sip_core::Input::Datagram { source: from, local: to, transport, bytes };
        sip.handle_input(now, input);
    });
    let (_, answered, bytes) = world.log.last().expect("an answer").clone();
    assert_eq!(answered, from);
    assert!(bytes.starts_with(b"SIP/2.0 400 Bad Request: Via is malformed"));
}
