//! WAV (RIFF/WAVE): tolerant reading and crash-safe writing, over slices.
//!
//! Reading accepts files whose sizes were never filled in (recorder killed, live stream): sizes of
//! 0 or 0xffffffff, or beyond the end, mean "to the end of what there is".

use crate::codec::g711;
use crate::units::SampleRate;

/// Size of a size field that was never known.
const UNKNOWN: u32 = u32::MAX;
/// Most bytes searched for the `data` chunk.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Most channels that are mixed down.
const CHANNELS_MAX: u16 = 8;

/// How samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Unsigned 8-bit PCM.
    Pcm8,
    /// Signed 16-bit little-endian PCM.
    Pcm16,
    /// Signed 24-bit little-endian PCM.
    Pcm24,
    /// Signed 32-bit little-endian PCM.
    Pcm32,
    /// 32-bit floating point, ±1.0.
    Float32,
    /// G.711 A-law.
    Alaw,
    /// G.711 µ-law.
    Ulaw,
}

impl Encoding {
    const fn from_format(tag: u16, bits: u16) -> Option<Self> {
        match (tag, bits) {
            (1, 8) => Some(Self::Pcm8),
            (1, 16) => Some(Self::Pcm16),
            (1, 24) => Some(Self::Pcm24),
            (1, 32) => Some(Self::Pcm32),
            (3, 32) => Some(Self::Float32),
            (6, 8) => Some(Self::Alaw),
            (7, 8) => Some(Self::Ulaw),
            _ => None,
        }
    }

    const fn format_and_bits(self) -> (u16, u16) {
        match self {
            Self::Pcm8 => (1, 8),
            Self::Pcm16 => (1, 16),
            Self::Pcm24 => (1, 24),
            Self::Pcm32 => (1, 32),
            Self::Float32 => (3, 32),
            Self::Alaw => (6, 8),
            Self::Ulaw => (7, 8),
        }
    }

    /// Bytes of one sample of one channel.
    #[must_use]
    pub const fn bytes(self) -> usize {
        (self.format_and_bits().1 / 8) as usize
    }

    /// One sample as 16-bit PCM. Missing bytes read as 0.
    fn decode(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Self::Pcm8, [b, ..]) => (i16::from(*b) - 128) << 8,
            (Self::Pcm16, [a, b, ..]) => i16::from_le_bytes([*a, *b]),
            (Self::Pcm24, [_, a, b, ..]) => i16::from_le_bytes([*a, *b]),
            (Self::Pcm32, [_, _, a, b, ..]) => i16::from_le_bytes([*a, *b]),
            (Self::Float32, [a, b, c, d, ..]) => {
                let value = f32::from_le_bytes([*a, *b, *c, *d]);
                // Casts of floats saturate; not-a-number becomes 0.
                (value * 32768.0).round() as i16
            }
            (Self::Alaw, [b, ..]) => g711::decode_alaw_sample(*b),
            (Self::Ulaw, [b, ..]) => g711::decode_ulaw_sample(*b),
            _ => 0,
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WavSpec {
    /// How samples are stored.
    pub encoding: Encoding,
    /// Sample rate.
    pub rate: SampleRate,
    /// Interleaved channels, 1–8.
    pub channels: u16,
}

impl WavSpec {
    /// Bytes of one sample of all channels.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        self.encoding.bytes() * self.channels as usize
    }
}

/// Why bytes are not a WAV file that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    /// The header goes on behind the bytes given; with a whole file: it is cut short.
    #[error("header is not complete")]
    Incomplete,
    /// No RIFF/WAVE signature.
    #[error("no RIFF/WAVE signature")]
    Signature,
    /// No `fmt ` chunk before `data`, or one that is too short.
    #[error("format chunk is missing or too short")]
    Format,
    /// An encoding that is not supported.
    #[error("encoding with format tag {tag:#06x} and {bits} bits is not supported")]
    Encoding {
        /// Format tag.
        tag: u16,
        /// Bits per sample.
        bits: u16,
    },
    /// No channels, more than eight, or a sample rate of 0 or above 384 kHz.
    #[error("channels or sample rate out of range")]
    Range,
}

/// Where the samples of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WavHeader {
    /// What the file holds.
    pub spec: WavSpec,
    /// Offset of the first sample in bytes.
    pub data_offset: usize,
    /// Length of the samples in bytes; `None` when the header does not know.
    pub data_bytes: Option<u32>,
}

