//! Units of time, identity and level. No bare integer stands for any of these in a signature.

use std::fmt;

/// Samples per second of PCM audio, in hertz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleRate(pub u32);

impl SampleRate {
    /// 8 kHz, narrowband telephony.
    pub const HZ_8000: Self = Self(8_000);
    /// 16 kHz, wideband.
    pub const HZ_16000: Self = Self(16_000);
    /// 48 kHz, fullband.
    pub const HZ_48000: Self = Self(48_000);

    /// Samples per second.
    #[must_use]
    pub const fn hz(self) -> u32 {
        self.0
    }

    /// Number of samples in `ms` milliseconds, rounded down; saturates at `usize::MAX`.
    #[must_use]
    pub const fn samples_in_ms(self, ms: u32) -> usize {
        (self.0 as u64 * ms as u64 / 1000) as usize
    }

    /// Whole milliseconds that `samples` last, rounded down; 0 for a rate of 0.
    #[must_use]
    pub const fn ms_of_samples(self, samples: u64) -> u64 {
        match (samples.saturating_mul(1000)).checked_div(self.0 as u64) {
            Some(ms) => ms,
            None => 0,
        }
    }
}

/// RTP timestamp (RFC 3550 §5.1): wraps at 2³², unit given by the payload's clock rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RtpTime(pub u32);

impl RtpTime {
    /// This time `units` later, wrapping.
    #[must_use]
    pub const fn add(self, units: u32) -> Self {
        Self(self.0.wrapping_add(units))
    }

    /// Signed distance from `earlier` to `self` on the circle; positive when `self` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether `self` lies behind `other` on the circle.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.since(other) > 0
    }
}

/// Duration of audio in one RTP packet, in milliseconds (SDP `a=ptime`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ptime(pub u16);

impl Ptime {
    /// The default of RFC 3551 for G.711: 20 ms.
    pub const MS_20: Self = Self(20);

    /// Milliseconds.
    #[must_use]
    pub const fn ms(self) -> u16 {
        self.0
    }

    /// Samples of one packet at `rate`.
    #[must_use]
    pub const fn samples(self, rate: SampleRate) -> usize {
        rate.samples_in_ms(self.0 as u32)
    }
}

impl Default for Ptime {
    fn default() -> Self {
        Self::MS_20
    }
}

/// Synchronisation source identifier (RFC 3550 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ssrc(pub u32);

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

/// RTP payload type, 0–127 (RFC 3551).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadType(u8);

impl PayloadType {
    /// PCMU/8000, static.
    pub const PCMU: Self = Self(0);
    /// PCMA/8000, static.
    pub const PCMA: Self = Self(8);
    /// Comfort noise, static (RFC 3389).
    pub const CN: Self = Self(13);

    /// Keeps the low seven bits.
    #[must_use]
    pub const fn new_truncated(value: u8) -> Self {
        Self(value & 0x7f)
    }

    /// `None` above 127.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value <= 127 { Some(Self(value)) } else { None }
    }

    /// The number, 0–127.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PayloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Level in −dBov as RFC 6464 and RFC 4733 carry it: 0 is full scale, 127 is silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dbov(pub u8);

impl Dbov {
    /// Digital silence.
    pub const SILENCE: Self = Self(127);

    /// Level of a block: RMS against a full-scale square wave (RFC 6464 §4.1).
    #[must_use]
    pub fn of_block(samples: &[i16]) -> Self {
        if samples.is_empty() {
            return Self::SILENCE;
        }
        let energy: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
        let rms = (energy / samples.len() as f64).sqrt() / 32768.0;
        if rms <= 0.0 {
            return Self::SILENCE;
        }
        Self((-20.0 * rms.log10()).round().clamp(0.0, 127.0) as u8)
    }

    /// Amplitude of a sine whose RMS has this level, in i16 units (full-scale sine is −3 dBov).
    #[must_use]
    pub fn sine_amplitude(self) -> f32 {
        32768.0 * std::f32::consts::SQRT_2 * 10f32.powf(-f32::from(self.0) / 20.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_time_wraps() {
        let late = RtpTime(u32::MAX - 79);
        let next = late.add(160);
        assert_eq!(next, RtpTime(80));
        assert_eq!(next.since(late), 160);
        assert!(next.is_after(late) && !late.is_after(next));
    }

    #[test]
    fn samples_and_ms() {
        assert_eq!(Ptime::MS_20.samples(SampleRate::HZ_8000), 160);
        assert_eq!(SampleRate::HZ_48000.samples_in_ms(20), 960);
        assert_eq!(SampleRate::HZ_8000.ms_of_samples(8001), 1000);
        assert_eq!(SampleRate(0).ms_of_samples(8001), 0);
        assert_eq!(PayloadType::new(128), None);
        assert_eq!(PayloadType::new_truncated(0x80 | 8), PayloadType::PCMA);
    }

    #[test]
    fn level_of_known_signals() {
        assert_eq!(Dbov::of_block(&[0; 160]), Dbov::SILENCE);
        assert_eq!(Dbov::of_block(&[]), Dbov::SILENCE);
        assert_eq!(Dbov::of_block(&[i16::MIN; 160]), Dbov(0));
        assert_eq!(Dbov::of_block(&[3277; 160]), Dbov(20));
    }
}
