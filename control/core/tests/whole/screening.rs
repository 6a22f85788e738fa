//! Dial to the end: screening, several URIs, recordings from ringing, what the action is told.

use crate::world::{Page, World, xml};
use control_core::io::MediaRequest;
use link_proto::CallSid;
use link_proto::call::{Blame, CallCommand, EndReason};
use link_proto::media::{CollectEnd, MediaCommand, PlayItem, Port, RecordTrack};

fn dialled(w: &mut World) -> Vec<CallSid> {
    w.eu().dialled()
}

/// What is played towards a leg.
fn heard(w: &mut World, leg: CallSid) -> Vec<PlayItem> {
    let plays = w.eu().plays.values();
    let towards = plays.filter(|(_, port, _)| *port == Port::Leg(leg));
    towards.flat_map(|(_, _, items)| items.clone()).collect()
}

fn rings(w: &mut World, caller: CallSid) -> bool {
    matches!(heard(w, caller).as_slice(), [PlayItem::Ringback { .. }])
}

const SCREENED: &str = "<Dial action='done' answerOnBridge='true'>\
    <Sip url='screen?who={From}' statusCallback='http://app/leg' \
    statusCallbackEvent='initiated ringing answered completed'>sip:b@h:5070</Sip></Dial>";
const SCREEN: &str =
    "<Gather numDigits='1' action='pressed'><Say>Press one</Say></Gather><Hangup/>";

fn screened() -> World {
    World::new()
        .page("start", xml(SCREENED))
        .page("screen", xml(SCREEN))
        .page("pressed", xml("<Say>Connecting</Say>"))
        .page("done", xml("<Say>Bye</Say>"))
}

#[test]
fn tel_05_a_called_party_goes_through_its_document_first() {
    let mut w = screened();
    w.eu().answer_headers = vec![("X-Desk".to_owned(), "7".to_owned())];
    let caller = w.inbound();
    let callee = dialled(&mut w)[0];
    w.at("eu-1", |e| e.ring(callee, false));
    w.at("eu-1", |e| e.answer(callee));
    let p = w.params("screen");
    for (name, value) in [
        ("CallSid", callee.to_string()),
        ("ParentCallSid", caller.to_string()),
        ("CallStatus", "in-progress".to_owned()),
        ("Direction", "outbound-dial".to_owned()),
        ("SipDomain", "h".to_owned()),
        ("SipCallId", "out@h".to_owned()),
        ("SipHeader_X-Desk", "7".to_owned()),
        ("To", "sip:b@h:5070".to_owned()),
    ] {
        assert_eq!(p.get(name), Some(&value), "{name}");
    }
    let url = &w.fetched.iter().find(|f| f.request.url.contains("screen")).unwrap().request.url;
    assert_eq!(*url, "http://app/screen?who=%2B441110", "tel_06: a template");
    assert_eq!(w.status(caller), "ringing", "the caller is not answered yet");
    assert!(w.eu().links.is_empty(), "nobody is connected");
    assert_eq!(heard(&mut w, callee).len(), 1, "the callee hears the question");
    w.at("eu-1", |e| e.digits("1", CollectEnd::Complete));
    let pressed = w.params("pressed");
    assert_eq!((pressed["Digits"].as_str(), &pressed["CallSid"]), ("1", &callee.to_string()));
    assert!(w.eu().links.is_empty());
    w.at("eu-1", |e| e.finish_plays());
    assert_eq!(w.eu().links.len(), 2, "both hear each other");
    assert_eq!(w.status(caller), "in-progress");
    w.at("eu-1", |e| e.hangs_up(callee));
    let p = w.params("done");
    for (name, value) in [
        ("DialCallStatus", "completed"),
        ("DialBridged", "true"),
        ("DialSipResponseCode", "200"),
        ("DialSipHeader_X-Desk", "7"),
        ("DialCallDuration", "2"),
    ] {
        assert_eq!(p.get(name).map(String::as_str), Some(value), "{name}");
    }
    w.at("eu-1", |e| e.finish_plays());
    assert_eq!(w.events(callee), "initiated ringing answered completed");
    w.assert_over();
}

