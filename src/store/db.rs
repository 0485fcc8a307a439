//! Opening a database: pragmas, migrations, and the bound on its write-ahead log.
//!
//! # Migrations and rollbacks
//! A migration runs at the start of the firmware that brings it, in one transaction. From the first release on it is
//! appended, never edited, and it only adds: a table, an index, a column that may be empty or has a default. Nothing is
//! renamed or dropped, nothing that an older firmware reads gets another meaning or values that one does not know. So a
//! rollback (or an order to go back) finds every column it knows: [`super::recover`] sets the newer file aside and brings
//! its rows over, also the orders of the trial. The catalogue starts empty and is fetched again.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::readers::Readers;

/// Size of a database page, the write unit of most flash.
pub const PAGE_BYTES: u64 = 4096;
/// A log above this size is emptied by force: readers are held for a moment.
pub const WAL_BOUND_BYTES: u64 = 16 << 20;
/// With less free than this, logs are emptied after each commit.
const LOW_ROOM_BYTES: u64 = WAL_BOUND_BYTES;
/// How long a connection waits for another's lock. Ours never hold one that long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements kept per connection; more than any room of the store uses.
const STATEMENT_CACHE: usize = 64;
/// Free pages (4 MiB) below which giving space back is not worth the writes.
const VACUUM_FROM_PAGES: i64 = 1024;
/// Pages given back in one slice of housekeeping, and the statement that does it.
const VACUUM_SLICE_PAGES: i64 = 256;
const VACUUM_SLICE: &str = "PRAGMA incremental_vacuum(256)";

/// How a database is laid out and how hard it is written.
pub(super) struct Plan {
    /// Room-internal name, also in thread names and logs.
    pub(super) name: &'static str,
    /// `FULL` or `NORMAL`.
    pub(super) synchronous: &'static str,
    /// Migration n leads from `user_version` n to n + 1. Append only.
    pub(super) migrations: &'static [&'static str],
    /// Pages in the log after which a commit checkpoints. Many small commits want it short, for the next start reads it;
    /// bulk loads want it long, for then a page that many commits touch goes home once.
    pub(super) checkpoint_pages: u32,
    /// Cache of the writing connection, KiB.
    pub(super) cache_kib: u64,
    /// Whether rows are brought over when the database is replaced, and what then puts them in order (with the time,
    /// milliseconds since 1970). `None`: it starts empty, for its content comes again from elsewhere.
    pub(super) salvage: Option<fn(&Connection, i64) -> rusqlite::Result<()>>,
}

/// A database that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDatabaseError {
    /// A newer firmware wrote it.
    #[error("{path} has schema version {found}, this firmware knows up to {known}")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version this firmware has.
        known: usize,
    },
    /// SQLite refused.
    #[error("cannot {attempt} {path}")]
    Sqlite {
        /// What was attempted.
        attempt: &'static str,
        /// The database file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file could not be made or moved.
    #[error("cannot {attempt} {path}")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenDatabaseError {
    /// Whether the file's content is broken, so that quarantine is the cure.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if super::readers::is_damage(source))
    }
}

/// Opens the writing connection of the database at `path`, creating and migrating it as needed.
pub(super) fn open_writer(path: &Path, plan: &Plan) -> Result<Connection, OpenDatabaseError> {
    let sqlite = |attempt| {
        move |source| OpenDatabaseError::Sqlite {
            attempt,
            path: path.to_path_buf(),
            source,
        }
    };
    create_private(path).map_err(|source| OpenDatabaseError::File {
        attempt: "create",
        path: path.to_path_buf(),
        source,
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(sqlite("open"))?;
    // The version first: what a newer firmware wrote is not touched.
    let found = version(&conn, path, plan)?;
    configure(&conn, plan).map_err(sqlite("configure"))?;
    migrate(&conn, path, plan, found)?;
    Ok(conn)
}

/// Opens a read-only connection with a page cache of `cache_kib`.
pub(super) fn open_reader(path: &Path, cache_kib: u64) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    keep_plans(&conn)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    conn.execute_batch(&format!(
        "PRAGMA query_only=1; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{};",
        cache_kib.max(64)
    ))?;
    Ok(conn)
}

fn configure(conn: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    keep_plans(conn)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // These count only before the first page is written, and later would be a write at every start.
        conn.execute_batch(&format!(
            "PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL;"
        ))?;
    }
    conn.execute_batch(&format!(
        "PRAGMA journal_mode=WAL;
         PRAGMA synchronous={};
         PRAGMA wal_autocheckpoint={};
         PRAGMA journal_size_limit={WAL_BOUND_BYTES};
         PRAGMA temp_store=MEMORY;
         PRAGMA foreign_keys=ON;
         PRAGMA cache_size=-{};",
        plan.synchronous,
        plan.checkpoint_pages,
        plan.cache_kib.max(64)
    ))
}

/// A statement's plan does not depend on its values. Otherwise SQLite prepares one with `LIMIT ?` anew at each use, which
/// takes longer than a point read. So a query that is to use a partial index says the index's condition in literals.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

fn version(conn: &Connection, path: &Path, plan: &Plan) -> Result<usize, OpenDatabaseError> {
    let known = plan.migrations.len();
    let found: i64 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| OpenDatabaseError::Sqlite {
            attempt: "read the schema version of",
            path: path.to_path_buf(),
            source,
        })?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > known {
        return Err(OpenDatabaseError::Newer {
            path: path.to_path_buf(),
            found,
            known,
        });
    }
    Ok(found)
}

