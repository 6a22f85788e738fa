//! TEL: the call router, seen from the phone and from the application's web server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::world::{LIMIT, ended, hears, text};
use e2e::{ALICE, ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, pause_ms, signature};
use tandem_load::{Phone, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{Page, http};

#[test]
fn tel_01_inbound_number_and_sip_address_run_their_urls() -> Result<()> {
    let world = Setup::with("<Play>/700.wav</Play>")?
        .number("helpdesk", "/help")
        .page("/help", Page::verbs("<Play>/900.wav</Play>"))
        .begin()?;
    world.call_through(hears(&[700.0]))?;
    ended(&world.bank.add(world.caller("helpdesk", hears(&[900.0])))?)?;
    let asked = world.app.requests_for("/help");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].param("Direction"), Some("inbound"));
    let unknown = world.bank.add(world.caller("+19998888", [Step::WaitAnswer(5_000)]))?;
    let end = unknown.wait_ended(LIMIT)?.end.context("end")?;
    assert_eq!(end.status, Some(404), "unknown number");
    world.finish()
}

#[test]
fn tel_01_api_call_runs_its_url_or_its_document() -> Result<()> {
    let world = Setup::new()?.page("/api", Page::verbs("<Play>/700.wav</Play>")).begin()?;
    let bob = world.answer([Step::Answer])?;
    let inline = format!("<Response><Play>{}</Play></Response>", world.app.url("/900.wav"));
    let url = world.app.url("/api");
    for (form, hz) in [(("Url", url.as_str()), 700.0), (("Twiml", inline.as_str()), 900.0)] {
        let sid = world.create_call(&[("To", BOB), ("From", NUMBER), form])?;
        let record = world.wait_status(&sid, "completed")?;
        assert_eq!(text(&record, "direction"), "outbound-api");
        let heard = bob.wait_ended(LIMIT)?;
        assert!(heard.heard_tone(hz), "{hz}: {:?}", heard.heard);
    }
    assert_eq!(world.app.requests_for("/api").len(), 1);
    let request = &world.app.requests_for("/api")[0];
    assert_eq!(request.param("CallStatus"), Some("in-progress"));
    assert_eq!((request.param("To"), request.param("From")), (Some(BOB), Some(NUMBER)));
    // An address of the caller's choice, without a route.
    let carol = world.bank.add(Phone::callee("carol").script(hears_callee(700.0)))?;
    let sid = world.create_call(&[("To", &carol.uri()), ("From", NUMBER), ("Url", &url)])?;
    world.wait_status(&sid, "completed")?;
    ended(&carol)?;
    world.finish()
}

fn hears_callee(hz: f64) -> Vec<Step> {
    vec![Step::Answer, Step::wait_tone(hz)]
}

