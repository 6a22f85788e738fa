//! What can be written.

use crate::row::{
    Account, Alert, ApiKey, Application, Call, Callback, IncomingPhoneNumber, OutgoingCallerId,
    Recording, RequestLogEntry, Session, TimelineEntry,
};

/// One change. `Put…` inserts, or replaces the row of the same SID (all but `created_ms`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// Insert or replace.
    PutAccount(Account),
    /// Insert or replace. A number that another row has is a conflict.
    PutNumber(IncomingPhoneNumber),
    /// Remove.
    DeleteNumber {
        /// Which.
        sid: String,
    },
    /// Insert or replace; it takes the place of another row of that account and number.
    PutCallerId(OutgoingCallerId),
    /// Remove.
    DeleteCallerId {
        /// Which.
        sid: String,
    },
    /// Insert or replace.
    PutApiKey(ApiKey),
    /// Remove.
    DeleteApiKey {
        /// Which.
        sid: String,
    },
    /// Insert or replace.
    PutApplication(Application),
    /// Remove.
    DeleteApplication {
        /// Which.
        sid: String,
    },
    /// Insert or replace.
    PutCall(Call),
    /// Remove a call with its request log; recordings and alerts stay.
    DeleteCall {
        /// Which.
        sid: String,
    },
    /// Insert or replace, unless the stored epoch is higher.
    PutSession(Session),
    /// Remove when the session is over.
    DeleteSession {
        /// Which.
        sid: String,
    },
    /// Add to the outbox; nothing happens if its key is known.
    AddCallback(Callback),
    /// A delivery failed; try again later.
    RetryCallback {
        /// Row.
        id: i64,
        /// Deliveries tried so far.
        attempts: i64,
        /// Not before, ms since 1970.
        next_at_ms: i64,
        /// In words.
        error: String,
    },
    /// A delivery succeeded.
    CallbackDelivered {
        /// Row.
        id: i64,
        /// Deliveries tried.
        attempts: i64,
    },
    /// No more deliveries.
    CallbackDead {
        /// Row.
        id: i64,
        /// Deliveries tried.
        attempts: i64,
        /// In words.
        error: String,
    },
    /// Insert or replace.
    PutAlert(Alert),
    /// Insert or replace.
    PutRecording(Recording),
    /// The file of a recording that was given up has come after all.
    CompleteRecording {
        /// Which.
        sid: String,
        /// Length.
        duration_ms: i64,
        /// 1 or 2.
        channels: i64,
        /// The file.
        path: String,
        /// Its size.
        size_bytes: Option<i64>,
        /// When.
        at_ms: i64,
    },
    /// Remove. The file is the caller's business.
    DeleteRecording {
        /// Which.
        sid: String,
    },
    /// Append; nothing happens if the line is there.
    AddTimeline(TimelineEntry),
    /// Append; nothing happens if its key is known.
    AddRequestLog(RequestLogEntry),
    /// Insert or replace.
    PutFact {
        /// Name.
        name: String,
        /// Value.
        value: String,
    },
    /// Nobody carries on with a call any more: it has ended, in whatever way its state allows.
    /// Nothing happens if it has an end.
    EndLostCall {
        /// Which.
        sid: String,
        /// ms since 1970.
        at_ms: i64,
    },
    /// Remove the oldest rows of one kind. What is still at work stays, however old it is.
    Prune {
        /// Which rows.
        kept: Kept,
        /// Only what is older, ms since 1970.
        before_ms: i64,
        /// At most so many.
        rows_max: u32,
    },
}

/// What is kept for a time. Recordings are not among it: their files go with them, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Calls that have ended, of sessions that are over.
    Calls,
    /// Alerts.
    Alerts,
    /// Callbacks that were delivered or given up.
    Callbacks,
    /// Requests to customers' servers.
    RequestLog,
    /// Timelines.
    Timeline,
}

impl Kept {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Calls, Self::Alerts, Self::Callbacks, Self::RequestLog, Self::Timeline];

    /// Table, key, and which rows may go: `?1` is the time, `?2` how many.
    pub(crate) fn sql(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Calls => (
                "calls",
                "sid",
                "SELECT sid FROM calls WHERE created_ms < ?1 AND end_ms < ?1 AND NOT EXISTS
                 (SELECT 1 FROM sessions WHERE sessions.sid = calls.session_sid)
                 ORDER BY created_ms LIMIT ?2",
            ),
            Self::Alerts => (
                "alerts",
                "sid",
                "SELECT sid FROM alerts WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2",
            ),
            Self::Callbacks => (
                "outbox",
                "id",
                "SELECT id FROM outbox WHERE state <> 'pending' AND created_ms < ?1
                 ORDER BY created_ms LIMIT ?2",
            ),
            // Ids rise with time, so only the beginning of the table is looked at.
            Self::RequestLog => (
                "request_log",
                "id",
                "SELECT id FROM (SELECT id, at_ms FROM request_log ORDER BY id LIMIT ?2)
                 WHERE at_ms < ?1",
            ),
            Self::Timeline => (
                "timeline",
                "(session_sid, sequence)",
                "SELECT session_sid, sequence FROM timeline WHERE at_ms < ?1
                 ORDER BY at_ms LIMIT ?2",
            ),
        }
    }
}
