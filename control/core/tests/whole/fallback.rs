//! What goes wrong at the customer's: retries, redirects, fallback, the spoken error, alerts.

use crate::world::{self, Page, World, xml};
use control_core::io::{FetchFailureKind, MediaRequest};
use proptest::prelude::*;

fn spoken(w: &World) -> Option<&str> {
    match w.prepared.last() {
        Some(MediaRequest::Speech { text, .. }) => Some(text),
        _ => None,
    }
}

#[test]
fn fbk_02_each_failure_goes_to_the_fallback_with_its_code() {
    use FetchFailureKind as Kind;
    let big = format!("<Response><Say>{}</Say></Response>", "x".repeat(70_000));
    for (page, code) in [
        (Page::Status(404), 11200),
        (Page::Status(503), 11200),
        (Page::Fail(Kind::Dns), 11210),
        (Page::Fail(Kind::Refused), 11202),
        (Page::Fail(Kind::ConnectTimeout), 11201),
        (Page::Fail(Kind::Tls), 11220),
        (Page::Fail(Kind::TotalTimeout), 11203),
        (Page::Fail(Kind::BodyTooLarge), 11750),
        (Page::Xml("<Response>".to_owned()), 12100),
        (Page::Xml("<Html/>".to_owned()), 12102),
        (Page::Xml(big), 11750),
        (Page::Xml(String::new()), 11770),
        (xml("<Nonsense/>"), 12200),
        (xml("<Enqueue>x</Enqueue>"), 13750),
        (xml("<Gather><Dial>1</Dial></Gather>"), 13323),
        (Page::Typed("application/json", b"{}".to_vec()), 12300),
        (Page::Redirect(302, "http://app/start".to_owned()), 11215),
        (xml("<Redirect>start</Redirect>"), 14106),
        (xml("<Play>ftp://x/</Play>"), 11100),
    ] {
        let mut w =
            World::new().page("start", page).page("http://backup/start", xml("<Say>backup</Say>"));
        w.inbound();
        let p = w.params("http://backup/start");
        assert_eq!(p["ErrorCode"], code.to_string());
        let url = if code == 11100 { "ftp://x/" } else { "http://app/start" };
        assert_eq!(p["ErrorUrl"], url, "{code}");
        assert!(w.alerts().contains(&code));
        assert_eq!(spoken(&w), Some("backup"));
        assert_eq!(w.core.metrics().fallbacks_taken, 1);
        w.at("eu-1", |e| e.finish_plays());
        w.assert_over();
    }
}

#[test]
fn fbk_02_if_all_fail_the_caller_hears_it_and_the_call_ends() {
    let mut w = World::new()
        .page("start", Page::Status(500))
        .page("http://backup/start", Page::Status(500));
    w.inbound();
    assert_eq!(spoken(&w), Some("An application error has occurred. Goodbye."));
    assert_eq!(w.alerts(), [11200, 11200]);
    let alert = &w.store.alerts[0];
    assert_eq!(alert.request_url.as_deref(), Some("http://app/start"));
    assert_eq!((alert.response_status, alert.response_body.as_deref()), (Some(500), Some("oops")));
    assert!(alert.request_variables.as_ref().unwrap().contains("CallSid="));
    w.at("eu-1", |e| e.finish_plays());
    w.assert_over();
    assert_eq!(w.store.log.len(), 2);
    assert_eq!(w.store.log[0].error_code, Some(11200));
}

#[test]
fn not_even_the_error_can_be_spoken() {
    let mut w = World::new().page("start", xml("<Say>x</Say>"));
    w.media_failure = Some(13520);
    w.inbound();
    w.assert_over();
}

#[test]
fn fbk_02_a_prompt_that_fails_is_an_error_of_the_document() {
    let mut w = World::new()
        .page("start", xml("<Play>a.json</Play>"))
        .page("http://backup/start", xml("<Hangup/>"));
    w.media_failure = Some(13420);
    w.inbound();
    let p = w.params("http://backup/start");
    assert_eq!((p["ErrorCode"].as_str(), p["ErrorUrl"].as_str()), ("13420", "http://app/a.json"));
    w.assert_over();
}

#[test]
fn fbk_02_the_last_request_is_sent_again_with_its_state() {
    let mut w = World::new()
        .page("start", xml("<Gather action='menu' numDigits='1'/>"))
        .page("http://backup/start", xml("<Hangup/>"));
    w.inbound();
    w.at("eu-1", |e| e.digits("7", link_proto::media::CollectEnd::Complete));
    assert_eq!(w.params("http://backup/start")["Digits"], "7");
    w.assert_over();
}

#[test]
fn fbk_03_the_fallback_that_answered_is_primary() {
    let mut w = World::new()
        .page("start", Page::Status(500))
        .page("http://backup/start", xml("<Gather action='menu' numDigits='1'/>"))
        .page("http://backup/menu", xml("<Hangup/>"));
    w.inbound();
    w.at("eu-1", |e| e.digits("7", link_proto::media::CollectEnd::Complete));
    assert_eq!(w.paths().last().unwrap(), "http://backup/menu", "relative to the fallback");
    w.assert_over();
}

