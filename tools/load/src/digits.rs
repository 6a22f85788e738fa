//! Keys: RFC 4733 events out and in, tones in the audio, INFO bodies.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::codec::{Codec, FRAME_SAMPLES};
use crate::source::tone_frame;

const KEYS: &[u8; 16] = b"0123456789*#ABCD";
/// A key is held for 100 ms.
const HELD_FRAMES: u32 = 5;
/// RFC 4733 §2.5.1.4: the final packet is sent three times.
const END_FRAMES: u32 = 3;
/// Pause after a key: 100 ms.
const PAUSE_FRAMES: u32 = 5;
const QUEUE_MAX: usize = 128;

/// How keys are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigitMethod {
    /// RTP events (RFC 4733).
    Rfc4733,
    /// SIP INFO with `application/dtmf-relay`.
    Info,
    /// SIP INFO with `application/dtmf`.
    #[serde(rename = "info-dtmf")]
    InfoDtmf,
    /// Tones in the audio.
    Inband,
}

impl DigitMethod {
    /// Content type and body of the INFO that tells the key, if one does.
    pub fn info(self, key: char) -> Option<(&'static str, String)> {
        match self {
            Self::Info => Some(("application/dtmf-relay", info_body(key))),
            Self::InfoDtmf => Some(("application/dtmf", key.to_string())),
            Self::Rfc4733 | Self::Inband => None,
        }
    }
}

/// Whether a text consists of keys only.
pub fn are_keys(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|key| KEYS.contains(&key.to_ascii_uppercase()))
}

fn event_code(key: char) -> u8 {
    let key = key.to_ascii_uppercase();
    KEYS.iter().position(|&known| char::from(known) == key).unwrap_or(0) as u8
}

/// Row and column frequency of a key (ITU-T Q.23).
fn frequencies_hz(key: char) -> (f64, f64) {
    const ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
    const COLUMNS: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
    const PAD: &str = "123A456B789C*0#D";
    let at = PAD.find(key.to_ascii_uppercase()).unwrap_or(0);
    (ROWS[at / 4], COLUMNS[at % 4])
}

/// What takes the place of a frame of speech.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFrame {
    /// Nothing: speech goes on.
    Speech,
    /// Silence between keys.
    Pause,
    /// An event packet.
    Event {
        /// RFC 4733 payload.
        payload: [u8; 4],
        /// First packet of the event.
        marker: bool,
        /// Samples since the event began: its timestamp is that much before the present one.
        age_samples: u32,
    },
    /// A frame with both tones.
    Tones([u8; FRAME_SAMPLES]),
}

/// Sends queued keys, one frame each 20 ms.
#[derive(Clone, Debug, Default)]
pub struct DigitSender {
    queue: VecDeque<(char, DigitMethod)>,
    frame: u32,
}

impl DigitSender {
    /// Queues keys; those beyond 128 are dropped.
    pub fn push(&mut self, keys: &str, method: DigitMethod) {
        let room = QUEUE_MAX.saturating_sub(self.queue.len());
        self.queue.extend(keys.chars().take(room).map(|key| (key, method)));
    }

    /// Whether all keys are sent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next frame, and the key that begins with it.
    pub fn next(&mut self, codec: Codec) -> (KeyFrame, Option<(char, DigitMethod)>) {
        let Some(&(key, method)) = self.queue.front() else { return (KeyFrame::Speech, None) };
        let frame = self.frame;
        let begins = (frame == 0).then_some((key, method));
        let sounding = match method {
            DigitMethod::Rfc4733 => HELD_FRAMES + END_FRAMES,
            DigitMethod::Inband | DigitMethod::Info | DigitMethod::InfoDtmf => HELD_FRAMES,
        };
        self.frame += 1;
        if self.frame == sounding + PAUSE_FRAMES {
            self.frame = 0;
            self.queue.pop_front();
        }
        if frame >= sounding {
            return (KeyFrame::Pause, None);
        }
        let out = match method {
            DigitMethod::Rfc4733 => event_frame(key, frame),
            DigitMethod::Inband => tones_frame(key, frame, codec),
            DigitMethod::Info | DigitMethod::InfoDtmf => KeyFrame::Speech,
        };
        (out, begins)
    }
}

