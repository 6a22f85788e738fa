//! Length of files and lines, words that do not belong into a source tree, and tests that never run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const FILE_LINES_MAX: usize = 800;
const LINE_CHARACTERS_MAX: usize = 120;

/// Files above the limit, with the reason. May only shrink.
const LONG_FILES: &[(&str, &str)] = &[];

/// How a test begins.
const TESTS: [&str; 3] = ["#[test]", "#[tokio::test", "proptest!"];

pub fn run(root: &Path) -> Result<()> {
    let list = Command::new("git").arg("ls-files").current_dir(root).output()?;
    let list = String::from_utf8(list.stdout).context("git ls-files")?;
    let mut problems = Vec::new();
    let mut files = 0;
    for name in list.lines().filter(|name| name.ends_with(".rs")) {
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        files += 1;
        check(name, &text, &mut problems);
    }
    for manifest in list.lines().filter(|name| name.ends_with("Cargo.toml")) {
        check_untested(root, manifest, &list, &mut problems)?;
    }
    if files == 0 {
        bail!("tidy: git lists no source files below {}", root.display());
    }
    if problems.is_empty() {
        println!("tidy: {files} files in order");
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    bail!("tidy: {} problem(s)", problems.len())
}

fn check(name: &str, text: &str, problems: &mut Vec<String>) {
    let lines = text.lines().count();
    let excused = LONG_FILES.iter().any(|(file, _)| *file == name);
    let tests = name.contains("tests") || name.contains("/benches/");
    let mut inside_tests = tests;
    if lines > FILE_LINES_MAX && !excused && !tests {
        problems.push(format!("{name}: {lines} lines, the limit is {FILE_LINES_MAX}"));
    }
    for (index, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", index + 1);
        inside_tests |= line.starts_with("#[cfg(test)]");
        // Tables in crate pages and rows of test data may be wide.
        let wide = inside_tests || line.starts_with("//! |");
        if !wide && line.chars().count() > LINE_CHARACTERS_MAX {
            problems.push(format!("{at}: line of more than {LINE_CHARACTERS_MAX} characters"));
        }
        // Assembled so that this file does not find itself.
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")] {
            if line.split(|c: char| !c.is_alphanumeric()).any(|part| part == word) {
                problems.push(format!("{at}: {word}: write an issue, or do it"));
            }
        }
    }
}

/// A target without tests says `test = false`, so that it is not compiled once more for none. Then
/// nobody may write one into it.
fn check_untested(root: &Path, name: &str, list: &str, problems: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(root.join(name)).with_context(|| name.to_owned())?;
    let manifest: toml::Table = toml::from_str(&text).with_context(|| name.to_owned())?;
    let folder = name.trim_end_matches("Cargo.toml");
    let is_untested =
        |target: &toml::Value| target.get("test") == Some(&toml::Value::Boolean(false));
    let sources = format!("{folder}src/");
    let has_lib = list.lines().any(|file| file == format!("{sources}lib.rs"));
    let bins = manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
    for target in manifest.get("lib").into_iter().chain(bins).filter(|target| is_untested(target)) {
        let path = target.get("path").and_then(toml::Value::as_str);
        // Beside a library, a program is one file.
        let within = match path {
            Some(path) if has_lib => format!("{folder}{path}"),
            _ => sources.clone(),
        };
        for file in list.lines().filter(|file| file.starts_with(&within) && file.ends_with(".rs")) {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            if text.lines().any(|line| TESTS.iter().any(|test| line.trim_start().starts_with(test)))
            {
                problems.push(format!("{file}: {name} says test = false, so its tests never run"));
            }
        }
    }
    Ok(())
}
