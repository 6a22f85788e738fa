use super::*;
use proptest::prelude::*;
use std::io::Cursor;

fn by_hound(spec: hound::WavSpec, samples: &[i32]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for s in samples {
        match spec.sample_format {
            hound::SampleFormat::Int => writer.write_sample(*s).unwrap(),
            hound::SampleFormat::Float => writer.write_sample(*s as f32 / 32768.0).unwrap(),
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

fn spec(bits: u16, channels: u16, sample_format: hound::SampleFormat) -> hound::WavSpec {
    hound::WavSpec { channels, sample_rate: 22_050, bits_per_sample: bits, sample_format }
}

const RAMP: [i16; 7] = [0, 1000, -1000, 32767, -32768, 256, -256];

#[test]
fn all_depths_as_hound_writes_them() {
    use hound::SampleFormat::{Float, Int};
    for (bits, shift, format) in
        [(8, 8, Int), (16, 0, Int), (24, -8, Int), (32, -16, Int), (32, 0, Float)]
    {
        let scaled: Vec<i32> = RAMP
            .iter()
            .map(|s| if shift > 0 { i32::from(*s) >> shift } else { i32::from(*s) << -shift })
            .collect();
        let file = by_hound(spec(bits, 1, format), &scaled);
        let (rate, samples) = read(&file).unwrap();
        assert_eq!(rate.hz(), 22_050);
        let expected: Vec<i16> =
            if bits == 8 { RAMP.map(|s| s >> 8 << 8).to_vec() } else { RAMP.to_vec() };
        assert_eq!(samples, expected, "{bits} {format:?}");
    }
}

#[test]
fn stereo_is_averaged() {
    let file = by_hound(
        spec(16, 2, hound::SampleFormat::Int),
        &[100, 300, -32768, -32768, 32767, 32767, 5, -5],
    );
    assert_eq!(read(&file).unwrap().1, [200, -32768, 32767, 0]);
}

#[test]
fn hound_reads_what_we_write() {
    let file = write_pcm16(SampleRate::HZ_8000, &RAMP);
    let mut reader = hound::WavReader::new(Cursor::new(file)).unwrap();
    assert_eq!(reader.spec().sample_rate, 8000);
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    assert_eq!(samples, RAMP);
}

#[test]
fn g711_files_read_back() {
    for (encoding, silence) in [(Encoding::Ulaw, 0i16), (Encoding::Alaw, 8)] {
        let spec = WavSpec { encoding, rate: SampleRate::HZ_8000, channels: 1 };
        let code = if encoding == Encoding::Ulaw { g711::ULAW_SILENCE } else { g711::ALAW_SILENCE };
        let mut file = header(spec, Some(3));
        assert_eq!(file.len(), 58);
        file.extend([code; 3]);
        file.push(0);
        let parsed = WavHeader::parse(&file).unwrap();
        assert_eq!((parsed.spec, parsed.data_bytes), (spec, Some(3)));
        assert_eq!(read(&file).unwrap().1, [silence; 3]);
    }
}

#[test]
fn sizes_that_were_never_filled_in() {
    let spec = WavSpec { encoding: Encoding::Pcm16, rate: SampleRate::HZ_8000, channels: 1 };
    let samples: Vec<u8> = RAMP.iter().flat_map(|s| s.to_le_bytes()).collect();
    let unfixed = header(spec, None);
    let mut zero = header(spec, Some(0));
    let mut all_zero = zero.clone();
    all_zero[4..8].fill(0);
    let mut too_long = header(spec, Some(1 << 30));
    for head in [&mut unfixed.clone(), &mut zero, &mut all_zero, &mut too_long] {
        head.extend(&samples);
        assert_eq!(read(head).unwrap().1, RAMP);
        head.pop(); // half a sample written when the recorder died
        assert_eq!(read(head).unwrap().1, RAMP[..6]);
    }
    // Fixing the header keeps its length.
    assert_eq!(header(spec, Some(14)).len(), unfixed.len());
    let mut fixed = header(spec, Some(14));
    fixed.extend(&samples);
    assert_eq!(fixed, write_pcm16(SampleRate::HZ_8000, &RAMP));
    // A correctly empty file is empty, whatever follows.
    let mut empty = header(spec, Some(0));
    empty.extend(b"LIST\x04\0\0\0abcd");
    let riff = (empty.len() - 8) as u32;
    empty[4..8].copy_from_slice(&riff.to_le_bytes());
    assert_eq!(read(&empty).unwrap().1, []);
}

#[test]
fn other_chunks_are_passed_over() {
    let plain = write_pcm16(SampleRate::HZ_16000, &RAMP);
    let mut file = plain[..12].to_vec();
    file.extend(b"LIST\x05\0\0\0abcde\0");
    file.extend(&plain[12..36]);
    file.extend(b"cue \0\0\0\0");
    file.extend(&plain[36..]);
    file.extend(b"LIST\x04\0\0\0tail");
    assert_eq!(read(&file).unwrap(), (SampleRate::HZ_16000, RAMP.to_vec()));
}

#[test]
fn each_error_is_found() {
    let good = write_pcm16(SampleRate::HZ_8000, &RAMP);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        read(&file).err()
    };
    assert_eq!(with(0, b"RIFX"), Some(WavError::Signature));
    assert_eq!(with(12, b"junk"), Some(WavError::Format));
    assert_eq!(with(16, &[8, 0, 0, 0]), Some(WavError::Format));
    assert_eq!(with(20, &[85, 0]), Some(WavError::Encoding { tag: 85, bits: 16 }));
    assert_eq!(with(22, &[0, 0]), Some(WavError::Range));
    assert_eq!(with(24, &[0, 0, 0, 0]), Some(WavError::Range));
    for len in 0..44 {
        assert_eq!(read(&good[..len]), Err(WavError::Incomplete), "{len}");
    }
    assert_eq!(read(b"ID3"), Err(WavError::Signature));
}

proptest! {
    #[test]
    fn any_bytes_end(mut bytes in prop::collection::vec(any::<u8>(), 0..120), splice in 0usize..4) {
        let good = write_pcm16(SampleRate::HZ_8000, &RAMP);
        let keep = [0, 12, 20, 36][splice].min(bytes.len());
        bytes[..keep].copy_from_slice(&good[..keep]);
        if let Ok((_, samples)) = read(&bytes) {
            prop_assert!(samples.len() <= bytes.len());
        }
    }

    #[test]
    fn pieces_decode_as_the_whole(data in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(1usize..9, 1..60), bits in prop::sample::select(vec![8u16, 16, 24, 32]), channels in 1u16..=8) {
        let encoding = Encoding::from_format(1, bits).unwrap();
        let spec = WavSpec { encoding, rate: SampleRate::HZ_8000, channels };
        let mut whole = Vec::new();
        SampleDecoder::new(spec).decode(&data, &mut whole);
        prop_assert_eq!(whole.len(), data.len() / spec.frame_bytes());
        let mut decoder = SampleDecoder::new(spec);
        let mut pieces = Vec::new();
        let mut rest = &data[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            decoder.decode(head, &mut pieces);
            rest = tail;
        }
        prop_assert_eq!(whole, pieces);
    }
}
