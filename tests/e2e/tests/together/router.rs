//! TEL and FBK: whom a call leads to, what the application's server is told and how, and which
//! server is asked when one fails.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::raw::Raw;
use e2e::world::{LIMIT, World, ended, hears, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, signature, tools};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use serde_json::{Value, json};
use tandem_load::{Phone, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{AppServer, Page, Recorded, RoutePlan, http, ports};

/// Assigns a URL to a number or address by the API; the number as the API shows it.
fn assign(world: &World, address: &str, more: &[(&str, &str)]) -> Result<Value> {
    let form = [&[("PhoneNumber", address)], more].concat();
    let (status, number) = world.api_post("/IncomingPhoneNumbers.json", &form)?;
    ensure!(status == 201, "{address}: {status} {number}");
    Ok(number)
}

/// Sends an INVITE by hand; the status of the final response, which is acknowledged.
fn invite(world: &World, uri: &str, call_id: &str, from: &str, more: &str) -> Result<u16> {
    let raw = Raw::bind("127.0.0.1")?;
    let invite = raw.invite(uri, call_id, more)?;
    let invite = invite.replace("From: <sip:+15559001@", &format!("From: {from}@"));
    raw.send(world.eu.sip, invite.as_bytes())?;
    let response = raw.final_response().context("no final response")?;
    raw.send(world.eu.sip, raw.ack(uri, call_id, &response)?.as_bytes())?;
    let status = response.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
    Ok(status.context(response.clone())?.parse()?)
}

#[test]
fn tel_01_short_codes_and_sip_addresses_are_assigned_by_the_api() -> Result<()> {
    let world = Setup::new()?
        .page("/code", Page::verbs("<Play>/700.wav</Play>"))
        .page("/desk", Page::verbs("<Reject reason='busy'/>"))
        .page("/desk-here", Page::verbs("<Reject/>"))
        .begin()?;
    let url = |path: &str| world.app.url(path);
    assign(&world, "77333", &[("VoiceUrl", &url("/code"))])?;
    assign(&world, "desk", &[("VoiceUrl", &url("/desk"))])?;
    let shown = assign(&world, "sip:desk@Voice.Example", &[("VoiceUrl", &url("/desk-here"))])?;
    assert_eq!(text(&shown, "phone_number"), "desk@voice.example");
    ended(&world.bank.add(world.caller("77333", hears(&[700.0])))?)?;
    let asked = world.app.requests_for("/code");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].param("To"), Some("77333"));
    assert_eq!(asked[0].param("Direction"), Some("inbound"));
    // The whole address goes before the user part.
    let alice = "<sip:+15559001";
    assert_eq!(invite(&world, "sip:desk@voice.example", "desk-1", alice, "")?, 603);
    assert_eq!(invite(&world, "sip:desk@other.example", "desk-2", alice, "")?, 486);
    assert_eq!(world.app.requests_for("/desk-here").len(), 1);
    assert_eq!(world.app.requests_for("/desk").len(), 1);
    // Another number can take it only when it is free again.
    let taken = world.api_post("/IncomingPhoneNumbers.json", &[("PhoneNumber", "77333")])?;
    assert_eq!((taken.0, &taken.1["code"]), (400, &21_422.into()));
    for wrong in ["no spaces", "+12ab", "a@b@c", "@host", "sip:"] {
        let refused = world.api_post("/IncomingPhoneNumbers.json", &[("PhoneNumber", wrong)])?;
        assert_eq!((refused.0, &refused.1["code"]), (400, &21_421.into()), "{wrong}");
    }
    world.finish()
}

