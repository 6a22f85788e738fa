//! URLs that numbers and applications share.

use control_core::webhook::fallback;
use serde_json::Value;

use super::error::Failure;
use super::form::Form;
use super::format::API_VERSION;

/// Columns of a row.
pub(super) struct Urls<'a> {
    pub(super) voice: [&'a mut Option<String>; 2],
    pub(super) fallback: [&'a mut Option<String>; 2],
    pub(super) fallbacks: &'a mut Option<String>,
    pub(super) status: [&'a mut Option<String>; 2],
    pub(super) sms: [&'a mut Option<String>; 2],
    pub(super) sms_fallback: [&'a mut Option<String>; 2],
    pub(super) caller_id_lookup: &'a mut bool,
}

/// The columns of a number or an application.
macro_rules! urls {
    ($row:expr) => {
        $crate::api::voice::Urls {
            voice: [&mut $row.voice_url, &mut $row.voice_method],
            fallback: [&mut $row.voice_fallback_url, &mut $row.voice_fallback_method],
            fallbacks: &mut $row.voice_fallback_urls,
            status: [&mut $row.status_callback, &mut $row.status_callback_method],
            sms: [&mut $row.sms_url, &mut $row.sms_method],
            sms_fallback: [&mut $row.sms_fallback_url, &mut $row.sms_fallback_method],
            caller_id_lookup: &mut $row.voice_caller_id_lookup,
        }
    };
}
pub(super) use urls;

/// Takes what the form has.
pub(super) fn fill(form: &Form, urls: Urls<'_>) -> Result<(), Failure> {
    if let Some(other) = form.filter("ApiVersion").filter(|version| version != API_VERSION) {
        let message = format!("ApiVersion: {other} is not available, only {API_VERSION}");
        return Err(Failure::parameter(message));
    }
    for (url, method, [url_slot, method_slot]) in [
        ("VoiceUrl", "VoiceMethod", urls.voice),
        ("VoiceFallbackUrl", "VoiceFallbackMethod", urls.fallback),
        ("StatusCallback", "StatusCallbackMethod", urls.status),
        ("SmsUrl", "SmsMethod", urls.sms),
        ("SmsFallbackUrl", "SmsFallbackMethod", urls.sms_fallback),
    ] {
        form.url(url, url_slot)?;
        form.method(method, method_slot)?;
    }
    if let Some(text) = form.get("VoiceFallbackUrls") {
        let list = fallback::parse_list(text)
            .map_err(|why| Failure::new(400, 21_402, format!("VoiceFallbackUrls: {why}")))?;
        let shown = || fallback::show_list(&list).to_string();
        *urls.fallbacks = (!list.is_empty()).then(shown);
    }
    if let Some(lookup) = form.boolean("VoiceCallerIdLookup")? {
        *urls.caller_id_lookup = lookup;
    }
    Ok(())
}

/// The list of fallbacks as JSON.
pub(super) fn show_fallbacks(column: &Option<String>) -> Value {
    let list = column.as_deref().and_then(|text| serde_json::from_str(text).ok());
    list.unwrap_or_else(|| Value::Array(Vec::new()))
}