#[test]
fn tel_05_whoever_is_not_let_through_counts_as_no_answer() {
    let dial = "<Dial action='done'><Number url='screen'>+15552</Number></Dial>";
    for how in ["presses nothing", "hangs up", "broken document", "no document", "api", "record"] {
        let mut w = screened();
        w.set_page("start", xml(dial));
        match how {
            "broken document" => w.set_page("screen", Page::Xml("<Response>".to_owned())),
            "no document" => w.set_page("screen", Page::Status(500)),
            "record" => w.set_page("screen", xml("<Record/>")),
            _ => {}
        }
        let caller = w.inbound();
        assert!(rings(&mut w, caller));
        let callee = dialled(&mut w)[0];
        w.at("eu-1", |e| e.answer(callee));
        assert!(rings(&mut w, caller), "{how}: it still rings");
        match how {
            "presses nothing" => w.at("eu-1", |e| e.digits("", CollectEnd::Timeout)),
            "hangs up" => w.at("eu-1", |e| e.hangs_up(callee)),
            "api" => {
                w.update_call(callee, &[("Status", "completed")]).result.unwrap();
            }
            _ => {
                let spoken = w.prepared.last().unwrap();
                let is_error =
                    matches!(spoken, MediaRequest::Speech { text, .. } if text.contains("error"));
                assert!(is_error, "{how}: the called party hears why");
                assert_eq!(w.count("http://backup/start"), 0, "the fallback is for callers");
                let alert = w.store.alerts.last().unwrap();
                assert_eq!(alert.call, Some(callee), "{how}");
                let op = *w.eu().plays.iter().find(|(_, p)| p.1 == Port::Leg(callee)).unwrap().0;
                w.at("eu-1", |e| e.finish_play(op));
            }
        }
        assert_eq!(w.status(callee), "completed", "{how}: it was answered");
        let p = w.params("done");
        assert_eq!(p["DialCallStatus"], "no-answer", "{how}");
        assert_eq!((p["DialBridged"].as_str(), p.get("DialCallDuration")), ("false", None));
        assert!(!rings(&mut w, caller), "{how}");
        w.at("eu-1", |e| e.finish_plays());
        w.assert_over();
    }
}

#[test]
fn tel_05_of_several_the_first_that_comes_through_is_connected() {
    let dial = "<Dial action='done'><Sip url='screen'>sip:mailbox@h</Sip>\
                <Sip url='screen' sendDigits='w1'>sip:person@h</Sip><Sip>sip:other@h</Sip></Dial>";
    let mut w = screened();
    w.set_page("start", xml(dial));
    let caller = w.inbound();
    let legs = dialled(&mut w);
    let leg = |w: &mut World, user: &str| {
        let legs = w.eu().legs.iter();
        let of = |dial: &link_proto::call::DialParams| dial.to.contains(user);
        let found = legs.clone().find(|(_, leg)| leg.dial.as_ref().is_some_and(of));
        *found.unwrap().0
    };
    assert_eq!(legs.len(), 3);
    let (mailbox, person) = (leg(&mut w, "mailbox"), leg(&mut w, "person"));
    w.at("eu-1", |e| e.answer(mailbox));
    assert_eq!(dialled(&mut w).len(), 3, "the others ring on");
    w.at("eu-1", |e| e.answer(person));
    assert!(matches!(heard(&mut w, person).as_slice(), [PlayItem::Digits { .. }]));
    assert_eq!(w.count("screen"), 1, "digits come first");
    let op = *w.eu().plays.iter().find(|(_, p)| p.1 == Port::Leg(person)).unwrap().0;
    w.at("eu-1", |e| e.finish_play(op));
    assert_eq!(w.count("screen"), 2);
    // The person's collection is the later one.
    w.at("eu-1", |e| e.digits_of(person, "1", CollectEnd::Complete));
    w.set_page("pressed", xml(""));
    let op = *w.eu().plays.iter().find(|(_, p)| p.1 == Port::Leg(person)).unwrap().0;
    w.at("eu-1", |e| e.finish_play(op));
    assert_eq!(dialled(&mut w), [person], "the others were let go");
    assert_eq!(w.eu().links.len(), 2);
    w.at("eu-1", |e| e.hangs_up(caller));
    assert_eq!(w.params("done")["DialCallSid"], person.to_string());
    w.advance(60_000);
    w.assert_over();
}

#[test]
fn a_screening_survives_a_restart_anywhere_and_the_end_of_its_caller() {
    let run = |crash_at: usize, leaves: bool| {
        let mut w = screened();
        w.crash_at = Some(crash_at);
        let caller = w.inbound();
        let callee = dialled(&mut w)[0];
        w.at("eu-1", |e| e.answer(callee));
        if leaves {
            w.at("eu-1", |e| e.hangs_up(caller));
            assert_eq!(w.params("done")["DialCallStatus"], "canceled", "crash at {crash_at}");
        } else {
            w.at("eu-1", |e| e.digits("1", CollectEnd::Complete));
            w.at("eu-1", |e| e.finish_plays());
            assert_eq!(w.eu().links.len(), 2, "crash at {crash_at}");
            w.at("eu-1", |e| e.hangs_up(callee));
            w.at("eu-1", |e| e.finish_plays());
        }
        w.advance(200_000);
        w.assert_over();
        w.commits
    };
    for leaves in [false, true] {
        let commits = run(usize::MAX, leaves);
        for crash_at in 1..=commits {
            run(crash_at, leaves);
        }
    }
}

#[test]
fn a_redirect_by_the_api_cuts_a_screening() {
    let mut w = screened().page("new", xml("<Say>new</Say>"));
    w.set_page("start", xml("<Say>x</Say><Dial><Sip url='screen'>sip:b@h</Sip></Dial>"));
    let caller = w.inbound();
    w.at("eu-1", |e| e.finish_plays());
    let callee = dialled(&mut w)[0];
    w.set_page("screen", Page::Silent);
    w.at("eu-1", |e| e.answer(callee));
    w.update_call(caller, &[("Url", "http://app/new")]).result.unwrap();
    assert_eq!(w.status(callee), "completed");
    w.at("eu-1", |e| e.finish_plays());
    w.assert_over();
}

