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

impl Document {
    /// Its line in a snapshot, without the line feed. The data goes out byte for byte as it came in.
    pub fn line(&self) -> String {
        let head = head(&self.collection, &self.id, self.version);
        format!("{head},\"data\":{}}}", self.data)
    }
}

/// The start of a document's line or a change's item, up to and with its version.
pub fn head(collection: &str, id: &str, version: i64) -> String {
    let (collection, id) = (serde_json::to_string(collection), serde_json::to_string(id));
    let text = "a string is JSON";
    format!(
        "{{\"collection\":{},\"id\":{},\"version\":{version}",
        collection.expect(text),
        id.expect(text)
    )
}

/// The collections that have or had documents.
pub fn collections(connection: &Connection) -> Result<Vec<String>, StoreError> {
    // One step of the index a collection, not one a document.
    let mut statement = connection.prepare_cached(
        "SELECT collection FROM documents WHERE collection > ?1 ORDER BY collection LIMIT 1",
    )?;
    let (mut found, mut after) = (Vec::new(), String::new());
    while let Some(name) = statement
        .query_row([&after], |row| row.get::<_, String>(0))
        .optional()?
    {
        after.clone_from(&name);
        found.push(name);
    }
    Ok(found)
}

/// Up to `limit` documents of a collection after `id`, by id.
pub fn page_of(
    connection: &Connection,
    collection: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<Document>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT d.collection, d.id, d.version, c.data FROM documents d JOIN changes c ON c.seq = d.seq
         WHERE d.collection = ?1 AND d.id > ?2 AND d.deleted = 0 ORDER BY d.id LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![collection, after, limit], |row| {
        Ok(Document {
            collection: row.get(0)?,
            id: row.get(1)?,
            version: row.get(2)?,
            data: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Shows every document of a collection to `wanted` by id and version, and gives those it wants to `take`.
pub fn each(
    connection: &Connection,
    collection: &str,
    mut wanted: impl FnMut(&str, i64) -> Result<bool, StoreError>,
    mut take: impl FnMut(Document),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, version FROM documents WHERE collection = ?1 AND deleted = 0 ORDER BY id",
    )?;
    let mut rows = statement.query([collection])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        if wanted(&id, row.get(1)?)?
            && let Some(document) = read(connection, collection, &id)?
        {
            take(document);
        }
    }
    Ok(())
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
