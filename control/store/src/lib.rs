//! The durable state of control: one SQLite database in WAL mode, one thread that writes.
//!
//! Writers hand over [`Job`]s: lists of typed [`StoreOp`]s that happen together or not at all. The
//! store thread takes everything that waits into one transaction, commits it, and only then tells
//! each job that it is done (*commit before act*). A job that breaks a rule fails alone; the others
//! of its transaction go on.
//!
//! Readers use connections of their own and never wait for the writer. SQL stays inside this
//! crate.
//!
//! ```no_run
//! use control_store::{Durability, Job, Store, StoreConfig, StoreOp};
//! let store = Store::open(&StoreConfig::at("control.db"))?;
//! store.commit(Durability::Synced, vec![StoreOp::PutFact { name: "n".into(), value: "v".into() }])?;
//! assert_eq!(store.reader().fact("n")?.as_deref(), Some("v"));
//! # Ok::<(), control_store::StoreError>(())
//! ```

mod apply;
mod error;
mod migrate;
mod op;
mod page;
mod read;
mod row;
mod writer;

pub use error::StoreError;
pub use op::{Kept, StoreOp};
pub use page::{Page, PageOf, PageToken};
pub use read::{AlertFilter, CallFilter, NumberFilter, Reader, RecordingFilter, TimeRange};
pub use row::{
    Account, Alert, ApiKey, Application, Call, Callback, CallbackState, IncomingPhoneNumber,
    OutgoingCallerId, Recording, RequestLogEntry, Session, TimelineEntry,
};
pub use writer::{Durability, Job, Store, StoreConfig, StoreStats};
