//! The core-region service around `control-core`: store, edges' connections, HTTP in both
//! directions, prompts.
//!
//! * [`config`] — every key, all errors at once.
//! * [`assemble`] — builds the parts and starts them; [`run`] is the whole life of the service.
//! * [`core_task`] — the one task that owns the core; [`commit_queue`] — commit before act;
//!   [`rows`] and [`directory`] — between the core's records and the store.
//! * [`link_server`] — the edges.
//! * [`web_client`], [`callback_sender`], [`prompts`] — HTTP to customers, durable callbacks, media.
//! * [`housekeeping`] — what is old goes.
//! * [`media_node`] — a process that runs parts of the media layer only.
//! * [`api`] — the REST API.
//! * [`metrics`] — what `/metrics` shows.
//!
//! Decisions about calls are made in `control-core` alone.

pub mod api;
mod api_listener;
pub mod assemble;
pub mod callback_sender;
pub mod commit_queue;
pub mod config;
pub mod core_task;
pub mod directory;
pub mod housekeeping;
pub mod link_server;
pub mod media_node;
pub mod metrics;
pub mod prompts;
pub mod rows;
pub mod services;
mod web_cache;
pub mod web_client;

pub use assemble::{Control, run, start};
pub use config::Config;
pub use control_core::webhook::sign;

/// The life of the process: configuration, log, build, run, drain.
///
/// # Errors
/// All problems of the configuration at once; or what could not be built.
pub fn run_file(path: &std::path::Path, check_only: bool) -> anyhow::Result<()> {
    link_daemon::install_crypto_provider();
    let config = config::load(path)?;
    if check_only {
        println!("{}: in order", path.display());
        return Ok(());
    }
    let level = link_daemon::log::init(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, shutdown) = link_daemon::drain::switch();
        tokio::spawn(async move {
            match link_daemon::signal::termination().await {
                Ok(name) => tracing::info!(signal = name, "shutting down"),
                Err(error) => tracing::error!(%error, "no signals; shutting down"),
            }
            trigger.shut_down();
        });
        run(config, level, shutdown, path).await
    })
}
