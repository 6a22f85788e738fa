//! Dial: others are called, the first that answers is connected, and when it leaves the
//! instructions go on.
//!
//! ```text
//! calling ──answer──▶ (digits) ──▶ talking ──callee ends / star──▶ action or next verb
//!    └── nobody left ─────────────────────────────────────────────▶ action or next verb
//! ```

use std::collections::BTreeSet;

use link_proto::call::{Blame, CallCommand, DialParams, EndReason, OnPeerEnd};
use link_proto::media::{PlayItem, RecordRules, StartWhen};
use link_proto::plan::Need;
use link_proto::{CallSid, NodeId, OpId, RecordingSid};
use serde::{Deserialize, Serialize};

use super::runner::Activity;
use crate::call::legs::NewLeg;
use crate::call::session::Session;
use crate::call::turn::Turn;
use crate::directory::{self, StatusTarget};
use crate::error_code;
use crate::record::{CallStatus, Direction};
use crate::verb::{Dial, DialTarget};

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
        if self.caller_answered() && matches!(&self.run.activity, Activity::Dialing(_)) {
            let country =
                verb.ring_tone.clone().unwrap_or_else(|| turn.config.ringback_country.clone());
            let (op, leg, items) = (self.new_op(), self.sid, vec![PlayItem::Ringback { country }]);
            // Without a place for ringback the caller waits in silence.
            let needs = vec![Need::Play { op, leg, items, speech: false }];
            if self.set_needs(turn, needs).is_err() {
                turn.metrics.internal_errors += 1;
            }
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
        if let Some(leg) = self.legs.get_mut(&sid) {
            leg.send_digits = target.send_digits.clone();
        }
        self.command(turn, sid, CallCommand::TimeLimit { limit_ms: verb.time_limit_ms });
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
        dialing.winner = Some(leg);
        dialing.waiting.clear();
        let others: Vec<CallSid> = dialing.legs.iter().copied().filter(|l| *l != leg).collect();
        for other in others {
            self.hang_up(turn, other, EndReason::Canceled, Blame::Us);
        }
        self.accept(turn);
        let digits = self.legs.get_mut(&leg).and_then(|leg| leg.send_digits.take());
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
        let (verb, caller) = (dialing.verb.clone(), self.sid);
        self.timeline.phase_over(turn.now);
        self.phase(turn, "Dial bridged");
        let mut needs = vec![Need::Bridge { a: caller, b: callee }];
        let watch = (!verb.hangup_on.is_empty()).then(|| self.new_op());
        let keys = verb.hangup_on.clone();
        needs.extend(watch.map(|op| Need::Watch { op, leg: caller, keys }));
        let recording = verb.record.map(|how| {
            let channels = if how.dual { 2 } else { 1 };
            let (callback, events) =
                (verb.recording_callback.clone(), verb.recording_callback_events.clone());
            let sid = self.recording_begins(turn, caller, "DialVerb", channels, callback, events);
            let rules = RecordRules {
                recording: sid,
                with: None,
                track: Default::default(),
                dual_channel: how.dual,
                start: StartWhen::Now,
                length_max_ms: RECORD_MAX_MS,
                silence_timeout_ms: 0,
                finish_on: String::new(),
                trim_silence: verb.trim,
            };
            let op = self.new_op();
            needs.push(Need::Record { op, leg: caller, with: Some(callee), rules });
            sid
        });
        if let Activity::Dialing(dialing) = &mut self.run.activity {
            dialing.bridged = true;
            dialing.watch = watch;
            dialing.recording = recording;
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
        if dialing.early == Some(leg) {
            dialing.early = None;
        }
        match dialing.winner {
            Some(winner) if winner == leg => self.dial_over(turn),
            Some(_) => {}
            None => {
                dialing.last = Some(leg);
                if dialing.legs.is_empty() {
                    self.dial_next(turn);
                }
            }
        }
    }

    /// Nobody is left, or the conversation is over.
    fn dial_over(&mut self, turn: &mut Turn<'_>) {
        let Activity::Dialing(dialing) = std::mem::take(&mut self.run.activity) else { return };
        self.run.stop();
        if self.caller_ended() {
            return;
        }
        let params = self.dial_result(turn, &dialing, None);
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
        let record = leg.and_then(|leg| self.legs.get(&leg)).map(|leg| &leg.record);
        let status = match (dialing.winner, record) {
            (Some(_), _) => CallStatus::Completed,
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
            if let Some(status) = record.sip_status {
                add("DialSipResponseCode", status.to_string());
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
