//! One direction of an imperfect network, without sockets or clock.
//!
//! Owns what is in flight and the dice. Each pushed item draws the same number of random values
//! whatever the configuration, so that changing one probability does not shift the others' fate.
//! Items leave in the order they came (jitter stretches, it does not reorder) except those that
//! `reorder` holds back.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// What one direction does to the datagrams it carries. The default carries them unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// One-way delay, milliseconds.
    pub delay_ms: f64,
    /// Each delay is drawn evenly from `delay_ms ± jitter_ms`, never below 0; order is kept.
    pub jitter_ms: f64,
    /// Probability (0–1) that a datagram is lost.
    pub loss: f64,
    /// Probability (0–1) that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability (0–1) that a datagram is held back by `reorder_ms` more and may be overtaken.
    pub reorder: f64,
    /// Extra delay of a datagram that is held back, milliseconds.
    pub reorder_ms: f64,
    /// Probability (0–1) that one bit of a datagram is flipped.
    pub corrupt: f64,
    /// Line rate in bits per second of payload; `None` is unlimited.
    pub rate_bps: Option<u64>,
    /// Bytes that may be under way (waiting and in flight); what does not fit is dropped.
    pub queue_bytes_max: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay_ms: 0.0,
            jitter_ms: 0.0,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_ms: 25.0,
            corrupt: 0.0,
            rate_bps: None,
            queue_bytes_max: 64 << 20,
        }
    }
}

/// A value of [`LinkConfig`] that makes no sense.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What would be accepted.
    pub allowed: &'static str,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}: allowed is {}", self.field, self.value, self.allowed)
    }
}

impl std::error::Error for ConfigError {}

const DELAY_MS_MAX: f64 = 60_000.0;

impl LinkConfig {
    /// A perfect line of the given one-way delay.
    pub fn delay(delay_ms: f64) -> Self {
        Self { delay_ms, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field outside its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("delay_ms", self.delay_ms),
            ("jitter_ms", self.jitter_ms),
            ("reorder_ms", self.reorder_ms),
        ];
        for (field, value) in times {
            if !(0.0..=DELAY_MS_MAX).contains(&value) {
                let allowed = "0 to 60000 (milliseconds)";
                return Err(ConfigError { field, value: value.to_string(), allowed });
            }
        }
        let chances = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
        ];
        for (field, value) in chances {
            if !(0.0..=1.0).contains(&value) {
                let allowed = "a probability from 0 to 1, such as 0.01 for one in a hundred";
                return Err(ConfigError { field, value: value.to_string(), allowed });
            }
        }
        if self.rate_bps == Some(0) {
            let allowed = "1 or more bits per second, or left out";
            return Err(ConfigError { field: "rate_bps", value: "0".into(), allowed });
        }
        if self.queue_bytes_max == 0 {
            let allowed = "1 or more bytes";
            return Err(ConfigError { field: "queue_bytes_max", value: "0".into(), allowed });
        }
        Ok(())
    }
}

/// What happened to the datagrams of one direction.
///
/// `datagrams + duplicated = delivered + dropped_loss + dropped_queue + dropped_down + in flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Datagrams pushed.
    pub datagrams: u64,
    /// Payload bytes pushed.
    pub bytes: u64,
    /// Datagrams handed out at the far end, copies included.
    pub delivered: u64,
    /// Payload bytes handed out.
    pub delivered_bytes: u64,
    /// Lost by the dice.
    pub dropped_loss: u64,
    /// Lost because `queue_bytes_max` was reached (a lost copy counts as well).
    pub dropped_queue: u64,
    /// Lost because the link was down.
    pub dropped_down: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Held back so that later ones may overtake.
    pub reordered: u64,
    /// Marked for a flipped bit.
    pub corrupted: u64,
}

/// An item that reached the far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<T> {
    /// When it was due; at or before the `now` it was polled with.
    pub at: Instant,
    /// What was pushed.
    pub item: T,
    /// Set when one bit should be flipped: take it modulo the number of bits.
    pub flip_bit: Option<u32>,
}

struct InFlight<T> {
    at: Instant,
    order: u64,
    size_bytes: usize,
    flip_bit: Option<u32>,
    item: T,
}

