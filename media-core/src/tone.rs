//! Tones with cadence: ringback by country, beep, identification tones. Built on dasp signals.

use crate::units::{Dbov, SampleRate};
use dasp::signal::{self, AddAmp, ConstHz, ScaleAmp, Signal, Sine};

/// Steps of a cadence.
pub const CADENCE_STEPS_MAX: usize = 2;
/// Length of the ramps that keep edges from clicking, in milliseconds.
const RAMP_MS: u32 = 2;

/// Sound and pause of one cadence step, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CadenceStep {
    /// Sound.
    pub on_ms: u32,
    /// Pause behind it.
    pub off_ms: u32,
}

/// Two steps, repeated for ever; a cadence of one step has it twice.
pub type Cadence = [CadenceStep; CADENCE_STEPS_MAX];

/// A tone of one or two sines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToneSpec {
    /// First frequency in hertz.
    pub first_hz: f32,
    /// Second frequency in hertz, if any.
    pub second_hz: Option<f32>,
    /// Level of each sine (a full-scale sine is −3 dBov).
    pub level: Dbov,
    /// Repeated for ever; `None` sounds without pause.
    pub cadence: Option<Cadence>,
}

const fn once(on_ms: u32, off_ms: u32) -> Option<Cadence> {
    let step = CadenceStep { on_ms, off_ms };
    Some([step, step])
}

const fn twice(on_ms: u32, gap_ms: u32, off_ms: u32) -> Option<Cadence> {
    Some([CadenceStep { on_ms, off_ms: gap_ms }, CadenceStep { on_ms, off_ms }])
}

/// Country, first and second frequency in hertz, cadence.
type RingbackRow = (&'static str, f32, Option<f32>, Option<Cadence>);

/// Countries (ISO 3166 alpha-2) that ring differently from [`EUROPE`]: code, frequencies, cadence
/// (ITU-T E.180 supplement 2).
const RINGBACK: [RingbackRow; 19] = [
    ("US", 440.0, Some(480.0), once(2000, 4000)),
    ("CA", 440.0, Some(480.0), once(2000, 4000)),
    ("GB", 400.0, Some(450.0), twice(400, 200, 2000)),
    ("IE", 400.0, Some(450.0), twice(400, 200, 2000)),
    ("AU", 400.0, Some(450.0), twice(400, 200, 2000)),
    ("NZ", 400.0, Some(450.0), twice(400, 200, 2000)),
    ("IN", 400.0, Some(425.0), twice(400, 200, 2000)),
    ("SG", 400.0, Some(425.0), twice(400, 200, 2000)),
    ("HK", 440.0, Some(480.0), twice(400, 200, 3000)),
    ("JP", 400.0, Some(416.0), once(1000, 2000)),
    ("FR", 440.0, None, once(1500, 3500)),
    ("ES", 425.0, None, once(1500, 3000)),
    ("BE", 425.0, None, once(1000, 3000)),
    ("SE", 425.0, None, once(1000, 5000)),
    ("CN", 450.0, None, once(1000, 4000)),
    ("KR", 440.0, Some(480.0), once(1000, 2000)),
    ("MX", 425.0, None, once(1000, 4000)),
    ("BR", 425.0, None, once(1000, 4000)),
    ("ZA", 400.0, Some(433.0), twice(400, 200, 2000)),
];

/// Ringback of most of Europe: 425 Hz, 1 s on, 4 s off.
pub const EUROPE: ToneSpec =
    ToneSpec { first_hz: 425.0, second_hz: None, level: Dbov(19), cadence: once(1000, 4000) };

impl ToneSpec {
    /// A steady sine.
    #[must_use]
    pub const fn sine(hz: f32, level: Dbov) -> Self {
        Self { first_hz: hz, second_hz: None, level, cadence: None }
    }

    /// The beep before a recording: 1000 Hz.
    #[must_use]
    pub const fn beep() -> Self {
        Self::sine(1000.0, Dbov(13))
    }

    /// Ringback of a country by its ISO 3166 alpha-2 code in either case; [`EUROPE`] for codes
    /// that are not listed.
    #[must_use]
    pub fn ringback(country: &str) -> Self {
        RINGBACK.iter().find(|(code, ..)| code.eq_ignore_ascii_case(country)).map_or(
            EUROPE,
            |&(_, first_hz, second_hz, cadence)| Self {
                first_hz,
                second_hz,
                level: Dbov(19),
                cadence,
            },
        )
    }
}

impl ToneSpec {
    /// Length of one cycle of the cadence in milliseconds; `None` for a steady tone. [`render`] of
    /// one cycle can be repeated without a seam, because it ends in silence: many legs can share
    /// it instead of computing sines each.
    #[must_use]
    pub fn cycle_ms(&self) -> Option<u32> {
        let steps = self.cadence?;
        Some(steps.iter().map(|s| s.on_ms.saturating_add(s.off_ms)).fold(0, u32::saturating_add))
    }
}

type Voice = ScaleAmp<Sine<ConstHz>>;

/// Generates a tone for ever, frame by frame. Allocation-free after `new`.
#[derive(Clone)]
pub struct ToneGenerator {
    signal: AddAmp<Voice, Voice>,
    gate: Option<Gate>,
}

impl std::fmt::Debug for ToneGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToneGenerator").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl ToneGenerator {
    /// A generator that starts at the beginning of the cadence.
    #[must_use]
    pub fn new(spec: &ToneSpec, rate: SampleRate) -> Self {
        let amplitude = f64::from(spec.level.sine_amplitude());
        let voice = |hz: f32, amplitude: f64| {
            signal::rate(f64::from(rate.hz().max(1)))
                .const_hz(f64::from(hz))
                .sine()
                .scale_amp(amplitude)
        };
        let second_amplitude = if spec.second_hz.is_some() { amplitude } else { 0.0 };
        let second = voice(spec.second_hz.unwrap_or(0.0), second_amplitude);
        Self {
            signal: voice(spec.first_hz, amplitude).add_amp(second),
            gate: spec.cadence.map(|steps| Gate::new(steps, rate)),
        }
    }

    /// Fills `out` with the next samples.
    pub fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            let value = self.signal.next();
            let gain = self.gate.as_mut().map_or(1.0, Gate::next);
            // Casts of floats saturate.
            *sample = (value * gain).round() as i16;
        }
    }
}

