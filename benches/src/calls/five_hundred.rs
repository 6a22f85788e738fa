//! 500 calls at once: nothing is lost, everything is accounted for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tandem_load::load::{AnswerPlan, CallPlan, Limits, LoadRun, Verdict};
use tandem_load::{BankConfig, Codec};
use tandem_rig::{AppServer, ControlPlan, NumberPlan, Page, ports};

use super::world::{CALLEE, EDGE, World, edge_plan, route, wait_for_counters};
use crate::gate::{Watch, wait_quiet};
use crate::machine::{Memory, pin_thread};
use crate::report::{Goal, Outcome};
use crate::run::Context;

const CALLS: u64 = 500;
const CALLS_PER_S: f64 = 50.0;
/// Called in the variant with instructions.
const NUMBER: &str = "+15550500";

/// By a route without instructions: the edge alone.
///
/// # Errors
/// If something does not start.
pub fn by_route(context: &Context) -> anyhow::Result<Outcome> {
    pin_thread(context.cores.load)?;
    let answerer = ports::udp()?;
    let mut edge = edge_plan(CALLS as u16 * 2);
    edge.routes = vec![route(answerer, true)];
    let quiet = wait_quiet(context.cores, context.patience())?;
    let world = World::start(context, None, edge)?;
    five_hundred("calls_500", context, &world, CALLEE, answerer, quiet)
}

/// By a document that dials: web server and control take part in the set-up.
///
/// # Errors
/// If something does not start.
pub fn by_instructions(context: &Context) -> anyhow::Result<Outcome> {
    pin_thread(context.cores.load)?;
    let app = AppServer::start()?;
    app.page("/dial", Page::verbs(&format!("<Dial><Number>{CALLEE}</Number></Dial>")));
    let answerer = ports::udp()?;
    let number = NumberPlan {
        number: NUMBER.to_owned(),
        voice_url: app.url("/dial"),
        ..NumberPlan::default()
    };
    let control = ControlPlan {
        numbers: vec![number],
        routes: vec![route(answerer, false)],
        default_edge: Some(EDGE.to_owned()),
        ..ControlPlan::default()
    };
    let quiet = wait_quiet(context.cores, context.patience())?;
    let world = World::start(context, Some(&control), edge_plan(CALLS as u16 * 2))?;
    five_hundred("calls_500_control", context, &world, NUMBER, answerer, quiet)
}

/// What was seen while all calls were up.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    memory: Memory,
    send_failed: i64,
    no_buffers: i64,
}

fn five_hundred(
    name: &str,
    context: &Context,
    world: &World,
    number: &str,
    answerer: SocketAddr,
    quiet: bool,
) -> anyhow::Result<Outcome> {
    wait_for_counters();
    let idle = world.edge_memory()?;
    let watch = Watch::start(context.cores)?;
    let cpu_before_s = world.cpu_s()?;
    let (verdict, held) = load(context, world, number, answerer)?;
    let own_cpu_s = world.cpu_s()? - cpu_before_s;
    let mut complaints = watch.finish()?.foreign(own_cpu_s);
    if !quiet {
        complaints.push("the machine was not quiet before".to_owned());
    }
    world.edge.wait_idle(Duration::from_secs(10))?;
    wait_for_counters();
    let mut outcome = judge(name, world, &verdict, idle, held)?;
    outcome.clean(complaints.is_empty(), complaints.join(", "));
    Ok(outcome)
}

fn load(
    context: &Context,
    world: &World,
    number: &str,
    answerer: SocketAddr,
) -> anyhow::Result<(Verdict, Held)> {
    let hold_s = if context.quick { 8.0 } else { 60.0 };
    let duration_ms = ((hold_s + CALLS as f64 / CALLS_PER_S) * 1e3) as u64;
    let call = CallPlan {
        target: format!("sip:{number}@{}", world.edge.sip),
        via: None,
        listen: ports::udp()?,
        user: "+15559000".to_owned(),
        calls: CALLS,
        rate_per_s: CALLS_PER_S,
        at_once_max: CALLS as usize,
        duration_ms,
        answer_within_ms: 10_000,
        codecs: vec![Codec::Pcmu],
        sample_every: 0,
        digits: String::new(),
    };
    let answer = AnswerPlan {
        listen: answerer,
        ring_ms: 20,
        at_once_max: CALLS as usize * 2,
        codecs: vec![Codec::Pcmu],
        send_for_ms: Some(duration_ms),
    };
    let bank = BankConfig { seed: 1, cpu: Some(context.cores.load) };
    let mut run = LoadRun::start(bank, Some(call), Some(answer))?;
    let limit = run.takes_at_most().unwrap_or(Duration::from_secs(120));
    let (began, mut next, mut held) = (Instant::now(), Instant::now(), Held::default());
    while !run.is_over()? && began.elapsed() < limit {
        run.wait(Duration::from_millis(100));
        if Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        let progress = run.progress()?;
        if progress.up == CALLS {
            held = Held {
                memory: world.edge_memory()?,
                send_failed: world.media("ring_send_failed")?,
                no_buffers: world.media("ring_receive_no_buffers")?,
            };
        }
        if next.duration_since(began).as_secs().is_multiple_of(10) {
            context.note(&format!(
                "{:3.0} s  {} up, {} failed, RTP {:.0}/s sent, {:.0}/s received, {} lost",
                progress.at_s,
                progress.up,
                progress.failed,
                progress.sent_per_s,
                progress.received_per_s,
                progress.lost
            ));
        }
    }
    // Ends what a lost BYE has left.
    run.hang_up()?;
    Ok((run.finish(&Limits::default())?, held))
}

