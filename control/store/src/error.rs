//! What can go wrong in the store.

/// Why a job or a query failed. Cloneable, because one failed commit fails many jobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The bounded queue is full: the caller must refuse new work.
    #[error("the store's queue is full")]
    QueueFull,
    /// The store thread has ended.
    #[error("the store is closed")]
    Closed,
    /// No space on the device, or the configured size is reached.
    #[error("the store's disk is full")]
    DiskFull,
    /// Another owner with a higher takeover epoch has written this session.
    #[error("session {sid} was written with epoch {stored}, later than {given}")]
    StaleEpoch {
        /// The session.
        sid: String,
        /// Epoch in the store.
        stored: u64,
        /// Epoch of the refused write.
        given: u64,
    },
    /// A uniqueness rule, for example a phone number that already exists.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The database was written by a later version of this program.
    #[error("the database has schema version {found}, this program knows up to {known}")]
    SchemaTooNew {
        /// Version in the file.
        found: u32,
        /// Latest version known.
        known: u32,
    },
    /// Anything else that SQLite reports.
    #[error("database: {0}")]
    Database(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::ConstraintViolation) => Self::Conflict(error.to_string()),
            _ => Self::Database(error.to_string()),
        }
    }
}