impl WavHeader {
    /// Reads the header at the front of `bytes`; the samples need not be there yet.
    ///
    /// # Errors
    /// [`WavError::Incomplete`] asks for more bytes; all others are final.
    pub fn parse(bytes: &[u8]) -> Result<Self, WavError> {
        let (riff_bytes, mut at) = match bytes.first_chunk::<12>() {
            Some([b'R', b'I', b'F', b'F', s0, s1, s2, s3, b'W', b'A', b'V', b'E']) => {
                (u32::from_le_bytes([*s0, *s1, *s2, *s3]), 12usize)
            }
            Some(_) => return Err(WavError::Signature),
            None => {
                let known = bytes.len().min(4);
                let right = bytes.get(..known) == b"RIFF".get(..known);
                return Err(if right { WavError::Incomplete } else { WavError::Signature });
            }
        };
        let mut spec = None;
        while at <= HEADER_BYTES_MAX {
            let Some(&[i0, i1, i2, i3, s0, s1, s2, s3]) =
                bytes.get(at..).and_then(|b| b.first_chunk::<8>())
            else {
                return Err(WavError::Incomplete);
            };
            let size = u32::from_le_bytes([s0, s1, s2, s3]);
            let body = at + 8;
            match &[i0, i1, i2, i3] {
                b"data" => {
                    let spec = spec.ok_or(WavError::Format)?;
                    let unfixed = riff_bytes == 0
                        || riff_bytes == UNKNOWN
                        || (riff_bytes as usize).saturating_add(8) <= body;
                    let known = size != UNKNOWN && !(size == 0 && unfixed);
                    let data_bytes = known.then_some(size);
                    return Ok(Self { spec, data_offset: body, data_bytes });
                }
                b"fmt " => {
                    let chunk = bytes.get(body..).unwrap_or_default();
                    if chunk.len() < (size as usize).min(40) {
                        return Err(WavError::Incomplete);
                    }
                    let chunk = chunk.get(..(size as usize).min(chunk.len())).unwrap_or_default();
                    spec = Some(parse_format(chunk)?);
                }
                _ => {}
            }
            // Chunks are padded to an even length.
            at = body.saturating_add(size as usize).saturating_add(size as usize & 1);
        }
        Err(WavError::Format)
    }

    /// The samples' bytes in a whole file, cut to what is there and to whole frames.
    #[must_use]
    pub fn data<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        let rest = file.get(self.data_offset..).unwrap_or_default();
        let len = self.data_bytes.map_or(rest.len(), |n| (n as usize).min(rest.len()));
        rest.get(..len - len % self.spec.frame_bytes().max(1)).unwrap_or_default()
    }
}

fn parse_format(chunk: &[u8]) -> Result<WavSpec, WavError> {
    let Some(&[t0, t1, c0, c1, r0, r1, r2, r3, _, _, _, _, _, _, b0, b1]) =
        chunk.first_chunk::<16>()
    else {
        return Err(WavError::Format);
    };
    let mut tag = u16::from_le_bytes([t0, t1]);
    let bits = u16::from_le_bytes([b0, b1]);
    if tag == 0xfffe {
        // WAVE_FORMAT_EXTENSIBLE: the sub-format's first two bytes are the real tag.
        match chunk.get(24..26) {
            Some(&[a, b]) => tag = u16::from_le_bytes([a, b]),
            _ => return Err(WavError::Format),
        }
    }
    let encoding = Encoding::from_format(tag, bits).ok_or(WavError::Encoding { tag, bits })?;
    let channels = u16::from_le_bytes([c0, c1]);
    let rate = u32::from_le_bytes([r0, r1, r2, r3]);
    if channels == 0 || channels > CHANNELS_MAX || rate == 0 || rate > 384_000 {
        return Err(WavError::Range);
    }
    Ok(WavSpec { encoding, rate: SampleRate(rate), channels })
}

/// Turns a stream of sample bytes into mono 16-bit PCM; keeps split frames between calls.
#[derive(Debug, Clone)]
pub struct SampleDecoder {
    spec: WavSpec,
    partial: [u8; 32],
    partial_len: usize,
}

impl SampleDecoder {
    /// A decoder for samples of `spec`.
    #[must_use]
    pub const fn new(spec: WavSpec) -> Self {
        Self { spec, partial: [0; 32], partial_len: 0 }
    }

