//! The state of a session and the ways in: events, results, API, timers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use link_proto::call::{Blame, CallCommand, CallEvent, EndReason};
use link_proto::message::{CommandMessage, EventMessage};
use link_proto::session::{CommandOutbox, EventInbox};
use link_proto::{AccountSid, ApplicationSid, CallSid, NodeId, OpId, PhoneNumberSid, RecordingSid};
use serde::{Deserialize, Serialize};

use super::legs::Leg;
use super::needs::Media;
use super::recording::{LegRecording, PendingRecording, RecordOptions};
use super::timeline::Timeline;
use super::turn::Turn;
use crate::io::{Effect, SetCookie};
use crate::record::Alert;
use crate::run::runner::{Activity, Run};
use crate::run::verification::Verification;
use crate::webhook::fallback::Fallbacks;

/// What a session knows of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct NodeLink {
    /// Boot number of the process that the numbers below belong to.
    pub boot: Option<u64>,
    /// As it was seen last: after a restart the plan knows it before it says hello.
    pub entry: Option<link_proto::table::NodeEntry>,
    pub inbox: EventInbox,
    pub outbox: CommandOutbox,
}

/// What every webhook of the session says besides the leg.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub phone_number: Option<PhoneNumberSid>,
    pub application: Option<ApplicationSid>,
    /// `SipDomain`, `SipCallId`, `SipSourceIp`, `SipHeader_…`.
    pub sip: Vec<(String, String)>,
    /// `Record` of an API call: what the answer starts.
    #[serde(default)]
    pub record: Option<RecordOptions>,
    /// `SendDigits` of an API call.
    pub first_digits: Option<crate::verb::Play>,
    /// The call is there to verify a caller id.
    #[serde(default)]
    pub verification: Option<Verification>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The answer is delayed by a Pause.
    PickUp,
    /// A verification call is made later.
    CallDelay,
    /// A leg that its edge no longer has.
    LostLeg(CallSid),
    /// Nothing lives any more; what is missing is given up.
    Linger,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    pub sid: CallSid,
    pub account: AccountSid,
    /// Refused before it was anybody's call: no records.
    pub anonymous: bool,
    pub epoch: u64,
    pub facts: Facts,
    pub legs: BTreeMap<CallSid, Leg>,
    pub links: BTreeMap<NodeId, NodeLink>,
    pub media: Media,
    pub fallbacks: Fallbacks,
    pub run: Run,
    /// Documents that called parties go through before they are connected, by leg. While one of
    /// them is in its turn it is [`Self::run`], and that of the first leg is in here.
    #[serde(default)]
    pub screenings: BTreeMap<CallSid, Run>,
    pub timeline: Timeline,
    pub recordings: BTreeMap<RecordingSid, PendingRecording>,
    /// Programs that record a leg whatever the instructions do.
    #[serde(default)]
    pub leg_recordings: BTreeMap<OpId, LegRecording>,
    /// What web servers have set.
    #[serde(default)]
    pub cookies: Vec<SetCookie>,
    /// Numbers requests in the log.
    pub requests: u64,
    #[serde(skip)]
    pub timers: BTreeMap<Timer, Instant>,
    /// When a node was lost from sight.
    #[serde(skip)]
    pub node_deadlines: BTreeMap<NodeId, Instant>,
    /// Nothing more will happen.
    #[serde(skip)]
    pub finished: bool,
}

