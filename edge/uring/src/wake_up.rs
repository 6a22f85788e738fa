//! How long waking up takes, so that a thread can have itself woken so much sooner.
//!
//! A processor that has slept for milliseconds takes a tenth of one or more to run a thread again, on a
//! virtual machine most of all: a frame that is due every 20 ms would always be so late. That time is
//! much the same from one time to the next. It is measured at every sleep that a deadline ended, and
//! the next one is asked to end so much before its deadline; what is left until then, if anything, the
//! thread spends looking for completions.
//!
//! That is paid with processor time, so a thread has only so much of it to spend: one whose deadlines
//! follow each other as closely as its wake-ups take would otherwise never sleep.

use std::time::{Duration, Instant};

/// Beyond that a thread is not woken by its processor's sleep, but by what else runs there.
pub(crate) const LEAD_MAX: Duration = Duration::from_micros(150);
/// In the long run a thread looks for at most one part in so many of its time.
const LOOKS_ONE_IN: u32 = 4;
/// It may save up so much for a while of more deadlines.
const SAVED_MAX: Duration = Duration::from_millis(2);
/// The longer a processor may sleep, the deeper it does: sleeps are told apart by these bounds.
const CLASS_BELOW: [Duration; 3] =
    [Duration::from_micros(250), Duration::from_millis(1), Duration::from_millis(4)];

/// A sleep with an end.
#[derive(Debug, Clone, Copy)]
struct Sleep {
    until: Instant,
    class: usize,
}

/// The estimates of one thread.
#[derive(Debug)]
pub(crate) struct WakeUp {
    /// No lead is longer.
    lead_max: Duration,
    /// Time that may be spent looking, reckoned up to `reckoned`.
    saved: Duration,
    reckoned: Option<Instant>,
    /// By class.
    leads: [Duration; CLASS_BELOW.len() + 1],
    /// By which the sleep that is under way, or has just ended by time, was cut short.
    taken: Duration,
    /// The sleep that is under way, or has just ended.
    sleep: Option<Sleep>,
}

fn class_of(time: Duration) -> usize {
    CLASS_BELOW.partition_point(|below| *below <= time)
}

impl WakeUp {
    /// Leads of at most `lead_max`; zero: the thread sleeps until its deadlines.
    pub(crate) fn new(lead_max: Duration) -> Self {
        Self {
            lead_max: lead_max.min(LEAD_MAX),
            saved: SAVED_MAX,
            reckoned: None,
            leads: Default::default(),
            taken: Duration::ZERO,
            sleep: None,
        }
    }

    /// So long before a deadline that is `ahead` the thread is to be woken. On the low side of what was
    /// measured: woken too late it has lost nothing, woken too soon it spends processor time.
    pub(crate) fn lead(&self, ahead: Duration) -> Duration {
        let lead = self.leads.get(class_of(ahead)).copied().unwrap_or_default();
        if self.may_look() { lead.min(self.lead_max) } else { Duration::ZERO }
    }

    /// What is so near is not worth a sleep; least of all what the last one was cut short for.
    pub(crate) fn is_near(&self, ahead: Duration) -> bool {
        self.may_look() && ahead <= self.lead(ahead).max(self.taken)
    }

    /// Whether there is time left for the longest look.
    fn may_look(&self) -> bool {
        self.saved >= LEAD_MAX
    }

    /// Time was spent looking until something that was near.
    pub(crate) fn looked(&mut self, time: Duration) {
        self.saved = self.saved.saturating_sub(time);
    }

    /// The thread goes to sleep until `deadline` less `lead`; the deadline is `ahead`.
    pub(crate) fn sleeps(&mut self, deadline: Instant, ahead: Duration, lead: Duration) {
        self.taken = lead;
        let until = deadline.checked_sub(lead).unwrap_or(deadline);
        self.sleep = Some(Sleep { until, class: class_of(ahead) });
    }

