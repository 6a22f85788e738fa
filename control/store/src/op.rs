//! What can be written.

use crate::row::{
    Account, Alert, Application, Call, Callback, IncomingPhoneNumber, OutgoingCallerId, Recording,
    RequestLogEntry, Session, TimelineEntry,
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
    /// Remove delivered callbacks, request log and timeline that are older.
    Prune {
        /// ms since 1970.
        before_ms: i64,
    },
}
