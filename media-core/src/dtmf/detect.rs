//! DTMF in audio: Goertzel detector after the requirements of ITU-T Q.24.
//!
//! Half-overlapping windows of 12.75 ms are judged one by one; three in a row make a digit and
//! four without it end the digit. Speech is kept out (talk-off) by the share of energy that must
//! lie in exactly two tones, by their ratio (twist) and by the distance to all other tones.

use super::{Digit, HIGH_HZ, LOW_HZ};
use crate::units::SampleRate;

/// Window at 8 kHz; scaled with the rate.
const WINDOW_AT_8000: usize = 102;
/// Highest rate: 16 kHz.
const WINDOW_MAX: usize = 2 * WINDOW_AT_8000;
/// Windows in a row that start a digit.
const HITS_TO_START: u8 = 3;
/// Windows in a row without the digit that end it.
const MISSES_TO_END: u8 = 4;
/// Share of the window's energy that both tones must have.
const SHARE_MIN: f32 = 0.8;
/// Ratio of a group's strongest tone to each other of the group (8 dB).
const PEAK_RATIO_MIN: f32 = 6.3;
/// High group above low group at most by this (4 dB, "reverse twist").
const HIGH_OVER_LOW_MAX: f32 = 2.51;
/// Low group above high group at most by this (8 dB, "normal twist").
const LOW_OVER_HIGH_MAX: f32 = 6.31;
/// Least amplitude of each tone in i16 units: about −42 dBm0.
const AMPLITUDE_MIN: f32 = 180.0;

/// What the detector reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToneEvent {
    /// A digit was recognised.
    Start(Digit),
    /// It ended.
    End {
        /// Which digit.
        digit: Digit,
        /// How long it sounded in milliseconds, to about 7 ms.
        duration_ms: u32,
    },
}

/// Detects digits in one stream of PCM at 8 or 16 kHz. Allocation-free.
#[derive(Debug, Clone)]
pub struct DtmfDetector {
    coefficients: [f32; 8],
    window: [f32; WINDOW_MAX],
    window_len: usize,
    filled: usize,
    rate: SampleRate,
    amplitude_min: f32,
    candidate: Option<Digit>,
    hits: u8,
    misses: u8,
    active: Option<(Digit, u32)>,
}

impl DtmfDetector {
    /// A detector at 8 or 16 kHz; `None` for other rates.
    #[must_use]
    pub fn new(rate: SampleRate) -> Option<Self> {
        let window_len = match rate {
            SampleRate::HZ_8000 => WINDOW_AT_8000,
            SampleRate::HZ_16000 => WINDOW_MAX,
            _ => return None,
        };
        let mut coefficients = [0.0; 8];
        for (c, hz) in coefficients.iter_mut().zip(LOW_HZ.iter().chain(&HIGH_HZ)) {
            let turn = std::f64::consts::TAU * f64::from(*hz) / f64::from(rate.hz());
            *c = (2.0 * turn.cos()) as f32;
        }
        Some(Self {
            coefficients,
            window: [0.0; WINDOW_MAX],
            window_len,
            filled: 0,
            rate,
            amplitude_min: AMPLITUDE_MIN,
            candidate: None,
            hits: 0,
            misses: 0,
            active: None,
        })
    }

    /// The digit that sounds now.
    #[must_use]
    pub fn active(&self) -> Option<Digit> {
        self.active.map(|(digit, _)| digit)
    }

    /// Takes samples and hands each event to `report`, in order.
    pub fn process(&mut self, samples: &[i16], mut report: impl FnMut(ToneEvent)) {
        for sample in samples {
            if let Some(slot) = self.window.get_mut(self.filled) {
                *slot = f32::from(*sample);
            }
            self.filled += 1;
            if self.filled >= self.window_len {
                let half = self.window_len / 2;
                let found = self.judge();
                self.window.copy_within(half..self.window_len, 0);
                self.filled = self.window_len - half;
                self.step(found, &mut report);
            }
        }
    }

    fn step(&mut self, found: Option<Digit>, report: &mut impl FnMut(ToneEvent)) {
        if let Some((digit, windows)) = &mut self.active {
            *windows += 1;
            if found == Some(*digit) {
                self.misses = 0;
            } else {
                self.misses += 1;
            }
            if self.misses >= MISSES_TO_END {
                let (digit, windows) = (*digit, *windows);
                self.active = None;
                self.misses = 0;
                report(ToneEvent::End { digit, duration_ms: self.duration_ms(windows) });
            }
        }
        match found {
            Some(_) if found == self.candidate => self.hits = self.hits.saturating_add(1),
            _ => self.hits = u8::from(found.is_some()),
        }
        self.candidate = found;
        let Some(digit) = found else { return };
        if self.hits >= HITS_TO_START && self.active().is_none_or(|d| d != digit) {
            if let Some((old, windows)) = self.active.take() {
                let windows = windows.saturating_sub(u32::from(HITS_TO_START));
                report(ToneEvent::End { digit: old, duration_ms: self.duration_ms(windows) });
            }
            self.active = Some((digit, u32::from(HITS_TO_START)));
            self.misses = 0;
            report(ToneEvent::Start(digit));
        }
    }

    /// A tone fills one window more than it has hops; the misses at its end are no tone.
    fn duration_ms(&self, windows: u32) -> u32 {
        let hops = windows.saturating_sub(u32::from(MISSES_TO_END)) + 1;
        let samples = hops as usize * (self.window_len / 2);
        self.rate.ms_of_samples(samples as u64) as u32
    }

    fn judge(&self) -> Option<Digit> {
        let window = self.window.get(..self.window_len)?;
        let mut s1 = [0.0f32; 8];
        let mut s2 = [0.0f32; 8];
        let mut energy = 0.0f32;
        for x in window {
            energy += x * x;
            for k in 0..8 {
                let s0 = x + self.coefficients[k] * s1[k] - s2[k];
                s2[k] = s1[k];
                s1[k] = s0;
            }
        }
        let mut power = [0.0f32; 8];
        for k in 0..8 {
            power[k] = s1[k] * s1[k] + s2[k] * s2[k] - self.coefficients[k] * s1[k] * s2[k];
        }
        let (low, high) = power.split_at(4);
        let (row, low_power) = peak(low)?;
        let (column, high_power) = peak(high)?;
        let length = window.len() as f32;
        // Power of a sine of amplitude a is (a·n/2)².
        let power_min = (self.amplitude_min * length / 2.0).powi(2);
        if low_power < power_min || high_power < power_min {
            return None;
        }
        if high_power > low_power * HIGH_OVER_LOW_MAX || low_power > high_power * LOW_OVER_HIGH_MAX
        {
            return None;
        }
        // A pure sine has power energy·n/2.
        if low_power + high_power < SHARE_MIN * energy * length / 2.0 {
            return None;
        }
        digit_at(row, column)
    }
}

/// Index and power of the strongest tone of a group, if it stands out.
fn peak(group: &[f32]) -> Option<(usize, f32)> {
    let (best, &power) = group.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let clear = group
        .iter()
        .enumerate()
        .all(|(index, other)| index == best || power > other * PEAK_RATIO_MIN);
    clear.then_some((best, power))
}

fn digit_at(row: usize, column: usize) -> Option<Digit> {
    const PAD: [[char; 4]; 4] =
        [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];
    Digit::from_char(*PAD.get(row)?.get(column)?)
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
