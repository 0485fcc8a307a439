//! Stamps that a wrong clock made, put right when the right time is known.
//!
//! A box without a clock chip works for a while by a time that is too early, and then learns the real one. What it stamped
//! meanwhile would look as old as the clock was wrong: open commands would expire at once, and what is remembered for 30
//! days would be forgotten. So those stamps move with the clock. Waits that are only about retrying (the outbox's) need no
//! care: a jump makes them due, at worst.

use rusqlite::Connection;

use super::Store;
use super::writer::WriteError;

/// Which stamps move, and by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restamp {
    /// From this wall time on…
    pub since_ms: i64,
    /// …up to this one, as the wrong clock counted.
    pub until_ms: i64,
    /// How far the right time is ahead.
    pub delta_ms: i64,
}

const ORDERS: &[&str] = &[
    // First what must not expire: `commands` goes by its own stamps.
    "UPDATE commands SET issued_ms = issued_ms + ?3, expires_ms = expires_ms + ?3 WHERE issued_ms BETWEEN ?1 AND ?2",
    "UPDATE orders SET received_ms = received_ms + ?3 WHERE received_ms BETWEEN ?1 AND ?2",
    "UPDATE orders SET updated_ms = updated_ms + ?3 WHERE updated_ms BETWEEN ?1 AND ?2",
    "UPDATE inbox SET received_ms = received_ms + ?3 WHERE received_ms BETWEEN ?1 AND ?2",
    "UPDATE outbox SET occurred_ms = occurred_ms + ?3 WHERE occurred_ms BETWEEN ?1 AND ?2",
    "UPDATE idempotency SET at_ms = at_ms + ?3 WHERE at_ms BETWEEN ?1 AND ?2",
];

const CATALOGUE: &[&str] = &[
    "UPDATE documents SET changed_ms = changed_ms + ?3 WHERE body IS NULL AND changed_ms BETWEEN ?1 AND ?2",
    "UPDATE facts SET value = value + ?3 WHERE name IN ('pulled_ms', 'horizon_ms') AND value BETWEEN ?1 AND ?2",
];

impl Store {
    /// Moves the stamps; durable when this returns. Blocks.
    ///
    /// # Errors
    /// [`WriteError`]; a database that was done stays done.
    pub fn restamp(&self, restamp: Restamp) -> Result<(), WriteError> {
        let orders = self
            .orders
            .writer
            .submit(move |tx| run(tx.conn, ORDERS, restamp));
        let catalogue = self
            .catalogue
            .writer
            .submit(move |tx| run(tx.conn, CATALOGUE, restamp));
        let rows = orders.wait()? + catalogue.wait()?;
        tracing::info!(event = "store.restamped", rows, delta_ms = restamp.delta_ms);
        Ok(())
    }
}

fn run(conn: &Connection, statements: &[&str], restamp: Restamp) -> rusqlite::Result<usize> {
    let mut rows = 0;
    for sql in statements {
        rows += conn.prepare_cached(sql)?.execute((
            restamp.since_ms,
            restamp.until_ms,
            restamp.delta_ms,
        ))?;
    }
    Ok(rows)
}
