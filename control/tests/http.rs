//! The HTTP client and the sender of callbacks against real servers on loopback.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use control::callback_sender::{CallbackSender, SenderConfig};
use control::core_task::WebClient;
use control::web_client::HttpClient;
use control_core::io::{
    FetchFailureKind, FetchId, FetchRequest, FetchResponse, HttpRequest, Method, SetCookie,
};
use control_core::webhook::overrides::Overrides;
use control_core::webhook::request;
use control_store::{
    Account, AlertFilter, Callback, CallbackState, Durability, Page, Store, StoreConfig, StoreOp,
};
use link_daemon::drain;
use link_proto::CallSid;
use tokio::net::TcpListener;
use tokio::sync::Notify;

const ACCOUNT: &str = "AC00000000000000000000000000000001";

#[derive(Default)]
struct Server {
    /// Path, idempotency token and body of every request, in order.
    seen: Mutex<Vec<(String, String, String)>>,
    /// The dated signature of every request.
    dated: Mutex<Vec<String>>,
    /// How often each path still has to fail.
    failures: Mutex<BTreeMap<String, usize>>,
    in_flight: AtomicUsize,
    in_flight_most: AtomicUsize,
}

async fn callback(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: String,
) -> Response {
    let now = server.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    server.in_flight_most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let token = headers.get("I-Twilio-Idempotency-Token").and_then(|v| v.to_str().ok());
    let told = if body.is_empty() { query.unwrap_or_default() } else { body };
    server.seen.lock().unwrap().push((name.clone(), token.unwrap_or("").to_owned(), told));
    let dated = headers.get("X-Tandem-Signature").and_then(|v| v.to_str().ok()).unwrap_or("");
    server.dated.lock().unwrap().push(dated.to_owned());
    server.in_flight.fetch_sub(1, Ordering::SeqCst);
    if name == "gone" {
        return (StatusCode::FOUND, [(header::LOCATION, "/cb/here?a=b")]).into_response();
    }
    if name == "moved" {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/cb/there")]).into_response();
    }
    let mut failures = server.failures.lock().unwrap();
    match failures.get_mut(&name) {
        Some(left) if *left > 0 => {
            *left -= 1;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        _ if name == "there" => {
            let form = [("SequenceNumber".to_owned(), "0".to_owned())];
            let host = headers.get("host").and_then(|v| v.to_str().ok()).unwrap_or("");
            let url = format!("http://{host}/cb/there");
            let right = control_core::webhook::sign::sha1("secret", &url, &form);
            let good = headers.get("X-Twilio-Signature").is_some_and(|v| *v == *right);
            if good { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN }.into_response()
        }
        _ if name == "chatty" => "Thank you".into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn echo(headers: HeaderMap, method: axum::http::Method, body: String) -> String {
    let show = |name: &str| headers.get(name).map_or("-", |v| v.to_str().unwrap_or("?")).to_owned();
    format!("{method} {} {} {} {body}", show("cookie"), show("authorization"), show("x-test"))
}

async fn serve() -> (SocketAddr, Arc<Server>) {
    link_daemon::install_crypto_provider();
    let server = Arc::new(Server::default());
    let router = Router::new()
        .route("/cb/{name}", any(callback))
        .route("/echo", any(echo))
        .route("/cookie", get(|| async { ([(header::SET_COOKIE, "a=1; Path=/echo")], "set") }))
        .route("/moved", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/echo")]) }))
        .route("/large", get(|| async { "x".repeat(70_000) }))
        .route("/never", get(std::future::pending::<String>))
        .with_state(server.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, server)
}

fn fetch(session: u8, method: Method, url: String, body: Option<&str>) -> FetchRequest {
    FetchRequest {
        id: FetchId(1),
        session: CallSid([session; 16]),
        account: ACCOUNT.parse().unwrap(),
        request: HttpRequest {
            method,
            url,
            headers: vec![("X-Test".into(), "yes".into())],
            body: body.map(str::to_owned),
        },
        overrides: Overrides {
            connect_ms: 300,
            read_ms: 300,
            total_ms: 4_000,
            ..Overrides::default()
        },
        body_bytes_max: 65_536,
        cookies: Vec::new(),
    }
}

fn text(response: &FetchResponse) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

#[tokio::test]
async fn requests_go_out_as_made_with_the_cookies_of_their_session() {
    let (address, _) = serve().await;
    let client = HttpClient::new(Vec::new()).unwrap();
    let ask = |session, path: &str| {
        client.fetch(fetch(session, Method::Get, format!("http://{address}{path}"), None))
    };
    assert_eq!(text(&ask(1, "/echo").await.unwrap()), "GET - - yes ");
    assert_eq!(text(&ask(1, "/cookie").await.unwrap()), "set");
    assert_eq!(text(&ask(1, "/echo").await.unwrap()), "GET a=1 - yes ");
    assert_eq!(text(&ask(2, "/echo").await.unwrap()), "GET - - yes ");
    client.session_ended(CallSid([1; 16]));
    assert_eq!(text(&ask(1, "/echo").await.unwrap()), "GET - - yes ");
    let mut later = fetch(9, Method::Get, format!("http://{address}/echo"), None);
    later.cookies = vec![SetCookie { url: format!("http://{address}/"), value: "b=2".into() }];
    assert_eq!(text(&client.fetch(later).await.unwrap()), "GET b=2 - yes ", "of another process");

    let url = format!("http://user:pa%20ss@{address}/echo");
    let posted = client.fetch(fetch(3, Method::Post, url, Some("A=1&B=%2B2"))).await.unwrap();
    assert_eq!(text(&posted), "POST - Basic dXNlcjpwYSBzcw== yes A=1&B=%2B2");
    let moved = ask(1, "/moved").await.unwrap();
    assert_eq!((moved.status, moved.header("Location")), (302, Some("/echo")));
    assert_eq!(ask(1, "/absent").await.unwrap().status, 404);
}

#[tokio::test]
async fn fbk_02_each_failure_has_its_kind() {
    let (address, _) = serve().await;
    let client = HttpClient::new(Vec::new()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = free.local_addr().unwrap();
    drop(free);
    // Something that speaks, but neither HTTP nor TLS.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nonsense = other.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 512];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut asked).await;
                let text = b"SSH-2.0-nonsense\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text).await;
            });
        }
    });
    for (url, kind) in [
        ("nonsense".to_owned(), FetchFailureKind::InvalidUrl),
        ("http://name.invalid/".to_owned(), FetchFailureKind::Dns),
        (format!("http://{refused}/"), FetchFailureKind::Refused),
        (format!("http://{nonsense}/"), FetchFailureKind::Protocol),
        (format!("https://{nonsense}/"), FetchFailureKind::Tls),
        (format!("http://{address}/large"), FetchFailureKind::BodyTooLarge),
    ] {
        let failure = client.fetch(fetch(1, Method::Get, url.clone(), None)).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{url}: {}", failure.message);
    }
    let mut slow = fetch(1, Method::Get, format!("http://{address}/never"), None);
    let failure = client.fetch(slow.clone()).await.unwrap_err();
    assert_eq!(failure.kind, FetchFailureKind::ReadTimeout);
    slow.overrides.total_ms = 100;
    let failure = client.fetch(slow).await.unwrap_err();
    assert_eq!(failure.kind, FetchFailureKind::TotalTimeout);
    assert!(failure.elapsed_ms >= 100);
}

