//! INVITE client transaction (RFC 3261 §17.1.1 with RFC 6026 §7.2).
//!
//! ```text
//! Calling ──1xx──▶ Proceeding ──300..699──▶ Completed ──D──▶ Terminated
//!    └──────────2xx──────┴───────▶ Accepted ──────────M──────────┘
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::timers::TimerConfig;
use super::{Effect, earliest, is_due};

/// States in the order of the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Calling,
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct ClientInvite {
    state: State,
    reliable: bool,
    request: Bytes,
    ack: Option<Bytes>,
    interval: Duration,
    timer_a_retransmit: Option<Instant>,
    timer_b_timeout: Option<Instant>,
    timer_d_wait: Option<Instant>,
    timer_m_wait: Option<Instant>,
    /// RFC 3261 §9.1: 64·T1 after CANCEL the transaction counts as cancelled.
    cancel_timeout: Option<Instant>,
}

impl ClientInvite {
    /// A new transaction; its request has to be sent now.
    pub fn new(now: Instant, request: Bytes, reliable: bool, timers: &TimerConfig) -> Self {
        ClientInvite {
            state: State::Calling,
            reliable,
            request,
            ack: None,
            interval: timers.t1,
            timer_a_retransmit: (!reliable).then(|| now + timers.t1),
            timer_b_timeout: Some(now + timers.transaction_timeout()),
            timer_d_wait: None,
            timer_m_wait: None,
            cancel_timeout: None,
        }
    }

    /// A response came; `ack` makes the ACK for a 300–699 (RFC 3261 §17.1.1.3).
    pub fn on_response(
        &mut self,
        now: Instant,
        status: u16,
        ack: impl FnOnce() -> Bytes,
        timers: &TimerConfig,
    ) -> Effect {
        match (self.state, status) {
            (State::Calling | State::Proceeding, 100..=199) => {
                self.state = State::Proceeding;
                self.timer_a_retransmit = None;
                self.timer_b_timeout = None;
                Effect::to_user()
            }
            (State::Calling | State::Proceeding, 200..=299) => {
                self.stop();
                self.state = State::Accepted;
                self.timer_m_wait = Some(now + timers.transaction_timeout());
                Effect::to_user()
            }
            (State::Calling | State::Proceeding, _) => {
                self.stop();
                let ack = ack();
                self.state = if self.reliable { State::Terminated } else { State::Completed };
                self.timer_d_wait = (!self.reliable).then(|| now + timers.timer_d);
                self.ack = Some(ack.clone());
                Effect { send: Some(ack), to_user: true, ..Effect::default() }
            }
            (State::Completed, 300..=699) => match &self.ack {
                Some(ack) => Effect::repeat(ack.clone()),
                None => Effect::nothing(),
            },
            // RFC 6026 §7.2: every 2xx goes up; the user sends the ACK.
            (State::Accepted, 200..=299) => Effect::to_user(),
            _ => Effect::nothing(),
        }
    }

    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant) -> Effect {
        if is_due(self.timer_b_timeout, now) || is_due(self.cancel_timeout, now) {
            self.stop();
            self.state = State::Terminated;
            return Effect::timed_out();
        }
        if is_due(self.timer_d_wait, now) || is_due(self.timer_m_wait, now) {
            self.stop();
            self.state = State::Terminated;
            return Effect::nothing();
        }
        if is_due(self.timer_a_retransmit, now) {
            self.interval = self.interval.saturating_mul(2);
            self.timer_a_retransmit = Some(now + self.interval);
            return Effect::repeat(self.request.clone());
        }
        Effect::nothing()
    }

    /// A CANCEL for it has been sent: without final response it ends 64·T1 from now.
    pub fn on_cancel_sent(&mut self, now: Instant, timers: &TimerConfig) {
        if matches!(self.state, State::Calling | State::Proceeding) {
            self.cancel_timeout = Some(now + timers.transaction_timeout());
        }
    }

    /// The transport could not deliver. True if that ends the transaction.
    pub fn on_transport_error(&mut self) -> bool {
        let ends = matches!(self.state, State::Calling);
        if ends || self.state == State::Completed {
            self.stop();
            self.state = State::Terminated;
        }
        ends
    }

    /// When `on_timer` is next due.
    pub fn deadline(&self) -> Option<Instant> {
        earliest(&[
            self.timer_a_retransmit,
            self.timer_b_timeout,
            self.timer_d_wait,
            self.timer_m_wait,
            self.cancel_timeout,
        ])
    }

    /// Current state.
    pub fn state(&self) -> State {
        self.state
    }

    fn stop(&mut self) {
        self.timer_a_retransmit = None;
        self.timer_b_timeout = None;
        self.timer_d_wait = None;
        self.timer_m_wait = None;
        self.cancel_timeout = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn retransmits_at_the_times_of_the_rfc_and_gives_up() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ClientInvite::new(start, Bytes::from_static(b"I"), false, &timers);
        let mut sent_ms = Vec::new();
        while let Some(deadline) = tx.deadline() {
            let effect = tx.on_timer(deadline);
            let ms = (deadline - start).as_millis();
            match effect.send {
                Some(_) => sent_ms.push(ms),
                None => assert!(effect.timed_out && ms == 32_000),
            }
        }
        assert_eq!(sent_ms, [500, 1500, 3500, 7500, 15_500, 31_500]);
        assert_eq!(tx.state(), State::Terminated);
    }

    #[test]
    fn a_refusal_is_acknowledged_each_time_until_timer_d() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let ack = || Bytes::from_static(b"A");
        let mut tx = ClientInvite::new(start, Bytes::from_static(b"I"), false, &timers);
        assert!(tx.on_response(at(start, 1), 180, ack, &timers).to_user);
        let first = tx.on_response(at(start, 2), 486, ack, &timers);
        assert!(first.to_user && first.send.is_some());
        let again = tx.on_response(at(start, 3), 486, ack, &timers);
        assert!(!again.to_user && again.repeated);
        assert_eq!(tx.deadline(), Some(at(start, 32_002)));
        tx.on_timer(at(start, 32_002));
        assert_eq!(tx.state(), State::Terminated);
    }

    #[test]
    fn reliable_transports_neither_retransmit_nor_wait() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ClientInvite::new(start, Bytes::from_static(b"I"), true, &timers);
        assert_eq!(tx.deadline(), Some(at(start, 32_000)));
        tx.on_response(at(start, 1), 404, || Bytes::from_static(b"A"), &timers);
        assert_eq!(tx.state(), State::Terminated);
    }

    #[test]
    fn repeated_and_forked_2xx_go_up_until_timer_m() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let ack = || Bytes::new();
        let mut tx = ClientInvite::new(start, Bytes::from_static(b"I"), false, &timers);
        assert!(tx.on_response(at(start, 10), 200, ack, &timers).to_user);
        assert!(tx.on_response(at(start, 20), 200, ack, &timers).to_user);
        assert_eq!(tx.on_response(at(start, 30), 486, ack, &timers), Effect::nothing());
        assert_eq!(tx.deadline(), Some(at(start, 32_010)));
    }

    #[test]
    fn a_cancelled_ringing_ends_without_final_response() {
        let start = Instant::now();
        let timers = TimerConfig::default();
        let mut tx = ClientInvite::new(start, Bytes::from_static(b"I"), false, &timers);
        tx.on_response(at(start, 10), 180, Bytes::new, &timers);
        assert_eq!(tx.deadline(), None);
        tx.on_cancel_sent(at(start, 100), &timers);
        assert!(tx.on_timer(at(start, 32_100)).timed_out);
    }
}