    /// It is awake; `by_time` if nothing has come. A sleep that did not end by time says nothing.
    pub(crate) fn woke(&mut self, now: Instant, by_time: bool) {
        let since = self.reckoned.replace(now).map(|then| now.saturating_duration_since(then));
        self.saved = (self.saved + since.unwrap_or_default() / LOOKS_ONE_IN).min(SAVED_MAX);
        let Some(sleep) = self.sleep.take().filter(|_| by_time) else {
            self.taken = Duration::ZERO;
            return;
        };
        let Some(took) = now.checked_duration_since(sleep.until) else { return };
        let Some(lead) = self.leads.get_mut(sleep.class) else { return };
        let took = took.min(LEAD_MAX);
        // Faster down than up.
        *lead = if took < *lead { *lead - (*lead - took) / 4 } else { *lead + (took - *lead) / 8 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn wake_up(wake: &mut WakeUp, slept: Duration, took: Duration, by_time: bool) {
        let now = Instant::now();
        wake.sleeps(now + slept, slept, Duration::ZERO);
        wake.woke(now + slept + took, by_time);
    }

    #[test]
    fn it_comes_near_to_what_is_always_the_same() {
        let mut wake = WakeUp::new(LEAD_MAX);
        assert_eq!(wake.lead(us(20_000)), Duration::ZERO);
        for _ in 0..100 {
            wake_up(&mut wake, us(20_000), us(100), true);
            wake_up(&mut wake, us(900), us(30), true);
        }
        assert!((us(98)..=us(100)).contains(&wake.lead(us(5_000))), "{:?}", wake.lead(us(5_000)));
        assert!((us(29)..=us(30)).contains(&wake.lead(us(300))), "{:?}", wake.lead(us(300)));
        // A processor that has no time to sleep any more.
        for _ in 0..12 {
            wake_up(&mut wake, us(20_000), us(2), true);
        }
        assert!(wake.lead(us(5_000)) < us(6), "{:?}", wake.lead(us(5_000)));
    }

    #[test]
    fn what_was_not_ended_by_time_says_nothing() {
        let mut wake = WakeUp::new(LEAD_MAX);
        wake_up(&mut wake, us(20_000), us(100), false);
        let now = Instant::now();
        wake.sleeps(now + us(20_000), us(20_000), Duration::ZERO);
        // Woken before, by nobody that is known.
        wake.woke(now + us(3), true);
        // Not asleep.
        wake.woke(now + us(20_900), true);
        assert_eq!(wake.lead(us(20_000)), Duration::ZERO);
    }

    #[test]
    fn what_a_sleep_was_cut_short_for_is_near_whatever_its_class() {
        let mut wake = WakeUp::new(LEAD_MAX);
        for _ in 0..100 {
            wake_up(&mut wake, us(20_000), us(100), true);
        }
        assert!(!wake.is_near(us(60)));
        let now = Instant::now();
        wake.sleeps(now + us(20_000), us(20_000), us(100));
        wake.woke(now + us(19_940), true);
        assert!(wake.is_near(us(60)) && !wake.is_near(us(200)));
        // The next turn, after something has come.
        wake.woke(now + us(19_950), false);
        assert!(!wake.is_near(us(50)));
    }

    /// A thread whose deadlines are `period` apart, on a processor that takes `took` to wake up. What
    /// share of its time it looks.
    fn looking_share(period: Duration, took: Duration) -> f64 {
        let mut wake = WakeUp::new(LEAD_MAX);
        let start = Instant::now();
        let (mut now, mut looked) = (start, Duration::ZERO);
        for n in 1..10_000 {
            let deadline = start + period * n;
            while now < deadline {
                let ahead = deadline - now;
                if wake.is_near(ahead) {
                    wake.looked(ahead);
                    looked += ahead;
                    now = deadline;
                } else {
                    let lead = wake.lead(ahead);
                    wake.sleeps(deadline, ahead, lead);
                    now = (deadline - lead).max(now) + took;
                }
                wake.woke(now, true);
            }
        }
        looked.as_secs_f64() / (now - start).as_secs_f64()
    }

    #[test]
    fn looking_is_a_small_part_of_the_time_however_near_the_deadlines() {
        let (rare, often) = (looking_share(us(20_000), us(100)), looking_share(us(1_000), us(100)));
        assert!(rare < 0.01, "{rare}");
        assert!(often < 0.05, "{often}");
        for period in [20, 60, 100, 140, 200] {
            let share = looking_share(us(period), us(120));
            assert!(share < 0.27, "{period} µs: {share}");
        }
    }

    #[test]
    fn without_leads_it_never_looks() {
        let mut wake = WakeUp::new(Duration::ZERO);
        for _ in 0..100 {
            wake_up(&mut wake, us(20_000), us(100), true);
        }
        assert_eq!(wake.lead(us(20_000)), Duration::ZERO);
        assert!(!wake.is_near(us(1)));
    }

    proptest! {
        /// Never longer than the longest that was measured, nor than the bound.
        #[test]
        fn the_lead_stays_in_range(times in prop::collection::vec((0u64..30_000, 0u64..5_000), 1..50)) {
            let mut wake = WakeUp::new(LEAD_MAX);
            for (slept, took) in &times {
                wake_up(&mut wake, us(*slept), us(*took), true);
            }
            let longest = times.iter().map(|(_, took)| *took).max().unwrap_or(0);
            for (slept, _) in &times {
                prop_assert!(wake.lead(us(*slept)) <= LEAD_MAX.min(us(longest)));
            }
        }
    }
}
