//! Delay from mouth to ear through the WAN emulator.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tandem_load::clock::now_ns;
use tandem_load::{
    BankConfig, EventKind, Phone, PhoneBank, PhoneReport, Step, Traffic, mouth_to_ear,
};
use tandem_wan::{LinkConfig, Mapping, PathConfig, Relay};

fn relay_to(target: SocketAddr, config: LinkConfig) -> (Relay, SocketAddr) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = PathConfig::symmetric(config);
    let relay = Relay::start(vec![Mapping { listen, target }], config, 1).unwrap();
    let addr = relay.listen_addrs()[0];
    (relay, addr)
}

fn sends_to(report: &PhoneReport) -> SocketAddr {
    let to = report.events.iter().find_map(|event| match &event.kind {
        EventKind::MediaStarted { to, .. } => Some(to.clone()),
        _ => None,
    });
    to.unwrap().parse().unwrap()
}

#[test]
fn delay_of_the_signalling_path_shows_in_the_set_up_time() {
    let bank = PhoneBank::start(BankConfig::default()).unwrap();
    let bob = bank.add(Phone::callee("bob").tone(620.0)).unwrap();
    let (_relay, via) = relay_to(bob.addr(), LinkConfig::delay(80.0));
    let alice = Phone::caller("alice", "sip:bob@127.0.0.1").via(via).script([
        Step::WaitAnswer(5000),
        Step::wait_tone(620.0),
        Step::Hangup,
    ]);
    let alice = bank.add(alice).unwrap().wait_ended(Duration::from_secs(20)).unwrap();
    assert_eq!(alice.failure, None, "{:#?}", alice.events);
    let set_up_ms = alice.set_up_ms().unwrap();
    assert!((160.0..260.0).contains(&set_up_ms), "{set_up_ms}");
}

#[test]
fn delay_of_the_media_path_is_measured_phase_by_phase() {
    let bank = PhoneBank::start(BankConfig::default()).unwrap();
    let bob = bank.add(Phone::callee("bob").tone(620.0)).unwrap();
    let alice = Phone::caller("alice", &bob.uri()).tone(440.0);
    let alice = bank.add(alice).unwrap();
    let patience = Duration::from_secs(10);
    let report = alice.wait_answered(patience).unwrap();

    bob.wait(patience, |bob| bob.bursts.len() >= 5).unwrap();
    let switched_ns = now_ns();
    let (relay, addr) = relay_to(sends_to(&report), LinkConfig::delay(80.0));
    alice.run([Step::SendTo(addr)]).unwrap();
    let heard_since = |bob: &PhoneReport, since_ns: u64| {
        bob.bursts.iter().filter(|burst| burst.onset_ns > since_ns).count()
    };
    let settled_ns = switched_ns + 500_000_000;
    let bob = bob.wait(patience, |bob| heard_since(bob, settled_ns) >= 6).unwrap();
    let alice = alice.report().unwrap();

    let near = mouth_to_ear(&alice, &bob, 0, switched_ns).unwrap();
    let far = mouth_to_ear(&alice, &bob, settled_ns, u64::MAX).unwrap();
    assert!(near.median_ms < 5.0, "{near:?}");
    assert!((far.median_ms - near.median_ms - 80.0).abs() < 10.0, "{near:?} {far:?}");
    assert!(bob.received.from_elsewhere > 0);
    assert!(relay.stats().mappings[0].there.delivered > 0);
    // The gap at the switch is the delay and one packet's time.
    let gap = bob.received.window(switched_ns, settled_ns).max_gap_ms;
    assert!((80.0..160.0).contains(&gap), "{gap}");
}

#[test]
fn calls_survive_a_lossy_signalling_path() {
    let bank = PhoneBank::start(BankConfig::default()).unwrap();
    let bob = bank.add(Phone::callee("bob").calls_at_once_max(20)).unwrap();
    let lossy = LinkConfig { loss: 0.2, duplicate: 0.1, reorder: 0.1, ..LinkConfig::delay(10.0) };
    let (relay, via) = relay_to(bob.addr(), lossy);
    let alice = Phone::caller("alice", "sip:bob@127.0.0.1")
        .via(via)
        .traffic(Traffic { calls: 10, rate_per_s: 50.0, at_once_max: 10 })
        .script([Step::WaitAnswer(20_000), Step::Wait(200), Step::Hangup]);
    let alice = bank.add(alice).unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    let totals = loop {
        let totals = alice.totals().unwrap();
        if totals.ok + totals.failed_count() == 10 {
            break totals;
        }
        assert!(Instant::now() < deadline, "{totals:?}");
        bank.wait(Duration::from_millis(100));
    };
    assert_eq!(totals.ok, 10, "{:?}", totals.failed);
    assert!(relay.stats().mappings[0].there.dropped_loss > 0);
}
