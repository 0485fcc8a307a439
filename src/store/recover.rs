//! Databases that can't be used as they are, damaged or of a newer firmware: found, set aside, made anew, told.
//!
//! ```text
//!  x.db fails to open, fails the check, has a newer schema (after a rollback), or x.db.suspect stands beside it
//!     │ salvage: every row that can be read goes into x.db.new (orders, devices; the catalogue stays empty)
//!     ▼
//!  x.db.new ──rename──► x.db.ready          from here on the flip is only repeated, never the salvage
//!     │ x.db-wal, x.db  ──rename──► x.db.damaged-wal, x.db.damaged    (the last ones are kept for support)
//!     ▼
//!  x.db.ready ──rename──► x.db
//! ```
//! A database that is not there yet is made as `x.db.new`, too, and gets its name when it is whole and on the disk: a cut
//! in its first moments leaves no half of one, which would be told as damage.
//! After a rollback the newer firmware's orders are brought over in the same way, by the columns that both know (the rules
//! of [`super::db`] see to it that these are all there ever were), and so are those it took in its trial.
//!
//! A log with damage in its middle (see [`super::log`]) counts as a damaged database.
//!
//! A cut at any point leads to the same end. A log never lies beside a database that is not its own: SQLite would
//! replay it.
//!
//! Checking reads the whole file, so it happens before use only up to [`CHECK_AT_OPEN_BYTES`]; a larger file is
//! checked behind the work (see [`super::check`]), and what is found then is cured at the next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tracing::{error, warn};

use super::db::{self, OpenDatabaseError, PAGE_BYTES, Plan, with_suffix};
use super::log::{Log, replay};
use super::salvage::{Salvaged, salvage};
use crate::durable::fsync_dir;
use crate::telemetry::chain;

/// Databases up to this size are checked before they are used: milliseconds.
pub const CHECK_AT_OPEN_BYTES: u64 = 8 << 20;

/// What had to be repaired when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// `orders`, `catalogue` or `devices`.
    pub database: &'static str,
    /// What was wrong.
    pub reason: String,
    /// Nothing was damaged: a newer firmware wrote it, and this one is back after a rollback.
    pub was_newer: bool,
    /// Where the damaged file is kept.
    pub kept_as: PathBuf,
    /// Rows brought over into the new database.
    pub salvaged_rows: u64,
    /// Tables of which something could not be read.
    pub incomplete: Vec<String>,
}

/// Opens the database at `path`, replacing it if it is damaged or of a newer firmware.
pub(super) fn open_or_replace(
    path: &Path,
    plan: &Plan,
    now_ms: i64,
) -> Result<(Connection, Option<Recovery>), OpenDatabaseError> {
    let file = |attempt| file(attempt, path);
    if with_suffix(path, READY).exists() {
        flip(path).map_err(file("finish the repair of"))?;
    }
    let log = Log::beside(path).filter(|_| plan.salvage.is_some());
    let log_fault = log.as_ref().and_then(Log::fault);
    let checked = match log_fault {
        Some(found) => Err(CheckError::Found(found)),
        None => open_checked(path, plan),
    };
    let was_newer = matches!(
        checked,
        Err(CheckError::Open(OpenDatabaseError::Newer { .. }))
    );
    let reason = match checked {
        Ok(conn) => return Ok((conn, None)),
        Err(CheckError::Open(error)) if !error.is_damage() && !was_newer => return Err(error),
        Err(CheckError::Open(error)) => chain(&error),
        Err(CheckError::Found(reason)) => reason,
    };
    let salvaged = replacement(path, plan, log.as_ref(), now_ms)?;
    flip(path).map_err(file("replace the damaged"))?;
    let recovery = Recovery {
        database: plan.name,
        reason,
        was_newer,
        kept_as: with_suffix(path, DAMAGED),
        salvaged_rows: salvaged.rows,
        incomplete: salvaged.incomplete,
    };
    if was_newer {
        warn!(
            event = "store.database_taken_back",
            database = plan.name,
            reason = &*recovery.reason,
            salvaged_rows = recovery.salvaged_rows,
            incomplete = recovery.incomplete.join(" "),
            "a newer firmware's database was set aside, its rows were brought over"
        );
    } else {
        error!(
            event = "store.database_replaced",
            database = plan.name,
            reason = &*recovery.reason,
            salvaged_rows = recovery.salvaged_rows,
            incomplete = recovery.incomplete.join(" "),
            "a damaged database was set aside and made anew"
        );
    }
    Ok((db::open_writer(path, plan)?, Some(recovery)))
}

enum CheckError {
    Open(OpenDatabaseError),
    Found(String),
}

