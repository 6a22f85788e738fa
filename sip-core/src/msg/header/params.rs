//! `;name=value` parameters, order and spelling kept.

use std::fmt;

use crate::msg::scan;

/// Most parameters of one value; more is a syntax error.
pub const PARAMS_MAX: usize = 64;

/// Parameters in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    list: Vec<(String, Option<String>)>,
}

impl Params {
    /// Reads `;a=b;c` (white space around `;` and `=` tolerated). `None` on bad syntax.
    pub fn parse(text: &str) -> Option<Params> {
        let mut list = Vec::new();
        for part in scan::split_outside(text.as_bytes(), b';') {
            let part = std::str::from_utf8(part).ok()?;
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (part, None),
            };
            let quoted = value.is_some_and(|v| v.starts_with('"'));
            let whole = !quoted
                || value.and_then(|v| scan::quoted_len(v.as_bytes())) == value.map(str::len);
            if name.is_empty()
                || !name.bytes().all(scan::is_token)
                || !whole
                || list.len() >= PARAMS_MAX
            {
                return None;
            }
            list.push((name.to_owned(), value.map(str::to_owned)));
        }
        Some(Params { list })
    }

    /// The value of a parameter as written, `Some("")` if it has none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.list.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(found.1.as_deref().unwrap_or_default())
    }

    /// The value with quotes and escapes removed.
    pub fn unquoted(&self, name: &str) -> Option<String> {
        self.get(name).map(scan::unquote)
    }

    /// True if the parameter is there, with or without value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Replaces or appends.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self.list.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            Some(slot) => slot.1 = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        self.list.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}
