//! Calls come and go, a hundred a second, and nothing grows.

use std::time::{Duration, Instant};

use serde_json::json;
use tandem_load::load::{AnswerPlan, CallPlan, Limits, LoadRun};
use tandem_load::{BankConfig, Codec};
use tandem_rig::ports;

use super::world::{CALLEE, World, edge_plan, route, wait_for_counters};
use crate::gate::{Watch, wait_quiet};
use crate::machine::{Cores, SmallPages, descriptors, pin_thread};
use crate::report::{Goal, Outcome, Results};
use crate::run::{Context, tandem_program};

const SET_UPS_PER_S: f64 = 100.0;
const DURATION_MS: u64 = 2_000;
/// Share of the rate that has to be reached on average.
const RATE_SHARE_MIN: f64 = 0.95;
/// Calls at once, with room for slow ends.
const AT_ONCE: usize = 600;
/// The first part of a run fills caches and pools; the slope is taken over the rest.
const SETTLING_SHARE: f64 = 0.25;
/// Calls that are over are remembered for 32 s (RFC 3261 §17), their ports rest: until then there are
/// more of both from second to second. A run of twice this time in seconds leaves it out.
const SETTLING_S: f64 = 60.0;
/// Growth of memory per set-up that is no leak but noise of the allocator, bytes.
const BYTES_PER_SET_UP_MAX: f64 = 16.0;
/// A run of so many seconds is long enough to say that memory ends where it began …
const LONG_S: f64 = 1_200.0;
/// … by this share.
const GROWTH_SHARE_MAX: f64 = 0.05;

const EXAMPLES: &str = "\
Examples:
  An hour
    cargo run --release -p benches -- soak

  The form that `make bench` runs
    cargo run --release -p benches -- soak --minutes 3

Calls go through one edge by a route without instructions and speak for two seconds. Memory,
descriptors, ports and legs are looked at every second; memory may grow by at most 16 bytes per
set-up once the first quarter is over (at least a minute), all else has to end where it began.";

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SoakArguments {
    /// How long
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// No long wait for a quiet machine: shows that it works, not a result
    #[arg(long)]
    quick: bool,
    /// Take the tandem program as it is instead of building it first
    #[arg(long)]
    no_build: bool,
    /// The tandem program, instead of the one beside this program
    #[arg(long, value_name = "FILE")]
    tandem: Option<std::path::PathBuf>,
}

/// The subcommand. True if nothing grew.
///
/// # Errors
/// If something does not start.
pub fn soak(arguments: &SoakArguments) -> anyhow::Result<bool> {
    anyhow::ensure!(
        (0.2..=100_000.0).contains(&arguments.minutes),
        "--minutes {}: allowed is 0.2 to 100000",
        arguments.minutes
    );
    let tandem = tandem_program(arguments.tandem.as_deref(), !arguments.no_build)?;
    let context =
        Context::new(Cores::of_process()?, arguments.quick, Results::of_workspace(), tandem);
    let outcome = churn("soak", &context, arguments.minutes * 60.0)?;
    outcome.print();
    println!("  kept in {}", context.results.keep(&outcome)?.display());
    Ok(outcome.passed())
}

/// Three minutes.
///
/// # Errors
/// If something does not start.
pub fn short(context: &Context) -> anyhow::Result<Outcome> {
    churn("churn", context, if context.quick { 12.0 } else { 180.0 })
}

/// One look at the edge.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Look {
    at_s: f64,
    set_ups: u64,
    anonymous_kib: u64,
    descriptors: usize,
}