#[test]
fn early_media_gives_way_to_ringback_while_a_party_is_screened() {
    let mut w = screened();
    w.set_page("start", xml("<Dial><Sip url='screen'>sip:b@h</Sip></Dial>"));
    let caller = w.inbound();
    let callee = dialled(&mut w)[0];
    w.at("eu-1", |e| e.ring(callee, true));
    assert_eq!(w.eu().links.len(), 1);
    w.at("eu-1", |e| e.answer(callee));
    assert!(w.eu().links.is_empty() && rings(&mut w, caller));
    w.at("eu-1", |e| e.hangs_up(callee));
    w.assert_over();
}

#[test]
fn tel_05_uris_of_a_sip_noun_are_called_until_one_can_be_reached() {
    let dial = "<Dial action='done'><Sip username='u' password='p'>\
                <Uri priority='1'>sip:a@h1</Uri><Uri priority='2' username='v'>sip:a@h2</Uri>\
                <Uri priority='3'>sip:a@h3</Uri></Sip></Dial>";
    for (first, status, legs) in [
        ((EndReason::Unreachable, None), "completed", 2),
        ((EndReason::Refused, Some(503)), "completed", 2),
        ((EndReason::Busy, Some(486)), "busy", 1),
    ] {
        let mut w = World::new().page("start", xml(dial)).page("done", xml("<Hangup/>"));
        w.inbound();
        let one = dialled(&mut w)[0];
        let params = w.eu().legs[&one].dial.clone().unwrap();
        assert_eq!((params.to.as_str(), params.username.as_deref()), ("sip:a@h1", Some("u")));
        w.at("eu-1", |e| e.end(one, first.0, Blame::Carrier, first.1));
        if legs == 2 {
            let two = dialled(&mut w)[0];
            let params = w.eu().legs[&two].dial.clone().unwrap();
            assert_eq!((params.to.as_str(), params.username.as_deref()), ("sip:a@h2", Some("v")));
            assert_eq!(params.password.as_deref(), Some("p"));
            w.at("eu-1", |e| e.answer(two));
            w.at("eu-1", |e| e.hangs_up(two));
        }
        assert_eq!(w.params("done")["DialCallStatus"], status);
        assert_eq!(w.store.calls.len(), legs + 1);
        w.assert_over();
    }
}

#[test]
fn tel_05_dial_records_the_tracks_that_are_wanted_from_when_they_are_wanted() {
    for (attributes, ringing, leg_is_caller, with, track, dual) in [
        ("record='true'", false, true, true, RecordTrack::Received, false),
        (
            "record='true' recordingTrack='inbound'",
            false,
            true,
            false,
            RecordTrack::Received,
            false,
        ),
        (
            "record='true' recordingTrack='outbound'",
            false,
            false,
            false,
            RecordTrack::Received,
            false,
        ),
        ("record='record-from-ringing'", true, true, false, RecordTrack::Both, false),
        ("record='record-from-ringing-dual'", true, true, false, RecordTrack::Both, true),
        (
            "record='record-from-ringing-dual' recordingTrack='outbound'",
            true,
            true,
            false,
            RecordTrack::Sent,
            false,
        ),
    ] {
        let dial = format!("<Dial action='done' {attributes}><Sip>sip:b@h</Sip></Dial>");
        let mut w = World::new().page("start", xml(&dial)).page("done", xml("<Say>x</Say>"));
        let caller = w.inbound();
        let callee = dialled(&mut w)[0];
        assert_eq!(w.eu().records.len(), usize::from(ringing), "{attributes}");
        w.at("eu-1", |e| e.answer(callee));
        assert_eq!(w.eu().records.len(), 1, "{attributes}");
        let commands = w.eu().commands.clone();
        let ports: Vec<Port> = commands
            .iter()
            .filter_map(|command| match command {
                CallCommand::Media(MediaCommand::Record { port, .. }) => Some(*port),
                _ => None,
            })
            .collect();
        let on = if leg_is_caller { caller } else { callee };
        assert_eq!(ports, [Port::Leg(on)], "{attributes}: one program, never restarted");
        let rules = w.eu().records.values().next().unwrap().1.clone();
        assert_eq!((rules.with.is_some(), rules.track), (with, track), "{attributes}");
        assert_eq!(rules.dual_channel, dual, "{attributes}");
        w.at("eu-1", |e| e.hangs_up(callee));
        assert!(w.eu().records.is_empty(), "{attributes}: it ends with the conversation");
        assert!(w.params("done").contains_key("RecordingUrl"), "{attributes}");
        let row = w.store.recordings.values().next().unwrap();
        assert_eq!((row.source.as_str(), row.call), ("DialVerb", caller));
        assert_eq!(row.channels, if dual { 2 } else { 1 });
    }
}
