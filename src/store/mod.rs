//! The store: truth at rest on the data partition.
//!
//! # Layout (below `store.data_dir`)
//! ```text
//! orders.db      orders, commands, inbox, outbox, idempotency keys     WAL, synchronous=FULL
//! devices.db     paired devices, digests of their tokens               WAL, synchronous=FULL
//! catalogue.db   documents, barcodes, cursor of the platform's feed    WAL, synchronous=NORMAL
//! blobs/ab/abcd… media, named by their SHA-256; blobs/partial/ while they come
//! *.suspect      a mark: found damaged, to be replaced at the next start
//! *.damaged      the last database of each name that was set aside (damaged, or a newer firmware's), for support
//! ```
//! Three databases, so that a bulk load never delays an order and a damaged catalogue is rebuilt without touching one.
//!
//! # Limits
//! | what | bound | at the bound |
//! |---|---|---|
//! | writes waiting for a database | [`writer::QUEUE_BOUND`] | [`WriteError::Busy`] at once |
//! | writes in one transaction | [`writer::BATCH_BOUND`] | the next transaction |
//! | write-ahead log | [`db::WAL_BOUND_BYTES`] and one transaction; near nothing when the disk is nearly full | emptied, readers wait meanwhile |
//! | outbox, each lane | [`orders::OUTBOX_BOUND`] | what is older than 30 days is dropped and counted, nothing else |
//! | outbox, telemetry | [`orders::TELEMETRY_BOUND`] | oldest dropped and counted |
//! | a write that rides on another's commit | [`writer::RIDERS_WAIT`] | committed alone |
//! | idempotency keys, message ids, closed orders | [`orders::KEPT_MS`] | forgotten |
//! | deletions in the catalogue | [`catalogue::TOMBSTONES_KEPT_MS`], [`catalogue::TOMBSTONE_BOUND`] | forgotten; late readers refetch |
//! | blobs | `store.blob_quota_mib` | those of less worth make room, or refused: see [`blobs`] |
//! | free space | `store.orders_reserve_mib` | catalogue and blobs refused, orders go on; at half of it blobs go, the least worth first |
//! | events a subscriber may lie behind | [`EVENT_BOUND`] | it is told that it missed some |
//!
//! # Invariants
//! - A write is answered with success only after its COMMIT returned; for orders and devices that is after the fsync.
//! - An order is there with its command and its event, or not at all; a message id, an order id and an idempotency key
//!   each have one effect, however often they come.
//! - Documents and the cursor behind them are one transaction.
//! - Numbers (`seq`) and outbox keys are never given twice within a database's life.
//! - Whatever has a blob's name has its bytes.
//!
//! # Recovery
//! A power cut costs nothing that was acknowledged: SQLite replays the log (`tests/it/power_cut.rs` cuts at any system
//! call and says what that proves). A full disk refuses writes and heals when there is room; a disk that refuses for any
//! reason is told by [`Disk`]. A damaged database is set aside and made anew at the next start, and [`Store::recovered`]
//! tells: the catalogue empty, under a new generation, to be filled by the next pull; orders and devices with every row
//! that can still be read. The same happens to a newer firmware's database after a rollback: there every row can be.

pub mod blobs;
mod carve;
pub mod catalogue;
mod check;
pub mod db;
pub mod devices;
pub mod disk;
mod events;
mod job;
mod log;
pub mod orders;
mod readers;
pub mod recover;
mod reply;
pub mod restamp;
mod room;
mod salvage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod writer;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::StoreConfig;

use check::{Checker, Suspicion};

