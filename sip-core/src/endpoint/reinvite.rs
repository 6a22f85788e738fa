//! Re-INVITE and UPDATE in both directions (RFC 3261 §14, RFC 3311), with glare.

use std::time::{Duration, Instant};

use rand::Rng;

use super::{SipEndpoint, User};
use crate::dialog::{CallState, InboundOffer, OutboundOffer};
use crate::error::CommandError;
use crate::event::{Body, DialogHandle, EndReason, Event};
use crate::msg::{Header, HeaderName, Message, Method};
use crate::transaction::{Machine, ServerKey, TransactionId};
use crate::transport::Destination;

/// Tries of one re-INVITE before its 491 is reported.
const TRIES_MAX: u32 = 5;

impl SipEndpoint {
    /// Sends a re-INVITE; `None` asks the peer for an offer. `ReInviteAnswered` or `ReInviteFailed`
    /// follows.
    ///
    /// # Errors
    /// [`CommandError::Unknown`], `State` unless the call is established, `Pending` while another
    /// offer is under way.
    pub fn reinvite(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        if call.state != CallState::Established {
            return Err(CommandError::State);
        }
        // RFC 3261 §14.1; an unacknowledged 2xx of ours counts as an INVITE in progress.
        if call.outbound_offer.is_some() || call.inbound_offer.is_some() || call.answer.is_some() {
            return Err(CommandError::Pending);
        }
        call.outbound_offer = Some(OutboundOffer {
            transaction: None,
            cseq: 0,
            headers,
            body,
            tries: 0,
            retry_at: None,
            awaits_ack_body: false,
        });
        self.send_reinvite(now, handle);
        Ok(())
    }

