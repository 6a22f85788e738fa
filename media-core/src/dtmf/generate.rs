//! DTMF as audio.

use super::Digit;
use crate::tone::{ToneGenerator, ToneSpec};
use crate::units::{Dbov, SampleRate};

/// Level of each of both tones: −13 dBov, which is about −7 dBm0.
pub const LEVEL: Dbov = Dbov(13);

/// The tones of a digit.
#[must_use]
pub fn tone_of(digit: Digit, level: Dbov) -> ToneSpec {
    let (first_hz, high_hz) = digit.frequencies_hz();
    ToneSpec { first_hz, second_hz: Some(high_hz), level, cadence: None }
}

/// A generator for the sound of a digit; the caller decides how long.
#[must_use]
pub fn generator(digit: Digit, rate: SampleRate) -> ToneGenerator {
    ToneGenerator::new(&tone_of(digit, LEVEL), rate)
}

/// A whole dialling as one buffer: each digit `on_ms`, each pause `off_ms`. `w` and `W` are pauses
/// of half a second and a second; other characters are left out.
#[must_use]
pub fn render(digits: &str, rate: SampleRate, on_ms: u32, off_ms: u32) -> Vec<i16> {
    let mut out = Vec::new();
    for c in digits.chars() {
        let pause_ms = match c {
            'w' => 500,
            'W' => 1000,
            _ => {
                let Some(digit) = Digit::from_char(c) else { continue };
                let tone = tone_of(digit, LEVEL);
                out.extend(crate::tone::render(&tone, rate, on_ms));
                off_ms
            }
        };
        out.resize(out.len() + rate.samples_in_ms(pause_ms), 0);
    }
    out
}