#[test]
fn tel_02_geography_name_and_forwarding() -> Result<()> {
    let world = Setup::new()?
        .number("+14165550123", "/post")
        .page("/post", Page::verbs("<Reject/>"))
        .page("/get", Page::verbs("<Reject/>"))
        .begin()?;
    let url = world.app.url("/get");
    assign(&world, "+15550078", &[("VoiceUrl", &url), ("VoiceMethod", "GET")])?;
    let call = |number: &str, call_id: &str, from: &str, more: &str| -> Result<Recorded> {
        assert_eq!(invite(&world, &world.uri(number), call_id, from, more)?, 603);
        let requests = world.app.requests().into_iter();
        let mut of_call = requests.filter(|r| r.param("SipCallId") == Some(call_id));
        of_call.next().context("no request")
    };
    let check = |request: &Recorded, expected: &[(&str, Option<&str>)]| {
        for (name, value) in expected {
            assert_eq!(request.param(name), *value, "{name}");
        }
    };
    let history = "History-Info: <sip:+4930222@a>;index=1, <sip:+4930333@a>;index=1.1\r\n";
    let ann = "\"Ann Lee\" <sip:+12012000123";
    let request = call("+14165550123", "geo-1", ann, history)?;
    assert_eq!(request.method, "POST");
    check(
        &request,
        &[
            ("From", Some("+12012000123")),
            ("CallerName", Some("Ann Lee")),
            ("ForwardedFrom", Some("+4930222")),
        ],
    );
    for who in ["From", "Caller"] {
        let get = |what: &str| request.param(&format!("{who}{what}")).map(str::to_owned);
        let place = ["City", "State", "Zip", "Country"].map(|what| get(what).unwrap_or_default());
        assert_eq!(place, ["JERSEY CITY", "NJ", "", "US"]);
    }
    for who in ["To", "Called"] {
        assert_eq!(request.param(&format!("{who}State")), Some("ON"));
        assert_eq!(request.param(&format!("{who}Country")), Some("CA"));
    }
    let diversion = "Diversion: <sip:+33140000000@a>;reason=unconditional\r\n";
    let request = call("+15550078", "geo-2", "<sip:+4930123456", diversion)?;
    assert_eq!((request.method.as_str(), request.form.len()), ("GET", 0));
    check(
        &request,
        &[
            ("FromCountry", Some("DE")),
            ("FromState", Some("")),
            ("ForwardedFrom", Some("+33140000000")),
            ("CallerName", None),
            ("ToCountry", Some("US")),
            ("ToState", Some("")),
        ],
    );
    // What is no number tells nothing.
    let request = call("+15550078", "geo-3", "<sip:alice", "")?;
    check(&request, &[("FromCountry", None), ("FromCity", None), ("ForwardedFrom", None)]);
    world.finish()
}

/// An authority of a test, and certificates that are right or wrong in one way.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    fn server(&self, name: SanType, until_year: i32) -> Result<AppServer> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.not_after = date_time_ymd(until_year, 1, 1);
        let chain = params.signed_by(&key, &self.issuer)?.pem();
        AppServer::start_tls(&chain, &key.serialize_pem())
    }
}

const HERE: SanType = SanType::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

#[test]
fn tel_03_https_and_basic_authentication() -> Result<()> {
    let (ours, stranger) = (Authority::new()?, Authority::new()?);
    let good = ours.server(HERE, 2100)?;
    let verbs = "<Gather numDigits='1' action='/menu'><Play>/700.wav</Play></Gather>";
    good.page("/secure", Page::verbs(verbs)).page("/menu", Page::verbs("<Play>/700.wav</Play>"));
    good.page("/700.wav", Page::of("audio/wav", e2e::audio::tone_wav(700.0, 800)));
    let elsewhere = SanType::DnsName("elsewhere.example".try_into()?);
    let bad = [
        (ours.server(elsewhere, 2100)?, "11235"),
        (ours.server(HERE, 2020)?, "11236"),
        (stranger.server(HERE, 2100)?, "11237"),
    ];
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &ours.pem)?;
    let credentials = good.url("/secure").replace("https://", "https://user:word@");
    let mut setup = Setup::new()?
        .number("+15550300", &credentials)
        .page("/fallback", Page::verbs("<Play>/900.wav</Play>"));
    for (index, (server, _)) in bad.iter().enumerate() {
        setup = setup.number(&format!("+155503{:02}", index + 10), &server.url("/voice"));
    }
    let plain = setup.app.url("/voice").replace("http://", "https://");
    setup = setup.number("+15550320", &plain);
    setup.control.more = format!("\n[web]\nca_file = {}\n", json!(file));
    let world = setup.begin()?;

    let mut steps = hears(&[700.0]);
    steps.extend([Step::digits("5"), Step::wait_tone(700.0)]);
    ended(&world.bank.add(world.caller("+15550300", steps))?)?;
    let first = good.wait_for("/secure", 1, LIMIT)?.remove(0);
    let header = first.headers.get("authorization").map(String::as_str);
    assert_eq!(header, Some("Basic dXNlcjp3b3Jk"));
    let menu = good.wait_for("/menu", 1, LIMIT)?.remove(0);
    assert_eq!(menu.param("Digits"), Some("5"));
    let first = Recorded { url: credentials, ..first };
    // A relative action keeps the credentials of its document.
    let menu = Recorded { url: menu.url.replace("https://", "https://user:word@"), ..menu };
    for request in [&first, &menu] {
        assert!(signature::is_valid(TOKEN, request), "{}", request.url);
        assert!(signature::is_valid_dated(TOKEN, request), "{}", request.url);
    }

    let wrong = bad.iter().map(|(_, code)| *code).enumerate();
    let wrong = wrong.map(|(index, code)| (format!("+155503{:02}", index + 10), code));
    for (number, code) in wrong.chain([("+15550320".to_owned(), "11220")]) {
        let phone = world.bank.add(world.caller(&number, hears(&[900.0])))?;
        ended(&phone).with_context(|| format!("{number} {code}"))?;
        let told = world.app.requests_for("/fallback");
        let told = told.iter().find(|r| r.param("To") == Some(&number)).context(number.clone())?;
        assert_eq!(told.param("ErrorCode"), Some(code), "{number}");
        assert!(told.param("ErrorUrl").is_some_and(|url| url.starts_with("https://")));
    }
    assert!(bad.iter().all(|(server, _)| server.requests().is_empty()), "nothing was sent there");
    world.finish()
}