fn judge(
    name: &str,
    world: &World,
    verdict: &Verdict,
    idle: Memory,
    held: Held,
) -> anyhow::Result<Outcome> {
    let sides: Vec<_> = verdict.caller.iter().chain(&verdict.answerer).collect();
    let sum = |part: &dyn Fn(&&&tandem_load::load::SideVerdict) -> u64| {
        sides.iter().map(|side| part(&side)).sum::<u64>() as i64
    };
    let sent = sum(&|side| side.rtp.sent);
    let received = sum(&|side| side.rtp.received);
    let (relayed, filled) = (world.media("packets_relayed")?, world.media("packets_fill")?);
    let drops = world.drops()?;
    let dropped: i64 = drops.iter().map(|(_, count)| count).sum();
    let edge_socket_drops = world.media("ring_socket_drops")?;
    let unaccounted = sent - relayed - dropped - edge_socket_drops;
    let failed = sum(&|side| side.failed_count());
    let mut outcome = Outcome::new(name);
    outcome.headings(&["what", "value"]);
    let rows: [(&str, String); 9] = [
        ("most calls at once", verdict.up_max.to_string()),
        ("RTP sent by phones", sent.to_string()),
        ("RTP relayed by the edge", relayed.to_string()),
        ("RTP dropped by the edge, counted", described(&drops)),
        ("RTP filled in by the edge (silence)", filled.to_string()),
        ("RTP received by phones", received.to_string()),
        (
            "set-up time p50 / p99, ms",
            sides.first().map_or_else(String::new, |side| {
                format!("{:.1} / {:.1}", side.set_up.p50_ms, side.set_up.p99_ms)
            }),
        ),
        ("edge, idle: RSS (own memory), MiB", mib(idle)),
        ("edge, all calls up: RSS (own memory), MiB", mib(held.memory)),
    ];
    for (what, value) in rows {
        outcome.row([what.to_owned(), value]);
    }
    let growth = held.memory.rss_kib.saturating_sub(idle.rss_kib);
    let per_call = growth as f64 / CALLS as f64;
    outcome.row(["growth, KiB per call".to_owned(), format!("{per_call:.1}")]);
    for (what, value) in [
        ("calls lost", failed),
        ("calls that did not come up", CALLS as i64 - verdict.up_max as i64),
        ("RTP sent − relayed − dropped and counted", unaccounted.abs()),
        ("edge: datagrams lost in socket buffers (SO_MEMINFO)", edge_socket_drops),
        ("edge: receives without buffers (ENOBUFS), calls up", held.no_buffers),
        ("edge: send errors, calls up", held.send_failed),
        ("phones: datagrams lost in socket buffers", sum(&|side| side.rtp.socket_drops)),
        ("phones: RTP missing in the sequence", sum(&|side| side.rtp.lost)),
        ("phones: RTP that could not be sent", sum(&|side| side.rtp.send_errors)),
    ] {
        outcome.check(what, value as f64, Goal::AtMost(0.0));
    }
    outcome.details = json!({
        "verdict": verdict,
        "drops": drops,
        "relayed": relayed,
        "fill": filled,
        "idle_rss_kib": idle.rss_kib,
        "idle_anonymous_kib": idle.anonymous_kib,
        "held_rss_kib": held.memory.rss_kib,
        "growth_kib_per_call": per_call,
    });
    Ok(outcome)
}

fn described(drops: &[(String, i64)]) -> String {
    let some: Vec<String> = drops
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| format!("{count} {}", cause.replace('_', " ")))
        .collect();
    if some.is_empty() { "0".to_owned() } else { some.join(", ") }
}

fn mib(memory: Memory) -> String {
    let mib = |kib: u64| kib as f64 / 1024.0;
    format!("{:.1} ({:.1})", mib(memory.rss_kib), mib(memory.anonymous_kib))
}
