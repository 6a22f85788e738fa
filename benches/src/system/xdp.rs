//! The kernel fast path against rtpengine, which has only sockets here: its kernel module cannot be
//! loaded on such machines, so that it runs in user space on loopback, in the same run.

use std::time::Duration;

use super::generator::Generator;
use super::measure::{Sample, measure, set_up};
use super::xdp_line::XdpLine;
use super::{Kind, Place, Running, rtpengine};
use crate::gate::{Watch, wait_quiet};
use crate::machine::Cores;
use crate::report::{Entry, Goal, Outcome, median};
use crate::run::Context;

const WARM_UP: Duration = Duration::from_millis(400);
const DRAIN: Duration = Duration::from_millis(100);
/// 50 packets a second in each direction.
const RATE_PER_CALL: f64 = 100.0;
/// Below this share of the wanted rate the generator was the bottleneck.
const RATE_SHARE_MIN: f64 = 0.97;
const ARRIVED_SHARE_MIN: f64 = 0.999;
const PROGRAM_NS_MAX: f64 = 120.0;
const REPEATS: u32 = 2_000_000;
const TRIES: usize = 3;
/// What may be on the system's core beside the program's threads, and per packet: interrupts.
const OTHERS_SHARE_MAX: f64 = 0.15;

struct Load {
    name: &'static str,
    rate: f64,
    /// How it is sent; the last one counts, the others are shown.
    ways: &'static [Way],
    /// Rates and calls of the peer; the cheapest packet without loss counts.
    peer: &'static [(f64, usize)],
    goal: f64,
}

/// Bursts of so many packets, and whether the interfaces collect packets as an edge makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
struct Way {
    burst: usize,
    collects: bool,
}

impl Way {
    fn name(self) -> String {
        let (burst, wait) = (self.burst, edge_xdp::COALESCE_USUAL.as_micros());
        let sent = if burst == 1 { "one by one".to_owned() } else { format!("bursts of {burst}") };
        if self.collects { format!("{sent}, collected for {wait} µs") } else { sent }
    }
}

/// One measurement of the program.
#[derive(Debug, Clone, serde::Serialize)]
struct LineSample {
    way: Way,
    offered_rate: f64,
    cpu_us: f64,
    /// Time in which the program's core was not idle, µs per packet.
    core_us: f64,
    delay_p50_us: f64,
    delay_p90_us: f64,
    delay_p99_us: f64,
    arrived_share: f64,
    forwarded_share: f64,
    complaints: Vec<String>,
}

/// 2,000 streams, 100,000 packets a second one by one, on interfaces that collect packets as an edge
/// makes them; to be shown also without that, and in bursts of 32, as the peer gets them.
///
/// # Errors
/// If the kernel does not permit it, or rtpengine does not come up.
pub fn xdp_100k(context: &Context) -> anyhow::Result<Outcome> {
    let load = Load {
        name: "xdp_100k",
        rate: 100_000.0,
        ways: &[
            Way { burst: 32, collects: false },
            Way { burst: 1, collects: false },
            Way { burst: 1, collects: true },
        ],
        peer: &[(100_000.0, 1_000)],
        goal: 3.5,
    };
    run(context, &load)
}

/// 20,000 streams, 1,000,000 packets a second in bursts of 32.
///
/// # Errors
/// As [`xdp_100k`].
pub fn xdp_1m(context: &Context) -> anyhow::Result<Outcome> {
    let load = Load {
        name: "xdp_1m",
        rate: 1_000_000.0,
        ways: &[Way { burst: 32, collects: false }, Way { burst: 32, collects: true }],
        peer: &[(130_000.0, 2_000), (170_000.0, 2_000), (200_000.0, 2_000)],
        goal: 6.0,
    };
    run(context, &load)
}

fn run(context: &Context, load: &Load) -> anyhow::Result<Outcome> {
    let place = context.place()?;
    let calls = (load.rate / RATE_PER_CALL) as usize;
    let mut line = XdpLine::new(place.cores, calls)?;
    let mut peer = match rtpengine::program() {
        Some(_) => Some(Peer::new(&place, load)?),
        None => None,
    };
    let (mut own, mut peers, mut program_ns) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..context.rounds() {
        if let Some(peer) = &mut peer {
            let sample = peer.best(context, &place, load)?;
            context.note(&super::relay::line(round, &sample));
            peers.push(sample);
        }
        let mut samples = Vec::new();
        for way in load.ways {
            let sample = one(context, place.cores, &mut line, load, *way)?;
            context.note(&words(round, &sample));
            samples.push(sample);
        }
        own.push(samples);
        program_ns.push(line.program_ns(REPEATS)?);
    }
    Ok(judge(load, &own, &peers, median(&program_ns)))
}