/// Opens encrypted parameters with a program of nobody here, by the code that the documentation
/// shows.
fn decrypted(pairs: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut child = Command::new(tools::python())
        .arg(tools::conformance("decrypt.py"))
        .arg(e2e::world::root().join("docs/webhooks.md"))
        .arg(TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(&serde_json::to_vec(pairs)?)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn tel_03_sensitive_parameters_are_encrypted_with_the_account_key() -> Result<()> {
    let menu = "<Gather numDigits='4' action='/menu{Digits}'><Play>/700.wav</Play></Gather>";
    let world = Setup::with(menu)?.page("/menu", Page::verbs("<Play>/900.wav</Play>")).begin()?;
    for wrong in ["CallSid", "Digits,no=name"] {
        let (status, _) = world.api_post(".json", &[("EncryptedParameters", wrong)])?;
        assert_eq!(status, 400, "{wrong}");
    }
    let (status, account) = world.api_post(".json", &[("EncryptedParameters", "Digits, From")])?;
    assert_eq!((status, text(&account, "encrypted_parameters")), (200, "Caller,Digits,From"));
    let mut steps = hears(&[700.0]);
    steps.push(Step::digits("4711"));
    let alice = world.call(steps.clone())?;
    ended(&alice)?;
    let sid = world.sid_of(&alice)?;
    world.wait_terminal(&sid)?;

    let menu = world.app.requests_for("/menu").into_iter().next().context("/menu")?;
    assert_eq!(menu.param("EncryptedParameters"), Some("From Caller Digits"));
    let names = ["Digits", "From", "Caller"];
    let pairs = names.map(|name| (name, menu.param(name).unwrap_or_default()));
    assert_eq!(decrypted(&pairs)?, ["4711", e2e::ALICE, e2e::ALICE]);
    assert_eq!(menu.param("To"), Some(NUMBER), "what is not listed stays readable");
    // Every request of the call, callbacks as well; and nothing that can be read afterwards.
    for request in world.app.requests().iter().filter(|r| r.param("CallSid") == Some(&sid)) {
        let from = request.param("From").unwrap_or_default();
        assert_eq!(decrypted(&[("From", from)])?, [e2e::ALICE], "{}", request.path);
        assert!(!format!("{:?}", request.params).contains("4711"), "{}", request.path);
        assert!(signature::is_valid(TOKEN, request) && signature::is_valid_dated(TOKEN, request));
    }
    let log = world.api(&format!("/Calls/{sid}/Events.json"))?.to_string();
    assert!(log.contains("/menu") && !log.contains("4711"), "{log}");
    let timeline = format!("{:?}", world.timeline(&sid)?);
    assert!(timeline.contains("xxxx") && !timeline.contains("4711"), "{timeline}");

    world.api_post(".json", &[("EncryptedParameters", "")])?;
    world.app.page("/menu4711", Page::verbs("<Play>/900.wav</Play>"));
    ended(&world.call(steps)?)?;
    let menu = world.app.requests_for("/menu4711").into_iter().next().context("plain again")?;
    assert_eq!((menu.param("Digits"), menu.param("From")), (Some("4711"), Some(e2e::ALICE)));
    assert_eq!(menu.param("EncryptedParameters"), None);
    world.finish()
}

#[test]
fn tel_07_results_go_to_the_action_url_of_their_verb() -> Result<()> {
    let unreachable = "<Play>/1100.wav</Play>";
    let gather = "<Gather numDigits='2' action='/digits?from=start'><Play>/700.wav</Play></Gather>";
    let record = "<Record action='/recording' method='GET' maxLength='1' playBeep='false'/>";
    let dial = format!("<Dial action='/dialled'>{BOB}</Dial>");
    let world = Setup::with(&format!("{gather}{unreachable}"))?
        .page("/digits", Page::verbs(&format!("{record}{unreachable}")))
        .page("/recording", Page::verbs(&format!("{dial}{unreachable}")))
        .page("/dialled", Page::verbs("<Play>/900.wav</Play>"))
        .begin()?;
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(600), Step::Hangup];
    let bob = world.answer(talk)?;
    let mut steps = hears(&[700.0]);
    steps.extend([Step::digits("42"), Step::wait_tone(BOB_HZ), Step::wait_tone(900.0)]);
    let heard = world.call_through(steps)?;
    ended(&bob)?;
    assert!(!heard.heard_tone(1100.0), "verbs after one with an action are not reached");
    let one = |path: &str| {
        let mut requests = world.app.requests_for(path);
        assert_eq!(requests.len(), 1, "{path}");
        requests.remove(0)
    };
    assert_eq!(one("/start").param("Digits"), None);
    let digits = one("/digits");
    assert_eq!((digits.method.as_str(), digits.param("Digits")), ("POST", Some("42")));
    assert_eq!(digits.param("from"), Some("start"), "the query of the action stays");
    let recording = one("/recording");
    assert_eq!((recording.method.as_str(), recording.param("Digits")), ("GET", None));
    assert_eq!(recording.param("RecordingDuration"), Some("1"));
    assert!(recording.param("RecordingUrl").is_some_and(|url| url.starts_with("http")));
    let dialled = one("/dialled");
    assert_eq!(dialled.param("DialCallStatus"), Some("completed"));
    assert_eq!(dialled.param("RecordingUrl"), None, "results are told once");
    world.finish()
}

#[test]
fn tel_07_without_a_result_execution_continues() -> Result<()> {
    let silent = "<Gather timeout='1' action='/never'><Play>/700.wav</Play></Gather>";
    let world = Setup::with(&format!("{silent}<Play>/900.wav</Play>"))?
        .number("+15550070", "/empty")
        .page(
            "/empty",
            Page::verbs("<Gather timeout='1' action='/told' actionOnEmptyResult='true'/>"),
        )
        .page("/told", Page::verbs("<Play>/700.wav</Play>"))
        .number("+15550071", "/dial")
        .page("/dial", Page::verbs(&format!("<Dial>{BOB}</Dial><Play>/1100.wav</Play>")))
        .begin()?;
    world.call_through(hears(&[700.0, 900.0]))?;
    assert!(world.app.requests_for("/never").is_empty());
    assert_eq!(world.app.requests_for("/start").len(), 1);
    ended(&world.bank.add(world.caller("+15550070", hears(&[700.0])))?)?;
    assert_eq!(world.app.requests_for("/told")[0].param("Digits"), Some(""));
    // Also when nobody takes the call.
    let bob = world.answer([Step::Reject(486)])?;
    ended(&world.bank.add(world.caller("+15550071", hears(&[1100.0])))?)?;
    assert_eq!(world.app.requests_for("/dial").len(), 1);
    assert!(!bob.wait_ended(LIMIT)?.answered());
    world.finish()
}

#[test]
fn fbk_01_fallbacks_are_asked_in_the_order_of_the_list() -> Result<()> {
    let world = Setup::new()?
        .page("/primary", Page::status(500))
        .page("/first", Page::status(404))
        .page("/second", Page::of("text/xml", "<Response><Say>"))
        .page("/third", Page::verbs("<Play>/700.wav</Play>"))
        .page("/fourth", Page::verbs("<Play>/900.wav</Play>"))
        .begin()?;
    let url = |path: &str| world.app.url(path);
    let list = json!([url("/second"), { "url": url("/third"), "method": "GET" }, url("/fourth")]);
    let list = list.to_string();
    let (voice, first) = (url("/primary"), url("/first"));
    let form =
        [("VoiceUrl", voice.as_str()), ("VoiceFallbackUrl", &first), ("VoiceFallbackUrls", &list)];
    let number = assign(&world, "+15550081", &form)?;
    let shown = number["voice_fallback_urls"].as_array().context("list")?;
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[1], json!({ "url": url("/third"), "method": "GET", "on": [] }));
    let (status, application) = world.api_post("/Applications.json", &form)?;
    assert_eq!(status, 201, "{application}");
    let sid = text(&application, "sid").to_owned();
    assign(&world, "+15550082", &[("VoiceApplicationSid", &sid)])?;

    let check = |calls: usize| -> Result<()> {
        let mut before = url("/primary");
        for (path, code) in [("/first", "11200"), ("/second", "11200"), ("/third", "12100")] {
            let asked = world.app.requests_for(path);
            assert_eq!(asked.len(), calls, "{path}");
            let last = asked.last().context("request")?;
            assert_eq!(last.param("ErrorCode"), Some(code), "{path}");
            assert_eq!(last.param("ErrorUrl"), Some(before.as_str()), "{path}");
            before = url(path);
        }
        assert_eq!(world.app.requests_for("/third")[calls - 1].method, "GET");
        assert!(world.app.requests_for("/fourth").is_empty(), "one that answers is enough");
        Ok(())
    };
    ended(&world.bank.add(world.caller("+15550081", hears(&[700.0])))?)?;
    check(1)?;
    ended(&world.bank.add(world.caller("+15550082", hears(&[700.0])))?)?;
    check(2)?;
    // The same list for a call of the API.
    let bob = world.answer([Step::Answer, Step::wait_tone(700.0)])?;
    let form = [("Url", voice.as_str()), ("FallbackUrl", &first), ("FallbackUrls", &list)];
    world.create_call(&[[("To", BOB), ("From", NUMBER)].as_slice(), &form].concat())?;
    ended(&bob)?;
    check(3)?;
    // An empty list ends it.
    let path = format!("/IncomingPhoneNumbers/{}.json", text(&number, "sid"));
    let (_, number) = world.api_post(&path, &[("VoiceFallbackUrls", "")])?;
    assert_eq!(number["voice_fallback_urls"], json!([]));
    for wrong in ["nonsense", "[\"ftp://x/\"]", "[{\"url\":\"http://x/\",\"on\":[\"rain\"]}]"] {
        let (status, body) = world.api_post(&path, &[("VoiceFallbackUrls", wrong)])?;
        assert_eq!((status, &body["code"]), (400, &21_402.into()), "{wrong}");
    }
    world.finish()
}

