//! Documents as the platform publishes them, and the shop's own feed of their changes: `catalogue.db`.
//!
//! The truth is the platform's: this database may be lost and is then filled again, under a new generation, which
//! tells readers of the local feed to start over. Its commits are therefore not fsynced one by one (`NORMAL`): a
//! power cut may take the last of them, documents and cursor together, and the next pull brings them again.

mod apply;
mod aside;
pub mod checksum;
mod feed;
mod life;
mod price;
mod read;
mod schema;
mod snapshot;
mod switch;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::Connection;
use serde_json::value::RawValue;
use tracing::warn;

use super::check::Suspicion;
use super::db::{self, OpenDatabaseError, Plan};
use super::events::StoreEvents;
use super::readers::Readers;
use super::room::Room;
use super::writer::{Writer, WriterParts};
use crate::clock::Clock;
use crate::digest::hex;
use crate::identity::random_bytes;
use crate::telemetry::chain;
use crate::units::ByteSize;

pub use apply::Applied;
pub use aside::{ASIDE_BOUND, ASIDE_HEAD, Aside, Faults};
pub use feed::{Change, Changes, ChangesPage, FeedCursor, ParseCursorError};
pub use read::{CollectionCount, Stored};
pub use schema::{BARCODE_COLLECTION, MEDIA_COLLECTION, TOMBSTONE_BOUND, TOMBSTONES_KEPT_MS};
pub use snapshot::{
    SWEEP_BOUND, SnapshotEnd, SnapshotPart, SnapshotPlace, SnapshotPlan, SnapshotRun,
};
pub use switch::SWITCH_SLICE;

/// Items one read gives at most, whatever was asked.
pub const LIST_BOUND: usize = 1000;
/// Bytes of documents after which a page ends early.
pub const PAGE_BYTES_BOUND: usize = 4 << 20;

/// A document as the platform sent it.
#[derive(Debug, Clone)]
pub struct DocumentChange {
    /// Its collection.
    pub collection: String,
    /// Its id within the collection.
    pub id: String,
    /// Rises with every change of this document.
    pub version: i64,
    /// The document; `None` when it was deleted.
    pub data: Option<Box<RawValue>>,
}

/// Under which name this life of the database gives its numbers: the database's own, or one of its own when the disk does
/// not take [`life::begin`]. Readers of the feed then start over; a box with a full disk must start all the same.
fn generation(conn: &Connection) -> rusqlite::Result<String> {
    let own = conn.query_row(
        "SELECT value FROM facts WHERE name = 'generation'",
        [],
        |row| row.get(0),
    )?;
    Ok(match life::begin(conn) {
        Ok(()) => own,
        Err(error) => {
            warn!(event = "store.numbers_unsure", error = &*chain(&error));
            hex(&random_bytes::<6>())
        }
    })
}

/// Handle on `catalogue.db`. Clones share it.
#[derive(Clone)]
pub struct Catalogue {
    // Dropped before the writer, so that its connection is the last and empties the log.
    readers: Arc<Readers>,
    pub(super) writer: Writer,
    room: Arc<Room>,
    generation: Arc<str>,
    /// Number of the last change that is committed.
    seq: Arc<AtomicI64>,
}

/// What names a state of the catalogue: the generation of its database and the number of the last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueVersion(String);

impl std::fmt::Display for CatalogueVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) const fn plan(cache: ByteSize) -> Plan {
    Plan {
        name: "catalogue",
        synchronous: "NORMAL",
        migrations: schema::MIGRATIONS,
        checkpoint_pages: 3000,
        // A quarter for the writer, the rest for the readers.
        cache_kib: cache.as_u64() / 4096,
        salvage: None,
    }
}

impl Catalogue {
    pub(super) fn open(
        path: &Path,
        conn: Connection,
        suspicion: Arc<Suspicion>,
        cache: ByteSize,
        room: Arc<Room>,
        clock: Arc<dyn Clock>,
        events: StoreEvents,
    ) -> Result<Self, OpenDatabaseError> {
        let plan = plan(cache);
        let sqlite = |attempt| {
            move |source| OpenDatabaseError::Sqlite {
                attempt,
                path: path.to_path_buf(),
                source,
            }
        };
        let generation = generation(&conn).map_err(sqlite("read the generation of"))?;
        // A new database remembers deletions from now on.
        conn.execute(
            "UPDATE facts SET value = ?1 WHERE name = 'horizon_ms' AND value = 0",
            [clock.wall_ms()],
        )
        .map_err(sqlite("note the horizon of"))?;
        let seq = read::fact(&conn, "seq").map_err(sqlite("read the last change of"))?;
        let seq = Arc::new(AtomicI64::new(seq.unwrap_or(0)));
        let committed = Arc::clone(&seq);
        let readers = Readers::open(path, plan.cache_kib * 3, Arc::clone(&suspicion))
            .map_err(sqlite("open for reading"))?;
        let readers = Arc::new(readers);
        let wal_readers = Arc::clone(&readers);
        let wal_of: PathBuf = path.to_path_buf();
        let writer = Writer::start(
            path,
            WriterParts {
                name: plan.name,
                conn,
                suspicion,
                clock,
                events,
                housekeeping: Box::new(feed::keep_house),
                after_commit: Box::new(move |conn| {
                    if let Ok(Some(seq)) = read::fact(conn, "seq") {
                        committed.store(seq, Ordering::Relaxed);
                    }
                    db::bound_wal(conn, &wal_of, &wal_readers);
                }),
            },
        )?;
        Ok(Self {
            writer,
            readers,
            room,
            generation: generation.into(),
            seq,
        })
    }

    /// The state that a read begun now sees, or a newer one.
    #[must_use]
    pub fn version(&self) -> CatalogueVersion {
        let seq = self.seq.load(Ordering::Relaxed);
        CatalogueVersion(format!("{}-{seq:x}", self.generation))
    }

    /// Writes answered so far.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.writer.progress()
    }
}
