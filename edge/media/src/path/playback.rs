//! Play programs: their items turned into frames.

use media_core::dtmf::{Digit, generate};
use media_core::tone::{ToneGenerator, ToneSpec};
use media_core::units::SampleRate;

use crate::command::ProgramItem;
use crate::event::{PlayEnd, WorkerEvent};
use crate::limits::{DIGIT_MS, DIGIT_PAUSE_MS, PROMPT_TIMES_MAX};
use crate::op::Body;
use crate::port::Source;
use crate::worker::{Returned, Worker};

const SAMPLES_PER_MS: u64 = 8;
const RATE: SampleRate = SampleRate::HZ_8000;

/// What a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rendered {
    /// Audio.
    Audio,
    /// Silence, and this digit is to be sent as an event next.
    Digit(Digit),
}

/// A running play program.
#[derive(Debug)]
pub(crate) struct Play {
    items: Vec<ProgramItem>,
    index: usize,
    /// Position within the item: samples of a prompt, characters of digits.
    at: usize,
    rounds: u32,
    tone: Option<ToneGenerator>,
    tone_left: u64,
    /// Silence, behind the tone if there is one.
    quiet_left: u64,
    /// Its first packet was sent.
    pub(crate) started: bool,
}

impl Play {
    pub(crate) fn new(items: Vec<ProgramItem>) -> Self {
        Self {
            items,
            index: 0,
            at: 0,
            rounds: 0,
            tone: None,
            tone_left: 0,
            quiet_left: 0,
            started: false,
        }
    }

    pub(crate) fn into_items(self) -> Vec<ProgramItem> {
        self.items
    }

    /// Whether everything was rendered.
    pub(crate) fn is_finished(&self) -> bool {
        let mut rest = self.items.get(self.index..).unwrap_or_default().iter();
        self.quiet_left == 0 && self.tone_left == 0 && rest.all(|item| self.is_over(item))
    }

    /// Whether nothing of an item is left. Only the present one can be half over.
    fn is_over(&self, item: &ProgramItem) -> bool {
        let present = self.items.get(self.index).is_some_and(|now| std::ptr::eq(now, item));
        let at = if present { self.at } else { 0 };
        match item {
            ProgramItem::Prompt { prompt, times } => {
                let last = *times != 0 && self.rounds + 1 >= (*times).min(PROMPT_TIMES_MAX);
                prompt.samples.is_empty() || (present && last && at >= prompt.samples.len())
            }
            ProgramItem::Pause { length_ms } | ProgramItem::Beep { length_ms } => *length_ms == 0,
            ProgramItem::Digits { digits } => at >= digits.len(),
            ProgramItem::Ringback { .. } => false,
        }
    }

    fn next_item(&mut self) {
        self.index += 1;
        self.at = 0;
        self.rounds = 0;
    }

    /// The next frame; behind the end it is silent. `events`: digits go out as events.
    pub(crate) fn render(&mut self, out: &mut [i16], events: bool) -> Rendered {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if self.tone_left > 0 {
                filled += self.render_tone(rest);
            } else if self.quiet_left > 0 {
                let count = part(rest.len(), self.quiet_left);
                rest.iter_mut().take(count).for_each(|sample| *sample = 0);
                self.quiet_left -= count as u64;
                filled += count;
            } else if self.index >= self.items.len() {
                rest.fill(0);
                break;
            } else if let Some(digit) = self.begin_item(rest, events, &mut filled) {
                if let Some(rest) = out.get_mut(filled..) {
                    rest.fill(0);
                }
                return Rendered::Digit(digit);
            }
        }
        Rendered::Audio
    }

    /// Makes a step in the present item: copies audio, sets up a tone or silence, or moves on.
    fn begin_item(&mut self, rest: &mut [i16], events: bool, filled: &mut usize) -> Option<Digit> {
        match self.items.get(self.index)? {
            ProgramItem::Prompt { prompt, times } => {
                let samples = prompt.samples.get(self.at..).unwrap_or_default();
                if samples.is_empty() {
                    let times = (*times).min(PROMPT_TIMES_MAX);
                    self.rounds = self.rounds.saturating_add(1);
                    self.at = 0;
                    if prompt.samples.is_empty() || (times != 0 && self.rounds >= times) {
                        self.next_item();
                    }
                    return None;
                }
                let count = samples.len().min(rest.len());
                for (to, from) in rest.iter_mut().zip(samples) {
                    *to = *from;
                }
                self.at += count;
                *filled += count;
            }
            ProgramItem::Pause { length_ms } => {
                self.quiet_left = length_ms.saturating_mul(SAMPLES_PER_MS);
                self.next_item();
            }
            ProgramItem::Beep { length_ms } => {
                self.tone_left = length_ms.saturating_mul(SAMPLES_PER_MS);
                self.tone = Some(ToneGenerator::new(&ToneSpec::beep(), RATE));
                self.next_item();
            }
            ProgramItem::Ringback { country } => {
                let country = std::str::from_utf8(country).unwrap_or_default();
                self.tone = Some(ToneGenerator::new(&ToneSpec::ringback(country), RATE));
                self.tone_left = u64::MAX;
                self.next_item();
            }
            ProgramItem::Digits { digits } => {
                let character = digits.as_bytes().get(self.at).copied();
                return self.begin_digit(character, events);
            }
        }
        None
    }

    fn begin_digit(&mut self, character: Option<u8>, events: bool) -> Option<Digit> {
        let Some(character) = character else {
            self.next_item();
            return None;
        };
        self.at += 1;
        match character {
            b'w' => self.quiet_left = 500 * SAMPLES_PER_MS,
            b'W' => self.quiet_left = 1_000 * SAMPLES_PER_MS,
            _ => {
                let digit = Digit::from_char(char::from(character))?;
                self.quiet_left = u64::from(DIGIT_PAUSE_MS) * SAMPLES_PER_MS;
                if events {
                    return Some(digit);
                }
                self.tone = Some(generate::generator(digit, RATE));
                self.tone_left = u64::from(DIGIT_MS) * SAMPLES_PER_MS;
            }
        }
        None
    }

    fn render_tone(&mut self, rest: &mut [i16]) -> usize {
        let count = part(rest.len(), self.tone_left);
        if let (Some(tone), Some(rest)) = (&mut self.tone, rest.get_mut(..count)) {
            tone.fill(rest);
        }
        self.tone_left -= count as u64;
        count
    }
}