#[test]
fn fbk_01_a_fallback_is_asked_only_for_its_classes_of_errors() -> Result<()> {
    let refused = format!("http://{}/refused", ports::tcp()?);
    let world = Setup::new()?
        .page("/503", Page::status(503))
        .page("/404", Page::status(404))
        .page("/slow", Page::verbs("").after(Duration::from_secs(3)))
        .page("/broken", Page::of("text/xml", "<Response><Say>"))
        .page("/mime", Page::of("application/json", "{}"))
        .page("/loop", Page::status(302).header("Location", "/loop"))
        .page("/prompt", Page::verbs("<Play>/nothing.wav</Play>"))
        .begin()?;
    let app = world.app.url("");
    let classes = [
        "tls",
        "timeout",
        "dns",
        "connect",
        "http-4xx",
        "http-5xx",
        "12300",
        "customer",
        "communication",
    ];
    let entry = |class: &&str| json!({ "url": format!("{app}/on-{class}"), "on": [class] });
    let list = Value::Array(classes.iter().map(entry).collect()).to_string();
    for class in classes {
        world.app.page(&format!("/on-{class}"), Page::verbs("<Play>/short.wav</Play><Hangup/>"));
    }
    let cases = [
        (format!("https://{}/tls", world.app.address()), "tls"),
        (format!("{app}/slow#tt=400"), "timeout"),
        ("http://no-such-host.invalid/".to_owned(), "dns"),
        (refused, "connect"),
        (format!("{app}/404"), "http-4xx"),
        (format!("{app}/503"), "http-5xx"),
        (format!("{app}/mime"), "12300"),
        (format!("{app}/broken"), "customer"),
        (format!("{app}/loop"), "customer"),
        (format!("{app}/prompt"), "communication"),
    ];
    let mut phones = Vec::new();
    for (index, (url, _)) in cases.iter().enumerate() {
        let number = format!("+155504{index:02}");
        assign(&world, &number, &[("VoiceUrl", url), ("VoiceFallbackUrls", &list)])?;
        phones.push(world.bank.add(world.caller(&number, [Step::WaitAnswer(10_000)]))?);
    }
    for (phone, (url, class)) in phones.iter().zip(&cases) {
        phone.wait_ended(LIMIT)?;
        let sid = world.sid_of(phone)?;
        let requests = world.app.requests();
        let told = requests.iter().filter(|r| r.param("CallSid") == Some(&sid));
        let told: Vec<&str> =
            told.filter_map(|request| request.path.strip_prefix("/on-")).collect();
        assert_eq!(told, [*class], "{url}");
    }
    // Nobody for this class: the caller hears that it failed.
    let customer = json!([{ "url": format!("{app}/on-customer"), "on": ["customer"] }]).to_string();
    let voice = format!("{app}/503");
    assign(&world, "+15550499", &[("VoiceUrl", &voice), ("VoiceFallbackUrls", &customer)])?;
    let steps = [Step::WaitAnswer(5_000), Step::WaitSound { within_ms: 5_000 }];
    let alice = world.bank.add(world.caller("+15550499", steps))?;
    ended(&alice)?;
    let sid = world.sid_of(&alice)?;
    let asked = world.app.requests_for("/on-customer");
    assert!(asked.iter().all(|request| request.param("CallSid") != Some(&sid)));
    world.finish()
}

