//! A child process with a log file, ended with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A running daemon.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// Names the program.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it writes to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Fails with the end of the log if the process has ended.
    ///
    /// # Errors
    /// In words.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{} has ended ({status}):\n{}", self.name, tail.join("\n"))
    }

    /// Whether it has ended, and if so, whether with success.
    ///
    /// # Errors
    /// Of the system.
    pub fn ended(&mut self) -> anyhow::Result<Option<bool>> {
        Ok(self.child.try_wait()?.map(|status| status.success()))
    }

    /// SIGKILL, and waits.
    ///
    /// # Errors
    /// Of the system.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// SIGTERM, waits at most `limit`, then SIGKILL. True if it ended by itself with success.
    ///
    /// # Errors
    /// Of the system.
    pub fn stop(&mut self, limit: Duration) -> anyhow::Result<bool> {
        self.signal("TERM")?;
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            pause(Duration::from_millis(10));
        }
        self.kill()?;
        Ok(false)
    }

    /// Sends a signal by name, for example `STOP`.
    ///
    /// # Errors
    /// If `kill` cannot be run.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status =
            Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status()?;
        anyhow::ensure!(status.success() || name == "TERM", "kill -{name} {}", self.id());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done` says so, at most `limit`. The only place of the rig that sleeps.
///
/// # Errors
/// Names what was waited for.
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    loop {
        if done().with_context(|| what.to_owned())? {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}");
        }
        pause(Duration::from_millis(10));
    }
}

#[allow(clippy::disallowed_methods)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
