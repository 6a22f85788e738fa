//! The timeline of a session: what happened when, and who was waited for.

use std::time::Instant;

use link_proto::CallSid;
use serde::{Deserialize, Serialize};

use super::session::Session;
use super::turn::Turn;
use crate::io::{Effect, StoreOp};
use crate::record::{TimelineEvent, TimelineRow};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Timeline {
    next: u64,
    /// Offset at [`Self::since`].
    base_ms: u64,
    #[serde(skip)]
    since: Option<Instant>,
    /// Number of the phase that is in force.
    pub phase: u32,
    /// Offset of the end of the last phase.
    phase_ended_ms: u64,
    /// Spent since then.
    pub web_ms: u64,
    pub media_ms: u64,
}

impl Timeline {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next: 0,
            base_ms: 0,
            since: Some(now),
            phase: 0,
            phase_ended_ms: 0,
            web_ms: 0,
            media_ms: 0,
        }
    }

    /// ms since the session began.
    pub(crate) fn offset_ms(&self, now: Instant) -> u64 {
        let since = self.since.map_or(0, |since| now.saturating_duration_since(since).as_millis());
        self.base_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Before it is written down: a later process has another clock.
    pub(crate) fn rebase(&mut self, now: Instant) {
        self.base_ms = self.offset_ms(now);
        self.since = Some(now);
    }

    /// The instructions stand still from now on.
    pub(crate) fn phase_over(&mut self, now: Instant) {
        self.phase_ended_ms = self.offset_ms(now);
        self.web_ms = 0;
        self.media_ms = 0;
    }

    /// A new phase: its number, and the waiting for control, web and media.
    pub(crate) fn phase_begins(&mut self, now: Instant) -> (u32, u64, u64, u64) {
        self.phase += 1;
        let total = self.offset_ms(now).saturating_sub(self.phase_ended_ms);
        let control = total.saturating_sub(self.web_ms).saturating_sub(self.media_ms);
        (self.phase, control, self.web_ms, self.media_ms)
    }
}

impl Session {
    /// Writes a line.
    pub(crate) fn note(&mut self, turn: &mut Turn<'_>, leg: Option<CallSid>, event: TimelineEvent) {
        if self.anonymous {
            return;
        }
        let row = TimelineRow {
            session: self.sid,
            sequence: self.timeline.next,
            at_unix_ms: turn.unix_ms,
            offset_ms: self.timeline.offset_ms(turn.now),
            leg,
            event,
        };
        self.timeline.next += 1;
        turn.store(StoreOp::PutTimeline(Box::new(row.clone())));
        turn.effect(Effect::Publish(Box::new(row)));
    }
}
