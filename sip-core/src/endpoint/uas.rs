//! Inbound calls until they are answered and acknowledged (RFC 3261 §13.3, §9.2).

use std::time::Instant;

use super::{SipEndpoint, User};
use crate::dialog::{AnswerRetransmission, Call, CallState, Dialog};
use crate::error::CommandError;
use crate::event::{Body, DialogHandle, EndReason, Event, IncomingCall};
use crate::msg::{Header, HeaderName, Message, Reason};
use crate::transaction::{ServerKey, TransactionId};
use crate::transport::Destination;

impl SipEndpoint {
    pub(super) fn incoming_call(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        let local_tag = self.token.mint(&mut self.rng);
        let dialog = Dialog::uas(&request, &local_tag, source);
        let parts = (request.request_uri(), request.from(), request.to(), dialog);
        let (Some(uri), Some(from), Some(to), Some(dialog)) = parts else {
            // What the parser does not check: Contact is optional here, Record-Route was malformed.
            return self.refuse(now, key, request, source, 400, Vec::new());
        };
        let call_id = dialog.call_id.clone();
        let state = CallState::Incoming;
        let mut call = Call::new(state, call_id.clone(), local_tag, request.clone(), source);
        call.dialog = Some(dialog);
        call.deadline = Some(now + self.config.ringing_max);
        let handle = self.insert_call(call);
        let id = self.start_server(now, key, request.clone(), source, User::Invite(handle));
        if let Some(call) = self.calls.get_mut(&handle) {
            call.invite_transaction = Some(id);
        }
        let trying = Message::response_to(&request, 100, "", None);
        self.respond_in(now, id, &trying);
        let sdp = request.sdp();
        let call = Box::new(IncomingCall { uri, from, to, call_id, source, sdp, request });
        self.emit(Event::Incoming { handle, call });
        self.settle_call(handle);
    }

    /// The call with its INVITE transaction, if it is inbound and unanswered.
    fn incoming(&self, handle: DialogHandle) -> Result<(TransactionId, String), CommandError> {
        let call = self.calls.get(&handle).ok_or(CommandError::Unknown)?;
        if call.state != CallState::Incoming {
            return Err(CommandError::State);
        }
        let id = call.invite_transaction.ok_or(CommandError::State)?;
        Ok((id, call.local_tag.clone()))
    }

    /// A response to an INVITE that makes or keeps a dialog (RFC 3261 §12.1.1).
    pub(super) fn dialog_response(
        &self,
        id: TransactionId,
        status: u16,
        reason: &str,
        local_tag: &str,
    ) -> Option<Message> {
        let mut response = self.response(id, status, reason, local_tag)?;
        let entry = self.transactions.entry(id)?;
        for header in entry.request.headers.all(HeaderName::RecordRoute) {
            response.headers.push(header.clone());
        }
        let contact = self.contact(entry.peer.transport);
        response.headers.add(HeaderName::Contact, contact);
        response.headers.push(self.allow());
        Some(response)
    }

    /// Sends a 101–199 for an inbound call. An empty `reason` takes the usual phrase.
    ///
    /// # Errors
    /// [`CommandError::Argument`] for another status, `Unknown`, or `State` once answered.
    pub fn provisional(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        if !(101..200).contains(&status) {
            return Err(CommandError::Argument);
        }
        let (id, tag) = self.incoming(handle)?;
        let response = self.dialog_response(id, status, reason, &tag);
        let mut response = response.ok_or(CommandError::State)?;
        self.finish(&mut response, headers, body);
        let bytes = self.respond_in(now, id, &response);
        let refresh = self.config.provisional_refresh;
        if let Some(call) = self.calls.get_mut(&handle) {
            call.last_provisional = bytes;
            call.refresh_at = Some(now + refresh);
        }
        self.settle_call(handle);
        Ok(())
    }

    /// Answers an inbound call with 200. `AckReceived` follows, or `Ended { AckTimeout }`.
    ///
    /// # Errors
    /// [`CommandError::Unknown`], or [`CommandError::State`] once answered.
    pub fn accept(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        let (id, tag) = self.incoming(handle)?;
        let mut response = self.dialog_response(id, 200, "", &tag).ok_or(CommandError::State)?;
        self.finish(&mut response, headers, body);
        self.answer(now, handle, id, &response);
        if let Some(call) = self.calls.get_mut(&handle) {
            call.state = CallState::Accepting;
            call.deadline = None;
            call.refresh_at = None;
        }
        self.settle_call(handle);
        Ok(())
    }

    /// Sends a 2xx to an INVITE and repeats it until its ACK (RFC 3261 §13.3.1.4).
    pub(super) fn answer(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        response: &Message,
    ) {
        let Some(to) = self.transactions.entry(id).map(|entry| entry.peer) else { return };
        let Some(bytes) = self.respond_in(now, id, response) else { return };
        let timers = self.config.timers;
        let cseq = response.cseq().map_or(0, |cseq| cseq.number);
        if let Some(call) = self.calls.get_mut(&handle) {
            call.answer = Some(AnswerRetransmission {
                bytes,
                to,
                cseq,
                interval: timers.t1,
                at: now + timers.t1,
                until: now + timers.transaction_timeout(),
            });
        }
    }

    /// Refuses an inbound call with 300–699. `Ended { Rejected }` follows at once.
    ///
    /// # Errors
    /// [`CommandError::Argument`] for another status, `Unknown`, or `State` once answered.
    pub fn reject(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        if !(300..700).contains(&status) {
            return Err(CommandError::Argument);
        }
        self.refuse_call(now, handle, status, reason, headers)?;
        self.end_call(handle, ended(handle, EndReason::Rejected));
        Ok(())
    }

    /// Sends a final refusal to the INVITE of an unanswered call, which then has to be ended.
    pub(super) fn refuse_call(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        let (id, tag) = self.incoming(handle)?;
        let mut response = self.response(id, status, reason, &tag).ok_or(CommandError::State)?;
        self.finish(&mut response, headers, None);
        self.respond_in(now, id, &response);
        Ok(())
    }

    /// CANCEL for the INVITE of a call; its own 200 has been sent.
    pub(super) fn call_canceled(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        invite: TransactionId,
        reasons: Vec<Reason>,
    ) {
        // RFC 3261 §9.2: without effect once a final response is out.
        let waits = self.incoming(handle).is_ok_and(|(id, _)| id == invite);
        if waits && self.refuse_call(now, handle, 487, "", Vec::new()).is_ok() {
            self.end_call(handle, Event::Canceled { handle, reasons });
        }
    }

    /// An ACK for a 2xx of ours.
    pub(super) fn ack_received(&mut self, now: Instant, handle: DialogHandle, ack: &Message) {
        let call_max = self.config.call_max;
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let number = ack.cseq().map(|cseq| cseq.number);
        if call.answer.as_ref().map(|answer| answer.cseq) != number {
            // A repeated ACK, or one for a refusal whose transaction is gone.
            return;
        }
        call.answer = None;
        if call.state == CallState::Accepting {
            call.state = CallState::Established;
            call.deadline = Some(now + call_max);
        }
        let bye = call.bye_after_ack.take();
        self.emit(Event::AckReceived { handle, sdp: ack.sdp() });
        if let Some(headers) = bye {
            let reason = self.calls.get(&handle).map(|call| call.end_reason.clone());
            self.start_bye(now, handle, headers, reason.unwrap_or(EndReason::LocalBye));
        }
        self.settle_call(handle);
    }
}

/// The last event of a call without a BYE of the peer.
pub(super) fn ended(handle: DialogHandle, reason: EndReason) -> Event {
    Event::Ended { handle, reason, request: None }
}
