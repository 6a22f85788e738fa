//! OPS-01: a new configuration while calls are up, and the end of a process.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::raw::{Raw, header};
use e2e::world::{LIMIT, ended, hears};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World, assert_undisturbed};
use tandem_load::{PhoneHandle, Step};
use tandem_rig::process::wait_for;
use tandem_rig::{Page, http};

/// Changes a configuration file.
fn edit(file: &Path, changes: &[(&str, &str)]) -> Result<()> {
    let mut text = std::fs::read_to_string(file)?;
    for (from, to) in changes {
        ensure!(text.contains(from), "{from:?} is not in\n{text}");
        text = text.replacen(from, to, 1);
    }
    Ok(std::fs::write(file, text)?)
}

fn reload(admin: std::net::SocketAddr) -> Result<(u16, String)> {
    let answer = http::post(&format!("http://{admin}/reload"), None, &[])?;
    Ok((answer.status, answer.text()))
}

fn log_level(admin: std::net::SocketAddr) -> Result<String> {
    Ok(http::get(&format!("http://{admin}/log"), None)?.text())
}

fn conversation(world: &World, ms: u64) -> Result<[PhoneHandle; 2]> {
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(ms), Step::Hangup];
    let bob = world.answer(talk)?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    Ok([alice, bob])
}

#[test]
fn ops_01_an_edge_takes_a_new_configuration_while_calls_are_up() -> Result<()> {
    let verbs = format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?
        .number("+15550061", "/greeting")
        .page("/greeting", Page::verbs("<Play>/900.wav</Play>"))
        .two_regions(20.0)
        .begin()?;
    let (admin, file) = (world.eu.admin, world.eu.config.clone());
    let good = std::fs::read_to_string(&file)?;
    let phones = conversation(&world, 7_000)?;

    // A wrong file changes nothing and says all that is wrong with it.
    edit(&file, &[("legs_max = 100", "legs_max = 1\nnonsense = 5"), ("127.0.0.0/8", "no/net")])?;
    let (status, why) = reload(admin)?;
    assert_eq!(status, 400);
    for word in ["nothing is changed", "sip.legs_max", "nonsense", "no/net"] {
        assert!(why.contains(word), "{word} is not in:\n{why}");
    }
    assert!(!log_level(admin)?.contains("debug"));

    // What can change does; what cannot is named.
    std::fs::write(&file, &good)?;
    edit(
        &file,
        &[
            ("127.0.0.0/8", "127.0.0.9/32"),
            ("\n[resources]\n", "\n[resources]\nplay = false\n"),
            ("control_lost_hold_s = 30", "control_lost_hold_s = 31"),
            ("\n[sip]\n", "\n[log]\nlevel = \"info,edge=debug\"\n\n[sip]\n"),
            ("\n[trunk]\n", "\n[trunk]\ncalls_max = 77\n"),
        ],
    )?;
    let (status, told) = reload(admin)?;
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("trunk.calls_max") && told.contains("restart"), "{told}");
    assert!(!told.contains("provider") && !told.contains("resources"), "{told}");
    assert!(log_level(admin)?.contains("edge=debug"));
    let (stranger, listed) = (Raw::bind("127.0.0.1")?, Raw::bind("127.0.0.9")?);
    let uri = world.uri(NUMBER);
    stranger.send(world.eu.sip, stranger.invite(&uri, "s1", "")?.as_bytes())?;
    assert_eq!(stranger.receive(), None, "not a provider any more");
    let options = listed.invite(&uri, "o1", "")?.replace("INVITE", "OPTIONS");
    listed.send(world.eu.sip, options.as_bytes())?;
    assert!(listed.receive().is_some(), "one now");

    // The conversation ends by itself; its goodbye comes from the core, because the region does
    // not play any more.
    let [alice, bob] = phones;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    assert_undisturbed(&alice_saw);
    assert_undisturbed(&bob_saw);
    let plays = |alice: &PhoneHandle| -> Result<Vec<String>> {
        let modes = world.modes(&world.sid_of(alice)?)?;
        Ok(modes.into_iter().filter(|(verb, _)| verb == "Play").flat_map(|(_, l)| l).collect())
    };
    assert_eq!(plays(&alice)?, ["backhaul"]);

    // Back again, by signal.
    std::fs::write(&file, &good)?;
    world.eu.process.signal("HUP")?;
    wait_for("the log level", LIMIT, || Ok(!log_level(admin)?.contains("debug")))?;
    let alice = world.bank.add(world.caller("+15550061", hears(&[900.0])))?;
    ended(&alice)?;
    assert_eq!(plays(&alice)?, ["local"]);
    world.finish()
}

