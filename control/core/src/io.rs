//! What goes in and what comes out.

use link_proto::media::PromptKey;
use link_proto::message::{
    About, CommandAck, CommandMessage, EventAck, EventMessage, LiveLeg, Load,
};
use link_proto::table::NodeEntry;
use link_proto::{AccountSid, CallSid, NodeId, RecordingSid};
use serde::{Deserialize, Serialize};

use crate::api::{ApiReply, ApiRequest};
use crate::core::CoreConfig;
use crate::directory::Directory;
use crate::record::{
    Alert, CallRecord, CallbackRow, CallerIdRecord, RecordingRecord, RequestLogRow, TimelineRow,
};
use crate::webhook::overrides::Overrides;

/// Names a fetch. Unique within one run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// Names a request to the media layer. Unique within one run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaRequestId(pub u64);

/// What the shell tells the core.
#[derive(Debug, Clone)]
pub enum Input {
    /// Accounts, numbers, applications, routes as they are from now on.
    Directory(Box<Directory>),
    /// An edge has connected and said what is alive there (after `Hello`/`Welcome`, from
    /// `Reconcile`). Also for an edge that was connected already.
    EdgeUp {
        /// From `Hello`.
        entry: NodeEntry,
        /// From `Hello`: tells a restart from a reconnect.
        boot: u64,
        /// From `Reconcile`.
        legs: Vec<LiveLeg>,
    },
    /// An edge tells its load.
    Load {
        /// Which.
        node: NodeId,
        /// Load.
        load: Load,
    },
    /// A connected edge says again what it can do.
    EdgeChanged {
        /// From `Hello`.
        entry: NodeEntry,
    },
    /// New settings. They hold for what begins afterwards; the public URL stays.
    Settings(Box<CoreConfig>),
    /// The connection to an edge is lost.
    EdgeDown {
        /// Which.
        node: NodeId,
    },
    /// An event from an edge.
    LinkEvent {
        /// Sender.
        node: NodeId,
        /// The event.
        message: EventMessage,
    },
    /// An event that this node cannot read; its sender has been told so.
    EventUnusable {
        /// Sender.
        node: NodeId,
        /// Which.
        about: About,
        /// In words.
        why: String,
    },
    /// An edge took a command.
    CommandAck {
        /// Sender.
        node: NodeId,
        /// The acknowledgement.
        ack: CommandAck,
    },
    /// Answer to [`Effect::Fetch`]; exactly one per fetch.
    FetchDone {
        /// Which.
        id: FetchId,
        /// Response or failure.
        result: Result<FetchResponse, FetchFailure>,
    },
    /// Answer to [`Effect::PrepareMedia`]; exactly one per request.
    MediaReady {
        /// Which.
        id: MediaRequestId,
        /// Prompt or failure.
        result: Result<MediaFile, MediaFailure>,
    },
    /// The bytes of a recording are in the object store.
    RecordingStored {
        /// Which.
        recording: RecordingSid,
        /// Length in ms.
        duration_ms: u64,
        /// 1 or 2.
        channels: u32,
    },
    /// A call action of the REST API; answered by [`Effect::Reply`].
    Api(ApiRequest),
}

/// A transaction and what may happen after it.
///
/// The shell commits `ops` atomically, then releases `then` in order; outputs are released in the
/// order in which they were polled. `ops` may be empty.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// To be committed together.
    pub ops: Vec<StoreOp>,
    /// To be done after the commit.
    pub then: Vec<Effect>,
}

/// A change of the store.
#[derive(Debug, Clone)]
pub enum StoreOp {
    /// Insert or replace the state of a session. All of them go to [`crate::ControlCore::load`]
    /// when the process starts.
    PutSession {
        /// Name.
        session: CallSid,
        /// Takeover epoch.
        epoch: u64,
        /// State as JSON text, opaque to the store.
        json: String,
    },
    /// The session is over.
    DeleteSession {
        /// Name.
        session: CallSid,
    },
    /// Insert or replace by `sid`.
    PutCall(Box<CallRecord>),
    /// Insert by `key`; a row with that key that is there already stays as it is.
    PutCallback(Box<CallbackRow>),
    /// Insert by `sid`.
    PutAlert(Box<Alert>),
    /// Insert or replace by `sid`.
    PutRecording(Box<RecordingRecord>),
    /// The bytes have come after the session had given them up: a row that is there is completed.
    CompleteRecording {
        /// Which.
        recording: RecordingSid,
        /// Length in ms.
        duration_ms: u64,
        /// 1 or 2.
        channels: u32,
        /// ms since 1970.
        unix_ms: u64,
    },
    /// Insert by `sid`; it takes the place of another row of that account and number.
    PutCallerId(Box<CallerIdRecord>),
    /// Insert by `(session, sequence)`.
    PutTimeline(Box<TimelineRow>),
    /// Insert by `key`.
    PutRequestLog(Box<RequestLogRow>),
}

