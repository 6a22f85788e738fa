//! INVITE server transaction (RFC 3261 §17.2.1 with RFC 6026 §7.1).
//!
//! ```text
//! Proceeding ──300..699──▶ Completed ──ACK──▶ Confirmed ──I──▶ Terminated
//!      └──────2xx──────▶ Accepted ──────────L──────────────────────┘
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::timers::TimerConfig;
use super::{Effect, earliest, is_due};

/// States in the order of the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

/// The machine. Proceeding has no timer of its own: the user (a call) has one.
#[derive(Clone, Debug)]
pub struct ServerInvite {
    state: State,
    reliable: bool,
    response: Option<Bytes>,
    interval: Duration,
    timer_g_retransmit: Option<Instant>,
    timer_h_no_ack: Option<Instant>,
    timer_i_wait: Option<Instant>,
    timer_l_wait: Option<Instant>,
}

impl ServerInvite {
    /// A new transaction.
    pub fn new(reliable: bool, timers: &TimerConfig) -> Self {
        ServerInvite {
            state: State::Proceeding,
            reliable,
            response: None,
            interval: timers.t1,
            timer_g_retransmit: None,
            timer_h_no_ack: None,
            timer_i_wait: None,
            timer_l_wait: None,
        }
    }

    /// The INVITE came again.
    pub fn on_retransmission(&mut self) -> Effect {
        match (self.state, &self.response) {
            (State::Proceeding | State::Completed, Some(response)) => {
                Effect::repeat(response.clone())
            }
            // RFC 6026 §7.1: absorbed in Accepted; 2xx is retransmitted by the user.
            _ => Effect::nothing(),
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
        match (self.state, status) {
            (State::Proceeding, 100..=199) => {
                self.response = Some(bytes.clone());
                Effect::send(bytes)
            }
            (State::Proceeding, 200..=299) => {
                self.state = State::Accepted;
                self.response = None;
                self.timer_l_wait = Some(now + timers.transaction_timeout());
                Effect::send(bytes)
            }
            (State::Proceeding, _) => {
                self.state = State::Completed;
                self.response = Some(bytes.clone());
                self.timer_g_retransmit = (!self.reliable).then(|| now + timers.t1);
                self.timer_h_no_ack = Some(now + timers.transaction_timeout());
                Effect::send(bytes)
            }
            (State::Accepted, 200..=299) => Effect::repeat(bytes),
            _ => Effect::nothing(),
        }
    }

    /// An ACK that matches this transaction came.
    pub fn on_ack(&mut self, now: Instant, timers: &TimerConfig) -> Effect {
        match self.state {
            State::Completed => {
                self.stop();
                self.state = if self.reliable { State::Terminated } else { State::Confirmed };
                self.timer_i_wait = (!self.reliable).then(|| now + timers.t4);
                Effect::nothing()
            }
            // RFC 6026 §7.1: an ACK in Accepted is for the user (a peer that reuses the branch).
            State::Accepted => Effect::to_user(),
            _ => Effect::nothing(),
        }
    }

    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant, timers: &TimerConfig) -> Effect {
        if is_due(self.timer_h_no_ack, now) {
            self.stop();
            self.state = State::Terminated;
            return Effect::timed_out();
        }
        if is_due(self.timer_i_wait, now) || is_due(self.timer_l_wait, now) {
            self.stop();
            self.state = State::Terminated;
            return Effect::nothing();
        }
        if is_due(self.timer_g_retransmit, now)
            && let Some(response) = &self.response
        {
            self.interval = timers.next_capped(self.interval);
            self.timer_g_retransmit = Some(now + self.interval);
            return Effect::repeat(response.clone());
        }
        Effect::nothing()
    }

    /// When `on_timer` is next due.
    pub fn deadline(&self) -> Option<Instant> {
        earliest(&[
            self.timer_g_retransmit,
            self.timer_h_no_ack,
            self.timer_i_wait,
            self.timer_l_wait,
        ])
    }

    /// Current state.
    pub fn state(&self) -> State {
        self.state
    }

    fn stop(&mut self) {
        self.timer_g_retransmit = None;
        self.timer_h_no_ack = None;
        self.timer_i_wait = None;
        self.timer_l_wait = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: Bytes = Bytes::from_static(b"R");

    #[test]
    fn a_refusal_is_repeated_until_the_ack() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ServerInvite::new(false, &timers);
        assert!(tx.respond(start, 180, R, &timers).send.is_some());
        assert!(tx.on_retransmission().repeated);
        assert!(tx.respond(start, 486, R, &timers).send.is_some());
        let mut sent_ms = Vec::new();
        for _ in 0..5 {
            let deadline = tx.deadline().expect("timer G");
            assert!(tx.on_timer(deadline, &timers).repeated);
            sent_ms.push((deadline - start).as_millis());
        }
        assert_eq!(sent_ms, [500, 1500, 3500, 7500, 11_500]);
        let now = start + Duration::from_secs(12);
        assert_eq!(tx.on_ack(now, &timers), Effect::nothing());
        assert_eq!((tx.state(), tx.deadline()), (State::Confirmed, Some(now + timers.t4)));
        assert_eq!(tx.on_retransmission(), Effect::nothing());
    }

    #[test]
    fn without_ack_timer_h_ends_it() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ServerInvite::new(true, &timers);
        tx.respond(start, 404, R, &timers);
        assert_eq!(tx.deadline(), Some(start + Duration::from_secs(32)));
        assert!(tx.on_timer(start + Duration::from_secs(32), &timers).timed_out);
    }

    #[test]
    fn accepted_absorbs_invites_and_hands_up_acks() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ServerInvite::new(false, &timers);
        tx.respond(start, 200, R, &timers);
        assert_eq!(tx.on_retransmission(), Effect::nothing());
        assert!(tx.on_ack(start, &timers).to_user);
        assert!(tx.respond(start, 200, R, &timers).repeated);
        tx.on_timer(start + Duration::from_secs(32), &timers);
        assert_eq!(tx.state(), State::Terminated);
    }
}
