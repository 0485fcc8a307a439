//! A snapshot: all documents of the platform, applied as they come, then the sweep of what it did not hold.
//!
//! ```text
//!  begin(plan) --> apply(batch, place) --> … --> finish: sweep, cursor set, run forgotten; one transaction up to SWEEP_BOUND
//!                        |  crash, loss of connection, restart
//!                        '--> running() gives plan and place: it goes on there
//! ```
//! The place (part, byte within its encoded body) is written in the transaction of the documents before it, so it never
//! leads past one that was not kept. Documents are served as soon as their batch is committed, and what was there before
//! stays until the end: nobody sees a catalogue that is half empty.

use serde::{Deserialize, Serialize};

use super::apply::{Source, apply, barcodes, count, fact, set_fact};
use super::checksum::Ledger;
use super::schema::{BARCODE_COLLECTION, MEDIA_COLLECTION};
use super::{Applied, Catalogue, DocumentChange};
use crate::store::events::StoreEvent;
use crate::store::readers::ReadError;
use crate::store::writer::{Reply, Tx};

/// Documents swept in one step of a transaction: memory does not depend on how many there are.
const SWEEP_SLICE: i64 = 1000;
/// Documents swept in one transaction. When a platform drops more at once, they go in several, so that the log of the
/// database does not grow to the size of the catalogue.
pub const SWEEP_BOUND: usize = 50_000;

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlan {
    /// The platform's name for it.
    pub snapshot: String,
    /// Where the feed goes on after it.
    pub cursor: String,
    /// Its parts, the most urgent first.
    pub parts: Vec<SnapshotPart>,
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// The platform's name for it.
    pub part: String,
    /// How urgent it is, as the contract names it.
    pub class: String,
    /// Documents in it, as the platform announces.
    pub documents: u64,
}

/// How far a snapshot has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotPlace {
    /// Index of the part.
    pub part: usize,
    /// The part's entity tag, once it is known.
    pub etag: Option<String>,
    /// Whether the offset counts bytes of gzip.
    pub gzip: bool,
    /// Bytes of the part's body, as sent, before which everything is kept.
    pub offset: u64,
    /// Lines of the part before the offset.
    pub lines: u64,
    /// Lines of all parts before the offset.
    pub documents: u64,
    /// Bytes of all parts before the offset.
    pub bytes: u64,
    /// Lines that could not be kept.
    pub refused: u64,
}

/// A running snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRun {
    run: i64,
    start_seq: i64,
    /// What it consists of.
    pub plan: SnapshotPlan,
    /// How far it has come, as far as it is kept.
    #[serde(skip)]
    pub place: SnapshotPlace,
}

impl SnapshotRun {
    /// Documents of all parts, as the platform announces.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.plan.parts.iter().map(|part| part.documents).sum()
    }
}

/// How a snapshot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotEnd {
    /// The catalogue is what the snapshot held; the cursor is set.
    Finished {
        /// Documents that the snapshot did not hold and that are deleted now.
        swept: usize,
    },
    /// So many were deleted, more are to be: end it once more.
    More {
        /// Documents deleted now.
        swept: usize,
    },
    /// Another snapshot began meanwhile; nothing was swept.
    Superseded,
}

const PLAN: &str = "snapshot";
const PLACE: &str = "snapshot_place";

impl Catalogue {
    /// Begins a snapshot; one that ran is superseded.
    pub fn begin_snapshot(&self, plan: SnapshotPlan) -> Reply<SnapshotRun> {
        self.writer.submit(move |tx| {
            let run = fact::<i64>(tx, "run")?.unwrap_or(0) + 1;
            set_fact(tx, "run", run)?;
            forget(tx)?;
            let begun = SnapshotRun {
                run,
                start_seq: fact(tx, "seq")?.unwrap_or(0),
                plan: plan.clone(),
                place: SnapshotPlace::default(),
            };
            set_fact(tx, PLAN, text(&begun))?;
            set_fact(tx, PLACE, text(&begun.place))?;
            Ok(begun)
        })
    }

    /// The snapshot that has begun and not ended, with its place. `None` also when what is kept of it can't be read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn running_snapshot(&self) -> Result<Option<SnapshotRun>, ReadError> {
        let (plan, place) = self.readers.read_together(|conn| {
            let plan: Option<String> = super::read::fact(conn, PLAN)?;
            let place: Option<String> = super::read::fact(conn, PLACE)?;
            Ok((plan, place))
        })?;
        let run = plan.and_then(|plan| serde_json::from_str::<SnapshotRun>(&plan).ok());
        let place = place.and_then(|place| serde_json::from_str(&place).ok());
        Ok(run
            .zip(place)
            .map(|(run, place)| SnapshotRun { place, ..run }))
    }

    /// Applies a batch of the snapshot's documents, after which it stands at `place`.
    pub fn apply_snapshot(
        &self,
        run: &SnapshotRun,
        changes: Vec<DocumentChange>,
        place: SnapshotPlace,
    ) -> Reply<Applied> {
        if let Err(error) = self.room_for(&changes) {
            return Reply::known(Err(error));
        }
        let number = run.run;
        self.writer.submit(move |tx| {
            let applied = apply(tx, &changes, Source::Snapshot)?;
            if fact(tx, "run")? == Some(number) {
                set_fact(tx, PLACE, text(&place))?;
            }
            Ok(applied)
        })
    }

    /// Gives a snapshot up, as the platform no longer has it: what it brought stays, and nothing is swept.
    pub fn drop_snapshot(&self, run: &SnapshotRun) -> Reply<()> {
        let number = run.run;
        self.writer.submit(move |tx| {
            if fact(tx, "run")? == Some(number) {
                forget(tx)?;
            }
            Ok(())
        })
    }

    /// Ends the snapshot: deletes what it did not hold and sets the cursor, in one transaction (but for [`SWEEP_BOUND`]).
    pub fn finish_snapshot(&self, run: SnapshotRun) -> Reply<SnapshotEnd> {
        self.finish_sweeping(run, SWEEP_BOUND)
    }

    pub(super) fn finish_sweeping(&self, run: SnapshotRun, bound: usize) -> Reply<SnapshotEnd> {
        self.writer.submit(move |tx| {
            if fact(tx, "run")? != Some(run.run) {
                return Ok(SnapshotEnd::Superseded);
            }
            let swept = sweep(tx, run.start_seq, bound)?;
            if swept >= bound {
                return Ok(SnapshotEnd::More { swept });
            }
            forget(tx)?;
            set_fact(tx, "cursor", &run.plan.cursor)?;
            set_fact(tx, "pulled_ms", tx.now_ms)?;
            Ok(SnapshotEnd::Finished { swept })
        })
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers are JSON")
}

