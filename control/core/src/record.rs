//! What the store keeps beside the state of sessions.

use link_proto::call::{Blame, EndReason, LegStats};
use link_proto::{
    AccountSid, ApplicationSid, CallSid, NodeId, PhoneNumberSid, RecordingSid, RegionId,
};
use serde::{Deserialize, Serialize};

use crate::io::HttpRequest;

/// `CallStatus` of the REST API and the webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Created, nothing sent yet.
    Queued,
    /// Ringing, or offered.
    Ringing,
    /// Answered.
    InProgress,
    /// Ended after an answer.
    Completed,
    /// Ended: busy.
    Busy,
    /// Ended: failed.
    Failed,
    /// Ended: nobody answered.
    NoAnswer,
    /// Ended: given up before the answer.
    Canceled,
}

impl CallStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::NoAnswer => "no-answer",
            Self::Canceled => "canceled",
        }
    }

    /// No further status follows.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Ringing | Self::InProgress)
    }
}

/// `Direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Came to an edge.
    Inbound,
    /// Made by the REST API.
    OutboundApi,
    /// Made by `Dial`.
    OutboundDial,
}

impl Direction {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::OutboundApi => "outbound-api",
            Self::OutboundDial => "outbound-dial",
        }
    }
}

/// The record of one leg. Times are absent until they are known (TEL-13).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The leg.
    pub sid: CallSid,
    /// First leg of its session.
    pub session: CallSid,
    /// Whose.
    pub account: AccountSid,
    /// The leg that dialled it.
    pub parent: Option<CallSid>,
    /// Called party.
    pub to: String,
    /// Calling party.
    pub from: String,
    /// The number that was called or shown, if it is ours.
    pub phone_number: Option<PhoneNumberSid>,
    /// The application that runs it.
    pub application: Option<ApplicationSid>,
    /// Status.
    pub status: CallStatus,
    /// Direction.
    pub direction: Direction,
    /// Number that the call was forwarded from.
    pub forwarded_from: Option<String>,
    /// Display name of the calling party.
    pub caller_name: Option<String>,
    /// AMD result.
    pub answered_by: Option<String>,
    /// Edge that owns the leg.
    pub node: NodeId,
    /// Region of that edge.
    pub region: Option<RegionId>,
    /// SIP Call-ID.
    pub sip_call_id: Option<String>,
    /// ms since 1970: the record was made.
    pub created_unix_ms: u64,
    /// ms since 1970: last change.
    pub updated_unix_ms: u64,
    /// ms since 1970: first signalling.
    pub started_unix_ms: Option<u64>,
    /// ms since 1970: answered.
    pub answered_unix_ms: Option<u64>,
    /// ms since 1970: ended.
    pub ended_unix_ms: Option<u64>,
    /// Whole seconds from answer to end, rounded up; absent until the end.
    pub duration_s: Option<u64>,
    /// Why it ended.
    pub end_reason: Option<EndReason>,
    /// Whose doing.
    pub end_whose: Option<Blame>,
    /// SIP status of a leg that was never answered.
    pub sip_status: Option<u16>,
    /// Counters.
    pub stats: Option<LegStats>,
}

/// One status callback in the outbox. Delivered at least once; the request does not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallbackRow {
    /// `call/event/sequence/target`: unique.
    pub key: String,
    /// The leg or recording's call. Rows of one call and URL are sent in order of `sequence`.
    pub call: CallSid,
    /// Session, also the cookie jar.
    pub session: CallSid,
    /// Account.
    pub account: AccountSid,
    /// `initiated`, `ringing`, `answered`, `completed`, `recording-completed`, …
    pub event: String,
    /// `SequenceNumber`.
    pub sequence: u64,
    /// The request with signature and idempotency token.
    pub request: HttpRequest,
    /// The URL with its fragment, for the connection overrides.
    pub configured_url: String,
    /// ms since 1970.
    pub created_unix_ms: u64,
}

/// An error that the customer shall see (FBK-05).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// `NO` and 32 hex digits.
    pub sid: String,
    /// Account.
    pub account: AccountSid,
    /// Call.
    pub call: Option<CallSid>,
    /// ms since 1970.
    pub at_unix_ms: u64,
    /// 0 = error, 1 = warning.
    pub log_level: u8,
    /// Error code.
    pub code: u32,
    /// In words.
    pub message: String,
    /// Method of the request that led to it.
    pub request_method: Option<String>,
    /// URL of the request that led to it.
    pub request_url: Option<String>,
    /// Its parameters as a form.
    pub request_variables: Option<String>,
    /// Status of the response.
    pub response_status: Option<u16>,
    /// Headers of the response, one a line.
    pub response_headers: Option<String>,
    /// Body of the response, shortened to 16 KiB.
    pub response_body: Option<String>,
}

/// A number that an account may show to called parties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerIdRecord {
    /// `PN` and 32 hex digits.
    pub sid: String,
    /// Account.
    pub account: AccountSid,
    /// E.164.
    pub phone_number: String,
    /// Name for people.
    pub friendly_name: String,
    /// ms since 1970: verified.
    pub at_unix_ms: u64,
}

