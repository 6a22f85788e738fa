//! What is old goes: rows and recordings beyond their time, files that belong to nothing, and calls
//! that nobody carries on with any more. Everything happens in small batches through the store's one
//! writer, with pauses, so that calls never wait for it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use control_media_layer::transcode::Format;
use control_store::{Durability, Job, Kept, Recording, Store, StoreError, StoreOp};
use link_daemon::clock;
use link_daemon::drain::Shutdown;
use tokio::sync::oneshot;

use crate::assemble::DirectorySource;

/// How long what is kept. Days; 0 = for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Calls.
    pub calls_days: u32,
    /// Recordings with their audio.
    pub recordings_days: u32,
    /// Alerts.
    pub alerts_days: u32,
    /// Requests to customers' servers, timelines, callbacks that are done.
    pub log_days: u32,
    /// Time between two passes.
    pub every: Duration,
}

/// The first pass does not wait longer.
const FIRST_AFTER_MAX: Duration = Duration::from_secs(30);
/// Rows of one transaction.
const BATCH_ROWS: u32 = 500;
/// Pause after a transaction.
const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// A file without a row is left alone for this long: its row may be on its way.
const ORPHAN_AGE: Duration = Duration::from_secs(86_400);
const DAY_MS: i64 = 86_400_000;

/// Cleans up until shutdown, by the retention that the configuration has at that time.
pub(crate) async fn run(
    store: Store,
    directory: DirectorySource,
    recordings: PathBuf,
    mut shutdown: Shutdown,
) {
    // A start has other things to do.
    let mut wait = directory.config().retention.every.min(FIRST_AFTER_MAX);
    loop {
        let work = async {
            tokio::time::sleep(wait).await;
            let retention = directory.config().retention.clone();
            match pass(&store, &retention, &recordings, now_ms()).await {
                Ok(done) if done == Pass::default() => {}
                Ok(done) => tracing::info!(
                    batches = done.batches,
                    recordings = done.recordings,
                    files = done.files,
                    lost_calls = done.lost_calls,
                    "housekeeping removed what is old"
                ),
                Err(error) => tracing::error!(%error, "housekeeping will try again"),
            }
            retention.every
        };
        wait = tokio::select! {
            () = shutdown.requested() => return,
            every = work => every,
        };
    }
}

/// What one pass has done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pass {
    /// Transactions that removed rows.
    batches: u64,
    recordings: u64,
    files: u64,
    lost_calls: u64,
}

async fn pass(
    store: &Store,
    retention: &Retention,
    folder: &Path,
    now_ms: i64,
) -> Result<Pass, StoreError> {
    let mut done = Pass::default();
    let lost = blocking(store, |store| store.reader().calls_lost()).await?;
    done.lost_calls = lost.len() as u64;
    for sid in lost {
        tracing::warn!(call = sid, "nobody carries on with this call; it is ended");
        write(store, vec![StoreOp::EndLostCall { sid, at_ms: now_ms }]).await?;
    }
    for kept in Kept::ALL {
        let days = match kept {
            Kept::Calls => retention.calls_days,
            Kept::Alerts => retention.alerts_days,
            Kept::Callbacks | Kept::RequestLog | Kept::Timeline => retention.log_days,
        };
        let Some(before_ms) = border(days, now_ms) else { continue };
        while blocking(store, move |store| store.reader().has_older(kept, before_ms)).await? {
            write(store, vec![StoreOp::Prune { kept, before_ms, rows_max: BATCH_ROWS }]).await?;
            done.batches += 1;
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }
    if let Some(before_ms) = border(retention.recordings_days, now_ms) {
        let old = move |store: &Store| store.reader().recordings_before(before_ms, BATCH_ROWS);
        loop {
            let rows = blocking(store, old).await?;
            if rows.is_empty() {
                break;
            }
            done.recordings += rows.len() as u64;
            remove_recordings(store, rows).await?;
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }
    let folder = folder.to_owned();
    done.files = blocking(store, move |store| remove_orphans(store, &folder)).await?;
    Ok(done)
}

/// What is older than this may go.
fn border(days: u32, now_ms: i64) -> Option<i64> {
    (days > 0).then(|| now_ms.saturating_sub(i64::from(days).saturating_mul(DAY_MS)))
}

/// Files first: what is cut short is done again.
async fn remove_recordings(store: &Store, rows: Vec<Recording>) -> Result<(), StoreError> {
    let removed = blocking(store, move |_| {
        let gone = rows.into_iter().filter(|row| row.path.as_deref().is_none_or(remove_files));
        Ok(gone.map(|row| StoreOp::DeleteRecording { sid: row.sid }).collect::<Vec<_>>())
    });
    let ops = removed.await?;
    if ops.is_empty() {
        let message = "recordings that are too old cannot be removed from the disk";
        return Err(StoreError::Database(message.into()));
    }
    write(store, ops).await
}

/// Removes a recording's audio in all its formats; whether it is gone.
pub(crate) fn remove_files(path: &str) -> bool {
    let formats = [Format::Mp3, Format::Opus].map(|format| format.to_string());
    let converted = formats.iter().map(|format| Path::new(path).with_extension(format));
    let mut gone = true;
    for path in converted.chain([PathBuf::from(path)]) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a recording's file stays");
                gone = false;
            }
            _ => {}
        }
    }
    gone
}

