//! What media can be turned into.

use std::fmt;
use std::str::FromStr;

use media_core::codec::g711;
use media_core::container::wav;
use media_core::units::SampleRate;
use mp3lame_encoder::{Bitrate, Builder, FlushNoGap, InterleavedPcm, MonoPcm, Quality};

use super::opus;
use crate::error::MediaError;

/// A telephony format, or one that people keep recordings in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 16-bit PCM, mono, in a WAV file, at 8, 16 or 48 kHz.
    Wav(SampleRate),
    /// G.711 µ-law at 8 kHz without a header.
    Pcmu,
    /// G.711 A-law at 8 kHz without a header.
    Pcma,
    /// Opus in Ogg.
    Opus,
    /// MP3.
    Mp3,
}

impl Format {
    /// What the edge's prompts are.
    pub const PROMPT: Self = Self::Wav(SampleRate::HZ_8000);

    /// MIME type of a response.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Wav(_) => "audio/wav",
            Self::Pcmu => "audio/basic",
            Self::Pcma => "audio/x-alaw-basic",
            Self::Opus => "audio/ogg; codecs=opus",
            Self::Mp3 => "audio/mpeg",
        }
    }

    /// Sampling rate that it is made from.
    pub(crate) fn rate(self) -> SampleRate {
        match self {
            Self::Wav(rate) => rate,
            Self::Pcmu | Self::Pcma => SampleRate::HZ_8000,
            Self::Opus => SampleRate::HZ_48000,
            Self::Mp3 => SampleRate::HZ_16000,
        }
    }

    /// Whether the bytes of an origin are already this.
    pub(crate) fn is(self, bytes: &[u8], mime: &str) -> bool {
        match self {
            Self::Wav(rate) => wav::WavHeader::parse(bytes).is_ok_and(|header| {
                let spec = header.spec;
                (spec.encoding, spec.rate, spec.channels) == (wav::Encoding::Pcm16, rate, 1)
            }),
            Self::Pcmu => {
                !bytes.starts_with(b".snd") && !bytes.starts_with(b"RIFF") && mime == "audio/basic"
            }
            Self::Pcma => !bytes.starts_with(b"RIFF") && mime == "audio/x-alaw-basic",
            Self::Opus | Self::Mp3 => false,
        }
    }

    /// Interleaved PCM at `rate` as a whole file. The telephony formats take one channel.
    pub(crate) fn encode(
        self,
        samples: &[i16],
        rate: SampleRate,
        channels: u16,
    ) -> Result<Vec<u8>, MediaError> {
        let g711 = |encode: fn(&[i16], &mut [u8]) -> usize| {
            let mut codes = vec![0; samples.len()];
            encode(samples, &mut codes);
            codes
        };
        Ok(match self {
            Self::Wav(_) => wav::write_pcm16(rate, samples),
            Self::Pcmu => g711(g711::encode_ulaw),
            Self::Pcma => g711(g711::encode_alaw),
            Self::Opus => opus::encode(samples, rate, channels)?,
            Self::Mp3 => mp3(samples, rate, channels)?,
        })
    }
}

/// As in the query of the transcoding proxy.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wav(rate) => write!(f, "wav-{}", rate.hz()),
            Self::Pcmu => f.write_str("pcmu"),
            Self::Pcma => f.write_str("pcma"),
            Self::Opus => f.write_str("opus"),
            Self::Mp3 => f.write_str("mp3"),
        }
    }
}

impl FromStr for Format {
    type Err = MediaError;

    fn from_str(text: &str) -> Result<Self, MediaError> {
        Ok(match text {
            "wav-8000" | "wav" => Self::Wav(SampleRate::HZ_8000),
            "wav-16000" => Self::Wav(SampleRate::HZ_16000),
            "wav-48000" => Self::Wav(SampleRate::HZ_48000),
            "pcmu" => Self::Pcmu,
            "pcma" => Self::Pcma,
            "opus" => Self::Opus,
            "mp3" => Self::Mp3,
            other => {
                let message = format!("format {other:?} is not known");
                return Err(MediaError::new(MediaError::URL, message));
            }
        })
    }
}

/// Room that LAME may need for `samples` per channel (its documentation: 1.25 n + 7200).
fn lame_room(samples: usize) -> usize {
    samples + samples / 4 + 7_200
}

fn mp3(samples: &[i16], rate: SampleRate, channels: u16) -> Result<Vec<u8>, MediaError> {
    let failed = |error: &dyn fmt::Display| MediaError::internal(format!("mp3: {error}"));
    let mut builder = Builder::new().ok_or_else(|| failed(&"no memory"))?;
    builder.set_sample_rate(rate.hz()).map_err(|e| failed(&e))?;
    builder.set_num_channels(channels.clamp(1, 2) as u8).map_err(|e| failed(&e))?;
    let bits = if channels == 2 { Bitrate::Kbps64 } else { Bitrate::Kbps32 };
    builder.set_brate(bits).map_err(|e| failed(&e))?;
    builder.set_quality(Quality::Good).map_err(|e| failed(&e))?;
    let mut encoder = builder.build().map_err(|e| failed(&e))?;
    let mut file = Vec::new();
    // A second or so at a time.
    for block in samples.chunks(16_384) {
        file.reserve(lame_room(block.len()));
        let encoded = if channels == 2 {
            encoder.encode_to_vec(InterleavedPcm(block), &mut file)
        } else {
            encoder.encode_to_vec(MonoPcm(block), &mut file)
        };
        encoded.map_err(|e| failed(&e))?;
    }
    file.reserve(lame_room(0));
    encoder.flush_to_vec::<FlushNoGap>(&mut file).map_err(|e| failed(&e))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::decode::decode;

    #[test]
    fn formats_have_names_and_come_back_as_audio() {
        let step = std::f64::consts::TAU * 440.0 / 8_000.0;
        let samples: Vec<i16> =
            (0..8_000).map(|n| (f64::from(n) * step).sin() * 8_000.0).map(|s| s as i16).collect();
        for name in ["wav-8000", "wav-16000", "wav-48000", "pcmu", "pcma", "opus", "mp3"] {
            let format: Format = name.parse().unwrap();
            assert_eq!(format.to_string(), name);
            let file = format.encode(&samples, SampleRate::HZ_8000, 1).unwrap();
            let mime = crate::fetch::plain(format.mime());
            let heard = decode(&file, &mime, SampleRate::HZ_8000, 9_000).unwrap();
            if matches!(format, Format::Wav(_)) {
                continue;
            }
            let middle = &heard[2_000..6_000];
            let crossings = middle.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
            assert!((218..=222).contains(&crossings), "{name}: {crossings}");
        }
        assert!("gif".parse::<Format>().is_err());
    }

    #[test]
    fn med_03_what_is_suitable_is_known() {
        let file = wav::write_pcm16(SampleRate::HZ_8000, &[1; 100]);
        assert!(Format::PROMPT.is(&file, "text/plain"));
        assert!(!Format::Wav(SampleRate::HZ_16000).is(&file, "audio/wav"));
        assert!(!Format::Pcmu.is(&file, "audio/basic"));
        assert!(Format::Pcmu.is(&[0xff; 8], "audio/basic"));
        assert!(!Format::Pcma.is(&[0xff; 8], "audio/basic"));
    }
}
