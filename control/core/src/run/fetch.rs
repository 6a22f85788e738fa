//! One document after the other: attempts, redirects, fallback, and the spoken error when all has
//! failed.

use serde::{Deserialize, Serialize};

use super::runner::Activity;
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::directory::{Failure, UrlMethod};
use crate::doc::{Document, mime};
use crate::error_code;
use crate::io::{
    Effect, FetchFailure, FetchId, FetchRequest, FetchResponse, HttpRequest, Method, SetCookie,
    StoreOp,
};
use crate::record::{Alert, RequestLogRow, TimelineEvent};
use crate::verb::{Say, Verb};
use crate::webhook::{overrides, request};

/// Hard limit of a call-control request with its retries and redirects.
const TOTAL_MAX_MS: u64 = 15_000;
const REDIRECTS_MAX: u32 = 10;
/// Cookies that are written down with a session.
const COOKIES_MAX: usize = 20;
const COOKIE_BYTES_MAX: usize = 1_024;
const LOGGED_BODY_BYTES_MAX: usize = 16 * 1024;

/// A failure and the fallbacks asked because of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Incident {
    pub code: u32,
    pub url: String,
    /// Index of the fallback that is asked, or has answered.
    pub index: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingFetch {
    /// As configured, with fragment.
    pub target: UrlMethod,
    /// After redirects.
    current: UrlMethod,
    /// Beside those of the call.
    params: Vec<(String, String)>,
    /// Equal in all attempts.
    token: String,
    retries: u32,
    redirects: u32,
    spent_ms: u64,
    pub incident: Option<Incident>,
    /// The call is over: the answer does not matter.
    pub after_end: bool,
    /// The request of the present attempt, for the log.
    request: Option<HttpRequest>,
    #[serde(skip)]
    id: Option<FetchId>,
}

impl PendingFetch {
    /// Whether it waits for this result.
    pub(crate) fn is(&self, id: FetchId) -> bool {
        self.id == Some(id)
    }
}

impl Session {
    /// Asks for a document that is to be run.
    pub(crate) fn fetch(
        &mut self,
        turn: &mut Turn<'_>,
        target: UrlMethod,
        params: Vec<(String, String)>,
    ) {
        self.run.incident = None;
        self.run.last_params = params.clone();
        let after_end = self.legs.get(&self.subject()).is_none_or(|leg| leg.ended());
        self.begin_fetch(turn, target, params, None, after_end);
    }

    fn begin_fetch(
        &mut self,
        turn: &mut Turn<'_>,
        target: UrlMethod,
        params: Vec<(String, String)>,
        incident: Option<Incident>,
        after_end: bool,
    ) {
        let (url, _, problem) = overrides::split(&target.url);
        if let Some(code) = problem {
            let alert = self.alert(turn, 1, code, &target.url);
            self.put_alert(turn, alert);
        }
        let fetch = PendingFetch {
            current: UrlMethod { url, method: target.method },
            target,
            params,
            token: turn.token(),
            retries: 0,
            redirects: 0,
            spent_ms: 0,
            incident,
            after_end,
            request: None,
            id: None,
        };
        self.send_fetch(turn, fetch);
    }

    fn send_fetch(&mut self, turn: &mut Turn<'_>, mut fetch: PendingFetch) {
        let subject = self.subject();
        let status = self.legs.get(&subject).map_or("", |leg| leg.record.status.as_str());
        let mut params = self.params(subject, status);
        params.extend(self.screening_params());
        params.extend(fetch.params.iter().cloned());
        if let Some(incident) = &fetch.incident {
            params.push(("ErrorCode".to_owned(), incident.code.to_string()));
            params.push(("ErrorUrl".to_owned(), incident.url.clone()));
        }
        let built = turn.request(self.account, subject, &fetch.current, params, &fetch.token);
        let (_, mut overrides, _) = overrides::split(&fetch.target.url);
        let left_ms = TOTAL_MAX_MS.saturating_sub(fetch.spent_ms).max(100);
        overrides.total_ms = overrides.total_ms.min(left_ms);
        let id = turn.waiting.fetch(self.sid);
        turn.metrics.fetches += 1;
        turn.effect(Effect::Fetch(Box::new(FetchRequest {
            id,
            session: self.sid,
            account: self.account,
            request: built.clone(),
            overrides,
            body_bytes_max: turn.config.document_bytes_max,
            cookies: self.cookies.clone(),
        })));
        fetch.request = Some(built);
        fetch.id = Some(id);
        self.run.activity = Activity::Fetching(fetch);
    }

    /// After a restart the same request goes out again, with the same token.
    pub(crate) fn repeat_fetch(&mut self, turn: &mut Turn<'_>) {
        if let Activity::Fetching(fetch) = &self.run.activity {
            let fetch = fetch.clone();
            self.send_fetch(turn, fetch);
        }
    }

    pub(crate) fn cancel_fetch(&mut self, turn: &mut Turn<'_>, fetch: &PendingFetch) {
        if let Some(id) = fetch.id {
            turn.waiting.fetches.remove(&id);
            turn.effect(Effect::CancelFetch(id));
        }
    }

