//! The core's records as rows of the store.

use std::path::{Path, PathBuf};

use control_core::io::StoreOp;
use control_core::record::{
    Alert, CallRecord, CallbackRow, CallerIdRecord, RecordingRecord, RecordingStatus,
    RequestLogRow, TimelineRow,
};
use control_core::webhook::sign;
use control_store::{self as store, CallbackState};
use link_proto::RecordingSid;
use serde::Serialize;
use serde_json::json;

/// Turns operations of the core into operations of the store.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Folder of the recordings' files.
    pub recordings: PathBuf,
}

impl Rows {
    /// One operation.
    pub fn op(&self, op: &StoreOp) -> store::StoreOp {
        match op {
            StoreOp::PutSession { session, epoch, json } => {
                store::StoreOp::PutSession(store::Session {
                    sid: session.to_string(),
                    epoch: *epoch,
                    body: json.clone().into_bytes(),
                })
            }
            StoreOp::DeleteSession { session } => {
                store::StoreOp::DeleteSession { sid: session.to_string() }
            }
            StoreOp::PutCall(record) => store::StoreOp::PutCall(call(record)),
            StoreOp::PutCallback(row) => store::StoreOp::AddCallback(callback(row)),
            StoreOp::PutAlert(row) => store::StoreOp::PutAlert(alert(row)),
            StoreOp::PutRecording(record) => store::StoreOp::PutRecording(self.recording(record)),
            StoreOp::CompleteRecording { recording, duration_ms, channels, unix_ms } => {
                let path = recording_path(&self.recordings, *recording);
                let size = std::fs::metadata(&path).ok().map(|file| file.len());
                store::StoreOp::CompleteRecording {
                    sid: recording.to_string(),
                    duration_ms: whole(*duration_ms),
                    channels: i64::from(*channels),
                    path: path.to_string_lossy().into_owned(),
                    size_bytes: size.map(whole),
                    at_ms: whole(*unix_ms),
                }
            }
            StoreOp::PutCallerId(record) => store::StoreOp::PutCallerId(caller_id(record)),
            StoreOp::PutTimeline(row) => store::StoreOp::AddTimeline(timeline(row)),
            StoreOp::PutRequestLog(row) => store::StoreOp::AddRequestLog(request_log(row)),
        }
    }

    fn recording(&self, record: &RecordingRecord) -> store::Recording {
        let path = recording_path(&self.recordings, record.sid);
        let stored = record.status == RecordingStatus::Completed;
        let size = if stored { std::fs::metadata(&path).ok().map(|file| file.len()) } else { None };
        store::Recording {
            sid: record.sid.to_string(),
            account_sid: record.account.to_string(),
            call_sid: record.call.to_string(),
            status: word(&record.status),
            channels: i64::from(record.channels),
            source: record.source.clone(),
            track: (!record.track.is_empty()).then(|| record.track.clone()),
            duration_ms: record.duration_ms.map(whole),
            path: stored.then(|| path.to_string_lossy().into_owned()),
            size_bytes: size.map(whole),
            start_ms: Some(whole(record.started_unix_ms)),
            created_ms: whole(record.started_unix_ms),
            updated_ms: whole(record.updated_unix_ms),
            ..store::Recording::default()
        }
    }
}

/// Where the audio of a recording is.
pub fn recording_path(folder: &Path, recording: RecordingSid) -> PathBuf {
    folder.join(format!("{recording}.wav"))
}

/// A call's row.
pub(crate) fn call(record: &CallRecord) -> store::Call {
    let text = |value: &dyn std::fmt::Display| value.to_string();
    store::Call {
        sid: record.sid.to_string(),
        account_sid: record.account.to_string(),
        parent_call_sid: record.parent.as_ref().map(|sid| text(sid)),
        session_sid: record.session.to_string(),
        from_: record.from.clone(),
        to_: record.to.clone(),
        phone_number_sid: record.phone_number.as_ref().map(|sid| text(sid)),
        status: record.status.as_str().to_owned(),
        direction: record.direction.as_str().to_owned(),
        start_ms: record.started_unix_ms.map(whole),
        answered_ms: record.answered_unix_ms.map(whole),
        end_ms: record.ended_unix_ms.map(whole),
        duration_s: record.duration_s.map(whole),
        application_sid: record.application.as_ref().map(|sid| text(sid)),
        node: record.node.to_string(),
        region: record.region.as_ref().map(|region| text(region)),
        sip_call_id: record.sip_call_id.clone(),
        sip_status: record.sip_status.map(i64::from),
        stats: record.stats.as_ref().map(json_text),
        answered_by: record.answered_by.clone(),
        forwarded_from: record.forwarded_from.clone(),
        caller_name: record.caller_name.clone(),
        queue_time_ms: 0,
        end_reason: record.end_reason.as_ref().map(word),
        end_whose: record.end_whose.as_ref().map(word),
        created_ms: whole(record.created_unix_ms),
        updated_ms: whole(record.updated_unix_ms),
    }
}

fn callback(row: &CallbackRow) -> store::Callback {
    store::Callback {
        id: 0,
        key: row.key.clone(),
        account_sid: row.account.to_string(),
        call_sid: row.call.to_string(),
        session_sid: row.session.to_string(),
        event: row.event.clone(),
        sequence_number: whole(row.sequence),
        target: row.configured_url.clone(),
        request: json_text(&row.request),
        attempts: 0,
        next_at_ms: whole(row.created_unix_ms),
        state: CallbackState::Pending,
        last_error: None,
        created_ms: whole(row.created_unix_ms),
    }
}

