//! G.711 µ-law and A-law by tables (ITU-T G.711, arithmetic of the ITU-T G.191 reference).
//!
//! µ-law keeps the 14 high bits of a 16-bit sample and A-law the 12 high bits, so the encoding
//! tables have 16384 and 4096 entries and stay in the first-level cache.

/// µ-law code of silence (positive zero).
pub const ULAW_SILENCE: u8 = 0xff;
/// A-law code of silence (smallest positive level).
pub const ALAW_SILENCE: u8 = 0xd5;

static ULAW_DECODE: [i16; 256] = build_ulaw_decode();
static ALAW_DECODE: [i16; 256] = build_alaw_decode();
static ULAW_ENCODE: [u8; 1 << 14] = build_ulaw_encode();
static ALAW_ENCODE: [u8; 1 << 12] = build_alaw_encode();
/// µ-law code → A-law code, ITU-T G.711 table 3.
pub static ULAW_TO_ALAW: [u8; 256] = build_ulaw_to_alaw();
/// A-law code → µ-law code, ITU-T G.711 table 4.
pub static ALAW_TO_ULAW: [u8; 256] = build_alaw_to_ulaw();

/// Linear value of one µ-law code.
#[must_use]
pub fn decode_ulaw_sample(code: u8) -> i16 {
    ULAW_DECODE[usize::from(code)]
}

/// Linear value of one A-law code.
#[must_use]
pub fn decode_alaw_sample(code: u8) -> i16 {
    ALAW_DECODE[usize::from(code)]
}

/// µ-law code of one sample.
#[must_use]
pub fn encode_ulaw_sample(sample: i16) -> u8 {
    ULAW_ENCODE[usize::from(sample as u16 >> 2)]
}

/// A-law code of one sample.
#[must_use]
pub fn encode_alaw_sample(sample: i16) -> u8 {
    ALAW_ENCODE[usize::from(sample as u16 >> 4)]
}

/// Decodes µ-law; returns the number of samples written, the shorter of both lengths.
pub fn decode_ulaw(codes: &[u8], samples: &mut [i16]) -> usize {
    map(codes, samples, decode_ulaw_sample)
}

/// Decodes A-law; returns the number of samples written, the shorter of both lengths.
pub fn decode_alaw(codes: &[u8], samples: &mut [i16]) -> usize {
    map(codes, samples, decode_alaw_sample)
}

/// Encodes µ-law; returns the number of codes written, the shorter of both lengths.
pub fn encode_ulaw(samples: &[i16], codes: &mut [u8]) -> usize {
    map(samples, codes, encode_ulaw_sample)
}

/// Encodes A-law; returns the number of codes written, the shorter of both lengths.
pub fn encode_alaw(samples: &[i16], codes: &mut [u8]) -> usize {
    map(samples, codes, encode_alaw_sample)
}

/// Turns µ-law codes into A-law codes in place.
pub fn ulaw_to_alaw_in_place(codes: &mut [u8]) {
    for code in codes {
        *code = ULAW_TO_ALAW[usize::from(*code)];
    }
}

/// Turns A-law codes into µ-law codes in place.
pub fn alaw_to_ulaw_in_place(codes: &mut [u8]) {
    for code in codes {
        *code = ALAW_TO_ULAW[usize::from(*code)];
    }
}

#[inline]
fn map<A: Copy, B>(from: &[A], to: &mut [B], f: impl Fn(A) -> B) -> usize {
    for (a, b) in from.iter().zip(to.iter_mut()) {
        *b = f(*a);
    }
    from.len().min(to.len())
}

const fn build_ulaw_decode() -> [i16; 256] {
    let mut table = [0i16; 256];
    let mut code = 0usize;
    while code < 256 {
        let bits = !(code as u8);
        let exponent = (bits >> 4) & 7;
        let mantissa = (bits & 0x0f) as i16;
        let magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84;
        table[code] = if bits & 0x80 != 0 { -magnitude } else { magnitude };
        code += 1;
    }
    table
}

const fn build_alaw_decode() -> [i16; 256] {
    let mut table = [0i16; 256];
    let mut code = 0usize;
    while code < 256 {
        let bits = code as u8 ^ 0x55;
        let exponent = (bits >> 4) & 7;
        let mantissa = ((bits & 0x0f) as i16) << 4;
        let magnitude = match exponent {
            0 => mantissa + 8,
            _ => (mantissa + 0x108) << (exponent - 1),
        };
        table[code] = if bits & 0x80 != 0 { magnitude } else { -magnitude };
        code += 1;
    }
    table
}

const fn build_ulaw_encode() -> [u8; 1 << 14] {
    let mut table = [0u8; 1 << 14];
    let mut index = 0usize;
    while index < 1 << 14 {
        // The index is the sample's 14 high bits; G.191 takes the ones' complement of negatives.
        let sample = ((index as u16) << 2) as i16 >> 2;
        let magnitude = if sample < 0 { !sample } else { sample };
        let biased = if magnitude + 33 > 0x1fff { 0x1fff } else { magnitude + 33 };
        // Segment: position of the highest bit, 5 for the lowest segment (bias 33).
        let segment = (15 - biased.leading_zeros()) - 5;
        let mantissa = (biased >> (segment + 1)) & 0x0f;
        let sign = if sample < 0 { 0x80 } else { 0 };
        table[index] = !(sign | ((segment as u8) << 4) | mantissa as u8);
        index += 1;
    }
    table
}

