//! The demonstration's calls. Each makes its own phones, plays one call through, and says what was
//! seen.

use std::time::Duration;

use anyhow::Context as _;
use tandem_load::{
    BankConfig, Codec, EventKind, Phone, PhoneBank, PhoneHandle, PhoneReport, Step, mouth_to_ear,
};

use super::facts::CallFacts;
use super::stage::{
    ABROAD, CALL_MAX, DOOMED, GOODBYE_HZ, MEDIA_TIMEOUT_S, MENU, PLAIN, STAR, Stage, WELCOME_HZ,
};
use super::timeline;

const ALICE_HZ: f64 = 440.0;
const BOB_HZ: f64 = 620.0;
/// Longest spacing of packets towards an endpoint at a switch (LAT-07), plus the noise of a
/// machine that is shared.
const GAP_MAX_MS: f64 = 60.0;
/// The edge notices that a relayed source has gone quiet after 100 ms and fills from its next tick.
const QUIET_SOURCE_GAP_MAX_MS: f64 = 125.0;
/// Datagrams per second between the regions that keep-alives and status messages explain.
const QUIET_DATAGRAMS_PER_S: f64 = 30.0;

/// One call with two phones.
struct Pair {
    _bank: PhoneBank,
    alice: PhoneHandle,
    bob: PhoneHandle,
}

/// What both phones saw.
struct Seen {
    alice: PhoneReport,
    bob: PhoneReport,
}

impl Pair {
    fn new(alice: Phone, bob: Phone) -> anyhow::Result<Self> {
        // Each pair of phones is another pair: Call-IDs and tags come from the seed.
        let bank = PhoneBank::start(BankConfig { seed: tandem_load::clock::now_ns(), cpu: None })?;
        let bob = bank.add(bob.tone(BOB_HZ))?;
        let alice = bank.add(alice.tone(ALICE_HZ))?;
        Ok(Self { _bank: bank, alice, bob })
    }

    fn finish(&self) -> anyhow::Result<Seen> {
        let alice = self.alice.wait_ended(CALL_MAX).context("caller's call")?;
        let bob = self.bob.wait_ended(Duration::from_secs(5)).context("callee's call")?;
        Ok(Seen { alice, bob })
    }

    fn hairpin_rate(&self, stage: &Stage) -> anyhow::Result<f64> {
        self.bob.wait_answered(CALL_MAX).context("callee answers")?;
        // Commands of the switch are under way for one round trip.
        pause(Duration::from_millis(600));
        let (before, start) = (stage.wan.stats().datagrams(), tandem_load::clock::now_ns());
        pause(Duration::from_millis(1_500));
        let seconds = (tandem_load::clock::now_ns() - start) as f64 / 1e9;
        Ok((stage.wan.stats().datagrams() - before) as f64 / seconds)
    }
}

#[allow(clippy::disallowed_methods)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn alice(stage: &Stage, number: &str, steps: Vec<Step>) -> Phone {
    Phone::caller("alice", &stage.uri(number)).user("+15559001").script(steps)
}

fn bob(stage: &Stage, steps: Vec<Step>) -> Phone {
    Phone::callee("bob").listen(stage.bob).script(steps)
}

fn talk(ms: u64) -> Vec<Step> {
    vec![Step::Ring(300), Step::Answer, Step::wait_tone(ALICE_HZ), Step::Wait(ms), Step::Hangup]
}

/// Facts that every call has, and the checks that hold for every call.
fn facts_of(stage: &Stage, name: &str, seen: &Seen) -> anyhow::Result<CallFacts> {
    facts_with(stage, name, seen, GAP_MAX_MS)
}

