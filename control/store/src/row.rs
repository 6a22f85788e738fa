//! Rows as types. One macro gives each table its struct, its upsert and its reader.

use rusqlite::{Connection, Row, ToSql};
use serde::{Deserialize, Serialize};

/// A table whose rows are named by their SID.
pub(crate) trait SidTable: Sized {
    const TABLE: &'static str;
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self>;
    fn sid(&self) -> &str;
    fn created_ms(&self) -> i64;
}

macro_rules! sid_table {
    ($(#[$doc:meta])* $name:ident in $table:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// Identifier.
            pub sid: String,
            $($(#[$field_doc])* pub $field: $type,)*
            /// When the row was made, ms since 1970.
            pub created_ms: i64,
            /// When the row was last changed, ms since 1970.
            pub updated_ms: i64,
        }

        impl SidTable for $name {
            const TABLE: &'static str = $table;

            fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
                Ok(Self {
                    sid: row.get("sid")?,
                    $($field: row.get(stringify!($field))?,)*
                    created_ms: row.get("created_ms")?,
                    updated_ms: row.get("updated_ms")?,
                })
            }

            fn sid(&self) -> &str {
                &self.sid
            }

            fn created_ms(&self) -> i64 {
                self.created_ms
            }
        }

        impl $name {
            pub(crate) fn upsert(&self, connection: &Connection) -> rusqlite::Result<usize> {
                let sql = concat!(
                    "INSERT INTO ", $table,
                    " (sid", $(", ", stringify!($field),)* ", created_ms, updated_ms)",
                    " VALUES (:sid", $(", :", stringify!($field),)* ", :created_ms, :updated_ms)",
                    " ON CONFLICT (sid) DO UPDATE SET updated_ms = excluded.updated_ms",
                    $(", ", stringify!($field), " = excluded.", stringify!($field),)*
                );
                let values: &[(&str, &dyn ToSql)] = &[
                    (":sid", &self.sid),
                    $((concat!(":", stringify!($field)), &self.$field),)*
                    (":created_ms", &self.created_ms),
                    (":updated_ms", &self.updated_ms),
                ];
                connection.prepare_cached(sql)?.execute(values)
            }
        }
    };
}

sid_table!(
    /// An account or subaccount.
    Account in "accounts" {
        /// The account that this one belongs to; itself for a main account.
        owner_account_sid: String,
        /// Secret for Basic authentication and for webhook signatures.
        auth_token: String,
        /// Name for people.
        friendly_name: String,
        /// `active`, `suspended` or `closed`.
        status: String,
        /// `Full` or `Trial`; the API calls it `type`.
        kind: String,
        /// Parameters that leave encrypted, separated by commas.
        encrypted_parameters: Option<String>,
    }
);

sid_table!(
    /// A number that calls can arrive at, with the application it leads to.
    IncomingPhoneNumber in "incoming_phone_numbers" {
        /// Account.
        account_sid: String,
        /// E.164, or another dialled string. Unique.
        phone_number: String,
        /// Name for people.
        friendly_name: String,
        /// Document requested when a call arrives.
        voice_url: Option<String>,
        /// GET or POST.
        voice_method: Option<String>,
        /// Document requested when the first one fails.
        voice_fallback_url: Option<String>,
        /// GET or POST.
        voice_fallback_method: Option<String>,
        /// Documents requested after that, in order, with classes of errors: JSON text.
        voice_fallback_urls: Option<String>,
        /// Application; wins over the URLs.
        voice_application_sid: Option<String>,
        /// Look up the caller's name.
        voice_caller_id_lookup: bool,
        /// `voice` or `fax`.
        voice_receive_mode: String,
        /// Where call progress is reported to.
        status_callback: Option<String>,
        /// GET or POST.
        status_callback_method: Option<String>,
        /// Document for messages.
        sms_url: Option<String>,
        /// GET or POST.
        sms_method: Option<String>,
        /// Document for messages when the first one fails.
        sms_fallback_url: Option<String>,
        /// GET or POST.
        sms_fallback_method: Option<String>,
        /// Application for messages.
        sms_application_sid: Option<String>,
        /// Trunk.
        trunk_sid: Option<String>,
        /// Kept for the API.
        address_sid: Option<String>,
        /// Kept for the API.
        bundle_sid: Option<String>,
        /// Kept for the API.
        identity_sid: Option<String>,
        /// `Active` or `Inactive`.
        emergency_status: Option<String>,
        /// Kept for the API.
        emergency_address_sid: Option<String>,
    }
);

sid_table!(
    /// A number that an account may show to called parties.
    OutgoingCallerId in "outgoing_caller_ids" {
        /// Account.
        account_sid: String,
        /// E.164.
        phone_number: String,
        /// Name for people.
        friendly_name: String,
    }
);

sid_table!(
    /// Credentials of an account beside its token.
    ApiKey in "api_keys" {
        /// Account.
        account_sid: String,
        /// Name for people.
        friendly_name: String,
        /// Digest of the secret, in hex; the secret itself is not kept.
        secret_sha256: String,
    }
);

sid_table!(
    /// An application: a set of URLs that several numbers and calls can share.
    Application in "applications" {
        /// Account.
        account_sid: String,
        /// Name for people.
        friendly_name: String,
        /// Document requested when a call arrives.
        voice_url: Option<String>,
        /// GET or POST.
        voice_method: Option<String>,
        /// Document requested when the first one fails.
        voice_fallback_url: Option<String>,
        /// GET or POST.
        voice_fallback_method: Option<String>,
        /// Documents requested after that, in order, with classes of errors: JSON text.
        voice_fallback_urls: Option<String>,
        /// Look up the caller's name.
        voice_caller_id_lookup: bool,
        /// Where call progress is reported to.
        status_callback: Option<String>,
        /// GET or POST.
        status_callback_method: Option<String>,
        /// Document for messages.
        sms_url: Option<String>,
        /// GET or POST.
        sms_method: Option<String>,
        /// Document for messages when the first one fails.
        sms_fallback_url: Option<String>,
        /// GET or POST.
        sms_fallback_method: Option<String>,
        /// Where message delivery is reported to (old name).
        sms_status_callback: Option<String>,
        /// Where message delivery is reported to.
        message_status_callback: Option<String>,
        /// Other accounts may connect to it.
        public_application_connect_enabled: bool,
    }
);

sid_table!(
    /// A call in the sense of the REST API: one SIP leg.
    Call in "calls" {
        /// Account.
        account_sid: String,
        /// The leg that dialled this one.
        parent_call_sid: Option<String>,
        /// First leg of the session.
        session_sid: String,
        /// Calling party. (`from` is a word of SQL.)
        from_: String,
        /// Called party.
        to_: String,
        /// Our number that it arrived at.
        phone_number_sid: Option<String>,
        /// `queued ringing in-progress completed busy failed no-answer canceled`.
        status: String,
        /// `inbound outbound-api outbound-dial`.
        direction: String,
        /// First signalling, ms since 1970.
        start_ms: Option<i64>,
        /// Answer, ms since 1970.
        answered_ms: Option<i64>,
        /// End, ms since 1970.
        end_ms: Option<i64>,
        /// Whole seconds, from answer to end.
        duration_s: Option<i64>,
        /// Application that runs it.
        application_sid: Option<String>,
        /// Edge that owns the leg.
        node: String,
        /// Region of that edge.
        region: Option<String>,
        /// SIP Call-ID.
        sip_call_id: Option<String>,
        /// SIP status of a leg that was never answered.
        sip_status: Option<i64>,
        /// Counters at the end, as JSON text.
        stats: Option<String>,
        /// Result of answering machine detection.
        answered_by: Option<String>,
        /// Number that the call was forwarded from.
        forwarded_from: Option<String>,
        /// Name of the caller.
        caller_name: Option<String>,
        /// ms in a queue before it was dialled.
        queue_time_ms: i64,
        /// Why it ended, in our words.
        end_reason: Option<String>,
        /// Whose doing the end was.
        end_whose: Option<String>,
    }
);

sid_table!(
    /// Something went wrong (or looked strange) on behalf of a customer.
    Alert in "alerts" {
        /// Account.
        account_sid: String,
        /// Call.
        call_sid: Option<String>,
        /// The ecosystem's error code, for example 11200.
        error_code: i64,
        /// 0 = error, 1 = warning.
        log: i64,
        /// In words.
        message_text: String,
        /// Method of the request in question.
        request_method: Option<String>,
        /// URL of the request in question.
        request_url: Option<String>,
        /// Its parameters, form-encoded.
        request_variables: Option<String>,
        /// HTTP status of the answer.
        response_status: Option<i64>,
        /// Headers of the answer, form-encoded.
        response_headers: Option<String>,
        /// Body of the answer, cut to a sensible length.
        response_body: Option<String>,
    }
);

sid_table!(
    /// A recording.
    Recording in "recordings" {
        /// Account.
        account_sid: String,
        /// The leg that was recorded.
        call_sid: String,
        /// Conference.
        conference_sid: Option<String>,
        /// `in-progress paused stopped processing completed absent deleted`.
        status: String,
        /// 1 or 2.
        channels: i64,
        /// `RecordVerb`, `DialVerb`, `OutboundAPI`, ….
        source: String,
        /// `inbound`, `outbound` or `both`.
        track: Option<String>,
        /// Length in ms.
        duration_ms: Option<i64>,
        /// Why it is absent.
        error_code: Option<i64>,
        /// File with the audio.
        path: Option<String>,
        /// Size of the file in bytes.
        size_bytes: Option<i64>,
        /// When it began, ms since 1970.
        start_ms: Option<i64>,
    }
);

/// The stored state of a live session, as its owner writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// First leg.
    pub sid: String,
    /// Takeover epoch of the writer. A write with a lower one than stored is refused.
    pub epoch: u64,
    /// Opaque to the store.
    pub body: Vec<u8>,
}

