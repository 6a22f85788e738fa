//! Outbound legs: from the command to the final response.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_media::command::Latching;
use link_proto::CallSid;
use link_proto::call::{Blame, CallEvent, DialParams, EndReason};
use sip_core::auth::Credentials;
use sip_core::{
    Body, Destination, FailCause, Header, HeaderName, InviteParams, Message, NameAddr, Uri,
};

use super::leg::{Dialling, HOPS_MAX, LegEnd, LegState};
use crate::core::EdgeCore;
use crate::identity::{self, NextHop};
use crate::io::{Fact, Output, ResolveId};
use crate::media::offer_answer::LegMedia;
use crate::reject;
use crate::shard::shard_of;
use crate::timers::TimerKey;

/// Longest time an outbound leg may ring, whatever control says.
const DIAL_TIMEOUT_MAX: Duration = Duration::from_secs(600);

impl EdgeCore {
    /// [`link_proto::call::CallCommand::Dial`].
    pub(crate) fn dial(
        &mut self,
        now: Instant,
        session: CallSid,
        sid: CallSid,
        params: DialParams,
    ) -> Result<(), String> {
        if self.draining {
            return Err("draining".to_owned());
        }
        if self.legs.contains_key(&sid) {
            return Err(format!("{sid} exists already"));
        }
        if self.legs.len() >= self.config.legs_max {
            return Err("no room for another leg".to_owned());
        }
        let uri = self.dialled_uri(&params.to)?;
        let hop = identity::next_hop(&uri)?;
        let host = &self.config.sip.advertised.host;
        identity::from_party(&params.from, host).ok_or("calling party is not legal SIP")?;
        identity::outbound_headers(&params.headers)?;
        let codecs = self.codecs_to_offer(&params)?;
        let latching = self.latching_towards(&hop);
        let media = LegMedia::new(&self.config, codecs, latching, &mut self.rng);
        let hops_left = self.hops_beyond(params.near_leg)?;
        let timeout = Duration::from_millis(params.timeout_ms).min(DIAL_TIMEOUT_MAX);
        let driver = self.driver_by_command(session);
        self.add_leg(now, session, sid, driver, false, media)?;
        self.counters.legs_outbound += 1;
        self.timers.set(TimerKey::Dial(sid), now + timeout);
        let (target, resolve) = self.resolve(sid, hop);
        if let Some(leg) = self.legs.get_mut(&sid) {
            leg.dialling = Some(Box::new(Dialling { params, uri, target, resolve }));
            leg.hops_left = hops_left;
        }
        Ok(())
    }

    /// A call that goes on takes its Max-Forwards along, so that a loop through us has an end.
    fn hops_beyond(&self, near: Option<CallSid>) -> Result<u8, String> {
        let near = near.and_then(|near| self.legs.get(&near)).filter(|near| near.inbound);
        match near.map(|near| near.hops_left) {
            None => Ok(HOPS_MAX),
            Some(0 | 1) => Err("the call has gone through too many hops".to_owned()),
            Some(left) => Ok(left - 1),
        }
    }

    /// A SIP URI as it is; a number by the longest prefix of the route table.
    fn dialled_uri(&self, to: &str) -> Result<Uri, String> {
        if to.contains(':') {
            // RFC 3261 §19.1.1: a request URI has no headers part.
            let uri = Uri::parse(to).and_then(|uri| Uri::parse(uri.without_headers()));
            return uri.ok_or_else(|| format!("{to:?} is not a URI"));
        }
        let number_safe = !to.is_empty() && to.bytes().all(|c| c.is_ascii_graphic() && c != b'@');
        let own = |node: &link_proto::NodeId| *node == self.config.node;
        let route = self.tables.route_by(to, own).filter(|_| number_safe);
        let route = route.ok_or_else(|| format!("no route to {to:?}"))?;
        let text = route.uri.replace("{number}", to);
        Uri::parse(&text).ok_or_else(|| format!("route makes {text:?}, which is not a URI"))
    }

