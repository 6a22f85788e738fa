//! Whether a measurement can be believed: the machine was quiet before, and nobody else worked on
//! the two cores meanwhile.

use std::time::{Duration, Instant};

use crate::machine::{CoreTicks, Cores, core_ticks, pause};

/// A core below this share is quiet.
const QUIET_SHARE_MAX: f64 = 0.10;
/// It has to be quiet for so long.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// Time that the host may take, each core.
const STEAL_SHARE_MAX: f64 = 0.03;
/// What the generator has to get of its core.
const GENERATOR_SHARE_MIN: f64 = 0.95;
/// What the system's core may do beside the system: interrupts of its packets, and a share.
const SYSTEM_FACTOR_MAX: f64 = 1.15;
const SYSTEM_US_PER_PACKET_MAX: f64 = 0.5;
/// What others may take of both cores together while whole daemons are measured.
const FOREIGN_SHARE_MAX: f64 = 0.05;

/// Waits until both cores are quiet, at most `limit`. False if they never were.
///
/// # Errors
/// If `/proc/stat` cannot be read.
pub fn wait_quiet(cores: Cores, limit: Duration) -> anyhow::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let before = [core_ticks(cores.load)?, core_ticks(cores.system)?];
        pause(QUIET_FOR);
        let after = [core_ticks(cores.load)?, core_ticks(cores.system)?];
        let quiet = after
            .iter()
            .zip(before)
            .all(|(after, before)| after.since(before).busy_share() < QUIET_SHARE_MAX);
        if quiet {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}

/// What both cores did during a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    cores: Cores,
    began: Instant,
    load: CoreTicks,
    system: CoreTicks,
}

/// The outcome of a [`Watch`].
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Watched {
    /// Seconds.
    pub wall_s: f64,
    /// Share of time that the host took, the worse core.
    pub steal_share: f64,
    /// Seconds at work, core of the load.
    pub load_busy_s: f64,
    /// Seconds at work, core of the system.
    pub system_busy_s: f64,
    /// Seconds in which the system's core was not idle, interrupts included that nobody is charged
    /// for.
    pub system_awake_s: f64,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// If `/proc/stat` cannot be read.
    pub fn start(cores: Cores) -> anyhow::Result<Self> {
        let (load, system) = (core_ticks(cores.load)?, core_ticks(cores.system)?);
        Ok(Self { cores, began: Instant::now(), load, system })
    }

    /// Ends.
    ///
    /// # Errors
    /// If `/proc/stat` cannot be read.
    pub fn finish(self) -> anyhow::Result<Watched> {
        let load = core_ticks(self.cores.load)?.since(self.load);
        let system = core_ticks(self.cores.system)?.since(self.system);
        let wall_s = self.began.elapsed().as_secs_f64();
        Ok(Watched {
            wall_s,
            steal_share: load.steal_share().max(system.steal_share()),
            load_busy_s: load.busy_share() * wall_s,
            system_busy_s: system.busy_share() * wall_s,
            system_awake_s: wall_s - system.at_rest_s(),
        })
    }
}

impl Watched {
    /// What speaks against a measurement of packets; empty if nothing does.
    pub fn complaints(&self, generator_cpu_s: f64, system_cpu_s: f64, packets: u64) -> Vec<String> {
        let mut complaints = self.steal();
        let share = generator_cpu_s / self.wall_s.max(1e-9);
        if share <= GENERATOR_SHARE_MIN {
            complaints.push(format!("generator got {:.0} % of its core", share * 100.0));
        }
        let allowed =
            SYSTEM_FACTOR_MAX * system_cpu_s + SYSTEM_US_PER_PACKET_MAX * 1e-6 * packets as f64;
        if self.system_busy_s > allowed {
            complaints.push(format!(
                "the system's core was busy {:.2} s, the system itself {system_cpu_s:.2} s",
                self.system_busy_s
            ));
        }
        complaints
    }

    /// What speaks against a measurement of whole daemons that took `own_cpu_s` in all, ourselves
    /// included.
    pub fn foreign(&self, own_cpu_s: f64) -> Vec<String> {
        let mut complaints = self.steal();
        let busy_s = self.load_busy_s + self.system_busy_s;
        if busy_s > own_cpu_s * SYSTEM_FACTOR_MAX + self.wall_s * FOREIGN_SHARE_MAX {
            complaints.push(format!(
                "the cores were busy {busy_s:.1} s, of which {own_cpu_s:.1} s with this bench"
            ));
        }
        complaints
    }

    /// The host's part alone.
    pub fn steal(&self) -> Vec<String> {
        let taken = self.steal_share >= STEAL_SHARE_MAX;
        let text = || format!("the host took {:.1} %", self.steal_share * 100.0);
        taken.then(text).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_disturbance_is_named() {
        let clean =
            Watched { wall_s: 2.0, load_busy_s: 2.0, system_busy_s: 0.9, ..Watched::default() };
        assert!(clean.complaints(1.95, 0.8, 200_000).is_empty());
        assert_eq!(clean.complaints(1.5, 0.8, 200_000).len(), 1);
        let foreign = Watched { system_busy_s: 1.5, ..clean };
        assert!(foreign.complaints(1.95, 0.8, 200_000)[0].contains("1.50 s"));
        let stolen = Watched { steal_share: 0.05, ..clean };
        assert!(stolen.complaints(1.95, 0.8, 200_000)[0].contains("host"));
    }
}
