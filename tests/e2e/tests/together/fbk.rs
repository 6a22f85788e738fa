//! FBK: what happens when the application's web server fails, and who is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::world::{LIMIT, ended, hears, is_terminal, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World, pause_ms, signature};
use tandem_load::{Phone, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{Page, Recorded, http};

/// A port of loopback where nobody listens.
fn closed_port() -> Result<String> {
    Ok(format!("http://{}", tandem_rig::ports::tcp()?))
}

#[test]
fn fbk_01_a_number_has_a_fallback_and_so_has_an_api_call() -> Result<()> {
    let world = Setup::new()?
        .page("/start", Page::status(500))
        .page("/fallback", Page::verbs("<Play>/700.wav</Play>"))
        .page("/api-fallback", Page::verbs("<Play>/900.wav</Play>"))
        .begin()?;
    world.call_through(hears(&[700.0]))?;
    let bob = world.answer([Step::Answer, Step::wait_tone(900.0)])?;
    let (url, fallback) = (world.app.url("/start"), world.app.url("/api-fallback?plan=b"));
    let form = [("To", BOB), ("From", NUMBER), ("Url", &url), ("FallbackUrl", &fallback)];
    world.create_call(&[form.as_slice(), &[("FallbackMethod", "GET")]].concat())?;
    ended(&bob)?;
    let asked = world.app.requests_for("/api-fallback");
    assert_eq!((asked.len(), asked[0].method.as_str()), (1, "GET"));
    assert_eq!(asked[0].param("plan"), Some("b"));
    assert_eq!(asked[0].param("ErrorCode"), Some("11200"));
    world.finish()
}

#[test]
fn fbk_02_every_kind_of_failure_takes_the_fallback() -> Result<()> {
    let refused = closed_port()?;
    let setup = Setup::new()?;
    let app = setup.app.url("");
    let cases: Vec<(String, Page, &str)> = vec![
        (format!("{app}/broken"), Page::of("text/xml", "<Response><Say>"), "12100"),
        (format!("{app}/root"), Page::of("text/xml", "<Html/>"), "12102"),
        (format!("{app}/unknown"), Page::verbs("<Teleport/>"), "12200"),
        (format!("{app}/nested"), Page::verbs("<Gather><Dial>1</Dial></Gather>"), "13323"),
        (format!("{app}/mime"), Page::of("application/json", "{}"), "12300"),
        (format!("{app}/none"), Page::status(404), "11200"),
        (format!("{app}/fails"), Page::status(503), "11200"),
        (format!("{app}/empty"), Page::of("text/xml", ""), "11770"),
        (format!("{app}/loop"), Page::status(302).header("Location", "/loop"), "11215"),
        (format!("{app}/slow#tt=400"), Page::verbs("").after(Duration::from_secs(3)), "11203"),
        (format!("{app}/big"), Page::verbs(&"<Pause/>".repeat(10_000)), "11750"),
        (format!("{refused}/refused"), Page::status(200), "11202"),
        ("http://no-such-host.invalid/dns".to_owned(), Page::status(200), "11210"),
        (format!("{app}/prompt"), Page::verbs("<Play>/nothing.wav</Play>"), "11200"),
        (format!("{app}/no-audio"), Page::verbs("<Play>/status.wav</Play>"), "13420"),
    ];
    let mut setup = setup
        .page("/fallback", Page::verbs("<Play>/700.wav</Play><Hangup/>"))
        .page("/status.wav", Page::of("application/json", "{}"));
    for (index, (url, page, _)) in cases.iter().enumerate() {
        let path = url.strip_prefix(&app).unwrap_or_default().split('#').next().unwrap_or_default();
        if !path.is_empty() {
            setup.app.page(path, page.clone());
        }
        setup = setup.number(&format!("+155510{index:02}"), url);
    }
    let world = setup.begin()?;
    // All at once: one slow server does not hold up the others.
    let phones: Vec<_> = (0..cases.len())
        .map(|index| world.bank.add(world.caller(&format!("+155510{index:02}"), hears(&[700.0]))))
        .collect::<Result<_, _>>()?;
    for (phone, (url, _, code)) in phones.iter().zip(&cases) {
        ended(phone).with_context(|| format!("{url} {code}"))?;
        let sid = world.sid_of(phone)?;
        let told = world.app.requests_for("/fallback");
        let of_call: Vec<_> = told.iter().filter(|r| r.param("CallSid") == Some(&sid)).collect();
        assert_eq!(of_call.len(), 1, "{url}");
        assert_eq!(of_call[0].param("ErrorCode"), Some(*code), "{url}");
        let error_url = of_call[0].param("ErrorUrl").context("ErrorUrl")?;
        assert!(error_url.starts_with("http"), "{error_url}");
        assert!(of_call[0].param("From").is_some() && of_call[0].param("To").is_some());
        let page = world.api(&format!("/Calls/{sid}/Notifications.json"))?;
        let alerts = page["notifications"].as_array().context("notifications")?;
        assert!(alerts.iter().any(|a| text(a, "error_code") == *code), "{url}: {page}");
    }
    world.finish()
}

#[test]
fn fbk_02_if_all_fail_the_caller_hears_why_and_the_call_ends_cleanly() -> Result<()> {
    let world = Setup::new()?
        .page("/start", Page::status(500))
        .page("/fallback", Page::of("text/xml", "<oops"))
        .begin()?;
    let alice = world.call([Step::WaitAnswer(5_000), Step::WaitSound { within_ms: 5_000 }])?;
    let heard = ended(&alice)?;
    let words_ms: u64 = heard.heard.iter().map(|h| (h.to_ns - h.from_ns) / 1_000_000).sum();
    assert!(words_ms > 1_000, "a spoken sentence: {words_ms} ms, {:?}", heard.heard);
    assert_eq!(heard.end.as_ref().map(|end| end.how.as_str()), Some("bye"));
    let sid = world.sid_of(&alice)?;
    world.wait_status(&sid, "completed")?;
    let codes: BTreeSet<String> =
        world.alerts()?.iter().map(|alert| text(alert, "error_code").to_owned()).collect();
    assert_eq!(codes, ["11200".to_owned(), "12100".to_owned()].into());
    world.finish()
}

#[test]
fn fbk_02_the_server_dies_in_mid_call() -> Result<()> {
    let mut doomed = tandem_rig::AppServer::start()?;
    let dial = format!("<Dial action='/after'>{BOB}</Dial>");
    doomed.page("/start", Page::verbs(&dial));
    let world = Setup::new()?
        .number("+15550003", &doomed.url("/start"))
        .page("/fallback", Page::verbs("<Play>/700.wav</Play>"))
        .begin()?;
    let bob =
        world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(800), Step::Hangup])?;
    let alice = world.bank.add(world.caller("+15550003", hears(&[BOB_HZ, 700.0])))?;
    bob.wait_answered(LIMIT)?;
    doomed.stop();
    ended(&alice)?;
    let told = world.app.requests_for("/fallback").into_iter().next().context("fallback")?;
    assert!(told.param("ErrorCode").is_some_and(|code| code.starts_with("112")), "{told:?}");
    assert_eq!(told.param("DialCallStatus"), Some("completed"), "all state is sent again");
    assert_eq!(told.param("ErrorUrl"), Some(doomed.url("/after").as_str()));
    world.finish()
}

