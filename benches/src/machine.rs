//! Cores, clocks and facts about this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The two cores of a bench: one makes the load, the other bears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// Generator, phones, web server.
    pub load: usize,
    /// System under test.
    pub system: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    ///
    /// # Errors
    /// With fewer than two.
    pub fn of_process() -> anyhow::Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let mut allowed = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false));
        match (allowed.next(), allowed.next()) {
            (Some(load), Some(system)) => Ok(Self { load, system }),
            _ => anyhow::bail!(
                "the benches need two cores, one for the load and one for the system; this process \
                 may use only one (taskset -p {})",
                std::process::id()
            ),
        }
    }
}

/// Pins the calling thread.
///
/// # Errors
/// If the core is not allowed.
pub fn pin_thread(core: usize) -> anyhow::Result<()> {
    pin(Pid::from_raw(0), core)
}

fn pin(task: Pid, core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(task, &set).with_context(|| format!("pin task {task} to core {core}"))
}

/// Pins every thread of a process by its name.
///
/// # Errors
/// If the process has ended or a core is not allowed.
pub fn pin_threads(pid: u32, core_of: impl Fn(&str) -> usize) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("comm"))?;
        let task: i32 = entry.file_name().to_string_lossy().parse()?;
        pin(Pid::from_raw(task), core_of(name.trim_end()))?;
    }
    Ok(())
}

/// A command that runs on one core with all its threads, and ends with the thread that starts it.
pub fn pinned(program: &Path, core: usize) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c"]).arg(core.to_string()).arg(program);
    command
}

/// A script that starts `program` on one core: for tools that take a program and no arguments.
///
/// # Errors
/// If it cannot be written.
pub fn pinned_script(folder: &Path, program: &Path, core: usize) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(format!("on-core-{core}.sh"));
    let quoted = program.display().to_string().replace('\'', "'\\''");
    std::fs::write(
        &path,
        format!("#!/bin/sh\nexec setpriv --pdeathsig KILL taskset -c {core} '{quoted}' \"$@\"\n"),
    )?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// CPU time of a process, all threads, exact to the nanosecond.
///
/// # Errors
/// If it has ended.
pub fn process_cpu(pid: u32) -> anyhow::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))
        .with_context(|| format!("process {pid}"))?;
    Ok(clock_gettime(clock)?.into())
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// CLOCK_REALTIME in nanoseconds: the clock of the kernel's receive stamps.
pub fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What a core did since boot, in ticks of the kernel (4 to 10 ms).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreTicks {
    /// At work for us or anyone in this machine.
    pub busy: u64,
    /// Idle.
    pub idle: u64,
    /// Taken by the host for others.
    pub steal: u64,
}

impl CoreTicks {
    /// Since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            idle: self.idle.saturating_sub(earlier.idle),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    fn share(self, part: u64) -> f64 {
        let all = self.busy + self.idle + self.steal;
        if all == 0 { 0.0 } else { part as f64 / all as f64 }
    }

    /// Share of time at work, 0 to 1.
    pub fn busy_share(self) -> f64 {
        self.share(self.busy)
    }

    /// Seconds without work, by the kernel's exact clock of idleness, or taken by the host.
    pub fn at_rest_s(self) -> f64 {
        // What user space sees are hundredths on every Linux.
        (self.idle + self.steal) as f64 / 100.0
    }

    /// Share of time taken by the host, 0 to 1.
    pub fn steal_share(self) -> f64 {
        self.share(self.steal)
    }
}

/// Reads `/proc/stat` for one core.
///
/// # Errors
/// If there is no such core.
pub fn core_ticks(core: usize) -> anyhow::Result<CoreTicks> {
    let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    parse_stat(&stat, core).with_context(|| format!("/proc/stat has no cpu{core}"))
}

fn parse_stat(stat: &str, core: usize) -> Option<CoreTicks> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    let values: Vec<u64> = line.split_whitespace().skip(1).map_while(|v| v.parse().ok()).collect();
    let at = |n: usize| values.get(n).copied().unwrap_or(0);
    // user nice system idle iowait irq softirq steal
    Some(CoreTicks {
        busy: at(0) + at(1) + at(2) + at(5) + at(6),
        idle: at(3) + at(4),
        steal: at(7),
    })
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, in KiB.
    pub rss_kib: u64,
    /// Of these its own, not of files, in KiB.
    pub anonymous_kib: u64,
}

/// Reads `/proc/PID/status`.
///
/// # Errors
/// If it has ended.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).context(path)?;
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Ok(Memory {
        rss_kib: value("VmRSS:").context("VmRSS")?,
        anonymous_kib: value("RssAnon:").context("RssAnon")?,
    })
}

/// Open descriptors of a process.
///
/// # Errors
/// If it has ended.
pub fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Raises the soft limit of descriptors to the hard one.
///
/// # Errors
/// If the hard one is below `needed`, with the way to raise it.
pub fn want_descriptors(needed: u64) -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    ensure!(
        hard >= needed,
        "needs {needed} descriptors, allowed are {hard}: raise them with 'ulimit -Hn {needed}' as root"
    );
    Ok(())
}

/// What a result belongs to.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// CPU model.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Commit of the working tree, with `+` if it has changes.
    pub commit: String,
    /// `release` or `debug`.
    pub profile: String,
    /// Memory of the machine in MiB.
    pub memory_mib: u64,
}

impl Facts {
    /// Of this machine, now.
    pub fn gather() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after_colon = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Self {
            cpu: after_colon(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            memory_mib: kib / 1024,
        }
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    // Results of the same run and texts change no program.
    let sources = [".", ":(exclude)benches/results", ":(exclude)*.md"];
    let changed =
        git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &sources[..]].concat())?;
    Some(if changed.is_empty() { head } else { head + "+" })
}

/// Root of the workspace that this was built from.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Waits.
#[allow(clippy::disallowed_methods, reason = "a bench waits by the clock")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// While it lives, this process and those that it starts get no huge pages from the kernel: memory
/// then grows by what is touched, and not by two MiB at a time.
#[derive(Debug)]
pub struct SmallPages(());

impl SmallPages {
    /// From now on.
    ///
    /// # Errors
    /// Of `prctl(2)`.
    pub fn begin() -> anyhow::Result<Self> {
        nix::sys::prctl::set_thp_disable(true).context("PR_SET_THP_DISABLE")?;
        Ok(Self(()))
    }
}

impl Drop for SmallPages {
    fn drop(&mut self) {
        // It was allowed to begin; this is the same call.
        let _ = nix::sys::prctl::set_thp_disable(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_by_name() {
        let stat = "cpu  9 9 9 9\ncpu1 1 2 3 40 5 6 7 8 0 0\ncpu10 0 0 0 0 0 0 0 0\n";
        let ticks = parse_stat(stat, 1).unwrap();
        assert_eq!(ticks, CoreTicks { busy: 19, idle: 45, steal: 8 });
        assert_eq!(parse_stat(stat, 2), None);
        assert!((ticks.steal_share() - 8.0 / 72.0).abs() < 1e-9);
    }

    #[test]
    fn clocks_of_this_process_go_on() {
        let before = process_cpu(std::process::id()).unwrap();
        let mut sum = 0u64;
        for n in 0..2_000_000u64 {
            sum = std::hint::black_box(sum ^ n);
        }
        assert!(process_cpu(std::process::id()).unwrap() > before);
        assert!(memory(std::process::id()).unwrap().rss_kib > 100);
    }
}
