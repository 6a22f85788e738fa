//! Deadlines of calls: repeated 2xx and 1xx, offers that wait, ringing and call limits.

use std::time::{Duration, Instant};

use super::SipEndpoint;
use super::uas::ended;
use crate::dialog::CallState;
use crate::event::{DialogHandle, EndReason};
use crate::transaction::is_due;

impl SipEndpoint {
    pub(super) fn call_timer(&mut self, now: Instant, handle: DialogHandle) {
        self.refresh_provisional(now, handle);
        self.repeat_answer(now, handle);
        self.offer_timer(now, handle);
        let due = self.calls.get(&handle).is_some_and(|call| is_due(call.deadline, now));
        if due {
            self.call_expired(now, handle);
        }
        self.settle_call(handle);
    }

    /// RFC 3261 §13.3.1.1: proxies forget an INVITE that rings without a sign for too long.
    fn refresh_provisional(&mut self, now: Instant, handle: DialogHandle) {
        let refresh = self.config.provisional_refresh;
        let Some(call) = self.calls.get_mut(&handle) else { return };
        if !is_due(call.refresh_at, now) {
            return;
        }
        call.refresh_at = None;
        if let (Some(bytes), Some(id)) = (call.last_provisional.clone(), call.invite_transaction) {
            call.refresh_at = Some(now + refresh);
            self.respond_bytes(now, id, 180, bytes);
        }
    }

    fn repeat_answer(&mut self, now: Instant, handle: DialogHandle) {
        let timers = self.config.timers;
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let Some(answer) = &mut call.answer else { return };
        if answer.until <= now {
            // RFC 3261 §13.3.1.4: no ACK in 64·T1, the session is ended by BYE.
            let headers = call.bye_after_ack.take().unwrap_or_default();
            self.counters.ack_timeouts += 1;
            return self.start_bye(now, handle, headers, EndReason::AckTimeout);
        }
        if answer.at <= now {
            answer.interval = timers.next_capped(answer.interval);
            answer.at = now + answer.interval;
            let (to, bytes) = (answer.to, answer.bytes.clone());
            self.counters.answer_retransmissions_sent += 1;
            self.send(to, bytes);
        }
    }

    fn offer_timer(&mut self, now: Instant, handle: DialogHandle) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        if call.inbound_offer.as_ref().is_some_and(|offer| offer.until <= now) {
            self.counters.requests_unanswered += 1;
            self.refuse_inbound_offer(now, handle, 500);
        }
        let Some(call) = self.calls.get_mut(&handle) else { return };
        let busy = call.inbound_offer.is_some() || call.answer.is_some();
        let Some(offer) = call.outbound_offer.as_mut().filter(|o| is_due(o.retry_at, now)) else {
            return;
        };
        if offer.awaits_ack_body {
            let _ = self.ack_reinvite(handle, None);
            self.start_bye(now, handle, Vec::new(), EndReason::Expired);
        } else if busy {
            offer.retry_at = Some(now + Duration::from_secs(1));
        } else {
            self.send_reinvite(now, handle);
        }
    }

    fn call_expired(&mut self, now: Instant, handle: DialogHandle) {
        let Some(call) = self.calls.get_mut(&handle) else { return };
        call.deadline = None;
        match call.state {
            CallState::Calling | CallState::Ringing => {
                let _ = self.cancel(now, handle, Vec::new());
            }
            CallState::Incoming => {
                let _ = self.refuse_call(now, handle, 480, "", Vec::new());
                self.end_call(handle, ended(handle, EndReason::Expired));
            }
            CallState::AwaitingAnswer => {
                self.send_owed_ack(now, handle, None);
                self.start_bye(now, handle, Vec::new(), EndReason::Expired);
            }
            CallState::Established => {
                self.start_bye(now, handle, Vec::new(), EndReason::Expired);
            }
            CallState::Canceling | CallState::Accepting | CallState::Ending => {}
        }
    }
}