#[test]
fn fbk_03_the_fallback_is_primary_for_the_rest_of_the_session_only() -> Result<()> {
    let backup = tandem_rig::AppServer::start()?;
    backup.page(
        "/fallback",
        Page::verbs("<Gather numDigits='1' action='menu'><Play>/900.wav</Play></Gather>"),
    );
    backup.page("/900.wav", Page::of("audio/wav", e2e::audio::tone_wav(900.0, 800)));
    backup.page("/menu", Page::verbs("<Pause/>"));
    let mut setup = Setup::new()?.page("/start", Page::status(500));
    setup.control.numbers[0].fallback_url = Some(backup.url("/fallback"));
    let world = setup.begin()?;
    for calls in 1..=2 {
        let mut steps = hears(&[900.0]);
        steps.push(Step::digits("6"));
        world.call_through(steps)?;
        let menu = backup.requests_for("/menu");
        assert_eq!(menu.len(), calls);
        assert_eq!(menu[calls - 1].param("Digits"), Some("6"));
        assert_eq!(menu[calls - 1].param("ErrorCode"), None, "told once");
        assert_eq!(world.app.requests_for("/start").len(), calls, "a new session begins anew");
        assert_eq!(backup.requests_for("/fallback").len(), calls);
    }
    world.finish()
}

fn sequence(row: &Recorded) -> u32 {
    row.param("SequenceNumber").and_then(|n| n.parse().ok()).unwrap_or(u32::MAX)
}

fn token(row: &Recorded) -> String {
    row.headers.get("i-twilio-idempotency-token").cloned().unwrap_or_default()
}

