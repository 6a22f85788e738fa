//! Configuration from one TOML file, refused as a whole with *all* its errors.
//!
//! Every key is defined once, where it is read:
//!
//! ```
//! use link_daemon::config::{self, Reader, kind};
//!
//! struct Drain { max: std::time::Duration }
//!
//! fn read(r: &mut Reader) -> Drain {
//!     r.table("drain", "How the process ends.", |r| Drain {
//!         max: r.key("max_s", "Longest drain.").default(30).read(kind::seconds(0..=3600)),
//!     })
//! }
//!
//! let drain = config::parse("edge.toml", "drain.max_s = 5", "/".as_ref(), read).unwrap();
//! assert_eq!(drain.max.as_secs(), 5);
//! assert!(config::sample(read).contains("# max_s = 30"));
//! let problems = config::parse("edge.toml", "drain.max = 5", "/".as_ref(), read).err().unwrap();
//! assert!(problems.to_string().contains("did you mean `drain.max_s`?"));
//! ```
//!
//! The same function describes the keys ([`sample`], [`reference`]) when it is run over nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub mod kind;
mod problem;
mod render;
mod tree;

pub use kind::Kind;
pub use problem::{Problem, Problems};
use tree::{Node, Table, Value};

/// Reads the file at `path`.
///
/// # Errors
/// All problems of the file.
pub fn load<T>(path: &Path, read: impl FnOnce(&mut Reader) -> T) -> Result<T, Problems> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problems::one(Problem::of_file(&file, format!("cannot be read: {error}")))
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse(&file, &text, base, read)
}