/// Audio of recordings that were deleted, left behind by a process that was killed meanwhile.
fn remove_orphans(store: &Store, folder: &Path) -> Result<u64, StoreError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(0) };
    let border = SystemTime::now().checked_sub(ORPHAN_AGE);
    let mut known: HashSet<String> = HashSet::new();
    let mut removed = 0;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((sid, _)) = name.split_once('.') else { continue };
        let changed = entry.metadata().and_then(|file| file.modified()).ok();
        let old = changed.zip(border).is_some_and(|(changed, border)| changed < border);
        let is_recording = sid.parse::<link_proto::RecordingSid>().is_ok();
        if !old || !is_recording || known.contains(sid) {
            continue;
        }
        if store.reader().recording(sid)?.is_some() {
            known.insert(sid.to_owned());
        } else if std::fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = store.clone();
    let result = tokio::task::spawn_blocking(move || work(&store)).await;
    result.unwrap_or(Err(StoreError::Closed))
}

/// One transaction of its own; it may be lost in a power cut and is done again then.
async fn write(store: &Store, ops: Vec<StoreOp>) -> Result<(), StoreError> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| {
        let _ = sender.send(result);
    });
    store.submit(Job { ops, durability: Durability::Process, done })?;
    receiver.await.unwrap_or(Err(StoreError::Closed))
}

fn now_ms() -> i64 {
    i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use control_store::{Call, CallFilter, Page, StoreConfig, TimelineEntry};

    use super::*;

    fn retention() -> Retention {
        Retention {
            calls_days: 400,
            recordings_days: 10,
            alerts_days: 30,
            log_days: 30,
            every: Duration::from_secs(3_600),
        }
    }

    fn call(number: i64, created_ms: i64) -> StoreOp {
        StoreOp::PutCall(Call {
            sid: format!("CA{number}"),
            account_sid: "AC1".into(),
            session_sid: format!("CA{number}"),
            status: "completed".into(),
            created_ms,
            end_ms: Some(created_ms),
            ..Call::default()
        })
    }

    fn recording(folder: &Path, number: i64, created_ms: i64) -> StoreOp {
        let sid = format!("RE{number:032x}");
        let path = folder.join(format!("{sid}.wav"));
        for format in ["wav", "mp3"] {
            std::fs::write(path.with_extension(format), b"RIFF").unwrap();
        }
        StoreOp::PutRecording(Recording {
            sid,
            account_sid: "AC1".into(),
            call_sid: "CA1".into(),
            status: "completed".into(),
            path: Some(path.to_string_lossy().into_owned()),
            created_ms,
            ..Recording::default()
        })
    }

    #[tokio::test]
    async fn a_pass_removes_what_is_old_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::at(folder.path().join("control.db"))).unwrap();
        let now_ms = 1_000 * DAY_MS;
        let ago = |days: i64| now_ms - days * DAY_MS;
        // More than one batch.
        let mut ops: Vec<StoreOp> = (0..1_203).map(|number| call(number, ago(401))).collect();
        ops.push(call(5_000, ago(399)));
        for (sequence, days) in [(0, 31), (1, 29)] {
            ops.push(StoreOp::AddTimeline(TimelineEntry {
                session_sid: "CA1".into(),
                sequence,
                leg_sid: None,
                at_ms: ago(days),
                body: String::new(),
            }));
        }
        ops.push(StoreOp::PutCall(Call {
            sid: "CA6000".into(),
            account_sid: "AC1".into(),
            session_sid: "CA6000".into(),
            status: "in-progress".into(),
            created_ms: ago(1),
            answered_ms: Some(ago(1)),
            ..Call::default()
        }));
        ops.push(recording(folder.path(), 1, ago(11)));
        ops.push(recording(folder.path(), 2, ago(9)));
        store.commit(Durability::Process, ops).unwrap();
        let orphan = folder.path().join(format!("RE{:032x}.wav", 3));
        let file = std::fs::File::create(&orphan).unwrap();
        let young = folder.path().join(format!("RE{:032x}.wav", 4));
        std::fs::write(&young, b"RIFF").unwrap();
        file.set_modified(SystemTime::now() - ORPHAN_AGE * 2).unwrap();

        let done = pass(&store, &retention(), folder.path(), now_ms).await.unwrap();
        let expected = Pass { batches: 4, recordings: 1, files: 1, lost_calls: 1 };
        assert_eq!(done, expected, "1,203 calls in three batches, timeline in one");
        let calls = store.reader().calls("AC1", &CallFilter::default(), &Page::first(10)).unwrap();
        let calls: Vec<&str> = calls.items.iter().map(|call| call.sid.as_str()).collect();
        assert_eq!(calls, ["CA6000", "CA5000"]);
        assert_eq!(store.reader().timeline("CA1").unwrap().len(), 1);
        let lost = store.reader().call("CA6000").unwrap().unwrap();
        assert_eq!((lost.status.as_str(), lost.duration_s), ("completed", Some(86_400)));
        let exists = |number: i64, format: &str| {
            folder.path().join(format!("RE{number:032x}.{format}")).exists()
        };
        assert!(!exists(1, "wav") && !exists(1, "mp3") && !orphan.exists());
        assert!(exists(2, "wav") && exists(2, "mp3") && young.exists());

        let again = pass(&store, &retention(), folder.path(), now_ms).await.unwrap();
        assert_eq!(again, Pass::default());
        // Nothing is too old when everything is kept for ever.
        let for_ever = Retention {
            calls_days: 0,
            recordings_days: 0,
            alerts_days: 0,
            log_days: 0,
            ..retention()
        };
        let later = now_ms + 100_000 * DAY_MS;
        let again = pass(&store, &for_ever, folder.path(), later).await.unwrap();
        assert_eq!(again, Pass::default());
    }
}
