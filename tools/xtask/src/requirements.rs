//! Requirement rows against the tests that ran.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    title: String,
    missing: String,
}

pub fn run(root: &Path) -> Result<()> {
    let path = root.join("docs/reference/requirements.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows: BTreeMap<String, Row> = toml::from_str(&text)?;
    let log = root.join("target/e2e.log");
    let log = std::fs::read_to_string(&log)
        .with_context(|| format!("{}: run `make e2e` first", log.display()))?;
    let (mut shown, mut part, mut none) = (0, 0, 0);
    for (id, row) in &rows {
        let prefix = format!("{}_", id.to_lowercase().replace('-', "_"));
        let (passed, failed) = results(&log, &prefix);
        if failed > 0 {
            bail!("requirement {id} has {failed} failed test(s)");
        }
        let verdict = match (passed, row.missing.as_str()) {
            (0, _) => {
                none += 1;
                "none".to_owned()
            }
            (_, "") => {
                shown += 1;
                "shown".to_owned()
            }
            (_, missing) => {
                part += 1;
                format!("part, missing: {missing}")
            }
        };
        println!("{id:<7} {:<58} {passed:>2} test(s)  {verdict}", row.title);
    }
    println!("requirements: {shown} shown, {part} part, {none} none, of {}", rows.len());
    Ok(())
}

/// How many tests whose last path segment starts with `prefix` passed and failed.
fn results(log: &str, prefix: &str) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for line in log.lines() {
        let Some(rest) = line.strip_prefix("test ") else { continue };
        let Some((name, result)) = rest.split_once(" ... ") else { continue };
        let name = name.rsplit("::").next().unwrap_or(name);
        if name.starts_with(prefix) {
            match result.trim() {
                "ok" => passed += 1,
                "FAILED" => failed += 1,
                _ => {}
            }
        }
    }
    (passed, failed)
}
