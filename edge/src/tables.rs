//! The tables that control pushed, kept on disk for the next start without control (LAT-15).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use link_proto::table::Tables;

/// Saves tables one after the other, the newest last, whatever threads the saves run on: control
/// pushes twice in a row when an edge connects.
#[derive(Debug)]
pub struct TablesFile {
    path: PathBuf,
    /// Version on disk, as far as this process has written it.
    saved: Mutex<Option<u64>>,
}

impl TablesFile {
    /// The file at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, saved: Mutex::default() }
    }

    /// Writes the tables unless newer ones were written before.
    ///
    /// # Errors
    /// Of the file system, with the path.
    pub fn save(&self, tables: &Tables) -> anyhow::Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.is_some_and(|version| version > tables.version) {
            return Ok(());
        }
        save(&self.path, tables).with_context(|| self.path.display().to_string())?;
        *saved = Some(tables.version);
        Ok(())
    }
}

/// Writes through a temporary file, so that a crash leaves the old or the new tables.
///
/// # Errors
/// Of the file system.
fn save(path: &Path, tables: &Tables) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_vec_pretty(tables)?)?;
    std::fs::File::open(&part)?.sync_all()?;
    std::fs::rename(&part, path)?;
    Ok(())
}

/// What was saved; `None` on the first start.
///
/// # Errors
/// If there is a file that cannot be read or understood.
pub fn load(path: &Path) -> anyhow::Result<Option<Tables>> {
    let shown = || format!("{}: remove it to start without tables", path.display());
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(shown)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_survive_and_broken_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.json");
        assert_eq!(load(&path).unwrap(), None);
        let tables = Tables { version: 7, ..Tables::default() };
        save(&path, &tables).unwrap();
        assert_eq!(load(&path).unwrap(), Some(tables));
        let file = TablesFile::new(path.clone());
        let version = |version| Tables { version, ..Tables::default() };
        for n in [3, 9, 8] {
            file.save(&version(n)).unwrap();
        }
        assert_eq!(load(&path).unwrap(), Some(version(9)), "an older table came late");
        std::fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", load(&path).unwrap_err()).contains("tables.json"));
    }
}