const ALL_EVENTS: [(&str, &str); 4] = [
    ("StatusCallbackEvent", "initiated"),
    ("StatusCallbackEvent", "ringing"),
    ("StatusCallbackEvent", "answered"),
    ("StatusCallbackEvent", "completed"),
];

/// One terminal callback per leg, whoever hangs up.
#[test]
fn fbk_04_one_terminal_callback_per_leg_whoever_hangs_up() -> Result<()> {
    let world = Setup::with("<Play loop='0'>/700.wav</Play>")?
        .page("/once", Page::verbs("<Play>/700.wav</Play>"))
        .begin()?;
    let answers = |steps: Vec<Step>| [vec![Step::Ring(200), Step::Answer], steps].concat();
    let cases: Vec<(&str, Vec<Step>, &str, &str)> = vec![
        ("callee", answers(vec![Step::wait_tone(700.0), Step::Hangup]), "/start", "completed"),
        ("document", answers(vec![Step::wait_tone(700.0)]), "/once", "completed"),
        ("api", answers(vec![Step::wait_tone(700.0)]), "/start", "completed"),
        ("busy", vec![Step::Ring(200), Step::Reject(486)], "/start", "busy"),
    ];
    for (who, steps, path, status) in cases {
        let bob = world.bank.add(Phone::callee("callee").script(steps))?;
        let (to, url, callback) = (bob.uri(), world.app.url(path), world.app.url("/status"));
        let form =
            [("To", to.as_str()), ("From", NUMBER), ("Url", &url), ("StatusCallback", &callback)];
        let sid = world.create_call(&[form.as_slice(), &ALL_EVENTS].concat())?;
        if who == "api" {
            bob.wait(LIMIT, |report| report.heard_tone(700.0))?;
            world.api_post(&format!("/Calls/{sid}.json"), &[("Status", "completed")])?;
        }
        bob.wait_ended(LIMIT)?;
        let rows = world.wait_terminal(&sid)?;
        let told: Vec<&str> = rows.iter().filter_map(|row| row.param("CallStatus")).collect();
        let expected = match status {
            "busy" => vec!["initiated", "ringing", "busy"],
            _ => vec!["initiated", "ringing", "in-progress", "completed"],
        };
        assert_eq!(told, expected, "{who}: in order");
        for (number, row) in rows.iter().enumerate() {
            assert_eq!(sequence(row), number as u32, "{who}");
            assert_eq!(row.param("CallbackSource"), Some("call-progress-events"));
            assert!(row.param("Timestamp").is_some_and(|time| time.ends_with("+0000")));
            assert!(signature::is_valid(TOKEN, row), "{who}");
        }
        assert_eq!(rows.iter().filter(|row| is_terminal(row)).count(), 1, "{who}");
        let seconds = rows.last().and_then(|row| row.param("CallDuration")).unwrap_or("none");
        assert!(seconds.parse::<u32>().is_ok(), "{who}: {seconds}");
    }
    world.finish()
}

#[test]
fn fbk_04_a_refused_callback_is_repeated_unchanged_and_holds_nothing_up() -> Result<()> {
    let failures = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failures);
    let world = Setup::with("<Play>/700.wav</Play>")?
        .page(
            "/status",
            Page::dynamic(move |_| match count.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Page::status(500).after(Duration::from_millis(300)),
                _ => Page::status(204),
            }),
        )
        .begin()?;
    let alice = world.call(hears(&[700.0]))?;
    let report = ended(&alice)?;
    let call_ms = report.end.map_or(0, |end| (end.at_ns - report.began_ns) / 1_000_000);
    assert!(call_ms < 3_000, "the call did not wait: {call_ms} ms");
    let sid = world.sid_of(&alice)?;
    wait_for("three attempts", LIMIT, || Ok(world.callbacks(&sid).len() >= 3))?;
    pause_ms(300);
    let rows = world.callbacks(&sid);
    assert_eq!(rows.len(), 3, "two refused, one taken, no more");
    for row in &rows {
        assert_eq!(row.param("CallStatus"), Some("completed"));
        assert_eq!((token(row), sequence(row)), (token(&rows[0]), sequence(&rows[0])));
        assert_eq!(row.form, rows[0].form);
    }
    assert!(!token(&rows[0]).is_empty());
    world.finish()
}

