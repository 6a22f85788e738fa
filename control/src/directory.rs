//! The core's directory out of the store and the configuration, and the first start's entries.

use std::collections::BTreeMap;

use control_core::directory::{
    Account, Application, Directory, Fallback, Number, StatusTarget, UrlMethod, VoiceUrls,
    sip_address,
};
use control_core::io::Method;
use control_core::webhook::{fallback, seal};
use control_store::{self as store, Durability, Reader, Store, StoreOp};
use link_proto::table::Tables;
use link_proto::{AccountSid, PhoneNumberSid};
use rand::rngs::StdRng;

use crate::config::{Config, NumberEntry};

/// URL and method columns of a number or an application.
struct Urls<'a> {
    voice: (&'a Option<String>, &'a Option<String>),
    fallback: (&'a Option<String>, &'a Option<String>),
    /// Those after the first, as JSON text.
    fallbacks: &'a Option<String>,
    status: (&'a Option<String>, &'a Option<String>),
}

macro_rules! urls {
    ($row:expr) => {
        Urls {
            voice: (&$row.voice_url, &$row.voice_method),
            fallback: (&$row.voice_fallback_url, &$row.voice_fallback_method),
            fallbacks: &$row.voice_fallback_urls,
            status: (&$row.status_callback, &$row.status_callback_method),
        }
    };
}

/// Reads everything that the core must know about customers and places. `version` must be higher
/// than that of any earlier directory; the wall clock in ms is good enough.
///
/// # Errors
/// If the store cannot be read. Rows with unreadable names are left out with a warning.
pub fn load(reader: &Reader, config: &Config, version: u64) -> anyhow::Result<Directory> {
    let mut directory = Directory {
        tables: Tables { version, nodes: Vec::new(), routes: config.routes.clone() },
        default_edge: config.default_edge.clone(),
        ..Directory::default()
    };
    for row in reader.accounts()? {
        let names = row.encrypted_parameters.as_deref().unwrap_or_default();
        let encrypted_parameters = seal::parse_names(names).unwrap_or_else(|why| {
            tracing::warn!(
                account = row.sid,
                why,
                "the list of encrypted parameters is unreadable"
            );
            std::collections::BTreeSet::new()
        });
        let active = row.status == "active";
        let account = Account { active, auth_token: row.auth_token, encrypted_parameters };
        insert(&mut directory.accounts, &row.sid, account);
    }
    for row in reader.caller_ids_all()? {
        if let Some(account) = parse::<AccountSid>(&row.account_sid) {
            directory.caller_ids.entry(account).or_default().insert(row.phone_number);
        }
    }
    for row in reader.applications_all()? {
        let Some(account) = parse::<AccountSid>(&row.account_sid) else { continue };
        let voice = voice_urls(&urls!(row));
        insert(&mut directory.applications, &row.sid, Application { account, voice });
    }
    for row in reader.numbers_all()? {
        let sids = parse::<PhoneNumberSid>(&row.sid).zip(parse::<AccountSid>(&row.account_sid));
        let Some((sid, account)) = sids else { continue };
        let voice = voice_urls(&urls!(row));
        let application = row.voice_application_sid.as_deref().and_then(parse);
        let number = Number { sid, account, application, voice };
        directory.numbers.insert(row.phone_number, number);
    }
    Ok(directory)
}

fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        tracing::warn!(sid = text, "a row of the store has an unreadable name and is left out");
    }
    parsed
}

fn insert<K: std::str::FromStr + Ord, V>(map: &mut BTreeMap<K, V>, sid: &str, value: V) {
    if let Some(sid) = parse(sid) {
        map.insert(sid, value);
    }
}

fn voice_urls(urls: &Urls<'_>) -> VoiceUrls {
    let target = |(url, method): (&Option<String>, &Option<String>)| {
        let url = url.clone().filter(|url| !url.is_empty())?;
        let method = method.as_deref().and_then(Method::parse).unwrap_or(Method::Post);
        Some(UrlMethod { url, method })
    };
    let first = target(urls.fallback).map(|target| Fallback { target, classes: Vec::new() });
    let more = urls.fallbacks.as_deref().map(fallback::parse_list).transpose();
    let more = more.unwrap_or_else(|why| {
        tracing::warn!(why, "a list of fallbacks in the store is unreadable and left out");
        None
    });
    // Numbers and applications report the end of a call only.
    let status = target(urls.status)
        .map(|target| StatusTarget { target, events: vec!["completed".to_owned()] });
    VoiceUrls {
        voice: target(urls.voice),
        fallbacks: first.into_iter().chain(more.unwrap_or_default()).collect(),
        status: status.into_iter().collect(),
    }
}