#[test]
fn ops_01_control_takes_a_new_configuration_while_calls_are_up() -> Result<()> {
    let verbs = format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?.page("/new", Page::verbs("<Play>/1100.wav</Play>")).begin()?;
    let (admin, file) = (world.control.admin, world.control.config.clone());
    let good = std::fs::read_to_string(&file)?;
    let [alice, bob] = conversation(&world, 5_000)?;
    let new = "+15550099";
    let lost = |world: &World| -> Result<Option<u16>> {
        let phone = world.bank.add(world.caller(new, [Step::WaitAnswer(5_000)]))?;
        Ok(phone.wait_ended(LIMIT)?.end.and_then(|end| end.status))
    };
    assert_eq!(lost(&world)?, Some(404), "not a number of ours yet");

    edit(
        &file,
        &[("\n[api]\n", "\n[api]\nlisten_on = 5\n"), ("voice_url = \"http", "voice_url = \"ftp")],
    )?;
    let (status, why) = reload(admin)?;
    assert_eq!(status, 400);
    assert!(why.contains("listen_on") && why.contains("voice_url"), "{why}");
    assert_eq!(lost(&world)?, Some(404), "nothing is changed");

    let number = format!(
        "{good}\n[[number]]\nnumber = \"{new}\"\naccount = \"{}\"\nvoice_url = \"{}\"\n\
         \n[log]\nlevel = \"info,control=debug\"\n\n[drain]\nmax_s = 9\n",
        tandem_rig::rig::ACCOUNT,
        world.app.url("/new")
    );
    std::fs::write(&file, number)?;
    world.control.process.signal("HUP")?;
    let url = format!("http://{admin}/log");
    wait_for("the log level", LIMIT, || {
        Ok(http::get(&url, None)?.text().contains("control=debug"))
    })?;
    wait_for("what cannot change to be named", LIMIT, || {
        Ok(world.control.process.log().contains("drain.max_s"))
    })?;
    let caller = world.bank.add(world.caller(new, hears(&[1100.0])))?;
    ended(&caller)?;
    // Limits of calls: new ones are refused, those that are up go on.
    let full = std::fs::read_to_string(&file)? + "\n[calls]\nsessions_max = 1\n";
    std::fs::write(&file, full)?;
    let (status, told) = reload(admin)?;
    assert_eq!(status, 200, "{told}");
    assert_eq!(lost(&world)?, Some(503));
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    assert_undisturbed(&alice_saw);
    assert_undisturbed(&bob_saw);
    world.finish()
}

#[test]
fn ops_01_patience_at_the_end_is_bounded() -> Result<()> {
    let mut world = Setup::with("<Play loop='0'>/700.wav</Play>")?
        .edge(|edge| edge.media_more = "\n[drain]\nmax_s = 4\n".to_owned())
        .begin()?;
    let alice = world.call([Step::WaitAnswer(5_000), Step::wait_tone(700.0)])?;
    alice.wait(LIMIT, |report| report.heard_tone(700.0))?;
    world.eu.process.signal("TERM")?;
    wait_for("drain", LIMIT, || Ok(world.eu.metric("tandem_edge_drain_active_state")? == 1.0))?;
    let raw = Raw::bind("127.0.0.1")?;
    raw.send(world.eu.sip, raw.invite(&world.uri(NUMBER), "d1", "")?.as_bytes())?;
    let refused = raw.final_response().context("refusal")?;
    assert!(refused.starts_with("SIP/2.0 503"), "{refused}");
    assert!(header(&refused, "Retry-After").is_some(), "{refused}");
    // Control gives it nothing new either.
    wait_for("control to know", LIMIT, || {
        let form = [("To", BOB), ("From", NUMBER), ("Url", "http://127.0.0.1:9/none")];
        let (status, call) = world.api_post("/Calls.json", &form)?;
        ensure!(status == 503 || status == 201, "{status} {call}");
        Ok(status == 503)
    })?;
    assert!(world.eu.process.ended()?.is_none(), "it is still there");
    let alice_saw = ended(&alice)?;
    let end = alice_saw.end.context("end")?;
    assert_eq!(end.how, "bye");
    wait_for("the edge to end", LIMIT, || Ok(world.eu.process.ended()?.is_some()))?;
    assert_eq!(world.eu.process.ended()?, Some(true));
    world.control.stop()
}
