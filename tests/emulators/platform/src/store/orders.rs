//! The feed of orders: what a box may take over the API as well as from the bus.

use rusqlite::{Connection, params};

use super::{StoreError, set_setting, setting};

/// An order in the feed.
#[derive(Debug)]
pub struct FeedOrder {
    /// Its place.
    pub seq: i64,
    /// As on the bus.
    pub message_id: String,
    /// JSON text.
    pub body: String,
}

/// Adds one.
pub fn add(connection: &Connection, message_id: &str, body: &str) -> Result<i64, StoreError> {
    connection
        .prepare_cached("INSERT INTO orders_feed(message_id, body) VALUES (?1, ?2)")?
        .execute(params![message_id, body])?;
    Ok(connection.last_insert_rowid())
}

/// Up to `limit` orders behind `after`.
pub fn page_after(
    connection: &Connection,
    after: i64,
    limit: i64,
) -> Result<Vec<FeedOrder>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, message_id, body FROM orders_feed WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let rows = statement.query_map(params![after, limit], |row| {
        Ok(FeedOrder {
            seq: row.get(0)?,
            message_id: row.get(1)?,
            body: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The last one's place.
pub fn last_seq(connection: &Connection) -> Result<i64, StoreError> {
    Ok(
        connection.query_row("SELECT coalesce(max(seq), 0) FROM orders_feed", [], |row| {
            row.get(0)
        })?,
    )
}

/// Cursors at or below this place are void.
pub fn horizon(connection: &Connection) -> Result<i64, StoreError> {
    Ok(setting(connection, "orders_horizon")?
        .and_then(|text| text.parse().ok())
        .unwrap_or(-1))
}

/// Makes every cursor so far void; the orders stay.
pub fn void_cursors(connection: &Connection) -> Result<(), StoreError> {
    let last = last_seq(connection)?;
    set_setting(connection, "orders_horizon", &last.to_string())?;
    Ok(())
}
