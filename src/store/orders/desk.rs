//! What somebody does by hand about items that were set aside: look, send again, take again, drop.
//!
//! Works on the database beside a running server: each act is a short transaction of its own, and the server looks again
//! within seconds. Only what is parked can be touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::idle::Idle;
use super::inbox::{Content, Incoming, ParkCode, Received, take};
use super::outbox::{OutboxItem, parked as parked_items, unpark};
use super::view::{ParkedMessage, parked as parked_messages};
use super::{OrderRules, Orders, schema};
use crate::store::writer::{Reply, Tx};

/// A writer of the server never holds its lock that long.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The desk can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// No database, or one of another version of the firmware.
    #[error("{path} is no orders database of this version")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("cannot {attempt} in {path}")]
    Sqlite {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

/// What was set aside, in the hands of a person.
pub struct Desk {
    path: PathBuf,
    conn: Connection,
}

impl Desk {
    /// Opens the orders of the store in `data_dir`; makes none.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn open(data_dir: &Path) -> Result<Self, DeskError> {
        let path = data_dir.join("orders.db");
        let sqlite = |source| DeskError::Sqlite {
            attempt: "open what was set aside",
            path: path.clone(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
        conn.busy_timeout(LOCK_WAIT).map_err(sqlite)?;
        conn.execute_batch("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
            .map_err(sqlite)?;
        let version: i64 = conn
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(sqlite)?;
        if usize::try_from(version) != Ok(schema::MIGRATIONS.len()) {
            return Err(DeskError::Foreign { path });
        }
        Ok(Self { path, conn })
    }

    /// Events the platform refused, oldest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn outbox(&self, limit: usize) -> Result<Vec<OutboxItem>, DeskError> {
        parked_items(&self.conn, limit).map_err(|source| self.failed("list the outbox", source))
    }

    /// Puts an event back into its lane; false when none of that id is parked.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn resend(&mut self, id: i64, now_ms: i64) -> Result<bool, DeskError> {
        self.act("send again", now_ms, |tx| unpark(tx, id))
    }

    /// Drops a parked event for good; false when none of that id is parked.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn drop_event(&mut self, id: i64, now_ms: i64) -> Result<bool, DeskError> {
        self.act("drop", now_ms, |tx| {
            let gone = tx
                .conn
                .execute("DELETE FROM outbox WHERE id = ?1 AND parked = 1", [id])?;
            Ok(gone == 1)
        })
    }

    /// Messages that could not be taken, newest first.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn inbox(&self, limit: usize) -> Result<Vec<ParkedMessage>, DeskError> {
        parked_messages(&self.conn, limit).map_err(|source| self.failed("list the inbox", source))
    }

    /// Looks at a parked message once more, as after an update that knows its form; `None` when none of that id is parked.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn take_again(
        &mut self,
        message_id: &str,
        rules: &OrderRules,
        now_ms: i64,
    ) -> Result<Option<Received>, DeskError> {
        let found = parked_messages(&self.conn, usize::MAX)
            .map_err(|source| self.failed("read the inbox", source))?
            .into_iter()
            .find(|message| message.message_id == message_id);
        let Some(mut parked) = found else {
            return Ok(None);
        };
        let content = parked
            .document
            .take()
            .map_or(Content::Itself, Content::Claimed);
        let incoming = Incoming::of_parked(parked, content, &rules.default_role);
        self.act("take again", now_ms, |tx| {
            drop_message(tx, message_id)?;
            take(tx, &incoming, rules, &Idle::default()).map(Some)
        })
    }

    /// Makes the document of a parked claim check due at once: the running server fetches it. False when no message of
    /// that id is parked for want of its document.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn fetch_again(&mut self, message_id: &str, now_ms: i64) -> Result<bool, DeskError> {
        self.act("fetch again", now_ms, |tx| {
            let found = tx.conn.execute(
                "UPDATE inbox SET due_ms = 0, tries = 0 WHERE message_id = ?1 AND parked IS NOT NULL AND why = ?2",
                (message_id, ParkCode::NoDocument.as_str()),
            )?;
            Ok(found == 1)
        })
    }

    /// Drops a parked message for good; false when none of that id is parked.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn drop_message(&mut self, message_id: &str, now_ms: i64) -> Result<bool, DeskError> {
        self.act("drop", now_ms, |tx| drop_message(tx, message_id))
    }

    fn act<T>(
        &mut self,
        attempt: &'static str,
        now_ms: i64,
        act: impl FnOnce(&mut Tx<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DeskError> {
        let path = self.path.clone();
        let sqlite = |source| DeskError::Sqlite {
            attempt,
            path,
            source,
        };
        let run = || {
            let transaction = rusqlite::Transaction::new(
                &mut self.conn,
                rusqlite::TransactionBehavior::Immediate,
            )?;
            let done = act(&mut Tx::apart(&transaction, now_ms))?;
            transaction.commit()?;
            Ok(done)
        };
        run().map_err(sqlite)
    }

    fn failed(&self, attempt: &'static str, source: rusqlite::Error) -> DeskError {
        DeskError::Sqlite {
            attempt,
            path: self.path.clone(),
            source,
        }
    }
}

impl Orders {
    /// Drops a parked message for good; false when none of that id is parked.
    pub fn inbox_drop(&self, message_id: &str) -> Reply<bool> {
        let message_id = message_id.to_owned();
        self.writer.submit(move |tx| drop_message(tx, &message_id))
    }
}

pub(super) fn drop_message(tx: &Tx<'_>, message_id: &str) -> rusqlite::Result<bool> {
    let gone = tx.conn.execute(
        "DELETE FROM inbox WHERE message_id = ?1 AND parked IS NOT NULL",
        [message_id],
    )?;
    Ok(gone == 1)
}
