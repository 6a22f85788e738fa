//! Digits: by telephone-event, in the audio, or by signalling; each counts once.

use media_core::dtmf::Digit;
use media_core::dtmf::detect::ToneEvent;
use media_core::dtmf::event::DigitEvent;
use media_core::frame::FRAME_SAMPLES_MAX;
use media_core::rtp::packet::RtpHeader;

use crate::command::AudioCodec;
use crate::event::WorkerEvent;
use crate::limits::SAME_DIGIT_US;
use crate::op::Body;
use crate::port::codec_of;
use crate::tx::Tx;
use crate::worker::{At, Worker};

/// How a digit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Rtp,
    Signalling,
}

/// Recognises digits that an endpoint sends both by RTP and by SIP INFO. Each digit of one way
/// cancels one of the other, so that a key pressed twice stays two digits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doubles {
    recent: [Option<(Digit, Way, u64)>; 8],
    next: usize,
}

impl Doubles {
    /// True if the digit has come the other way already.
    pub(crate) fn is_double(&mut self, digit: Digit, way: Way, now_us: u64) -> bool {
        let matches = |entry: &Option<(Digit, Way, u64)>| {
            entry.is_some_and(|(known, known_way, at_us)| {
                known == digit && known_way != way && now_us.saturating_sub(at_us) <= SAME_DIGIT_US
            })
        };
        let mut oldest: Option<&mut Option<(Digit, Way, u64)>> = None;
        for entry in self.recent.iter_mut().filter(|entry| matches(entry)) {
            let time = |entry: &Option<(Digit, Way, u64)>| entry.map_or(u64::MAX, |e| e.2);
            if oldest.as_ref().is_none_or(|other| time(entry) < time(other)) {
                oldest = Some(entry);
            }
        }
        if let Some(entry) = oldest {
            *entry = None;
            return true;
        }
        if let Some(place) = self.recent.get_mut(self.next) {
            *place = Some((digit, way, now_us));
        }
        self.next = (self.next + 1) % self.recent.len();
        false
    }
}

impl Worker {
    /// A telephone-event packet. True if its digit has come by signalling before: then it must not
    /// be relayed, because the receivers have it already.
    pub(crate) fn on_event_packet<T: Tx>(
        &mut self,
        slot: u32,
        header: &RtpHeader,
        data: &[u8],
        at: At,
        tx: &mut T,
    ) -> bool {
        let Some(port) = self.ports.get_mut(slot) else { return false };
        let payload = data.get(header.payload_range()).unwrap_or_default();
        let events = port.input.events.on_packet(header.ssrc, header.timestamp, payload, at.us);
        for event in events.into_iter().flatten() {
            let DigitEvent::Start(digit) = event else { continue };
            if self.take_digit(slot, digit, Way::Rtp, at, tx) {
                continue;
            }
            if let Some(port) = self.ports.get_mut(slot) {
                port.input.doubled_event = Some(header.timestamp);
            }
        }
        let port = self.ports.get(slot);
        port.is_some_and(|port| port.input.doubled_event == Some(header.timestamp))
    }

    /// Audio at a port that programs listen to: recordings, and DTMF in the audio.
    pub(crate) fn hear<T: Tx>(
        &mut self,
        slot: u32,
        header: &RtpHeader,
        codec: AudioCodec,
        data: &[u8],
        at: At,
        tx: &mut T,
    ) {
        let payload = data.get(header.payload_range()).unwrap_or_default();
        self.record_packet(slot, header, codec, payload, at);
        let Some(detector) = self.ports.get(slot).and_then(|port| port.input.detector) else {
            return;
        };
        let Some(detector) = self.detectors.get_mut(detector) else { return };
        let mut samples = [0i16; FRAME_SAMPLES_MAX];
        let count = codec_of(codec).decode(payload, &mut samples);
        // A packet of 120 ms can hold two digits at most.
        let mut found = [None; 4];
        let mut places = found.iter_mut();
        detector.process(samples.get(..count).unwrap_or_default(), |event| {
            if let (ToneEvent::Start(digit), Some(place)) = (event, places.next()) {
                *place = Some(digit);
            }
        });
        for digit in found.into_iter().flatten() {
            self.take_digit(slot, digit, Way::Rtp, at, tx);
        }
    }

