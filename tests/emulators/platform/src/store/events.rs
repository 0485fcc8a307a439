//! Events boxes reported, one row an `Idempotency-Key`.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::StoreError;

/// What storing an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// New: kept under this number.
    New(i64),
    /// The same body was stored under this key before.
    Repeat(i64),
    /// Another body was stored under this key before.
    Conflict,
}

/// One event as it came.
#[derive(Debug, Serialize)]
pub struct Event {
    /// Order of arrival.
    pub number: i64,
    /// The sender's Idempotency-Key.
    pub key: String,
    /// Kind, as the sender named it.
    pub kind: String,
    /// When it happened, as the sender wrote it.
    pub occurred_at: String,
    /// When it came, Unix milliseconds.
    pub received_ms: i64,
    /// How often it was sent again.
    pub repeats: i64,
    /// The whole request body.
    pub event: Box<RawValue>,
}

/// An event to store.
pub struct NewEvent {
    /// The Idempotency-Key.
    pub key: String,
    /// Kind of the event.
    pub kind: String,
    /// RFC 3339.
    pub occurred_at: String,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
    /// The request body.
    pub body: String,
}

/// Stores `event` unless its key is known.
pub fn store(connection: &Connection, event: &NewEvent, now_ms: i64) -> Result<Stored, StoreError> {
    let known = connection
        .prepare_cached("SELECT number, digest FROM events WHERE key = ?1")?
        .query_row([&event.key], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    match known {
        Some((number, digest)) if digest == event.digest => {
            connection
                .prepare_cached("UPDATE events SET repeats = repeats + 1 WHERE number = ?1")?
                .execute([number])?;
            Ok(Stored::Repeat(number))
        }
        Some(_) => Ok(Stored::Conflict),
        None => {
            connection
                .prepare_cached(
                    "INSERT INTO events(key, kind, occurred_at, received_ms, digest, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![event.key, event.kind, event.occurred_at, now_ms, event.digest, event.body])?;
            Ok(Stored::New(connection.last_insert_rowid()))
        }
    }
}

/// Up to `limit` events after number `after`, of one kind or of all.
pub fn list(
    connection: &Connection,
    after: i64,
    kind: Option<&str>,
    limit: i64,
) -> Result<Vec<Event>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, key, kind, occurred_at, received_ms, repeats, body FROM events
         WHERE number > ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY number LIMIT ?3",
    )?;
    let rows = statement.query_map(params![after, kind, limit], |row| {
        Ok(Event {
            number: row.get(0)?,
            key: row.get(1)?,
            kind: row.get(2)?,
            occurred_at: row.get(3)?,
            received_ms: row.get(4)?,
            repeats: row.get(5)?,
            event: RawValue::from_string(row.get(6)?).expect("only JSON was stored"),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many events came.
pub fn count(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?)
}
