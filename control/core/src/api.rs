//! The REST actions that change calls: create, redirect, hang up. Lists and fetches are the
//! store's business.

use link_proto::{AccountSid, CallSid, RecordingSid};

use crate::record::CallRecord;

/// A call action.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// Comes back in [`ApiReply`].
    pub reply: u64,
    /// Authenticated account.
    pub account: AccountSid,
    /// What to do.
    pub action: ApiAction,
}

/// What to do. Forms are passed as they came (decoded, in order, names may repeat): limits,
/// defaults and error codes are decided here.
#[derive(Debug, Clone)]
pub enum ApiAction {
    /// `POST Calls`.
    CreateCall {
        /// Parameters.
        form: Vec<(String, String)>,
    },
    /// `POST OutgoingCallerIds`: a call that asks for the code.
    VerifyCallerId {
        /// What has to be keyed in.
        code: String,
        /// Parameters.
        form: Vec<(String, String)>,
    },
    /// `POST Calls/{sid}` of a call that belongs to the account. For a call that the core does
    /// not know any more the reply is error 21220.
    UpdateCall {
        /// Which.
        call: CallSid,
        /// Parameters.
        form: Vec<(String, String)>,
    },
    /// `POST Calls/{sid}/Recordings`.
    StartRecording {
        /// Which call.
        call: CallSid,
        /// Name of the new recording, minted by the caller.
        recording: RecordingSid,
        /// Parameters.
        form: Vec<(String, String)>,
    },
    /// `POST Calls/{sid}/Recordings/{sid}`: pause, go on, stop.
    UpdateRecording {
        /// Which call.
        call: CallSid,
        /// `None` = `Twilio.CURRENT`, the one that was started last.
        recording: Option<RecordingSid>,
        /// Parameters.
        form: Vec<(String, String)>,
    },
}

/// Answer to an [`ApiRequest`].
#[derive(Debug, Clone)]
pub struct ApiReply {
    /// From the request.
    pub reply: u64,
    /// The call as it is now, or the error.
    pub result: Result<Box<CallRecord>, ApiError>,
}

/// An API error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Error code.
    pub code: u32,
    /// In words.
    pub message: String,
}
