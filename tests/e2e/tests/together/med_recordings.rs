//! MED-10: recordings that the API starts, or an option of the call.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::audio::{self, tone_ms};
use e2e::tools::{self, sh};
use e2e::world::{LIMIT, ended, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World};
use serde_json::Value;
use tandem_load::{PhoneHandle, Source, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{Page, http};

/// The recording with this SID when its bytes are there, and its channels.
fn completed(world: &World, sid: &str) -> Result<(Value, Vec<Vec<i16>>)> {
    let mut record = Value::Null;
    wait_for("the recording", LIMIT, || {
        record = world.api(&format!("/Recordings/{sid}.json"))?;
        Ok(text(&record, "status") == "completed")
    })
    .with_context(|| record.to_string())?;
    let media = http::get(text(&record, "media_url"), None)?;
    let (channels, rate_hz) = audio::read_wav(&media.body)?;
    anyhow::ensure!(rate_hz == 8_000, "{rate_hz} Hz");
    Ok((record, channels))
}

/// Two people who talk until the callee hangs up after so many ms; the caller's CallSid.
fn conversation(world: &World, talk_ms: u64) -> Result<(PhoneHandle, PhoneHandle, String)> {
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(talk_ms), Step::Hangup];
    let bob = world.bank.add(world.callee(talk).say(Source::Tone(BOB_HZ)))?;
    let steps = [Step::WaitAnswer(10_000), Step::wait_tone(BOB_HZ)];
    let alice = world.bank.add(world.caller(NUMBER, steps).say(Source::Tone(ALICE_HZ)))?;
    alice.wait_answered(LIMIT)?;
    let sid = world.sid_of(&alice)?;
    wait_for("both to hear each other", LIMIT, || Ok(bob.report()?.heard_tone(ALICE_HZ)))?;
    Ok((alice, bob, sid))
}

fn start(world: &World, call: &str, form: &[(&str, &str)]) -> Result<String> {
    let (status, record) = world.api_post(&format!("/Calls/{call}/Recordings.json"), form)?;
    anyhow::ensure!(status == 201, "{status} {record}");
    assert_eq!(text(&record, "status"), "in-progress");
    assert_eq!(text(&record, "source"), "StartCallRecordingAPI");
    Ok(text(&record, "sid").to_owned())
}

fn change(world: &World, call: &str, name: &str, form: &[(&str, &str)]) -> Result<Value> {
    let (status, record) =
        world.api_post(&format!("/Calls/{call}/Recordings/{name}.json"), form)?;
    anyhow::ensure!(status == 200, "{status} {record}");
    Ok(record)
}

fn dialled() -> Result<World> {
    Setup::with(&format!("<Dial>{BOB}</Dial>"))?.begin()
}

#[test]
fn med_10_an_option_of_the_call_records_both_directions() -> Result<()> {
    let world = Setup::new()?
        .page(
            "/script",
            Page::verbs("<Play>/700.wav</Play><Pause length='1'/><Play>/900.wav</Play>"),
        )
        .begin()?;
    let bob = world.bank.add(world.callee([Step::Answer]).say(Source::Tone(BOB_HZ)))?;
    let (script, status) = (world.app.url("/script"), world.app.url("/status"));
    let sid = world.create_call(&[
        ("To", BOB),
        ("From", NUMBER),
        ("Url", &script),
        ("Record", "true"),
        ("RecordingChannels", "dual"),
        ("RecordingStatusCallback", &status),
        ("RecordingStatusCallbackEvent", "in-progress completed"),
    ])?;
    ended(&bob)?;
    let rows = world.api(&format!("/Calls/{sid}/Recordings.json"))?;
    let name = text(&rows["recordings"][0], "sid").to_owned();
    let (record, channels) = completed(&world, &name)?;
    assert_eq!((text(&record, "source"), text(&record, "track")), ("OutboundAPI", "both"));
    assert_eq!(channels.len(), 2);
    let length_ms = channels[0].len() as u32 / 8;
    assert!((2_500..3_200).contains(&length_ms), "{length_ms} ms");
    assert!(tone_ms(&channels[0], BOB_HZ) * 10 > length_ms * 9, "what it said");
    let heard = [700.0, 900.0].map(|hz| tone_ms(&channels[1], hz));
    assert!(heard.iter().all(|ms| (700..=850).contains(ms)), "what it heard: {heard:?}");
    assert!(tone_ms(&channels[1], BOB_HZ) < 100);
    wait_for("callbacks of the recording", LIMIT, || {
        let told = world.app.requests_for("/status");
        let told = told.iter().filter_map(|request| request.param("RecordingStatus"));
        Ok(told.collect::<Vec<_>>() == ["in-progress", "completed"])
    })?;
    world.finish()
}

