//! The API on a real port of a whole control node, asked as the ecosystem's SDKs ask.

use std::path::Path;

use control_store::{Alert, Call, Durability, Recording, RequestLogEntry, StoreOp, TimelineEntry};
use link_daemon::drain::{self, Trigger};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::assemble::Control;
use crate::{config, services};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "0123456789abcdef";

struct Node {
    control: Control,
    _shutdown: Trigger,
    folder: tempfile::TempDir,
    client: Client,
    base: String,
}

impl Node {
    async fn start() -> Self {
        link_daemon::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let config = config::tests::example(folder.path());
        std::fs::create_dir_all(&config.data_folder).unwrap();
        let parts = services::build(&config).unwrap();
        let (trigger, shutdown) = drain::switch();
        let log = link_daemon::log::LogLevel::fixed();
        let control = crate::start(config, parts, log, shutdown).await.unwrap();
        let base = format!("http://{}", control.addresses.api);
        Self { control, _shutdown: trigger, folder, client: Client::new(), base }
    }

    async fn ask(&self, method: Method, path: &str, form: &str) -> (StatusCode, Value) {
        let path = path.replace("{A}", &format!("/2010-04-01/Accounts/{ACCOUNT}"));
        let request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .basic_auth(ACCOUNT, Some(TOKEN))
            // As the Python SDK, also on a GET.
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Accept", "application/json")
            .header("Accept-Charset", "utf-8")
            .header("Host", "api.dublin.ie1.twilio.com")
            .body(form.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn refused(&self, method: Method, path: &str, form: &str, status: u16, code: u64) {
        let (found, body) = self.ask(method, path, form).await;
        assert_eq!(found.as_u16(), status, "{path} {form}: {body}");
        assert_eq!(body["code"], code, "{path} {form}: {body}");
        assert_eq!(body["status"], u64::from(status));
        assert!(body["message"].is_string() && body["more_info"].is_string());
    }

    fn put(&self, ops: Vec<StoreOp>) {
        self.control.store.commit(Durability::Process, ops).unwrap();
    }
}

fn sid(prefix: &str, number: i64) -> String {
    format!("{prefix}{number:032x}")
}

fn call(number: i64) -> Call {
    Call {
        sid: sid("CA", number),
        account_sid: ACCOUNT.into(),
        session_sid: sid("CA", number),
        from_: "+15550001".into(),
        to_: "+15550100".into(),
        status: "completed".into(),
        direction: "inbound".into(),
        start_ms: Some(1_704_067_200_000 + number * 1000),
        end_ms: Some(1_704_067_200_000 + number * 1000 + 7000),
        duration_s: Some(7),
        node: "edge-eu-1".into(),
        created_ms: number,
        ..Call::default()
    }
}

#[tokio::test]
async fn tel_08_credentials_and_errors() {
    let node = Node::start().await;
    for (user, password) in [(ACCOUNT, "wrong"), (&*sid("AC", 99), TOKEN), ("", "")] {
        let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Calls.json", node.base);
        let response = node.client.get(url).basic_auth(user, Some(password)).send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body["code"], 20003);
    }
    let missing = sid("CA", 77);
    for (path, status, code) in [
        (format!("{{A}}/Calls/{missing}.json"), 404, 20404),
        ("{A}/Nonsense.json".into(), 404, 20404),
        (format!("/2010-04-01/Accounts/{}/Calls.json", sid("AC", 5)), 404, 20404),
        ("{A}/Calls.json?PageSize=1001".into(), 400, 20007),
        ("{A}/Calls.json?PageToken=x".into(), 400, 20006),
        ("{A}/Calls.json?StartTime%3E=never".into(), 400, 20422),
        ("/".into(), 404, 20404),
    ] {
        node.refused(Method::GET, &path, "", status, code).await;
    }
    node.refused(Method::PUT, "{A}/Calls.json", "", 405, 20004).await;
    node.refused(Method::DELETE, "{A}/Calls.json", "", 405, 20004).await;
}

#[tokio::test]
async fn tel_08_calls_list_with_filters_and_pages_fetch_and_delete() {
    let node = Node::start().await;
    node.put((0..5).map(|number| StoreOp::PutCall(call(number))).collect());
    let mut seen = Vec::new();
    let mut path =
        "{A}/Calls.json?Status=completed&StartTime%3E=2024-01-01T00%3A00%3A00Z&PageSize=2"
            .to_owned();
    loop {
        let page = node.get(&path).await;
        assert_eq!(page["page_size"], 2);
        for call in page["calls"].as_array().unwrap() {
            seen.push(call["sid"].as_str().unwrap().to_owned());
        }
        match page["next_page_uri"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (0..5).rev().map(|number| sid("CA", number)).collect::<Vec<_>>());
    let none = node.get("{A}/Calls.json?StartTime%3C=2023-12-31").await;
    assert_eq!(none["calls"], serde_json::json!([]));

    let one = node.get(&format!("{{A}}/Calls/{}.json", sid("CA", 3))).await;
    assert_eq!(one["duration"], "7");
    assert_eq!(one["start_time"], "Mon, 01 Jan 2024 00:00:03 +0000");
    assert_eq!(one["parent_call_sid"], Value::Null);
    assert_eq!(one["api_version"], "2010-04-01");
    for field in ["answered_by", "price", "group_sid", "trunk_sid", "queue_time", "uri"] {
        assert!(one.get(field).is_some(), "{field}");
    }
    let live = Call { status: "in-progress".into(), end_ms: None, duration_s: None, ..call(9) };
    node.put(vec![StoreOp::PutCall(live)]);
    let path = format!("{{A}}/Calls/{}.json", sid("CA", 9));
    assert_eq!(node.get(&path).await["duration"], Value::Null);
    node.refused(Method::DELETE, &path, "", 409, 20409).await;
    let sessions = node.get("/tandem/v1/calls").await;
    assert_eq!(sessions["sessions"][0]["legs"][0]["sid"], sid("CA", 9));
    let (status, body) =
        node.ask(Method::DELETE, &format!("{{A}}/Calls/{}.json", sid("CA", 3)), "").await;
    assert_eq!((status.as_u16(), body), (204, Value::String(String::new())));
    node.refused(Method::GET, &format!("{{A}}/Calls/{}.json", sid("CA", 3)), "", 404, 20404).await;
}

#[tokio::test]
async fn tel_08_calls_are_created_and_changed_by_the_core() {
    let node = Node::start().await;
    node.refused(Method::POST, "{A}/Calls.json", "From=%2B15550001", 400, 21201).await;
    let (status, body) = node.ask(
        Method::POST,
        "{A}/Calls.json",
        "To=%2B15551230001&From=%2B15550100&StatusCallbackEvent=initiated&StatusCallbackEvent=answered\
         &Timeout=20&Record=true&AsyncAmd=true&Url=http%3A%2F%2F127.0.0.1%3A9%2Fx",
    ).await;
    // No edge is connected: either it is refused in words, or queued for the edge.
    assert!(status == 201 || body["code"].is_number(), "{status} {body}");
    if status == 201 {
        assert_eq!(body["direction"], "outbound-api");
        let path = format!("{{A}}/Calls/{}.json", body["sid"].as_str().unwrap());
        let (status, ended) = node.ask(Method::POST, &path, "Status=completed").await;
        assert!(status == 200 || ended["code"].is_number(), "{status} {ended}");
    }
    node.put(vec![StoreOp::PutCall(call(1))]);
    let path = format!("{{A}}/Calls/{}.json", sid("CA", 1));
    node.refused(Method::POST, &path, "Status=completed", 400, 21220).await;
}

#[tokio::test]
async fn tel_08_numbers_applications_and_accounts() {
    let node = Node::start().await;
    let (status, application) = node
        .ask(Method::POST, "{A}/Applications.json", "FriendlyName=App&VoiceUrl=http%3A%2F%2Fh%2Fv")
        .await;
    assert_eq!(status, 201, "{application}");
    let application_sid = application["sid"].as_str().unwrap().to_owned();
    let (status, number) = node
        .ask(
            Method::POST,
            "{A}/IncomingPhoneNumbers.json",
            &format!(
                "PhoneNumber=%2B15550177&VoiceApplicationSid={application_sid}&VoiceMethod=get"
            ),
        )
        .await;
    assert_eq!(status, 201, "{number}");
    assert_eq!(number["voice_method"], "GET");
    assert_eq!(number["friendly_name"], "+15550177");
    let path = format!("{{A}}/IncomingPhoneNumbers/{}.json", number["sid"].as_str().unwrap());
    let create = "{A}/IncomingPhoneNumbers.json";
    for (form, code) in [
        ("PhoneNumber=%2B15550177", 21422),
        ("AreaCode=415", 21421),
        ("PhoneNumber=%2B1%3Bdrop", 21421),
        ("PhoneNumber=%2B15550178&VoiceUrl=nonsense", 21402),
        ("PhoneNumber=%2B15550178&VoiceMethod=PUT", 21403),
        ("PhoneNumber=%2B15550178&VoiceApplicationSid=AP1", 21218),
    ] {
        node.refused(Method::POST, create, form, 400, code).await;
    }
    let (status, changed) =
        node.ask(Method::POST, &path, "VoiceUrl=http%3A%2F%2Fh%2Fnew&VoiceApplicationSid=").await;
    assert_eq!(status, 200);
    assert_eq!(changed["voice_url"], "http://h/new");
    assert_eq!(changed["voice_application_sid"], Value::Null);
    let found = node.get("{A}/IncomingPhoneNumbers.json?PhoneNumber=%2B15550177").await;
    assert_eq!(found["incoming_phone_numbers"].as_array().unwrap().len(), 1);
    assert_eq!(node.ask(Method::DELETE, &path, "").await.0, 204);
    node.refused(Method::GET, &path, "", 404, 20404).await;

    let (status, sub) =
        node.ask(Method::POST, "/2010-04-01/Accounts.json", "FriendlyName=Sub").await;
    assert_eq!(status, 201);
    let (sub_sid, sub_token) = (sub["sid"].as_str().unwrap(), sub["auth_token"].as_str().unwrap());
    let all = node.get("/2010-04-01/Accounts").await;
    assert_eq!(all["accounts"].as_array().unwrap().len(), 2);
    // The main account works with a subaccount's resources, not the other way round.
    node.get(&format!("/2010-04-01/Accounts/{sub_sid}/Calls.json")).await;
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Calls.json", node.base);
    let response = node.client.get(&url).basic_auth(sub_sid, Some(sub_token)).send().await.unwrap();
    assert_eq!(response.status(), 404);
    let own = url.replace(ACCOUNT, sub_sid);
    let ask = || node.client.get(&own).basic_auth(sub_sid, Some(sub_token)).send();
    assert_eq!(ask().await.unwrap().status(), 200);
    let path = format!("/2010-04-01/Accounts/{sub_sid}.json");
    assert_eq!(node.ask(Method::POST, &path, "Status=suspended").await.1["status"], "suspended");
    assert_eq!(ask().await.unwrap().status(), 401);
    // Nobody but the main account changes states; what is closed stays closed.
    node.refused(
        Method::POST,
        &format!("/2010-04-01/Accounts/{ACCOUNT}.json"),
        "Status=closed",
        403,
        20006,
    )
    .await;
    assert_eq!(node.ask(Method::POST, &path, "Status=closed").await.0, 200);
    node.refused(Method::POST, &path, "Status=active", 400, 20009).await;
    let application = format!("/2010-04-01/Accounts/{sub_sid}/Applications.json");
    node.refused(Method::POST, &application, "FriendlyName=x", 403, 20005).await;
}

#[tokio::test]
async fn tel_08_keys_are_credentials_with_less_power() {
    let node = Node::start().await;
    let (status, key) = node.ask(Method::POST, "{A}/Keys.json", "FriendlyName=deploy").await;
    assert_eq!(status, 201, "{key}");
    let (sid, secret) = (key["sid"].as_str().unwrap(), key["secret"].as_str().unwrap());
    assert!(sid.starts_with("SK") && sid.len() == 34 && secret.len() == 32);
    let by_key = |path: &str| {
        let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}{path}", node.base);
        let request = node.client.get(url).basic_auth(sid, Some(secret)).send();
        async { request.await.unwrap().status().as_u16() }
    };
    assert_eq!(by_key("/Calls.json").await, 200);
    assert_eq!(by_key("/Keys.json").await, 403);
    assert_eq!(by_key(".json").await, 403);
    let path = format!("{{A}}/Keys/{sid}.json");
    let shown = node.get(&path).await;
    assert_eq!(shown["friendly_name"], "deploy");
    assert!(shown.get("secret").is_none() && shown.get("secret_sha256").is_none());
    let listed = node.get("{A}/SigningKeys.json").await;
    assert_eq!(listed["signing_keys"][0]["sid"], sid);
    assert_eq!(node.ask(Method::DELETE, &path, "").await.0, 204);
    assert_eq!(by_key("/Calls.json").await, 401);
}

#[tokio::test]
async fn tel_08_bodies_that_cannot_be_taken_are_refused_in_words() {
    let node = Node::start().await;
    let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Calls.json", node.base);
    let send = async |body: &'static [u8], kind: &str| {
        let request = node.client.post(&url).basic_auth(ACCOUNT, Some(TOKEN));
        let response = request.header("Content-Type", kind).body(body).send().await.unwrap();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        (body["status"].as_u64().unwrap(), body["code"].as_u64().unwrap())
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    static LONG: [u8; 300 << 10] = [b'x'; 300 << 10];
    assert_eq!(send(b"{\"To\":\"+15550101\"}", "application/json").await, (415, 20_415));
    assert_eq!(send(b"To=%zz", FORM).await, (400, 20_422));
    assert_eq!(send(b"To=1%0d%0aEvil:%20x", FORM).await, (400, 20_422));
    assert_eq!(send(b"To=1&To=2", FORM).await, (400, 20_422));
    assert_eq!(send(b"\xff\xfe", FORM).await, (400, 20_422));
    assert_eq!(send(&LONG, FORM).await, (413, 20_413));
    assert_eq!(send(b"=&&=", FORM).await, (400, 21_201));
}

#[tokio::test]
async fn tel_08_xml_and_csv_by_extension() {
    let node = Node::start().await;
    node.put((0..2).map(|number| StoreOp::PutCall(call(number))).collect());
    let xml = node.get("{A}/Calls.xml?PageSize=1").await;
    let xml = xml.as_str().unwrap();
    assert!(xml.contains(&format!("<Call><AccountSid>{ACCOUNT}</AccountSid>")), "{xml}");
    assert!(xml.contains("Calls.xml?PageSize=1&amp;Page=1&amp;PageToken="), "{xml}");
    let csv = node.get("{A}/Calls.csv").await;
    let lines: Vec<&str> = csv.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("sid") && lines[2].contains(&sid("CA", 0)));
    let (status, missing) = node.ask(Method::GET, "{A}/Calls/CA1.xml", "").await;
    assert_eq!(status, 404);
    assert!(missing.as_str().unwrap().contains("<RestException><Code>20404</Code>"));
}

