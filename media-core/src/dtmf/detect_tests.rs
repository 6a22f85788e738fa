use super::super::generate;
use super::*;
use crate::codec::g711;
use crate::units::Dbov;
use proptest::prelude::*;

fn detect_at(rate: SampleRate, samples: &[i16]) -> (String, Vec<u32>) {
    let mut detector = DtmfDetector::new(rate).unwrap();
    let (mut digits, mut durations) = (String::new(), Vec::new());
    for chunk in samples.chunks(160) {
        detector.process(chunk, |event| match event {
            ToneEvent::Start(digit) => digits.push(digit.as_char()),
            ToneEvent::End { duration_ms, .. } => durations.push(duration_ms),
        });
    }
    (digits, durations)
}

fn detect(samples: &[i16]) -> String {
    detect_at(SampleRate::HZ_8000, samples).0
}

/// Two sines, `ms` long, behind `lead` samples of silence and followed by 50 ms of silence.
fn pair(low: f64, high: f64, low_amp: f64, high_amp: f64, ms: usize, lead: usize) -> Vec<i16> {
    let mut out = vec![0i16; lead];
    out.extend((0..ms * 8).map(|n| {
        let t = std::f64::consts::TAU * n as f64 / 8000.0;
        (low_amp * (t * low).sin() + high_amp * (t * high).sin()).round() as i16
    }));
    out.extend([0i16; 400]);
    out
}

fn noise(len: usize, amplitude: i32, seed: u32) -> Vec<i32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as i32 - 32_768) * amplitude / 32_768
        })
        .collect()
}

const ALL: &str = "0123456789*#ABCD";

#[test]
fn all_digits_at_forty_milliseconds() {
    for rate in [SampleRate::HZ_8000, SampleRate::HZ_16000] {
        let mut audio = generate::render(ALL, rate, 40, 40);
        audio.extend(vec![0; rate.samples_in_ms(50)]);
        let (digits, durations) = detect_at(rate, &audio);
        assert_eq!(digits, ALL);
        assert!(durations.iter().all(|d| (30..=50).contains(d)), "{durations:?}");
    }
}

#[test]
fn through_g711_with_noise_at_any_phase() {
    for lead in (0..102).step_by(7) {
        let mut audio = vec![0; lead];
        audio.extend(generate::render("159D#", SampleRate::HZ_8000, 45, 45));
        audio.extend([0; 400]);
        for (s, n) in audio.iter_mut().zip(noise(20_000, 500, lead as u32)) {
            let noisy = (i32::from(*s) + n).clamp(-32768, 32767) as i16;
            *s = g711::decode_alaw_sample(g711::encode_alaw_sample(noisy));
        }
        assert_eq!(detect(&audio), "159D#", "{lead}");
    }
}

#[test]
fn tolerances_of_q24() {
    // Frequency: within 1.5 % accepted, beyond 3.5 % refused.
    for digit in (0..16).filter_map(Digit::from_event) {
        let (low, high) = digit.frequencies_hz();
        let (low, high) = (f64::from(low), f64::from(high));
        for (factor, heard) in [(0.985, true), (1.015, true), (0.965, false), (1.035, false)] {
            let audio = pair(low * factor, high * factor, 4000.0, 4000.0, 60, 33);
            assert_eq!(!detect(&audio).is_empty(), heard, "{digit} {factor}");
        }
    }
    // Twist: high 4 dB above low and low 8 dB above high accepted, 3 dB more refused.
    let db = |db: f64| 10f64.powf(db / 20.0);
    for (low_db, high_db, heard) in
        [(0.0, 3.5, true), (7.5, 0.0, true), (0.0, 7.0, false), (11.0, 0.0, false)]
    {
        let audio = pair(770.0, 1336.0, 2000.0 * db(low_db), 2000.0 * db(high_db), 60, 0);
        assert_eq!(detect(&audio) == "5", heard, "{low_db} {high_db}");
    }
    // Level: loud and faint accepted, below the floor refused.
    for (amplitude, heard) in [(16_000.0, true), (260.0, true), (90.0, false)] {
        assert_eq!(
            detect(&pair(697.0, 1209.0, amplitude, amplitude, 60, 0)) == "1",
            heard,
            "{amplitude}"
        );
    }
    // Duration: 40 ms accepted, 20 ms refused, at any phase.
    for lead in 0..102 {
        assert_eq!(detect(&pair(697.0, 1209.0, 4000.0, 4000.0, 40, lead)), "1", "{lead}");
        assert_eq!(detect(&pair(697.0, 1209.0, 4000.0, 4000.0, 20, lead)), "", "{lead}");
    }
}

