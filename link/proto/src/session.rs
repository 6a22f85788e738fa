//! Delivery over a link that may break at any moment.
//!
//! An edge numbers its events per session and keeps them until control has committed them
//! ([`EventOutbox`]); control accepts each event once and in order ([`EventInbox`]). Control numbers
//! its commands per session and edge and keeps them until the edge has answered
//! ([`CommandOutbox`]); the edge carries each out once ([`CommandInbox`]) and answers a repeat with
//! the stored result. All four are plain data, so control can write its two down.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::message::{CommandMessage, CommandResult, EventMessage};

/// Events of one session at an edge that control has not yet committed.
#[derive(Debug, Clone, Default)]
pub struct EventOutbox {
    last_sequence: u64,
    waiting: VecDeque<EventMessage>,
}

/// The outbox holds as many events as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event outbox of the session is full")]
pub struct OutboxFull;

impl EventOutbox {
    /// Gives the event its sequence number and keeps it; returns what is to be sent now.
    ///
    /// # Errors
    /// [`OutboxFull`] when `events_max` events wait already. Nothing is numbered then.
    pub fn push(
        &mut self,
        mut event: EventMessage,
        events_max: usize,
    ) -> Result<&EventMessage, OutboxFull> {
        if self.waiting.len() >= events_max {
            return Err(OutboxFull);
        }
        self.last_sequence += 1;
        event.sequence = self.last_sequence;
        self.waiting.push_back(event);
        self.waiting.back().ok_or(OutboxFull)
    }

    /// Control has committed everything up to and including `sequence`.
    pub fn acknowledge(&mut self, sequence: u64) {
        while self.waiting.front().is_some_and(|event| event.sequence <= sequence) {
            self.waiting.pop_front();
        }
    }

    /// What has to be sent again after a reconnect, in order.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &EventMessage> {
        self.waiting.iter()
    }

    /// Whether everything has been committed.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What control makes of an event's sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one: use it.
    Next,
    /// Seen before: only acknowledge again.
    Repeat,
    /// Something before it is missing: ignore it, the edge sends again.
    Gap,
}

/// Sequence numbers of one session from one edge, at control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventInbox {
    last_sequence: u64,
}

impl EventInbox {
    /// Judges a sequence number; [`Arrival::Next`] moves on.
    pub fn accept(&mut self, sequence: u64) -> Arrival {
        if sequence <= self.last_sequence {
            Arrival::Repeat
        } else if sequence == self.last_sequence + 1 {
            self.last_sequence = sequence;
            Arrival::Next
        } else {
            Arrival::Gap
        }
    }

    /// The number to acknowledge once the event is committed.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }
}

/// Commands of one session to one edge that have not been answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandOutbox {
    last_id: u64,
    waiting: VecDeque<CommandMessage>,
}

impl CommandOutbox {
    /// Gives the command its id and keeps it; returns the id.
    pub fn push(&mut self, mut command: CommandMessage) -> u64 {
        self.last_id += 1;
        command.id = self.last_id;
        self.waiting.push_back(command);
        self.last_id
    }

    /// Takes out the command that was answered; `None` for a repeated answer.
    pub fn answered(&mut self, id: u64) -> Option<CommandMessage> {
        let index = self.waiting.iter().position(|command| command.id == id)?;
        self.waiting.remove(index)
    }

    /// What has to be sent again after a reconnect or restart, in order.
    pub fn unanswered(&self) -> impl Iterator<Item = &CommandMessage> {
        self.waiting.iter()
    }

    /// A new owner takes over: what is sent again carries its epoch.
    pub fn take_over(&mut self, epoch: u64) {
        for command in &mut self.waiting {
            command.epoch = epoch;
        }
    }

    /// Whether every command has been answered.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What an edge makes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out, then call [`CommandInbox::store`].
    Execute,
    /// Done before: answer with this.
    Repeat(CommandResult),
    /// From an owner that has been replaced: answer with a refusal.
    OldEpoch,
    /// A command before it is missing: ignore it, control sends again.
    Gap,
}

/// How many results an edge keeps per session to answer repeats with.
pub const RESULTS_KEPT_MAX: usize = 64;

/// Commands of one session at an edge.
#[derive(Debug, Clone, Default)]
pub struct CommandInbox {
    epoch: u64,
    last_id: u64,
    results: VecDeque<(u64, CommandResult)>,
}

impl CommandInbox {
    /// Judges a command by its epoch and id.
    pub fn accept(&mut self, epoch: u64, id: u64) -> Verdict {
        if epoch < self.epoch {
            return Verdict::OldEpoch;
        }
        self.epoch = epoch;
        if id <= self.last_id {
            let stored = self.results.iter().find(|(stored, _)| *stored == id);
            // Older than what is kept: control answered later commands since, so it was done.
            return Verdict::Repeat(stored.map_or(CommandResult::Done, |(_, r)| r.clone()));
        }
        if id != self.last_id + 1 {
            return Verdict::Gap;
        }
        Verdict::Execute
    }

