//! The outbox: what the platform is to be told, in lanes that do not hold each other up.
//!
//! Within a lane, events of one subject (an order) go out in the order they happened; while one of them is to be tried
//! again later, those after it wait and other subjects overtake. One that is parked holds up nothing: the platform will
//! never take it as it is, and what came after is news all the same.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde_json::value::RawValue;

use super::view::raw;
use super::{LIST_BOUND, Orders, ReadError};
use crate::digest::Digest;
use crate::store::events::StoreEvent;
use crate::store::writer::{Reply, Tx};

/// A queue of its own: a stuck item of one lane holds up no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Orders and what became of them.
    Orders,
    /// Receipts of devices.
    Receipts,
    /// What devices and the box itself have to tell.
    Events,
    /// What is only good to know; the oldest go first at the bound, and are counted.
    Telemetry,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 4] = [Self::Orders, Self::Receipts, Self::Events, Self::Telemetry];

    /// Items that may wait. Above it the oldest are dropped and counted: of telemetry at once, of the other lanes only
    /// what is older than [`super::KEPT_MS`].
    #[must_use]
    pub const fn bound(self) -> i64 {
        match self {
            Self::Orders | Self::Receipts | Self::Events => super::OUTBOX_BOUND,
            Self::Telemetry => super::TELEMETRY_BOUND,
        }
    }

    pub(super) fn number(self) -> i64 {
        self as i64
    }

    fn numbered(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }
}

/// Something the platform is to be told.
#[derive(Debug, Clone)]
pub struct OutboxItem {
    /// Position in the outbox.
    pub id: i64,
    /// The `Idempotency-Key` of its delivery: the same on every try, and never used again by this or another box.
    pub key: String,
    /// Its lane.
    pub lane: Lane,
    /// What it tells, `order.submitted` for instance.
    pub kind: String,
    /// What it is about: events of one subject stay in their order.
    pub subject: Option<String>,
    /// When that happened, milliseconds since 1970.
    pub occurred_at_ms: i64,
    /// Failed tries so far.
    pub attempts: u32,
    /// The last failure.
    pub error: Option<String>,
    /// The event's body.
    pub body: Box<RawValue>,
}

/// What waits in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LaneCounts {
    /// The lane.
    pub lane: Lane,
    /// Items to be delivered.
    pub waiting: i64,
    /// Items set aside until somebody looks.
    pub parked: i64,
    /// When the oldest waiting one happened, milliseconds since 1970.
    pub oldest_at_ms: Option<i64>,
}

/// What waits for the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutboxCounts {
    /// Each lane.
    pub lanes: Vec<LaneCounts>,
    /// Telemetry dropped at its bound since the database was made.
    pub dropped: i64,
    /// Items of other lanes that nobody took for 30 days and that were dropped at the bound since.
    pub aged: i64,
}

/// A receipt a device hands in for the platform.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Who hands it in.
    pub device_id: String,
    /// The request's `Idempotency-Key`.
    pub idempotency_key: String,
    /// Digest of the request.
    pub request_digest: Digest,
    /// Kind of the event it becomes, `receipt.printed` for instance.
    pub kind: String,
    /// The receipt, JSON.
    pub body: Box<RawValue>,
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptTaken {
    /// Taken, as outbox item `id`.
    New {
        /// The outbox item.
        id: i64,
    },
    /// The same request was here before.
    Replayed,
    /// The key was used for another request.
    KeyConflict,
}

// Keys outlive their items, so they carry the database's own random prefix: a re-created database repeats none.
pub(super) const COLUMNS: &str =
    "id, (SELECT value FROM facts WHERE name = 'key_prefix') || '-' || id, lane, kind, occurred_ms,
    attempts, error, body, subject";

impl Orders {
    /// Takes a receipt into the lane of receipts.
    pub fn receipt(&self, receipt: Receipt) -> Reply<ReceiptTaken> {
        self.writer.submit(move |tx| {
            let (device, key) = (&receipt.device_id, &receipt.idempotency_key);
            if let Some((digest, _)) = remembered(tx, device, key)? {
                return Ok(if digest == receipt.request_digest.as_bytes() {
                    ReceiptTaken::Replayed
                } else {
                    ReceiptTaken::KeyConflict
                });
            }
            let id = push(tx, Lane::Receipts, &receipt.kind, None, receipt.body.get())?;
            remember(tx, device, key, &receipt.request_digest, &id.to_string())?;
            Ok(ReceiptTaken::New { id })
        })
    }

