//! The life of a leg: record, status, status callbacks, end. Exactly one end per leg, whoever
//! hangs up and whenever.

use std::time::Duration;

use link_proto::call::{Blame, CallCommand, DialParams, EndReason, LegStats};
use link_proto::media::AudioCodec;
use link_proto::{CallSid, NodeId};
use serde::{Deserialize, Serialize};

use super::end;
use super::session::{Session, Timer};
use super::turn::Turn;
use crate::directory::{StatusTarget, UrlMethod};
use crate::geography;
use crate::io::{Effect, StoreOp};
use crate::record::{CallRecord, CallStatus, CallbackRow, Direction, TimelineEvent};
use crate::verb::DialTarget;
use crate::webhook::{overrides, request};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub record: CallRecord,
    /// Negotiated, or what will be chosen.
    pub codec: AudioCodec,
    pub telephone_event: Option<u8>,
    pub targets: Vec<StatusTarget>,
    /// `SequenceNumber` of the next callback.
    pub next_callback: u64,
    pub hanging_up: bool,
    /// Told to answer.
    pub accepted: bool,
    pub early_media: bool,
    /// Headers of its own in the answer of a called party.
    #[serde(default)]
    pub sip_headers: Vec<(String, String)>,
    /// What Dial says about it: what comes before the conversation, where else it may be reached.
    #[serde(default)]
    pub target: Option<Box<DialTarget>>,
}

/// What `Answered` says.
pub(crate) struct LegAnswer {
    pub codec: AudioCodec,
    pub telephone_event: Option<u8>,
    pub sip_call_id: String,
    pub headers: Vec<(String, String)>,
}

/// What `Ended` says.
pub(crate) struct LegEnd {
    pub reason: EndReason,
    pub whose: Blame,
    pub sip_status: Option<u16>,
    pub stats: LegStats,
    pub answered_ms: u64,
}

/// What makes a leg.
pub(crate) struct NewLeg {
    pub sid: CallSid,
    pub parent: Option<CallSid>,
    pub direction: Direction,
    pub from: String,
    pub to: String,
    pub node: NodeId,
    pub codec: AudioCodec,
    pub targets: Vec<StatusTarget>,
}

impl Leg {
    pub(crate) fn ended(&self) -> bool {
        self.record.ended_unix_ms.is_some()
    }

    pub(crate) fn answered(&self) -> bool {
        self.record.answered_unix_ms.is_some()
    }
}

impl Session {
    /// Makes a leg's record and fires `initiated`.
    pub(crate) fn add_leg(&mut self, turn: &mut Turn<'_>, new: NewLeg) {
        let inbound = new.direction == Direction::Inbound;
        let region = turn.nodes.entry(&new.node).map(|entry| entry.region.clone());
        let record = CallRecord {
            sid: new.sid,
            session: self.sid,
            account: self.account,
            parent: new.parent,
            to: new.to.clone(),
            from: new.from.clone(),
            phone_number: self.facts.phone_number.filter(|_| new.parent.is_none()),
            application: self.facts.application,
            status: if inbound { CallStatus::Ringing } else { CallStatus::Queued },
            direction: new.direction,
            forwarded_from: None,
            caller_name: None,
            answered_by: None,
            node: new.node.clone(),
            region,
            sip_call_id: None,
            created_unix_ms: turn.unix_ms,
            updated_unix_ms: turn.unix_ms,
            started_unix_ms: inbound.then_some(turn.unix_ms),
            answered_unix_ms: None,
            ended_unix_ms: None,
            duration_s: None,
            end_reason: None,
            end_whose: None,
            sip_status: None,
            stats: None,
        };
        let leg = Leg {
            record,
            codec: new.codec,
            telephone_event: None,
            targets: new.targets,
            next_callback: 0,
            hanging_up: false,
            accepted: false,
            early_media: false,
            sip_headers: Vec::new(),
            target: None,
        };
        self.legs.insert(new.sid, leg);
        turn.new_legs.insert(new.sid);
        let (direction, from, to, node) = (new.direction, new.from, new.to, new.node);
        let event = TimelineEvent::LegCreated { direction, from, to, node };
        self.note(turn, Some(new.sid), event);
        self.put_call(turn, new.sid);
        self.callback(turn, new.sid, "initiated", "initiated");
    }

    /// Makes an outbound leg and sends it off.
    pub(crate) fn dial(&mut self, turn: &mut Turn<'_>, new: NewLeg, params: DialParams) {
        let sid = new.sid;
        self.add_leg(turn, new);
        self.send_dial(turn, sid, params);
    }

