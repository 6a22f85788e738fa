//! L16: linear PCM in network byte order (RFC 3551 §4.5.11).

/// Decodes; an odd last byte is ignored. Returns the number of samples.
pub fn decode(payload: &[u8], samples: &mut [i16]) -> usize {
    let pairs = payload.as_chunks::<2>().0;
    for (sample, pair) in samples.iter_mut().zip(pairs) {
        *sample = i16::from_be_bytes(*pair);
    }
    pairs.len().min(samples.len())
}

/// Encodes whole samples. Returns the number of bytes.
pub fn encode(samples: &[i16], payload: &mut [u8]) -> usize {
    let pairs = payload.as_chunks_mut::<2>().0;
    let written = pairs.len().min(samples.len()) * 2;
    for (pair, sample) in pairs.iter_mut().zip(samples) {
        *pair = sample.to_be_bytes();
    }
    written
}

#[cfg(test)]
mod tests {
    #[test]
    fn whole_samples_only() {
        let mut samples = [0; 4];
        assert_eq!(super::decode(&[0x12, 0x34, 0xff, 0xfe, 9], &mut samples), 2);
        assert_eq!(samples, [0x1234, -2, 0, 0]);
        let mut bytes = [0; 5];
        assert_eq!(super::encode(&samples, &mut bytes), 4);
        assert_eq!(bytes, [0x12, 0x34, 0xff, 0xfe, 0]);
    }
}
