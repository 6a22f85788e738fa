//! The two codecs that phones speak: G.711 µ-law and A-law (RFC 3551 §4.5.14).

use media_core::codec::g711;
use serde::{Deserialize, Serialize};

/// Samples of a 20 ms frame at 8 kHz; with G.711 bytes as well.
pub const FRAME_SAMPLES: usize = 160;
/// Duration of one sample at 8 kHz, nanoseconds.
pub const SAMPLE_NS: u64 = 125_000;

/// A codec a phone offers and accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// µ-law, payload type 0.
    #[serde(rename = "PCMU")]
    Pcmu,
    /// A-law, payload type 8.
    #[serde(rename = "PCMA")]
    Pcma,
}

impl Codec {
    /// The static payload type (RFC 3551 §6).
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// The codec of a static payload type.
    pub fn of_payload_type(payload_type: u8) -> Option<Self> {
        match payload_type {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            _ => None,
        }
    }

    /// Name in `rtpmap`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Encodes one frame.
    pub fn encode(self, samples: &[i16; FRAME_SAMPLES]) -> [u8; FRAME_SAMPLES] {
        samples.map(|sample| match self {
            Self::Pcmu => g711::encode_ulaw_sample(sample),
            Self::Pcma => g711::encode_alaw_sample(sample),
        })
    }

    /// Appends the samples of a payload.
    pub fn decode(self, payload: &[u8], samples: &mut Vec<i16>) {
        samples.extend(payload.iter().map(|&code| match self {
            Self::Pcmu => g711::decode_ulaw_sample(code),
            Self::Pcma => g711::decode_alaw_sample(code),
        }));
    }
}

impl std::str::FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "PCMU" => Ok(Self::Pcmu),
            "PCMA" => Ok(Self::Pcma),
            _ => Err(format!("codec '{text}' is unknown; known are PCMU and PCMA")),
        }
    }
}
