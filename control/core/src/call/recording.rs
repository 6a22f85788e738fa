//! Recordings from their beginning until their bytes are in the store.

use link_proto::{CallSid, RecordingSid};
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

impl Session {
    pub(crate) fn recording_begins(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallSid,
        source: &str,
        channels: u32,
        callback: Option<UrlMethod>,
        events: Vec<String>,
    ) -> RecordingSid {
        let callback = callback.and_then(|callback| self.absolute_target(turn, callback));
        let sid = RecordingSid::mint(turn.rng);
        let record = RecordingRecord {
            sid,
            account: self.account,
            call,
            status: RecordingStatus::InProgress,
            source: source.to_owned(),
            channels,
            duration_ms: None,
            started_unix_ms: turn.unix_ms,
            updated_unix_ms: turn.unix_ms,
        };
        turn.store(StoreOp::PutRecording(Box::new(record.clone())));
        self.recordings
            .insert(sid, PendingRecording { record, callback, events, next_callback: 0 });
        self.recording_callback(turn, sid, "in-progress");
        sid
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
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let key = format!("{sid}/{event}/{sequence}/0");
        let event = format!("recording-{event}");
        self.put_callback(turn, record.call, &event, sequence, key, &target, &params);
    }
}
