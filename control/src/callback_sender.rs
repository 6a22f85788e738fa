//! Delivers status callbacks from the durable outbox: in order per call and target, in parallel
//! across them, at least once, with growing pauses, across restarts. A repeat is the same request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use control_core::error_code;
use control_core::io::{FetchFailure, FetchId, FetchRequest, FetchResponse, HttpRequest, Method};
use control_core::webhook::overrides;
use control_core::webhook::request::{self as signed, IDEMPOTENCY_HEADER};
use control_core::webhook::sign;
use control_store::{Alert, Callback, Durability, Job, Store, StoreOp};
use link_daemon::clock;
use link_daemon::drain::Shutdown;
use link_proto::{AccountSid, CallSid};
use rand::RngExt as _;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::core_task::WebClient;

/// Limits of the sender.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// Deliveries at a time.
    pub parallel_max: usize,
    /// Rows held in memory; the rest waits in the store.
    pub rows_max: usize,
    /// Pause after the first failure; doubles with each further one.
    pub pause_first: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// Attempts until a row is given up.
    pub attempts_max: i64,
    /// Longest body of an answer that is read.
    pub body_bytes_max: usize,
    /// Redirects that are followed.
    pub redirects_max: usize,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            parallel_max: 64,
            rows_max: 10_000,
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(300),
            attempts_max: 12,
            body_bytes_max: 64 << 10,
            redirects_max: 10,
        }
    }
}

/// Rows of one call for one target: one after the other.
type Lane = (String, String);

/// The sender.
pub struct CallbackSender {
    config: SenderConfig,
    store: Store,
    web: Arc<dyn WebClient>,
    waiting: BTreeMap<Lane, VecDeque<Callback>>,
    /// When the head of a lane may be sent, ms since 1970. A lane in flight is not in here.
    due: BTreeSet<(i64, Lane)>,
    in_flight: JoinSet<(Lane, Outcome)>,
    rows: usize,
    /// Last row taken from the store.
    last_id: i64,
    /// The store may have more rows.
    more: bool,
}

enum Outcome {
    Delivered { warning: Option<Facts> },
    Failed { facts: Facts },
}

/// What the alert shows.
struct Facts {
    code: u32,
    message: String,
    request: HttpRequest,
    response: Option<FetchResponse>,
}

impl CallbackSender {
    /// A sender for the outbox of `store`.
    pub fn new(config: SenderConfig, store: Store, web: Arc<dyn WebClient>) -> Self {
        Self {
            config,
            store,
            web,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            in_flight: JoinSet::new(),
            rows: 0,
            last_id: 0,
            more: true,
        }
    }

