//! Keeps the processors from sleeping while there are calls, on wish.
//!
//! A processor that has nothing to do sleeps, and waking it takes from a microsecond to some hundred
//! of them, on a virtual machine never less than its host takes to be asked. Whoever holds
//! `/dev/cpu_dma_latency` open says how long that may take (the kernel's PM QoS interface); at 0 µs an
//! idle processor looks for work instead of sleeping. That is power, of all processors of the machine,
//! and none of the process's time. The wish ends with the file, however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use link_daemon::metrics::Metrics;
use link_daemon::metrics::prometheus_client::metrics::gauge::Gauge;

use crate::snapshot::Snapshot;

const DEVICE: &str = "/dev/cpu_dma_latency";
/// Longest time to wake up in µs, as the kernel reads it: a number of 32 bits.
const LATENCY_US: i32 = 0;
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Wish {
    device: PathBuf,
    held: Option<File>,
    refused: bool,
    gauge: Gauge,
}

impl Wish {
    /// Takes or drops the wish. A refusal is told once and not tried again.
    fn update(&mut self, has_legs: bool) {
        if has_legs == self.held.is_some() || (has_legs && self.refused) {
            return;
        }
        self.held = None;
        if has_legs {
            match hold_at(&self.device) {
                Ok(file) => self.held = Some(file),
                Err(error) => {
                    self.refused = true;
                    let device = self.device.display();
                    tracing::warn!(%device, %error, "media.keep_awake: processors sleep as usual");
                }
            }
        }
        self.gauge.set(i64::from(self.held.is_some()));
    }
}

/// Processors of this machine do not sleep as long as the file is open.
///
/// # Errors
/// If the device is missing or not for this user.
pub fn hold() -> io::Result<File> {
    hold_at(Path::new(DEVICE))
}

fn hold_at(device: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(device)?;
    file.write_all(&LATENCY_US.to_ne_bytes())?;
    Ok(file)
}

/// Looks every second whether there are legs, as long as the runtime runs.
pub fn start(snapshot: Arc<Snapshot>, metrics: &Metrics) {
    let gauge = metrics.gauge(
        "media_keeps_awake_state",
        "1 while processors are kept from sleeping (media.keep_awake)",
    );
    let mut wish = Wish { device: DEVICE.into(), held: None, refused: false, gauge };
    tokio::spawn(async move {
        loop {
            wish.update(snapshot.load().legs > 0);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(device: &Path) -> Wish {
        Wish { device: device.to_owned(), held: None, refused: false, gauge: Gauge::default() }
    }

    #[test]
    fn the_wish_is_held_while_there_are_legs() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("cpu_dma_latency");
        File::create(&device).unwrap();
        let mut wish = wish(&device);
        wish.update(false);
        assert!(wish.held.is_none() && std::fs::read(&device).unwrap().is_empty());
        for _ in 0..3 {
            wish.update(true);
            assert_eq!((wish.held.is_some(), wish.gauge.get()), (true, 1));
            // Written once: four bytes, zero.
            assert_eq!(std::fs::read(&device).unwrap(), [0; 4]);
        }
        wish.update(false);
        assert_eq!((wish.held.is_some(), wish.gauge.get()), (false, 0));
    }

    #[test]
    fn a_refusal_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("cpu_dma_latency");
        let mut wish = wish(&device);
        wish.update(true);
        assert_eq!((wish.held.is_some(), wish.refused, wish.gauge.get()), (false, true, 0));
        File::create(&device).unwrap();
        wish.update(true);
        assert!(wish.held.is_none());
    }
}