/// Reads `text`; `file` is its name in messages, relative paths start at `base`.
///
/// # Errors
/// All problems of the text.
pub fn parse<T>(
    file: &str,
    text: &str,
    base: &Path,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<T, Problems> {
    let (table, problems) = tree::parse(file, text);
    let broken = !problems.is_empty();
    let mut reader = Reader::new(file, base, table);
    reader.problems = problems;
    let value = read(&mut reader);
    reader.leave();
    if broken {
        // What is missing in a text that could not be read whole says nothing.
        reader.problems.retain(|problem| !problem.is_missing());
    }
    if reader.problems.is_empty() {
        return Ok(value);
    }
    reader.problems.sort_by_key(|problem| problem.line);
    Err(Problems(reader.problems))
}

/// A sample file with every key, its default, unit, allowed values and meaning.
pub fn sample<T>(read: impl FnOnce(&mut Reader) -> T) -> String {
    render::sample(&describe(read))
}

/// The page of `docs/reference/config.md` for one role, without its heading.
pub fn reference<T>(read: impl FnOnce(&mut Reader) -> T) -> String {
    render::reference(&describe(read))
}

fn describe<T>(read: impl FnOnce(&mut Reader) -> T) -> Vec<Definition> {
    let mut reader = Reader::new("", Path::new(""), Table::default());
    reader.definitions = Some(Vec::new());
    read(&mut reader);
    reader.definitions.unwrap_or_default()
}

/// One key or table as it was defined.
struct Definition {
    /// `link`, `account` (list) or `link.idle_ms`.
    path: String,
    doc: &'static str,
    what: What,
}

enum What {
    Table,
    List { max: usize },
    Key { presence: &'static str, value: String, allowed: String, commented: bool },
}

/// Walks through the tables of a file and collects what is wrong.
pub struct Reader {
    file: String,
    base: PathBuf,
    problems: Vec<Problem>,
    /// `Some` while keys are described instead of read.
    definitions: Option<Vec<Definition>>,
    frames: Vec<Frame>,
    /// Where each key was written that has been read.
    lines: HashMap<String, usize>,
}

struct Frame {
    /// With trailing dot, or empty for the root.
    prefix: String,
    /// As `prefix`, with the number in a list: `account[2].`
    shown: String,
    table: Table,
    known: Vec<&'static str>,
    in_list: bool,
}

impl Reader {
    fn new(file: &str, base: &Path, table: Table) -> Self {
        let root = Frame {
            prefix: String::new(),
            shown: String::new(),
            table,
            known: Vec::new(),
            in_list: false,
        };
        Self {
            file: file.to_owned(),
            base: base.to_owned(),
            problems: Vec::new(),
            definitions: None,
            frames: vec![root],
            lines: HashMap::new(),
        }
    }

    /// Begins a key of the present table. Finish with [`Key::read`] or [`Key::read_optional`].
    pub fn key(&mut self, name: &'static str, doc: &'static str) -> Key<'_> {
        Key { reader: self, name, doc, default: None, example: None }
    }

    /// A table of its own; absent means that every key has its default.
    pub fn table<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.define(name, doc, What::Table);
        let node = self.take(name);
        let line = node.as_ref().map_or(self.line(), |node| node.line);
        let table = match node {
            None => Table { line, entries: Vec::new() },
            Some(Node { value: Value::Table(table), .. }) => table,
            Some(node) => {
                self.report(name, &node, "a table", false);
                Table { line, entries: Vec::new() }
            }
        };
        self.enter(name, None, table, false);
        let value = read(self);
        self.leave();
        value
    }

    /// A list of tables (`[[name]]`), at most `max`.
    pub fn tables<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        max: usize,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        self.define(name, doc, What::List { max });
        if self.definitions.is_some() {
            self.enter(name, None, Table::default(), true);
            read(self);
            self.leave();
            return Vec::new();
        }
        let Some(node) = self.take(name) else { return Vec::new() };
        let allowed = || format!("a list of at most {max} tables, each under [[{name}]]");
        let list = match node.value {
            Value::List(list) if list.len() <= max => list,
            _ => {
                self.report(name, &node, &allowed(), false);
                return Vec::new();
            }
        };
        let mut values = Vec::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate() {
            let Node { value: Value::Table(table), .. } = node else {
                self.report(name, &node, &allowed(), false);
                continue;
            };
            self.enter(name, Some(index), table, true);
            values.push(read(self));
            self.leave();
        }
        values
    }

    /// Reports a problem that only shows when several keys are seen together. `key` belongs to
    /// the present table.
    pub fn refuse(&mut self, key: &str, value: impl std::fmt::Display, allowed: impl Into<String>) {
        if self.definitions.is_some() {
            return;
        }
        let shown = self.frames.last().map_or("", |frame| frame.shown.as_str());
        let key = format!("{shown}{key}");
        self.problems.push(Problem {
            file: self.file.clone(),
            // The key's own line, or that of the table where it would be.
            line: self.lines.get(&key).copied().unwrap_or_else(|| self.line()),
            key,
            value: Some(value.to_string()),
            allowed: allowed.into(),
            hint: None,
        });
    }

    /// Refuses entries of a list of the present table that say the same as one before: `values` are
    /// what `key` of each entry stands for.
    pub fn refuse_repeats(
        &mut self,
        list: &str,
        key: &str,
        values: impl IntoIterator<Item = String>,
    ) {
        let mut first: HashMap<String, usize> = HashMap::new();
        for (index, value) in values.into_iter().enumerate() {
            let place = index + 1;
            let before = *first.entry(value.clone()).or_insert(place);
            if before != place {
                let allowed = format!("allowed is each one once, {list}[{before}] has it already");
                self.refuse(&format!("{list}[{place}].{key}"), value, allowed);
            }
        }
    }

    /// Whether a key, by its whole path, was refused already: nothing follows from its stand-in.
    pub fn is_refused(&self, path: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == path)
    }

    /// True while keys are only described: there are no values, so cross-checks say nothing.
    pub fn is_describing(&self) -> bool {
        self.definitions.is_some()
    }

    /// A path as the configuration means it: relative to the folder of its file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    fn enter(&mut self, name: &'static str, index: Option<usize>, table: Table, in_list: bool) {
        let (prefix, shown, outer_list) = match self.frames.last() {
            Some(frame) => (frame.prefix.as_str(), frame.shown.as_str(), frame.in_list),
            None => ("", "", false),
        };
        let number = index.map_or_else(String::new, |index| format!("[{}]", index + 1));
        self.frames.push(Frame {
            prefix: format!("{prefix}{name}."),
            shown: format!("{shown}{name}{number}."),
            table,
            known: Vec::new(),
            in_list: in_list || outer_list,
        });
    }

    /// Ends a table: what nobody asked for is unknown.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        for (name, node) in &frame.table.entries {
            let near = problem::nearest(name, &frame.known);
            self.problems.push(Problem {
                file: self.file.clone(),
                line: node.line,
                key: format!("{}{name}", frame.shown),
                value: None,
                allowed: "is not a known key".to_owned(),
                hint: near.map(|near| format!("did you mean `{}{near}`?", frame.shown)),
            });
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Node> {
        let frame = self.frames.last_mut()?;
        frame.known.push(name);
        let index = frame.table.entries.iter().position(|(key, _)| key == name)?;
        let node = frame.table.entries.remove(index).1;
        self.lines.insert(format!("{}{name}", frame.shown), node.line);
        Some(node)
    }

    fn line(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.table.line)
    }

    fn define(&mut self, name: &'static str, doc: &'static str, what: What) {
        let prefix = self.frames.last().map_or("", |frame| frame.prefix.as_str());
        let path = format!("{prefix}{name}");
        if let Some(definitions) = &mut self.definitions {
            definitions.push(Definition { path, doc, what });
        }
    }

    fn report(&mut self, name: &str, node: &Node, allowed: &str, secret: bool) {
        let shown = self.frames.last().map_or("", |frame| frame.shown.as_str());
        let value = if secret { "(not shown)".to_owned() } else { node.value.to_string() };
        self.problems.push(Problem {
            file: self.file.clone(),
            line: node.line,
            key: format!("{shown}{name}"),
            value: Some(value),
            allowed: format!("allowed is {allowed}"),
            hint: None,
        });
    }
}