#[test]
fn fbk_04_callbacks_survive_the_end_of_control() -> Result<()> {
    let up = Arc::new(AtomicUsize::new(0));
    let is_up = Arc::clone(&up);
    let mut world = Setup::with("<Play>/700.wav</Play>")?
        .page(
            "/status",
            Page::dynamic(move |_| match is_up.load(Ordering::Relaxed) {
                0 => Page::status(503),
                _ => Page::status(204),
            }),
        )
        .begin()?;
    let alice = world.call(hears(&[700.0]))?;
    ended(&alice)?;
    let sid = world.sid_of(&alice)?;
    wait_for("a first attempt", LIMIT, || Ok(!world.callbacks(&sid).is_empty()))?;
    world.control.process.kill()?;
    let before = world.callbacks(&sid);
    up.store(1, Ordering::Relaxed);
    world.rig.control_again(&mut world.control)?;
    wait_for("the attempt after the restart", LIMIT, || {
        Ok(world.callbacks(&sid).len() > before.len())
    })?;
    pause_ms(500);
    let rows = world.callbacks(&sid);
    assert_eq!(rows.len(), before.len() + 1, "delivered once");
    let last = &rows[rows.len() - 1];
    assert_eq!((token(last), sequence(last)), (token(&rows[0]), sequence(&rows[0])));
    world.finish()
}

#[test]
fn fbk_04_dialled_legs_and_recordings_have_callbacks_of_their_own() -> Result<()> {
    let world = Setup::new()?.begin()?;
    let talk =
        [Step::Ring(200), Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(500), Step::Hangup];
    let bob = world.answer(talk)?;
    let verbs = format!(
        "<Dial><Number statusCallback='/leg' statusCallbackEvent='initiated ringing answered completed'>\
         {BOB}</Number></Dial>\
         <Record maxLength='1' playBeep='false' action='/bye' recordingStatusCallback='/recording'/>"
    );
    world.app.page("/start", Page::verbs(&verbs)).page("/bye", Page::verbs("<Hangup/>"));
    world.app.page("/leg", Page::status(204)).page("/recording", Page::status(204));
    let alice = world.call(hears(&[BOB_HZ]))?;
    ended(&alice)?;
    ended(&bob)?;
    let sid = world.sid_of(&alice)?;
    let leg = world.app.wait_for("/leg", 4, LIMIT)?;
    let told: Vec<&str> = leg.iter().filter_map(|row| row.param("CallStatus")).collect();
    assert_eq!(told, ["initiated", "ringing", "in-progress", "completed"]);
    assert!(leg.iter().all(|row| row.param("ParentCallSid") == Some(&sid)));
    let recording = world.app.wait_for("/recording", 1, LIMIT)?.remove(0);
    assert_eq!(recording.param("RecordingStatus"), Some("completed"));
    assert_eq!(recording.param("RecordingSource"), Some("RecordVerb"));
    assert_eq!(recording.param("CallSid"), Some(sid.as_str()));
    world.finish()
}

fn alert_of(world: &World, code: &str) -> Result<serde_json::Value> {
    let alerts = world.alerts()?;
    let alert = alerts.iter().find(|alert| text(alert, "error_code") == code);
    let sid = text(alert.with_context(|| format!("{code}: {alerts:?}"))?, "sid").to_owned();
    world.api(&format!("/Notifications/{sid}.json"))
}

#[test]
fn fbk_05_an_alert_shows_request_response_and_call() -> Result<()> {
    let world = Setup::new()?
        .page("/start", Page::of("text/xml", "<Response><Blink/></Response>").header("X-App", "v7"))
        .page("/fallback", Page::verbs("<Hangup/>"))
        .begin()?;
    let alice = world.call([Step::WaitAnswer(5_000)])?;
    alice.wait_ended(LIMIT)?;
    let sid = world.sid_of(&alice)?;
    world.wait_status(&sid, "completed")?;
    let alert = alert_of(&world, "12200")?;
    assert_eq!(text(&alert, "call_sid"), sid, "{alert}");
    assert_eq!(text(&alert, "log"), "0", "an error, no warning");
    assert_eq!(text(&alert, "request_url"), world.app.url("/start"));
    assert_eq!(text(&alert, "request_method"), "POST");
    assert!(text(&alert, "request_variables").contains(&format!("CallSid={sid}")));
    assert!(text(&alert, "response_body").contains("<Blink/>"));
    assert!(text(&alert, "response_headers").to_lowercase().contains("x-app: v7"), "{alert}");
    assert!(text(&alert, "message_text").contains("Blink"), "{alert}");
    // Nobody else sees it.
    let url = world.control.account_url(&format!("/Notifications/{}.json", text(&alert, "sid")));
    assert_eq!(http::get(&url, Some((ACCOUNT, "wrong")))?.status, 401);
    world.finish()
}
