//! Writing documents. Documents and cursor are one transaction, so a restart at any point loses nothing.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Params};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::checksum::Ledger;
use super::price::{self, Priced};
use super::schema::{BARCODE_COLLECTION, MEDIA_COLLECTION, PRICED_COLLECTIONS};
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

/// Where documents come from decides what a lower version means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The feed repeats and overtakes: a lower version is old news.
    Feed,
    /// A snapshot or a repaired bucket is the platform's truth: what differs is replaced, whatever its version, for a
    /// platform restored from a backup counts from lower ones again. What is found unchanged is noted as seen.
    Snapshot,
    /// As a snapshot, and nothing is noted.
    Repair,
}

impl Catalogue {
    /// Applies one page of the platform's feed and remembers where the next one begins.
    pub fn apply_page(&self, changes: Vec<DocumentChange>, next_cursor: &str) -> Reply<Applied> {
        if let Err(error) = self.room_for(&changes) {
            return Reply::known(Err(error));
        }
        let next_cursor = next_cursor.to_owned();
        self.writer.submit(move |tx| {
            let applied = apply(tx, &changes, Source::Feed)?;
            // A page without news is remembered too, but only if it moved the cursor: no write, no flush.
            if fact::<String>(tx, "cursor")?.as_deref() != Some(&*next_cursor) {
                set_fact(tx, "cursor", &next_cursor)?;
                set_fact(tx, "pulled_ms", tx.now_ms)?;
            }
            Ok(applied)
        })
    }

    /// Applies changes that overtook others: the cursor stays, and brings them once more.
    pub fn apply_ahead(&self, changes: Vec<DocumentChange>) -> Reply<Applied> {
        if let Err(error) = self.room_for(&changes) {
            return Reply::known(Err(error));
        }
        self.writer
            .submit(move |tx| apply(tx, &changes, Source::Feed))
    }

