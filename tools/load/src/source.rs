//! What a phone says, frame by frame.
//!
//! The usual voice is [`Source::Bursts`]: 200 ms of a tone, then a pause of pseudo-random length.
//! The frequency tells who speaks; the rhythm, which no other call shares, tells which burst is
//! which, so that delay can be measured even when it is longer than a burst. Bursts begin on a
//! frame border: the send time of that frame is the time of the onset.

use std::collections::HashMap;
use std::f64::consts::TAU;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::codec::{Codec, FRAME_SAMPLES};

/// Frames of a burst: 200 ms.
pub const BURST_FRAMES: usize = 10;
/// Shortest pause between bursts, frames.
pub const PAUSE_FRAMES_MIN: u32 = 6;
/// Longest pause between bursts, frames.
pub const PAUSE_FRAMES_MAX: u32 = 22;
const AMPLITUDE: f64 = 9000.0;

/// What a phone sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// No RTP at all.
    Nothing,
    /// RTP with silence in it.
    Silence,
    /// Bursts of a tone in a rhythm of their own: identifies the speaker and gives delay.
    /// Multiples of 5 Hz end on a zero crossing.
    Bursts(f64),
    /// A steady tone of this many hertz.
    Tone(f64),
    /// Samples at 8 kHz, once, then silence.
    Once(Arc<[i16]>),
    /// Samples at 8 kHz, again and again.
    Loop(Arc<[i16]>),
}

impl Source {
    /// Reads a WAV file (8 kHz, mono, 16 bit) to be played once.
    ///
    /// # Errors
    /// The file cannot be read, or has another format; the text names file and reason.
    pub fn wav(path: &Path) -> Result<Self, String> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut reader = hound::WavReader::open(path).map_err(|error| named(&error))?;
        let spec = reader.spec();
        if (spec.sample_rate, spec.channels, spec.bits_per_sample) != (8000, 1, 16) {
            return Err(named(&format!(
                "{} Hz, {} channels, {} bit; wanted is 8000 Hz, 1 channel, 16 bit",
                spec.sample_rate, spec.channels, spec.bits_per_sample
            )));
        }
        let samples: Result<Vec<i16>, _> = reader.samples::<i16>().collect();
        Ok(Self::Once(samples.map_err(|error| named(&error))?.into()))
    }

    /// Raw µ-law bytes to be played once.
    pub fn ulaw(bytes: &[u8]) -> Self {
        let mut samples = Vec::with_capacity(bytes.len());
        Codec::Pcmu.decode(bytes, &mut samples);
        Self::Once(samples.into())
    }
}

type Frame = [u8; FRAME_SAMPLES];

/// Encoded bursts, shared by all calls of the same tone: calls by the hundred need no arithmetic.
#[derive(Default)]
pub struct BurstCache {
    bursts: HashMap<(u64, Codec), Arc<[Frame; BURST_FRAMES]>>,
}

impl BurstCache {
    fn burst(&mut self, freq_hz: f64, codec: Codec) -> Arc<[Frame; BURST_FRAMES]> {
        let made = self.bursts.entry((freq_hz.to_bits(), codec)).or_insert_with(|| {
            let frames = std::array::from_fn(|index| {
                codec.encode(&tone_frame(freq_hz, (index * FRAME_SAMPLES) as u64))
            });
            Arc::new(frames)
        });
        Arc::clone(made)
    }
}

/// One frame of a sine that had phase 0 at sample 0.
pub fn tone_frame(freq_hz: f64, first_sample: u64) -> [i16; FRAME_SAMPLES] {
    std::array::from_fn(|index| {
        let turn = freq_hz * (first_sample + index as u64) as f64 / 8000.0;
        ((turn.fract() * TAU).sin() * AMPLITUDE) as i16
    })
}

/// What the next frame of a player is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is to be sent.
    Nothing,
    /// The frame is filled in.
    Frame {
        /// A burst begins with the first sample of this frame.
        onset: bool,
    },
}

