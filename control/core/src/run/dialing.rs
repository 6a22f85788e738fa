//! Dial: others are called, the first that answers is connected, and when it leaves the
//! instructions go on.
//!
//! ```text
//! calling ──answer──▶ (digits, screening) ──▶ talking ──callee ends / star──▶ action or next verb
//!    └── nobody left ────────────────────────────────────────────────────────▶ action or next verb
//! ```

use std::collections::BTreeSet;

use link_proto::call::{Blame, CallCommand, DialParams, EndReason, OnPeerEnd};
use link_proto::media::{PlayItem, RecordRules, RecordTrack, StartWhen};
use link_proto::plan::Need;
use link_proto::{CallSid, NodeId, OpId, RecordingSid};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::runner::Activity;
use crate::call::legs::NewLeg;
use crate::call::recording::{Change, RecordOptions};
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::directory::{self, StatusTarget};
use crate::error_code;
use crate::record::{CallStatus, Direction};
use crate::verb::{Dial, DialTarget, SipUri};

/// A recording of a conversation ends with it; the verb's limit is the conversation's.
const RECORD_MAX_MS: u64 = 86_400_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Dialing {
    pub verb: Dial,
    /// Not yet called.
    waiting: Vec<DialTarget>,
    /// Called and not ended.
    legs: BTreeSet<CallSid>,
    winner: Option<CallSid>,
    /// The leg whose early media the caller hears.
    early: Option<CallSid>,
    /// Digits for the callee before the conversation.
    digits: Option<OpId>,
    watch: Option<OpId>,
    recording: Option<RecordingSid>,
    last: Option<CallSid>,
    bridged: bool,
}

impl Session {
    pub(crate) fn start_dial(&mut self, turn: &mut Turn<'_>, verb: &Dial) {
        if verb.answer_on_bridge && !self.caller_answered() {
            self.command(turn, self.sid, CallCommand::Progress { early_media: false });
        } else {
            self.accept(turn);
        }
        self.phase(turn, "Dial");
        // Their records are in the store; a session that dials in a loop stays small.
        let caller = self.sid;
        self.legs.retain(|sid, leg| *sid == caller || !leg.ended());
        let dialing = Dialing {
            verb: verb.clone(),
            waiting: verb.targets.clone(),
            legs: BTreeSet::new(),
            winner: None,
            early: None,
            digits: None,
            watch: None,
            recording: None,
            last: None,
            bridged: false,
        };
        self.run.activity = Activity::Dialing(dialing);
        if let Some(id) = verb.caller_id.as_ref().filter(|id| !self.may_show(turn, id)) {
            let alert = self.alert(turn, 0, error_code::DIAL_CALLER_ID, id);
            self.put_alert(turn, alert);
            return self.dial_over(turn);
        }
        self.dial_next(turn);
        if matches!(&self.run.activity, Activity::Dialing(_)) {
            self.ring_back(turn);
            self.record_ringing(turn);
        }
    }

    /// The caller hears that somebody is rung.
    fn ring_back(&mut self, turn: &mut Turn<'_>) {
        let Activity::Dialing(dialing) = &self.run.activity else { return };
        let country = dialing.verb.ring_tone.clone();
        let country = country.unwrap_or_else(|| turn.config.ringback_country.clone());
        let mut needs = Vec::new();
        if self.caller_answered() {
            let (op, leg, items) = (self.new_op(), self.sid, vec![PlayItem::Ringback { country }]);
            needs.push(Need::Play { op, leg, items, speech: false });
        }
        // Without a place for ringback the caller waits in silence.
        if self.set_needs(turn, needs).is_err() {
            turn.metrics.internal_errors += 1;
        }
    }

