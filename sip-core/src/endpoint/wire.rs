//! What all parts of the endpoint need to send: message building, transactions, timers.

use std::time::Instant;

use bytes::Bytes;

use super::{SipEndpoint, Timer, User};
use crate::event::{Body, DialogHandle, Event, Output};
use crate::msg::header::via::BRANCH_COOKIE;
use crate::msg::{Header, HeaderName, Message, Method};
use crate::transaction::{
    ClientInvite, ClientKey, ClientNonInvite, Effect, Machine, ServerInvite, ServerKey,
    ServerNonInvite, TransactionId,
};
use crate::transport::{Destination, Transport, response_destination};

/// What we can do outside a dialog, and inside one whatever the user serves.
pub(super) const ALLOW_OUTSIDE: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS";

impl SipEndpoint {
    pub(super) fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn send(&mut self, to: Destination, bytes: Bytes) {
        self.outputs.push_back(Output::Send { to, bytes });
    }

    pub(super) fn contact(&self, transport: Transport) -> String {
        let host = self.config.advertised.to_host_port();
        match transport {
            Transport::Udp => format!("<sip:{host}>"),
            other => format!("<sip:{host};transport={}>", other.uri_param()),
        }
    }

    /// What we say we can do inside a dialog.
    pub(super) fn allow(&self) -> Header {
        let mut methods = format!("{ALLOW_OUTSIDE}, {}", Method::Update);
        for method in &self.config.served_methods {
            methods.push_str(", ");
            methods.push_str(method.as_str());
        }
        Header::new(HeaderName::Allow, methods)
    }

    /// A Via of ours with a new branch.
    pub(super) fn push_via(&mut self, message: &mut Message, transport: Transport) -> String {
        let branch = format!("{BRANCH_COOKIE}{}", self.token.mint(&mut self.rng));
        let host = self.config.advertised.to_host_port();
        let value = format!("SIP/2.0/{transport} {host};branch={branch};rport");
        message.headers.push_front(Header::new(HeaderName::Via, value));
        branch
    }

    /// The user's headers and body, and who we are.
    pub(super) fn finish(&self, message: &mut Message, headers: Vec<Header>, body: Option<Body>) {
        if !self.config.user_agent.is_empty() {
            let name =
                if message.is_request() { HeaderName::UserAgent } else { HeaderName::Server };
            message.headers.add(name, &self.config.user_agent);
        }
        for header in headers {
            match header.name() {
                // Ours alone: a second one would break the transaction or the dialog.
                HeaderName::Via
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId
                | HeaderName::CSeq
                | HeaderName::ContentLength
                | HeaderName::Route
                | HeaderName::RecordRoute => {}
                name @ (HeaderName::MaxForwards
                | HeaderName::Contact
                | HeaderName::UserAgent
                | HeaderName::Server
                | HeaderName::Allow
                | HeaderName::Supported) => {
                    message.headers.remove(name);
                    message.headers.push(header);
                }
                HeaderName::ContentType if body.is_some() => {}
                _ => message.headers.push(header),
            }
        }
        if let Some(body) = body {
            message.headers.add(HeaderName::ContentType, &body.content_type);
            message.body = body.bytes;
        }
    }

    /// Sends a request in a client transaction of its own.
    pub(super) fn start_client(
        &mut self,
        now: Instant,
        mut message: Message,
        to: Destination,
        user: User,
    ) -> TransactionId {
        let branch = self.push_via(&mut message, to.transport);
        self.start_client_with_branch(now, message, to, user, &branch)
    }

    /// The same for a message that has its Via (CANCEL, which has the branch of its INVITE).
    pub(super) fn start_client_with_branch(
        &mut self,
        now: Instant,
        message: Message,
        to: Destination,
        user: User,
        branch: &str,
    ) -> TransactionId {
        let bytes = message.to_bytes();
        let method = message.method().unwrap_or(Method::Options);
        let (reliable, timers) = (to.transport.is_reliable(), &self.config.timers);
        let machine = match method {
            Method::Invite => {
                Machine::ClientInvite(ClientInvite::new(now, bytes.clone(), reliable, timers))
            }
            _ => {
                Machine::ClientNonInvite(ClientNonInvite::new(now, bytes.clone(), reliable, timers))
            }
        };
        let key = ClientKey::new(branch, method);
        let id = self.transactions.insert_client(key, machine, user, to, message);
        self.counters.requests_sent += 1;
        self.send(to, bytes);
        self.settle_transaction(id);
        id
    }

    /// A server transaction for a request that came in.
    pub(super) fn start_server(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        user: User,
    ) -> TransactionId {
        let reliable = source.transport.is_reliable();
        let machine = if request.is_method(&Method::Invite) {
            Machine::ServerInvite(ServerInvite::new(reliable, &self.config.timers))
        } else {
            let machine = ServerNonInvite::new(now, reliable, &self.config.timers);
            Machine::ServerNonInvite(machine)
        };
        let peer = match request.top_via() {
            Some(via) => response_destination(&via, source),
            None => source,
        };
        let id = self.transactions.insert_server(key, machine, user, peer, request);
        self.settle_transaction(id);
        id
    }

    /// Sends a response in its transaction. The bytes are returned for users that repeat them.
    pub(super) fn respond_in(
        &mut self,
        now: Instant,
        id: TransactionId,
        response: &Message,
    ) -> Option<Bytes> {
        let status = response.status()?;
        let bytes = response.to_bytes();
        self.respond_bytes(now, id, status, bytes.clone());
        Some(bytes)
    }

