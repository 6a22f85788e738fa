//! Phones against phones on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use tandem_load::{
    BankConfig, Codec, Detail, DigitMethod, EventKind, Phone, PhoneBank, PhoneHandle, PhoneReport,
    Source, Step, Traffic, Whose, mouth_to_ear, mouth_to_ear_ms,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn bank() -> PhoneBank {
    PhoneBank::start(BankConfig::default()).unwrap()
}

fn call(name: &str, callee: &PhoneHandle) -> Phone {
    Phone::caller(name, &format!("sip:bob@{}", callee.addr())).tone(440.0)
}

/// Plugs both in and waits for the end of the call.
fn talk(
    bank: &PhoneBank,
    bob: Phone,
    alice: impl FnOnce(&PhoneHandle) -> Phone,
) -> (PhoneReport, PhoneReport) {
    let bob = bank.add(bob).unwrap();
    let alice = bank.add(alice(&bob)).unwrap();
    let alice = alice.wait_ended(PATIENCE).unwrap();
    let bob = bob.wait_ended(Duration::from_secs(5)).unwrap();
    for report in [&alice, &bob] {
        assert!(report.ended(), "{}: {:#?}", report.phone, report.events);
    }
    (alice, bob)
}

#[test]
fn two_phones_hear_each_other() {
    let bank = bank();
    let bob = Phone::callee("bob").tone(620.0).script([Step::Ring(200), Step::Answer]);
    let (alice, bob) = talk(&bank, bob, |bob| {
        call("alice", bob).script([
            Step::WaitAnswer(5000),
            Step::wait_tone(620.0),
            Step::Wait(2500),
            Step::Hangup,
        ])
    });
    assert_eq!(alice.failure, None);
    assert!(alice.script_done);
    for (report, hears, not) in [(&alice, 620.0, 440.0), (&bob, 440.0, 620.0)] {
        assert!(report.heard_tone(hears) && !report.heard_tone(not), "{:?}", report.heard);
        assert_eq!(report.codec, Some(Codec::Pcmu));
        let received = &report.received;
        assert!(received.packets > 120, "{}", received.packets);
        assert_eq!((received.lost, received.timestamp_jumps, received.from_elsewhere), (0, 0, 0));
        assert!(received.arrivals.len() as u64 == received.packets);
    }
    assert!(alice.set_up_ms().unwrap() >= 200.0);
    assert!(alice.post_dial_delay_ms().unwrap() < 200.0);
    let end = alice.end.as_ref().unwrap();
    assert_eq!((end.whose, end.how.as_str()), (Whose::Us, "bye"));
    assert_eq!(bob.end.as_ref().unwrap().whose, Whose::Peer);
    assert!(bob.when(|event| matches!(event, EventKind::AckReceived)).is_some());

    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let delay = mouth_to_ear(from, to, 0, u64::MAX).unwrap();
        assert_eq!(delay.matched, delay.heard, "{delay:?}");
        assert!((0.0..10.0).contains(&delay.median_ms), "{delay:?}");
    }
    // What one sent and the other received, to the packet: nothing was under way at the BYE but
    // what the drain took in.
    assert_eq!(alice.sent.packets, bob.received.packets + bob.socket_drops);
}

#[test]
fn keys_arrive_by_every_way() {
    let bank = bank();
    for method in [DigitMethod::Rfc4733, DigitMethod::Info] {
        let wait = Step::WaitDigits { digits: "159#".to_owned(), within_ms: 8000 };
        let bob = Phone::callee("bob").tone(620.0).script([
            Step::Answer,
            wait,
            Step::Wait(1000),
            Step::Hangup,
        ]);
        let (alice, bob) = talk(&bank, bob, |bob| {
            let keys = Step::Digits { digits: "159#".to_owned(), method };
            call("alice", bob).script([Step::WaitAnswer(5000), keys])
        });
        assert_eq!(bob.digits, "159#", "{method:?}");
        assert_eq!((alice.failure, bob.failure), (None, None));
        assert_eq!(alice.sent.digits, "159#");
    }
}

