//! Files to play and judgement of files that were recorded.

use media_core::tone_detect::ToneBank;
use media_core::units::SampleRate;

/// A WAV file (8 kHz, mono, 16 bit) with a tone.
pub fn tone_wav(hz: f64, ms: u32) -> Vec<u8> {
    wav(8_000, 1, &tone(hz, ms, 8_000))
}

/// Samples of a tone.
pub fn tone(hz: f64, ms: u32, rate_hz: u32) -> Vec<i16> {
    let samples = u64::from(rate_hz) * u64::from(ms) / 1_000;
    let step = hz * std::f64::consts::TAU / f64::from(rate_hz);
    (0..samples).map(|n| ((n as f64 * step).sin() * 9_000.0) as i16).collect()
}

/// A WAV file of interleaved samples.
pub fn wav(rate_hz: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels,
        sample_rate: rate_hz,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    // Writing to memory cannot fail; an empty file would fail the test that uses it.
    if let Ok(mut writer) = hound::WavWriter::new(&mut bytes, spec) {
        for sample in samples {
            let _ = writer.write_sample(*sample);
        }
        let _ = writer.finalize();
    }
    bytes.into_inner()
}

/// Samples of a WAV file, one row per channel, and its rate.
///
/// # Errors
/// If it is no 16 bit PCM WAV file.
pub fn read_wav(bytes: &[u8]) -> anyhow::Result<(Vec<Vec<i16>>, u32)> {
    let mut reader = hound::WavReader::new(std::io::Cursor::new(bytes))?;
    let spec = reader.spec();
    let mut channels = vec![Vec::new(); usize::from(spec.channels)];
    for (index, sample) in reader.samples::<i16>().enumerate() {
        let count = channels.len().max(1);
        if let Some(channel) = channels.get_mut(index % count) {
            channel.push(sample?);
        }
    }
    Ok((channels, spec.sample_rate))
}

/// How many milliseconds of 8 kHz samples hold a tone, in blocks of 50 ms.
pub fn tone_ms(samples: &[i16], hz: f64) -> u32 {
    let bank = ToneBank::new(SampleRate::HZ_8000, &[hz as f32]);
    let blocks = samples.chunks_exact(400);
    blocks.filter(|block| !bank.present(block, 1_000.0).is_empty()).count() as u32 * 50
}

/// How many milliseconds of 8 kHz samples are no silence, in blocks of 50 ms.
pub fn loud_ms(samples: &[i16]) -> u32 {
    let loud = |block: &&[i16]| {
        let sum: f64 = block.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        (sum / block.len() as f64).sqrt() > 200.0
    };
    samples.chunks_exact(400).filter(loud).count() as u32 * 50
}