    /// `record-from-ringing`: the caller's leg is recorded, with what is sent to it, beside the
    /// instructions. Where that cannot be done the conversation alone is recorded.
    fn record_ringing(&mut self, turn: &mut Turn<'_>) {
        let Activity::Dialing(dialing) = &self.run.activity else { return };
        let verb = &dialing.verb;
        let Some(how) = verb.record.filter(|how| how.ringing && self.caller_answered()) else {
            return;
        };
        let options = RecordOptions {
            track: how.track,
            dual: how.dual,
            trim: verb.trim,
            callback: verb.recording_callback.clone(),
            events: verb.recording_callback_events.clone(),
        };
        let (sid, leg) = (RecordingSid::mint(turn.rng), self.sid);
        let begun = self.record_leg(turn, sid, leg, "DialVerb", options).is_some();
        if let Activity::Dialing(dialing) = &mut self.run.activity {
            dialing.recording = Some(sid).filter(|_| begun);
        }
    }

    /// Whether callees may be shown this number: the account's, a verified one, or that of a party
    /// of this session.
    fn may_show(&self, turn: &Turn<'_>, caller_id: &str) -> bool {
        let is_party = |text: &str| directory::is_same_number(text, caller_id);
        turn.directory.may_show(self.account, caller_id)
            || self.legs.values().any(|leg| {
                let record = &leg.record;
                let forwarded = record.forwarded_from.as_deref().is_some_and(is_party);
                forwarded || is_party(&record.from) || is_party(&record.to)
            })
    }

    /// Calls the next target, or all of them.
    fn dial_next(&mut self, turn: &mut Turn<'_>) {
        let Activity::Dialing(dialing) = &mut self.run.activity else { return };
        let count = if dialing.verb.sequential { 1 } else { dialing.waiting.len() };
        let count = count.min(dialing.waiting.len());
        let targets: Vec<DialTarget> = dialing.waiting.drain(..count).collect();
        let verb = dialing.verb.clone();
        for target in targets {
            let leg = self.dial_target(turn, &verb, &target);
            if let Activity::Dialing(dialing) = &mut self.run.activity {
                dialing.legs.insert(leg);
            }
        }
        if matches!(&self.run.activity, Activity::Dialing(d) if d.legs.is_empty()) {
            self.dial_over(turn);
        }
    }

    fn dial_target(&mut self, turn: &mut Turn<'_>, verb: &Dial, target: &DialTarget) -> CallSid {
        let sid = CallSid::mint(turn.rng);
        let (mut target, mut rest) = (target.clone(), target.clone());
        if let Some(uri) = choose_uri(turn, &mut rest.uris) {
            target.to = uri.to;
            target.username = uri.username.or(target.username);
            target.password = uri.password.or(target.password);
            target.headers.extend(uri.headers);
        }
        let caller = self.caller().map(|leg| (leg.record.clone(), leg.codec));
        let (home, codec, caller_from, caller_to) = match caller {
            Some((r, codec)) => (r.node, codec, (r.direction, r.from), r.to),
            None => return sid,
        };
        // The caller's number: of the party that the instructions talk to.
        let own = match caller_from {
            (Direction::Inbound, from) => from,
            _ => caller_to,
        };
        let from = verb.caller_id.clone().unwrap_or(own);
        let (node, to) = route(turn, &home, &target.to);
        let status = target.status.clone().and_then(|status| {
            let target = self.absolute_target(turn, status.target)?;
            Some(StatusTarget { target, ..status })
        });
        let new = NewLeg {
            sid,
            parent: Some(self.sid),
            direction: Direction::OutboundDial,
            from: from.clone(),
            to: target.to.clone(),
            node: node.clone(),
            codec,
            targets: status.into_iter().collect(),
        };
        let params = DialParams {
            to,
            from,
            codecs: Vec::new(),
            timeout_ms: verb.timeout_ms,
            headers: target.headers.clone(),
            username: target.username.clone(),
            password: target.password.clone(),
            near_leg: (node == home).then_some(self.sid),
        };
        self.dial(turn, new, params);
        let screen = target.screen.clone().and_then(|screen| self.absolute_target(turn, screen));
        let refused = target.screen.is_some() && screen.is_none();
        rest.screen = screen;
        if let Some(leg) = self.legs.get_mut(&sid) {
            leg.target = Some(Box::new(rest));
        }
        self.command(turn, sid, CallCommand::TimeLimit { limit_ms: verb.time_limit_ms });
        if refused {
            // Nobody is connected unseen.
            self.hang_up(turn, sid, EndReason::Canceled, Blame::Customer);
        }
        sid
    }

