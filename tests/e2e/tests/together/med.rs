//! MED: prompts, speech, recordings.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::audio::{self, loud_ms, tone, tone_ms, tone_wav};
use e2e::world::{LIMIT, ended, hears, root, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World};
use tandem_load::{PhoneReport, Step};
use tandem_rig::process::wait_for;
use tandem_rig::{Page, http};

fn sound_ms(report: &PhoneReport) -> u64 {
    report.bursts.iter().map(|burst| (burst.end_ns - burst.onset_ns) / 1_000_000).sum()
}

/// Answer, then whatever comes until the other side hangs up.
fn listens() -> [Step; 2] {
    [Step::WaitAnswer(10_000), Step::WaitSound { within_ms: 8_000 }]
}

#[test]
fn med_01_the_router_gets_telephony_media_for_text_and_files() -> Result<()> {
    let verbs =
        "<Say>Good morning. Your order number seven has been sent.</Say><Play>/700.wav</Play>";
    let world = Setup::with(verbs)?.begin()?;
    let alice = world.bank.add(world.caller(NUMBER, hears(&[700.0])).record(true))?;
    let report = ended(&alice)?;
    let tone_at = report.first_heard_ns(700.0).context("tone")?;
    let first = report.bursts.first().context("speech")?;
    let spoken_ms = tone_at.saturating_sub(first.onset_ns) / 1_000_000;
    assert!((2_000..8_000).contains(&spoken_ms), "the sentence takes {spoken_ms} ms");
    // Speech is no tone: it changes its pitch and has pauses.
    let until_tone = report.bursts.iter().take_while(|burst| burst.onset_ns < tone_at);
    assert!(until_tone.filter(|burst| burst.freq_hz.is_none()).count() >= 2, "{:?}", report.bursts);
    assert!(loud_ms(&report.audio) > 1_500);
    world.finish()
}

#[test]
fn med_02_one_file_is_fetched_once_and_revalidated() -> Result<()> {
    let wav = || Page::of("audio/wav", tone_wav(700.0, 400));
    let world = Setup::with("<Play>/fresh</Play><Play>/tagged</Play><Play>/never</Play>")?
        .page("/fresh", wav().header("Cache-Control", "max-age=600"))
        .page(
            "/tagged",
            Page::dynamic(move |request| {
                if request.headers.get("if-none-match").map(String::as_str) == Some("\"v1\"") {
                    return Page::status(304).header("ETag", "\"v1\"");
                }
                wav().header("ETag", "\"v1\"").header("Cache-Control", "no-cache")
            }),
        )
        .page(
            "/never",
            Page::of("audio/wav", tone_wav(900.0, 400)).header("Cache-Control", "no-store"),
        )
        .begin()?;
    for _ in 0..2 {
        let heard = world.call_through(hears(&[700.0, 900.0]))?;
        assert!((1_150..1_400).contains(&sound_ms(&heard)), "{}", sound_ms(&heard));
    }
    assert_eq!(world.app.requests_for("/fresh").len(), 1, "fresh for ten minutes");
    let tagged = world.app.requests_for("/tagged");
    assert_eq!(tagged.len(), 2, "asked again each time");
    assert_eq!(tagged[1].headers.get("if-none-match").map(String::as_str), Some("\"v1\""));
    assert!(tagged.iter().all(|request| request.param("CallSid").is_none()), "no call state");
    assert_eq!(world.app.requests_for("/never").len(), 2, "never kept");
    world.finish()
}

#[test]
fn med_02_many_calls_make_one_request() -> Result<()> {
    let slow = Page::of("audio/wav", tone_wav(700.0, 500)).after(Duration::from_millis(700));
    let slow = slow.header("Cache-Control", "max-age=60");
    let world = Setup::with("<Play>/slow</Play>")?.page("/slow", slow).begin()?;
    let phones: Vec<_> = (0..12).map(|_| world.call(hears(&[700.0]))).collect::<Result<_>>()?;
    for phone in &phones {
        ended(phone)?;
    }
    assert_eq!(world.app.requests_for("/slow").len(), 1);
    world.finish()
}

