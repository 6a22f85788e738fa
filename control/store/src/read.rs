//! Queries. A small pool of read-only connections; WAL lets them run beside the writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, ToSql, params};

use crate::error::StoreError;
use crate::op::Kept;
use crate::page::{Page, PageOf, PageToken};
use crate::row::{
    Account, Alert, ApiKey, Application, Call, Callback, CallbackState, IncomingPhoneNumber,
    OutgoingCallerId, Recording, RequestLogEntry, Session, SidTable, TimelineEntry,
};

/// A range of times in ms since 1970; both borders belong to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// Not earlier.
    pub from_ms: Option<i64>,
    /// Not later.
    pub to_ms: Option<i64>,
}

/// Which calls to list. Empty fields match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Called party.
    pub to: Option<String>,
    /// Calling party.
    pub from: Option<String>,
    /// The leg that dialled it.
    pub parent_call_sid: Option<String>,
    /// Session.
    pub session_sid: Option<String>,
    /// State.
    pub status: Option<String>,
    /// Start.
    pub start: TimeRange,
    /// End.
    pub end: TimeRange,
}

/// Which numbers to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberFilter {
    /// A part of the number.
    pub phone_number: Option<String>,
    /// The whole name.
    pub friendly_name: Option<String>,
}

/// Which recordings to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordingFilter {
    /// Leg.
    pub call_sid: Option<String>,
    /// Conference.
    pub conference_sid: Option<String>,
    /// When it was made.
    pub created: TimeRange,
}

/// Which alerts to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// Call.
    pub call_sid: Option<String>,
    /// 0 = errors, 1 = warnings.
    pub log: Option<i64>,
    /// When it was made.
    pub created: TimeRange,
}

/// Reads the store. Cheap to clone. Every method blocks for the time of one query: asynchronous
/// callers use a blocking thread.
#[derive(Clone)]
pub struct Reader {
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    idle_max: usize,
}

impl Reader {
    pub(crate) fn new(path: &Path, idle_max: usize) -> Self {
        let pool = Pool { path: path.to_owned(), idle: Mutex::new(Vec::new()), idle_max };
        Self { pool: Arc::new(pool) }
    }

