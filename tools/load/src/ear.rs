//! What a phone hears: onsets to the sample, and the frequency of what sounds.
//!
//! Independent of the product's own detectors, so that it can judge them. A frame's frequency is
//! the least-squares fit of one sinusoid (x[n-1] + x[n+1] = 2·cos ω·x[n]); it counts as a tone
//! when most of the energy lies there.

use serde::{Deserialize, Serialize};

use crate::codec::SAMPLE_NS;

/// Louder than this is sound; below lie silence codes of either law and comfort noise.
const LOUD: i16 = 500;
/// This much silence ends a burst: 20 ms.
const QUIET_SAMPLES: u32 = 160;
/// A pause of arrivals longer than this is silence as well.
const STREAM_PAUSE_NS: u64 = 60_000_000;
/// Bursts of one tone closer than this are one interval.
const JOIN_NS: u64 = 700_000_000;
/// Sound shorter than this in a frame is not judged for its frequency.
const JUDGED_SAMPLES: usize = 80;
/// Share of the energy at one frequency that makes it a tone.
const PURE: f64 = 0.9;
/// So many frames of one tone in a row open an interval: speech holds no pitch that purely.
const TONE_FRAMES: u32 = 3;
/// So many frames of other sound in a row open an interval.
const OTHER_FRAMES: u32 = 2;
/// Frequencies closer than this are the same tone, hertz.
pub const SAME_TONE_HZ: f64 = 15.0;
const BURSTS_MAX: usize = 100_000;
const HEARD_MAX: usize = 10_000;

/// A stretch of sound between two silences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// When its first loud sample would be heard: arrival plus its place in the packet.
    pub onset_ns: u64,
    /// When its last loud sample would be heard.
    pub end_ns: u64,
    /// Frequency; `None` for speech and everything else that is no pure tone.
    pub freq_hz: Option<f64>,
}

/// A stretch of time during which one tone (or other sound) was heard, pauses below 700 ms included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// Frequency; `None` for speech and everything else that is no pure tone.
    pub freq_hz: Option<f64>,
    /// From its first frame.
    pub from_ns: u64,
    /// To the end of its last frame.
    pub to_ns: u64,
}

impl Heard {
    /// Whether it is the tone asked for.
    pub fn is(&self, freq_hz: f64) -> bool {
        same(self.freq_hz, Some(freq_hz))
    }
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < SAME_TONE_HZ,
        (None, None) => true,
        _ => false,
    }
}

/// Frames alike, in a row.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    label: Option<f64>,
    from_ns: u64,
    frames: u32,
}

/// Listens to one stream.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    bursts: Vec<Burst>,
    heard: Vec<Heard>,
    /// The burst that sounds now; its end moves along.
    sounding: Option<Burst>,
    quiet_samples: u32,
    last_arrival_ns: Option<u64>,
    last_loud_ns: Option<u64>,
    /// What may become an interval.
    candidate: Option<Candidate>,
    /// What sounds now, and when it was last heard.
    now: Option<(Option<f64>, u64)>,
}

impl Ear {
    /// Hears one packet's samples, the first of which arrived at `arrival_ns`.
    pub fn hear(&mut self, arrival_ns: u64, samples: &[i16]) {
        if let Some(last) = self.last_arrival_ns
            && arrival_ns > last.saturating_add(STREAM_PAUSE_NS)
        {
            self.end_burst();
            self.candidate = None;
        }
        self.last_arrival_ns = Some(arrival_ns);
        let mut first_loud = None;
        let mut last_loud = 0;
        for (index, sample) in samples.iter().enumerate() {
            if sample.unsigned_abs() <= LOUD.unsigned_abs() {
                self.quiet_samples = self.quiet_samples.saturating_add(1);
                if self.quiet_samples == QUIET_SAMPLES {
                    self.end_burst();
                }
                continue;
            }
            self.quiet_samples = 0;
            first_loud.get_or_insert(index);
            last_loud = index;
            let at = arrival_ns + index as u64 * SAMPLE_NS;
            self.last_loud_ns = Some(at);
            match &mut self.sounding {
                Some(burst) => burst.end_ns = at,
                None => self.sounding = Some(Burst { onset_ns: at, end_ns: at, freq_hz: None }),
            }
        }
        let Some(first) = first_loud else {
            self.candidate = None;
            return;
        };
        let sound = samples.get(first..=last_loud).unwrap_or_default();
        if sound.len() >= JUDGED_SAMPLES {
            let from_ns = arrival_ns + first as u64 * SAMPLE_NS;
            let to_ns = arrival_ns + (last_loud as u64 + 1) * SAMPLE_NS;
            self.judge(pitch_hz(sound), from_ns, to_ns);
        }
    }

