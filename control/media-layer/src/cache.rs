//! Processed media on disk by key, and what is known about URLs.
//!
//! `prompts/ab/abcd….wav` holds the audio, `urls/abcd….json` what a URL led to and until when.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use link_proto::media::PromptKey;
use media_core::container::wav;
use media_core::units::SampleRate;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::freshness::Fields;
use crate::layer::Prompt;

/// Variants of one URL that are kept (RFC 9111 §4.1).
const VARIANTS_MAX: usize = 16;

/// What a URL led to, for requests with certain header fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UrlEntry {
    pub(crate) url: String,
    /// Of the request: the fields that the response names in `Vary`; absent is empty.
    pub(crate) selected_by: Fields,
    pub(crate) key: PromptKey,
    /// Of the response; freshened by 304 (RFC 9111 §3.2).
    pub(crate) fields: Fields,
    /// May be used without asking until then.
    pub(crate) fresh_until: SystemTime,
    /// May be used then while it is asked for again.
    pub(crate) refresh_until: SystemTime,
    /// May be used then if the origin fails.
    pub(crate) error_until: SystemTime,
}

impl UrlEntry {
    fn matches(&self, request: &Fields) -> bool {
        let value = |name: &String| request.get(name).map_or("", String::as_str);
        self.selected_by.iter().all(|(name, selected)| value(name) == selected)
    }
}

struct Entry {
    bytes: u64,
    duration_ms: u64,
    /// Rises with every use; the smallest goes first.
    used: u64,
    last_use: SystemTime,
    /// Removed then, whatever its use (`no-store`).
    until: Option<SystemTime>,
}

#[derive(Default)]
struct Index {
    entries: HashMap<PromptKey, Entry>,
    bytes: u64,
    uses: u64,
}

pub(crate) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// Nothing is removed that was used this recently: a call may be about to play it.
    grace: Duration,
    index: Mutex<Index>,
}