    fn with<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_read_only(&self.pool.path)?,
        };
        let result = query(&connection);
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.pool.idle_max {
            idle.push(connection);
        }
        Ok(result?)
    }

    fn by_sid<T: SidTable>(&self, sid: &str) -> Result<Option<T>, StoreError> {
        self.with(|connection| {
            let sql = format!("SELECT * FROM {} WHERE sid = ?1", T::TABLE);
            connection.prepare_cached(&sql)?.query_row([sid], T::from_row).optional()
        })
    }

    /// An account.
    pub fn account(&self, sid: &str) -> Result<Option<Account>, StoreError> {
        self.by_sid(sid)
    }

    /// Every account.
    pub fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.with(|connection| all(connection, "SELECT * FROM accounts ORDER BY sid"))
    }

    /// An account and its subaccounts, by name and state; a subaccount has only itself.
    pub fn accounts_of(
        &self,
        owner: &str,
        friendly_name: Option<&str>,
        status: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<Account>, StoreError> {
        let mut list = Where::default();
        list.add("(owner_account_sid = ? OR sid = ?)", owner.to_owned());
        list.equal("friendly_name", friendly_name);
        list.equal("status", status);
        self.with(|connection| list.page(connection, page))
    }

    /// A number by its SID.
    pub fn number(&self, sid: &str) -> Result<Option<IncomingPhoneNumber>, StoreError> {
        self.by_sid(sid)
    }

    /// Every number of every account.
    pub fn numbers_all(&self) -> Result<Vec<IncomingPhoneNumber>, StoreError> {
        self.with(|connection| all(connection, "SELECT * FROM incoming_phone_numbers ORDER BY sid"))
    }

    /// Numbers of an account.
    pub fn numbers(
        &self,
        account: &str,
        filter: &NumberFilter,
        page: &Page,
    ) -> Result<PageOf<IncomingPhoneNumber>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        list.contains("phone_number", filter.phone_number.as_deref());
        list.equal("friendly_name", filter.friendly_name.as_deref());
        self.with(|connection| list.page(connection, page))
    }

    /// A verified caller id.
    pub fn caller_id(&self, sid: &str) -> Result<Option<OutgoingCallerId>, StoreError> {
        self.by_sid(sid)
    }

    /// Every verified caller id of every account.
    pub fn caller_ids_all(&self) -> Result<Vec<OutgoingCallerId>, StoreError> {
        self.with(|connection| all(connection, "SELECT * FROM outgoing_caller_ids ORDER BY sid"))
    }

    /// Verified caller ids of an account.
    pub fn caller_ids(
        &self,
        account: &str,
        filter: &NumberFilter,
        page: &Page,
    ) -> Result<PageOf<OutgoingCallerId>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        list.contains("phone_number", filter.phone_number.as_deref());
        list.equal("friendly_name", filter.friendly_name.as_deref());
        self.with(|connection| list.page(connection, page))
    }

    /// An API key.
    pub fn api_key(&self, sid: &str) -> Result<Option<ApiKey>, StoreError> {
        self.by_sid(sid)
    }

    /// API keys of an account.
    pub fn api_keys(&self, account: &str, page: &Page) -> Result<PageOf<ApiKey>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        self.with(|connection| list.page(connection, page))
    }

    /// An application.
    pub fn application(&self, sid: &str) -> Result<Option<Application>, StoreError> {
        self.by_sid(sid)
    }

    /// Every application of every account.
    pub fn applications_all(&self) -> Result<Vec<Application>, StoreError> {
        self.with(|connection| all(connection, "SELECT * FROM applications ORDER BY sid"))
    }

    /// Applications of an account.
    pub fn applications(
        &self,
        account: &str,
        friendly_name: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<Application>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        list.equal("friendly_name", friendly_name);
        self.with(|connection| list.page(connection, page))
    }

    /// A call.
    pub fn call(&self, sid: &str) -> Result<Option<Call>, StoreError> {
        self.by_sid(sid)
    }

    /// Calls of an account.
    pub fn calls(
        &self,
        account: &str,
        filter: &CallFilter,
        page: &Page,
    ) -> Result<PageOf<Call>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        list.equal("to_", filter.to.as_deref());
        list.equal("from_", filter.from.as_deref());
        list.equal("parent_call_sid", filter.parent_call_sid.as_deref());
        list.equal("session_sid", filter.session_sid.as_deref());
        list.equal("status", filter.status.as_deref());
        list.range("start_ms", filter.start);
        list.range("end_ms", filter.end);
        self.with(|connection| list.page(connection, page))
    }

    /// Calls in one of the states that are not final, of every account.
    pub fn calls_unfinished(&self) -> Result<Vec<Call>, StoreError> {
        self.with(|connection| {
            all(
                connection,
                "SELECT * FROM calls WHERE status IN ('queued', 'ringing', 'in-progress')
                 ORDER BY created_ms, sid",
            )
        })
    }

    /// Calls without an end whose session is not there: nobody carries on with them.
    pub fn calls_lost(&self) -> Result<Vec<String>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sid FROM calls WHERE status IN ('queued', 'ringing', 'in-progress')
                 AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.sid = calls.session_sid)",
            )?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Whether [`StoreOp::Prune`](crate::StoreOp::Prune) would find anything.
    pub fn has_older(&self, kept: Kept, before_ms: i64) -> Result<bool, StoreError> {
        self.with(|connection| {
            let (_, _, rows) = kept.sql();
            connection.prepare_cached(rows)?.exists(params![before_ms, 1])
        })
    }

    /// Finished recordings of every account that are older, oldest first.
    pub fn recordings_before(
        &self,
        before_ms: i64,
        limit: u32,
    ) -> Result<Vec<Recording>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM recordings WHERE created_ms < ?1
                 AND status NOT IN ('in-progress', 'paused', 'processing')
                 ORDER BY created_ms LIMIT ?2",
            )?;
            statement.query_map(params![before_ms, limit], Recording::from_row)?.collect()
        })
    }

    /// A recording.
    pub fn recording(&self, sid: &str) -> Result<Option<Recording>, StoreError> {
        self.by_sid(sid)
    }

    /// Recordings of an account.
    pub fn recordings(
        &self,
        account: &str,
        filter: &RecordingFilter,
        page: &Page,
    ) -> Result<PageOf<Recording>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        list.equal("call_sid", filter.call_sid.as_deref());
        list.equal("conference_sid", filter.conference_sid.as_deref());
        list.range("created_ms", filter.created);
        self.with(|connection| list.page(connection, page))
    }

    /// An alert.
    pub fn alert(&self, sid: &str) -> Result<Option<Alert>, StoreError> {
        self.by_sid(sid)
    }

    /// Alerts of an account.
    pub fn alerts(
        &self,
        account: &str,
        filter: &AlertFilter,
        page: &Page,
    ) -> Result<PageOf<Alert>, StoreError> {
        let mut list = Where::default();
        list.equal("account_sid", Some(account));
        list.equal("call_sid", filter.call_sid.as_deref());
        list.number("log", filter.log);
        list.range("created_ms", filter.created);
        self.with(|connection| list.page(connection, page))
    }

    /// Every live session, as its owner wrote it.
    pub fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT sid, epoch, body FROM sessions ORDER BY sid")?;
            let rows = statement.query_map([], |row| {
                let epoch: i64 = row.get(1)?;
                let epoch = u64::try_from(epoch).unwrap_or(0);
                Ok(Session { sid: row.get(0)?, epoch, body: row.get(2)? })
            })?;
            rows.collect()
        })
    }

    /// Callbacks to be delivered, oldest first, with an `id` above `after`.
    pub fn outbox_pending(&self, after: i64, limit: u32) -> Result<Vec<Callback>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM outbox WHERE state = 'pending' AND id > ?1 ORDER BY id LIMIT ?2",
            )?;
            statement.query_map(params![after, limit], callback)?.collect()
        })
    }

    /// Every callback of a call in order, whatever its state.
    pub fn outbox_of(&self, call_sid: &str) -> Result<Vec<Callback>, StoreError> {
        self.with(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT * FROM outbox WHERE call_sid = ?1 ORDER BY id")?;
            statement.query_map([call_sid], callback)?.collect()
        })
    }

    /// How many callbacks wait.
    pub fn outbox_pending_count(&self) -> Result<u64, StoreError> {
        self.with(|connection| {
            let sql = "SELECT count(*) FROM outbox WHERE state = 'pending'";
            let count: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
    }

    /// The timeline of a session.
    pub fn timeline(&self, session_sid: &str) -> Result<Vec<TimelineEntry>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM timeline WHERE session_sid = ?1 ORDER BY sequence",
            )?;
            let rows = statement.query_map([session_sid], |row| {
                Ok(TimelineEntry {
                    session_sid: row.get("session_sid")?,
                    sequence: row.get("sequence")?,
                    leg_sid: row.get("leg_sid")?,
                    at_ms: row.get("at_ms")?,
                    body: row.get("body")?,
                })
            })?;
            rows.collect()
        })
    }

    /// Requests made on behalf of a call in order; `number * size` are skipped.
    pub fn request_log(
        &self,
        call_sid: &str,
        size: u32,
        number: u32,
    ) -> Result<Vec<RequestLogEntry>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM request_log WHERE call_sid = ?1 ORDER BY id LIMIT ?2 OFFSET ?3",
            )?;
            let offset = i64::from(size).saturating_mul(i64::from(number));
            let rows = statement.query_map(params![call_sid, size, offset], |row| {
                Ok(RequestLogEntry {
                    id: row.get("id")?,
                    key: row.get("key")?,
                    account_sid: row.get("account_sid")?,
                    call_sid: row.get("call_sid")?,
                    at_ms: row.get("at_ms")?,
                    request: row.get("request")?,
                    response: row.get("response")?,
                })
            })?;
            rows.collect()
        })
    }

    /// A small fact.
    pub fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT value FROM facts WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()
        })
    }
}