    pub(super) fn respond_bytes(
        &mut self,
        now: Instant,
        id: TransactionId,
        status: u16,
        bytes: Bytes,
    ) {
        let timers = self.config.timers;
        let Some(entry) = self.transactions.entry_mut(id) else { return };
        let effect = match &mut entry.machine {
            Machine::ServerInvite(machine) => machine.respond(now, status, bytes, &timers),
            Machine::ServerNonInvite(machine) => machine.respond(now, status, bytes, &timers),
            Machine::ClientInvite(_) | Machine::ClientNonInvite(_) => Effect::nothing(),
        };
        let peer = entry.peer;
        if let Some(bytes) = effect.send {
            self.counters.responses_sent += 1;
            self.send(peer, bytes);
        }
        self.settle_transaction(id);
    }

    /// A response to the request of a server transaction with its usual headers.
    pub(super) fn response(
        &self,
        id: TransactionId,
        status: u16,
        reason: &str,
        to_tag: &str,
    ) -> Option<Message> {
        let entry = self.transactions.entry(id)?;
        Some(Message::response_to(&entry.request, status, reason, Some(to_tag)))
    }

    /// Answers a request at once, in a server transaction nobody else cares for.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        status: u16,
        headers: Vec<Header>,
    ) {
        let tag = self.token.mint(&mut self.rng);
        self.reply_tagged(now, key, request, source, status, headers, &tag);
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn reply_tagged(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        status: u16,
        headers: Vec<Header>,
        tag: &str,
    ) {
        let mut response = Message::response_to(&request, status, "", Some(tag));
        self.finish(&mut response, headers, None);
        let id = self.start_server(now, key, request, source, User::Nobody);
        self.respond_in(now, id, &response);
    }

    /// Answers a request that belongs to no dialog. Only an INVITE gets a transaction for it, because
    /// its answer has to arrive; of all others a flood takes no room from calls.
    pub(super) fn reply_outside(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        status: u16,
        headers: Vec<Header>,
    ) {
        if request.is_method(&Method::Invite) {
            self.reply(now, key, request, source, status, headers);
        } else {
            self.reply_stateless(&request, source, status, headers);
        }
    }

    /// Answers a request without any state.
    pub(super) fn reply_stateless(
        &mut self,
        request: &Message,
        source: Destination,
        status: u16,
        headers: Vec<Header>,
    ) {
        // RFC 3261 §8.2.7: a repeated request gets the same tag.
        let tag = self.token.mint_for(request.call_id().unwrap_or_default().as_bytes());
        let mut response = Message::response_to(request, status, "", Some(&tag));
        self.finish(&mut response, headers, None);
        let to = request.top_via().map_or(source, |via| response_destination(&via, source));
        self.counters.responses_sent += 1;
        self.send(to, response.to_bytes());
    }

    /// Sends what a machine wants sent, outside of `respond_bytes`.
    pub(super) fn apply(&mut self, id: TransactionId, effect: &Effect) {
        let Some(bytes) = effect.send.clone() else { return };
        let Some(entry) = self.transactions.entry(id) else { return };
        let peer = entry.peer;
        if effect.repeated {
            match entry.machine {
                Machine::ClientInvite(_) | Machine::ClientNonInvite(_) => {
                    self.counters.request_retransmissions_sent += 1;
                }
                _ => self.counters.response_retransmissions_sent += 1,
            }
        }
        self.send(peer, bytes);
    }

    /// Brings the timer of a transaction up to date, or removes it when it is over.
    pub(super) fn settle_transaction(&mut self, id: TransactionId) {
        let Some(entry) = self.transactions.entry(id) else { return };
        if entry.machine.is_terminated() {
            self.drop_transaction(id);
            return;
        }
        let deadline = entry.machine.deadline();
        self.timers.set(Timer::Transaction(id), deadline);
    }

    pub(super) fn drop_transaction(&mut self, id: TransactionId) {
        self.timers.set(Timer::Transaction(id), None);
        self.acks.remove(&id);
        if let Some(entry) = self.transactions.remove(id)
            && let User::Served(request_id) = entry.user
        {
            self.served.remove(&request_id);
        }
    }

    /// Brings the timer of a call up to date.
    pub(super) fn settle_call(&mut self, handle: DialogHandle) {
        let deadline = self.calls.get(&handle).and_then(|call| call.next_deadline());
        self.timers.set(Timer::Call(handle), deadline);
    }
}

/// The ACK to a 300–699, part of the INVITE transaction (RFC 3261 §17.1.1.3).
pub(super) fn refusal_ack(invite: &Message, response: &Message) -> Message {
    let to = response.headers.first(HeaderName::To);
    beside_invite(invite, Method::Ack, to)
}

/// The CANCEL of an INVITE (RFC 3261 §9.1).
pub(super) fn cancel(invite: &Message) -> Message {
    beside_invite(invite, Method::Cancel, invite.headers.first(HeaderName::To))
}

/// A request with the Via, URI, CSeq number and routes of an INVITE.
fn beside_invite(invite: &Message, method: Method, to: Option<&Header>) -> Message {
    let mut message = invite.clone();
    message.body = Bytes::new();
    message.headers = crate::msg::Headers::new();
    if let crate::msg::StartLine::Request { method: slot, .. } = &mut message.start {
        *slot = method.clone();
    }
    let mut via_done = false;
    for header in &invite.headers {
        match header.name() {
            HeaderName::Via if !via_done => {
                via_done = true;
                message.headers.push(header.clone());
            }
            HeaderName::MaxForwards | HeaderName::From | HeaderName::CallId | HeaderName::Route => {
                message.headers.push(header.clone());
            }
            HeaderName::To => message.headers.push(to.unwrap_or(header).clone()),
            HeaderName::CSeq => {
                let number = invite.cseq().map_or(0, |cseq| cseq.number);
                message.headers.add(HeaderName::CSeq, format!("{number} {method}"));
            }
            _ => {}
        }
    }
    message
}