fn part(room: usize, left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(room)
}

impl Worker {
    /// Ends a play program: its port goes on without a source, in the same rhythm.
    pub(crate) fn end_play(&mut self, place: u32, end: PlayEnd) {
        let Some(op) = self.ops.remove(place) else { return };
        if let Some(port) = self.ports.get_mut(op.port)
            && port.out.source == Source::Play(place)
        {
            port.out.source = Source::None;
        }
        self.emit(WorkerEvent::PlayDone { op: op.key, end });
        if let Body::Play(play) = op.body {
            self.returned.push_back(Returned::Items(play.into_items()));
        }
        self.schedule(op.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Prompt;
    use std::sync::Arc;

    fn prompt(samples: Vec<i16>, times: u32) -> ProgramItem {
        ProgramItem::Prompt { prompt: Arc::new(Prompt { samples }), times }
    }

    fn frames(items: Vec<ProgramItem>, events: bool) -> (Vec<i16>, Vec<(usize, char)>) {
        let mut play = Play::new(items);
        let (mut samples, mut digits) = (Vec::new(), Vec::new());
        while !play.is_finished() && samples.len() < 80_000 {
            let mut frame = [99; 160];
            if let Rendered::Digit(digit) = play.render(&mut frame, events) {
                digits.push((samples.len(), digit.as_char()));
            }
            samples.extend_from_slice(&frame);
        }
        (samples, digits)
    }

    #[test]
    fn items_follow_each_other_without_a_seam() {
        let pause = ProgramItem::Pause { length_ms: 10 };
        let (samples, _) =
            frames(vec![prompt(vec![1; 100], 3), pause, prompt(vec![2; 20], 1)], true);
        assert_eq!(samples.len(), 480);
        let mut expected = vec![1; 300];
        expected.extend([0; 80]);
        expected.extend([2; 20]);
        expected.resize(480, 0);
        assert_eq!(samples, expected);
    }

    #[test]
    fn a_program_of_whole_frames_ends_with_the_last_one() {
        let (samples, _) = frames(vec![prompt(vec![5; 320], 2)], true);
        assert_eq!(samples, vec![5; 640]);
    }

    #[test]
    fn empty_items_end_at_once_and_endless_ones_never() {
        let empty = vec![
            prompt(vec![], 0),
            ProgramItem::Pause { length_ms: 0 },
            ProgramItem::Beep { length_ms: 0 },
            ProgramItem::Digits { digits: String::new() },
        ];
        assert!(Play::new(Vec::new()).is_finished());
        assert_eq!(frames(empty, true).0.len(), 0);
        assert_eq!(frames(vec![prompt(vec![7; 33], 0)], true).0.len(), 80_000);
        assert_eq!(frames(vec![ProgramItem::Ringback { country: *b"us" }], true).0.len(), 80_000);
        let (many, _) = frames(vec![prompt(vec![7; 10], 5_000)], true);
        assert_eq!(many.len(), 10_080, "cut to the largest number of rounds, in whole frames");
    }

    #[test]
    fn digits_are_events_or_tones() {
        let digits = || vec![ProgramItem::Digits { digits: "1w#".to_owned() }];
        let (samples, events) = frames(digits(), true);
        assert_eq!(events.iter().map(|(_, c)| *c).collect::<String>(), "1#");
        assert!(samples.iter().all(|s| *s == 0));
        assert!(events[1].0 >= 4_000 + 640);
        let (samples, events) = frames(digits(), false);
        assert!(events.is_empty());
        let mut heard = String::new();
        crate::worker::new_detector().process(&samples, |event| {
            if let media_core::dtmf::detect::ToneEvent::Start(digit) = event {
                heard.push(digit.as_char());
            }
        });
        assert_eq!(heard, "1#");
    }
}
