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
    ask.needs_token()?;
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => create(context, ask).await,
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    ask.needs_token()?;
    let account = auth::reachable(context, &ask.caller, sid).await?;
    match ask.method {
        Method::GET => Ok(Json(show(&account)).into_response()),
        Method::POST => update(context, ask, account).await,
        _ => Err(Failure::method()),
    }
}

/// Nothing is charged, so nothing is ever owed.
pub(super) fn balance(ask: &Ask) -> Answer {
    if ask.method != Method::GET {
        return Err(Failure::method());
    }
    let balance = json!({ "account_sid": ask.account.sid, "balance": "0.00", "currency": "USD" });
    Ok(Json(balance).into_response())
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

async fn create(context: &Shared, ask: &Ask) -> Answer {
    if is_subaccount(&ask.caller) {
        return Err(Failure::forbidden("A subaccount cannot have subaccounts"));
    }
    let now = now_ms();
    let name = ask.form.friendly_name()?;
    let account = Account {
        sid: mint("AC"),
        owner_account_sid: ask.caller.sid.clone(),
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
    if let Some(name) = ask.form.friendly_name()? {
        account.friendly_name = name;
    }
    if let Some(status) = ask.form.filter("Status") {
        change_status(ask, &mut account, status)?;
    }
    if let Some(names) = encrypted(&ask.form)? {
        account.encrypted_parameters = names;
    }
    account.updated_ms = now_ms();
    write_directory(context, vec![StoreOp::PutAccount(account.clone())]).await?;
    Ok(Json(show(&account)).into_response())
}

fn is_subaccount(account: &Account) -> bool {
    account.sid != account.owner_account_sid
}

/// A main account suspends, closes and reactivates its subaccounts; what is closed stays closed.
fn change_status(ask: &Ask, account: &mut Account, status: String) -> Result<(), Failure> {
    if !matches!(status.as_str(), "active" | "suspended" | "closed") {
        let message = format!("Status: {status} is not one of active, suspended, closed");
        return Err(Failure::parameter(message));
    }
    if !is_subaccount(account) || is_subaccount(&ask.caller) {
        let message = "Only the status of subaccounts can be changed, by their main account";
        return Err(Failure::forbidden(message));
    }
    if account.status == "closed" && status != "closed" {
        return Err(Failure::new(400, 20_009, "A closed account cannot be opened again"));
    }
    account.status = status;
    Ok(())
}

/// `EncryptedParameters`: names of webhook parameters, separated by commas; empty for none.
fn encrypted(form: &Form) -> Result<Option<Option<String>>, Failure> {
    let Some(text) = form.get("EncryptedParameters") else { return Ok(None) };
    let names = seal::parse_names(text)
        .map_err(|why| Failure::parameter(format!("EncryptedParameters: {why}")))?;
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
            "balance": below("Balance"),
            "calls": below("Calls"),
            "incoming_phone_numbers": below("IncomingPhoneNumbers"),
            "keys": below("Keys"),
            "notifications": below("Notifications"),
            "outgoing_caller_ids": below("OutgoingCallerIds"),
            "recordings": below("Recordings"),
            "signing_keys": below("SigningKeys"),
        },
    })
}
