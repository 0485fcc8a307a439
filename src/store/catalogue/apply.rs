//! Writing documents. Documents and cursor are one transaction, so a restart at any point loses nothing.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Params};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::{BARCODE_COLLECTION, MEDIA_COLLECTION};
use super::{Catalogue, DocumentChange};
use crate::store::events::StoreEvent;
use crate::store::writer::{Reply, Tx, WriteError};
use crate::units::ByteSize;

/// What a batch of documents changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Documents that are new or differ.
    pub changed: usize,
    /// Documents that were deleted.
    pub deleted: usize,
    /// Documents that stood there already, or in a higher version.
    pub unchanged: usize,
    /// Highest sequence number of the local feed afterwards.
    pub seq: i64,
}

impl Catalogue {
    /// Applies one page of the platform's feed and remembers where the next one begins.
    pub fn apply_page(&self, changes: Vec<DocumentChange>, next_cursor: &str) -> Reply<Applied> {
        if let Err(error) = self.room_for(&changes) {
            return Reply::known(Err(error));
        }
        let next_cursor = next_cursor.to_owned();
        self.writer.submit(move |tx| {
            let applied = apply(tx, &changes, false)?;
            // A page without news is remembered too, but only if it moved the cursor: no write, no flush.
            if fact::<String>(tx, "cursor")?.as_deref() != Some(&*next_cursor) {
                set_fact(tx, "cursor", &next_cursor)?;
                set_fact(tx, "pulled_ms", tx.now_ms)?;
            }
            Ok(applied)
        })
    }

    /// Refuses what would eat into the space reserved for orders.
    pub(super) fn room_for(&self, changes: &[DocumentChange]) -> Result<(), WriteError> {
        let bytes: usize = changes
            .iter()
            .map(|change| change.data.as_ref().map_or(0, |data| data.get().len()))
            .sum();
        // Body, indexes and write-ahead log.
        let wanted = ByteSize::bytes(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(3));
        self.room.check(wanted).map_err(WriteError::disk)
    }
}

/// Applies `changes` inside `tx`. In a snapshot, what is found unchanged is noted as seen.
pub(super) fn apply(
    tx: &mut Tx<'_>,
    changes: &[DocumentChange],
    in_snapshot: bool,
) -> rusqlite::Result<Applied> {
    let first_seq: i64 = fact(tx, "seq")?.unwrap_or(0);
    let mut batch = Batch {
        tx,
        in_snapshot,
        applied: Applied {
            seq: first_seq,
            ..Applied::default()
        },
        live: BTreeMap::new(),
        media: false,
    };
    for change in changes {
        batch.apply(change)?;
    }
    let Batch {
        applied,
        live,
        media,
        ..
    } = batch;
    for (collection, change) in live {
        count(tx, collection, change)?;
    }
    if applied.seq != first_seq {
        set_fact(tx, "seq", applied.seq)?;
        tx.tell(StoreEvent::Catalogue { seq: applied.seq });
        if media {
            tx.tell(StoreEvent::Media);
        }
    }
    Ok(applied)
}

struct Batch<'b, 'c, 'd> {
    tx: &'b Tx<'c>,
    in_snapshot: bool,
    applied: Applied,
    live: BTreeMap<&'d str, i64>,
    media: bool,
}

struct Old {
    doc: i64,
    version: i64,
    body: Option<Vec<u8>>,
}

impl<'d> Batch<'_, '_, 'd> {
    fn apply(&mut self, change: &'d DocumentChange) -> rusqlite::Result<()> {
        let body = change.data.as_ref().map(|data| data.get().as_bytes());
        if let Some(body) = body {
            // Nearly all documents of a first snapshot are new: try that first.
            let inserted = self.execute(
                "INSERT INTO documents (collection, id, version, seq, changed_ms, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
                (
                    &change.collection,
                    &change.id,
                    change.version,
                    self.applied.seq + 1,
                    self.tx.now_ms,
                    body,
                ),
            )?;
            if inserted == 1 {
                let doc = self.tx.conn.last_insert_rowid();
                self.changed(change, 1);
                return self.index(doc, change, None);
            }
        }
        match self.old(change)? {
            // Deleted before it was ever here.
            None => self.applied.unchanged += 1,
            Some(old) if change.version < old.version => self.seen(&old)?,
            Some(old) if change.version == old.version && body == old.body.as_deref() => {
                self.seen(&old)?;
            }
            Some(old) => {
                self.execute(
                    "UPDATE documents SET version = ?2, seq = ?3, changed_ms = ?4, body = ?5 WHERE doc = ?1",
                    (old.doc, change.version, self.applied.seq + 1, self.tx.now_ms, body),
                )?;
                let live = i64::from(body.is_some()) - i64::from(old.body.is_some());
                self.changed(change, live);
                self.index(old.doc, change, old.body.as_deref())?;
            }
        }
        Ok(())
    }