/// Adds the accounts and numbers of the configuration that the store does not have. What is there
/// belongs to the API and stays as it is.
///
/// # Errors
/// If the store cannot be read or written.
pub fn bootstrap(
    store: &Store,
    config: &Config,
    rng: &mut StdRng,
    unix_ms: u64,
) -> anyhow::Result<()> {
    let now = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let reader = store.reader();
    let mut ops = Vec::new();
    for entry in &config.accounts {
        let sid = entry.sid.to_string();
        if reader.account(&sid)?.is_some() {
            tracing::debug!(account = sid, "account is in the store already");
            continue;
        }
        ops.push(StoreOp::PutAccount(store::Account {
            owner_account_sid: sid.clone(),
            sid,
            auth_token: entry.auth_token.clone(),
            friendly_name: entry.name.clone(),
            status: "active".into(),
            kind: "Full".into(),
            encrypted_parameters: None,
            created_ms: now,
            updated_ms: now,
        }));
    }
    let present: Vec<String> =
        reader.numbers_all()?.into_iter().map(|row| row.phone_number).collect();
    for entry in &config.numbers {
        if present.contains(&entry.number) {
            tracing::debug!(number = entry.number, "number is in the store already");
            continue;
        }
        ops.push(StoreOp::PutNumber(number_row(entry, PhoneNumberSid::mint(rng), now)));
    }
    if !ops.is_empty() {
        tracing::info!(entries = ops.len(), "accounts and numbers of the configuration added");
        store.commit(Durability::Synced, ops)?;
    }
    Ok(())
}

fn number_row(entry: &NumberEntry, sid: PhoneNumberSid, now: i64) -> store::IncomingPhoneNumber {
    let method = |method: Method| Some(method.as_str().to_owned());
    store::IncomingPhoneNumber {
        sid: sid.to_string(),
        account_sid: entry.account.to_string(),
        phone_number: entry.number.clone(),
        friendly_name: entry.number.clone(),
        voice_url: Some(entry.voice_url.clone()),
        voice_method: method(entry.voice_method),
        voice_fallback_url: entry.voice_fallback_url.clone(),
        voice_fallback_method: method(entry.voice_method),
        voice_receive_mode: "voice".into(),
        status_callback: entry.status_callback.clone(),
        status_callback_method: method(Method::Post),
        created_ms: now,
        updated_ms: now,
        ..store::IncomingPhoneNumber::default()
    }
}

/// What calls can arrive at, as it is kept: E.164 with plus, a short code, the user part of a SIP
/// URI, or a SIP address `user@host` (a URI's scheme is left out).
pub(crate) fn number_address(text: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name = |text: &str| (1..=64).contains(&text.len()) && text.chars().all(good);
    if let Some(digits) = text.strip_prefix('+') {
        let fine = (3..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        return fine.then(|| text.to_owned());
    }
    if text.contains('@') {
        let address = sip_address(text)?;
        let (user, host) = address.split_once('@')?;
        let host_good = |c: char| good(c) || matches!(c, ':' | '[' | ']');
        let fine = name(user) && (1..=255).contains(&host.len()) && host.chars().all(host_good);
        return fine.then_some(address);
    }
    name(text).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::config::tests::example;

    #[test]
    fn the_first_start_adds_and_the_second_leaves_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = example(folder.path());
        let path = folder.path().join("control.db");
        let store = Store::open(&store::StoreConfig::at(path)).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        bootstrap(&store, &config, &mut rng, 1_000).unwrap();
        let first = load(store.reader(), &config, 7).unwrap();
        assert_eq!(first.accounts.len(), 1);
        let number = first.number("sip:+15550100@example.net").unwrap();
        assert_eq!(number.voice.voice.as_ref().unwrap().url, "http://127.0.0.1:9/voice");
        assert_eq!(number.voice.fallbacks.len(), 1);
        assert_eq!(number.voice.status[0].events, ["completed"]);
        assert_eq!(first.tables.routes.len(), 1);
        bootstrap(&store, &config, &mut rng, 2_000).unwrap();
        assert_eq!(load(store.reader(), &config, 7).unwrap(), first);
    }
}
