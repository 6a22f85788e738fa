//! The relay benches: cost per packet at a fixed rate, and the highest rate without loss.

use std::collections::BTreeMap;

use super::measure::{Sample, measure, set_up};
use super::{Kind, Place, kernel, rtpengine};
use crate::gate::wait_quiet;
use crate::plot;
use crate::report::{Entry, Goal, Outcome, median};
use crate::run::Context;

const CALLS_100K: usize = 1_000;
const RATE_100K: f64 = 100_000.0;
/// All rates of the climb go over the same number of calls, so that the number of sockets stays.
const CALLS_CLIMB: usize = 2_000;
const LOSS_MAX: f64 = 0.001;
const STEP: f64 = 1.1;
const TRIES: usize = 3;

fn kinds() -> Vec<Kind> {
    let peer = rtpengine::program().map(|_| Kind::Rtpengine);
    peer.into_iter().chain([Kind::Edge, Kind::Floor]).collect()
}

/// At the fixed rate, where delays are compared, the edge also runs on a core that sleeps, as its peers
/// do; and the floor on one that does not, which shows what delay is left to win.
fn kinds_100k() -> Vec<Kind> {
    let awake = edge::awake::hold().is_ok().then_some(Kind::FloorAwake);
    kinds().into_iter().chain([Kind::EdgeAsleep]).chain(awake).collect()
}

type Rounds = BTreeMap<Kind, Vec<Sample>>;

/// 1,000 calls, 100,000 packets a second.
///
/// # Errors
/// If a system does not come up.
pub fn relay_100k(context: &Context) -> anyhow::Result<Outcome> {
    let place = context.place()?;
    let window = context.window();
    let mut rounds = Rounds::new();
    let mut kernel_us = Vec::new();
    for round in 0..context.many_rounds() {
        // Each system is first as often as the others.
        let mut order = kinds_100k();
        let turn = round % order.len();
        order.rotate_left(turn);
        for kind in order {
            let sample = one_clean(context, || {
                let (running, mut generator) = set_up(kind, &place, CALLS_100K)?;
                measure(kind, &place, &running, &mut generator, RATE_100K, window)
            })?;
            context.note(&line(round, &sample));
            rounds.entry(kind).or_default().push(sample);
        }
        kernel_us.push(kernel::send_and_receive_us(place.cores.system, window / 4)?);
    }
    Ok(judge_100k(&rounds, median(&kernel_us)))
}

/// Repeats a dirty or lossy measurement, at most three times in all; the last one counts as it is.
pub(super) fn one_clean(
    context: &Context,
    mut once: impl FnMut() -> anyhow::Result<Sample>,
) -> anyhow::Result<Sample> {
    let mut tries = context.tries(TRIES);
    loop {
        let quiet = wait_quiet(context.cores, context.patience())?;
        let mut sample = once()?;
        if !quiet {
            sample.complaints.push("the machine was not quiet before".to_owned());
        }
        tries -= 1;
        if tries == 0 || (sample.is_clean() && sample.loss < LOSS_MAX) {
            return Ok(sample);
        }
    }
}

pub(super) fn line(round: usize, sample: &Sample) -> String {
    format!(
        "round {} {:23} {:7.0}/s  {:5.2} µs/packet  loss {:.3} %  delay {:.0}/{:.0}/{:.0} µs{}",
        round + 1,
        sample.system,
        sample.offered_rate,
        sample.cpu_us,
        sample.loss * 100.0,
        sample.delay_p50_us,
        sample.delay_p90_us,
        sample.delay_p99_us,
        dirty_note(sample)
    )
}

fn dirty_note(sample: &Sample) -> String {
    if sample.is_clean() {
        String::new()
    } else {
        format!("  DIRTY: {}", sample.complaints.join(", "))
    }
}

/// Median over rounds of `value` of one system over that of another, round by round.
fn ratio(rounds: &Rounds, own: Kind, other: Kind, value: fn(&Sample) -> f64) -> Option<f64> {
    let (own, others) = (rounds.get(&own)?, rounds.get(&other)?);
    let ratios: Vec<f64> =
        own.iter().zip(others).map(|(own, other)| value(own) / value(other)).collect();
    median(&ratios)
}

