//! Sample rate conversion of whole files (prompts, speech) by rubato.

use crate::units::SampleRate;
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

/// Frames handed to rubato at once.
const CHUNK_FRAMES: usize = 1024;
/// Length of the filter in input frames.
const SINC_FRAMES: usize = 128;

/// Why a file could not be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResampleError {
    /// A rate of 0 or above 384 kHz.
    #[error("sample rate {0} Hz is out of range")]
    Rate(u32),
    /// The converter refused; text is rubato's.
    #[error("resampler: {0}")]
    Converter(String),
}

/// Converts mono PCM from one rate to another. The filter's delay is taken out, so sample `n` of
/// the output is the moment `n / to`. Allocates; not for the packet path.
///
/// # Errors
/// See [`ResampleError`].
pub fn resample(
    samples: &[i16],
    from: SampleRate,
    to: SampleRate,
) -> Result<Vec<i16>, ResampleError> {
    for rate in [from, to] {
        if rate.hz() == 0 || rate.hz() > 384_000 {
            return Err(ResampleError::Rate(rate.hz()));
        }
    }
    if from == to || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let error = |e: &dyn std::fmt::Display| ResampleError::Converter(e.to_string());
    let ratio = f64::from(to.hz()) / f64::from(from.hz());
    let parameters = SincInterpolationParameters::new(SINC_FRAMES, WindowFunction::BlackmanHarris2)
        .oversampling_factor(128)
        .interpolation(SincInterpolationType::Cubic);
    let mut converter =
        Async::<f32>::new_sinc(ratio, 1.0, &parameters, CHUNK_FRAMES, 1, FixedAsync::Input)
            .map_err(|e| error(&e))?;
    let (lead, skip) = alignment(from.hz(), to.hz(), converter.output_delay());
    let mut input = vec![0.0; lead];
    input.extend(samples.iter().map(|s| f32::from(*s)));
    let adapter = InterleavedSlice::new(&input, 1, input.len()).map_err(|e| error(&e))?;
    let output = converter.process_all(&adapter, input.len(), None).map_err(|e| error(&e))?;
    let wanted = (samples.len() as u64 * u64::from(to.hz())).div_ceil(u64::from(from.hz()));
    let output = output.take_data().into_iter().skip(skip).take(wanted as usize);
    // Casts of floats saturate.
    Ok(output.map(|s| s.round() as i16).collect())
}

/// Frames of silence to put in front of the input and frames to drop from the output, so that the
/// first frame kept is the first of the input exactly. The converter's delay of half its filter is
/// in general no whole number of output frames; with the right lead it is.
fn alignment(from_hz: u32, to_hz: u32, trimmed: usize) -> (usize, usize) {
    let divisor = gcd(from_hz, to_hz).max(1);
    let (period, step) = ((from_hz / divisor) as usize, (to_hz / divisor) as usize);
    let half = SINC_FRAMES / 2;
    let mut periods = half.div_ceil(period);
    loop {
        // The converter's first output lies one output frame behind the start of its filter.
        let zero = periods * step - 1;
        if let Some(skip) = zero.checked_sub(trimmed) {
            return (periods * period - half, skip);
        }
        periods += 1;
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate: u32, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| {
                let phase = f64::from(n as u32) * hz / f64::from(rate) * std::f64::consts::TAU;
                (10_000.0 * phase.sin()).round() as i16
            })
            .collect()
    }

    #[test]
    fn a_sine_stays_the_same_sine_in_the_same_place() {
        for (from, to) in
            [(44_100, 8_000), (8_000, 16_000), (16_000, 8_000), (22_050, 48_000), (48_000, 8_000)]
        {
            let input = sine(1000.0, from, from as usize / 4);
            let output = resample(&input, SampleRate(from), SampleRate(to)).unwrap();
            let expected = sine(1000.0, to, output.len());
            assert!(
                (output.len() as i64 - i64::from(to / 4)).abs() <= 1,
                "{from} {to} {}",
                output.len()
            );
            let margin = to as usize / 50;
            let worst = output[margin..output.len() - margin]
                .iter()
                .zip(&expected[margin..])
                .map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs())
                .max()
                .unwrap();
            assert!(worst <= 100, "{from} to {to}: {worst}");
        }
    }

    #[test]
    fn what_cannot_be_carried_is_filtered_out() {
        let input = sine(6000.0, 48_000, 24_000);
        let output = resample(&input, SampleRate(48_000), SampleRate(8_000)).unwrap();
        let peak = output[200..output.len() - 200].iter().map(|s| s.abs()).max().unwrap();
        assert!(peak < 30, "{peak}");
    }

    #[test]
    fn edges() {
        let rate = SampleRate(8000);
        assert_eq!(resample(&[1, 2], rate, rate).unwrap(), [1, 2]);
        assert_eq!(resample(&[], rate, SampleRate(16_000)).unwrap(), []);
        assert_eq!(resample(&[1], SampleRate(0), rate), Err(ResampleError::Rate(0)));
        assert_eq!(resample(&[1; 3], rate, SampleRate(16_000)).unwrap().len(), 6);
        let loud = resample(&[i16::MAX; 800], rate, SampleRate(16_000)).unwrap();
        assert!(loud.iter().all(|s| *s > -5000), "no wrap-around at full scale");
    }
}
