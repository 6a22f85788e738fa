//! The edge's side of the control link: events out, commands in, and what holds while no control
//! node can be reached.
//!
//! Away: conversations go on and end properly by their coupling. A leg that is in no conversation
//! needs control: it is held for `control_lost_hold`, then ended. A session stays with its control
//! node; new calls go to another one, and so does a call about which its node had not yet said
//! anything. With none left they are refused with 503, but for those the
//! route table can connect by itself.

use std::time::{Duration, Instant};

use link_proto::CallSid;
use link_proto::call::{Blame, CallCommand, CallEvent, EndReason};
use link_proto::message::{
    About, CommandAck, CommandMessage, CommandResult, EventAck, EventMessage, Orphans, Refused,
};
use link_proto::session::Verdict;

use crate::call::leg::{LegEnd, LegState};
use crate::call::session::{Call, Driver};
use crate::core::EdgeCore;
use crate::io::{ControlIndex, Fact, LinkOutput, Output};
use crate::ports::PortState;
use crate::timers::TimerKey;

/// A control node that is away may be back so soon; after that another one gets the calls that it
/// has not begun with.
const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl EdgeCore {
    pub(crate) fn on_control_connected(&mut self, now: Instant, control: ControlIndex) {
        self.controls.set_connected(control, true);
        self.fact(Fact::Control { control, connected: true });
        let reconcile = self.reconcile(control);
        self.push(Output::Link(control, LinkOutput::Reconcile(reconcile)));
        for event in self.deliveries.unacknowledged(control) {
            self.counters.events_resent += 1;
            self.push(Output::Link(control, LinkOutput::Event(event)));
        }
        self.use_tables();
        for leg in self.legs_of(control) {
            self.timers.cancel(TimerKey::ControlHold(leg));
        }
        // What waits for another node need not wait any longer.
        let waits = |leg: &CallSid| self.can_be_offered_again(*leg);
        let waiting: Vec<CallSid> = self.legs.keys().copied().filter(waits).collect();
        for leg in waiting {
            self.timers.set(TimerKey::ControlHold(leg), now + OFFER_AGAIN_AFTER);
        }
    }

    pub(crate) fn on_control_lost(&mut self, now: Instant, control: ControlIndex) {
        if !self.controls.set_connected(control, false) {
            return;
        }
        self.fact(Fact::Control { control, connected: false });
        self.use_tables();
        for leg in self.legs_of(control) {
            self.review_hold(now, leg);
        }
    }

    /// The legs whose session a control node runs.
    fn legs_of(&self, control: ControlIndex) -> Vec<CallSid> {
        let its = |session: &CallSid| self.control_of(*session) == Some(control);
        self.legs.iter().filter(|(_, leg)| its(&leg.session)).map(|(sid, _)| *sid).collect()
    }

    /// The control node that runs a session.
    pub(crate) fn control_of(&self, session: CallSid) -> Option<ControlIndex> {
        self.calls.get(&session).and_then(|call| call.driver.control())
    }

    /// Starts or stops the patience of a leg that needs control while none is there.
    pub(crate) fn review_hold(&mut self, now: Instant, leg: CallSid) {
        let key = TimerKey::ControlHold(leg);
        let waits_for = self.legs.get(&leg).and_then(|leg| {
            let waits = leg.inbound && leg.state == LegState::Ringing;
            let alive = waits || leg.state == LegState::Answered;
            self.control_of(leg.session).filter(|_| alive)
        });
        let is_lost = waits_for.is_some_and(|control| !self.controls.is_connected(control));
        if !is_lost || self.is_in_conversation(leg) {
            self.timers.cancel(key);
        } else if !self.timers.is_set(key) {
            let again = self.can_be_offered_again(leg);
            let hold = self.config.control_lost_hold;
            let after = if again { hold.min(OFFER_AGAIN_AFTER) } else { hold };
            self.timers.set(key, now + after);
        }
    }

    /// Another leg, here or behind a trunk that works, feeds this one.
    fn is_in_conversation(&self, leg: CallSid) -> bool {
        let source = self
            .legs
            .get(&leg)
            .and_then(|leg| self.ports.get(leg.port))
            .and_then(|port| port.source)
            .and_then(|source| self.ports.get(source));
        source.is_some_and(|source| {
            source.state == PortState::Ready && source.trunk_up && source.heard
        })
    }

    pub(crate) fn on_event_ack(&mut self, ack: &EventAck) {
        if let Some(delivery) = self.deliveries.get_mut(ack.session) {
            delivery.known = true;
            delivery.events.acknowledge(ack.sequence);
        }
    }

    /// Control cannot use a message of ours. An event that it does not wait for any more it has
    /// acknowledged; a call of which it knows nothing else is refused.
    pub(crate) fn on_refused(&mut self, now: Instant, refused: &Refused) {
        self.counters.messages_refused += 1;
        let Some(about) = refused.about.filter(|_| refused.action == "event") else { return };
        let unmet = refused.unmet.join(" ");
        let why = format!("control cannot use event {}: {} {unmet}", about.number, refused.why);
        self.fact(Fact::Trouble { call: about.session, why });
        let known = self.deliveries.get(about.session).is_none_or(|delivery| delivery.known);
        if about.number == 1 && !known {
            self.orphan(now, about.session);
        }
    }

    pub(crate) fn on_orphans(&mut self, now: Instant, control: ControlIndex, orphans: Orphans) {
        for session in orphans.sessions {
            // What another node runs is none of its business.
            let its = |delivery: &crate::delivery::Delivery| delivery.control == control;
            if self.deliveries.get(session).is_some_and(its) {
                self.counters.orphans += 1;
                self.orphan(now, session);
            }
        }
    }

    /// Ends a session that control does not know.
    fn orphan(&mut self, now: Instant, session: CallSid) {
        let Some(delivery) = self.deliveries.get_mut(session) else { return };
        delivery.events.acknowledge(u64::MAX);
        delivery.orphaned = true;
        let Some(call) = self.calls.get_mut(&session) else { return };
        call.waiting.clear();
        let channels: Vec<_> = call.channels.keys().copied().collect();
        for leg in call.legs.iter().copied().collect::<Vec<_>>() {
            self.end_leg(now, leg, LegEnd::new(EndReason::ControlLost, Blame::Us));
        }
        for channel in channels {
            self.close_channel(now, session, channel);
        }
    }

    /// Takes over what the control nodes say now. False if that is nothing new.
    pub(crate) fn use_tables(&mut self) -> bool {
        let Some(tables) = self.controls.tables().filter(|tables| *tables != self.tables) else {
            return false;
        };
        self.tables = tables;
        for index in 0..self.peers.len() {
            self.announce_peer(index);
        }
        true
    }

    /// Gives an event to whoever drives the session.
    pub(crate) fn emit(&mut self, now: Instant, session: CallSid, leg: CallSid, event: CallEvent) {
        if self.calls.get(&session).is_some_and(|call| call.driver == Driver::RouteTable) {
            self.route_events.push_back((session, leg, event));
            return;
        }
        let Some(control) = self
            .deliveries
            .get(session)
            .filter(|delivery| !delivery.orphaned)
            .map(|delivery| delivery.control)
        else {
            return;
        };
        let must = matches!(event, CallEvent::Ended { .. });
        let at_unix_ms = self.unix_ms(now);
        let message = EventMessage { session, sequence: 0, leg, at_unix_ms, event };
        match self.deliveries.push(message, must) {
            Some(message) => {
                self.counters.events += 1;
                if self.controls.is_connected(control) {
                    self.push(Output::Link(control, LinkOutput::Event(message)));
                }
            }
            None => self.counters.events_dropped += 1,
        }
    }

    pub(crate) fn on_command(
        &mut self,
        now: Instant,
        control: ControlIndex,
        message: CommandMessage,
    ) {
        let (session, id) = (message.session, message.id);
        // The first command may create the session (an outbound call, a channel on a media node).
        if self.deliveries.get(session).is_none() && id != 1 {
            let why = format!("session {session} is not known here");
            self.acknowledge(control, session, id, CommandResult::Refused { why });
            return;
        }
        let delivery = match self.deliveries.get_mut(session) {
            Some(delivery) => delivery,
            None => self.deliveries.open(session, control),
        };
        delivery.known = true;
        let result = match delivery.commands.accept(message.epoch, id) {
            Verdict::Repeat(result) => {
                self.counters.commands_repeated += 1;
                result
            }
            Verdict::OldEpoch => {
                self.counters.commands_old_epoch += 1;
                CommandResult::Refused { why: format!("epoch {} is over", message.epoch) }
            }
            Verdict::Gap => {
                self.counters.commands_gap += 1;
                return;
            }
            Verdict::Execute => {
                self.counters.commands += 1;
                // Who commands it runs it.
                delivery.control = control;
                let result = match self.execute(now, session, message.leg, message.command) {
                    Ok(()) => CommandResult::Done,
                    Err(why) => {
                        self.counters.commands_refused += 1;
                        CommandResult::Refused { why }
                    }
                };
                if let Some(delivery) = self.deliveries.get_mut(session) {
                    delivery.commands.store(id, result.clone());
                }
                self.drop_call_if_over(session);
                result
            }
        };
        self.acknowledge(control, session, id, result);
    }

    /// A command of a later version: it counts as refused, or all that follow would wait for it.
    pub(crate) fn on_command_unusable(&mut self, control: ControlIndex, about: About, why: String) {
        self.counters.commands_unusable += 1;
        let About { session, number, epoch } = about;
        let result = CommandResult::Refused { why };
        if let Some(delivery) = self.deliveries.get_mut(session) {
            match delivery.commands.accept(epoch, number) {
                Verdict::Execute => delivery.commands.store(number, result.clone()),
                Verdict::Gap => return,
                Verdict::Repeat(_) | Verdict::OldEpoch => {}
            }
        }
        self.acknowledge(control, session, number, result);
    }

    fn acknowledge(
        &mut self,
        control: ControlIndex,
        session: CallSid,
        id: u64,
        result: CommandResult,
    ) {
        let ack = CommandAck { session, id, result };
        self.push(Output::Link(control, LinkOutput::CommandAck(ack)));
    }

    /// Carries a command out; control and the route table both come this way.
    ///
    /// # Errors
    /// In words, why it cannot be done. Nothing has been changed then.
    pub(crate) fn execute(
        &mut self,
        now: Instant,
        session: CallSid,
        leg: CallSid,
        command: CallCommand,
    ) -> Result<(), String> {
        if !matches!(command, CallCommand::Dial(_) | CallCommand::Media(_)) {
            self.expect_leg(session, leg)?;
        }
        self.timers.cancel(TimerKey::Offer(leg));
        match command {
            CallCommand::Progress { early_media } => self.progress(now, leg, early_media),
            CallCommand::Accept { codec } => self.accept(now, leg, codec),
            CallCommand::Reject { status, reason } => self.reject(now, leg, status, &reason),
            CallCommand::Dial(params) => self.dial(now, session, leg, params),
            CallCommand::Hangup { reason, whose } => {
                self.end_leg(now, leg, LegEnd::new(reason, whose));
                Ok(())
            }
            CallCommand::Couple { peer, on_peer_end, peer_on_end } => {
                self.couple(now, session, leg, peer, on_peer_end, peer_on_end)
            }
            CallCommand::Uncouple => {
                self.uncouple(leg);
                Ok(())
            }
            CallCommand::TimeLimit { limit_ms } => {
                self.set_time_limit(leg, limit_ms);
                Ok(())
            }
            CallCommand::Media(command) => self.media_command(now, session, leg, command),
        }
    }

    fn expect_leg(&self, session: CallSid, leg: CallSid) -> Result<(), String> {
        match self.legs.get(&leg) {
            Some(found) if found.session != session => {
                Err(format!("{leg} belongs to another session"))
            }
            Some(found) if found.is_live() => Ok(()),
            _ => Err(format!("{leg} is not alive here")),
        }
    }

    /// Who drives a session that a command makes.
    pub(crate) fn driver_by_command(&self, session: CallSid) -> Driver {
        self.deliveries
            .get(session)
            .map_or(Driver::RouteTable, |delivery| Driver::Control(delivery.control))
    }

    /// The session at this edge, made if it is not there.
    pub(crate) fn open_call(&mut self, session: CallSid, driver: Driver) -> Result<(), String> {
        if self.calls.contains_key(&session) {
            return Ok(());
        }
        let key = self.ports.new_session().ok_or("no room for another session")?;
        let worker = self.ports.least_loaded_worker();
        self.calls.insert(session, Call::new(key, driver, worker));
        self.by_session_key.insert(key, session);
        if let Driver::Control(control) = driver {
            self.deliveries.open(session, control);
        }
        Ok(())
    }

    /// Forgets a session with nothing left; its numbering stays.
    pub(crate) fn drop_call_if_over(&mut self, session: CallSid) {
        if !self.calls.get(&session).is_some_and(Call::is_over) {
            if !self.calls.contains_key(&session) {
                // A command that was refused made the numbering, but no session.
                self.close_delivery(session);
            }
            return;
        }
        if let Some(call) = self.calls.remove(&session) {
            self.by_session_key.remove(&call.key);
            self.ports.drop_session(call.key);
            if call.driver.control().is_some() {
                self.close_delivery(session);
            } else {
                self.route_calls.forget(session);
            }
        }
    }

    fn close_delivery(&mut self, session: CallSid) {
        let dropped = self.deliveries.close(session);
        self.counters.events_dropped += dropped;
    }
}