#[tokio::test]
async fn ten_09_numbers_and_applications_stay_with_their_account() {
    let node = Node::start().await;
    let (_, sub) = node.ask(Method::POST, "/2010-04-01/Accounts.json", "FriendlyName=Sub").await;
    let sub = sub["sid"].as_str().unwrap();
    let (_, theirs) =
        node.ask(Method::POST, &format!("/2010-04-01/Accounts/{sub}/Applications.json"), "").await;
    let theirs = theirs["sid"].as_str().unwrap();
    let create = "{A}/IncomingPhoneNumbers.json";
    let form = format!("PhoneNumber=%2B15550178&VoiceApplicationSid={theirs}");
    node.refused(Method::POST, create, &form, 400, 21218).await;
    let (_, ours) = node.ask(Method::POST, "{A}/Applications.json", "").await;
    let form =
        format!("PhoneNumber=%2B15550178&VoiceApplicationSid={}", ours["sid"].as_str().unwrap());
    let (_, number) = node.ask(Method::POST, create, &form).await;
    let path = format!("IncomingPhoneNumbers/{}.json", number["sid"].as_str().unwrap());
    let (status, moved) =
        node.ask(Method::POST, &format!("{{A}}/{path}"), &format!("AccountSid={sub}")).await;
    assert_eq!((status.as_u16(), moved["account_sid"].as_str()), (200, Some(sub)));
    assert_eq!(moved["voice_application_sid"], Value::Null, "applications stay");
    node.refused(Method::GET, &format!("{{A}}/{path}"), "", 404, 20404).await;
    assert_eq!(node.get(&format!("/2010-04-01/Accounts/{sub}/{path}")).await["origin"], "hosted");
    for unavailable in ["TrunkSid=TK1", "VoiceReceiveMode=fax", "EmergencyStatus=Active"] {
        let form = format!("PhoneNumber=%2B15550179&{unavailable}");
        node.refused(Method::POST, create, &form, 400, 20422).await;
    }
}

