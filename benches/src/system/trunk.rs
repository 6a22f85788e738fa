//! The trunk benches: what a packet costs from one edge's media thread to the other's, through the
//! trunk and by plain UDP; and what a bad route does to it.
//!
//! All threads of both edges are counted, the crossing of the rings included, the sockets of the legs
//! not. The peer is what the edge does with a leg: one connected socket a stream, one send and one
//! receive a packet, on the same ring loop. The sources also run alone, their packets going nowhere,
//! and what that costs is taken off both, as it belongs to neither.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use tandem_wan::{LinkConfig, PathConfig};

use super::trunk_flow::FLAT_OUT;
use super::trunk_world::{Route, World};
use crate::gate::{Watch, wait_quiet};
use crate::machine::{pause, process_cpu};
use crate::report::{Entry, Goal, Outcome, median};
use crate::run::Context;

const STREAMS: usize = 1_000;
/// From each edge: 1,000 calls.
const RATE_100K: [u64; 2] = [50_000, 50_000];
const CALLS_100K: u32 = 1_000;
/// The most that can be configured, so that nothing but the machine is the limit.
const CALLS_FLAT_OUT: u32 = 100_000;
const WARM_UP: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_millis(300);
const TRIES: usize = 3;
const LOSS_MAX: f64 = 0.001;

const COST_100K_MAX: f64 = 0.30;
const COST_SATURATION_MAX: f64 = 0.15;
const DELAY_US_MAX: f64 = 5_000.0;

const RATE_WAN: u64 = 10_000;
const DELAY_WAN_MS: f64 = 80.0;
const LOSS_WAN: f64 = 0.01;
/// Difference between loss of RTP and loss of the wire, in percent points.
const LOSS_DIFFERENCE_MAX: f64 = 0.2;
/// Nothing older is sent.
const AGE_MS_MAX: f64 = 40.0;
/// For the machine's own lateness at both ends and in the relay between.
const LATENESS_MS_MAX: f64 = 5.0;

#[derive(Debug, Clone, serde::Serialize)]
struct Sample {
    system: &'static str,
    /// Packets that arrived, per second.
    rate: f64,
    /// CPU of all threads of both edges, µs per packet that arrived.
    cpu_us: f64,
    loss: f64,
    delay_p50_us: f64,
    delay_p90_us: f64,
    delay_p99_us: f64,
    /// System calls that send, per packet.
    sends: Option<f64>,
    complaints: Vec<String>,
}

/// What was measured in turns.
#[derive(Debug, Clone, serde::Serialize)]
struct Round {
    trunk: Sample,
    plain: Sample,
    /// The sources alone.
    sources: Sample,
}

impl Round {
    fn is_clean(&self) -> bool {
        let all = [&self.trunk, &self.plain, &self.sources];
        all.iter().all(|sample| sample.complaints.is_empty())
    }

    fn trunk_us(&self) -> f64 {
        self.trunk.cpu_us - self.sources.cpu_us
    }

