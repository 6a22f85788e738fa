//! `/Recordings` and `/Calls/{sid}/Recordings`.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse as _;
use control_core::api::ApiAction;
use control_media_layer::transcode::{Format, encode_wav};
use control_store::{Recording, RecordingFilter, StoreOp};
use link_proto::{AccountSid, CallSid, RecordingSid};
use serde_json::{Value, json};
use tower_http::services::ServeFile;

use super::error::Failure;
use super::format::{API_VERSION, date, date_or_null, number_or_null, uri};
use super::request::{Ask, Extension, read, write};
use super::{Answer, Shared, calls, paging};
use crate::housekeeping;

pub(super) async fn many(context: &Shared, ask: &Ask, call: Option<&str>) -> Answer {
    match ask.method {
        Method::GET => {}
        Method::POST => match call {
            Some(sid) => return start(context, ask, sid).await,
            None => return Err(Failure::method()),
        },
        _ => return Err(Failure::method()),
    }
    let call_sid = match call {
        Some(sid) => Some(calls::find(context, ask, sid).await?.sid),
        None => ask.query.filter("CallSid"),
    };
    let page = paging::page(ask)?;
    let filter = RecordingFilter {
        call_sid,
        conference_sid: ask.query.filter("ConferenceSid"),
        created: ask.query.range("DateCreated")?,
    };
    let (account, wanted) = (ask.account.sid.clone(), page.clone());
    let rows = read(context, move |reader| reader.recordings(&account, &filter, &wanted));
    let public_url = context.public_url.clone();
    let show = |row: &Recording| show(row, &public_url);
    Ok(paging::list(ask, "recordings", &page, &rows.await?, show))
}

/// Records a call that is in progress.
async fn start(context: &Shared, ask: &Ask, call: &str) -> Answer {
    let call = calls::find(context, ask, call).await?;
    let call: CallSid = call.sid.parse().map_err(|_| Failure::not_found(&ask.path))?;
    let account: AccountSid = ask.account.sid.parse().map_err(Failure::internal)?;
    let mut rng = link_daemon::entropy::seeded_rng().map_err(Failure::internal)?;
    let recording = RecordingSid::mint(&mut rng);
    let action = ApiAction::StartRecording { call, recording, form: ask.form.0.clone() };
    context.core.api(account, action).await?;
    let row = find(context, &ask.account.sid, &recording.to_string()).await?;
    let row = row.ok_or_else(|| Failure::internal("a recording was not stored"))?;
    Ok((StatusCode::CREATED, Json(show(&row, &context.public_url))).into_response())
}

/// What the ecosystem calls the recording that was started last.
const CURRENT: &str = "Twilio.CURRENT";

/// Pauses a recording, goes on with it, or stops it.
async fn update(context: &Shared, ask: &Ask, call: &str, sid: &str) -> Answer {
    let call = calls::find(context, ask, call).await?;
    let missing = || Failure::not_found(&ask.path);
    let named: Option<RecordingSid> =
        if sid == CURRENT { None } else { Some(sid.parse().map_err(|_| missing())?) };
    let running = match named {
        Some(sid) => sid.to_string(),
        None => newest(context, ask, &call.sid).await?.ok_or_else(missing)?,
    };
    let call: CallSid = call.sid.parse().map_err(|_| missing())?;
    let account: AccountSid = ask.account.sid.parse().map_err(Failure::internal)?;
    let recording = Some(running.parse().map_err(|_| missing())?);
    let action = ApiAction::UpdateRecording { call, recording, form: ask.form.0.clone() };
    context.core.api(account, action).await?;
    let row = find(context, &ask.account.sid, &running).await?.ok_or_else(missing)?;
    Ok(Json(show(&row, &context.public_url)).into_response())
}

/// The newest recording of a call that can be changed.
async fn newest(context: &Shared, ask: &Ask, call: &str) -> Result<Option<String>, Failure> {
    let filter = RecordingFilter { call_sid: Some(call.to_owned()), ..Default::default() };
    let (account, page) = (ask.account.sid.clone(), paging::page(ask)?);
    let rows = read(context, move |reader| reader.recordings(&account, &filter, &page)).await?;
    let running = |row: &&Recording| matches!(row.status.as_str(), "in-progress" | "paused");
    let of_api = |row: &&Recording| row.source != "RecordVerb" && row.source != "DialVerb";
    Ok(rows.items.iter().filter(running).find(of_api).map(|row| row.sid.clone()))
}

