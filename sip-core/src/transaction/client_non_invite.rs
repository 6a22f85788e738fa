//! Non-INVITE client transaction (RFC 3261 §17.1.2).
//!
//! ```text
//! Trying ──1xx──▶ Proceeding ──200..699──▶ Completed ──K──▶ Terminated
//!    └───────────────200..699──────────────────┘
//! ```

use std::time::{Duration, Instant};

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
pub struct ClientNonInvite {
    state: State,
    reliable: bool,
    request: Bytes,
    interval: Duration,
    timer_e_retransmit: Option<Instant>,
    timer_f_timeout: Option<Instant>,
    timer_k_wait: Option<Instant>,
}

impl ClientNonInvite {
    /// A new transaction; its request has to be sent now.
    pub fn new(now: Instant, request: Bytes, reliable: bool, timers: &TimerConfig) -> Self {
        ClientNonInvite {
            state: State::Trying,
            reliable,
            request,
            interval: timers.t1,
            timer_e_retransmit: (!reliable).then(|| now + timers.t1),
            timer_f_timeout: Some(now + timers.transaction_timeout()),
            timer_k_wait: None,
        }
    }

    /// A response came.
    pub fn on_response(&mut self, now: Instant, status: u16, timers: &TimerConfig) -> Effect {
        match (self.state, status) {
            (State::Trying | State::Proceeding, 100..=199) => {
                self.state = State::Proceeding;
                Effect::to_user()
            }
            (State::Trying | State::Proceeding, _) => {
                self.timer_e_retransmit = None;
                self.timer_f_timeout = None;
                self.state = if self.reliable { State::Terminated } else { State::Completed };
                self.timer_k_wait = (!self.reliable).then(|| now + timers.t4);
                Effect::to_user()
            }
            _ => Effect::nothing(),
        }
    }

    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant, timers: &TimerConfig) -> Effect {
        if is_due(self.timer_f_timeout, now) {
            self.terminate();
            return Effect::timed_out();
        }
        if is_due(self.timer_k_wait, now) {
            self.terminate();
            return Effect::nothing();
        }
        if is_due(self.timer_e_retransmit, now) {
            self.interval = match self.state {
                // RFC 3261 §17.1.2.2: in Proceeding the interval is T2 at once.
                State::Proceeding => timers.t2,
                _ => timers.next_capped(self.interval),
            };
            self.timer_e_retransmit = Some(now + self.interval);
            return Effect::repeat(self.request.clone());
        }
        Effect::nothing()
    }

    /// The transport could not deliver. True if that ends the transaction for its user.
    pub fn on_transport_error(&mut self) -> bool {
        let ends = matches!(self.state, State::Trying | State::Proceeding);
        self.terminate();
        ends
    }

    /// When `on_timer` is next due.
    pub fn deadline(&self) -> Option<Instant> {
        earliest(&[self.timer_e_retransmit, self.timer_f_timeout, self.timer_k_wait])
    }

    /// Current state.
    pub fn state(&self) -> State {
        self.state
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        self.timer_e_retransmit = None;
        self.timer_f_timeout = None;
        self.timer_k_wait = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmission_doubles_up_to_t2() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ClientNonInvite::new(start, Bytes::from_static(b"B"), false, &timers);
        let mut sent_ms = Vec::new();
        while let Some(deadline) = tx.deadline() {
            let effect = tx.on_timer(deadline, &timers);
            match effect.send {
                Some(_) => sent_ms.push((deadline - start).as_millis()),
                None => assert!(effect.timed_out),
            }
        }
        let expect: Vec<u128> =
            [500, 1500, 3500].into_iter().chain((0..7).map(|i| 7500 + i * 4000)).collect();
        assert_eq!(sent_ms, expect);
    }

    #[test]
    fn a_final_response_is_reported_once() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ClientNonInvite::new(start, Bytes::from_static(b"B"), false, &timers);
        assert!(tx.on_response(start, 200, &timers).to_user);
        assert!(!tx.on_response(start, 200, &timers).to_user);
        assert_eq!(tx.deadline(), Some(start + timers.t4));
    }
}
