//! What phones do by themselves: place calls, ring, answer, refuse, hang up, start media.

use std::time::Instant;

use sip_core::{Body, Destination, DialogHandle, Header, InviteParams, NameAddr};

use super::Engine;
use super::leg::{Leg, LegState};
use super::script::tone_of;
use crate::clock::now_ns;
use crate::digits::DigitMethod;
use crate::media::Media;
use crate::phone::{Detail, Phone};
use crate::report::{End, EventKind, PhoneReport, Whose};

impl Engine {
    /// A leg with its RTP socket; `None` (and a counted failure) if there is no descriptor left.
    pub(super) fn new_leg(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        call_id: Option<String>,
    ) -> Option<usize> {
        let media = self.open_media(phone)?;
        self.new_leg_with(phone, handle, call_id, media)
    }

    fn new_leg_with(
        &mut self,
        phone: usize,
        handle: DialogHandle,
        call_id: Option<String>,
        media: Media,
    ) -> Option<usize> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.legs.push(None);
            self.legs.len() - 1
        });
        let state = self.phones.get_mut(phone)?;
        if let Err(error) = self.poller.add_rtp(media.socket(), index) {
            state.totals.fail(&format!("RTP socket cannot be watched: {error}"));
            self.free.push(index);
            return None;
        }
        let call = state.calls;
        state.calls += 1;
        state.live += 1;
        state.by_handle.insert(handle, index);
        let began_ns = now_ns();
        let source = state.phone.source_of(call);
        let report = PhoneReport {
            phone: state.phone.name.clone(),
            call,
            role: state.phone.role,
            call_id,
            began_ns,
            tone_hz: tone_of(&source),
            ..PhoneReport::default()
        };
        let leg = Leg {
            phone,
            handle,
            state: LegState::Early,
            report,
            media,
            source,
            full: detail_of(&state.phone, call) == Detail::Full,
            offer: None,
            answer: None,
            awaits_answer: false,
            script: state.phone.script.iter().cloned().collect(),
            running: None,
            media_at_ns: None,
            ticking: false,
            reinvite_status: None,
            expires_ns: began_ns.saturating_add(state.phone.call_max_ms.saturating_mul(1_000_000)),
            hung_up_ns: None,
            ended_ns: None,
            due_ns: None,
        };
        if let Some(place) = self.legs.get_mut(index) {
            *place = Some(leg);
        }
        self.schedule(index);
        Some(index)
    }

    fn open_media(&mut self, phone: usize) -> Option<Media> {
        let state = self.phones.get_mut(phone)?;
        let detail = detail_of(&state.phone, state.calls);
        match Media::open(state.addr.ip(), detail, state.phone.record, &mut self.rng) {
            Ok(media) => Some(media),
            Err(error) => {
                state.totals.fail(&format!("no RTP socket: {error}"));
                None
            }
        }
    }

    /// Sends the INVITE of one more call.
    pub(super) fn place_call(&mut self, phone: usize) {
        let Some(mut media) = self.open_media(phone) else {
            if let Some(state) = self.phones.get_mut(phone) {
                state.calls += 1;
            }
            return;
        };
        let Some(state) = self.phones.get_mut(phone) else { return };
        let Some((uri, next_hop)) = state.target.clone() else { return };
        let named = state.phone.headers.iter();
        let headers = named.filter_map(|(name, value)| Header::named(name, value)).collect();
        let to = NameAddr::new(uri.clone());
        let offer = media.offer(&state.phone.codecs, state.phone.events);
        let params = InviteParams {
            headers,
            body: Some(Body::sdp(offer)),
            ..InviteParams::new(Destination::udp(next_hop), uri.clone(), state.own.clone(), to)
        };
        let handle = match state.endpoint.invite(Instant::now(), params) {
            Ok(handle) => handle,
            Err(error) => {
                state.calls += 1;
                state.totals.fail(&format!("INVITE not sent: {error}"));
                return;
            }
        };
        let call_id = state.endpoint.call_id(handle).map(str::to_owned);
        let Some(index) = self.new_leg_with(phone, handle, call_id, media) else {
            if let Some(state) = self.phones.get_mut(phone) {
                state.calls += 1;
                let _ = state.endpoint.hang_up(Instant::now(), handle, 480, Vec::new());
            }
            return;
        };
        if let Some(Some(leg)) = self.legs.get_mut(index) {
            leg.note(EventKind::InviteSent { uri: uri.as_str().to_owned() });
        }
        self.advance(index);
    }

    /// Sends a key as INFO, if that is how it is to be sent.
    pub(super) fn send_info(&mut self, index: usize, digit: char, method: DigitMethod) {
        let Some((content_type, body)) = method.info(digit) else { return };
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        let phone = leg.phone;
        let Some(state) = self.phones.get_mut(phone) else { return };
        let sent = state.endpoint.info(Instant::now(), leg.handle, content_type, body.into());
        if let Err(error) = sent {
            leg.report.failure.get_or_insert(format!("INFO not sent: {error}"));
        }
        self.pump(phone);
    }

    /// Sends a 18x.
    pub(super) fn provisional(
        &mut self,
        index: usize,
        status: u16,
        body: Option<Body>,
    ) -> Result<(), String> {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return Ok(()) };
        let Some(state) = self.phones.get_mut(leg.phone) else { return Ok(()) };
        state
            .endpoint
            .provisional(Instant::now(), leg.handle, status, "", Vec::new(), body)
            .map_err(|error| error.to_string())?;
        let at = now_ns();
        leg.report.ringing_ns.get_or_insert(at);
        leg.note_at(at, EventKind::ResponseSent { status });
        Ok(())
    }

    /// The session description of our 183 and 200: an answer, or an offer if there was none.
    pub(super) fn session(&mut self, index: usize) -> Result<String, String> {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return Ok(String::new()) };
        let Some(state) = self.phones.get(leg.phone) else { return Ok(String::new()) };
        let config = &state.phone;
        if let Some(answer) = &leg.answer {
            return Ok(answer.clone());
        }
        let session = match leg.offer.clone() {
            Some(offer) => leg.media.answer(
                &offer,
                &config.codecs,
                config.events,
                &leg.source,
                &mut self.cache,
            )?,
            None => {
                leg.awaits_answer = true;
                leg.media.offer(&config.codecs, config.events)
            }
        };
        leg.answer = Some(session.clone());
        Ok(session)
    }

    /// Sends the 200 and starts the media.
    pub(super) fn answer_call(&mut self, index: usize) -> Result<(), String> {
        let session = match self.session(index) {
            Ok(session) => session,
            Err(what) => {
                if let Some(Some(leg)) = self.legs.get_mut(index) {
                    leg.note(EventKind::PeerMistake { what: what.clone() });
                }
                self.reject(index, 488)?;
                return Err(what);
            }
        };
        let Some(Some(leg)) = self.legs.get_mut(index) else { return Ok(()) };
        let Some(state) = self.phones.get_mut(leg.phone) else { return Ok(()) };
        state
            .endpoint
            .accept(Instant::now(), leg.handle, Vec::new(), Some(Body::sdp(session)))
            .map_err(|error| error.to_string())?;
        let at = now_ns();
        leg.state = LegState::Up;
        leg.report.answered_ns = Some(at);
        leg.note_at(at, EventKind::ResponseSent { status: 200 });
        if !leg.awaits_answer {
            self.plan_media(index);
        }
        Ok(())
    }

    /// Refuses an inbound call.
    pub(super) fn reject(&mut self, index: usize, status: u16) -> Result<(), String> {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return Ok(()) };
        let Some(state) = self.phones.get_mut(leg.phone) else { return Ok(()) };
        state
            .endpoint
            .reject(Instant::now(), leg.handle, status, "", Vec::new())
            .map_err(|error| error.to_string())?;
        let at = now_ns();
        leg.hung_up_ns = Some(at);
        leg.note_at(at, EventKind::ResponseSent { status });
        leg.answer = None;
        leg.report.end = Some(End {
            at_ns: at,
            whose: Whose::Us,
            how: "rejected".to_owned(),
            status: Some(status),
            reason: None,
        });
        Ok(())
    }

    /// Ends a call in whatever state it is; RTP stops at once.
    pub(super) fn hang_up(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        if leg.hung_up_ns.is_some() || leg.state == LegState::Ended {
            return;
        }
        let Some(state) = self.phones.get_mut(leg.phone) else { return };
        let up = leg.state == LegState::Up;
        // Refused only if the call ended at this very moment; its event is on the way then.
        let _ = state.endpoint.hang_up(Instant::now(), leg.handle, 480, Vec::new());
        let at = now_ns();
        leg.hung_up_ns = Some(at);
        let caller = leg.is_caller();
        leg.note_at(
            at,
            match (up, caller) {
                (true, _) => EventKind::ByeSent,
                (false, true) => EventKind::CancelSent,
                (false, false) => EventKind::ResponseSent { status: 480 },
            },
        );
        self.stop_media(index);
        self.schedule(index);
    }

    /// Hangs up a call that lasts longer than it may.
    pub(super) fn check_call_length(&mut self, index: usize, now: u64) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        if leg.expires_ns <= now && leg.state != LegState::Ended && leg.hung_up_ns.is_none() {
            let why = "the call lasted longer than call_max_ms".to_owned();
            leg.report.failure.get_or_insert(why);
            leg.script.clear();
            self.hang_up(index);
        }
    }

    pub(super) fn plan_media(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        let Some(state) = self.phones.get(leg.phone) else { return };
        if state.phone.media_after_ms == 0 {
            self.start_media(index);
        } else if !leg.ticking {
            leg.media_at_ns = Some(now_ns() + state.phone.media_after_ms * 1_000_000);
            self.schedule(index);
        }
    }

    pub(super) fn start_media(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        leg.media_at_ns = None;
        if leg.ticking || leg.hung_up_ns.is_some() || leg.state == LegState::Ended {
            return;
        }
        leg.ticking = true;
        leg.note_media_started();
        self.wheel.add(now_ns(), index);
    }

    pub(super) fn stop_media(&mut self, index: usize) {
        let Some(Some(leg)) = self.legs.get_mut(index) else { return };
        leg.media_at_ns = None;
        if std::mem::take(&mut leg.ticking) {
            self.wheel.remove(index);
        }
    }
}

fn detail_of(phone: &Phone, call: u64) -> Detail {
    let sampled = phone.full_every > 0 && call.is_multiple_of(phone.full_every);
    if sampled { Detail::Full } else { phone.detail }
}
