//! Reading documents: points in microseconds, pages with a bound.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::{Catalogue, LIST_BOUND, PAGE_BYTES_BOUND};
use crate::store::readers::ReadError;

/// Products that share one barcode at most, as given back.
const SAME_BARCODE: usize = 32;

/// A document as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its collection.
    pub collection: String,
    /// Its id within the collection.
    pub id: String,
    /// The platform's version.
    pub version: i64,
    /// Number of its last change in the local feed.
    pub seq: i64,
    /// A strong entity tag (RFC 9110, 8.8.3) with its quotes, as it stands in the header.
    pub etag: String,
    /// The document, JSON, byte for byte as it came.
    pub body: Vec<u8>,
    /// Of its `prices`, the entry that holds now, byte for byte as it came.
    pub price: Option<Vec<u8>>,
}

/// A collection and how many documents it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CollectionCount {
    /// The collection.
    pub collection: String,
    /// Documents that are not deleted.
    pub documents: i64,
}

impl Catalogue {
    /// One document.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn document(&self, collection: &str, id: &str) -> Result<Option<Stored>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT collection, id, version, seq, body, price FROM documents
                 WHERE collection = ?1 AND id = ?2 AND body IS NOT NULL",
            )?
            .query_row((collection, id), |row| self.stored(row))
            .optional()
        })
    }

    /// The products with barcode `code`, by id.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn by_barcode(&self, code: &str) -> Result<Vec<Stored>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT collection, id, version, seq, body, price FROM barcodes JOIN documents USING (doc)
                 WHERE code = ?1 AND body IS NOT NULL LIMIT ?2",
            )?
            .query_map((code, limit(SAME_BARCODE)), |row| self.stored(row))?
            .collect()
        })
    }

    /// Documents of a collection by id, those after `after_id`, at most `limit` (and [`LIST_BOUND`]); fewer when they
    /// are large ([`PAGE_BYTES_BOUND`]), but one if there is one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn list(
        &self,
        collection: &str,
        after_id: &str,
        limit_to: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.readers.read(|conn| {
            let mut query = conn.prepare_cached(
                "SELECT collection, id, version, seq, body, price FROM documents
                 WHERE collection = ?1 AND id > ?2 AND body IS NOT NULL ORDER BY id LIMIT ?3",
            )?;
            let mut rows = query.query((collection, after_id, limit(limit_to.min(LIST_BOUND))))?;
            let (mut page, mut bytes) = (Vec::new(), 0);
            while bytes < PAGE_BYTES_BOUND {
                let Some(row) = rows.next()? else { break };
                let stored = self.stored(row)?;
                bytes += stored.body.len();
                page.push(stored);
            }
            Ok(page)
        })
    }

    /// All collections.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn collections(&self) -> Result<Vec<CollectionCount>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached("SELECT name, live FROM collections ORDER BY name")?
                .query_map([], |row| {
                    Ok(CollectionCount {
                        collection: row.get(0)?,
                        documents: row.get(1)?,
                    })
                })?
                .collect()
        })
    }

    /// Where the platform's feed is to be read on; `None` before the first snapshot has ended.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn cursor(&self) -> Result<Option<String>, ReadError> {
        self.fact("cursor")
    }

    /// When the platform last moved the cursor, milliseconds since 1970.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn last_pull(&self) -> Result<Option<i64>, ReadError> {
        self.fact("pulled_ms")
    }

    fn fact<T: rusqlite::types::FromSql>(&self, name: &str) -> Result<Option<T>, ReadError> {
        self.readers.read(|conn| fact(conn, name))
    }

    fn stored(&self, row: &Row<'_>) -> rusqlite::Result<Stored> {
        let seq = row.get(3)?;
        Ok(Stored {
            collection: row.get(0)?,
            id: row.get(1)?,
            version: row.get(2)?,
            seq,
            // No number is given twice within a generation, so this names one content.
            etag: format!("\"{}-{seq:x}\"", self.generation),
            body: row.get(4)?,
            price: row.get(5)?,
        })
    }
}

pub(super) fn fact<T: rusqlite::types::FromSql>(
    conn: &Connection,
    name: &str,
) -> rusqlite::Result<Option<T>> {
    conn.prepare_cached("SELECT value FROM facts WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn limit(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}
