//! From the bytes of any audio file, or of a video's audio track, to mono 16-bit PCM. The MIME type
//! gives the hint, the bytes decide (MED-03).

use std::io::Cursor;

use media_core::codec::g711;
use media_core::container::wav;
use media_core::resample::resample;
use media_core::units::SampleRate;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::opus::OpusDecoder;
use crate::error::MediaError;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wav,
    Au,
    /// Decoded by symphonia under the file name extension it knows.
    File(&'static str),
    Unknown,
}

fn sniff(bytes: &[u8]) -> Kind {
    let form = bytes.get(8..12).unwrap_or_default();
    if bytes.get(4..8) == Some(b"ftyp") {
        return Kind::File("mp4");
    }
    match bytes.get(..4).unwrap_or(bytes) {
        b"RIFF" | b"RIFX" | b"RF64" if form == b"WAVE" => Kind::Wav,
        b"FORM" if form == b"AIFF" || form == b"AIFC" => Kind::File("aiff"),
        b".snd" => Kind::Au,
        b"OggS" => Kind::File("ogg"),
        b"fLaC" => Kind::File("flac"),
        [0x1a, 0x45, 0xdf, 0xa3] => Kind::File("mkv"),
        // A tag in front of MPEG audio; of AAC, too, which the probe tells apart.
        [b'I', b'D', b'3', _] => Kind::File("mp3"),
        // ADTS: sync word and layer 0.
        [0xff, second, _, _] if second & 0xf6 == 0xf0 => Kind::File("aac"),
        // Sync word, a layer that is not reserved, a bit rate and a sampling rate that exist.
        [0xff, second, third, _]
            if second & 0xe0 == 0xe0
                && second & 0x06 != 0
                && third & 0xf0 != 0xf0
                && third & 0x0c != 0x0c =>
        {
            Kind::File("mp3")
        }
        _ => Kind::Unknown,
    }
}

/// Decodes and converts to `to`. `mime` is the type without parameters in lower case, empty if not
/// given.
pub(crate) fn decode(
    bytes: &[u8],
    mime: &str,
    to: SampleRate,
    length_ms_max: u64,
) -> Result<Vec<i16>, MediaError> {
    if !plausible(mime) {
        return Err(MediaError::new(MediaError::TYPE, format!("content type {mime} is not audio")));
    }
    let (rate, samples) = match sniff(bytes) {
        Kind::Wav => match wav::read(bytes) {
            Ok(audio) => audio,
            // ADPCM and floats, for example.
            Err(_) => by_symphonia(bytes, "wav", to, length_ms_max)?,
        },
        Kind::Au => au(bytes)?,
        Kind::File(extension) => by_symphonia(bytes, extension, to, length_ms_max)?,
        Kind::Unknown => raw(bytes, mime)?,
    };
    if rate.ms_of_samples(samples.len() as u64) > length_ms_max {
        return Err(too_long(length_ms_max));
    }
    if samples.is_empty() {
        return Err(MediaError::new(MediaError::TYPE, "the file holds no audio"));
    }
    resample(&samples, rate, to)
        .map_err(|error| MediaError::new(MediaError::TYPE, error.to_string()))
}

fn plausible(mime: &str) -> bool {
    const NEUTRAL: &[&str] = &[
        "application/octet-stream",
        "binary/octet-stream",
        "application/ogg",
        "application/mp4",
        "application/x-matroska",
    ];
    mime.is_empty()
        || mime.starts_with("audio/")
        || mime.starts_with("video/")
        || NEUTRAL.contains(&mime)
}

fn too_long(length_ms_max: u64) -> MediaError {
    let message = format!("longer than {length_ms_max} ms");
    MediaError::new(MediaError::TOO_LARGE, message)
}

/// Types without a file header: G.711 at 8 kHz.
fn raw(bytes: &[u8], mime: &str) -> Result<(SampleRate, Vec<i16>), MediaError> {
    let decode = match mime {
        "audio/basic" | "audio/ulaw" | "audio/x-ulaw" | "audio/mulaw" | "audio/x-mulaw"
        | "audio/pcmu" => g711::decode_ulaw,
        "audio/alaw" | "audio/x-alaw" | "audio/x-alaw-basic" | "audio/pcma" => g711::decode_alaw,
        _ => {
            let message = format!("content of type {mime:?} is no audio that can be decoded");
            return Err(MediaError::new(MediaError::TYPE, message));
        }
    };
    let mut samples = vec![0; bytes.len()];
    let count = decode(bytes, &mut samples);
    samples.truncate(count);
    Ok((SampleRate::HZ_8000, samples))
}