/// State of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingStatus {
    /// Being made.
    InProgress,
    /// Being made, interrupted.
    Paused,
    /// Ended; bytes on their way.
    Processing,
    /// Bytes are there.
    Completed,
    /// Nothing was recorded.
    Absent,
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordingRecord {
    /// Its name.
    pub sid: RecordingSid,
    /// Account.
    pub account: AccountSid,
    /// Leg.
    pub call: CallSid,
    /// State.
    pub status: RecordingStatus,
    /// `RecordVerb`, `DialVerb`, `OutboundAPI`, `StartCallRecordingAPI`.
    pub source: String,
    /// `inbound`, `outbound` or `both`, seen from the leg.
    #[serde(default)]
    pub track: String,
    /// 1 or 2.
    pub channels: u32,
    /// Length in ms.
    pub duration_ms: Option<u64>,
    /// ms since 1970.
    pub started_unix_ms: u64,
    /// ms since 1970.
    pub updated_unix_ms: u64,
}

/// One request to an application server with its response (REST `Calls/{sid}/Events`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestLogRow {
    /// `session/number`: unique.
    pub key: String,
    /// Leg.
    pub call: CallSid,
    /// Account.
    pub account: AccountSid,
    /// ms since 1970.
    pub at_unix_ms: u64,
    /// The request.
    pub request: HttpRequest,
    /// Status, if there was a response.
    pub response_status: Option<u16>,
    /// Content type of the response.
    pub response_content_type: Option<String>,
    /// Body of the response, shortened to 16 KiB.
    pub response_body: Option<String>,
    /// Error code, if it failed.
    pub error_code: Option<u32>,
    /// From start to end in ms.
    pub elapsed_ms: u64,
}

/// One line of a session's timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineRow {
    /// Session.
    pub session: CallSid,
    /// From 0 without holes.
    pub sequence: u64,
    /// ms since 1970.
    pub at_unix_ms: u64,
    /// ms since the session began, on the monotonic clock (restarts of control left out).
    pub offset_ms: u64,
    /// Leg that it is about, if one.
    pub leg: Option<CallSid>,
    /// What happened.
    pub event: TimelineEvent,
}

/// Where media goes in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionLabel {
    /// Source: a leg's CallSid or the name of a processor.
    pub from: String,
    /// Sink: a leg's CallSid or the name of a processor.
    pub to: String,
    /// `hairpin`, `edge-to-edge`, `backhaul`, `local`, …
    pub label: String,
}

/// Where a processor runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessorPlace {
    /// `play`, `collect`, `record`, `transcode`, `watch`.
    pub kind: String,
    /// Node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
}

/// What a timeline line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TimelineEvent {
    /// A leg was offered or created.
    LegCreated {
        /// Direction.
        direction: Direction,
        /// Calling party.
        from: String,
        /// Called party.
        to: String,
        /// Edge.
        node: NodeId,
    },
    /// A leg's status changed.
    LegStatus {
        /// New status.
        status: CallStatus,
    },
    /// A leg ended.
    LegEnded {
        /// Final status.
        status: CallStatus,
        /// Why.
        reason: EndReason,
        /// Whose doing.
        whose: Blame,
        /// Largest spacing of packets towards the endpoint, in ms.
        longest_gap_ms: f64,
        /// ms from answer to end.
        answered_ms: u64,
    },
    /// A request to the application server is done.
    Webhook {
        /// URL without query.
        url: String,
        /// Status, if there was a response.
        status: Option<u16>,
        /// Error code, if it failed.
        error_code: Option<u32>,
        /// Waiting time for the web server, in ms.
        wait_ms: u64,
    },
    /// A verb (or a run of Say, Play and Pause) began.
    Phase {
        /// Number of the phase, from 1; the same as in the snapshots.
        phase: u32,
        /// `Say+Play`, `Gather`, `Dial`, …
        verb: String,
        /// Time since the last phase ended, in ms, without that spent on web servers.
        wait_control_ms: u64,
        /// Time of that spent on web servers, in ms.
        wait_web_ms: u64,
        /// Time of that spent on preparing prompts, in ms.
        wait_media_ms: u64,
    },
    /// A new media graph is in force.
    Graph {
        /// Number of the phase.
        phase: u32,
        /// Per direction.
        labels: Vec<DirectionLabel>,
        /// Where processors run.
        processors: Vec<ProcessorPlace>,
    },
    /// Counters of a node at the end of a phase, since the session began on that node.
    Counters {
        /// Phase that begins now: the numbers belong to those before.
        phase: u32,
        /// Node.
        node: NodeId,
        /// RTP packets handed to a trunk or sent to another region's address.
        packets_out_of_region: u64,
        /// RTP packets sent to endpoints.
        packets_to_endpoints: u64,
        /// RTP packets received from endpoints.
        packets_from_endpoints: u64,
    },
    /// Digits were collected, or a watched key was pressed.
    Digits {
        /// Which.
        digits: String,
    },
    /// Something failed; there is an alert.
    Error {
        /// Error code.
        code: u32,
        /// In words.
        message: String,
    },
    /// A fallback URL answered and is the primary from now on.
    FallbackTaken {
        /// Which.
        url: String,
    },
    /// The session is over.
    SessionEnded,
}