#[test]
fn med_10_the_api_records_a_conversation_without_touching_it() -> Result<()> {
    let world = dialled()?;
    let (alice, bob, call) = conversation(&world, 7_500)?;
    let both = start(&world, &call, &[("RecordingChannels", "dual")])?;
    let inbound = start(&world, &call, &[("RecordingTrack", "inbound")])?;
    let outbound = start(&world, &call, &[("RecordingTrack", "outbound")])?;
    let mix = start(&world, &call, &[])?;
    e2e::pause_ms(2_000);
    // The one that was started last stops; the second is interrupted for a second.
    assert_eq!(
        text(&change(&world, &call, "Twilio.CURRENT", &[("Status", "stopped")])?, "sid"),
        mix
    );
    let paused = [("Status", "paused"), ("PauseBehavior", "silence")];
    assert_eq!(text(&change(&world, &call, &inbound, &paused)?, "status"), "paused");
    let paused = [("Status", "paused"), ("PauseBehavior", "skip")];
    assert_eq!(text(&change(&world, &call, &outbound, &paused)?, "status"), "paused");
    e2e::pause_ms(1_500);
    for name in [&inbound, &outbound] {
        change(&world, &call, name, &[("Status", "in-progress")])?;
    }
    e2e::pause_ms(1_500);
    change(&world, &call, &both, &[("Status", "stopped")])?;
    let again = world
        .api_post(&format!("/Calls/{call}/Recordings/{both}.json"), &[("Status", "paused")])?;
    assert_eq!(again.0, 404, "{again:?}");
    ended(&alice)?;
    ended(&bob)?;

    let (record, channels) = completed(&world, &both)?;
    let length_ms = channels[0].len() as u32 / 8;
    assert!((4_800..6_300).contains(&length_ms), "{length_ms} ms");
    assert_eq!(channels.len(), 2);
    for (channel, own, other) in [(0, ALICE_HZ, BOB_HZ), (1, BOB_HZ, ALICE_HZ)] {
        let said_ms = tone_ms(&channels[channel], own);
        assert!(said_ms * 100 > length_ms * 95, "{channel}: {said_ms} of {length_ms} ms");
        assert!(tone_ms(&channels[channel], other) < 100, "{channel}");
    }
    assert_eq!(record["channels"], 2);
    let (_, mixed) = completed(&world, &mix)?;
    assert_eq!(mixed.len(), 1);
    let mixed_ms = mixed[0].len() as u32 / 8;
    assert!((1_800..2_800).contains(&mixed_ms), "{mixed_ms} ms");
    for hz in [ALICE_HZ, BOB_HZ] {
        assert!(tone_ms(&mixed[0], hz) * 100 > mixed_ms * 90, "{hz}");
    }
    let (_, silent) = completed(&world, &inbound)?;
    let (silent_ms, said_ms) = (silent[0].len() as u32 / 8, tone_ms(&silent[0], ALICE_HZ));
    assert!((1_350..2_000).contains(&(silent_ms - said_ms)), "{said_ms} of {silent_ms} ms");
    assert!(tone_ms(&silent[0], BOB_HZ) < 100);
    let (_, skipped) = completed(&world, &outbound)?;
    let (skipped_ms, said_ms) = (skipped[0].len() as u32 / 8, tone_ms(&skipped[0], BOB_HZ));
    assert!(skipped_ms + 1_200 < silent_ms, "{skipped_ms} {silent_ms} ms");
    assert!(said_ms * 100 > skipped_ms * 93, "{said_ms} of {skipped_ms} ms");
    // The same audio as MP3 and as Opus, in both channels.
    let folder = tempfile::tempdir()?;
    for (extension, mime) in [("mp3", "audio/mpeg"), ("ogg", "audio/ogg; codecs=opus")] {
        let url = format!("{}.{extension}", text(&record, "media_url"));
        let file = http::get(&url, None)?;
        assert_eq!((file.status, file.content_type.as_str()), (200, mime));
        assert!(file.body.len() < channels[0].len() * 2, "{} bytes", file.body.len());
        let path = folder.path().join(format!("a.{extension}"));
        std::fs::write(&path, &file.body)?;
        let wav = folder.path().join("a.wav");
        sh(&format!("ffmpeg -loglevel error -y -i {} -ar 8000 {}", path.display(), wav.display()))?;
        let (decoded, _) = audio::read_wav(&std::fs::read(&wav)?)?;
        assert_eq!(decoded.len(), 2, "{extension}");
        for (channel, hz) in [(0, ALICE_HZ), (1, BOB_HZ)] {
            let said_ms = tone_ms(&decoded[channel], hz);
            assert!(said_ms * 100 > length_ms * 90, "{extension} {channel}: {said_ms} ms");
        }
    }
    world.finish()
}

