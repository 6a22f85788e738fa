//! Outside programs: found or not, run with a limit, ended with their owner.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tandem_rig::Process;

use crate::world::root;

/// Where scenarios and scripts for outside programs are.
pub fn conformance(file: &str) -> PathBuf {
    root().join("tests/conformance").join(file)
}

/// The Python that has the outside packages.
pub fn python() -> PathBuf {
    root().join("target/venv/bin/python")
}

/// The Node that has the outside packages.
pub fn node() -> Command {
    let folder = root().join("target/node");
    let mut command = Command::new(folder.join("node"));
    command.env("NODE_PATH", folder.join("node_modules"));
    command
}

/// Whether a program can be run.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a program to its end; what it wrote if it ended with success.
///
/// # Errors
/// With what it wrote, or if it took longer than `limit` and was killed.
pub fn run(command: Command, limit: Duration) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut process = Process::spawn(&name, command, &folder.path().join("log"))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(success) = process.ended()? {
            anyhow::ensure!(success, "{name} failed:\n{}", process.log());
            return Ok(process.log());
        }
        anyhow::ensure!(Instant::now() < end, "{name}: not within {limit:?}:\n{}", process.log());
        crate::pause_ms(20);
    }
}

/// Runs a program that must succeed, for set-up.
///
/// # Errors
/// With what it wrote.
pub fn sh(script: &str) -> anyhow::Result<String> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    run(command, Duration::from_secs(20))
}
