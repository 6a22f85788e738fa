//! The SSML that `Say` may hold: `break`, `say-as`, `emphasis`, `prosody`, `lang`, `sub`; `speak`,
//! `p`, `s`, `w` and `phoneme` only hold text.
//!
//! Nothing is refused: what is no known tag is text, an attribute with a value that makes no sense
//! counts as absent, an end without a beginning is left out, and what is still open at the end of
//! the text ends there.

use super::say_as::{self, Interpret};

/// How something is said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Style {
    /// BCP 47; `None` = that of the request.
    pub(crate) language: Option<String>,
    /// Times the usual speed.
    pub(crate) rate: f32,
    /// Times the voice's own pitch.
    pub(crate) pitch: f32,
    /// Louder by so much.
    pub(crate) gain_db: f32,
}

impl Default for Style {
    fn default() -> Self {
        Self { language: None, rate: 1.0, pitch: 1.0, gain_db: 0.0 }
    }
}

impl Style {
    fn scaled(&self, rate: f32, pitch: f32, gain_db: f32) -> Self {
        Self {
            language: self.language.clone(),
            rate: (self.rate * rate).clamp(0.2, 4.0),
            pitch: (self.pitch * pitch).clamp(0.5, 2.0),
            gain_db: (self.gain_db + gain_db).clamp(SILENT_DB, 20.0),
        }
    }
}

/// A piece of what shall be said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Text { text: String, style: Style },
    Break { length_ms: u32 },
}

/// `volume="silent"`.
pub(crate) const SILENT_DB: f32 = -90.0;
const TAGS: &[&str] =
    &["break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "speak", "sub", "w"];
const BREAK_MS_MAX: u32 = 10_000;
/// Elements in each other.
const DEPTH_MAX: usize = 32;

struct Open {
    name: String,
    style: Style,
    interpret: Option<Interpret>,
    /// `sub`: what is inside is not said.
    silent: bool,
}

#[derive(Default)]
struct Reader {
    parts: Vec<Part>,
    words: String,
    open: Vec<Open>,
}

/// Splits a text at breaks and where its style changes.
pub(crate) fn parse(text: &str) -> Vec<Part> {
    let mut reader = Reader::default();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tail) = rest.split_at(at);
        reader.text(before);
        let Some((tag, after)) = known_tag(tail) else {
            reader.text("<");
            rest = tail.get(1..).unwrap_or("");
            continue;
        };
        reader.tag(tag);
        rest = after;
    }
    reader.text(rest);
    reader.flush();
    reader.parts
}

impl Reader {
    fn style(&self) -> Style {
        self.open.last().map(|open| open.style.clone()).unwrap_or_default()
    }

    fn text(&mut self, text: &str) {
        if self.open.iter().any(|open| open.silent) {
            return;
        }
        match self.open.iter().rev().find_map(|open| open.interpret) {
            Some(interpret) => {
                self.words.push(' ');
                self.words.push_str(&say_as::spoken(text, interpret));
                self.words.push(' ');
            }
            None => self.words.push_str(text),
        }
    }

    fn flush(&mut self) {
        let text = self.words.split_whitespace().collect::<Vec<_>>().join(" ");
        self.words.clear();
        let style = self.style();
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            // An element that changes nothing does not cut a sentence in two.
            Some(Part::Text { text: before, style: same }) if *same == style => {
                before.push(' ');
                before.push_str(&text);
            }
            _ => self.parts.push(Part::Text { text, style }),
        }
    }

    fn tag(&mut self, tag: &str) {
        let name = name_of(tag);
        if tag.starts_with('/') {
            if let Some(depth) = self.open.iter().rposition(|open| open.name == name) {
                self.flush();
                self.open.truncate(depth);
            }
            self.words.push(' ');
        } else if name == "break" {
            self.flush();
            self.parts.push(Part::Break { length_ms: break_ms(tag) });
        } else if tag.ends_with('/') || self.open.len() >= DEPTH_MAX {
            self.words.push(' ');
        } else {
            self.flush();
            if name == "sub" {
                let alias = attribute(tag, "alias").unwrap_or_default();
                self.text(&alias);
                self.flush();
            }
            let interpret = (name == "say-as").then(|| {
                let value = |name| attribute(tag, name).unwrap_or_default();
                Interpret::read(&value("interpret-as"), &value("format"))
            });
            let silent = name == "sub" && attribute(tag, "alias").is_some();
            let style = inside(name, tag, self.style());
            let interpret = interpret.flatten();
            self.open.push(Open { name: name.to_owned(), style, interpret, silent });
        }
    }
}

