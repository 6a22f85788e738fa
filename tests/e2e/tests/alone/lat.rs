//! LAT: where media goes, and what happens when something goes away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::raw::{Raw, header};
use e2e::world::{EU, LIMIT, ended, hears, is_terminal, text};
use e2e::{
    ALICE_HZ, BOB, BOB_HZ, CAROL, GAP_MAX_MS, NUMBER, Setup, World, assert_no_gap, pause_ms,
};
use tandem_load::{Codec, EventKind, Phone, PhoneHandle, PhoneReport, Step, mouth_to_ear_ms};
use tandem_rig::process::wait_for;
use tandem_rig::{Page, RoutePlan};

fn talk(ms: u64) -> Vec<Step> {
    vec![Step::Ring(200), Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(ms), Step::Hangup]
}

fn labels_of(world: &World, sid: &str, verb: &str) -> Result<BTreeSet<String>> {
    let modes = world.modes(sid)?;
    let of_verb = modes.iter().filter(|(name, _)| name.contains(verb));
    let labels: BTreeSet<String> = of_verb.flat_map(|(_, labels)| labels.clone()).collect();
    anyhow::ensure!(!labels.is_empty(), "{modes:?}");
    Ok(labels)
}

fn check_gaps(reports: &[&PhoneReport]) {
    for report in reports {
        assert_no_gap(report);
        assert_eq!(report.reinvites, 0, "{}", report.phone);
        assert_eq!(report.received.timestamp_backwards, 0, "{}", report.phone);
    }
}

#[test]
fn lat_01_an_unlisted_provider_gets_nothing() -> Result<()> {
    let world = Setup::with("<Hangup/>")?
        .edge(|edge| edge.providers = vec!["127.0.0.9/32".to_owned()])
        .begin()?;
    let uri = world.uri(NUMBER);
    let stranger = Raw::bind("127.0.0.1")?;
    let dropped = || world.eu.metric("tandem_edge_sip_datagrams_unlisted_total");
    let before = dropped()?;
    let options = stranger.invite(&uri, "o1", "")?.replace("INVITE", "OPTIONS");
    for message in [stranger.invite(&uri, "s1", "")?, options, "garbage".to_owned()] {
        stranger.send(world.eu.sip, message.as_bytes())?;
    }
    assert_eq!(stranger.receive(), None, "not a word");
    world.wait_metric("sip_datagrams_unlisted_total", before + 3.0)?;
    let parsed = world.eu.metric("tandem_edge_sip_requests_received_total")?;
    assert_eq!(parsed, 0.0, "dropped before parsing");
    assert!(world.app.requests().is_empty());
    // The listed one is served.
    let listed = Raw::bind("127.0.0.9")?;
    listed.send(world.eu.sip, listed.invite(&uri, "l1", "")?.as_bytes())?;
    wait_for("its call to reach the application", LIMIT, || {
        Ok(!world.app.requests_for("/start").is_empty())
    })?;
    assert!(!listed.statuses().is_empty());
    world.finish()
}

#[test]
fn lat_02_an_invite_is_answered_for_and_signalled_to_another_region() -> Result<()> {
    let slow = Page::verbs("<Reject reason='busy'/>").after(Duration::from_millis(500));
    let world = Setup::with("<Play>/700.wav</Play>")?
        .number("+15550002", "/slow")
        .page("/slow", slow)
        .two_regions(40.0)
        .begin()?;
    // The edge answers for control in time (RFC 3261 §17.2.1: 100 within 200 ms).
    let raw = Raw::bind("127.0.0.1")?;
    let uri = world.uri("+15550002");
    let start = Instant::now();
    raw.send(world.eu.sip, raw.invite(&uri, "slow1", "")?.as_bytes())?;
    let (first, _) = raw.receive().context("100")?;
    assert!(first.starts_with("SIP/2.0 100") && start.elapsed().as_millis() < 300, "{first}");
    let last = raw.final_response().context("486")?;
    assert!(last.starts_with("SIP/2.0 486"), "{last}");
    assert!(start.elapsed().as_millis() >= 580, "a round trip and the application");
    raw.send(world.eu.sip, raw.ack(&uri, "slow1", &last)?.as_bytes())?;
    let heard = world.call_through(hears(&[700.0]))?;
    let set_up_ms = heard.set_up_ms().context("answered")?;
    assert!((80.0..1_000.0).contains(&set_up_ms), "one round trip: {set_up_ms}");
    world.finish()
}