/// A number that nobody has shown to be theirs.
const STRANGER: &str = "+12025550199";

/// Numbers with this prefix lead to a phone; where it listens.
fn routed(setup: &mut Setup, prefix: &str) -> Result<std::net::SocketAddr> {
    let at = ports::udp()?;
    setup.control.routes.push(RoutePlan {
        prefix: prefix.to_owned(),
        node: e2e::world::EU.to_owned(),
        uri: format!("sip:{{number}}@{at}"),
        without_instructions: false,
    });
    Ok(at)
}

fn form<'a>(to: &'a str, url: &'a str, from: &'a str) -> [(&'a str, &'a str); 3] {
    [("To", to), ("From", from), ("Url", url)]
}

/// Asks for the verification of a number; the code, and the call that will ask for it.
fn ask_for_code(world: &World, number: &str) -> Result<(String, String)> {
    let status = world.app.url("/status");
    let form = [
        ("PhoneNumber", number),
        ("FriendlyName", "My desk"),
        ("CallDelay", "1"),
        ("StatusCallback", &status),
    ];
    let (status, body) = world.api_post("/OutgoingCallerIds.json", &form)?;
    assert_eq!(status, 200, "{body}");
    assert_eq!((text(&body, "phone_number"), text(&body, "friendly_name")), (number, "My desk"));
    let code = text(&body, "validation_code").to_owned();
    assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()), "{body}");
    Ok((code, text(&body, "call_sid").to_owned()))
}