fn churn(name: &str, context: &Context, seconds: f64) -> anyhow::Result<Outcome> {
    pin_thread(context.cores.load)?;
    let answerer = ports::udp()?;
    let mut edge = edge_plan(AT_ONCE as u16 * 2);
    edge.routes = vec![route(answerer, true)];
    let quiet = wait_quiet(context.cores, context.patience())?;
    // With huge pages one more block that is touched would look like a hundred bytes a set-up.
    let small_pages = SmallPages::begin()?;
    let world = World::start(context, None, edge)?;
    drop(small_pages);
    wait_for_counters();
    let before = state(&world)?;
    let (watch, cpu_before_s) = (Watch::start(context.cores)?, world.cpu_s()?);
    let call = CallPlan {
        target: format!("sip:{CALLEE}@{}", world.edge.sip),
        via: None,
        listen: ports::udp()?,
        user: "+15559000".to_owned(),
        calls: (SET_UPS_PER_S * seconds) as u64,
        rate_per_s: SET_UPS_PER_S,
        at_once_max: AT_ONCE,
        duration_ms: DURATION_MS,
        answer_within_ms: 10_000,
        codecs: vec![Codec::Pcmu],
        sample_every: 0,
        digits: String::new(),
    };
    let answer = AnswerPlan {
        listen: answerer,
        ring_ms: 0,
        at_once_max: AT_ONCE * 2,
        codecs: vec![Codec::Pcmu],
        send_for_ms: Some(DURATION_MS),
    };
    let bank = BankConfig { seed: 1, cpu: Some(context.cores.load) };
    let mut run = LoadRun::start(bank, Some(call), Some(answer))?;
    let looks = watch_run(context, &world, &mut run, Duration::from_secs_f64(seconds + 60.0))?;
    run.hang_up()?;
    let verdict = run.finish(&Limits::default())?;
    let complaints = watch.finish()?.foreign(world.cpu_s()? - cpu_before_s);
    world.edge.wait_idle(Duration::from_secs(40))?;
    wait_for_counters();
    let after = state(&world)?;
    let mut outcome = Outcome::new(name);
    outcome.headings(&["what", "before", "after"]);
    for ((what, before), (_, after)) in before.iter().zip(&after) {
        outcome.row([(*what).to_owned(), before.to_string(), after.to_string()]);
        // Port pairs rest for a while after use, but none may be lost.
        outcome.check(
            &format!("{what}: more than before"),
            (after - before) as f64,
            Goal::AtMost(0.0),
        );
    }
    let caller = verdict.caller.as_ref();
    let attempted = caller.map_or(0, |side| side.attempted);
    let failed = caller.map_or(0, tandem_load::load::SideVerdict::failed_count);
    let refused = world.refusals()?;
    for (cause, count) in refused.iter().filter(|(_, count)| *count > 0) {
        outcome.row([
            format!("calls refused by the edge: {cause}"),
            "0".to_owned(),
            count.to_string(),
        ]);
    }
    outcome.row(["calls".to_owned(), "0".to_owned(), attempted.to_string()]);
    outcome.check("calls that failed", failed as f64, Goal::AtMost(0.0));
    let rate = set_ups_per_s(&looks);
    outcome.check("set-ups per second", rate, Goal::AtLeast(SET_UPS_PER_S * RATE_SHARE_MIN));
    let growth = bytes_per_set_up(&looks);
    outcome.check("memory, bytes per set-up", growth, Goal::AtMost(BYTES_PER_SET_UP_MAX));
    let (early_kib, late_kib) = ends(&looks);
    outcome.row([
        "own memory, KiB, once settled".to_owned(),
        format!("{early_kib:.0}"),
        format!("{late_kib:.0}"),
    ]);
    if seconds >= LONG_S {
        let share = late_kib / early_kib - 1.0;
        outcome.check("memory, growth to the end", share, Goal::AtMost(GROWTH_SHARE_MAX));
    }
    outcome.details = json!({ "looks": looks, "verdict": verdict, "refused": refused });
    // What others did meanwhile makes calls late or fail, which is checked above; it makes nobody's
    // memory or descriptors fewer. So it is told, and no reason to disbelieve the result.
    let mut beside = complaints;
    if !quiet {
        beside.push("the machine was not quiet before".to_owned());
    }
    outcome.clean(true, beside.join(", "));
    Ok(outcome)
}

/// What has to be the same before and after.
fn state(world: &World) -> anyhow::Result<Vec<(&'static str, i64)>> {
    Ok(vec![
        ("descriptors", descriptors(world.edge.process.id())? as i64),
        ("legs", world.edge.metric("tandem_edge_legs_live_count")? as i64),
        ("port pairs in use", world.edge.metric("tandem_edge_port_pairs_used")? as i64),
        ("ports of the media thread", world.edge.metric("tandem_edge_media_ports")? as i64),
        ("programs of the media thread", world.edge.metric("tandem_edge_media_programs")? as i64),
        ("sockets in its ring", world.edge.metric("tandem_edge_media_ring_sockets")? as i64),
    ])
}