#[test]
fn tel_02_every_step_carries_the_whole_call_state() -> Result<()> {
    let world = Setup::with("<Gather numDigits='2' action='/menu'><Play>/700.wav</Play></Gather>")?
        .page("/menu", Page::verbs(&format!("<Dial action='/after'>{BOB}</Dial>")))
        .page("/after", Page::verbs("<Record action='/recorded' maxLength='1' playBeep='false'/>"))
        .page("/recorded", Page::verbs("<Hangup/>"))
        .begin()?;
    let bob = world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Hangup])?;
    let steps = [Step::WaitAnswer(5_000), Step::wait_tone(700.0), Step::digits("42")];
    let alice = world.caller(NUMBER, steps).header("Diversion", "<sip:+15557777@127.0.0.1>");
    let alice = world.bank.add(alice.header("X-Customer", "gold"))?;
    ended(&alice)?;
    ended(&bob)?;
    let sid = world.sid_of(&alice)?;
    for (path, status) in [
        ("/start", "ringing"),
        ("/menu", "in-progress"),
        ("/after", "in-progress"),
        ("/recorded", "in-progress"),
    ] {
        let requests = world.app.requests_for(path);
        assert_eq!(requests.len(), 1, "{path}");
        assert_eq!(requests[0].method, "POST");
        for (name, value) in [
            ("CallSid", sid.as_str()),
            ("AccountSid", ACCOUNT),
            ("From", ALICE),
            ("To", NUMBER),
            ("Caller", ALICE),
            ("Called", NUMBER),
            ("CallStatus", status),
            ("Direction", "inbound"),
            ("ApiVersion", "2010-04-01"),
            ("ForwardedFrom", "+15557777"),
            ("SipHeader_X-Customer", "gold"),
        ] {
            assert_eq!(requests[0].param(name), Some(value), "{path} {name}");
        }
    }
    let of = |path: &str, name: &str| {
        let request = world.app.requests_for(path).into_iter().next();
        request.and_then(|r| r.param(name).map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(of("/menu", "Digits"), "42");
    assert_eq!(of("/after", "DialCallStatus"), "completed");
    assert!(of("/after", "DialCallSid").starts_with("CA"));
    assert!(of("/after", "DialCallDuration").parse::<u32>()? >= 1);
    assert!(of("/recorded", "RecordingSid").starts_with("RE"));
    assert!(of("/recorded", "RecordingUrl").starts_with("http"));
    assert_eq!(of("/recorded", "RecordingDuration"), "1");
    world.finish()
}

#[test]
fn tel_02_get_carries_the_state_in_the_query() -> Result<()> {
    let world = Setup::new()?.page("/get", Page::verbs("<Hangup/>")).begin()?;
    let url = world.app.url("/get?tenant=7");
    let form = [("PhoneNumber", "+15550077"), ("VoiceUrl", &url), ("VoiceMethod", "GET")];
    let (status, number) = world.api_post("/IncomingPhoneNumbers.json", &form)?;
    assert_eq!((status, text(&number, "voice_method")), (201, "GET"), "{number}");
    let alice = world.bank.add(world.caller("+15550077", [Step::WaitAnswer(5_000)]))?;
    alice.wait_ended(LIMIT)?;
    let request = world.app.wait_for("/get", 1, LIMIT)?.remove(0);
    assert_eq!(request.method, "GET");
    assert_eq!(request.param("tenant"), Some("7"));
    assert_eq!(request.param("To"), Some("+15550077"));
    assert!(request.form.is_empty());
    assert!(signature::is_valid(TOKEN, &request));
    world.finish()
}

#[test]
fn tel_03_every_request_is_signed() -> Result<()> {
    let setup = Setup::new()?;
    let address = setup.app.address();
    let world = setup
        .number("+15550002", &format!("http://user:pass%20word@{address}/secret?x=1&y=%20"))
        .page(
            "/start",
            Page::verbs("<Gather numDigits='1' action='/a?q=ü'><Play>/700.wav</Play></Gather>"),
        )
        .page("/a", Page::verbs("<Redirect method='GET'>/b</Redirect>"))
        .page("/b", Page::verbs("<Pause/>"))
        .page("/secret", Page::verbs("<Hangup/>"))
        .begin()?;
    let steps = [Step::WaitAnswer(5_000), Step::wait_tone(700.0), Step::digits("5")];
    let alice = world.call(steps)?;
    ended(&alice)?;
    world.wait_terminal(&world.sid_of(&alice)?)?;
    world.bank.add(world.caller("+15550002", [Step::WaitAnswer(5_000)]))?.wait_ended(LIMIT)?;
    let secret = world.app.wait_for("/secret", 1, LIMIT)?.remove(0);
    let basic = secret.headers.get("authorization").map(String::as_str);
    assert_eq!(basic, Some("Basic dXNlcjpwYXNzIHdvcmQ="), "credentials of the URL");
    let mut signed = 0;
    // Prompts are fetched without call state, and unsigned.
    for request in world.app.requests().iter().filter(|r| !r.path.ends_with(".wav")) {
        let mut expected = request.clone();
        if request.path == "/secret" {
            expected.url = format!("http://user:pass%20word@{address}/secret?x=1&y=%20");
        }
        let either = signature::is_valid(TOKEN, request) || signature::is_valid(TOKEN, &expected);
        assert!(either, "{} {}", request.method, request.url);
        assert!(!signature::is_valid("another secret", request));
        let dated = |token| [request, &expected].map(|r| signature::is_valid_dated(token, r));
        assert!(dated(TOKEN).contains(&true), "{} {}", request.method, request.url);
        assert!(!dated("another secret").contains(&true));
        signed += 1;
    }
    assert!(signed >= 5, "{signed}");
    world.finish()
}

#[test]
fn tel_04_responses_are_handled_by_mime_type() -> Result<()> {
    let tone = |hz: f64| e2e::audio::tone_wav(hz, 800);
    let world = Setup::new()?
        .number("+15550011", "/xml")
        .number("+15550012", "/audio")
        .number("+15550013", "/text")
        .number("+15550014", "/html")
        .page("/xml", Page::of("application/xml", "<Response><Play>/700.wav</Play></Response>"))
        .page("/html", Page::of("text/html", "<Response><Play>/1100.wav</Play></Response>"))
        .page("/audio", Page::of("audio/x-wav", tone(900.0)))
        .page("/text", Page::of("text/plain; charset=utf-8", "Hello, this is a plain text."))
        .begin()?;
    for (number, hz) in [("+15550011", 700.0), ("+15550012", 900.0), ("+15550014", 1100.0)] {
        ended(&world.bank.add(world.caller(number, hears(&[hz])))?)?;
    }
    let sound = Step::WaitSound { within_ms: 8_000 };
    let spoken =
        ended(&world.bank.add(world.caller("+15550013", [Step::WaitAnswer(5_000), sound]))?)?;
    let words_ms: u64 = spoken.heard.iter().map(|h| (h.to_ns - h.from_ns) / 1_000_000).sum();
    assert!(words_ms > 700, "spoken for {words_ms} ms");
    assert!(world.app.requests_for("/fallback").is_empty());
    world.finish()
}

#[test]
fn tel_04_redirects_and_cookies_as_in_a_browser() -> Result<()> {
    let cookie = Page::status(302)
        .header("Location", "/landed?from=302")
        .header("Set-Cookie", "cart=17; Path=/")
        .header("Set-Cookie", "gone=1; Max-Age=0; Path=/")
        .header("Set-Cookie", "elsewhere=1; Path=/other");
    let world = Setup::new()?
        .page("/start", cookie)
        .page("/landed", Page::verbs("<Redirect>/moved</Redirect>"))
        .page("/moved", Page::status(307).header("Location", "/kept"))
        .page("/kept", Page::verbs("<Play>/700.wav</Play>"))
        .begin()?;
    let alice = world.call(hears(&[700.0]))?;
    ended(&alice)?;
    let one = |path: &str| world.app.requests_for(path).into_iter().next().context(path.to_owned());
    assert_eq!(one("/start")?.method, "POST");
    assert_eq!(one("/landed")?.method, "GET", "302 turns POST into GET");
    assert_eq!(one("/landed")?.param("from"), Some("302"));
    let kept = one("/kept")?;
    assert_eq!(kept.method, "POST", "307 keeps the method");
    assert_eq!(kept.param("CallSid"), Some(world.sid_of(&alice)?.as_str()), "and the form");
    assert_eq!(kept.headers.get("cookie").map(String::as_str), Some("cart=17"));
    assert_eq!(one("/start")?.headers.get("cookie"), None);
    world.finish()
}

#[test]
fn tel_05_verbs_run_in_document_order() -> Result<()> {
    let verbs = "<Play loop='2'>/700.wav</Play><Pause length='1'/><Play>/900.wav</Play>\
                 <Redirect>/next</Redirect><Play>/700.wav</Play>";
    let world = Setup::with(verbs)?
        .page("/next", Page::verbs("<Play>/1100.wav</Play><Hangup/><Play>/900.wav</Play>"))
        .begin()?;
    let heard = world.call_through(hears(&[700.0, 900.0, 1100.0]))?;
    let order: Vec<i64> = heard
        .heard
        .iter()
        .filter_map(|h| h.freq_hz)
        .map(|hz| (hz / 100.0).round() as i64)
        .collect();
    assert_eq!(order, [7, 9, 11], "{:?}", heard.heard);
    let [first, second, ..] = heard.heard.as_slice() else { anyhow::bail!("{:?}", heard.heard) };
    let played_ms = (first.to_ns - first.from_ns) / 1_000_000;
    assert!((1_500..1_800).contains(&played_ms), "twice 800 ms: {played_ms}");
    let pause = (second.from_ns - first.to_ns) / 1_000_000;
    assert!((950..1_150).contains(&pause), "{pause} ms");
    assert_eq!(world.app.requests_for("/next").len(), 1);
    world.finish()
}

/// The called party is asked before it is connected, while the caller hears ringback.
#[test]
fn tel_05_a_called_party_is_screened_before_it_is_connected() -> Result<()> {
    let world = Setup::new()?
        .page(
            "/screen",
            Page::verbs(
                "<Gather numDigits='1' timeout='1' action='/pressed'><Play>/900.wav</Play></Gather>\
                 <Hangup/>",
            ),
        )
        .page("/pressed", Page::verbs("<Play>/1100.wav</Play>"))
        .page("/after", Page::verbs("<Play>/700.wav</Play>"))
        .begin()?;
    let asked = [Step::Answer, Step::wait_tone(900.0)];
    let talk = [
        Step::digits("1"),
        Step::wait_tone(1100.0),
        Step::wait_tone(ALICE_HZ),
        Step::Wait(500),
        Step::Hangup,
    ];
    let willing = Phone::callee("willing").tone(BOB_HZ).script([&asked[..], &talk].concat());
    let silent = Phone::callee("silent").tone(BOB_HZ).script(asked);
    let told: [(Phone, &[f64], (&str, &str)); 2] = [
        (willing, &[BOB_HZ, 700.0], ("completed", "true")),
        (silent, &[700.0], ("no-answer", "false")),
    ];
    for (bob, heard_hz, expected) in told {
        let bob = world.bank.add(bob)?;
        let noun = format!("<Sip url='/screen'>{}</Sip>", bob.uri());
        world.app.page("/start", Page::verbs(&format!("<Dial action='/after'>{noun}</Dial>")));
        let alice = world.call(hears(heard_hz))?;
        let heard = ended(&alice)?;
        ended(&bob)?;
        let sid = world.sid_of(&alice)?;
        assert!(!heard.heard_tone(900.0) && !heard.heard_tone(1100.0), "not for the caller");
        assert_eq!(heard.heard_tone(BOB_HZ), expected.1 == "true", "nobody is connected unasked");
        let mine = |path: &str, name: &str| {
            let requests = world.app.requests_for(path);
            let mine = requests.into_iter().find(|r| r.param(name) == Some(sid.as_str()));
            mine.context(path.to_owned())
        };
        let screen = mine("/screen", "ParentCallSid")?;
        assert_eq!(screen.param("CallStatus"), Some("in-progress"));
        assert_eq!(screen.param("Direction"), Some("outbound-dial"));
        assert_eq!(screen.param("SipDomain"), Some("127.0.0.1"));
        assert!(signature::is_valid(TOKEN, &screen));
        let after = mine("/after", "CallSid")?;
        assert_eq!(after.param("DialCallSid"), screen.param("CallSid"));
        let told = (after.param("DialCallStatus"), after.param("DialBridged"));
        assert_eq!(told, (Some(expected.0), Some(expected.1)));
    }
    world.finish()
}

#[test]
fn tel_05_reject_pause_and_gather_follow_the_attributes() -> Result<()> {
    let world = Setup::new()?
        .number("+15550021", "/busy")
        .number("+15550022", "/reject")
        .number("+15550023", "/late")
        .number("+15550024", "/finish")
        .number("+15550025", "/empty")
        .page("/busy", Page::verbs("<Reject reason='busy'/>"))
        .page("/reject", Page::verbs("<Reject/>"))
        .page("/late", Page::verbs("<Pause length='2'/><Play>/700.wav</Play>"))
        .page("/finish", Page::verbs(
            "<Collect finishOnKey='*' timeout='4' successUrl='/got'><Play>/900.wav</Play></Collect>",
        ))
        .page("/empty", Page::verbs("<Gather timeout='1' action='/got'/><Play>/1100.wav</Play>"))
        .page("/got", Page::verbs("<Play>/700.wav</Play>"))
        .begin()?;
    for (number, status) in [("+15550021", 486), ("+15550022", 603)] {
        let alice = world.bank.add(world.caller(number, [Step::WaitAnswer(5_000)]))?;
        let end = alice.wait_ended(LIMIT)?.end.context("end")?;
        assert_eq!(end.status, Some(status), "{number}");
    }
    let late = ended(&world.bank.add(world.caller("+15550023", hears(&[700.0])))?)?;
    let set_up_ms = late.set_up_ms().context("answered")?;
    assert!((1_900.0..3_500.0).contains(&set_up_ms), "picked up after the pause: {set_up_ms} ms");
    let mut steps = hears(&[900.0]);
    steps.extend([Step::digits("12*"), Step::wait_tone(700.0)]);
    ended(&world.bank.add(world.caller("+15550024", steps))?)?;
    ended(&world.bank.add(world.caller("+15550025", hears(&[1100.0])))?)?;
    let got = world.app.requests_for("/got");
    assert_eq!(got.len(), 1, "nothing pressed: the next verb");
    assert_eq!(got[0].param("Digits"), Some("12"), "without the key that ended it");
    world.finish()
}

#[test]
fn tel_05_dial_several_targets_and_what_they_did() -> Result<()> {
    let world = Setup::new()?.begin()?;
    let busy = world.bank.add(Phone::callee("busy").script([Step::Reject(486)]))?;
    let slow = world.bank.add(Phone::callee("slow").script([Step::Ring(9_000), Step::Answer]))?;
    let quick = [Step::Ring(300), Step::Answer, Step::wait_tone(ALICE_HZ), Step::Hangup];
    let quick = world.bank.add(Phone::callee("quick").tone(BOB_HZ).script(quick))?;
    let sip = |uri: String| format!("<Sip>{uri}</Sip>");
    let targets = [busy.uri(), slow.uri(), quick.uri()].map(sip).concat();
    world.app.page("/start", Page::verbs(&format!("<Dial action='/done'>{targets}</Dial>")));
    world.app.page("/done", Page::verbs("<Play>/700.wav</Play>"));
    world.call_through(hears(&[BOB_HZ, 700.0]))?;
    ended(&quick)?;
    let cancelled = slow.wait_ended(LIMIT)?;
    assert!(!cancelled.answered());
    assert_eq!(cancelled.end.map(|end| end.how), Some("cancel".to_owned()));
    let done = &world.app.requests_for("/done")[0];
    assert_eq!(done.param("DialCallStatus"), Some("completed"));
    // All legs are busy: the status says so.
    world
        .app
        .page("/start", Page::verbs(&format!("<Dial action='/done'>{}</Dial>", sip(busy.uri()))));
    world.call_through(hears(&[700.0]))?;
    let done = &world.app.requests_for("/done")[1];
    assert_eq!(done.param("DialCallStatus"), Some("busy"));
    world.finish()
}

#[test]
fn tel_06_templates_are_filled_from_the_call_state() -> Result<()> {
    let world = Setup::with(
        "<Gather numDigits='1' action='/menu-{Digits}.xml?sid={CallSid}&amp;to={To}'>\
         <Play>/prompt{?From}</Play></Gather>",
    )?
    .page("/prompt", Page::of("audio/wav", e2e::audio::tone_wav(700.0, 800)))
    .page("/menu-3.xml", Page::verbs("<Play>/{+Missing}900.wav</Play>"))
    .begin()?;
    let mut steps = hears(&[700.0]);
    steps.extend([Step::digits("3"), Step::wait_tone(900.0)]);
    let alice = world.call(steps)?;
    ended(&alice)?;
    let menu = world.app.wait_for("/menu-3.xml", 1, LIMIT)?.remove(0);
    assert_eq!(menu.param("sid"), Some(world.sid_of(&alice)?.as_str()));
    assert_eq!(menu.param("to"), Some(NUMBER));
    assert_eq!(world.app.requests_for("/prompt")[0].param("From"), Some(ALICE));
    world.finish()
}

#[test]
fn tel_07_without_an_action_the_document_is_asked_again() -> Result<()> {
    let step = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&step);
    let world = Setup::new()?
        .page(
            "/start",
            Page::dynamic(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
                0 => Page::verbs("<Gather numDigits='1'><Play>/700.wav</Play></Gather>"),
                1 => Page::verbs("<Record maxLength='1' playBeep='false'/>"),
                _ => Page::verbs(&format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>")),
            }),
        )
        .begin()?;
    let bob =
        world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(900), Step::Hangup])?;
    let mut steps = hears(&[700.0]);
    steps.extend([Step::digits("8"), Step::wait_tone(BOB_HZ), Step::wait_tone(900.0)]);
    world.call_through(steps)?;
    ended(&bob)?;
    let asked = world.app.requests_for("/start");
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[1].param("Digits"), Some("8"));
    assert_eq!(asked[2].param("RecordingDuration"), Some("1"));
    assert_eq!(asked[2].param("Digits"), None, "results are told once");
    world.finish()
}