    pub(crate) fn fetch_done(
        &mut self,
        turn: &mut Turn<'_>,
        id: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) {
        let fetch = match std::mem::take(&mut self.run.activity) {
            Activity::Fetching(fetch) if fetch.id == Some(id) => fetch,
            other => {
                self.run.activity = other;
                turn.metrics.results_stale += 1;
                return;
            }
        };
        let elapsed_ms = match &result {
            Ok(response) => response.elapsed_ms,
            Err(failure) => failure.elapsed_ms,
        };
        if self.run.leg.is_none() {
            self.timeline.web_ms += elapsed_ms;
        }
        if let (Ok(response), Some(request)) = (&result, &fetch.request) {
            let url = request.url.split('?').next().unwrap_or_default().to_owned();
            self.keep_cookies(&url, response);
        }
        let mut fetch = PendingFetch { spent_ms: fetch.spent_ms + elapsed_ms, ..fetch };
        let attempt = match &result {
            Ok(response) => overrides::Attempt::Status(response.status),
            Err(failure) => overrides::Attempt::Failure(failure.kind),
        };
        let (_, limits, _) = overrides::split(&fetch.target.url);
        let again = fetch.retries < limits.retries && limits.retries_after(attempt);
        let outcome = if again && fetch.spent_ms < TOTAL_MAX_MS {
            Outcome::Retry
        } else {
            judge(&fetch, &result, turn.config.document_bytes_max)
        };
        self.log_request(turn, &fetch, &result, &outcome, elapsed_ms);
        match outcome {
            Outcome::Retry => {
                fetch.retries += 1;
                self.send_fetch(turn, fetch);
            }
            Outcome::Redirect(next) => {
                fetch.redirects += 1;
                fetch.current = next;
                self.send_fetch(turn, fetch);
            }
            Outcome::Document(document) => self.document_arrived(turn, fetch, document),
            Outcome::Ignored => self.check_finished(turn),
            Outcome::Failed { code, message } => {
                turn.metrics.fetches_failed += 1;
                let mut alert = self.alert(turn, 0, code, &message);
                describe_response(&mut alert, &result);
                describe_request(&mut alert, &fetch);
                self.put_alert(turn, alert);
                if fetch.after_end {
                    return;
                }
                let PendingFetch { target, incident, .. } = fetch;
                let status = result.as_ref().ok().map(|response| response.status);
                self.fall_back(turn, Failure { code, status }, target.url, incident);
            }
        }
    }

    /// What was set last of a name and a place counts. They outlive this process with the session.
    fn keep_cookies(&mut self, url: &str, response: &FetchResponse) {
        let name = |value: &str| value.split('=').next().unwrap_or_default().trim().to_owned();
        let set = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"));
        for (_, value) in set.filter(|(_, value)| value.len() <= COOKIE_BYTES_MAX) {
            self.cookies.retain(|known| known.url != url || name(&known.value) != name(value));
            self.cookies.push(SetCookie { url: url.to_owned(), value: value.clone() });
            if self.cookies.len() > COOKIES_MAX {
                self.cookies.remove(0);
            }
        }
    }

    fn document_arrived(&mut self, turn: &mut Turn<'_>, fetch: PendingFetch, document: Document) {
        if let Some(incident) = &fetch.incident {
            turn.metrics.fallbacks_taken += 1;
            self.fallbacks.taken = Some(incident.index);
            let url = fetch.target.url.clone();
            self.note(turn, None, TimelineEvent::FallbackTaken { url });
        }
        self.run.incident = fetch.incident;
        self.run_document(turn, document, Some(fetch.current));
    }

    /// The document cannot be carried out any further.
    pub(crate) fn fail(
        &mut self,
        turn: &mut Turn<'_>,
        code: u32,
        message: &str,
        url: Option<String>,
    ) {
        let mut alert = self.alert(turn, 0, code, message);
        let base = self.run.base.as_ref().map(|base| base.url.clone());
        let url = url.or(base).unwrap_or_default();
        alert.request_url = Some(url.clone());
        self.put_alert(turn, alert);
        let incident = self.run.incident.take();
        self.fall_back(turn, Failure { code, status: None }, url, incident);
    }

    /// The last request goes to the next fallback; without one the caller hears the error.
    fn fall_back(
        &mut self,
        turn: &mut Turn<'_>,
        failure: Failure,
        url: String,
        incident: Option<Incident>,
    ) {
        self.run.stop();
        if self.set_needs(turn, Vec::new()).is_err() {
            turn.metrics.internal_errors += 1;
        }
        if self.subject_ended() {
            return;
        }
        if self.run.leg.is_some() {
            // The fallback's document is for the caller.
            return self.speak_error(turn);
        }
        let from = incident.map(|incident| incident.index + 1);
        let next = self.fallbacks.next(failure, from, &url);
        let target = next.and_then(|index| Some((index, self.fallbacks.list.get(index)?)));
        if let (false, Some((index, fallback))) = (self.run.last_resort, target) {
            let target = fallback.target.clone();
            let params = self.run.last_params.clone();
            let (url, _, _) = overrides::split(&url);
            let incident = Incident { code: failure.code, url, index };
            self.begin_fetch(turn, target, params, Some(incident), false);
            return;
        }
        self.speak_error(turn);
    }