#[test]
fn a_phone_without_events_cannot_take_keys() {
    let bank = bank();
    let (alice, _) = talk(&bank, Phone::callee("bob").events(false), |bob| {
        call("alice", bob).script([Step::WaitAnswer(5000), Step::digits("1")])
    });
    assert!(alice.failure.unwrap().contains("does not take telephone events"));
}

#[test]
fn rejection_cancel_and_busy_are_reported() {
    let bank = bank();
    let bob = Phone::callee("bob").script([Step::Ring(50), Step::Reject(603)]);
    let (alice, _) = talk(&bank, bob, |bob| call("alice", bob).script([Step::WaitAnswer(5000)]));
    let end = alice.end.unwrap();
    assert_eq!((end.whose, end.how.as_str(), end.status), (Whose::Peer, "rejected", Some(603)));

    let bob = Phone::callee("bob").script([Step::Ring(60_000)]);
    let (alice, bob) = talk(&bank, bob, |bob| call("alice", bob).script([Step::Cancel(300)]));
    assert_eq!(alice.end.unwrap().how, "cancel");
    assert_eq!(bob.end.unwrap().how, "cancel");
    assert!(bob.events.iter().any(|e| matches!(e.kind, EventKind::CancelReceived { .. })));

    let bob = bank.add(Phone::callee("bob").calls_at_once_max(0)).unwrap();
    let alice = bank.add(call("alice", &bob)).unwrap().wait_ended(PATIENCE).unwrap();
    assert_eq!(alice.end.unwrap().status, Some(486));
}

#[test]
fn codecs_are_negotiated_or_the_call_fails() {
    let bank = bank();
    let bob = Phone::callee("bob").tone(620.0).codecs(&[Codec::Pcma]);
    let (alice, bob) = talk(&bank, bob, |bob| {
        call("alice", bob).script([Step::WaitAnswer(5000), Step::wait_tone(620.0), Step::Hangup])
    });
    assert_eq!((alice.codec, bob.codec), (Some(Codec::Pcma), Some(Codec::Pcma)));
    assert_eq!(alice.failure, None);

    let bob = Phone::callee("bob").codecs(&[Codec::Pcma]);
    let (alice, bob) = talk(&bank, bob, |bob| call("alice", bob).codecs(&[Codec::Pcmu]));
    assert_eq!(alice.end.unwrap().status, Some(488));
    assert!(bob.failure.unwrap().contains("no codec in common"));
}

#[test]
fn media_stops_resumes_and_is_held() {
    let bank = bank();
    let bob = Phone::callee("bob").tone(620.0).script([Step::Answer]);
    let (alice, bob) = talk(&bank, bob, |bob| {
        call("alice", bob).script([
            Step::WaitAnswer(5000),
            Step::wait_tone(620.0),
            Step::StopMedia,
            Step::Wait(500),
            Step::ResumeMedia,
            Step::Wait(200),
            Step::Hold,
            Step::WaitSilence { for_ms: 700, within_ms: 5000 },
            Step::Unhold,
            Step::wait_tone(620.0),
            Step::Hangup,
        ])
    });
    assert_eq!(alice.failure, None, "{:#?}", alice.events);
    assert_eq!(bob.reinvites, 2);
    let stopped = alice.when(|event| matches!(event, EventKind::MediaStopped)).unwrap();
    let window = bob.received.window(stopped, stopped + 500_000_000);
    assert!(window.packets <= 2 && window.max_gap_ms > 450.0, "{window:?}");
    let (gap_ms, _, _) = bob.received.longest_gap().unwrap();
    assert!((450.0..700.0).contains(&gap_ms), "{gap_ms}");
}

#[test]
fn early_media_is_heard_before_the_answer() {
    let bank = bank();
    let bob = Phone::callee("bob").say(Source::Tone(425.0)).script([
        Step::Progress(1500),
        Step::Say(Source::Bursts(620.0)),
        Step::Answer,
    ]);
    let (alice, _) = talk(&bank, bob, |bob| {
        call("alice", bob).record(true).script([
            Step::wait_tone(425.0),
            Step::WaitAnswer(5000),
            Step::wait_tone(620.0),
            Step::Hangup,
        ])
    });
    assert_eq!(alice.failure, None);
    let first = alice.first_heard_ns(425.0).unwrap();
    assert!(first < alice.answered_ns.unwrap());
    assert!(alice.first_heard_ns(620.0).unwrap() > alice.last_heard_ns(425.0).unwrap());
    assert_eq!(alice.audio.len() as u64, alice.received.packets * 160);
}

