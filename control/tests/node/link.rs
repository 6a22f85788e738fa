//! The edges' side of a control node.

use std::path::Path;
use std::sync::Arc;

use control::assemble::Control;
use control::rows::recording_path;
use control::services::Absent;
use link_daemon::drain::Trigger;
use link_daemon::quic::stream::{Answer, fetch, upload};
use link_proto::call::{CallEvent, EndReason, LegStats};
use link_proto::message::{EventMessage, Load, Message, Reconcile, RecordingHeader};
use link_proto::{CallSid, RecordingSid};

use crate::edge::{FakeEdge, anywhere, config_on, control_with};
use crate::process::get;

/// The node runs on this test's own thread, which must not wait.
async fn ask(address: std::net::SocketAddr, path: &'static str) -> String {
    tokio::task::spawn_blocking(move || get(address, path)).await.unwrap()
}

async fn control(folder: &Path) -> (Control, Trigger) {
    control_with(config_on(folder, anywhere()), Arc::new(Absent)).await
}

#[tokio::test]
async fn an_edge_is_welcomed_and_gets_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (control, trigger) = control(folder.path()).await;
    assert!(ask(control.addresses.admin, "/ready").await.starts_with("HTTP/1.1 200"));

    let mut edge = FakeEdge::connect(folder.path(), &control, "eu").await;
    edge.hello(7).await;
    let Message::Welcome(welcome) = edge.hear().await else { panic!("no welcome") };
    assert_eq!((welcome.node.as_str(), welcome.region.as_str()), ("control-1", "core"));
    let Message::Tables(tables) = edge.hear().await else { panic!("no tables") };
    assert_eq!(tables.routes.len(), 1);
    edge.say(Message::Reconcile(Reconcile { legs: vec![] })).await;
    let load =
        Load { legs: 3, legs_max: 10, draining: false, used: Default::default(), routes: vec![] };
    edge.say(Message::Load(load.clone())).await;
    let metrics = ask(control.addresses.admin, "/metrics").await;
    assert!(metrics.contains("tandem_link_connected_edges{peer_region=\"eu\"} 1"), "{metrics}");
    assert!(metrics.contains("tandem_control_sessions 0"), "{metrics}");

    trigger.shut_down();
    control.finished().await;
    let end = edge.connection.closed().await.to_string();
    assert!(end.contains("shutting down"), "{end}");
}

#[tokio::test]
async fn a_region_that_the_certificate_does_not_prove_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _trigger) = control(folder.path()).await;
    let mut edge = FakeEdge::connect(folder.path(), &control, "us").await;
    edge.hello(7).await;
    let Message::Refused(refused) = edge.hear().await else { panic!("not refused") };
    assert!(refused.why.contains("not for node edge-eu-1 of region us"), "{}", refused.why);
    assert!(control.link.connected().is_empty());
}

#[tokio::test]
async fn something_else_than_hello_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _trigger) = control(folder.path()).await;
    let mut edge = FakeEdge::connect(folder.path(), &control, "eu").await;
    edge.say(Message::Reconcile(Reconcile { legs: vec![] })).await;
    let Message::Refused(refused) = edge.hear().await else { panic!("not refused") };
    assert!(refused.why.contains("not hello"), "{}", refused.why);
}

#[tokio::test]
async fn the_newest_connection_of_a_node_wins() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _trigger) = control(folder.path()).await;
    let mut old = FakeEdge::connect(folder.path(), &control, "eu").await;
    old.hello(1).await;
    assert!(matches!(old.hear().await, Message::Welcome(_)));
    let mut new = FakeEdge::connect(folder.path(), &control, "eu").await;
    new.hello(2).await;
    assert!(matches!(new.hear().await, Message::Welcome(_)));
    let end = old.connection.closed().await.to_string();
    assert!(end.contains("replaced"), "{end}");
    let connected = control.link.connected();
    assert_eq!(connected.iter().map(|edge| edge.boot).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn unusable_messages_are_answered_and_do_not_end_the_link() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _trigger) = control(folder.path()).await;
    let mut edge = FakeEdge::connect(folder.path(), &control, "eu").await;
    edge.hello(1).await;
    assert!(matches!(edge.hear().await, Message::Welcome(_)));
    edge.writer.push(b"nonsense").unwrap();
    let newer = link_proto::envelope::Envelope {
        version: 2,
        region: edge.region.clone(),
        action: "event".into(),
        features: vec![],
        supported: vec![],
        required: vec!["telepathy/2".into()],
        body: ciborium::Value::Null,
    };
    let mut frame = Vec::new();
    ciborium::into_writer(&newer, &mut frame).unwrap();
    edge.writer.push(&frame).unwrap();
    edge.writer.flush().await.unwrap();
    let Message::Refused(refused) = edge.hear_other().await else { panic!("not refused") };
    assert_eq!(refused.unmet, ["telepathy/2"]);
    // Still alive: an event about nothing known is judged by the core, not by us.
    let ended = CallEvent::Ended {
        reason: EndReason::RemoteBye,
        whose: link_proto::call::Blame::Caller,
        sip_status: None,
        stats: LegStats::default(),
        answered_ms: 0,
    };
    let (session, leg) = (CallSid([1; 16]), CallSid([1; 16]));
    let event = EventMessage { session, sequence: 1, leg, at_unix_ms: 1, event: ended };
    edge.say(Message::Event(event)).await;
    let answer = fetch(&edge.connection, "00ff", 1_000).await.unwrap();
    assert_eq!(answer, Answer::Done(vec![3; 100]));
    let unknown = fetch(&edge.connection, "beef", 1_000).await.unwrap();
    assert!(matches!(unknown, Answer::Refused(_)));
}

#[tokio::test]
async fn recordings_are_on_disk_when_they_are_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _trigger) = control(folder.path()).await;
    let edge = FakeEdge::connect(folder.path(), &control, "eu").await;
    let header = RecordingHeader {
        recording: RecordingSid([9; 16]),
        session: CallSid([1; 16]),
        leg: CallSid([1; 16]),
        duration_ms: 1_000,
        channels: 1,
        control: None,
    };
    let content = vec![1; 16_044];
    let answer = upload(&edge.connection, &header.to_bytes().unwrap(), &content[..]).await.unwrap();
    assert_eq!(answer, Answer::Done(()));
    let path = recording_path(&folder.path().join("data/recordings"), header.recording);
    assert_eq!(std::fs::read(path).unwrap(), content);
    let answer = upload(&edge.connection, b"no header", &content[..]).await.unwrap();
    assert!(matches!(answer, Answer::Refused(_)));
    drop(control);
}

#[tokio::test]
async fn a_restarted_node_is_reached_at_the_same_address() {
    let folder = tempfile::tempdir().unwrap();
    let (first, trigger) = control(folder.path()).await;
    let addresses = first.addresses;
    let edge = FakeEdge::connect(folder.path(), &first, "eu").await;
    trigger.shut_down();
    first.finished().await;
    edge.connection.closed().await;
    let same = [addresses.api, addresses.link, addresses.admin];
    let config = config_on(folder.path(), same);
    let (again, _trigger) = control_with(config, Arc::new(Absent)).await;
    assert_eq!(again.addresses, addresses);
    let mut edge = FakeEdge::connect(folder.path(), &again, "eu").await;
    edge.hello(3).await;
    assert!(matches!(edge.hear().await, Message::Welcome(_)));
}
