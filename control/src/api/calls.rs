//! `/Calls`.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use control_core::api::ApiAction;
use control_store::{Call, CallFilter, StoreOp};
use link_proto::{AccountSid, CallSid};
use serde_json::{Value, json};

use super::error::Failure;
use super::format::{API_VERSION, date, date_or_null, list_path, number_or_null, uri};
use super::request::{Ask, read, write};
use super::{Answer, Shared, paging};
use crate::rows;

pub(super) async fn many(context: &Shared, ask: &Ask) -> Answer {
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => {
            let action = ApiAction::CreateCall { form: ask.form.0.clone() };
            act(context, ask, StatusCode::CREATED, action).await
        }
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    let row = find(context, ask, sid).await?;
    match ask.method {
        Method::GET => Ok(Json(show(&row)).into_response()),
        Method::POST => {
            let call: CallSid = row.sid.parse().map_err(|_| Failure::not_found(&ask.path))?;
            let action = ApiAction::UpdateCall { call, form: ask.form.0.clone() };
            act(context, ask, StatusCode::OK, action).await
        }
        Method::DELETE => delete(context, row).await,
        _ => Err(Failure::method()),
    }
}

/// A call of the account.
pub(super) async fn find(context: &Shared, ask: &Ask, sid: &str) -> Result<Call, Failure> {
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.call(&wanted)).await?;
    row.filter(|row| row.account_sid == ask.account.sid)
        .ok_or_else(|| Failure::not_found(&ask.path))
}

/// Lets the core act; shows the call as it was committed.
async fn act(context: &Shared, ask: &Ask, status: StatusCode, action: ApiAction) -> Answer {
    let account: AccountSid = ask.account.sid.parse().map_err(Failure::internal)?;
    // As it was committed: what happens from now on is not asked for.
    let record = context.core.api(account, action).await?;
    Ok((status, Json(show(&rows::call(&record)))).into_response())
}

async fn delete(context: &Shared, row: Call) -> Answer {
    if matches!(row.status.as_str(), "queued" | "ringing" | "in-progress") {
        let message = "The call is still in progress and cannot be deleted";
        return Err(Failure::new(409, 20_409, message));
    }
    write(context, vec![StoreOp::DeleteCall { sid: row.sid }]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

const STATUSES: [&str; 8] =
    ["queued", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled"];

async fn list(context: &Shared, ask: &Ask) -> Answer {
    let page = paging::page(ask)?;
    let status = ask.query.filter("Status");
    if status.as_ref().is_some_and(|status| !STATUSES.contains(&status.as_str())) {
        return Err(Failure::parameter(format!("Status is none of {}", STATUSES.join(", "))));
    }
    let filter = CallFilter {
        to: ask.query.filter("To"),
        from: ask.query.filter("From"),
        parent_call_sid: ask.query.filter("ParentCallSid"),
        session_sid: None,
        status,
        start: ask.query.range("StartTime")?,
        end: ask.query.range("EndTime")?,
    };
    let (account, wanted) = (ask.account.sid.clone(), page.clone());
    let rows = read(context, move |reader| reader.calls(&account, &filter, &wanted));
    Ok(paging::list(ask, "calls", &page, &rows.await?, show))
}

/// Requests made on behalf of the call, with their answers.
pub(super) async fn events(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    if ask.method != Method::GET {
        return Err(Failure::method());
    }
    let call = find(context, ask, sid).await?;
    let page = paging::page(ask)?;
    let (size, number) = (page.size, page.number);
    let rows = read(context, move |reader| {
        let rows = reader.request_log(&call.sid, size, number)?;
        let next = reader.request_log(&call.sid, size, number.saturating_add(1))?;
        Ok((rows, !next.is_empty()))
    });
    let (rows, more) = rows.await?;
    let parse = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let events: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "request": parse(&row.request), "response": parse(&row.response) }))
        .collect();
    Ok(numbered(ask, "events", &events, size, number, more))
}

/// A list whose pages have numbers only.
fn numbered(
    ask: &Ask,
    name: &str,
    items: &[Value],
    size: u32,
    number: u32,
    more: bool,
) -> Response {
    let path = list_path(&ask.path);
    let uri = |number: u32| format!("{path}?PageSize={size}&Page={number}");
    let start = u64::from(size) * u64::from(number);
    Json(json!({
        name: items,
        "page": number,
        "page_size": size,
        "start": start,
        "end": start + (items.len() as u64).saturating_sub(1),
        "uri": uri(number),
        "first_page_uri": uri(0),
        "next_page_uri": more.then(|| uri(number + 1)),
        "previous_page_uri": number.checked_sub(1).map(uri),
    }))
    .into_response()
}

pub(super) fn show(row: &Call) -> Value {
    let rest = format!("Calls/{}", row.sid);
    let below = |name: &str| uri(&row.account_sid, &format!("{rest}/{name}"));
    json!({
        "sid": row.sid,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
        "parent_call_sid": row.parent_call_sid,
        "account_sid": row.account_sid,
        "to": row.to_,
        "to_formatted": row.to_,
        "from": row.from_,
        "from_formatted": row.from_,
        "phone_number_sid": row.phone_number_sid,
        "status": row.status,
        "start_time": date_or_null(row.start_ms),
        "end_time": date_or_null(row.end_ms),
        "duration": number_or_null(row.duration_s),
        "price": null,
        "price_unit": "USD",
        "direction": row.direction,
        "answered_by": row.answered_by,
        "annotation": null,
        "api_version": API_VERSION,
        "forwarded_from": row.forwarded_from,
        "group_sid": null,
        "caller_name": row.caller_name,
        "queue_time": row.queue_time_ms.to_string(),
        "trunk_sid": null,
        "uri": uri(&row.account_sid, &rest),
        "subresource_uris": {
            "events": below("Events"),
            "notifications": below("Notifications"),
            "recordings": below("Recordings"),
        },
    })
}