#[test]
fn med_03_usual_formats_become_what_the_leg_needs() -> Result<()> {
    let file = |name: &str| std::fs::read(root().join("tests/conformance/media").join(name));
    let stereo: Vec<i16> = tone(700.0, 1_000, 44_100).into_iter().flat_map(|s| [s, s]).collect();
    let mut ulaw = Vec::new();
    for sample in tone(700.0, 1_000, 8_000) {
        ulaw.push(media_core::codec::g711::encode_ulaw_sample(sample));
    }
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("mp3", "audio/mpeg", file("tone-700.mp3")?),
        ("ogg", "audio/ogg", file("tone-700.ogg")?),
        ("flac", "audio/flac", file("tone-700.flac")?),
        ("aiff", "audio/aiff", file("tone-700.aiff")?),
        ("stereo", "audio/wav", audio::wav(44_100, 2, &stereo)),
        ("wide", "audio/x-wav", audio::wav(48_000, 1, &tone(700.0, 1_000, 48_000))),
        ("ulaw", "audio/basic", ulaw),
    ];
    let mut setup = Setup::new()?.page("/fallback", Page::verbs("<Reject/>"));
    for (index, (name, kind, bytes)) in cases.iter().enumerate() {
        let path = format!("/file-{name}");
        setup.app.page(&path, Page::of(kind, bytes.clone()));
        setup.app.page(&format!("/play-{name}"), Page::verbs(&format!("<Play>{path}</Play>")));
        setup = setup.number(&format!("+155520{index:02}"), &format!("/play-{name}"));
    }
    let world = setup.begin()?;
    let phones: Vec<_> = (0..cases.len())
        .map(|index| world.bank.add(world.caller(&format!("+155520{index:02}"), hears(&[700.0]))))
        .collect::<Result<_, _>>()?;
    for (phone, (name, _, _)) in phones.iter().zip(&cases) {
        let report = ended(phone).with_context(|| (*name).to_owned())?;
        let ms = sound_ms(&report);
        assert!((900..1_150).contains(&ms), "{name}: {ms} ms");
    }
    world.finish()
}

#[test]
fn med_05_say_speaks_text_as_asked_and_keeps_it() -> Result<()> {
    let world = Setup::new()?
        .number("+15550031", "/plain")
        .number("+15550032", "/break")
        .number("+15550033", "/twice")
        .page("/plain", Page::verbs("<Say>One two three four five.</Say>"))
        .page("/break", Page::verbs("<Say>One two three <break time='1500ms'/> four five.</Say>"))
        .page("/twice", Page::verbs("<Say loop='2'>One two three four five.</Say>"))
        .begin()?;
    let mut lengths = Vec::new();
    for number in ["+15550031", "+15550032", "+15550033", "+15550031"] {
        let report = ended(&world.bank.add(world.caller(number, listens()))?)?;
        let (first, last) =
            (report.bursts.first().context("speech")?, report.bursts.last().context("speech")?);
        let pause =
            report.bursts.windows(2).map(|w| (w[1].onset_ns - w[0].end_ns) / 1_000_000).max();
        lengths.push(((last.end_ns - first.onset_ns) / 1_000_000, pause.unwrap_or(0)));
    }
    let [(plain, _), (_, pause), (twice, _), (again, _)] = lengths[..] else {
        anyhow::bail!("four")
    };
    assert!((700..4_000).contains(&plain), "{lengths:?}");
    assert!(pause >= 1_400, "{lengths:?}");
    assert!(twice > plain * 17 / 10, "{lengths:?}");
    assert!(again.abs_diff(plain) < 60, "the same audio: {lengths:?}");
    world.finish()
}

#[test]
fn med_09_a_prompt_crosses_between_the_regions_once() -> Result<()> {
    let mut setup = Setup::with("<Play>/long</Play>")?.two_regions(30.0);
    setup.app.page(
        "/long",
        Page::of("audio/wav", tone_wav(700.0, 2_000)).header("Cache-Control", "max-age=60"),
    );
    setup.eu.media_timeout_s = 10;
    let world = setup.begin()?;
    let sent = || http::metric(world.control.admin, "tandem_link_prompt_bytes_total");
    let mut bytes = Vec::new();
    for _ in 0..3 {
        world.call_through(hears(&[700.0]))?;
        bytes.push(sent()?);
    }
    assert!(bytes[0] > 10_000.0, "{bytes:?}");
    assert_eq!((bytes[0], bytes[1]), (bytes[1], bytes[2]), "the edge keeps what it played");
    world.finish()
}

struct Kept {
    record: serde_json::Value,
    channels: Vec<Vec<i16>>,
}

/// The only recording of a call, when it is there.
fn recording_of(world: &World, sid: &str) -> Result<Kept> {
    let mut record = serde_json::Value::Null;
    wait_for("the recording", LIMIT, || {
        let page = world.api(&format!("/Calls/{sid}/Recordings.json"))?;
        record = page["recordings"][0].clone();
        Ok(text(&record, "status") == "completed")
    })
    .with_context(|| record.to_string())?;
    let media = http::get(text(&record, "media_url"), None)?;
    anyhow::ensure!(media.status == 200, "{}", media.text());
    let (channels, rate_hz) = audio::read_wav(&media.body)?;
    anyhow::ensure!(rate_hz == 8_000, "{rate_hz} Hz");
    Ok(Kept { record, channels })
}

