//! Requests in a dialog other than re-INVITE: BYE both ways, INFO and the like, and requests of
//! ours outside a dialog.

use std::time::Instant;

use bytes::Bytes;

use super::uas::ended;
use super::{SipEndpoint, User};
use crate::dialog::{CSeqCheck, CallState};
use crate::error::CommandError;
use crate::event::{Body, DialogHandle, EndReason, Event, RequestId, RequestParams};
use crate::msg::{Header, HeaderName, Message, Method};
use crate::transaction::ServerKey;
use crate::transport::Destination;

impl SipEndpoint {
    /// A request that names a call of ours by its To tag and Call-ID.
    pub(super) fn in_dialog_request(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let from_tag = request.from().and_then(|from| from.tag().map(str::to_owned));
        let method = request.method().unwrap_or(Method::Options);
        let number = request.cseq().map_or(0, |cseq| cseq.number);
        let Some(dialog) = call.dialog_with(&from_tag.unwrap_or_default()) else {
            // RFC-DEVIATION 3261 §12.2.2: a BYE for an INVITE whose every 1xx and 2xx was lost
            // names a dialog we never saw. Ending the call is what the peer has done already.
            let unanswered = matches!(call.state, CallState::Calling | CallState::Ringing);
            if method == Method::Bye && unanswered && call.early.is_empty() {
                return self.remote_bye(now, handle, key, request, source);
            }
            self.counters.dialogs_unmatched += 1;
            return self.reply(now, key, request, source, 481, Vec::new());
        };
        if dialog.check_cseq(number) == CSeqCheck::OutOfOrder {
            self.counters.cseq_out_of_order += 1;
            return self.reply(now, key, request, source, 500, Vec::new());
        }
        let ending = call.state == CallState::Ending;
        match method {
            Method::Bye => self.remote_bye(now, handle, key, request, source),
            // After our BYE the session is over; only the peer's crossing BYE is welcome.
            _ if ending => self.reply(now, key, request, source, 481, Vec::new()),
            Method::Invite => self.reinvite_request(now, handle, key, request, source),
            Method::Update => self.update_request(now, handle, key, request, source),
            Method::Options => {
                let headers = self.options_headers(source);
                self.reply(now, key, request, source, 200, headers);
            }
            Method::Info | Method::Refer | Method::Notify | Method::Message
                if self.config.served_methods.contains(&method) =>
            {
                self.serve_request(now, handle, key, request, source, &method);
            }
            other => {
                let status = if other.is_known() { 405 } else { 501 };
                let allow = self.allow();
                self.refuse(now, key, request, source, status, vec![allow]);
            }
        }
    }

    fn serve_request(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        key: ServerKey,
        request: Message,
        source: Destination,
        method: &Method,
    ) {
        let refer_to = request.name_addr(HeaderName::ReferTo);
        if *method == Method::Refer && refer_to.is_none() {
            return self.refuse(now, key, request, source, 400, Vec::new());
        }
        let id = self.mint_request_id();
        let transaction = self.start_server(now, key, request.clone(), source, User::Served(id));
        self.served.insert(id, transaction);
        let content_type = request.content_type().map(|media_type| media_type.essence);
        let body = request.body.clone();
        let request = Box::new(request);
        self.emit(match (method, refer_to) {
            (Method::Info, _) => {
                let content_type = content_type.unwrap_or_default();
                Event::Info { handle, id, content_type, body, request }
            }
            (Method::Refer, Some(refer_to)) => {
                let refer_to = Box::new(refer_to);
                Event::Refer { handle, id, refer_to, request }
            }
            _ => Event::Request { handle, id, request },
        });
    }

