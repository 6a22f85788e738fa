//! Our own additions: live sessions and timelines.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::Method;
use axum::response::IntoResponse as _;
use control_store::{Call, CallFilter, Page};
use serde_json::{Value, json};

use super::error::Failure;
use super::request::{Ask, read};
use super::{Answer, Shared, auth, calls};

pub(super) async fn dispatch(context: &Shared, ask: &Ask, rest: &[&str]) -> Answer {
    if ask.method != Method::GET {
        return Err(Failure::method());
    }
    match rest {
        ["calls"] => live(context, ask).await,
        ["calls", sid] | ["calls", sid, "timeline"] => timeline(context, ask, sid).await,
        _ => Err(Failure::not_found(&ask.path)),
    }
}

/// Sessions with a leg that has not ended.
async fn live(context: &Shared, ask: &Ask) -> Answer {
    let rows = read(context, |reader| reader.calls_unfinished()).await?;
    let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.account_sid == ask.account.sid) {
        sessions.entry(row.session_sid.clone()).or_default().push(leg(row));
    }
    let sessions: Vec<Value> =
        sessions.into_iter().map(|(sid, legs)| json!({ "session": sid, "legs": legs })).collect();
    Ok(Json(json!({ "sessions": sessions })).into_response())
}

/// Everything about the session that a call belongs to.
async fn timeline(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    let wanted = sid.to_owned();
    let call = read(context, move |reader| reader.call(&wanted)).await?;
    let call = call.ok_or_else(|| Failure::not_found(&ask.path))?;
    auth::reachable(context, &ask.caller, &call.account_sid).await?;
    let session = call.session_sid.clone();
    let name = session.clone();
    let (legs, lines) = read(context, move |reader| {
        let filter = CallFilter { session_sid: Some(session.clone()), ..CallFilter::default() };
        let legs = reader.calls(&call.account_sid, &filter, &Page::first(1000))?;
        Ok((legs.items, reader.timeline(&session)?))
    })
    .await?;
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(&line.body).unwrap_or_else(|_| json!(line.body)))
        .collect();
    Ok(Json(json!({
        "session": name,
        "legs": legs.iter().rev().map(leg).collect::<Vec<_>>(),
        "timeline": lines,
    }))
    .into_response())
}

fn leg(row: &Call) -> Value {
    let mut body = calls::show(row);
    if let Value::Object(fields) = &mut body {
        let stats = row.stats.as_deref().and_then(|text| serde_json::from_str(text).ok());
        fields.insert("node".into(), json!(row.node));
        fields.insert("region".into(), json!(row.region));
        fields.insert("sip_call_id".into(), json!(row.sip_call_id));
        fields.insert("sip_status".into(), json!(row.sip_status));
        fields.insert("end_reason".into(), json!(row.end_reason));
        fields.insert("end_whose".into(), json!(row.end_whose));
        fields.insert("stats".into(), stats.unwrap_or(Value::Null));
        fields.remove("subresource_uris");
    }
    body
}
