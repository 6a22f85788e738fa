//! Inbound legs: from the INVITE to its final response.

use std::time::Instant;

use bytes::Bytes;
use edge_media::command::Latching;
use link_proto::CallSid;
use link_proto::call::{Blame, CallEvent, EndReason, Offered};
use link_proto::media::AudioCodec;
use sip_core::msg::Scheme;
use sip_core::{Body, DialogHandle, HeaderName, IncomingCall};

use super::leg::{HOPS_MAX, Leg, LegEnd, LegState, Wanted};
use super::session::Driver;
use crate::core::EdgeCore;
use crate::identity;
use crate::io::Fact;
use crate::media::offer_answer::LegMedia;
use crate::reject;
use crate::timers::TimerKey;

impl EdgeCore {
    /// A new INVITE. Everything that can be refused is refused before there is a leg.
    pub(crate) fn on_incoming(&mut self, now: Instant, dialog: DialogHandle, call: &IncomingCall) {
        let Some(provider) = self.admission.provider(call.source.addr.ip()) else {
            // It knows a token of ours, but that is no licence to call.
            self.counters.calls_refused_unlisted += 1;
            return self.refuse(now, dialog, 403, "not a provider");
        };
        let (nat, provider) = (provider.nat, provider.name.clone());
        let latching = if nat { Latching::Any } else { Latching::SdpNetwork };
        if self.draining {
            self.counters.calls_refused_drain += 1;
            return self.refuse(now, dialog, 503, "draining");
        }
        if self.legs.len() >= self.config.legs_max {
            self.counters.calls_refused_capacity += 1;
            return self.refuse(now, dialog, 503, "no room for another leg");
        }
        if call.uri.scheme() == Scheme::Other {
            return self.refuse(now, dialog, 416, "unsupported URI scheme");
        }
        let codecs = self.config.codecs.clone();
        let mut media = LegMedia::new(&self.config, codecs, latching, &mut self.rng);
        if let Some(offer) = &call.sdp
            && media.read_offer(offer).is_err()
        {
            self.counters.calls_refused_media += 1;
            return self.refuse(now, dialog, 488, "no usable media");
        }
        let to = identity::party(&call.uri);
        let Some(driver) = self.driver_of(&to) else {
            self.counters.calls_refused_no_control += 1;
            return self.refuse(now, dialog, 503, "no control node");
        };
        let sid = CallSid::mint(&mut self.rng);
        let offered = offered(call, provider.clone(), to, media.codecs().to_vec());
        if self.add_leg(now, sid, sid, driver, true, media).is_err() {
            self.counters.calls_refused_capacity += 1;
            return self.refuse(now, dialog, 503, "no room for another port");
        }
        self.counters.legs_inbound += 1;
        if nat {
            let _ = self.sip.set_destination(dialog, call.source);
        }
        if let Some(leg) = self.legs.get_mut(&sid) {
            let hops = call.request.number(HeaderName::MaxForwards);
            leg.hops_left = hops.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(HOPS_MAX);
        }
        let second =
            driver.control().is_some_and(|control| self.controls.is_second_choice(control));
        self.counters.calls_second_choice += u64::from(second);
        self.attach_dialog(sid, dialog);
        self.fact(Fact::Offered { leg: sid, provider });
        self.offer(now, sid, offered);
    }

    /// Tells the driver of a leg that is there.
    fn offer(&mut self, now: Instant, sid: CallSid, offered: Offered) {
        self.timers.set(TimerKey::Offer(sid), now + self.config.offer_answer_max);
        if let Some(leg) = self.legs.get_mut(&sid) {
            leg.offered = Some(Box::new(offered.clone()));
        }
        self.emit(now, sid, sid, CallEvent::Offered(offered));
    }

    /// Whether the control node of a leg has done nothing about it, is away, and there is another.
    pub(crate) fn can_be_offered_again(&self, sid: CallSid) -> bool {
        let Some(leg) = self.legs.get(&sid).filter(|leg| leg.state == LegState::Ringing) else {
            return false;
        };
        let away = self
            .control_of(leg.session)
            .is_some_and(|control| !self.controls.is_connected(control));
        let untouched = leg.offered.is_some() && self.timers.is_set(TimerKey::Offer(sid));
        away && untouched && !self.draining && self.controls.any_connected()
    }

