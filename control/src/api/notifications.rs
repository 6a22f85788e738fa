//! `/Notifications` and `/Calls/{sid}/Notifications`: alerts (FBK-05).

use axum::Json;
use axum::http::Method;
use axum::response::IntoResponse as _;
use control_store::{Alert, AlertFilter};
use serde_json::{Value, json};

use super::error::Failure;
use super::format::{API_VERSION, date, uri};
use super::request::{Ask, read};
use super::{Answer, Shared, calls, paging};

pub(super) async fn many(context: &Shared, ask: &Ask, call: Option<&str>) -> Answer {
    if ask.method != Method::GET {
        return Err(Failure::method());
    }
    let call_sid = match call {
        Some(sid) => Some(calls::find(context, ask, sid).await?.sid),
        None => None,
    };
    let log = match ask.query.filter("Log").as_deref() {
        None => None,
        Some("0") => Some(0),
        Some("1") => Some(1),
        Some(_) => return Err(Failure::parameter("Log: neither 0 (errors) nor 1 (warnings)")),
    };
    let filter = AlertFilter { call_sid, log, created: ask.query.range("MessageDate")? };
    let page = paging::page(ask)?;
    let (account, wanted) = (ask.account.sid.clone(), page.clone());
    let rows = read(context, move |reader| reader.alerts(&account, &filter, &wanted));
    Ok(paging::list(ask, "notifications", &page, &rows.await?, show))
}

pub(super) async fn one(context: &Shared, ask: &Ask, call: Option<&str>, sid: &str) -> Answer {
    if ask.method != Method::GET {
        return Err(Failure::method());
    }
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.alert(&wanted)).await?;
    let row = row.filter(|row| row.account_sid == ask.account.sid);
    let row = row.filter(|row| call.is_none_or(|call| row.call_sid.as_deref() == Some(call)));
    let row = row.ok_or_else(|| Failure::not_found(&ask.path))?;
    let mut body = show(&row);
    if let Value::Object(fields) = &mut body {
        fields.insert("request_variables".into(), json!(row.request_variables));
        fields.insert("response_status".into(), json!(row.response_status));
        fields.insert("response_headers".into(), json!(row.response_headers));
        fields.insert("response_body".into(), json!(row.response_body));
    }
    Ok(Json(body).into_response())
}

fn show(row: &Alert) -> Value {
    json!({
        "sid": row.sid,
        "account_sid": row.account_sid,
        "api_version": API_VERSION,
        "call_sid": row.call_sid,
        "log": row.log.to_string(),
        "error_code": row.error_code.to_string(),
        "more_info": format!("https://www.twilio.com/docs/errors/{}", row.error_code),
        "message_text": row.message_text,
        "message_date": date(row.created_ms),
        "request_method": row.request_method,
        "request_url": row.request_url,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
        "uri": uri(&row.account_sid, &format!("Notifications/{}", row.sid)),
    })
}