struct Rig {
    folder: tempfile::TempDir,
    store: Store,
    bell: Arc<Notify>,
    address: SocketAddr,
    server: Arc<Server>,
}

impl Rig {
    async fn new() -> Self {
        let (address, server) = serve().await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::at(folder.path().join("s.db"))).unwrap();
        let account = Account {
            sid: ACCOUNT.into(),
            owner_account_sid: ACCOUNT.into(),
            auth_token: "secret".into(),
            ..Account::default()
        };
        store.commit(Durability::Process, vec![StoreOp::PutAccount(account)]).unwrap();
        Self { folder, store, bell: Arc::new(Notify::new()), address, server }
    }

    fn row(&self, call: u8, sequence: i64, path: &str) -> StoreOp {
        let url = format!("http://{}/cb/{path}", self.address);
        let params = [("SequenceNumber".to_owned(), sequence.to_string())];
        let key = format!("{call}-{sequence}-{path}");
        let request = request::build(&url, Method::Post, &params, "secret", &key, 1_000);
        StoreOp::AddCallback(Callback {
            id: 0,
            key,
            account_sid: ACCOUNT.into(),
            call_sid: CallSid([call; 16]).to_string(),
            session_sid: CallSid([call; 16]).to_string(),
            event: "ringing".into(),
            sequence_number: sequence,
            target: format!("{url}#ct=500"),
            request: serde_json::to_string(&request).unwrap(),
            attempts: 0,
            next_at_ms: 0,
            state: CallbackState::Pending,
            last_error: None,
            created_ms: 0,
        })
    }

    fn put(&self, ops: Vec<StoreOp>) {
        self.store.commit(Durability::Process, ops).unwrap();
        self.bell.notify_one();
    }

    fn send(&self, attempts_max: i64) -> drain::Trigger {
        let config = SenderConfig {
            pause_first: Duration::from_millis(2),
            attempts_max,
            ..SenderConfig::default()
        };
        let web = Arc::new(HttpClient::new(Vec::new()).unwrap());
        let (trigger, shutdown) = drain::switch();
        let sender = CallbackSender::new(config, self.store.clone(), web);
        tokio::spawn(sender.run(self.bell.clone(), shutdown));
        trigger
    }

    /// Waits until nothing is pending.
    async fn all_done(&self) {
        let done = async {
            while self.store.reader().outbox_pending_count().unwrap() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), done).await.unwrap();
    }

    fn seen(&self, path: &str) -> Vec<(String, String)> {
        let seen = self.server.seen.lock().unwrap();
        let of_path = seen.iter().filter(|(name, ..)| name == path);
        of_path.map(|(_, token, body)| (token.clone(), body.clone())).collect()
    }

    fn alerts(&self) -> Vec<(i64, i64)> {
        let filter = AlertFilter::default();
        let page = self.store.reader().alerts(ACCOUNT, &filter, &Page::first(50)).unwrap();
        let mut codes: Vec<_> = page.items.iter().map(|a| (a.error_code, a.log)).collect();
        codes.sort_unstable();
        codes
    }
}