/// Lower-case hex SHA-256 of several parts, kept apart by their lengths.
pub(crate) fn key_of(parts: &[&[u8]]) -> PromptKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    PromptKey(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A key comes from the network and becomes a file name.
fn is_key(key: &PromptKey) -> bool {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    key.0.len() == 64 && key.0.bytes().all(hex)
}

impl Cache {
    pub(crate) fn open(folder: &Path, bytes_max: u64, grace: Duration) -> io::Result<Self> {
        fs::create_dir_all(folder.join("prompts"))?;
        fs::create_dir_all(folder.join("urls"))?;
        let cache = Self {
            folder: folder.to_owned(),
            bytes_max,
            grace,
            index: Mutex::new(Index::default()),
        };
        cache.scan()?;
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds what an earlier process has left, oldest use first.
    fn scan(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for folder in fs::read_dir(self.folder.join("prompts"))? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder)? {
                let path = file?.path();
                let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
                let key = PromptKey(stem.to_owned());
                if !is_key(&key) || path.extension().is_none_or(|e| e != "wav") {
                    // A temporary file of a process that was killed.
                    let _ = fs::remove_file(&path);
                    continue;
                }
                let data = fs::metadata(&path)?;
                found.push((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), key, data.len()));
            }
        }
        found.sort();
        let mut index = self.lock();
        for (last_use, key, bytes) in found {
            index.uses += 1;
            index.bytes += bytes;
            // 44 bytes of header, 16 bytes for each ms.
            let duration_ms = bytes.saturating_sub(44) / 16;
            let used = index.uses;
            index.entries.insert(key, Entry { bytes, duration_ms, used, last_use, until: None });
        }
        for file in fs::read_dir(self.folder.join("urls"))? {
            let path = file?.path();
            let variants: Vec<UrlEntry> = read_variants(&path);
            if !variants.iter().any(|entry| index.entries.contains_key(&entry.key)) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn path(&self, key: &PromptKey) -> PathBuf {
        let shard = key.0.get(..2).unwrap_or("00");
        self.folder.join("prompts").join(shard).join(format!("{}.wav", key.0))
    }

    /// A prompt that is kept; counts as a use.
    pub(crate) fn prompt(&self, key: &PromptKey) -> Option<Prompt> {
        let mut index = self.lock();
        index.uses += 1;
        let uses = index.uses;
        let entry = index.entries.get_mut(key)?;
        entry.used = uses;
        entry.last_use = SystemTime::now();
        Some(Prompt { key: key.clone(), duration_ms: entry.duration_ms, bytes: entry.bytes })
    }

    /// Keeps 8 kHz PCM. With `until` it is removed at that time.
    pub(crate) fn put(
        &self,
        key: &PromptKey,
        samples: &[i16],
        until: Option<SystemTime>,
    ) -> io::Result<Prompt> {
        let path = self.path(key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = wav::write_pcm16(SampleRate::HZ_8000, samples);
        write_whole(&path, &file)?;
        let duration_ms = SampleRate::HZ_8000.ms_of_samples(samples.len() as u64);
        let bytes = file.len() as u64;
        let mut index = self.lock();
        index.uses += 1;
        let (used, last_use) = (index.uses, SystemTime::now());
        let entry = Entry { bytes, duration_ms, used, last_use, until };
        let replaced = index.entries.insert(key.clone(), entry);
        // Content that somebody else lets us keep stays.
        if let Some(old) = &replaced
            && (old.until.is_none() || old.until > until)
            && until.is_some()
            && let Some(entry) = index.entries.get_mut(key)
        {
            entry.until = old.until;
        }
        index.bytes = index.bytes.saturating_sub(replaced.map_or(0, |e| e.bytes)) + bytes;
        drop(index);
        self.evict(last_use);
        Ok(Prompt { key: key.clone(), duration_ms, bytes })
    }

    /// Removes what must not be kept any longer, then the least recently used above the limit.
    pub(crate) fn evict(&self, now: SystemTime) {
        let mut index = self.lock();
        let over = |entry: &Entry| entry.until.is_some_and(|until| until <= now);
        let mut gone: Vec<PromptKey> =
            index.entries.iter().filter(|(_, e)| over(e)).map(|(key, _)| key.clone()).collect();
        if index.bytes > self.bytes_max {
            let idle = |e: &Entry| now.duration_since(e.last_use).is_ok_and(|age| age > self.grace);
            let mut unused: Vec<_> = index
                .entries
                .iter()
                .filter(|(_, entry)| idle(entry) && !over(entry))
                .map(|(key, entry)| (entry.used, entry.bytes, key.clone()))
                .collect();
            unused.sort();
            let mut excess = index.bytes - self.bytes_max;
            for (_, bytes, key) in unused {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(bytes);
                gone.push(key);
            }
        }
        for key in gone {
            if let Some(entry) = index.entries.remove(&key) {
                index.bytes = index.bytes.saturating_sub(entry.bytes);
            }
            let _ = fs::remove_file(self.path(&key));
        }
    }

    /// The file of a prompt.
    pub(crate) fn file(&self, key: &PromptKey) -> Option<PathBuf> {
        is_key(key).then(|| self.path(key)).filter(|_| self.prompt(key).is_some())
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// `format` = the media parameters of what is kept.
    fn url_path(&self, url: &str, format: &[u8]) -> PathBuf {
        self.folder.join("urls").join(format!("{}.json", key_of(&[url.as_bytes(), format]).0))
    }

    /// What is known about a URL for a request with these header fields, if its prompt is there.
    pub(crate) fn url(&self, url: &str, format: &[u8], request: &Fields) -> Option<UrlEntry> {
        let mut variants = read_variants(&self.url_path(url, format)).into_iter();
        variants.find(|e| e.url == url && e.matches(request) && self.prompt(&e.key).is_some())
    }

    /// Keeps an entry in the place of those that the same request would have found.
    pub(crate) fn put_url(
        &self,
        entry: &UrlEntry,
        format: &[u8],
        request: &Fields,
    ) -> io::Result<()> {
        let path = self.url_path(&entry.url, format);
        let mut variants = read_variants(&path);
        variants.retain(|old| old.url == entry.url && !old.matches(request));
        variants.insert(0, entry.clone());
        variants.truncate(VARIANTS_MAX);
        write_whole(&path, &serde_json::to_vec(&variants).map_err(io::Error::other)?)
    }

    pub(crate) fn forget_url(&self, url: &str, format: &[u8], request: &Fields) {
        let path = self.url_path(url, format);
        let mut variants = read_variants(&path);
        variants.retain(|old| old.url == url && !old.matches(request));
        let text = serde_json::to_vec(&variants).unwrap_or_default();
        if variants.is_empty() || write_whole(&path, &text).is_err() {
            let _ = fs::remove_file(&path);
        }
    }
}

fn read_variants(path: &Path) -> Vec<UrlEntry> {
    let text = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The file appears whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PromptKey {
        key_of(&[&[number]])
    }

    #[test]
    fn least_recently_used_go_first_and_the_rest_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let one = 44 + 8000 * 2;
        let cache = Cache::open(folder.path(), 3 * one, Duration::ZERO).unwrap();
        for number in 0..3 {
            cache.put(&key(number), &[1; 8000], None).unwrap();
        }
        assert_eq!(cache.prompt(&key(0)).unwrap().duration_ms, 1000);
        cache.put(&key(3), &[1; 8000], None).unwrap();
        cache.evict(SystemTime::now() + Duration::from_secs(1));
        assert!(cache.prompt(&key(1)).is_none());
        assert!(cache.file(&key(0)).is_some_and(|path| path.exists()));
        assert_eq!(cache.bytes(), 3 * one);
        fs::write(folder.path().join("prompts/x"), "junk").unwrap();
        drop(cache);

        let again = Cache::open(folder.path(), 3 * one, Duration::ZERO).unwrap();
        assert_eq!(again.prompt(&key(3)).unwrap().duration_ms, 1000);
        assert_eq!(again.bytes(), 3 * one);
    }

    #[test]
    fn what_must_not_be_kept_goes_and_recent_use_protects() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1, Duration::from_secs(60)).unwrap();
        let now = SystemTime::now();
        cache.put(&key(1), &[1; 80], Some(now + Duration::from_secs(30))).unwrap();
        cache.put(&key(2), &[1; 80], None).unwrap();
        assert!(cache.prompt(&key(1)).is_some() && cache.prompt(&key(2)).is_some());
        cache.evict(now + Duration::from_secs(31));
        assert!(cache.prompt(&key(1)).is_none() && cache.prompt(&key(2)).is_some());
        cache.evict(now + Duration::from_secs(120));
        assert!(cache.prompt(&key(2)).is_none());
    }

    #[test]
    fn keys_from_outside_never_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1000, Duration::ZERO).unwrap();
        for text in ["", "..", "../../etc/passwd", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(cache.file(&PromptKey(text.to_owned())), None, "{text}");
        }
    }
}