    /// All bursts that have ended, and the one that sounds.
    pub fn bursts(&self) -> Vec<Burst> {
        self.bursts.iter().copied().chain(self.sounding).collect()
    }

    /// All intervals.
    pub fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// What sounds: label and when it was last heard; only once an interval was opened.
    pub fn now(&self) -> Option<(Option<f64>, u64)> {
        self.now
    }

    /// When any sound was last heard.
    pub fn last_loud_ns(&self) -> Option<u64> {
        self.last_loud_ns
    }

    fn end_burst(&mut self) {
        if let Some(burst) = self.sounding.take()
            && self.bursts.len() < BURSTS_MAX
        {
            self.bursts.push(burst);
        }
    }

    fn judge(&mut self, label: Option<f64>, from_ns: u64, to_ns: u64) {
        if let Some(burst) = &mut self.sounding
            && burst.freq_hz.is_none()
        {
            burst.freq_hz = label;
        }
        let candidate = match self.candidate {
            Some(known) if same(known.label, label) => {
                Candidate { frames: known.frames + 1, ..known }
            }
            _ => Candidate { label, from_ns, frames: 1 },
        };
        self.candidate = Some(candidate);
        let needed = if label.is_some() { TONE_FRAMES } else { OTHER_FRAMES };
        if let Some(last) = self.heard.last_mut()
            && same(last.freq_hz, label)
            && from_ns.saturating_sub(last.to_ns) < JOIN_NS
        {
            last.to_ns = to_ns;
            self.now = Some((label, to_ns));
        } else if candidate.frames >= needed && self.heard.len() < HEARD_MAX {
            self.heard.push(Heard { freq_hz: label, from_ns: candidate.from_ns, to_ns });
            self.now = Some((label, to_ns));
        }
    }
}

