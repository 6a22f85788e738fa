//! `/Recordings` and `/Calls/{sid}/Recordings`.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse as _;
use control_store::{Recording, RecordingFilter, StoreOp};
use serde_json::{Value, json};
use tower_http::services::ServeFile;

use super::error::Failure;
use super::format::{API_VERSION, date, date_or_null, number_or_null, uri};
use super::request::{Ask, Extension, read, write};
use super::{Answer, Shared, calls, paging};

pub(super) async fn many(context: &Shared, ask: &Ask, call: Option<&str>) -> Answer {
    match ask.method {
        Method::GET => {}
        Method::POST if call.is_some() => {
            let message = "Recordings of a live call can not be started by the API yet";
            return Err(Failure::new(400, 21_220, message));
        }
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

pub(super) async fn one(context: &Shared, ask: &Ask, call: Option<&str>, sid: &str) -> Answer {
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
    if matches!(row.status.as_str(), "in-progress" | "processing") {
        let message = "The recording is not finished and cannot be deleted";
        return Err(Failure::new(409, 20_409, message));
    }
    write(context, vec![StoreOp::DeleteRecording { sid: row.sid }]).await?;
    if let Some(path) = row.path
        && let Err(error) = tokio::fs::remove_file(&path).await
    {
        tracing::warn!(%error, path, "a deleted recording's file stays");
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
    if extension == Extension::Mp3 {
        let message = "Recordings are available as .wav; mp3 is not supported yet";
        return Err(Failure::new(406, 20_406, message));
    }
    let path = row.path.filter(|_| row.status == "completed").ok_or_else(missing)?;
    let mut service = ServeFile::new_with_mime(&path, &WAV.parse().map_err(Failure::internal)?);
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