/// Where a callback stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackState {
    /// To be delivered.
    Pending,
    /// Delivered.
    Delivered,
    /// Given up.
    Dead,
}

impl CallbackState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "delivered" => Self::Delivered,
            "dead" => Self::Dead,
            _ => Self::Pending,
        }
    }
}

/// A status callback that must be delivered at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Order of insertion; 0 before it is stored.
    pub id: i64,
    /// Names the event for ever: a second row with the same key is not inserted.
    pub key: String,
    /// Account.
    pub account_sid: String,
    /// Callbacks of one call to one target are delivered in order.
    pub call_sid: String,
    /// Session, which is also the cookie jar.
    pub session_sid: String,
    /// Name of the event, for lists and logs.
    pub event: String,
    /// `SequenceNumber` of the event.
    pub sequence_number: i64,
    /// The URL as configured, with its fragment.
    pub target: String,
    /// The whole request as JSON text, opaque to the store. It is the same at every repeat.
    pub request: String,
    /// Deliveries tried.
    pub attempts: i64,
    /// Not before, ms since 1970.
    pub next_at_ms: i64,
    /// Where it stands.
    pub state: CallbackState,
    /// Of the last attempt, in words.
    pub last_error: Option<String>,
    /// When the event was.
    pub created_ms: i64,
}

/// One line of a session's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// First leg of the session.
    pub session_sid: String,
    /// Order within the session. A row that is there already stays as it is.
    pub sequence: i64,
    /// The leg that it is about.
    pub leg_sid: Option<String>,
    /// ms since 1970.
    pub at_ms: i64,
    /// The whole line as JSON text.
    pub body: String,
}

/// One request to a customer's web server with its answer, both as JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLogEntry {
    /// Order; 0 before it is stored.
    pub id: i64,
    /// Names the request for ever: a second row with the same key is not inserted.
    pub key: String,
    /// Account.
    pub account_sid: String,
    /// Call.
    pub call_sid: String,
    /// ms since 1970.
    pub at_ms: i64,
    /// `{method, url, parameters, …}`.
    pub request: String,
    /// `{response_code, response_body, request_duration, …}`.
    pub response: String,
}