impl Session {
    pub(crate) fn new(sid: CallSid, account: AccountSid, now: Instant) -> Self {
        Self {
            sid,
            account,
            anonymous: false,
            epoch: 1,
            facts: Facts::default(),
            legs: BTreeMap::new(),
            links: BTreeMap::new(),
            media: Media::default(),
            fallbacks: Fallbacks::default(),
            run: Run::default(),
            screenings: BTreeMap::new(),
            timeline: Timeline::new(now),
            recordings: BTreeMap::new(),
            leg_recordings: BTreeMap::new(),
            cookies: Vec::new(),
            requests: 0,
            timers: BTreeMap::new(),
            node_deadlines: BTreeMap::new(),
            finished: false,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.values().chain(self.node_deadlines.values()).min().copied()
    }

    pub(crate) fn arm(&mut self, turn: &Turn<'_>, timer: Timer, after_ms: u64) {
        self.timers.insert(timer, turn.now + Duration::from_millis(after_ms));
    }

    /// An event that is next in its sequence.
    pub(crate) fn handle_event(&mut self, turn: &mut Turn<'_>, node: &NodeId, m: EventMessage) {
        // A media node has no legs: it reports on whichever it was told of.
        let about_media = matches!(m.event, CallEvent::Media(_));
        if !about_media && !self.legs.contains_key(&m.leg) {
            turn.metrics.events_unknown += 1;
            return;
        }
        match m.event {
            // Creation is the hub's business: a repeat of it never gets here.
            CallEvent::Offered(_) => turn.metrics.events_unknown += 1,
            CallEvent::Ringing { early_media, .. } => self.leg_ringing(turn, m.leg, early_media),
            CallEvent::Answered { codec, telephone_event, sip_call_id, headers } => {
                let answer =
                    super::legs::LegAnswer { codec, telephone_event, sip_call_id, headers };
                self.leg_answered(turn, m.leg, answer);
            }
            CallEvent::Hold { .. } => {}
            CallEvent::Ended { reason, whose, sip_status, stats, answered_ms } => {
                let end = super::legs::LegEnd { reason, whose, sip_status, stats, answered_ms };
                self.leg_ended(turn, m.leg, end);
            }
            CallEvent::Media(event) => self.media_event(turn, node, event),
        }
    }

    /// What is known of a node, with its process as it is now.
    pub(crate) fn link(&mut self, turn: &Turn<'_>, node: &NodeId) -> &mut NodeLink {
        let link = self.links.entry(node.clone()).or_default();
        if link.boot.is_none() {
            link.boot = turn.nodes.up.get(node).copied();
        }
        if link.entry.is_none() {
            link.entry = turn.nodes.entry(node).cloned();
        }
        link
    }

    /// After a restart: what was under way is asked for again, and nodes get time to come back.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>) {
        self.timeline.rebase(turn.now);
        let epoch = self.epoch;
        for link in self.links.values_mut() {
            link.outbox.take_over(epoch);
        }
        self.watch_nodes(turn);
        self.resume_run(turn);
        let screened: Vec<CallSid> = self.screenings.keys().copied().collect();
        for leg in screened {
            self.in_run(turn, Some(leg), Session::resume_run);
        }
        if self.facts.verification.as_ref().is_some_and(|v| v.delayed.is_some()) {
            self.arm(turn, Timer::CallDelay, 0);
        }
        // The epoch has risen: write it down even if nothing else happens.
        turn.effect(Effect::CallbacksWaiting);
    }

    fn resume_run(&mut self, turn: &mut Turn<'_>) {
        match &self.run.activity {
            Activity::Fetching(_) => self.repeat_fetch(turn),
            Activity::Preparing(_) => self.request_prompts(turn),
            Activity::PickUpPause { length_ms } => {
                let length_ms = *length_ms;
                self.arm(turn, Timer::PickUp, length_ms);
            }
            _ => {}
        }
    }

    /// Nodes with living legs that are not connected get a deadline.
    pub(crate) fn watch_nodes(&mut self, turn: &Turn<'_>) {
        let after = Duration::from_millis(turn.config.sweep_after_ms);
        let homes = self.legs.values().filter(|leg| !leg.ended()).map(|leg| &leg.record.node);
        let media = self.media.nodes();
        for node in homes.chain(&media) {
            if !turn.nodes.up.contains_key(node) {
                self.node_deadlines.entry(node.clone()).or_insert(turn.now + after);
            }
        }
    }

    /// Sends a command to the node that owns a leg (or `node`), and keeps it until it is answered.
    pub(crate) fn command_at(
        &mut self,
        turn: &mut Turn<'_>,
        node: NodeId,
        leg: CallSid,
        command: CallCommand,
    ) -> u64 {
        let (session, epoch) = (self.sid, self.epoch);
        let message = CommandMessage { session, id: 0, epoch, leg, command };
        let id = self.link(turn, &node).outbox.push(message.clone());
        turn.effect(Effect::Command { node, message: CommandMessage { id, ..message } });
        id
    }

    /// A command for a leg at its own node. Nothing for a leg that has ended.
    pub(crate) fn command(&mut self, turn: &mut Turn<'_>, leg: CallSid, command: CallCommand) {
        let Some(state) = self.legs.get(&leg).filter(|leg| !leg.ended()) else { return };
        let node = state.record.node.clone();
        self.command_at(turn, node, leg, command);
    }

