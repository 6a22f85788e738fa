//! The one task that owns the core: inputs in, transactions to the store, effects out after their
//! commit, timers.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control_core::api::{ApiAction, ApiError, ApiReply, ApiRequest};
use control_core::io::{
    Effect, FetchFailure, FetchId, FetchRequest, FetchResponse, Input, MediaFailure, MediaFile,
    MediaRequest,
};
use control_core::record::{CallRecord, TimelineRow};
use control_core::{ControlCore, Metrics as CoreMetrics};
use link_daemon::clock;
use link_daemon::drain::Shutdown;
use link_proto::media::PromptKey;
use link_proto::message::{Message, Orphans};
use link_proto::table::Tables;
use link_proto::{AccountSid, CallSid};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::commit_queue::{Commit, CommitQueue, RETRY_AFTER};
use crate::link_server::LinkHandle;

/// A future in a box, so that the task knows neither HTTP nor audio.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Carries out fetches.
pub trait WebClient: Send + Sync + 'static {
    /// One request, without redirects and retries.
    fn fetch(&self, request: FetchRequest) -> Boxed<Result<FetchResponse, FetchFailure>>;
    /// A session is over: its cookies may go.
    fn session_ended(&self, session: CallSid);
}

/// Has prompts ready.
pub trait MediaLayer: Send + Sync + 'static {
    /// Fetches or synthesises, converts and keeps it.
    fn prepare(
        &self,
        account: AccountSid,
        media: MediaRequest,
    ) -> Boxed<Result<MediaFile, MediaFailure>>;
    /// The bytes of a prompt that is ready; `None` if there is none of that key.
    fn bytes(&self, key: PromptKey) -> Boxed<Option<bytes::Bytes>>;
}

/// Inputs that may wait for the core.
const REQUESTS_MAX: usize = 1_024;
/// Inputs that are taken in one turn before effects are released.
const REQUESTS_PER_TURN_MAX: usize = 64;
/// Timeline lines that a slow listener may be behind.
const TIMELINE_MAX: usize = 4_096;

enum Request {
    Input(Box<Input>, Option<oneshot::Sender<()>>),
    Api(AccountSid, ApiAction, oneshot::Sender<ApiReply>),
}

/// The way to the core. Clones share it.
#[derive(Clone)]
pub struct CoreHandle {
    requests: mpsc::Sender<Request>,
    timeline: broadcast::Sender<Arc<TimelineRow>>,
    metrics: Arc<Mutex<CoreMetrics>>,
}

/// The core's task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("control is shutting down")]
pub struct Stopped;

impl CoreHandle {
    /// Hands over an input; waits while the core is behind.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn input(&self, input: Input) -> Result<(), Stopped> {
        self.requests.send(Request::Input(Box::new(input), None)).await.map_err(|_| Stopped)
    }

    /// As [`Self::input`], and waits until all that followed from it is committed.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn committed(&self, input: Input) -> Result<(), Stopped> {
        let (sender, receiver) = oneshot::channel();
        let request = Request::Input(Box::new(input), Some(sender));
        self.requests.send(request).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// A call action of the API: the call as it is after the commit, or the error.
    ///
    /// # Errors
    /// The API error; 503 while shutting down.
    pub async fn api(
        &self,
        account: AccountSid,
        action: ApiAction,
    ) -> Result<Box<CallRecord>, ApiError> {
        let (sender, receiver) = oneshot::channel();
        let unavailable = || ApiError {
            status: 503,
            code: 20503,
            message: "The service is shutting down; try again.".to_owned(),
        };
        let request = Request::Api(account, action, sender);
        self.requests.send(request).await.map_err(|_| unavailable())?;
        receiver.await.map_err(|_| unavailable())?.result
    }

    /// Lines of all timelines from now on. A listener that is more than 4,096 lines behind loses
    /// some; the store has all.
    pub fn timeline(&self) -> broadcast::Receiver<Arc<TimelineRow>> {
        self.timeline.subscribe()
    }

    /// Counters of the core after its last turn.
    pub fn metrics(&self) -> CoreMetrics {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the task works with.
pub struct Parts<C> {
    /// The core, loaded.
    pub core: ControlCore,
    /// The store's side.
    pub commits: CommitQueue<C>,
    /// HTTP.
    pub web: Arc<dyn WebClient>,
    /// Prompts.
    pub media: Arc<dyn MediaLayer>,
    /// Edges.
    pub link: LinkHandle,
    /// Rung when the outbox has new rows.
    pub callbacks: Arc<Notify>,
    /// Rung when the store has something new for the directory.
    pub directory: Arc<Notify>,
    /// Where tables for edges are published.
    pub tables: watch::Sender<Arc<Tables>>,
}

/// A task that can be started, and the way to it.
pub fn core_task<C: Commit + Send + 'static>(parts: Parts<C>) -> (CoreHandle, CoreTask<C>) {
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    let (timeline, _) = broadcast::channel(TIMELINE_MAX);
    let handle = CoreHandle { requests: sender, timeline, metrics: Arc::default() };
    let task = CoreTask {
        parts,
        requests,
        // A task that held a strong way to itself would still be ended by the shutdown switch.
        handle: handle.clone(),
        replies: BTreeMap::new(),
        next_reply: 0,
        fetches: HashMap::new(),
        fetches_done: Arc::default(),
    };
    (handle, task)
}

/// The task.
pub struct CoreTask<C> {
    parts: Parts<C>,
    requests: mpsc::Receiver<Request>,
    handle: CoreHandle,
    replies: BTreeMap<u64, oneshot::Sender<ApiReply>>,
    next_reply: u64,
    fetches: HashMap<FetchId, AbortHandle>,
    /// Fetches that ended by themselves, to be taken out of `fetches`.
    fetches_done: Arc<Mutex<Vec<FetchId>>>,
}