/// Rounds in which no system was disturbed.
fn clean_rounds(rounds: &Rounds) -> Rounds {
    let count = rounds.values().map(Vec::len).min().unwrap_or(0);
    let clean = |n: &usize| rounds.values().all(|samples| samples[*n].is_clean());
    let kept: Vec<usize> = (0..count).filter(clean).collect();
    let pick = |samples: &Vec<Sample>| kept.iter().map(|n| samples[*n].clone()).collect();
    rounds.iter().map(|(kind, samples)| (*kind, pick(samples))).collect()
}

fn median_of(rounds: &Rounds, kind: Kind, value: fn(&Sample) -> f64) -> Option<f64> {
    median(&rounds.get(&kind)?.iter().map(value).collect::<Vec<_>>())
}

const COST: fn(&Sample) -> f64 = |sample| sample.cpu_us;

fn judge_100k(all: &Rounds, kernel_us: Option<f64>) -> Outcome {
    let of_all = all.get(&Kind::Edge).map_or(0, Vec::len);
    let clean = clean_rounds(all);
    let clean_count = clean.get(&Kind::Edge).map_or(0, Vec::len);
    // A majority of clean rounds makes a result; else what was seen is shown, and called dirty.
    let is_clean = clean_count * 2 > of_all;
    let rounds = if is_clean { &clean } else { all };
    let mut outcome = Outcome::new("relay_100k");
    outcome.headings(&[
        "system",
        "CPU µs/packet",
        "× peer",
        "of floor",
        "delay p50/p90/p99 µs",
        "p50/p90 × peer",
        "loss %",
        "made",
    ]);
    let to_peer = |kind| {
        let delay = |value| ratio(rounds, kind, Kind::Rtpengine, value);
        Some(format!("{:.3} / {:.3}", delay(|s| s.delay_p50_us)?, delay(|s| s.delay_p90_us)?))
    };
    for kind in all.keys().copied() {
        let of = |value: fn(&Sample) -> f64| median_of(rounds, kind, value).unwrap_or(f64::NAN);
        let over = |other| {
            let own = of(COST);
            median_of(rounds, other, COST)
                .map_or("–".to_owned(), |other| format!("{:.2}", other / own))
        };
        outcome.row([
            kind.name().to_owned(),
            format!("{:.2}", of(COST)),
            over(Kind::Rtpengine),
            over(Kind::Floor),
            format!(
                "{:.0} / {:.0} / {:.0}",
                of(|s| s.delay_p50_us),
                of(|s| s.delay_p90_us),
                of(|s| s.delay_p99_us)
            ),
            to_peer(kind).unwrap_or("–".to_owned()),
            format!("{:.3}", of(|s| s.loss) * 100.0),
            format!("{:.0}", of(|s| s.made as f64)),
        ]);
    }
    if let Some(us) = kernel_us {
        let mut row = ["–"; 8].map(str::to_owned);
        row[0] = "kernel: send + receive".to_owned();
        row[1] = format!("{us:.2}");
        outcome.row(row);
    }
    let cost = |own, other| ratio(rounds, own, other, COST).map(|ratio| 1.0 / ratio);
    let p50 = |own, other| ratio(rounds, own, other, |s| s.delay_p50_us);
    let p90 = |own, other| ratio(rounds, own, other, |s| s.delay_p90_us);
    let (peer, floor) = (Kind::Rtpengine, Kind::Floor);
    for (own, of_own) in [(Kind::Edge, ""), (Kind::EdgeAsleep, "keep_awake never: ")] {
        for (what, measured, goal) in [
            ("packets per CPU-second, of the floor", cost(own, floor), Goal::AtLeast(0.85)),
            ("packets per CPU-second, × rtpengine", cost(own, peer), Goal::AtLeast(1.7)),
            ("delay p50, × rtpengine", p50(own, peer), Goal::AtMost(0.3)),
            ("delay p90, × rtpengine", p90(own, peer), Goal::AtMost(0.2)),
            ("delay p50, × floor", p50(own, floor), Goal::AtMost(1.2)),
            ("delay p90, × floor", p90(own, floor), Goal::AtMost(1.2)),
            ("loss", median_of(rounds, own, |s| s.loss), Goal::AtMost(LOSS_MAX)),
        ] {
            if let Some(measured) = measured {
                outcome.check(&format!("{of_own}{what}"), measured, goal);
            }
        }
    }
    outcome.details = serde_json::json!({
        "kernel_us": kernel_us,
        "samples": all.values().collect::<Vec<_>>(),
    });
    outcome.entry = Some(Entry {
        name: "relay_100k".to_owned(),
        value: median_of(rounds, Kind::Edge, COST),
        unit: "µs CPU per packet".to_owned(),
        peer: all.contains_key(&Kind::Rtpengine).then(|| "rtpengine".to_owned()),
        peer_value: median_of(rounds, Kind::Rtpengine, COST),
        floor: Some("connected io_uring forwarder without logic".to_owned()),
        floor_value: median_of(rounds, Kind::Floor, COST),
        ratio_to_peer: cost(Kind::Edge, peer),
        ratio_to_floor: cost(Kind::Edge, floor),
        rounds: clean_count,
        clean: is_clean,
    });
    outcome.clean(is_clean, format!("{clean_count} of {of_all} rounds were clean"));
    outcome
}

