//! The regional daemon: shells around `edge-core` and `edge-media`.
//!
//! ```text
//! sig-0     signalling.rs     EdgeCore, SIP socket, RTP ports        one thread, tokio
//! media-N   media_thread.rs   Worker on an io_uring                  one thread each
//! trunk     trunk.rs          QUIC datagrams to other edges          one thread, tokio
//! recorder  recorder.rs       files of running recordings            one thread, tokio-uring
//! aux       link_client.rs prompt_cache.rs upload.rs, admin port     tokio's threads
//! ```
//!
//! Signalling and media meet in bounded queues ([`media_handle`]); everything else by channels.

pub mod assemble;
pub mod awake;
pub mod capacity;
pub mod config;
pub mod fast_path;
pub mod link_client;
pub mod media_counters;
pub mod media_handle;
pub mod media_ports;
pub mod media_thread;
pub mod metrics;
pub mod prompt_cache;
pub mod recorder;
pub mod signalling;
pub mod sip_errors;
pub mod snapshot;
pub mod sparing;
pub mod tables;
pub mod trunk;
pub mod trunk_ring;
pub mod upload;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use link_daemon::{drain, log, reload, signal};

/// How often the threads are looked after.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The life of the process: configuration, log, build, run, drain.
///
/// # Errors
/// All problems of the configuration at once; or what could not be built.
pub fn run_file(path: &Path, check_only: bool) -> anyhow::Result<()> {
    link_daemon::install_crypto_provider();
    let config = config::load(path)?;
    if check_only {
        println!("{}: in order", path.display());
        return Ok(());
    }
    let level = log::init(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("aux")
        .enable_all()
        .build()?;
    runtime.block_on(run(config, level, path))
}

async fn run(config: config::Config, level: log::LogLevel, path: &Path) -> anyhow::Result<()> {
    let (trigger, shutdown) = drain::switch();
    let (node, region) = (config.node.clone(), config.region.clone());
    let (legs_max, ports) = (config.sip.legs_max, config.media.ports);
    let mut current = config.clone();
    let mut running = assemble::start(config, level.clone(), shutdown).await?;
    let mut reloads = running.reloads.take().context("reload")?;
    tokio::spawn(running.reload.clone().on_hangup());
    let bound = &running.bound;
    tracing::info!(
        %node, %region, sip = %bound.sip, trunk = %bound.trunk, admin = %bound.admin,
        legs_max, rtp_ports = format!("{}-{}", ports.0, ports.1), "edge runs"
    );
    let mut watch = tokio::time::interval(WATCH_EVERY);
    let ended = signal::termination();
    tokio::pin!(ended);
    let signal = loop {
        tokio::select! {
            signal = &mut ended => break signal.context("signals")?,
            Some(reply) = reloads.next() => {
                let outcome = reload_file(path, &mut current, &mut running, &level).await;
                // Whoever asked may have gone.
                let _ = reply.send(reload::logged(outcome));
            }
            _ = watch.tick() => anyhow::ensure!(!running.is_broken(), "a thread has ended"),
        }
    };
    tracing::info!(signal, "draining");
    running.drain().await;
    trigger.shut_down();
    tracing::info!("ended");
    Ok(())
}

/// Reads the file again and takes over what can change while calls are up.
async fn reload_file(
    path: &Path,
    current: &mut config::Config,
    running: &mut assemble::Running,
    level: &log::LogLevel,
) -> reload::Outcome {
    let mut new = config::load(path).map_err(|problems| problems.to_string())?;
    level.set(&new.log)?;
    let fixed = running.change(current, &mut new).await;
    *current = new;
    Ok(fixed.told())
}