    /// Remembers the result of the command that [`Self::accept`] let through.
    pub fn store(&mut self, id: u64, result: CommandResult) {
        self.last_id = id;
        if self.results.len() == RESULTS_KEPT_MAX {
            self.results.pop_front();
        }
        self.results.push_back((id, result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CallCommand, CallEvent};
    use crate::ids::CallSid;
    use proptest::prelude::*;

    fn event(n: u64) -> EventMessage {
        EventMessage {
            session: CallSid([1; 16]),
            sequence: 0,
            leg: CallSid([1; 16]),
            at_unix_ms: n,
            event: CallEvent::Hold { on: n.is_multiple_of(2) },
        }
    }

    fn command(n: u64) -> CommandMessage {
        CommandMessage {
            session: CallSid([1; 16]),
            id: 0,
            epoch: 1,
            leg: CallSid([1; 16]),
            command: CallCommand::TimeLimit { limit_ms: n },
        }
    }

    proptest! {
        /// Whatever is lost, doubled or cut: every event is used once, in order.
        #[test]
        fn events_are_used_once_and_in_order(script in proptest::collection::vec(0u8..6, 1..200)) {
            let (mut outbox, mut inbox) = (EventOutbox::default(), EventInbox::default());
            let mut wire: VecDeque<EventMessage> = VecDeque::new();
            let (mut made, mut used) = (0u64, Vec::new());
            let mut deliver = |inbox: &mut EventInbox, e: EventMessage| {
                if inbox.accept(e.sequence) == Arrival::Next {
                    used.push(e.at_unix_ms);
                }
                inbox.last_sequence()
            };
            for step in script {
                match step {
                    0 | 1 => {
                        made += 1;
                        wire.push_back(outbox.push(event(made), 1000).unwrap().clone());
                    }
                    2 => { if let Some(e) = wire.pop_front() { deliver(&mut inbox, e); } }
                    3 => if let Some(e) = wire.pop_front() {
                        let upto = deliver(&mut inbox, e);
                        outbox.acknowledge(upto);
                    }
                    4 => { if let Some(e) = wire.front().cloned() { deliver(&mut inbox, e); } }
                    _ => wire = outbox.unacknowledged().cloned().collect(), // cut and reconnect
                }
            }
            for e in outbox.unacknowledged().cloned().collect::<Vec<_>>() {
                deliver(&mut inbox, e);
            }
            prop_assert_eq!(used, (1..=made).collect::<Vec<_>>());
        }

        /// Whatever is lost, doubled or cut: every command is carried out once, in order, and
        /// every repeat gets the same result.
        #[test]
        fn commands_are_carried_out_once(script in proptest::collection::vec(0u8..6, 1..200)) {
            let (mut outbox, mut inbox) = (CommandOutbox::default(), CommandInbox::default());
            let mut wire: VecDeque<CommandMessage> = VecDeque::new();
            let (mut made, mut done) = (0u64, Vec::new());
            let result = |id: u64| if id.is_multiple_of(3) {
                CommandResult::Refused { why: id.to_string() }
            } else {
                CommandResult::Done
            };
            let mut deliver = |inbox: &mut CommandInbox, c: &CommandMessage| {
                match inbox.accept(c.epoch, c.id) {
                    Verdict::Execute => {
                        done.push(c.id);
                        inbox.store(c.id, result(c.id));
                        Some(result(c.id))
                    }
                    Verdict::Repeat(stored) => Some(stored),
                    Verdict::OldEpoch | Verdict::Gap => None,
                }
            };
            for step in script {
                match step {
                    0 | 1 => {
                        made += 1;
                        let id = outbox.push(command(made));
                        wire.push_back(outbox.unanswered().find(|c| c.id == id).unwrap().clone());
                    }
                    2 => { if let Some(c) = wire.pop_front() { deliver(&mut inbox, &c); } }
                    3 => if let Some(c) = wire.pop_front()
                        && let Some(got) = deliver(&mut inbox, &c)
                    {
                        prop_assert_eq!(got, result(c.id));
                        outbox.answered(c.id);
                    }
                    4 => { if let Some(c) = wire.front().cloned() { deliver(&mut inbox, &c); } }
                    _ => wire = outbox.unanswered().cloned().collect(),
                }
            }
            for c in outbox.unanswered().cloned().collect::<Vec<_>>() {
                deliver(&mut inbox, &c);
            }
            prop_assert_eq!(done, (1..=made).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_old_owner_is_refused() {
        let mut inbox = CommandInbox::default();
        assert_eq!(inbox.accept(2, 1), Verdict::Execute);
        inbox.store(1, CommandResult::Done);
        assert_eq!(inbox.accept(1, 2), Verdict::OldEpoch);
        assert_eq!(inbox.accept(2, 1), Verdict::Repeat(CommandResult::Done));
    }

    #[test]
    fn a_full_outbox_numbers_nothing() {
        let mut outbox = EventOutbox::default();
        assert!(outbox.push(event(1), 1).is_ok());
        assert_eq!(outbox.push(event(2), 1), Err(OutboxFull));
        outbox.acknowledge(1);
        assert_eq!(outbox.push(event(2), 1).unwrap().sequence, 2);
    }
}