    /// Runs until shutdown. `bell` rings when there are new rows.
    pub async fn run(mut self, bell: Arc<Notify>, mut shutdown: Shutdown) {
        loop {
            if self.more && self.rows < self.config.rows_max {
                self.load().await;
            }
            let next_at_ms = self.send_due();
            let now_ms = unix_ms();
            let pause = next_at_ms.map(|at| u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0));
            // The clock may be set; look again now and then in any case.
            let pause = Duration::from_millis(pause.unwrap_or(u64::MAX).clamp(1, 10_000));
            tokio::select! {
                () = shutdown.requested() => break,
                () = bell.notified() => self.more = true,
                Some(done) = self.in_flight.join_next() => {
                    if let Ok((lane, outcome)) = done {
                        self.finish(lane, outcome).await;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        // What is on its way is repeated after the restart with the same token.
        self.in_flight.abort_all();
    }

    async fn load(&mut self) {
        let (reader, after) = (self.store.reader().clone(), self.last_id);
        let room = u32::try_from(self.config.rows_max - self.rows).unwrap_or(u32::MAX).min(1000);
        let loaded = tokio::task::spawn_blocking(move || reader.outbox_pending(after, room)).await;
        match loaded {
            Ok(Ok(rows)) => {
                self.more = rows.len() as u64 >= u64::from(room);
                rows.into_iter().for_each(|row| self.take_in(row));
            }
            Ok(Err(error)) => tracing::error!(%error, "callbacks: the outbox cannot be read"),
            Err(error) => tracing::error!(%error, "callbacks: the outbox cannot be read"),
        }
    }

    fn take_in(&mut self, row: Callback) {
        self.last_id = self.last_id.max(row.id);
        self.rows += 1;
        let lane = (row.call_sid.clone(), row.target.clone());
        let due_ms = row.next_at_ms;
        let waiting = self.waiting.entry(lane.clone()).or_default();
        waiting.push_back(row);
        if waiting.len() == 1 {
            self.due.insert((due_ms, lane));
        }
    }

    /// Sends what may be sent; tells when the next row is due.
    fn send_due(&mut self) -> Option<i64> {
        while let Some((at_ms, _)) = self.due.first() {
            if self.in_flight.len() >= self.config.parallel_max {
                return None;
            }
            if *at_ms > unix_ms() {
                return Some(*at_ms);
            }
            let (_, lane) = self.due.pop_first()?;
            let Some(row) = self.waiting.get(&lane).and_then(VecDeque::front) else { continue };
            let delivery = Delivery {
                web: self.web.clone(),
                store: self.store.clone(),
                row: row.clone(),
                body_bytes_max: self.config.body_bytes_max,
                redirects_max: self.config.redirects_max,
            };
            self.in_flight.spawn(async move { (lane, delivery.run().await) });
        }
        None
    }

    async fn finish(&mut self, lane: Lane, outcome: Outcome) {
        let Some(row) = self.waiting.get_mut(&lane).and_then(VecDeque::front_mut) else { return };
        row.attempts += 1;
        let (id, attempts) = (row.id, row.attempts);
        let mut ops = Vec::new();
        let mut gone = true;
        match outcome {
            Outcome::Delivered { warning } => {
                ops.extend(warning.map(|facts| alert(row, facts, 1)));
                ops.push(StoreOp::CallbackDelivered { id, attempts });
            }
            Outcome::Failed { facts } if attempts >= self.config.attempts_max => {
                let error = facts.message.clone();
                tracing::warn!(call = row.call_sid, event = row.event, error, "callback given up");
                ops.push(alert(row, facts, 0));
                ops.push(StoreOp::CallbackDead { id, attempts, error });
            }
            Outcome::Failed { facts } => {
                gone = false;
                let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(30);
                let pause = self.config.pause_first.saturating_mul(1 << doublings);
                let pause = pause.min(self.config.pause_max);
                let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                row.next_at_ms = unix_ms().saturating_add(pause_ms);
                let (next_at_ms, error) = (row.next_at_ms, facts.message.clone());
                if attempts == 1 {
                    ops.push(alert(row, facts, 1));
                }
                ops.push(StoreOp::RetryCallback { id, attempts, next_at_ms, error });
            }
        }
        self.commit(ops).await;
        self.advance(lane, gone);
    }

    async fn commit(&self, ops: Vec<StoreOp>) {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| {
            let _ = sender.send(result);
        });
        // A failure leaves the row as it was: it is sent once more after a restart.
        if let Err(error) = self.store.submit(Job { ops, durability: Durability::Process, done }) {
            tracing::error!(%error, "callbacks: a delivery cannot be written down");
        } else if let Ok(Err(error)) = receiver.await {
            tracing::error!(%error, "callbacks: a delivery cannot be written down");
        }
    }

    /// The head of the lane is done, or waits for its next attempt.
    fn advance(&mut self, lane: Lane, gone: bool) {
        let Some(waiting) = self.waiting.get_mut(&lane) else { return };
        if gone && waiting.pop_front().is_some() {
            self.rows = self.rows.saturating_sub(1);
        }
        match waiting.front() {
            Some(row) => {
                self.due.insert((row.next_at_ms, lane));
            }
            None => {
                self.waiting.remove(&lane);
            }
        }
    }
}

fn unix_ms() -> i64 {
    i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX)
}

/// One attempt.
struct Delivery {
    web: Arc<dyn WebClient>,
    store: Store,
    row: Callback,
    body_bytes_max: usize,
    redirects_max: usize,
}

impl Delivery {
    async fn run(self) -> Outcome {
        let parsed = serde_json::from_str::<HttpRequest>(&self.row.request).ok();
        let names = self.row.session_sid.parse::<CallSid>().ok();
        let names = names.zip(self.row.account_sid.parse::<AccountSid>().ok());
        let Some((mut request, (session, account))) = parsed.zip(names) else {
            let message = "the stored callback cannot be read".to_owned();
            let url = self.row.target.clone();
            let request = HttpRequest { method: Method::Post, url, headers: vec![], body: None };
            let facts = Facts { code: 12_400, message, request, response: None };
            return Outcome::Failed { facts };
        };
        let (_, overrides, _) = overrides::split(&self.row.target);
        if self.row.attempts > 0 {
            self.date_again(&mut request).await;
        }
        for _ in 0..=self.redirects_max {
            let fetch = FetchRequest {
                id: FetchId(0),
                session,
                account,
                request: request.clone(),
                overrides: overrides.clone(),
                body_bytes_max: self.body_bytes_max,
                cookies: Vec::new(),
            };
            let response = match self.web.fetch(fetch).await {
                Ok(response) => response,
                Err(failure) => return failed(request, failure),
            };
            let location = response.header("location").map(str::to_owned);
            match (response.status, location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    let status = response.status;
                    match self.redirected(&request, status, &location).await {
                        Some(next) => request = next,
                        None => return judge(request, response),
                    }
                }
                _ => return judge(request, response),
            }
        }
        let message = "too many redirects".to_owned();
        Outcome::Failed { facts: Facts { code: 11_215, message, request, response: None } }
    }