    pub(crate) fn dial_early_media(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        let Activity::Dialing(dialing) = &mut self.run.activity else { return };
        if dialing.winner.is_some() || dialing.early.is_some() || !dialing.legs.contains(&leg) {
            return;
        }
        dialing.early = Some(leg);
        if !self.caller_answered() {
            self.command(turn, self.sid, CallCommand::Progress { early_media: true });
        }
        let needs = vec![Need::Feed { from: leg, to: self.sid }];
        if self.set_needs(turn, needs).is_err() {
            turn.metrics.internal_errors += 1;
        }
    }

    pub(crate) fn dial_answered(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        let Activity::Dialing(dialing) = &mut self.run.activity else { return };
        if dialing.winner.is_some() || !dialing.legs.contains(&leg) {
            return self.hang_up(turn, leg, EndReason::Canceled, Blame::Us);
        }
        let early = dialing.early == Some(leg);
        let target = self.legs.get_mut(&leg).and_then(|leg| leg.target.take());
        let (digits, screen) =
            target.map(|target| (target.send_digits, target.screen)).unwrap_or_default();
        if let Some(target) = screen {
            if early {
                if let Activity::Dialing(dialing) = &mut self.run.activity {
                    dialing.early = None;
                }
                self.ring_back(turn);
            }
            return self.start_screening(turn, leg, target, digits);
        }
        self.dial_won(turn, leg);
        let Some(digits) = digits else { return self.bridge(turn, leg) };
        let op = self.new_op();
        if let Activity::Dialing(dialing) = &mut self.run.activity {
            dialing.digits = Some(op);
        }
        let items = vec![PlayItem::Digits { digits }];
        if self.set_needs(turn, vec![Need::Play { op, leg, items, speech: false }]).is_err() {
            self.bridge(turn, leg);
        }
    }

    /// One is to be connected: the others are let go.
    fn dial_won(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        let Activity::Dialing(dialing) = &mut self.run.activity else { return };
        dialing.winner = Some(leg);
        dialing.waiting.clear();
        let others: Vec<CallSid> = dialing.legs.iter().copied().filter(|l| *l != leg).collect();
        for other in others {
            self.end_screening(turn, other);
            self.hang_up(turn, other, EndReason::Canceled, Blame::Us);
        }
    }

    /// A screening is over: the leg may be connected, or is let go.
    pub(crate) fn dial_screened(&mut self, turn: &mut Turn<'_>, leg: CallSid, accepted: bool) {
        let Activity::Dialing(dialing) = &self.run.activity else { return };
        if dialing.winner.is_some() || !dialing.legs.contains(&leg) {
            return self.hang_up(turn, leg, EndReason::Canceled, Blame::Us);
        }
        if accepted {
            self.dial_won(turn, leg);
            return self.bridge(turn, leg);
        }
        self.hang_up(turn, leg, EndReason::Hangup, Blame::Customer);
        self.plan_rest(turn);
    }

    pub(crate) fn dial_play_done(&mut self, turn: &mut Turn<'_>, op: OpId) {
        let Activity::Dialing(dialing) = &self.run.activity else { return };
        if let (true, Some(leg)) = (dialing.digits == Some(op), dialing.winner) {
            self.bridge(turn, leg);
        }
    }

