//! What the platform remembers, in one SQLite file, so that a restart of the emulator forgets nothing a box
//! was told or told us.
//!
//! | table | holds |
//! |---|---|
//! | `changes` | one row a change of a document, with its data; rows above the horizon are the feed |
//! | `hidden` | changes that the feed never tells of |
//! | `documents` | the newest change of each document, deleted ones too, so that versions only rise |
//! | `events` | what boxes reported, once a key |
//! | `entities`, `messages`, `seen_messages` | the bus: queues, topics, subscriptions; messages; ids for duplicate detection |
//! | `blobs` | names and properties of blobs; the bytes are in `blobs/` by SHA-256 |
//! | `closed_containers` | containers that only a signature opens |
//! | `rollouts`, `rollout_feedback`, `controllers` | hawkBit's actions, what boxes said of them, the boxes |
//! | `boxes`, `tokens` | boxes that enrolled, and what they were handed |
//! | `orders_feed` | orders for those who take them over the API |
//! | `settings` | the incarnation (part of every cursor), the horizon, kept changes |
//!
//! One connection writes. A snapshot reads on a connection of its own, so a slow client holds up nobody.
//! WAL with `synchronous=NORMAL`: a killed emulator loses nothing; a power cut of the test machine may.

pub mod blobs;
pub mod documents;
pub mod enrolment;
pub mod entities;
pub mod events;
pub mod feed;
pub mod messages;
pub mod orders;
pub mod rollouts;
pub mod snapshots;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

/// Why a call on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file beside the database could not be used.
    #[error("store: {0}")]
    Io(#[from] std::io::Error),
}

/// The emulator's state. Clones share it.
#[derive(Clone)]
pub struct Store {
    dir: PathBuf,
    writer: Arc<Mutex<Connection>>,
    snapshotting: Arc<Mutex<()>>,
}

impl Store {
    /// Opens the state in `dir`, creating what is missing.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir.join("blobs"))?;
        let writer = Connection::open(dir.join("platform.db"))?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "NORMAL")?;
        writer.set_prepared_statement_cache_capacity(64);
        writer.execute_batch(SCHEMA)?;
        writer.execute(
            "INSERT OR IGNORE INTO settings(key, value) VALUES ('incarnation', lower(hex(randomblob(8))))",
            [],
        )?;
        Ok(Self {
            dir: dir.to_owned(),
            writer: Arc::new(Mutex::new(writer)),
            snapshotting: Arc::default(),
        })
    }

    /// Runs `work` on the writing connection, off the async threads.
    pub async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.call_blocking(work))
            .await
            .expect("store work does not panic and is not aborted")
    }

    /// The same for code that is not async.
    pub fn call_blocking<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self
            .writer
            .lock()
            .expect("no holder of the store's lock panics");
        work(&mut connection)
    }

    /// A further connection, for reading only.
    pub fn reader(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Connection::open_with_flags(
            self.dir.join("platform.db"),
            flags,
        )?)
    }

    /// The folder of blob bytes.
    pub fn blobs_dir(&self) -> PathBuf {
        self.dir.join("blobs")
    }
}

/// Reads one setting.
pub fn setting(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM settings WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Writes one setting.
pub fn set_setting(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO settings(key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?
        .execute(params![key, value])?;
    Ok(())
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS settings(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS changes(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  collection TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, deleted INTEGER NOT NULL,
  at_ms INTEGER NOT NULL, data TEXT) STRICT;
CREATE TABLE IF NOT EXISTS hidden(seq INTEGER PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS documents(
  collection TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, deleted INTEGER NOT NULL,
  seq INTEGER NOT NULL, PRIMARY KEY(collection, id)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, occurred_at TEXT NOT NULL, received_ms INTEGER NOT NULL,
  digest BLOB NOT NULL, body TEXT NOT NULL, repeats INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS entities(
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, topic TEXT,
  lock_ms INTEGER NOT NULL, max_delivery_count INTEGER NOT NULL, ttl_ms INTEGER,
  dead_letter_expired INTEGER NOT NULL, duplicate_window_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS messages(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  entity TEXT NOT NULL REFERENCES entities(name) ON DELETE CASCADE,
  dead INTEGER NOT NULL DEFAULT 0, dead_reason TEXT,
  message_id TEXT NOT NULL, broker TEXT NOT NULL, custom TEXT NOT NULL, content_type TEXT, body BLOB NOT NULL,
  enqueued_ms INTEGER NOT NULL, visible_ms INTEGER NOT NULL, expires_ms INTEGER, delivery_count INTEGER NOT NULL DEFAULT 0,
  lock_token TEXT, locked_until_ms INTEGER) STRICT;
CREATE INDEX IF NOT EXISTS messages_by_entity ON messages(entity, dead, seq);
CREATE TABLE IF NOT EXISTS seen_messages(
  entity TEXT NOT NULL, message_id TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY(entity, message_id)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders_feed(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS blobs(
  name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL, content_type TEXT NOT NULL,
  etag TEXT NOT NULL, modified_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed_containers(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollouts(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rollout_feedback(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout INTEGER NOT NULL, at_ms INTEGER NOT NULL, about TEXT NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS boxes(
  box_id TEXT PRIMARY KEY, public_key BLOB NOT NULL, version TEXT NOT NULL, claim BLOB NOT NULL, state TEXT NOT NULL,
  site TEXT NOT NULL, claimed_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL, signed_text TEXT NOT NULL,
  signature BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tokens(
  token TEXT PRIMARY KEY, box_id TEXT NOT NULL, expires_ms INTEGER NOT NULL, renews INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS controllers(id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
";
