//! When the trunk thread works: at once after silence, then at a steady beat for as long as there
//! is traffic, so that load is packed and nobody has to wake the thread for each batch.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use edge_uring::Sleeper;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// A beat that finds fewer packets is the last one.
const PACKETS_PER_BEAT_MIN: usize = 2;

/// Wakes the trunk thread, if it sleeps without a beat. That no packet is left without one or the
/// other is shown for [`Sleeper`] by its models.
#[derive(Debug, Default)]
pub struct TrunkWake {
    sleeper: Sleeper,
    notify: Notify,
}

impl TrunkWake {
    /// To be called after packets were put into a ring. A system call only if the thread sleeps.
    pub fn ring(&self) {
        if self.sleeper.must_be_woken() {
            self.notify.notify_one();
        }
    }

    /// True if the thread may wait in [`Self::rung`]; `rings_are_empty` is its last look at them.
    pub(super) fn falls_asleep(&self, rings_are_empty: impl FnOnce() -> bool) -> bool {
        self.sleeper.falls_asleep(rings_are_empty)
    }

    pub(super) fn stays_awake(&self) {
        self.sleeper.stays_awake();
    }

    /// Wakes the thread from within: there is something to send that came through no ring.
    pub(super) fn nudge(&self) {
        self.notify.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.notify.notified().await;
    }
}

/// Whether the thread keeps a beat. Sans-IO.
#[derive(Debug)]
pub(super) struct Cadence {
    beat: Duration,
    beats: bool,
    last: Option<Instant>,
}

impl Cadence {
    pub(super) fn new(beat: Duration) -> Self {
        Self { beat, beats: false, last: None }
    }

    pub(super) fn beats(&self) -> bool {
        self.beats
    }

    /// After a round that sent so many packets and left some `waiting` or not. True if the beat
    /// begins or ends here.
    pub(super) fn after(&mut self, now: Instant, packets: usize, waiting: bool) -> bool {
        let since = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        let busy = if self.beats {
            packets >= PACKETS_PER_BEAT_MIN
        } else {
            packets > 0 && since.is_some_and(|since| since < self.beat)
        };
        std::mem::replace(&mut self.beats, busy || waiting) != self.beats
    }
}

#[derive(Debug)]
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A steady beat of the kernel's clock: the runtime's own timers are late by up to 2 ms.
#[derive(Debug)]
pub(super) struct Beat {
    timer: AsyncFd<Fd>,
    every: Duration,
}

impl Beat {
    /// Inside a runtime.
    pub(super) fn new(every: Duration) -> anyhow::Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        #[allow(deprecated, reason = "`register` is unsafe; `Fd` owns one descriptor for life")]
        let timer = AsyncFd::new(Fd(timer))?;
        Ok(Self { timer, every })
    }

    pub(super) fn start(&self) -> anyhow::Result<()> {
        let every = Expiration::Interval(TimeSpec::from(self.every));
        Ok(self.timer.get_ref().0.set(every, TimerSetTimeFlags::empty())?)
    }

    pub(super) fn stop(&self) -> anyhow::Result<()> {
        Ok(self.timer.get_ref().0.unset()?)
    }

    pub(super) async fn tick(&self) {
        loop {
            // An error would be that of a closed descriptor; ours is open.
            let Ok(mut ready) = self.timer.readable().await else { return };
            if ready.try_io(|timer| timer.get_ref().0.wait().map_err(Into::into)).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_kept_for_as_long_as_packets_are_many() {
        let start = link_daemon::clock::now();
        let mut cadence = Cadence::new(Duration::from_millis(2));
        let mut after = |ms: u64, packets, waiting| {
            cadence.after(start + Duration::from_millis(ms), packets, waiting);
            cadence.beats()
        };
        // One call: a packet each 20 ms is sent when it comes.
        assert!(!after(0, 1, false));
        assert!(!after(20, 1, false));
        // Many.
        assert!(after(21, 1, false));
        assert!(after(23, 50, false));
        assert!(after(25, 2, false));
        assert!(!after(27, 1, false));
        // Something was held back.
        assert!(after(40, 0, true));
        assert!(!after(42, 0, false));
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let wake = TrunkWake::default();
        wake.ring();
        assert!(wake.falls_asleep(|| true));
        wake.stays_awake();
        wake.ring();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let soon = Duration::from_millis(20);
            assert!(tokio::time::timeout(soon, wake.rung()).await.is_err());
            assert!(wake.falls_asleep(|| true));
            wake.ring();
            wake.ring();
            tokio::time::timeout(soon, wake.rung()).await.unwrap();
            assert!(tokio::time::timeout(soon, wake.rung()).await.is_err());
        });
    }

    #[test]
    fn the_beat_is_steady() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let beat = Beat::new(Duration::from_millis(2)).unwrap();
            beat.start().unwrap();
            let start = link_daemon::clock::now();
            for _ in 0..20 {
                beat.tick().await;
            }
            let took = link_daemon::clock::now() - start;
            assert!(took >= Duration::from_millis(38), "{took:?}");
            beat.stop().unwrap();
            let more = tokio::time::timeout(Duration::from_millis(20), beat.tick()).await;
            assert!(more.is_err());
        });
    }
}