/// The `.au` container: offset, size, encoding, rate, channels as big-endian words.
fn au(bytes: &[u8]) -> Result<(SampleRate, Vec<i16>), MediaError> {
    let wrong = |what| MediaError::new(MediaError::TYPE, format!("au file: {what}"));
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    let header = |at| word(at).ok_or_else(|| wrong("cut short"));
    let (offset, encoding, rate, channels) = (header(4)?, header(12)?, header(16)?, header(20)?);
    let data = bytes.get(offset as usize..).ok_or_else(|| wrong("cut short"))?;
    let channels = usize::try_from(channels).ok().filter(|n| (1..=8).contains(n));
    let channels = channels.ok_or_else(|| wrong("number of channels"))?;
    let samples: Vec<i16> = match encoding {
        1 => data.iter().map(|code| g711::decode_ulaw_sample(*code)).collect(),
        27 => data.iter().map(|code| g711::decode_alaw_sample(*code)).collect(),
        3 => data.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect(),
        _ => return Err(wrong("unknown encoding")),
    };
    let mut mono = Vec::with_capacity(samples.len() / channels);
    mix_down(&samples, channels, &mut mono);
    Ok((SampleRate(rate), mono))
}

fn mix_down(interleaved: &[i16], channels: usize, out: &mut Vec<i16>) {
    let channels = channels.max(1);
    out.extend(interleaved.chunks_exact(channels).map(|frame| {
        let sum: i32 = frame.iter().map(|sample| i32::from(*sample)).sum();
        (sum / channels as i32) as i16
    }));
}

fn by_symphonia(
    bytes: &[u8],
    extension: &str,
    to: SampleRate,
    length_ms_max: u64,
) -> Result<(SampleRate, Vec<i16>), MediaError> {
    let wrong = |error: Error| MediaError::new(MediaError::TYPE, format!("{extension}: {error}"));
    let nothing = || MediaError::new(MediaError::TYPE, format!("{extension}: no audio track"));
    // The decoder wants to own its source.
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes.to_vec())), Default::default());
    let mut hint = Hint::new();
    hint.with_extension(extension);
    let mut format = symphonia::default::get_probe()
        .probe(&hint, source, FormatOptions::default(), MetadataOptions::default())
        .map_err(wrong)?;
    let track = format.default_track(TrackType::Audio).ok_or_else(nothing)?;
    let parameters = track.codec_params.as_ref().and_then(|p| p.audio()).ok_or_else(nothing)?;
    let mut decoder = if parameters.codec == CODEC_ID_OPUS {
        let head = parameters.extra_data.as_deref().unwrap_or_default();
        PacketDecoder::Opus(Box::new(OpusDecoder::new(head, to)?))
    } else {
        let codecs = symphonia::default::get_codecs();
        let options = AudioDecoderOptions::default();
        let decoder = codecs.make_audio_decoder(parameters, &options).map_err(wrong)?;
        PacketDecoder::Symphonia(decoder, Vec::new())
    };
    let track = track.id;
    let (mut rate, mut mono) = (0, Vec::new());
    // A packet that cannot be decoded is left out. The end of the file may be torn off.
    while let Ok(Some(packet)) = format.next_packet() {
        if packet.track_id != track {
            continue;
        }
        let Some(packet_rate) = decoder.decode(&packet, &mut mono) else { continue };
        if rate != 0 && packet_rate != rate {
            return Err(MediaError::new(MediaError::TYPE, "the sampling rate changes"));
        }
        rate = packet_rate;
        let samples_max = u64::from(rate).saturating_mul(length_ms_max) / 1000;
        if mono.len() as u64 > samples_max {
            return Err(too_long(length_ms_max));
        }
    }
    Ok((SampleRate(rate), mono))
}

/// What decodes the packets of a track.
enum PacketDecoder {
    Symphonia(Box<dyn AudioDecoder>, Vec<i16>),
    Opus(Box<OpusDecoder>),
}

impl PacketDecoder {
    /// Appends mono samples; their rate in Hz. `None`: the packet is damaged.
    fn decode(&mut self, packet: &Packet, mono: &mut Vec<i16>) -> Option<u32> {
        match self {
            Self::Symphonia(decoder, interleaved) => {
                let audio = decoder.decode(packet).ok()?;
                audio.copy_to_vec_interleaved(interleaved);
                mix_down(interleaved, audio.spec().channels().count(), mono);
                Some(audio.spec().rate())
            }
            Self::Opus(decoder) => decoder.decode(&packet.data, mono),
        }
    }
}