#[test]
fn tel_09_a_call_asks_for_the_code_and_verifies_the_number() -> Result<()> {
    let (desk, stairs) = ("+15550250", "+15550260");
    let mut setup = Setup::new()?.page("/voice", Page::verbs("<Play>/700.wav</Play>"));
    let (desk_at, stairs_at) = (routed(&mut setup, desk)?, routed(&mut setup, stairs)?);
    let world = setup.begin()?;
    let callee = world.bank.add(Phone::callee("callee").script(hears_callee()))?;
    let (to, url) = (callee.uri(), world.app.url("/voice"));
    let refused = |from: &str| -> Result<()> {
        let (status, body) = world.api_post("/Calls.json", &form(&to, &url, from))?;
        assert_eq!((status, &body["code"]), (400, &21_210.into()), "{from}: {body}");
        Ok(())
    };
    refused(desk)?;

    // Called after the delay; a wrong code is asked for again.
    let (code, call) = ask_for_code(&world, desk)?;
    assert_eq!(text(&world.record(&call)?, "status"), "queued");
    let sound = || Step::WaitSound { within_ms: 8_000 };
    let keys = |keys: &str| [sound(), Step::digits(keys)];
    let script =
        [vec![Step::Answer], keys("0#").to_vec(), vec![Step::Wait(600)], keys(&code).to_vec()];
    let phone = Phone::callee("desk").listen(desk_at).script(script.concat());
    let phone = world.bank.add(phone)?;
    let told = world.wait_terminal(&call)?.remove(0);
    assert_eq!(told.param("VerificationStatus"), Some("success"), "{:?}", told.params);
    let sid = told.param("OutgoingCallerIdSid").context("sid")?.to_owned();
    assert_eq!(told.param("To"), Some(desk));
    ended(&phone)?;

    let list = world.api("/OutgoingCallerIds.json")?;
    let rows = list["outgoing_caller_ids"].as_array().context("list")?;
    assert_eq!(rows.len(), 1, "{list}");
    assert_eq!((text(&rows[0], "sid"), text(&rows[0], "phone_number")), (sid.as_str(), desk));
    let path = format!("/OutgoingCallerIds/{sid}.json");
    let (_, renamed) = world.api_post(&path, &[("FriendlyName", "Front desk")])?;
    assert_eq!(text(&renamed, "friendly_name"), "Front desk");
    assert_eq!(text(&world.api(&path)?, "friendly_name"), "Front desk");
    let (status, body) = world.api_post("/OutgoingCallerIds.json", &[("PhoneNumber", desk)])?;
    assert_eq!((status, &body["code"]), (400, &21_450.into()), "{body}");
    let call = world.create_call(&form(&to, &url, desk))?;
    assert_eq!(text(&world.wait_status(&call, "completed")?, "from"), desk);
    ended(&callee)?;

    // Three wrong codes are enough.
    let (_, call) = ask_for_code(&world, stairs)?;
    let wrong = || [keys("1#").to_vec(), vec![Step::Wait(600)]].concat();
    let script = [vec![Step::Answer], wrong(), wrong(), wrong()].concat();
    let phone = world.bank.add(Phone::callee("stairs").listen(stairs_at).script(script))?;
    let told = world.wait_terminal(&call)?.remove(0);
    assert_eq!(told.param("VerificationStatus"), Some("failed"));
    assert_eq!(told.param("OutgoingCallerIdSid"), None);
    ended(&phone)?;
    refused(stairs)?;

    let row = world.control.account_url(&path);
    assert_eq!(http::delete(&row, Some((ACCOUNT, TOKEN)))?.status, 204);
    refused(desk)?;
    for wrong in ["", "77333", "+12", "sip:a@b"] {
        let (status, body) =
            world.api_post("/OutgoingCallerIds.json", &[("PhoneNumber", wrong)])?;
        assert_eq!((status, &body["code"]), (400, &21_401.into()), "{wrong}");
    }
    world.finish()
}

