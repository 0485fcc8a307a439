//! What the platform sent and the box could not keep, set aside where support can look at it.

use rusqlite::Connection;

use super::Catalogue;
use super::read::fact;
use crate::store::readers::ReadError;
use crate::store::writer::Reply;

/// Items kept aside; the oldest go first, and the counter goes on.
pub const ASIDE_BOUND: i64 = 100;
/// Of one item, so many of its first bytes.
pub const ASIDE_HEAD: usize = 2048;

/// An item that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Why; never what was in it.
    pub reason: String,
    /// How long it was, as far as it was read.
    pub bytes: u64,
    /// Its first bytes. They may be a customer's: for support on the box, never for a log or a page.
    pub head: Vec<u8>,
}

/// What is wrong with the catalogue until a whole look at the platform's finds it right. It outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Items that could not be kept, and why the last one could not.
    pub refused: Option<(u64, String)>,
    /// Documents that differ from the platform's and could not be repaired: which.
    pub differs: Option<String>,
}

/// The facts that hold them.
const REFUSED: &str = "refused";
const REFUSED_LAST: &str = "refused_last";
const DIFFERS: &str = "differs";

impl Catalogue {
    /// What is wrong.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn faults(&self) -> Result<Faults, ReadError> {
        self.readers.read_together(|conn| {
            let refused: Option<i64> = fact(conn, REFUSED)?;
            let last: Option<String> = fact(conn, REFUSED_LAST)?;
            Ok(Faults {
                refused: refused.map(|count| (count.unsigned_abs(), last.unwrap_or_default())),
                differs: fact(conn, DIFFERS)?,
            })
        })
    }

    /// A whole look found nothing that could not be kept. What was set aside stays for support.
    pub fn nothing_refused(&self) -> Reply<()> {
        self.writer.submit(|tx| {
            tx.conn
                .execute(
                    "DELETE FROM facts WHERE name IN (?1, ?2)",
                    [REFUSED, REFUSED_LAST],
                )
                .map(drop)
        })
    }

    /// Notes which documents differ, or that none does.
    pub fn note_differing(&self, detail: Option<String>) -> Reply<()> {
        self.writer.submit(move |tx| match &detail {
            Some(detail) => put(tx.conn, DIFFERS, detail),
            None => tx
                .conn
                .execute("DELETE FROM facts WHERE name = ?1", [DIFFERS])
                .map(drop),
        })
    }

    /// Sets an item aside, and counts it to [`Faults::refused`]; of `text` only the first [`ASIDE_HEAD`] bytes are kept.
    pub fn set_aside(&self, reason: String, text: &[u8]) -> Reply<()> {
        let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let head = text[..text.len().min(ASIDE_HEAD)].to_vec();
        self.writer.submit(move |tx| {
            tx.conn
                .prepare_cached(
                    "INSERT INTO set_aside (at_ms, reason, bytes, head) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((tx.now_ms, &reason, bytes, &head))?;
            let last = tx.conn.last_insert_rowid();
            tx.conn
                .prepare_cached(
                    "INSERT INTO facts VALUES (?1, 1) ON CONFLICT DO UPDATE SET value = value + 1",
                )?
                .execute([REFUSED])?;
            put(tx.conn, REFUSED_LAST, &reason)?;
            tx.conn
                .prepare_cached("DELETE FROM set_aside WHERE n <= ?1")?
                .execute([last - ASIDE_BOUND])
                .map(drop)
        })
    }

    /// How many items are kept aside.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn aside_count(&self) -> Result<u32, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached("SELECT count(*) FROM set_aside")?
                .query_row([], |row| row.get(0))
        })
    }

    /// What is kept aside, the newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn aside(&self) -> Result<Vec<Aside>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT at_ms, reason, bytes, head FROM set_aside ORDER BY n DESC LIMIT ?1",
            )?
            .query_map([ASIDE_BOUND], |row| {
                Ok(Aside {
                    at_ms: row.get(0)?,
                    reason: row.get(1)?,
                    bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                    head: row.get(3)?,
                })
            })?
            .collect()
        })
    }
}

fn put(conn: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
        .execute([name, value])
        .map(drop)
}
