//! A snapshot: all documents of the platform, applied as they come, then the sweep of what it did not hold.
//!
//! Documents are served as soon as their batch is committed. A snapshot that breaks off costs nothing but the sweep:
//! the next one finds what it brought unchanged.

use super::apply::{apply, barcodes, count, fact, set_fact};
use super::schema::{BARCODE_COLLECTION, MEDIA_COLLECTION};
use super::{Applied, Catalogue, DocumentChange};
use crate::store::events::StoreEvent;
use crate::store::writer::{Reply, Tx};

/// A running snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRun {
    run: i64,
    start_seq: i64,
}

/// How a snapshot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotEnd {
    /// The catalogue is what the snapshot held; the cursor is set.
    Finished {
        /// Documents that the snapshot did not hold and that are deleted now.
        swept: usize,
    },
    /// Another snapshot began meanwhile; nothing was swept.
    Superseded,
}

impl Catalogue {
    /// Begins a snapshot; one that ran is superseded.
    pub fn begin_snapshot(&self) -> Reply<SnapshotRun> {
        self.writer.submit(|tx| {
            let run = fact::<i64>(tx, "run")?.unwrap_or(0) + 1;
            set_fact(tx, "run", run)?;
            tx.conn.prepare_cached("DELETE FROM seen")?.execute([])?;
            Ok(SnapshotRun {
                run,
                start_seq: fact(tx, "seq")?.unwrap_or(0),
            })
        })
    }

    /// Applies a batch of the snapshot's documents; about a thousand is a good size.
    pub fn apply_snapshot(
        &self,
        _run: &SnapshotRun,
        changes: Vec<DocumentChange>,
    ) -> Reply<Applied> {
        if let Err(error) = self.room_for(&changes) {
            return Reply::known(Err(error));
        }
        self.writer.submit(move |tx| apply(tx, &changes, true))
    }

    /// Ends the snapshot: deletes what it did not hold and sets the cursor, in one transaction.
    pub fn finish_snapshot(&self, run: SnapshotRun, cursor: &str) -> Reply<SnapshotEnd> {
        let cursor = cursor.to_owned();
        self.writer.submit(move |tx| {
            if fact(tx, "run")? != Some(run.run) {
                return Ok(SnapshotEnd::Superseded);
            }
            let swept = sweep(tx, run.start_seq)?;
            tx.conn.prepare_cached("DELETE FROM seen")?.execute([])?;
            set_fact(tx, "cursor", &cursor)?;
            set_fact(tx, "pulled_ms", tx.now_ms)?;
            Ok(SnapshotEnd::Finished { swept })
        })
    }
}

fn sweep(tx: &mut Tx<'_>, start_seq: i64) -> rusqlite::Result<usize> {
    let gone = tx
        .conn
        .prepare_cached(
            "SELECT doc, collection, CASE WHEN collection = ?2 THEN body END FROM documents
             WHERE seq <= ?1 AND body IS NOT NULL AND doc NOT IN (SELECT doc FROM seen)",
        )?
        .query_map((start_seq, BARCODE_COLLECTION), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .map(|row| {
            row.map(|(doc, collection, body): (i64, String, Option<Vec<u8>>)| {
                (
                    doc,
                    collection,
                    body.map(|body| barcodes(&body)).unwrap_or_default(),
                )
            })
        })
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if gone.is_empty() {
        return Ok(0);
    }
    let mut seq: i64 = fact(tx, "seq")?.unwrap_or(0);
    let mut media = false;
    for (doc, collection, codes) in &gone {
        seq += 1;
        tx.conn
            .prepare_cached(
                "UPDATE documents SET seq = ?2, changed_ms = ?3, body = NULL WHERE doc = ?1",
            )?
            .execute((doc, seq, tx.now_ms))?;
        for code in codes {
            tx.conn
                .prepare_cached("DELETE FROM barcodes WHERE code = ?1 AND doc = ?2")?
                .execute((code, doc))?;
        }
        count(tx, collection, -1)?;
        media |= collection == MEDIA_COLLECTION;
    }
    set_fact(tx, "seq", seq)?;
    tx.tell(StoreEvent::Catalogue { seq });
    if media {
        tx.tell(StoreEvent::Media);
    }
    Ok(gone.len())
}