/// The style inside an element.
fn inside(name: &str, tag: &str, style: Style) -> Style {
    match name {
        "lang" => {
            let language = attribute(tag, "xml:lang").or_else(|| attribute(tag, "lang"));
            Style { language: language.or(style.language), ..style }
        }
        "emphasis" => match attribute(tag, "level").as_deref() {
            Some("strong") => style.scaled(0.8, 1.15, 4.0),
            Some("reduced") => style.scaled(1.15, 0.92, -4.0),
            Some("none") => style,
            _ => style.scaled(0.9, 1.08, 2.0),
        },
        "prosody" => {
            let read = |name, read: fn(&str) -> Option<f32>| {
                attribute(tag, name).and_then(|text| read(text.trim()))
            };
            let rate = read("rate", rate).unwrap_or(1.0);
            let pitch = read("pitch", pitch).unwrap_or(1.0);
            style.scaled(rate, pitch, read("volume", volume_db).unwrap_or(0.0))
        }
        _ => style,
    }
}

fn percent(text: &str) -> Option<f32> {
    text.strip_suffix('%')?.trim().parse::<f32>().ok().filter(|n| n.is_finite())
}

/// A word, `80%` of the usual speed, or a factor.
fn rate(text: &str) -> Option<f32> {
    Some(match text {
        "x-slow" => 0.5,
        "slow" => 0.75,
        "medium" | "default" => 1.0,
        "fast" => 1.4,
        "x-fast" => 1.9,
        // Relative if it has a sign, as for pitch.
        _ if text.starts_with(['+', '-']) => 1.0 + percent(text)? / 100.0,
        _ => match percent(text) {
            Some(percent) => percent / 100.0,
            None => text.parse().ok().filter(|n: &f32| n.is_finite())?,
        },
    })
}

/// A word, `+10%`, or semitones as `-2st`.
fn pitch(text: &str) -> Option<f32> {
    Some(match text {
        "x-low" => 0.7,
        "low" => 0.85,
        "medium" | "default" => 1.0,
        "high" => 1.2,
        "x-high" => 1.4,
        _ => match text.strip_suffix("st") {
            Some(semitones) => {
                2f32.powf(semitones.trim().parse::<f32>().ok()?.clamp(-24.0, 24.0) / 12.0)
            }
            None => 1.0 + percent(text)? / 100.0,
        },
    })
}

/// A word, or `+6dB`.
fn volume_db(text: &str) -> Option<f32> {
    Some(match text {
        "silent" => SILENT_DB,
        "x-soft" => -12.0,
        "soft" => -6.0,
        "medium" | "default" => 0.0,
        "loud" => 6.0,
        "x-loud" => 10.0,
        _ => text.strip_suffix("dB")?.trim().parse().ok().filter(|n: &f32| n.is_finite())?,
    })
}

/// The tag that `text` begins with (without brackets) and what follows it.
fn known_tag(text: &str) -> Option<(&str, &str)> {
    let (tag, after) = text.strip_prefix('<')?.split_once('>')?;
    TAGS.contains(&name_of(tag)).then_some((tag, after))
}

fn name_of(tag: &str) -> &str {
    let tag = tag.strip_prefix('/').unwrap_or(tag);
    tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or("")
}

