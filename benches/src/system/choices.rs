//! What could be done otherwise on the way of a packet, side by side: how the media thread waits, and
//! how a forwarder sends. The advice in `docs/operate.md` and the choices in `edge-uring` come from here.

use super::edge;
use super::floor::{self, FloorWay};
use super::generator::Generator;
use super::measure::{Sample, measure};
use super::relay::one_clean;
use super::{Kind, Place, Running};
use crate::report::{Goal, Outcome, median};
use crate::run::Context;

/// Calls, and packets a second of all of them.
const LOADS: [(usize, f64); 2] = [(50, 5_000.0), (1_000, 100_000.0)];

#[derive(Clone, Copy)]
enum Choice {
    Edge(&'static str),
    Floor(FloorWay),
    /// Processors do not sleep, as an edge would have it by `media.keep_awake` = "always".
    FloorAwake,
}

const CHOICES: [(&str, Choice); 12] = [
    ("edge, as it is", Choice::Edge("")),
    ("edge, busy_poll_ms 1", Choice::Edge("busy_poll_ms = 1\n")),
    ("edge, keep_awake never", Choice::Edge(edge::ASLEEP)),
    ("edge, keep_awake always", Choice::Edge("keep_awake = \"always\"\n")),
    ("edge, batches of 8 or 200 µs", Choice::Edge("batch_packets = 8\nbatch_wait_us = 200\n")),
    ("edge, batches of 32 or 1 ms", Choice::Edge("batch_packets = 32\nbatch_wait_us = 1000\n")),
    ("edge, batches of 64 or 5 ms", Choice::Edge("batch_packets = 64\nbatch_wait_us = 5000\n")),
    ("floor, as it is", Choice::Floor(FloorWay::Plain)),
    ("floor, SEND_ZC", Choice::Floor(FloorWay::ZeroCopy)),
    ("floor, SQPOLL", Choice::Floor(FloorWay::KernelThread)),
    ("floor, processors kept awake", Choice::FloorAwake),
    ("floor, one socket receives for all", Choice::Floor(FloorWay::OneReceives)),
];

fn set_up(
    choice: Choice,
    place: &Place,
    calls: usize,
) -> anyhow::Result<(Kind, Running, Generator)> {
    let mut generator = Generator::new()?;
    let ends = generator.ends()?;
    let (kind, running) = match choice {
        Choice::Edge(media) => (Kind::Edge, edge::start(place, calls, &ends, media)?),
        Choice::Floor(way) => (Kind::Floor, floor::start(place, calls, &ends, way)?),
        Choice::FloorAwake => (Kind::FloorAwake, floor::start_awake(place, calls, &ends)?),
    };
    generator.aim(&running.legs)?;
    generator.prime(2)?;
    Ok((kind, running, generator))
}

/// 50 and 1,000 calls.
///
/// # Errors
/// If a system does not come up.
pub fn relay_choices(context: &Context) -> anyhow::Result<Outcome> {
    let place = context.place()?;
    let window = context.window();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); CHOICES.len() * LOADS.len()];
    for _ in 0..context.climbs() {
        for (n, (name, choice)) in CHOICES.iter().enumerate() {
            for (m, (calls, rate)) in LOADS.iter().enumerate() {
                let sample = one_clean(context, || {
                    let (kind, running, mut generator) = set_up(*choice, &place, *calls)?;
                    measure(kind, &place, &running, &mut generator, *rate, window)
                })?;
                context.note(&format!("{name}: {:.2} µs", sample.cpu_us));
                samples[n * LOADS.len() + m].push(sample);
            }
        }
    }
    let mut outcome = Outcome::new("relay_choices");
    outcome.headings(&[
        "what",
        "packets/s",
        "CPU µs/packet",
        "× as it is",
        "delay p50/p90 µs",
        "loss %",
    ]);
    let of = |place: usize, value: fn(&Sample) -> f64| {
        median(&samples[place].iter().map(value).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let mut usual = [f64::NAN; LOADS.len()];
    for (n, (name, _)) in CHOICES.iter().enumerate() {
        for (m, (_, rate)) in LOADS.iter().enumerate() {
            let place = n * LOADS.len() + m;
            let cost = of(place, |s| s.cpu_us);
            if name.ends_with("as it is") {
                usual[m] = cost;
            }
            outcome.row([
                (*name).to_owned(),
                format!("{rate:.0}"),
                format!("{cost:.2}"),
                format!("{:.2}", cost / usual[m]),
                format!(
                    "{:.0} / {:.0}",
                    of(place, |s| s.delay_p50_us),
                    of(place, |s| s.delay_p90_us)
                ),
                format!("{:.3}", of(place, |s| s.loss) * 100.0),
            ]);
        }
    }
    let lost = samples.iter().flatten().map(|sample| sample.loss).fold(0.0, f64::max);
    outcome.check("loss, worst sample", lost, Goal::AtMost(0.001));
    let (clean, all) = (
        samples.iter().flatten().filter(|s| s.is_clean()).count(),
        samples.iter().flatten().count(),
    );
    outcome.details = serde_json::json!({ "samples": samples });
    outcome.clean(clean * 10 > all * 8, format!("{clean} of {all} samples were clean"));
    Ok(outcome)
}