    fn plain_us(&self) -> f64 {
        self.plain.cpu_us - self.sources.cpu_us
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Trunk,
    Plain,
    Sources,
}

fn quantiles(world: &World) -> [f64; 4] {
    let mut all = hdrhistogram::Histogram::<u64>::new(3).ok();
    for flow in &world.flows {
        let delays = flow.delay_ns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = &mut all {
            let _ = all.add(&*delays);
        }
    }
    let at = |quantile| {
        all.as_ref().map_or(f64::NAN, |all| all.value_at_quantile(quantile) as f64 / 1e3)
    };
    [at(0.5), at(0.9), at(0.99), at(1.0)]
}

fn total(world: &World, of: fn(&super::trunk_flow::Flow) -> u64) -> u64 {
    world.flows.iter().map(|flow| of(flow)).sum()
}

fn measure(
    context: &Context,
    system: &'static str,
    world: &World,
    rates: [u64; 2],
    window: Duration,
) -> anyhow::Result<Sample> {
    let sent = |world: &World| total(world, |flow| flow.sent.load(Relaxed));
    let received = |world: &World| total(world, |flow| flow.received.load(Relaxed));
    world.send(rates);
    pause(WARM_UP);
    for flow in &world.flows {
        flow.delay_ns.lock().unwrap_or_else(PoisonError::into_inner).reset();
    }
    let own = std::process::id();
    let watch = Watch::start(context.cores)?;
    let (before, cpu) = (received(world), process_cpu(own)?);
    pause(window);
    let packets = (received(world) - before) as f64;
    let cpu_s = (process_cpu(own)? - cpu).as_secs_f64();
    let watched = watch.finish()?;
    let [delay_p50_us, delay_p90_us, delay_p99_us, _] = quantiles(world);
    world.send([0, 0]);
    pause(DRAIN);
    // The routes are known once a second.
    let sends = world.route(0).map(|_| {
        pause(Duration::from_millis(1_100));
        let sends = (0..2).filter_map(|side| world.route(side)).map(|route| route.sends);
        sends.sum::<u64>() as f64 / received(world).max(1) as f64
    });
    let all_sent = sent(world) as f64;
    Ok(Sample {
        system,
        rate: packets / watched.wall_s,
        cpu_us: cpu_s * 1e6 / packets.max(1.0),
        loss: 1.0 - received(world) as f64 / all_sent.max(1.0),
        delay_p50_us,
        delay_p90_us,
        delay_p99_us,
        sends,
        complaints: watched.foreign(cpu_s),
    })
}

fn line(round: usize, sample: &Sample) -> String {
    let dirty = if sample.complaints.is_empty() {
        String::new()
    } else {
        format!("  DIRTY: {}", sample.complaints.join(", "))
    };
    format!(
        "round {} {:10} {:8.0}/s  {:5.2} µs/packet  loss {:.3} %  delay {:.0}/{:.0}/{:.0} µs{dirty}",
        round + 1,
        sample.system,
        sample.rate,
        sample.cpu_us,
        sample.loss * 100.0,
        sample.delay_p50_us,
        sample.delay_p90_us,
        sample.delay_p99_us,
    )
}

/// Trunk and plain UDP in turns, and the sources alone.
fn rounds(
    context: &Context,
    rates: [u64; 2],
    calls_provisioned: u32,
) -> anyhow::Result<Vec<Round>> {
    let route = Route { calls_provisioned, path: None };
    let once = |what: What| -> anyhow::Result<Sample> {
        let mut tries = context.tries(TRIES);
        loop {
            let quiet = wait_quiet(context.cores, context.patience())?;
            let (name, world) = match what {
                What::Trunk => ("trunk", World::of_trunks(context.cores, STREAMS, &route)?),
                What::Plain => ("plain UDP", World::of_sockets(context.cores, STREAMS)?),
                What::Sources => ("sources", World::of_sources(context.cores, STREAMS)?),
            };
            let mut sample = measure(context, name, &world, rates, context.window())?;
            if !quiet {
                sample.complaints.push("the machine was not quiet before".to_owned());
            }
            if what == What::Trunk && std::env::var_os("TRUNK_COUNTERS").is_some() {
                eprintln!("{}", world.counters());
            }
            tries -= 1;
            if tries == 0 || sample.complaints.is_empty() {
                return Ok(sample);
            }
        }
    };
    let mut all = Vec::new();
    for round in 0..context.rounds() {
        // Each is first as often as the other.
        let (trunk, plain) = if round % 2 == 0 {
            let trunk = once(What::Trunk)?;
            (trunk, once(What::Plain)?)
        } else {
            let plain = once(What::Plain)?;
            (once(What::Trunk)?, plain)
        };
        let sources = once(What::Sources)?;
        for sample in [&trunk, &plain, &sources] {
            context.note(&line(round, sample));
        }
        all.push(Round { trunk, plain, sources });
    }
    Ok(all)
}

fn judge(name: &str, all: &[Round], cost_max: f64) -> Outcome {
    let clean: Vec<&Round> = all.iter().filter(|round| round.is_clean()).collect();
    let enough = clean.len() * 2 > all.len();
    let used = if enough { clean.clone() } else { all.iter().collect() };
    let of = |value: &dyn Fn(&Round) -> f64| {
        median(&used.iter().map(|round| value(round)).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let mut outcome = Outcome::new(name);
    outcome.headings(&[
        "system",
        "packets/s",
        "CPU µs/packet, both edges",
        "without the sources",
        "delay p50/p90/p99 µs",
        "loss %",
        "sends/packet",
    ]);
    let mut row = |sample: &dyn Fn(&Round) -> &Sample, without: &dyn Fn(&Round) -> f64| {
        outcome.row([
            sample(used[0]).system.to_owned(),
            format!("{:.0}", of(&|round| sample(round).rate)),
            format!("{:.2}", of(&|round| sample(round).cpu_us)),
            format!("{:.2}", of(without)),
            format!(
                "{:.0} / {:.0} / {:.0}",
                of(&|round| sample(round).delay_p50_us),
                of(&|round| sample(round).delay_p90_us),
                of(&|round| sample(round).delay_p99_us)
            ),
            format!("{:.3}", of(&|round| sample(round).loss) * 100.0),
            format!("{:.3}", of(&|round| sample(round).sends.unwrap_or(1.0))),
        ]);
    };
    if !used.is_empty() {
        row(&|round| &round.trunk, &Round::trunk_us);
        row(&|round| &round.plain, &Round::plain_us);
    }
    let ratios: Vec<f64> = used.iter().map(|round| round.trunk_us() / round.plain_us()).collect();
    let ratio = median(&ratios);
    if let Some(ratio) = ratio {
        outcome.check("CPU per packet, × plain UDP", ratio, Goal::AtMost(cost_max));
    }
    outcome.details = serde_json::json!({ "streams_each_way": STREAMS, "rounds": all });
    outcome.entry = Some(Entry {
        name: name.to_owned(),
        value: Some(of(&Round::trunk_us)),
        unit: "µs CPU per packet, both edges".to_owned(),
        peer: Some("plain UDP, a connected socket each stream".to_owned()),
        peer_value: Some(of(&Round::plain_us)),
        floor: None,
        floor_value: None,
        ratio_to_peer: ratio.map(|ratio| 1.0 / ratio),
        ratio_to_floor: None,
        rounds: clean.len(),
        clean: enough,
    });
    let added: Vec<f64> =
        used.iter().map(|round| round.trunk.delay_p99_us - round.plain.delay_p50_us).collect();
    if let (true, Some(added)) = (name == "trunk_100k", median(&added)) {
        outcome.check("added delay, p99, µs", added, Goal::AtMost(DELAY_US_MAX));
        outcome.check("loss", of(&|round| round.trunk.loss), Goal::AtMost(LOSS_MAX));
    }
    outcome.clean(enough, format!("{} of {} rounds were clean", clean.len(), all.len()));
    outcome
}

/// 1,000 calls over a trunk, 100,000 packets a second in all.
///
/// # Errors
/// If a trunk does not come up.
pub fn trunk_100k(context: &Context) -> anyhow::Result<Outcome> {
    let all = rounds(context, RATE_100K, CALLS_100K)?;
    Ok(judge("trunk_100k", &all, COST_100K_MAX))
}

/// As many packets as the machine can send from one edge to the other.
///
/// # Errors
/// If a trunk does not come up.
pub fn trunk_saturation(context: &Context) -> anyhow::Result<Outcome> {
    let all = rounds(context, [FLAT_OUT, 0], CALLS_FLAT_OUT)?;
    Ok(judge("trunk_saturation", &all, COST_SATURATION_MAX))
}

/// 10,000 packets a second over 80 ms and 1 % loss; then the same at twice the provisioned rate.
///
/// # Errors
/// If the trunk does not come up.
pub fn trunk_wan(context: &Context) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::new("trunk_wan");
    outcome.headings(&[
        "route",
        "RTP lost %",
        "wire lost %",
        "dropped as stale %",
        "oldest received ms",
        "round trip ms",
        "loss seen %",
    ]);
    let window = context.window() * 5;
    let mut details = Vec::new();
    for (name, calls_provisioned, is_enough) in
        [("provisioned", 1_000, true), ("twice the rate", 50, false)]
    {
        let bad = LinkConfig { delay_ms: DELAY_WAN_MS, loss: LOSS_WAN, ..LinkConfig::default() };
        let path = Some(PathConfig { there: bad, back: bad });
        let world = World::of_trunks(context.cores, STREAMS, &Route { calls_provisioned, path })?;
        // Until the size of datagrams has been found.
        pause(Duration::from_secs(2));
        let before = world.wire().context("no relay")?;
        world.send([RATE_WAN, 0]);
        pause(window);
        world.send([0, 0]);
        pause(Duration::from_millis(1_500));
        let after = world.wire().context("no relay")?;
        let [sent, received] = [&world.flows[0].sent, &world.flows[1].received]
            .map(|counter| counter.load(Relaxed) as f64);
        let wire = |stats: &tandem_wan::RelayStats| {
            let there = stats.mappings.first().map(|mapping| mapping.there).unwrap_or_default();
            (there.datagrams as f64, there.dropped_loss as f64)
        };
        let (datagrams, dropped) =
            (wire(&after).0 - wire(&before).0, wire(&after).1 - wire(&before).1);
        let stale = world.stale(0) as f64;
        let route = world.route(1).context("no route was measured")?;
        let lost = (1.0 - received / (sent - stale)) * 100.0;
        let wire_lost = dropped / datagrams * 100.0;
        let seen = route.datagrams_lost as f64
            / (route.datagrams_lost + route.datagrams_received).max(1) as f64
            * 100.0;
        let oldest_ms = quantiles(&world)[3] / 1e3;
        outcome.row([
            name.to_owned(),
            format!("{lost:.2}"),
            format!("{wire_lost:.2}"),
            format!("{:.2}", stale / sent * 100.0),
            format!("{oldest_ms:.1}"),
            format!("{:.1}", route.round_trip_us as f64 / 1e3),
            format!("{seen:.2}"),
        ]);
        details.push(serde_json::json!({
            "route": name, "sent": sent, "received": received, "stale": stale,
            "datagrams": datagrams, "datagrams_lost": dropped, "oldest_ms": oldest_ms,
            "jitter_us": route.jitter_us,
        }));
        let difference = (lost - wire_lost).abs();
        let of = |what: &str| format!("{name}: {what}");
        let points = Goal::AtMost(LOSS_DIFFERENCE_MAX);
        outcome.check(&of("loss of RTP less loss of the wire, points"), difference, points);
        outcome.check(
            &of("loss that the edge measures less loss of the wire, points"),
            (seen - wire_lost).abs(),
            points,
        );
        let age_max = DELAY_WAN_MS + AGE_MS_MAX + LATENESS_MS_MAX;
        outcome.check(&of("oldest packet received, ms"), oldest_ms, Goal::AtMost(age_max));
        let share = stale / sent;
        let goal = if is_enough { Goal::AtMost(0.0) } else { Goal::AtLeast(0.3) };
        outcome.check(&of("share dropped before it was sent"), share, goal);
    }
    outcome.details = serde_json::json!(details);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(system: &'static str, cpu_us: f64, is_clean: bool) -> Sample {
        Sample {
            system,
            rate: 100_000.0,
            cpu_us,
            loss: 0.0,
            delay_p50_us: 1_000.0,
            delay_p90_us: 2_000.0,
            delay_p99_us: 3_000.0,
            sends: Some(0.02),
            complaints: if is_clean { Vec::new() } else { vec!["noise".to_owned()] },
        }
    }

    fn round(trunk_us: f64, sources_us: f64, is_clean: bool) -> Round {
        Round {
            trunk: sample("trunk", trunk_us, is_clean),
            plain: sample("plain UDP", 5.0, true),
            sources: sample("sources", sources_us, true),
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_clean_rounds() {
        let rounds = [round(1.0, 0.0, true), round(1.2, 0.0, true), round(9.0, 0.0, false)];
        let outcome = judge("trunk_100k", &rounds, 0.3);
        let entry = outcome.entry.clone().unwrap();
        assert!(entry.clean && entry.rounds == 2 && outcome.passed());
        assert!((entry.ratio_to_peer.unwrap() - 1.0 / 0.22).abs() < 1e-9);
        let rounds = [round(1.0, 0.0, true), round(9.0, 0.0, false)];
        let outcome = judge("trunk_saturation", &rounds, 0.15);
        assert!(!outcome.is_clean && !outcome.passed());
    }

    #[test]
    fn what_the_sources_cost_belongs_to_neither() {
        let outcome = judge("trunk_100k", &[round(2.0, 1.0, true)], 0.3);
        let entry = outcome.entry.unwrap();
        assert_eq!((entry.value, entry.peer_value), (Some(1.0), Some(4.0)));
        assert_eq!(entry.ratio_to_peer, Some(4.0));
    }
}