#[tokio::test]
async fn fbk_04_in_order_per_call_with_repeats_that_are_equal() {
    let rig = Rig::new().await;
    rig.server.failures.lock().unwrap().insert("a".into(), 2);
    rig.put((0..4).map(|sequence| rig.row(1, sequence, "a")).collect());
    let _running = rig.send(9);
    rig.all_done().await;
    let request = |n| (format!("1-{n}-a"), format!("SequenceNumber={n}"));
    assert_eq!(rig.seen("a"), [0, 0, 0, 1, 2, 3].map(request));
    let form = [("SequenceNumber".to_owned(), "0".to_owned())];
    let url = format!("http://{}/cb/a", rig.address);
    let now_s = link_daemon::clock::unix_ms() / 1_000;
    let recent = |dated: &String| {
        control_core::webhook::sign::verify_sha256("secret", now_s, 60, &url, &form, dated)
    };
    let dated = rig.server.dated.lock().unwrap().clone();
    let recent: Vec<bool> = dated.iter().take(3).map(recent).collect();
    assert_eq!(recent, [false, true, true], "made long ago, but repeats are not old");
    let rows = rig.store.reader().outbox_of(&CallSid([1; 16]).to_string()).unwrap();
    assert!(rows.iter().all(|row| row.state == CallbackState::Delivered));
    assert_eq!(rows[0].attempts, 3);
    // One warning for the first failure.
    assert_eq!(rig.alerts(), [(15_003, 1)]);
}

#[tokio::test]
async fn fbk_04_calls_do_not_wait_for_each_other_and_dead_rows_are_told() {
    let rig = Rig::new().await;
    rig.server.failures.lock().unwrap().insert("dead".into(), 1000);
    let mut rows = vec![rig.row(1, 0, "dead"), rig.row(1, 1, "dead"), rig.row(1, 0, "fine")];
    rows.extend((2..60).map(|call| rig.row(call, 0, "many")));
    rig.put(rows);
    let _running = rig.send(3);
    rig.all_done().await;
    assert_eq!(rig.seen("many").len(), 58);
    assert_eq!(rig.seen("fine").len(), 1);
    let tokens: Vec<_> = rig.seen("dead").into_iter().map(|(token, _)| token).collect();
    assert_eq!(tokens, ["1-0-dead", "1-0-dead", "1-0-dead", "1-1-dead", "1-1-dead", "1-1-dead"]);
    assert_eq!(rig.alerts(), [(15_003, 0), (15_003, 0), (15_003, 1), (15_003, 1)]);
    assert!(rig.server.in_flight_most.load(Ordering::SeqCst) > 1, "nothing ran in parallel");
}

#[tokio::test]
async fn fbk_04_what_waits_survives_a_restart_and_redirects_are_signed_anew() {
    let rig = Rig::new().await;
    rig.put(vec![rig.row(1, 0, "moved"), rig.row(2, 0, "chatty"), rig.row(3, 0, "gone")]);
    // Another process finds the rows in the file.
    let store = Store::open(&StoreConfig::at(rig.folder.path().join("s.db"))).unwrap();
    let rig = Rig { store, ..rig };
    let _running = rig.send(3);
    rig.all_done().await;
    assert_eq!(rig.seen("there"), [("1-0-moved".to_owned(), "SequenceNumber=0".to_owned())]);
    let told = "a=b&SequenceNumber=0".to_owned();
    assert_eq!(rig.seen("here"), [("3-0-gone".to_owned(), told)], "by GET, with what it says");
    // The talkative server got its callback, and its customer a warning.
    assert_eq!(rig.seen("chatty").len(), 1);
    assert_eq!(rig.alerts(), [(15_003, 1)]);
}
