//! Edges: who is there, what they report, what they have answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use link_proto::call::{Blame, CallCommand, CallEvent, EndReason, Offered};
use link_proto::message::{About, CommandAck, EventAck, EventMessage, LiveLeg};
use link_proto::session::Arrival;
use link_proto::table::NodeEntry;
use link_proto::{AccountSid, CallSid, NodeId};

use super::{ControlCore, Settled};
use crate::call::legs::NewLeg;
use crate::call::session::{Session, Timer};
use crate::call::turn::Turn;
use crate::error_code;
use crate::io::{Effect, Output};
use crate::record::Direction;
use crate::webhook::fallback::Fallbacks;

impl ControlCore {
    pub(super) fn edge_up(
        &mut self,
        now: Instant,
        unix_ms: u64,
        entry: NodeEntry,
        boot: u64,
        legs: &[LiveLeg],
    ) {
        let node = entry.node.clone();
        self.nodes.up.insert(node.clone(), boot);
        self.nodes.known.insert(node.clone(), entry);
        self.tables_changed();
        let sessions: Vec<CallSid> = self.sessions.keys().copied().collect();
        for sid in sessions {
            let touched = self.sessions.get(&sid).is_some_and(|s| s.links.contains_key(&node));
            self.with_session(now, unix_ms, sid, |session, turn| {
                if touched {
                    let mine = legs.iter().filter(|leg| leg.session == sid);
                    let alive: BTreeSet<CallSid> = mine.map(|leg| leg.leg).collect();
                    session.node_up(turn, &node, boot, &alive);
                }
                session.replan(turn);
            });
        }
        // An unanswered leg may be an offer that is yet to be told.
        let unknown = |leg: &&LiveLeg| leg.answered && !self.sessions.contains_key(&leg.session);
        let orphans: BTreeSet<CallSid> =
            legs.iter().filter(unknown).map(|leg| leg.session).collect();
        if !orphans.is_empty() {
            let sessions = orphans.into_iter().collect();
            let then = vec![Effect::Orphans { node, sessions }];
            self.outputs.push_back(Output { ops: Vec::new(), then });
        }
    }

    pub(super) fn edge_down(&mut self, now: Instant, unix_ms: u64, node: &NodeId) {
        self.nodes.up.remove(node);
        self.nodes.draining.remove(node);
        self.nodes.foreign.remove(node);
        if let Some(entry) = self.nodes.known.get_mut(node) {
            entry.available = false;
        }
        self.tables_changed();
        let sessions: Vec<CallSid> = self.sessions.keys().copied().collect();
        for sid in sessions {
            self.with_session(now, unix_ms, sid, |session, turn| session.watch_nodes(turn));
        }
    }

    pub(super) fn command_ack(
        &mut self,
        now: Instant,
        unix_ms: u64,
        node: &NodeId,
        ack: CommandAck,
    ) {
        // The answer to a session's last command may come after its end.
        if self.sessions.contains_key(&ack.session) {
            self.with_session(now, unix_ms, ack.session, |session, turn| {
                session.command_answered(turn, node, ack.id, ack.result);
            });
        }
    }

    pub(super) fn link_event(
        &mut self,
        now: Instant,
        unix_ms: u64,
        node: NodeId,
        message: EventMessage,
    ) {
        let (sid, sequence) = (message.session, message.sequence);
        if !self.sessions.contains_key(&sid) {
            return match message.event {
                CallEvent::Offered(offered) if sequence == 1 => {
                    self.offered(now, unix_ms, node, message.leg, sid, offered);
                }
                event => self.unknown_session(node, sid, sequence, &event),
            };
        }
        self.with_session(now, unix_ms, sid, |session, turn| {
            match session.link(turn, &node).inbox.accept(sequence) {
                Arrival::Next => session.handle_event(turn, &node, message),
                Arrival::Repeat => turn.metrics.events_repeated += 1,
                Arrival::Gap => {
                    turn.metrics.events_early += 1;
                    return;
                }
            }
            acknowledge(session, turn, node);
        });
    }

    /// The session goes on without the event, or all that follow would wait for it. A call that
    /// was offered in such a way is the edge's to refuse: it is told of the refusal.
    pub(super) fn event_unusable(
        &mut self,
        now: Instant,
        unix_ms: u64,
        node: &NodeId,
        about: About,
        why: &str,
    ) {
        self.metrics.events_unusable += 1;
        if !self.sessions.contains_key(&about.session) {
            return;
        }
        self.with_session(now, unix_ms, about.session, |session, turn| {
            if session.link(turn, node).inbox.accept(about.number) == Arrival::Next {
                let message = format!("an event of {node} cannot be read: {why}");
                let alert = session.alert(turn, 1, error_code::INTERNAL, &message);
                session.put_alert(turn, alert);
            }
            acknowledge(session, turn, node.clone());
        });
    }

    /// Nothing is known of it any more: the edge shall forget the event, and end the leg.
    fn unknown_session(&mut self, node: NodeId, sid: CallSid, sequence: u64, event: &CallEvent) {
        self.metrics.events_unknown += 1;
        let ack = EventAck { session: sid, sequence };
        let mut then = vec![Effect::AckEvent { node: node.clone(), ack }];
        if !crate::call::needs::is_end(event) {
            then.push(Effect::Orphans { node, sessions: vec![sid] });
        }
        self.outputs.push_back(Output { ops: Vec::new(), then });
    }