/// Highest rate below 0.1 % loss, climbing by 10 % and going back by half a step.
///
/// # Errors
/// If a system does not come up.
pub fn relay_saturation(context: &Context) -> anyhow::Result<Outcome> {
    let place = context.place()?;
    let mut best = Rounds::new();
    let mut curve: BTreeMap<Kind, Vec<Sample>> = BTreeMap::new();
    for round in 0..context.rounds() {
        let mut order = kinds();
        let turn = round % order.len();
        order.rotate_left(turn);
        for kind in order {
            let quiet = wait_quiet(context.cores, context.patience())?;
            // Later climbs begin where the first one came to, to save time.
            let start =
                best.get(&kind).and_then(|found| found.first()).map(|top| top.rate / STEP / STEP);
            let climbed = climb(context, kind, &place, start)?;
            let Some(top) = climbed.iter().rev().find(|sample| sample.loss < LOSS_MAX) else {
                anyhow::bail!("{} loses at every rate: {climbed:?}", kind.name());
            };
            let mut top = top.clone();
            if !quiet {
                top.complaints.push("the machine was not quiet before".to_owned());
            }
            context.note(&line(round, &top));
            best.entry(kind).or_default().push(top);
            curve.entry(kind).or_default().extend(climbed);
        }
    }
    plot::cost_and_delay(&curve, context)?;
    Ok(judge_saturation(&best, &curve))
}

/// All samples of one climb; the last two may have lost.
fn climb(
    context: &Context,
    kind: Kind,
    place: &Place,
    start: Option<f64>,
) -> anyhow::Result<Vec<Sample>> {
    let (running, mut generator) = set_up(kind, place, CALLS_CLIMB)?;
    let mut samples: Vec<Sample> = Vec::new();
    // The first climb draws the curve from the beginning.
    let low: &[f64] =
        if start.is_some() { &[] } else { &[25_000.0, 50_000.0, 75_000.0, 100_000.0] };
    let mut rates = low.to_vec();
    let mut rate = start.unwrap_or(120_000.0);
    let mut refined = false;
    loop {
        let next = if rates.is_empty() { rate } else { rates.remove(0) };
        let mut tries = context.tries(TRIES);
        let mut best: Option<Sample> = None;
        while tries > 0 {
            let sample = measure(kind, place, &running, &mut generator, next, context.window())?;
            if best.as_ref().is_none_or(|best| sample.loss < best.loss) {
                best = Some(sample);
            }
            if best.as_ref().is_some_and(|best| best.loss < LOSS_MAX) {
                break;
            }
            tries -= 1;
        }
        let Some(sample) = best else { return Ok(samples) };
        let loses = sample.loss >= LOSS_MAX && next >= rate;
        let ends = refined || sample.is_generator_limited();
        samples.push(sample);
        if ends {
            return Ok(samples);
        }
        if loses {
            // Half a step back: between the last rate that held and the first that did not.
            refined = true;
            rate = next / STEP * STEP.sqrt();
        } else if next >= rate {
            rate *= STEP;
        }
    }
}

