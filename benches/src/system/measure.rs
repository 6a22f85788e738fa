//! One measurement: a running system, one rate, a few seconds.

use std::time::Duration;

use super::generator::Generator;
use super::{Kind, Place, Running};
use crate::gate::Watch;
use crate::machine::{process_cpu, thread_cpu};

/// Sent before the measured window, so that caches, addresses and clocks have settled.
const WARM_UP: Duration = Duration::from_millis(400);
/// For what is under way when the sending ends.
const DRAIN: Duration = Duration::from_millis(150);
/// Below this share of the wanted rate the generator was the bottleneck.
const RATE_SHARE_MIN: f64 = 0.98;

/// What one system did at one rate.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Sample {
    /// Which system.
    pub system: &'static str,
    /// Packets offered per second, as wanted.
    pub rate: f64,
    /// Packets offered per second, as done.
    pub offered_rate: f64,
    /// CPU of the system's process in the window, µs per packet offered.
    pub cpu_us: f64,
    /// Time in which the system's core was not idle, µs per packet offered.
    pub core_us: f64,
    /// Share of packets that did not come back, over warm-up and window.
    pub loss: f64,
    /// Packets not taken from the generator by the kernel.
    pub refused: u64,
    /// Packets that the system made itself (silence where it missed one).
    pub made: u64,
    /// Time through the system in the window, µs.
    pub delay_p50_us: f64,
    /// Time through the system, µs.
    pub delay_p90_us: f64,
    /// Time through the system, µs.
    pub delay_p99_us: f64,
    /// Worst lateness of the generator, µs.
    pub generator_late_us: f64,
    /// Why not to believe it; empty = clean.
    pub complaints: Vec<String>,
}

impl Sample {
    /// Nothing speaks against it.
    pub fn is_clean(&self) -> bool {
        self.complaints.is_empty()
    }

    /// The generator could not make the rate.
    pub fn is_generator_limited(&self) -> bool {
        self.offered_rate < self.rate * RATE_SHARE_MIN
    }
}

/// Measures at `rate` for `window`. The calling thread is the generator's and pinned to the core of
/// the load.
///
/// # Errors
/// If the system has ended, or of the sockets.
pub fn measure(
    kind: Kind,
    place: &Place,
    running: &Running,
    generator: &mut Generator,
    rate: f64,
    window: Duration,
) -> anyhow::Result<Sample> {
    generator.settle()?;
    generator.rouse()?;
    generator.send(rate, WARM_UP, &mut |_| Ok(()))?;
    generator.forget_delays();
    let offered_before = generator.tally()?.offered;
    let watch = Watch::start(place.cores)?;
    let (generator_cpu, system_cpu) = (thread_cpu(), process_cpu(running.pid)?);
    generator.send(rate, window, &mut |_| Ok(()))?;
    let system_cpu_s = (process_cpu(running.pid)? - system_cpu).as_secs_f64();
    let generator_cpu_s = (thread_cpu() - generator_cpu).as_secs_f64();
    let watched = watch.finish()?;
    generator.drain(DRAIN)?;
    let tally = generator.tally()?;
    let packets = tally.offered - offered_before;
    let quantile = |q: f64| tally.delay_ns.value_at_quantile(q) as f64 / 1e3;
    Ok(Sample {
        system: kind.name(),
        rate,
        offered_rate: packets as f64 / watched.wall_s,
        cpu_us: system_cpu_s * 1e6 / packets.max(1) as f64,
        core_us: watched.system_awake_s * 1e6 / packets.max(1) as f64,
        loss: tally.loss(),
        refused: tally.refused,
        made: tally.made,
        delay_p50_us: quantile(0.5),
        delay_p90_us: quantile(0.9),
        delay_p99_us: quantile(0.99),
        generator_late_us: tally.late_max_ns as f64 / 1e3,
        complaints: watched.complaints(generator_cpu_s, system_cpu_s, packets),
    })
}

/// A system with its calls, and a generator aimed at them.
///
/// # Errors
/// If the system does not come up.
pub fn set_up(kind: Kind, place: &Place, calls: usize) -> anyhow::Result<(Running, Generator)> {
    let mut generator = Generator::new()?;
    let running = super::start(kind, place, calls, &generator.ends()?)?;
    generator.aim(&running.legs)?;
    generator.prime(2)?;
    Ok((running, generator))
}