    /// The call is offered to another control node, under a new name: what the first one may have
    /// written down about it ends there.
    pub(crate) fn offer_again(&mut self, now: Instant, old: CallSid) {
        let sid = CallSid::mint(&mut self.rng);
        let Some(leg) = self.legs.get_mut(&old) else { return };
        let Some((dialog, offered)) = leg.dialog.take().zip(leg.offered.take()) else { return };
        let (media, call_id) = (leg.media.clone(), std::mem::take(&mut leg.call_id));
        self.by_dialog.remove(&dialog);
        self.end_leg(now, old, LegEnd::new(EndReason::ControlLost, Blame::Us));
        let Some(driver) = self.driver_of(&offered.to) else {
            self.inbound_call_ids.remove(call_id.as_bytes());
            return self.refuse(now, dialog, 503, "no control node");
        };
        if self.add_leg(now, sid, sid, driver, true, media).is_err() {
            self.inbound_call_ids.remove(call_id.as_bytes());
            self.counters.calls_refused_capacity += 1;
            return self.refuse(now, dialog, 503, "no room for another port");
        }
        self.counters.calls_offered_again += 1;
        self.counters.legs_inbound += 1;
        self.attach_dialog(sid, dialog);
        self.fact(Fact::Offered { leg: sid, provider: offered.provider.clone() });
        self.offer(now, sid, *offered);
    }

    /// Refuses an INVITE that has no leg.
    fn refuse(&mut self, now: Instant, dialog: DialogHandle, status: u16, why: &'static str) {
        let headers = if status == 503 { vec![self.retry_after()] } else { Vec::new() };
        // Fails only if the caller has gone meanwhile.
        let _ = self.sip.reject(now, dialog, status, "", headers);
        self.fact(Fact::Refused { status, why });
    }

    /// Makes a leg with its port; the sockets are asked for.
    pub(crate) fn add_leg(
        &mut self,
        now: Instant,
        session: CallSid,
        sid: CallSid,
        driver: Driver,
        inbound: bool,
        media: LegMedia,
    ) -> Result<(), String> {
        self.open_call(session, driver)?;
        let Some(port) = self.allocate_leg_port(now, session, sid) else {
            self.drop_call_if_over(session);
            return Err("no room for another port".to_owned());
        };
        if let Some(call) = self.calls.get_mut(&session) {
            call.legs.insert(sid);
        }
        self.legs.insert(sid, Leg::new(sid, session, inbound, port, media));
        Ok(())
    }

    pub(crate) fn attach_dialog(&mut self, sid: CallSid, dialog: DialogHandle) {
        let call_id = self.sip.call_id(dialog).unwrap_or_default().to_owned();
        if let Some(leg) = self.legs.get_mut(&sid) {
            if leg.inbound {
                self.inbound_call_ids.insert(call_id.clone().into_bytes());
            }
            leg.dialog = Some(dialog);
            leg.call_id = call_id;
            self.by_dialog.insert(dialog, sid);
        }
    }

    /// [`link_proto::call::CallCommand::Progress`].
    pub(crate) fn progress(
        &mut self,
        now: Instant,
        sid: CallSid,
        early_media: bool,
    ) -> Result<(), String> {
        let leg = self.legs.get_mut(&sid).ok_or("no such leg")?;
        if !leg.inbound {
            return Err(format!("{sid} is outbound"));
        }
        if leg.state != LegState::Ringing || matches!(leg.wanted, Wanted::Accept(_)) {
            return Ok(());
        }
        if early_media && leg.media.has_remote_offer() {
            leg.wanted = Wanted::EarlyMedia;
            self.inbound_ready(now, sid);
            return Ok(());
        }
        if let Some(dialog) = leg.dialog {
            let _ = self.sip.provisional(now, dialog, 180, "", Vec::new(), None);
        }
        Ok(())
    }