fn judge_saturation(best: &Rounds, curve: &Rounds) -> Outcome {
    let of_all = best.get(&Kind::Edge).map_or(0, Vec::len);
    let clean = clean_rounds(best);
    let clean_count = clean.get(&Kind::Edge).map_or(0, Vec::len);
    let is_clean = clean_count * 2 > of_all;
    let rounds = if is_clean { &clean } else { best };
    let rate: fn(&Sample) -> f64 = |sample| sample.offered_rate;
    let mut outcome = Outcome::new("relay_saturation");
    outcome.headings(&[
        "system",
        "packets/s below 0.1 % loss",
        "× peer",
        "of floor",
        "CPU µs/packet there",
    ]);
    for kind in kinds() {
        let limited =
            best.get(&kind).is_some_and(|samples| samples.iter().any(Sample::is_generator_limited));
        let own = median_of(rounds, kind, rate).unwrap_or(f64::NAN);
        let over = |other| {
            median_of(rounds, other, rate)
                .map_or("–".to_owned(), |other| format!("{:.2}", own / other))
        };
        outcome.row([
            kind.name().to_owned(),
            format!("{}{own:.0}", if limited { "≥ " } else { "" }),
            over(Kind::Rtpengine),
            over(Kind::Floor),
            format!("{:.2}", median_of(rounds, kind, COST).unwrap_or(f64::NAN)),
        ]);
    }
    let over = |other| ratio(rounds, Kind::Edge, other, rate);
    let (peer, floor) = (over(Kind::Rtpengine), over(Kind::Floor));
    for (what, measured, goal) in [
        ("highest rate, of the floor's", floor, Goal::AtLeast(0.85)),
        ("highest rate, × rtpengine's", peer, Goal::AtLeast(1.3)),
    ] {
        if let Some(measured) = measured {
            outcome.check(what, measured, goal);
        }
    }
    outcome.details = serde_json::json!({
        "calls": CALLS_CLIMB,
        "best": best.values().collect::<Vec<_>>(),
        "curve": curve.values().collect::<Vec<_>>(),
    });
    outcome.entry = Some(Entry {
        name: "relay_saturation".to_owned(),
        value: median_of(rounds, Kind::Edge, rate),
        unit: "packets/s below 0.1 % loss".to_owned(),
        peer: best.contains_key(&Kind::Rtpengine).then(|| "rtpengine".to_owned()),
        peer_value: median_of(rounds, Kind::Rtpengine, rate),
        floor: Some("connected io_uring forwarder without logic".to_owned()),
        floor_value: median_of(rounds, Kind::Floor, rate),
        ratio_to_peer: peer,
        ratio_to_floor: floor,
        rounds: clean_count,
        clean: is_clean,
    });
    outcome.clean(is_clean, format!("{clean_count} of {of_all} climbs were clean"));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(system: &'static str, cpu_us: f64, clean: bool) -> Sample {
        Sample {
            system,
            rate: RATE_100K,
            offered_rate: RATE_100K,
            cpu_us,
            core_us: cpu_us,
            loss: 0.0,
            refused: 0,
            made: 0,
            delay_p50_us: cpu_us * 10.0,
            delay_p90_us: cpu_us * 20.0,
            delay_p99_us: cpu_us * 30.0,
            generator_late_us: 0.0,
            complaints: if clean { vec![] } else { vec!["noise".to_owned()] },
        }
    }

    #[test]
    fn ratios_are_medians_over_clean_rounds() {
        let rounds = |dirty: usize| -> Rounds {
            let of = |system, base: f64| {
                (0..5).map(|n| sample(system, base * (1.0 + n as f64 / 10.0), n >= dirty)).collect()
            };
            [
                (Kind::Edge, of("tandem-edge", 4.0)),
                (Kind::Rtpengine, of("rtpengine", 8.0)),
                (Kind::Floor, of("floor", 3.6)),
            ]
            .into()
        };
        let entry = judge_100k(&rounds(1), None).entry.unwrap();
        assert!(entry.clean && entry.rounds == 4);
        assert!((entry.ratio_to_peer.unwrap() - 2.0).abs() < 1e-9);
        assert!((entry.ratio_to_floor.unwrap() - 0.9).abs() < 1e-9);
        let outcome = judge_100k(&rounds(3), None);
        assert!(!outcome.is_clean && !outcome.entry.unwrap().clean);
    }
}
