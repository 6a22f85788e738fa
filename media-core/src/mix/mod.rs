//! Adding voices.

/// Adds `voice` to `sum` sample by sample, saturating at full scale; stops at the shorter.
pub fn add_saturating(sum: &mut [i16], voice: &[i16]) {
    for (s, v) in sum.iter_mut().zip(voice) {
        *s = s.saturating_add(*v);
    }
}

/// Writes wide sums (of many voices) as samples, saturating at full scale; stops at the shorter.
pub fn clamp_into(sums: &[i32], out: &mut [i16]) {
    for (o, s) in out.iter_mut().zip(sums) {
        *o = (*s).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn saturates_and_stops_at_the_shorter() {
        let mut sum = [30_000, -30_000, 5, 9];
        super::add_saturating(&mut sum, &[10_000, -10_000, -7]);
        assert_eq!(sum, [i16::MAX, i16::MIN, -2, 9]);
        let mut out = [1; 3];
        super::clamp_into(&[70_000, -70_000], &mut out);
        assert_eq!(out, [i16::MAX, i16::MIN, 1]);
    }
}
