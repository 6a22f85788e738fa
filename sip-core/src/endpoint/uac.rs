//! Outbound calls until they are answered (RFC 3261 §13.2, §9.1): early dialogs, forks, CANCEL,
//! the ACK of a 2xx.

use std::time::Instant;

use super::{AckRecord, SipEndpoint, User, wire};
use crate::dialog::{Call, CallState, Dialog, RouteSet};
use crate::error::CommandError;
use crate::event::{Body, DialogHandle, EndReason, Event, FailCause, InviteParams};
use crate::msg::{Header, HeaderName, Headers, Message, Method, StartLine};
use crate::transaction::{Machine, TransactionId};
use crate::transport::Destination;

/// Forks of one INVITE whose 2xx we remember.
const ACKS_MAX: usize = 16;

impl SipEndpoint {
    /// Starts an outbound call. `Provisional`, `Answered` or `Failed` follow.
    ///
    /// # Errors
    /// [`CommandError::Capacity`].
    pub fn invite(
        &mut self,
        now: Instant,
        params: InviteParams,
    ) -> Result<DialogHandle, CommandError> {
        if self.calls.len() >= self.config.dialogs_max
            || self.transactions.len() >= self.config.transactions_max
        {
            self.counters.capacity_refused += 1;
            return Err(CommandError::Capacity);
        }
        let local_tag = self.token.mint(&mut self.rng);
        let call_id = match params.call_id {
            Some(call_id) => call_id,
            None => self.token.mint(&mut self.rng),
        };
        let mut routes = Headers::new();
        let route_set = RouteSet::new(params.route);
        let uri = route_set.apply(&params.request_uri, &mut routes);
        let mut message = Message::request(Method::Invite, uri);
        if let StartLine::Request { uri: raw, .. } = &mut message.start {
            *raw = bytes::Bytes::copy_from_slice(uri.without_headers().as_bytes());
        }
        let mut to = params.to;
        to.params.remove("tag");
        let headers = &mut message.headers;
        headers.add(HeaderName::MaxForwards, "70");
        headers.add(HeaderName::From, params.from.with_tag(&local_tag).to_string());
        headers.add(HeaderName::To, to.to_string());
        headers.add(HeaderName::CallId, &call_id);
        headers.add(HeaderName::CSeq, "1 INVITE");
        headers.add(HeaderName::Contact, self.contact(params.target.transport));
        for route in &routes {
            headers.push(route.clone());
        }
        headers.push(self.allow());
        self.finish(&mut message, params.headers, params.body);
        let mut call =
            Call::new(CallState::Calling, call_id, local_tag, message.clone(), params.target);
        call.credentials = params.credentials;
        call.deadline = Some(now + self.config.ringing_max);
        let handle = self.insert_call(call);
        self.start_invite(now, handle, message, params.target);
        Ok(handle)
    }

    fn start_invite(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        message: Message,
        to: Destination,
    ) {
        let id = self.start_client(now, message, to, User::Invite(handle));
        let sent = self.transactions.entry(id).map(|entry| entry.request.clone());
        if let (Some(call), Some(sent)) = (self.calls.get_mut(&handle), sent) {
            call.invite = sent;
            call.invite_transaction = Some(id);
        }
        self.settle_call(handle);
    }

    /// Cancels an outbound call that is not answered. CANCEL waits for the first 1xx
    /// (RFC 3261 §9.1). `headers` go into the CANCEL (Reason). `Failed` follows, or `Ended` if the
    /// answer crossed it.
    ///
    /// # Errors
    /// [`CommandError::Unknown`], or [`CommandError::State`] if answered or inbound.
    pub fn cancel(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        match call.state {
            CallState::Canceling => return Ok(()),
            CallState::Calling | CallState::Ringing => {}
            _ => return Err(CommandError::State),
        }
        let heard = call.state == CallState::Ringing;
        call.state = CallState::Canceling;
        call.cancel_headers = headers;
        call.deadline = None;
        if heard {
            self.send_cancel(now, handle);
        }
        self.settle_call(handle);
        Ok(())
    }