    /// [`link_proto::call::CallCommand::Accept`].
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        sid: CallSid,
        codec: Option<AudioCodec>,
    ) -> Result<(), String> {
        let leg = self.legs.get_mut(&sid).ok_or("no such leg")?;
        if !leg.inbound {
            return Err(format!("{sid} is outbound"));
        }
        if leg.state == LegState::Ringing {
            leg.wanted = Wanted::Accept(codec);
            self.inbound_ready(now, sid);
        }
        Ok(())
    }

    /// Sends what was wanted, once the sockets are there.
    pub(crate) fn inbound_ready(&mut self, now: Instant, sid: CallSid) {
        let Some(leg) = self.legs.get(&sid).filter(|leg| leg.state == LegState::Ringing) else {
            return;
        };
        let Some(dialog) = leg.dialog.filter(|_| self.port_is_ready(leg.port)) else { return };
        match leg.wanted {
            Wanted::Nothing => {}
            Wanted::EarlyMedia => match self.inbound_body(sid, None) {
                Some(body) => {
                    let body = Some(Body::sdp(body));
                    let _ = self.sip.provisional(now, dialog, 183, "", Vec::new(), body);
                    self.update_worker_leg(sid);
                }
                None => self.end_leg(now, sid, no_media()),
            },
            Wanted::Accept(codec) => match self.inbound_body(sid, codec) {
                Some(body) => self.send_answer(now, sid, dialog, body),
                None => self.end_leg(now, sid, no_media()),
            },
        }
    }

    /// The answer, or our offer if the INVITE had none.
    fn inbound_body(&mut self, sid: CallSid, codec: Option<AudioCodec>) -> Option<Bytes> {
        let media = &mut self.legs.get_mut(&sid)?.media;
        if media.has_remote_offer() { media.answer(codec).ok() } else { media.offer().ok() }
    }

    fn send_answer(&mut self, now: Instant, sid: CallSid, dialog: DialogHandle, body: Bytes) {
        if self.sip.accept(now, dialog, Vec::new(), Some(Body::sdp(body))).is_err() {
            // The caller has gone; its event is on the way.
            return;
        }
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        leg.state = LegState::Answered;
        leg.answered_at = Some(now);
        leg.media.set_answered();
        let negotiated = leg.media.is_negotiated();
        let ack_max = self.config.sip.timers.transaction_timeout();
        self.timers.set(TimerKey::Ack(sid), now + ack_max);
        self.update_worker_leg(sid);
        self.start_time_limit(now, sid);
        self.fact(Fact::Answered { leg: sid });
        if negotiated {
            self.report_answered(now, sid);
            self.review_endpoint_hold(now, sid);
        }
        self.review_hold(now, sid);
    }

    /// The ACK of our 200; it carries the answer if the 200 carried the offer.
    pub(crate) fn on_ack(&mut self, now: Instant, sid: CallSid, sdp: Option<Bytes>) {
        self.timers.cancel(TimerKey::Ack(sid));
        let Some(leg) = self.legs.get_mut(&sid).filter(|leg| leg.is_live()) else { return };
        if !leg.media.awaits_answer() {
            return;
        }
        let party = leg.party();
        // A re-INVITE that asked us for an offer and does not answer it changes nothing.
        let read = match sdp {
            Some(sdp) => leg.media.read_answer(&sdp).is_ok(),
            None => leg.media.keep_session(),
        };
        if !read {
            self.end_leg(now, sid, LegEnd::new(EndReason::NotAcceptable, party));
            return;
        }
        self.update_worker_leg(sid);
        self.report_answered(now, sid);
        self.review_endpoint_hold(now, sid);
    }

    /// Tells the driver that a leg is established, once.
    pub(crate) fn report_answered(&mut self, now: Instant, sid: CallSid) {
        let Some(leg) = self.legs.get_mut(&sid).filter(|leg| !leg.reported) else { return };
        leg.reported = true;
        let event = CallEvent::Answered {
            codec: leg.media.codec(),
            telephone_event: leg.media.config().telephone_event_receive,
            sip_call_id: leg.call_id.clone(),
            headers: std::mem::take(&mut leg.answer_headers),
        };
        let session = leg.session;
        self.emit(now, session, sid, event);
    }

    /// [`link_proto::call::CallCommand::Reject`].
    pub(crate) fn reject(
        &mut self,
        now: Instant,
        sid: CallSid,
        status: u16,
        reason: &str,
    ) -> Result<(), String> {
        let leg = self.legs.get(&sid).ok_or("no such leg")?;
        if !leg.inbound || leg.state != LegState::Ringing {
            return Err(format!("{sid} cannot be rejected any more"));
        }
        if !(400..=699).contains(&status) {
            return Err(format!("status {status} is not in 400 to 699"));
        }
        let end = LegEnd::new(EndReason::Rejected, reject::blame_of_rejection(status));
        self.end_leg_with_phrase(now, sid, end.with_status(status), reason);
        Ok(())
    }
}

fn no_media() -> LegEnd {
    LegEnd::new(EndReason::NotAcceptable, Blame::Us)
}

fn offered(call: &IncomingCall, provider: String, to: String, codecs: Vec<AudioCodec>) -> Offered {
    Offered {
        from: identity::party(&call.from.uri),
        to,
        caller_name: identity::caller_name(call),
        forwarded_from: identity::forwarded_from(&call.request),
        provider,
        sip_call_id: call.call_id.clone(),
        source: call.source.addr.to_string(),
        sip_domain: call.uri.host().map(ToString::to_string).unwrap_or_default(),
        headers: identity::custom_headers(&call.request),
        codecs,
    }
}
