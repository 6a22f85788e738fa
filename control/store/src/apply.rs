//! Carries out one [`StoreOp`] inside an open transaction.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::error::StoreError;
use crate::op::StoreOp;
use crate::row::{Callback, CallbackState, Session};

pub(crate) fn apply(connection: &Connection, op: &StoreOp) -> Result<(), StoreError> {
    match op {
        StoreOp::PutAccount(row) => row.upsert(connection).map(drop)?,
        StoreOp::PutNumber(row) => row.upsert(connection).map(drop)?,
        StoreOp::PutApiKey(row) => row.upsert(connection).map(drop)?,
        StoreOp::DeleteApiKey { sid } => {
            delete(connection, "DELETE FROM api_keys WHERE sid = ?1", sid)?;
        }
        StoreOp::PutApplication(row) => row.upsert(connection).map(drop)?,
        StoreOp::PutCall(row) => row.upsert(connection).map(drop)?,
        StoreOp::PutAlert(row) => row.upsert(connection).map(drop)?,
        StoreOp::PutRecording(row) => row.upsert(connection).map(drop)?,
        StoreOp::CompleteRecording { sid, duration_ms, channels, path, size_bytes, at_ms } => {
            connection
                .prepare_cached(
                    "UPDATE recordings SET status = 'completed', duration_ms = ?2, channels = ?3,
                     path = ?4, size_bytes = ?5, updated_ms = ?6 WHERE sid = ?1",
                )?
                .execute(params![sid, duration_ms, channels, path, size_bytes, at_ms])?;
        }
        StoreOp::DeleteNumber { sid } => {
            delete(connection, "DELETE FROM incoming_phone_numbers WHERE sid = ?1", sid)?;
        }
        StoreOp::PutCallerId(row) => {
            connection
                .prepare_cached(
                    "DELETE FROM outgoing_caller_ids
                     WHERE account_sid = ?1 AND phone_number = ?2 AND sid <> ?3",
                )?
                .execute(params![row.account_sid, row.phone_number, row.sid])?;
            row.upsert(connection)?;
        }
        StoreOp::DeleteCallerId { sid } => {
            delete(connection, "DELETE FROM outgoing_caller_ids WHERE sid = ?1", sid)?;
        }
        StoreOp::DeleteApplication { sid } => {
            delete(connection, "DELETE FROM applications WHERE sid = ?1", sid)?;
        }
        StoreOp::DeleteCall { sid } => {
            delete(connection, "DELETE FROM calls WHERE sid = ?1", sid)?;
            delete(connection, "DELETE FROM request_log WHERE call_sid = ?1", sid)?;
        }
        StoreOp::DeleteRecording { sid } => {
            delete(connection, "DELETE FROM recordings WHERE sid = ?1", sid)?;
        }
        StoreOp::PutSession(session) => put_session(connection, session)?,
        StoreOp::DeleteSession { sid } => {
            delete(connection, "DELETE FROM sessions WHERE sid = ?1", sid)?;
        }
        StoreOp::AddCallback(callback) => add_callback(connection, callback)?,
        StoreOp::RetryCallback { id, attempts, next_at_ms, error } => {
            let state = CallbackState::Pending;
            set_callback(connection, *id, *attempts, Some(*next_at_ms), state, Some(error))?;
        }
        StoreOp::CallbackDelivered { id, attempts } => {
            set_callback(connection, *id, *attempts, None, CallbackState::Delivered, None)?;
        }
        StoreOp::CallbackDead { id, attempts, error } => {
            set_callback(connection, *id, *attempts, None, CallbackState::Dead, Some(error))?;
        }
        StoreOp::AddTimeline(entry) => {
            connection
                .prepare_cached(
                    "INSERT INTO timeline (session_sid, sequence, leg_sid, at_ms, body)
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    entry.session_sid,
                    entry.sequence,
                    entry.leg_sid,
                    entry.at_ms,
                    entry.body
                ])?;
        }
        StoreOp::AddRequestLog(entry) => {
            connection
                .prepare_cached(
                    "INSERT INTO request_log (key, account_sid, call_sid, at_ms, request, response)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    entry.key,
                    entry.account_sid,
                    entry.call_sid,
                    entry.at_ms,
                    entry.request,
                    entry.response
                ])?;
        }
        StoreOp::PutFact { name, value } => {
            connection
                .prepare_cached(
                    "INSERT INTO facts (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                )?
                .execute(params![name, value])?;
        }
        StoreOp::EndLostCall { sid, at_ms } => {
            connection
                .prepare_cached(
                    "UPDATE calls SET
                        status = CASE WHEN answered_ms IS NULL THEN 'failed' ELSE 'completed' END,
                        duration_s = CASE WHEN answered_ms IS NULL THEN 0
                            ELSE max(0, (?2 - answered_ms + 999) / 1000) END,
                        end_reason = 'node-lost', end_whose = 'us', end_ms = ?2, updated_ms = ?2
                     WHERE sid = ?1 AND end_ms IS NULL",
                )?
                .execute(params![sid, at_ms])?;
        }
        StoreOp::Prune { kept, before_ms, rows_max } => {
            let (table, key, rows) = kept.sql();
            let sql = format!("DELETE FROM {table} WHERE {key} IN ({rows})");
            connection.prepare_cached(&sql)?.execute(params![before_ms, rows_max])?;
        }
    }
    Ok(())
}

fn delete(connection: &Connection, sql: &str, sid: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([sid])?;
    Ok(())
}

fn put_session(connection: &Connection, session: &Session) -> Result<(), StoreError> {
    let epoch = i64::try_from(session.epoch).unwrap_or(i64::MAX);
    let changed = connection
        .prepare_cached(
            "INSERT INTO sessions (sid, epoch, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (sid) DO UPDATE SET epoch = excluded.epoch, body = excluded.body
             WHERE sessions.epoch <= excluded.epoch",
        )?
        .execute(params![session.sid, epoch, session.body])?;
    if changed == 1 {
        return Ok(());
    }
    let stored: Option<i64> = connection
        .prepare_cached("SELECT epoch FROM sessions WHERE sid = ?1")?
        .query_row([&session.sid], |row| row.get(0))
        .optional()?;
    Err(StoreError::StaleEpoch {
        sid: session.sid.clone(),
        stored: stored.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
        given: session.epoch,
    })
}

fn add_callback(connection: &Connection, callback: &Callback) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO outbox (key, account_sid, call_sid, session_sid, event, sequence_number,
                target, request, attempts, next_at_ms, state, last_error, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (key) DO NOTHING",
        )?
        .execute(params![
            callback.key,
            callback.account_sid,
            callback.call_sid,
            callback.session_sid,
            callback.event,
            callback.sequence_number,
            callback.target,
            callback.request,
            callback.attempts,
            callback.next_at_ms,
            callback.state.as_str(),
            callback.last_error,
            callback.created_ms,
        ])?;
    Ok(())
}

fn set_callback(
    connection: &Connection,
    id: i64,
    attempts: i64,
    next_at_ms: Option<i64>,
    state: CallbackState,
    error: Option<&String>,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE outbox SET attempts = ?2, next_at_ms = coalesce(?3, next_at_ms), state = ?4,
                last_error = ?5 WHERE id = ?1",
        )?
        .execute(params![id, attempts, next_at_ms, state.as_str(), error])?;
    Ok(())
}
