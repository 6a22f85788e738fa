//! Keeps processors from sleeping while packets come.
//!
//! A processor that has nothing to do sleeps, and waking it takes from a microsecond to some hundred
//! of them, on a virtual machine never less than its host takes to be asked. Whoever holds
//! `/dev/cpu_dma_latency` open says how long that may take (the kernel's PM QoS interface); at 0 µs an
//! idle processor looks for work instead of sleeping. That is power, of all processors of the machine,
//! and none of the process's time. The wish ends with the file, however the process ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use link_daemon::metrics::Metrics;
use link_daemon::metrics::prometheus_client::metrics::gauge::Gauge;

use crate::snapshot::Snapshot;

const DEVICE: &str = "/dev/cpu_dma_latency";
/// Longest time to wake up in µs, as the kernel reads it: a number of 32 bits.
const LATENCY_US: i32 = 0;
/// While there are legs: load comes within a moment.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_WITHOUT_LEGS_EVERY: Duration = Duration::from_secs(1);
/// A media thread is busy when it works for this share of the time …
const BUSY_SHARE: f64 = 0.25;
/// … until it has worked less than this …
const IDLE_SHARE: f64 = 0.1;
/// … for so long.
const IDLE_FOR: Duration = Duration::from_secs(1);

/// When no processor sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAwake {
    /// While there are busy media threads for half of the processors or more: the machine is there for
    /// media, and would sleep for moments only.
    Busy,
    /// While there are legs.
    Always,
    /// They sleep whenever they can.
    Never,
}

/// As in the configuration.
pub const WAYS: [(&str, KeepAwake); 3] =
    [("busy", KeepAwake::Busy), ("always", KeepAwake::Always), ("never", KeepAwake::Never)];

/// A media thread.
#[derive(Debug)]
struct Thread {
    /// With the time that it ran, in ns, as its first word.
    times: PathBuf,
    ran: Duration,
    is_busy: bool,
    idle: Duration,
}

/// The media threads of this process, which are told by their names.
#[derive(Debug)]
struct Threads(Vec<Thread>);

impl Threads {
    fn of(tasks: &Path) -> Self {
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        Self(tasks.filter_map(|task| media_thread(&task.path())).collect())
    }

    /// How many are busy. `passed` since the last time.
    fn busy(&mut self, passed: Duration) -> usize {
        for thread in &mut self.0 {
            // One that has ended does nothing any more.
            let ran = ran(&thread.times).unwrap_or(thread.ran);
            let worked = ran.saturating_sub(std::mem::replace(&mut thread.ran, ran));
            let is_idle = worked < passed.mul_f64(IDLE_SHARE);
            thread.idle = if is_idle { thread.idle + passed } else { Duration::ZERO };
            thread.is_busy =
                worked >= passed.mul_f64(BUSY_SHARE) || (thread.is_busy && thread.idle < IDLE_FOR);
        }
        self.0.iter().filter(|thread| thread.is_busy).count()
    }
}

fn media_thread(task: &Path) -> Option<Thread> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let _: u16 = name.trim_end().strip_prefix("media-")?.parse().ok()?;
    let times = task.join("schedstat");
    Some(Thread { ran: ran(&times)?, times, is_busy: false, idle: Duration::ZERO })
}

