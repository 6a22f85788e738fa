//! `/Keys` and `/SigningKeys`, two names of one thing: credentials of an account beside its token,
//! each with a secret that is shown once and can be withdrawn.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use control_store::{ApiKey, StoreOp};
use serde_json::{Value, json};

use super::error::Failure;
use super::format::date;
use super::request::{Ask, mint, now_ms, read, write};
use super::{Answer, Shared, auth, paging};

pub(super) async fn many(context: &Shared, ask: &Ask) -> Answer {
    ask.needs_token()?;
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => create(context, ask).await,
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    ask.needs_token()?;
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.api_key(&wanted)).await?;
    let row = row.filter(|row| row.account_sid == ask.account.sid);
    let mut row = row.ok_or_else(|| Failure::not_found(&ask.path))?;
    match ask.method {
        Method::GET => Ok(Json(show(&row)).into_response()),
        Method::POST => {
            if let Some(name) = ask.form.friendly_name()? {
                row.friendly_name = name;
            }
            row.updated_ms = now_ms();
            write(context, vec![StoreOp::PutApiKey(row.clone())]).await?;
            Ok(Json(show(&row)).into_response())
        }
        Method::DELETE => {
            write(context, vec![StoreOp::DeleteApiKey { sid: row.sid }]).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Failure::method()),
    }
}

async fn list(context: &Shared, ask: &Ask) -> Answer {
    let page = paging::page(ask)?;
    let (account, wanted) = (ask.account.sid.clone(), page.clone());
    let rows = read(context, move |reader| reader.api_keys(&account, &wanted));
    let name = if ask.path.contains("/SigningKeys") { "signing_keys" } else { "keys" };
    Ok(paging::list(ask, name, &page, &rows.await?, show))
}

/// The only answer that has the secret: it is kept as a digest.
async fn create(context: &Shared, ask: &Ask) -> Answer {
    let now = now_ms();
    let secret = mint("");
    let row = ApiKey {
        sid: mint("SK"),
        account_sid: ask.account.sid.clone(),
        friendly_name: ask.form.friendly_name()?.unwrap_or_default(),
        secret_sha256: auth::digest(&secret),
        created_ms: now,
        updated_ms: now,
    };
    write(context, vec![StoreOp::PutApiKey(row.clone())]).await?;
    let mut body = show(&row);
    if let Value::Object(fields) = &mut body {
        fields.insert("secret".into(), secret.into());
    }
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

fn show(row: &ApiKey) -> Value {
    json!({
        "sid": row.sid,
        "friendly_name": row.friendly_name,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
    })
}