    fn speak_error(&mut self, turn: &mut Turn<'_>) {
        if self.run.last_resort {
            return self.hang_up_caller(turn);
        }
        self.run.last_resort = true;
        let text = turn.config.error_message.clone();
        let say = Say { text, voice: None, language: None, times: 1 };
        let verbs = vec![Verb::Say(say), Verb::Hangup];
        self.run_document(turn, Document { verbs, warnings: Vec::new() }, None);
    }

    fn log_request(
        &mut self,
        turn: &mut Turn<'_>,
        fetch: &PendingFetch,
        result: &Result<FetchResponse, FetchFailure>,
        outcome: &Outcome,
        elapsed_ms: u64,
    ) {
        let Some(built) = fetch.request.clone() else { return };
        self.requests += 1;
        let response = result.as_ref().ok();
        let error_code = match (outcome, result) {
            (Outcome::Failed { code, .. }, _) => Some(*code),
            (_, Err(failure)) => Some(error_code::of_fetch_failure(failure.kind)),
            _ => None,
        };
        let status = response.map(|response| response.status);
        let row = RequestLogRow {
            key: format!("{}/{}", self.sid, self.requests),
            call: self.subject(),
            account: self.account,
            at_unix_ms: turn.unix_ms,
            request: built,
            response_status: status,
            response_content_type: response
                .and_then(|r| r.header("content-type"))
                .map(str::to_owned),
            response_body: response.map(|r| shortened(&r.body)),
            error_code,
            elapsed_ms,
        };
        turn.store(StoreOp::PutRequestLog(Box::new(row)));
        let url = fetch.current.url.split('?').next().unwrap_or_default().to_owned();
        let event = TimelineEvent::Webhook { url, status, error_code, wait_ms: elapsed_ms };
        self.note(turn, None, event);
    }
}

enum Outcome {
    Retry,
    Redirect(UrlMethod),
    Document(Document),
    Ignored,
    Failed { code: u32, message: String },
}

fn judge(
    fetch: &PendingFetch,
    result: &Result<FetchResponse, FetchFailure>,
    bytes_max: usize,
) -> Outcome {
    let response = match result {
        Ok(response) => response,
        Err(failure) => {
            let code = error_code::of_fetch_failure(failure.kind);
            return Outcome::Failed { code, message: failure.message.clone() };
        }
    };
    match response.status {
        200..=299 if fetch.after_end => Outcome::Ignored,
        200..=299 => {
            let kind = response.header("content-type");
            match mime::interpret(kind, &response.body, &fetch.current.url, bytes_max) {
                Ok(document) => Outcome::Document(document),
                Err(error) => Outcome::Failed { code: error.code, message: error.message },
            }
        }
        301 | 302 | 303 | 307 | 308 => redirect(fetch, response),
        status => Outcome::Failed {
            code: error_code::RETRIEVAL_FAILURE,
            message: format!("status {status}"),
        },
    }
}

fn redirect(fetch: &PendingFetch, response: &FetchResponse) -> Outcome {
    if fetch.redirects >= REDIRECTS_MAX {
        let message = format!("more than {REDIRECTS_MAX} redirects");
        return Outcome::Failed { code: error_code::REDIRECTS_TOO_MANY, message };
    }
    let location = response.header("location").unwrap_or_default();
    let base = Some(fetch.current.url.as_str());
    let next = request::resolve(base, location).filter(|_| !location.trim().is_empty());
    let Some(url) = next else {
        let message = format!("redirect to {location:?}");
        return Outcome::Failed { code: error_code::PROTOCOL_VIOLATION, message };
    };
    // As a browser does (RFC 9110 §15.4): only 307 and 308 keep the method.
    let keeps = matches!(response.status, 307 | 308);
    let method = if keeps { fetch.current.method } else { Method::Get };
    let url = url.split('#').next().unwrap_or_default().to_owned();
    Outcome::Redirect(UrlMethod { url, method })
}

fn shortened(body: &[u8]) -> String {
    let end = body.len().min(LOGGED_BODY_BYTES_MAX);
    String::from_utf8_lossy(body.get(..end).unwrap_or_default()).into_owned()
}

fn describe_request(alert: &mut Alert, fetch: &PendingFetch) {
    if let Some(built) = &fetch.request {
        alert.request_method = Some(built.method.as_str().to_owned());
        alert.request_url = Some(built.url.clone());
        alert.request_variables = built.body.clone();
    }
}

fn describe_response(alert: &mut Alert, result: &Result<FetchResponse, FetchFailure>) {
    if let Ok(response) = result {
        alert.response_status = Some(response.status);
        let lines: Vec<String> =
            response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        alert.response_headers = Some(lines.join("\n"));
        alert.response_body = Some(shortened(&response.body));
    }
}
