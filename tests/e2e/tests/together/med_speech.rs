//! MED-05: what is said, and how.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::audio::{self, loud_ms, tone_wav};
use e2e::world::{ended, hears, text};
use e2e::{Setup, World};
use tandem_load::Step;
use tandem_rig::{Page, http, ports};

/// Answer, then whatever comes until the other side hangs up.
fn listens() -> [Step; 2] {
    [Step::WaitAnswer(10_000), Step::WaitSound { within_ms: 10_000 }]
}

/// What a phone heard between the first and the last sound.
struct Heard {
    span_ms: u64,
    pause_ms: u64,
    samples: Vec<i16>,
}

fn listen(world: &World, number: &str) -> Result<Heard> {
    let phone = world.bank.add(world.caller(number, listens()).record(true))?;
    let report = ended(&phone).with_context(|| number.to_owned())?;
    let first = report.bursts.first().context("speech")?;
    let last = report.bursts.last().context("speech")?;
    let pauses = report.bursts.windows(2).map(|w| (w[1].onset_ns - w[0].end_ns) / 1_000_000);
    Ok(Heard {
        span_ms: (last.end_ns - first.onset_ns) / 1_000_000,
        pause_ms: pauses.max().unwrap_or(0),
        samples: report.audio,
    })
}

/// Median pitch of the voiced parts in hertz, by autocorrelation.
fn pitch_hz(samples: &[i16]) -> f64 {
    const WINDOW: usize = 320;
    let mut pitches = Vec::new();
    for start in (0..samples.len().saturating_sub(2 * WINDOW)).step_by(WINDOW) {
        let at = |n: usize| f64::from(samples[start + n]);
        let energy: f64 = (0..WINDOW).map(|n| at(n) * at(n)).sum();
        if energy / (WINDOW as f64) < 1_000_000.0 {
            continue;
        }
        let correlation = |lag: usize| (0..WINDOW).map(|n| at(n) * at(n + lag)).sum::<f64>();
        let best = (8_000 / 350..8_000 / 60).map(|lag| (correlation(lag), lag));
        if let Some((_, lag)) = best.max_by(|a, b| a.0.total_cmp(&b.0)) {
            pitches.push(8_000.0 / lag as f64);
        }
    }
    pitches.sort_by(f64::total_cmp);
    pitches.get(pitches.len() / 2).copied().unwrap_or(0.0)
}

/// Root of the mean square over what is no silence.
fn level(samples: &[i16]) -> f64 {
    let blocks = samples.chunks_exact(400).map(|block| {
        let sum: f64 = block.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        (sum / block.len() as f64).sqrt()
    });
    let loud: Vec<f64> = blocks.filter(|level| *level > 100.0).collect();
    loud.iter().sum::<f64>() / loud.len().max(1) as f64
}

