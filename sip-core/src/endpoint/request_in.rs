//! Requests from the network: transaction matching and the checks of RFC 3261 §8.2, then to the
//! call they belong to.

use std::time::Instant;

use super::wire::ALLOW_OUTSIDE;
use super::{SipEndpoint, User};
use crate::event::DialogHandle;
use crate::msg::{Header, HeaderName, MediaType, Message, Method, Params, Scheme};
use crate::transaction::{Effect, Machine, MergeKey, ServerKey};
use crate::transport::{Destination, Transport, stamp_top_via};

impl SipEndpoint {
    pub(super) fn receive_request(
        &mut self,
        now: Instant,
        source: Destination,
        mut request: Message,
    ) {
        self.counters.requests_received += 1;
        let (Some(key), Some(method)) = (ServerKey::of_request(&request), request.method()) else {
            self.counters.parse_errors_dropped += 1;
            return;
        };
        stamp_top_via(&mut request, source.addr);
        if method == Method::Ack {
            return self.receive_ack(now, &key, &request);
        }
        if let Some(id) = self.transactions.find_server(&key) {
            return self.repeat_server(id);
        }
        if method == Method::Cancel {
            return self.receive_cancel(now, key, request, source);
        }
        let in_dialog = request.to().is_some_and(|to| to.tag().is_some());
        let room = self.transactions.len() < self.config.transactions_max;
        match in_dialog {
            true => {
                // Requests of dialogs we accepted may use twice the room, so that calls can end.
                if self.transactions.len() >= self.config.transactions_max.saturating_mul(2) {
                    self.counters.capacity_dropped += 1;
                    return;
                }
                self.receive_in_dialog(now, key, request, source);
            }
            false if !room => {
                self.counters.capacity_refused += 1;
                let headers = vec![self.retry_after()];
                self.reply_stateless(&request, source, 503, headers);
            }
            false => self.receive_out_of_dialog(now, key, request, source, &method),
        }
    }

    pub(super) fn retry_after(&self) -> Header {
        Header::new(HeaderName::RetryAfter, self.config.retry_after_s.to_string())
    }

    /// Answers with a refusal that a rule of the RFC demands.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        status: u16,
        headers: Vec<Header>,
    ) {
        self.counters.requests_refused += 1;
        self.reply(now, key, request, source, status, headers);
    }

    fn refuse_outside(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        status: u16,
        headers: Vec<Header>,
    ) {
        self.counters.requests_refused += 1;
        self.reply_outside(now, key, request, source, status, headers);
    }

    fn receive_ack(&mut self, now: Instant, key: &ServerKey, ack: &Message) {
        let timers = self.config.timers;
        if let Some(id) = self.transactions.find_server(key)
            && let Some(entry) = self.transactions.entry_mut(id)
        {
            let effect = match &mut entry.machine {
                Machine::ServerInvite(machine) => machine.on_ack(now, &timers),
                _ => Effect::nothing(),
            };
            self.settle_transaction(id);
            if !effect.to_user {
                return;
            }
        }
        match self.find_call(ack) {
            Some(handle) => self.ack_received(now, handle, ack),
            None => self.counters.acks_unmatched += 1,
        }
    }

    /// The call that a request in a dialog belongs to: our tag, its Call-ID.
    fn find_call(&self, request: &Message) -> Option<DialogHandle> {
        let to = request.to()?;
        let handle = *self.tags.get(to.tag()?)?;
        let call = self.calls.get(&handle)?;
        (request.call_id()? == call.call_id.as_str()).then_some(handle)
    }

    fn receive_cancel(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        // RFC-DEVIATION 3261 §9.2: some proxies change the Via of a CANCEL. A phone that rings on is
        // worse than a match by Call-ID, From tag and CSeq.
        let invite = self.transactions.find_server(&key.canceled()).or_else(|| {
            MergeKey::canceled(&request).and_then(|merge| self.transactions.find_merged(&merge))
        });
        let entry = invite.and_then(|id| Some((id, self.transactions.entry(id)?)));
        let Some((invite, entry)) = entry else {
            self.counters.cancels_unmatched += 1;
            // Without a transaction of its own, so that a flood of them takes no room.
            return self.reply_stateless(&request, source, 481, Vec::new());
        };
        let user = entry.user.clone();
        let reasons = request.reasons();
        let handle = match user {
            User::Invite(handle) | User::Reinvite(handle) => Some(handle),
            _ => None,
        };
        let tag = handle.and_then(|h| self.calls.get(&h)).map(|call| call.local_tag.clone());
        // RFC 3261 §9.2: the CANCEL is answered 200 whether it comes in time or not.
        match tag {
            Some(tag) => self.reply_tagged(now, key, request, source, 200, Vec::new(), &tag),
            None => self.reply(now, key, request, source, 200, Vec::new()),
        }
        match user {
            User::Invite(handle) => self.call_canceled(now, handle, invite, reasons),
            User::Reinvite(handle) => self.reinvite_canceled(now, handle, invite),
            _ => {}
        }
    }

    fn receive_in_dialog(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
    ) {
        let Some(handle) = self.find_call(&request) else {
            self.counters.dialogs_unmatched += 1;
            return self.reply_outside(now, key, request, source, 481, Vec::new());
        };
        if let Some(header) = unsupported_options(&request) {
            return self.refuse(now, key, request, source, 420, vec![header]);
        }
        self.in_dialog_request(now, handle, key, request, source);
    }

    fn receive_out_of_dialog(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Message,
        source: Destination,
        method: &Method,
    ) {
        // RFC 3261 §8.2.2.2: the same request by another way.
        if MergeKey::of_request(&request)
            .is_some_and(|merge| self.transactions.find_merged(&merge).is_some())
        {
            self.counters.requests_merged += 1;
            return self.reply_outside(now, key, request, source, 482, Vec::new());
        }
        match method {
            Method::Invite | Method::Options => {}
            Method::Bye | Method::Info | Method::Update | Method::Notify | Method::Prack => {
                self.counters.dialogs_unmatched += 1;
                return self.reply_outside(now, key, request, source, 481, Vec::new());
            }
            known => {
                let status = if known.is_known() { 405 } else { 501 };
                let allow = Header::new(HeaderName::Allow, ALLOW_OUTSIDE);
                return self.refuse_outside(now, key, request, source, status, vec![allow]);
            }
        }
        // A B2BUA behaves as a proxy here (RFC 3261 §16.3): a loop through it must end. OPTIONS goes
        // no further than here, and neighbours that only ask whether we live say 0.
        let hops = request.number(HeaderName::MaxForwards);
        if *method == Method::Invite && hops == Some(0) {
            return self.refuse_outside(now, key, request, source, 483, Vec::new());
        }
        let scheme = request.request_uri().map(|uri| uri.scheme());
        let known = match scheme {
            Some(Scheme::Sip | Scheme::Tel) => true,
            // RFC 5630 §5.3: who asks for security on every hop does not get it by datagrams.
            Some(Scheme::Sips) => matches!(source.transport, Transport::Tls | Transport::Wss),
            Some(Scheme::Other) | None => false,
        };
        if !known {
            return self.refuse_outside(now, key, request, source, 416, Vec::new());
        }
        if let Some(header) = unsupported_options(&request) {
            return self.refuse_outside(now, key, request, source, 420, vec![header]);
        }
        if *method == Method::Options {
            if !self.available {
                let headers = vec![self.retry_after()];
                return self.reply_outside(now, key, request, source, 503, headers);
            }
            let headers = self.options_headers(source);
            return self.reply_outside(now, key, request, source, 200, headers);
        }
        if let Some(header) = unsupported_body(&request) {
            return self.refuse_outside(now, key, request, source, 415, vec![header]);
        }
        if !accepts_sdp(&request) {
            return self.refuse_outside(now, key, request, source, 406, Vec::new());
        }
        if self.calls.len() >= self.config.dialogs_max {
            self.counters.capacity_refused += 1;
            let headers = vec![self.retry_after()];
            return self.reply_outside(now, key, request, source, 503, headers);
        }
        self.incoming_call(now, key, request, source);
    }

    pub(super) fn options_headers(&self, source: Destination) -> Vec<Header> {
        vec![
            Header::new(HeaderName::Contact, self.contact(source.transport)),
            self.allow(),
            Header::new(HeaderName::Accept, "application/sdp, multipart/mixed"),
            Header::new(HeaderName::Supported, ""),
        ]
    }
}

