//! LAT-02: an edge and several control nodes, of different regions.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::raw::{Raw, header};
use e2e::world::{LIMIT, ended, hears, is_terminal};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World, assert_undisturbed};
use tandem_load::Step;
use tandem_rig::process::wait_for;
use tandem_rig::{ControlPlan, NumberPlan, Page, http};

/// Both run [`NUMBER`], each its own application; the one in `us` comes second.
fn two_controls() -> Result<World> {
    let verbs = format!("<Play>/700.wav</Play><Dial>{BOB}</Dial><Play>/1100.wav</Play>");
    let mut setup = Setup::with(&verbs)?.page("/second", Page::verbs("<Play>/900.wav</Play>"));
    setup.second = Some(ControlPlan {
        node: "control-us-1".to_owned(),
        region: "us".to_owned(),
        numbers: vec![NumberPlan {
            number: NUMBER.to_owned(),
            voice_url: setup.app.url("/second"),
            ..NumberPlan::default()
        }],
        routes: setup.control.routes.clone(),
        default_edge: setup.control.default_edge.clone(),
        ..ControlPlan::default()
    });
    let world = setup.begin()?;
    wait_links(&world, [true, true])?;
    Ok(world)
}

/// Waits until `/ready` tells this of both control nodes.
fn wait_links(world: &World, up: [bool; 2]) -> Result<()> {
    let state = |up: bool| if up { "up" } else { "down" };
    let lines = [
        format!("control control-1: {}", state(up[0])),
        format!("control control-us-1: {}", state(up[1])),
    ];
    let url = format!("http://{}/ready", world.eu.admin);
    wait_for(&lines.join(", "), LIMIT, || {
        let page = http::get(&url, None)?;
        let told = page.text();
        ensure!((page.status == 200) == told.starts_with("ready"), "{} {told}", page.status);
        let as_it_is = lines.iter().all(|line| told.lines().any(|l| l == line));
        Ok(as_it_is && (page.status == 200) == (up[0] || up[1]))
    })
}

#[test]
fn lat_02_new_calls_go_to_the_best_control_node_and_stay_with_it() -> Result<()> {
    let mut world = two_controls()?;
    let bob = world.answer([
        Step::Ring(100),
        Step::Answer,
        Step::wait_tone(ALICE_HZ),
        Step::Wait(8_000),
        Step::Hangup,
    ])?;
    let alice = world.call(hears(&[700.0, BOB_HZ, 1100.0]))?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    assert_eq!(world.app.requests_for("/second").len(), 0, "the first one is the best");
    world.wait_metric("calls_second_choice_total", 0.0)?;

    // It is lost: the conversation goes on, new calls go to the other region.
    world.control.process.kill()?;
    wait_links(&world, [false, true])?;
    world.call_through(hears(&[900.0]))?;
    world.wait_metric("calls_second_choice_total", 1.0)?;
    assert_eq!(world.app.requests_for("/second").len(), 1);

    // It is back: its call is still its own, and the next ones are as well.
    world.rig.control_again(&mut world.control)?;
    wait_links(&world, [true, true])?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    for report in [&alice_saw, &bob_saw] {
        assert_undisturbed(report);
    }
    let sid = world.sid_of(&alice)?;
    world.wait_status(&sid, "completed")?;
    let shorter = world.call([Step::WaitAnswer(5_000), Step::wait_tone(700.0), Step::Hangup])?;
    ended(&shorter)?;
    assert_eq!(world.app.requests_for("/second").len(), 1);
    world.wait_metric("calls_second_choice_total", 1.0)?;
    world.finish()
}

#[test]
fn lat_02_a_call_of_the_second_choice_stays_with_it_when_the_best_is_back() -> Result<()> {
    let mut world = two_controls()?;
    let verbs = format!("<Dial>{BOB}</Dial><Record maxLength='1' playBeep='false' action='/end'/>");
    world.app.page("/second", Page::verbs(&verbs));
    world.app.page("/end", Page::verbs("<Play>/900.wav</Play>"));
    world.control.process.kill()?;
    wait_links(&world, [false, true])?;
    let talk = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(4_000), Step::Hangup];
    let bob = world.answer(talk)?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    world.rig.control_again(&mut world.control)?;
    wait_links(&world, [true, true])?;
    ended(&bob)?;
    ended(&alice)?;
    // The recording is with the node that ordered it.
    let second = world.second.as_ref().context("second")?;
    let url = second.account_url("/Recordings.json");
    let login = Some((tandem_rig::rig::ACCOUNT, tandem_rig::rig::TOKEN));
    wait_for("the recording", LIMIT, || {
        let list = http::get(&url, login)?.json()?;
        let rows = list["recordings"].as_array().cloned().unwrap_or_default();
        Ok(rows.len() == 1 && rows[0]["status"] == "completed")
    })?;
    let first = world.api("/Recordings.json")?;
    assert_eq!(first["recordings"].as_array().map(Vec::len), Some(0), "{first}");
    world.finish()
}

#[test]
fn lat_02_without_any_control_node_a_call_is_refused_and_the_edge_says_so() -> Result<()> {
    let mut world = two_controls()?;
    world.control.process.kill()?;
    world.second.as_mut().context("second")?.process.kill()?;
    wait_links(&world, [false, false])?;
    let raw = Raw::bind("127.0.0.1")?;
    let uri = world.uri(NUMBER);
    raw.send(world.eu.sip, raw.invite(&uri, "none1", "")?.as_bytes())?;
    let refused = raw.final_response().context("503")?;
    assert!(refused.starts_with("SIP/2.0 503"), "{refused}");
    assert!(header(&refused, "Retry-After").is_some(), "{refused}");
    raw.send(world.eu.sip, raw.ack(&uri, "none1", &refused)?.as_bytes())?;
    world.wait_metric("calls_refused_control_total", 1.0)?;
    let second = world.second.as_mut().context("second")?;
    world.rig.control_again(second)?;
    wait_links(&world, [false, true])?;
    world.call_through(hears(&[900.0]))?;
    world.rig.control_again(&mut world.control)?;
    world.finish()
}

/// Control dies while the web server lets it wait; the caller does not wait for its return.
#[test]
fn lat_14_a_call_that_control_has_not_begun_with_goes_to_another() -> Result<()> {
    let mut world = two_controls()?;
    world.app.page("/start", Page::verbs("<Pause/>").after(Duration::from_secs(8)));
    let alice = world.call(hears(&[900.0]))?;
    let asked = world.app.wait_for("/start", 1, LIMIT)?.remove(0);
    let sid = asked.param("CallSid").context("CallSid")?.to_owned();
    let killed = std::time::Instant::now();
    world.control.process.kill()?;
    ended(&alice)?;
    // Found lost within 5 s, 1 s in which it might come back, and the tone itself.
    ensure!(killed.elapsed() < Duration::from_secs(9), "{:?}", killed.elapsed());
    let second = world.app.requests_for("/second").into_iter().next().context("second")?;
    assert_ne!(second.param("CallSid"), Some(sid.as_str()), "another call to the other node");
    world.wait_metric("calls_offered_again_total", 1.0)?;
    world.rig.control_again(&mut world.control)?;
    world.wait_status(&sid, "failed")?;
    let rows = world.wait_terminal(&sid)?;
    assert_eq!(rows.iter().filter(|row| is_terminal(row)).count(), 1);
    world.finish()
}
