//! LAT-10: keys by RFC 4733, by SIP INFO and in the audio.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::world::{LIMIT, ended, hears, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World, assert_no_gap, audio, tools};
use tandem_load::{DigitMethod, EventKind, Source, Step};
use tandem_rig::Page;

fn press(digits: &str, method: DigitMethod) -> Step {
    Step::Digits { digits: digits.to_owned(), method }
}

/// A conversation that a key of the caller ends, after one that means nothing.
fn ended_by_key(world: &World, key: char, method: DigitMethod, events: bool) -> Result<()> {
    let mut steps = hears(&[BOB_HZ]);
    steps.extend([press("5", method), Step::Wait(1_200), press(&key.to_string(), method)]);
    steps.push(Step::wait_tone(900.0));
    let alice = world.caller(NUMBER, steps).events(events);
    let alice = world.bank.add(alice)?;
    let alice_saw = ended(&alice)?;
    let pressed = |digit: char| {
        alice_saw.when(|kind| matches!(kind, EventKind::DigitSent { digit: d, .. } if *d == digit))
    };
    let (idle, star) = (pressed('5').context("5")?, pressed(key).context("key")?);
    let sid = world.sid_of(&alice)?;
    let children = world.api(&format!("/Calls.json?ParentCallSid={sid}"))?;
    let callee = children["calls"].as_array().and_then(|calls| calls.first()).context("callee")?;
    let callee = world.wait_status(text(callee, "sid"), "completed")?;
    assert_eq!(text(&callee, "status"), "completed", "{method:?}");
    let goodbye = alice_saw.heard.iter().find(|heard| heard.is(900.0));
    let after_ms = (goodbye.context("goodbye")?.from_ns - star) / 1_000_000;
    assert!(after_ms < 1_500, "{method:?}: {after_ms} ms after the key");
    assert!(star - idle > 1_000_000_000, "the first key ended nothing");
    let labels: Vec<String> = world
        .modes(&sid)?
        .into_iter()
        .filter(|(verb, _)| verb.contains("Dial"))
        .flat_map(|(_, labels)| labels)
        .collect();
    assert!(labels.iter().any(|label| label == "hairpin"), "{labels:?}");
    assert_no_gap(&alice_saw);
    Ok(())
}