/// The frequency of a pure tone; `None` for anything else.
pub fn pitch_hz(samples: &[i16]) -> Option<f64> {
    let (mut cross, mut energy) = (0.0, 0.0);
    for window in samples.windows(3) {
        let [before, here, after] = window else { continue };
        let here = f64::from(*here);
        cross += here * (f64::from(*before) + f64::from(*after));
        energy += here * here;
    }
    if energy <= 0.0 {
        return None;
    }
    let cosine = cross / (2.0 * energy);
    if !(-1.0..=1.0).contains(&cosine) {
        return None;
    }
    let omega = cosine.acos();
    // Goertzel at the fitted frequency: its share of all energy.
    let (mut s1, mut s2, mut total) = (0.0, 0.0, 0.0);
    for sample in samples {
        let x = f64::from(*sample);
        let s0 = x + 2.0 * cosine * s1 - s2;
        (s2, s1) = (s1, s0);
        total += x * x;
    }
    let power = s1 * s1 + s2 * s2 - 2.0 * cosine * s1 * s2;
    let share = 2.0 * power / (samples.len() as f64 * total);
    (share > PURE).then_some(omega * 8000.0 / std::f64::consts::TAU)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, FRAME_SAMPLES};
    use crate::source::{BurstCache, Next, Player, Source, tone_frame};

    fn through_codec(samples: &[i16; FRAME_SAMPLES], codec: Codec) -> Vec<i16> {
        let mut out = Vec::new();
        codec.decode(&codec.encode(samples), &mut out);
        out
    }

    #[test]
    fn tones_are_measured_to_a_few_hertz() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            for freq_hz in [300.0, 440.0, 625.0, 1000.0, 2000.0, 3100.0] {
                let heard = through_codec(&tone_frame(freq_hz, 480), codec);
                let found = pitch_hz(&heard).unwrap();
                assert!((found - freq_hz).abs() < 3.0, "{codec:?} {freq_hz}: {found}");
            }
        }
    }

    #[test]
    fn two_tones_and_noise_are_no_tone() {
        let one = tone_frame(697.0, 0);
        let two = tone_frame(1336.0, 0);
        let dtmf: Vec<i16> = one.iter().zip(&two).map(|(a, b)| a + b).collect();
        assert_eq!(pitch_hz(&dtmf), None);
        let noise: Vec<i16> =
            (0..160u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 17) as i16).collect();
        assert_eq!(pitch_hz(&noise), None);
        assert_eq!(pitch_hz(&[0; 160]), None);
        assert_eq!(pitch_hz(&[]), None);
    }

    /// Plays bursts into an ear with every packet shifted by `shift` samples against its frames.
    fn onsets(shift: usize, codec: Codec) -> (Vec<u64>, Vec<u64>, Ear) {
        let mut cache = BurstCache::default();
        let mut player = Player::new(Source::Bursts(440.0), codec, 9, &mut cache);
        let mut stream = vec![0i16; shift];
        let mut sent = Vec::new();
        let mut frame = [0; FRAME_SAMPLES];
        for index in 0..400u64 {
            if player.next(&mut frame) == (Next::Frame { onset: true }) {
                sent.push(index * 20_000_000 + shift as u64 * SAMPLE_NS);
            }
            codec.decode(&frame, &mut stream);
        }
        let mut ear = Ear::default();
        for (index, packet) in stream.chunks_exact(FRAME_SAMPLES).enumerate() {
            ear.hear(index as u64 * 20_000_000, packet);
        }
        (sent, ear.bursts().iter().map(|burst| burst.onset_ns).collect(), ear)
    }

    #[test]
    fn onsets_are_found_to_a_sample_whatever_the_packet_border() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            for shift in [0, 1, 37, 80, 159] {
                let (sent, found, ear) = onsets(shift, codec);
                assert!(sent.len() - found.len() <= 1, "{} {}", sent.len(), found.len());
                for (sent, found) in sent.iter().zip(&found) {
                    let off_us = (*found as i64 - *sent as i64) / 1000;
                    assert!((0..=375).contains(&off_us), "shift {shift}: {off_us} µs");
                }
                assert_eq!(ear.heard().len(), 1, "{:?}", ear.heard());
                assert!(ear.heard()[0].is(440.0));
                assert!(ear.bursts().iter().all(|burst| burst.freq_hz.is_some()));
            }
        }
    }

    #[test]
    fn one_tone_after_another_gives_two_intervals() {
        let mut ear = Ear::default();
        for index in 0..100u64 {
            let freq_hz = if index < 50 { 440.0 } else { 620.0 };
            ear.hear(index * 20_000_000, &tone_frame(freq_hz, index * 160));
        }
        let heard = ear.heard();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].is(440.0) && heard[1].is(620.0));
        assert_eq!(heard[1].from_ns / 1_000_000, 1000);
    }

    #[test]
    fn a_pause_of_the_stream_ends_a_burst() {
        let mut ear = Ear::default();
        for at_ms in [0, 20, 40, 500, 520, 540] {
            ear.hear(at_ms * 1_000_000, &tone_frame(440.0, 0));
        }
        assert_eq!(ear.bursts().len(), 2);
        assert_eq!(ear.heard().len(), 1, "less than 700 ms: one interval");
    }
}
