//! The signatures of a webhook, computed anew from what arrived.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use tandem_rig::Recorded;

/// Age in seconds at which a dated signature is no longer good.
const AGE_MAX_S: u64 = 60;

/// The URL and the form's parameters sorted by name.
fn signed_text(request: &Recorded) -> String {
    let mut pairs = request.form.clone();
    pairs.sort();
    pairs.dedup();
    pairs.iter().fold(request.url.clone(), |text, (k, v)| text + k + v)
}

/// HMAC-SHA-1 over URL and parameters, in Base64.
pub fn of(token: &str, request: &Recorded) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(token.as_bytes()) else { return String::new() };
    mac.update(signed_text(request).as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether the request carries the right signature.
pub fn is_valid(token: &str, request: &Recorded) -> bool {
    request.headers.get("x-twilio-signature").is_some_and(|value| *value == of(token, request))
}

/// Whether the request carries the right dated HMAC-SHA-256, and is not older than a minute.
pub fn is_valid_dated(token: &str, request: &Recorded) -> bool {
    let value = request.headers.get("x-tandem-signature");
    let parts = value.and_then(|value| value.strip_prefix("t=")?.split_once(",v1="));
    let Some((time, given)) = parts else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(token.as_bytes()) else { return false };
    mac.update(format!("{time}.{}", signed_text(request)).as_bytes());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now.map_or(0, |since| since.as_secs());
    let fresh = time.parse::<u64>().is_ok_and(|t| now_s.abs_diff(t) <= AGE_MAX_S);
    fresh && STANDARD.encode(mac.finalize().into_bytes()) == given
}
