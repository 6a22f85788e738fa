//! [`SipEndpoint`]: the hub. It owns transactions, calls and timers, and only dispatches.

use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;

use crate::config::SipConfig;
use crate::counters::Counters;
use crate::error::CommandError;
use crate::event::{Body, DialogHandle, Input, InviteParams, Output, RequestId, RequestParams};
use crate::msg::{Header, Method};
use crate::token::TokenKey;
use crate::transport::Destination;

/// A SIP user agent for many calls. See the crate page.
pub struct SipEndpoint {
    config: SipConfig,
    rng: StdRng,
    token: TokenKey,
    counters: Counters,
}

#[allow(unused_variables, clippy::needless_pass_by_value)]
impl SipEndpoint {
    /// An endpoint with the given configuration and source of randomness.
    pub fn new(config: SipConfig, rng: StdRng) -> Self {
        let token = TokenKey::new(&config.token_key);
        SipEndpoint { config, rng, token, counters: Counters::default() }
    }

    /// Door 1: a message came in, or one could not be sent.
    pub fn handle_input(&mut self, now: Instant, input: Input) {}

    /// Door 2: runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// Door 3: the next thing to do; drain to `None` after each call of another method.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Door 4: when to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Starts an outbound call.
    pub fn invite(
        &mut self,
        now: Instant,
        params: InviteParams,
    ) -> Result<DialogHandle, CommandError> {
        Err(CommandError::Capacity)
    }

    /// Sends a 101–199 for an inbound call. An empty `reason` takes the usual phrase.
    pub fn provisional(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Answers an inbound call with 200. `AckReceived` follows, or `Ended { AckTimeout }`.
    pub fn accept(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Refuses an inbound call with 300–699. `Ended { Rejected }` follows at once.
    pub fn reject(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Cancels an outbound call that is not answered. CANCEL waits for the first 1xx
    /// (RFC 3261 §9.1). `headers` go into the CANCEL (Reason). `Failed` or `Ended` follows.
    pub fn cancel(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Ends an answered call. `Ended { LocalBye }` follows when the peer has answered or is given up.
    pub fn bye(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Ends the leg in whatever state it is: `reject` with `status` for an unanswered inbound call,
    /// `cancel` for an unanswered outbound one, `bye` for an answered one.
    pub fn hang_up(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Sends the ACK with the answer, when the peer's 2xx carried the offer.
    pub fn ack(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        body: Body,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Sends a re-INVITE; `None` asks the peer for an offer. `ReInviteAnswered` or `ReInviteFailed`
    /// follows.
    pub fn reinvite(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Answers the peer's re-INVITE with 200 and a body, or refuses it.
    pub fn respond_reinvite(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Sends INFO in an answered or early dialog. `RequestDone` follows.
    pub fn info(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        content_type: &str,
        body: Bytes,
    ) -> Result<RequestId, CommandError> {
        self.request(now, handle, Method::Info, Vec::new(), Some(Body::new(content_type, body)))
    }

    /// Sends any other request in a dialog (NOTIFY, OPTIONS, MESSAGE, REFER). `RequestDone` follows.
    pub fn request(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        method: Method,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<RequestId, CommandError> {
        Err(CommandError::Unknown)
    }

    /// Answers `Info`, `Refer` or `Request`.
    pub fn respond(
        &mut self,
        now: Instant,
        id: RequestId,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Sends a request outside any dialog (OPTIONS, REGISTER, MESSAGE). `RequestDone` follows with
    /// `handle: None`.
    pub fn send_request(
        &mut self,
        now: Instant,
        params: RequestParams,
    ) -> Result<RequestId, CommandError> {
        Err(CommandError::Capacity)
    }

    /// From now on requests of this leg go there, whatever Contact and Route say.
    pub fn set_destination(
        &mut self,
        handle: DialogHandle,
        to: Destination,
    ) -> Result<(), CommandError> {
        Err(CommandError::Unknown)
    }

    /// Call-ID of a leg.
    pub fn call_id(&self, handle: DialogHandle) -> Option<&str> {
        None
    }

    /// The configuration.
    pub fn config(&self) -> &SipConfig {
        &self.config
    }

    /// The totals since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Legs alive (a leg that waits for its BYE to be answered included).
    pub fn dialogs_live(&self) -> usize {
        0
    }

    /// Transactions alive.
    pub fn transactions_live(&self) -> usize {
        0
    }

    /// The token key, for admission and for minting Call-IDs.
    pub fn token_key(&self) -> &TokenKey {
        &self.token
    }
}
