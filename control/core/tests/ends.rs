//! Whoever hangs up, whenever, with or without an action, and through a restart of control at any
//! point: exactly one terminal callback per leg, and nothing left behind.

#![allow(clippy::unwrap_used)]

mod world;

use link_proto::call::{Blame, EndReason};
use link_proto::{CallSid, NodeId};
use world::{Page, World, xml};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Caller,
    Callee,
    Api,
    ApiOnCallee,
    Star,
    MediaTimeoutOfCaller,
    MediaTimeoutOfCallee,
    Edge,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Fetching,
    Playing,
    Dialled,
    Ringing,
    EarlyMedia,
    Talking,
    Afterwards,
}

const STATUS: &str = "statusCallback='http://app/leg' \
                      statusCallbackEvent='initiated ringing answered completed'";

fn world(action: bool) -> World {
    let action = if action { "action='done'" } else { "" };
    let dial = format!(
        "<Say>Hello</Say><Dial hangupOnStar='true' {action}><Sip {STATUS}>sip:b@h</Sip></Dial>\
         <Say>Bye</Say>"
    );
    World::new().page("start", xml(&dial)).page("done", xml("<Say>Bye</Say>"))
}

/// Leads the call to `when`; the caller and, if there is one, the callee.
fn reach(w: &mut World, when: When) -> (CallSid, Option<CallSid>) {
    if when == When::Fetching {
        w.set_page("start", Page::Silent);
    }
    let caller = w.inbound();
    if matches!(when, When::Fetching | When::Playing) {
        return (caller, None);
    }
    w.at("eu-1", |e| e.finish_plays());
    let callee = w.eu().dialled()[0];
    if when != When::Dialled {
        w.at("eu-1", |e| e.ring(callee, when == When::EarlyMedia));
    }
    if matches!(when, When::Talking | When::Afterwards) {
        w.at("eu-1", |e| e.answer(callee));
    }
    if when == When::Afterwards {
        w.at("eu-1", |e| e.hangs_up(callee));
    }
    (caller, Some(callee))
}

fn end(w: &mut World, who: Who, caller: CallSid, callee: Option<CallSid>) -> bool {
    let alive = callee.filter(|callee| w.eu().legs.contains_key(callee));
    match (who, alive) {
        (Who::Caller, _) => w.at("eu-1", |e| e.hangs_up(caller)),
        (Who::MediaTimeoutOfCaller, _) => {
            w.at("eu-1", |e| e.end(caller, EndReason::MediaTimeout, Blame::Caller, None));
        }
        (Who::Api, _) => {
            w.update_call(caller, &[("Status", "completed")]).result.unwrap();
        }
        (Who::Callee, Some(callee)) => w.at("eu-1", |e| {
            if e.legs[&callee].answered {
                e.hangs_up(callee);
            } else {
                e.end(callee, EndReason::Busy, Blame::Callee, Some(486));
            }
        }),
        (Who::MediaTimeoutOfCallee, Some(callee)) => {
            w.at("eu-1", |e| e.end(callee, EndReason::MediaTimeout, Blame::Callee, None));
        }
        (Who::ApiOnCallee, Some(callee)) => {
            w.update_call(callee, &[("Status", "completed")]).result.unwrap();
        }
        (Who::Star, Some(callee)) if w.eu().legs[&callee].answered => {
            w.at("eu-1", |e| e.star());
        }
        (Who::Edge, _) => {
            w.eu().reboot();
            w.connect(&NodeId::from("eu-1"));
        }
        _ => return false,
    }
    true
}

/// What is left runs to its end.
fn wind_up(w: &mut World) {
    for _ in 0..4 {
        w.at("eu-1", |e| e.finish_plays());
    }
    w.advance(200_000);
}

const WHO: [Who; 8] = [
    Who::Caller,
    Who::Callee,
    Who::Api,
    Who::ApiOnCallee,
    Who::Star,
    Who::MediaTimeoutOfCaller,
    Who::MediaTimeoutOfCallee,
    Who::Edge,
];
const WHEN: [When; 7] = [
    When::Fetching,
    When::Playing,
    When::Dialled,
    When::Ringing,
    When::EarlyMedia,
    When::Talking,
    When::Afterwards,
];

#[test]
fn fbk_04_exactly_one_terminal_callback_per_leg() {
    let mut cases = 0;
    for who in WHO {
        for when in WHEN {
            for action in [false, true] {
                let mut w = world(action);
                let (caller, callee) = reach(&mut w, when);
                if !end(&mut w, who, caller, callee) {
                    continue;
                }
                println!("{who:?} {when:?} action={action}");
                wind_up(&mut w);
                w.assert_over();
                cases += 1;
                if let (true, Some(_), true) = (action, callee, who != Who::Edge) {
                    assert_eq!(w.count("done"), 1, "the action is told once");
                    let p = w.params("done");
                    let expected = match (who, when) {
                        (_, When::Talking | When::Afterwards) => "completed",
                        (Who::Callee, _) => "busy",
                        (Who::MediaTimeoutOfCallee, _) => "failed",
                        _ => "canceled",
                    };
                    assert_eq!(p["DialCallStatus"], expected);
                }
            }
        }
    }
    assert!(cases > 70, "{cases} cases");
}