pub(super) async fn one(context: &Shared, ask: &Ask, call: Option<&str>, sid: &str) -> Answer {
    if let (&Method::POST, Some(call)) = (&ask.method, call) {
        return update(context, ask, call, sid).await;
    }
    let found = find(context, &ask.account.sid, sid).await?;
    let found = found.filter(|row| call.is_none_or(|call| call == row.call_sid));
    let row = found.ok_or_else(|| Failure::not_found(&ask.path))?;
    match ask.method {
        Method::GET => Ok(Json(show(&row, &context.public_url)).into_response()),
        Method::DELETE => delete(context, row).await,
        _ => Err(Failure::method()),
    }
}

async fn find(context: &Shared, account: &str, sid: &str) -> Result<Option<Recording>, Failure> {
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.recording(&wanted)).await?;
    Ok(row.filter(|row| row.account_sid == account))
}

async fn delete(context: &Shared, row: Recording) -> Answer {
    if matches!(row.status.as_str(), "in-progress" | "paused" | "processing") {
        let message = "The recording is not finished and cannot be deleted";
        return Err(Failure::new(409, 20_409, message));
    }
    write(context, vec![StoreOp::DeleteRecording { sid: row.sid }]).await?;
    if let Some(path) = row.path {
        // What stays behind is found by the housekeeping.
        let _ = tokio::task::spawn_blocking(move || housekeeping::remove_files(&path)).await;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The audio, whole or in ranges.
pub(super) async fn audio(
    context: &Shared,
    account: &str,
    sid: &str,
    extension: Extension,
    request: Request,
) -> Answer {
    let (parts, _) = request.into_parts();
    let missing = || Failure::not_found(parts.uri.path());
    let row = find(context, account, sid).await?.ok_or_else(missing)?;
    let path = row.path.filter(|_| row.status == "completed").ok_or_else(missing)?;
    let (path, mime) = match extension {
        Extension::Mp3 => (converted(path, Format::Mp3).await?, Format::Mp3.mime()),
        Extension::Ogg => (converted(path, Format::Opus).await?, Format::Opus.mime()),
        _ => (PathBuf::from(path), WAV),
    };
    let mut service = ServeFile::new_with_mime(&path, &mime.parse().map_err(Failure::internal)?);
    let mut plain = Request::new(Body::empty());
    *plain.method_mut() = parts.method.clone();
    for name in [header::RANGE, header::IF_RANGE, header::IF_MODIFIED_SINCE] {
        if let Some(value) = parts.headers.get(&name) {
            plain.headers_mut().insert(name, value.clone());
        }
    }
    let response = service.try_call(plain).await.map_err(Failure::internal)?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(missing());
    }
    Ok(response.map(Body::new).into_response())
}

fn converted_path(wav: &str, format: Format) -> PathBuf {
    Path::new(wav).with_extension(format.to_string())
}

/// The recording in another format, made when it is asked for the first time.
async fn converted(wav: String, format: Format) -> Result<PathBuf, Failure> {
    let path = converted_path(&wav, format);
    if tokio::fs::try_exists(&path).await.unwrap_or(false) {
        return Ok(path);
    }
    let work = move || -> anyhow::Result<PathBuf> {
        let bytes = encode_wav(&std::fs::read(&wav)?, format)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, &bytes)?;
        file.persist(&path)?;
        Ok(path)
    };
    let made = tokio::task::spawn_blocking(work).await.map_err(Failure::internal)?;
    made.map_err(|error| Failure::internal(format!("{error:#}")))
}

const WAV: &str = "audio/x-wav";

fn show(row: &Recording, public_url: &str) -> Value {
    let rest = format!("Recordings/{}", row.sid);
    let media = format!("{public_url}/{API_VERSION}/Accounts/{}/{rest}", row.account_sid);
    // Whole seconds, rounded up, as in callbacks.
    let duration_s = row.duration_ms.map(|ms| (ms.max(0) as u64).div_ceil(1000) as i64);
    json!({
        "sid": row.sid,
        "account_sid": row.account_sid,
        "api_version": API_VERSION,
        "call_sid": row.call_sid,
        "conference_sid": row.conference_sid,
        "status": row.status,
        "channels": row.channels,
        "source": row.source,
        "track": row.track,
        "duration": number_or_null(duration_s),
        "start_time": date_or_null(row.start_ms),
        "error_code": row.error_code,
        "price": null,
        "price_unit": "USD",
        "encryption_details": null,
        "media_url": media,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
        "uri": uri(&row.account_sid, &rest),
        "subresource_uris": {},
    })
}