fn ran(times: &Path) -> Option<Duration> {
    let text = fs::read_to_string(times).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Processors of the machine, whichever of them are for this process.
fn processors(stat: &Path) -> usize {
    let text = fs::read_to_string(stat).unwrap_or_default();
    let is_one = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
    text.lines().filter(is_one).count()
}

struct Wish {
    device: PathBuf,
    held: Option<File>,
    refused: bool,
    gauge: Gauge,
}

impl Wish {
    /// Takes or drops the wish. A refusal is told once and not tried again.
    fn update(&mut self, is_wanted: bool) {
        if is_wanted == self.held.is_some() || (is_wanted && self.refused) {
            return;
        }
        self.held = None;
        if is_wanted {
            match hold_at(&self.device) {
                Ok(file) => self.held = Some(file),
                Err(error) => {
                    self.refused = true;
                    let device = self.device.display();
                    tracing::info!(%device, %error, "media.keep_awake: processors sleep as usual");
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

/// Looks after the processors as long as the runtime runs. The media threads are there already.
pub fn start(how: KeepAwake, snapshot: Arc<Snapshot>, metrics: &Metrics) {
    let gauge = metrics.gauge(
        "media_keeps_awake_state",
        "1 while processors are kept from sleeping (media.keep_awake)",
    );
    if how == KeepAwake::Never {
        return;
    }
    let mut wish = Wish { device: DEVICE.into(), held: None, refused: false, gauge };
    let mut threads = Threads::of(Path::new("/proc/self/task"));
    let processors = processors(Path::new("/proc/stat"));
    let mut looked = Instant::now();
    tokio::spawn(async move {
        loop {
            let now = Instant::now();
            let busy = threads.busy(now.duration_since(looked));
            looked = now;
            let has_legs = snapshot.load().legs > 0;
            let is_for_media = busy > 0 && busy * 2 >= processors;
            wish.update(has_legs && (how == KeepAwake::Always || is_for_media));
            let wait = if has_legs { LOOK_EVERY } else { LOOK_WITHOUT_LEGS_EVERY };
            tokio::time::sleep(wait).await;
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
    fn the_wish_is_held_while_it_is_wanted() {
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

    fn task(folder: &Path, id: u32, name: &str) -> PathBuf {
        let task = folder.join(id.to_string());
        fs::create_dir(&task).unwrap();
        fs::write(task.join("comm"), format!("{name}\n")).unwrap();
        let times = task.join("schedstat");
        fs::write(&times, "0 0 0\n").unwrap();
        times
    }

    #[test]
    fn a_media_thread_is_busy_from_a_quarter_of_the_time_until_a_second_below_a_tenth() {
        let folder = tempfile::tempdir().unwrap();
        let others = ["tandem", "media-free-0", "media-x", "media-"];
        for (name, id) in others.iter().zip(20..) {
            fs::write(task(folder.path(), id, name), "5000000000 0 0\n").unwrap();
        }
        let times = [1, 2].map(|n| task(folder.path(), 10 + n, &format!("media-{n}")));
        let mut threads = Threads::of(folder.path());
        let (mut ran_ms, look) = ([0, 0], Duration::from_millis(100));
        let mut looks = |ms: [u64; 2], count: usize| {
            let seen = (0..count).map(|_| {
                for n in 0..2 {
                    ran_ms[n] += ms[n];
                    fs::write(&times[n], format!("{} 77 3\n", ran_ms[n] * 1_000_000)).unwrap();
                }
                threads.busy(look)
            });
            seen.collect::<Vec<_>>()
        };
        assert_eq!(looks([24, 24], 20), [0; 20]);
        assert_eq!(looks([25, 24], 1), [1]);
        assert_eq!(looks([10, 90], 1), [2]);
        assert_eq!(looks([10, 24], 30), [2; 30], "between the two shares it stays as it is");
        assert_eq!(looks([9, 10], 9), [2; 9], "not yet for a second");
        assert_eq!(looks([9, 10], 1), [1]);
        assert_eq!(looks([9, 9], 10)[9], 0);
        // They have ended.
        std::fs::remove_dir_all(folder.path().join("12")).unwrap();
        assert_eq!(threads.busy(look), 0);
    }

    #[test]
    fn all_processors_of_the_machine_are_counted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "cpu  1 2 3\ncpu0 1 2\ncpu11 1 2\nintr 5\n").unwrap();
        assert_eq!(processors(file.path()), 2);
        assert!(processors(Path::new("/proc/stat")) >= 1);
    }
}