#[test]
fn med_05_ssml_is_heard_at_the_phone() -> Result<()> {
    const WORDS: &str = "One two three four five.";
    let wrapped = |tag: &str, end: &str| format!("<Say><{tag}>{WORDS}</{end}></Say>");
    let cases = [
        ("plain", format!("<Say>{WORDS}</Say>")),
        ("slow", wrapped("prosody rate='50%'", "prosody")),
        ("fast", wrapped("prosody rate='x-fast'", "prosody")),
        ("strong", wrapped("emphasis level='strong'", "emphasis")),
        ("loud", wrapped("prosody volume='loud'", "prosody")),
        ("soft", wrapped("prosody volume='x-soft'", "prosody")),
        ("break", "<Say>One two <break time='1800ms'/> three four.</Say>".to_owned()),
        ("woman", format!("<Say voice='woman'>{WORDS}</Say>")),
        ("high", format!("<Say voice='woman'><prosody pitch='x-high'>{WORDS}</prosody></Say>")),
        ("deep", "<Say><prosody pitch='x-low'>One two three four five.</prosody></Say>".to_owned()),
        ("digits", "<Say><say-as interpret-as='digits'>123456</say-as></Say>".to_owned()),
        ("number", "<Say><say-as interpret-as='cardinal'>123456</say-as></Say>".to_owned()),
        (
            "german",
            "<Say><lang xml:lang='de-DE'>Guten Morgen, wie geht es Ihnen?</lang></Say>".to_owned(),
        ),
    ];
    let mut setup = Setup::new()?;
    for (index, (name, verbs)) in cases.iter().enumerate() {
        setup.app.page(&format!("/{name}"), Page::verbs(verbs));
        setup = setup.number(&format!("+155560{index:02}"), &format!("/{name}"));
    }
    let world = setup.begin()?;
    let mut all = Vec::new();
    for index in 0..cases.len() {
        all.push(listen(&world, &format!("+155560{index:02}"))?);
    }
    let of = |name: &str| {
        cases.iter().zip(&all).find(|((known, _), _)| *known == name).map(|(_, heard)| heard)
    };
    let span = |name| of(name).map_or(0, |heard| heard.span_ms);
    let pitch = |name| of(name).map_or(0.0, |heard| pitch_hz(&heard.samples));
    let loudness = |name| of(name).map_or(0.0, |heard| level(&heard.samples));
    let told: Vec<_> = cases
        .iter()
        .map(|(name, _)| {
            format!("{name}: {} ms {:.0} Hz {:.0}", span(name), pitch(name), loudness(name))
        })
        .collect();
    let plain = span("plain");
    assert!((800..4_000).contains(&plain), "{told:?}");
    assert!(span("slow") * 10 > plain * 16 && span("slow") * 10 < plain * 25, "{told:?}");
    assert!(span("fast") * 10 < plain * 7, "{told:?}");
    assert!(span("strong") * 100 > plain * 112, "{told:?}");
    assert!(loudness("strong") > loudness("plain") * 1.2, "{told:?}");
    assert!(loudness("loud") > loudness("plain") * 1.5, "{told:?}");
    assert!(loudness("soft") < loudness("plain") * 0.5, "{told:?}");
    assert!(of("break").is_some_and(|heard| (1_750..2_300).contains(&heard.pause_ms)), "{told:?}");
    assert!(pitch("woman") > pitch("plain") * 1.3, "{told:?}");
    assert!(pitch("high") > pitch("woman") * 1.15, "{told:?}");
    assert!(pitch("deep") < pitch("plain") * 0.85, "{told:?}");
    assert!((span("deep") as f64 / plain as f64 - 1.0).abs() < 0.15, "pitch is no speed: {told:?}");
    assert!(span("digits").abs_diff(span("number")) > 250, "{told:?}");
    assert!(span("german") > 800, "{told:?}");
    world.finish()
}

#[test]
fn med_05_what_marks_mean_is_said_as_if_it_were_written_out() -> Result<()> {
    let listen = ports::tcp()?;
    let mut setup = Setup::with("<Play>/700.wav</Play>")?;
    setup.control.more.push_str(&format!("\n[media]\nlisten = \"{listen}\"\n"));
    let world = setup.begin()?;
    let say = |text: &str, language: &str| -> Result<Vec<u8>> {
        let pairs = [("text", text), ("voice", "man"), ("language", language)];
        let query =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let response = http::get(&format!("http://{listen}/media?{query}"), None)?;
        anyhow::ensure!(response.status == 200, "{text}: {}", response.text());
        Ok(response.body)
    };
    for (marked, plain, language) in [
        ("<say-as interpret-as='digits'>120</say-as>", "1 2 0", "en-US"),
        ("<say-as interpret-as='characters'>ab1</say-as>", "A, B, 1", "en-US"),
        ("<say-as interpret-as='ordinal'>22</say-as>", "22nd", "en-US"),
        ("<say-as interpret-as='telephone'>+1 555</say-as>", "plus 1, 5 5 5", "en-US"),
        ("<say-as interpret-as='date' format='mdy'>3/4/2024</say-as>", "March 4th 2024", "en-US"),
        ("<sub alias='road'>rd</sub>", "road", "en-US"),
        // Nonsense is said as text: unknown tags, values that mean nothing, ends that do not fit.
        ("<prosody rate='quick'>three</prosody>", "three", "en-US"),
        ("</prosody>three<emphasis level='none'>", "three", "en-US"),
        ("a < b & c", "a < b & c ", "en-US"),
    ] {
        assert_eq!(say(marked, language)?, say(plain, language)?, "{marked}");
    }
    let german = say("<lang xml:lang='de-DE'>Guten Morgen</lang>", "en-US")?;
    assert_eq!(german, say("Guten Morgen", "de-DE")?);
    assert_ne!(german, say("Guten Morgen", "en-US")?);
    // The rate of the service itself.
    let spoken = |rate: f32| -> Result<usize> {
        let body = serde_json::json!({ "text": "Good morning", "language": "en-US", "rate": rate });
        let url = format!("http://{listen}/speech");
        let response = http::post_body(&url, "application/json", body.to_string().as_bytes())?;
        Ok(audio::read_wav(&response.body)?.0[0].len())
    };
    let (usual, slow) = (spoken(1.0)?, spoken(0.5)?);
    assert!(slow > usual * 17 / 10, "{usual} {slow}");
    world.finish()
}

