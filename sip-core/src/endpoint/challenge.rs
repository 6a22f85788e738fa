//! Challenges (401, 407) to requests of ours: answered once, with the call's credentials.

use std::time::Instant;

use super::{SipEndpoint, User};
use crate::auth::digest;
use crate::msg::{HeaderName, Message};
use crate::transaction::TransactionId;

impl SipEndpoint {
    /// Sends a challenged request again with credentials. False if the response is no challenge, or
    /// one we cannot answer, or the request has carried credentials already.
    pub(super) fn retry_challenged(
        &mut self,
        now: Instant,
        id: TransactionId,
        response: &Message,
    ) -> bool {
        if !matches!(response.status(), Some(401 | 407)) {
            return false;
        }
        let Some(entry) = self.transactions.entry(id) else { return false };
        let (mut message, mut to, user) = (entry.request.clone(), entry.peer, entry.user.clone());
        let tried = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
        if tried.iter().any(|name| message.headers.first(*name).is_some()) {
            return false;
        }
        let handle = match user {
            User::Invite(handle) | User::Reinvite(handle) | User::Bye(handle) => Some(handle),
            User::Request(handle, ..) => handle,
            User::Served(_) | User::Nobody => return false,
        };
        let call = handle.and_then(|handle| self.calls.get(&handle));
        let credentials = match &user {
            User::Request(_, _, credentials) => credentials.as_deref().cloned(),
            _ => call.and_then(|call| call.credentials.clone()),
        };
        let Some(credentials) = credentials else { return false };
        let cnonce = self.token.mint(&mut self.rng);
        if !digest::authorize(&mut message, response, &credentials, &cnonce) {
            return false;
        }
        let in_dialog = message.to().is_some_and(|to| to.tag().is_some());
        let call = handle.and_then(|handle| self.calls.get_mut(&handle));
        if let Some(dialog) = call.and_then(|call| call.dialog.as_mut()).filter(|_| in_dialog) {
            // Another request may have taken the next number meanwhile.
            let number = dialog.next_cseq();
            let method = message.method().map(|method| method.to_string()).unwrap_or_default();
            message.headers.set(HeaderName::CSeq, format!("{number} {method}"));
            to = dialog.destination(&self.config.transports);
        }
        if let Some(over) = handle.and_then(|h| self.calls.get(&h)).and_then(|c| c.peer_override) {
            to = over;
        }
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        let next = self.start_client(now, message, to, user.clone());
        self.follow_retry(&user, next, cseq);
        true
    }

    /// Makes the new transaction the one its call knows.
    fn follow_retry(&mut self, user: &User, id: TransactionId, cseq: u32) {
        let sent = self.transactions.entry(id).map(|entry| entry.request.clone());
        match user {
            User::Invite(handle) => {
                if let (Some(call), Some(sent)) = (self.calls.get_mut(handle), sent) {
                    call.invite = sent;
                    call.invite_transaction = Some(id);
                    call.state = crate::dialog::CallState::Calling;
                    call.early.clear();
                }
            }
            User::Reinvite(handle) => {
                let call = self.calls.get_mut(handle);
                if let Some(offer) = call.and_then(|call| call.outbound_offer.as_mut()) {
                    offer.transaction = Some(id);
                    offer.cseq = cseq;
                }
            }
            User::Bye(handle) => {
                if let Some(call) = self.calls.get_mut(handle) {
                    call.bye_transaction = Some(id);
                }
            }
            User::Request(..) | User::Served(_) | User::Nobody => {}
        }
    }
}
