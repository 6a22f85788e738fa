//! The signature of a webhook, computed anew from what arrived.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use tandem_rig::Recorded;

/// HMAC-SHA-1 over the URL and the form's parameters sorted by name, in Base64.
pub fn of(token: &str, request: &Recorded) -> String {
    let mut pairs = request.form.clone();
    pairs.sort();
    pairs.dedup();
    let text = pairs.iter().fold(request.url.clone(), |text, (k, v)| text + k + v);
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(token.as_bytes()) else { return String::new() };
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether the request carries the right signature.
pub fn is_valid(token: &str, request: &Recorded) -> bool {
    request.headers.get("x-twilio-signature").is_some_and(|value| *value == of(token, request))
}
