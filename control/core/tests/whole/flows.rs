//! Whole calls through the core: prompts, keys, recordings, dialled legs, the API.

use crate::world::{self, NUMBER, Page, World, xml};
use control_core::io::{MediaRequest, Method};
use link_proto::CallSid;
use link_proto::call::{Blame, CallCommand, EndReason};
use link_proto::media::{AudioCodec, CollectEnd, MediaCommand, PlayItem, RecordEnd, StartWhen};
use link_proto::table::Resources;

fn the_callee(world: &mut World, node: &str) -> CallSid {
    let dialled = world.edge(node).dialled();
    assert_eq!(dialled.len(), 1);
    dialled[0]
}

#[test]
fn tel_01_say_play_pause_are_one_program_and_then_the_call_ends() {
    let document = xml("<Say>Hello</Say><Play loop='2'>a.wav</Play><Pause length='2'/>");
    let mut w = World::new().page("start", document);
    let call = w.inbound();
    assert_eq!(w.status(call), "in-progress");
    let plays: Vec<_> = w.eu().plays.values().map(|(_, _, items)| items.clone()).collect();
    assert_eq!(plays.len(), 1, "one program");
    assert!(matches!(&plays[0][0], PlayItem::Prompt { times: 1, .. }));
    assert!(matches!(&plays[0][1], PlayItem::Prompt { times: 2, .. }));
    assert_eq!(plays[0][2], PlayItem::Pause { length_ms: 2_000 });
    assert_eq!(w.prepared[1], MediaRequest::Url { url: "http://app/a.wav".to_owned() });
    w.at("eu-1", |e| e.finish_plays());
    assert_eq!(w.status(call), "completed");
    assert_eq!(w.events(call), "initiated answered completed");
    w.assert_over();
}