#[test]
fn interruptions_and_pauses() {
    for phase in 0..51 {
        let tone = pair(852.0, 1477.0, 4000.0, 4000.0, 200, phase);
        // A break of 10 ms does not split a digit, one of 40 ms does.
        for (break_ms, expected) in [(10, "9"), (40, "99")] {
            let mut audio = tone.clone();
            audio[800..800 + break_ms * 8].fill(0);
            assert_eq!(detect(&audio), expected, "{phase} {break_ms}");
        }
    }
}

#[test]
fn single_tones_and_call_progress_are_no_digits() {
    for hz in [350.0, 425.0, 440.0, 480.0, 620.0, 697.0, 941.0, 1000.0, 1209.0, 1633.0, 2100.0] {
        assert_eq!(detect(&pair(hz, hz, 4000.0, 4000.0, 500, 0)), "", "{hz}");
        assert_eq!(detect(&pair(hz, 440.0, 4000.0, 4000.0, 500, 0)), "", "{hz}");
    }
}

#[test]
fn voiced_sounds_and_noise_do_not_talk_off() {
    // Harmonics of a gliding voice with two formants, for 60 s, and 20 s of noise.
    let mut phase = 0.0f64;
    let mut audio = Vec::with_capacity(8000 * 80);
    for n in 0..8000 * 60 {
        let t = f64::from(n) / 8000.0;
        let pitch = 150.0 + 90.0 * (t * 1.7).sin() + 30.0 * (t * 7.1).sin();
        phase += pitch / 8000.0;
        let formants = [700.0 + 250.0 * (t * 2.3).sin(), 1350.0 + 300.0 * (t * 3.1).cos()];
        let mut value = 0.0;
        for harmonic in 1..=16 {
            let hz = pitch * f64::from(harmonic);
            // Vocal tract as resonances in series (gain 1 at low frequencies), glottal source.
            let resonance = |f: &f64| {
                let ratio = hz / f;
                1.0 / ((1.0 - ratio * ratio).powi(2) + (ratio * 90.0 / f).powi(2)).sqrt()
            };
            let gain: f64 = formants.iter().map(resonance).product();
            let source = 1.0 / f64::from(harmonic);
            value += gain * source * (std::f64::consts::TAU * phase * f64::from(harmonic)).sin();
        }
        audio.push((value * 2_000.0).clamp(-32768.0, 32767.0) as i16);
    }
    let level = Dbov::of_block(&audio);
    assert!((Dbov(8)..Dbov(30)).contains(&level), "as loud as speech: {level:?}");
    audio.extend(noise(8000 * 20, 9000, 7).iter().map(|s| *s as i16));
    assert_eq!(detect(&audio), "");
}

#[test]
fn other_rates_are_refused() {
    assert!(DtmfDetector::new(SampleRate(44_100)).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn dialled_is_detected(digits in "[0-9*#A-D]{1,12}", on in 45u32..150, off in 45u32..150, chunk in 1usize..500) {
        let mut audio = generate::render(&digits, SampleRate::HZ_8000, on, off);
        audio.extend([0; 400]);
        let mut detector = DtmfDetector::new(SampleRate::HZ_8000).unwrap();
        let (mut got, mut ends) = (String::new(), 0);
        for piece in audio.chunks(chunk) {
            detector.process(piece, |event| match event {
                ToneEvent::Start(digit) => got.push(digit.as_char()),
                ToneEvent::End { .. } => ends += 1,
            });
        }
        prop_assert_eq!(&got, &digits);
        prop_assert_eq!(ends, digits.len());
    }
}
