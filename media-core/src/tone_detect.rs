//! Which tones of a known set are in a block (Goertzel), and when one begins.
//!
//! For measuring: every party of a test call sends a tone of its own; what a party hears tells who
//! is connected to whom, and the onset tells the delay.

use crate::units::SampleRate;

/// Goertzel filter for one frequency.
#[derive(Debug, Clone, Copy)]
pub struct Goertzel {
    coefficient: f32,
}

impl Goertzel {
    /// A filter for `hz` at `rate`.
    #[must_use]
    pub fn new(hz: f32, rate: SampleRate) -> Self {
        let turn = std::f64::consts::TAU * f64::from(hz) / f64::from(rate.hz().max(1));
        Self { coefficient: (2.0 * turn.cos()) as f32 }
    }

    /// Squared magnitude of the block at the frequency.
    #[must_use]
    pub fn power(&self, samples: impl Iterator<Item = f32>) -> f32 {
        let (mut s1, mut s2) = (0.0f32, 0.0f32);
        for x in samples {
            let s0 = x + self.coefficient * s1 - s2;
            s2 = s1;
            s1 = s0;
        }
        (s1 * s1 + s2 * s2 - self.coefficient * s1 * s2).max(0.0)
    }

    /// Amplitude of a sine of the frequency that would explain the block, in i16 units.
    #[must_use]
    pub fn amplitude(&self, samples: &[i16]) -> f32 {
        if samples.is_empty() {
            return 0.0;
        }
        self.power(samples.iter().map(|s| f32::from(*s))).sqrt() * 2.0 / samples.len() as f32
    }
}

/// How much of one tone is in a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToneLevel {
    /// Frequency in hertz.
    pub hz: f32,
    /// Amplitude in i16 units.
    pub amplitude: f32,
    /// Share of the block's energy, 0–1.
    pub share: f32,
}

/// Recognises tones of a set. Frequencies should lie at least 1.5 / block length apart.
#[derive(Debug, Clone)]
pub struct ToneBank {
    tones: Vec<(f32, Goertzel)>,
}

impl ToneBank {
    /// A bank for the given frequencies in hertz.
    #[must_use]
    pub fn new(rate: SampleRate, frequencies_hz: &[f32]) -> Self {
        let tones = frequencies_hz.iter().map(|&hz| (hz, Goertzel::new(hz, rate))).collect();
        Self { tones }
    }

    /// Level of every tone, in the order given to `new`.
    #[must_use]
    pub fn analyse(&self, block: &[i16]) -> Vec<ToneLevel> {
        let energy: f32 = block.iter().map(|s| f32::from(*s).powi(2)).sum();
        let length = block.len() as f32;
        self.tones
            .iter()
            .map(|(hz, goertzel)| {
                let amplitude = goertzel.amplitude(block);
                let share = if energy > 0.0 {
                    (amplitude * amplitude / 2.0 * length / energy).min(1.0)
                } else {
                    0.0
                };
                ToneLevel { hz: *hz, amplitude, share }
            })
            .collect()
    }

    /// Indices of the tones that are there: amplitude at least `amplitude_min` (i16 units) and at
    /// least a tenth of the loudest tone's and of the block's energy.
    #[must_use]
    pub fn present(&self, block: &[i16], amplitude_min: f32) -> Vec<usize> {
        let levels = self.analyse(block);
        let loudest = levels.iter().map(|l| l.amplitude).fold(0.0, f32::max);
        levels
            .iter()
            .enumerate()
            .filter(|(_, l)| {
                l.amplitude >= amplitude_min && l.amplitude >= loudest / 10.0 && l.share >= 0.1
            })
            .map(|(index, _)| index)
            .collect()
    }
}

/// Length of the sliding window in milliseconds.
const WINDOW_MS: u32 = 10;
/// Windows that are remembered, one per millisecond.
const HISTORY: usize = 32;
/// Share of energy that makes a window a tone.
const SHARE_MIN: f32 = 0.7;

/// Finds the moment one tone begins: to 1.5 ms after silence, to 4 ms after another tone at least
/// 200 Hz away (the phases of both decide how the window changes over).
#[derive(Debug, Clone)]
pub struct OnsetDetector {
    goertzel: Goertzel,
    amplitude_min: f32,
    window: Vec<f32>,
    at: usize,
    hop: usize,
    since_hop: usize,
    samples: u64,
    history: [f32; HISTORY],
    hops: u64,
    steady_hops: u32,
    absent_hops: u32,
    sounding: bool,
}

impl OnsetDetector {
    /// A detector for `hz`; quieter tones than `amplitude_min` (i16 units) do not count.
    #[must_use]
    pub fn new(rate: SampleRate, hz: f32, amplitude_min: f32) -> Self {
        Self {
            goertzel: Goertzel::new(hz, rate),
            amplitude_min: amplitude_min.max(1.0),
            window: vec![0.0; rate.samples_in_ms(WINDOW_MS).max(1)],
            at: 0,
            hop: rate.samples_in_ms(1).max(1),
            since_hop: 0,
            samples: 0,
            history: [0.0; HISTORY],
            hops: 0,
            steady_hops: 0,
            absent_hops: u32::MAX / 2,
            sounding: false,
        }
    }

    /// Takes samples; returns the index (counted from the first sample ever given) at which the
    /// tone began, once it has sounded for 15 ms. The tone counts as gone after 30 ms without it.
    pub fn push(&mut self, samples: &[i16]) -> Option<u64> {
        let mut onset = None;
        for sample in samples {
            if let Some(slot) = self.window.get_mut(self.at) {
                *slot = f32::from(*sample);
            }
            self.at = (self.at + 1) % self.window.len();
            self.samples += 1;
            self.since_hop += 1;
            if self.since_hop == self.hop {
                self.since_hop = 0;
                onset = onset.or(self.evaluate());
            }
        }
        onset
    }

