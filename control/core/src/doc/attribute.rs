//! Reading attributes with defaults, limits and error codes. A value that is not allowed is
//! reported and the default is used.

use std::ops::RangeInclusive;

use super::DocError;
use super::xml::Element;
use crate::error_code::SCHEMA;
use crate::io::Method;

/// Reads the attributes of one element and collects what is wrong with them.
pub struct Attributes<'a> {
    element: &'a Element,
    warnings: &'a mut Vec<DocError>,
}

impl<'a> Attributes<'a> {
    /// `known` are the names that the verb has; others are reported as 12200.
    pub fn new(
        element: &'a Element,
        known: &[&str],
        warnings: &'a mut Vec<DocError>,
    ) -> Attributes<'a> {
        for (name, _) in &element.attributes {
            let known_name = known.contains(&name.as_str());
            if !known_name {
                let meant = known.iter().find(|known| known.eq_ignore_ascii_case(name));
                let hint = meant.map(|it| format!("; it is written {it}")).unwrap_or_default();
                let message = format!("{} has no attribute {name}{hint}", element.name);
                warnings.push(DocError::new(SCHEMA, message));
            }
        }
        Attributes { element, warnings }
    }

    /// Reports something.
    pub fn warn(&mut self, code: u32, message: impl Into<String>) {
        self.warnings.push(DocError::new(code, message));
    }

    /// Text, if it is there.
    pub fn text(&self, name: &str) -> Option<String> {
        self.element.attribute(name).map(|value| value.trim().to_owned())
    }

    /// Reports a value.
    pub fn bad(&mut self, name: &str, code: u32) {
        let value = self.element.attribute(name).unwrap_or_default();
        let shown: String = value.chars().take(80).collect();
        let message = format!("{} {name}={shown:?} is not allowed", self.element.name);
        self.warn(code, message);
    }

    /// A number within limits, or nothing.
    pub fn number(&mut self, name: &str, limits: RangeInclusive<u64>, code: u32) -> Option<u64> {
        let value = self.element.attribute(name)?.trim();
        let parsed = value.parse().ok().filter(|n| limits.contains(n));
        if parsed.is_none() {
            self.bad(name, code);
        }
        parsed
    }

    /// A number; one beyond the limits counts as the nearest that is allowed.
    pub fn clamped(&mut self, name: &str, limits: RangeInclusive<u64>, code: u32) -> Option<u64> {
        let value = self.element.attribute(name)?.trim();
        let wanted: Option<u64> = value.parse().ok();
        let allowed = wanted.map(|n| n.clamp(*limits.start(), *limits.end()));
        if wanted.is_none() || wanted != allowed {
            self.bad(name, code);
        }
        allowed
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, default: bool, code: u32) -> bool {
        match self.element.attribute(name).map(|v| v.trim().to_ascii_lowercase()).as_deref() {
            None => default,
            Some("true" | "yes" | "1") => true,
            Some("false" | "no" | "0") => false,
            Some(_) => {
                self.bad(name, code);
                default
            }
        }
    }

    /// GET or POST.
    pub fn method(&mut self, name: &str, code: u32) -> Method {
        let Some(value) = self.element.attribute(name) else { return Method::Post };
        Method::parse(value.trim()).unwrap_or_else(|| {
            self.bad(name, code);
            Method::Post
        })
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], code: u32) -> Option<T> {
        let value = self.element.attribute(name)?.trim().to_ascii_lowercase();
        let found = words.iter().find(|(word, _)| *word == value).map(|(_, result)| *result);
        if found.is_none() {
            self.bad(name, code);
        }
        found
    }

    /// Characters out of `allowed`, or the default.
    pub fn keys(&mut self, name: &str, allowed: &str, default: &str, code: u32) -> String {
        let Some(value) = self.element.attribute(name) else { return default.to_owned() };
        let value = value.trim();
        if value.chars().all(|c| allowed.contains(c)) {
            return value.to_owned();
        }
        self.bad(name, code);
        default.to_owned()
    }
}
