//! A load run against its own answerer.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tandem_load::load::{AnswerPlan, CallPlan, Limits, LoadRun, Verdict, table};
use tandem_load::{BankConfig, Codec};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn call_plan(target: SocketAddr, calls: u64) -> CallPlan {
    CallPlan {
        target: format!("sip:x@{target}"),
        via: None,
        listen: loopback(),
        user: "caller".to_owned(),
        calls,
        rate_per_s: 50.0,
        at_once_max: 50,
        duration_ms: 3000,
        answer_within_ms: 5000,
        codecs: vec![Codec::Pcmu],
        sample_every: 10,
        digits: String::new(),
    }
}

fn free_addr() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn run(call: CallPlan, answer: Option<AnswerPlan>, limits: &Limits) -> Verdict {
    let mut run = LoadRun::start(BankConfig::default(), Some(call), answer).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !run.is_over().unwrap() {
        assert!(Instant::now() < deadline, "{:?}", run.progress());
        let progress = run.progress().unwrap();
        assert!(progress.up <= 50);
        run.wait(Duration::from_millis(100));
    }
    run.finish(limits).unwrap()
}

#[test]
fn fifty_calls_pass_and_are_accounted_for() {
    let answer = AnswerPlan {
        listen: free_addr(),
        ring_ms: 50,
        at_once_max: 100,
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        send_for_ms: Some(3000),
    };
    let limits = Limits {
        failed_max: Some(0),
        loss_max: Some(0.0),
        set_up_p99_ms_max: Some(1000.0),
        unaccounted_max: Some(0),
        hears: true,
        ..Limits::default()
    };
    let verdict = run(call_plan(answer.listen, 50), Some(answer), &limits);
    assert!(verdict.ok, "{}", table(&verdict));
    let (caller, answerer) = (verdict.caller.unwrap(), verdict.answerer.unwrap());
    assert_eq!((caller.ok, answerer.ok, verdict.up_max), (50, 50, 50));
    // 3 s less the quiet ends: 2.3 s of 50 packets each.
    assert!((5600..=5900).contains(&caller.rtp.sent), "{}", caller.rtp.sent);
    assert_eq!(verdict.pairing.unwrap().calls.len(), 5);
}

#[test]
fn a_refused_run_fails_with_the_reason() {
    let answer = AnswerPlan {
        listen: free_addr(),
        ring_ms: 0,
        at_once_max: 3,
        codecs: vec![Codec::Pcmu],
        send_for_ms: None,
    };
    let limits = Limits { failed_max: Some(0), ..Limits::default() };
    let verdict = run(call_plan(answer.listen, 5), Some(answer), &limits);
    assert!(!verdict.ok);
    let caller = verdict.caller.as_ref().unwrap();
    assert_eq!(caller.ok, 3);
    assert_eq!(caller.failed.values().sum::<u64>(), 2);
    assert!(caller.failed.keys().any(|reason| reason.contains("486")), "{:?}", caller.failed);
    let text = table(&verdict);
    assert!(text.ends_with("FAILED") && text.contains("486"), "{text}");
}

#[test]
fn a_plan_that_cannot_work_is_named() {
    let check = |plan: CallPlan, part: &str| {
        let error = LoadRun::start(BankConfig::default(), Some(plan), None).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    };
    let plan = || call_plan(loopback(), 1);
    check(CallPlan { calls: 0, ..plan() }, "calls 0");
    check(CallPlan { duration_ms: 100, ..plan() }, "duration 100 ms");
    check(CallPlan { target: "nonsense".to_owned(), ..plan() }, "no SIP URI");
    check(CallPlan { rate_per_s: -1.0, ..plan() }, "rate -1");
}