fn open_checked(path: &Path, plan: &Plan) -> Result<Connection, CheckError> {
    if suspect_path(path).exists() {
        return Err(CheckError::Found("found damaged while in use".to_owned()));
    }
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    // SQLite takes such a file for an empty database and would begin anew in silence.
    if (1..PAGE_BYTES).contains(&size) {
        return Err(CheckError::Found(format!("cut short to {size} bytes")));
    }
    if size == 0 && !with_suffix(path, "-wal").exists() {
        create(path, plan).map_err(CheckError::Open)?;
    }
    let conn = db::open_writer(path, plan).map_err(CheckError::Open)?;
    if size > 0 && size <= CHECK_AT_OPEN_BYTES {
        match fault(&conn) {
            Ok(None) => {}
            Ok(Some(found)) => return Err(CheckError::Found(found)),
            Err(source) => {
                return Err(CheckError::Open(OpenDatabaseError::Sqlite {
                    attempt: "check",
                    path: path.to_path_buf(),
                    source,
                }));
            }
        }
    }
    Ok(conn)
}

/// The first fault of a database; `None` when it is sound.
pub(super) fn fault(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

/// Opens `path.new`, empty. What a cut left there goes.
fn begin(new_path: &Path, plan: &Plan) -> Result<Connection, OpenDatabaseError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        remove(&with_suffix(new_path, suffix)).map_err(file("clear the way for", new_path))?;
    }
    db::open_writer(new_path, plan)
}

/// Makes `path.new` whole and durable, and renames it.
fn finish(conn: Connection, new_path: &Path, to: &Path) -> Result<(), OpenDatabaseError> {
    let sqlite = |source| OpenDatabaseError::Sqlite {
        attempt: "finish",
        path: new_path.to_path_buf(),
        source,
    };
    // Everything into the main file: it is renamed without its log.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(sqlite)?;
    conn.close().map_err(|(_, source)| sqlite(source))?;
    File::open(new_path)
        .and_then(|file| file.sync_all())
        .map_err(file("fsync", new_path))?;
    fs::rename(new_path, to).map_err(file("rename", new_path))?;
    fsync_dir(dir_of(to)).map_err(file("fsync the folder of", new_path))
}

/// The first database of that name.
fn create(path: &Path, plan: &Plan) -> Result<(), OpenDatabaseError> {
    let new_path = with_suffix(path, NEW);
    finish(begin(&new_path, plan)?, &new_path, path)
}

/// Builds `path.ready`: the new database with all that could be brought over.
fn replacement(
    path: &Path,
    plan: &Plan,
    log: Option<&Log>,
    now_ms: i64,
) -> Result<Salvaged, OpenDatabaseError> {
    let new_path = with_suffix(path, NEW);
    let conn = begin(&new_path, plan)?;
    let file = |attempt| file(attempt, &new_path);
    let sqlite = |source| OpenDatabaseError::Sqlite {
        attempt: "salvage rows into",
        path: new_path.clone(),
        source,
    };
    let mut salvaged = Salvaged::default();
    if let Some(after_salvage) = plan.salvage {
        let replayed_path = with_suffix(path, ".replayed");
        let source = match log.filter(|log| log.fault().is_some()) {
            Some(log) => {
                replay(path, log, &replayed_path).map_err(file("replay the log for"))?;
                &replayed_path
            }
            None => path,
        };
        salvaged = salvage(source, &conn, &new_path).map_err(sqlite)?;
        for suffix in ["", "-wal", "-shm"] {
            remove(&with_suffix(&replayed_path, suffix)).map_err(file("clean up after"))?;
        }
        after_salvage(&conn, now_ms).map_err(sqlite)?;
    }
    finish(conn, &new_path, &with_suffix(path, READY))?;
    Ok(salvaged)
}

/// Puts `path.ready` in the place of the database, which is kept as `path.damaged`. May be cut and repeated anywhere.
fn flip(path: &Path) -> io::Result<()> {
    let dir = dir_of(path);
    for suffix in ["-wal", ""] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            fs::rename(&from, with_suffix(path, &format!("{DAMAGED}{suffix}")))?;
            fsync_dir(dir)?;
        }
    }
    remove(&with_suffix(path, "-shm"))?;
    remove(&suspect_path(path))?;
    fsync_dir(dir)?;
    fs::rename(with_suffix(path, READY), path)?;
    fsync_dir(dir)
}

/// Opens a database only to read what is left of it.
pub(super) fn open_damaged(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    // A schema that does not parse is an error at the first statement, not a panic later.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

/// The mark that a database was found damaged while in use.
pub(super) fn suspect_path(path: &Path) -> PathBuf {
    with_suffix(path, ".suspect")
}

fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenDatabaseError {
    let path = path.to_path_buf();
    move |source| OpenDatabaseError::File {
        attempt,
        path,
        source,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

const NEW: &str = ".new";
const READY: &str = ".ready";
const DAMAGED: &str = ".damaged";
