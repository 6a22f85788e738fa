//! Recordings from their beginning until their bytes are in the store.

use link_proto::call::CallCommand;
use link_proto::media::{MediaCommand, RecordRules, RecordTrack, StartWhen};
use link_proto::plan::Need;
use link_proto::{CallSid, NodeId, OpId, RecordingSid};
use serde::{Deserialize, Serialize};

use super::session::Session;
use super::turn::Turn;
use crate::directory::UrlMethod;
use crate::io::StoreOp;
use crate::record::{RecordingRecord, RecordingStatus};
use crate::webhook::request;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingRecording {
    pub record: RecordingRecord,
    pub callback: Option<UrlMethod>,
    pub events: Vec<String>,
    next_callback: u64,
}

/// How a leg is recorded, as the API has asked for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RecordOptions {
    pub track: RecordTrack,
    pub dual: bool,
    pub trim: bool,
    pub callback: Option<UrlMethod>,
    pub events: Vec<String>,
}

/// A recording of one leg that goes on beside the instructions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LegRecording {
    pub leg: CallSid,
    pub rules: RecordRules,
}

/// A recording of a leg ends with it.
const LENGTH_MAX_MS: u64 = 86_400_000;
/// Recordings of one leg at once: the edge keeps no more.
const AT_ONCE_MAX: usize = 4;

/// What the API asks of a running recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Pause { silence: bool },
    Resume,
    Stop,
}

impl Session {
    /// What the recordings beside the instructions need.
    pub(crate) fn leg_recording_needs(&self) -> Vec<Need> {
        let need = |(op, recording): (&OpId, &LegRecording)| Need::Record {
            op: *op,
            leg: recording.leg,
            with: None,
            rules: recording.rules.clone(),
        };
        self.leg_recordings.iter().map(need).collect()
    }

    /// Records a leg until it ends or somebody stops it. `None`: its edge cannot.
    pub(crate) fn record_leg(
        &mut self,
        turn: &mut Turn<'_>,
        sid: RecordingSid,
        leg: CallSid,
        source: &str,
        options: RecordOptions,
    ) -> Option<()> {
        let node = &self.legs.get(&leg)?.record.node;
        let records = turn.nodes.entry(node).is_some_and(|entry| entry.resources.record);
        let running = self.leg_recordings.values().filter(|other| other.leg == leg).count();
        if !records || running >= AT_ONCE_MAX {
            return None;
        }
        let RecordOptions { track, dual, trim, callback, events } = options;
        let dual_channel = dual && track == RecordTrack::Both;
        let channels = if dual_channel { 2 } else { 1 };
        self.recording_begins_as(turn, sid, leg, (source, track), channels, callback, events);
        let rules = RecordRules {
            recording: sid,
            with: None,
            track,
            dual_channel,
            start: StartWhen::Now,
            length_max_ms: LENGTH_MAX_MS,
            silence_timeout_ms: 0,
            finish_on: String::new(),
            trim_silence: trim,
        };
        let op = self.new_op();
        self.leg_recordings.insert(op, LegRecording { leg, rules });
        if self.plan_again(turn).is_err() {
            // Its edge has no room for one more.
            self.leg_recordings.remove(&op);
            self.recording_ended(turn, sid, 0, true);
            return None;
        }
        Some(())
    }

    /// The recording that an API request names; `None` = the latest of the leg.
    pub(crate) fn running_recording(
        &self,
        leg: CallSid,
        named: Option<RecordingSid>,
    ) -> Option<(OpId, RecordingSid)> {
        let mut of_leg = self.leg_recordings.iter().rev().filter(|(_, other)| other.leg == leg);
        let found = of_leg.find(|(_, other)| named.is_none_or(|sid| sid == other.rules.recording));
        found.map(|(op, other)| (*op, other.rules.recording))
    }

    /// Changes a running recording.
    pub(crate) fn change_recording(
        &mut self,
        turn: &mut Turn<'_>,
        op: OpId,
        sid: RecordingSid,
        change: Change,
    ) {
        let Some(leg) = self.leg_recordings.get(&op).map(|recording| recording.leg) else { return };
        let (command, status) = match change {
            Change::Stop => {
                self.leg_recordings.remove(&op);
                return self.plan_rest(turn);
            }
            Change::Pause { silence } => {
                (MediaCommand::PauseRecord { op, silence }, RecordingStatus::Paused)
            }
            Change::Resume => (MediaCommand::ResumeRecord { op }, RecordingStatus::InProgress),
        };
        self.command(turn, leg, CallCommand::Media(command));
        if let Some(pending) = self.recordings.get_mut(&sid) {
            pending.record.status = status;
            pending.record.updated_unix_ms = turn.unix_ms;
            turn.store(StoreOp::PutRecording(Box::new(pending.record.clone())));
        }
    }

    /// A node is gone with the recordings that it was making.
    pub(crate) fn recordings_interrupted_at(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        let recorded = |command| match command {
            MediaCommand::Record { rules, .. } => Some(rules.recording),
            _ => None,
        };
        let lost = self.lost_programs(|processor| processor.node == *node);
        let running: Vec<RecordingSid> = lost.into_iter().filter_map(recorded).collect();
        for sid in running {
            self.recording_interrupted(turn, sid);
        }
        let legs = &self.legs;
        self.leg_recordings
            .retain(|_, of| legs.get(&of.leg).is_none_or(|leg| leg.record.node != *node));
    }