fn hears_callee() -> Vec<Step> {
    vec![Step::Answer, Step::wait_tone(700.0)]
}

#[test]
fn tel_09_an_unverified_caller_id_is_refused_unless_it_is_a_party_of_the_session() -> Result<()> {
    let world = Setup::new()?
        .page("/after", Page::verbs("<Play>/700.wav</Play>"))
        .page("/leg", Page::status(204))
        .begin()?;
    // A number of another account is not ours to show.
    let main = (ACCOUNT, TOKEN);
    let created = http::post(&world.control.url("/2010-04-01/Accounts.json"), Some(main), &[])?;
    let other = text(&created.json()?, "sid").to_owned();
    let numbers = format!("/2010-04-01/Accounts/{other}/IncomingPhoneNumbers.json");
    let form = [("PhoneNumber", "+15550290")];
    assert_eq!(http::post(&world.control.url(&numbers), Some(main), &form)?.status, 201);
    let url = world.app.url("/after");
    for (from, caller_id) in
        [(STRANGER, None), ("+15550290", None), (e2e::ALICE, None), (NUMBER, Some(STRANGER))]
    {
        let mut form = vec![("To", BOB), ("From", from), ("Url", url.as_str())];
        form.extend(caller_id.map(|id| ("CallerId", id)));
        let (status, body) = world.api_post("/Calls.json", &form)?;
        assert_eq!((status, &body["code"]), (400, &21_210.into()), "{from} {caller_id:?}");
    }
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(900), Step::Hangup];
    let bob = world.answer(talk)?;
    let dial = |id: &str| {
        let number =
            format!("<Number statusCallback='/leg' statusCallbackEvent='initiated'>{BOB}</Number>");
        Page::verbs(&format!("<Dial action='/after' callerId='{id}'>{number}</Dial>"))
    };
    for (calls, id) in [e2e::ALICE, NUMBER].iter().enumerate() {
        world.app.page("/start", dial(id));
        world.call_through(hears(&[BOB_HZ, 700.0]))?;
        let legs = world.app.wait_for("/leg", calls + 1, LIMIT)?;
        assert_eq!(legs[calls].param("From"), Some(*id));
    }
    world.app.page("/start", dial(STRANGER));
    let alice = world.call(hears(&[700.0]))?;
    ended(&alice)?;
    let sid = world.sid_of(&alice)?;
    let after = world.app.requests_for("/after");
    let after = after.iter().find(|r| r.param("CallSid") == Some(&sid)).context("/after")?;
    assert_eq!(after.param("DialCallStatus"), Some("failed"));
    assert_eq!(after.param("DialCallSid"), None, "nobody was called");
    assert_eq!(bob.reports()?.len(), 2);
    let mut alerts = Vec::new();
    wait_for("the alert", LIMIT, || {
        alerts = world.alerts()?;
        Ok(alerts.iter().any(|alert| text(alert, "error_code") == "13214"))
    })?;
    world.finish()
}

