//! A control node that a test scripts. It numbers and acknowledges as a real one does.

use std::collections::{BTreeMap, BTreeSet};

use edge_core::{LinkInput, LinkOutput};
use link_proto::CallSid;
use link_proto::call::{CallCommand, CallEvent, EndReason};
use link_proto::media::MediaEvent;
use link_proto::message::{
    CommandAck, CommandMessage, CommandResult, EventAck, EventMessage, Reconcile,
};
use link_proto::session::{Arrival, CommandOutbox, EventInbox};

#[derive(Default)]
pub struct Control {
    pub connected: bool,
    pub epoch: u64,
    /// Commit (and acknowledge) no event.
    pub mute: bool,
    /// Every event, once.
    pub events: Vec<EventMessage>,
    pub acks: Vec<CommandAck>,
    pub reconciles: Vec<Reconcile>,
    inboxes: BTreeMap<CallSid, EventInbox>,
    outboxes: BTreeMap<CallSid, CommandOutbox>,
    dialled: BTreeSet<CallSid>,
    inputs: Vec<LinkInput>,
}

impl Control {
    pub fn take_inputs(&mut self) -> Vec<LinkInput> {
        std::mem::take(&mut self.inputs)
    }

    pub fn unanswered(&self) -> Vec<CommandMessage> {
        self.outboxes.values().flat_map(|outbox| outbox.unanswered().cloned()).collect()
    }

    /// Sends a command; it waits if the link is cut.
    pub fn send(&mut self, session: CallSid, leg: CallSid, command: CallCommand) -> u64 {
        let outbox = self.outboxes.entry(session).or_default();
        let epoch = self.epoch;
        let id = outbox.push(CommandMessage { session, id: 0, epoch, leg, command });
        let message = outbox.unanswered().last().cloned().expect("just pushed");
        if self.connected {
            self.inputs.push(LinkInput::Command(message));
        }
        id
    }

    pub fn receive(&mut self, output: LinkOutput) {
        match output {
            LinkOutput::Reconcile(reconcile) => self.reconciles.push(reconcile),
            LinkOutput::CommandAck(ack) => {
                if let Some(outbox) = self.outboxes.get_mut(&ack.session)
                    && let Some(command) = outbox.answered(ack.id)
                    && matches!(command.command, CallCommand::Dial(_))
                    && ack.result == CommandResult::Done
                {
                    self.dialled.insert(command.leg);
                }
                self.acks.push(ack);
            }
            LinkOutput::Event(event) => self.on_event(event),
        }
    }

    fn on_event(&mut self, event: EventMessage) {
        if self.mute {
            return;
        }
        let inbox = self.inboxes.entry(event.session).or_default();
        let arrival = inbox.accept(event.sequence);
        assert_ne!(arrival, Arrival::Gap, "{event:?}");
        let ack = EventAck { session: event.session, sequence: inbox.last_sequence() };
        if arrival == Arrival::Next {
            self.events.push(event);
        }
        self.inputs.push(LinkInput::EventAck(ack));
    }

    pub fn result(&self, session: CallSid, id: u64) -> Option<&CommandResult> {
        self.acks
            .iter()
            .rev()
            .find(|ack| ack.session == session && ack.id == id)
            .map(|ack| &ack.result)
    }

    /// The latest inbound leg.
    pub fn offered(&self) -> CallSid {
        let offered = |event: &&EventMessage| matches!(event.event, CallEvent::Offered(_));
        self.events.iter().rev().find(offered).expect("an offered leg").leg
    }

    pub fn events_of(&self, leg: CallSid) -> Vec<&CallEvent> {
        self.events.iter().filter(|event| event.leg == leg).map(|event| &event.event).collect()
    }

    pub fn media(&self) -> Vec<&MediaEvent> {
        self.events
            .iter()
            .filter_map(|event| match &event.event {
                CallEvent::Media(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    /// Why a leg ended.
    pub fn ended(&self, leg: CallSid) -> Option<EndReason> {
        self.events_of(leg).iter().find_map(|event| match event {
            CallEvent::Ended { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    pub fn is_answered(&self, leg: CallSid) -> bool {
        self.events_of(leg).iter().any(|event| matches!(event, CallEvent::Answered { .. }))
    }

    /// Exactly one `Ended` per leg, and nothing after it.
    pub fn check_ends(&self) {
        let offered = self
            .events
            .iter()
            .filter_map(|event| matches!(event.event, CallEvent::Offered(_)).then_some(event.leg));
        let legs: BTreeSet<CallSid> = offered.chain(self.dialled.iter().copied()).collect();
        for leg in legs {
            let events = self.events_of(leg);
            let ends = events.iter().filter(|e| matches!(e, CallEvent::Ended { .. })).count();
            assert_eq!(ends, 1, "{leg}: {events:#?}");
            assert!(
                matches!(events.last(), Some(CallEvent::Ended { .. })),
                "{leg} after its end: {events:#?}"
            );
        }
        assert!(self.unanswered().is_empty(), "commands unanswered");
    }
}