    fn codecs_to_offer(
        &self,
        params: &DialParams,
    ) -> Result<Vec<link_proto::media::AudioCodec>, String> {
        if params.codecs.is_empty() {
            return Ok(self.config.codecs.clone());
        }
        let mut codecs = Vec::new();
        for codec in params.codecs.iter().filter(|codec| self.config.codecs.contains(codec)) {
            if !codecs.contains(codec) {
                codecs.push(*codec);
            }
        }
        if codecs.is_empty() {
            Err("none of the codecs is spoken here".to_owned())
        } else {
            Ok(codecs)
        }
    }

    fn latching_towards(&self, hop: &NextHop) -> Latching {
        let provider = match hop {
            NextHop::Address(to) => self.admission.provider(to.addr.ip()),
            NextHop::Name { .. } => None,
        };
        if provider.is_some_and(|provider| provider.nat) {
            Latching::Any
        } else {
            Latching::SdpNetwork
        }
    }

    fn resolve(&mut self, sid: CallSid, hop: NextHop) -> (Option<Destination>, Option<ResolveId>) {
        match hop {
            NextHop::Address(target) => (Some(target), None),
            NextHop::Name { host, port, transport } => {
                self.resolve_next += 1;
                let id = ResolveId(self.resolve_next);
                self.resolving.insert(id, sid);
                self.push(Output::Resolve { id, host, port, transport });
                (None, Some(id))
            }
        }
    }

    /// The name service has answered.
    pub(crate) fn on_resolved(&mut self, now: Instant, id: ResolveId, address: Option<SocketAddr>) {
        let Some(sid) = self.resolving.remove(&id) else { return };
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        let Some(dialling) = leg.dialling.as_mut().filter(|d| d.resolve == Some(id)) else {
            return;
        };
        dialling.resolve = None;
        match address {
            Some(address) => {
                let target = Destination::udp(address);
                dialling.target = Some(target);
                let latching = self.latching_towards(&NextHop::Address(target));
                if let Some(leg) = self.legs.get_mut(&sid) {
                    leg.media.set_latching(latching);
                }
                self.outbound_ready(now, sid);
            }
            None => {
                let end = LegEnd::new(EndReason::Unreachable, Blame::Carrier);
                self.end_leg(now, sid, end.with_status(404));
            }
        }
    }

    /// Sends the INVITE once sockets and address are there.
    pub(crate) fn outbound_ready(&mut self, now: Instant, sid: CallSid) {
        let Some(leg) = self.legs.get_mut(&sid).filter(|l| l.state == LegState::Preparing) else {
            return;
        };
        let Some(target) = leg.dialling.as_ref().and_then(|dialling| dialling.target) else {
            return;
        };
        if self.ports.get(leg.port).is_none_or(|port| port.addresses.is_none()) {
            return;
        }
        let Some(dialling) = leg.dialling.take() else { return };
        let Ok(offer) = leg.media.offer() else { return };
        let hops_left = leg.hops_left;
        let nat = self.admission.provider(target.addr.ip()).is_some_and(|provider| provider.nat);
        let dialog = self
            .invite_params(*dialling, target, offer, hops_left)
            .and_then(|params| self.sip.invite(now, params).ok());
        if let Some(dialog) = dialog.filter(|_| nat) {
            let _ = self.sip.set_destination(dialog, target);
        }
        match dialog {
            Some(dialog) => {
                self.attach_dialog(sid, dialog);
                if let Some(leg) = self.legs.get_mut(&sid) {
                    leg.state = LegState::Ringing;
                }
            }
            None => {
                let end = LegEnd::new(EndReason::Overload, Blame::Us);
                self.end_leg(now, sid, end.with_status(503));
            }
        }
    }

