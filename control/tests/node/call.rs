//! A call through store and core: instructions, prompts, commands, and what survives a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control::core_task::{Boxed, WebClient};
use control_core::io::{FetchFailure, FetchRequest, FetchResponse};
use link_proto::CallSid;
use link_proto::call::{Blame, CallCommand, CallEvent, EndReason, LegStats, Offered};
use link_proto::media::{AudioCodec, MediaCommand, MediaEvent, PlayEnd, PlayItem};
use link_proto::message::{
    CommandAck, CommandMessage, CommandResult, EventMessage, LiveLeg, Message, Reconcile,
};

use crate::edge::{FakeEdge, anywhere, config_on, control_with};

/// Answers every request at once with one document.
struct Document {
    body: &'static str,
    requests: AtomicU64,
}

impl WebClient for Document {
    fn fetch(&self, _: FetchRequest) -> Boxed<Result<FetchResponse, FetchFailure>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let response = FetchResponse {
            status: 200,
            headers: vec![("Content-Type".into(), "text/xml".into())],
            body: self.body.as_bytes().to_vec(),
            elapsed_ms: 1,
        };
        Box::pin(async { Ok(response) })
    }

    fn session_ended(&self, _: CallSid) {}
}

fn document(body: &'static str) -> Arc<Document> {
    Arc::new(Document { body, requests: AtomicU64::new(0) })
}

fn offered() -> CallEvent {
    CallEvent::Offered(Offered {
        from: "+15550001".into(),
        to: "+15550100".into(),
        caller_name: None,
        forwarded_from: None,
        provider: "carrier".into(),
        sip_call_id: "a@b".into(),
        source: "127.0.0.1:5060".into(),
        sip_domain: "example.net".into(),
        headers: vec![],
        codecs: vec![AudioCodec::Pcmu],
    })
}

fn event(leg: CallSid, sequence: u64, event: CallEvent) -> Message {
    Message::Event(EventMessage { session: leg, sequence, leg, at_unix_ms: 1, event })
}

/// Takes commands, as an edge does, until one fits. Acknowledgements of events are left out.
async fn command_until(edge: &mut FakeEdge, fits: impl Fn(&CallCommand) -> bool) -> CommandMessage {
    loop {
        let Message::Command(message) = edge.hear_other().await else { continue };
        let (session, id) = (message.session, message.id);
        edge.say(Message::CommandAck(CommandAck { session, id, result: CommandResult::Done }))
            .await;
        if fits(&message.command) {
            return message;
        }
    }
}

fn is_play(command: &CallCommand) -> bool {
    matches!(command, CallCommand::Media(MediaCommand::Play { .. }))
}

fn answered() -> CallEvent {
    CallEvent::Answered {
        codec: AudioCodec::Pcmu,
        telephone_event: Some(101),
        sip_call_id: "a@b".into(),
        headers: Vec::new(),
    }
}

async fn connect(
    folder: &std::path::Path,
    control: &control::Control,
    legs: &[CallSid],
) -> FakeEdge {
    let mut edge = FakeEdge::connect(folder, control, "eu").await;
    edge.hello(1).await;
    assert!(matches!(edge.hear().await, Message::Welcome(_)));
    let live = |leg: &CallSid| LiveLeg { session: *leg, leg: *leg, answered: true };
    edge.say(Message::Reconcile(Reconcile { legs: legs.iter().map(live).collect() })).await;
    edge
}

