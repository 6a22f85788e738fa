//! Numbering of events and commands per session, beyond the life of the session itself: a repeat
//! that comes late must still be recognised, and events wait for control as long as they must.

use std::collections::{BTreeMap, VecDeque};

use link_proto::CallSid;
use link_proto::call::CallEvent;
use link_proto::message::{EventMessage, LiveLeg};
use link_proto::session::{CommandInbox, EventOutbox};

use crate::io::ControlIndex;

/// What may be waiting beyond the bound: the results of what is running, and the ends of legs.
const RESERVE_EVENTS: usize = 128;

/// Numbering of one session.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) commands: CommandInbox,
    pub(crate) events: EventOutbox,
    /// The control node that runs the session.
    pub(crate) control: ControlIndex,
    /// Control has shown that it knows the session.
    pub(crate) known: bool,
    /// Control has said that it does not know the session: tell it nothing more.
    pub(crate) orphaned: bool,
    /// The session is alive here.
    live: bool,
}

/// All sessions, those that ended not long ago included.
#[derive(Debug)]
pub(crate) struct Deliveries {
    by_session: BTreeMap<CallSid, Delivery>,
    ended: VecDeque<CallSid>,
    kept_max: usize,
    events_max: usize,
}

impl Deliveries {
    pub(crate) fn new(kept_max: usize, events_max: usize) -> Self {
        Self { by_session: BTreeMap::new(), ended: VecDeque::new(), kept_max, events_max }
    }

    pub(crate) fn get_mut(&mut self, session: CallSid) -> Option<&mut Delivery> {
        self.by_session.get_mut(&session)
    }

    pub(crate) fn get(&self, session: CallSid) -> Option<&Delivery> {
        self.by_session.get(&session)
    }

    /// The session lives (again).
    pub(crate) fn open(&mut self, session: CallSid, control: ControlIndex) -> &mut Delivery {
        let delivery = self.by_session.entry(session).or_default();
        delivery.live = true;
        delivery.control = control;
        delivery
    }

    /// The session is over; its numbering is kept until `kept_max` others have ended. Returns how
    /// many events were given up with those that were forgotten.
    pub(crate) fn close(&mut self, session: CallSid) -> u64 {
        let delivery = self.by_session.get_mut(&session).filter(|delivery| delivery.live);
        let Some(delivery) = delivery else { return 0 };
        delivery.live = false;
        self.ended.push_back(session);
        let mut dropped = 0;
        while self.ended.len() > self.kept_max {
            let Some(oldest) = self.ended.pop_front() else { break };
            let again = self.ended.contains(&oldest);
            if !again && let Some(old) = self.by_session.get(&oldest).filter(|old| !old.live) {
                dropped += old.events.unacknowledged().count() as u64;
                self.by_session.remove(&oldest);
            }
        }
        dropped
    }

    /// Numbers an event and keeps it. `None`: no room.
    pub(crate) fn push(&mut self, event: EventMessage, must: bool) -> Option<EventMessage> {
        let events_max = self.events_max + if must { RESERVE_EVENTS } else { 0 };
        let delivery = self.by_session.get_mut(&event.session)?;
        delivery.events.push(event, events_max).ok().cloned()
    }

    /// Everything that is to be sent again to a control node after a reconnect.
    pub(crate) fn unacknowledged(&self, control: ControlIndex) -> Vec<EventMessage> {
        let of =
            |delivery: &Delivery| delivery.events.unacknowledged().cloned().collect::<Vec<_>>();
        let its = |delivery: &&Delivery| !delivery.orphaned && delivery.control == control;
        self.by_session.values().filter(its).flat_map(of).collect()
    }

    /// Legs that ended without their control node knowing it.
    pub(crate) fn unreported_ends(&self, control: ControlIndex) -> Vec<LiveLeg> {
        let ends = |delivery: &Delivery| {
            let ended = |event: &&EventMessage| matches!(event.event, CallEvent::Ended { .. });
            let leg = |event: &EventMessage| LiveLeg {
                session: event.session,
                leg: event.leg,
                answered: false,
            };
            delivery.events.unacknowledged().filter(ended).map(leg).collect::<Vec<_>>()
        };
        let known = |delivery: &&Delivery| {
            delivery.known && !delivery.orphaned && delivery.control == control
        };
        self.by_session.values().filter(known).flat_map(ends).collect()
    }
}
