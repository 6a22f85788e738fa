//! What changed between two results.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use comfy_table::{Table, presets};

use crate::report::Entry;

const EXAMPLES: &str = "\
Examples:
  Against what is committed
    git show HEAD:benches/results/latest.json > /tmp/before.json
    cargo run --release -p benches -- compare /tmp/before.json benches/results/latest.json

Ratios are compared, since they survive a change of machine or mood; a change below 10 % is within
the spread of such machines.";

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArguments {
    /// An older latest.json
    before: PathBuf,
    /// A newer one
    after: PathBuf,
}

/// Prints both side by side.
///
/// # Errors
/// If a file cannot be read.
pub fn compare(arguments: &CompareArguments) -> anyhow::Result<()> {
    let (before, after) = (load(&arguments.before)?, load(&arguments.after)?);
    println!("{}", table(&before, &after));
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

fn table(before: &[Entry], after: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["bench", "× peer", "of floor", "value", "unit"]);
    for new in after {
        let old = before.iter().find(|old| old.name == new.name);
        let change = |of: fn(&Entry) -> Option<f64>| change(old.and_then(of), of(new));
        table.add_row([
            new.name.clone(),
            change(|entry| entry.ratio_to_peer),
            change(|entry| entry.ratio_to_floor),
            change(|entry| entry.value),
            new.unit.clone(),
        ]);
    }
    table
}

fn change(old: Option<f64>, new: Option<f64>) -> String {
    let show = |value: f64| {
        if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
    };
    match (old, new) {
        (Some(old), Some(new)) if old != 0.0 => {
            format!("{} → {} ({:+.0} %)", show(old), show(new), (new / old - 1.0) * 100.0)
        }
        (_, Some(new)) => show(new),
        (Some(old), None) => format!("{} → no result", show(old)),
        (None, None) => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn changes_are_in_per_cent() {
        assert_eq!(super::change(Some(2.0), Some(2.2)), "2.00 → 2.20 (+10 %)");
        assert_eq!(super::change(None, Some(250_000.0)), "250000");
        assert_eq!(super::change(Some(1.5), None), "1.50 → no result");
    }
}
