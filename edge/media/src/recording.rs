//! What a media worker hands to the recorder: blocks of audio, and the end of a recording.

use crate::command::RecorderHandle;

/// Samples per channel in one block: 20 ms at 8,000 Hz.
pub const BLOCK_SAMPLES: usize = 160;

/// 20 ms of one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioBlock {
    /// Which recording.
    pub recorder: RecorderHandle,
    /// 1 or 2.
    pub channels: u8,
    /// Interleaved; with one channel the first half is used.
    pub samples: [i16; BLOCK_SAMPLES * 2],
}

/// From a worker to the recorder, in order per recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecorderMessage {
    /// Audio.
    Audio(AudioBlock),
    /// No more audio. Of all samples per channel the range that is kept.
    Finish {
        /// Which recording.
        recorder: RecorderHandle,
        /// First sample that is kept.
        first_sample: u64,
        /// How many are kept.
        sample_count: u64,
    },
}