impl<C: Commit + Send + 'static> CoreTask<C> {
    /// Runs until shutdown, then until everything is committed, but no longer than `drain_max`.
    pub async fn run(mut self, mut shutdown: Shutdown, drain_max: Duration) {
        // What the core has to say after loading its sessions.
        self.turn();
        loop {
            let room = self.parts.commits.has_room();
            let changed = self.parts.commits.changed();
            tokio::select! {
                // Timers before inputs: a flood of inputs must not hold them up.
                biased;
                () = shutdown.requested() => break,
                () = changed => {}
                () = until(self.parts.core.poll_timeout()) => {
                    self.parts.core.handle_timeout(clock::now(), clock::unix_ms());
                }
                () = tokio::time::sleep(RETRY_AFTER), if self.parts.commits.wants_retry() => {
                    self.parts.commits.retry();
                }
                Some(request) = self.requests.recv(), if room => self.take_in(request),
            }
            self.turn();
        }
        let rest = async {
            while !self.parts.commits.is_empty() {
                let changed = self.parts.commits.changed();
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(RETRY_AFTER) => self.parts.commits.retry(),
                }
                self.turn();
            }
        };
        if tokio::time::timeout(drain_max, rest).await.is_err() {
            tracing::error!("the store could not write everything before the end");
        }
    }

    /// Takes the request and what waits behind it.
    fn take_in(&mut self, request: Request) {
        let mut next = Some(request);
        let mut taken = 0;
        while let Some(request) = next {
            let mut waiter = None;
            let request = match request {
                // What cannot be kept is not begun: the answer would come when the store can write
                // again, whenever that is.
                Request::Api(_, _, sender) if self.parts.commits.is_stuck() => {
                    let _ = sender.send(ApiReply { reply: 0, result: Err(cannot_write()) });
                    next = self.requests.try_recv().ok();
                    continue;
                }
                request => request,
            };
            let input = match request {
                Request::Input(input, who_waits) => {
                    waiter = who_waits;
                    *input
                }
                Request::Api(account, action, sender) => {
                    let reply = self.next_reply;
                    self.next_reply += 1;
                    self.replies.insert(reply, sender);
                    Input::Api(ApiRequest { reply, account, action })
                }
            };
            self.parts.core.handle_input(clock::now(), clock::unix_ms(), input);
            self.drain_outputs();
            if let Some(waiter) = waiter {
                self.parts.commits.push_waiter(waiter);
            }
            taken += 1;
            let more = taken < REQUESTS_PER_TURN_MAX && self.parts.commits.has_room();
            next = if more { self.requests.try_recv().ok() } else { None };
        }
    }

    fn turn(&mut self) {
        self.drain_outputs();
        for effect in self.parts.commits.collect() {
            self.release(effect);
        }
        let tables = self.parts.core.tables();
        self.parts.tables.send_if_modified(|published| {
            let newer = published.version != tables.version;
            if newer {
                *published = Arc::new(tables.clone());
            }
            newer
        });
        *self.handle.metrics.lock().unwrap_or_else(PoisonError::into_inner) =
            self.parts.core.metrics();
        let done = self.fetches_done.lock();
        for id in done.unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.fetches.remove(&id);
        }
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.parts.core.poll_output() {
            self.parts.commits.push(output);
        }
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Command { node, message } => {
                self.parts.link.send(&node, Message::Command(message));
            }
            Effect::AckEvent { node, ack } => self.parts.link.send(&node, Message::EventAck(ack)),
            Effect::Orphans { node, sessions } => {
                self.parts.link.send(&node, Message::Orphans(Orphans { sessions }));
            }
            Effect::Fetch(request) => self.fetch(*request),
            Effect::CancelFetch(id) => {
                if let Some(task) = self.fetches.remove(&id) {
                    task.abort();
                }
            }
            Effect::PrepareMedia { id, account, media } => {
                let ready = self.parts.media.prepare(account, media);
                let handle = self.handle.clone();
                tokio::spawn(async move {
                    let result = ready.await;
                    // Nobody waits for it after the end of the core.
                    let _ = handle.input(Input::MediaReady { id, result }).await;
                });
            }
            Effect::DirectoryChanged => self.parts.directory.notify_one(),
            Effect::CallbacksWaiting => self.parts.callbacks.notify_one(),
            Effect::Reply(reply) => {
                if let Some(sender) = self.replies.remove(&reply.reply) {
                    // The client may have hung up.
                    let _ = sender.send(reply);
                }
            }
            Effect::Publish(row) => self.publish(*row),
        }
    }

    fn fetch(&mut self, request: FetchRequest) {
        let id = request.id;
        let response = self.parts.web.fetch(request);
        let handle = self.handle.clone();
        let done = self.fetches_done.clone();
        let task = tokio::spawn(async move {
            let result = response.await;
            done.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            // Nobody waits for it after the end of the core.
            let _ = handle.input(Input::FetchDone { id, result }).await;
        });
        self.fetches.insert(id, task.abort_handle());
    }

    fn publish(&mut self, row: TimelineRow) {
        if matches!(row.event, control_core::record::TimelineEvent::SessionEnded) {
            self.parts.web.session_ended(row.session);
        }
        // An error means that nobody listens.
        let _ = self.handle.timeline.send(Arc::new(row));
    }
}

fn cannot_write() -> ApiError {
    ApiError {
        status: 503,
        code: 20503,
        message: "Nothing can be written at present; try again later".to_owned(),
    }
}

/// Ends at `deadline`; never if there is none.
async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
