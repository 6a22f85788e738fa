//! Prompts that this edge plays: in memory while used, on disk for the next start, fetched once
//! from control (MED-09). The key is a hash of the content's origin and parameters, so an entry
//! never changes and never expires; the least recently used ones make room.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use edge_media::command::Prompt;
use link_daemon::quic::stream::{Answer, fetch};
use link_proto::media::PromptKey;
use tokio::sync::{Mutex, watch};

use crate::link_client::Connections;

/// Longest prompt in bytes: an hour of 16-bit samples at 8 kHz.
const PROMPT_BYTES_MAX: usize = 8_000 * 2 * 3_600 + 4_096;
/// How long a fetch waits for a link and for the bytes.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(8);

type Entry = Arc<Mutex<Option<Arc<Prompt>>>>;

/// The cache. Clones share it.
#[derive(Clone)]
pub struct PromptCache {
    folder: PathBuf,
    samples_max: usize,
    entries: Arc<Mutex<Entries>>,
    connections: watch::Receiver<Connections>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<PromptKey, (Entry, u64)>,
    clock: u64,
}

impl PromptCache {
    /// Keeps files in `folder` and at most `samples_max` samples in memory.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(
        folder: &Path,
        samples_max: usize,
        connections: watch::Receiver<Connections>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let entries = Arc::default();
        Ok(Self { folder: folder.to_owned(), samples_max, entries, connections })
    }

    /// The prompt from memory, disk or control. Requests for one key at the same time share one
    /// fetch.
    ///
    /// # Errors
    /// In words, for the alert.
    pub async fn get(&self, key: &PromptKey) -> anyhow::Result<Arc<Prompt>> {
        let name = &key.0;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("{name:?} is no prompt key");
        }
        let entry = self.entry(key).await;
        let mut slot = entry.lock().await;
        if let Some(prompt) = slot.as_ref() {
            return Ok(prompt.clone());
        }
        let path = self.folder.join(format!("{name}.wav"));
        let prompt = match tokio::fs::read(&path).await {
            Ok(bytes) => decode(&bytes).with_context(|| path.display().to_string()),
            Err(_) => self.fetch(key, &path).await,
        };
        let prompt = match prompt {
            Ok(prompt) => Arc::new(prompt),
            Err(error) => {
                // A file that cannot be used would fail for ever.
                let _ = tokio::fs::remove_file(&path).await;
                return Err(error);
            }
        };
        *slot = Some(prompt.clone());
        drop(slot);
        self.make_room(key).await;
        Ok(prompt)
    }

    async fn entry(&self, key: &PromptKey) -> Entry {
        let mut entries = self.entries.lock().await;
        entries.clock += 1;
        let now = entries.clock;
        let (entry, used) = entries.by_key.entry(key.clone()).or_default();
        *used = now;
        entry.clone()
    }

    async fn fetch(&self, key: &PromptKey, path: &Path) -> anyhow::Result<Prompt> {
        let mut connections = self.connections.clone();
        let bytes = tokio::time::timeout(FETCH_WAIT_MAX, async {
            let connected = connections.wait_for(|all| !all.is_empty()).await;
            let connected = connected.context("shutting down")?.clone();
            // The key is a hash of what it names: whoever has it will do.
            let mut failed = String::new();
            for (node, connection) in connected {
                match fetch(&connection, &key.0, PROMPT_BYTES_MAX).await {
                    Ok(Answer::Done(bytes)) => return Ok(bytes),
                    Ok(Answer::Refused(why)) => {
                        failed = format!("{node} has no such prompt: {why}");
                    }
                    Err(error) => failed = format!("{node}: {error:#}"),
                }
            }
            bail!("{failed}")
        });
        let bytes = bytes.await.context("prompt did not arrive in time")??;
        let prompt = decode(&bytes)?;
        let part = path.with_extension("part");
        // The cache on disk is an advantage, not a promise: a full disk does not stop the call.
        if let Err(error) = tokio::fs::write(&part, &bytes).await {
            tracing::warn!(path = %part.display(), %error, "prompt is not kept on disk");
        } else if let Err(error) = tokio::fs::rename(&part, path).await {
            tracing::warn!(path = %path.display(), %error, "prompt is not kept on disk");
        }
        Ok(prompt)
    }

    /// Drops the least recently used prompts from memory until the rest fits; they stay on disk.
    async fn make_room(&self, keep: &PromptKey) {
        let mut entries = self.entries.lock().await;
        loop {
            let mut total = 0;
            let mut oldest: Option<(u64, PromptKey)> = None;
            for (key, (entry, used)) in &entries.by_key {
                let Ok(slot) = entry.try_lock() else { continue };
                let Some(prompt) = slot.as_ref() else { continue };
                total += prompt.samples.len();
                let older = oldest.as_ref().is_none_or(|(least, _)| used < least);
                if key != keep && older {
                    oldest = Some((*used, key.clone()));
                }
            }
            match oldest {
                Some((_, key)) if total > self.samples_max => entries.by_key.remove(&key),
                _ => return,
            };
        }
    }
}

/// 16-bit mono WAV at 8,000 Hz, as the media layer hands it out.
fn decode(bytes: &[u8]) -> anyhow::Result<Prompt> {
    let mut reader = hound::WavReader::new(bytes).context("prompt is no WAV file")?;
    let spec = reader.spec();
    if spec.channels != 1 || spec.sample_rate != 8_000 || spec.bits_per_sample != 16 {
        bail!("prompt is {spec:?}, not 16-bit mono at 8000 Hz");
    }
    let samples: Result<Vec<i16>, _> = reader.samples::<i16>().collect();
    Ok(Prompt { samples: samples.context("prompt is cut short")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(rate: u32, samples: &[i16]) -> Vec<u8> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for sample in samples {
            writer.write_sample(*sample).unwrap();
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[tokio::test]
    async fn prompts_come_from_disk_and_bad_files_do_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (_keep, connection) = watch::channel(Connections::new());
        let cache = PromptCache::new(folder.path(), 150, connection).unwrap();
        for (name, rate) in [("aa", 8_000), ("bb", 8_000), ("cc", 16_000)] {
            let path = folder.path().join(format!("{name}.wav"));
            std::fs::write(path, wav(rate, &[7; 100])).unwrap();
        }
        let key = |name: &str| PromptKey(name.to_owned());
        assert_eq!(cache.get(&key("aa")).await.unwrap().samples, vec![7; 100]);
        assert_eq!(cache.get(&key("bb")).await.unwrap().samples.len(), 100);
        assert_eq!(cache.entries.lock().await.by_key.len(), 1, "only 150 samples fit");
        assert!(cache.get(&key("cc")).await.is_err());
        assert!(!folder.path().join("cc.wav").exists());
        for name in ["", "../../etc/passwd", "zz"] {
            assert!(cache.get(&key(name)).await.is_err(), "{name}");
        }
    }
}
