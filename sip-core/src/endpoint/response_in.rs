//! Responses from the network, and the ends of client transactions without one.

use std::time::Instant;

use super::{SipEndpoint, User, wire};
use crate::event::{EndReason, Event, FailCause, RequestOutcome};
use crate::msg::{HeaderName, Message};
use crate::transaction::{ClientKey, Effect, Machine, TransactionId};
use crate::transport::Destination;

impl SipEndpoint {
    pub(super) fn receive_response(
        &mut self,
        now: Instant,
        source: Destination,
        response: Message,
    ) {
        self.counters.responses_received += 1;
        // RFC 3261 §8.1.3.3: a response with further Vias is not for us.
        let alone = response.values(HeaderName::Via).len() == 1;
        let key = ClientKey::of_response(&response).filter(|_| alone);
        let id = key.and_then(|key| self.transactions.find_client(&key));
        let (Some(id), Some(status)) = (id, response.status()) else {
            self.counters.responses_unmatched += 1;
            return;
        };
        let timers = self.config.timers;
        let Some(entry) = self.transactions.entry_mut(id) else { return };
        let effect = match &mut entry.machine {
            Machine::ClientInvite(machine) => {
                let request = &entry.request;
                let ack = || wire::refusal_ack(request, &response).to_bytes();
                machine.on_response(now, status, ack, &timers)
            }
            Machine::ClientNonInvite(machine) => machine.on_response(now, status, &timers),
            Machine::ServerInvite(_) | Machine::ServerNonInvite(_) => Effect::nothing(),
        };
        let user = entry.user.clone();
        self.apply(id, &effect);
        if effect.to_user {
            self.client_response(now, id, user, source, response);
        } else {
            self.counters.response_retransmissions_received += 1;
        }
        self.settle_transaction(id);
    }

    fn client_response(
        &mut self,
        now: Instant,
        id: TransactionId,
        user: User,
        source: Destination,
        response: Message,
    ) {
        let status = response.status().unwrap_or(500);
        match user {
            User::Invite(handle) => self.invite_response(now, handle, id, source, response),
            User::Reinvite(handle) => self.reinvite_response(now, handle, id, source, response),
            User::Bye(handle) if status >= 200 => {
                if !self.retry_challenged(now, id, &response) {
                    self.bye_done(handle);
                }
            }
            User::Request(..) if status >= 200 => self.request_response(now, id, user, response),
            User::Bye(_) | User::Request(..) | User::Served(_) | User::Nobody => {}
        }
    }

    /// A client transaction ended without a final response.
    pub(super) fn client_failed(
        &mut self,
        now: Instant,
        id: TransactionId,
        user: User,
        cause: FailCause,
    ) {
        match user {
            User::Invite(handle) => self.invite_failed(handle, cause),
            User::Reinvite(handle) => self.reinvite_failed(now, handle, id, 408),
            User::Bye(handle) => self.bye_done(handle),
            User::Request(handle, request, _) => {
                let outcome = match cause {
                    FailCause::Transport => RequestOutcome::Transport,
                    _ => RequestOutcome::Timeout,
                };
                let handle = handle.filter(|handle| self.calls.contains_key(handle));
                self.emit(Event::RequestDone { handle, id: request, outcome });
            }
            User::Served(_) | User::Nobody => {}
        }
    }

    fn request_response(&mut self, now: Instant, id: TransactionId, user: User, response: Message) {
        let User::Request(handle, request_id, _) = user else { return };
        if self.retry_challenged(now, id, &response) {
            return;
        }
        let status = response.status().unwrap_or(500);
        let outcome = RequestOutcome::Response(Box::new(response));
        let handle = handle.filter(|handle| self.calls.contains_key(handle));
        self.emit(Event::RequestDone { handle, id: request_id, outcome });
        // RFC 5057 §5.1: 481 says that the peer does not know the dialog any more.
        if let (481, Some(handle)) = (status, handle)
            && self.calls.get(&handle).is_some_and(|call| call.is_answered())
        {
            self.start_bye(now, handle, Vec::new(), EndReason::TransactionTimeout);
        }
    }
}
