//! Whoever hangs up, whenever, with or without an action, and through a restart of control at any
//! point: exactly one terminal callback per leg, and nothing left behind.

use crate::world::{self, Page, World, xml};
use link_proto::call::{Blame, EndReason};
use link_proto::{CallSid, NodeId};

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
fn tel_04_cookies_outlive_the_process() {
    let gather = "<Response><Gather action='menu' numDigits='1'/></Response>";
    let mut w = World::new().page("start", Page::Cookie("a=1; Path=/", gather.to_owned()));
    w.set_page("menu", Page::Cookie("a=2; Path=/", gather.to_owned()));
    w.inbound();
    w.crash();
    w.restart();
    for (digit, cookies) in [("1", "a=1; Path=/"), ("2", "a=1; Path=/ a=2; Path=/")] {
        w.at("eu-1", |e| e.digits(digit, link_proto::media::CollectEnd::Complete));
        let known = w.fetched.last().unwrap().cookies.iter().map(|c| c.value.clone());
        assert_eq!(known.collect::<Vec<_>>().join(" "), cookies);
    }
    w.at("eu-1", |e| e.digits("3", link_proto::media::CollectEnd::Complete));
    assert_eq!(w.fetched.last().unwrap().cookies.len(), 2, "the last of a name and place counts");
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

/// How a dialled leg comes to its end before anybody talks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Answered,
    Busy,
    Declined,
    NoAnswer,
    Failed,
    Unreachable,
    Canceled,
    EarlyMedia,
}

/// Who ends what is left, once the outcome is there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Last {
    Caller,
    Callee,
    Api,
    Star,
    TimeLimit,
    PlatformError,
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Answered,
    Outcome::Busy,
    Outcome::Declined,
    Outcome::NoAnswer,
    Outcome::Failed,
    Outcome::Unreachable,
    Outcome::Canceled,
    Outcome::EarlyMedia,
];
const LASTS: [Last; 6] =
    [Last::Caller, Last::Callee, Last::Api, Last::Star, Last::TimeLimit, Last::PlatformError];

/// Leads the callee to its outcome; true if it lives on.
fn come_to(w: &mut World, outcome: Outcome, callee: CallSid) -> bool {
    use EndReason as R;
    let mut end = |reason, whose, sip| w.at("eu-1", |e| e.end(callee, reason, whose, sip));
    match outcome {
        Outcome::Busy => end(R::Busy, Blame::Callee, Some(486)),
        Outcome::Declined => end(R::Refused, Blame::Callee, Some(603)),
        Outcome::NoAnswer => end(R::NoAnswer, Blame::Us, Some(487)),
        Outcome::Failed => end(R::Timeout, Blame::Carrier, Some(408)),
        Outcome::Unreachable => end(R::Unreachable, Blame::Us, None),
        Outcome::Answered => {
            w.at("eu-1", |e| e.ring(callee, false));
            w.at("eu-1", |e| e.answer(callee));
            return true;
        }
        Outcome::EarlyMedia => {
            w.at("eu-1", |e| e.ring(callee, true));
            return true;
        }
        Outcome::Canceled => return true,
    }
    false
}

/// Ends it; false if this cannot be the end of it. What `DialCallStatus` must be then.
fn last(
    w: &mut World,
    last: Last,
    caller: CallSid,
    callee: CallSid,
    outcome: Outcome,
) -> Option<&'static str> {
    let talking = outcome == Outcome::Answered;
    let alive = w.eu().legs.contains_key(&callee);
    let status = match outcome {
        Outcome::Answered => "completed",
        Outcome::Busy => "busy",
        Outcome::NoAnswer => "no-answer",
        Outcome::Declined | Outcome::Failed | Outcome::Unreachable => "failed",
        Outcome::Canceled | Outcome::EarlyMedia => "canceled",
    };
    match last {
        Last::Caller => w.at("eu-1", |e| e.hangs_up(caller)),
        Last::Api => {
            w.update_call(caller, &[("Status", "completed")]).result.unwrap();
        }
        Last::Callee if talking => w.at("eu-1", |e| e.hangs_up(callee)),
        Last::Callee if alive => {
            w.at("eu-1", |e| e.end(callee, EndReason::Busy, Blame::Callee, Some(486)));
            return Some("busy");
        }
        Last::Star if talking => w.at("eu-1", |e| e.star()),
        Last::TimeLimit if talking => {
            w.at("eu-1", |e| e.end(callee, EndReason::TimeLimit, Blame::Us, None));
        }
        Last::PlatformError if alive => {
            w.at("eu-1", |e| e.end(callee, EndReason::Internal, Blame::Us, None));
            return Some(if talking { "completed" } else { "failed" });
        }
        _ => return None,
    }
    Some(status)
}