    /// Puts right what differs from the platform: `changes` as they stand there, whatever their version. The cursor stays.
    pub fn apply_repair(&self, changes: Vec<DocumentChange>) -> Reply<Applied> {
        if let Err(error) = self.room_for(&changes) {
            return Reply::known(Err(error));
        }
        self.writer
            .submit(move |tx| apply(tx, &changes, Source::Repair))
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

/// Applies `changes` inside `tx`.
pub(super) fn apply(
    tx: &mut Tx<'_>,
    changes: &[DocumentChange],
    source: Source,
) -> rusqlite::Result<Applied> {
    let first_seq: i64 = fact(tx, "seq")?.unwrap_or(0);
    let mut batch = Batch {
        tx,
        source,
        applied: Applied {
            seq: first_seq,
            ..Applied::default()
        },
        live: BTreeMap::new(),
        sums: Ledger::default(),
        media: false,
    };
    for change in changes {
        batch.apply(change)?;
    }
    let Batch {
        applied,
        live,
        sums,
        media,
        ..
    } = batch;
    sums.write(tx.conn)?;
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
    source: Source,
    applied: Applied,
    live: BTreeMap<&'d str, i64>,
    sums: Ledger<'d>,
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
        let read = Read::of(change, self.tx.now_ms);
        if let Some(body) = body {
            // Nearly all documents of a first snapshot are new: try that first.
            let inserted = self.execute(
                "INSERT INTO documents (collection, id, version, seq, changed_ms, body, price)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                (
                    &change.collection,
                    &change.id,
                    change.version,
                    self.applied.seq + 1,
                    self.tx.now_ms,
                    body,
                    read.price(),
                ),
            )?;
            if inserted == 1 {
                let doc = self.tx.conn.last_insert_rowid();
                self.changed(change, None);
                return self.index(doc, change, &read, None);
            }
        }
        match self.old(change)? {
            // Deleted before it was ever here.
            None => self.applied.unchanged += 1,
            Some(old) if self.source == Source::Feed && change.version < old.version => {
                self.applied.unchanged += 1;
            }
            Some(old) if change.version == old.version && body == old.body.as_deref() => {
                self.seen(&old)?;
            }
            Some(old) => {
                self.execute(
                    "UPDATE documents SET version = ?2, seq = ?3, changed_ms = ?4, body = ?5, price = ?6 WHERE doc = ?1",
                    (
                        old.doc,
                        change.version,
                        self.applied.seq + 1,
                        self.tx.now_ms,
                        body,
                        read.price(),
                    ),
                )?;
                self.changed(change, Some(&old));
                self.index(old.doc, change, &read, old.body.as_deref())?;
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

    fn changed(&mut self, change: &'d DocumentChange, old: Option<&Old>) {
        self.applied.seq += 1;
        if change.data.is_some() {
            self.applied.changed += 1;
        } else {
            self.applied.deleted += 1;
        }
        let before = old.filter(|old| old.body.is_some()).map(|old| old.version);
        let after = change.data.as_ref().map(|_| change.version);
        *self.live.entry(&change.collection).or_default() +=
            i64::from(after.is_some()) - i64::from(before.is_some());
        self.sums
            .moved(&change.collection, &change.id, before, after);
        self.media |= change.collection == MEDIA_COLLECTION;
    }

    fn seen(&mut self, old: &Old) -> rusqlite::Result<()> {
        self.applied.unchanged += 1;
        if self.source == Source::Snapshot {
            self.execute(
                "INSERT INTO seen VALUES (?1) ON CONFLICT DO NOTHING",
                [old.doc],
            )?;
        }
        Ok(())
    }

    fn index(
        &self,
        doc: i64,
        change: &DocumentChange,
        read: &Read,
        old: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        if PRICED_COLLECTIONS.contains(&&*change.collection) {
            let had = old.is_some_and(Read::mentions_prices);
            date(self.tx.conn, doc, &read.priced, had)?;
        }
        if change.collection != BARCODE_COLLECTION {
            return Ok(());
        }
        let before = old.map(barcodes).unwrap_or_default();
        if before == read.barcodes {
            return Ok(());
        }
        for code in &before {
            self.execute(
                "DELETE FROM barcodes WHERE code = ?1 AND doc = ?2",
                (code, doc),
            )?;
        }
        for code in &read.barcodes {
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

/// Notes when the price of `doc` is to be looked at again; `had` says that there may be an older note.
pub(super) fn date(
    conn: &Connection,
    doc: i64,
    priced: &Priced,
    had: bool,
) -> rusqlite::Result<()> {
    if priced.dated {
        conn.prepare_cached("INSERT OR REPLACE INTO dated VALUES (?1, ?2)")?
            .execute((doc, priced.next_ms))?;
    } else if had {
        conn.prepare_cached("DELETE FROM dated WHERE doc = ?1")?
            .execute([doc])?;
    }
    Ok(())
}

/// Barcodes of one document at most; a list beyond it is cut.
const MAX_BARCODES: usize = 64;
/// Longest barcode, bytes (a GS1 element string has 90 at most); longer ones are not indexed.
const MAX_BARCODE: usize = 128;

/// What the box itself reads of a document. A field of another kind is none; the document is served all the same.
#[derive(Default)]
struct Read {
    barcodes: Vec<String>,
    priced: Priced,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    barcodes: Option<&'a RawValue>,
    #[serde(borrow)]
    prices: Option<&'a RawValue>,
}

impl Read {
    fn of(change: &DocumentChange, now_ms: i64) -> Self {
        let coded = change.collection == BARCODE_COLLECTION;
        let may_be_priced = PRICED_COLLECTIONS.contains(&&*change.collection);
        let Some(data) = change.data.as_ref().filter(|_| coded || may_be_priced) else {
            return Self::default();
        };
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(data.get()) else {
            return Self::default();
        };
        Self {
            barcodes: if coded {
                codes(fields.barcodes)
            } else {
                Vec::new()
            },
            priced: fields
                .prices
                .map(|list| price::at(list.get(), now_ms))
                .unwrap_or_default(),
        }
    }

    fn price(&self) -> Option<&[u8]> {
        self.priced.current.as_deref().map(str::as_bytes)
    }

    /// False only when the document surely has no `prices`.
    fn mentions_prices(body: &[u8]) -> bool {
        std::str::from_utf8(body).is_ok_and(|text| text.contains("prices") || text.contains('\\'))
    }
}

fn codes(list: Option<&RawValue>) -> Vec<String> {
    list.and_then(|list| serde_json::from_str::<Vec<String>>(list.get()).ok())
        .unwrap_or_default()
        .into_iter()
        .filter(|code| (1..=MAX_BARCODE).contains(&code.len()))
        .take(MAX_BARCODES)
        .collect()
}

/// The barcodes of a product.
pub(super) fn barcodes(body: &[u8]) -> Vec<String> {
    serde_json::from_slice::<Fields<'_>>(body)
        .map(|fields| codes(fields.barcodes))
        .unwrap_or_default()
}

/// The prices of a document at `now_ms`.
pub(super) fn priced(body: &[u8], now_ms: i64) -> Priced {
    serde_json::from_slice::<Fields<'_>>(body)
        .ok()
        .and_then(|fields| Some(price::at(fields.prices?.get(), now_ms)))
        .unwrap_or_default()
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
