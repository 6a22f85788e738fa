use std::path::Path;

use super::stream::{Answer, Incoming, fetch, open_control, open_incoming, upload};
use super::*;
use crate::tls::{Identity, NodeNames, TlsFiles, init_pki, peer_identity};

fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn tls(folder: &Path, region: &str, node: &str, days: u32) -> Tls {
    init_pki(folder, &[NodeNames::new(region, node)], days).unwrap();
    Tls::load(&TlsFiles::of(folder, node)).unwrap()
}

fn plan(alpn: &[u8], bind: SocketAddr, accept: bool) -> EndpointPlan<'_> {
    let transport = LinkSettings::default().transport();
    EndpointPlan {
        key: "listen",
        bind,
        alpn,
        accept,
        socket_buffer_bytes: 0,
        datagram_bytes_max: DATAGRAM_BYTES_USUAL,
        transport,
    }
}

fn server(tls: &Tls) -> (Endpoint, SocketAddr) {
    let endpoint = endpoint(tls, &plan(LINK_ALPN, localhost(), true)).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

fn client(tls: &Tls) -> Endpoint {
    endpoint(tls, &plan(LINK_ALPN, localhost(), false)).unwrap()
}

/// Accepts one connection, returning how the handshake ended.
fn accept(endpoint: Endpoint) -> tokio::task::JoinHandle<Result<quinn::Connection, String>> {
    tokio::spawn(async move {
        let incoming = endpoint.accept().await.ok_or("closed")?;
        incoming.await.map_err(|error| error.to_string())
    })
}

struct Pair {
    _folder: tempfile::TempDir,
    _endpoints: (Endpoint, Endpoint),
    edge: quinn::Connection,
    control: quinn::Connection,
}

async fn pair() -> Pair {
    let folder = tempfile::tempdir().unwrap();
    let control_tls = tls(folder.path(), "core", "control-1", 30);
    let edge_tls = tls(folder.path(), "eu", "edge-1", 30);
    let (server, address) = server(&control_tls);
    let client = client(&edge_tls);
    let accepted = accept(server.clone());
    let edge = connect(&client, address, "control-1").await.unwrap();
    let control = accepted.await.unwrap().unwrap();
    Pair { _folder: folder, _endpoints: (server, client), edge, control }
}

async fn incoming(connection: &quinn::Connection) -> Incoming {
    let (send, receive) = connection.accept_bi().await.unwrap();
    open_incoming(send, receive).await.unwrap()
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let pair = pair().await;
    let identity = |region: &str, node: &str| Identity { region: region.into(), node: node.into() };
    assert_eq!(peer_identity(&pair.control).unwrap(), identity("eu", "edge-1"));
    assert_eq!(peer_identity(&pair.edge).unwrap(), identity("core", "control-1"));
    // What an edge says in its first message is held against that.
    let claim = peer_identity(&pair.control).unwrap().require("us", "edge-1");
    assert!(claim.unwrap_err().to_string().contains("not for node edge-1 of region us"));
}

#[tokio::test]
async fn frames_go_both_ways_in_order() {
    let pair = pair().await;
    let (mut edge_reader, mut edge_writer) = open_control(&pair.edge).await.unwrap();
    let big = vec![9; frame::FRAME_BYTES_MAX];
    edge_writer.push(b"hello").unwrap();
    edge_writer.push(b"").unwrap();
    let flush = async {
        edge_writer.push(&big).unwrap();
        edge_writer.flush().await.unwrap();
        edge_writer.finish();
    };
    let answer = async {
        let Incoming::Control(mut reader, mut writer) = incoming(&pair.control).await else {
            panic!("expected the control stream");
        };
        assert_eq!(reader.next().await.unwrap().unwrap(), b"hello");
        assert_eq!(reader.next().await.unwrap().unwrap(), b"");
        assert_eq!(reader.next().await.unwrap().unwrap(), big);
        assert!(reader.next().await.unwrap().is_none());
        writer.push(b"welcome").unwrap();
        writer.flush().await.unwrap();
        writer
    };
    let ((), _writer) = tokio::join!(flush, answer);
    assert_eq!(edge_reader.next().await.unwrap().unwrap(), b"welcome");
}

#[tokio::test]
async fn bytes_are_fetched_by_key_or_refused() {
    let pair = pair().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let serve = async {
        for _ in 0..3 {
            let Incoming::Fetch(request) = incoming(&pair.control).await else {
                panic!("expected a fetch");
            };
            if request.key() == "known" {
                // The third one breaks off half-way, which is no failure of this side.
                let _ = request.answer(&content).await;
            } else {
                request.refuse("no such prompt").await.unwrap();
            }
        }
    };
    let ask = async {
        let known = fetch(&pair.edge, "known", 4 << 20).await.unwrap();
        assert_eq!(known, Answer::Done(content.clone()));
        let unknown = fetch(&pair.edge, "unknown", 4 << 20).await.unwrap();
        assert_eq!(unknown, Answer::Refused("no such prompt".into()));
        assert!(fetch(&pair.edge, "known", 1_000).await.is_err(), "more than asked for");
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn uploads_are_confirmed_after_they_are_on_disk() {
    let pair = pair().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("RE1.wav");
    let content = vec![5; 200_000];
    let receive = async {
        let Incoming::Upload(mut request) = incoming(&pair.control).await else {
            panic!("expected an upload");
        };
        assert_eq!(request.header(), b"RE1");
        assert_eq!(request.save(&path, 1 << 20).await.unwrap(), 200_000);
        assert_eq!(std::fs::read(&path).unwrap(), content, "before the sender is told");
        request.confirm().await.unwrap();
        let Incoming::Upload(mut request) = incoming(&pair.control).await else {
            panic!("expected an upload");
        };
        let error = request.save(&folder.path().join("RE2.wav"), 1_000).await.unwrap_err();
        request.refuse(&format!("{error:#}")).await.unwrap();
    };
    let send = async {
        assert_eq!(upload(&pair.edge, b"RE1", &content[..]).await.unwrap(), Answer::Done(()));
        let refused = upload(&pair.edge, b"RE2", &content[..]).await.unwrap();
        assert!(matches!(refused, Answer::Refused(why) if why.contains("more than 1000 bytes")));
    };
    tokio::join!(receive, send);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no part is left");
}

/// What an edge sees when the handshake is refused by either side.
async fn handshake(control_tls: &Tls, edge_tls: &Tls, meant: &str) -> (String, String) {
    let (server, address) = server(control_tls);
    let client = client(edge_tls);
    let handshake = accept(server.clone());
    let accepted = tokio::spawn(async move {
        handshake.await.unwrap().map(|connection| connection.close(0_u32.into(), b"seen"))
    });
    let edge = match connect(&client, address, meant).await {
        // TLS 1.3: the client is done before the server has checked the client's certificate.
        Ok(connection) => connection.closed().await.to_string(),
        Err(error) => format!("{error:#}"),
    };
    client.close(0_u32.into(), b"");
    let control = accepted.await.unwrap().map_or_else(|error| error, |()| "accepted".into());
    (edge, control)
}

#[tokio::test]
async fn strangers_expired_and_mistaken_nodes_are_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = tls(ours.path(), "core", "control-1", 30);
    let edge = tls(ours.path(), "eu", "edge-1", 30);
    let stranger = tls(theirs.path(), "eu", "edge-1", 30);
    // The same authority for its name only: the server is a stranger to the edge, too.
    let (edge_error, _) = handshake(&stranger, &edge, "edge-1").await;
    assert!(edge_error.contains("invalid peer certificate"), "{edge_error}");

    let expired = tls(ours.path(), "eu", "edge-old", 0);
    let (edge_error, control_error) = handshake(&control, &expired, "control-1").await;
    assert!(control_error.contains("expired"), "{control_error}");
    assert!(edge_error.contains("certificate"), "{edge_error}");

    // Same DNS name, but not the node that was meant.
    let (edge_error, _) = handshake(&control, &edge, "control-2").await;
    assert!(edge_error.contains("not valid for name"), "{edge_error}");
    let (edge_error, control_error) = handshake(&control, &edge, "control-1").await;
    assert_eq!(control_error, "accepted", "{edge_error}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_by_the_server() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = tls(ours.path(), "core", "control-1", 30);
    let files = TlsFiles::of(theirs.path(), "edge-1");
    tls(theirs.path(), "eu", "edge-1", 30);
    // A stranger that knows our authority's certificate, which is no secret.
    let stranger = Tls::load(&TlsFiles { ca: ours.path().join("ca.pem"), ..files }).unwrap();
    let (edge_error, control_error) = handshake(&control, &stranger, "control-1").await;
    assert!(control_error.contains("invalid peer certificate"), "{control_error}");
    assert!(edge_error.contains("certificate") || edge_error.contains("decrypt"), "{edge_error}");
}

#[tokio::test]
async fn a_restart_is_noticed_at_the_next_packet() {
    let folder = tempfile::tempdir().unwrap();
    let control_tls = tls(folder.path(), "core", "control-1", 30);
    let edge_tls = tls(folder.path(), "eu", "edge-1", 30);
    // So patient that only the reset can end the connection in time.
    let timing = Timing { idle: Duration::from_secs(60), ..Timing::default() };
    let settings = LinkSettings { timing, ..LinkSettings::default() };
    let patient = |bind, accept| EndpointPlan {
        key: "listen",
        transport: settings.transport(),
        ..plan(LINK_ALPN, bind, accept)
    };
    let client = endpoint(&edge_tls, &patient(localhost(), false)).unwrap();
    // A runtime of its own dies without a word, as a killed process does.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let address = {
        let _inside = runtime.enter();
        let endpoint = endpoint(&control_tls, &patient(localhost(), true)).unwrap();
        let address = endpoint.local_addr().unwrap();
        runtime.spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            connection.closed().await
        });
        address
    };
    let edge = connect(&client, address, "control-1").await.unwrap();
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(1)))
        .await
        .unwrap();
    let _again = endpoint(&control_tls, &patient(address, true)).unwrap();
    // A reset has to be smaller than what it answers (RFC 9000 §10.3.3), so a keep-alive may be too
    // short to be answered; a message is not.
    let (mut send, _receive) = edge.open_bi().await.unwrap();
    send.write_all(&[7; 1_000]).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), edge.closed()).await;
    let end = end.expect("long before the idle limit");
    assert!(
        matches!(end, quinn::ConnectionError::Reset | quinn::ConnectionError::ApplicationClosed(_)),
        "{end}"
    );
}