impl<T> PartialEq for InFlight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for InFlight<T> {}
impl<T> PartialOrd for InFlight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for InFlight<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// One direction. `T` is the datagram, or whatever stands for it.
pub struct Link<T> {
    config: LinkConfig,
    rng: StdRng,
    in_flight: BinaryHeap<Reverse<InFlight<T>>>,
    in_flight_bytes: usize,
    order: u64,
    /// When the line has put its last bit out (only with a rate).
    line_free_at: Option<Instant>,
    /// Latest delivery of an item that was not held back: keeps order under jitter.
    last_at: Option<Instant>,
    up: bool,
    counters: LinkCounters,
}

impl<T: Clone> Link<T> {
    /// A link that is up and empty. The same seed and the same pushes give the same deliveries.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            in_flight: BinaryHeap::new(),
            in_flight_bytes: 0,
            order: 0,
            line_free_at: None,
            last_at: None,
            up: true,
            counters: LinkCounters::default(),
        }
    }

    /// Sends one item of `size_bytes`. Zero, one or two deliveries follow.
    pub fn push(&mut self, now: Instant, size_bytes: usize, item: T) {
        self.counters.datagrams += 1;
        self.counters.bytes += size_bytes as u64;
        let dice: [f64; 6] = std::array::from_fn(|_| self.rng.random());
        let [loss, duplicate, reorder, corrupt, jitter, copy_jitter] = dice;
        let bit: u32 = self.rng.random();

        if !self.up {
            self.counters.dropped_down += 1;
            return;
        }
        if loss < self.config.loss {
            self.counters.dropped_loss += 1;
            return;
        }
        let flip_bit = (corrupt < self.config.corrupt).then_some(bit);
        self.counters.corrupted += u64::from(flip_bit.is_some());
        let held_back = reorder < self.config.reorder;
        self.counters.reordered += u64::from(held_back);

        if duplicate < self.config.duplicate {
            self.counters.duplicated += 1;
            let copy = item.clone();
            self.carry(now, size_bytes, flip_bit, held_back, jitter, item);
            self.carry(now, size_bytes, flip_bit, false, copy_jitter, copy);
        } else {
            self.carry(now, size_bytes, flip_bit, held_back, jitter, item);
        }
    }

    /// The next item whose time has come, earliest first; call until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Delivery<T>> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(due) = self.in_flight.pop()?;
        self.in_flight_bytes -= due.size_bytes;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += due.size_bytes as u64;
        Some(Delivery { at: due.at, item: due.item, flip_bit: due.flip_bit })
    }

    /// When [`poll`](Self::poll) will next have something; `None` while nothing is in flight.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse(first)| first.at)
    }

    /// Counters since the start.
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Items under way.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// The configuration in force.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the configuration for what is pushed from now on; what is in flight keeps its time.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
        self.line_free_at = None;
        self.last_at = None;
    }

    /// Cuts or restores the line. What is in flight when it is cut still arrives.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    fn carry(
        &mut self,
        now: Instant,
        size_bytes: usize,
        flip_bit: Option<u32>,
        held_back: bool,
        jitter: f64,
        item: T,
    ) {
        let bytes = self.in_flight_bytes.saturating_add(size_bytes);
        if bytes > self.config.queue_bytes_max {
            self.counters.dropped_queue += 1;
            return;
        }
        let sent_at = self.serialise(now, size_bytes);
        let spread = (jitter * 2.0 - 1.0) * self.config.jitter_ms;
        let mut at = sent_at + ms(self.config.delay_ms + spread);
        if held_back {
            at += ms(self.config.reorder_ms);
        } else {
            at = self.last_at.map_or(at, |last| last.max(at));
            self.last_at = Some(at);
        }
        self.in_flight_bytes = bytes;
        let order = self.order;
        self.order += 1;
        self.in_flight.push(Reverse(InFlight { at, order, size_bytes, flip_bit, item }));
    }

    /// When the last bit of this datagram has left a line of `rate_bps`.
    fn serialise(&mut self, now: Instant, size_bytes: usize) -> Instant {
        let Some(rate_bps) = self.config.rate_bps else { return now };
        let took = Duration::from_secs_f64(size_bytes as f64 * 8.0 / rate_bps.max(1) as f64);
        let done = self.line_free_at.map_or(now, |free| free.max(now)) + took;
        self.line_free_at = Some(done);
        done
    }
}

