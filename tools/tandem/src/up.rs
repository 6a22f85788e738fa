//! `tandem up`: control and one edge in one process, for one machine.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use link_daemon::config::Problems;
use link_daemon::{drain, log, signal};

use crate::init;

/// Arguments of `tandem up`.
#[derive(Args)]
pub struct Arguments {
    /// Folder with control.toml and edge.toml; made if it is not there.
    #[arg(default_value = "tandem-data")]
    folder: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// All problems of a configuration at once; or what could not be started.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    if !folder.join("edge.toml").exists() {
        init::make(folder, "eu", [127, 0, 0, 1].into())?;
        println!("made {} for a first start", folder.display());
    }
    let (control_config, edge_config) = load(folder)?;
    let level = log::init(&edge_config.log, edge_config.log_format)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (trigger, shutdown) = drain::switch();
        let services = control::services::build(&control_config)?;
        let mut control = control::start(control_config, services, level.clone(), shutdown.clone())
            .await
            .context("control")?;
        // Two files, one process: whoever asks for a new configuration is told that there is none.
        drop(control.reloads.take());
        let edge = edge::assemble::start(edge_config, level, shutdown).await.context("edge")?;
        tracing::info!(sip = %edge.bound.sip, admin = %edge.bound.admin, "all in one runs");
        tracing::info!("  live legs  tandem calls --admin {}", edge.bound.admin);
        let name = signal::termination().await?;
        tracing::info!(signal = name, "draining");
        edge.drain().await;
        trigger.shut_down();
        control.finished().await;
        Ok(())
    })
}

/// Both files, or everything that is wrong with them.
fn load(folder: &Path) -> Result<(control::Config, edge::config::Config), Problems> {
    let control = control::config::load(&folder.join("control.toml"));
    let edge = edge::config::load(&folder.join("edge.toml"));
    match (control, edge) {
        (Ok(control), Ok(edge)) => Ok((control, edge)),
        (control, edge) => {
            let all = [control.err(), edge.err()].into_iter().flatten();
            Err(Problems(all.flat_map(|problems| problems.0).collect()))
        }
    }
}