/// The largest datagram between a node that allows `ours` and one that allows `theirs`, in bytes of
/// UDP payload: what the path carries once nothing larger is tried, or more than is usual.
async fn path_bytes(ours: u16, theirs: u16) -> u16 {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (tls(folder.path(), "eu", "a", 30), tls(folder.path(), "core", "b", 30));
    let trunk = |datagram_bytes_max| {
        let usual = TrunkSettings::for_calls(100, Duration::from_millis(200));
        let transport = TrunkSettings { datagram_bytes_max, ..usual }.transport();
        EndpointPlan { datagram_bytes_max, transport, ..plan(TRUNK_ALPN, localhost(), true) }
    };
    let (client, server) =
        (endpoint(&a, &trunk(ours)).unwrap(), endpoint(&b, &trunk(theirs)).unwrap());
    let accepted = accept(server.clone());
    let out = connect(&client, server.local_addr().unwrap(), "b").await.unwrap();
    let _back = accepted.await.unwrap().unwrap();
    let mut reached = 0;
    for _ in 0..40 {
        let path = out.stats().path;
        reached = path.current_mtu;
        if reached > DATAGRAM_BYTES_USUAL {
            break;
        }
        // Only what is acknowledged tells that a size passes.
        out.send_datagram(vec![0; 180].into()).unwrap();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    reached
}

#[tokio::test]
async fn jumbo_frames_pass_where_both_ends_allow_them() {
    assert!(path_bytes(DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX).await > DATAGRAM_BYTES_USUAL);
    assert_eq!(path_bytes(DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_USUAL).await, DATAGRAM_BYTES_USUAL);
    assert_eq!(path_bytes(DATAGRAM_BYTES_USUAL, DATAGRAM_BYTES_MAX).await, DATAGRAM_BYTES_USUAL);
}

#[tokio::test]
async fn trunk_datagrams_flow_under_the_provisioned_rate() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (tls(folder.path(), "eu", "a", 30), tls(folder.path(), "core", "b", 30));
    let settings = TrunkSettings::for_calls(500, Duration::from_millis(200));
    assert_eq!(settings.rate_bytes_per_s, 10_000_000);
    let plan = |accept| EndpointPlan {
        socket_buffer_bytes: settings.receive_buffer_bytes,
        transport: settings.transport(),
        ..plan(TRUNK_ALPN, localhost(), accept)
    };
    let server = endpoint(&b, &plan(true)).unwrap();
    let client = endpoint(&a, &plan(true)).unwrap();
    let accepted = accept(server.clone());
    let out = connect(&client, server.local_addr().unwrap(), "b").await.unwrap();
    let back = accepted.await.unwrap().unwrap();
    assert!(out.max_datagram_size().unwrap() >= 1_000);
    for number in 0..200_u8 {
        out.send_datagram(vec![number; 180].into()).unwrap();
    }
    for number in 0..200_u8 {
        let datagram = tokio::time::timeout(Duration::from_secs(5), back.read_datagram());
        assert_eq!(datagram.await.unwrap().unwrap().first(), Some(&number));
    }
}
