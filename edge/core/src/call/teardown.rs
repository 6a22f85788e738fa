//! The end of legs. Whatever the cause, a leg ends once: SIP is told, the peer follows its coupling,
//! the port is removed, and exactly one `Ended` is reported when the worker's counters are there or
//! after a short wait.

use std::time::{Duration, Instant};

use edge_media::event::RegionCounters;
use link_proto::CallSid;
use link_proto::call::{Blame, CallEvent, EndReason, LegStats};
use sip_core::FailCause;

use super::leg::{LegEnd, LegState};
use crate::core::EdgeCore;
use crate::io::Fact;
use crate::ports::PortState;
use crate::reject;
use crate::timers::TimerKey;

impl EdgeCore {
    /// Ends a leg in whatever state it is.
    pub(crate) fn end_leg(&mut self, now: Instant, sid: CallSid, end: LegEnd) {
        self.end_leg_with_phrase(now, sid, end, "");
    }

    pub(crate) fn end_leg_with_phrase(
        &mut self,
        now: Instant,
        sid: CallSid,
        mut end: LegEnd,
        phrase: &str,
    ) {
        let Some(leg) = self.legs.get_mut(&sid).filter(|leg| leg.is_live()) else { return };
        let answered = leg.answered_at.is_some();
        if answered {
            end.sip_status = None;
        } else if leg.inbound && end.sip_status.is_none() {
            end.sip_status = Some(reject::status_of(end.reason));
        }
        leg.state = LegState::Ending;
        leg.end = Some(end);
        leg.ended_at = Some(now);
        let port = leg.port;
        let session = leg.session;
        let dialog = leg.dialog;
        let inbound = leg.inbound;
        if let Some(resolve) = leg.dialling.take().and_then(|dialling| dialling.resolve) {
            self.resolving.remove(&resolve);
        }
        if let Some(dialog) = dialog
            && self.by_dialog.remove(&dialog).is_some()
        {
            let status = end.sip_status.unwrap_or(480);
            let mut headers = vec![reject::reason_header(end.reason)];
            if inbound && !answered && status == 503 {
                headers.push(self.retry_after());
            }
            // Refused only if the endpoint has ended it at the same moment.
            let _ = if inbound && !answered {
                self.sip.reject(now, dialog, status, phrase, headers)
            } else {
                self.sip.hang_up(now, dialog, status, headers)
            };
        }
        for key in [TimerKey::Offer, TimerKey::Dial, TimerKey::Ack, TimerKey::TimeLimit] {
            self.timers.cancel(key(sid));
        }
        self.timers.cancel(TimerKey::ControlHold(sid));
        // The leg that ends by itself is reported before the one that follows it.
        let peer = self.take_peer(sid);
        self.remove_leg_port(now, session, sid, port);
        if let Some(peer) = peer {
            self.end_peer(now, peer, end);
        }
    }

    /// The endpoint (or its network) has ended the dialog; nothing more is to be sent.
    pub(crate) fn on_dialog_over(&mut self, now: Instant, sid: CallSid, end: LegEnd) {
        if let Some(dialog) = self.legs.get_mut(&sid).and_then(|leg| leg.dialog.take()) {
            self.by_dialog.remove(&dialog);
        }
        self.end_leg(now, sid, end);
    }

    /// Asks the worker for the last word about the leg's port, or finishes at once.
    fn remove_leg_port(
        &mut self,
        now: Instant,
        session: CallSid,
        sid: CallSid,
        port: edge_media::command::PortKey,
    ) {
        if self.remove_port(now, session, port) {
            self.timers.set(TimerKey::Stats(sid), now + self.config.stats_wait_max);
        } else {
            self.finish_leg(now, sid);
        }
    }

    /// The worker's counters of an ending leg.
    pub(crate) fn on_leg_stats(&mut self, now: Instant, sid: CallSid, stats: LegStats) {
        if let Some(leg) = self.legs.get_mut(&sid).filter(|leg| !leg.is_live()) {
            leg.stats = stats;
            self.finish_leg(now, sid);
        }
    }