    /// A new inbound call.
    fn offered(
        &mut self,
        now: Instant,
        unix_ms: u64,
        node: NodeId,
        leg: CallSid,
        sid: CallSid,
        offered: Offered,
    ) {
        self.metrics.sessions_begun += 1;
        let full = self.sessions.len() >= self.config.sessions_max;
        let number = self.directory.number(&offered.to).cloned();
        let account = number.as_ref().map(|number| number.account);
        let active = account
            .and_then(|account| self.directory.accounts.get(&account))
            .is_some_and(|account| account.active);
        let nobody = AccountSid([0; 16]);
        let mut session = Session::new(sid, account.unwrap_or(nobody), now);
        session.facts.sip = sip_facts(&offered);
        let refusal = match (&number, active) {
            _ if full => Some((503, "Service Unavailable")),
            (None, _) => Some((404, "Not Found")),
            (Some(_), false) => Some((403, "Forbidden")),
            (Some(_), true) => None,
        };
        session.anonymous = refusal.is_some();
        let voice = number.as_ref().map(|number| self.directory.voice_of(number).clone());
        let voice = voice.unwrap_or_default();
        if let (Some(number), None) = (&number, refusal) {
            session.facts.phone_number = Some(number.sid);
            session.facts.application = number.application;
            session.fallbacks = Fallbacks { list: voice.fallbacks.clone(), taken: None };
        }
        self.metrics.overload += u64::from(full);
        self.metrics.unknown_number += u64::from(!full && number.is_none());

        let mut turn = self.turn(now, unix_ms);
        session.link(&turn, &node).inbox.accept(1);
        let new = NewLeg {
            sid: leg,
            parent: None,
            direction: Direction::Inbound,
            from: offered.from,
            to: offered.to,
            node: node.clone(),
            codec: offered.codecs.first().copied().unwrap_or(link_proto::media::AudioCodec::Pcmu),
            targets: voice.status,
        };
        session.add_leg(&mut turn, new);
        if let Some(leg) = session.legs.get_mut(&leg) {
            leg.record.caller_name = offered.caller_name;
            leg.record.forwarded_from = offered.forwarded_from;
            leg.record.sip_call_id = Some(offered.sip_call_id);
        }
        session.put_call(&mut turn, leg);
        match (refusal, voice.voice) {
            (Some((status, reason)), _) => session.reject_caller(&mut turn, status, reason),
            (None, Some(target)) => session.fetch(&mut turn, target, Vec::new()),
            (None, None) => {
                session.fail(&mut turn, error_code::URL_INVALID, "the number has no URL", None);
            }
        }
        acknowledge(&session, &mut turn, node);
        let done = Settled::from(turn);
        self.settle(now, session, done);
    }
}

fn acknowledge(session: &Session, turn: &mut Turn<'_>, node: NodeId) {
    let Some(link) = session.links.get(&node) else { return };
    let ack = EventAck { session: session.sid, sequence: link.inbox.last_sequence() };
    turn.effect(Effect::AckEvent { node, ack });
}

fn sip_facts(offered: &Offered) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = Vec::new();
    let source: Option<SocketAddr> = offered.source.parse().ok();
    let source_ip = source.map_or_else(|| offered.source.clone(), |at| at.ip().to_string());
    for (name, value) in [
        ("SipDomain", &offered.sip_domain),
        ("SipCallId", &offered.sip_call_id),
        ("SipSourceIp", &source_ip),
    ] {
        if !value.is_empty() {
            facts.push((name.to_owned(), value.clone()));
        }
    }
    let headers = offered.headers.iter();
    facts.extend(headers.map(|(name, value)| (format!("SipHeader_{name}"), value.clone())));
    facts
}

impl Session {
    /// A node has connected: its process is the same as before, or everything on it is gone.
    fn node_up(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        boot: u64,
        alive: &BTreeSet<CallSid>,
    ) {
        self.node_deadlines.remove(node);
        let link = self.links.entry(node.clone()).or_default();
        if link.boot.is_some_and(|known| known != boot) {
            return self.node_lost(turn, node);
        }
        link.boot = Some(boot);
        let again: Vec<_> = link.outbox.unanswered().cloned().collect();
        let dialled: BTreeSet<CallSid> = again
            .iter()
            .filter(|message| matches!(message.command, CallCommand::Dial(_)))
            .map(|message| message.leg)
            .collect();
        for message in again {
            turn.metrics.commands_resent += 1;
            turn.effect(Effect::Command { node: node.clone(), message });
        }
        let here: BTreeSet<CallSid> = self
            .legs
            .iter()
            .filter(|(_, leg)| leg.record.node == *node && !leg.ended())
            .map(|(sid, _)| *sid)
            .collect();
        let gone: Vec<CallSid> = here
            .iter()
            .filter(|sid| !alive.contains(sid) && !dialled.contains(sid))
            .copied()
            .collect();
        let ghosts: Vec<CallSid> = alive.difference(&here).copied().collect();
        // Its end may be among the events that are sent again now.
        let after_ms = turn.config.lost_leg_after_ms;
        for leg in gone {
            self.arm(turn, Timer::LostLeg(leg), after_ms);
        }
        for leg in ghosts {
            let (reason, whose) = (EndReason::Internal, Blame::Us);
            let command = CallCommand::Hangup { reason, whose };
            self.command_at(turn, node.clone(), leg, command);
        }
    }
}