fn event_frame(key: char, frame: u32) -> KeyFrame {
    let duration = (frame + 1).min(HELD_FRAMES) as u16 * FRAME_SAMPLES as u16;
    let end = if frame >= HELD_FRAMES { 0x80 } else { 0 };
    let [high, low] = duration.to_be_bytes();
    KeyFrame::Event {
        // Volume −10 dBm0.
        payload: [event_code(key), end | 10, high, low],
        marker: frame == 0,
        age_samples: frame * FRAME_SAMPLES as u32,
    }
}

fn tones_frame(key: char, frame: u32, codec: Codec) -> KeyFrame {
    let first = u64::from(frame) * FRAME_SAMPLES as u64;
    let (row_hz, column_hz) = frequencies_hz(key);
    let (row, column) = (tone_frame(row_hz, first), tone_frame(column_hz, first));
    let both = std::array::from_fn(|index| {
        let sum = |frame: &[i16; FRAME_SAMPLES]| frame.get(index).copied().unwrap_or(0) / 2;
        sum(&row) + sum(&column)
    });
    KeyFrame::Tones(codec.encode(&both))
}

/// The INFO body for one key.
pub fn info_body(key: char) -> String {
    format!("Signal={key}\r\nDuration=100\r\n")
}

/// The key of an INFO body (`application/dtmf-relay` or `application/dtmf`).
pub fn key_of_info(content_type: &str, body: &str) -> Option<char> {
    let value = match content_type {
        "application/dtmf" => body.trim(),
        "application/dtmf-relay" => body.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            name.trim().eq_ignore_ascii_case("signal").then(|| value.trim())
        })?,
        _ => return None,
    };
    let key = value.chars().next()?;
    are_keys(&key.to_string()).then_some(key)
}

/// Turns event packets into keys, each once.
#[derive(Clone, Debug, Default)]
pub struct DigitReceiver {
    last_timestamp: Option<u32>,
}

impl DigitReceiver {
    /// The key of a payload, if it is a new event: all packets of one share their timestamp.
    pub fn receive(&mut self, timestamp: u32, payload: &[u8]) -> Option<char> {
        let code = usize::from(*payload.first()?);
        if self.last_timestamp == Some(timestamp) || payload.len() < 4 {
            return None;
        }
        let key = char::from(*KEYS.get(code)?);
        self.last_timestamp = Some(timestamp);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_events() {
        let mut sender = DigitSender::default();
        sender.push("12#", DigitMethod::Rfc4733);
        let mut receiver = DigitReceiver::default();
        let (mut sent, mut got, mut now) = (String::new(), String::new(), 5000u32);
        let mut ends = 0;
        while !sender.is_idle() {
            let (frame, begins) = sender.next(Codec::Pcmu);
            sent.extend(begins.map(|(key, _)| key));
            if let KeyFrame::Event { payload, marker, age_samples } = frame {
                assert_eq!(marker, age_samples == 0);
                ends += u32::from(payload[1] & 0x80 != 0);
                got.extend(receiver.receive(now - age_samples, &payload));
            }
            now += 160;
        }
        assert_eq!((sent.as_str(), got.as_str(), ends), ("12#", "12#", 9));
    }

    #[test]
    fn info_bodies_are_read() {
        let check = |content_type, body: &str, expect| {
            assert_eq!(key_of_info(content_type, body), expect, "{content_type} {body}");
        };
        check("application/dtmf-relay", &info_body('7'), Some('7'));
        check("application/dtmf-relay", "signal = *\nDuration=1", Some('*'));
        check("application/dtmf", "5", Some('5'));
        check("application/dtmf-relay", "Signal=", None);
        check("text/plain", "5", None);
    }

    #[test]
    fn the_pad_is_complete() {
        assert_eq!(frequencies_hz('1'), (697.0, 1209.0));
        assert_eq!(frequencies_hz('d'), (941.0, 1633.0));
        assert_eq!(frequencies_hz('0'), (941.0, 1336.0));
        assert!(are_keys("0123456789*#abcD") && !are_keys("1x") && !are_keys(""));
    }
}