fn recording(folder: &Path) -> Recording {
    let path = folder.join("RE.wav");
    std::fs::write(&path, b"RIFF0123456789").unwrap();
    Recording {
        sid: sid("RE", 1),
        account_sid: ACCOUNT.into(),
        call_sid: sid("CA", 1),
        status: "completed".into(),
        channels: 1,
        source: "RecordVerb".into(),
        duration_ms: Some(2500),
        path: Some(path.to_string_lossy().into_owned()),
        ..Recording::default()
    }
}

#[tokio::test]
async fn tel_08_recordings_and_their_audio() {
    let node = Node::start().await;
    let row = recording(node.folder.path());
    node.put(vec![StoreOp::PutCall(call(1)), StoreOp::PutRecording(row.clone())]);
    let list = node.get(&format!("{{A}}/Calls/{}/Recordings.json", sid("CA", 1))).await;
    assert_eq!(list["recordings"][0]["duration"], "3");
    let path = format!("{{A}}/Recordings/{}", row.sid);
    let one = node.get(&format!("{path}.json")).await;
    assert_eq!(one["source"], "RecordVerb");
    let media = one["media_url"].as_str().unwrap().to_owned();
    for url in [media.clone(), format!("{media}.wav")] {
        let response = node.client.get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        assert_eq!(response.headers()["content-type"], "audio/x-wav");
        assert_eq!(response.bytes().await.unwrap(), "RIFF0123456789");
    }
    let part = node.client.get(&media).header("Range", "bytes=4-6").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), "012");
    // This file is no audio that could be converted; conversions are shown end to end.
    assert_eq!(node.client.get(format!("{media}.mp3")).send().await.unwrap().status(), 500);
    assert_eq!(node.ask(Method::DELETE, &format!("{path}.json"), "").await.0, 204);
    assert_eq!(node.client.get(&media).send().await.unwrap().status(), 404);
    assert!(!node.folder.path().join("RE.wav").exists());
}