fn forget(tx: &Tx<'_>) -> rusqlite::Result<()> {
    tx.conn.prepare_cached("DELETE FROM seen")?.execute([])?;
    tx.conn
        .prepare_cached("DELETE FROM switched")?
        .execute([])?;
    tx.conn
        .prepare_cached("DELETE FROM facts WHERE name IN (?1, ?2)")?
        .execute([PLAN, PLACE])
        .map(drop)
}

/// Sees to it that `doc`, which the box itself now gives the number `seq`, does not count as held by a running snapshot.
pub(super) fn note_switched(tx: &Tx<'_>, doc: i64, seq: i64) -> rusqlite::Result<()> {
    let plan: Option<String> = fact(tx, PLAN)?;
    let Some(run) = plan.and_then(|plan| serde_json::from_str::<SnapshotRun>(&plan).ok()) else {
        return Ok(());
    };
    tx.conn
        .prepare_cached(
            "INSERT INTO switched SELECT doc, ?2 FROM documents WHERE doc = ?1
                AND (seq <= ?3 OR seq = (SELECT seq FROM switched WHERE doc = ?1))
             ON CONFLICT DO UPDATE SET seq = excluded.seq",
        )?
        .execute((doc, seq, run.start_seq))
        .map(drop)
}

struct Gone {
    doc: i64,
    collection: String,
    id: String,
    version: i64,
    codes: Vec<String>,
}

fn sweep(tx: &mut Tx<'_>, start_seq: i64, bound: usize) -> rusqlite::Result<usize> {
    let (mut swept, mut after) = (0, 0);
    while swept < bound {
        let gone = unseen(tx, start_seq, after)?;
        let Some(last) = gone.last() else {
            break;
        };
        after = last.doc;
        swept += gone.len();
        delete(tx, &gone)?;
    }
    Ok(swept)
}

fn unseen(tx: &Tx<'_>, start_seq: i64, after: i64) -> rusqlite::Result<Vec<Gone>> {
    tx.conn
        .prepare_cached(
            "SELECT doc, collection, id, version, CASE WHEN collection = ?3 THEN body END FROM documents
             WHERE doc > ?2 AND body IS NOT NULL AND doc NOT IN (SELECT doc FROM seen)
                AND (seq <= ?1 OR EXISTS (SELECT 1 FROM switched s WHERE s.doc = documents.doc AND s.seq = documents.seq))
             ORDER BY doc LIMIT ?4",
        )?
        .query_map((start_seq, after, BARCODE_COLLECTION, SWEEP_SLICE), |row| {
            let body: Option<Vec<u8>> = row.get(4)?;
            Ok(Gone {
                doc: row.get(0)?,
                collection: row.get(1)?,
                id: row.get(2)?,
                version: row.get(3)?,
                codes: body.map(|body| barcodes(&body)).unwrap_or_default(),
            })
        })?
        .collect()
}

fn delete(tx: &mut Tx<'_>, gone: &[Gone]) -> rusqlite::Result<()> {
    let mut seq: i64 = fact(tx, "seq")?.unwrap_or(0);
    let (mut media, mut sums) = (false, Ledger::default());
    for swept in gone {
        seq += 1;
        tx.conn
            .prepare_cached(
                "UPDATE documents SET seq = ?2, changed_ms = ?3, body = NULL, price = NULL WHERE doc = ?1",
            )?
            .execute((swept.doc, seq, tx.now_ms))?;
        tx.conn
            .prepare_cached("DELETE FROM dated WHERE doc = ?1")?
            .execute([swept.doc])?;
        for code in &swept.codes {
            tx.conn
                .prepare_cached("DELETE FROM barcodes WHERE code = ?1 AND doc = ?2")?
                .execute((code, swept.doc))?;
        }
        count(tx, &swept.collection, -1)?;
        sums.moved(&swept.collection, &swept.id, Some(swept.version), None);
        media |= swept.collection == MEDIA_COLLECTION;
    }
    sums.write(tx.conn)?;
    set_fact(tx, "seq", seq)?;
    tx.tell(StoreEvent::Catalogue { seq });
    if media {
        tx.tell(StoreEvent::Media);
    }
    Ok(())
}