fn alert(row: &Alert) -> store::Alert {
    store::Alert {
        sid: row.sid.clone(),
        account_sid: row.account.to_string(),
        call_sid: row.call.map(|sid| sid.to_string()),
        error_code: i64::from(row.code),
        log: i64::from(row.log_level),
        message_text: row.message.clone(),
        request_method: row.request_method.clone(),
        request_url: row.request_url.clone(),
        request_variables: row.request_variables.clone(),
        response_status: row.response_status.map(i64::from),
        response_headers: row.response_headers.clone(),
        response_body: row.response_body.clone(),
        created_ms: whole(row.at_unix_ms),
        updated_ms: whole(row.at_unix_ms),
    }
}

fn caller_id(record: &CallerIdRecord) -> store::OutgoingCallerId {
    store::OutgoingCallerId {
        sid: record.sid.clone(),
        account_sid: record.account.to_string(),
        phone_number: record.phone_number.clone(),
        friendly_name: record.friendly_name.clone(),
        created_ms: whole(record.at_unix_ms),
        updated_ms: whole(record.at_unix_ms),
    }
}

fn timeline(row: &TimelineRow) -> store::TimelineEntry {
    store::TimelineEntry {
        session_sid: row.session.to_string(),
        sequence: whole(row.sequence),
        leg_sid: row.leg.map(|sid| sid.to_string()),
        at_ms: whole(row.at_unix_ms),
        body: json_text(row),
    }
}

fn request_log(row: &RequestLogRow) -> store::RequestLogEntry {
    let form = match (&row.request.body, row.request.url.split_once('?')) {
        (Some(body), _) => body.as_str(),
        (None, Some((_, query))) => query,
        (None, None) => "",
    };
    let parameters: serde_json::Map<String, serde_json::Value> =
        url::form_urlencoded::parse(form.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
            .collect();
    // For whoever looks for the reason why a signature does not fit.
    let posted = row.request.body.as_deref().unwrap_or_default();
    let posted: Vec<(String, String)> =
        url::form_urlencoded::parse(posted.as_bytes()).into_owned().collect();
    let is_signature = |(name, _): &&(String, String)| name == sign::HEADER;
    let request = json!({
        "method": row.request.method,
        "url": row.request.url,
        "parameters": parameters,
        "signed_text": sign::signed_text(&row.request.url, &posted),
        "signature": row.request.headers.iter().find(is_signature).map(|(_, value)| value),
    });
    let response = json!({
        "response_code": row.response_status,
        "content_type": row.response_content_type,
        "response_body": row.response_body,
        "error_code": row.error_code,
        "request_duration": row.elapsed_ms,
        "date_created_unix_ms": row.at_unix_ms,
    });
    store::RequestLogEntry {
        id: 0,
        key: row.key.clone(),
        account_sid: row.account.to_string(),
        call_sid: row.call.to_string(),
        at_ms: whole(row.at_unix_ms),
        request: request.to_string(),
        response: response.to_string(),
    }
}

/// SQLite's integers are signed; our numbers are far below the limit.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The word that serde writes for an enum without fields.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

fn json_text(value: &impl Serialize) -> String {
    // Our own types have text keys only, which is the one thing that could fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use control_core::io::{HttpRequest, Method};
    use link_proto::{AccountSid, CallSid};

    use super::*;

    #[test]
    fn recordings_have_a_path_once_their_bytes_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let rows = Rows { recordings: folder.path().to_owned() };
        let sid = RecordingSid([7; 16]);
        let mut record = RecordingRecord {
            sid,
            account: AccountSid([1; 16]),
            call: CallSid([2; 16]),
            status: RecordingStatus::InProgress,
            source: "RecordVerb".into(),
            track: "inbound".into(),
            channels: 1,
            duration_ms: None,
            started_unix_ms: 5,
            updated_unix_ms: 6,
        };
        assert_eq!(rows.recording(&record).path, None);
        assert_eq!(rows.recording(&record).status, "in-progress");
        std::fs::write(recording_path(folder.path(), sid), [0; 44]).unwrap();
        record.status = RecordingStatus::Completed;
        let row = rows.recording(&record);
        assert_eq!(row.size_bytes, Some(44));
        assert!(row.path.unwrap().ends_with(&format!("{sid}.wav")));
    }

    #[test]
    fn request_log_shows_the_parameters() {
        let row = RequestLogRow {
            key: "k".into(),
            call: CallSid([2; 16]),
            account: AccountSid([1; 16]),
            at_unix_ms: 1,
            request: HttpRequest {
                method: Method::Post,
                url: "http://x/".into(),
                headers: vec![],
                body: Some("From=%2B1&To=a+b".into()),
            },
            response_status: Some(200),
            response_content_type: None,
            response_body: None,
            error_code: None,
            elapsed_ms: 3,
        };
        let entry = request_log(&row);
        let request: serde_json::Value = serde_json::from_str(&entry.request).unwrap();
        assert_eq!(request["parameters"], json!({"From": "+1", "To": "a b"}));
        assert_eq!(request["method"], "POST");
        assert_eq!(request["signed_text"], "http://x/From+1Toa b");
    }
}