fn watch_run(
    context: &Context,
    world: &World,
    run: &mut LoadRun,
    limit: Duration,
) -> anyhow::Result<Vec<Look>> {
    let (began, mut next, mut looks) = (Instant::now(), Instant::now(), Vec::new());
    while !run.is_over()? && began.elapsed() < limit {
        run.wait(Duration::from_millis(200));
        if Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        let progress = run.progress()?;
        let look = Look {
            at_s: progress.at_s,
            set_ups: progress.attempted,
            anonymous_kib: world.edge_memory()?.anonymous_kib,
            descriptors: descriptors(world.edge.process.id())?,
        };
        if looks.len().is_multiple_of(30) {
            context.note(&format!(
                "{:5.0} s  {} calls, {} up, {} failed, {} KiB, {} descriptors",
                look.at_s,
                look.set_ups,
                progress.up,
                progress.failed,
                look.anonymous_kib,
                look.descriptors
            ));
        }
        looks.push(look);
    }
    Ok(looks)
}

/// Looks while calls came and went: neither the beginning nor what follows the last set-up.
fn settled(looks: &[Look]) -> &[Look] {
    let total = looks.last().map_or(0, |look| look.set_ups);
    let over = looks.partition_point(|look| look.set_ups < total);
    let looks = looks.get(..=over).unwrap_or(looks);
    let end_s = looks.last().map_or(0.0, |look| look.at_s);
    let at_least_s = if end_s >= 2.0 * SETTLING_S { SETTLING_S } else { 0.0 };
    let from_s = (end_s * SETTLING_SHARE).max(at_least_s);
    let first = looks.partition_point(|look| look.at_s < from_s);
    looks.get(first..).unwrap_or_default()
}

/// Memory in the first and in the last tenth of the settled part, KiB.
fn ends(looks: &[Look]) -> (f64, f64) {
    let settled = settled(looks);
    let tenth = settled.len().div_ceil(10);
    let mean = |looks: &[Look]| {
        looks.iter().map(|look| look.anonymous_kib as f64).sum::<f64>() / looks.len() as f64
    };
    let (early, late) = (settled.get(..tenth), settled.get(settled.len() - tenth..));
    (mean(early.unwrap_or_default()), mean(late.unwrap_or_default()))
}

/// Set-ups per second from the first look to the last one that saw calls being made.
fn set_ups_per_s(looks: &[Look]) -> f64 {
    let total = looks.last().map_or(0, |look| look.set_ups);
    let last = looks.iter().find(|look| look.set_ups == total);
    match (looks.first(), last) {
        (Some(first), Some(last)) if last.at_s > first.at_s => {
            (last.set_ups - first.set_ups) as f64 / (last.at_s - first.at_s)
        }
        _ => 0.0,
    }
}

/// Slope of memory over set-ups by least squares, after settling.
fn bytes_per_set_up(looks: &[Look]) -> f64 {
    let settled = settled(looks);
    let count = settled.len() as f64;
    let mean = |value: &dyn Fn(&Look) -> f64| settled.iter().map(value).sum::<f64>() / count;
    let (x, y) =
        (|look: &Look| look.set_ups as f64, |look: &Look| look.anonymous_kib as f64 * 1024.0);
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let (mut above, mut below) = (0.0, 0.0);
    for look in settled {
        above += (x(look) - mean_x) * (y(look) - mean_y);
        below += (x(look) - mean_x).powi(2);
    }
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_after_settling() {
        let look = |n: u64| Look {
            at_s: n as f64,
            set_ups: n * 100,
            // Grows fast at first, then by 1 KiB per 100 set-ups.
            anonymous_kib: if n < 10 { n * 500 } else { 5_000 + n },
            descriptors: 40,
        };
        let looks: Vec<Look> = (0..40).map(look).collect();
        assert!((bytes_per_set_up(&looks) - 10.24).abs() < 1e-6);
        assert!((set_ups_per_s(&looks) - 100.0).abs() < 1e-6);
        // The calls were all made by then, and only end.
        let over = Look { at_s: 60.0, ..looks[39] };
        assert!((set_ups_per_s(&[&looks[..], &[over]].concat()) - 100.0).abs() < 1e-6);
        let long: Vec<Look> =
            (0..180).map(|n| Look { at_s: n as f64, set_ups: n.min(170), ..looks[0] }).collect();
        assert_eq!(settled(&long).len(), 111);
        // Of 30 settled looks the first and the last three.
        assert_eq!(ends(&looks), (5_011.0, 5_038.0));
        assert!(bytes_per_set_up(&[]).abs() < 1e-9 && set_ups_per_s(&[]).abs() < 1e-9);
    }
}