    fn bridge(&mut self, turn: &mut Turn<'_>, callee: CallSid) {
        let Activity::Dialing(dialing) = &self.run.activity else { return };
        if dialing.bridged {
            return;
        }
        let (verb, caller, recorded) = (dialing.verb.clone(), self.sid, dialing.recording);
        self.accept(turn);
        self.timeline.phase_over(turn.now);
        self.phase(turn, "Dial bridged");
        let mut needs = vec![Need::Bridge { a: caller, b: callee }];
        let watch = (!verb.hangup_on.is_empty()).then(|| self.new_op());
        let keys = verb.hangup_on.clone();
        needs.extend(watch.map(|op| Need::Watch { op, leg: caller, keys }));
        let recording = match recorded {
            Some(_) => None,
            None => self.record_conversation(turn, &verb, callee, &mut needs),
        };
        if let Activity::Dialing(dialing) = &mut self.run.activity {
            dialing.bridged = true;
            dialing.watch = watch;
            dialing.recording = recorded.or(recording);
        }
        if let Err(error) = self.set_needs(turn, needs) {
            if let Some(sid) = recording {
                self.recording_ended(turn, sid, 0, true);
            }
            let alert = self.alert(turn, 0, error_code::INTERNAL, &error.to_string());
            self.put_alert(turn, alert);
            return self.hang_up(turn, callee, EndReason::NotAcceptable, Blame::Us);
        }
        let node = |leg: CallSid| self.legs.get(&leg).map(|leg| leg.record.node.clone());
        if node(caller) == node(callee) {
            let couple = CallCommand::Couple {
                peer: callee,
                on_peer_end: OnPeerEnd::Hold,
                peer_on_end: OnPeerEnd::End,
            };
            self.command(turn, caller, couple);
        }
    }

    /// What records the conversation, if the verb wants that.
    fn record_conversation(
        &mut self,
        turn: &mut Turn<'_>,
        verb: &Dial,
        callee: CallSid,
        needs: &mut Vec<Need>,
    ) -> Option<RecordingSid> {
        let how = verb.record?;
        let caller = self.sid;
        let channels = if how.dual { 2 } else { 1 };
        let (callback, events) =
            (verb.recording_callback.clone(), verb.recording_callback_events.clone());
        let source = ("DialVerb", how.track);
        let sid = self.recording_begins(turn, caller, source, channels, callback, events);
        let rules = RecordRules {
            recording: sid,
            with: None,
            // What arrives, at one leg or both.
            track: RecordTrack::Received,
            dual_channel: how.dual,
            start: StartWhen::Now,
            length_max_ms: RECORD_MAX_MS,
            silence_timeout_ms: 0,
            finish_on: String::new(),
            trim_silence: verb.trim,
        };
        let (leg, with) = match how.track {
            RecordTrack::Both => (caller, Some(callee)),
            RecordTrack::Received => (caller, None),
            RecordTrack::Sent => (callee, None),
        };
        let op = self.new_op();
        needs.push(Need::Record { op, leg, with, rules });
        Some(sid)
    }

    /// Star ends the other leg; the instructions go on when it has ended.
    pub(crate) fn run_key(&mut self, turn: &mut Turn<'_>, op: OpId) {
        let Activity::Dialing(dialing) = &self.run.activity else { return };
        if let (true, Some(callee)) = (dialing.watch == Some(op), dialing.winner) {
            self.hang_up(turn, callee, EndReason::Hangup, Blame::Caller);
        }
    }

    pub(crate) fn dial_leg_ended(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        let Activity::Dialing(dialing) = &mut self.run.activity else { return };
        if !dialing.legs.remove(&leg) {
            return;
        }
        let heard = dialing.early == Some(leg);
        if heard {
            dialing.early = None;
        }
        let winner = dialing.winner;
        self.end_screening(turn, leg);
        if winner.is_none() && self.dial_elsewhere(turn, leg) {
            return;
        }
        let Activity::Dialing(dialing) = &mut self.run.activity else { return };
        match dialing.winner {
            Some(winner) if winner == leg => self.dial_over(turn),
            Some(_) => {}
            None => {
                dialing.last = Some(leg);
                if dialing.legs.is_empty() {
                    self.dial_next(turn);
                }
                if heard {
                    // Its early media has ended, others still ring.
                    self.ring_back(turn);
                }
            }
        }
    }