#[test]
fn med_05_speech_is_shared_and_malformed_documents_have_their_alert() -> Result<()> {
    let world = Setup::new()?
        .number("+15556101", "/one")
        .number("+15556102", "/two")
        .number("+15556103", "/broken")
        .page("/one", Page::verbs("<Say>Shared by <emphasis>everybody</emphasis>.</Say>"))
        .page("/two", Page::verbs("<Say>Shared by <emphasis>everybody</emphasis>.</Say>"))
        .page("/broken", Page::verbs("<Say>One <prosody rate='slow'>two</emphasis></Say>"))
        .page("/fallback", Page::verbs("<Play>/900.wav</Play>"))
        .begin()?;
    let phones: Vec<_> = ["+15556101", "+15556102", "+15556101"]
        .iter()
        .map(|number| world.bank.add(world.caller(number, listens()).record(true)))
        .collect::<Result<_, _>>()?;
    for phone in &phones {
        assert!(loud_ms(&ended(phone)?.audio) > 500);
    }
    let made = http::metric(world.control.admin, "tandem_media_speech_requests_total")?;
    assert_eq!(made, 1.0, "made once for all calls");
    let phone = world.bank.add(world.caller("+15556103", hears(&[900.0])))?;
    ended(&phone)?;
    let alerts = world.alerts()?;
    assert!(alerts.iter().any(|alert| text(alert, "error_code") == "12100"), "{alerts:?}");
    world.finish()
}

#[test]
fn med_05_another_engine_speaks_by_its_url() -> Result<()> {
    // It answers what it likes: here a tone, one for each language.
    let engine = Page::dynamic(|request| {
        let asked: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let german = text(&asked, "language") == "de-DE";
        Page::of("audio/x-wav", tone_wav(if german { 900.0 } else { 700.0 }, 600))
            .after(Duration::from_millis(50))
    });
    let mut setup = Setup::new()?
        .number("+15556201", "/english")
        .number("+15556202", "/german")
        .page("/engine", engine)
        .page("/english", Page::verbs("<Say voice='nova'>Hello <break time='1s'/> you</Say>"))
        .page("/german", Page::verbs("<Say voice='nova' language='de-DE'>Hallo</Say>"));
    let url = setup.app.url("/engine");
    setup.control.more.push_str(&format!("\n[media]\nspeech = [\"{url}\"]\n"));
    let world = setup.begin()?;
    for _ in 0..2 {
        for (number, hz) in [("+15556201", 700.0), ("+15556202", 900.0)] {
            ended(&world.bank.add(world.caller(number, hears(&[hz])))?)?;
        }
    }
    let asked = world.app.requests_for("/engine");
    assert_eq!(asked.len(), 2, "kept and shared");
    let first: serde_json::Value = serde_json::from_slice(&asked[0].body)?;
    assert_eq!(text(&first, "text"), "Hello <break time=\"1s\"/> you");
    assert_eq!((text(&first, "voice"), text(&first, "language")), ("nova", "en-US"));
    world.finish()
}