    /// Asks for the end of a leg, once.
    pub(crate) fn hang_up(
        &mut self,
        turn: &mut Turn<'_>,
        leg: CallSid,
        reason: EndReason,
        whose: Blame,
    ) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        if state.ended() || state.hanging_up {
            return;
        }
        state.hanging_up = true;
        let delayed = self.facts.verification.as_mut().and_then(|v| v.delayed.take());
        if delayed.is_some() {
            // No edge knows of it yet.
            let stats = link_proto::call::LegStats::default();
            let (reason, sip_status, answered_ms) = (EndReason::Canceled, None, 0);
            let end = super::legs::LegEnd { reason, whose, sip_status, stats, answered_ms };
            return self.leg_ended(turn, leg, end);
        }
        self.command(turn, leg, CallCommand::Hangup { reason, whose });
    }

    /// The first leg, which follows the instructions.
    pub(crate) fn caller(&self) -> Option<&Leg> {
        self.legs.get(&self.sid)
    }

    pub(crate) fn caller_ended(&self) -> bool {
        self.caller().is_none_or(|leg| leg.ended() || leg.hanging_up)
    }

    pub(crate) fn caller_answered(&self) -> bool {
        self.caller().is_some_and(|leg| leg.record.answered_unix_ms.is_some() || leg.accepted)
    }

    /// An alert for the customer, and a line in the timeline.
    pub(crate) fn alert(
        &mut self,
        turn: &mut Turn<'_>,
        log_level: u8,
        code: u32,
        message: &str,
    ) -> Alert {
        let alert = Alert {
            sid: format!("NO{}", turn.token()),
            account: self.account,
            call: Some(self.subject()),
            at_unix_ms: turn.unix_ms,
            log_level,
            code,
            message: format!("{}: {message}", crate::error_code::text(code)),
            request_method: None,
            request_url: None,
            request_variables: None,
            response_status: None,
            response_headers: None,
            response_body: None,
        };
        if log_level == 0 {
            let event =
                crate::record::TimelineEvent::Error { code, message: alert.message.clone() };
            self.note(turn, None, event);
        }
        alert
    }

    pub(crate) fn put_alert(&mut self, turn: &mut Turn<'_>, alert: Alert) {
        if !self.anonymous {
            turn.store(crate::io::StoreOp::PutAlert(Box::new(alert)));
        }
    }

    /// Timers and node deadlines that are due.
    pub(crate) fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        let due: Vec<Timer> =
            self.timers.iter().filter(|(_, at)| **at <= turn.now).map(|(t, _)| *t).collect();
        for timer in due {
            self.timers.remove(&timer);
            match timer {
                Timer::PickUp => self.pick_up_pause_over(turn),
                Timer::CallDelay => self.call_delay_over(turn),
                Timer::LostLeg(leg) => self.leg_lost(turn, leg),
                Timer::Linger => self.give_up_waiting(turn),
            }
        }
        let due: Vec<NodeId> = self
            .node_deadlines
            .iter()
            .filter(|(_, at)| **at <= turn.now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in due {
            self.node_deadlines.remove(&node);
            turn.metrics.swept += 1;
            self.node_lost(turn, &node);
        }
        self.check_finished(turn);
    }

    /// A session is over when no leg lives, the runner waits for nothing, every recording is in the
    /// store, and every node that is there has answered every command: what closes a trunk channel
    /// must not be forgotten. A node that is away asks when it returns. What is missing then gets a
    /// last deadline.
    pub(crate) fn check_finished(&mut self, turn: &mut Turn<'_>) {
        if self.finished || self.legs.values().any(|leg| !leg.ended()) {
            return;
        }
        let waits = self.run.is_waiting_for_web() || !self.recordings.is_empty();
        if waits || self.waits_for_nodes(turn) {
            if !self.timers.contains_key(&Timer::Linger) {
                self.arm(turn, Timer::Linger, turn.config.linger_ms);
            }
            return;
        }
        self.finish(turn);
    }

    fn waits_for_nodes(&self, turn: &Turn<'_>) -> bool {
        let up = |node: &NodeId| turn.nodes.up.contains_key(node);
        let owes = self.links.iter().any(|(node, link)| up(node) && !link.outbox.is_empty());
        owes || self.media.has_steps()
    }

    fn finish(&mut self, turn: &mut Turn<'_>) {
        self.finished = true;
        self.note(turn, None, crate::record::TimelineEvent::SessionEnded);
    }

    fn give_up_waiting(&mut self, turn: &mut Turn<'_>) {
        if self.legs.values().any(|leg| !leg.ended()) {
            return;
        }
        self.give_up_recordings(turn);
        self.run.stop();
        self.finish(turn);
    }
}