    pub(super) fn send_reinvite(&mut self, now: Instant, handle: DialogHandle) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let (Some(dialog), Some(offer)) = (&mut call.dialog, &mut call.outbound_offer) else {
            return;
        };
        offer.cseq = dialog.next_cseq();
        offer.tries += 1;
        offer.retry_at = None;
        let mut message = dialog.request(Method::Invite, offer.cseq);
        let to = call.peer_override.unwrap_or_else(|| dialog.destination(&self.config.transports));
        let (headers, body) = (offer.headers.clone(), offer.body.clone());
        message.headers.add(HeaderName::Contact, self.contact(to.transport));
        message.headers.push(self.allow());
        self.finish(&mut message, headers, body);
        let id = self.start_client(now, message, to, User::Reinvite(handle));
        let offer = self.calls.get_mut(&handle).and_then(|call| call.outbound_offer.as_mut());
        if let Some(offer) = offer {
            offer.transaction = Some(id);
        }
        self.settle_call(handle);
    }

    pub(super) fn reinvite_response(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        source: Destination,
        response: Message,
    ) {
        match response.status().unwrap_or(500) {
            100..=199 => self.bound_reinvite(now, id),
            200..=299 => self.reinvite_answered(now, handle, id, source, response),
            491 if self.defer_reinvite(now, handle, id) => {}
            401 | 407 if self.retry_challenged(now, id, &response) => {}
            status => self.reinvite_failed(now, handle, id, status),
        }
    }

    /// A peer that sends 1xx and then nothing must not hold the offer for ever.
    fn bound_reinvite(&mut self, now: Instant, id: TransactionId) {
        let timers = self.config.timers;
        if let Some(entry) = self.transactions.entry_mut(id)
            && let Machine::ClientInvite(machine) = &mut entry.machine
        {
            machine.on_cancel_sent(now, &timers);
        }
    }

    fn reinvite_answered(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        source: Destination,
        response: Message,
    ) {
        let answer_max = self.config.timers.transaction_timeout() / 2;
        let known = self.acks.get(&id).and_then(|list| list.first()).cloned();
        if let Some(record) = known {
            self.counters.ack_retransmissions_sent += 1;
            return self.send(record.to, record.bytes);
        }
        let Some(invite) = self.transactions.entry(id).map(|entry| entry.request.clone()) else {
            return;
        };
        let call = self.calls.get_mut(&handle);
        let current = call.filter(|call| {
            call.state == CallState::Established
                && call.outbound_offer.as_ref().is_some_and(|o| o.transaction == Some(id))
        });
        let Some(call) = current else {
            // The call has been ended meanwhile: acknowledge, no more.
            if let Some(dialog) = crate::dialog::Dialog::uac(&invite, &response, source) {
                self.acknowledge(id, &dialog, None, None, &invite);
            }
            return;
        };
        let Some(dialog) = &mut call.dialog else { return };
        dialog.refresh_target(&response, source);
        let (dialog, to) = (dialog.clone(), call.peer_override);
        if invite.body.is_empty() {
            if let Some(offer) = &mut call.outbound_offer {
                if offer.awaits_ack_body {
                    return;
                }
                offer.awaits_ack_body = true;
                offer.retry_at = Some(now + answer_max);
            }
        } else {
            call.outbound_offer = None;
            self.acknowledge(id, &dialog, None, to, &invite);
        }
        let (sdp, response) = (response.sdp(), Box::new(response));
        self.emit(Event::ReInviteAnswered { handle, sdp, response });
        self.settle_call(handle);
    }

    /// The ACK with the answer for a re-INVITE of ours that had no offer.
    pub(super) fn ack_reinvite(
        &mut self,
        handle: DialogHandle,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        let owed = call.outbound_offer.take_if(|offer| offer.awaits_ack_body);
        let id = owed.and_then(|offer| offer.transaction).ok_or(CommandError::State)?;
        let (dialog, to) = (call.dialog.clone(), call.peer_override);
        let invite = self.transactions.entry(id).map(|entry| entry.request.clone());
        if let (Some(dialog), Some(invite)) = (dialog, invite) {
            self.acknowledge(id, &dialog, body, to, &invite);
        }
        self.settle_call(handle);
        Ok(())
    }

    /// RFC 3261 §14.1: after 491 the owner of the Call-ID waits 2.1–4 s, the other 0–2 s, in steps
    /// of 10 ms.
    fn defer_reinvite(&mut self, now: Instant, handle: DialogHandle, id: TransactionId) -> bool {
        self.counters.glare += 1;
        let draw = self.rng.next_u64();
        let Some(call) = self.calls.get_mut(&handle) else { return false };
        let outbound = call.outbound;
        let Some(offer) = call.outbound_offer.as_mut().filter(|o| o.transaction == Some(id)) else {
            return false;
        };
        if offer.tries >= TRIES_MAX || call.state != CallState::Established {
            return false;
        }
        let wait_ms = if outbound { 2100 + draw % 191 * 10 } else { draw % 201 * 10 };
        offer.transaction = None;
        offer.retry_at = Some(now + Duration::from_millis(wait_ms));
        self.settle_call(handle);
        true
    }

    pub(super) fn reinvite_failed(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        status: u16,
    ) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let mine = |offer: &mut OutboundOffer| offer.transaction == Some(id);
        if call.outbound_offer.take_if(mine).is_none() || call.state == CallState::Ending {
            return;
        }
        self.emit(Event::ReInviteFailed { handle, status });
        self.settle_call(handle);
        // RFC 3261 §12.2.1.2: the dialog is gone at the peer.
        if matches!(status, 408 | 481) {
            self.start_bye(now, handle, Vec::new(), EndReason::TransactionTimeout);
        }
    }

    pub(super) fn reinvite_request(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        // RFC 3261 §14.2. A second INVITE before the first is answered: 500 with Retry-After.
        if call.inbound_offer.is_some() || call.state == CallState::Incoming {
            let seconds = self.rng.next_u64() % 11;
            let header = Header::new(HeaderName::RetryAfter, seconds.to_string());
            return self.refuse(now, key, request, source, 500, vec![header]);
        }
        let waits = call.outbound_offer.as_ref().is_some_and(|offer| offer.retry_at.is_none());
        if waits || call.state != CallState::Established || call.answer.is_some() {
            self.counters.glare += 1;
            return self.reply(now, key, request, source, 491, Vec::new());
        }
        if let Some(dialog) = &mut call.dialog {
            dialog.refresh_target(&request, source);
        }
        self.offer_received(now, handle, key, request, source);
    }

    pub(super) fn update_request(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        if request.body.is_empty() {
            // A target or session refresh (RFC 4028) without an offer.
            if let Some(dialog) = &mut call.dialog {
                dialog.refresh_target(&request, source);
            }
            let contact = Header::new(HeaderName::Contact, self.contact(source.transport));
            return self.reply(now, key, request, source, 200, vec![contact]);
        }
        self.reinvite_request(now, handle, key, request, source);
    }

    fn offer_received(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        let until = now + self.config.timers.transaction_timeout() * 3 / 4;
        let invite = request.is_method(&Method::Invite);
        let id = self.start_server(now, key, request.clone(), source, User::Reinvite(handle));
        if invite {
            let trying = Message::response_to(&request, 100, "", None);
            self.respond_in(now, id, &trying);
        }
        if let Some(call) = self.calls.get_mut(&handle) {
            call.inbound_offer = Some(InboundOffer { transaction: id, until });
        }
        let (sdp, request) = (request.sdp(), Box::new(request));
        self.emit(Event::ReInvite { handle, sdp, request });
        self.settle_call(handle);
    }

    /// Answers the peer's re-INVITE with 200 and a body, or refuses it.
    ///
    /// # Errors
    /// [`CommandError::Unknown`], `State` if no offer of the peer waits, `Argument` for a status
    /// that is not final.
    pub fn respond_reinvite(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        if !(200..700).contains(&status) {
            return Err(CommandError::Argument);
        }
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        let offer = call.inbound_offer.take().ok_or(CommandError::State)?;
        let (id, tag) = (offer.transaction, call.local_tag.clone());
        let response = if status < 300 {
            self.dialog_response(id, status, reason, &tag)
        } else {
            self.response(id, status, reason, &tag)
        };
        let mut response = response.ok_or(CommandError::State)?;
        self.finish(&mut response, headers, body);
        let invite = self
            .transactions
            .entry(id)
            .is_some_and(|entry| matches!(entry.machine, Machine::ServerInvite(_)));
        if invite && status < 300 {
            self.answer(now, handle, id, &response);
        } else {
            self.respond_in(now, id, &response);
        }
        self.settle_call(handle);
        Ok(())
    }

    /// CANCEL for a re-INVITE the user has not answered.
    pub(super) fn reinvite_canceled(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
    ) {
        let offer = self.calls.get(&handle).and_then(|call| call.inbound_offer.as_ref());
        if offer.is_some_and(|offer| offer.transaction == id) {
            self.refuse_inbound_offer(now, handle, 487);
        }
    }

    /// Refuses the peer's offer, if one waits.
    pub(super) fn refuse_inbound_offer(&mut self, now: Instant, handle: DialogHandle, status: u16) {
        let offer = self.calls.get(&handle).is_some_and(|call| call.inbound_offer.is_some());
        if offer {
            let _ = self.respond_reinvite(now, handle, status, "", Vec::new(), None);
        }
    }

    /// The transaction of the peer's offer is over without an answer of ours.
    pub(super) fn inbound_offer_gone(&mut self, handle: DialogHandle, id: TransactionId) {
        if let Some(call) = self.calls.get_mut(&handle) {
            call.inbound_offer.take_if(|offer| offer.transaction == id);
        }
        self.settle_call(handle);
    }
}