pub use blobs::{Blob, BlobWriter, Blobs, OpenBlobError, WriteBlobError};
pub use catalogue::{
    Applied, Catalogue, Change, Changes, ChangesPage, CollectionCount, DocumentChange, FeedCursor,
    SnapshotEnd, SnapshotRun, Stored,
};
pub use db::OpenDatabaseError;
pub use devices::{Device, Devices, NewDevice, Paired};
pub use disk::{Disk, DiskTrouble};
pub use events::{Bell, EVENT_BOUND, StoreEvent, StoreEvents, Topic};
pub use orders::{
    Advanced, Command, CommandChanged, Content, InboxMessage, Lane, LaneCounts, OrderDocument,
    OrderRules, OrderShapeError, OrderState, OrderView, Orders, OutboxCounts, OutboxItem, Outcome,
    ParkCode, ParkedMessage, Receipt, ReceiptTaken, Received, Source, StateCount, Submission,
    Submitted,
};
pub use readers::ReadError;
pub use recover::Recovery;
pub use room::{Room, RoomError};
pub use writer::{Reply, WriteError};

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    /// Orders, commands, inbox, outbox.
    pub orders: Orders,
    /// Documents.
    pub catalogue: Catalogue,
    /// Paired devices.
    pub devices: Devices,
    /// Media.
    pub blobs: Blobs,
    /// What changed.
    pub events: StoreEvents,
    /// Free space.
    pub room: Arc<Room>,
    /// Whether the disk takes what is written.
    pub disk: Arc<Disk>,
    care: Arc<Care>,
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// A database.
    #[error("cannot open the store")]
    Database(#[from] OpenDatabaseError),
    /// The blobs.
    #[error("cannot open the store's blobs")]
    Blobs(#[from] blobs::OpenBlobError),
    /// The folder itself.
    #[error("cannot make the store's folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Store {
    /// Opens the store below `config.data_dir`, making what is not there, with the default [`OrderRules`].
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub fn open(config: &StoreConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenStoreError> {
        Self::open_with(config, OrderRules::default(), clock)
    }

    /// Opens the store with the house's rules for orders.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub fn open_with(
        config: &StoreConfig,
        rules: OrderRules,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenStoreError> {
        let dir = &config.data_dir;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| OpenStoreError::Folder {
                path: dir.clone(),
                source,
            })?;
        let events = StoreEvents::default();
        let room = Arc::new(Room::new(dir.clone(), config.orders_reserve));
        let disk = Arc::new(Disk::new(dir, Arc::clone(&room)));
        let now_ms = clock.wall_ms();
        let mut recovered = Vec::new();
        let mut suspicions = Vec::new();
        let mut open = |plan: &db::Plan| -> Result<_, OpenDatabaseError> {
            let path = dir.join(format!("{}.db", plan.name));
            let (conn, recovery) = recover::open_or_replace(&path, plan, now_ms)?;
            recovered.extend(recovery);
            let suspicion = Suspicion::new(plan.name, &path, Arc::clone(&disk));
            suspicions.push(Arc::clone(&suspicion));
            Ok((path, conn, suspicion))
        };
        let (path, conn, suspicion) = open(&orders::PLAN)?;
        let orders = Orders::open(
            &path,
            conn,
            suspicion,
            rules,
            Arc::clone(&clock),
            events.clone(),
        )?;
        let (path, conn, suspicion) = open(&devices::PLAN)?;
        let devices = Devices::open(&path, conn, suspicion, Arc::clone(&clock), events.clone())?;
        let (path, conn, suspicion) = open(&catalogue::plan(config.catalogue_cache))?;
        let catalogue = Catalogue::open(
            &path,
            conn,
            suspicion,
            config.catalogue_cache,
            Arc::clone(&room),
            Arc::clone(&clock),
            events.clone(),
        )?;
        let blobs = Blobs::start(
            dir.join("blobs"),
            config.blob_quota,
            Arc::clone(&room),
            clock,
        )?;
        let checker = Checker::start(suspicions.clone(), blobs.clone(), Arc::clone(&disk))
            .map_err(|source| OpenStoreError::Folder {
                path: dir.clone(),
                source,
            })?;
        Ok(Self {
            orders,
            catalogue,
            devices,
            blobs,
            events,
            room,
            disk,
            care: Arc::new(Care {
                recovered,
                suspicions,
                _checker: checker,
            }),
        })
    }

    /// What had to be repaired when the store was opened.
    #[must_use]
    pub fn recovered(&self) -> &[Recovery] {
        &self.care.recovered
    }

    /// Whether a restart would cure damage that was found while in use.
    #[must_use]
    pub fn wants_restart(&self) -> bool {
        self.care
            .suspicions
            .iter()
            .any(|suspicion| suspicion.is_noted())
    }

    /// Databases found damaged while in use: they serve what they can, and a restart replaces them.
    #[must_use]
    pub fn damaged(&self) -> Vec<&'static str> {
        self.care
            .suspicions
            .iter()
            .filter(|suspicion| suspicion.is_raised())
            .map(|suspicion| suspicion.name())
            .collect()
    }
}

struct Care {
    recovered: Vec<Recovery>,
    suspicions: Vec<Arc<Suspicion>>,
    _checker: Checker,
}
