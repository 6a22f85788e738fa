//! What a bench has to say: a table, checks against goals, an entry of `latest.json`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

use crate::machine::{Facts, workspace};

/// Names that `latest.json` may have.
pub const NAMES: [&str; 7] = [
    "relay_100k",
    "relay_saturation",
    "xdp_100k",
    "xdp_1m",
    "trunk_100k",
    "trunk_saturation",
    "tick_20ms",
];

/// One entry of `latest.json`. Ratios above 1 are better than the other. Without a clean run the
/// figures are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// One of [`NAMES`].
    pub name: String,
    /// Ours.
    pub value: Option<f64>,
    /// Of all values.
    pub unit: String,
    /// Who the peer is, if it is installed.
    pub peer: Option<String>,
    /// The peer's.
    pub peer_value: Option<f64>,
    /// What the floor is.
    pub floor: Option<String>,
    /// The floor's.
    pub floor_value: Option<f64>,
    /// Ours against the peer's.
    pub ratio_to_peer: Option<f64>,
    /// Ours against the floor's.
    pub ratio_to_floor: Option<f64>,
    /// Clean rounds.
    pub rounds: usize,
    /// Whether it is a result.
    pub clean: bool,
}

impl Entry {
    fn without_figures(mut self) -> Self {
        self.value = None;
        (self.peer_value, self.floor_value) = (None, None);
        (self.ratio_to_peer, self.ratio_to_floor) = (None, None);
        self
    }
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

/// A goal and what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Of what.
    pub what: String,
    /// Measured.
    pub measured: f64,
    /// For people: `≥ 0.85`.
    pub goal: String,
    /// Whether it was reached.
    pub ok: bool,
}

/// The outcome of a bench.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Name of the bench.
    pub name: String,
    /// Whether the figures can be believed.
    pub is_clean: bool,
    /// Why (not).
    pub cleanness: String,
    /// Goals.
    pub checks: Vec<Check>,
    /// For `latest.json`.
    pub entry: Option<Entry>,
    /// Everything that was measured.
    pub details: serde_json::Value,
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Outcome {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_clean: true,
            cleanness: String::new(),
            checks: Vec::new(),
            entry: None,
            details: serde_json::Value::Null,
            headings: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Names the columns of the table.
    pub fn headings(&mut self, names: &[&str]) {
        self.headings = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Compares with a goal.
    pub fn check(&mut self, what: &str, measured: f64, goal: Goal) {
        let (ok, goal) = match goal {
            Goal::AtLeast(least) => (measured >= least, format!("≥ {least}")),
            Goal::AtMost(most) => (measured <= most, format!("≤ {most}")),
        };
        self.checks.push(Check { what: what.to_owned(), measured, goal, ok });
    }

    /// Says whether the figures can be believed.
    pub fn clean(&mut self, is_clean: bool, why: String) {
        (self.is_clean, self.cleanness) = (is_clean, why);
    }

    /// All goals were reached.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// Prints table and goals.
    pub fn print(&self) {
        println!("\n{}", self.name);
        if !self.rows.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::UTF8_HORIZONTAL_ONLY);
            table.set_header(&self.headings);
            for row in &self.rows {
                table.add_row(row);
            }
            println!("{table}");
        }
        for check in &self.checks {
            let verdict = match (self.is_clean, check.ok) {
                (false, _) => "seen  ",
                (true, true) => "kept  ",
                (true, false) => "MISSED",
            };
            let digits = if check.measured.fract() == 0.0 { 0 } else { 3 };
            println!(
                "  {verdict} {}: {:.digits$} (goal {})",
                check.what, check.measured, check.goal
            );
        }
        if !self.cleanness.is_empty() {
            println!("  {}", self.cleanness);
        }
        if !self.is_clean {
            println!("  DIRTY: the machine was disturbed; these figures are no result");
        }
    }
}

/// The middle one, or the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (low, high) =
        (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
}

/// A result with what it belongs to.
#[derive(Debug, Serialize)]
struct Dated<'a> {
    at: String,
    machine: &'a Facts,
    peer_version: Option<String>,
    outcome: &'a Outcome,
}

/// Where results go: clean ones beside the sources, dirty ones under `target`.
#[derive(Debug, Clone)]
pub struct Results {
    folder: PathBuf,
    dirty: PathBuf,
    stamp: String,
    machine: Facts,
}

impl Results {
    /// `benches/results`.
    pub fn of_workspace() -> Self {
        let root = workspace();
        Self::new(root.join("benches/results"), root.join("target/benches-dirty"))
    }

    /// Other folders.
    pub fn new(folder: PathBuf, dirty: PathBuf) -> Self {
        let stamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H%M%SZ").to_string();
        Self { folder, dirty, stamp, machine: Facts::gather() }
    }

    /// Where the clean ones go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Of this machine.
    pub fn machine(&self) -> &Facts {
        &self.machine
    }

    /// Path of a further file of this run.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn beside(&self, name: &str) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(self.folder.join(name))
    }

    /// Keeps an outcome, and renews its entry of `latest.json`.
    ///
    /// # Errors
    /// Of the files.
    pub fn keep(&self, outcome: &Outcome) -> anyhow::Result<PathBuf> {
        let folder = if outcome.is_clean { &self.folder } else { &self.dirty };
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}-{}.json", self.stamp, outcome.name));
        let peer_version = crate::system::rtpengine::version();
        let dated = Dated { at: self.stamp.clone(), machine: &self.machine, peer_version, outcome };
        write_json(&path, &dated)?;
        if let Some(entry) = &outcome.entry {
            let entry = entry.clone();
            self.renew(if outcome.is_clean { entry } else { entry.without_figures() })?;
        }
        Ok(path)
    }

    fn renew(&self, entry: Entry) -> anyhow::Result<()> {
        let path = self.beside("latest.json")?;
        let mut entries: Vec<Entry> = match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| path.display().to_string())?
            }
            Err(_) => Vec::new(),
        };
        entries.retain(|old| old.name != entry.name);
        entries.push(entry);
        entries.sort_by_key(|entry| NAMES.iter().position(|name| *name == entry.name));
        write_json(&path, &entries)
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: f64) -> Entry {
        Entry {
            name: name.to_owned(),
            value: Some(value),
            unit: "µs".to_owned(),
            peer: None,
            peer_value: None,
            floor: None,
            floor_value: None,
            ratio_to_peer: None,
            ratio_to_floor: Some(0.9),
            rounds: 5,
            clean: true,
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, f64::NAN, 1.0]), Some(2.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
    }

    #[test]
    fn latest_has_one_entry_per_name_and_no_figures_of_dirty_runs() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::new(folder.path().join("r"), folder.path().join("d"));
        let keep = |name: &str, value, clean| {
            let mut outcome = Outcome::new(name);
            outcome.entry = Some(Entry { clean, ..entry(name, value) });
            outcome.clean(clean, String::new());
            results.keep(&outcome).unwrap()
        };
        keep("relay_saturation", 1.0, true);
        keep("relay_100k", 2.0, true);
        keep("relay_100k", 3.0, true);
        let path = keep("relay_saturation", 4.0, false);
        assert!(path.starts_with(folder.path().join("d")));
        let text = std::fs::read(folder.path().join("r/latest.json")).unwrap();
        let entries: Vec<Entry> = serde_json::from_slice(&text).unwrap();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["relay_100k", "relay_saturation"]);
        assert_eq!((entries[0].value, entries[1].value), (Some(3.0), None));
        assert!(!entries[1].clean);
    }
}
