//! `say-as`: text is written out so that every engine says it as it was meant.

/// `interpret-as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interpret {
    /// Each letter and digit for itself.
    Characters,
    /// Each digit for itself.
    Digits,
    /// Each digit for itself, with a pause where the number is divided.
    Telephone,
    /// One number.
    Cardinal,
    /// First, second, ….
    Ordinal,
    /// `3/20`.
    Fraction,
    /// Numbers and the order in which they stand.
    Date([Option<DatePart>; 3]),
    /// `1'21"`: minutes and seconds.
    Time,
    /// Not to be heard.
    Expletive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatePart {
    Day,
    Month,
    Year,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Interpret {
    /// `None`: as the engine thinks (`address`, `unit`, what is not known).
    pub(super) fn read(name: &str, format: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "characters" | "spell-out" | "verbatim" => Self::Characters,
            "digits" => Self::Digits,
            "telephone" => Self::Telephone,
            "cardinal" | "number" => Self::Cardinal,
            "ordinal" => Self::Ordinal,
            "fraction" => Self::Fraction,
            "time" => Self::Time,
            "expletive" | "bleep" => Self::Expletive,
            "date" => {
                let mut parts = [None; 3];
                let letters = format.chars().filter_map(|c| match c {
                    'd' => Some(DatePart::Day),
                    'm' => Some(DatePart::Month),
                    'y' => Some(DatePart::Year),
                    _ => None,
                });
                for (to, from) in parts.iter_mut().zip(letters) {
                    *to = Some(from);
                }
                Self::Date(parts)
            }
            _ => return None,
        })
    }
}

/// The text as words that sound as meant. What does not fit stays as it is.
pub(super) fn spoken(text: &str, interpret: Interpret) -> String {
    let spread = |keep: fn(char) -> bool, text: &str| {
        let shown = text.chars().filter(|c| keep(*c)).map(|c| c.to_string());
        shown.collect::<Vec<_>>().join(" ")
    };
    match interpret {
        Interpret::Characters => {
            // A capital letter stands for its name.
            let letters = text.chars().filter(|c| !c.is_whitespace());
            let named = letters.map(|c| c.to_uppercase().to_string());
            named.collect::<Vec<_>>().join(", ")
        }
        Interpret::Digits => spread(|c| !c.is_whitespace(), text),
        Interpret::Telephone => {
            let groups = text.split(|c: char| !c.is_ascii_digit() && c != '+');
            let groups = groups.map(|group| spread(|_| true, group).replace('+', "plus"));
            groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(", ")
        }
        Interpret::Cardinal => text.replace([',', ' '], ""),
        Interpret::Ordinal => match text.trim().parse::<u64>() {
            Ok(number) => format!("{number}{}", ordinal_ending(number)),
            Err(_) => text.to_owned(),
        },
        Interpret::Fraction => text.replace('/', " over ").replace('+', " and "),
        Interpret::Date(parts) => date(text, parts).unwrap_or_else(|| text.to_owned()),
        Interpret::Time => time(text).unwrap_or_else(|| text.to_owned()),
        Interpret::Expletive => String::new(),
    }
}

fn ordinal_ending(number: u64) -> &'static str {
    match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

fn date(text: &str, parts: [Option<DatePart>; 3]) -> Option<String> {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let numbers: Vec<u64> = numbers.map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let of = |wanted| {
        let at = parts.iter().position(|part| *part == Some(wanted))?;
        numbers.get(at).copied()
    };
    let (day, month, year) = (of(DatePart::Day), of(DatePart::Month), of(DatePart::Year));
    let month = match month {
        Some(number) => Some(*MONTHS.get(usize::try_from(number).ok()?.checked_sub(1)?)?),
        None => None,
    };
    let day = day.map(|day| format!("{day}{}", ordinal_ending(day)));
    let words = [month.map(str::to_owned), day, year.map(|year| year.to_string())];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn time(text: &str) -> Option<String> {
    let (minutes, seconds) = text.trim().split_once('\'')?;
    let minutes: u64 = minutes.trim().parse().ok()?;
    let seconds: u64 = seconds.trim_end_matches(['"', '\'']).trim().parse().unwrap_or(0);
    let many = |count, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let seconds = (seconds > 0).then(|| format!(" {}", many(seconds, "second")));
    Some(format!("{}{}", many(minutes, "minute"), seconds.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn med_05_each_interpretation() {
        for (name, format, text, expected) in [
            ("characters", "", "ab 1", "A, B, 1"),
            ("spell-out", "", "Ab", "A, B"),
            ("digits", "", "1234", "1 2 3 4"),
            ("telephone", "", "+49 30-123", "plus 4 9, 3 0, 1 2 3"),
            ("cardinal", "", "12,345", "12345"),
            ("ordinal", "", "22", "22nd"),
            ("ordinal", "", "113", "113th"),
            ("ordinal", "", "x", "x"),
            ("fraction", "", "3/20", "3 over 20"),
            ("date", "mdy", "3/4/2024", "March 4th 2024"),
            ("date", "dmy", "4.3.2024", "March 4th 2024"),
            ("date", "my", "13/2024", "13/2024"),
            ("time", "", "1'21\"", "1 minute 21 seconds"),
            ("time", "", "later", "later"),
            ("expletive", "", "damn", ""),
        ] {
            let interpret = Interpret::read(name, format).unwrap();
            assert_eq!(spoken(text, interpret), expected, "{name} {text}");
        }
        assert_eq!(Interpret::read("address", ""), None);
    }
}