/// RFC 3261 §8.2.2.3: the option tags we do not know (we need none).
fn unsupported_options(request: &Message) -> Option<Header> {
    let mut wanted = request.option_tags(HeaderName::Require);
    // A B2BUA stands in the place of a proxy, so it must understand Proxy-Require too.
    wanted.extend(request.option_tags(HeaderName::ProxyRequire));
    wanted.sort_unstable();
    wanted.dedup();
    (!wanted.is_empty()).then(|| Header::new(HeaderName::Unsupported, wanted.join(", ")))
}

/// RFC 3261 §8.2.3: a body of an INVITE that we cannot read.
fn unsupported_body(request: &Message) -> Option<Header> {
    if request.body.is_empty() {
        return None;
    }
    let encoding = request.headers.first(HeaderName::ContentEncoding);
    if encoding.is_some_and(|header| !header.value_str().eq_ignore_ascii_case("identity")) {
        return Some(Header::new(HeaderName::AcceptEncoding, "identity"));
    }
    let essence = request.content_type().map(|media_type| media_type.essence);
    let readable = essence
        .is_some_and(|essence| essence == "application/sdp" || essence.starts_with("multipart/"));
    let header = || Header::new(HeaderName::Accept, "application/sdp, multipart/mixed");
    (!readable && !is_optional(request)).then(header)
}

/// RFC 3261 §20.1: an INVITE without Accept takes session descriptions.
fn accepts_sdp(request: &Message) -> bool {
    let ranges = request.values(HeaderName::Accept);
    let fits = |range: &Vec<u8>| {
        MediaType::parse(range).is_some_and(|range| {
            ["application/sdp", "application/*", "*/*"].contains(&range.essence.as_str())
        })
    };
    ranges.is_empty() || ranges.iter().any(fits)
}

/// RFC 3261 §20.11: the sender does not mind whether the body is understood.
fn is_optional(request: &Message) -> bool {
    let said = request.headers.first(HeaderName::ContentDisposition).map(Header::value_str);
    let params = said.as_deref().and_then(|said| said.split_once(';').map(|(_, rest)| rest));
    let params = params.and_then(Params::parse);
    params.is_some_and(|params| {
        params.get("handling").is_some_and(|value| value.eq_ignore_ascii_case("optional"))
    })
}
