//! Sends finished recordings to control, one after the other, again and again until control has
//! them on disk. What waits survives a restart: it is the `.done` files of the recording folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use link_daemon::drain::Shutdown;
use link_daemon::quic::stream::{Answer, upload};
use link_proto::message::RecordingHeader;
use tokio::sync::{Notify, watch};

use crate::link_client::Connections;

/// Pause after a failed upload.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// Runs until shutdown.
pub async fn run(
    folder: PathBuf,
    ready: Arc<Notify>,
    mut connections: watch::Receiver<Connections>,
    mut shutdown: Shutdown,
) {
    loop {
        let round = async {
            let connected = match connections.wait_for(|all| !all.is_empty()).await {
                Ok(connected) => connected.clone(),
                Err(_) => return,
            };
            let left = upload_all(&folder, &connected).await;
            let again = tokio::time::sleep(RETRY_EVERY);
            tokio::select! {
                () = ready.notified() => {}
                () = again, if left => {}
            }
        };
        tokio::select! {
            () = round => {}
            () = shutdown.requested() => return,
        }
    }
}

/// True if something is left to be tried again.
async fn upload_all(folder: &Path, connections: &Connections) -> bool {
    let mut left = false;
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return true };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let done = entry.path();
        if done.extension().is_none_or(|extension| extension != "done") {
            continue;
        }
        if let Err(error) = upload_one(&done, connections).await {
            let path = done.display();
            tracing::warn!(%path, error = format!("{error:#}"), "recording is not uploaded yet");
            left = true;
        }
    }
    left
}

async fn upload_one(done: &Path, connections: &Connections) -> anyhow::Result<()> {
    let bytes = tokio::fs::read(done).await?;
    let header = RecordingHeader::from_bytes(&bytes).map_err(anyhow::Error::msg)?;
    // It goes to the node that ordered it: no other knows what it is.
    let connection = match &header.control {
        Some(node) => connections.get(node.as_str()).with_context(|| format!("{node} is away"))?,
        None => connections.values().next().context("no control node")?,
    };
    let wav = done.with_extension("wav");
    let file = tokio::fs::File::open(&wav).await.with_context(|| wav.display().to_string())?;
    match upload(connection, &bytes, file).await? {
        Answer::Done(()) => {
            tokio::fs::remove_file(&wav).await?;
            tokio::fs::remove_file(done).await?;
            tracing::info!(recording = %header.recording, "recording uploaded");
        }
        Answer::Refused(why) => {
            // Kept under another name for a person to look at; repeating does not help.
            tracing::error!(recording = %header.recording, why, "control refused the recording");
            tokio::fs::rename(done, done.with_extension("refused")).await?;
        }
    }
    Ok(())
}
