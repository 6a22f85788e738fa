//! The little SSML that `Say` may hold: known tags are taken out, `break` becomes silence.

/// A piece of what shall be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Break { length_ms: u32 },
}

const TAGS: &[&str] =
    &["break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "speak", "sub", "w"];
const BREAK_MS_MAX: u32 = 10_000;

/// Splits a text at its breaks. What is no known tag stays text.
pub(crate) fn parse(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut words = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tail) = rest.split_at(at);
        words.push_str(before);
        let Some((tag, after)) = known_tag(tail) else {
            words.push('<');
            rest = tail.get(1..).unwrap_or("");
            continue;
        };
        if name_of(tag) == "break" {
            flush(&mut words, &mut parts);
            parts.push(Part::Break { length_ms: break_ms(tag) });
        } else {
            words.push(' ');
        }
        rest = after;
    }
    words.push_str(rest);
    flush(&mut words, &mut parts);
    parts
}

fn flush(words: &mut String, parts: &mut Vec<Part>) {
    let text = words.split_whitespace().collect::<Vec<_>>().join(" ");
    words.clear();
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
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
    match attribute(tag, "strength") {
        Some("none") => 0,
        Some("x-weak" | "weak") => 250,
        Some("strong") => 1000,
        Some("x-strong") => 1500,
        _ => 500,
    }
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = tag.split_once(&format!("{name}="))?;
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value.get(1..)?.split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_breaks_stay() {
        let text = |t: &str| Part::Text(t.into());
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
            (
                "<speak><p>Hi <emphasis level=\"strong\">you</emphasis></p></speak>",
                vec![text("Hi you")],
            ),
            ("<script>x</script>", vec![text("<script>x</script>")]),
            ("open <break", vec![text("open <break")]),
            ("ä<", vec![text("ä<")]),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input), expected, "{input}");
        }
    }
}