#[test]
fn tel_02_a_request_carries_the_whole_call_state() {
    let mut w = World::new().page("start", xml("<Pause length='5'/><Say>x</Say>"));
    let call = w.inbound();
    let p = w.params("start");
    for (name, value) in [
        ("CallSid", call.to_string()),
        ("AccountSid", world::ACCOUNT.to_string()),
        ("From", "+441110".to_owned()),
        ("To", NUMBER.to_owned()),
        ("Caller", "+441110".to_owned()),
        ("Called", NUMBER.to_owned()),
        ("CallStatus", "ringing".to_owned()),
        ("Direction", "inbound".to_owned()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("SipDomain", "h".to_owned()),
        ("SipHeader_X-A", "b".to_owned()),
    ] {
        assert_eq!(p.get(name), Some(&value), "{name}");
    }
    // Pause as the first verb delays the answer.
    assert_eq!(w.status(call), "ringing");
    w.advance(4_999);
    assert_eq!(w.status(call), "ringing");
    w.advance(1);
    assert_eq!(w.status(call), "in-progress");
    w.at("eu-1", |e| e.hangs_up(call));
    w.assert_over();
}

#[test]
fn tel_07_gather_sends_digits_to_its_action_or_goes_on() {
    for (digits, end, empty, next) in [
        ("12", CollectEnd::Complete, "", "action"),
        ("1", CollectEnd::Timeout, "", "action"),
        ("", CollectEnd::FinishKey('#'), "", "other"),
        ("", CollectEnd::Timeout, "", "other"),
        ("", CollectEnd::Timeout, "actionOnEmptyResult='true'", "action"),
    ] {
        let gather = format!(
            "<Gather action='action?d={{Digits}}' numDigits='2' {empty}><Say>Press</Say></Gather>\
             <Redirect>other</Redirect>"
        );
        let mut w = World::new()
            .page("start", xml(&gather))
            .page("action", xml("<Hangup/>"))
            .page("other", xml("<Hangup/>"));
        w.inbound();
        let rules = w.eu().collects.values().next().unwrap().1.clone();
        assert_eq!((rules.digits_max, rules.timeout_ms), (Some(2), 5_000));
        assert_eq!(rules.finish_on, "#");
        let play = *w.eu().plays.keys().next().unwrap();
        assert_eq!((rules.timer, rules.stops_play), (StartWhen::AfterPlay(play), Some(play)));
        w.at("eu-1", |e| e.digits(digits, end));
        assert_eq!(w.count(next), 1, "{digits:?} {end:?} {empty}");
        if next == "action" {
            assert_eq!(w.params("action")["Digits"], digits);
            let url = &w.fetched.last().unwrap().request.url;
            assert_eq!(*url, format!("http://app/action?d={digits}"), "tel_06 template");
        }
        w.assert_over();
    }
}

#[test]
fn record_tells_its_action_and_completes_when_the_bytes_are_there() {
    let record = "<Record maxLength='9' finishOnKey='5' action='done' \
                  recordingStatusCallback='http://app/rec'/><Say>nothing</Say>";
    for (duration_ms, end, digits) in [
        (2_100, RecordEnd::FinishKey('5'), Some("5")),
        (2_100, RecordEnd::Silence, None),
        (0, RecordEnd::Silence, None),
    ] {
        let mut w = World::new().page("start", xml(record)).page("done", xml("<Hangup/>"));
        let call = w.inbound();
        let (beep, items) = w.eu().plays.iter().next().map(|(o, p)| (*o, p.2.clone())).unwrap();
        assert!(matches!(items[0], PlayItem::Beep { .. }));
        let rules = w.eu().records.values().next().unwrap().1.clone();
        assert_eq!((rules.start, rules.length_max_ms), (StartWhen::AfterPlay(beep), 9_000));
        w.at("eu-1", |e| e.finish_plays());
        w.at("eu-1", |e| e.recorded(duration_ms, end));
        if duration_ms == 0 {
            assert_eq!(w.count("done"), 0, "an empty recording reaches the next verb");
            w.at("eu-1", |e| e.finish_plays());
            w.assert_over();
            continue;
        }
        let p = w.params("done");
        assert_eq!(p["RecordingDuration"], "3");
        assert_eq!(p.get("Digits").map(String::as_str), digits);
        assert!(p["RecordingUrl"].ends_with(&p["RecordingSid"]));
        assert!(!w.store.sessions.is_empty(), "the recording is awaited");
        let input = control_core::Input::RecordingStored {
            recording: rules.recording,
            duration_ms: 2_100,
            channels: 1,
        };
        w.core.handle_input(w.now, w.unix_ms, input);
        w.pump();
        let rows = w.callbacks(call);
        let done = rows.iter().find(|(event, _)| event == "recording-completed").unwrap();
        assert_eq!(done.1["RecordingStatus"], "completed");
        assert_eq!(done.1["RecordingSource"], "RecordVerb");
        w.assert_over();
    }
}

#[test]
fn lat_04_dial_connects_in_the_region_and_goes_on_when_the_callee_leaves() {
    let dial = "<Dial hangupOnStar='true'><Sip statusCallback='http://app/leg' \
                statusCallbackEvent='initiated ringing answered completed'>sip:b@h</Sip></Dial>\
                <Say>Goodbye</Say>";
    for star in [false, true] {
        let mut w = World::new().page("start", xml(dial));
        let call = w.inbound();
        let ringback = w.eu().plays.values().next().unwrap().2.clone();
        assert!(matches!(ringback[0], PlayItem::Ringback { .. }));
        let callee = the_callee(&mut w, "eu-1");
        assert_eq!(w.eu().legs[&callee].dial.as_ref().unwrap().timeout_ms, 35_000);
        w.at("eu-1", |e| e.ring(callee, false));
        w.at("eu-1", |e| e.answer(callee));
        assert_eq!(w.eu().links.len(), 2);
        assert!(w.eu().plays.is_empty(), "ringback has stopped");
        assert_eq!(w.labels().last().unwrap().matches("hairpin").count(), 2);
        let open =
            |c: &CallCommand| matches!(c, CallCommand::Media(MediaCommand::OpenChannel { .. }));
        assert!(!w.eu().commands.iter().any(open), "nothing leaves the region");
        if star {
            w.at("eu-1", |e| e.star());
        } else {
            w.at("eu-1", |e| e.hangs_up(callee));
        }
        assert_eq!(w.eu().plays.len(), 1, "goodbye is played");
        assert_eq!(w.events(callee), "initiated ringing answered completed");
        let rows = w.callbacks(callee);
        assert_eq!(rows[3].1["ParentCallSid"], call.to_string());
        assert_eq!(rows[3].1["Direction"], "outbound-dial");
        assert_eq!(rows[3].1["CallDuration"], "2");
        assert_eq!(rows[3].1["SequenceNumber"], "3");
        w.at("eu-1", |e| e.finish_plays());
        assert_eq!(w.status(call), "completed");
        w.assert_over();
    }
}

#[test]
fn lat_06_prompts_come_from_the_core_when_the_region_cannot_play() {
    let resources = Resources { play: false, speech: false, ..Resources::default() };
    let document = "<Gather numDigits='1' action='dial'><Say>Press</Say></Gather>";
    let mut w = World::with(resources)
        .page("start", xml(document))
        .page("dial", xml("<Dial><Sip>sip:b@h</Sip></Dial><Say>Bye</Say>"));
    w.inbound();
    assert_eq!(w.edge("core-1").plays.len(), 1, "played from the core");
    assert_eq!(w.eu().collects.len(), 1, "collected in the region");
    let rules = w.eu().collects.values().next().unwrap().1.clone();
    assert_eq!(rules.timer, StartWhen::OnCommand);
    w.at("core-1", |e| e.finish_plays());
    let started = |c: &CallCommand| matches!(c, CallCommand::Media(MediaCommand::Start { .. }));
    assert!(w.eu().commands.iter().any(started), "the timer starts by command");
    w.at("eu-1", |e| e.digits("1", CollectEnd::Complete));
    let callee = the_callee(&mut w, "eu-1");
    w.at("eu-1", |e| e.answer(callee));
    assert_eq!(w.labels().last().unwrap(), "hairpin,hairpin", "the conversation stays home");
    w.at("eu-1", |e| e.hangs_up(callee));
    assert_eq!(w.edge("core-1").plays.len(), 1);
    w.at("core-1", |e| e.finish_plays());
    w.assert_over();
}

#[test]
fn a_callee_of_another_region_is_reached_edge_to_edge() {
    let mut w = World::new().page("start", xml("<Dial>+49123</Dial><Say>Bye</Say>"));
    w.inbound();
    let callee = the_callee(&mut w, "core-1");
    w.at("core-1", |e| e.answer(callee));
    assert_eq!(w.labels().last().unwrap(), "edge-to-edge,edge-to-edge");
    let couple = |c: &CallCommand| matches!(c, CallCommand::Couple { .. });
    assert!(!w.eu().commands.iter().any(couple));
    w.at("core-1", |e| e.hangs_up(callee));
    assert_eq!(w.eu().plays.len(), 1);
    w.at("eu-1", |e| e.finish_plays());
    w.assert_over();
}

#[test]
fn different_codecs_are_transcoded_in_the_core_if_the_region_cannot() {
    let resources = Resources { transcode: false, ..Resources::default() };
    let mut w =
        World::with(resources).page("start", xml("<Dial><Sip>sip:b@h</Sip></Dial><Say>x</Say>"));
    let call = w.inbound();
    w.eu().codec = AudioCodec::Pcma;
    let callee = the_callee(&mut w, "eu-1");
    w.at("eu-1", |e| e.answer(callee));
    assert_eq!(w.labels().last().unwrap(), "backhaul,backhaul");
    w.at("eu-1", |e| e.hangs_up(call));
    w.assert_over();
}

#[test]
fn the_first_of_several_targets_wins() {
    let targets =
        "<Dial action='done'><Sip>sip:a@h</Sip><Sip>sip:b@h</Sip><Sip>sip:c@h</Sip></Dial>";
    let mut w = World::new().page("start", xml(targets)).page("done", xml("<Hangup/>"));
    w.inbound();
    let legs = w.eu().dialled();
    assert_eq!(legs.len(), 3);
    w.at("eu-1", |e| e.end(legs[0], EndReason::Busy, Blame::Callee, Some(486)));
    w.at("eu-1", |e| e.answer(legs[1]));
    assert_eq!(w.status(legs[2]), "canceled");
    w.at("eu-1", |e| e.hangs_up(legs[1]));
    let p = w.params("done");
    assert_eq!(p["DialCallStatus"], "completed");
    assert_eq!(p["DialCallSid"], legs[1].to_string());
    assert_eq!((p["DialBridged"].as_str(), p["DialCallDuration"].as_str()), ("true", "2"));
}

#[test]
fn answer_on_bridge_and_early_media() {
    let dial = "<Dial answerOnBridge='true'><Sip>sip:b@h</Sip></Dial>";
    let mut w = World::new().page("start", xml(dial));
    let call = w.inbound();
    assert_eq!(w.status(call), "ringing");
    let callee = the_callee(&mut w, "eu-1");
    w.at("eu-1", |e| e.ring(callee, true));
    assert_eq!(w.eu().links.len(), 1, "the caller hears early media");
    assert_eq!(w.status(call), "ringing");
    w.at("eu-1", |e| e.answer(callee));
    assert_eq!(w.status(call), "in-progress");
    assert_eq!(w.eu().links.len(), 2, "both hear each other");
    w.at("eu-1", |e| e.hangs_up(call));
    w.assert_over();
}

#[test]
fn reject_and_unknown_numbers() {
    for (reason, sip, status) in [("rejected", 603, "no-answer"), ("busy", 486, "busy")] {
        let mut w = World::new().page("start", xml(&format!("<Reject reason='{reason}'/>")));
        let call = w.inbound();
        assert_eq!(w.status(call), status);
        assert_eq!(w.store.calls[&call].sip_status, Some(sip));
        w.assert_over();
    }
    let mut w = World::new();
    w.at("eu-1", |e| e.offer("+1", "+19999"));
    let reject = |c: &CallCommand| matches!(c, CallCommand::Reject { status: 404, .. });
    assert!(w.eu().commands.iter().any(reject));
    assert_eq!(w.core.metrics().unknown_number, 1);
    assert!(w.store.calls.is_empty() && w.store.callbacks.is_empty());
    w.assert_over();
}

#[test]
fn an_api_call_runs_its_document_is_redirected_and_ended() {
    let mut w = World::new()
        .page("start", xml("<Play>long.wav</Play>"))
        .page("new", xml("<Say>new</Say><Pause length='60'/>"));
    let form = [("To", "sip:b@h"), ("From", NUMBER), ("Url", "http://app/start")];
    let events = [
        ("StatusCallback", "http://app/status"),
        ("StatusCallbackEvent", "initiated"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
        ("Timeout", "20"),
        // Has no effect without detection, and SDKs send it by habit.
        ("AsyncAmd", "true"),
    ];
    let all: Vec<_> = form.into_iter().chain(events).collect();
    let record = w.create_call(&all).result.unwrap();
    let call = record.sid;
    assert_eq!(record.status.as_str(), "queued");
    assert_eq!(w.eu().legs[&call].dial.as_ref().unwrap().timeout_ms, 25_000);
    w.at("eu-1", |e| e.ring(call, false));
    w.at("eu-1", |e| e.answer(call));
    assert_eq!(w.params("start")["Direction"], "outbound-api");
    assert_eq!(w.params("start")["CallStatus"], "in-progress");
    assert_eq!(w.eu().plays.len(), 1);
    w.update_call(call, &[("Url", "http://app/new"), ("Method", "GET")]).result.unwrap();
    assert_eq!(w.fetched.last().unwrap().request.method, Method::Get);
    assert_eq!(w.eu().plays.len(), 1, "the running instruction was cut");
    w.update_call(call, &[("Twiml", "<Response><Say>again</Say></Response>")]).result.unwrap();
    assert_eq!(w.update_call(call, &[("Status", "canceled")]).result.unwrap_err().code, 21220);
    w.update_call(call, &[("Status", "completed")]).result.unwrap();
    assert_eq!(w.status(call), "completed");
    assert_eq!(w.events(call), "initiated ringing answered completed");
    assert_eq!(w.update_call(call, &[("Status", "completed")]).result.unwrap_err().code, 21220);
    w.assert_over();
}

#[test]
fn api_errors_have_the_codes_of_the_ecosystem() {
    let url = ("Url", "http://app/start");
    let (to, from) = (("To", "+15551230001"), ("From", NUMBER));
    for (form, status, code) in [
        (vec![to, ("From", "+15551230002"), url], 400, 21210),
        (vec![from, url], 400, 21201),
        (vec![to, url], 400, 21213),
        (vec![("To", "not a number!"), from, url], 400, 21211),
        (vec![to, ("From", "x y z!"), url], 400, 21212),
        (vec![to, from], 400, 21205),
        (vec![to, from, ("Url", "nonsense")], 400, 21205),
        (vec![to, from, ("Twiml", "<Response>")], 400, 12100),
        (vec![to, from, ("ApplicationSid", "AP1")], 400, 21218),
        (vec![to, from, ("ApplicationSid", "AP1"), url], 400, 21218),
        (vec![to, from, url, ("Timeout", "601")], 400, 21208),
        (vec![to, from, url, ("Timeout", "soon")], 400, 21208),
        (vec![to, from, url, ("TimeLimit", "0")], 400, 20422),
        (vec![to, from, url, ("SendDigits", "1x2")], 400, 21206),
        (vec![to, from, url, ("Method", "PUT")], 400, 21209),
        (vec![to, from, url, ("StatusCallbackMethod", "PUT")], 400, 21209),
        (vec![to, from, url, ("StatusCallback", "/relative")], 400, 21609),
        (vec![to, from, url, ("StatusCallbackEvent", "answered busy")], 400, 21626),
        (vec![to, from, url, ("Record", "maybe")], 400, 20422),
        (vec![to, from, url, ("RecordingChannels", "3")], 400, 20422),
        (vec![to, from, url, ("RecordingTrack", "all")], 400, 20422),
        (vec![to, from, url, ("Trim", "yes")], 400, 20422),
        (vec![to, from, url, ("RecordingStatusCallbackEvent", "paused")], 400, 21626),
        (vec![to, from, url, ("MachineDetection", "Enable")], 400, 20422),
        (vec![to, from, url, ("Byoc", "BY1")], 400, 20422),
        (vec![to, from, url, ("CallReason", "why")], 400, 20422),
        (vec![to, from, url, ("CallToken", "t")], 400, 20422),
        (vec![to, from, url, ("CallerId", "x\r\nEvil: y@host")], 400, 21212),
        (vec![to, from, url, ("SipAuthPassword", "a\nb")], 400, 20422),
    ] {
        let error = World::new().create_call(&form).result.unwrap_err();
        assert_eq!((error.status, error.code), (status, code), "{form:?}");
    }
}

#[test]
fn an_api_call_with_its_own_document_and_no_answer() {
    let twiml = ("Twiml", "<Response><Say>hi</Say></Response>");
    let form = [("To", "sip:b@h"), ("From", NUMBER), twiml];
    let mut w = World::new();
    let call = w.create_call(&form).result.unwrap().sid;
    w.at("eu-1", |e| e.answer(call));
    assert!(w.fetched.is_empty());
    w.at("eu-1", |e| e.finish_plays());
    assert_eq!(w.status(call), "completed");
    let mut w = World::new();
    let call = w.create_call(&form).result.unwrap().sid;
    w.at("eu-1", |e| e.end(call, EndReason::NoAnswer, Blame::Callee, Some(480)));
    assert_eq!(w.status(call), "no-answer");
    assert!(w.store.sessions.is_empty());
}

#[test]
fn dial_records_both_legs() {
    let dial = "<Dial record='record-from-answer-dual' action='done'><Sip>sip:b@h</Sip></Dial>";
    let mut w = World::new().page("start", xml(dial)).page("done", xml("<Hangup/>"));
    w.inbound();
    let callee = the_callee(&mut w, "eu-1");
    w.at("eu-1", |e| e.answer(callee));
    let rules = w.eu().records.values().next().unwrap().1.clone();
    assert!(rules.dual_channel && rules.with.is_some());
    w.at("eu-1", |e| e.hangs_up(callee));
    assert!(w.params("done").contains_key("RecordingUrl"));
    let recording = w.store.recordings.values().next().unwrap();
    assert_eq!((recording.source.as_str(), recording.channels), ("DialVerb", 2));
}

#[test]
fn a_page_of_another_kind_answers_too() {
    for (page, prepared) in [
        (
            Page::Typed("audio/mpeg", b"ID3".to_vec()),
            MediaRequest::Url { url: "http://app/start".to_owned() },
        ),
        (
            Page::Typed("text/plain", b"Hello there".to_vec()),
            MediaRequest::Speech {
                text: "Hello there".to_owned(),
                voice: "man".to_owned(),
                language: "en-US".to_owned(),
            },
        ),
    ] {
        let mut w = World::new().page("start", page);
        w.inbound();
        assert_eq!(w.prepared, [prepared]);
        w.at("eu-1", |e| e.finish_plays());
        w.assert_over();
    }
}
