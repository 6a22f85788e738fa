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
    burst: usize,
    /// The same rate also in bursts of so many, to be shown.
    also: Option<usize>,
    /// Rates and calls of the peer; the cheapest packet without loss counts.
    peer: &'static [(f64, usize)],
    goal: f64,
}

/// One measurement of the program.
#[derive(Debug, Clone, serde::Serialize)]
struct LineSample {
    offered_rate: f64,
    cpu_us: f64,
    arrived_share: f64,
    forwarded_share: f64,
    complaints: Vec<String>,
}

/// 2,000 streams, 100,000 packets a second one by one, and to be shown in bursts of 32, as the peer
/// gets them.
///
/// # Errors
/// If the kernel does not permit it, or rtpengine does not come up.
pub fn xdp_100k(context: &Context) -> anyhow::Result<Outcome> {
    let load = Load {
        name: "xdp_100k",
        rate: 100_000.0,
        burst: 1,
        also: Some(32),
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
        burst: 32,
        also: None,
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
    let mut also = Vec::new();
    for round in 0..context.rounds() {
        if let Some(peer) = &mut peer {
            let sample = peer.best(context, &place, load)?;
            context.note(&super::relay::line(round, &sample));
            peers.push(sample);
        }
        if let Some(burst) = load.also {
            let sample = one(context, place.cores, &mut line, load, burst)?;
            context.note(&words(round, burst, &sample));
            also.push(sample);
        }
        let sample = one(context, place.cores, &mut line, load, load.burst)?;
        context.note(&words(round, load.burst, &sample));
        own.push(sample);
        program_ns.push(line.program_ns(REPEATS)?);
    }
    Ok(judge(load, &own, &also, &peers, median(&program_ns)))
}

fn words(round: usize, burst: usize, sample: &LineSample) -> String {
    format!(
        "round {} xdp, bursts of {burst:2} {:7.0}/s  {:5.2} µs/packet  arrived {:.3} % {}",
        round + 1,
        sample.offered_rate,
        sample.cpu_us,
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
    burst: usize,
) -> anyhow::Result<LineSample> {
    let mut tries = context.tries(TRIES);
    loop {
        let quiet = wait_quiet(cores, context.patience())?;
        let mut sample = sample(cores, line, load.rate, burst, context.window())?;
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
    burst: usize,
    window: Duration,
) -> anyhow::Result<LineSample> {
    line.send(rate, WARM_UP, burst)?;
    crate::machine::pause(DRAIN);
    let before = line.seen()?;
    let watch = Watch::start(cores)?;
    let offered = line.send(rate, window, burst)?;
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
    Ok(LineSample {
        offered_rate,
        cpu_us: cpu_s * 1e6 / forwarded.max(1) as f64,
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

fn judge(
    load: &Load,
    own: &[LineSample],
    also: &[LineSample],
    peers: &[Sample],
    program_ns: Option<f64>,
) -> Outcome {
    let clean: Vec<usize> = (0..own.len())
        .filter(|n| own[*n].complaints.is_empty() && peers.get(*n).is_none_or(Sample::is_clean))
        .collect();
    let is_clean = clean.len() * 2 > own.len();
    let kept: Vec<usize> = if is_clean { clean.clone() } else { (0..own.len()).collect() };
    let of = |value: &dyn Fn(usize) -> Option<f64>| {
        median(&kept.iter().filter_map(|n| value(*n)).collect::<Vec<_>>())
    };
    let cost = of(&|n| own.get(n).map(|sample| sample.cpu_us));
    let peer_cost = of(&|n| peers.get(n).map(|sample| sample.cpu_us));
    let peer_rate = of(&|n| peers.get(n).map(|sample| sample.offered_rate));
    let ratio = of(&|n| Some(peers.get(n)?.cpu_us / own.get(n)?.cpu_us));
    let rate = of(&|n| own.get(n).map(|sample| sample.offered_rate));
    let arrived = of(&|n| own.get(n).map(|sample| sample.arrived_share));
    let show = |value: Option<f64>, digits: usize| {
        value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mut outcome = Outcome::new(load.name);
    outcome.headings(&["system", "packets/s", "CPU µs/packet", "× peer", "arrived %"]);
    let name = |burst| match burst {
        1 => "XDP, native, between two virtual links, one by one".to_owned(),
        burst => format!("XDP, native, between two virtual links, bursts of {burst}"),
    };
    outcome.row([
        name(load.burst),
        show(rate, 0),
        show(cost, 2),
        show(ratio, 2),
        show(arrived.map(|share| share * 100.0), 3),
    ]);
    if let Some(burst) = load.also {
        let of_also = |value: fn(&LineSample) -> f64| of(&|n| also.get(n).map(value));
        outcome.row([
            name(burst),
            show(of_also(|sample| sample.offered_rate), 0),
            show(of_also(|sample| sample.cpu_us), 2),
            show(of(&|n| Some(peers.get(n)?.cpu_us / also.get(n)?.cpu_us)), 2),
            show(of_also(|sample| sample.arrived_share * 100.0), 3),
        ]);
    }
    outcome.row([
        "rtpengine, user space, loopback, bursts of 32".to_owned(),
        show(peer_rate, 0),
        show(peer_cost, 2),
        "1.00".to_owned(),
        show(of(&|n| peers.get(n).map(|sample| (1.0 - sample.loss) * 100.0)), 3),
    ]);
    let dash = || "–".to_owned();
    let alone = show(program_ns.map(|ns| ns / 1_000.0), 3);
    outcome.row(["the program alone (bpf_prog_run)".to_owned(), dash(), alone, dash(), dash()]);
    if let Some(ratio) = ratio {
        outcome.check("packets per CPU-second, × rtpengine", ratio, Goal::AtLeast(load.goal));
    }
    if let Some(program_ns) = program_ns {
        outcome.check("the program alone, ns a packet", program_ns, Goal::AtMost(PROGRAM_NS_MAX));
    }
    outcome.details = serde_json::json!({
        "xdp": own, "xdp_also": also, "rtpengine": peers, "program_ns": program_ns,
    });
    outcome.entry = Some(Entry {
        name: load.name.to_owned(),
        value: cost,
        unit: "µs CPU per packet".to_owned(),
        peer: (!peers.is_empty()).then(|| "rtpengine on loopback".to_owned()),
        peer_value: peer_cost,
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