#[tokio::test]
async fn an_offered_call_is_answered_and_hears_its_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let web = document("<Response><Play>http://x/a.wav</Play></Response>");
    let config = config_on(folder.path(), anywhere());
    let (control, _trigger) = control_with(config, web.clone()).await;
    let mut edge = connect(folder.path(), &control, &[]).await;
    let leg = CallSid([5; 16]);
    edge.say(event(leg, 1, offered())).await;
    command_until(&mut edge, |command| matches!(command, CallCommand::Accept { .. })).await;
    edge.say(event(leg, 2, answered())).await;
    let play = command_until(&mut edge, is_play).await;
    let CallCommand::Media(MediaCommand::Play { op, items, .. }) = play.command else { return };
    assert!(matches!(&items[..], [PlayItem::Prompt { key, times: 1 }] if key.0 == "00ff"));
    let done = MediaEvent::PlayDone { op, end: PlayEnd::Finished };
    edge.say(event(leg, 3, CallEvent::Media(done))).await;
    let hangup = |command: &CallCommand| matches!(command, CallCommand::Hangup { .. });
    command_until(&mut edge, hangup).await;
    edge.say(event(leg, 4, ended())).await;
    loop {
        // The last event is acknowledged after everything about the call is committed.
        if let Message::EventAck(ack) = edge.hear_other().await
            && ack.sequence == 4
        {
            break;
        }
    }
    let call = control.store.reader().call(&leg.to_string()).unwrap().unwrap();
    assert_eq!(call.status, "completed");
    assert!(!control.store.reader().timeline(&leg.to_string()).unwrap().is_empty());
    let callbacks = control.store.reader().outbox_of(&leg.to_string()).unwrap();
    assert_eq!(callbacks.len(), 1, "one terminal callback: {callbacks:?}");
}

fn ended() -> CallEvent {
    CallEvent::Ended {
        reason: EndReason::Hangup,
        whose: Blame::Customer,
        sip_status: None,
        stats: LegStats::default(),
        answered_ms: 1_000,
    }
}

#[tokio::test]
async fn after_a_crash_control_goes_on_with_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let body = "<Response><Play>http://x/a.wav</Play><Pause length=\"1\"/></Response>";
    let config = config_on(folder.path(), anywhere());
    let (first, trigger) = control_with(config, document(body)).await;
    let mut edge = connect(folder.path(), &first, &[]).await;
    let leg = CallSid([6; 16]);
    edge.say(event(leg, 1, offered())).await;
    command_until(&mut edge, |command| matches!(command, CallCommand::Accept { .. })).await;
    edge.say(event(leg, 2, answered())).await;
    let play = command_until(&mut edge, is_play).await;
    let CallCommand::Media(MediaCommand::Play { op, .. }) = play.command else { return };
    // Without drain: what is not committed now is lost.
    let store_before = first.store.reader().sessions().unwrap();
    assert_eq!(store_before.len(), 1);
    drop(first);
    drop(trigger);
    let web = document(body);
    let config = config_on(folder.path(), anywhere());
    let (second, _trigger) = control_with(config, web.clone()).await;
    let mut edge = connect(folder.path(), &second, &[leg]).await;
    let done = MediaEvent::PlayDone { op, end: PlayEnd::Finished };
    edge.say(event(leg, 3, CallEvent::Media(done))).await;
    let hangup = |command: &CallCommand| matches!(command, CallCommand::Hangup { .. });
    command_until(&mut edge, hangup).await;
    assert_eq!(web.requests.load(Ordering::SeqCst), 0, "the document is not asked for again");
}

/// Prints what control adds between an offered call and the first command of its prompt.
#[tokio::test]
async fn set_up_is_quick() {
    let folder = tempfile::tempdir().unwrap();
    let web = document("<Response><Play>http://x/a.wav</Play></Response>");
    let (control, _trigger) = control_with(config_on(folder.path(), anywhere()), web).await;
    let mut edge = connect(folder.path(), &control, &[]).await;
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..50_u8 {
        let leg = CallSid([number.wrapping_add(100); 16]);
        let begin = Instant::now();
        edge.say(event(leg, 1, offered())).await;
        command_until(&mut edge, |command| matches!(command, CallCommand::Accept { .. })).await;
        edge.say(event(leg, 2, answered())).await;
        let play = command_until(&mut edge, is_play).await;
        assert_eq!(play.leg, leg);
        times.push(begin.elapsed());
    }
    times.sort();
    println!("set-up in control: median {:?}, worst {:?}", times[25], times[49]);
    assert!(times[25] < Duration::from_millis(50), "median {:?}", times[25]);
}
