//! One INVITE usage: what the user of the endpoint holds a handle of.
//!
//! ```text
//! UAC: Calling ─1xx▶ Ringing ─2xx▶ (AwaitingAnswer ─ack▶) Established ─bye▶ Ending
//!          └cancel────┴────▶ Canceling ─2xx▶ Ending
//! UAS: Incoming ─accept▶ Accepting ─ACK▶ Established ─bye▶ Ending
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::state::Dialog;
use crate::auth::Credentials;
use crate::event::{Body, EndReason};
use crate::msg::{Header, Message};
use crate::transaction::{TransactionId, earliest};
use crate::transport::Destination;

/// States of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// INVITE sent, nothing heard.
    Calling,
    /// A 1xx came.
    Ringing,
    /// The user cancelled; CANCEL is sent or waits for a 1xx.
    Canceling,
    /// A 2xx with the offer came; the user owes the answer for the ACK.
    AwaitingAnswer,
    /// An INVITE came in.
    Incoming,
    /// We sent a 2xx and wait for its ACK.
    Accepting,
    /// Both sides agree.
    Established,
    /// Our BYE is under way.
    Ending,
}

/// Our 2xx, repeated until the ACK comes (RFC 3261 §13.3.1.4).
#[derive(Clone, Debug)]
pub struct AnswerRetransmission {
    /// The 2xx.
    pub bytes: Bytes,
    /// Where it goes.
    pub to: Destination,
    /// CSeq number of its INVITE.
    pub cseq: u32,
    /// Current interval.
    pub interval: Duration,
    /// Next repetition.
    pub at: Instant,
    /// When we give up.
    pub until: Instant,
}

/// A re-INVITE or UPDATE of the peer that the user has not answered.
#[derive(Clone, Debug)]
pub struct InboundOffer {
    /// Its server transaction.
    pub transaction: TransactionId,
    /// When we refuse it ourselves.
    pub until: Instant,
}

/// A re-INVITE of ours.
#[derive(Clone, Debug)]
pub struct OutboundOffer {
    /// Its client transaction; `None` while it waits after a 491.
    pub transaction: Option<TransactionId>,
    /// CSeq number of the last try.
    pub cseq: u32,
    /// The user's headers.
    pub headers: Vec<Header>,
    /// The offer.
    pub body: Option<Body>,
    /// Tries so far.
    pub tries: u32,
    /// When to try again.
    pub retry_at: Option<Instant>,
    /// The 2xx carried an offer and the user owes the answer.
    pub awaits_ack_body: bool,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// State.
    pub state: CallState,
    /// True if we sent the INVITE (and so own the Call-ID, RFC 3261 §14.1).
    pub outbound: bool,
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The first INVITE.
    pub invite: Message,
    /// Its transaction.
    pub invite_transaction: Option<TransactionId>,
    /// Where the INVITE went or came from.
    pub peer: Destination,
    /// The user's choice of destination, above all rules.
    pub peer_override: Option<Destination>,
    /// The dialog: from the start at the callee, from the 2xx at the caller.
    pub dialog: Option<Dialog>,
    /// Early dialogs of our INVITE, one per fork.
    pub early: Vec<Dialog>,
    /// CANCEL headers while the CANCEL waits for a 1xx.
    pub cancel_headers: Vec<Header>,
    /// The CANCEL has been sent.
    pub cancel_sent: bool,
    /// BYE headers while the BYE waits for the ACK of our 2xx (RFC 3261 §15).
    pub bye_after_ack: Option<Vec<Header>>,
    /// What `Ended` will say when the BYE is done.
    pub end_reason: EndReason,
    /// Transaction of our BYE.
    pub bye_transaction: Option<TransactionId>,
    /// Our 2xx in flight.
    pub answer: Option<AnswerRetransmission>,
    /// The peer's offer in flight.
    pub inbound_offer: Option<InboundOffer>,
    /// Our offer in flight.
    pub outbound_offer: Option<OutboundOffer>,
    /// The state's own deadline: ringing, awaiting the user's answer, longest call.
    pub deadline: Option<Instant>,
    /// When the last 1xx is to be sent again.
    pub refresh_at: Option<Instant>,
    /// Last 1xx above 100 that we sent.
    pub last_provisional: Option<Bytes>,
    /// Credentials for challenges to our requests.
    pub credentials: Option<Credentials>,
}

impl Call {
    /// A call in its first state.
    pub fn new(
        state: CallState,
        call_id: String,
        local_tag: String,
        invite: Message,
        peer: Destination,
    ) -> Call {
        Call {
            state,
            outbound: state == CallState::Calling,
            call_id,
            local_tag,
            invite,
            invite_transaction: None,
            peer,
            peer_override: None,
            dialog: None,
            early: Vec::new(),
            cancel_headers: Vec::new(),
            cancel_sent: false,
            bye_after_ack: None,
            end_reason: EndReason::LocalBye,
            bye_transaction: None,
            answer: None,
            inbound_offer: None,
            outbound_offer: None,
            deadline: None,
            refresh_at: None,
            last_provisional: None,
            credentials: None,
        }
    }

    /// True once a 2xx has been sent or received and no BYE yet.
    pub fn is_answered(&self) -> bool {
        matches!(
            self.state,
            CallState::Accepting | CallState::AwaitingAnswer | CallState::Established
        )
    }

    /// The dialog with this remote tag, early ones included.
    pub fn dialog_with(&mut self, remote_tag: &str) -> Option<&mut Dialog> {
        let same = |dialog: &&mut Dialog| dialog.remote_tag() == remote_tag;
        self.dialog.iter_mut().chain(self.early.iter_mut()).find(same)
    }

    /// When the call next wants a timer.
    pub fn next_deadline(&self) -> Option<Instant> {
        earliest(&[
            self.deadline,
            self.refresh_at,
            self.answer.as_ref().map(|answer| answer.at.min(answer.until)),
            self.inbound_offer.as_ref().map(|offer| offer.until),
            self.outbound_offer.as_ref().and_then(|offer| offer.retry_at),
        ])
    }

    /// Stops every timer of the state that is left.
    pub fn stop_timers(&mut self) {
        self.deadline = None;
        self.refresh_at = None;
        self.answer = None;
        if let Some(offer) = &mut self.outbound_offer {
            offer.retry_at = None;
        }
    }
}
