//! What is wrong with a configuration, for the person who wrote it.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line from 1; 0 = the file as a whole.
    pub line: usize,
    /// Path of the key: `link.idle_ms`, `account[2].sid`.
    pub key: String,
    /// The value as written; `None` if there is none to show.
    pub value: Option<String>,
    /// What is allowed, in words.
    pub allowed: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn of_file(file: &str, what: String) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            key: String::new(),
            value: None,
            allowed: what,
            hint: None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.value.as_deref() == Some(super::tree::MISSING)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        match (&self.value, self.key.as_str()) {
            (_, "") => f.write_str(&self.allowed)?,
            (None, key) => write!(f, "`{key}` {}", self.allowed)?,
            (Some(value), key) if self.is_missing() => {
                write!(f, "`{key}` is {value}: {}", self.allowed)?;
            }
            (Some(value), key) => write!(f, "`{key}` = {value}: {}", self.allowed)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in order of lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A single problem.
    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "error" } else { "errors" };
        write!(f, "{} configuration {plural}, nothing was started:", self.0.len())?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known key that a wrong one was probably meant to be.
pub(super) fn nearest(wrong: &str, known: &[&'static str]) -> Option<&'static str> {
    let limit = 1 + wrong.len().max(3) / 3;
    known
        .iter()
        .map(|key| match key.starts_with(wrong) || wrong.starts_with(key) {
            // A missing or superfluous unit.
            true => (1, *key),
            false => (distance(wrong, key), *key),
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, key)| key)
}

/// Levenshtein distance; keys are short, so the plain table is good enough.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_misspellings_only() {
        let known = ["idle_ms", "keep_alive_ms", "listen"];
        for (wrong, expect) in [
            ("idle_s", Some("idle_ms")),
            ("keepalive_ms", Some("keep_alive_ms")),
            ("lisen", Some("listen")),
            ("idle", Some("idle_ms")),
            ("provider", None),
        ] {
            assert_eq!(nearest(wrong, &known), expect, "{wrong}");
        }
    }
}
