//! Basic authentication by account and token.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_store::Account;
use sha2::{Digest as _, Sha256};

use super::Shared;
use super::error::Failure;
use super::request::read;

/// The account whose credentials the request carries.
pub(super) async fn authenticate(
    context: &Shared,
    headers: &HeaderMap,
) -> Result<Account, Failure> {
    let (sid, token) = credentials(headers).ok_or_else(Failure::unauthorised)?;
    let account = read(context, move |reader| reader.account(&sid)).await?;
    // Compared as digests: the time taken tells nothing about the token.
    let right = |account: &Account| {
        Sha256::digest(account.auth_token.as_bytes()) == Sha256::digest(token.as_bytes())
    };
    account
        .filter(|account| right(account) && account.status == "active")
        .ok_or_else(Failure::unauthorised)
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