    /// Sends off a leg that is there already.
    pub(crate) fn send_dial(&mut self, turn: &mut Turn<'_>, sid: CallSid, mut params: DialParams) {
        let Some(leg) = self.legs.get(&sid).filter(|leg| !leg.ended()) else { return };
        let (node, codec) = (leg.record.node.clone(), leg.codec);
        let other = match codec {
            AudioCodec::Pcmu => AudioCodec::Pcma,
            AudioCodec::Pcma => AudioCodec::Pcmu,
        };
        params.codecs = vec![codec, other];
        if !turn.nodes.up.contains_key(&node) {
            let after = Duration::from_millis(turn.config.lost_leg_after_ms);
            self.node_deadlines.entry(node.clone()).or_insert(turn.now + after);
        }
        self.command_at(turn, node, sid, CallCommand::Dial(params));
    }

    pub(crate) fn put_call(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        if self.anonymous {
            return;
        }
        if let Some(leg) = self.legs.get(&leg) {
            turn.store(StoreOp::PutCall(Box::new(leg.record.clone())));
        }
    }

    pub(crate) fn leg_ringing(&mut self, turn: &mut Turn<'_>, sid: CallSid, early_media: bool) {
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        if leg.ended() || leg.answered() {
            return;
        }
        leg.early_media |= early_media;
        if leg.record.status == CallStatus::Queued {
            leg.record.status = CallStatus::Ringing;
            leg.record.started_unix_ms = leg.record.started_unix_ms.or(Some(turn.unix_ms));
            leg.record.updated_unix_ms = turn.unix_ms;
            self.put_call(turn, sid);
            let event = TimelineEvent::LegStatus { status: CallStatus::Ringing };
            self.note(turn, Some(sid), event);
            self.callback(turn, sid, "ringing", "ringing");
        }
        self.run_leg_ringing(turn, sid, early_media);
    }

    pub(crate) fn leg_answered(&mut self, turn: &mut Turn<'_>, sid: CallSid, answer: LegAnswer) {
        let LegAnswer { codec, telephone_event, sip_call_id, headers } = answer;
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        if leg.ended() || leg.answered() {
            return;
        }
        leg.codec = codec;
        leg.telephone_event = telephone_event;
        leg.sip_headers = headers;
        leg.accepted = true;
        leg.record.sip_call_id = Some(sip_call_id);
        leg.record.status = CallStatus::InProgress;
        leg.record.started_unix_ms = leg.record.started_unix_ms.or(Some(turn.unix_ms));
        leg.record.answered_unix_ms = Some(turn.unix_ms);
        leg.record.updated_unix_ms = turn.unix_ms;
        self.put_call(turn, sid);
        let event = TimelineEvent::LegStatus { status: CallStatus::InProgress };
        self.note(turn, Some(sid), event);
        self.callback(turn, sid, "answered", "in-progress");
        self.run_leg_answered(turn, sid);
    }

    /// The end of a leg; a second one is ignored.
    pub(crate) fn leg_ended(&mut self, turn: &mut Turn<'_>, sid: CallSid, e: LegEnd) {
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        if leg.ended() {
            return;
        }
        let answered = leg.answered();
        let record = &mut leg.record;
        record.status = end::status(e.reason, answered, e.sip_status);
        record.ended_unix_ms = Some(turn.unix_ms);
        record.updated_unix_ms = turn.unix_ms;
        record.duration_s = Some(if answered { e.answered_ms.div_ceil(1_000) } else { 0 });
        record.end_reason = Some(e.reason);
        record.end_whose = Some(e.whose);
        record.sip_status = e.sip_status;
        if e.sip_status.is_some() || e.reason != EndReason::NodeLost {
            // Refused or given up at once, without ringing: it was dialled all the same.
            record.started_unix_ms = record.started_unix_ms.or(Some(record.created_unix_ms));
        }
        record.stats = Some(e.stats);
        let status = record.status;
        self.timers.remove(&Timer::LostLeg(sid));
        self.put_call(turn, sid);
        let event = TimelineEvent::LegEnded {
            status,
            reason: e.reason,
            whose: e.whose,
            longest_gap_ms: e.stats.longest_gap_out_us as f64 / 1_000.0,
            answered_ms: e.answered_ms,
        };
        self.note(turn, Some(sid), event);
        self.callback(turn, sid, "completed", status.as_str());
        self.media_leg_ended(turn, sid);
        if sid == self.sid {
            self.run_caller_ended(turn, e.reason);
        } else {
            self.run_leg_ended(turn, sid);
        }
    }

    /// A leg of which nothing will be heard any more.
    pub(crate) fn leg_lost(&mut self, turn: &mut Turn<'_>, sid: CallSid) {
        let Some(leg) = self.legs.get(&sid).filter(|leg| !leg.ended()) else { return };
        turn.metrics.legs_lost += 1;
        let since = leg.record.answered_unix_ms;
        let end = LegEnd {
            reason: EndReason::NodeLost,
            whose: Blame::Us,
            sip_status: None,
            stats: LegStats::default(),
            answered_ms: since.map_or(0, |since| turn.unix_ms.saturating_sub(since)),
        };
        self.leg_ended(turn, sid, end);
    }

