//! Blobs: names and properties in the database, bytes in files named by their SHA-256.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::StoreError;
use crate::catalogue::hex;

/// One blob.
#[derive(Debug, Clone)]
pub struct Blob {
    /// SHA-256 of its bytes, in hexadecimal digits: the name of its file.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub content_type: String,
    /// Quoted; another one with every write.
    pub etag: String,
    /// When it was written.
    pub modified_ms: i64,
}

/// Writes the bytes of a blob beside the database and returns its SHA-256.
pub fn write_bytes(blobs_dir: &Path, bytes: &[u8]) -> Result<String, StoreError> {
    let sha256 = hex(&Sha256::digest(bytes));
    let path = blobs_dir.join(&sha256);
    if !path.exists() {
        let beside = blobs_dir.join(format!("{sha256}.partial"));
        std::fs::write(&beside, bytes)?;
        std::fs::rename(&beside, &path)?;
    }
    Ok(sha256)
}

/// Names bytes that [`write_bytes`] wrote.
pub fn put(connection: &Connection, name: &str, blob: &Blob) -> Result<(), StoreError> {
    connection.execute(
        "INSERT OR REPLACE INTO blobs(name, sha256, size, content_type, etag, modified_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            name,
            blob.sha256,
            i64::try_from(blob.size).unwrap_or(i64::MAX),
            blob.content_type,
            blob.etag,
            blob.modified_ms
        ],
    )?;
    Ok(())
}

/// The blob of this name (`container/path`).
pub fn find(connection: &Connection, name: &str) -> Result<Option<Blob>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT sha256, size, content_type, etag, modified_ms FROM blobs WHERE name = ?1",
        )?
        .query_row([name], |row| {
            Ok(Blob {
                sha256: row.get(0)?,
                size: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
                content_type: row.get(2)?,
                etag: row.get(3)?,
                modified_ms: row.get(4)?,
            })
        })
        .optional()?)
}

/// Opens a container to everybody (as they are from the start), or closes it to all without a signature.
pub fn set_closed(
    connection: &Connection,
    container: &str,
    closed: bool,
) -> Result<(), StoreError> {
    let change = if closed {
        "INSERT OR IGNORE INTO closed_containers(name) VALUES (?1)"
    } else {
        "DELETE FROM closed_containers WHERE name = ?1"
    };
    connection.execute(change, [container])?;
    Ok(())
}

/// Whether a container is closed to all without a signature.
pub fn is_closed(connection: &Connection, container: &str) -> Result<bool, StoreError> {
    let mut found = connection.prepare_cached("SELECT 1 FROM closed_containers WHERE name = ?1")?;
    Ok(found.exists([container])?)
}

/// Deletes the name; its bytes stay, another name may have them. False: there was none.
pub fn delete(connection: &Connection, name: &str) -> Result<bool, StoreError> {
    Ok(connection.execute("DELETE FROM blobs WHERE name = ?1", [name])? > 0)
}
