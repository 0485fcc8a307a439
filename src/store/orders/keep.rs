//! Housekeeping of `orders.db`: forgets what is old, holds the outbox to its bound, gives space back.

use rusqlite::{Connection, OptionalExtension};
use tracing::warn;

use super::OrderRules;
use super::outbox::Lane;
use super::schema::KEPT_MS;
use crate::store::db;

/// Rows forgotten in one slice: a few milliseconds of work between orders.
const SLICE: i64 = 500;
/// Orders looked at in one slice, those unchanged for longest; what is open among them for a month is a handful.
const LOOKED_AT: i64 = 2000;

/// One slice, when it is `now_ms` at least; true when there is more to do.
pub(super) fn keep_house(conn: &Connection, now_ms: i64) -> rusqlite::Result<bool> {
    let forgotten = forget(conn, now_ms.saturating_sub(KEPT_MS))?;
    let mut dropped = false;
    for lane in Lane::ALL {
        dropped |= hold_bound(conn, lane, lane.bound(), now_ms)?;
    }
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
            "SELECT o.key FROM (SELECT * FROM orders ORDER BY seq LIMIT ?3) o LEFT JOIN commands c ON c.key = o.key
             WHERE o.seq < (SELECT max(seq) FROM orders) AND o.updated_ms < ?1
             AND o.state NOT IN (0, 1, 2, 3) AND coalesce(c.state, 4) NOT IN (0, 1, 2, 3)
             ORDER BY o.seq LIMIT ?2",
        )?
        .query_map((before_ms, SLICE, LOOKED_AT), |row| row.get::<_, i64>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if old.is_empty() {
        return Ok(false);
    }
    for key in &old {
        conn.prepare_cached("DELETE FROM commands WHERE key = ?1")?
            .execute([key])?;
        conn.prepare_cached("DELETE FROM orders WHERE key = ?1")?
            .execute([key])?;
    }
    Ok(true)
}

/// Drops the oldest items of `lane` while it holds more than `bound`, and counts them: of telemetry any, of the other
/// lanes only what waits for longer than [`KEPT_MS`].
pub(in crate::store) fn hold_bound(
    conn: &Connection,
    lane: Lane,
    bound: i64,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let lane_number = lane.number();
    let edge = |order| {
        conn.prepare_cached(&format!(
            "SELECT id FROM outbox WHERE lane = ?1 AND parked = 0 ORDER BY id {order} LIMIT 1"
        ))?
        .query_row([lane_number], |row| row.get::<_, i64>(0))
        .optional()
    };
    let (Some(first), Some(last)) = (edge("ASC")?, edge("DESC")?) else {
        return Ok(false);
    };
    // Cheap in every ordinary case: there can't be more items than the span of their ids.
    if last - first < bound {
        return Ok(false);
    }
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM outbox WHERE lane = ?1 AND parked = 0")?
        .query_row([lane_number], |row| row.get(0))?;
    let excess = (count - bound).clamp(0, SLICE);
    if excess == 0 {
        return Ok(false);
    }
    let (fact, until_ms) = match lane {
        Lane::Telemetry => ("outbox_dropped", i64::MAX),
        Lane::Orders | Lane::Receipts | Lane::Events => {
            ("outbox_aged", now_ms.saturating_sub(KEPT_MS))
        }
    };
    let dropped = conn
        .prepare_cached(
            "DELETE FROM outbox WHERE occurred_ms < ?3 AND id IN
                (SELECT id FROM outbox WHERE lane = ?2 AND parked = 0 ORDER BY id LIMIT ?1)",
        )?
        .execute((excess, lane_number, until_ms))?;
    if dropped == 0 {
        return Ok(false);
    }
    conn.prepare_cached(
        "INSERT INTO facts VALUES (?2, ?1) ON CONFLICT DO UPDATE SET value = value + ?1",
    )?
    .execute((i64::try_from(dropped).unwrap_or(i64::MAX), fact))?;
    warn!(event = "outbox.items_dropped", ?lane, dropped, bound);
    Ok(true)
}

/// After rows were brought over from a damaged database: nothing refers to what is gone, and no waiting order is
/// without a command. That one may have been sent before, so it is marked as a possible duplicate.
pub(super) fn put_in_order(conn: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    conn.execute(
        "DELETE FROM commands WHERE key NOT IN (SELECT key FROM orders)",
        [],
    )?;
    let ttl_ms = i64::try_from(OrderRules::default().command_ttl.as_millis()).unwrap_or(0);
    let waiting = conn
        .prepare(
            "SELECT key, role FROM orders WHERE state = 0 AND key NOT IN (SELECT key FROM commands)",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
    for (key, role) in waiting {
        conn.execute(
            "INSERT INTO commands (key, role, sends, issued_ms, expires_ms) VALUES (?1, ?2, 1, ?3, ?4)",
            (key, role, now_ms, now_ms + ttl_ms),
        )?;
    }
    Ok(())
}