fn ms(value_ms: f64) -> Duration {
    Duration::from_secs_f64(value_ms.clamp(0.0, 2.0 * DELAY_MS_MAX) / 1000.0)
}

/// Which way along a [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client (listen side) to the target.
    There,
    /// From the target to the client.
    Back,
}

/// Configuration of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathConfig {
    /// From the client (listen side) to the target.
    pub there: LinkConfig,
    /// From the target to the client.
    pub back: LinkConfig,
}

impl PathConfig {
    /// The same in both directions.
    pub fn symmetric(config: LinkConfig) -> Self {
        Self { there: config, back: config }
    }
}

/// Two [`Link`]s, one each way.
pub struct Path<T> {
    there: Link<T>,
    back: Link<T>,
}

impl<T: Clone> Path<T> {
    /// Both links, with dice derived from one seed.
    pub fn new(config: PathConfig, seed: u64) -> Self {
        Self {
            there: Link::new(config.there, seed),
            back: Link::new(config.back, seed ^ 0x9e37_79b9_7f4a_7c15),
        }
    }

    /// One direction.
    pub fn link(&self, direction: Direction) -> &Link<T> {
        match direction {
            Direction::There => &self.there,
            Direction::Back => &self.back,
        }
    }

    /// One direction, to change it.
    pub fn link_mut(&mut self, direction: Direction) -> &mut Link<T> {
        match direction {
            Direction::There => &mut self.there,
            Direction::Back => &mut self.back,
        }
    }

    /// Sends one item, see [`Link::push`].
    pub fn push(&mut self, now: Instant, direction: Direction, size_bytes: usize, item: T) {
        self.link_mut(direction).push(now, size_bytes, item);
    }

    /// The next item that is due in either direction, the earlier one first.
    pub fn poll(&mut self, now: Instant) -> Option<(Direction, Delivery<T>)> {
        let direction = match (self.there.poll_timeout(), self.back.poll_timeout()) {
            (Some(there), Some(back)) if back < there => Direction::Back,
            (None, Some(_)) => Direction::Back,
            _ => Direction::There,
        };
        self.link_mut(direction).poll(now).map(|delivery| (direction, delivery))
    }

