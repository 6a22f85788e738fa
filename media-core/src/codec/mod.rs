//! Audio codecs and their registry by SDP name.
//!
//! What is listed in [`Codec`] can be decoded and encoded here. Codecs with state will bring a
//! state type of their own; [`Codec`] stays the name by which all are negotiated.

pub mod g711;
pub mod l16;

use crate::units::{PayloadType, SampleRate};

/// A codec that can be decoded and encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// G.711 µ-law, `PCMU/8000`.
    Pcmu,
    /// G.711 A-law, `PCMA/8000`.
    Pcma,
    /// Linear 16-bit big-endian mono at 8 kHz, `L16/8000` (RFC 3551 §4.5.11).
    L16At8000,
    /// The same at 16 kHz, `L16/16000`.
    L16At16000,
}

impl Codec {
    /// All codecs, best known first.
    pub const ALL: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::L16At16000, Self::L16At8000];

    /// Codec of an `a=rtpmap` (names are case-insensitive, RFC 4855 §3). `None` for unknown names,
    /// clock rates or more than one channel.
    #[must_use]
    pub fn from_sdp(name: &str, clock_rate_hz: u32, channels: u8) -> Option<Self> {
        if channels != 1 {
            return None;
        }
        Self::ALL
            .into_iter()
            .find(|c| c.sdp_name().eq_ignore_ascii_case(name) && c.rate().hz() == clock_rate_hz)
    }

    /// Codec of a static payload type (RFC 3551 §6).
    #[must_use]
    pub const fn from_static_payload_type(payload_type: PayloadType) -> Option<Self> {
        match payload_type.get() {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            _ => None,
        }
    }

    /// Its static payload type, if it has one.
    #[must_use]
    pub const fn static_payload_type(self) -> Option<PayloadType> {
        match self {
            Self::Pcmu => Some(PayloadType::PCMU),
            Self::Pcma => Some(PayloadType::PCMA),
            Self::L16At8000 | Self::L16At16000 => None,
        }
    }

    /// Encoding name of `a=rtpmap`.
    #[must_use]
    pub const fn sdp_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::L16At8000 | Self::L16At16000 => "L16",
        }
    }

    /// Sample rate of the audio, which is the RTP clock rate of all present codecs.
    #[must_use]
    pub const fn rate(self) -> SampleRate {
        match self {
            Self::Pcmu | Self::Pcma | Self::L16At8000 => SampleRate::HZ_8000,
            Self::L16At16000 => SampleRate::HZ_16000,
        }
    }

    /// RTP clock rate in hertz.
    #[must_use]
    pub const fn clock_rate_hz(self) -> u32 {
        self.rate().hz()
    }

    /// Bytes of payload for one millisecond.
    #[must_use]
    pub const fn bytes_per_ms(self) -> usize {
        self.rate().samples_in_ms(1) * self.bytes_per_sample()
    }

    /// Samples that a payload of `bytes` holds.
    #[must_use]
    pub const fn samples_in(self, bytes: usize) -> usize {
        bytes / self.bytes_per_sample()
    }

    const fn bytes_per_sample(self) -> usize {
        match self {
            Self::Pcmu | Self::Pcma => 1,
            Self::L16At8000 | Self::L16At16000 => 2,
        }
    }

    /// Decodes a payload; returns the number of samples written, at most what `samples` holds.
    pub fn decode(self, payload: &[u8], samples: &mut [i16]) -> usize {
        match self {
            Self::Pcmu => g711::decode_ulaw(payload, samples),
            Self::Pcma => g711::decode_alaw(payload, samples),
            Self::L16At8000 | Self::L16At16000 => l16::decode(payload, samples),
        }
    }

    /// Encodes samples; returns the number of bytes written, at most what `payload` holds.
    pub fn encode(self, samples: &[i16], payload: &mut [u8]) -> usize {
        match self {
            Self::Pcmu => g711::encode_ulaw(samples, payload),
            Self::Pcma => g711::encode_alaw(samples, payload),
            Self::L16At8000 | Self::L16At16000 => l16::encode(samples, payload),
        }
    }

    /// Turns a payload of `self` into one of `to` without decoding; `false` (payload unchanged)
    /// unless both are the same codec or both are G.711.
    #[must_use]
    pub fn transcode_in_place(self, to: Self, payload: &mut [u8]) -> bool {
        match (self, to) {
            (Self::Pcmu, Self::Pcma) => g711::ulaw_to_alaw_in_place(payload),
            (Self::Pcma, Self::Pcmu) => g711::alaw_to_ulaw_in_place(payload),
            _ => return self == to,
        }
        true
    }

    /// Fills a payload with what this codec says for silence.
    pub fn fill_silence(self, payload: &mut [u8]) {
        payload.fill(match self {
            Self::Pcmu => g711::ULAW_SILENCE,
            Self::Pcma => g711::ALAW_SILENCE,
            Self::L16At8000 | Self::L16At16000 => 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_name_and_number() {
        for codec in Codec::ALL {
            let lower = codec.sdp_name().to_ascii_lowercase();
            assert_eq!(Codec::from_sdp(&lower, codec.clock_rate_hz(), 1), Some(codec));
            if let Some(pt) = codec.static_payload_type() {
                assert_eq!(Codec::from_static_payload_type(pt), Some(codec));
            }
        }
        assert_eq!(Codec::from_sdp("PCMU", 16_000, 1), None);
        assert_eq!(Codec::from_sdp("L16", 8000, 2), None);
        assert_eq!(Codec::from_sdp("G729", 8000, 1), None);
    }

    #[test]
    fn g711_is_transcoded_in_place_and_nothing_else() {
        for from in Codec::ALL {
            for to in Codec::ALL {
                let mut payload = [0x12, 0x92];
                let g711 = from.bytes_per_ms() == 8 && to.bytes_per_ms() == 8;
                assert_eq!(from.transcode_in_place(to, &mut payload), g711 || from == to);
                assert_eq!(payload != [0x12, 0x92], g711 && from != to);
            }
        }
    }

    #[test]
    fn payload_sizes_and_silence() {
        assert_eq!(Codec::Pcma.bytes_per_ms() * 20, 160);
        assert_eq!(Codec::L16At16000.bytes_per_ms() * 20, 640);
        for codec in Codec::ALL {
            let mut payload = [0x33; 64];
            codec.fill_silence(&mut payload);
            let mut samples = [99; 64];
            let n = codec.decode(&payload, &mut samples);
            assert_eq!(n, codec.samples_in(64));
            assert!(samples[..n].iter().all(|s| s.abs() <= 8));
            let mut back = [0; 64];
            assert_eq!(codec.encode(&samples[..n], &mut back), 64);
            assert_eq!(back, payload);
        }
    }
}