fn facts_with(
    stage: &Stage,
    name: &str,
    seen: &Seen,
    gap_max_ms: f64,
) -> anyhow::Result<CallFacts> {
    let mut facts = CallFacts { name: name.to_owned(), ..CallFacts::default() };
    let Seen { alice, bob } = seen;
    facts.set_up_ms = alice.set_up_ms();
    // What the callee's INVITE answers: a key before it, or the caller's own INVITE.
    let dialled = alice
        .when(|kind| matches!(kind, EventKind::DigitSent { .. }))
        .filter(|at_ns| *at_ns <= bob.began_ns)
        .unwrap_or(alice.began_ns);
    facts.post_dial_delay_ms = Some(bob.began_ns.saturating_sub(dialled) as f64 / 1e6);
    facts.longest_gap_ms = alice.received.longest_gap().map(|gap| gap.0);
    facts.longest_gap_callee_ms = bob.received.longest_gap().map(|gap| gap.0);
    if let (Some(from), Some(to)) = (bob.answered_ns, bob.end.as_ref().map(|end| end.at_ns)) {
        let there = mouth_to_ear(alice, bob, from, to);
        let back = mouth_to_ear(bob, alice, from, to);
        facts.mouth_to_ear_ms = there.zip(back).map(|(a, b)| (a.median_ms + b.median_ms) / 2.0);
    }
    for (who, report) in [("caller", alice), ("callee", bob)] {
        let why = report.failure.clone().unwrap_or_else(|| "as planned".to_owned());
        facts.check(&format!("{who}'s script"), report.failure.is_none(), why);
        facts.check(&format!("no re-INVITE to the {who}"), report.reinvites == 0, report.reinvites);
    }
    facts.check("callee hears caller", bob.heard_tone(ALICE_HZ), "by tone");
    facts.check("caller hears callee", alice.heard_tone(BOB_HZ), "by tone");
    // A machine that stalls makes the phones late by as much; that is not the edge's gap.
    let stall = alice.sent.late_max_us.max(bob.sent.late_max_us) as f64 / 1e3;
    for (who, gap) in [("caller", facts.longest_gap_ms), ("callee", facts.longest_gap_callee_ms)] {
        let gap = gap.unwrap_or(f64::INFINITY);
        let seen = format!("{gap:.1} ms, of which this machine's stalls up to {stall:.1} ms");
        facts.check(&format!("{who}'s longest gap"), gap <= gap_max_ms + stall, seen);
    }
    let session = stage
        .session_of(alice.call_id.as_deref().unwrap_or_default())
        .context("control knows the call")?;
    let rows = timeline::fetch(stage, &session)?;
    timeline::read(&mut facts, &rows, &session, alice, &stage.eu.node);
    let end = facts.end.clone().map(|end| format!("{} by {}", end.reason, end.whose));
    facts.check("control has the end of the call", end.is_some(), end.unwrap_or_default());
    Ok(facts)
}

/// During the conversation nothing but keep-alives crosses between the regions.
fn stays_home(facts: &mut CallFacts, rate: f64) {
    facts.wan_datagrams_per_s = Some(rate);
    let quiet = rate <= QUIET_DATAGRAMS_PER_S;
    facts.check("only keep-alives between the regions", quiet, format!("{rate:.0} datagrams/s"));
    let dial = facts.phases.iter().find(|phase| phase.verb.contains("bridged")).cloned();
    let dial = dial.unwrap_or_default();
    facts.check("the conversation hairpins", dial.mode == "hairpin", &dial.mode);
    let out = dial.packets_out_of_region;
    facts.check("RTP packets out of the region", out == Some(0), format!("{out:?}"));
}

fn hears_goodbye(facts: &mut CallFacts, alice: &PhoneReport) {
    facts.check("caller hears goodbye", alice.heard_tone(GOODBYE_HZ), "by tone");
}

/// (a) and (b): greeting, one key, conversation in the region, goodbye.
fn menu(stage: &Stage, name: &str, prompts_from: &str) -> anyhow::Result<CallFacts> {
    let steps = vec![
        Step::WaitAnswer(10_000),
        Step::wait_tone(WELCOME_HZ),
        Step::Wait(300),
        Step::digits("1"),
        Step::wait_tone(BOB_HZ),
        Step::WaitTone { freq_hz: GOODBYE_HZ, within_ms: 15_000 },
    ];
    let pair = Pair::new(alice(stage, MENU, steps), bob(stage, talk(4_000)))?;
    let rate = pair.hairpin_rate(stage)?;
    let seen = pair.finish()?;
    let mut facts = facts_of(stage, name, &seen)?;
    stays_home(&mut facts, rate);
    hears_goodbye(&mut facts, &seen.alice);
    let gather = facts.phases.iter().find(|phase| phase.verb.contains("Gather")).cloned();
    let gather = gather.unwrap_or_default();
    let expected = if prompts_from == "eu" { "local" } else { "backhaul" };
    facts.check("the greeting's way", gather.mode == expected, &gather.mode);
    facts.check(
        "keys are collected in the region",
        gather.media_region.contains("collect in eu"),
        &gather.media_region,
    );
    let player = format!("play in {prompts_from}");
    facts.check(
        "the greeting's player",
        gather.media_region.contains(&player),
        &gather.media_region,
    );
    let out = gather.packets_out_of_region;
    if prompts_from == "eu" {
        facts.check("greeting stays in the region", out == Some(0), format!("{out:?}"));
    }
    Ok(facts)
}

