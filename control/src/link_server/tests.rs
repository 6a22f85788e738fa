//! A control node on loopback and an edge made of link messages.

use std::path::Path;

use control_core::io::{MediaFailure, MediaFile, MediaRequest};
use link_daemon::drain::{Trigger, switch};
use link_daemon::log::LogLevel;
use link_daemon::quic::stream::{Answer, fetch, open_control, upload};
use link_daemon::quic::{self, EndpointPlan, LINK_ALPN, LinkSettings};
use link_daemon::tls::{Tls, TlsFiles};
use link_proto::call::{CallEvent, EndReason, LegStats};
use link_proto::message::{EventMessage, Reconcile};
use link_proto::table::Resources;
use link_proto::{AccountSid, CallSid, RecordingSid};

use super::*;
use crate::assemble::{Control, Services, start};
use crate::config::tests::example;
use crate::core_task::Boxed;
use crate::services::Absent;

struct OnePrompt;

impl MediaLayer for OnePrompt {
    fn prepare(&self, _: AccountSid, _: MediaRequest) -> Boxed<Result<MediaFile, MediaFailure>> {
        let key = PromptKey("00ff".into());
        Box::pin(async { Ok(MediaFile { key, duration_ms: 10 }) })
    }

    fn bytes(&self, key: PromptKey) -> Boxed<Option<bytes::Bytes>> {
        Box::pin(async move { (key.0 == "00ff").then(|| vec![3; 100].into()) })
    }
}

async fn control(folder: &Path) -> (Control, Trigger) {
    let (trigger, shutdown) = switch();
    let services = Services {
        web: Arc::new(Absent),
        media: Arc::new(OnePrompt),
        api: |_| axum::Router::new(),
        tasks: Vec::new(),
    };
    let control = start(example(folder), services, LogLevel::fixed(), shutdown).await.unwrap();
    (control, trigger)
}

struct FakeEdge {
    _endpoint: Endpoint,
    connection: Connection,
    reader: FrameReader,
    writer: FrameWriter,
    region: RegionId,
}

impl FakeEdge {
    async fn connect(folder: &Path, control: &Control, region: &str) -> Self {
        let tls = Tls::load(&TlsFiles::of(&folder.join("pki"), "edge-eu-1")).unwrap();
        let plan = EndpointPlan {
            bind: "127.0.0.1:0".parse().unwrap(),
            alpn: LINK_ALPN,
            accept: false,
            socket_buffer_bytes: 0,
            transport: LinkSettings::default().transport(),
        };
        let endpoint = quic::endpoint(&tls, &plan).unwrap();
        let address = control.addresses.link;
        let connection = quic::connect(&endpoint, address, "control-1").await.unwrap();
        let (reader, writer) = open_control(&connection).await.unwrap();
        let region = RegionId::from(region);
        Self { _endpoint: endpoint, connection, reader, writer, region }
    }

    async fn say(&mut self, message: Message) {
        self.writer.push(&encode(&self.region, &message).unwrap()).unwrap();
        self.writer.flush().await.unwrap();
    }

    async fn hello(&mut self, boot: u64) {
        let node = NodeEntry {
            node: "edge-eu-1".into(),
            region: self.region.clone(),
            trunk_address: "127.0.0.1:7000".into(),
            resources: Resources::default(),
            core: false,
            available: true,
        };
        self.say(Message::Hello(Hello { node, boot, version_min: 1 })).await;
    }

    async fn hear(&mut self) -> Message {
        let frame = tokio::time::timeout(Duration::from_secs(5), self.reader.next());
        decode(&frame.await.unwrap().unwrap().unwrap()).unwrap().1
    }

    /// The next message that is not about tables.
    async fn hear_other(&mut self) -> Message {
        loop {
            match self.hear().await {
                Message::Tables(_) => {}
                other => return other,
            }
        }
    }
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_edge_is_welcomed_and_gets_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (control, trigger) = control(folder.path()).await;
    assert!(get(control.addresses.admin, "/ready").await.starts_with("HTTP/1.1 200"));

    let mut edge = FakeEdge::connect(folder.path(), &control, "eu").await;
    edge.hello(7).await;
    let Message::Welcome(welcome) = edge.hear().await else { panic!("no welcome") };
    assert_eq!((welcome.node.as_str(), welcome.region.as_str()), ("control-1", "core"));
    let Message::Tables(tables) = edge.hear().await else { panic!("no tables") };
    assert_eq!(tables.routes.len(), 1);
    edge.say(Message::Reconcile(Reconcile { legs: vec![] })).await;
    let load = Load { legs: 3, legs_max: 10, draining: false };
    edge.say(Message::Load(load.clone())).await;
    let metrics = get(control.addresses.admin, "/metrics").await;
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
    assert!(refused.why.contains("claims to be node edge-eu-1 of region us"), "{}", refused.why);
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
    let mut config = example(folder.path());
    config.api.listen = addresses.api;
    config.admin = addresses.admin;
    config.link.listen = addresses.link;
    let (_trigger, shutdown) = switch();
    let services = crate::services::build(&config).unwrap();
    let again = start(config, services, LogLevel::fixed(), shutdown).await.unwrap();
    assert_eq!(again.addresses, addresses);
    let mut edge = FakeEdge::connect(folder.path(), &again, "eu").await;
    edge.hello(3).await;
    assert!(matches!(edge.hear().await, Message::Welcome(_)));
}