#[test]
fn a_step_that_is_not_met_fails_the_call() {
    let bank = bank();
    let (alice, bob) = talk(&bank, Phone::callee("bob").tone(620.0), |bob| {
        call("alice", bob)
            .script([Step::WaitAnswer(5000), Step::WaitTone { freq_hz: 1000.0, within_ms: 600 }])
    });
    assert!(alice.failure.unwrap().contains("1000 Hz"));
    assert_eq!(bob.end.unwrap().whose, Whose::Peer);
}

#[test]
fn a_dead_target_times_out_or_is_refused() {
    let bank = bank();
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alice = Phone::caller("alice", &format!("sip:x@{gone}")).script([Step::WaitAnswer(1000)]);
    let alice = bank.add(alice).unwrap().wait(PATIENCE, |report| report.script_done).unwrap();
    assert!(alice.failure.unwrap().contains("not in time"));
}

#[test]
fn steps_can_be_added_while_the_call_goes_on() {
    let bank = bank();
    let bob = bank.add(Phone::callee("bob").tone(620.0)).unwrap();
    let alice = bank.add(call("alice", &bob)).unwrap();
    assert!(alice.wait_answered(PATIENCE).unwrap().answered());
    bob.run([Step::digits("7"), Step::Hangup]).unwrap();
    let report = alice.wait_ended(PATIENCE).unwrap();
    assert_eq!(report.digits, "7");
    assert_eq!(report.end.unwrap().whose, Whose::Peer);
    alice.dial().unwrap();
    let again = alice.wait(PATIENCE, |report| report.call == 1 && report.answered()).unwrap();
    assert!(again.answered());
    assert!(bob.run([Step::digits("x")]).is_err());
}

#[test]
fn mistakes_in_a_description_are_named() {
    let bank = bank();
    let check = |phone: Phone, part: &str| {
        let error = bank.add(phone).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(Phone::caller("a", "tel"), "no SIP URI");
    check(Phone::callee("a").codecs(&[]), "no codec");
    check(Phone::callee("a").listen("0.0.0.0:0".parse().unwrap()), "names no interface");
    check(Phone::callee("a").script([Step::Reject(200)]), "300 to 699");
    check(Phone::callee("a").listen("192.0.2.1:5060".parse().unwrap()), "192.0.2.1:5060");
    let rate = Traffic { rate_per_s: 0.0, ..Traffic::ONE };
    check(Phone::caller("a", "sip:b@127.0.0.1").traffic(rate), "rate 0");
}

#[test]
fn many_calls_are_added_up() {
    let bank = bank();
    let bob = Phone::callee("bob").tone(620.0).calls_at_once_max(100).detail(Detail::Counters);
    let bob = bank.add(bob.keep_reports(false)).unwrap();
    let traffic = Traffic { calls: 30, rate_per_s: 100.0, at_once_max: 10 };
    let alice = call("alice", &bob)
        .traffic(traffic)
        .detail(Detail::Counters)
        .full_every(10)
        .keep_reports(false)
        .script([Step::WaitAnswer(5000), Step::Wait(500), Step::Hangup]);
    let alice = bank.add(alice).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let totals = loop {
        let totals = alice.totals().unwrap();
        assert!(totals.live <= 10);
        if totals.ok + totals.failed_count() == 30 {
            break totals;
        }
        assert!(std::time::Instant::now() < deadline, "{totals:?}");
        alice.wait(Duration::from_millis(50), |_| false).unwrap();
    };
    assert_eq!((totals.ok, totals.attempted, totals.deaf), (30, 30, 0), "{:?}", totals.failed);
    assert_eq!(totals.set_up_us.len(), 30);
    assert_eq!(alice.reports().unwrap().len(), 3, "one of ten is kept");
    assert_eq!(mouth_to_ear_ms(&PhoneReport::default(), &PhoneReport::default()), None);
}
