//! The position in the document and what the session does at present.

use link_proto::call::{Blame, CallCommand, EndReason};
use link_proto::media::PlayEnd;
use link_proto::plan::Need;
use link_proto::{CallSid, OpId};
use serde::{Deserialize, Serialize};

use super::dialing::Dialing;
use super::fetch::{Incident, PendingFetch};
use super::gathering::Gathering;
use super::prompts::Preparing;
use super::recording::Recording;
use crate::call::session::{Session, Timer};
use crate::call::turn::Turn;
use crate::directory::UrlMethod;
use crate::doc::Document;
use crate::error_code;
use crate::record::TimelineEvent;
use crate::verb::{Gather, Verb};

/// Documents that may follow each other without anything being heard in between.
const IDLE_DOCUMENTS_MAX: u32 = 50;

/// State of the runner.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub document: Document,
    /// Verb that is carried out now, or next.
    pub position: usize,
    /// Where the document came from: base of relative URLs.
    pub base: Option<UrlMethod>,
    pub activity: Activity,
    /// Parameters of the last request beside those of the call: a fallback gets them again.
    pub last_params: Vec<(String, String)>,
    /// The incident that the present document answers, so that its own failure goes on from there.
    pub incident: Option<Incident>,
    /// The document is the spoken error.
    pub last_resort: bool,
    pub idle_documents: u32,
    /// Tells results of this activity from those of an earlier one.
    pub generation: u64,
    /// Whom the document talks to; `None` = the first leg of the session.
    #[serde(default)]
    pub leg: Option<CallSid>,
    /// What it needs from media now.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// How a screening has ended: true = the leg may be connected.
    #[serde(default)]
    pub accepted: Option<bool>,
}

/// What the session does at present.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) enum Activity {
    /// Nothing: before the answer of an outbound call, or after the end.
    #[default]
    Idle,
    /// The web server is asked.
    Fetching(PendingFetch),
    /// Prompts are made ready.
    Preparing(Preparing),
    /// The answer is delayed.
    PickUpPause {
        /// ms.
        length_ms: u64,
    },
    /// A play program runs; then `next` is the position.
    Playing {
        /// Operation.
        op: OpId,
        /// Position.
        next: usize,
    },
    /// Digits are collected.
    Gathering(Gathering),
    /// The caller is recorded.
    Recording(Recording),
    /// Others are called, or the caller talks with one of them.
    Dialing(Dialing),
}

impl Run {
    /// A request is under way that is worth waiting for after the last leg has ended.
    pub(crate) fn is_waiting_for_web(&self) -> bool {
        matches!(self.activity, Activity::Fetching(_))
            || matches!(&self.activity, Activity::Recording(r) if r.result.is_some())
    }

    pub(crate) fn stop(&mut self) {
        self.activity = Activity::Idle;
        self.generation += 1;
    }
}

impl Session {
    /// A new document from its beginning.
    pub(crate) fn run_document(
        &mut self,
        turn: &mut Turn<'_>,
        document: Document,
        base: Option<UrlMethod>,
    ) {
        for warning in document.warnings.clone() {
            let alert = self.alert(turn, 1, warning.code, &warning.message);
            self.put_alert(turn, alert);
        }
        self.run.document = document;
        self.run.position = 0;
        if base.is_some() {
            self.run.base = base;
        }
        self.advance(turn);
    }

