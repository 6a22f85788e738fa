//! Basic authentication by account and token, or by API key and its secret.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_store::Account;
use sha2::{Digest as _, Sha256};

use super::Shared;
use super::error::Failure;
use super::request::read;

/// The account whose credentials the request carries, and whether they are those of a key.
pub(super) async fn authenticate(
    context: &Shared,
    headers: &HeaderMap,
) -> Result<(Account, bool), Failure> {
    let (user, secret) = credentials(headers).ok_or_else(Failure::unauthorised)?;
    let by_key = user.starts_with("SK");
    let found = read(context, move |reader| {
        if !by_key {
            let account = reader.account(&user)?;
            return Ok(account.map(|account| (digest(&account.auth_token), account)));
        }
        let Some(key) = reader.api_key(&user)? else { return Ok(None) };
        let account = reader.account(&key.account_sid)?;
        Ok(account.map(|account| (key.secret_sha256, account)))
    });
    // Compared as digests: the time taken tells nothing about the secret.
    let right = |(known, _): &(String, Account)| *known == digest(&secret);
    let (_, account) = found.await?.filter(right).ok_or_else(Failure::unauthorised)?;
    if account.status != "active" {
        return Err(Failure::new(401, 20_005, "Account not active"));
    }
    Ok((account, by_key))
}

/// SHA-256 in hex: how secrets of keys are kept.
pub(super) fn digest(secret: &str) -> String {
    let bytes = Sha256::digest(secret.as_bytes());
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (sid, token) = decoded.split_once(':')?;
    Some((sid.to_owned(), token.to_owned()))
}

/// The account of a path, if the caller may work with it: itself or one of its subaccounts.
pub(super) async fn reachable(
    context: &Shared,
    caller: &Account,
    sid: &str,
) -> Result<Account, Failure> {
    if sid == caller.sid {
        return Ok(caller.clone());
    }
    let wanted = sid.to_owned();
    let account = read(context, move |reader| reader.account(&wanted)).await?;
    account
        .filter(|account| account.owner_account_sid == caller.sid)
        .ok_or_else(|| Failure::not_found(&format!("/2010-04-01/Accounts/{sid}")))
}