/// (a)
pub fn in_region(stage: &mut Stage) -> anyhow::Result<CallFacts> {
    menu(stage, "a  greeting, key 1, conversation in the region, goodbye", "eu")
}

/// (b)
pub fn prompts_from_core(stage: &mut Stage) -> anyhow::Result<CallFacts> {
    stage.switch_off(&["play", "speech"])?;
    menu(stage, "b  the same, prompts come from the core", "core")
}

/// (c)
pub fn star(stage: &mut Stage) -> anyhow::Result<CallFacts> {
    let steps = vec![
        Step::WaitAnswer(10_000),
        Step::wait_tone(BOB_HZ),
        Step::Wait(2_500),
        Step::digits("*"),
        Step::WaitTone { freq_hz: GOODBYE_HZ, within_ms: 10_000 },
    ];
    let callee = vec![Step::Ring(300), Step::Answer];
    let pair = Pair::new(alice(stage, STAR, steps), bob(stage, callee))?;
    let rate = pair.hairpin_rate(stage)?;
    let seen = pair.finish()?;
    let mut facts = facts_of(stage, "c  star ends the callee's leg, instructions go on", &seen)?;
    stays_home(&mut facts, rate);
    hears_goodbye(&mut facts, &seen.alice);
    let by_us = seen.bob.when(|kind| matches!(kind, EventKind::ByeReceived { .. })).is_some();
    facts.check("callee is hung up on", by_us, "BYE received");
    Ok(facts)
}

/// Milliseconds from the end of a phone's media to the BYE it gets, and the Reason in it.
fn timeout_of(report: &PhoneReport) -> Option<(f64, String)> {
    let stopped = report.when(|kind| matches!(kind, EventKind::MediaStopped))?;
    let bye = report.events.iter().find_map(|event| match &event.kind {
        EventKind::ByeReceived { reason } => Some((event.at_ns, reason.clone())),
        _ => None,
    })?;
    Some((bye.0.saturating_sub(stopped) as f64 / 1e6, bye.1.unwrap_or_default()))
}

fn check_timeout(facts: &mut CallFacts, who: &str, report: &PhoneReport) {
    let seen = timeout_of(report);
    let limit_ms = MEDIA_TIMEOUT_S as f64 * 1e3;
    let ok = seen.as_ref().is_some_and(|(ms, reason)| {
        (limit_ms - 100.0..limit_ms + 1_000.0).contains(ms) && !reason.is_empty()
    });
    facts.check(
        &format!("{who}'s leg ends by media timeout, with a Reason"),
        ok,
        format!("{seen:?}"),
    );
}

/// (d), callee
pub fn silent_callee(stage: &mut Stage) -> anyhow::Result<CallFacts> {
    let steps = vec![
        Step::WaitAnswer(10_000),
        Step::wait_tone(BOB_HZ),
        Step::WaitTone { freq_hz: GOODBYE_HZ, within_ms: 20_000 },
    ];
    let callee = vec![
        Step::Ring(300),
        Step::Answer,
        Step::wait_tone(ALICE_HZ),
        Step::Wait(1_500),
        Step::StopMedia,
    ];
    let pair = Pair::new(alice(stage, PLAIN, steps), bob(stage, callee))?;
    let seen = pair.finish()?;
    let mut facts = facts_with(
        stage,
        "d1 callee stops sending media, instructions go on",
        &seen,
        QUIET_SOURCE_GAP_MAX_MS,
    )?;
    hears_goodbye(&mut facts, &seen.alice);
    check_timeout(&mut facts, "callee", &seen.bob);
    Ok(facts)
}