    /// When [`poll`](Self::poll) will next have something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.there.poll_timeout(), self.back.poll_timeout()) {
            (Some(there), Some(back)) => Some(there.min(back)),
            (there, back) => there.or(back),
        }
    }

    /// Changes both directions, see [`Link::set_config`].
    pub fn set_config(&mut self, config: PathConfig) {
        self.there.set_config(config.there);
        self.back.set_config(config.back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes `count` items, 1 ms apart, and collects (item, delay in ms) in order of arrival.
    fn run(config: LinkConfig, seed: u64, count: u32) -> (Vec<(u32, f64)>, LinkCounters) {
        let start = Instant::now();
        let mut link = Link::new(config, seed);
        for i in 0..count {
            link.push(start + Duration::from_millis(u64::from(i)), 172, i);
        }
        let mut out = Vec::new();
        while let Some(at) = link.poll_timeout() {
            assert!(link.poll(at - Duration::from_nanos(1)).is_none(), "too early");
            let delivery = link.poll(at).unwrap();
            let sent = start + Duration::from_millis(u64::from(delivery.item));
            out.push((delivery.item, (delivery.at - sent).as_secs_f64() * 1000.0));
        }
        (out, link.counters())
    }

    #[test]
    fn delay_alone_keeps_order_and_everything() {
        let (out, counters) = run(LinkConfig::delay(80.0), 1, 100);
        assert_eq!(out.len(), 100);
        for (i, (item, delay_ms)) in out.iter().enumerate() {
            assert_eq!(*item as usize, i);
            assert!((delay_ms - 80.0).abs() < 0.001);
        }
        assert_eq!(counters.delivered_bytes, 17_200);
    }

    #[test]
    fn probabilities_are_met() {
        let config = LinkConfig {
            loss: 0.1,
            duplicate: 0.05,
            reorder: 0.2,
            corrupt: 0.02,
            ..LinkConfig::delay(10.0)
        };
        let (_, c) = run(config, 7, 20_000);
        let near = |count: u64, expect: f64| {
            let share = count as f64 / expect;
            assert!((0.85..1.15).contains(&share), "{count} instead of {expect}");
        };
        near(c.dropped_loss, 2000.0);
        near(c.duplicated, 900.0);
        near(c.reordered, 3600.0);
        near(c.corrupted, 360.0);
    }

    #[test]
    fn jitter_keeps_order_and_range() {
        let config = LinkConfig { jitter_ms: 15.0, ..LinkConfig::delay(40.0) };
        let (out, _) = run(config, 3, 1000);
        assert!(out.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(out.iter().all(|(_, d)| (24.999..55.001).contains(d)));
        let min = out.iter().map(|(_, d)| *d).fold(f64::MAX, f64::min);
        let max = out.iter().map(|(_, d)| *d).fold(0.0, f64::max);
        assert!(max - min > 5.0, "jitter spreads the delay");
    }

    #[test]
    fn reordered_items_are_overtaken() {
        let config = LinkConfig { reorder: 0.1, reorder_ms: 25.0, ..LinkConfig::delay(10.0) };
        let (out, counters) = run(config, 5, 1000);
        let late = out.iter().filter(|(_, d)| (*d - 35.0).abs() < 0.001).count();
        assert_eq!(late as u64, counters.reordered);
        assert!(out.windows(2).any(|pair| pair[0].0 > pair[1].0));
    }

    #[test]
    fn rate_spaces_and_queue_drops() {
        // 172 bytes at 137 600 bit/s take 10 ms; one comes each ms; the queue holds ten.
        let config =
            LinkConfig { rate_bps: Some(137_600), queue_bytes_max: 1720, ..LinkConfig::default() };
        let start = Instant::now();
        let mut link = Link::new(config, 1);
        for i in 0..20u32 {
            link.push(start, 172, i);
        }
        assert_eq!(link.counters().dropped_queue, 10);
        for i in 1..=10u64 {
            let at = link.poll_timeout().unwrap();
            let off = (at - start).as_secs_f64() * 1000.0 - 10.0 * i as f64;
            assert!(off.abs() < 0.001, "{off}");
            link.poll(at).unwrap();
        }
        assert!(link.poll_timeout().is_none());
    }

    #[test]
    fn a_cut_line_drops_and_counts() {
        let now = Instant::now();
        let mut path = Path::new(PathConfig::symmetric(LinkConfig::delay(5.0)), 1);
        path.link_mut(Direction::There).set_up(false);
        path.push(now, Direction::There, 10, 1);
        path.push(now, Direction::Back, 10, 2);
        let later = now + Duration::from_millis(5);
        let (direction, delivery) = path.poll(later).unwrap();
        assert_eq!((direction, delivery.item), (Direction::Back, 2));
        assert!(path.poll(later).is_none());
        assert_eq!(path.link(Direction::There).counters().dropped_down, 1);
    }

    #[test]
    fn wrong_values_are_named() {
        let check = |config: LinkConfig, field: &str| {
            assert_eq!(config.check().unwrap_err().field, field);
        };
        check(LinkConfig { loss: 1.5, ..LinkConfig::default() }, "loss");
        check(LinkConfig { delay_ms: -1.0, ..LinkConfig::default() }, "delay_ms");
        check(LinkConfig { jitter_ms: f64::NAN, ..LinkConfig::default() }, "jitter_ms");
        check(LinkConfig { rate_bps: Some(0), ..LinkConfig::default() }, "rate_bps");
        assert!(LinkConfig::default().check().is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_unaccounted_and_runs_repeat(
            seed: u64, loss in 0.0..0.5f64, duplicate in 0.0..0.5f64, reorder in 0.0..0.5f64,
            jitter_ms in 0.0..50.0f64, queue_bytes_max in 100usize..5000,
        ) {
            let config = LinkConfig {
                loss, duplicate, reorder, jitter_ms, queue_bytes_max, ..LinkConfig::delay(20.0)
            };
            let (out, c) = run(config, seed, 200);
            prop_assert_eq!(out.len() as u64, c.delivered);
            prop_assert_eq!(
                c.datagrams + c.duplicated,
                c.delivered + c.dropped_loss + c.dropped_queue + c.dropped_down
            );
            let (again, _) = run(config, seed, 200);
            let ids = |v: &[(u32, f64)]| v.iter().map(|x| x.0).collect::<Vec<_>>();
            prop_assert_eq!(ids(&out), ids(&again));
        }
    }
}
