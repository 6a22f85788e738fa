//! The same rate over more and more calls: what many sockets cost, beside what they cost the floor.

use std::collections::BTreeMap;

use super::Kind;
use super::measure::{Sample, measure, set_up};
use super::relay::{line, one_clean};
use crate::plot;
use crate::report::{Goal, Outcome, median};
use crate::run::Context;

const RATE: f64 = 100_000.0;
const CALLS: [usize; 5] = [100, 500, 1_000, 2_000, 4_500];
const CALLS_QUICK: [usize; 2] = [100, 500];
/// Growth of the edge's cost per packet, × the floor's own growth.
const GROWTH_MAX: f64 = 1.25;
const SYSTEMS: [Kind; 2] = [Kind::Edge, Kind::Floor];

type Costs = BTreeMap<(Kind, usize), Vec<Sample>>;

/// 100 to 4,500 calls at 100,000 packets a second.
///
/// # Errors
/// If a system does not come up.
pub fn relay_scale(context: &Context) -> anyhow::Result<Outcome> {
    let place = context.place()?;
    let window = context.window();
    let sizes: &[usize] = if context.quick { &CALLS_QUICK } else { &CALLS };
    let mut costs = Costs::new();
    for round in 0..context.climbs() {
        for calls in sizes {
            let mut order = SYSTEMS;
            order.rotate_left(round % SYSTEMS.len());
            for kind in order {
                let sample = one_clean(context, || {
                    let (running, mut generator) = set_up(kind, &place, *calls)?;
                    measure(kind, &place, &running, &mut generator, RATE, window)
                })?;
                context.note(&format!("{calls:5} calls  {}", line(round, &sample)));
                costs.entry((kind, *calls)).or_default().push(sample);
            }
        }
    }
    plot::cost_by_calls(&costs, context)?;
    Ok(judge(&costs, sizes))
}

fn cost(costs: &Costs, kind: Kind, calls: usize) -> f64 {
    let samples = costs.get(&(kind, calls)).map_or(&[][..], Vec::as_slice);
    median(&samples.iter().map(|sample| sample.cpu_us).collect::<Vec<_>>()).unwrap_or(f64::NAN)
}

fn judge(costs: &Costs, sizes: &[usize]) -> Outcome {
    let mut outcome = Outcome::new("relay_scale");
    outcome.headings(&[
        "calls",
        "edge, µs/packet",
        "floor, µs/packet",
        "of floor",
        "growth, × floor's",
    ]);
    let first = sizes.first().copied().unwrap_or_default();
    let mut worst = 0.0f64;
    let mut points = Vec::new();
    for calls in sizes {
        let (edge, floor) = (cost(costs, Kind::Edge, *calls), cost(costs, Kind::Floor, *calls));
        let growth = |kind| cost(costs, kind, *calls) / cost(costs, kind, first);
        let relative = growth(Kind::Edge) / growth(Kind::Floor);
        worst = worst.max(relative);
        outcome.row([
            calls.to_string(),
            format!("{edge:.2}"),
            format!("{floor:.2}"),
            format!("{:.2}", floor / edge),
            format!("{relative:.2}"),
        ]);
        points.push(serde_json::json!({ "calls": calls, "edge_us": edge, "floor_us": floor }));
    }
    let samples = || costs.values().flatten();
    let (clean, all) = (samples().filter(|one| one.is_clean()).count(), samples().count());
    let loss = samples().filter(|one| one.system == Kind::Edge.name()).map(|one| one.loss);
    outcome.check("growth of cost per packet, × the floor's", worst, Goal::AtMost(GROWTH_MAX));
    outcome.check("loss, worst sample of the edge", loss.fold(0.0, f64::max), Goal::AtMost(0.001));
    outcome.details = serde_json::json!({
        "points": points,
        "samples": samples().collect::<Vec<_>>(),
    });
    outcome.clean(clean * 10 > all * 8, format!("{clean} of {all} samples were clean"));
    outcome
}
