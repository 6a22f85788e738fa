//! `/IncomingPhoneNumbers`.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use control_store::{IncomingPhoneNumber, NumberFilter, StoreError, StoreOp};
use serde_json::{Value, json};

use super::error::Failure;
use super::form::Form;
use super::format::{API_VERSION, date, uri};
use super::request::{Ask, mint, now_ms, read, write, write_directory};
use super::{Answer, Shared, auth, paging, voice};
use crate::directory::number_address;

pub(super) async fn many(context: &Shared, ask: &Ask) -> Answer {
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => create(context, ask).await,
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.number(&wanted)).await?;
    let row = row.filter(|row| row.account_sid == ask.account.sid);
    let mut row = row.ok_or_else(|| Failure::not_found(&ask.path))?;
    match ask.method {
        Method::GET => Ok(Json(show(&row)).into_response()),
        Method::POST => {
            if let Some(account) = ask.form.filter("AccountSid") {
                // Moved to another account that the caller may work with; applications stay.
                row.account_sid = auth::reachable(context, &ask.caller, &account).await?.sid;
                if row.account_sid != ask.account.sid {
                    row.voice_application_sid = None;
                    row.sms_application_sid = None;
                }
            }
            fill(context, &ask.form, &mut row).await?;
            row.updated_ms = now_ms();
            write_directory(context, vec![StoreOp::PutNumber(row.clone())]).await?;
            Ok(Json(show(&row)).into_response())
        }
        Method::DELETE => {
            write_directory(context, vec![StoreOp::DeleteNumber { sid: row.sid }]).await?;
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
    let rows = read(context, move |reader| reader.numbers(&account, &filter, &wanted));
    Ok(paging::list(ask, "incoming_phone_numbers", &page, &rows.await?, show))
}

async fn create(context: &Shared, ask: &Ask) -> Answer {
    let Some(number) = ask.form.filter("PhoneNumber") else {
        // There is no stock of numbers to choose from by area code.
        return Err(Failure::new(400, 21_421, "PhoneNumber is required"));
    };
    let invalid = || Failure::new(400, 21_421, format!("PhoneNumber {number} is invalid"));
    let number = number_address(&number).ok_or_else(invalid)?;
    let now = now_ms();
    let post = || Some("POST".to_owned());
    let mut row = IncomingPhoneNumber {
        sid: mint("PN"),
        account_sid: ask.account.sid.clone(),
        friendly_name: number.clone(),
        phone_number: number,
        voice_method: post(),
        voice_fallback_method: post(),
        voice_receive_mode: "voice".into(),
        status_callback_method: post(),
        sms_method: post(),
        sms_fallback_method: post(),
        emergency_status: Some("Inactive".into()),
        created_ms: now,
        updated_ms: now,
        ..IncomingPhoneNumber::default()
    };
    fill(context, &ask.form, &mut row).await?;
    match write(context, vec![StoreOp::PutNumber(row.clone())]).await {
        Ok(()) => {}
        Err(StoreError::Conflict(_)) => {
            let message = format!("{} is not available", row.phone_number);
            return Err(Failure::new(400, 21_422, message));
        }
        Err(error) => return Err(error.into()),
    }
    context.directory.reload().await.map_err(Failure::internal)?;
    Ok((StatusCode::CREATED, Json(show(&row))).into_response())
}

/// What the ecosystem's numbers have and ours do not.
const UNAVAILABLE: [&str; 1] = ["TrunkSid"];

async fn fill(context: &Shared, form: &Form, row: &mut IncomingPhoneNumber) -> Result<(), Failure> {
    form.refuse(&UNAVAILABLE)?;
    if let Some(name) = form.friendly_name()? {
        row.friendly_name = name;
    }
    voice::fill(form, voice::urls!(row))?;
    form.text("VoiceApplicationSid", &mut row.voice_application_sid);
    form.text("SmsApplicationSid", &mut row.sms_application_sid);
    form.text("AddressSid", &mut row.address_sid);
    form.text("BundleSid", &mut row.bundle_sid);
    form.text("IdentitySid", &mut row.identity_sid);
    form.text("EmergencyAddressSid", &mut row.emergency_address_sid);
    for (name, only) in [("VoiceReceiveMode", "voice"), ("EmergencyStatus", "Inactive")] {
        if let Some(other) = form.filter(name).filter(|value| value != only) {
            let message = format!("{name}: {other} is not available, only {only}");
            return Err(Failure::parameter(message));
        }
    }
    for (name, sid) in [
        ("VoiceApplicationSid", &row.voice_application_sid),
        ("SmsApplicationSid", &row.sms_application_sid),
    ] {
        let Some(sid) = sid.clone().filter(|_| form.get(name).is_some()) else { continue };
        let shown = sid.clone();
        let found = read(context, move |reader| reader.application(&sid)).await?;
        if found.is_none_or(|found| found.account_sid != row.account_sid) {
            let message = format!("{name}: {shown} is not an application of the account");
            return Err(Failure::new(400, 21_218, message));
        }
    }
    Ok(())
}

fn show(row: &IncomingPhoneNumber) -> Value {
    json!({
        "sid": row.sid,
        "account_sid": row.account_sid,
        "api_version": API_VERSION,
        "phone_number": row.phone_number,
        "friendly_name": row.friendly_name,
        "voice_url": row.voice_url,
        "voice_method": row.voice_method,
        "voice_fallback_url": row.voice_fallback_url,
        "voice_fallback_method": row.voice_fallback_method,
        "voice_fallback_urls": voice::show_fallbacks(&row.voice_fallback_urls),
        "voice_application_sid": row.voice_application_sid,
        "voice_caller_id_lookup": row.voice_caller_id_lookup,
        "voice_receive_mode": row.voice_receive_mode,
        "status_callback": row.status_callback,
        "status_callback_method": row.status_callback_method,
        "sms_url": row.sms_url,
        "sms_method": row.sms_method,
        "sms_fallback_url": row.sms_fallback_url,
        "sms_fallback_method": row.sms_fallback_method,
        "sms_application_sid": row.sms_application_sid,
        "trunk_sid": row.trunk_sid,
        "address_sid": row.address_sid,
        "address_requirements": "none",
        "bundle_sid": row.bundle_sid,
        "identity_sid": row.identity_sid,
        "emergency_status": row.emergency_status,
        "emergency_address_sid": row.emergency_address_sid,
        "emergency_address_status": "unregistered",
        "capabilities": { "voice": true, "sms": false, "mms": false, "fax": false },
        "beta": false,
        "origin": "hosted",
        "status": "in-use",
        "type": null,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
        "uri": uri(&row.account_sid, &format!("IncomingPhoneNumbers/{}", row.sid)),
        "subresource_uris": {},
    })
}
