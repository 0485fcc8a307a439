//! The bus's entities: queues, topics, subscriptions. Names are kept in lower case, because the service takes any.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// What an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sent to and received from.
    Queue,
    /// Sent to only; its subscriptions get a copy each.
    Topic,
    /// Received from only.
    Subscription,
}

/// What can be set of an entity. Defaults are those of the service's documentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a peek-lock holds, in milliseconds.
    pub lock_ms: i64,
    /// Deliveries after which a message that was not completed goes to the dead-letter queue.
    pub max_delivery_count: i64,
    /// Time to live of messages that bring none, in milliseconds; absent: for ever.
    pub ttl_ms: Option<i64>,
    /// Whether an expired message goes to the dead-letter queue instead of being dropped.
    pub dead_letter_expired: bool,
    /// How long a MessageId is remembered to drop duplicates, in milliseconds; 0: no duplicate detection.
    pub duplicate_window_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lock_ms: 30_000,
            max_delivery_count: 10,
            ttl_ms: None,
            dead_letter_expired: false,
            duplicate_window_ms: 0,
        }
    }
}

/// An entity as it was created.
#[derive(Debug, Clone, Serialize)]
pub struct Entity {
    /// Its path: `queue`, `topic` or `topic/subscriptions/name`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it behaves.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Creates the entity, or changes the settings of one that exists.
pub fn create(
    connection: &Connection,
    name: &str,
    kind: Kind,
    settings: &Settings,
) -> Result<(), StoreError> {
    let topic = match kind {
        Kind::Subscription => name.split_once('/').map(|(topic, _)| topic),
        Kind::Queue | Kind::Topic => None,
    };
    connection.execute(
        "INSERT INTO entities(name, kind, topic, lock_ms, max_delivery_count, ttl_ms, dead_letter_expired, duplicate_window_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT(name) DO UPDATE SET lock_ms = excluded.lock_ms, max_delivery_count = excluded.max_delivery_count,
           ttl_ms = excluded.ttl_ms, dead_letter_expired = excluded.dead_letter_expired,
           duplicate_window_ms = excluded.duplicate_window_ms",
        params![
            name,
            kind_text(kind),
            topic,
            settings.lock_ms,
            settings.max_delivery_count,
            settings.ttl_ms,
            settings.dead_letter_expired,
            settings.duplicate_window_ms
        ],
    )?;
    Ok(())
}

/// The entity of this name.
pub fn find(connection: &Connection, name: &str) -> Result<Option<Entity>, StoreError> {
    Ok(connection
        .prepare_cached(&format!("{SELECT} WHERE name = ?1"))?
        .query_row([name], entity)
        .optional()?)
}

/// The subscriptions of a topic.
pub fn subscriptions(connection: &Connection, topic: &str) -> Result<Vec<Entity>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("{SELECT} WHERE topic = ?1 ORDER BY name"))?;
    Ok(statement
        .query_map([topic], entity)?
        .collect::<Result<_, _>>()?)
}

/// All entities.
pub fn list(connection: &Connection) -> Result<Vec<Entity>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY name"))?;
    Ok(statement.query_map([], entity)?.collect::<Result<_, _>>()?)
}

const SELECT: &str = "SELECT name, kind, lock_ms, max_delivery_count, ttl_ms, dead_letter_expired,
    duplicate_window_ms FROM entities";

fn entity(row: &Row<'_>) -> rusqlite::Result<Entity> {
    let kind: String = row.get(1)?;
    Ok(Entity {
        name: row.get(0)?,
        kind: match kind.as_str() {
            "topic" => Kind::Topic,
            "subscription" => Kind::Subscription,
            _ => Kind::Queue,
        },
        settings: Settings {
            lock_ms: row.get(2)?,
            max_delivery_count: row.get(3)?,
            ttl_ms: row.get(4)?,
            dead_letter_expired: row.get(5)?,
            duplicate_window_ms: row.get(6)?,
        },
    })
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Queue => "queue",
        Kind::Topic => "topic",
        Kind::Subscription => "subscription",
    }
}