#[test]
fn lat_10_any_configured_key_by_rtp_info_or_in_the_audio() -> Result<()> {
    let verbs =
        format!("<Dial hangupOnStar='true' hangupOnKey='#9'>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?.begin()?;
    let bob = world.answer([Step::Ring(100), Step::Answer])?;
    for (key, method, events) in [
        ('#', DigitMethod::Rfc4733, true),
        ('9', DigitMethod::Info, true),
        ('*', DigitMethod::InfoDtmf, true),
        ('#', DigitMethod::Inband, false),
        ('*', DigitMethod::Info, false),
    ] {
        ended_by_key(&world, key, method, events)
            .with_context(|| format!("{key} by {method:?}, events {events}"))?;
    }
    let callee = bob.reports()?;
    assert_eq!(callee.len(), 5);
    assert!(callee.iter().all(|r| r.end.as_ref().is_some_and(|end| end.how == "bye")));
    assert_eq!(world.eu.metric("tandem_edge_trunk_packets_sent_total")?, 0.0);
    world.finish()
}

/// What `Gather` makes of keys.
fn gathered(world: &World, steps: &[Step], events: bool) -> Result<String> {
    let before = world.app.requests_for("/keys").len();
    let mut script = hears(&[700.0]);
    script.extend(steps.iter().cloned());
    script.push(Step::wait_tone(900.0));
    let alice = world.bank.add(world.caller(NUMBER, script).events(events))?;
    ended(&alice)?;
    let requests = world.app.requests_for("/keys");
    ensure!(requests.len() == before + 1, "{requests:?}");
    Ok(requests[before].param("Digits").unwrap_or_default().to_owned())
}

fn gathering(digits: u32) -> Result<World> {
    let verbs =
        format!("<Gather numDigits='{digits}' action='/keys'><Play>/700.wav</Play></Gather>");
    Setup::with(&verbs)?.page("/keys", Page::verbs("<Play>/900.wav</Play>")).begin()
}

#[test]
fn lat_10_keys_by_info_and_in_the_audio_are_gathered() -> Result<()> {
    let world = gathering(4)?;
    let all = [
        press("1", DigitMethod::Info),
        press("2", DigitMethod::Inband),
        press("3", DigitMethod::InfoDtmf),
        press("D", DigitMethod::Inband),
    ];
    assert_eq!(gathered(&world, &all, false)?, "123D");
    let beside_events = [
        press("7", DigitMethod::Rfc4733),
        press("8", DigitMethod::Info),
        press("9#", DigitMethod::InfoDtmf),
    ];
    // The finish key is not part of the result.
    assert_eq!(gathered(&world, &beside_events, true)?, "789");
    world.finish()
}

#[test]
fn lat_10_a_key_that_is_signalled_twice_counts_once() -> Result<()> {
    let world = gathering(3)?;
    let twice = |first, second| {
        [press("5", first), press("5", second), Step::Wait(1_100), press("57", first)]
    };
    let (rtp, info, inband) = (DigitMethod::Rfc4733, DigitMethod::Info, DigitMethod::Inband);
    // With events agreed, tones in the audio are speech, and cost nothing.
    for (first, second, events) in [
        (rtp, info, true),
        (info, rtp, true),
        (rtp, inband, true),
        (inband, info, false),
        (info, inband, false),
    ] {
        let digits = gathered(&world, &twice(first, second), events)
            .with_context(|| format!("{first:?} and {second:?}"))?;
        assert_eq!(digits, "557", "{first:?} and {second:?}");
    }
    world.finish()
}

/// Speech of several voices at 8 kHz.
fn speech(world: &World) -> Result<Vec<i16>> {
    let text = "She had your dark suit in greasy wash water all year. Do not ask me to carry an \
                oily rag like that. One, two, three, four, five, six, seven, eight, nine, zero, \
                star and hash. Who knows where you are? We were away a year ago, you see. Bee, \
                dee, ee, gee, pee, tee, vee: a tea for two in the blue room, please.";
    let mut samples = Vec::new();
    for (index, voice) in ["en+f3", "en-us+m3"].iter().enumerate() {
        let wav = world.rig.folder().join(format!("voice-{index}.wav"));
        let narrow = world.rig.folder().join(format!("narrow-{index}.wav"));
        let mut speak = Command::new("espeak-ng");
        speak.args(["-v", voice, "-s", "170", "-a", "180", "-w"]).arg(&wav).arg(text);
        tools::run(speak, LIMIT)?;
        let mut convert = Command::new("sox");
        convert.arg(&wav).args(["-r", "8000", "-c", "1", "-b", "16"]).arg(&narrow);
        tools::run(convert, LIMIT)?;
        let (channels, _) = audio::read_wav(&std::fs::read(&narrow)?)?;
        samples.extend(channels.into_iter().flatten());
    }
    Ok(samples)
}

#[test]
fn lat_10_speech_is_no_key() -> Result<()> {
    let all = "0123456789*#";
    let verbs = format!("<Dial hangupOnKey='{all}'>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?.begin()?;
    let bob = world.answer([Step::Answer])?;
    let speech = speech(&world)?;
    let length_ms = speech.len() as u64 / 8;
    ensure!(length_ms > 25_000, "{length_ms} ms of speech");
    let mut steps = hears(&[BOB_HZ]);
    let say = Source::Once(speech.into());
    steps.extend([Step::Say(say), Step::Wait(length_ms), press("4", DigitMethod::Inband)]);
    steps.push(Step::wait_tone(900.0));
    let alice = world.bank.add(world.caller(NUMBER, steps).tone(ALICE_HZ).events(false))?;
    alice.wait_ended(std::time::Duration::from_millis(length_ms + 12_000))?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    let key = alice_saw.when(|kind| matches!(kind, EventKind::DigitSent { .. })).context("key")?;
    let end_ns = bob_saw.end.context("end")?.at_ns;
    assert!(end_ns > key, "a word ended the conversation {} ms early", (key - end_ns) / 1_000_000);
    world.finish()
}
