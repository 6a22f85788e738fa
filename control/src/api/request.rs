//! Reading a request: path, credentials, parameters.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use control_store::{Account, Reader, StoreError};

use super::Shared;
use super::auth;
use super::error::Failure;
use super::form::Form;

/// Longest form in bytes.
const FORM_BYTES_MAX: usize = 256 << 10;
/// Patience with a form on its way.
const FORM_TIME_MAX: Duration = Duration::from_secs(30);
/// What a form is.
const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// What the last segment of a path ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    None,
    Json,
    Xml,
    Csv,
    Wav,
    Mp3,
    Ogg,
}

/// Segments of a path and the extension of the last one.
pub(super) fn split(path: &str) -> (Vec<String>, Extension) {
    let known = [
        (".json", Extension::Json),
        (".xml", Extension::Xml),
        (".csv", Extension::Csv),
        (".wav", Extension::Wav),
        (".mp3", Extension::Mp3),
        (".ogg", Extension::Ogg),
        (".opus", Extension::Ogg),
    ];
    let (path, extension) = known
        .into_iter()
        .find_map(|(text, extension)| path.strip_suffix(text).map(|rest| (rest, extension)))
        .unwrap_or((path, Extension::None));
    (path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(), extension)
}

/// A request of somebody known.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// As it came.
    pub(super) path: String,
    pub(super) query: Form,
    pub(super) form: Form,
    /// Who authenticated.
    pub(super) caller: Account,
    /// By an API key, which may do everything but manage accounts and keys.
    pub(super) by_key: bool,
    /// Whose resources it is about: the caller or one of its subaccounts.
    pub(super) account: Account,
}

impl Ask {
    pub(super) async fn read(context: &Shared, request: Request) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let (caller, by_key) = auth::authenticate(context, &parts.headers).await?;
        let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
        // SDKs send a Content-Type with a GET as well, and bodies of other methods say nothing.
        let form = match method {
            Method::POST => read_form(&parts.headers, body).await?,
            _ => Form::default(),
        };
        Ok(Self {
            method,
            path: parts.uri.path().to_owned(),
            query: Form::parse(parts.uri.query().unwrap_or("").as_bytes())?,
            form,
            account: caller.clone(),
            caller,
            by_key,
        })
    }

    /// For what an API key may not do.
    pub(super) fn needs_token(&self) -> Result<(), Failure> {
        if self.by_key {
            let message = "An API key cannot manage accounts and keys; use the account's token";
            return Err(Failure::forbidden(message));
        }
        Ok(())
    }

    pub(super) fn within(self, account: Account) -> Self {
        Self { account, ..self }
    }
}

async fn read_form(headers: &HeaderMap, body: Body) -> Result<Form, Failure> {
    let large = |_| {
        let most = FORM_BYTES_MAX >> 10;
        Failure::new(413, 20_413, format!("The request is cut short or larger than {most} KiB"))
    };
    let slow = |_| Failure::new(408, 20_408, "The request did not arrive in time");
    let body = to_bytes(body, FORM_BYTES_MAX);
    let body = tokio::time::timeout(FORM_TIME_MAX, body).await.map_err(slow)?.map_err(large)?;
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match kind {
        Some(kind) if !body.is_empty() && !kind.eq_ignore_ascii_case(FORM_TYPE) => {
            let message = format!("Parameters are taken as {FORM_TYPE}, not as {kind}");
            Err(Failure::new(415, 20_415, message))
        }
        _ => Form::parse(&body),
    }
}

/// Asks the store on a thread that may block.
pub(super) async fn read<T: Send + 'static>(
    context: &Shared,
    query: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let reader = context.store.reader().clone();
    let result = tokio::task::spawn_blocking(move || query(&reader)).await;
    Ok(result.map_err(Failure::internal)??)
}

/// Writes what the API has accepted: synced to disk before the answer.
pub(super) async fn write(
    context: &Shared,
    ops: Vec<control_store::StoreOp>,
) -> Result<(), StoreError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| {
        let _ = sender.send(result);
    });
    let durability = control_store::Durability::Synced;
    context.store.submit(control_store::Job { ops, durability, done })?;
    receiver.await.unwrap_or(Err(StoreError::Closed))
}

/// As [`write`], and returns when the core knows it too.
pub(super) async fn write_directory(
    context: &Shared,
    ops: Vec<control_store::StoreOp>,
) -> Result<(), Failure> {
    write(context, ops).await?;
    context.directory.reload().await.map_err(Failure::internal)
}

/// A new SID.
pub(super) fn mint(prefix: &str) -> String {
    use rand::RngExt as _;
    let noise: [u8; 16] = rand::rng().random();
    noise.iter().fold(prefix.to_owned(), |sid, byte| format!("{sid}{byte:02x}"))
}

/// Now, ms since 1970.
pub(super) fn now_ms() -> i64 {
    i64::try_from(link_daemon::clock::unix_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_extension() {
        let check = |path: &str, expected: &[&str], extension| {
            let (segments, found) = split(path);
            assert_eq!(
                (segments.as_slice(), found),
                (&expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..], extension),
                "{path}"
            );
        };
        check("/2010-04-01/Accounts.json", &["2010-04-01", "Accounts"], Extension::Json);
        check("/a/b", &["a", "b"], Extension::None);
        check("/a/RE1.wav", &["a", "RE1"], Extension::Wav);
        check("/a/CA1.xml", &["a", "CA1"], Extension::Xml);
        check("/a/Calls.csv", &["a", "Calls"], Extension::Csv);
        check("//a/", &["a"], Extension::None);
        check("/.json", &[], Extension::Json);
    }
}
