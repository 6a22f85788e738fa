//! LAT-06: what a region has, but has given away already.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::world::{LIMIT, ended, hears, text};
use e2e::{ALICE_HZ, BOB, BOB_HZ, NUMBER, Setup, World, assert_undisturbed, pause_ms};
use tandem_load::{Codec, Phone, Step, mouth_to_ear_ms};
use tandem_rig::process::wait_for;
use tandem_rig::{Page, RoutePlan, ports};

/// Runs `/on-hold`.
const HOLD: &str = "+15550060";
/// Leads to a second callee in the region.
const DAVE: &str = "+15570101";

fn one(limit: &str) -> Vec<(String, u32)> {
    vec![(limit.to_owned(), 1)]
}

/// Every label of the phases of a verb, in order.
fn labels_of(world: &World, sid: &str, verb: &str) -> Result<Vec<Vec<String>>> {
    let modes = world.modes(sid)?;
    Ok(modes.into_iter().filter(|(name, _)| name.contains(verb)).map(|(_, l)| l).collect())
}

/// Somebody hears music until told to hang up.
fn listener(world: &World, ms: u64) -> Result<tandem_load::PhoneHandle> {
    let steps = [Step::WaitAnswer(5_000), Step::wait_tone(700.0), Step::Wait(ms), Step::Hangup];
    let phone = Phone::caller("listener", &world.uri(HOLD)).user("+15559060").script(steps);
    let phone = world.bank.add(phone)?;
    phone.wait(LIMIT, |report| report.heard_tone(700.0))?;
    Ok(phone)
}

#[test]
fn lat_06_a_prompt_comes_from_the_core_while_the_region_has_none_left() -> Result<()> {
    let verbs = format!("<Play>/900.wav</Play><Dial>{BOB}</Dial><Play>/1100.wav</Play>");
    let world = Setup::with(&verbs)?
        .number(HOLD, "/on-hold")
        .page("/on-hold", Page::verbs("<Play loop='0'>/700.wav</Play>"))
        .two_regions(40.0)
        .edge(|edge| edge.limits = one("plays_max"))
        .begin()?;
    let bob = world.answer([
        Step::Ring(100),
        Step::Answer,
        Step::wait_tone(ALICE_HZ),
        Step::Wait(5_000),
        Step::Hangup,
    ])?;
    let listener = listener(&world, 4_000)?;
    let alice = world.call(hears(&[900.0, BOB_HZ, 1100.0]))?;
    bob.wait_answered(LIMIT)?;
    let wan = world.wan.as_ref().context("wan")?;
    pause_ms(500);
    let (before, start) = (wan.stats().datagrams(), Instant::now());
    pause_ms(1_500);
    let rate = (wan.stats().datagrams() - before) as f64 / start.elapsed().as_secs_f64();
    assert!(rate < 40.0, "the conversation is back in the region: {rate} datagrams/s");
    // The listener hangs up while the two talk: the goodbye finds room at home.
    let (listener_saw, alice_saw) = (ended(&listener)?, ended(&alice)?);
    ended(&bob)?;
    assert_undisturbed(&listener_saw);
    let sid = world.sid_of(&alice)?;
    let plays = labels_of(&world, &sid, "Play")?;
    assert_eq!(plays.first().context("first")?, &["backhaul".to_owned()]);
    assert_eq!(plays.last().context("last")?, &["local".to_owned()]);
    let bridged = labels_of(&world, &sid, "Dial bridged")?;
    assert!(bridged.concat().iter().all(|label| label == "hairpin"), "{bridged:?}");
    let music = labels_of(&world, &world.sid_of(&listener)?, "Play")?;
    assert_eq!(music.concat(), ["local"], "never moved");
    assert_eq!(alice_saw.received.ssrc_changes, 0);
    world.finish()
}