#[test]
fn med_10_record_keeps_what_was_said() -> Result<()> {
    let world =
        Setup::with("<Record action='/done' finishOnKey='#' playBeep='true' trim='do-not-trim'/>")?
            .page("/done", Page::verbs("<Pause/>"))
            .begin()?;
    // The beep, five seconds of a tone, a key.
    let steps = [
        Step::WaitAnswer(5_000),
        Step::WaitSound { within_ms: 5_000 },
        Step::WaitSilence { for_ms: 200, within_ms: 3_000 },
        Step::Say(tandem_load::Source::Tone(ALICE_HZ)),
        Step::Wait(5_000),
        Step::Say(tandem_load::Source::Silence),
        Step::digits("#"),
    ];
    let alice = world.bank.add(world.caller(NUMBER, steps).say(tandem_load::Source::Silence))?;
    ended(&alice)?;
    let kept = recording_of(&world, &world.sid_of(&alice)?)?;
    assert_eq!(kept.channels.len(), 1);
    let samples = &kept.channels[0];
    let length_ms = samples.len() as u32 / 8;
    let said_ms = tone_ms(samples, ALICE_HZ);
    assert!((4_850..=5_150).contains(&said_ms), "{said_ms} ms of {length_ms} ms");
    assert!((5_000..6_000).contains(&length_ms), "{length_ms} ms");
    let seconds: u32 = text(&kept.record, "duration").parse()?;
    assert_eq!(seconds, length_ms.div_ceil(1_000));
    assert_eq!(text(&kept.record, "source"), "RecordVerb");
    world.finish()
}

#[test]
fn med_10_a_conversation_is_recorded_in_two_channels() -> Result<()> {
    let verbs = format!("<Dial record='record-from-answer-dual'>{BOB}</Dial>");
    let world = Setup::with(&verbs)?.begin()?;
    let bob = world.bank.add(
        world
            .callee([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(4_000), Step::Hangup])
            .say(tandem_load::Source::Tone(BOB_HZ)),
    )?;
    let alice = world.caller(NUMBER, hears(&[BOB_HZ])).say(tandem_load::Source::Tone(ALICE_HZ));
    let alice = world.bank.add(alice)?;
    ended(&alice)?;
    let callee = ended(&bob)?;
    let talked_ms = callee
        .answered_ns
        .zip(callee.end.as_ref())
        .map(|(from, end)| (end.at_ns - from) / 1_000_000);
    let talked_ms = talked_ms.context("answered")? as f64;
    let kept = recording_of(&world, &world.sid_of(&alice)?)?;
    assert_eq!(kept.channels.len(), 2);
    assert_eq!(text(&kept.record, "source"), "DialVerb");
    let length_ms = kept.channels[0].len() as f64 / 8.0;
    assert!(
        (length_ms - talked_ms).abs() < talked_ms * 0.01 + 60.0,
        "{length_ms} of {talked_ms} ms"
    );
    let said = |channel: usize, hz| f64::from(tone_ms(&kept.channels[channel], hz));
    let caller_channel = usize::from(said(1, ALICE_HZ) > said(0, ALICE_HZ));
    assert!(said(caller_channel, ALICE_HZ) > length_ms * 0.9);
    assert!(said(1 - caller_channel, BOB_HZ) > length_ms * 0.9);
    assert!(said(caller_channel, BOB_HZ) < 200.0 && said(1 - caller_channel, ALICE_HZ) < 200.0);
    world.finish()
}

#[test]
fn med_10_a_recording_survives_the_end_of_control() -> Result<()> {
    let mut world =
        Setup::with("<Record action='/done' maxLength='3' playBeep='false' trim='do-not-trim'/>")?
            .page("/done", Page::verbs("<Play>/short.wav</Play>"))
            .begin()?;
    let steady = tandem_load::Source::Tone(ALICE_HZ);
    let alice = world.bank.add(world.caller(NUMBER, hears(&[])).say(steady))?;
    let sid = world.sid_of(&alice)?;
    alice.wait_answered(LIMIT)?;
    e2e::pause_ms(1_500);
    world.control.process.kill()?;
    e2e::pause_ms(500);
    world.rig.control_again(&mut world.control)?;
    ended(&alice)?;
    let kept = recording_of(&world, &sid)?;
    let said_ms = tone_ms(&kept.channels[0], ALICE_HZ);
    assert!((2_900..=3_050).contains(&said_ms), "{said_ms} ms");
    world.finish()
}