    fn old(&self, change: &DocumentChange) -> rusqlite::Result<Option<Old>> {
        self.tx
            .conn
            .prepare_cached(
                "SELECT doc, version, body FROM documents WHERE collection = ?1 AND id = ?2",
            )?
            .query_row((&change.collection, &change.id), |row| {
                Ok(Old {
                    doc: row.get(0)?,
                    version: row.get(1)?,
                    body: row.get(2)?,
                })
            })
            .optional()
    }

    fn changed(&mut self, change: &'d DocumentChange, live: i64) {
        self.applied.seq += 1;
        if change.data.is_some() {
            self.applied.changed += 1;
        } else {
            self.applied.deleted += 1;
        }
        *self.live.entry(&change.collection).or_default() += live;
        self.media |= change.collection == MEDIA_COLLECTION;
    }

    fn seen(&mut self, old: &Old) -> rusqlite::Result<()> {
        self.applied.unchanged += 1;
        if self.in_snapshot {
            self.execute(
                "INSERT INTO seen VALUES (?1) ON CONFLICT DO NOTHING",
                [old.doc],
            )?;
        }
        Ok(())
    }

    fn index(&self, doc: i64, change: &DocumentChange, old: Option<&[u8]>) -> rusqlite::Result<()> {
        if change.collection != BARCODE_COLLECTION {
            return Ok(());
        }
        let before = old.map(barcodes).unwrap_or_default();
        let after = change
            .data
            .as_ref()
            .map(|data| barcodes(data.get().as_bytes()))
            .unwrap_or_default();
        if before == after {
            return Ok(());
        }
        for code in &before {
            self.execute(
                "DELETE FROM barcodes WHERE code = ?1 AND doc = ?2",
                (code, doc),
            )?;
        }
        for code in &after {
            self.execute(
                "INSERT INTO barcodes VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                (code, doc),
            )?;
        }
        Ok(())
    }

    fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.tx.conn.prepare_cached(sql)?.execute(params)
    }
}

/// Barcodes of one document at most; a list beyond it is cut.
const MAX_BARCODES: usize = 64;
/// Longest barcode, bytes (a GS1 element string has 90 at most); longer ones are not indexed.
const MAX_BARCODE: usize = 128;

/// The barcodes of a product. A field of another kind is no barcode; the document is served all the same.
pub(super) fn barcodes(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Coded<'a> {
        #[serde(borrow)]
        barcodes: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Coded<'_>>(body)
        .ok()
        .and_then(|coded| serde_json::from_str::<Vec<String>>(coded.barcodes?.get()).ok())
        .unwrap_or_default()
        .into_iter()
        .filter(|code| (1..=MAX_BARCODE).contains(&code.len()))
        .take(MAX_BARCODES)
        .collect()
}

/// Adds `change` to the number of live documents of `collection`.
pub(super) fn count(tx: &Tx<'_>, collection: &str, change: i64) -> rusqlite::Result<()> {
    if change == 0 {
        return Ok(());
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO collections VALUES (?1, ?2) ON CONFLICT DO UPDATE SET live = live + ?2",
        )?
        .execute((collection, change))
        .map(drop)
}

pub(super) fn fact<T: rusqlite::types::FromSql>(
    tx: &Tx<'_>,
    name: &str,
) -> rusqlite::Result<Option<T>> {
    tx.conn
        .prepare_cached("SELECT value FROM facts WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn set_fact(
    tx: &Tx<'_>,
    name: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
        .execute((name, value))
        .map(drop)
}