fn words(round: usize, sample: &LineSample) -> String {
    format!(
        "round {} xdp, {:33} {:7.0}/s  {:5.2} µs/packet (core {:5.2})  delay {:.0}/{:.0}/{:.0} µs  \
         arrived {:.3} % {}",
        round + 1,
        sample.way.name(),
        sample.offered_rate,
        sample.cpu_us,
        sample.core_us,
        sample.delay_p50_us,
        sample.delay_p90_us,
        sample.delay_p99_us,
        sample.arrived_share * 100.0,
        sample.complaints.join(", ")
    )
}

/// A disturbed sample is taken again, at most three times.
fn one(
    context: &Context,
    cores: Cores,
    line: &mut XdpLine,
    load: &Load,
    way: Way,
) -> anyhow::Result<LineSample> {
    line.coalesce(if way.collects { edge_xdp::COALESCE_USUAL } else { Duration::ZERO })?;
    let mut tries = context.tries(TRIES);
    loop {
        let quiet = wait_quiet(cores, context.patience())?;
        let mut sample = sample(cores, line, load.rate, way, context.window())?;
        if !quiet {
            sample.complaints.push("the machine was not quiet before".to_owned());
        }
        tries -= 1;
        if tries == 0 || sample.complaints.is_empty() {
            return Ok(sample);
        }
    }
}

fn sample(
    cores: Cores,
    line: &mut XdpLine,
    rate: f64,
    way: Way,
    window: Duration,
) -> anyhow::Result<LineSample> {
    line.send(rate, WARM_UP, way.burst)?;
    crate::machine::pause(DRAIN);
    let before = line.seen()?;
    let watch = Watch::start(cores)?;
    let offered = line.send(rate, window, way.burst)?;
    let watched = watch.finish()?;
    crate::machine::pause(DRAIN);
    let after = line.seen()?;
    let forwarded = after.forwarded - before.forwarded;
    let arrived = after.arrived - before.arrived;
    let cpu_s = (after.cpu - before.cpu).as_secs_f64();
    let offered_rate = offered as f64 / watched.wall_s;
    let mut complaints = watched.steal();
    if offered_rate < rate * RATE_SHARE_MIN {
        complaints.push(format!("the generator reached {offered_rate:.0}/s only"));
    }
    if (arrived as f64) < offered as f64 * ARRIVED_SHARE_MIN {
        complaints.push(format!("{} of {offered} frames did not arrive", offered - arrived));
    }
    if watched.system_busy_s > cpu_s * 1.15 + watched.wall_s * OTHERS_SHARE_MAX {
        complaints.push(format!(
            "the system's core was busy {:.2} s, the program {cpu_s:.2} s",
            watched.system_busy_s
        ));
    }
    let delay_us = |share| after.delay_us(&before, share);
    Ok(LineSample {
        way,
        offered_rate,
        cpu_us: cpu_s * 1e6 / forwarded.max(1) as f64,
        core_us: watched.system_awake_s * 1e6 / forwarded.max(1) as f64,
        delay_p50_us: delay_us(0.5),
        delay_p90_us: delay_us(0.9),
        delay_p99_us: delay_us(0.99),
        arrived_share: arrived as f64 / offered.max(1) as f64,
        forwarded_share: forwarded as f64 / offered.max(1) as f64,
        complaints,
    })
}

/// rtpengine with its calls, all of the time: only the sending takes turns.
struct Peer {
    running: Running,
    generator: Generator,
}

impl Peer {
    fn new(place: &Place, load: &Load) -> anyhow::Result<Self> {
        let calls = load.peer.iter().map(|(_, calls)| *calls).max().unwrap_or(1_000);
        let (running, generator) = set_up(Kind::Rtpengine, place, calls)?;
        Ok(Self { running, generator })
    }

    /// The rate with the cheapest packet among those without loss.
    fn best(&mut self, context: &Context, place: &Place, load: &Load) -> anyhow::Result<Sample> {
        let mut best: Option<Sample> = None;
        for (rate, _) in load.peer {
            let sample = super::relay::one_clean(context, || {
                let (running, generator) = (&self.running, &mut self.generator);
                measure(Kind::Rtpengine, place, running, generator, *rate, context.window())
            })?;
            let better = match &best {
                None => true,
                Some(best) => {
                    sample.is_clean() && sample.loss < 0.001 && sample.cpu_us < best.cpu_us
                }
            };
            if better {
                best = Some(sample);
            }
        }
        best.ok_or_else(|| anyhow::anyhow!("no rates"))
    }
}

/// Rounds that count, and what is asked of them.
struct Rounds<'a> {
    own: &'a [Vec<LineSample>],
    peers: &'a [Sample],
    kept: Vec<usize>,
}