    /// Takes a digit, unless it has come already; false then.
    pub(crate) fn take_digit<T: Tx>(
        &mut self,
        slot: u32,
        digit: Digit,
        way: Way,
        at: At,
        tx: &mut T,
    ) -> bool {
        let Some(port) = self.ports.get_mut(slot) else { return false };
        if port.input.doubles.is_double(digit, way, at.us) {
            self.stats.digits_doubled += 1;
            return false;
        }
        self.stats.digits += 1;
        let (listeners, sinks) = (port.input.listeners, port.sinks);
        if way == Way::Signalling {
            for sink in sinks.as_slice() {
                if let Some(port) = self.ports.get_mut(*sink)
                    && port.out.telephone_event.is_some()
                {
                    port.out.push_digit(digit);
                    port.out.start_rhythm(at.us);
                }
                self.schedule(*sink);
            }
        }
        for place in listeners.as_slice() {
            self.tell_digit(*place, slot, digit.as_char(), at, tx);
        }
        true
    }

    fn tell_digit<T: Tx>(&mut self, place: u32, slot: u32, digit: char, at: At, tx: &mut T) {
        let Some(op) = self.ops.get(place).filter(|op| op.port == slot) else { return };
        match &op.body {
            Body::Collect(_) => self.collect_digit(place, digit, at.us),
            Body::Record(_) => self.record_digit(place, digit, at, tx),
            Body::Watch(keys) if keys.contains(digit) => {
                let event = WorkerEvent::Key { op: op.key, key: digit };
                self.emit(event);
            }
            Body::Watch(_) | Body::Play(_) => {}
        }
    }

    /// Lends a port a detector if somebody waits for digits and they can only be in the audio, or
    /// takes it back.
    pub(crate) fn settle_detector(&mut self, slot: u32) {
        let Some(port) = self.ports.get_mut(slot) else { return };
        let listened = port
            .input
            .listeners
            .as_slice()
            .iter()
            .any(|place| self.ops.get(*place).is_some_and(|op| op.port == slot));
        let wanted = listened && port.input.telephone_event.is_none();
        match (wanted, port.input.detector) {
            (true, None) => {
                port.input.detector = self.detectors.take();
                match port.input.detector.and_then(|index| self.detectors.get_mut(index)) {
                    Some(detector) => *detector = crate::worker::new_detector(),
                    None => self.stats.detectors_missing += 1,
                }
            }
            (false, Some(index)) => {
                port.input.detector = None;
                self.detectors.give_back(index);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Way::{Rtp, Signalling};

    #[test]
    #[allow(clippy::type_complexity, reason = "a table")]
    fn one_key_pressed_counts_once_and_twice_twice() {
        let one = Digit::from_char('1').unwrap();
        let two = Digit::from_char('2').unwrap();
        let cases: [(&str, &[(Digit, Way, u64, bool)]); 5] = [
            ("both ways", &[(one, Rtp, 0, false), (one, Signalling, 300_000, true)]),
            ("signalling first", &[(one, Signalling, 0, false), (one, Rtp, 90_000, true)]),
            (
                "twice, signalling behind",
                &[
                    (one, Rtp, 0, false),
                    (one, Rtp, 200_000, false),
                    (one, Signalling, 250_000, true),
                    (one, Signalling, 450_000, true),
                ],
            ),
            (
                "too late to be the same",
                &[(one, Rtp, 0, false), (one, Signalling, 1_100_000, false)],
            ),
            (
                "other digits",
                &[(one, Rtp, 0, false), (two, Signalling, 1, false), (one, Rtp, 2, false)],
            ),
        ];
        for (name, steps) in cases {
            let mut doubles = Doubles::default();
            for (digit, way, at_us, double) in steps {
                assert_eq!(doubles.is_double(*digit, *way, *at_us), *double, "{name} {at_us}");
            }
        }
    }
}
