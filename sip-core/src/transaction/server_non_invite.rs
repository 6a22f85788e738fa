//! Non-INVITE server transaction (RFC 3261 §17.2.2).
//!
//! ```text
//! Trying ──1xx──▶ Proceeding ──200..699──▶ Completed ──J──▶ Terminated
//!    └───────────────200..699──────────────────┘
//! ```

use std::time::Instant;

use bytes::Bytes;

use super::timers::TimerConfig;
use super::{Effect, earliest, is_due};

/// States in the order of the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct ServerNonInvite {
    state: State,
    reliable: bool,
    response: Option<Bytes>,
    timer_j_wait: Option<Instant>,
    /// The client gives up after 64·T1 (timer F); an answer later than that is of no use.
    unanswered: Option<Instant>,
}

impl ServerNonInvite {
    /// A new transaction.
    pub fn new(now: Instant, reliable: bool, timers: &TimerConfig) -> Self {
        ServerNonInvite {
            state: State::Trying,
            reliable,
            response: None,
            timer_j_wait: None,
            unanswered: Some(now + timers.transaction_timeout()),
        }
    }

    /// The request came again.
    pub fn on_retransmission(&mut self) -> Effect {
        match &self.response {
            Some(response) => Effect::repeat(response.clone()),
            None => Effect::nothing(),
        }
    }

    /// The user sends a response.
    pub fn respond(
        &mut self,
        now: Instant,
        status: u16,
        bytes: Bytes,
        timers: &TimerConfig,
    ) -> Effect {
        if !matches!(self.state, State::Trying | State::Proceeding) {
            return Effect::nothing();
        }
        self.response = Some(bytes.clone());
        if status < 200 {
            self.state = State::Proceeding;
        } else {
            self.unanswered = None;
            self.state = if self.reliable { State::Terminated } else { State::Completed };
            self.timer_j_wait = (!self.reliable).then(|| now + timers.transaction_timeout());
        }
        Effect::send(bytes)
    }

    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant) -> Effect {
        let unanswered = is_due(self.unanswered, now);
        if unanswered || is_due(self.timer_j_wait, now) {
            self.state = State::Terminated;
            self.timer_j_wait = None;
            self.unanswered = None;
        }
        if unanswered { Effect::timed_out() } else { Effect::nothing() }
    }

    /// When `on_timer` is next due.
    pub fn deadline(&self) -> Option<Instant> {
        earliest(&[self.timer_j_wait, self.unanswered])
    }

    /// Current state.
    pub fn state(&self) -> State {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_get_the_same_answer_until_timer_j() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ServerNonInvite::new(start, false, &timers);
        assert_eq!(tx.on_retransmission(), Effect::nothing());
        assert!(tx.respond(start, 200, Bytes::from_static(b"R"), &timers).send.is_some());
        assert!(tx.on_retransmission().repeated);
        assert_eq!(tx.respond(start, 500, Bytes::new(), &timers), Effect::nothing());
        tx.on_timer(start + timers.transaction_timeout());
        assert_eq!((tx.state(), tx.deadline()), (State::Terminated, None));
    }

    #[test]
    fn an_unanswered_request_does_not_stay() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ServerNonInvite::new(start, true, &timers);
        assert!(tx.on_timer(start + timers.transaction_timeout()).timed_out);
        assert_eq!(tx.state(), State::Terminated);
    }
}