fn break_ms(tag: &str) -> u32 {
    if let Some(time) = attribute(tag, "time") {
        let ms = match time.strip_suffix("ms") {
            Some(number) => number.trim().parse::<f64>(),
            None => time.trim_end_matches('s').trim().parse::<f64>().map(|s| s * 1000.0),
        };
        // Casts of floats saturate.
        return ms.map_or(0, |ms| ms as u32).min(BREAK_MS_MAX);
    }
    match attribute(tag, "strength").as_deref() {
        Some("none") => 0,
        Some("x-weak" | "weak") => 250,
        Some("strong") => 1000,
        Some("x-strong") => 1500,
        _ => 500,
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut from = 0;
    // The name must stand alone: `lang` is not the end of `xml:lang`.
    let value = loop {
        let at = from + tag.get(from..)?.find(name)?;
        from = at + name.len();
        let alone = tag.get(..at)?.ends_with(char::is_whitespace);
        if let Some(value) = tag.get(from..)?.trim_start().strip_prefix('=').filter(|_| alone) {
            break value.trim_start();
        }
    };
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (value, _) = value.get(1..)?.split_once(quote)?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Part {
        Part::Text { text: text.into(), style: Style::default() }
    }

    fn said(input: &str) -> Vec<(String, Style)> {
        let parts = parse(input).into_iter();
        parts
            .filter_map(|part| match part {
                Part::Text { text, style } => Some((text, style)),
                Part::Break { .. } => None,
            })
            .collect()
    }

    #[test]
    fn tags_go_breaks_stay() {
        let text = plain;
        let pause = |length_ms| Part::Break { length_ms };
        let cases = [
            ("Hello   world", vec![text("Hello world")]),
            ("", vec![]),
            ("a < b & c > d", vec![text("a < b & c > d")]),
            ("one<break time=\"1.5s\"/>two", vec![text("one"), pause(1500), text("two")]),
            ("one<break strength='strong' /> two", vec![text("one"), pause(1000), text("two")]),
            ("<break/>", vec![pause(500)]),
            ("<break time='999s'/>", vec![pause(10_000)]),
            ("<break time='x'/>", vec![pause(0)]),
            ("<speak><p>Hi <w role='x'>you</w></p></speak>", vec![text("Hi you")]),
            ("<script>x</script>", vec![text("<script>x</script>")]),
            ("open <break", vec![text("open <break")]),
            ("ä<", vec![text("ä<")]),
            ("<sub alias=\"road &amp; rail\">R&amp;R</sub> now", vec![text("road & rail now")]),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input), expected, "{input}");
        }
    }

    #[test]
    fn med_05_styles_nest_and_end() {
        let parts = said(
            "a <prosody rate='slow' pitch=\"+20%\">b <emphasis level='strong'>c</emphasis></prosody> \
             <lang xml:lang='de-DE'>d</lang><prosody volume='soft'>e</prosody> f",
        );
        let texts: Vec<&str> = parts.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c", "d", "e", "f"]);
        let style = |at: usize| parts[at].1.clone();
        assert_eq!((style(1).rate, style(1).pitch), (0.75, 1.2));
        assert!((style(2).rate - 0.6).abs() < 1e-5 && (style(2).pitch - 1.38).abs() < 1e-5);
        assert_eq!(style(3).language.as_deref(), Some("de-DE"));
        assert_eq!(style(4).gain_db, -6.0);
        assert_eq!((style(0), style(5)), (Style::default(), Style::default()));
    }

    #[test]
    fn med_05_values_have_limits_and_nonsense_counts_as_absent() {
        let style = |text: &str| said(&format!("<prosody {text}>x</prosody>"))[0].1.clone();
        assert_eq!(style("rate='1%'").rate, 0.2);
        assert_eq!(style("rate='50%'").rate, 0.5);
        assert_eq!(style("rate='+50%'").rate, 1.5);
        assert_eq!(style("rate='NaN'").rate, 1.0);
        assert_eq!(style("rate='quick' pitch='12st'").pitch, 2.0);
        assert_eq!(style("volume='-6dB'").gain_db, -6.0);
        assert_eq!(style("volume='inf dB' rate=fast"), Style::default());
        // Ends in the wrong order, ends without beginning, no end.
        assert_eq!(parse("</prosody>a</lang>"), [plain("a")]);
        let crossed = said("<prosody rate='fast'>a<emphasis>b</prosody>c</emphasis>");
        assert_eq!((crossed[0].1.rate, crossed[2].1.rate), (1.4, 1.0));
        let deep = "<prosody rate='110%'>".repeat(100) + "x";
        assert_eq!(said(&deep)[0].1.rate, 4.0);
        let words = said("<say-as interpret-as='digits'>12</say-as> <say-as>34</say-as>");
        assert_eq!(words[0].0, "1 2 34");
    }
}