    fn send_cancel(&mut self, now: Instant, handle: DialogHandle) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let Some(id) = call.invite_transaction.filter(|_| !call.cancel_sent) else { return };
        call.cancel_sent = true;
        let headers = std::mem::take(&mut call.cancel_headers);
        let timers = self.config.timers;
        let Some(entry) = self.transactions.entry_mut(id) else { return };
        if let Machine::ClientInvite(machine) = &mut entry.machine {
            machine.on_cancel_sent(now, &timers);
        }
        let (peer, mut message) = (entry.peer, wire::cancel(&entry.request));
        let branch = entry.request.top_via();
        let branch = branch.and_then(|via| via.branch().map(str::to_owned)).unwrap_or_default();
        self.finish(&mut message, headers, None);
        self.start_client_with_branch(now, message, peer, User::Nobody, &branch);
        self.settle_transaction(id);
    }

    /// Any response to a first INVITE that its transaction hands up.
    pub(super) fn invite_response(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        source: Destination,
        response: Message,
    ) {
        match response.status().unwrap_or(500) {
            100..=199 => self.invite_provisional(now, handle, source, response),
            200..=299 => self.invite_answered(now, handle, id, source, response),
            status => self.invite_refused(now, handle, id, status, response),
        }
    }

    fn invite_provisional(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        source: Destination,
        response: Message,
    ) {
        let (early_max, ringing_max) = (self.config.early_dialogs_max, self.config.ringing_max);
        let Some(call) = self.calls.get_mut(&handle) else { return };
        match call.state {
            CallState::Calling => call.state = CallState::Ringing,
            CallState::Ringing => {}
            CallState::Canceling => return self.send_cancel(now, handle),
            _ => return,
        }
        call.deadline = Some(now + ringing_max);
        let status = response.status().unwrap_or(100);
        if status == 100 {
            return self.settle_call(handle);
        }
        let tag = response.to().and_then(|to| to.tag().map(str::to_owned));
        if let Some(tag) = &tag {
            let known = call.early.iter_mut().find(|dialog| dialog.remote_tag() == tag);
            if let Some(dialog) = known {
                dialog.refresh_target(&response, source);
            } else if call.early.len() < early_max {
                call.early.extend(Dialog::uac(&call.invite, &response, source));
            }
        }
        let (sdp, response) = (response.sdp(), Box::new(response));
        self.emit(Event::Provisional { handle, early_dialog: tag, status, sdp, response });
        self.settle_call(handle);
    }

    fn invite_answered(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        source: Destination,
        response: Message,
    ) {
        let tag = response.to().and_then(|to| to.tag().map(str::to_owned)).unwrap_or_default();
        let known = self.acks.get(&id).and_then(|list| list.iter().find(|a| a.remote_tag == tag));
        if let Some(record) = known.cloned() {
            self.counters.ack_retransmissions_sent += 1;
            return self.send(record.to, record.bytes);
        }
        let Some(invite) = self.transactions.entry(id).map(|entry| entry.request.clone()) else {
            return;
        };
        let Some(dialog) = Dialog::uac(&invite, &response, source) else {
            // Answered, but with a Record-Route nobody can read: without ACK the peer gives up.
            return self.invite_refused(now, handle, id, 502, response);
        };
        let state = self.calls.get(&handle).map(|call| call.state);
        match state {
            Some(CallState::Calling | CallState::Ringing) => {
                self.establish(now, handle, id, dialog, response);
            }
            Some(CallState::Canceling) => {
                self.acknowledge(id, &dialog, None, None, &invite);
                if let Some(call) = self.calls.get_mut(&handle) {
                    call.dialog = Some(dialog);
                    call.early.clear();
                }
                self.start_bye(now, handle, Vec::new(), EndReason::CanceledAfterAnswer);
            }
            // The user owes the ACK of this very dialog; the repeated 2xx changes nothing.
            Some(CallState::AwaitingAnswer)
                if self
                    .calls
                    .get(&handle)
                    .and_then(|call| call.dialog.as_ref())
                    .is_some_and(|dialog| dialog.remote_tag() == tag) => {}
            _ => self.end_fork(now, handle, id, dialog, &invite),
        }
    }

    /// A 2xx of a further fork: acknowledged and ended at once (RFC 3261 §13.2.2.4).
    fn end_fork(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        mut dialog: Dialog,
        invite: &Message,
    ) {
        if self.acks.get(&id).is_some_and(|list| list.len() >= ACKS_MAX) {
            return;
        }
        self.counters.forks_ended += 1;
        let to = self.calls.get(&handle).and_then(|call| call.peer_override);
        self.acknowledge(id, &dialog, None, to, invite);
        let cseq = dialog.next_cseq();
        let mut bye = dialog.request(Method::Bye, cseq);
        self.finish(&mut bye, Vec::new(), None);
        let to = to.unwrap_or_else(|| dialog.destination(&self.config.transports));
        self.start_client(now, bye, to, User::Nobody);
    }

    fn establish(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        dialog: Dialog,
        response: Message,
    ) {
        let call_max = self.config.call_max;
        let answer_max = self.config.timers.transaction_timeout() / 2;
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let offered = !call.invite.body.is_empty();
        call.state = if offered { CallState::Established } else { CallState::AwaitingAnswer };
        call.deadline = Some(now + if offered { call_max } else { answer_max });
        call.dialog = Some(dialog.clone());
        call.early.clear();
        let (invite, to) = (call.invite.clone(), call.peer_override);
        if offered {
            self.acknowledge(id, &dialog, None, to, &invite);
        }
        let remote_tag = dialog.remote.tag().map(str::to_owned);
        let (sdp, response) = (response.sdp(), Box::new(response));
        self.emit(Event::Answered { handle, remote_tag, sdp, response });
        self.settle_call(handle);
    }

    /// Sends the ACK of a 2xx and keeps it for repetitions.
    pub(super) fn acknowledge(
        &mut self,
        id: TransactionId,
        dialog: &Dialog,
        body: Option<Body>,
        to: Option<Destination>,
        invite: &Message,
    ) {
        let cseq = invite.cseq().map_or(1, |cseq| cseq.number);
        let mut ack = dialog.request(Method::Ack, cseq);
        // RFC 3261 §13.2.2.4: the ACK carries the same credentials as the INVITE.
        for header in invite.headers.iter().filter(|h| {
            matches!(h.name(), HeaderName::Authorization | HeaderName::ProxyAuthorization)
        }) {
            ack.headers.push(header.clone());
        }
        let to = to.unwrap_or_else(|| dialog.destination(&self.config.transports));
        self.push_via(&mut ack, to.transport);
        self.finish(&mut ack, Vec::new(), body);
        let bytes = ack.to_bytes();
        self.counters.requests_sent += 1;
        self.send(to, bytes.clone());
        // The transaction may be gone when the user answers late; then nothing can repeat.
        if self.transactions.entry(id).is_some() {
            let record = AckRecord { remote_tag: dialog.remote_tag().to_owned(), bytes, to };
            self.acks.entry(id).or_default().push(record);
        }
    }

    /// Sends the ACK with the answer, when the peer's 2xx carried the offer.
    ///
    /// # Errors
    /// [`CommandError::Unknown`], or [`CommandError::State`] if no ACK is owed.
    pub fn ack(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        body: Body,
    ) -> Result<(), CommandError> {
        let call = self.calls.get(&handle).ok_or(CommandError::Unknown)?;
        if call.state == CallState::AwaitingAnswer {
            self.send_owed_ack(now, handle, Some(body));
            return Ok(());
        }
        self.ack_reinvite(handle, Some(body))
    }

    pub(super) fn send_owed_ack(&mut self, now: Instant, handle: DialogHandle, body: Option<Body>) {
        let call_max = self.config.call_max;
        let Some(call) = self.calls.get_mut(&handle) else { return };
        call.state = CallState::Established;
        call.deadline = Some(now + call_max);
        let (invite, to) = (call.invite.clone(), call.peer_override);
        if let (Some(dialog), Some(id)) = (call.dialog.clone(), call.invite_transaction) {
            self.acknowledge(id, &dialog, body, to, &invite);
        }
        self.settle_call(handle);
    }

    fn invite_refused(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        id: TransactionId,
        status: u16,
        response: Message,
    ) {
        let Some(call) = self.calls.get(&handle) else { return };
        let canceled = call.state == CallState::Canceling;
        if !canceled && self.retry_challenged(now, id, &response) {
            return self.settle_call(handle);
        }
        let cause = if canceled { FailCause::Canceled } else { FailCause::Response };
        let response = Some(Box::new(response));
        self.end_call(handle, Event::Failed { handle, status, cause, response });
    }

    /// The INVITE ended without a final response.
    pub(super) fn invite_failed(&mut self, handle: DialogHandle, cause: FailCause) {
        let Some(call) = self.calls.get(&handle) else { return };
        let canceled = call.state == CallState::Canceling;
        let (status, cause) = match cause {
            _ if canceled => (487, FailCause::Canceled),
            FailCause::Transport => (503, cause),
            _ => (408, cause),
        };
        self.end_call(handle, Event::Failed { handle, status, cause, response: None });
    }
}