    fn invite_params(
        &mut self,
        dialling: Dialling,
        target: Destination,
        offer: Bytes,
        hops_left: u8,
    ) -> Option<InviteParams> {
        let Dialling { params, uri, .. } = dialling;
        let from = identity::from_party(&params.from, &self.config.sip.advertised.host)?;
        let mut invite = InviteParams::new(target, uri.clone(), from, NameAddr::new(uri));
        invite.call_id = Some(self.mint_call_id());
        invite.headers = identity::outbound_headers(&params.headers).ok()?;
        invite.headers.push(Header::new(HeaderName::MaxForwards, hops_left.to_string()));
        invite.body = Some(Body::sdp(offer));
        if let (Some(username), Some(password)) = (params.username, params.password) {
            invite.credentials = Some(Credentials { username, password, realm: None });
        }
        Some(invite)
    }

    /// A Call-ID with our token whose hash is this shard, which is the near leg's.
    fn mint_call_id(&mut self) -> String {
        loop {
            let token = self.sip.token_key().mint(&mut self.rng);
            let call_id = format!("{token}@{}", self.config.sip.advertised.host);
            // One in `shards` fits, so the expected number of turns is `shards`.
            if shard_of(call_id.as_bytes(), self.config.shards) == self.config.shard {
                return call_id;
            }
        }
    }

    /// 101–199 for our INVITE.
    pub(crate) fn on_provisional(
        &mut self,
        now: Instant,
        sid: CallSid,
        status: u16,
        fork: &str,
        sdp: Option<Bytes>,
    ) {
        let Some(leg) = self.legs.get_mut(&sid).filter(|l| l.state == LegState::Ringing) else {
            return;
        };
        // A fork without description must not silence one that had one.
        let early_before = leg.ringing.is_some_and(|(_, early)| early);
        let early = sdp.is_some_and(|sdp| leg.media.read_early_answer(fork, &sdp).is_ok());
        if early {
            self.update_worker_leg(sid);
        }
        let early_media = early || early_before;
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        // RFC 6228: 199 says that a fork has ended.
        let rings = (180..199).contains(&status);
        if !rings || leg.ringing == Some((status, early_media)) {
            return;
        }
        leg.ringing = Some((status, early_media));
        let session = leg.session;
        self.emit(now, session, sid, CallEvent::Ringing { status, early_media });
    }

    /// What the answer says beside what SIP itself needs.
    pub(crate) fn keep_answer_headers(&mut self, sid: CallSid, response: &Message) {
        if let Some(leg) = self.legs.get_mut(&sid) {
            leg.answer_headers = identity::custom_headers(response);
        }
    }

    /// 2xx for our INVITE.
    pub(crate) fn on_answered(
        &mut self,
        now: Instant,
        sid: CallSid,
        fork: &str,
        sdp: Option<Bytes>,
    ) {
        let Some(leg) = self.legs.get_mut(&sid).filter(|l| l.state == LegState::Ringing) else {
            return;
        };
        self.timers.cancel(TimerKey::Dial(sid));
        leg.state = LegState::Answered;
        leg.answered_at = Some(now);
        leg.media.set_answered();
        let agreed = match sdp {
            Some(sdp) => leg.media.read_answer(&sdp).is_ok(),
            None => leg.media.confirm_early_answer(fork),
        };
        if !agreed {
            let end = LegEnd::new(EndReason::NotAcceptable, Blame::Callee);
            self.end_leg(now, sid, end);
            return;
        }
        self.update_worker_leg(sid);
        self.start_time_limit(now, sid);
        self.fact(Fact::Answered { leg: sid });
        self.report_answered(now, sid);
        self.review_endpoint_hold(now, sid);
        self.review_hold(now, sid);
    }

    /// Our INVITE failed.
    pub(crate) fn on_failed(&mut self, now: Instant, sid: CallSid, status: u16, cause: FailCause) {
        let (reason, whose) = reject::end_of(status, cause);
        self.end_leg(now, sid, LegEnd::new(reason, whose).with_status(status));
    }

    pub(crate) fn on_dial_timeout(&mut self, now: Instant, sid: CallSid) {
        let end = LegEnd::new(EndReason::NoAnswer, Blame::Callee);
        self.end_leg(now, sid, end.with_status(408));
    }
}
