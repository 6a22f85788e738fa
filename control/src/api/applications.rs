//! `/Applications`.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use control_store::{Application, StoreOp};
use serde_json::{Value, json};

use super::error::Failure;
use super::form::Form;
use super::format::{API_VERSION, date, uri};
use super::request::{Ask, mint, now_ms, read, write_directory};
use super::{Answer, Shared, paging, voice};

pub(super) async fn many(context: &Shared, ask: &Ask) -> Answer {
    match ask.method {
        Method::GET => list(context, ask).await,
        Method::POST => create(context, ask).await,
        _ => Err(Failure::method()),
    }
}

pub(super) async fn one(context: &Shared, ask: &Ask, sid: &str) -> Answer {
    let wanted = sid.to_owned();
    let row = read(context, move |reader| reader.application(&wanted)).await?;
    let row = row.filter(|row| row.account_sid == ask.account.sid);
    let mut row = row.ok_or_else(|| Failure::not_found(&ask.path))?;
    match ask.method {
        Method::GET => Ok(Json(show(&row)).into_response()),
        Method::POST => {
            fill(&ask.form, &mut row)?;
            row.updated_ms = now_ms();
            write_directory(context, vec![StoreOp::PutApplication(row.clone())]).await?;
            Ok(Json(show(&row)).into_response())
        }
        Method::DELETE => {
            write_directory(context, vec![StoreOp::DeleteApplication { sid: row.sid }]).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Failure::method()),
    }
}

async fn list(context: &Shared, ask: &Ask) -> Answer {
    let page = paging::page(ask)?;
    let account = ask.account.sid.clone();
    let (name, wanted) = (ask.query.filter("FriendlyName"), page.clone());
    let rows = read(context, move |reader| reader.applications(&account, name.as_deref(), &wanted));
    Ok(paging::list(ask, "applications", &page, &rows.await?, show))
}

async fn create(context: &Shared, ask: &Ask) -> Answer {
    let now = now_ms();
    let post = || Some("POST".to_owned());
    let mut row = Application {
        sid: mint("AP"),
        account_sid: ask.account.sid.clone(),
        friendly_name: format!("Application created at {}", date(now)),
        voice_method: post(),
        voice_fallback_method: post(),
        status_callback_method: post(),
        sms_method: post(),
        sms_fallback_method: post(),
        created_ms: now,
        updated_ms: now,
        ..Application::default()
    };
    fill(&ask.form, &mut row)?;
    write_directory(context, vec![StoreOp::PutApplication(row.clone())]).await?;
    Ok((StatusCode::CREATED, Json(show(&row))).into_response())
}

fn fill(form: &Form, row: &mut Application) -> Result<(), Failure> {
    if let Some(name) = form.friendly_name()? {
        row.friendly_name = name;
    }
    voice::fill(form, voice::urls!(row))?;
    form.url("SmsStatusCallback", &mut row.sms_status_callback)?;
    form.url("MessageStatusCallback", &mut row.message_status_callback)?;
    if let Some(public) = form.boolean("PublicApplicationConnectEnabled")? {
        row.public_application_connect_enabled = public;
    }
    Ok(())
}

fn show(row: &Application) -> Value {
    json!({
        "sid": row.sid,
        "account_sid": row.account_sid,
        "api_version": API_VERSION,
        "friendly_name": row.friendly_name,
        "voice_url": row.voice_url,
        "voice_method": row.voice_method,
        "voice_fallback_url": row.voice_fallback_url,
        "voice_fallback_method": row.voice_fallback_method,
        "voice_fallback_urls": voice::show_fallbacks(&row.voice_fallback_urls),
        "voice_caller_id_lookup": row.voice_caller_id_lookup,
        "status_callback": row.status_callback,
        "status_callback_method": row.status_callback_method,
        "sms_url": row.sms_url,
        "sms_method": row.sms_method,
        "sms_fallback_url": row.sms_fallback_url,
        "sms_fallback_method": row.sms_fallback_method,
        "sms_status_callback": row.sms_status_callback,
        "message_status_callback": row.message_status_callback,
        "public_application_connect_enabled": row.public_application_connect_enabled,
        "date_created": date(row.created_ms),
        "date_updated": date(row.updated_ms),
        "uri": uri(&row.account_sid, &format!("Applications/{}", row.sid)),
    })
}
