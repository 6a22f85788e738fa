//! Fixed-capacity block of PCM.

use crate::units::SampleRate;

/// Most samples of one block: 20 ms at 48 kHz, or 120 ms at 8 kHz.
pub const FRAME_SAMPLES_MAX: usize = 960;

/// Mono 16-bit PCM of at most [`FRAME_SAMPLES_MAX`] samples, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    samples: [i16; FRAME_SAMPLES_MAX],
    len: usize,
    rate: SampleRate,
}

impl Frame {
    /// An empty block at `rate`.
    #[must_use]
    pub const fn new(rate: SampleRate) -> Self {
        Self { samples: [0; FRAME_SAMPLES_MAX], len: 0, rate }
    }

    /// `len` samples of silence, cut to the capacity.
    #[must_use]
    pub const fn silence(rate: SampleRate, len: usize) -> Self {
        let len = if len > FRAME_SAMPLES_MAX { FRAME_SAMPLES_MAX } else { len };
        Self { samples: [0; FRAME_SAMPLES_MAX], len, rate }
    }

    /// Sample rate.
    #[must_use]
    pub const fn rate(&self) -> SampleRate {
        self.rate
    }

    /// The samples.
    #[must_use]
    pub fn samples(&self) -> &[i16] {
        self.samples.get(..self.len).unwrap_or_default()
    }

    /// The samples, to be changed.
    #[must_use]
    pub fn samples_mut(&mut self) -> &mut [i16] {
        self.samples.get_mut(..self.len).unwrap_or_default()
    }

    /// Number of samples.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all samples.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes the block `len` samples long (cut to the capacity); new ones are silence.
    pub fn resize(&mut self, len: usize) {
        let len = len.min(FRAME_SAMPLES_MAX);
        if let Some(new) = self.samples.get_mut(self.len..len) {
            new.fill(0);
        }
        self.len = len;
    }

    /// Appends what fits and returns its number.
    pub fn push(&mut self, samples: &[i16]) -> usize {
        let room = FRAME_SAMPLES_MAX - self.len;
        let taken = samples.len().min(room);
        for (to, from) in self.samples.iter_mut().skip(self.len).zip(samples) {
            *to = *from;
        }
        self.len += taken;
        taken
    }

    /// Lets `decode` fill the whole capacity and keeps as many samples as it returns.
    pub fn fill_with(&mut self, decode: impl FnOnce(&mut [i16]) -> usize) {
        self.len = decode(&mut self.samples).min(FRAME_SAMPLES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_above_capacity() {
        let mut frame = Frame::new(SampleRate::HZ_8000);
        assert_eq!(frame.push(&[1; 900]), 900);
        assert_eq!(frame.push(&[2; 100]), 60);
        assert_eq!(frame.len(), FRAME_SAMPLES_MAX);
        assert_eq!(frame.samples()[899..901], [1, 2]);
        frame.resize(10);
        frame.resize(12);
        assert_eq!(frame.samples()[9..], [1, 0, 0]);
        frame.fill_with(|room| {
            room[0] = 7;
            5000
        });
        assert_eq!((frame.len(), frame.samples()[0]), (FRAME_SAMPLES_MAX, 7));
        assert_eq!(Frame::silence(SampleRate::HZ_8000, 5000).len(), FRAME_SAMPLES_MAX);
    }
}