#[test]
fn tel_08_lists_filters_pages_and_errors() -> Result<()> {
    let world = Setup::with("<Hangup/>")?.begin()?;
    let mut sids = Vec::new();
    for _ in 0..5 {
        let alice = world.call([Step::WaitAnswer(5_000)])?;
        alice.wait_ended(LIMIT)?;
        sids.push(world.sid_of(&alice)?);
    }
    for sid in &sids {
        world.wait_status(sid, "completed")?;
    }
    // Newest first, in pages that are followed as an SDK does.
    let mut path = format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json?PageSize=2&Status=completed");
    let (mut seen, mut pages) = (Vec::new(), 0);
    while !path.is_empty() {
        let page = http::get(&world.control.url(&path), Some((ACCOUNT, TOKEN)))?.json()?;
        let calls = page["calls"].as_array().context("calls")?;
        assert!(calls.len() <= 2 && page["page_size"] == 2, "{page}");
        seen.extend(calls.iter().map(|call| text(call, "sid").to_owned()));
        path = text(&page, "next_page_uri").to_owned();
        pages += 1;
    }
    assert_eq!(pages, 3);
    sids.reverse();
    assert_eq!(seen, sids);
    for (query, count) in [
        (format!("To={}", NUMBER.replace('+', "%2B")), 5),
        ("To=%2B1999".to_owned(), 0),
        ("Status=busy".to_owned(), 0),
        ("StartTime%3E=2020-01-01".to_owned(), 5),
        ("StartTime%3C=2020-01-01".to_owned(), 0),
    ] {
        let page = world.api(&format!("/Calls.json?{query}"))?;
        assert_eq!(page["calls"].as_array().map(Vec::len), Some(count), "{query}");
    }
    errors(&world)?;
    let number = world.api("/IncomingPhoneNumbers.json")?;
    assert_eq!(number["incoming_phone_numbers"][0]["phone_number"], NUMBER);
    assert_eq!(world.api(".json")?["sid"], ACCOUNT);
    world.finish()
}