#[test]
fn ten_09_nothing_of_another_account_can_be_seen_or_changed() -> Result<()> {
    let record = "<Record action='/bye' maxLength='1' playBeep='false'/>";
    let world = Setup::with(record)?
        .page("/bye", Page::status(500))
        .page("/fallback", Page::verbs("<Hangup/>"))
        .begin()?;
    let main = Some((ACCOUNT, TOKEN));
    let accounts = world.control.url("/2010-04-01/Accounts.json");
    let other = http::post(&accounts, main, &[])?.json()?;
    let (sid, token) = (text(&other, "sid").to_owned(), text(&other, "auth_token").to_owned());
    let stranger = Some((sid.as_str(), token.as_str()));

    let alice = world.call(hears(&[]))?;
    ended(&alice)?;
    let call = world.sid_of(&alice)?;
    world.wait_terminal(&call)?;
    let (_, application) = world.api_post("/Applications.json", &[("FriendlyName", "ours")])?;
    let first = |list: &str, key: &str| -> Result<String> {
        let mut sid = String::new();
        wait_for(list, LIMIT, || {
            let page = world.api(&format!("/{list}.json"))?;
            sid = page[key][0]["sid"].as_str().unwrap_or_default().to_owned();
            Ok(!sid.is_empty())
        })?;
        Ok(format!("/{list}/{sid}"))
    };
    let ours = [
        format!("/Calls/{call}"),
        format!("/Calls/{call}/Events"),
        first("Recordings", "recordings")?,
        first("Notifications", "notifications")?,
        first("IncomingPhoneNumbers", "incoming_phone_numbers")?,
        format!("/Applications/{}", text(&application, "sid")),
    ];
    let theirs = format!("/2010-04-01/Accounts/{sid}");
    for path in &ours {
        assert_eq!(
            http::get(&world.control.account_url(&format!("{path}.json")), main)?.status,
            200
        );
        // Under the owner's name, and under one's own.
        for url in [
            world.control.account_url(&format!("{path}.json")),
            world.control.url(&format!("{theirs}{path}.json")),
        ] {
            assert_eq!(http::get(&url, stranger)?.status, 404, "GET {url}");
            let form = [("FriendlyName", "taken"), ("Status", "completed")];
            let status = http::post(&url, stranger, &form)?.status;
            // Some resources have nothing that could be changed at all.
            assert!(matches!(status, 404 | 405), "POST {url}: {status}");
            let status = http::delete(&url, stranger)?.status;
            assert!(matches!(status, 404 | 405), "DELETE {url}: {status}");
            assert_eq!(http::get(&url, Some((&sid, TOKEN)))?.status, 401);
        }
    }
    for (list, key) in [
        ("Calls", "calls"),
        ("Recordings", "recordings"),
        ("Notifications", "notifications"),
        ("IncomingPhoneNumbers", "incoming_phone_numbers"),
        ("OutgoingCallerIds", "outgoing_caller_ids"),
        ("Applications", "applications"),
    ] {
        let page = http::get(&world.control.url(&format!("{theirs}/{list}.json")), stranger)?;
        assert_eq!(page.json()?[key], json!([]), "{list}");
        let page = http::get(&world.control.account_url(&format!("/{list}.json")), stranger)?;
        assert_eq!(page.status, 404, "{list}");
    }
    let timeline = world.control.url(&format!("/tandem/v1/calls/{call}/timeline.json"));
    assert_eq!(http::get(&timeline, stranger)?.status, 404);
    let live = http::get(&world.control.url("/tandem/v1/calls.json"), stranger)?.json()?;
    assert_eq!(live["sessions"], json!([]));
    // The audio of a recording is found under its own account only.
    let audio = |url: String| http::get(&format!("{url}.wav"), None).map(|answer| answer.status);
    assert_eq!(audio(world.control.account_url(&ours[2]))?, 200);
    assert_eq!(audio(world.control.url(&format!("{theirs}{}", ours[2])))?, 404);
    // An application of somebody else cannot be run.
    let form = [("To", BOB), ("From", NUMBER), ("ApplicationSid", text(&application, "sid"))];
    let url = world.control.url(&format!("{theirs}/Calls.json"));
    assert_eq!(http::post(&url, stranger, &form)?.status, 400);
    world.finish()
}
