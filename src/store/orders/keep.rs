//! Housekeeping of `orders.db`: forgets what is old, holds the outbox to its bound, gives space back.

use rusqlite::Connection;
use tracing::warn;

use super::OrderRules;
use super::commands;
use super::schema::{KEPT_MS, OUTBOX_BOUND};
use crate::store::db;

/// Rows forgotten in one slice: a few milliseconds of work between orders.
const SLICE: i64 = 500;

/// One slice; true when there is more to do.
pub(super) fn keep_house(conn: &Connection, now_ms: i64) -> rusqlite::Result<bool> {
    let forgotten = forget(conn, now_ms - KEPT_MS)?;
    let dropped = hold_bound(conn, OUTBOX_BOUND)?;
    let freed = db::give_space_back(conn)?;
    Ok(forgotten || dropped || freed)
}

pub(super) fn forget(conn: &Connection, before_ms: i64) -> rusqlite::Result<bool> {
    let mut more = false;
    // Keys before orders: a key must not outlive what it led to.
    for sql in [
        "DELETE FROM idempotency WHERE (device_id, key) IN
            (SELECT device_id, key FROM idempotency WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
        "DELETE FROM inbox WHERE message_id IN
            (SELECT message_id FROM inbox WHERE received_ms < ?1 ORDER BY received_ms LIMIT ?2)",
    ] {
        more |= conn.prepare_cached(sql)?.execute((before_ms, SLICE))? > 0;
    }
    more |= forget_orders(conn, before_ms)?;
    Ok(more)
}

/// Closed orders go with their commands. The one with the highest number stays: numbers are never given twice.
fn forget_orders(conn: &Connection, before_ms: i64) -> rusqlite::Result<bool> {
    let old = conn
        .prepare_cached(
            "SELECT order_id FROM orders WHERE seq < (SELECT max(seq) FROM orders) AND updated_ms < ?1
             AND state NOT IN (0, 1, 2, 3)
             AND NOT EXISTS (SELECT 1 FROM idempotency i WHERE i.reference = orders.order_id AND i.at_ms >= ?1)
             AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.order_id = orders.order_id AND c.state IN (0, 1, 2, 3))
             ORDER BY seq LIMIT ?2",
        )?
        .query_map((before_ms, SLICE), |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if old.is_empty() {
        return Ok(false);
    }
    for order_id in &old {
        conn.prepare_cached("DELETE FROM commands WHERE order_id = ?1")?
            .execute([order_id])?;
        conn.prepare_cached("DELETE FROM orders WHERE order_id = ?1")?
            .execute([order_id])?;
    }
    Ok(true)
}

/// Drops the oldest events while the outbox holds more than `bound`, and counts them.
pub(in crate::store) fn hold_bound(conn: &Connection, bound: i64) -> rusqlite::Result<bool> {
    let span: i64 = conn
        .prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM outbox) - (SELECT min(id) FROM outbox) + 1, 0)",
        )?
        .query_row([], |row| row.get(0))?;
    // Cheap in every ordinary case: there can't be more items than the span of their ids.
    if span <= bound {
        return Ok(false);
    }
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM outbox")?
        .query_row([], |row| row.get(0))?;
    let excess = (count - bound).clamp(0, SLICE);
    if excess == 0 {
        return Ok(false);
    }
    let dropped = conn
        .prepare_cached(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE lane = 2 AND parked = 0 ORDER BY id LIMIT ?1)",
        )?
        .execute([excess])?;
    conn.prepare_cached(
        "INSERT INTO facts VALUES ('outbox_dropped', ?1) ON CONFLICT DO UPDATE SET value = value + ?1",
    )?
    .execute([i64::try_from(dropped).unwrap_or(i64::MAX)])?;
    if dropped > 0 {
        warn!(
            event = "outbox.events_dropped",
            dropped, bound, "the outbox is full: the oldest events went"
        );
    }
    Ok(dropped > 0)
}

/// After rows were brought over from a damaged database: nothing refers to what is gone, and no waiting order is
/// without a command. That one may have been sent before, so it is marked as a possible duplicate.
pub(super) fn put_in_order(conn: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    conn.execute(
        "DELETE FROM commands WHERE order_id NOT IN (SELECT order_id FROM orders)",
        [],
    )?;
    let ttl_ms = i64::try_from(OrderRules::default().command_ttl.as_millis()).unwrap_or(0);
    let waiting = conn
        .prepare(
            "SELECT order_id, role FROM orders
             WHERE state = 0 AND order_id NOT IN (SELECT order_id FROM commands)",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    for (order_id, role) in waiting {
        conn.execute(
            "INSERT INTO commands (id, order_id, role, sends, issued_ms, expires_ms) VALUES (?1, ?2, ?3, 1, ?4, ?5)",
            (commands::new_id(now_ms), order_id, role, now_ms, now_ms + ttl_ms),
        )?;
    }
    Ok(())
}