    /// Answers `Info`, `Refer` or `Request`.
    ///
    /// # Errors
    /// [`CommandError::Unknown`] once answered or too late, [`CommandError::Argument`] for a status
    /// that is not final.
    pub fn respond(
        &mut self,
        now: Instant,
        id: RequestId,
        status: u16,
        reason: &str,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<(), CommandError> {
        if !(200..700).contains(&status) {
            return Err(CommandError::Argument);
        }
        let transaction = self.served.remove(&id).ok_or(CommandError::Unknown)?;
        let response = self.response(transaction, status, reason, "");
        let mut response = response.ok_or(CommandError::Unknown)?;
        self.finish(&mut response, headers, body);
        self.respond_in(now, transaction, &response);
        Ok(())
    }

    fn remote_bye(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        self.reply(now, key, request.clone(), source, 200, Vec::new());
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let tag = request.from().and_then(|from| from.tag().map(str::to_owned)).unwrap_or_default();
        match call.state {
            // BYE crossing BYE: ours goes on to its end.
            CallState::Ending => return,
            CallState::Incoming => {
                // RFC 3261 §15.1.2: the caller may end an early dialog; the INVITE gets 487.
                let _ = self.refuse_call(now, handle, 487, "", Vec::new());
            }
            CallState::Calling | CallState::Ringing | CallState::Canceling => {
                call.early.retain(|dialog| dialog.remote_tag() != tag);
                if !call.early.is_empty() {
                    return;
                }
                if let Some(id) = call.invite_transaction {
                    self.drop_transaction(id);
                }
            }
            _ => self.refuse_inbound_offer(now, handle, 487),
        }
        let reason = EndReason::RemoteBye { reasons: request.reasons() };
        let request = Some(Box::new(request));
        self.end_call(handle, Event::Ended { handle, reason, request });
    }

    /// Ends an answered call. `Ended { LocalBye }` follows when the peer has answered or is given
    /// up. While our 2xx waits for its ACK, the BYE waits too (RFC 3261 §15).
    ///
    /// # Errors
    /// [`CommandError::Unknown`], or [`CommandError::State`] before an answer.
    pub fn bye(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        match call.state {
            CallState::Ending => return Ok(()),
            CallState::Accepting => {
                call.bye_after_ack = Some(headers);
                return Ok(());
            }
            CallState::AwaitingAnswer => self.send_owed_ack(now, handle, None),
            CallState::Established => {}
            _ => return Err(CommandError::State),
        }
        self.start_bye(now, handle, headers, EndReason::LocalBye);
        Ok(())
    }

    /// Ends the leg in whatever state it is: `reject` with `status` for an unanswered inbound call,
    /// `cancel` for an unanswered outbound one, `bye` for an answered one.
    ///
    /// # Errors
    /// [`CommandError::Unknown`]; [`CommandError::Argument`] if `status` is not 300–699.
    pub fn hang_up(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        status: u16,
        headers: Vec<Header>,
    ) -> Result<(), CommandError> {
        match self.calls.get(&handle).ok_or(CommandError::Unknown)?.state {
            CallState::Incoming => self.reject(now, handle, status, "", headers),
            CallState::Calling | CallState::Ringing | CallState::Canceling => {
                self.cancel(now, handle, headers)
            }
            _ => self.bye(now, handle, headers),
        }
    }

    /// Sends the BYE and waits for its end.
    pub(super) fn start_bye(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        headers: Vec<Header>,
        reason: EndReason,
    ) {
        self.refuse_inbound_offer(now, handle, 487);
        let Some(call) = self.calls.get_mut(&handle) else { return };
        if call.state == CallState::Ending {
            return;
        }
        call.state = CallState::Ending;
        call.end_reason = reason;
        call.stop_timers();
        let Some(dialog) = &mut call.dialog else {
            let reason = call.end_reason.clone();
            return self.end_call(handle, ended(handle, reason));
        };
        let cseq = dialog.next_cseq();
        let mut message = dialog.request(Method::Bye, cseq);
        let to = call.peer_override.unwrap_or_else(|| dialog.destination(&self.config.transports));
        self.finish(&mut message, headers, None);
        let id = self.start_client(now, message, to, User::Bye(handle));
        if let Some(call) = self.calls.get_mut(&handle) {
            call.bye_transaction = Some(id);
        }
        self.settle_call(handle);
    }

    /// Our BYE has its final response, or is given up.
    pub(super) fn bye_done(&mut self, handle: DialogHandle) {
        if let Some(call) = self.calls.get(&handle) {
            let reason = call.end_reason.clone();
            self.end_call(handle, ended(handle, reason));
        }
    }

    /// Sends INFO in an answered call, or in an inbound call that rings. `RequestDone` follows.
    ///
    /// # Errors
    /// As [`SipEndpoint::request`].
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
    ///
    /// # Errors
    /// [`CommandError::Unknown`], `State` without a dialog, `Argument` for INVITE, ACK, BYE, CANCEL,
    /// `Capacity`.
    pub fn request(
        &mut self,
        now: Instant,
        handle: DialogHandle,
        method: Method,
        headers: Vec<Header>,
        body: Option<Body>,
    ) -> Result<RequestId, CommandError> {
        if matches!(method, Method::Invite | Method::Ack | Method::Bye | Method::Cancel) {
            return Err(CommandError::Argument);
        }
        if self.transactions.len() >= self.config.transactions_max {
            return Err(CommandError::Capacity);
        }
        let call = self.calls.get_mut(&handle).ok_or(CommandError::Unknown)?;
        if call.state == CallState::Ending {
            return Err(CommandError::State);
        }
        let credentials = call.credentials.clone().map(Box::new);
        let dialog = call.dialog.as_mut().ok_or(CommandError::State)?;
        let cseq = dialog.next_cseq();
        let mut message = dialog.request(method.clone(), cseq);
        let to = call.peer_override.unwrap_or_else(|| dialog.destination(&self.config.transports));
        if matches!(method, Method::Refer | Method::Notify | Method::Subscribe | Method::Update) {
            message.headers.add(HeaderName::Contact, self.contact(to.transport));
        }
        self.finish(&mut message, headers, body);
        let id = self.mint_request_id();
        self.start_client(now, message, to, User::Request(Some(handle), id, credentials));
        Ok(id)
    }

    /// Sends a request outside any dialog (OPTIONS, REGISTER, MESSAGE). `RequestDone` follows with
    /// `handle: None`.
    ///
    /// # Errors
    /// [`CommandError::Argument`] for INVITE, ACK, CANCEL; `Capacity`.
    pub fn send_request(
        &mut self,
        now: Instant,
        params: RequestParams,
    ) -> Result<RequestId, CommandError> {
        let method = params.method;
        if matches!(method, Method::Invite | Method::Ack | Method::Cancel) {
            return Err(CommandError::Argument);
        }
        if self.transactions.len() >= self.config.transactions_max {
            return Err(CommandError::Capacity);
        }
        let tag = self.token.mint(&mut self.rng);
        let call_id = match params.call_id {
            Some(call_id) => call_id,
            None => self.token.mint(&mut self.rng),
        };
        let mut message = Message::request(method.clone(), &params.request_uri);
        let headers = &mut message.headers;
        headers.add(HeaderName::MaxForwards, "70");
        headers.add(HeaderName::From, params.from.with_tag(&tag).to_string());
        headers.add(HeaderName::To, params.to.to_string());
        headers.add(HeaderName::CallId, &call_id);
        headers.add(HeaderName::CSeq, format!("{} {method}", params.cseq));
        headers.add(HeaderName::Contact, self.contact(params.target.transport));
        self.finish(&mut message, params.headers, params.body);
        let id = self.mint_request_id();
        let user = User::Request(None, id, params.credentials.map(Box::new));
        self.start_client(now, message, params.target, user);
        Ok(id)
    }
}
