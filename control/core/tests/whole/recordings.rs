//! MED-10: recordings beside the instructions, started by the API or by an option of the call.

use crate::world::{NUMBER, World, owned, xml};
use control_core::api::ApiAction;
use control_core::record::RecordingStatus;
use link_proto::media::{RecordEnd, RecordTrack};
use link_proto::{CallSid, NodeId, RecordingSid};

const SID: RecordingSid = RecordingSid([9; 16]);

fn talking() -> (World, CallSid, CallSid) {
    let mut w = World::new().page("start", xml("<Dial><Sip>sip:b@h</Sip></Dial><Say>Bye</Say>"));
    let caller = w.inbound();
    let callee = w.eu().dialled()[0];
    w.at("eu-1", |e| e.answer(callee));
    (w, caller, callee)
}

fn start(w: &mut World, call: CallSid, recording: RecordingSid, form: &[(&str, &str)]) -> u16 {
    let reply = w.api(ApiAction::StartRecording { call, recording, form: owned(form) });
    reply.result.map_or_else(|error| error.status, |_| 201)
}

fn update(w: &mut World, call: CallSid, recording: Option<RecordingSid>, status: &str) -> u16 {
    let form = owned(&[("Status", status)]);
    let reply = w.api(ApiAction::UpdateRecording { call, recording, form });
    reply.result.map_or_else(|error| error.status, |_| 200)
}

fn status(w: &World, sid: RecordingSid) -> RecordingStatus {
    w.store.recordings[&sid.to_string()].status
}

fn stored(w: &mut World, recording: RecordingSid) {
    let input = control_core::Input::RecordingStored { recording, duration_ms: 2_000, channels: 2 };
    w.core.handle_input(w.now, w.unix_ms, input);
    w.pump();
}

#[test]
fn a_recording_outlives_the_instructions_and_ends_by_the_api() {
    let (mut w, caller, callee) = talking();
    assert_eq!(start(&mut w, caller, SID, &[("RecordingChannels", "dual")]), 201);
    let (_, (_, rules)) = w.eu().records.first_key_value().unwrap();
    assert_eq!((rules.track, rules.dual_channel, rules.with), (RecordTrack::Both, true, None));
    // The conversation ends, the next verb plays, the recording goes on.
    w.at("eu-1", |e| e.hangs_up(callee));
    assert_eq!(w.eu().records.len(), 1);
    assert_eq!(update(&mut w, caller, None, "paused"), 200);
    assert_eq!(status(&w, SID), RecordingStatus::Paused);
    assert_eq!(update(&mut w, caller, Some(SID), "in-progress"), 200);
    assert_eq!(status(&w, SID), RecordingStatus::InProgress);
    assert_eq!(update(&mut w, caller, Some(RecordingSid([8; 16])), "stopped"), 404);
    assert_eq!(update(&mut w, caller, Some(SID), "gone"), 400);
    assert_eq!(update(&mut w, caller, Some(SID), "stopped"), 200);
    assert!(w.eu().records.is_empty());
    assert_eq!(status(&w, SID), RecordingStatus::Processing);
    assert_eq!(update(&mut w, caller, None, "stopped"), 404);
    stored(&mut w, SID);
    assert_eq!(status(&w, SID), RecordingStatus::Completed);
    w.at("eu-1", |e| e.finish_plays());
    w.assert_over();
}

#[test]
fn forms_have_limits_and_a_leg_a_number_of_recordings() {
    let (mut w, caller, callee) = talking();
    assert_eq!(start(&mut w, caller, SID, &[("RecordingTrack", "sideways")]), 400);
    assert_eq!(start(&mut w, caller, SID, &[("RecordingChannels", "7")]), 400);
    for n in 0..5 {
        let code = start(&mut w, caller, RecordingSid([n; 16]), &[]);
        assert_eq!(code, if n < 4 { 201 } else { 400 });
    }
    w.at("eu-1", |e| e.hangs_up(caller));
    let gone = w.api(ApiAction::StartRecording { call: callee, recording: SID, form: Vec::new() });
    assert_eq!(gone.result.unwrap_err().status, 400);
    for n in 0..4 {
        stored(&mut w, RecordingSid([n; 16]));
    }
    w.assert_over();
}

#[test]
fn a_restart_of_control_changes_nothing_and_a_lost_edge_brings_its_recording_later() {
    let (mut w, caller, _) = talking();
    assert_eq!(start(&mut w, caller, SID, &[]), 201);
    w.crash();
    w.restart();
    assert_eq!(w.eu().records.len(), 1, "one and the same");
    assert_eq!(status(&w, SID), RecordingStatus::InProgress);
    let node = NodeId::from("eu-1");
    w.disconnect(&node);
    w.eu().reboot();
    w.connect(&node);
    assert_eq!(status(&w, SID), RecordingStatus::Processing, "not given up");
    // Long after, nobody waits for it any more.
    for _ in 0..4 {
        w.advance(60_000);
    }
    assert_eq!(status(&w, SID), RecordingStatus::Absent);
    w.assert_over();
    stored(&mut w, SID);
    assert_eq!(status(&w, SID), RecordingStatus::Completed);
}

#[test]
fn an_option_of_the_call_records_from_the_answer_on() {
    let mut w = World::new().page("start", xml("<Say>Hello</Say>"));
    let form = [
        ("To", "sip:b@h"),
        ("From", NUMBER),
        ("Url", "http://app/start"),
        ("Record", "true"),
        ("RecordingTrack", "outbound"),
    ];
    let call = w.create_call(&form).result.unwrap().sid;
    assert!(w.eu().records.is_empty());
    w.at("eu-1", |e| e.answer(call));
    let (_, (_, rules)) = w.eu().records.first_key_value().unwrap();
    assert_eq!((rules.track, rules.dual_channel), (RecordTrack::Sent, false));
    w.at("eu-1", |e| e.recorded(900, RecordEnd::LegEnded));
    assert_eq!(w.store.recordings.values().next().unwrap().source, "OutboundAPI");
}
