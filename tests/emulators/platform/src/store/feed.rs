//! The feed side of changes: pages after a sequence number, and the horizon behind which changes are gone.

use rusqlite::{Connection, OptionalExtension, params};

use super::snapshots::class_of;
use super::{StoreError, set_setting, setting};

/// How many changes are kept unless control says otherwise.
pub const DEFAULT_KEPT_CHANGES: i64 = 1_000_000;

/// A page is cut at this much data, so that it stays small whatever the documents are.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// One change as the feed tells it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Place in the feed.
    pub seq: i64,
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub id: String,
    /// Version this change made.
    pub version: i64,
    /// The JSON object, or `None` for a deletion.
    pub data: Option<String>,
}

/// Where the feed stands.
#[derive(Debug, Clone)]
pub struct Position {
    /// Names this store; a cursor of another one is void.
    pub incarnation: String,
    /// Changes up to here are gone.
    pub horizon_seq: i64,
    /// The newest change ever made.
    pub last_seq: i64,
    /// When the oldest kept change was made; `None` if none is kept.
    pub horizon_ms: Option<i64>,
}

/// Reads where the feed stands.
pub fn position(connection: &Connection) -> Result<Position, StoreError> {
    let horizon_seq = horizon(connection)?;
    Ok(Position {
        incarnation: setting(connection, "incarnation")?.unwrap_or_default(),
        horizon_seq,
        last_seq: last_seq(connection)?,
        horizon_ms: connection
            .prepare_cached("SELECT at_ms FROM changes WHERE seq > ?1 ORDER BY seq LIMIT 1")?
            .query_row([horizon_seq], |row| row.get(0))
            .optional()?,
    })
}

/// Which changes are asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// After this one.
    pub after: i64,
    /// And not beyond this one.
    pub until: i64,
    /// At most so many.
    pub limit: usize,
    /// Only of collections of this class.
    pub class: Option<String>,
}

/// Changes, oldest first, and whether there are no more of those wanted.
pub fn page(connection: &Connection, wanted: &Wanted) -> Result<(Vec<Change>, bool), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, collection, id, version, data FROM changes
         WHERE seq > ?1 AND seq <= ?2 AND seq NOT IN (SELECT seq FROM hidden) ORDER BY seq",
    )?;
    let mut rows = statement.query(params![wanted.after, wanted.until])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    loop {
        let Some(row) = rows.next()? else {
            return Ok((page, true));
        };
        let collection: String = row.get(1)?;
        if wanted
            .class
            .as_ref()
            .is_some_and(|class| class_of(&collection) != class)
        {
            continue;
        }
        if bytes >= MAX_PAGE_BYTES || page.len() == wanted.limit {
            return Ok((page, false));
        }
        let change = Change {
            seq: row.get(0)?,
            collection,
            id: row.get(2)?,
            version: row.get(3)?,
            data: row.get(4)?,
        };
        bytes += change.data.as_ref().map_or(0, String::len);
        page.push(change);
    }
}

/// The feed never tells of this change: a mistake of the platform that boxes must find by themselves.
pub fn hide(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    connection.execute("INSERT OR IGNORE INTO hidden VALUES (?1)", [seq])?;
    Ok(())
}

/// Sets how many changes are kept, and drops what is too old by it.
pub fn keep(connection: &Connection, kept: i64) -> Result<(), StoreError> {
    set_setting(connection, "kept_changes", &kept.to_string())?;
    forget_old(connection, last_seq(connection)?)
}

/// Drops every change: all cursors but the newest are void.
pub fn forget_all(connection: &Connection) -> Result<(), StoreError> {
    forget_up_to(connection, last_seq(connection)?)
}

/// Drops changes that are too old now that `last_seq` is the newest.
pub(super) fn forget_old(connection: &Connection, last_seq: i64) -> Result<(), StoreError> {
    let kept = setting(connection, "kept_changes")?
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_KEPT_CHANGES);
    if last_seq - horizon(connection)? > kept {
        forget_up_to(connection, last_seq - kept)
    } else {
        Ok(())
    }
}

fn forget_up_to(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    set_setting(connection, "horizon_seq", &seq.to_string())?;
    // A live document's newest change holds its data and stays; the cursor check hides it from the feed.
    connection
        .prepare_cached(
            "DELETE FROM changes WHERE seq <= ?1 AND NOT EXISTS (SELECT 1 FROM documents d
             WHERE d.collection = changes.collection AND d.id = changes.id AND d.seq = changes.seq AND d.deleted = 0)",
        )?
        .execute([seq])?;
    Ok(())
}

fn horizon(connection: &Connection) -> Result<i64, StoreError> {
    Ok(setting(connection, "horizon_seq")?
        .and_then(|text| text.parse().ok())
        .unwrap_or(0))
}

fn last_seq(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")?
        .query_row([], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}
