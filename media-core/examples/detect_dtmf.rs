//! Prints the DTMF digits of WAV files: `cargo run -p media-core --example detect_dtmf -- FILE…`
//!
//! Files at other rates than 8 or 16 kHz are converted to 8 kHz first. With several files a total
//! follows, which makes this the tool for talk-off measurements on recorded voice.

use media_core::container::wav;
use media_core::dtmf::detect::{DtmfDetector, ToneEvent};
use media_core::resample::resample;
use media_core::units::SampleRate;
use std::error::Error;
use std::process::ExitCode;

/// Digits of one file and its duration in milliseconds.
fn digits_of(path: &str) -> Result<(String, u64), Box<dyn Error>> {
    let file = std::fs::read(path)?;
    let (mut rate, mut samples) = wav::read(&file)?;
    if DtmfDetector::new(rate).is_none() {
        samples = resample(&samples, rate, SampleRate::HZ_8000)?;
        rate = SampleRate::HZ_8000;
    }
    let mut detector = DtmfDetector::new(rate).ok_or("no detector for this rate")?;
    let mut digits = String::new();
    // Silence at the end closes a digit that sounds up to the last sample.
    samples.resize(samples.len() + rate.samples_in_ms(100), 0);
    detector.process(&samples, |event| {
        if let ToneEvent::Start(digit) = event {
            digits.push(digit.as_char());
        }
    });
    Ok((digits, rate.ms_of_samples(samples.len() as u64)))
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: detect_dtmf FILE.wav…");
        return ExitCode::from(2);
    }
    let (mut found, mut total_ms, mut failed) = (0, 0, 0);
    for path in &paths {
        match digits_of(path) {
            Ok((digits, ms)) => {
                total_ms += ms;
                found += digits.len();
                if !digits.is_empty() || paths.len() == 1 {
                    println!("{path}: {digits}");
                }
            }
            Err(error) => {
                failed += 1;
                eprintln!("{path}: {error}");
            }
        }
    }
    if paths.len() > 1 {
        println!("{found} digits in {} files, {} s", paths.len(), total_ms / 1000);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