/// Every event of every leg in order, without a hole, for a party that wants all of them.
fn check_events(w: &World, leg: CallSid, wanted: bool, label: &str) {
    let rows = w.callbacks(leg);
    if !wanted {
        assert!(rows.is_empty(), "{label}: nobody wants to know");
        return;
    }
    for (index, (_, params)) in rows.iter().enumerate() {
        assert_eq!(params["SequenceNumber"], index.to_string(), "{label}");
    }
    let order = ["initiated", "ringing", "answered", "completed"];
    let at: Vec<_> = rows.iter().filter_map(|(e, _)| order.iter().position(|o| o == e)).collect();
    assert!(
        at.len() == rows.len() && at.windows(2).all(|pair| pair[0] < pair[1]),
        "{label}: {rows:?}"
    );
    let (_, params) = rows.last().unwrap();
    let record = &w.store.calls[&leg];
    assert_eq!(params["CallStatus"], record.status.as_str(), "{label}");
    let seconds = if record.answered_unix_ms.is_some() { "2" } else { "0" };
    assert_eq!(params["CallDuration"], seconds, "{label}");
    assert_eq!(record.duration_s.unwrap().to_string(), seconds, "{label}");
}

/// Field lessons 5 and 6: {action or none} × {all status callbacks or none} × {who hangs up} ×
/// {outcome}: one terminal event per leg, the right status and duration, in order.
#[test]
fn fbk_04_the_matrix_of_actions_callbacks_ends_and_outcomes() {
    let mut cases = 0;
    for (action, callbacks) in [(false, false), (false, true), (true, false), (true, true)] {
        for outcome in OUTCOMES {
            for who in LASTS {
                let label = format!("action={action} callbacks={callbacks} {outcome:?} {who:?}");
                let verb_action = if action { "action='done'" } else { "" };
                let noun = if callbacks { STATUS } else { "" };
                let dial = format!(
                    "<Dial hangupOnStar='true' timeLimit='60' {verb_action}>\
                     <Sip {noun}>sip:b@h</Sip></Dial><Pause length='60'/>"
                );
                let mut w = World::new().page("start", xml(&dial));
                w.set_page("done", xml("<Pause length='60'/>"));
                if !callbacks {
                    let mut directory = w.directory.clone();
                    directory.numbers.get_mut(world::NUMBER).unwrap().voice.status.clear();
                    let input = control_core::Input::Directory(Box::new(directory));
                    w.core.handle_input(w.now, w.unix_ms, input);
                }
                let caller = w.inbound();
                let callee = w.eu().dialled()[0];
                come_to(&mut w, outcome, callee);
                let Some(status) = last(&mut w, who, caller, callee, outcome) else { continue };
                cases += 1;
                wind_up(&mut w);
                w.assert_over();
                assert_eq!(w.count("done"), usize::from(action), "{label}");
                if action {
                    let p = w.params("done");
                    assert_eq!(p["DialCallStatus"], status, "{label}");
                    assert_eq!(p["DialCallSid"], callee.to_string(), "{label}");
                    let bridged = outcome == Outcome::Answered;
                    assert_eq!(p["DialBridged"], bridged.to_string(), "{label}");
                    assert_eq!(p.contains_key("DialCallDuration"), bridged, "{label}");
                }
                check_events(&w, caller, callbacks, &label);
                check_events(&w, callee, callbacks, &label);
                let expected = if status == "completed" { "completed" } else { status };
                assert_eq!(w.status(callee), expected, "{label}");
            }
        }
    }
    assert!(cases >= 96, "{cases} cases");
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
