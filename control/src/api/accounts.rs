//! `/Accounts`.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use control_core::webhook::seal;
use control_store::{Account, StoreOp};
use serde_json::{Value, json};

use super::error::Failure;
use super::form::Form;
use super::format::{API_VERSION, date};
use super::request::{Ask, mint, now_ms, read, write_directory};
use super::{Answer, Shared, auth, paging};

pub(super) async fn many(context: &Shared, ask: &Ask) -> Answer {
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => create(context, ask).await,
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    let account = auth::reachable(context, &ask.caller, sid).await?;
    match ask.method {
        Method::GET => Ok(Json(show(&account)).into_response()),
        Method::POST => update(context, ask, account).await,
        _ => Err(Failure::method()),
    }
}

async fn list(context: &Shared, ask: &Ask) -> Answer {
    let page = paging::page(ask)?;
    let owner = ask.caller.sid.clone();
    let (name, status) = (ask.query.filter("FriendlyName"), ask.query.filter("Status"));
    let wanted = page.clone();
    let rows = read(context, move |reader| {
        reader.accounts_of(&owner, name.as_deref(), status.as_deref(), &wanted)
    });
    Ok(paging::list(ask, "accounts", &page, &rows.await?, show))
}

/// Subaccounts belong to the main account, also when a subaccount asks.
async fn create(context: &Shared, ask: &Ask) -> Answer {
    let now = now_ms();
    let name = ask.form.filter("FriendlyName");
    let account = Account {
        sid: mint("AC"),
        owner_account_sid: ask.caller.owner_account_sid.clone(),
        auth_token: mint(""),
        friendly_name: name.unwrap_or_else(|| format!("SubAccount created at {}", date(now))),
        status: "active".into(),
        kind: "Full".into(),
        encrypted_parameters: encrypted(&ask.form)?.flatten(),
        created_ms: now,
        updated_ms: now,
    };
    write_directory(context, vec![StoreOp::PutAccount(account.clone())]).await?;
    Ok((StatusCode::CREATED, Json(show(&account))).into_response())
}

async fn update(context: &Shared, ask: &Ask, mut account: Account) -> Answer {
    if let Some(name) = ask.form.filter("FriendlyName") {
        account.friendly_name = name;
    }
    if let Some(status) = ask.form.filter("Status") {
        if !matches!(status.as_str(), "active" | "suspended" | "closed") {
            let message = format!("Status: {status} is not one of active, suspended, closed");
            return Err(Failure::new(400, 20_001, message));
        }
        if account.sid == account.owner_account_sid {
            let message = "The status of a main account cannot be changed here";
            return Err(Failure::new(400, 20_001, message));
        }
        account.status = status;
    }
    if let Some(names) = encrypted(&ask.form)? {
        account.encrypted_parameters = names;
    }
    account.updated_ms = now_ms();
    write_directory(context, vec![StoreOp::PutAccount(account.clone())]).await?;
    Ok(Json(show(&account)).into_response())
}

/// `EncryptedParameters`: names of webhook parameters, separated by commas; empty for none.
fn encrypted(form: &Form) -> Result<Option<Option<String>>, Failure> {
    let Some(text) = form.get("EncryptedParameters") else { return Ok(None) };
    let names = seal::parse_names(text)
        .map_err(|why| Failure::new(400, 20_001, format!("EncryptedParameters: {why}")))?;
    let names: Vec<String> = names.into_iter().collect();
    Ok(Some((!names.is_empty()).then(|| names.join(","))))
}

fn show(account: &Account) -> Value {
    let below = |name: &str| format!("/{API_VERSION}/Accounts/{}/{name}.json", account.sid);
    json!({
        "sid": account.sid,
        "owner_account_sid": account.owner_account_sid,
        "auth_token": account.auth_token,
        "friendly_name": account.friendly_name,
        "status": account.status,
        "type": account.kind,
        "encrypted_parameters": account.encrypted_parameters,
        "date_created": date(account.created_ms),
        "date_updated": date(account.updated_ms),
        "uri": format!("/{API_VERSION}/Accounts/{}.json", account.sid),
        "subresource_uris": {
            "applications": below("Applications"),
            "calls": below("Calls"),
            "incoming_phone_numbers": below("IncomingPhoneNumbers"),
            "notifications": below("Notifications"),
            "outgoing_caller_ids": below("OutgoingCallerIds"),
            "recordings": below("Recordings"),
        },
    })
}