    /// Whether the tone is there now.
    #[must_use]
    pub const fn is_sounding(&self) -> bool {
        self.sounding
    }

    fn evaluate(&mut self) -> Option<u64> {
        let (tail, head) = self.window.split_at(self.at.min(self.window.len()));
        let ordered = head.iter().chain(tail).copied();
        let length = self.window.len() as f32;
        let amplitude = self.goertzel.power(ordered.clone()).sqrt() * 2.0 / length;
        let energy: f32 = ordered.map(|x| x * x).sum();
        let share = amplitude * amplitude / 2.0 * length / energy.max(1.0);
        if let Some(slot) = self.history.get_mut((self.hops % HISTORY as u64) as usize) {
            *slot = amplitude;
        }
        self.hops += 1;
        if amplitude >= self.amplitude_min && share >= SHARE_MIN {
            self.steady_hops = self.steady_hops.saturating_add(1);
            self.absent_hops = 0;
        } else {
            self.absent_hops = self.absent_hops.saturating_add(1);
            self.steady_hops = 0;
            if self.absent_hops >= 30 {
                self.sounding = false;
            }
        }
        if self.sounding || self.steady_hops < 15 {
            return None;
        }
        self.sounding = true;
        Some(self.locate(amplitude))
    }

    /// A window half covered by the tone has half its amplitude: the tone began in its middle.
    fn locate(&self, full: f32) -> u64 {
        let past = |back: u64| {
            let hop = self.hops.checked_sub(1 + back)?;
            self.history.get((hop % HISTORY as u64) as usize).copied()
        };
        let half = full / 2.0;
        let span = (HISTORY as u64 - 1).min(self.hops);
        let mut above = full;
        for back in 1..span {
            let Some(amplitude) = past(back) else { break };
            if amplitude < half {
                let fraction = (half - amplitude) / (above - amplitude).max(1e-6);
                let hops_back = back as f32 - fraction;
                let end = self.samples as f32 - hops_back * self.hop as f32;
                return (end - self.window.len() as f32 / 2.0).max(0.0) as u64;
            }
            above = amplitude;
        }
        self.samples.saturating_sub(span * self.hop as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::g711;
    use crate::tone::{ToneSpec, render};
    use crate::units::Dbov;
    use proptest::prelude::*;

    const RATE: SampleRate = SampleRate::HZ_8000;
    const SET: [f32; 5] = [500.0, 700.0, 950.0, 1300.0, 1900.0];

    fn tone(hz: f32, ms: u32) -> Vec<i16> {
        render(&ToneSpec::sine(hz, Dbov(15)), RATE, ms)
    }

    fn through_ulaw(samples: &[i16]) -> Vec<i16> {
        let encode = |s: &i16| g711::decode_ulaw_sample(g711::encode_ulaw_sample(*s));
        samples.iter().map(encode).collect()
    }

    #[test]
    fn every_subset_is_recognised_through_g711() {
        let bank = ToneBank::new(RATE, &SET);
        for set in 0..32usize {
            let mut mix = vec![0i32; 480];
            let members: Vec<usize> = (0..5).filter(|i| set >> i & 1 == 1).collect();
            for &i in &members {
                for (m, s) in mix.iter_mut().zip(tone(SET[i], 60)) {
                    *m += i32::from(s);
                }
            }
            let mix: Vec<i16> = mix.iter().map(|s| (*s).clamp(-32768, 32767) as i16).collect();
            assert_eq!(bank.present(&through_ulaw(&mix), 300.0), members);
        }
    }

    #[test]
    fn noise_and_silence_are_no_tone() {
        let bank = ToneBank::new(RATE, &SET);
        assert!(bank.present(&[0; 160], 300.0).is_empty());
        assert!(bank.present(&[], 300.0).is_empty());
        let mut state = 1u32;
        let noise: Vec<i16> = (0..480)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 16) as i16) / 8
            })
            .collect();
        assert!(bank.present(&noise, 300.0).is_empty());
        assert!(OnsetDetector::new(RATE, 700.0, 300.0).push(&noise).is_none());
    }

    #[test]
    fn tone_ends_and_begins_again() {
        let mut detector = OnsetDetector::new(RATE, 700.0, 300.0);
        let mut audio = vec![0; 800];
        audio.extend(tone(700.0, 100));
        audio.extend(vec![0; 800]);
        audio.extend(tone(700.0, 100));
        let onsets: Vec<u64> = audio.chunks(160).filter_map(|c| detector.push(c)).collect();
        assert_eq!(onsets.len(), 2, "{onsets:?}");
        assert!(onsets[0].abs_diff(800) <= 12 && onsets[1].abs_diff(2400) <= 12, "{onsets:?}");
        assert!(detector.is_sounding());
        detector.push(&[0; 480]);
        assert!(!detector.is_sounding());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn onset_is_found_to_milliseconds(start in 200usize..4000, own in 0usize..5, before in prop::option::of(0usize..5), chunk in 1usize..400) {
            prop_assume!(before != Some(own));
            let mut audio = match before {
                Some(other) => tone(SET[other], 600)[..start].to_vec(),
                None => vec![0; start],
            };
            audio.extend(tone(SET[own], 100));
            let audio = through_ulaw(&audio);
            let mut detector = OnsetDetector::new(RATE, SET[own], 300.0);
            let onset = audio.chunks(chunk).find_map(|c| detector.push(c));
            let onset = onset.expect("found");
            let tolerance = if before.is_some() { 32 } else { 12 };
            prop_assert!(onset.abs_diff(start as u64) <= tolerance, "{onset} for {start}");
        }
    }
}
