//! The life of a process that runs parts of the media layer and nothing else.

use std::path::Path;

use link_daemon::admin::{self, Admin};
use link_daemon::drain;
use link_daemon::metrics::Metrics;

use crate::config::MediaNode;
use crate::prompts::Prompts;
use crate::web_client::authorities;

/// Configuration, log, build, run until the signal.
///
/// # Errors
/// All problems of the configuration at once; or what could not be built.
pub fn run_file(path: &Path, check_only: bool) -> anyhow::Result<()> {
    link_daemon::install_crypto_provider();
    let config = MediaNode::load(path)?;
    if check_only {
        println!("{}: in order", path.display());
        return Ok(());
    }
    let log = link_daemon::log::init(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (trigger, shutdown) = drain::switch();
        let port = admin::bind(config.admin, "admin.listen").await?;
        let MediaNode { parts, media, speech, prompts, data_folder, .. } = &config;
        let authorities = authorities(&config.web)?;
        let layer = Prompts::start_parts(parts, media, speech, prompts, data_folder, authorities)?;
        let metrics = Metrics::new("media");
        layer.register(&metrics);
        let mut tasks = tokio::task::JoinSet::new();
        let end = shutdown.clone();
        tasks.spawn(async move {
            if let Err(error) = Admin::new(metrics, log).serve(port, end).await {
                tracing::error!(%error, "the admin port broke");
            }
        });
        tasks.spawn(layer.sweep(shutdown));
        tracing::info!(node = config.node, ?parts, "media node runs");
        let name = link_daemon::signal::termination().await?;
        tracing::info!(signal = name, "shutting down");
        trigger.shut_down();
        drain::join_all(tasks, std::time::Duration::from_secs(2)).await;
        Ok(())
    })
}