    /// Appends the samples of `bytes` to `out`; channels are averaged.
    pub fn decode(&mut self, mut bytes: &[u8], out: &mut Vec<i16>) {
        let frame_bytes = self.spec.frame_bytes().clamp(1, self.partial.len());
        if self.partial_len > 0 {
            let missing = frame_bytes.saturating_sub(self.partial_len).min(bytes.len());
            let (head, rest) = bytes.split_at(missing);
            self.keep(head);
            bytes = rest;
            if self.partial_len < frame_bytes {
                return;
            }
            let frame = self.partial;
            out.push(self.mix(frame.get(..frame_bytes).unwrap_or_default()));
            self.partial_len = 0;
        }
        let frames = bytes.chunks_exact(frame_bytes);
        let rest = frames.remainder();
        out.reserve(frames.len());
        out.extend(frames.map(|frame| self.mix(frame)));
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        for (to, from) in self.partial.iter_mut().skip(self.partial_len).zip(bytes) {
            *to = *from;
        }
        self.partial_len = (self.partial_len + bytes.len()).min(self.partial.len());
    }

    fn mix(&self, frame: &[u8]) -> i16 {
        let encoding = self.spec.encoding;
        let sum: i32 =
            frame.chunks_exact(encoding.bytes()).map(|s| i32::from(encoding.decode(s))).sum();
        (sum / i32::from(self.spec.channels.max(1))) as i16
    }
}

/// Reads a whole file as mono 16-bit PCM at its own rate.
///
/// # Errors
/// See [`WavError`].
pub fn read(file: &[u8]) -> Result<(SampleRate, Vec<i16>), WavError> {
    let header = WavHeader::parse(file)?;
    let mut samples = Vec::new();
    SampleDecoder::new(header.spec).decode(header.data(file), &mut samples);
    Ok((header.spec.rate, samples))
}

/// Header of a file to be written. `data_bytes` is `None` while recording: such a file reads back
/// to its end, so a crash loses nothing. At the end write the header again at offset 0 with the
/// length; its own length stays the same. Odd lengths need one padding byte behind the samples.
#[must_use]
pub fn header(spec: WavSpec, data_bytes: Option<u32>) -> Vec<u8> {
    let (tag, bits) = spec.encoding.format_and_bits();
    let frame_bytes = spec.frame_bytes() as u32;
    let pcm = tag == 1;
    let mut out = Vec::with_capacity(58);
    out.extend(b"RIFF\0\0\0\0WAVEfmt ");
    out.extend((if pcm { 16u32 } else { 18 }).to_le_bytes());
    out.extend(tag.to_le_bytes());
    out.extend(spec.channels.to_le_bytes());
    out.extend(spec.rate.hz().to_le_bytes());
    out.extend(spec.rate.hz().saturating_mul(frame_bytes).to_le_bytes());
    out.extend((frame_bytes as u16).to_le_bytes());
    out.extend(bits.to_le_bytes());
    if !pcm {
        // Other formats carry an (empty) extension and a fact chunk with the number of frames.
        out.extend(0u16.to_le_bytes());
        out.extend(b"fact\x04\0\0\0");
        out.extend(data_bytes.map_or(0, |n| n / frame_bytes.max(1)).to_le_bytes());
    }
    out.extend(b"data");
    out.extend(data_bytes.unwrap_or(UNKNOWN).to_le_bytes());
    let after_riff = (out.len() - 8) as u32;
    let riff = data_bytes.map_or(UNKNOWN, |n| after_riff.saturating_add(n).saturating_add(n & 1));
    if let Some(size) = out.get_mut(4..8) {
        size.copy_from_slice(&riff.to_le_bytes());
    }
    out
}

/// Writes mono 16-bit PCM as a whole file.
#[must_use]
pub fn write_pcm16(rate: SampleRate, samples: &[i16]) -> Vec<u8> {
    let spec = WavSpec { encoding: Encoding::Pcm16, rate, channels: 1 };
    let bytes = u32::try_from(samples.len().saturating_mul(2)).unwrap_or(UNKNOWN - 1);
    let mut out = header(spec, Some(bytes));
    out.reserve(samples.len() * 2);
    for sample in samples {
        out.extend(sample.to_le_bytes());
    }
    out
}

#[cfg(test)]
#[path = "wav_tests.rs"]
mod tests;