#[test]
fn lat_03_the_edge_plays_collects_and_records_for_control() -> Result<()> {
    let verbs = "<Gather numDigits='1' action='/record'><Play>/700.wav</Play></Gather>";
    let world = Setup::with(verbs)?
        .page("/record", Page::verbs("<Record maxLength='1' playBeep='false' action='/end'/>"))
        .page("/end", Page::verbs("<Play>/900.wav</Play>"))
        .two_regions(40.0)
        .begin()?;
    let mut steps = hears(&[700.0]);
    steps.extend([Step::digits("1"), Step::wait_tone(900.0)]);
    let alice = world.call(steps)?;
    ended(&alice)?;
    let sid = world.sid_of(&alice)?;
    for verb in ["Gather", "Record", "Play"] {
        let labels = labels_of(&world, &sid, verb)?;
        assert_eq!(labels, ["local".to_owned()].into(), "{verb}");
    }
    let core = world.core.as_ref().context("core")?;
    for edge in [&world.eu, core] {
        for way in ["sent", "received"] {
            let packets = edge.metric(&format!("tandem_edge_trunk_packets_{way}_total"))?;
            assert_eq!(packets, 0.0, "{} {way}", edge.node);
        }
    }
    world.finish()
}

/// Packets that left the region while the legs were connected, by the edge's own count and by that
/// of what lies between the regions.
fn datagrams_while_talking(world: &World, bob: &PhoneHandle) -> Result<f64> {
    let wan = world.wan.as_ref().context("wan")?;
    bob.wait_answered(LIMIT)?;
    pause_ms(500);
    let (before, start) = (wan.stats().datagrams(), Instant::now());
    pause_ms(1_500);
    Ok((wan.stats().datagrams() - before) as f64 / start.elapsed().as_secs_f64())
}