    /// Queues an event for the platform; its outbox id.
    pub fn outbox_push(&self, lane: Lane, kind: &str, body: Box<RawValue>) -> Reply<i64> {
        let kind = kind.to_owned();
        self.writer
            .submit(move |tx| push(tx, lane, &kind, None, body.get()))
    }

    /// Items of `lane` whose time has come, oldest first, at most `limit` (and [`LIST_BOUND`]). A time beyond
    /// [`LONGEST_RETRY_MS`] was set by a clock that went back since (a box without a clock chip starts again at its
    /// release): it has come, too.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn outbox_due(
        &self,
        lane: Lane,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<OutboxItem>, ReadError> {
        self.outbox_due_after(lane, 0, now_ms, limit)
    }

    /// The same of the items behind `after_id`, for who goes through a lane and has those up to it in hand. What follows
    /// an item of its own subject that failed, and is not among those given, is left out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn outbox_due_after(
        &self,
        lane: Lane,
        after_id: i64,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<OutboxItem>, ReadError> {
        let limit = i64::try_from(limit.min(LIST_BOUND)).unwrap_or(0);
        self.readers.read(|conn| {
            conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox o WHERE lane = ?1 AND parked = 0 AND id > ?5
                 AND (due_ms <= ?2 OR due_ms > ?4)
                 AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.lane = ?1 AND e.subject = o.subject AND e.id < o.id
                    AND e.due_ms > 0 AND e.parked = 0 AND e.subject IS NOT NULL
                    AND (e.id <= ?5 OR e.due_ms > ?2 AND e.due_ms <= ?4))
                 ORDER BY id LIMIT ?3"
            ))?
            .query_map(
                (
                    lane.number(),
                    now_ms,
                    limit,
                    now_ms.saturating_add(LONGEST_RETRY_MS),
                    after_id,
                ),
                item,
            )?
            .collect()
        })
    }

    /// Parked items of all lanes, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn outbox_parked(&self, limit: usize) -> Result<Vec<OutboxItem>, ReadError> {
        self.readers.read(|conn| parked(conn, limit))
    }

    /// How many items are parked, of all lanes.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn outbox_parked_count(&self) -> Result<i64, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT count(*) FROM outbox WHERE lane IN (0, 1, 2, 3) AND parked = 1",
            )?
            .query_row([], |row| row.get(0))
        })
    }

    /// The platform has these items; how many were still there. Rides on the next commit: an item whose removal a power
    /// cut forgets is sent again under its key, and the platform knows it.
    pub fn outbox_sent(&self, ids: Vec<i64>) -> Reply<usize> {
        self.writer.submit_with_next(move |tx| {
            let mut delete = tx.conn.prepare_cached("DELETE FROM outbox WHERE id = ?1")?;
            let mut gone = 0;
            for id in &ids {
                gone += delete.execute([id])?;
            }
            drop(delete);
            if gone >= MANY {
                tx.call_for_housekeeping();
            }
            Ok(gone)
        })
    }

    /// Try again at `at_ms`.
    pub fn outbox_retry(&self, id: i64, at_ms: i64, error: &str) -> Reply<bool> {
        self.note_failure(
            "UPDATE outbox SET attempts = attempts + 1, due_ms = ?2, error = ?3 WHERE id = ?1",
            id,
            at_ms,
            error,
        )
    }

    /// The platform will never take it as it is: set it aside, so that the lane goes on.
    pub fn outbox_park(&self, id: i64, error: &str) -> Reply<bool> {
        self.note_failure(
            "UPDATE outbox SET attempts = attempts + 1, parked = 1, due_ms = ?2, error = ?3 WHERE id = ?1",
            id,
            0,
            error,
        )
    }

    /// Puts a parked item back into its lane.
    pub fn outbox_unpark(&self, id: i64) -> Reply<bool> {
        self.writer.submit(move |tx| unpark(tx, id))
    }

    /// What waits, lane by lane.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn outbox_counts(&self) -> Result<OutboxCounts, ReadError> {
        self.readers.read_together(|conn| {
            let mut lanes = Vec::new();
            for lane in Lane::ALL {
                let mut count =
                    conn.prepare_cached("SELECT count(*) FROM outbox WHERE lane = ?1 AND parked = ?2")?;
                let waiting = count.query_row((lane.number(), 0), |row| row.get(0))?;
                let parked = count.query_row((lane.number(), 1), |row| row.get(0))?;
                let oldest_at_ms = conn
                    .prepare_cached(
                        "SELECT occurred_ms FROM outbox WHERE lane = ?1 AND parked = 0 ORDER BY id LIMIT 1",
                    )?
                    .query_row([lane.number()], |row| row.get(0))
                    .optional()?;
                lanes.push(LaneCounts {
                    lane,
                    waiting,
                    parked,
                    oldest_at_ms,
                });
            }
            let mut fact = conn
                .prepare_cached("SELECT coalesce((SELECT value FROM facts WHERE name = ?1), 0)")?;
            Ok(OutboxCounts {
                lanes,
                dropped: fact.query_row(["outbox_dropped"], |row| row.get(0))?,
                aged: fact.query_row(["outbox_aged"], |row| row.get(0))?,
            })
        })
    }

    fn note_failure(&self, sql: &'static str, id: i64, at_ms: i64, error: &str) -> Reply<bool> {
        let error: String = error.chars().take(MAX_ERROR).collect();
        self.writer
            .submit(move |tx| Ok(tx.conn.prepare_cached(sql)?.execute((id, at_ms, &error))? == 1))
    }
}

