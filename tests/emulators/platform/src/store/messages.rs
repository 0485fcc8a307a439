//! Messages of the bus.
//!
//! ```text
//!  send --> active --receive--> locked --complete--> gone
//!             ^  |                |
//!             |  | time to live   | unlock, lock expired
//!             |  v                v
//!             | gone or dead     deliveries left? --yes--> active
//!             |                   '--no--> dead (dead-letter queue: received and completed likewise)
//! ```
//! Nothing runs in the background: [`sweep`] applies what time has done before anybody looks.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::StoreError;
use super::entities::{Entity, Kind, subscriptions};

/// A message to send.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    /// The sender's, or one made for it.
    pub message_id: String,
    /// The sender's other broker properties, a JSON object.
    pub broker: String,
    /// Custom properties: a JSON array of name and header text.
    pub custom: String,
    /// Content-Type of the body, if it was named.
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// Time to live in milliseconds, if the sender set one.
    pub ttl_ms: Option<i64>,
    /// When it is to become receivable, if later than now.
    pub visible_ms: Option<i64>,
}

/// A message as it is delivered.
#[derive(Debug, Clone)]
pub struct Message {
    /// Sequence number.
    pub seq: i64,
    /// Its id.
    pub message_id: String,
    /// See [`NewMessage`].
    pub broker: String,
    /// See [`NewMessage`].
    pub custom: String,
    /// See [`NewMessage`].
    pub content_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// When it was sent.
    pub enqueued_ms: i64,
    /// When it expires, if ever.
    pub expires_ms: Option<i64>,
    /// Deliveries including this one.
    pub delivery_count: i64,
    /// Why it is in the dead-letter queue.
    pub dead_reason: Option<String>,
    /// The lock of this delivery and when it ends.
    pub lock: Option<(String, i64)>,
}

/// A queue or subscription, or the dead-letter queue of one.
#[derive(Debug, Clone)]
pub struct Source {
    /// The entity.
    pub entity: Entity,
    /// Its dead-letter queue.
    pub dead: bool,
}

/// What to do with a locked message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It is done.
    Complete,
    /// It is to be delivered again.
    Unlock,
    /// It needs longer.
    Renew,
}

/// Sends to a queue, or to every subscription of a topic. `None`: dropped as a duplicate.
pub fn send(
    connection: &Connection,
    entity: &Entity,
    message: &NewMessage,
    now_ms: i64,
) -> Result<Option<i64>, StoreError> {
    if entity.settings.duplicate_window_ms > 0
        && seen(connection, entity, &message.message_id, now_ms)?
    {
        return Ok(None);
    }
    if entity.kind != Kind::Topic {
        return insert(connection, entity, message, now_ms).map(Some);
    }
    let mut last = 0;
    for subscription in subscriptions(connection, &entity.name)? {
        last = insert(connection, &subscription, message, now_ms)?;
    }
    Ok(Some(last))
}

fn seen(
    connection: &Connection,
    entity: &Entity,
    message_id: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    connection.execute(
        "DELETE FROM seen_messages WHERE entity = ?1 AND at_ms <= ?2",
        params![entity.name, now_ms - entity.settings.duplicate_window_ms],
    )?;
    let new = connection.execute(
        "INSERT OR IGNORE INTO seen_messages(entity, message_id, at_ms) VALUES (?1, ?2, ?3)",
        params![entity.name, message_id, now_ms],
    )?;
    Ok(new == 0)
}

fn insert(
    connection: &Connection,
    entity: &Entity,
    message: &NewMessage,
    now_ms: i64,
) -> Result<i64, StoreError> {
    // The shorter of the two lives counts.
    let ttl_ms = [message.ttl_ms, entity.settings.ttl_ms]
        .into_iter()
        .flatten()
        .min();
    let visible_ms = message.visible_ms.unwrap_or(now_ms).max(now_ms);
    connection
        .prepare_cached(
            "INSERT INTO messages(entity, message_id, broker, custom, content_type, body, enqueued_ms, visible_ms, expires_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            entity.name,
            message.message_id,
            message.broker,
            message.custom,
            message.content_type,
            message.body,
            now_ms,
            visible_ms,
            ttl_ms.map(|ttl| visible_ms.saturating_add(ttl)),
        ])?;
    Ok(connection.last_insert_rowid())
}

