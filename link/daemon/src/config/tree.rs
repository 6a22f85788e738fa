//! A TOML file as a tree in which every value knows its line.

use std::fmt;

use toml::de::{DeTable, DeValue};

use super::Problem;

/// How a missing value is shown.
pub(super) const MISSING: &str = "missing";

#[derive(Debug, Default)]
pub(super) struct Table {
    pub line: usize,
    pub entries: Vec<(String, Node)>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub line: usize,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Missing,
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date, or a number out of range: no key takes one.
    Other(String),
    List(Vec<Node>),
    Table(Table),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(MISSING),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Boolean(on) => write!(f, "{on}"),
            Self::Other(text) => f.write_str(text),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, node) in list.iter().take(5).enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{}", node.value)?;
                }
                f.write_str(if list.len() > 5 { ", …]" } else { "]" })
            }
            Self::Table(_) => f.write_str("{ … }"),
        }
    }
}

impl From<toml::Value> for Value {
    fn from(value: toml::Value) -> Self {
        let node = |value| Node { line: 0, value: Self::from(value) };
        match value {
            toml::Value::String(text) => Self::Text(text),
            toml::Value::Integer(number) => Self::Integer(number),
            toml::Value::Float(number) => Self::Float(number),
            toml::Value::Boolean(on) => Self::Boolean(on),
            toml::Value::Datetime(date) => Self::Other(date.to_string()),
            toml::Value::Array(list) => Self::List(list.into_iter().map(node).collect()),
            toml::Value::Table(table) => Self::Table(Table {
                line: 0,
                entries: table.into_iter().map(|(key, value)| (key, node(value))).collect(),
            }),
        }
    }
}

/// Parses as much as can be parsed and reports every error of syntax.
pub(super) fn parse(file: &str, text: &str) -> (Table, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            Problem { line, ..Problem::of_file(file, format!("not TOML: {}", error.message())) }
        })
        .collect();
    (convert_table(text, table.get_ref(), 0), problems)
}

fn convert_table(text: &str, table: &DeTable<'_>, line: usize) -> Table {
    let entries = table
        .iter()
        .map(|(key, value)| {
            let line = line_of(text, key.span().start);
            (key.get_ref().to_string(), convert(text, value.get_ref(), line))
        })
        .collect();
    Table { line, entries }
}

fn convert(text: &str, value: &DeValue<'_>, line: usize) -> Node {
    let value = match value {
        DeValue::String(string) => Value::Text(string.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Other(number.as_str().to_owned()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::Other(number.as_str().to_owned()), Value::Float),
        DeValue::Boolean(on) => Value::Boolean(*on),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(list) => Value::List(
            list.iter()
                .map(|item| convert(text, item.get_ref(), line_of(text, item.span().start)))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(text, table, line)),
    };
    Node { line, value }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
