//! Opus (RFC 6716, RFC 7845) by libopus: packets of a file to PCM, and PCM to an Ogg file.

use audiopus::coder::{Decoder, Encoder};
use audiopus::{Application, Bitrate, Channels};
use media_core::units::SampleRate;
use ogg::writing::{PacketWriteEndInfo, PacketWriter};

use crate::error::MediaError;

/// Longest packet: 120 ms at 48 kHz.
const PACKET_SAMPLES_MAX: usize = 5_760;
/// Of encoded packets.
const FRAME_MS: u32 = 20;
/// Good for speech at telephone bandwidth.
const BITS_PER_S_PER_CHANNEL: i32 = 24_000;
/// All times in an Ogg file are in samples at 48 kHz (RFC 7845 §4).
const CLOCK_PER_MS: u64 = 48;

fn failed(error: audiopus::Error) -> MediaError {
    MediaError::new(MediaError::TYPE, format!("opus: {error}"))
}

fn rate_of(rate: SampleRate) -> Result<audiopus::SampleRate, MediaError> {
    i32::try_from(rate.hz())
        .ok()
        .and_then(|hz| audiopus::SampleRate::try_from(hz).ok())
        .ok_or_else(|| MediaError::internal(format!("opus at {} Hz", rate.hz())))
}

/// Decodes packets to mono at the rate that is wanted: libopus mixes and converts by itself.
pub(super) struct OpusDecoder {
    decoder: Decoder,
    rate: SampleRate,
    /// Samples at the front that are not to be heard (RFC 7845 §4.2).
    skip: usize,
    buffer: Vec<i16>,
}

impl OpusDecoder {
    /// `head` is the identification header (RFC 7845 §5.1), empty if there is none.
    pub(super) fn new(head: &[u8], rate: SampleRate) -> Result<Self, MediaError> {
        // Several coupled streams; nobody speaks in surround.
        if head.get(18).is_some_and(|family| *family != 0) && head.get(9).is_some_and(|n| *n > 2) {
            return Err(MediaError::new(MediaError::TYPE, "opus: more than two channels"));
        }
        let skip =
            head.get(10..12).map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)));
        let decoder = Decoder::new(rate_of(rate)?, Channels::Mono).map_err(failed)?;
        let skip = skip * rate.hz() as usize / 48_000;
        Ok(Self { decoder, rate, skip, buffer: vec![0; PACKET_SAMPLES_MAX] })
    }

    /// Appends a packet's samples; the rate. `None`: the packet is damaged.
    pub(super) fn decode(&mut self, packet: &[u8], mono: &mut Vec<i16>) -> Option<u32> {
        let packet = packet.try_into().ok()?;
        let room = (&mut self.buffer).try_into().ok()?;
        let count = self.decoder.decode(Some(packet), room, false).ok()?;
        let skipped = self.skip.min(count);
        self.skip -= skipped;
        mono.extend_from_slice(self.buffer.get(skipped..count)?);
        Some(self.rate.hz())
    }
}

/// An Ogg file of interleaved PCM at 8, 16 or 48 kHz with one or two channels.
pub(super) fn encode(
    samples: &[i16],
    rate: SampleRate,
    channels: u16,
) -> Result<Vec<u8>, MediaError> {
    let layout = if channels == 2 { Channels::Stereo } else { Channels::Mono };
    let mut encoder = Encoder::new(rate_of(rate)?, layout, Application::Audio).map_err(failed)?;
    let bits = BITS_PER_S_PER_CHANNEL * i32::from(channels);
    encoder.set_bitrate(Bitrate::BitsPerSecond(bits)).map_err(failed)?;
    let pre_skip = u64::from(encoder.lookahead().map_err(failed)?) * 48_000 / u64::from(rate.hz());
    let mut writer = PacketWriter::new(Vec::new());
    const SERIAL: u32 = 1;
    let mut put = |packet: Vec<u8>, end, position| {
        writer.write_packet(packet, SERIAL, end, position).map_err(MediaError::internal)
    };
    put(head(rate, channels, pre_skip), PacketWriteEndInfo::EndPage, 0)?;
    put(tags(), PacketWriteEndInfo::EndPage, 0)?;
    let frame = rate.samples_in_ms(FRAME_MS) * usize::from(channels);
    // The encoder is behind by its lookahead: silence pushes the end out.
    let tail = (pre_skip as usize * rate.hz() as usize / 48_000 + 1) * usize::from(channels);
    let mut padded = samples.to_vec();
    padded.resize((samples.len() + tail).next_multiple_of(frame.max(1)), 0);
    let total = samples.len() as u64 / u64::from(channels.max(1)) * 48_000 / u64::from(rate.hz());
    let count = padded.len() / frame.max(1);
    let mut packet = vec![0; 4_000];
    for (index, block) in padded.chunks_exact(frame.max(1)).enumerate() {
        let size = encoder.encode(block, &mut packet).map_err(failed)?;
        let at = (index as u64 + 1) * u64::from(FRAME_MS) * CLOCK_PER_MS;
        let last = index + 1 == count;
        let end = match (last, (index + 1) % 50 == 0) {
            (true, _) => PacketWriteEndInfo::EndStream,
            (false, true) => PacketWriteEndInfo::EndPage,
            _ => PacketWriteEndInfo::NormalPacket,
        };
        // The last position cuts the padding off (RFC 7845 §4.4).
        let position = if last { (total + pre_skip).min(at) } else { at };
        put(packet.get(..size).unwrap_or_default().to_vec(), end, position)?;
    }
    Ok(writer.into_inner())
}

fn head(rate: SampleRate, channels: u16, pre_skip: u64) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels.min(2) as u8);
    head.extend((pre_skip as u16).to_le_bytes());
    head.extend(rate.hz().to_le_bytes());
    // No gain; mapping family 0.
    head.extend([0, 0, 0]);
    head
}

fn tags() -> Vec<u8> {
    let vendor = b"Tandem";
    let mut tags = b"OpusTags".to_vec();
    tags.extend((vendor.len() as u32).to_le_bytes());
    tags.extend(vendor);
    tags.extend(0u32.to_le_bytes());
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcode::decode::decode;

    #[test]
    fn what_is_encoded_is_decoded_with_its_length_and_pitch() {
        for rate in [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000] {
            let step = std::f64::consts::TAU * 440.0 / f64::from(rate.hz());
            let samples: Vec<i16> =
                (0..rate.hz()).map(|n| ((f64::from(n) * step).sin() * 8_000.0) as i16).collect();
            let file = encode(&samples, rate, 1).unwrap();
            assert!(file.len() < 6_000, "{}", file.len());
            let heard = decode(&file, "audio/ogg", SampleRate::HZ_8000, 2_000).unwrap();
            assert!((7_950..=8_320).contains(&heard.len()), "{}", heard.len());
            let middle = &heard[2_000..6_000];
            let crossings = middle.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
            assert!((218..=222).contains(&crossings), "{crossings}");
        }
    }

    #[test]
    fn damaged_packets_are_told() {
        let mut decoder = OpusDecoder::new(b"", SampleRate::HZ_8000).unwrap();
        let mut out = Vec::new();
        assert_eq!(decoder.decode(&[], &mut out), None);
        assert_eq!(decoder.decode(&[0xff; 3], &mut out), None);
        assert!(OpusDecoder::new(&[1; 21], SampleRate::HZ_8000).is_ok());
        assert!(OpusDecoder::new(&[9; 21], SampleRate::HZ_8000).is_err());
    }
}
