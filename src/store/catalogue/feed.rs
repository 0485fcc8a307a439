//! The shop's own feed of changes, and the forgetting of old deletions.
//!
//! A cursor names the generation of the database and the number of the last change seen. One that began with nothing
//! also carries the number the feed had then, until it has passed it: deletions from before that moment can't
//! concern it, so forgetting them does not send it back to the start.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension};

use super::life;
use super::read::limit;
use super::schema::{TOMBSTONE_BOUND, TOMBSTONES_KEPT_MS};
use super::{Catalogue, LIST_BOUND, PAGE_BYTES_BOUND};
use crate::clock::rfc3339;
use crate::store::db;
use crate::store::readers::ReadError;

/// Deletions forgotten in one slice of housekeeping.
const SLICE: i64 = 1000;

/// Where a reader of the local feed stands. Opaque to readers: they hand it back as they got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedCursor {
    generation: String,
    seq: i64,
    began_at: i64,
}

/// Text that is no cursor of this feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this feed")]
pub struct ParseCursorError;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The document's collection.
    pub collection: String,
    /// The document's id.
    pub id: String,
    /// The platform's version.
    pub version: i64,
    /// The change's number.
    pub seq: i64,
    /// The document, JSON; `None` when it was deleted.
    pub body: Option<Vec<u8>>,
    /// Of its `prices`, the entry that holds now.
    pub price: Option<Vec<u8>>,
}

/// A page of the feed.
#[derive(Debug, Clone)]
pub struct ChangesPage {
    /// Changes in their order; of several changes of one document only the last.
    pub items: Vec<Change>,
    /// Where the next page begins.
    pub next: FeedCursor,
    /// Nothing lies beyond this page for now.
    pub caught_up: bool,
    /// Since when deletions are remembered, RFC 3339.
    pub horizon: String,
}

/// An answer of the feed.
#[derive(Debug, Clone)]
pub enum Changes {
    /// Here it goes on.
    Page(ChangesPage),
    /// The cursor is of another generation, from before the horizon or of a change that a power cut took: start over without one.
    Refetch,
}

impl Catalogue {
    /// Changes after a cursor, or all documents without one; at most `limit_to` (and [`LIST_BOUND`]).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn changes(
        &self,
        after: Option<&FeedCursor>,
        limit_to: usize,
    ) -> Result<Changes, ReadError> {
        if after.is_some_and(|cursor| cursor.generation != *self.generation) {
            return Ok(Changes::Refetch);
        }
        self.readers.read_together(|conn| {
            let last: i64 = fact(conn, "seq")?;
            let horizon_seq: i64 = fact(conn, "horizon_seq")?;
            let (from, began_at) = after.map_or((0, last), |cursor| (cursor.seq, cursor.began_at));
            let is_lost = life::is_lost(conn, from)? || life::is_lost(conn, began_at)?;
            if is_lost || from > last || from.max(began_at) < horizon_seq {
                return Ok(Changes::Refetch);
            }
            let limit_to = limit_to.clamp(1, LIST_BOUND);
            let mut query = conn.prepare_cached(
                "SELECT collection, id, version, seq, body, price FROM documents
                 WHERE seq > ?1 AND (body IS NOT NULL OR seq > ?2) ORDER BY seq LIMIT ?3",
            )?;
            // One more than asked tells whether something lies beyond.
            let mut rows = query.query((from, began_at, limit(limit_to + 1)))?;
            let (mut items, mut bytes, mut caught_up) = (Vec::new(), 0, true);
            while let Some(row) = rows.next()? {
                if items.len() == limit_to || bytes >= PAGE_BYTES_BOUND {
                    caught_up = false;
                    break;
                }
                let body: Option<Vec<u8>> = row.get(4)?;
                bytes += body.as_ref().map_or(0, Vec::len);
                items.push(Change {
                    collection: row.get(0)?,
                    id: row.get(1)?,
                    version: row.get(2)?,
                    seq: row.get(3)?,
                    body,
                    price: row.get(5)?,
                });
            }
            let seq = match items.last() {
                Some(change) if !caught_up => change.seq,
                _ => last,
            };
            let horizon_ms: i64 = fact(conn, "horizon_ms")?;
            Ok(Changes::Page(ChangesPage {
                items,
                next: FeedCursor {
                    generation: self.generation.to_string(),
                    seq,
                    began_at: began_at.max(seq),
                },
                caught_up,
                horizon: rfc3339(horizon_ms).unwrap_or_default(),
            }))
        })
    }

    /// The cursor of a reader that knows everything up to now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn feed_end(&self) -> Result<FeedCursor, ReadError> {
        self.readers.read(|conn| {
            let seq = fact(conn, "seq")?;
            Ok(FeedCursor {
                generation: self.generation.to_string(),
                seq,
                began_at: seq,
            })
        })
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.seq)?;
        if self.began_at != self.seq {
            write!(f, "-{}", self.began_at)?;
        }
        Ok(())
    }
}

impl FromStr for FeedCursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '-');
        let generation = parts.next().filter(|part| {
            (1..=32).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        let number = |part: &str| {
            part.parse::<i64>()
                .ok()
                .filter(|n| *n >= 0)
                .ok_or(ParseCursorError)
        };
        let seq = number(parts.next().ok_or(ParseCursorError)?)?;
        let began_at = parts.next().map_or(Ok(seq), number)?;
        Ok(Self {
            generation: generation.ok_or(ParseCursorError)?.to_owned(),
            seq,
            began_at,
        })
    }
}

/// Forgets old deletions, a slice at a time, and gives space back; true when there is more to do.
pub(super) fn keep_house(conn: &Connection, now_ms: i64) -> rusqlite::Result<bool> {
    let forgotten = forget(
        conn,
        now_ms.saturating_sub(TOMBSTONES_KEPT_MS),
        TOMBSTONE_BOUND,
    )?;
    Ok(db::give_space_back(conn)? || forgotten)
}

pub(super) fn forget(conn: &Connection, before_ms: i64, bound: i64) -> rusqlite::Result<bool> {
    // Numbers rise with time, so the oldest deletions are the first of the partial index.
    let oldest: Option<(i64, i64)> = conn
        .prepare_cached(
            "SELECT seq, changed_ms FROM documents WHERE body IS NULL ORDER BY seq LIMIT 1",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((_, oldest_ms)) = oldest else {
        return Ok(false);
    };
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM documents WHERE body IS NULL")?
        .query_row([], |row| row.get(0))?;
    if oldest_ms >= before_ms && count <= bound {
        return Ok(false);
    }
    let surplus = (count - bound).max(0);
    let goes = conn
        .prepare_cached(
            "SELECT doc, seq, changed_ms FROM documents WHERE body IS NULL ORDER BY seq LIMIT ?1",
        )?
        .query_map([SLICE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<(i64, i64, i64)>>>()?;
    let mut gone = 0;
    for (doc, seq, changed_ms) in goes {
        if gone >= surplus && changed_ms >= before_ms {
            break;
        }
        gone += 1;
        conn.prepare_cached("DELETE FROM documents WHERE doc = ?1")?
            .execute([doc])?;
        conn.prepare_cached("UPDATE facts SET value = max(value, ?2) WHERE name = ?1")?
            .execute(("horizon_seq", seq))?;
        conn.prepare_cached("UPDATE facts SET value = max(value, ?2) WHERE name = ?1")?
            .execute(("horizon_ms", changed_ms))?;
    }
    Ok(gone == SLICE)
}

fn fact<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<T> {
    conn.prepare_cached("SELECT value FROM facts WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
}
