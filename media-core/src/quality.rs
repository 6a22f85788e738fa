//! Estimated speech quality: the E-model (ITU-T G.107) with the defaults of G.107 for everything
//! that is not delay, loss or codec.

/// Base rating with default parameters.
const R_DEFAULT: f32 = 93.2;

/// Equipment impairment of a codec (ITU-T G.113 appendix I).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodecImpairment {
    /// Impairment without loss, Ie.
    pub ie: f32,
    /// Robustness against loss, Bpl.
    pub bpl: f32,
}

impl CodecImpairment {
    /// G.711 with concealment.
    pub const G711_WITH_PLC: Self = Self { ie: 0.0, bpl: 25.1 };
    /// G.711 without concealment.
    pub const G711: Self = Self { ie: 0.0, bpl: 4.3 };
}

/// Rating factor R, 0–100, for a one-way mouth-to-ear delay in milliseconds and a loss in percent.
/// `burst_ratio` is 1 for random loss and greater for bursts (G.107 §7.4).
#[must_use]
pub fn rating(delay_ms: f32, loss_percent: f32, burst_ratio: f32, codec: CodecImpairment) -> f32 {
    let delay = delay_ms.max(0.0);
    let loss = loss_percent.clamp(0.0, 100.0);
    // Linear approximation of Idd (Cole and Rosenbluth), within 1 of G.107 up to 400 ms.
    let delay_impairment = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
    let effective = if loss > 0.0 {
        codec.ie + (95.0 - codec.ie) * loss / (loss / burst_ratio.max(1.0) + codec.bpl)
    } else {
        codec.ie
    };
    (R_DEFAULT - delay_impairment - effective).clamp(0.0, 100.0)
}

/// Mean opinion score, 1.0–4.5, of a rating factor (G.107 annex B).
#[must_use]
pub fn mos(rating: f32) -> f32 {
    if rating <= 0.0 {
        return 1.0;
    }
    if rating >= 100.0 {
        return 4.5;
    }
    (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points() {
        let clean = rating(0.0, 0.0, 1.0, CodecImpairment::G711_WITH_PLC);
        assert!((clean - 93.2).abs() < 0.01);
        // G.107 annex B: R = 93.2 is a MOS of 4.41, 70 is 3.60, 50 is 2.58.
        for (r, expected) in
            [(93.2, 4.41), (90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)]
        {
            assert!((mos(r) - expected).abs() < 0.01, "{r}: {}", mos(r));
        }
        // G.113: 2 % random loss on G.711 with concealment costs 7.
        let lossy = rating(0.0, 2.0, 1.0, CodecImpairment::G711_WITH_PLC);
        assert!((clean - lossy - 7.0).abs() < 0.2, "{lossy}");
    }

    #[test]
    fn worse_is_never_better() {
        let codec = CodecImpairment::G711;
        let mut last = f32::MAX;
        for step in 0u8..100 {
            let score = mos(rating(f32::from(step) * 8.0, f32::from(step), 1.0, codec));
            assert!(score <= last && (1.0..=4.5).contains(&score));
            last = score;
        }
        assert!(rating(f32::INFINITY, 100.0, 0.0, codec) <= 0.0);
    }
}