const fn build_alaw_encode() -> [u8; 1 << 12] {
    let mut table = [0u8; 1 << 12];
    let mut index = 0usize;
    while index < 1 << 12 {
        let sample = ((index as u16) << 4) as i16 >> 4;
        let magnitude = if sample < 0 { !sample } else { sample };
        let bits = if magnitude > 15 {
            let segment = (15 - magnitude.leading_zeros()) - 3;
            let mantissa = (magnitude >> (segment - 1)) & 0x0f;
            ((segment as u8) << 4) | mantissa as u8
        } else {
            magnitude as u8
        };
        let sign = if sample < 0 { 0 } else { 0x80 };
        table[index] = (sign | bits) ^ 0x55;
        index += 1;
    }
    table
}

// Decoder output number of the other law by magnitude, ITU-T G.711 tables 3 and 4. The
// Recommendation counts A-law values from 1 and µ-law values from 0.
const ULAW_TO_ALAW_LEVEL: [u8; 128] = [
    1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
    21, 22, 23, 24, 25, 27, 29, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 48, 49, 50,
    51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75,
    76, 77, 78, 79, 80, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99,
    100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118,
    119, 120, 121, 122, 123, 124, 125, 126, 127, 128,
];
const ALAW_TO_ULAW_LEVEL: [u8; 128] = [
    1, 3, 5, 7, 9, 11, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    32, 33, 33, 34, 34, 35, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 48, 49, 49, 50,
    51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73,
    74, 75, 76, 77, 78, 79, 80, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96,
    97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115,
    116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127,
];

const fn build_ulaw_to_alaw() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut code = 0usize;
    while code < 256 {
        let bits = !(code as u8);
        let level = ULAW_TO_ALAW_LEVEL[(bits & 0x7f) as usize] - 1;
        let sign = if bits & 0x80 != 0 { 0 } else { 0x80 };
        table[code] = (level | sign) ^ 0x55;
        code += 1;
    }
    table
}

const fn build_alaw_to_ulaw() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut code = 0usize;
    while code < 256 {
        let bits = code as u8 ^ 0x55;
        let level = ALAW_TO_ULAW_LEVEL[(bits & 0x7f) as usize];
        let sign = if bits & 0x80 != 0 { 0 } else { 0x80 };
        table[code] = !(level | sign);
        code += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use audio_codec_algorithms as oracle;

    #[test]
    fn decoding_equals_the_oracle() {
        for code in 0..=255u8 {
            assert_eq!(decode_ulaw_sample(code), oracle::decode_ulaw(code), "u {code}");
            assert_eq!(decode_alaw_sample(code), oracle::decode_alaw(code), "a {code}");
        }
    }

    #[test]
    fn encoding_equals_the_oracle() {
        let (mut differing_u, mut differing_a) = (0, 0);
        for sample in i16::MIN..=i16::MAX {
            let (u, a) = (encode_ulaw_sample(sample), encode_alaw_sample(sample));
            differing_u += i32::from(u != oracle::encode_ulaw(sample));
            differing_a += i32::from(a != oracle::encode_alaw(sample));
        }
        assert_eq!((differing_u, differing_a), (0, 0));
    }

    #[test]
    fn codes_survive_a_round_trip() {
        for code in 0..=255u8 {
            // Negative zero of µ-law decodes to 0, which encodes as positive zero.
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(encode_ulaw_sample(decode_ulaw_sample(code)), expected);
            assert_eq!(encode_alaw_sample(decode_alaw_sample(code)), code);
        }
        assert_eq!(decode_ulaw_sample(ULAW_SILENCE), 0);
        assert_eq!(decode_alaw_sample(ALAW_SILENCE), 8);
    }

    #[test]
    fn transcoding_stays_next_to_the_linear_way() {
        for code in 0..=255u8 {
            let linear = i32::from(decode_ulaw_sample(code));
            let direct = i32::from(decode_alaw_sample(ULAW_TO_ALAW[usize::from(code)]));
            let step = (linear.abs() / 16).max(16);
            assert!((direct - linear).abs() <= step, "u {code}: {linear} {direct}");
            let linear = i32::from(decode_alaw_sample(code));
            let direct = i32::from(decode_ulaw_sample(ALAW_TO_ULAW[usize::from(code)]));
            let step = (linear.abs() / 16).max(16);
            assert!((direct - linear).abs() <= step, "a {code}: {linear} {direct}");
        }
    }

    #[test]
    fn transcoding_tables_are_monotone() {
        let positive: Vec<i16> = (0x80..=0xffu8)
            .rev()
            .map(|code| decode_alaw_sample(ULAW_TO_ALAW[usize::from(code)]))
            .collect();
        assert!(positive.windows(2).all(|w| w[0] <= w[1]), "{positive:?}");
        let levels: Vec<i16> = (0..128u8)
            .map(|l| decode_ulaw_sample(ALAW_TO_ULAW[usize::from((l | 0x80) ^ 0x55)]))
            .collect();
        assert!(levels.windows(2).all(|w| w[0] <= w[1]), "{levels:?}");
    }

    #[test]
    fn slices_stop_at_the_shorter() {
        let mut samples = [0i16; 3];
        assert_eq!(decode_ulaw(&[0xff; 5], &mut samples), 3);
        let mut codes = [0u8; 5];
        assert_eq!(encode_alaw(&samples, &mut codes), 3);
        let mut codes = [ULAW_SILENCE, 0x00, 0x80];
        ulaw_to_alaw_in_place(&mut codes);
        assert_eq!(codes, [ALAW_SILENCE, 0x2a, 0xaa]);
        alaw_to_ulaw_in_place(&mut codes);
        // A-law has no zero: the tables turn its smallest level into the next to smallest of µ-law.
        assert_eq!(codes, [0xfe, 0x00, 0x80]);
    }
}