/// No retry lies further ahead than this: the settings take no longer back-off.
pub const LONGEST_RETRY_MS: i64 = 3600 * 1000;
/// Characters of a failure that are kept.
const MAX_ERROR: usize = 500;

/// Items taken out at once from which giving their space back is worth looking at.
const MANY: usize = 32;
/// Items of telemetry after which its bound is looked at.
const TELEMETRY_LOOK: i64 = 256;

/// Queues an event about `subject` inside `tx`, as of now; its outbox id.
pub(super) fn push(
    tx: &mut Tx<'_>,
    lane: Lane,
    kind: &str,
    subject: Option<&str>,
    body: &str,
) -> rusqlite::Result<i64> {
    tx.conn
        .prepare_cached(
            "INSERT INTO outbox (lane, kind, subject, occurred_ms, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((lane.number(), kind, subject, tx.now_ms, body.as_bytes()))?;
    let id = tx.conn.last_insert_rowid();
    if lane == Lane::Telemetry && id % TELEMETRY_LOOK == 0 {
        tx.call_for_housekeeping();
    }
    tx.tell(StoreEvent::Outbox);
    Ok(id)
}

/// Puts a parked item back; false when there is none of that id.
pub(super) fn unpark(tx: &mut Tx<'_>, id: i64) -> rusqlite::Result<bool> {
    let back = tx
        .conn
        .prepare_cached("UPDATE outbox SET parked = 0, due_ms = 0 WHERE id = ?1 AND parked = 1")?
        .execute([id])?;
    if back == 1 {
        tx.tell(StoreEvent::Outbox);
    }
    Ok(back == 1)
}

pub(super) fn parked(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<OutboxItem>> {
    let limit = i64::try_from(limit.min(LIST_BOUND)).unwrap_or(0);
    conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM outbox WHERE lane IN (0, 1, 2, 3) AND parked = 1 ORDER BY id LIMIT ?1"
    ))?
    .query_map([limit], item)?
    .collect()
}

fn item(row: &Row<'_>) -> rusqlite::Result<OutboxItem> {
    Ok(OutboxItem {
        id: row.get(0)?,
        key: row.get(1)?,
        lane: Lane::numbered(row.get(2)?).ok_or_else(|| super::view::foreign(2))?,
        kind: row.get(3)?,
        occurred_at_ms: row.get(4)?,
        attempts: row.get(5)?,
        error: row.get(6)?,
        body: raw(row, 7)?,
        subject: row.get(8)?,
    })
}

/// The request digest and what it led to, when `key` of `device_id` was used before.
fn remembered(
    tx: &Tx<'_>,
    device_id: &str,
    key: &str,
) -> rusqlite::Result<Option<(Vec<u8>, String)>> {
    tx.conn
        .prepare_cached(
            "SELECT digest, reference FROM idempotency WHERE device_id = ?1 AND key = ?2",
        )?
        .query_row((device_id, key), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn remember(
    tx: &Tx<'_>,
    device_id: &str,
    key: &str,
    digest: &Digest,
    reference: &str,
) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("INSERT INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((
            device_id,
            key,
            digest.as_bytes().as_slice(),
            reference,
            tx.now_ms,
        ))
        .map(drop)
}
