//! Record: a beep, then what the caller says.

use link_proto::media::{PlayItem, RecordEnd, RecordRules, RecordTrack, StartWhen};
use link_proto::plan::Need;
use link_proto::{OpId, RecordingSid};
use serde::{Deserialize, Serialize};

use super::runner::Activity;
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::error_code;
use crate::verb::Record;

const BEEP_MS: u64 = 400;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Recording {
    pub op: OpId,
    pub recording: RecordingSid,
    pub verb: Record,
    /// Length in ms, when it has ended with the leg and the leg's end is yet to come.
    pub result: Option<u64>,
}

impl Session {
    pub(crate) fn start_record(&mut self, turn: &mut Turn<'_>, verb: &Record) {
        self.accept(turn);
        self.phase(turn, "Record");
        let leg = self.sid;
        let (callback, events) = (verb.callback.clone(), verb.callback_events.clone());
        let recording = self.recording_begins(
            turn,
            leg,
            ("RecordVerb", RecordTrack::Received),
            1,
            callback,
            events,
        );
        let beep = verb.beep.then(|| self.new_op());
        let op = self.new_op();
        let rules = RecordRules {
            recording,
            with: None,
            track: Default::default(),
            dual_channel: false,
            start: beep.map_or(StartWhen::Now, StartWhen::AfterPlay),
            length_max_ms: verb.length_max_ms,
            silence_timeout_ms: verb.timeout_ms,
            finish_on: verb.finish_on.clone(),
            trim_silence: verb.trim,
        };
        let mut needs = Vec::new();
        let items = vec![PlayItem::Beep { length_ms: BEEP_MS }];
        needs.extend(beep.map(|op| Need::Play { op, leg, items, speech: false }));
        needs.push(Need::Record { op, leg, with: None, rules });
        let state = Recording { op, recording, verb: verb.clone(), result: None };
        self.run.activity = Activity::Recording(state);
        if let Err(error) = self.set_needs(turn, needs) {
            self.recording_ended(turn, recording, 0, true);
            self.fail(turn, error_code::INTERNAL, &error.to_string(), None);
        }
    }

    pub(crate) fn run_record_done(
        &mut self,
        turn: &mut Turn<'_>,
        op: OpId,
        duration_ms: u64,
        end: RecordEnd,
    ) {
        let gone = self.caller().is_none_or(|leg| leg.ended());
        let Activity::Recording(recording) = &mut self.run.activity else { return };
        if recording.op != op {
            return;
        }
        match end {
            RecordEnd::LegEnded if !gone => recording.result = Some(duration_ms),
            RecordEnd::LegEnded => {
                let recording = recording.clone();
                self.tell_recording(turn, &recording, duration_ms, "hangup");
            }
            RecordEnd::Failed => {
                let alert = self.alert(turn, 0, error_code::INTERNAL, "the recording has failed");
                self.put_alert(turn, alert);
                self.next_verb(turn);
            }
            // Nothing was recorded: the verbs after it are reached.
            _ if duration_ms == 0 => self.next_verb(turn),
            _ => {
                let digits = match end {
                    RecordEnd::FinishKey(key) => key.to_string(),
                    _ => String::new(),
                };
                let recording = recording.clone();
                self.tell_recording(turn, &recording, duration_ms, &digits);
            }
        }
    }

    pub(crate) fn record_caller_ended(&mut self, turn: &mut Turn<'_>, recording: Recording) {
        match recording.result {
            Some(duration_ms) => self.tell_recording(turn, &recording, duration_ms, "hangup"),
            // The edge reports it yet.
            None => self.run.activity = Activity::Recording(recording),
        }
    }

    fn tell_recording(
        &mut self,
        turn: &mut Turn<'_>,
        recording: &Recording,
        duration_ms: u64,
        digits: &str,
    ) {
        let url = self.recording_url(turn, recording.recording);
        let mut params = vec![
            ("RecordingUrl".to_owned(), url),
            ("RecordingSid".to_owned(), recording.recording.to_string()),
            ("RecordingDuration".to_owned(), duration_ms.div_ceil(1_000).to_string()),
        ];
        if !digits.is_empty() {
            params.push(("Digits".to_owned(), digits.to_owned()));
        }
        self.run.last_params = params.clone();
        self.ask(turn, recording.verb.action.as_deref(), recording.verb.method, params);
    }
}
