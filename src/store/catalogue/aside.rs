//! What the platform sent and the box could not keep, set aside where support can look at it.

use super::Catalogue;
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

impl Catalogue {
    /// Sets an item aside; of `text` only the first [`ASIDE_HEAD`] bytes are kept.
    pub fn set_aside(&self, reason: String, text: &[u8]) -> Reply<()> {
        let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let head = text[..text.len().min(ASIDE_HEAD)].to_vec();
        self.writer.submit(move |tx| {
            tx.conn
                .prepare_cached(
                    "INSERT INTO set_aside (at_ms, reason, bytes, head) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((tx.now_ms, &reason, bytes, &head))?;
            tx.conn
                .prepare_cached("DELETE FROM set_aside WHERE n <= ?1")?
                .execute([tx.conn.last_insert_rowid() - ASIDE_BOUND])
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
