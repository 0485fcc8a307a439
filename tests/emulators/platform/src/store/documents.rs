//! Documents and the changes that made them. A document's version rises by one with each change, also over
//! a deletion; every change gets the next sequence number.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, feed};

/// What one write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// The document's version now.
    pub version: i64,
    /// Sequence number of its newest change.
    pub seq: i64,
    /// False when the write was left out because nothing would have changed.
    pub changed: bool,
}

/// One document as it stands.
#[derive(Debug, Clone)]
pub struct Document {
    /// Collection it belongs to.
    pub collection: String,
    /// Id within the collection.
    pub id: String,
    /// Rises with each change.
    pub version: i64,
    /// The JSON object, as text.
    pub data: String,
}

/// Whether a write of equal data counts as a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// It does: somebody asked for it.
    Always,
    /// It does not: loading the same list again tells the boxes nothing.
    OnlyIfDifferent,
}

/// Stores `data` (JSON text of one line) under `collection`/`id`.
pub fn put(
    connection: &Connection,
    (collection, id): (&str, &str),
    data: &str,
    rewrite: Rewrite,
    now_ms: i64,
) -> Result<Written, StoreError> {
    let before = newest(connection, collection, id)?;
    if let Some(known) = &before
        && rewrite == Rewrite::OnlyIfDifferent
        && known.data.as_deref() == Some(data)
    {
        return Ok(Written {
            version: known.version,
            seq: known.seq,
            changed: false,
        });
    }
    write(
        connection,
        (collection, id),
        before.map_or(0, |known| known.version),
        Some(data),
        now_ms,
    )
}

/// Deletes the document; `None` if there is none.
pub fn delete(
    connection: &Connection,
    collection: &str,
    id: &str,
    now_ms: i64,
) -> Result<Option<Written>, StoreError> {
    match newest(connection, collection, id)? {
        Some(known) if known.data.is_some() => {
            write(connection, (collection, id), known.version, None, now_ms).map(Some)
        }
        _ => Ok(None),
    }
}

/// The document as it stands, if it exists.
pub fn read(
    connection: &Connection,
    collection: &str,
    id: &str,
) -> Result<Option<Document>, StoreError> {
    Ok(newest(connection, collection, id)?.and_then(|known| {
        let data = known.data?;
        Some(Document {
            collection: collection.to_owned(),
            id: id.to_owned(),
            version: known.version,
            data,
        })
    }))
}

/// Up to `limit` documents after `(collection, id)`, in that order; the pages of a snapshot.
pub fn page_after(
    connection: &Connection,
    after: (&str, &str),
    limit: usize,
) -> Result<Vec<Document>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT d.collection, d.id, d.version, c.data FROM documents d JOIN changes c ON c.seq = d.seq
         WHERE (d.collection, d.id) > (?1, ?2) AND d.deleted = 0 ORDER BY d.collection, d.id LIMIT ?3",
    )?;
    let rows = statement.query_map(
        params![after.0, after.1, i64::try_from(limit).unwrap_or(i64::MAX)],
        |row| {
            Ok(Document {
                collection: row.get(0)?,
                id: row.get(1)?,
                version: row.get(2)?,
                data: row.get(3)?,
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many documents exist.
pub fn count(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row(
        "SELECT count(*) FROM documents WHERE deleted = 0",
        [],
        |row| row.get(0),
    )?)
}

struct Newest {
    version: i64,
    seq: i64,
    /// `None`: deleted.
    data: Option<String>,
}

fn newest(
    connection: &Connection,
    collection: &str,
    id: &str,
) -> Result<Option<Newest>, StoreError> {
    // The change of a deletion may have fallen off the feed: hence the left join.
    Ok(connection
        .prepare_cached(
            "SELECT d.version, d.seq, c.data FROM documents d LEFT JOIN changes c ON c.seq = d.seq
             WHERE d.collection = ?1 AND d.id = ?2",
        )?
        .query_row([collection, id], |row| {
            Ok(Newest {
                version: row.get(0)?,
                seq: row.get(1)?,
                data: row.get(2)?,
            })
        })
        .optional()?)
}

fn write(
    connection: &Connection,
    (collection, id): (&str, &str),
    version_before: i64,
    data: Option<&str>,
    now_ms: i64,
) -> Result<Written, StoreError> {
    let version = version_before + 1;
    let deleted = data.is_none();
    connection
        .prepare_cached(
            "INSERT INTO changes(collection, id, version, deleted, at_ms, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![collection, id, version, deleted, now_ms, data])?;
    let seq = connection.last_insert_rowid();
    connection
        .prepare_cached(
            "INSERT INTO documents(collection, id, version, deleted, seq) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET version = excluded.version, deleted = excluded.deleted, seq = excluded.seq",
        )?
        .execute(params![collection, id, version, deleted, seq])?;
    feed::forget_old(connection, seq)?;
    Ok(Written {
        version,
        seq,
        changed: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn versions_rise_over_a_deletion_and_its_oblivion() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .call_blocking(|c| {
                assert_eq!(
                    put(c, ("products", "a"), "{}", Rewrite::Always, 1)?.version,
                    1
                );
                assert!(!put(c, ("products", "a"), "{}", Rewrite::OnlyIfDifferent, 1)?.changed);
                assert_eq!(delete(c, "products", "a", 2)?.map(|w| w.version), Some(2));
                assert_eq!(delete(c, "products", "a", 3)?, None);
                feed::forget_all(c)?;
                assert!(read(c, "products", "a")?.is_none());
                assert_eq!(
                    put(c, ("products", "a"), "{}", Rewrite::Always, 4)?.version,
                    3
                );
                Ok(())
            })
            .unwrap();
    }
}