/// (d), caller
pub fn silent_caller(stage: &mut Stage) -> anyhow::Result<CallFacts> {
    let steps =
        vec![Step::WaitAnswer(10_000), Step::wait_tone(BOB_HZ), Step::Wait(1_500), Step::StopMedia];
    let callee = vec![Step::Ring(300), Step::Answer];
    let pair = Pair::new(alice(stage, PLAIN, steps), bob(stage, callee))?;
    let seen = pair.finish()?;
    let mut facts = facts_with(
        stage,
        "d2 caller stops sending media, both legs end",
        &seen,
        QUIET_SOURCE_GAP_MAX_MS,
    )?;
    check_timeout(&mut facts, "caller", &seen.alice);
    let ended = seen.bob.when(|kind| matches!(kind, EventKind::ByeReceived { .. })).is_some();
    facts.check("callee's leg ends as well", ended, "BYE received");
    Ok(facts)
}

/// (e)
pub fn fallback(stage: &mut Stage) -> anyhow::Result<CallFacts> {
    let steps = vec![
        Step::WaitAnswer(10_000),
        Step::wait_tone(BOB_HZ),
        Step::WaitTone { freq_hz: GOODBYE_HZ, within_ms: 20_000 },
    ];
    let pair = Pair::new(alice(stage, DOOMED, steps), bob(stage, talk(2_500)))?;
    pair.bob.wait_answered(CALL_MAX)?;
    stage.doomed.stop();
    let seen = pair.finish()?;
    let mut facts = facts_of(stage, "e  the application's server is stopped in mid-call", &seen)?;
    hears_goodbye(&mut facts, &seen.alice);
    let asked = stage.app.requests_for("/fallback.xml");
    let code = asked.last().and_then(|request| request.param("ErrorCode")).unwrap_or("none");
    facts.check("fallback is told the error", code.starts_with("112"), format!("ErrorCode {code}"));
    Ok(facts)
}

fn check_delay(facts: &mut CallFacts, hairpin_ms: Option<f64>, more_ms: f64, tolerance_ms: f64) {
    let more = facts.mouth_to_ear_ms.zip(hairpin_ms).map(|(delay, hairpin)| delay - hairpin);
    let ok = more.is_some_and(|more| (more - more_ms).abs() <= tolerance_ms);
    facts.check(
        &format!("delay = hairpin + {more_ms} ± {tolerance_ms} ms"),
        ok,
        more.map_or("unknown".to_owned(), |more| format!("hairpin + {more:.1} ms")),
    );
}

/// (f)
pub fn transcoded_in_core(stage: &mut Stage, hairpin_ms: Option<f64>) -> anyhow::Result<CallFacts> {
    stage.switch_off(&["transcode"])?;
    let steps = vec![
        Step::WaitAnswer(10_000),
        Step::wait_tone(BOB_HZ),
        Step::WaitTone { freq_hz: GOODBYE_HZ, within_ms: 20_000 },
    ];
    let caller = alice(stage, PLAIN, steps).codecs(&[Codec::Pcma]);
    let callee = bob(stage, talk(4_000)).codecs(&[Codec::Pcmu]);
    let seen = Pair::new(caller, callee)?.finish()?;
    let mut facts = facts_of(stage, "f  PCMA to PCMU, transcoded in the core", &seen)?;
    hears_goodbye(&mut facts, &seen.alice);
    let dial = facts.phases.iter().find(|phase| phase.verb.contains("bridged")).cloned();
    let dial = dial.unwrap_or_default();
    facts.check("the conversation is backhauled", dial.mode == "backhaul", &dial.mode);
    check_delay(&mut facts, hairpin_ms, 160.0, 20.0);
    Ok(facts)
}

/// (g)
pub fn abroad(stage: &mut Stage, hairpin_ms: Option<f64>) -> anyhow::Result<CallFacts> {
    let steps = vec![
        Step::WaitAnswer(10_000),
        Step::wait_tone(BOB_HZ),
        Step::WaitTone { freq_hz: GOODBYE_HZ, within_ms: 20_000 },
    ];
    let carol = Phone::callee("carol").listen(stage.carol).script(talk(4_000));
    let seen = Pair::new(alice(stage, ABROAD, steps), carol)?.finish()?;
    let mut facts = facts_of(stage, "g  callee behind the core region", &seen)?;
    hears_goodbye(&mut facts, &seen.alice);
    let dial = facts.phases.iter().find(|phase| phase.verb.contains("bridged")).cloned();
    let dial = dial.unwrap_or_default();
    facts.check("the conversation goes edge to edge", dial.mode == "edge-to-edge", &dial.mode);
    check_delay(&mut facts, hairpin_ms, 80.0, 10.0);
    Ok(facts)
}