fn migrate(
    conn: &Connection,
    path: &Path,
    plan: &Plan,
    found: usize,
) -> Result<(), OpenDatabaseError> {
    for (index, migration) in plan.migrations.iter().enumerate().skip(found) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration} PRAGMA user_version={}; COMMIT;",
            index + 1
        ))
        .map_err(|source| OpenDatabaseError::Sqlite {
            attempt: "migrate",
            path: path.to_path_buf(),
            source,
        })?;
    }
    Ok(())
}

// SQLite gives -wal and -shm the mode of the main file.
fn create_private(path: &Path) -> io::Result<()> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Path of the write-ahead log of the database at `path`.
pub(super) fn wal_path(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

/// `path` with `suffix` appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

/// Empties the log when it has outgrown its bound because readers overlapped without a gap, and after each commit when
/// the disk is nearly full: what the log holds twice would be in the way of the next order.
pub(super) fn bound_wal(conn: &Connection, path: &Path, readers: &Readers) {
    let size = fs::metadata(wal_path(path)).map_or(0, |meta| meta.len());
    let nearly_full = || free_bytes(path).is_some_and(|free| free < LOW_ROOM_BYTES);
    if size <= WAL_BOUND_BYTES && (size == 0 || !nearly_full()) {
        return;
    }
    // The long part first, while readers go on; then only the rest and the cut are left to do.
    let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    let _held = readers.hold();
    // A failure (disk full) leaves the log as it is; the next commit tries again.
    let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let blocks: u64 = stat.blocks_available();
    Some(blocks.saturating_mul(stat.fragment_size()))
}

/// Gives free pages back to the file system, a slice at a time; true when there are more.
pub(super) fn give_space_back(conn: &Connection) -> rusqlite::Result<bool> {
    let free: i64 = conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free < VACUUM_FROM_PAGES {
        return Ok(false);
    }
    let mut vacuum = conn.prepare_cached(VACUUM_SLICE)?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(free - VACUUM_SLICE_PAGES >= VACUUM_FROM_PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn plan(migrations: &'static [&'static str]) -> Plan {
        Plan {
            name: "test",
            synchronous: "FULL",
            migrations,
            checkpoint_pages: 1000,
            cache_kib: 64,
            salvage: None,
        }
    }

    fn version_of(conn: &Connection) -> i64 {
        conn.pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn migrations_lead_from_every_version_to_the_newest_and_keep_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let one = plan(&["CREATE TABLE t (a); INSERT INTO t VALUES (1);"]);
        let three = plan(&[
            "CREATE TABLE t (a); INSERT INTO t VALUES (1);",
            "ALTER TABLE t ADD COLUMN b; UPDATE t SET b = a + 1;",
            "ALTER TABLE t ADD COLUMN c; UPDATE t SET c = b + 1;",
        ]);
        assert_eq!(version_of(&open_writer(&path, &one).unwrap()), 1);
        for _ in 0..2 {
            let conn = open_writer(&path, &three).unwrap();
            assert_eq!(version_of(&conn), 3);
            let row: (i64, i64, i64) = conn
                .query_row("SELECT * FROM t", [], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .unwrap();
            assert_eq!(row, (1, 2, 3));
        }
        let error = open_writer(&path, &one).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("version 3, this firmware knows up to 1"),
            "{error}"
        );
        assert!(!error.is_damage());
    }

    #[test]
    fn other_values_do_not_prepare_a_statement_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let writer = open_writer(&path, &plan(&["CREATE TABLE t (a);"])).unwrap();
        let reader = open_reader(&path, 64).unwrap();
        let prepared_again = |conn: &Connection| {
            let mut times = 0;
            for bound in 1..=3 {
                let mut query = conn.prepare_cached("SELECT a FROM t LIMIT ?1").unwrap();
                assert!(!query.exists([bound]).unwrap());
                times = query.get_status(rusqlite::StatementStatus::RePrepare);
            }
            times
        };
        assert_eq!((prepared_again(&writer), prepared_again(&reader)), (0, 0));
        // What SQLite does unless told otherwise.
        let plain = Connection::open(&path).unwrap();
        assert_ne!(prepared_again(&plain), 0);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_version_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let broken = plan(&[
            "CREATE TABLE t (a);",
            "CREATE TABLE u (b); INSERT INTO nowhere VALUES (1);",
        ]);
        assert!(open_writer(&path, &broken).is_err());
        let one = plan(&["CREATE TABLE t (a);"]);
        let conn = open_writer(&path, &one).unwrap();
        assert_eq!(version_of(&conn), 1);
        assert!(conn.prepare("SELECT * FROM u").is_err());
    }

    #[test]
    fn a_database_is_set_up_as_the_first_page_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = open_writer(&path, &plan(&["CREATE TABLE t (a);"])).unwrap();
        let number = |pragma: &str| -> i64 {
            conn.pragma_query_value(None, pragma, |row| row.get(0))
                .unwrap()
        };
        let mode: String = conn
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
        assert_eq!(number("page_size"), 4096);
        assert_eq!(number("auto_vacuum"), 2);
        assert_eq!(number("synchronous"), 2);
        assert_eq!(number("foreign_keys"), 1);
        assert_eq!(number("wal_autocheckpoint"), 1000);
        assert_eq!(number("busy_timeout"), 5000);
    }
}
