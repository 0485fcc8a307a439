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
        let share_kib = cache_kib / READERS as u64;
        let connections = (0..READERS)
            .map(|_| super::db::open_reader(path, share_kib).map(Mutex::new))
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
        let start = self.next.fetch_add(1, Ordering::Relaxed) % READERS;
        for offset in 0..READERS {
            match self.connections[(start + offset) % READERS].try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        lock(&self.connections[start])
    }
}

// A query that panicked leaves its connection usable: its statements were reset when they were dropped.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
