//! Concealment of lost frames: the last pitch period is repeated and faded (in the manner of ITU-T
//! G.711 appendix I). Allocation-free.

use crate::units::SampleRate;

/// History at the highest rate (16 kHz): two and a half of the longest pitch periods.
const HISTORY_MAX: usize = 600;
/// Shortest and longest pitch period in milliseconds times 10.
const PITCH_MS_X10: (u32, u32) = (25, 150);
/// Full level for the first 10 ms, silence after 60 ms.
const HOLD_MS: u32 = 10;
const FADE_MS: u32 = 50;
/// Cross-fade from the repeated period into the next good frame.
const JOIN_MS: u32 = 4;

/// Conceals losses of one decoded stream.
#[derive(Debug, Clone)]
pub struct Concealer {
    rate: SampleRate,
    history: [i16; HISTORY_MAX],
    history_len: usize,
    period: usize,
    position: usize,
    concealed: usize,
}

impl Concealer {
    /// A concealer for streams of at most 16 kHz; higher rates see a shorter history.
    #[must_use]
    pub const fn new(rate: SampleRate) -> Self {
        let wanted = rate.samples_in_ms(37);
        let history_len = if wanted > HISTORY_MAX { HISTORY_MAX } else { wanted };
        Self { rate, history: [0; HISTORY_MAX], history_len, period: 0, position: 0, concealed: 0 }
    }

    /// Takes a good frame. Right after a loss its start is blended with the concealment.
    pub fn on_frame(&mut self, frame: &mut [i16]) {
        if self.concealed > 0 {
            let join = self.rate.samples_in_ms(JOIN_MS).min(frame.len());
            for (n, sample) in frame.iter_mut().take(join).enumerate() {
                let old = f32::from(self.next_repeated());
                let weight = (n + 1) as f32 / (join + 1) as f32;
                *sample = (f32::from(*sample) * weight + old * (1.0 - weight)) as i16;
            }
            self.concealed = 0;
            self.period = 0;
        }
        let len = self.history_len;
        let Some(history) = self.history.get_mut(..len) else { return };
        let kept = frame.len().min(len);
        history.copy_within(kept.., 0);
        let newest = frame.get(frame.len() - kept..).unwrap_or_default();
        if let Some(end) = history.get_mut(len - kept..) {
            end.copy_from_slice(newest);
        }
    }

    /// Fills `frame` with a replacement for a lost one.
    pub fn conceal(&mut self, frame: &mut [i16]) {
        if self.concealed == 0 {
            self.period = self.find_period();
            self.position = 0;
        }
        for sample in frame {
            *sample = self.next_repeated();
        }
    }

    fn next_repeated(&mut self) -> i16 {
        let hold = self.rate.samples_in_ms(HOLD_MS);
        let fade = self.rate.samples_in_ms(FADE_MS).max(1);
        let gain = 1.0 - self.concealed.saturating_sub(hold) as f32 / fade as f32;
        self.concealed = self.concealed.saturating_add(1);
        if gain <= 0.0 {
            return 0;
        }
        let start = self.history_len.saturating_sub(self.period);
        let sample = self.history.get(start + self.position).copied().unwrap_or(0);
        self.position = (self.position + 1) % self.period.max(1);
        (f32::from(sample) * gain) as i16
    }

    /// Lag with the highest normalised correlation between the newest 10 ms and what was before.
    fn find_period(&self) -> usize {
        let Some(history) = self.history.get(..self.history_len) else { return 1 };
        let lags = |x10: u32| self.rate.samples_in_ms(x10) / 10;
        let (shortest, longest) = (lags(PITCH_MS_X10.0).max(1), lags(PITCH_MS_X10.1));
        let span = self.rate.samples_in_ms(10).min(history.len() / 2);
        let newest = history.get(history.len() - span..).unwrap_or_default();
        let mut best = (longest.clamp(1, history.len().max(1)), f32::MIN);
        for lag in shortest..=longest.min(history.len() - span) {
            let from = history.len() - span - lag;
            let earlier = history.get(from..from + span).unwrap_or_default();
            let (mut product, mut energy) = (0.0f32, 1.0f32);
            for (a, b) in newest.iter().zip(earlier) {
                product += f32::from(*a) * f32::from(*b);
                energy += f32::from(*b) * f32::from(*b);
            }
            let score = product / energy.sqrt();
            if score > best.1 {
                best = (lag, score);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{ToneSpec, render};
    use crate::units::Dbov;

    #[test]
    fn a_periodic_signal_goes_on_and_fades() {
        for rate in [SampleRate::HZ_8000, SampleRate::HZ_16000] {
            let frame_len = rate.samples_in_ms(20);
            let signal = render(&ToneSpec::sine(200.0, Dbov(10)), rate, 500);
            let mut plc = Concealer::new(rate);
            let mut frames = signal.chunks(frame_len);
            for frame in frames.by_ref().take(5) {
                plc.on_frame(&mut frame.to_vec());
            }
            let truth = frames.next().unwrap();
            let mut lost = vec![0; frame_len];
            plc.conceal(&mut lost);
            let hold = rate.samples_in_ms(10);
            for (n, (a, b)) in lost[..hold].iter().zip(truth).enumerate() {
                assert!((i32::from(*a) - i32::from(*b)).abs() < 1500, "{n}: {a} {b}");
            }
            let peak = |f: &[i16]| f.iter().map(|s| s.abs()).max().unwrap();
            let mut peaks = vec![peak(&lost)];
            for _ in 0..3 {
                plc.conceal(&mut lost);
                peaks.push(peak(&lost));
            }
            assert!(peaks.windows(2).all(|w| w[0] > w[1]), "{peaks:?}");
            assert_eq!(peaks[3], 0, "silent after 60 ms");
        }
    }

    #[test]
    fn the_next_frame_joins_without_a_step() {
        let rate = SampleRate::HZ_8000;
        let signal = render(&ToneSpec::sine(250.0, Dbov(10)), rate, 200);
        let mut plc = Concealer::new(rate);
        let mut out = Vec::new();
        for (n, frame) in signal.chunks(160).enumerate() {
            let mut frame = frame.to_vec();
            if n == 5 {
                plc.conceal(&mut frame)
            } else {
                plc.on_frame(&mut frame)
            }
            out.extend(frame);
        }
        let step = |v: &[i16]| {
            v.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap()
        };
        assert!(step(&out) < step(&signal) * 3 / 2, "{} {}", step(&out), step(&signal));
    }

    #[test]
    fn any_frame_length_and_rate() {
        for rate in [0, 1, 500, 8000, 48_000] {
            let mut plc = Concealer::new(SampleRate(rate));
            for len in [0, 1, 7, 960, 2000] {
                plc.conceal(&mut vec![0; len]);
                plc.on_frame(&mut vec![i16::MIN; len]);
                plc.conceal(&mut vec![0; len]);
            }
        }
    }
}