    /// Carries out verbs from the position on until one of them has to wait.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>) {
        self.run.stop();
        if self.subject_ended() {
            return;
        }
        let verb = self.run.document.verbs.get(self.run.position).cloned();
        if self.run.leg.is_some() {
            return self.advance_screening(turn, verb);
        }
        let Some(verb) = verb else {
            // The end of the document is the end of the call; only Reject keeps it from being
            // answered.
            self.accept(turn);
            return self.hang_up_caller(turn);
        };
        match verb {
            Verb::Pause(length_ms) if !self.caller_answered() && self.run.position == 0 => {
                self.run.activity = Activity::PickUpPause { length_ms };
                self.arm(turn, Timer::PickUp, length_ms);
            }
            Verb::Say(_) | Verb::Play(_) | Verb::Pause(_) => self.prepare_group(turn),
            Verb::Gather(gather) => self.prepare_gather(turn, &gather),
            Verb::Record(record) => self.start_record(turn, &record),
            Verb::Dial(dial) => self.start_dial(turn, &dial),
            Verb::Redirect(redirect) => {
                self.ask(turn, Some(&redirect.url), redirect.method, Vec::new());
            }
            Verb::Reject(busy) => self.reject(turn, busy),
            Verb::Hangup => {
                self.accept(turn);
                self.hang_up_caller(turn);
            }
        }
    }

    pub(crate) fn next_verb(&mut self, turn: &mut Turn<'_>) {
        self.run.position += 1;
        self.phase_over(turn);
        self.advance(turn);
    }

    /// The leg that the present document talks to.
    pub(crate) fn subject(&self) -> CallSid {
        self.run.leg.unwrap_or(self.sid)
    }

    pub(crate) fn subject_ended(&self) -> bool {
        let leg = self.legs.get(&self.subject());
        leg.is_none_or(|leg| leg.ended() || leg.hanging_up)
    }

    /// The instructions of the first leg stand still from now on. A screening is no phase of its own.
    pub(crate) fn phase_over(&mut self, turn: &Turn<'_>) {
        if self.run.leg.is_none() {
            self.timeline.phase_over(turn.now);
        }
    }

    /// The verb at the position, if it is a Gather.
    pub(crate) fn gather_here(&self) -> Option<Gather> {
        match self.run.document.verbs.get(self.run.position) {
            Some(Verb::Gather(gather)) => Some(gather.clone()),
            _ => None,
        }
    }

    /// Asks for the document at `url` (relative or empty: the current one) and stops all media
    /// meanwhile.
    pub(crate) fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        url: Option<&str>,
        method: crate::io::Method,
        params: Vec<(String, String)>,
    ) {
        self.phase_over(turn);
        self.run.idle_documents += 1;
        if self.run.idle_documents > IDLE_DOCUMENTS_MAX {
            let message = format!("{IDLE_DOCUMENTS_MAX} documents without anything to hear");
            return self.fail(turn, error_code::DOCUMENTS_TOO_MANY, &message, None);
        }
        if self.set_needs(turn, Vec::new()).is_err() {
            turn.metrics.internal_errors += 1;
        }
        let url = url.unwrap_or_default();
        match self.absolute(turn, url) {
            Some(url) => self.fetch(turn, UrlMethod { url, method }, params),
            None => {
                let code = if self.run.base.is_none() {
                    error_code::ACTION_RELATIVE
                } else {
                    error_code::URL_INVALID
                };
                self.fail(turn, code, &format!("URL {url:?} cannot be used"), None);
            }
        }
    }

    /// A template filled in and resolved against the current document. What the account sends
    /// encrypted is not for URLs and stays empty.
    pub(crate) fn absolute(&self, turn: &Turn<'_>, url: &str) -> Option<String> {
        let mut expanded = url.to_owned();
        if url.contains('{') {
            let subject = self.subject();
            let status = self.legs.get(&subject).map_or("", |leg| leg.record.status.as_str());
            let mut state = self.run.last_params.clone();
            state.extend(self.params(subject, status));
            let value = |name: &str| {
                let found = state.iter().find(|(known, _)| known == name);
                let open = found.filter(|_| !turn.is_sealed(&self.account, name));
                open.map(|(_, value)| value.as_str())
            };
            expanded = crate::doc::template::expand(url, value);
        }
        // A document given in the API request itself has no URL to be relative to.
        let base = self.run.base.as_ref().map(|base| base.url.as_str());
        crate::webhook::request::resolve(base, &expanded)
    }

    /// A callback's URL made absolute; one that cannot be is left out, with an alert.
    pub(crate) fn absolute_target(
        &mut self,
        turn: &mut Turn<'_>,
        target: UrlMethod,
    ) -> Option<UrlMethod> {
        if let Some(url) = self.absolute(turn, &target.url) {
            return Some(UrlMethod { url, ..target });
        }
        let message = format!("{} has no document to be relative to", target.url);
        let alert = self.alert(turn, 1, error_code::ACTION_RELATIVE, &message);
        self.put_alert(turn, alert);
        None
    }

    /// Answers the caller, once. A leg that is screened is answered already.
    pub(crate) fn accept(&mut self, turn: &mut Turn<'_>) {
        let sid = self.subject();
        let Some(leg) = self.legs.get_mut(&sid) else { return };
        if leg.accepted || leg.answered() || leg.ended() {
            return;
        }
        leg.accepted = true;
        let codec = Some(leg.codec);
        self.command(turn, sid, CallCommand::Accept { codec });
    }

    /// A verb begins to be heard: a new phase.
    pub(crate) fn phase(&mut self, turn: &mut Turn<'_>, verb: &str) {
        self.run.idle_documents = 0;
        if let Some(leg) = self.run.leg {
            let (phase, verb) = (self.timeline.phase, format!("{verb} of the screening"));
            let event = TimelineEvent::Phase {
                phase,
                verb,
                wait_control_ms: 0,
                wait_web_ms: 0,
                wait_media_ms: 0,
            };
            return self.note(turn, Some(leg), event);
        }
        let (phase, wait_control_ms, wait_web_ms, wait_media_ms) =
            self.timeline.phase_begins(turn.now);
        self.snapshot(turn, phase);
        let event = TimelineEvent::Phase {
            phase,
            verb: verb.to_owned(),
            wait_control_ms,
            wait_web_ms,
            wait_media_ms,
        };
        self.note(turn, Some(self.sid), event);
    }

    pub(crate) fn hang_up_caller(&mut self, turn: &mut Turn<'_>) {
        self.run.stop();
        if self.run.leg.is_some() {
            self.run.accepted = Some(false);
            return;
        }
        let phase = self.timeline.phase + 1;
        self.snapshot(turn, phase);
        let whose = if self.run.last_resort { Blame::Us } else { Blame::Customer };
        self.hang_up(turn, self.sid, EndReason::Hangup, whose);
    }

    fn reject(&mut self, turn: &mut Turn<'_>, busy: bool) {
        let inbound = self
            .caller()
            .is_some_and(|leg| leg.record.direction == crate::record::Direction::Inbound);
        if self.caller_answered() || !inbound {
            let alert = self.alert(turn, 1, error_code::REJECT_LATE, "Reject after the answer");
            self.put_alert(turn, alert);
            return self.hang_up_caller(turn);
        }
        let (status, reason) = if busy { (486, "Busy Here") } else { (603, "Decline") };
        self.reject_caller(turn, status, reason);
    }

    /// Refuses an unanswered call.
    pub(crate) fn reject_caller(&mut self, turn: &mut Turn<'_>, status: u16, reason: &str) {
        self.run.stop();
        let sid = self.sid;
        if let Some(leg) = self.legs.get_mut(&sid) {
            leg.hanging_up = true;
        }
        self.command(turn, sid, CallCommand::Reject { status, reason: reason.to_owned() });
    }

    pub(crate) fn pick_up_pause_over(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.run.activity, Activity::PickUpPause { .. }) {
            self.next_verb(turn);
        }
    }

    pub(crate) fn run_play_done(&mut self, turn: &mut Turn<'_>, op: OpId, end: PlayEnd) {
        match &self.run.activity {
            Activity::Playing { op: current, next } if *current == op => {
                let next = *next;
                match end {
                    PlayEnd::Finished | PlayEnd::Stopped => {
                        self.run.position = next;
                        self.phase_over(turn);
                        self.advance(turn);
                    }
                    PlayEnd::Failed => {
                        self.fail(turn, error_code::INTERNAL, "a prompt could not be played", None);
                    }
                    PlayEnd::LegEnded => {}
                }
            }
            Activity::Dialing(_) => self.dial_play_done(turn, op),
            _ => {}
        }
    }

    pub(crate) fn run_leg_ringing(&mut self, turn: &mut Turn<'_>, leg: CallSid, early: bool) {
        if matches!(self.run.activity, Activity::Dialing(_)) && early && leg != self.sid {
            self.dial_early_media(turn, leg);
        }
    }

    pub(crate) fn run_leg_answered(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        if leg == self.sid {
            let outbound = self
                .caller()
                .is_some_and(|l| l.record.direction == crate::record::Direction::OutboundApi);
            if outbound && matches!(self.run.activity, Activity::Idle) {
                self.outbound_answered(turn);
            }
        } else if matches!(self.run.activity, Activity::Dialing(_)) {
            self.dial_answered(turn, leg);
        } else {
            // Answered after the dial was given up.
            self.hang_up(turn, leg, EndReason::Canceled, Blame::Us);
        }
    }

    /// A leg other than the caller has ended.
    pub(crate) fn run_leg_ended(&mut self, turn: &mut Turn<'_>, leg: CallSid) {
        if matches!(self.run.activity, Activity::Dialing(_)) {
            self.dial_leg_ended(turn, leg);
        }
    }

    /// The caller has ended: nothing more is heard, but the result of Record and Dial is told.
    pub(crate) fn run_caller_ended(&mut self, turn: &mut Turn<'_>, reason: EndReason) {
        self.timers.remove(&Timer::PickUp);
        match std::mem::take(&mut self.run.activity) {
            Activity::Recording(recording) => self.record_caller_ended(turn, recording),
            Activity::Dialing(dialing) => self.dial_caller_ended(turn, dialing, reason),
            Activity::Fetching(fetch) if fetch.after_end => {
                self.run.activity = Activity::Fetching(fetch);
            }
            Activity::Fetching(fetch) => self.cancel_fetch(turn, &fetch),
            _ => {}
        }
        self.end_screenings(turn);
        let children: Vec<CallSid> = self.legs.keys().copied().filter(|c| *c != self.sid).collect();
        for leg in children {
            let answered = self.legs.get(&leg).is_some_and(|leg| leg.answered());
            let why = if answered { EndReason::PeerEnded } else { EndReason::Canceled };
            self.hang_up(turn, leg, why, Blame::Caller);
        }
    }
}