/// A key on its way to a value. Without [`Key::default`] it is required.
#[must_use = "finish with `read` or `read_optional`"]
pub struct Key<'r> {
    reader: &'r mut Reader,
    name: &'static str,
    doc: &'static str,
    default: Option<toml::Value>,
    example: Option<toml::Value>,
}

impl Key<'_> {
    /// What the key is when it is absent.
    pub fn default(mut self, value: impl Into<toml::Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// What the sample shows for a key without default. Must be allowed.
    pub fn example(mut self, value: impl Into<toml::Value>) -> Self {
        self.example = Some(value.into());
        self
    }

    /// The value, or the default. After a problem, a stand-in: the file is refused at the end.
    ///
    /// # Panics
    /// If the key has neither default nor example or they are not allowed: a defect that every
    /// start shows.
    pub fn read<T>(self, kind: Kind<T>) -> T {
        let required = self.default.is_none();
        let stand_in = self.default.clone().or_else(|| self.example.clone());
        let name = self.name;
        let base = self.reader.base.clone();
        self.get(&kind, required).unwrap_or_else(|| {
            stand_in
                .and_then(|value| kind.stand_in(&base, &Value::from(value)))
                .unwrap_or_else(|| panic!("key {name}: default or example is not allowed"))
        })
    }

    /// The value, or `None` if the key is absent.
    pub fn read_optional<T>(self, kind: Kind<T>) -> Option<T> {
        self.get(&kind, false)
    }

    fn get<T>(self, kind: &Kind<T>, required: bool) -> Option<T> {
        assert!(kind.suits(self.name), "the unit is missing at the end of key {}", self.name);
        let commented = !required || self.reader.frames.last().is_some_and(|frame| frame.in_list);
        let presence = match (&self.default, required) {
            (Some(_), _) => "default",
            (None, true) => "required",
            (None, false) => "optional",
        };
        let shown = self.default.as_ref().or(self.example.as_ref());
        let value = shown.map_or_else(String::new, ToString::to_string);
        let allowed = kind.allowed().to_owned();
        let what = What::Key { presence, value, allowed, commented };
        self.reader.define(self.name, self.doc, what);
        let Some(node) = self.reader.take(self.name) else {
            if required && !self.reader.is_describing() {
                let missing = Node { line: self.reader.line(), value: Value::Missing };
                self.reader.report(self.name, &missing, kind.allowed(), false);
            }
            return None;
        };
        let value = kind.convert(&self.reader.base, &node.value);
        if value.is_none() {
            self.reader.report(self.name, &node, kind.allowed(), kind.is_secret());
        }
        value
    }
}

#[cfg(test)]
mod tests;