    /// A node is gone with everything on it.
    pub(crate) fn node_lost(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        self.links.remove(node);
        self.node_deadlines.remove(node);
        // Before the legs end and take their programs along.
        self.recordings_interrupted_at(turn, node);
        let on_it = |leg: &&Leg| leg.record.node == *node && !leg.ended();
        let legs: Vec<CallSid> =
            self.legs.values().filter(on_it).map(|leg| leg.record.sid).collect();
        for leg in legs {
            self.leg_lost(turn, leg);
        }
        self.media_node_lost(turn, node);
    }

    /// Parameters that every request about a leg carries.
    pub(crate) fn params(&self, sid: CallSid, status: &str) -> Vec<(String, String)> {
        let Some(leg) = self.legs.get(&sid) else { return Vec::new() };
        let record = &leg.record;
        let mut params = vec![
            ("CallSid", record.sid.to_string()),
            ("AccountSid", record.account.to_string()),
            ("From", record.from.clone()),
            ("To", record.to.clone()),
            ("Caller", record.from.clone()),
            ("Called", record.to.clone()),
            ("CallStatus", status.to_owned()),
            ("ApiVersion", "2010-04-01".to_owned()),
            ("Direction", record.direction.as_str().to_owned()),
        ];
        let parent = record.parent.map(|parent| parent.to_string());
        let from = geography::params(["From", "Caller"], &record.from);
        let to = geography::params(["To", "Called"], &record.to);
        for (name, value) in [
            ("ForwardedFrom", record.forwarded_from.clone()),
            ("CallerName", record.caller_name.clone()),
            ("ParentCallSid", parent),
        ] {
            params.extend(value.map(|value| (name, value)));
        }
        let mut params: Vec<_> =
            params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        params.extend(from.into_iter().chain(to));
        if sid == self.sid {
            params.extend(self.facts.sip.iter().cloned());
        }
        params
    }

    /// Puts one status callback into the outbox for every target that wants the event.
    fn callback(&mut self, turn: &mut Turn<'_>, sid: CallSid, event: &str, status: &str) {
        if self.anonymous {
            return;
        }
        let mut params = self.params(sid, status);
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        let wanted: Vec<StatusTarget> = leg
            .targets
            .iter()
            .filter(|target| target.events.iter().any(|wanted| wanted == event))
            .cloned()
            .collect();
        if wanted.is_empty() {
            return;
        }
        let sequence = leg.next_callback;
        leg.next_callback += 1;
        let mut add = |name: &str, value: String| params.push((name.to_owned(), value));
        add("Timestamp", request::rfc2822(turn.unix_ms));
        add("CallbackSource", "call-progress-events".to_owned());
        add("SequenceNumber", sequence.to_string());
        if event == "completed" {
            let seconds = leg.record.duration_s.unwrap_or(0);
            add("CallDuration", seconds.to_string());
            add("Duration", seconds.div_ceil(60).to_string());
            if let Some(status) = leg.record.sip_status {
                add("SipResponseCode", status.to_string());
            }
            let sip_call_id = leg.record.sip_call_id.clone();
            if let Some(id) = sip_call_id.filter(|_| sid != self.sid) {
                add("SipCallId", id);
            }
            if let Some((recording, duration_ms)) = self.recording_of(sid) {
                add("RecordingSid", recording.to_string());
                add("RecordingUrl", self.recording_url(turn, recording));
                add("RecordingDuration", duration_ms.div_ceil(1_000).to_string());
            }
        }
        if event == "completed" {
            params.extend(self.verification_params());
        }
        for (index, target) in wanted.iter().enumerate() {
            let key = format!("{sid}/{event}/{sequence}/{index}");
            self.put_callback(turn, sid, event, sequence, key, &target.target, &params);
        }
    }

    /// One row of the outbox. The request is built once: repeats are equal to the first.
    pub(crate) fn put_callback(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallSid,
        event: &str,
        sequence: u64,
        key: String,
        target: &UrlMethod,
        params: &[(String, String)],
    ) {
        let (url, _, _) = overrides::split(&target.url);
        let token = turn.token();
        let bare = UrlMethod { url, method: target.method };
        let built = turn.request(self.account, call, &bare, params.to_vec(), &token);
        let row = CallbackRow {
            key,
            call,
            session: self.sid,
            account: self.account,
            event: event.to_owned(),
            sequence,
            request: built,
            configured_url: target.url.clone(),
            created_unix_ms: turn.unix_ms,
        };
        turn.store(StoreOp::PutCallback(Box::new(row)));
        turn.effect(Effect::CallbacksWaiting);
    }
}