fn errors(world: &e2e::World) -> Result<()> {
    let url = |path: &str| world.control.account_url(path);
    let account = Some((ACCOUNT, TOKEN));
    let unknown = format!("/Calls/CA{}.json", "0".repeat(32));
    for (path, credentials, status, code) in [
        ("/Calls.json", None, 401, 20003),
        ("/Calls.json", Some((ACCOUNT, "wrong")), 401, 20003),
        (unknown.as_str(), account, 404, 20404),
        ("/Nonsense.json", account, 404, 20404),
        ("/Calls.json?PageSize=5000", account, 400, 20007),
    ] {
        let response = http::get(&url(path), credentials)?;
        let body = response.json()?;
        assert_eq!((response.status, &body["code"]), (status, &code.into()), "{path} {body}");
        assert_eq!(body["status"], status);
        ensure!(body["message"].is_string() && body["more_info"].is_string(), "{body}");
    }
    let app = world.app.url("/start");
    for (form, code) in [
        (vec![("From", NUMBER), ("Url", app.as_str())], 21201),
        (vec![("To", BOB), ("Url", app.as_str())], 21213),
        (vec![("To", BOB), ("From", NUMBER), ("Url", "nonsense")], 21205),
        (vec![("To", BOB), ("From", NUMBER)], 21205),
        (vec![("To", "not!a!number"), ("From", NUMBER), ("Url", app.as_str())], 21211),
    ] {
        let (status, body) = world.api_post("/Calls.json", &form)?;
        assert_eq!((status, &body["code"]), (400, &code.into()), "{form:?}: {body}");
    }
    let (status, body) = world.api_post(&unknown, &[("Status", "completed")])?;
    assert_eq!((status, &body["code"]), (404, &20404.into()));
    Ok(())
}