impl Rounds<'_> {
    fn own(&self, way: usize, value: fn(&LineSample) -> f64) -> Option<f64> {
        let of = |n: &usize| self.own.get(*n)?.get(way).map(value);
        median(&self.kept.iter().filter_map(of).collect::<Vec<_>>())
    }

    fn peer(&self, value: fn(&Sample) -> f64) -> Option<f64> {
        let of = |n: &usize| self.peers.get(*n).map(value);
        median(&self.kept.iter().filter_map(of).collect::<Vec<_>>())
    }

    /// Round by round.
    fn ratio(
        &self,
        way: usize,
        peer: fn(&Sample) -> f64,
        own: fn(&LineSample) -> f64,
    ) -> Option<f64> {
        let of = |n: &usize| Some(peer(self.peers.get(*n)?) / own(self.own.get(*n)?.get(way)?));
        median(&self.kept.iter().filter_map(of).collect::<Vec<_>>())
    }
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

const HEADINGS: [&str; 8] = [
    "system",
    "packets/s",
    "CPU µs/packet",
    "× peer",
    "core awake, µs/packet",
    "× peer",
    "delay p50 / p90 / p99, µs",
    "arrived %",
];

fn table(outcome: &mut Outcome, load: &Load, rounds: &Rounds<'_>, program_ns: Option<f64>) {
    outcome.headings(&HEADINGS);
    for (n, way) in load.ways.iter().enumerate() {
        let delays = [
            rounds.own(n, |sample| sample.delay_p50_us),
            rounds.own(n, |sample| sample.delay_p90_us),
            rounds.own(n, |sample| sample.delay_p99_us),
        ];
        outcome.row([
            format!("XDP, native, between two virtual links, {}", way.name()),
            show(rounds.own(n, |sample| sample.offered_rate), 0),
            show(rounds.own(n, |sample| sample.cpu_us), 2),
            show(rounds.ratio(n, |peer| peer.cpu_us, |own| own.cpu_us), 2),
            show(rounds.own(n, |sample| sample.core_us), 2),
            show(rounds.ratio(n, |peer| peer.core_us, |own| own.core_us), 2),
            delays.map(|delay| show(delay, 0)).join(" / "),
            show(rounds.own(n, |sample| sample.arrived_share * 100.0), 3),
        ]);
    }
    let delays = [
        rounds.peer(|sample| sample.delay_p50_us),
        rounds.peer(|sample| sample.delay_p90_us),
        rounds.peer(|sample| sample.delay_p99_us),
    ];
    outcome.row([
        "rtpengine, user space, loopback, bursts of 32".to_owned(),
        show(rounds.peer(|sample| sample.offered_rate), 0),
        show(rounds.peer(|sample| sample.cpu_us), 2),
        "1.00".to_owned(),
        show(rounds.peer(|sample| sample.core_us), 2),
        "1.00".to_owned(),
        delays.map(|delay| show(delay, 0)).join(" / "),
        show(rounds.peer(|sample| (1.0 - sample.loss) * 100.0), 3),
    ]);
    let mut alone = HEADINGS.map(|_| "–".to_owned());
    alone[0] = "the program alone (bpf_prog_run)".to_owned();
    alone[2] = show(program_ns.map(|ns| ns / 1_000.0), 3);
    outcome.row(alone);
}

fn judge(
    load: &Load,
    own: &[Vec<LineSample>],
    peers: &[Sample],
    program_ns: Option<f64>,
) -> Outcome {
    let last = load.ways.len().saturating_sub(1);
    let clean: Vec<usize> = (0..own.len())
        .filter(|n| own[*n].get(last).is_some_and(|sample| sample.complaints.is_empty()))
        .filter(|n| peers.get(*n).is_none_or(Sample::is_clean))
        .collect();
    let is_clean = clean.len() * 2 > own.len();
    let kept = if is_clean { clean.clone() } else { (0..own.len()).collect() };
    let rounds = Rounds { own, peers, kept };
    let mut outcome = Outcome::new(load.name);
    table(&mut outcome, load, &rounds, program_ns);
    let ratio = rounds.ratio(last, |peer| peer.cpu_us, |own| own.cpu_us);
    if let Some(ratio) = ratio {
        outcome.check("packets per CPU-second, × rtpengine", ratio, Goal::AtLeast(load.goal));
    }
    if let Some(program_ns) = program_ns {
        outcome.check("the program alone, ns a packet", program_ns, Goal::AtMost(PROGRAM_NS_MAX));
    }
    outcome.details = serde_json::json!({
        "xdp": own, "rtpengine": peers, "program_ns": program_ns,
    });
    outcome.entry = Some(Entry {
        name: load.name.to_owned(),
        value: rounds.own(last, |sample| sample.cpu_us),
        unit: "µs CPU per packet".to_owned(),
        peer: (!peers.is_empty()).then(|| "rtpengine on loopback".to_owned()),
        peer_value: rounds.peer(|sample| sample.cpu_us),
        floor: None,
        floor_value: None,
        ratio_to_peer: ratio,
        ratio_to_floor: None,
        rounds: clean.len(),
        clean: is_clean,
    });
    outcome.clean(is_clean, format!("{} of {} rounds were clean", clean.len(), own.len()));
    outcome
}