#[test]
fn med_10_silence_at_both_ends_is_trimmed() -> Result<()> {
    let world = Setup::new()?
        .page("/script", Page::verbs("<Pause length='1'/><Play>/700.wav</Play><Pause length='2'/>"))
        .begin()?;
    let bob = world.bank.add(world.callee([Step::Answer]).say(Source::Silence))?;
    let script = world.app.url("/script");
    let sid = world.create_call(&[
        ("To", BOB),
        ("From", NUMBER),
        ("Url", &script),
        ("Record", "true"),
        ("Trim", "trim-silence"),
    ])?;
    ended(&bob)?;
    let rows = world.api(&format!("/Calls/{sid}/Recordings.json"))?;
    let (_, channels) = completed(&world, text(&rows["recordings"][0], "sid"))?;
    let length_ms = channels[0].len() as u32 / 8;
    assert!((800..1_200).contains(&length_ms), "{length_ms} ms of 3.8 s");
    assert!(tone_ms(&channels[0], 700.0) >= 700);
    world.finish()
}

#[test]
fn med_10_a_recorded_conversation_survives_the_end_of_control() -> Result<()> {
    let mut world = dialled()?;
    let (alice, bob, call) = conversation(&world, 6_500)?;
    let name = start(&world, &call, &[("RecordingChannels", "dual")])?;
    e2e::pause_ms(1_500);
    world.control.process.kill()?;
    e2e::pause_ms(700);
    world.rig.control_again(&mut world.control)?;
    ended(&alice)?;
    ended(&bob)?;
    let (_, channels) = completed(&world, &name)?;
    let length_ms = channels[0].len() as u32 / 8;
    assert!(length_ms > 5_000, "{length_ms} ms: to the end of the call");
    for (channel, hz) in [(0, ALICE_HZ), (1, BOB_HZ)] {
        let said_ms = tone_ms(&channels[channel], hz);
        assert!(said_ms * 100 > length_ms * 95, "{said_ms} of {length_ms} ms");
    }
    world.finish()
}

#[test]
fn med_10_a_recorded_conversation_survives_the_end_of_the_edge() -> Result<()> {
    let mut world = dialled()?;
    let (_alice, _bob, call) = conversation(&world, 60_000)?;
    let name = start(&world, &call, &[("RecordingChannels", "dual")])?;
    e2e::pause_ms(3_000);
    world.eu.process.kill()?;
    e2e::pause_ms(300);
    world.rig.edge_again(&mut world.eu)?;
    let (_, channels) = completed(&world, &name)?;
    let length_ms = channels[0].len() as u32 / 8;
    assert!((2_000..4_000).contains(&length_ms), "{length_ms} ms of 3 s");
    for (channel, hz) in [(0, ALICE_HZ), (1, BOB_HZ)] {
        assert!(tone_ms(&channels[channel], hz) * 100 > length_ms * 90);
    }
    world.finish()
}

#[test]
fn med_10_the_stock_sdk_starts_and_stops_a_recording() -> Result<()> {
    let world = dialled()?;
    let (alice, bob, call) = conversation(&world, 6_000)?;
    let mut command = Command::new(tools::python());
    command.arg(tools::conformance("sdk_recording.py")).arg(world.control.url(""));
    command.args([ACCOUNT, TOKEN, &call]);
    tools::run(command, Duration::from_secs(20))?;
    ended(&alice)?;
    ended(&bob)?;
    world.finish()
}