fn open_read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn all<T: SidTable>(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map([], T::from_row)?.collect()
}

fn callback(row: &Row<'_>) -> rusqlite::Result<Callback> {
    let state: String = row.get("state")?;
    Ok(Callback {
        id: row.get("id")?,
        key: row.get("key")?,
        account_sid: row.get("account_sid")?,
        call_sid: row.get("call_sid")?,
        session_sid: row.get("session_sid")?,
        event: row.get("event")?,
        sequence_number: row.get("sequence_number")?,
        target: row.get("target")?,
        request: row.get("request")?,
        attempts: row.get("attempts")?,
        next_at_ms: row.get("next_at_ms")?,
        state: CallbackState::parse(&state),
        last_error: row.get("last_error")?,
        created_ms: row.get("created_ms")?,
    })
}

/// Conditions of a list. Column names are constants of this file, values are always bound.
#[derive(Default)]
struct Where {
    conditions: Vec<String>,
    values: Vec<Box<dyn ToSql>>,
}

impl Where {
    fn add(&mut self, condition: &str, value: impl ToSql + 'static) {
        self.values.push(Box::new(value));
        self.conditions.push(condition.replace('?', &format!("?{}", self.values.len())));
    }

    fn equal(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(&format!("{column} = ?"), value.to_owned());
        }
    }

    fn number(&mut self, column: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.add(&format!("{column} = ?"), value);
        }
    }

    fn contains(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(&format!("instr({column}, ?) > 0"), value.to_owned());
        }
    }

    fn range(&mut self, column: &str, range: TimeRange) {
        if let Some(from_ms) = range.from_ms {
            self.add(&format!("{column} >= ?"), from_ms);
        }
        if let Some(to_ms) = range.to_ms {
            self.add(&format!("{column} <= ?"), to_ms);
        }
    }

    fn page<T: SidTable>(
        mut self,
        connection: &Connection,
        page: &Page,
    ) -> rusqlite::Result<PageOf<T>> {
        let backwards = matches!(page.token, Some(PageToken::Before { .. }));
        let mut offset = 0;
        match page.token.clone() {
            Some(PageToken::After { created_ms, sid }) => self.border("<", created_ms, sid),
            Some(PageToken::Before { created_ms, sid }) => self.border(">", created_ms, sid),
            None => offset = i64::from(page.size).saturating_mul(i64::from(page.number)),
        }
        let order = if backwards { "ASC" } else { "DESC" };
        let conditions =
            if self.conditions.is_empty() { "1".into() } else { self.conditions.join(" AND ") };
        // One row more than asked for tells whether another page follows.
        let limit = i64::from(page.size).saturating_add(1);
        let sql = format!(
            "SELECT * FROM {} WHERE {conditions} ORDER BY created_ms {order}, sid {order}
             LIMIT {limit} OFFSET {offset}",
            T::TABLE
        );
        let values: Vec<&dyn ToSql> = self.values.iter().map(AsRef::as_ref).collect();
        let mut statement = connection.prepare_cached(&sql)?;
        let mut items: Vec<T> =
            statement.query_map(values.as_slice(), T::from_row)?.collect::<Result<_, _>>()?;
        let more = items.len() > page.size as usize;
        items.truncate(page.size as usize);
        if backwards {
            items.reverse();
        }
        let came_from_newer = match page.token {
            Some(PageToken::After { .. }) => true,
            Some(PageToken::Before { .. }) => more,
            None => page.number > 0,
        };
        let has_older = backwards || more;
        let border = |row: &T| (row.created_ms(), row.sid().to_owned());
        let next = items.last().filter(|_| has_older).map(border);
        let previous = items.first().filter(|_| came_from_newer).map(border);
        Ok(PageOf {
            items,
            next: next.map(|(created_ms, sid)| PageToken::After { created_ms, sid }),
            previous: previous.map(|(created_ms, sid)| PageToken::Before { created_ms, sid }),
        })
    }

    fn border(&mut self, operator: &str, created_ms: i64, sid: String) {
        self.values.push(Box::new(created_ms));
        let first = self.values.len();
        self.values.push(Box::new(sid));
        let second = self.values.len();
        self.conditions.push(format!("(created_ms, sid) {operator} (?{first}, ?{second})"));
    }
}