#[test]
fn tel_10_redirect_and_hang_up_in_mid_call() -> Result<()> {
    let world = Setup::with("<Play loop='0'>/700.wav</Play>")?
        .page("/other", Page::verbs(&format!("<Play>/900.wav</Play><Dial>{BOB}</Dial>")))
        .page("/third", Page::verbs("<Play loop='0'>/1100.wav</Play>"))
        .begin()?;
    let bob = world.answer([Step::Ring(100), Step::Answer])?;
    let alice = world.call(hears(&[700.0, 900.0, BOB_HZ, 1100.0]))?;
    let sid = world.sid_of(&alice)?;
    alice.wait(LIMIT, |report| report.heard_tone(700.0))?;
    let path = format!("/Calls/{sid}.json");
    let (status, call) = world.api_post(&path, &[("Url", &world.app.url("/other"))])?;
    assert_eq!((status, text(&call, "status")), (200, "in-progress"), "{call}");
    alice.wait(LIMIT, |report| report.heard_tone(BOB_HZ))?;
    assert_eq!(world.app.requests_for("/other")[0].param("CallSid"), Some(sid.as_str()));
    // Out of a conversation: the callee's leg ends.
    let inline = format!("<Response><Redirect>{}</Redirect></Response>", world.app.url("/third"));
    let (status, _) = world.api_post(&path, &[("Twiml", &inline)])?;
    assert_eq!(status, 200);
    assert!(bob.wait_ended(LIMIT)?.ended());
    alice.wait(LIMIT, |report| report.heard_tone(1100.0))?;
    let (status, _) = world.api_post(&path, &[("Status", "completed")])?;
    assert_eq!(status, 200);
    let heard = ended(&alice)?;
    assert_eq!(heard.end.map(|end| end.how), Some("bye".to_owned()));
    let (status, body) = world.api_post(&path, &[("Status", "completed")])?;
    assert!(status == 200 || body["code"] == 21220, "{status} {body}");
    let (status, body) = world.api_post(&path, &[("Url", &world.app.url("/other"))])?;
    assert_eq!((status, &body["code"]), (400, &21220.into()));
    world.finish()
}