    /// Reports the end and forgets the leg.
    pub(crate) fn finish_leg(&mut self, now: Instant, sid: CallSid) {
        let Some(leg) = self.legs.remove(&sid) else { return };
        self.timers.cancel(TimerKey::Stats(sid));
        if leg.inbound {
            self.inbound_call_ids.remove(leg.call_id.as_bytes());
        }
        let end = leg.end.unwrap_or(LegEnd::new(EndReason::Internal, Blame::Us));
        self.end_ops_of(now, leg.session, leg.port);
        self.fail_waiting_of(now, leg.session, sid);
        let lasted = match (leg.answered_at, leg.ended_at) {
            (Some(answered), Some(ended)) => ended.saturating_duration_since(answered),
            _ => Duration::ZERO,
        };
        let event = CallEvent::Ended {
            reason: end.reason,
            whose: end.whose,
            sip_status: end.sip_status,
            stats: leg.stats,
            answered_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        };
        self.counters.legs_ended += 1;
        self.fact(Fact::Ended { leg: sid, reason: end.reason, whose: end.whose });
        self.emit(now, leg.session, sid, event);
        if let Some(call) = self.calls.get_mut(&leg.session) {
            call.legs.remove(&sid);
        }
        self.run_waiting(now, leg.session);
        self.drop_call_if_over(leg.session);
    }

    pub(crate) fn end_all(&mut self, now: Instant, end: LegEnd) {
        for leg in self.legs.keys().copied().collect::<Vec<_>>() {
            self.end_leg(now, leg, end);
        }
    }

    /// Terminal SIP events of a leg that is still ours.
    pub(crate) fn on_sip_end(&mut self, now: Instant, sid: CallSid, reason: &sip_core::EndReason) {
        let Some(leg) = self.legs.get(&sid) else { return };
        let party = leg.party();
        let answered = leg.answered_at.is_some();
        let (reason, whose) = match reason {
            sip_core::EndReason::RemoteBye { .. } => (EndReason::RemoteBye, party),
            sip_core::EndReason::AckTimeout => (EndReason::AckTimeout, Blame::Carrier),
            sip_core::EndReason::TransactionTimeout => (EndReason::Timeout, Blame::Carrier),
            sip_core::EndReason::Expired if answered => (EndReason::TimeLimit, Blame::Us),
            sip_core::EndReason::Expired => (EndReason::NoAnswer, Blame::Us),
            sip_core::EndReason::CanceledAfterAnswer => (EndReason::Canceled, Blame::Us),
            sip_core::EndReason::LocalBye | sip_core::EndReason::Rejected => {
                (EndReason::Internal, Blame::Us)
            }
        };
        self.on_dialog_over(now, sid, LegEnd::new(reason, whose));
    }

    /// The callee's side failed before an answer, or was cancelled by a deadline of SIP's own.
    pub(crate) fn on_sip_failed(
        &mut self,
        now: Instant,
        sid: CallSid,
        status: u16,
        cause: FailCause,
    ) {
        if let Some(dialog) = self.legs.get_mut(&sid).and_then(|leg| leg.dialog.take()) {
            self.by_dialog.remove(&dialog);
        }
        self.on_failed(now, sid, status, cause);
    }

    /// [`link_proto::call::CallCommand::TimeLimit`].
    pub(crate) fn set_time_limit(&mut self, sid: CallSid, limit_ms: u64) {
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        let limit = Duration::from_millis(limit_ms).min(self.config.sip.call_max);
        leg.time_limit = Some(limit);
        if let Some(answered_at) = leg.answered_at {
            self.timers.set(TimerKey::TimeLimit(sid), answered_at + limit);
        }
    }

    pub(crate) fn start_time_limit(&mut self, now: Instant, sid: CallSid) {
        if let Some(limit) = self.legs.get(&sid).and_then(|leg| leg.time_limit) {
            self.timers.set(TimerKey::TimeLimit(sid), now + limit);
        }
    }

    /// A port is gone for good: the shell may close its sockets.
    pub(crate) fn count_port(&mut self, session: CallSid, counters: RegionCounters) {
        if let Some(call) = self.calls.get_mut(&session) {
            let sum = &mut call.counted;
            sum.packets_out_of_region += counters.packets_out_of_region;
            sum.packets_to_endpoints += counters.packets_to_endpoints;
            sum.packets_from_endpoints += counters.packets_from_endpoints;
        }
    }

    pub(crate) fn port_is_ready(&self, port: edge_media::command::PortKey) -> bool {
        self.ports.get(port).is_some_and(|port| port.state == PortState::Ready)
    }
}
