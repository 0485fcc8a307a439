//! Prices that change with the calendar, switched by the box's own clock, also while the internet is away.
//!
//! Each document with dated prices has a note of when it is to be looked at again, and the notes are indexed: a look
//! costs as much as there is to switch, however large the catalogue. A switch is a change like any other: the document
//! gets a new number, and with it a new entity tag and a place in the feed.
//!
//! A clock that is set back (one that was years ahead) makes all notes due, so that what was switched too early is
//! switched back.

use rusqlite::OptionalExtension;

use super::Catalogue;
use super::apply::{date, fact, priced, set_fact};
use super::snapshot::note_switched;
use crate::store::events::StoreEvent;
use crate::store::readers::ReadError;
use crate::store::writer::Reply;

/// Documents looked at in one transaction.
pub const SWITCH_SLICE: usize = 500;
/// The clock must be this far behind the last switch to count as set back: less is its ordinary correction.
const SET_BACK_MS: i64 = 60_000;

impl Catalogue {
    /// When the next price changes, milliseconds since 1970; `None` when no date lies ahead.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_switch_ms(&self) -> Result<Option<i64>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT next_ms FROM dated WHERE next_ms IS NOT NULL ORDER BY next_ms LIMIT 1",
            )?
            .query_row([], |row| row.get(0))
            .optional()
        })
    }

    /// The time of the last switch: a clock that is before it was set back.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn was_set_back(&self, now_ms: i64) -> Result<bool, ReadError> {
        let last: Option<i64> = self
            .readers
            .read(|conn| super::read::fact(conn, "priced_ms"))?;
        Ok(last.is_some_and(|last| now_ms < last - SET_BACK_MS))
    }

    /// Switches the prices that are due at `now_ms`, looking at no more than [`SWITCH_SLICE`] documents; how many are
    /// others now.
    pub fn switch_prices(&self, now_ms: i64) -> Reply<usize> {
        self.writer.submit(move |tx| {
            let last: i64 = fact(tx, "priced_ms")?.unwrap_or(0);
            if now_ms < last - SET_BACK_MS {
                tx.conn
                    .prepare_cached("UPDATE dated SET next_ms = ?1")?
                    .execute([now_ms])?;
                set_fact(tx, "priced_ms", now_ms)?;
            }
            let due = tx
                .conn
                .prepare_cached(
                    "SELECT doc FROM dated WHERE next_ms IS NOT NULL AND next_ms <= ?1 ORDER BY next_ms LIMIT ?2",
                )?
                .query_map((now_ms, super::read::limit(SWITCH_SLICE)), |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<i64>>>()?;
            if due.is_empty() {
                return Ok(0);
            }
            let first_seq: i64 = fact(tx, "seq")?.unwrap_or(0);
            let mut seq = first_seq;
            for doc in &due {
                let (body, old): (Option<Vec<u8>>, Option<Vec<u8>>) = tx
                    .conn
                    .prepare_cached("SELECT body, price FROM documents WHERE doc = ?1")?
                    .query_row([doc], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?
                    .unwrap_or_default();
                let priced = body.map(|body| priced(&body, now_ms)).unwrap_or_default();
                date(tx.conn, *doc, &priced, true)?;
                let new = priced.current.as_deref().map(str::as_bytes);
                if new != old.as_deref() {
                    seq += 1;
                    note_switched(tx, *doc, seq)?;
                    tx.conn
                        .prepare_cached("UPDATE documents SET seq = ?2, changed_ms = ?3, price = ?4 WHERE doc = ?1")?
                        .execute((doc, seq, now_ms, new))?;
                }
            }
            set_fact(tx, "priced_ms", now_ms)?;
            if seq != first_seq {
                set_fact(tx, "seq", seq)?;
                tx.tell(StoreEvent::Catalogue { seq });
            }
            Ok(usize::try_from(seq - first_seq).unwrap_or(usize::MAX))
        })
    }
}