#[test]
fn tel_10_an_outbound_call_is_cancelled_while_it_rings() -> Result<()> {
    let world = Setup::with("<Hangup/>")?.begin()?;
    let bob = world.answer([Step::Ring(20_000)])?;
    let url = world.app.url("/start");
    let sid = world.create_call(&[("To", BOB), ("From", NUMBER), ("Url", &url)])?;
    world.wait_status(&sid, "ringing")?;
    let (status, _) = world.api_post(&format!("/Calls/{sid}.json"), &[("Status", "canceled")])?;
    assert_eq!(status, 200);
    world.wait_status(&sid, "canceled")?;
    let end = bob.wait_ended(LIMIT)?.end.context("end")?;
    assert_eq!(end.how, "cancel");
    assert!(world.app.requests_for("/start").is_empty(), "no instructions are asked for");
    world.finish()
}

/// Who ends the call, the callee's and the caller's script, the status of the callee's leg (or one
/// of them), whether it was answered.
type EndCase = (&'static str, Vec<Step>, Vec<Step>, &'static str, bool);

/// Who ends the call, and what its record says then.
#[test]
fn tel_13_records_for_every_way_a_call_can_end() -> Result<()> {
    let world = Setup::new()?.begin()?;
    let talk = |ms| vec![Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(ms)];
    let plus = |mut steps: Vec<Step>, last| {
        steps.push(last);
        steps
    };
    let waits = || hears(&[BOB_HZ]);
    let cases: Vec<EndCase> = vec![
        ("callee hangs up", plus(talk(1_200), Step::Hangup), waits(), "completed", true),
        (
            "caller hangs up",
            talk(20_000),
            plus(plus(waits(), Step::Wait(1_200)), Step::Hangup),
            "completed",
            true,
        ),
        ("busy", vec![Step::Reject(486)], hears(&[]), "busy", false),
        ("declined", vec![Step::Reject(603)], hears(&[]), "failed|busy|no-answer", false),
        ("not there", vec![Step::Reject(404)], hears(&[]), "failed", false),
        ("no answer", vec![Step::Ring(30_000)], hears(&[]), "no-answer", false),
        (
            "caller gives up",
            vec![Step::Ring(30_000)],
            plus(plus(hears(&[]), Step::Wait(700)), Step::Hangup),
            "canceled|no-answer",
            false,
        ),
    ];
    for (name, callee, caller, status, answered) in cases {
        let bob = world.bank.add(Phone::callee("callee").tone(BOB_HZ).script(callee))?;
        let timeout = if name == "no answer" { "timeout='5'" } else { "" };
        world.app.page(
            "/start",
            Page::verbs(&format!("<Dial {timeout}><Sip>{}</Sip></Dial>", bob.uri())),
        );
        if name == "no answer" {
            // Covered in a shorter time by the API's own limit.
            let url = world.app.url("/start");
            let form = [
                ("To", bob.uri()),
                ("From", NUMBER.to_owned()),
                ("Url", url),
                ("Timeout", "1".to_owned()),
            ];
            let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let sid = world.create_call(&form)?;
            let record = world.wait_status(&sid, "no-answer")?;
            assert_eq!(text(&record, "duration"), "0", "{name}: {record}");
            assert!(!text(&record, "end_time").is_empty());
            continue;
        }
        let alice = world.call(caller)?;
        let sid = world.sid_of(&alice)?;
        wait_for("ringing record without end", LIMIT, || {
            let record = world.record(&sid)?;
            let running =
                !["completed", "busy", "failed", "canceled"].contains(&text(&record, "status"));
            ensure!(
                !running || record["end_time"].is_null() && record["duration"].is_null(),
                "{record}"
            );
            Ok(bob.report()?.began_ns > 0 || !running)
        })?;
        alice.wait_ended(LIMIT)?;
        let caller = world.wait_status(&sid, "completed")?;
        // The callee's end is on its own way to control.
        let mut legs = serde_json::Value::Null;
        wait_for("the callee's record to end", LIMIT, || {
            legs = world.api(&format!("/Calls.json?ParentCallSid={sid}"))?;
            Ok(!legs["calls"][0]["end_time"].is_null())
        })?;
        let leg = &legs["calls"][0];
        assert!(status.split('|').any(|s| text(leg, "status") == s), "{name}: {leg}");
        assert_eq!(text(leg, "direction"), "outbound-dial", "{name}");
        let seconds: u64 = text(leg, "duration").parse().with_context(|| leg.to_string())?;
        if answered {
            assert!((1..=4).contains(&seconds), "{name}: {leg}");
        } else {
            assert_eq!(seconds, 0, "{name}: {leg}");
        }
        assert!(!text(&caller, "duration").is_empty(), "{name}: {caller}");
        for record in [&caller, leg] {
            assert!(!text(record, "end_time").is_empty(), "{name}: {record}");
            assert!(!text(record, "start_time").is_empty(), "{name}: {record}");
        }
    }
    pause_ms(50);
    world.finish()
}

#[test]
fn tel_13_quality_and_end_reason_per_leg() -> Result<()> {
    let world = Setup::with(&format!("<Dial>{BOB}</Dial>"))?.begin()?;
    let bob =
        world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(1_000), Step::Hangup])?;
    let alice = world.call(hears(&[BOB_HZ]))?;
    ended(&alice)?;
    ended(&bob)?;
    let sid = world.sid_of(&alice)?;
    world.wait_status(&sid, "completed")?;
    let url = world.control.url(&format!("/tandem/v1/calls/{sid}.json"));
    let page = http::get(&url, Some((ACCOUNT, TOKEN)))?.json()?;
    let legs = page["legs"].as_array().context("legs")?;
    assert_eq!(legs.len(), 2, "{page}");
    for leg in legs {
        assert!(leg["stats"].is_object(), "{leg}");
        assert!(leg["end_reason"].is_string() && leg["end_whose"].is_string(), "{leg}");
    }
    let callee = legs.iter().find(|leg| leg["direction"] == "outbound-dial").context("callee")?;
    assert_eq!((text(callee, "end_reason"), text(callee, "end_whose")), ("remote-bye", "callee"));
    world.finish()
}