    /// A repeat is the same request but for the time of its dated signature: one that is old would
    /// count as recorded and sent again by somebody else.
    async fn date_again(&self, request: &mut HttpRequest) {
        let Some(secret) = self.secret().await else { return };
        let form = pairs(request.body.as_deref().unwrap_or_default());
        let now_s = clock::unix_ms() / 1_000;
        let dated = sign::sha256(&secret, now_s, &request.url, &form);
        let headers = request.headers.iter_mut();
        for (_, value) in headers.filter(|(name, _)| name == sign::HEADER_SHA256) {
            value.clone_from(&dated);
        }
    }

    async fn secret(&self) -> Option<String> {
        let (reader, account) = (self.store.reader().clone(), self.row.account_sid.clone());
        let account = tokio::task::spawn_blocking(move || reader.account(&account)).await;
        Some(account.ok()?.ok()??.auth_token)
    }

    /// What the callback says, whether its first request carries it as a form or in the query.
    fn params(&self) -> Vec<(String, String)> {
        let query = |url: &str| url.split_once('?').map_or(Vec::new(), |(_, query)| pairs(query));
        // Ours stand behind those of the configured URL.
        let configured = query(&overrides::split(&self.row.target).0).len();
        let first = serde_json::from_str::<HttpRequest>(&self.row.request).ok();
        match first.map(|first| (first.body, query(&first.url))) {
            Some((Some(body), _)) => pairs(&body),
            Some((None, all)) => all.into_iter().skip(configured).collect(),
            None => Vec::new(),
        }
    }

    /// The request for the new place, signed for it.
    async fn redirected(
        &self,
        request: &HttpRequest,
        status: u16,
        location: &str,
    ) -> Option<HttpRequest> {
        let url = signed::resolve(Some(&request.url), location)?;
        let secret = self.secret().await?;
        let keep = matches!(status, 307 | 308) && request.method == Method::Post;
        let method = if keep { Method::Post } else { Method::Get };
        // The parameters go along, as with documents: without them nothing would be told.
        let params = self.params();
        let is_token = |(name, _): &&(String, String)| name == IDEMPOTENCY_HEADER;
        let token = request.headers.iter().find(is_token).map_or("", |(_, value)| value);
        let now_ms = clock::unix_ms();
        Some(signed::build(&url, method, &params, &secret, token, now_ms))
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn failed(request: HttpRequest, failure: FetchFailure) -> Outcome {
    let code = error_code::of_fetch_failure(failure.kind);
    Outcome::Failed { facts: Facts { code, message: failure.message, request, response: None } }
}

/// 2xx is delivered; a body that is more than an empty document is worth a warning.
fn judge(request: HttpRequest, response: FetchResponse) -> Outcome {
    let facts =
        |message| Facts { code: 15_003, message, request, response: Some(response.clone()) };
    if !(200..300).contains(&response.status) {
        return Outcome::Failed { facts: facts(format!("HTTP {}", response.status)) };
    }
    let warning = (!is_empty_answer(&response.body))
        .then(|| facts("the answer to a status callback should have no content".to_owned()));
    Outcome::Delivered { warning }
}

fn is_empty_answer(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text = text.trim().trim_start_matches('\u{feff}');
    let text = match text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")) {
        Some((_, rest)) => rest.trim(),
        None => text,
    };
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    matches!(compact.as_str(), "" | "<Response/>" | "<Response></Response>")
}

fn alert(row: &Callback, facts: Facts, log: i64) -> StoreOp {
    let noise: [u8; 16] = rand::rng().random();
    let sid = noise.iter().fold("NO".to_owned(), |sid, byte| format!("{sid}{byte:02x}"));
    let response = facts.response;
    let headers = response.as_ref().map(|response| {
        let lines = response.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        lines.collect::<Vec<_>>().join("\n")
    });
    let body = response.as_ref().map(|response| {
        let end = response.body.len().min(16 << 10);
        String::from_utf8_lossy(response.body.get(..end).unwrap_or(&[])).into_owned()
    });
    let now_ms = unix_ms();
    StoreOp::PutAlert(Alert {
        sid,
        account_sid: row.account_sid.clone(),
        call_sid: Some(row.call_sid.clone()),
        error_code: i64::from(facts.code),
        log,
        message_text: format!("Status callback {}: {}", row.event, facts.message),
        request_method: Some(facts.request.method.as_str().to_owned()),
        request_url: Some(facts.request.url),
        request_variables: facts.request.body,
        response_status: response.as_ref().map(|response| i64::from(response.status)),
        response_headers: headers,
        response_body: body,
        created_ms: now_ms,
        updated_ms: now_ms,
    })
}
