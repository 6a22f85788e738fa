//! Signatures over requests to customers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

/// Header with the SHA-1 signature that stock validators check.
pub const HEADER: &str = "X-Twilio-Signature";

/// Header with the timestamped SHA-256 signature: `t=SECONDS,v1=BASE64`.
pub const HEADER_SHA256: &str = "X-Tandem-Signature";

/// The exact text that is signed: the URL as configured (without fragment), then each form
/// parameter, sorted by name and value, equal pairs once. A GET has no form parameters.
pub fn signed_text(url: &str, form: &[(String, String)]) -> String {
    let mut pairs: Vec<&(String, String)> = form.iter().collect();
    pairs.sort();
    pairs.dedup();
    let mut text = url.to_owned();
    for (name, value) in pairs {
        text.push_str(name);
        text.push_str(value);
    }
    text
}

/// Value of [`HEADER`].
pub fn sha1(auth_token: &str, url: &str, form: &[(String, String)]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()) else {
        return String::new();
    };
    mac.update(signed_text(url, form).as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Value of [`HEADER_SHA256`]: HMAC-SHA-256 over `SECONDS.` and the signed text.
pub fn sha256(auth_token: &str, unix_s: u64, url: &str, form: &[(String, String)]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(auth_token.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(signed_text(url, form).as_bytes());
    format!("t={unix_s},v1={}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Whether `value` is the right [`HEADER_SHA256`] and not older than `age_max_s`.
pub fn verify_sha256(
    auth_token: &str,
    now_s: u64,
    age_max_s: u64,
    url: &str,
    form: &[(String, String)],
    value: &str,
) -> bool {
    let time = value.strip_prefix("t=").and_then(|rest| rest.split(',').next());
    let Some(time) = time.and_then(|t| t.parse::<u64>().ok()) else { return false };
    let expected = sha256(auth_token, time, url, form);
    let equal = expected.len() == value.len()
        && expected.bytes().zip(value.bytes()).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0;
    equal && now_s.abs_diff(time) <= age_max_s
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";

    fn sample() -> Vec<(String, String)> {
        form(&[
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675310"),
            ("Digits", "1234"),
            ("From", "+14158675310"),
            ("To", "+18005551212"),
        ])
    }

    #[test]
    fn tel_03_published_vector() {
        assert_eq!(sha1("12345", URL, &sample()), "GvWf1cFY/Q7PnoempGyD5oXAezc=");
        let mut reversed = sample();
        reversed.reverse();
        assert_eq!(sha1("12345", URL, &reversed), "GvWf1cFY/Q7PnoempGyD5oXAezc=");
    }

    #[test]
    fn duplicates_are_sorted_and_unique() {
        let text = signed_text("u", &form(&[("B", "2"), ("A", "y"), ("A", "x"), ("A", "y")]));
        assert_eq!(text, "uAxAyB2");
    }

    #[test]
    fn tel_03_sha256_refuses_changes_and_old_messages() {
        let value = sha256("secret", 1000, URL, &sample());
        let check =
            |now, url, value: &str| verify_sha256("secret", now, 300, url, &sample(), value);
        assert!(check(1100, URL, &value));
        assert!(!check(1400, URL, &value));
        assert!(!check(1100, "https://other/", &value));
        assert!(!check(1100, URL, "t=1000,v1=AAAA"));
        assert!(!check(1100, URL, ""));
    }
}