/// Opens and closes with the cadence.
#[derive(Debug, Clone)]
struct Gate {
    steps: [(u32, u32); CADENCE_STEPS_MAX],
    step: usize,
    at: u32,
    ramp: u32,
}

impl Gate {
    fn new(steps: [CadenceStep; CADENCE_STEPS_MAX], rate: SampleRate) -> Self {
        let samples = |ms: u32| u32::try_from(rate.samples_in_ms(ms)).unwrap_or(u32::MAX / 2);
        let steps = steps.map(|s| (samples(s.on_ms), samples(s.on_ms.saturating_add(s.off_ms))));
        Self { steps, step: 0, at: 0, ramp: samples(RAMP_MS).max(1) }
    }

    fn next(&mut self) -> f64 {
        let (on, total) = self.steps.get(self.step).copied().unwrap_or((0, 1));
        let from_edge = if self.at < on { (self.at + 1).min(on - self.at) } else { 0 };
        let gain = f64::from(from_edge.min(self.ramp)) / f64::from(self.ramp);
        self.at += 1;
        if self.at >= total {
            self.at = 0;
            self.step = (self.step + 1) % CADENCE_STEPS_MAX;
        }
        gain
    }
}

/// `ms` milliseconds of a tone as one buffer, with ramps at both ends; for files and prompts.
#[must_use]
pub fn render(spec: &ToneSpec, rate: SampleRate, ms: u32) -> Vec<i16> {
    let mut out = vec![0; rate.samples_in_ms(ms)];
    ToneGenerator::new(spec, rate).fill(&mut out);
    let ramp = rate.samples_in_ms(RAMP_MS).min(out.len() / 2);
    for n in 0..ramp {
        let gain = (n + 1) as f32 / (ramp + 1) as f32;
        let last = out.len() - 1 - n;
        for at in [n, last] {
            if let Some(sample) = out.get_mut(at) {
                *sample = (f32::from(*sample) * gain) as i16;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone_detect::ToneBank;

    #[test]
    fn cadence_of_countries() {
        let sound = |country: &str, at_ms: usize| {
            let mut generator =
                ToneGenerator::new(&ToneSpec::ringback(country), SampleRate::HZ_8000);
            let mut samples = vec![0i16; 8 * (at_ms + 20)];
            for frame in samples.chunks_mut(160) {
                generator.fill(frame);
            }
            samples[8 * at_ms..].iter().any(|s| s.abs() > 500)
        };
        let cases: [(&str, &[(usize, bool)]); 5] = [
            ("US", &[(0, true), (1970, true), (2010, false), (5970, false), (6010, true)]),
            ("gb", &[(370, true), (410, false), (610, true), (1010, false), (3010, true)]),
            ("DE", &[(970, true), (1010, false), (4970, false), (5010, true)]),
            ("FR", &[(1470, true), (1510, false), (5010, true)]),
            ("??", &[(970, true), (1010, false)]),
        ];
        for (country, points) in cases {
            for (at, expected) in points {
                assert_eq!(sound(country, *at), *expected, "{country} at {at} ms");
            }
        }
    }

    #[test]
    fn a_rendered_cycle_repeats_without_a_seam() {
        for country in ["US", "GB", "DE", "JP"] {
            let spec = ToneSpec::ringback(country);
            let cycle = render(&spec, SampleRate::HZ_8000, spec.cycle_ms().unwrap());
            assert_eq!(cycle[cycle.len() - 1], 0);
            assert!(cycle[0].abs() < 50, "{country}: {}", cycle[0]);
        }
        assert_eq!(ToneSpec::beep().cycle_ms(), None);
    }

    #[test]
    fn ringback_has_both_tones_at_its_level() {
        let mut out = [0; 800];
        ToneGenerator::new(&ToneSpec::ringback("US"), SampleRate::HZ_8000).fill(&mut out);
        let bank = ToneBank::new(SampleRate::HZ_8000, &[440.0, 480.0, 425.0 * 2.0]);
        let levels = bank.analyse(&out);
        let expected = Dbov(19).sine_amplitude();
        for level in &levels[..2] {
            assert!((level.amplitude / expected - 1.0).abs() < 0.1, "{levels:?}");
        }
        assert!(levels[2].amplitude < expected / 20.0);
    }

    #[test]
    fn level_is_what_was_asked_for() {
        let out = render(&ToneSpec::sine(1004.0, Dbov(13)), SampleRate::HZ_8000, 500);
        assert_eq!(Dbov::of_block(&out[100..3900]), Dbov(13));
        assert!(out[0].abs() < 700 && out[out.len() - 1].abs() < 700, "ramps");
        assert!(render(&ToneSpec::beep(), SampleRate::HZ_8000, 0).is_empty());
        // Loudest possible: saturates, never wraps.
        let loud = render(&ToneSpec::sine(50.0, Dbov(0)), SampleRate::HZ_8000, 100);
        assert!(loud.windows(2).all(|w| (i32::from(w[0]) - i32::from(w[1])).abs() < 5000));
    }
}
