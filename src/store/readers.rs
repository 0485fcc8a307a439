//! A small pool of read-only connections of one database.
//!
//! Reads are bounded by their limits, so a caller waits at most for a few of them; there is no queue to fill.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use rusqlite::{Connection, ErrorCode};

use super::check::Suspicion;

/// Read connections of one database. More would not help on the two to four cores of a box.
pub const READERS: usize = 4;

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database is damaged; it is quarantined at the next start.
    #[error("the database is damaged")]
    Damaged(#[source] rusqlite::Error),
    /// The disk or the database refused.
    #[error("the store could not read")]
    Disk(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(error)
        } else {
            Self::Disk(error)
        }
    }
}

/// Whether `error` says that the file's content is broken, as opposed to a disk that is full or absent.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

pub(super) struct Readers {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
    suspicion: Arc<Suspicion>,
}

impl Readers {
    pub(super) fn open(
        path: &Path,
        cache_kib: u64,
        suspicion: Arc<Suspicion>,
    ) -> rusqlite::Result<Self> {
        // The first one serves alone most of the time: it has half.
        let connections = (0..READERS as u64)
            .map(|index| {
                let share_kib = if index == 0 {
                    cache_kib / 2
                } else {
                    cache_kib / 2 / (READERS as u64 - 1)
                };
                super::db::open_reader(path, share_kib).map(Mutex::new)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            connections,
            next: AtomicUsize::new(0),
            suspicion,
        })
    }

    /// Runs `query` on a free connection.
    pub(super) fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.judge(query(&self.free()))
    }

    /// Runs `query` in one read transaction: all its statements see the same state.
    pub(super) fn read_together<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.read(|conn| {
            let tx = conn.unchecked_transaction()?;
            let value = query(&tx)?;
            tx.commit()?;
            Ok(value)
        })
    }

    fn judge<T>(&self, result: rusqlite::Result<T>) -> Result<T, ReadError> {
        result.map_err(|error| {
            self.suspicion.weigh(&error);
            error.into()
        })
    }

    /// Holds all connections: nobody reads until the guards are dropped, so that a checkpoint can finish.
    pub(super) fn hold(&self) -> Vec<MutexGuard<'_, Connection>> {
        self.connections.iter().map(lock).collect()
    }

    fn free(&self) -> MutexGuard<'_, Connection> {
        // Always from the first, so that as few caches as possible fill with the same pages.
        for connection in &self.connections {
            match connection.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.connections[turn % READERS])
    }
}

// A query that panicked leaves its connection usable: its statements were reset when they were dropped.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
