//! Parameters that leave encrypted, as JSON Web Encryption in compact form (RFC 7516): `alg` `dir`
//! and `enc` `A256GCM` under a key derived from the account's secret, so that any JOSE library
//! can open them. What is between us and the application (proxies, their logs, the request log of
//! this API) sees the encrypted form only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use link_proto::{AccountSid, CallSid};
use rand::RngExt as _;
use rand::rngs::StdRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;

use crate::directory::Account;

/// What the key is derived for: the message of the HMAC whose key is the account's secret.
pub const KEY_LABEL: &str = "tandem-encrypted-parameters-1";

/// Parameter that names those of a request that are encrypted.
pub const NAMES: &str = "EncryptedParameters";

/// Parameters that say the same: if one of them is encrypted, so is the other.
const ALIASES: [(&str, &str); 2] = [("From", "Caller"), ("To", "Called")];

/// Parameters that the receiver needs before it can decrypt anything.
const NEVER: [&str; 4] = ["AccountSid", "CallSid", "ApiVersion", NAMES];

/// Most parameters of an account's list.
const NAMES_MAX: usize = 50;

/// Reads an account's list, separated by commas or spaces, with the aliases of what is on it.
///
/// # Errors
/// In words, if a name cannot be one or must stay readable.
pub fn parse_names(text: &str) -> Result<std::collections::BTreeSet<String>, String> {
    let mut names = std::collections::BTreeSet::new();
    for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.len() > 64 || !name.chars().all(good) {
            return Err(format!("{name:?} is no name of a parameter"));
        }
        if NEVER.contains(&name) {
            return Err(format!("{name} cannot be encrypted"));
        }
        names.insert(name.to_owned());
        for (one, other) in ALIASES {
            if name == one || name == other {
                names.extend([one.to_owned(), other.to_owned()]);
            }
        }
    }
    if names.len() > NAMES_MAX {
        return Err(format!("more than {NAMES_MAX} parameters"));
    }
    Ok(names)
}

/// Encrypts what the account wants encrypted, in place, and adds [`NAMES`].
pub(crate) fn seal(
    params: &mut Vec<(String, String)>,
    account: &Account,
    sid: AccountSid,
    call: CallSid,
    rng: &mut StdRng,
) {
    let mut names: Vec<&str> = Vec::new();
    let wanted = |name: &str| account.encrypted_parameters.contains(name);
    for (name, value) in params.iter_mut().filter(|(name, _)| wanted(name)) {
        let nonce: [u8; 12] = rng.random();
        *value = encrypt(&account.auth_token, sid, call, name, value, nonce);
        names.push(name);
    }
    if !names.is_empty() {
        names.dedup();
        let names = names.join(" ");
        params.push((NAMES.to_owned(), names));
    }
}

/// One value. The header names account, call and parameter, and is authenticated: a value cannot
/// be moved to another parameter or call unnoticed.
fn encrypt(
    auth_token: &str,
    account: AccountSid,
    call: CallSid,
    name: &str,
    value: &str,
    nonce: [u8; 12],
) -> String {
    let header = serde_json::json!({
        "alg": "dir",
        "enc": "A256GCM",
        "kid": account.to_string(),
        "call": call.to_string(),
        "name": name,
    });
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let mut text = value.as_bytes().to_vec();
    let key = UnboundKey::new(&AES_256_GCM, &key(auth_token)).map(LessSafeKey::new);
    // A key of the right length is never refused, nor is a text of this length.
    let tag = key.and_then(|key| {
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut text)
    });
    let Ok(tag) = tag else { return String::new() };
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // No encrypted key between the first two dots: `dir`.
    format!("{header}..{}.{}.{}", encode(&nonce), encode(&text), encode(tag.as_ref()))
}

fn key(auth_token: &str) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(auth_token.as_bytes()) else {
        return [0; 32];
    };
    mac.update(KEY_LABEL.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn decrypt(auth_token: &str, text: &str) -> Option<(serde_json::Value, String)> {
        let parts: Vec<&str> = text.split('.').collect();
        let [header, "", nonce, text, tag] = parts[..] else { return None };
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key(auth_token)).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(&bytes(nonce)?).ok()?;
        let mut sealed = [bytes(text)?, bytes(tag)?].concat();
        let aad = Aad::from(header.as_bytes());
        let open = key.open_in_place(nonce, aad, &mut sealed).ok()?;
        let header = serde_json::from_slice(&bytes(header)?).ok()?;
        Some((header, String::from_utf8(open.to_vec()).ok()?))
    }

    #[test]
    fn tel_03_only_what_is_listed_is_encrypted_and_only_the_account_can_read_it() {
        let account = Account {
            auth_token: "secret".to_owned(),
            active: true,
            encrypted_parameters: parse_names("Digits,From").unwrap(),
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let plain =
            [pair("Digits", "4711"), pair("From", "+1"), pair("Caller", "+1"), pair("To", "+2")];
        let (sid, call) = (AccountSid([1; 16]), CallSid([2; 16]));
        let mut rng = StdRng::seed_from_u64(1);
        let mut params = plain.to_vec();
        seal(&mut params, &account, sid, call, &mut rng);
        assert_eq!(params[3], plain[3]);
        assert_eq!(params[4], pair(NAMES, "Digits From Caller"));
        for (index, name) in ["Digits", "From", "Caller"].iter().enumerate() {
            let (header, value) = decrypt("secret", &params[index].1).unwrap();
            assert_eq!(value, plain[index].1);
            assert_eq!((&header["name"], &header["alg"]), (&(*name).into(), &"dir".into()));
            assert_eq!(header["call"], call.to_string());
            assert!(decrypt("another", &params[index].1).is_none());
        }
        assert_ne!(params[1].1, params[2].1, "equal values look different");
        let (_, sealed) = params[0].1.split_once('.').unwrap();
        let (other_header, _) = params[1].1.split_once('.').unwrap();
        let moved = format!("{other_header}.{sealed}");
        assert!(decrypt("secret", &moved).is_none(), "the header is part of it");
    }

    #[test]
    fn lists_of_names() {
        let names = |text| parse_names(text).map(|names| names.into_iter().collect::<Vec<_>>());
        assert_eq!(names(" Digits, To "), Ok(vec!["Called".into(), "Digits".into(), "To".into()]));
        assert_eq!(names(""), Ok(vec![]));
        assert!(names("CallSid").is_err() && names("a=b").is_err());
    }
}
