//! `/OutgoingCallerIds`: numbers that are not the account's but may be shown by its calls, each
//! verified by a call that asks for a code.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use control_core::api::ApiAction;
use control_store::{NumberFilter, OutgoingCallerId, StoreOp};
use link_proto::AccountSid;
use serde_json::{Value, json};

use super::error::Failure;
use super::format::{date, uri};
use super::request::{Ask, now_ms, read, write_directory};
use super::{Answer, Shared, paging};

pub(super) async fn many(context: &Shared, ask: &Ask) -> Answer {
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => verify(context, ask).await,
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.caller_id(&wanted)).await?;
    let row = row.filter(|row| row.account_sid == ask.account.sid);
    let mut row = row.ok_or_else(|| Failure::not_found(&ask.path))?;
    match ask.method {
        Method::GET => Ok(Json(show(&row)).into_response()),
        Method::POST => {
            if let Some(name) = ask.form.friendly_name()? {
                row.friendly_name = name;
            }
            row.updated_ms = now_ms();
            write_directory(context, vec![StoreOp::PutCallerId(row.clone())]).await?;
            Ok(Json(show(&row)).into_response())
        }
        Method::DELETE => {
            write_directory(context, vec![StoreOp::DeleteCallerId { sid: row.sid }]).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Failure::method()),
    }
}

async fn list(context: &Shared, ask: &Ask) -> Answer {
    let page = paging::page(ask)?;
    let (account, wanted) = (ask.account.sid.clone(), page.clone());
    let filter = NumberFilter {
        phone_number: ask.query.filter("PhoneNumber"),
        friendly_name: ask.query.filter("FriendlyName"),
    };
    let rows = read(context, move |reader| reader.caller_ids(&account, &filter, &wanted));
    Ok(paging::list(ask, "outgoing_caller_ids", &page, &rows.await?, show))
}

/// Calls the number; the answer has the code that has to be keyed in there.
async fn verify(context: &Shared, ask: &Ask) -> Answer {
    ask.form.friendly_name()?;
    let account: AccountSid = ask.account.sid.parse().map_err(Failure::internal)?;
    let code = code();
    let action = ApiAction::VerifyCallerId { code: code.clone(), form: ask.form.0.clone() };
    let call = context.core.api(account, action).await?;
    Ok(Json(json!({
        "account_sid": ask.account.sid,
        "call_sid": call.sid.to_string(),
        "friendly_name": ask.form.filter("FriendlyName").unwrap_or_else(|| call.to.clone()),
        "phone_number": call.to,
        "validation_code": code,
    }))
    .into_response())
}

/// Six random digits.
fn code() -> String {
    use rand::RngExt as _;
    format!("{:06}", rand::rng().random_range(0..1_000_000))
}

fn show(row: &OutgoingCallerId) -> Value {
    json!({
        "sid": row.sid,
        "account_sid": row.account_sid,
        "friendly_name": row.friendly_name,
        "phone_number": row.phone_number,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
        "uri": uri(&row.account_sid, &format!("OutgoingCallerIds/{}", row.sid)),
    })
}
