//! What the tests hear by.

use e2e::audio::{loud_ms, read_wav, tone_ms, tone_wav};

#[test]
fn tones_are_told_apart() {
    let (channels, rate_hz) = read_wav(&tone_wav(700.0, 1_000)).expect("WAV");
    assert_eq!((channels.len(), rate_hz), (1, 8_000));
    assert_eq!(tone_ms(&channels[0], 700.0), 1_000);
    assert_eq!(tone_ms(&channels[0], 900.0), 0);
    assert_eq!(loud_ms(&channels[0]), 1_000);
    assert_eq!(loud_ms(&[0; 8_000]), 0);
}
