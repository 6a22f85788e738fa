//! Drawings: cost per packet and delay against rate. Only clean samples are drawn.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::prelude::*;

use crate::run::Context;
use crate::system::Kind;
use crate::system::measure::Sample;

/// What is drawn of a sample.
type Value = fn(&Sample) -> f64;

type Curves = BTreeMap<Kind, Vec<(f64, f64)>>;

/// Draws both into the folder of results.
///
/// # Errors
/// Of the files.
pub fn cost_and_delay(
    samples: &BTreeMap<Kind, Vec<Sample>>,
    context: &Context,
) -> anyhow::Result<()> {
    let drawings: [(&str, &str, Value); 3] = [
        ("relay-cost.svg", "CPU per packet, µs", |sample| sample.cpu_us),
        ("relay-delay-p50.svg", "delay, median, µs", |sample| sample.delay_p50_us),
        ("relay-delay-p90.svg", "delay, 90th percentile, µs", |sample| sample.delay_p90_us),
    ];
    let is_clean = most_are_clean(samples.values()) && !context.quick;
    for (file, what, value) in drawings {
        let curves = curves(samples, value);
        keep(context, is_clean, (file, what), "thousand packets per second", &curves)?;
    }
    Ok(())
}

/// Draws into the folder of results, or of what is none.
fn keep(
    context: &Context,
    is_clean: bool,
    (file, what): (&str, &str),
    axis: &str,
    curves: &Curves,
) -> anyhow::Result<()> {
    let machine = context.results.machine();
    let mut title = format!("{what} · {} · {}", machine.kernel, machine.commit);
    let path = if is_clean {
        context.results.beside(file)?
    } else {
        title += " · DIRTY";
        let folder = crate::machine::workspace().join("target/benches-dirty");
        std::fs::create_dir_all(&folder)?;
        folder.join(file)
    };
    draw(&path, &title, axis, curves)
}

/// Draws cost per packet against the number of calls.
///
/// # Errors
/// Of the files.
pub fn cost_by_calls(
    samples: &BTreeMap<(Kind, usize), Vec<Sample>>,
    context: &Context,
) -> anyhow::Result<()> {
    let mut curves = Curves::new();
    for ((kind, calls), samples) in samples {
        let costs: Vec<f64> = clean(samples).map(|sample| sample.cpu_us).collect();
        if let Some(cost) = crate::report::median(&costs) {
            curves.entry(*kind).or_default().push((*calls as f64, cost));
        }
    }
    let is_clean = most_are_clean(samples.values()) && !context.quick;
    let what = ("relay-cost-by-calls.svg", "CPU per packet at 100,000 packets/s, µs");
    keep(context, is_clean, what, "thousand calls", &curves)
}

/// What is drawn.
fn clean(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(|sample| sample.is_clean())
}

/// Whether a drawing of the clean ones is one of all, as for any other result.
fn most_are_clean<'a>(samples: impl Iterator<Item = &'a Vec<Sample>>) -> bool {
    let (mut of_them, mut all) = (0, 0);
    for samples in samples {
        of_them += clean(samples).count();
        all += samples.len();
    }
    of_them * 2 > all
}

/// Median of `value` at each rate, of clean samples.
fn curves(samples: &BTreeMap<Kind, Vec<Sample>>, value: Value) -> Curves {
    let of = |samples: &Vec<Sample>| {
        let mut by_rate: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for sample in clean(samples) {
            by_rate.entry(sample.rate.round() as u64).or_default().push(value(sample));
        }
        let points = by_rate.into_iter();
        points.filter_map(|(rate, all)| Some((rate as f64, crate::report::median(&all)?))).collect()
    };
    samples.iter().map(|(kind, samples)| (*kind, of(samples))).collect()
}

fn draw(path: &Path, title: &str, axis: &str, curves: &Curves) -> anyhow::Result<()> {
    let points = || curves.values().flatten();
    let x_max = points().map(|point| point.0).fold(1.0, f64::max) / 1e3;
    let y_max = points().map(|point| point.1).fold(0.1, f64::max);
    let area = SVGBackend::new(path, (900, 520)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow::anyhow!("{error}"))?;
    let failed = |error: DrawingAreaErrorKind<_>| anyhow::anyhow!("{}: {error}", path.display());
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..x_max * 1.05, 0.0..y_max * 1.1)
        .map_err(failed)?;
    chart.configure_mesh().x_desc(axis).draw().map_err(failed)?;
    for (index, (kind, points)) in curves.iter().enumerate() {
        let colour = [RGBColor(0, 90, 200), RGBColor(200, 60, 0), RGBColor(90, 90, 90)][index % 3];
        let scaled: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x / 1e3, *y)).collect();
        let line = LineSeries::new(scaled.clone(), colour.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(failed)?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let dots = scaled.into_iter().map(|point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    let mut labels = chart.configure_series_labels();
    labels
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .draw()
        .map_err(failed)?;
    area.present().map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_every_system() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.svg");
        let curve = vec![(25_000.0, 4.0), (100_000.0, 3.0)];
        let curves = [(Kind::Edge, curve.clone()), (Kind::Floor, curve)].into();
        draw(&path, "title", "axis", &curves).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        assert!(svg.contains("tandem-edge") && svg.contains("floor") && svg.contains("title"));
    }
}