#[test]
fn sequence_numbers_rise_without_holes_and_tokens_differ() {
    let mut w = world(false);
    let (caller, callee) = reach(&mut w, When::Talking);
    w.at("eu-1", |e| e.hangs_up(caller));
    wind_up(&mut w);
    for call in [caller, callee.unwrap()] {
        let rows = w.callbacks(call);
        for (index, (_, params)) in rows.iter().enumerate() {
            assert_eq!(params["SequenceNumber"], index.to_string());
            assert_eq!(params["CallbackSource"], "call-progress-events");
            assert!(params.contains_key("Timestamp"));
        }
    }
    let rows = w.store.callbacks.values();
    let mut tokens: Vec<_> = rows
        .map(|row| {
            let mut headers = row.request.headers.iter();
            headers.find(|(n, _)| n == "I-Twilio-Idempotency-Token").unwrap().1.clone()
        })
        .collect();
    let count = tokens.len();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), count);
}

/// A whole call while the process dies once, after the n-th commit and before its effects.
fn a_call_with_a_crash(crash_at: usize) -> World {
    let document = format!(
        "<Gather numDigits='1' action='dial'><Say>Press</Say></Gather><Say>{STATUS}</Say>",
        STATUS = "never"
    );
    let dial = format!("<Dial><Sip {STATUS}>sip:b@h</Sip></Dial><Say>Bye</Say>");
    let mut w = World::new().page("start", xml(&document)).page("dial", xml(&dial));
    w.crash_at = Some(crash_at);
    let caller = w.inbound();
    assert!(w.eu().legs.contains_key(&caller), "crash at {crash_at}");
    w.at("eu-1", |e| e.digits("1", link_proto::media::CollectEnd::Complete));
    let callee = w.eu().dialled()[0];
    w.at("eu-1", |e| e.ring(callee, false));
    w.at("eu-1", |e| e.answer(callee));
    assert_eq!(w.eu().links.len(), 2, "crash at {crash_at}");
    w.at("eu-1", |e| e.hangs_up(callee));
    assert_eq!(w.eu().plays.len(), 1, "crash at {crash_at}: goodbye");
    w.at("eu-1", |e| e.finish_plays());
    assert_eq!(w.events(caller), "initiated answered completed", "crash at {crash_at}");
    assert_eq!(w.events(callee), "initiated ringing answered completed", "crash at {crash_at}");
    w.assert_over();
    w
}

#[test]
fn a_restart_at_any_point_changes_nothing_for_the_call() {
    let commits = a_call_with_a_crash(usize::MAX).commits;
    assert!(commits > 15, "{commits}");
    for crash_at in 1..=commits {
        let w = a_call_with_a_crash(crash_at);
        let dials = w.edges[&NodeId::from("eu-1")].commands.iter();
        let dials = dials.filter(|c| matches!(c, link_proto::call::CallCommand::Dial(_))).count();
        assert_eq!(dials, 1, "crash at {crash_at}: dialled once");
    }
}

/// The same product, with the process dying once at each commit before its effects.
#[test]
fn fbk_04_one_terminal_callback_per_leg_through_a_restart_anywhere() {
    let quiet = |who: &Who| !matches!(who, Who::Api | Who::ApiOnCallee);
    for who in WHO.into_iter().filter(quiet) {
        for when in [When::Playing, When::Ringing, When::Talking] {
            for action in [false, true] {
                let mut crash_at = 1;
                loop {
                    let mut w = world(action);
                    w.crash_at = Some(crash_at);
                    let (caller, callee) = reach(&mut w, when);
                    if !end(&mut w, who, caller, callee) {
                        break;
                    }
                    println!("{who:?} {when:?} action={action} crash at {crash_at}");
                    wind_up(&mut w);
                    w.assert_over();
                    if w.commits < crash_at {
                        break;
                    }
                    crash_at += 1;
                }
            }
        }
    }
}

#[test]
fn a_callee_at_an_edge_that_is_away_fails_soon() {
    let mut w = World::new().page("start", xml("<Dial action='done'>+49123</Dial>"));
    w.set_page("done", xml("<Say>Bye</Say>"));
    w.disconnect(&NodeId::from("core-1"));
    w.inbound();
    w.advance(5_000);
    assert_eq!(w.params("done")["DialCallStatus"], "failed");
    wind_up(&mut w);
    w.connect(&NodeId::from("core-1"));
    w.assert_over();
}