#[test]
fn lat_06_the_second_translation_is_done_in_the_core() -> Result<()> {
    let mut setup = Setup::with(&format!("<Dial>{BOB}</Dial>"))?
        .number(HOLD, "/other")
        .page("/other", Page::verbs(&format!("<Dial>{DAVE}</Dial><Dial>{DAVE}</Dial>")))
        .two_regions(40.0)
        .edge(|edge| edge.limits = one("transcodes_max"));
    let dave = ports::udp()?;
    setup.control.routes.push(RoutePlan {
        prefix: "+155701".to_owned(),
        node: e2e::world::EU.to_owned(),
        uri: format!("sip:{{number}}@{dave}"),
        without_instructions: false,
    });
    let world = setup.begin()?;
    let talk = |ms| {
        [Step::Ring(100), Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(ms), Step::Hangup]
    };
    let bob = world.bank.add(world.callee(talk(2_500)).codecs(&[Codec::Pcmu]))?;
    let alice = world.caller(NUMBER, hears(&[BOB_HZ])).codecs(&[Codec::Pcma]);
    let alice = world.bank.add(alice)?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    let dave = Phone::callee("dave").listen(dave).tone(BOB_HZ).codecs(&[Codec::Pcmu]);
    let dave = world.bank.add(dave.script(talk(4_500)))?;
    let carol = Phone::caller("carol", &world.uri(HOLD)).user("+15559061").tone(ALICE_HZ);
    let carol = world.bank.add(carol.codecs(&[Codec::Pcma]).script(hears(&[BOB_HZ])))?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    ended(&carol)?;
    assert_undisturbed(&alice_saw);
    assert_undisturbed(&bob_saw);
    let at_home_ms = mouth_to_ear_ms(&alice_saw, &bob_saw).context("heard")?;
    assert!(at_home_ms < 60.0, "{at_home_ms} ms");
    let labels = labels_of(&world, &world.sid_of(&alice)?, "Dial bridged")?;
    assert!(labels.concat().iter().all(|label| label == "hairpin"), "{labels:?}");
    // The second one's first conversation goes through the core; at its second the first pair has
    // hung up, and it stays at home.
    let labels = labels_of(&world, &world.sid_of(&carol)?, "Dial bridged")?;
    assert_eq!(labels.len(), 2, "{labels:?}");
    assert!(labels[0].iter().all(|label| label == "backhaul"), "{labels:?}");
    assert!(labels[1].iter().all(|label| label == "hairpin"), "{labels:?}");
    assert_eq!(dave.reports()?.len(), 2);
    world.finish()
}

#[test]
fn lat_06_without_room_anywhere_a_call_ends_and_others_go_on() -> Result<()> {
    let world = Setup::with("<Play>/900.wav</Play>")?
        .number(HOLD, "/on-hold")
        .page("/on-hold", Page::verbs("<Play loop='0'>/700.wav</Play>"))
        .page("/fallback", Page::verbs("<Play>/1100.wav</Play>"))
        .edge(|edge| edge.limits = one("plays_max"))
        .begin()?;
    let listener = listener(&world, 3_000)?;
    let alice = world.call([Step::WaitAnswer(5_000)])?;
    let alice_saw = ended(&alice)?;
    assert_eq!(alice_saw.end.as_ref().map(|end| end.how.as_str()), Some("bye"));
    assert!(alice_saw.heard.iter().all(|heard| heard.freq_hz.is_none()), "{:?}", alice_saw.heard);
    let sid = world.sid_of(&alice)?;
    world.wait_status(&sid, "completed")?;
    let alerts = world.alerts()?;
    let of_call = alerts.iter().filter(|alert| text(alert, "call_sid") == sid);
    let told = of_call.map(|alert| text(alert, "message_text").to_owned()).collect::<Vec<_>>();
    assert!(told.iter().any(|message| message.contains("no node can play")), "{alerts:?}");
    assert_undisturbed(&ended(&listener)?);
    // Room again: the next call hears what it is to hear.
    wait_for("the edge to be idle", LIMIT, || Ok(world.eu.calls()?.is_empty()))?;
    world.call_through(hears(&[900.0]))?;
    pause_ms(Duration::from_millis(100).as_millis() as u64);
    world.finish()
}