    /// A target that could not be reached has another URI.
    fn dial_elsewhere(&mut self, turn: &mut Turn<'_>, ended: CallSid) -> bool {
        let Some(leg) = self.legs.get_mut(&ended) else { return false };
        let failed = leg.record.status == CallStatus::Failed && !leg.hanging_up;
        let target = leg.target.take().filter(|target| failed && !target.uris.is_empty());
        let Some(target) = target else { return false };
        let Activity::Dialing(dialing) = &self.run.activity else { return false };
        let verb = dialing.verb.clone();
        let next = self.dial_target(turn, &verb, &target);
        if let Activity::Dialing(dialing) = &mut self.run.activity {
            dialing.legs.insert(next);
        }
        true
    }

    /// Nobody is left, or the conversation is over.
    fn dial_over(&mut self, turn: &mut Turn<'_>) {
        let Activity::Dialing(dialing) = std::mem::take(&mut self.run.activity) else { return };
        self.run.stop();
        if self.caller_ended() {
            return;
        }
        let params = self.dial_result(turn, &dialing, None);
        self.end_ringing_record(turn, &dialing);
        if let Some(winner) = dialing.winner {
            self.uncouple(turn, winner);
        }
        self.timeline.phase_over(turn.now);
        match &dialing.verb.action {
            Some(action) => {
                self.run.last_params = params.clone();
                self.ask(turn, Some(action), dialing.verb.method, params);
            }
            None => {
                if self.run.document.verbs.get(self.run.position + 1).is_none()
                    && self.set_needs(turn, Vec::new()).is_err()
                {
                    turn.metrics.internal_errors += 1;
                }
                self.next_verb(turn);
            }
        }
    }

    /// A recording that has begun with the verb ends with it.
    fn end_ringing_record(&mut self, turn: &mut Turn<'_>, dialing: &Dialing) {
        let beside = dialing.recording.and_then(|sid| self.running_recording(self.sid, Some(sid)));
        if let Some((op, sid)) = beside {
            self.change_recording(turn, op, sid, Change::Stop);
        }
    }

    fn uncouple(&mut self, turn: &mut Turn<'_>, winner: CallSid) {
        let alive = self.legs.get(&winner).is_some_and(|leg| !leg.ended());
        if alive {
            self.command(turn, self.sid, CallCommand::Uncouple);
        }
    }

    /// The caller has left: the result is told, its answer does not matter.
    pub(crate) fn dial_caller_ended(
        &mut self,
        turn: &mut Turn<'_>,
        dialing: Dialing,
        _reason: EndReason,
    ) {
        self.run.stop();
        let Some(action) = dialing.verb.action.clone() else { return };
        let params = self.dial_result(turn, &dialing, Some(turn.unix_ms));
        self.run.last_params = params.clone();
        self.ask(turn, Some(&action), dialing.verb.method, params);
    }