#[test]
fn attempts_follow_the_overrides_and_keep_their_token() {
    for (fragment, page, attempts) in [
        ("", Page::Fail(FetchFailureKind::Refused), 2),
        ("", Page::Status(500), 1),
        ("#rc=3&rp=5xx", Page::Status(500), 4),
        ("#rc=0", Page::Fail(FetchFailureKind::Refused), 1),
    ] {
        let mut w = World::new().page("start", page);
        let mut directory = w.directory.clone();
        let number = directory.numbers.get_mut(world::NUMBER).unwrap();
        number.voice.voice = Some(world::post(&format!("http://app/start{fragment}")));
        number.voice.fallbacks.clear();
        let input = control_core::Input::Directory(Box::new(directory));
        w.core.handle_input(w.now, w.unix_ms, input);
        w.inbound();
        assert_eq!(w.count("start"), attempts, "{fragment}");
        let token = |r: &control_core::io::FetchRequest| {
            let mut headers = r.request.headers.iter();
            headers.find(|(n, _)| n == "I-Twilio-Idempotency-Token").unwrap().1.clone()
        };
        let mut tokens: Vec<_> = w.fetched.iter().map(token).collect();
        tokens.dedup();
        assert_eq!(tokens.len(), 1);
    }
}

#[test]
fn tel_04_redirects_are_followed_as_a_browser_does() {
    for (status, method) in [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST")] {
        let mut w = World::new()
            .page("start", Page::Redirect(status, "/other/place".to_owned()))
            .page("other/place", xml("<Play>a.wav</Play>"));
        w.inbound();
        let last = w.fetched.last().unwrap();
        assert_eq!(last.request.method.as_str(), method);
        assert_eq!(w.params("other/place")["To"], world::NUMBER);
        let played = MediaRequest::Url { url: "http://app/other/a.wav".to_owned() };
        assert_eq!(w.prepared, [played], "relative to where the document came from");
    }
}

#[test]
fn warnings_are_alerts_and_do_not_stop_the_call() {
    let mut w = World::new().page("start", xml("<Say loop='x'>a</Say><Say/>"));
    w.inbound();
    assert_eq!(w.alerts(), [13510, 13520]);
    assert!(w.store.alerts.iter().all(|alert| alert.log_level == 1 && alert.call.is_some()));
    w.at("eu-1", |e| e.finish_plays());
    w.assert_over();
}

#[test]
fn waiting_for_the_web_server_is_counted_apart() {
    let mut w = World::new().page("start", xml("<Say>a</Say>"));
    w.inbound();
    let phase = w.store.timeline.iter().find_map(|row| match &row.event {
        control_core::record::TimelineEvent::Phase { verb, wait_web_ms, .. } => {
            Some((verb.clone(), *wait_web_ms))
        }
        _ => None,
    });
    assert_eq!(phase, Some(("Say".to_owned(), 10)));
    let text = serde_json::to_string(&w.store.timeline).unwrap();
    assert!(text.contains("\"kind\":\"phase\""));
}

fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<Response>",
        "</Response>",
        "<Say>",
        "</Say>",
        "<Play loop='",
        "'/>",
        "<Gather ",
        "numDigits='",
        "99999999999999999999",
        "<Dial>",
        "</Dial>",
        "<Number>",
        "</Number>",
        "<Sip>",
        "sip:a@b?x-a=%",
        "</Sip>",
        "&amp;",
        "&#x0;",
        "&#xD800;",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?xml",
        "?>",
        "<!DOCTYPE",
        ">",
        "'",
        "\"",
        "{Digits}",
        "é",
        "\u{0}",
        "timeout='-1'",
        " ",
        "<Record/>",
        "<Redirect>",
        "</Redirect>",
        "<a:b c:d='e'/>",
    ]);
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever a server sends: a document, or an error with a code of the table.
    #[test]
    fn no_document_breaks_the_parser(text in soup(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for body in [text.as_bytes(), format!("<Response>{text}</Response>").as_bytes(), &bytes] {
            if let Err(error) = control_core::doc::parse::parse(body, None, 64 * 1024) {
                prop_assert!(control_core::error_code::TABLE.iter().any(|(c, _)| *c == error.code));
            }
        }
    }

    /// And no document breaks a call.
    #[test]
    fn no_document_breaks_a_call(text in soup()) {
        let mut w = World::new().page("start", xml(&text));
        let call = w.inbound();
        w.at("eu-1", |e| e.hangs_up(call));
        w.advance(60_000);
        w.advance(60_000);
        prop_assert_eq!(w.core.metrics().internal_errors, 0);
    }

    #[test]
    fn templates_never_panic(text in "\\PC{0,40}") {
        let _ = control_core::doc::template::expand(&text, |_| Some("v"));
        let _ = control_core::webhook::overrides::split(&text);
        let _ = control_core::webhook::request::resolve(Some("http://h/"), &text);
    }
}