/// Plays a [`Source`] in frames of 20 ms.
pub struct Player {
    source: Source,
    codec: Codec,
    rng: StdRng,
    sample: u64,
    burst: Option<Arc<[Frame; BURST_FRAMES]>>,
    burst_frame: usize,
    pause_frames: u32,
}

impl Player {
    /// A player; `seed` gives the rhythm of the bursts.
    pub fn new(source: Source, codec: Codec, seed: u64, cache: &mut BurstCache) -> Self {
        let burst = match &source {
            Source::Bursts(freq_hz) => Some(cache.burst(*freq_hz, codec)),
            _ => None,
        };
        let rng = StdRng::seed_from_u64(seed);
        Self { source, codec, rng, sample: 0, burst, burst_frame: 0, pause_frames: 2 }
    }

    /// The codec it encodes to.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Fills in the next frame.
    pub fn next(&mut self, out: &mut Frame) -> Next {
        let first = self.sample;
        self.sample += FRAME_SAMPLES as u64;
        match &self.source {
            Source::Nothing => return Next::Nothing,
            Source::Silence => *out = self.codec.encode(&[0; FRAME_SAMPLES]),
            Source::Tone(freq_hz) => *out = self.codec.encode(&tone_frame(*freq_hz, first)),
            Source::Once(samples) => *out = self.codec.encode(&cut(samples, first, false)),
            Source::Loop(samples) => *out = self.codec.encode(&cut(samples, first, true)),
            Source::Bursts(_) => return self.next_of_bursts(out),
        }
        Next::Frame { onset: false }
    }

    fn next_of_bursts(&mut self, out: &mut Frame) -> Next {
        if self.pause_frames > 0 {
            self.pause_frames -= 1;
            *out = self.codec.encode(&[0; FRAME_SAMPLES]);
            return Next::Frame { onset: false };
        }
        let onset = self.burst_frame == 0;
        if let Some(frame) = self.burst.as_ref().and_then(|burst| burst.get(self.burst_frame)) {
            *out = *frame;
        }
        self.burst_frame += 1;
        if self.burst_frame == BURST_FRAMES {
            self.burst_frame = 0;
            self.pause_frames = self.rng.random_range(PAUSE_FRAMES_MIN..=PAUSE_FRAMES_MAX);
        }
        Next::Frame { onset }
    }
}

fn cut(samples: &[i16], first: u64, again: bool) -> [i16; FRAME_SAMPLES] {
    std::array::from_fn(|index| {
        let at = usize::try_from(first).unwrap_or(usize::MAX).saturating_add(index);
        let at = if again && !samples.is_empty() { at % samples.len() } else { at };
        samples.get(at).copied().unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_start_on_frames_and_keep_their_rhythm() {
        let onsets = |seed: u64| {
            let mut cache = BurstCache::default();
            let mut player = Player::new(Source::Bursts(440.0), Codec::Pcmu, seed, &mut cache);
            let mut frame = [0; FRAME_SAMPLES];
            (0..500)
                .filter(|_| player.next(&mut frame) == Next::Frame { onset: true })
                .collect::<Vec<u32>>()
        };
        assert_eq!(onsets(1), onsets(1));
        assert_ne!(onsets(1), onsets(2));
        let gaps: Vec<u32> = onsets(3).windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() > 12);
        assert!(gaps.iter().all(|gap| (16..=32).contains(gap)), "{gaps:?}");
    }

    #[test]
    fn samples_end_or_repeat() {
        let samples: Arc<[i16]> = (0..200).map(|i| i * 100).collect();
        assert_eq!(cut(&samples, 160, false)[39], 19_900);
        assert_eq!(cut(&samples, 160, false)[40], 0);
        assert_eq!(cut(&samples, 160, true)[41], 100);
        assert_eq!(cut(&[], 0, true), [0; FRAME_SAMPLES]);
    }
}