    /// Its edge was lost: what it has on disk comes when it is back, if it comes in time.
    pub(crate) fn recording_interrupted(&mut self, turn: &mut Turn<'_>, sid: RecordingSid) {
        let Some(pending) = self.recordings.get_mut(&sid) else { return };
        pending.record.status = RecordingStatus::Processing;
        pending.record.updated_unix_ms = turn.unix_ms;
        turn.store(StoreOp::PutRecording(Box::new(pending.record.clone())));
    }

    pub(crate) fn recording_begins(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallSid,
        (source, track): (&str, RecordTrack),
        channels: u32,
        callback: Option<UrlMethod>,
        events: Vec<String>,
    ) -> RecordingSid {
        let sid = RecordingSid::mint(turn.rng);
        self.recording_begins_as(turn, sid, call, (source, track), channels, callback, events);
        sid
    }

    fn recording_begins_as(
        &mut self,
        turn: &mut Turn<'_>,
        sid: RecordingSid,
        call: CallSid,
        (source, track): (&str, RecordTrack),
        channels: u32,
        callback: Option<UrlMethod>,
        events: Vec<String>,
    ) {
        let callback = callback.and_then(|callback| self.absolute_target(turn, callback));
        let track = match track {
            RecordTrack::Received => "inbound",
            RecordTrack::Sent => "outbound",
            RecordTrack::Both => "both",
        };
        let record = RecordingRecord {
            sid,
            account: self.account,
            call,
            status: RecordingStatus::InProgress,
            source: source.to_owned(),
            track: track.to_owned(),
            channels,
            duration_ms: None,
            started_unix_ms: turn.unix_ms,
            updated_unix_ms: turn.unix_ms,
        };
        turn.store(StoreOp::PutRecording(Box::new(record.clone())));
        self.recordings
            .insert(sid, PendingRecording { record, callback, events, next_callback: 0 });
        self.recording_callback(turn, sid, "in-progress");
    }

    /// The edge has ended it; bytes follow unless there are none.
    pub(crate) fn recording_ended(
        &mut self,
        turn: &mut Turn<'_>,
        sid: RecordingSid,
        duration_ms: u64,
        failed: bool,
    ) {
        let Some(pending) = self.recordings.get_mut(&sid) else { return };
        let absent = failed || duration_ms == 0;
        pending.record.status =
            if absent { RecordingStatus::Absent } else { RecordingStatus::Processing };
        pending.record.duration_ms = Some(duration_ms);
        pending.record.updated_unix_ms = turn.unix_ms;
        turn.store(StoreOp::PutRecording(Box::new(pending.record.clone())));
        if absent {
            self.recording_callback(turn, sid, "absent");
            self.recordings.remove(&sid);
        }
    }

    pub(crate) fn recording_stored(
        &mut self,
        turn: &mut Turn<'_>,
        sid: RecordingSid,
        duration_ms: u64,
        channels: u32,
    ) {
        let Some(pending) = self.recordings.get_mut(&sid) else {
            turn.metrics.results_stale += 1;
            return;
        };
        pending.record.status = RecordingStatus::Completed;
        pending.record.duration_ms = Some(duration_ms);
        pending.record.channels = channels;
        pending.record.updated_unix_ms = turn.unix_ms;
        turn.store(StoreOp::PutRecording(Box::new(pending.record.clone())));
        self.recording_callback(turn, sid, "completed");
        self.recordings.remove(&sid);
    }

    /// Bytes that have not come by now do not come.
    pub(crate) fn give_up_recordings(&mut self, turn: &mut Turn<'_>) {
        let all: Vec<RecordingSid> = self.recordings.keys().copied().collect();
        for sid in all {
            self.recording_ended(turn, sid, 0, true);
        }
    }

    /// A recording of that leg with its length, if one was made and is known.
    pub(crate) fn recording_of(&self, call: CallSid) -> Option<(RecordingSid, u64)> {
        self.recordings
            .values()
            .filter(|pending| pending.record.call == call && pending.record.source != "RecordVerb")
            .find_map(|pending| Some((pending.record.sid, pending.record.duration_ms?)))
    }

    pub(crate) fn recording_url(&self, turn: &Turn<'_>, sid: RecordingSid) -> String {
        let (base, account) = (&turn.config.public_url, self.account);
        format!("{base}/2010-04-01/Accounts/{account}/Recordings/{sid}")
    }

    fn recording_callback(&mut self, turn: &mut Turn<'_>, sid: RecordingSid, event: &str) {
        let url = self.recording_url(turn, sid);
        let Some(pending) = self.recordings.get_mut(&sid) else { return };
        let Some(target) = pending.callback.clone() else { return };
        if !pending.events.iter().any(|wanted| wanted == event) {
            return;
        }
        let sequence = pending.next_callback;
        pending.next_callback += 1;
        let record = pending.record.clone();
        let seconds = record.duration_ms.unwrap_or(0).div_ceil(1_000).to_string();
        let params: Vec<(String, String)> = [
            ("AccountSid", record.account.to_string()),
            ("CallSid", record.call.to_string()),
            ("RecordingSid", sid.to_string()),
            ("RecordingUrl", url),
            ("RecordingStatus", event.to_owned()),
            ("RecordingDuration", seconds),
            ("RecordingChannels", record.channels.to_string()),
            ("RecordingStartTime", request::rfc2822(record.started_unix_ms)),
            ("RecordingSource", record.source),
            ("RecordingTrack", record.track),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let key = format!("{sid}/{event}/{sequence}/0");
        let event = format!("recording-{event}");
        self.put_callback(turn, record.call, &event, sequence, key, &target, &params);
    }
}