#[tokio::test]
async fn fbk_05_alerts_events_and_timeline() {
    let node = Node::start().await;
    node.put(vec![
        StoreOp::PutCall(call(1)),
        StoreOp::PutAlert(Alert {
            sid: sid("NO", 1),
            account_sid: ACCOUNT.into(),
            call_sid: Some(sid("CA", 1)),
            error_code: 11200,
            message_text: "HTTP 503".into(),
            request_url: Some("http://h/v".into()),
            response_body: Some("sorry".into()),
            ..Alert::default()
        }),
        StoreOp::AddRequestLog(RequestLogEntry {
            id: 0,
            key: "1".into(),
            account_sid: ACCOUNT.into(),
            call_sid: sid("CA", 1),
            at_ms: 1,
            request: r#"{"url":"http://h/v"}"#.into(),
            response: r#"{"response_code":503}"#.into(),
        }),
        StoreOp::AddTimeline(TimelineEntry {
            session_sid: sid("CA", 1),
            sequence: 0,
            leg_sid: None,
            at_ms: 1,
            body: r#"{"event":"x"}"#.into(),
        }),
    ]);
    for path in [
        "{A}/Notifications.json?Log=0".to_owned(),
        format!("{{A}}/Calls/{}/Notifications", sid("CA", 1)),
    ] {
        let list = node.get(&path).await;
        assert_eq!(list["notifications"][0]["error_code"], "11200", "{path}");
    }
    let one = node.get(&format!("{{A}}/Notifications/{}.json", sid("NO", 1))).await;
    assert_eq!(one["response_body"], "sorry");
    let events = node.get(&format!("{{A}}/Calls/{}/Events.json", sid("CA", 1))).await;
    assert_eq!(events["events"][0]["response"]["response_code"], 503);
    let timeline = node.get(&format!("/tandem/v1/calls/{}/timeline.json", sid("CA", 1))).await;
    assert_eq!(timeline["timeline"][0]["event"], "x");
    assert_eq!(timeline["legs"][0]["node"], "edge-eu-1");
}