/// Applies what time has done to the messages of an entity.
pub fn sweep(connection: &Connection, entity: &Entity, now_ms: i64) -> Result<(), StoreError> {
    let expired = "entity = ?1 AND dead = 0 AND expires_ms <= ?2 AND (lock_token IS NULL OR locked_until_ms <= ?2)";
    if entity.settings.dead_letter_expired {
        connection
            .prepare_cached(&format!(
                "{BURY} dead_reason = 'TTLExpiredException' WHERE {expired}"
            ))?
            .execute(params![entity.name, now_ms])?;
    } else {
        connection
            .prepare_cached(&format!("DELETE FROM messages WHERE {expired}"))?
            .execute(params![entity.name, now_ms])?;
    }
    connection
        .prepare_cached(&format!(
            "{BURY} dead_reason = 'MaxDeliveryCountExceeded' WHERE entity = ?1 AND dead = 0
             AND lock_token IS NOT NULL AND locked_until_ms <= ?2 AND delivery_count >= ?3"
        ))?
        .execute(params![
            entity.name,
            now_ms,
            entity.settings.max_delivery_count
        ])?;
    Ok(())
}

const BURY: &str = "UPDATE messages SET dead = 1, lock_token = NULL, locked_until_ms = NULL,";

/// Takes the next message: locked under `lock_token`, or for good if there is none.
pub fn receive(
    connection: &Connection,
    source: &Source,
    lock_token: Option<&str>,
    now_ms: i64,
) -> Result<Option<Message>, StoreError> {
    sweep(connection, &source.entity, now_ms)?;
    let message = connection
        .prepare_cached(
            "SELECT seq, message_id, broker, custom, content_type, body, enqueued_ms, expires_ms, delivery_count + 1, dead_reason
             FROM messages WHERE entity = ?1 AND dead = ?2 AND visible_ms <= ?3
             AND (lock_token IS NULL OR locked_until_ms <= ?3) ORDER BY seq LIMIT 1",
        )?
        .query_row(params![source.entity.name, source.dead, now_ms], message)
        .optional()?;
    let Some(mut message) = message else {
        return Ok(None);
    };
    match lock_token {
        Some(token) => {
            let until_ms = now_ms + source.entity.settings.lock_ms;
            connection
                .prepare_cached(
                    "UPDATE messages SET delivery_count = delivery_count + 1, lock_token = ?2, locked_until_ms = ?3 WHERE seq = ?1",
                )?
                .execute(params![message.seq, token, until_ms])?;
            message.lock = Some((token.to_owned(), until_ms));
        }
        None => {
            connection.execute("DELETE FROM messages WHERE seq = ?1", [message.seq])?;
        }
    }
    Ok(Some(message))
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        seq: row.get(0)?,
        message_id: row.get(1)?,
        broker: row.get(2)?,
        custom: row.get(3)?,
        content_type: row.get(4)?,
        body: row.get(5)?,
        enqueued_ms: row.get(6)?,
        expires_ms: row.get(7)?,
        delivery_count: row.get(8)?,
        dead_reason: row.get(9)?,
        lock: None,
    })
}