/// Brings speech to an even level: active parts at -20 dB of full scale, peaks below -1 dB.
pub(crate) fn normalise(samples: &mut [i16]) {
    const BLOCK: usize = 160;
    const TARGET: f64 = 3276.8;
    const PEAK: f64 = 29_203.0;
    let power = |block: &[i16]| {
        let sum: f64 = block.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        sum / block.len().max(1) as f64
    };
    let loudest = samples.chunks(BLOCK).map(power).fold(0.0, f64::max);
    // Pauses (25 dB below the loudest block) do not count.
    let active: Vec<f64> =
        samples.chunks(BLOCK).map(power).filter(|p| *p > loudest / 316.0).collect();
    let peak = samples.iter().map(|s| f64::from(*s).abs()).fold(0.0, f64::max);
    if active.is_empty() || peak < 1.0 {
        return;
    }
    let level = (active.iter().sum::<f64>() / active.len() as f64).sqrt();
    let gain = (TARGET / level).min(PEAK / peak);
    for sample in samples {
        *sample = (f64::from(*sample) * gain).round() as i16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, seconds: f64, amplitude: f64) -> Vec<i16> {
        let count = (f64::from(rate) * seconds) as usize;
        let step = std::f64::consts::TAU * 440.0 / f64::from(rate);
        (0..count).map(|n| ((step * n as f64).sin() * amplitude) as i16).collect()
    }

    #[test]
    fn med_03_bytes_decide_and_raw_types_need_their_name() {
        let samples = tone(8000, 0.5, 8000.0);
        let file = wav::write_pcm16(SampleRate::HZ_8000, &samples);
        for mime in ["audio/wav", "audio/mpeg", "application/octet-stream", ""] {
            assert_eq!(
                decode(&file, mime, SampleRate::HZ_8000, 1000),
                Ok(samples.clone()),
                "{mime}"
            );
        }
        let codes: Vec<u8> = samples.iter().map(|s| g711::encode_ulaw_sample(*s)).collect();
        let basic = decode(&codes, "audio/basic", SampleRate::HZ_8000, 1000).unwrap();
        assert_eq!(basic.len(), samples.len());
        assert!(basic.iter().zip(&samples).all(|(a, b)| a.abs_diff(*b) < 300));

        let mut au = b".snd".to_vec();
        for word in [28u32, 0xffff_ffff, 1, 8000, 1, 0] {
            au.extend(word.to_be_bytes());
        }
        au.extend(&codes);
        assert_eq!(decode(&au, "audio/basic", SampleRate::HZ_8000, 1000).unwrap(), basic);

        for (bytes, mime, code) in [
            (file.as_slice(), "text/html", 13420),
            (b"<Response/>", "audio/wav", 13420),
            (b"", "audio/wav", 13420),
            (b"RIFF\0\0\0\0WAVE", "audio/wav", 13420),
            (b".snd", "audio/basic", 13420),
            (b"\xff\xfb\x90\x00", "audio/mpeg", 13420),
        ] {
            let error = decode(bytes, mime, SampleRate::HZ_8000, 1000).unwrap_err();
            assert_eq!(error.code, code, "{mime}: {error}");
        }
        assert_eq!(decode(&file, "audio/wav", SampleRate::HZ_8000, 100).unwrap_err().code, 11750);
    }

    #[test]
    fn other_rates_become_8_khz_of_the_same_length_and_pitch() {
        let file = wav::write_pcm16(SampleRate::HZ_16000, &tone(16_000, 1.0, 8000.0));
        let samples = decode(&file, "audio/wav", SampleRate::HZ_8000, 2000).unwrap();
        assert_eq!(samples.len(), 8000);
        let crossings = samples.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        assert!((438..=441).contains(&crossings), "{crossings}");
    }

    #[test]
    fn normalising_lifts_and_lowers_to_one_level() {
        for amplitude in [300.0, 20_000.0] {
            let mut samples = tone(8000, 1.0, amplitude);
            samples.extend(vec![0; 8000]);
            normalise(&mut samples);
            let power: f64 =
                samples[..8000].iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 8000.0;
            assert!((power.sqrt() - 3276.8).abs() < 60.0, "{}", power.sqrt());
        }
        let mut silence = vec![0; 100];
        normalise(&mut silence);
        assert_eq!(silence, vec![0; 100]);
    }
}
