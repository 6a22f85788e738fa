//! The REST API in the ecosystem's shape (`/2010-04-01/Accounts/…`) and our own additions
//! (`/tandem/v1/…`). One file per resource; this one only dispatches.
//!
//! Call actions go through the core; lists and fetches are the store's business; numbers,
//! applications and accounts are written to the store and then told to the core.

mod accounts;
mod applications;
mod auth;
mod caller_ids;
mod calls;
mod error;
mod form;
mod format;
mod keys;
mod notifications;
mod numbers;
mod paging;
mod recordings;
mod render;
mod request;
mod tandem;
#[cfg(test)]
mod tests;
mod voice;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};

use crate::assemble::Context;
use error::Failure;
use request::{Ask, Extension};

/// Everything that the API port serves, whatever the `Host`.
pub fn router(context: Context) -> Router {
    Router::new().fallback(handle).with_state(Arc::new(context))
}

type Shared = Arc<Context>;
type Answer = Result<Response, Failure>;

async fn handle(State(context): State<Shared>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let response = answer(&context, request).await.unwrap_or_else(Failure::into_response);
    match request::split(&path) {
        (segments, Extension::Xml) => render::xml(&segments, response).await,
        (_, Extension::Csv) => render::csv(response).await,
        _ => response,
    }
}

async fn answer(context: &Shared, request: Request) -> Answer {
    let path = request.uri().path().to_owned();
    let (segments, extension) = request::split(&path);
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let ["2010-04-01", "Accounts", account, "Recordings", sid] = segments[..]
        && !matches!(extension, Extension::Json | Extension::Xml | Extension::Csv)
        && matches!(*request.method(), Method::GET | Method::HEAD)
    {
        // As in the ecosystem, audio needs no credentials: its name is the secret.
        return recordings::audio(context, account, sid, extension, request).await;
    }
    let ask = Ask::read(context, request).await?;
    match &segments[..] {
        ["2010-04-01", "Accounts"] => accounts::many(context, &ask).await,
        ["2010-04-01", "Accounts", sid] => accounts::one(context, &ask, sid).await,
        ["2010-04-01", "Accounts", account, rest @ ..] => {
            let account = auth::reachable(context, &ask.caller, account).await?;
            below_account(context, &ask.within(account), rest).await
        }
        ["tandem", "v1", rest @ ..] => tandem::dispatch(context, &ask, rest).await,
        _ => Err(Failure::not_found(&path)),
    }
}

/// Resources of `ask.account`.
async fn below_account(context: &Shared, ask: &Ask, rest: &[&str]) -> Answer {
    if ask.account.status == "closed" && ask.method == Method::POST {
        return Err(Failure::new(403, 20_005, "Account not active"));
    }
    match rest {
        ["Calls"] => calls::many(context, ask).await,
        ["Calls", call] => calls::one(context, ask, call).await,
        ["Calls", call, "Events"] => calls::events(context, ask, call).await,
        ["Calls", call, "Recordings"] => recordings::many(context, ask, Some(call)).await,
        ["Calls", call, "Recordings", sid] => recordings::one(context, ask, Some(call), sid).await,
        ["Calls", call, "Notifications"] => notifications::many(context, ask, Some(call)).await,
        ["Calls", call, "Notifications", sid] => {
            notifications::one(context, ask, Some(call), sid).await
        }
        ["Recordings"] => recordings::many(context, ask, None).await,
        ["Recordings", sid] => recordings::one(context, ask, None, sid).await,
        ["Notifications"] => notifications::many(context, ask, None).await,
        ["Notifications", sid] => notifications::one(context, ask, None, sid).await,
        ["IncomingPhoneNumbers"] => numbers::many(context, ask).await,
        ["IncomingPhoneNumbers", "Local" | "Mobile" | "TollFree"] => {
            numbers::many(context, ask).await
        }
        ["IncomingPhoneNumbers", sid] => numbers::one(context, ask, sid).await,
        ["OutgoingCallerIds"] => caller_ids::many(context, ask).await,
        ["OutgoingCallerIds", sid] => caller_ids::one(context, ask, sid).await,
        ["Applications"] => applications::many(context, ask).await,
        ["Applications", sid] => applications::one(context, ask, sid).await,
        ["Keys" | "SigningKeys"] => keys::many(context, ask).await,
        ["Keys" | "SigningKeys", sid] => keys::one(context, ask, sid).await,
        ["Balance"] => accounts::balance(ask),
        _ => Err(Failure::not_found(&ask.path)),
    }
}
