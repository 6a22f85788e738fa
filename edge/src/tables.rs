//! The tables that control pushed, kept on disk for the next start without control (LAT-15).

use std::path::Path;

use anyhow::Context as _;
use link_proto::table::Tables;

/// Writes through a temporary file, so that a crash leaves the old or the new tables.
///
/// # Errors
/// Of the file system.
pub fn save(path: &Path, tables: &Tables) -> anyhow::Result<()> {
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
        std::fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", load(&path).unwrap_err()).contains("tables.json"));
    }
}
