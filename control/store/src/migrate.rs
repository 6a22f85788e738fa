//! Schema versions: `schema/NNNN_*.sql` in order, the version in `PRAGMA user_version`.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

/// Version `n` is reached by the `n`-th entry.
const MIGRATIONS: &[&str] = &[
    include_str!("../schema/0001_initial.sql"),
    include_str!("../schema/0002_request_log.sql"),
    include_str!("../schema/0003_webhooks.sql"),
    include_str!("../schema/0004_caller_ids.sql"),
    include_str!("../schema/0005_keys_and_retention.sql"),
];

/// Latest schema version of this program.
pub(crate) fn latest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Version of an open database; 0 = empty.
pub(crate) fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Brings a database up to version `target`, each step in a transaction of its own.
pub(crate) fn migrate(connection: &mut Connection, target: u32) -> Result<(), StoreError> {
    let found = version(connection)?;
    if found > latest() {
        return Err(StoreError::SchemaTooNew { found, known: latest() });
    }
    for (step, sql) in (1u32..).zip(MIGRATIONS).filter(|(step, _)| *step > found && *step <= target)
    {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
        tracing::info!(version = step, "store schema migrated");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_empty_from_version_one_and_again() {
        let mut fresh = Connection::open_in_memory().unwrap();
        migrate(&mut fresh, latest()).unwrap();
        assert_eq!(version(&fresh).unwrap(), latest());
        migrate(&mut fresh, latest()).unwrap();

        let mut old = Connection::open_in_memory().unwrap();
        migrate(&mut old, 1).unwrap();
        assert_eq!(version(&old).unwrap(), 1);
        assert!(old.execute("INSERT INTO facts VALUES ('a', 'b')", []).is_err());
        old.execute(
            "INSERT INTO timeline (session_sid, sequence, at_ms, body) VALUES ('CA', 0, 1, '')",
            [],
        )
        .unwrap();
        migrate(&mut old, latest()).unwrap();
        old.execute("INSERT INTO facts VALUES ('a', 'b')", []).unwrap();
        let kept: i64 =
            old.query_row("SELECT count(*) FROM timeline", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 1);
    }

    #[test]
    fn later_versions_are_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 900).unwrap();
        assert_eq!(
            migrate(&mut connection, latest()),
            Err(StoreError::SchemaTooNew { found: 900, known: latest() })
        );
    }
}
