//! DTMF: events in RTP (RFC 4733), tones in audio, and the sixteen digits.

pub mod detect;
pub mod event;
pub mod generate;

use std::fmt;

/// One of the sixteen DTMF digits, numbered as RFC 4733 §3.2 does: 0–9, `*`, `#`, A–D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digit(u8);

impl Digit {
    /// All digits in the order of their event codes.
    pub const CHARS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

    /// Digit of an event code; `None` above 15.
    #[must_use]
    pub const fn from_event(code: u8) -> Option<Self> {
        if code <= 15 { Some(Self(code)) } else { None }
    }

    /// Digit of a character; letters in either case.
    #[must_use]
    pub fn from_char(c: char) -> Option<Self> {
        let c = c.to_ascii_uppercase();
        let code = Self::CHARS.iter().position(|known| *known == c)?;
        Some(Self(code as u8))
    }

    /// Event code, 0–15.
    #[must_use]
    pub const fn event(self) -> u8 {
        self.0
    }

    /// The character.
    #[must_use]
    pub fn as_char(self) -> char {
        Self::CHARS.get(usize::from(self.0)).copied().unwrap_or('?')
    }

    /// Low and high frequency in hertz (ITU-T Q.23).
    #[must_use]
    pub fn frequencies_hz(self) -> (f32, f32) {
        let (row, column) = match self.as_char() {
            '1' => (0, 0),
            '2' => (0, 1),
            '3' => (0, 2),
            'A' => (0, 3),
            '4' => (1, 0),
            '5' => (1, 1),
            '6' => (1, 2),
            'B' => (1, 3),
            '7' => (2, 0),
            '8' => (2, 1),
            '9' => (2, 2),
            'C' => (2, 3),
            '*' => (3, 0),
            '0' => (3, 1),
            '#' => (3, 2),
            _ => (3, 3),
        };
        (LOW_HZ[row], HIGH_HZ[column])
    }
}

impl fmt::Display for Digit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_char().fmt(f)
    }
}

/// Row frequencies in hertz.
pub const LOW_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
/// Column frequencies in hertz.
pub const HIGH_HZ: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_have_distinct_names_and_tones() {
        let mut tones = Vec::new();
        for code in 0..16 {
            let digit = Digit::from_event(code).unwrap();
            assert_eq!(Digit::from_char(digit.as_char()), Some(digit));
            tones.push(format!("{:?}", digit.frequencies_hz()));
        }
        tones.sort();
        tones.dedup();
        assert_eq!(tones.len(), 16);
        assert_eq!(Digit::from_event(16), None);
        assert_eq!(Digit::from_char('a'), Digit::from_char('A'));
        assert_eq!(Digit::from_char('5').unwrap().frequencies_hz(), (770.0, 1336.0));
    }
}
