//! What phones hear from SIP: datagrams in, events of the endpoint, ends of calls.

use std::io::ErrorKind;
use std::time::Instant;

use bytes::Bytes;
use sip_core::transport::Transport;
use sip_core::{
    Body, DialogHandle, EndReason, Event, FailCause, IncomingCall, Input, Output, Reason, RequestId,
};

use super::leg::{Leg, LegState};
use super::{CLOSE_EVERY_NS, DRAIN_NS, Engine, SIP_BURST_MAX};
use crate::clock::now_ns;
use crate::digits::{DigitMethod, key_of_info};
use crate::phone::Step;
use crate::report::{End, EventKind, Role, Whose};

impl Engine {
    pub(super) fn read_sip(&mut self, phone: usize) {
        let mut buffer = vec![0; 65_536];
        for _ in 0..SIP_BURST_MAX {
            let Some(state) = self.phones.get_mut(phone) else { return };
            match state.socket.recv_from(&mut buffer) {
                Ok((size, source)) => {
                    let bytes = Bytes::copy_from_slice(buffer.get(..size).unwrap_or_default());
                    let (local, transport) = (state.addr, Transport::Udp);
                    let input = Input::Datagram { source, local, transport, bytes };
                    state.endpoint.handle_input(Instant::now(), input);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A closed port at the other end: the transaction's timer deals with it.
                Err(_) => continue,
            }
            self.pump(phone);
        }
    }

    /// Sends what the endpoint wants sent and acts on its events, until there is nothing more.
    pub(super) fn pump(&mut self, phone: usize) {
        loop {
            let Some(state) = self.phones.get_mut(phone) else { return };
            match state.endpoint.poll_output() {
                None => return,
                Some(Output::Send { to, bytes }) => {
                    // Lost like any datagram if the buffer is full: SIP sends again.
                    let _ = state.socket.send_to(&bytes, to.addr);
                }
                Some(Output::Event(event)) => self.on_event(phone, event),
            }
        }
    }

    fn on_event(&mut self, phone: usize, event: Event) {
        self.ring = true;
        match event {
            Event::Incoming { handle, call } => self.on_incoming(phone, handle, &call),
            Event::Provisional { handle, status, sdp, response, .. } => {
                self.on_provisional(phone, handle, status, &response.reason(), sdp);
            }
            Event::Answered { handle, sdp, response, .. } => {
                self.on_answered(phone, handle, sdp, &response.reason());
            }
            Event::AckReceived { handle, sdp } => self.on_ack(phone, handle, sdp),
            Event::ReInvite { handle, sdp, .. } => self.on_reinvite(phone, handle, sdp),
            Event::ReInviteAnswered { handle, sdp, response } => {
                let status = response.status().unwrap_or(200);
                self.on_reinvite_done(phone, handle, status, sdp);
            }
            Event::ReInviteFailed { handle, status } => {
                self.on_reinvite_done(phone, handle, status, None);
            }
            Event::Info { handle, id, content_type, body, .. } => {
                self.on_info(phone, handle, id, &content_type, &body);
            }
            Event::Refer { id, .. } => self.respond(phone, id, 603),
            Event::Request { id, .. } => self.respond(phone, id, 200),
            Event::RequestDone { .. } => {}
            Event::Canceled { handle, reasons } => {
                let reason = text_of(&reasons);
                let kind = EventKind::CancelReceived { reason: reason.clone() };
                self.on_end(phone, handle, Whose::Peer, "cancel", Some(487), reason, Some(kind));
            }
            Event::Failed { handle, status, cause, response } => {
                let phrase = response.map(|response| response.reason().into_owned());
                self.on_failed(phone, handle, status, cause, phrase.unwrap_or_default());
            }
            Event::Ended { handle, reason, .. } => self.on_ended(phone, handle, reason),
        }
    }

    fn leg_of(&self, phone: usize, handle: DialogHandle) -> Option<usize> {
        self.phones.get(phone)?.by_handle.get(&handle).copied()
    }

    fn leg_mut(&mut self, phone: usize, handle: DialogHandle) -> Option<(usize, &mut Leg)> {
        let index = self.leg_of(phone, handle)?;
        self.legs.get_mut(index)?.as_mut().map(|leg| (index, leg))
    }

    fn on_incoming(&mut self, phone: usize, handle: DialogHandle, call: &IncomingCall) {
        let Some(state) = self.phones.get_mut(phone) else { return };
        let busy = state.live >= state.phone.calls_at_once_max || state.phone.role == Role::Caller;
        if busy {
            // A command on a dialog that is just reported cannot be refused but for a hang-up
            // that crossed it; then there is nothing to answer.
            let _ = state.endpoint.reject(Instant::now(), handle, 486, "", Vec::new());
            state.calls += 1;
            state.totals.fail("busy");
            return;
        }
        let Some(index) = self.new_leg(phone, handle, Some(call.call_id.clone())) else {
            if let Some(state) = self.phones.get_mut(phone) {
                state.calls += 1;
                let _ = state.endpoint.reject(Instant::now(), handle, 503, "", Vec::new());
            }
            return;
        };
        if let Some(Some(leg)) = self.legs.get_mut(index) {
            leg.offer = call.sdp.clone();
            leg.note(EventKind::InviteReceived {
                uri: call.uri.as_str().to_owned(),
                from: call.from.uri.as_str().to_owned(),
                source: call.source.addr.to_string(),
            });
        }
        self.advance(index);
    }

    fn on_provisional(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        status: u16,
        reason: &str,
        sdp: Option<Bytes>,
    ) {
        let Some((index, leg)) = self.leg_mut(phone, handle) else { return };
        let at = now_ns();
        if status >= 180 {
            leg.report.ringing_ns.get_or_insert(at);
        }
        let reason = reason.to_owned();
        leg.note_at(at, EventKind::Response { status, reason, sdp: sdp.is_some() });
        if let Some(sdp) = sdp {
            self.take_answer(index, &sdp);
            let early = self.phones.get(phone).is_some_and(|state| state.phone.early_media);
            if early {
                self.start_media(index);
            }
        }
        self.advance(index);
    }

    fn on_answered(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        sdp: Option<Bytes>,
        reason: &str,
    ) {
        let Some((index, leg)) = self.leg_mut(phone, handle) else { return };
        let at = now_ns();
        let reason = reason.to_owned();
        leg.note_at(at, EventKind::Response { status: 200, reason, sdp: sdp.is_some() });
        leg.note_at(at, EventKind::AckSent);
        leg.report.answered_ns = Some(at);
        leg.state = LegState::Up;
        let agreed = match sdp {
            Some(sdp) => self.take_answer(index, &sdp),
            // The answer may have come in a reliable or repeated 18x.
            None => self
                .legs
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|leg| leg.media.codec().is_some()),
        };
        if !agreed {
            self.fail(index, &Step::WaitAnswer(0), "the 200 has no usable session description");
            return;
        }
        self.plan_media(index);
        self.advance(index);
    }