/// Something to be done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a command to an edge. If the edge is not connected the shell drops it: the core sends
    /// unacknowledged commands again after [`Input::EdgeUp`].
    Command {
        /// Receiver.
        node: NodeId,
        /// The command.
        message: CommandMessage,
    },
    /// The store has something new for the directory: read it again and bring
    /// [`Input::Directory`].
    DirectoryChanged,
    /// Acknowledge events to an edge.
    AckEvent {
        /// Receiver.
        node: NodeId,
        /// The acknowledgement.
        ack: EventAck,
    },
    /// Tell an edge that these sessions are unknown.
    Orphans {
        /// Receiver.
        node: NodeId,
        /// First legs.
        sessions: Vec<CallSid>,
    },
    /// Make one HTTP request.
    Fetch(Box<FetchRequest>),
    /// Give up a fetch whose result nobody waits for any more. Its `FetchDone` may still come.
    CancelFetch(FetchId),
    /// Have a prompt ready in the media layer.
    PrepareMedia {
        /// Which.
        id: MediaRequestId,
        /// Whose.
        account: AccountSid,
        /// What.
        media: MediaRequest,
    },
    /// There are new callback rows in the store.
    CallbacksWaiting,
    /// Answer an API request.
    Reply(ApiReply),
    /// An event for whoever listens.
    Publish(Box<TimelineRow>),
}

/// One HTTP request, complete: the shell adds nothing but cookies, `Host` and the transport.
/// Redirects are **not** followed and nothing is retried: the core does both, because each
/// request has its own signature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `GET` or `POST`.
    pub method: Method,
    /// Absolute URL without fragment; a GET carries its parameters here. May hold `user:pass@`,
    /// to be sent as basic authentication.
    pub url: String,
    /// Headers, signature and content type included.
    pub headers: Vec<(String, String)>,
    /// Form body of a POST.
    pub body: Option<String>,
}

/// A fetch.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Name.
    pub id: FetchId,
    /// Session, which is also the name of the cookie jar.
    pub session: CallSid,
    /// Account.
    pub account: AccountSid,
    /// The request.
    pub request: HttpRequest,
    /// Time limits (`ct`, `rt`, `tt`) and `sni`; retries are the core's.
    pub overrides: Overrides,
    /// Longest body in bytes; more is [`FetchFailureKind::BodyTooLarge`].
    pub body_bytes_max: usize,
    /// Cookies that the session has got, for a process that has not seen them itself.
    pub cookies: Vec<SetCookie>,
}

/// A cookie as a server has set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCookie {
    /// URL of the request.
    pub url: String,
    /// The header's value.
    pub value: String,
}

/// HTTP methods that webhooks use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Parameters in the query.
    Get,
    /// Parameters as a form.
    Post,
}

impl Method {
    /// The method's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    /// From an attribute or API parameter, any case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("get") {
            Some(Self::Get)
        } else if text.eq_ignore_ascii_case("post") {
            Some(Self::Post)
        } else {
            None
        }
    }
}

/// A whole response, whatever its status.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers in order; names in any case.
    pub headers: Vec<(String, String)>,
    /// Body, already decoded from any content encoding.
    pub body: Vec<u8>,
    /// From start to last byte, in ms.
    pub elapsed_ms: u64,
}

impl FetchResponse {
    /// First header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// No response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchFailure {
    /// Why.
    pub kind: FetchFailureKind,
    /// In words, for the alert.
    pub message: String,
    /// From start to failure, in ms.
    pub elapsed_ms: u64,
}

/// Why a fetch has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchFailureKind {
    /// The URL cannot be used.
    InvalidUrl,
    /// Name resolution.
    Dns,
    /// `ct` exceeded.
    ConnectTimeout,
    /// RST.
    Refused,
    /// Other failure to connect, or the connection broke.
    Connect,
    /// TLS handshake.
    Tls,
    /// Certificate refused: of another host.
    CertificateName,
    /// Certificate refused: expired or not valid yet.
    CertificateExpired,
    /// Certificate refused for another reason.
    Certificate,
    /// `rt` exceeded.
    ReadTimeout,
    /// `tt` exceeded.
    TotalTimeout,
    /// Not HTTP, or cut short.
    Protocol,
    /// More than `body_bytes_max`.
    BodyTooLarge,
}

/// What the media layer shall prepare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaRequest {
    /// Audio at a URL (`Play`); the fetch carries no standard parameters.
    Url {
        /// Absolute.
        url: String,
    },
    /// Speech (`Say`).
    Speech {
        /// Plain text.
        text: String,
        /// As in the document (`man`, `woman`, `alice`, …).
        voice: String,
        /// BCP 47.
        language: String,
    },
}

/// A prompt that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaFile {
    /// Its key.
    pub key: PromptKey,
    /// Its length in ms.
    pub duration_ms: u64,
}

/// A prompt that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaFailure {
    /// Error code, for example 13420 (wrong type), 11200 (not fetched), 13520.
    pub code: u32,
    /// In words, for the alert.
    pub message: String,
}