#[test]
fn lat_04_dial_in_region_hairpins_media() -> Result<()> {
    let verbs = format!("<Play>/700.wav</Play><Dial>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?.two_regions(80.0).begin()?;
    let bob = world.answer(talk(3_000))?;
    let alice = world.call(hears(&[700.0, BOB_HZ, 900.0]))?;
    let rate = datagrams_while_talking(&world, &bob)?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    assert!(rate < 30.0, "only keep-alives between the regions: {rate} datagrams/s");
    let delay_ms = mouth_to_ear_ms(&alice_saw, &bob_saw).context("caller is heard")?;
    assert!(delay_ms < 60.0, "{delay_ms} ms");
    let delay_ms = mouth_to_ear_ms(&bob_saw, &alice_saw).context("callee is heard")?;
    assert!(delay_ms < 60.0, "{delay_ms} ms");
    let labels = labels_of(&world, &world.sid_of(&alice)?, "Dial")?;
    assert!(labels.contains("hairpin") && !labels.contains("backhaul"), "{labels:?}");
    assert_eq!(world.eu.metric("tandem_edge_trunk_packets_sent_total")?, 0.0);
    check_gaps(&[&alice_saw, &bob_saw]);
    world.finish()
}

#[test]
fn lat_04_a_callee_behind_another_region_is_reached_edge_to_edge() -> Result<()> {
    let verbs = format!("<Dial>{CAROL}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?.two_regions(80.0).begin()?;
    let carol = Phone::callee("carol").listen(world.carol).tone(BOB_HZ).script(talk(2_500));
    let carol = world.bank.add(carol)?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    let (alice_saw, carol_saw) = (ended(&alice)?, ended(&carol)?);
    for (from, to) in [(&alice_saw, &carol_saw), (&carol_saw, &alice_saw)] {
        let delay_ms = mouth_to_ear_ms(from, to).context("heard")?;
        assert!((75.0..130.0).contains(&delay_ms), "{delay_ms} ms");
    }
    let labels = labels_of(&world, &world.sid_of(&alice)?, "Dial")?;
    assert!(labels.contains("edge-to-edge"), "{labels:?}");
    world.finish()
}

#[test]
fn lat_06_prompts_come_from_the_core_when_the_region_cannot_play() -> Result<()> {
    let verbs = "<Gather numDigits='1' action='/dial'><Play>/700.wav</Play></Gather>";
    let dial = format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(verbs)?
        .page("/dial", Page::verbs(&dial))
        .two_regions(40.0)
        .edge(|edge| edge.off = vec!["play".to_owned(), "speech".to_owned()])
        .begin()?;
    let bob = world.answer(talk(3_000))?;
    let mut steps = hears(&[700.0]);
    steps.extend([Step::digits("1"), Step::wait_tone(BOB_HZ), Step::wait_tone(900.0)]);
    let alice = world.call(steps)?;
    let rate = datagrams_while_talking(&world, &bob)?;
    ended(&alice)?;
    ended(&bob)?;
    assert!(rate < 30.0, "the conversation is back in the region: {rate} datagrams/s");
    let sid = world.sid_of(&alice)?;
    let gather = labels_of(&world, &sid, "Gather")?;
    assert!(gather.contains("backhaul") && gather.contains("local"), "keys stay: {gather:?}");
    assert!(labels_of(&world, &sid, "Dial")?.contains("hairpin"));
    assert!(world.eu.metric("tandem_edge_trunk_packets_received_total")? > 20.0);
    world.finish()
}

#[test]
fn lat_06_codecs_are_translated_in_the_core_when_the_region_cannot() -> Result<()> {
    let verbs = format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>");
    let world = Setup::with(&verbs)?
        .two_regions(40.0)
        .edge(|edge| edge.off = vec!["transcode".to_owned()])
        .begin()?;
    let bob = world.bank.add(world.callee(talk(2_500)).codecs(&[Codec::Pcmu]))?;
    let alice = world.caller(NUMBER, hears(&[BOB_HZ, 900.0])).codecs(&[Codec::Pcma]);
    let alice = world.bank.add(alice)?;
    let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
    assert_eq!((alice_saw.codec, bob_saw.codec), (Some(Codec::Pcma), Some(Codec::Pcmu)));
    assert_eq!(alice_saw.received.wrong_payload_type, 0);
    assert_eq!(bob_saw.received.wrong_payload_type, 0);
    let delay_ms = mouth_to_ear_ms(&alice_saw, &bob_saw).context("heard")?;
    assert!((75.0..150.0).contains(&delay_ms), "to the core and back: {delay_ms} ms");
    let labels = labels_of(&world, &world.sid_of(&alice)?, "Dial")?;
    assert!(labels.contains("backhaul"), "{labels:?}");
    world.finish()
}

#[test]
fn lat_07_say_dial_say_dial_without_gaps_or_lost_keys() -> Result<()> {
    let world = Setup::with(&format!(
        "<Play>/700.wav</Play><Dial>{BOB}</Dial><Play>/900.wav</Play><Dial>{BOB}</Dial>\
         <Gather numDigits='3' action='/keys'><Play>/1100.wav</Play></Gather>"
    ))?
    .page("/keys", Page::verbs("<Play>/700.wav</Play>"))
    .two_regions(20.0)
    .begin()?;
    let bob = world.answer(talk(1_000))?;
    let mut steps = hears(&[700.0, BOB_HZ, 900.0, BOB_HZ, 1100.0]);
    steps.extend([Step::digits("789"), Step::wait_tone(700.0)]);
    let alice = world.call(steps)?;
    let alice_saw = ended(&alice)?;
    assert_eq!(bob.reports()?.len(), 2, "two conversations");
    assert_eq!(world.app.requests_for("/keys")[0].param("Digits"), Some("789"));
    check_gaps(&[&alice_saw]);
    assert_eq!(alice_saw.received.ssrc_changes, 0);
    let sid = world.sid_of(&alice)?;
    let verbs: Vec<String> = world.modes(&sid)?.into_iter().map(|(verb, _)| verb).collect();
    assert_eq!(verbs.iter().filter(|verb| *verb == "Dial").count(), 2, "{verbs:?}");
    world.finish()
}

#[test]
fn lat_10_star_ends_the_callee_and_instructions_go_on() -> Result<()> {
    let world =
        Setup::with(&format!("<Dial hangupOnStar='true'>{BOB}</Dial><Play>/900.wav</Play>"))?
            .begin()?;
    let bob = world.answer([Step::Ring(200), Step::Answer])?;
    let mut steps = hears(&[BOB_HZ]);
    steps.extend([Step::digits("5"), Step::Wait(500), Step::digits("*"), Step::wait_tone(900.0)]);
    let alice_saw = world.call_through(steps)?;
    let bob_saw = ended(&bob)?;
    assert_eq!(bob_saw.end.as_ref().map(|end| end.how.as_str()), Some("bye"));
    let star = alice_saw.when(|kind| matches!(kind, EventKind::DigitSent { digit: '*', .. }));
    let after_ms = (bob_saw.end.context("end")?.at_ns - star.context("star")?) / 1_000_000;
    assert!(after_ms < 1_000, "{after_ms} ms after the key");
    check_gaps(&[&alice_saw]);
    world.finish()
}

/// Milliseconds from the end of a phone's media to its BYE, and the Reason of that.
fn timeout_of(report: &PhoneReport) -> Result<(u64, String)> {
    let stopped = report.when(|kind| matches!(kind, EventKind::MediaStopped)).context("stopped")?;
    let end = report.end.as_ref().context("end")?;
    Ok(((end.at_ns - stopped) / 1_000_000, end.reason.clone().unwrap_or_default()))
}

#[test]
fn lat_11_media_timeout_per_leg() -> Result<()> {
    let world = Setup::with(&format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>"))?
        .edge(|edge| edge.media_timeout_s = 2)
        .begin()?;
    // The callee falls silent: its leg ends, the caller's instructions go on.
    let silent = [Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(500), Step::StopMedia];
    let bob = world.answer(silent)?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    ended(&alice)?;
    let (after_ms, reason) = timeout_of(&ended(&bob)?)?;
    assert!((1_900..3_200).contains(&after_ms), "{after_ms} ms");
    assert!(reason.contains("cause=408"), "{reason}");
    // The caller falls silent: both legs end.
    let carol = world.bank.add(Phone::callee("carol").tone(BOB_HZ))?;
    world.app.page("/start", Page::verbs(&format!("<Dial><Sip>{}</Sip></Dial>", carol.uri())));
    let mut steps = hears(&[BOB_HZ]);
    steps.extend([Step::Wait(500), Step::StopMedia]);
    let (after_ms, reason) = timeout_of(&world.call_through(steps)?)?;
    assert!((1_900..3_200).contains(&after_ms), "{after_ms} ms");
    assert!(reason.contains("cause=408"), "{reason}");
    assert!(carol.wait_ended(LIMIT)?.ended(), "the callee's leg ends as well");
    world.wait_metric("legs_media_timeout_total", 2.0)?;
    world.finish()
}

#[test]
fn lat_11_no_media_timeout_on_hold() -> Result<()> {
    let world = Setup::with(&format!("<Dial>{BOB}</Dial><Play>/900.wav</Play>"))?
        .edge(|edge| edge.media_timeout_s = 2)
        .begin()?;
    let hold = [
        Step::Answer,
        Step::wait_tone(ALICE_HZ),
        Step::Hold,
        Step::StopMedia,
        Step::Wait(4_000),
        Step::ResumeMedia,
        Step::Unhold,
        Step::Wait(800),
        Step::Hangup,
    ];
    let bob = world.answer(hold)?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    ended(&alice)?;
    let bob_saw = ended(&bob)?;
    let whose = bob_saw.end.as_ref().map(|end| end.whose);
    assert_eq!(whose, Some(tandem_load::Whose::Us), "{:?}", bob_saw.events);
    assert_eq!(world.eu.metric("tandem_edge_legs_media_timeout_total")?, 0.0);
    world.finish()
}

#[test]
fn lat_12_gather_and_dial_in_a_loop_across_regions() -> Result<()> {
    let world = Setup::with(
        "<Gather numDigits='1' action='/go?n={Digits}'><Play>/700.wav</Play></Gather>",
    )?
    .page(
        "/go",
        Page::dynamic(|request| {
            let callee = if request.param("n") == Some("1") { BOB } else { CAROL };
            Page::verbs(&format!("<Dial>{callee}</Dial><Redirect>/start</Redirect>"))
        }),
    )
    .two_regions(40.0)
    .begin()?;
    let bob = world.answer(talk(700))?;
    let carol = Phone::callee("carol").listen(world.carol).tone(820.0).script(talk(700));
    let carol = world.bank.add(carol)?;
    let mut steps = vec![Step::WaitAnswer(5_000)];
    for (key, hz) in [("1", BOB_HZ), ("2", 820.0), ("1", BOB_HZ)] {
        steps.extend([Step::wait_tone(700.0), Step::digits(key), Step::wait_tone(hz)]);
    }
    steps.extend([Step::wait_tone(700.0), Step::Hangup]);
    let alice = world.call(steps)?;
    ended(&alice)?;
    let (bob_saw, carol_saw) = (bob.reports()?, carol.reports()?);
    assert_eq!((bob_saw.len(), carol_saw.len()), (2, 1));
    assert!(bob_saw.iter().chain(&carol_saw).all(|report| report.heard_tone(ALICE_HZ)));
    let labels = labels_of(&world, &world.sid_of(&alice)?, "Dial")?;
    assert!(labels.contains("hairpin") && labels.contains("edge-to-edge"), "{labels:?}");
    world.finish()
}

/// The whole story of control's death during a conversation.
#[test]
fn lat_14_a_conversation_does_not_notice_the_end_of_control() -> Result<()> {
    let mut world = Setup::with(&format!(
        "<Dial action='/after'><Number statusCallback='/leg'>{BOB}</Number></Dial>"
    ))?
    .page("/after", Page::verbs("<Play>/900.wav</Play>"))
    .page("/leg", Page::status(204))
    .begin()?;
    let bob =
        world.answer([Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(3_000), Step::Hangup])?;
    let alice = world.call(hears(&[BOB_HZ, 900.0]))?;
    let sid = world.sid_of(&alice)?;
    bob.wait(LIMIT, |report| report.heard_tone(ALICE_HZ))?;
    pause_ms(700);
    world.control.process.kill()?;
    let killed_ns = tandem_load::clock::now_ns();
    // The callee hangs up while control is away: its leg ends properly, the caller is held.
    let bob_saw = ended(&bob)?;
    let hung_up_ns = bob_saw.end.as_ref().context("end")?.at_ns;
    assert!(hung_up_ns > killed_ns);
    pause_ms(1_000);
    assert!(!alice.report()?.ended(), "held");
    assert_eq!(world.eu.calls()?.len(), 1, "the callee's leg is gone, the caller's is there");
    world.rig.control_again(&mut world.control)?;
    let alice_saw = ended(&alice)?;
    let gap = alice_saw.received.window(alice_saw.answered_ns.unwrap_or(0), hung_up_ns).max_gap_ms;
    assert!(gap <= GAP_MAX_MS, "RTP goes on: {gap} ms");
    let gap = bob_saw.received.window(killed_ns - 500_000_000, hung_up_ns).max_gap_ms;
    assert!(gap <= GAP_MAX_MS, "RTP goes on: {gap} ms");
    // Control knew the call, went on, and wrote it down.
    let after = world.app.requests_for("/after");
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].param("DialCallStatus"), Some("completed"));
    world.wait_status(&sid, "completed")?;
    let legs = world.api(&format!("/Calls.json?ParentCallSid={sid}"))?;
    let leg = &legs["calls"][0];
    assert_eq!(text(leg, "status"), "completed");
    let talked = (hung_up_ns - bob_saw.answered_ns.context("answered")?) as f64 / 1e9;
    let seconds: f64 = text(leg, "duration").parse()?;
    assert!((seconds - talked).abs() <= 1.1, "{seconds} s written, {talked} s talked");
    assert!(seconds >= talked.floor());
    world.wait_terminal(&sid)?;
    world.app.wait_for("/leg", 1, LIMIT)?;
    pause_ms(500);
    assert_eq!(world.callbacks(&sid).iter().filter(|row| is_terminal(row)).count(), 1);
    assert_eq!(world.app.requests_for("/leg").iter().filter(|row| is_terminal(row)).count(), 1);
    world.finish()
}

#[test]
fn lat_15_numbers_without_instructions_are_routed_without_control() -> Result<()> {
    let setup = Setup::new()?;
    let uri = format!("sip:{{number}}@{}", setup.bob);
    let mut setup = setup;
    setup.control.routes.push(RoutePlan {
        prefix: "+155701".to_owned(),
        node: EU.to_owned(),
        uri,
        without_instructions: true,
    });
    let mut world = setup.begin()?;
    let bob = world.answer(talk(700))?;
    for control in ["there", "gone"] {
        if control == "gone" {
            world.control.process.kill()?;
            // The edge has to notice: what it hears of control is silence.
            pause_ms(2_500);
        }
        let alice = world.bank.add(world.caller("+15570199", hears(&[BOB_HZ])))?;
        let (alice_saw, bob_saw) = (ended(&alice)?, ended(&bob)?);
        assert!(bob_saw.heard_tone(ALICE_HZ) && alice_saw.heard_tone(BOB_HZ), "{control}");
        check_gaps(&[&alice_saw, &bob_saw]);
    }
    assert!(world.app.requests().is_empty());
    world.wait_metric("calls_without_instructions_total", 2.0)?;
    // A number that needs control is refused meanwhile, soon and with a time to come back.
    let raw = Raw::bind("127.0.0.1")?;
    raw.send(world.eu.sip, raw.invite(&world.uri(NUMBER), "gone1", "")?.as_bytes())?;
    let start = Instant::now();
    let refused = loop {
        let (text, _) = raw.receive().context("refusal")?;
        if text.starts_with("SIP/2.0 503") {
            break text;
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(3), "{text}");
    };
    assert!(header(&refused, "Retry-After").is_some(), "{refused}");
    raw.send(world.eu.sip, raw.ack(&world.uri(NUMBER), "gone1", &refused)?.as_bytes())?;
    world.rig.control_again(&mut world.control)?;
    world.finish()
}