    /// Takes the answer to our offer; a mistake of the peer is noted.
    fn take_answer(&mut self, index: usize, sdp: &[u8]) -> bool {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return false };
        let Some(state) = self.phones.get(leg.phone) else { return false };
        let phone = &state.phone;
        match leg.media.answered(sdp, &phone.codecs, &leg.source, &mut self.cache) {
            Ok(()) => true,
            Err(what) => {
                leg.note(EventKind::PeerMistake { what });
                false
            }
        }
    }

    fn on_ack(&mut self, phone: usize, handle: DialogHandle, sdp: Option<Bytes>) {
        let Some((index, leg)) = self.leg_mut(phone, handle) else { return };
        leg.note(EventKind::AckReceived);
        if let Some(sdp) = sdp
            && std::mem::take(&mut leg.awaits_answer)
        {
            if self.take_answer(index, &sdp) {
                self.plan_media(index);
            } else {
                self.fail(index, &Step::Answer, "the ACK has no usable session description");
            }
        }
        self.advance(index);
    }

    fn on_reinvite(&mut self, phone: usize, handle: DialogHandle, sdp: Option<Bytes>) {
        let Some(index) = self.leg_of(phone, handle) else { return };
        let (Some(Some(leg)), Some(state)) = (self.legs.get_mut(index), self.phones.get_mut(phone))
        else {
            return;
        };
        leg.report.reinvites += 1;
        leg.note(EventKind::ReInviteReceived);
        let config = &state.phone;
        let answer = match sdp {
            Some(offer) => leg.media.answer(
                &offer,
                &config.codecs,
                config.events,
                &leg.source,
                &mut self.cache,
            ),
            None => {
                leg.awaits_answer = true;
                Ok(leg.media.offer(&config.codecs, config.events))
            }
        };
        let (status, body) = match answer {
            Ok(body) => (200, Some(Body::sdp(body))),
            Err(what) => {
                leg.note(EventKind::PeerMistake { what });
                (488, None)
            }
        };
        let answered =
            state.endpoint.respond_reinvite(Instant::now(), handle, status, "", Vec::new(), body);
        if answered.is_ok() {
            leg.note(EventKind::ResponseSent { status });
        }
        self.advance(index);
    }

    fn on_reinvite_done(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        status: u16,
        sdp: Option<Bytes>,
    ) {
        let Some((index, leg)) = self.leg_mut(phone, handle) else { return };
        leg.note(EventKind::ReInviteResponse { status });
        leg.reinvite_status = Some(status);
        if let Some(sdp) = sdp {
            self.take_answer(index, &sdp);
        }
        self.advance(index);
    }

    fn on_info(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        id: RequestId,
        content_type: &str,
        body: &[u8],
    ) {
        self.respond(phone, id, 200);
        let Some((index, leg)) = self.leg_mut(phone, handle) else { return };
        if let Some(digit) = key_of_info(content_type, &String::from_utf8_lossy(body)) {
            leg.report.digits.push(digit);
            leg.note(EventKind::DigitReceived { digit, method: DigitMethod::Info });
        }
        self.advance(index);
    }

    fn respond(&mut self, phone: usize, id: RequestId, status: u16) {
        if let Some(state) = self.phones.get_mut(phone) {
            // The request may have been given up meanwhile.
            let _ = state.endpoint.respond(Instant::now(), id, status, "", Vec::new(), None);
        }
    }

    fn on_failed(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        status: u16,
        cause: FailCause,
        reason: String,
    ) {
        let (whose, how) = match cause {
            FailCause::Response => (Whose::Peer, "rejected"),
            FailCause::Timeout => (Whose::Nobody, "timeout"),
            FailCause::Transport => (Whose::Nobody, "transport"),
            FailCause::Canceled => (Whose::Us, "cancel"),
        };
        let kind = EventKind::Response { status, reason, sdp: false };
        self.on_end(phone, handle, whose, how, Some(status), None, Some(kind));
    }

    fn on_ended(&mut self, phone: usize, handle: DialogHandle, reason: EndReason) {
        let said = match &reason {
            EndReason::RemoteBye { reasons } => text_of(reasons),
            _ => None,
        };
        let (whose, how) = match reason {
            EndReason::RemoteBye { .. } => (Whose::Peer, "bye"),
            EndReason::LocalBye => (Whose::Us, "bye"),
            EndReason::Rejected => (Whose::Us, "rejected"),
            EndReason::CanceledAfterAnswer => (Whose::Us, "cancel"),
            EndReason::AckTimeout => (Whose::Nobody, "ack-timeout"),
            EndReason::TransactionTimeout => (Whose::Nobody, "timeout"),
            EndReason::Expired => (Whose::Nobody, "expired"),
        };
        let bye = whose == Whose::Peer;
        let kind = bye.then(|| EventKind::ByeReceived { reason: said.clone() });
        self.on_end(phone, handle, whose, how, None, said, kind);
    }

    /// The terminal event of a leg.
    fn on_end(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        whose: Whose,
        how: &str,
        status: Option<u16>,
        reason: Option<String>,
        kind: Option<EventKind>,
    ) {
        let Some(index) = self.leg_of(phone, handle) else { return };
        self.end_script(index);
        self.stop_media(index);
        let now = now_ns();
        if let Some(state) = self.phones.get_mut(phone) {
            state.by_handle.remove(&handle);
            state.live = state.live.saturating_sub(1);
        }
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        if let Some(kind) = kind {
            leg.note_at(now, kind);
        }
        leg.state = LegState::Ended;
        leg.ended_ns = Some(now);
        let at_ns = leg.hung_up_ns.filter(|_| whose == Whose::Us).unwrap_or(now);
        let how = how.to_owned();
        leg.report.end.get_or_insert(End { at_ns, whose, how, status, reason });
        self.unschedule(index);
        self.close_at_ns.get_or_insert(now + DRAIN_NS.max(CLOSE_EVERY_NS));
    }
}

impl Leg {
    /// Notes that media flows, to whom and how.
    pub(super) fn note_media_started(&mut self) {
        if let (Some(remote), Some(codec)) = (self.media.remote(), self.media.codec()) {
            self.note(EventKind::MediaStarted { to: remote.to_string(), codec });
        }
    }
}

/// Reason headers as text.
fn text_of(reasons: &[Reason]) -> Option<String> {
    let values: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    (!values.is_empty()).then(|| values.join(", "))
}