#[test]
fn a_media_node_that_is_lost_while_it_plays_does_not_leave_silence() {
    let resources =
        link_proto::table::Resources { play: false, ..link_proto::table::Resources::default() };
    let mut w = World::with(resources).page("start", xml("<Say>Hello</Say>"));
    let call = w.inbound();
    let core = NodeId::from("core-1");
    assert_eq!(w.edge("core-1").plays.len(), 1);
    w.edge("core-1").reboot();
    w.connect(&core);
    assert!(w.alerts().contains(&12400));
    assert_eq!(w.edge("core-1").plays.len(), 1, "the error is spoken");
    w.at("core-1", |e| e.finish_plays());
    assert_eq!(w.status(call), "completed");
    w.assert_over();
}

#[test]
fn a_request_repeated_after_a_restart_has_the_same_token() {
    let mut w = World::new().page("start", Page::Silent);
    w.inbound();
    w.set_page("start", xml("<Say>x</Say>"));
    w.crash();
    w.restart();
    assert_eq!(w.fetched.len(), 2);
    let token = |n: usize| {
        let headers = &w.fetched[n].request.headers;
        headers.iter().find(|(n, _)| n == "I-Twilio-Idempotency-Token").unwrap().1.clone()
    };
    assert_eq!(token(0), token(1));
    wind_up(&mut w);
    w.assert_over();
}

#[test]
fn what_happens_while_control_is_away_is_made_up_for() {
    let mut w = world(false);
    let (caller, callee) = reach(&mut w, When::Talking);
    w.crash();
    let callee = callee.unwrap();
    w.eu().hangs_up(callee);
    assert!(w.eu().legs.contains_key(&caller), "the caller is held");
    w.restart();
    assert_eq!(w.status(callee), "completed");
    assert_eq!(w.eu().plays.len(), 1, "the instructions go on");
    wind_up(&mut w);
    w.assert_over();
}

#[test]
fn a_call_offered_while_control_was_away_is_taken() {
    let mut w = World::new().page("start", xml("<Say>x</Say>"));
    w.crash();
    let call = w.eu().offer("+1", world::NUMBER);
    w.restart();
    assert!(w.orphans.is_empty());
    assert_eq!(w.status(call), "in-progress");
    wind_up(&mut w);
    w.assert_over();
}

#[test]
fn an_edge_that_stays_away_is_swept_and_its_ghosts_are_ended() {
    let mut w = world(true);
    let node = NodeId::from("eu-1");
    let (caller, _) = reach(&mut w, When::Talking);
    w.disconnect(&node);
    w.advance(119_000);
    assert_eq!(w.status(caller), "in-progress");
    w.advance(2_000);
    assert_eq!(w.status(caller), "completed");
    assert_eq!(w.core.metrics().swept, 1);
    assert!(w.store.sessions.is_empty());
    w.connect(&node);
    assert_eq!(w.orphans, [caller], "the edge is told to end them");
}

#[test]
fn a_leg_that_the_edge_no_longer_has_is_ended() {
    let mut w = world(false);
    let (caller, callee) = reach(&mut w, When::Talking);
    let node = NodeId::from("eu-1");
    w.disconnect(&node);
    w.eu().legs.remove(&callee.unwrap());
    w.connect(&node);
    assert_eq!(w.status(callee.unwrap()), "in-progress", "its end may still come");
    w.advance(5_000);
    assert_eq!(w.status(callee.unwrap()), "completed");
    assert_eq!(w.eu().plays.len(), 1, "the instructions go on");
    w.at("eu-1", |e| e.hangs_up(caller));
    w.assert_over();
}

#[test]
fn record_tells_its_action_when_the_caller_hangs_up() {
    let mut w = World::new()
        .page("start", xml("<Record action='done' playBeep='false'/>"))
        .page("done", xml("<Say>nobody hears this</Say>"));
    let call = w.inbound();
    w.at("eu-1", |e| e.hangs_up(call));
    let p = w.params("done");
    assert_eq!((p["Digits"].as_str(), p["RecordingDuration"].as_str()), ("hangup", "2"));
    assert_eq!(p["CallStatus"], "completed");
    assert!(w.prepared.is_empty());
    w.advance(60_000);
    w.advance(60_000);
    w.assert_over();
    assert_eq!(
        w.store.recordings.values().next().unwrap().status,
        control_core::record::RecordingStatus::Absent,
        "its bytes never came"
    );
}

#[test]
fn a_stored_session_that_cannot_be_read_is_given_up() {
    use control_core::{ControlCore, CoreConfig};
    use rand::SeedableRng as _;

    let rng = rand::rngs::StdRng::seed_from_u64(1);
    let mut core = ControlCore::new(CoreConfig::default(), Default::default(), rng);
    let sid = CallSid([7; 16]);
    core.load(std::time::Instant::now(), 1, [(sid, 3, "{\"of\":\"another version\"}".to_owned())]);
    assert_eq!(core.metrics().states_unreadable, 1);
    let output = core.poll_output().unwrap();
    let [control_core::StoreOp::DeleteSession { session }] = &output.ops[..] else {
        panic!("{output:?}");
    };
    assert_eq!(*session, sid);
}