    /// What the action URL is told. `until` is the end of a conversation whose leg has not ended.
    fn dial_result(
        &self,
        turn: &Turn<'_>,
        dialing: &Dialing,
        until: Option<u64>,
    ) -> Vec<(String, String)> {
        let leg = dialing.winner.or(dialing.last).or(dialing.legs.first().copied());
        let leg = leg.and_then(|leg| self.legs.get(&leg));
        let record = leg.map(|leg| &leg.record);
        let status = match (dialing.winner, record) {
            (Some(_), _) => CallStatus::Completed,
            // It answered and was not connected.
            (None, Some(record)) if record.status == CallStatus::Completed => CallStatus::NoAnswer,
            (None, Some(record)) if record.status.is_terminal() => record.status,
            (None, Some(_)) => CallStatus::Canceled,
            (None, None) => CallStatus::Failed,
        };
        let mut params = vec![("DialCallStatus".to_owned(), status.as_str().to_owned())];
        let mut add = |name: &str, value: String| params.push((name.to_owned(), value));
        if let Some(record) = record {
            add("DialCallSid", record.sid.to_string());
            let running = record.answered_unix_ms.zip(until);
            let running = running.map(|(from, to)| to.saturating_sub(from).div_ceil(1_000));
            let seconds = record.duration_s.or(running).unwrap_or(0);
            if dialing.winner.is_some() {
                add("DialCallDuration", seconds.to_string());
            }
            if let Some(id) = &record.sip_call_id {
                add("DialSipCallId", id.clone());
            }
            let answered = record.answered_unix_ms.map(|_| 200);
            if let Some(status) = record.sip_status.or(answered) {
                add("DialSipResponseCode", status.to_string());
            }
            for (name, value) in leg.map(|leg| leg.sip_headers.as_slice()).unwrap_or_default() {
                add(&format!("DialSipHeader_{name}"), value.clone());
            }
        }
        add("DialBridged", dialing.bridged.to_string());
        if let Some(recording) = dialing.recording {
            add("RecordingUrl", self.recording_url(turn, recording));
            add("RecordingSid", recording.to_string());
        }
        params
    }

    /// The dial is cut: everybody called is let go.
    pub(crate) fn abandon_dial(&mut self, turn: &mut Turn<'_>, dialing: &Dialing) {
        self.end_ringing_record(turn, dialing);
        if let Some(winner) = dialing.winner {
            self.uncouple(turn, winner);
        }
        for leg in dialing.legs.clone() {
            let answered = self.legs.get(&leg).is_some_and(|leg| leg.answered());
            let why = if answered { EndReason::Hangup } else { EndReason::Canceled };
            self.hang_up(turn, leg, why, Blame::Customer);
        }
    }
}

/// Takes one of the lowest priority, by weight (RFC 2782).
fn choose_uri(turn: &mut Turn<'_>, uris: &mut Vec<SipUri>) -> Option<SipUri> {
    let lowest = uris.iter().map(|uri| uri.priority).min()?;
    let equal = uris.iter().enumerate().filter(|(_, uri)| uri.priority == lowest);
    let weights: Vec<(usize, u32)> =
        equal.map(|(index, uri)| (index, u32::from(uri.weight) + 1)).collect();
    let mut roll = turn.rng.random_range(0..weights.iter().map(|(_, weight)| *weight).sum::<u32>());
    for (index, weight) in weights {
        match roll.checked_sub(weight) {
            Some(rest) => roll = rest,
            None => return Some(uris.remove(index)),
        }
    }
    None
}

/// The edge that calls a target, and what it is told to call. Numbers go by the route table;
/// `;edge=` and `;region=` of a SIP URI choose a place; everything else leaves where the caller is.
pub(crate) fn route(turn: &Turn<'_>, home: &NodeId, to: &str) -> (NodeId, String) {
    if !to.starts_with("sip:") && !to.starts_with("sips:") {
        let good = |node: &NodeId| turn.nodes.takes_calls(node) && turn.nodes.up.contains_key(node);
        let node = turn.nodes.tables.route_by(to, good).map(|route| route.node.clone());
        return (node.unwrap_or_else(|| home.clone()), to.to_owned());
    }
    let mut node = home.clone();
    let mut uri = String::new();
    for (index, part) in to.split(';').enumerate() {
        let place = part.split_once('=').filter(|_| index > 0);
        match place {
            Some(("edge", name)) => node = NodeId::from(name),
            Some(("region", region)) => {
                let known = turn.nodes.known.values();
                let mut there = known.filter(|entry| entry.region.as_str() == region);
                let up = |entry: &&link_proto::table::NodeEntry| {
                    turn.nodes.up.contains_key(&entry.node) && turn.nodes.takes_calls(&entry.node)
                };
                if let Some(entry) = there.find(up) {
                    node = entry.node.clone();
                }
            }
            _ => {
                if index > 0 {
                    uri.push(';');
                }
                uri.push_str(part);
            }
        }
    }
    (node, uri)
}