/// Settles the message named by MessageId or sequence number, if the lock is this one and still holds.
/// Returns whether it was so.
pub fn settle(
    connection: &Connection,
    source: &Source,
    (id, lock_token): (&str, &str),
    settle: Settle,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT seq, delivery_count FROM messages WHERE entity = ?1 AND dead = ?2 AND lock_token = lower(?3)
             AND locked_until_ms > ?4 AND (message_id = ?5 OR CAST(seq AS TEXT) = ?5)",
        )?
        .query_row(params![source.entity.name, source.dead, lock_token, now_ms, id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((seq, delivery_count)) = found else {
        return Ok(false);
    };
    match settle {
        Settle::Complete => connection.execute("DELETE FROM messages WHERE seq = ?1", [seq])?,
        Settle::Renew => connection.execute(
            "UPDATE messages SET locked_until_ms = ?2 WHERE seq = ?1",
            params![seq, now_ms + source.entity.settings.lock_ms],
        )?,
        Settle::Unlock
            if !source.dead && delivery_count >= source.entity.settings.max_delivery_count =>
        {
            connection.execute(
                &format!("{BURY} dead_reason = 'MaxDeliveryCountExceeded' WHERE seq = ?1"),
                [seq],
            )?
        }
        Settle::Unlock => connection.execute(
            "UPDATE messages SET lock_token = NULL, locked_until_ms = NULL WHERE seq = ?1",
            [seq],
        )?,
    };
    Ok(true)
}

/// When the next message of `source` becomes receivable by time alone.
pub fn next_due(
    connection: &Connection,
    source: &Source,
    now_ms: i64,
) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT min(max(visible_ms, coalesce(locked_until_ms, 0))) FROM messages
             WHERE entity = ?1 AND dead = ?2 AND max(visible_ms, coalesce(locked_until_ms, 0)) > ?3",
        )?
        .query_row(params![source.entity.name, source.dead, now_ms], |row| row.get(0))?)
}

/// Lets every lock of an entity expire at once; returns how many there were.
pub fn drop_locks(
    connection: &Connection,
    entity: &Entity,
    now_ms: i64,
) -> Result<usize, StoreError> {
    let dropped = connection.execute(
        "UPDATE messages SET locked_until_ms = ?2 WHERE entity = ?1 AND lock_token IS NOT NULL AND locked_until_ms > ?2",
        params![entity.name, now_ms],
    )?;
    Ok(dropped)
}

/// Drops every message of an entity.
pub fn purge(connection: &Connection, entity: &Entity) -> Result<usize, StoreError> {
    Ok(connection.execute("DELETE FROM messages WHERE entity = ?1", [&entity.name])?)
}

/// A message as control shows it.
#[derive(Debug, Serialize)]
pub struct Listed {
    sequence_number: i64,
    message_id: String,
    /// `active`, `scheduled`, `locked` or `dead`.
    pub state: &'static str,
    delivery_count: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_reason: Option<String>,
    body_bytes: i64,
}

/// Every message of an entity, its dead ones too.
pub fn list(
    connection: &Connection,
    entity: &Entity,
    now_ms: i64,
) -> Result<Vec<Listed>, StoreError> {
    sweep(connection, entity, now_ms)?;
    let mut statement = connection.prepare_cached(
        "SELECT seq, message_id, delivery_count, dead_reason, length(body), dead, visible_ms > ?2,
         lock_token IS NOT NULL AND locked_until_ms > ?2 FROM messages WHERE entity = ?1 ORDER BY seq",
    )?;
    let rows = statement.query_map(params![entity.name, now_ms], |row| {
        let (dead, scheduled, locked) = (row.get(5)?, row.get(6)?, row.get(7)?);
        Ok(Listed {
            sequence_number: row.get(0)?,
            message_id: row.get(1)?,
            delivery_count: row.get(2)?,
            dead_reason: row.get(3)?,
            body_bytes: row.get(4)?,
            state: match (dead, locked, scheduled) {
                (true, ..) => "dead",
                (_, true, _) => "locked",
                (_, _, true) => "scheduled",
                _ => "active",
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The bodies of an entity's messages, oldest first.
pub fn bodies(connection: &Connection, entity: &Entity) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT body FROM messages WHERE entity = ?1 ORDER BY seq")?;
    let rows = statement.query_map(params![entity.name], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
