//! Reading orders.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde_json::value::RawValue;

use super::intake::Source;
use super::{LIST_BOUND, OrderState, Orders, ReadError};

/// An order as others see it.
#[derive(Debug, Clone, Serialize)]
pub struct OrderView {
    /// The order's id.
    pub order_id: String,
    /// Number of its last change; rises with every change of any order.
    pub seq: i64,
    /// Where it came from.
    pub source: Source,
    /// Where it stands.
    pub state: OrderState,
    /// Which devices are to carry it out.
    pub role: String,
    /// When the customer placed it, milliseconds since 1970.
    pub placed_at_ms: i64,
    /// When the box took it, milliseconds since 1970.
    pub received_at_ms: i64,
    /// When its state changed last, milliseconds since 1970.
    pub updated_at_ms: i64,
    /// The document as it came.
    pub body: Box<RawValue>,
}

/// A message that was no order: kept until somebody has looked at it, 30 days at most.
#[derive(Debug, Clone)]
pub struct ParkedMessage {
    /// The broker's id.
    pub message_id: String,
    /// Who brought it.
    pub source: Source,
    /// When the box took it, milliseconds since 1970.
    pub received_at_ms: i64,
    /// Which kind of fault it has: the text of a [`super::ParkCode`].
    pub why: String,
    /// Why it is no order.
    pub reason: String,
    /// The message as it came.
    pub body: Vec<u8>,
    /// The document it pointed to, if it pointed to one that could be had.
    pub document: Option<Vec<u8>>,
}

pub(super) const COLUMNS: &str =
    "order_id, seq, source, state, role, placed_ms, received_ms, updated_ms, body";

impl Orders {
    /// The order `order_id`, if the box has it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn order(&self, order_id: &str) -> Result<Option<OrderView>, ReadError> {
        self.readers.read(|conn| find(conn, order_id))
    }

    /// Orders whose last change has a number above `after_seq`, in the order of their changes, at most `limit` (and
    /// [`LIST_BOUND`]); only those in `state` if one is given.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn list(
        &self,
        after_seq: i64,
        state: Option<OrderState>,
        limit: usize,
    ) -> Result<Vec<OrderView>, ReadError> {
        let filter = match state {
            None => String::new(),
            // The literal list lets SQLite use the partial index of open orders.
            Some(state) if !state.is_closed() => {
                format!("AND state = {} AND state IN (0, 1, 2, 3)", state.number())
            }
            Some(state) => format!("AND state = {}", state.number()),
        };
        let limit = i64::try_from(limit.min(LIST_BOUND)).unwrap_or(0);
        self.readers.read(|conn| {
            conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM orders WHERE seq > ?1 {filter} ORDER BY seq LIMIT ?2"
            ))?
            .query_map((after_seq, limit), view)?
            .collect()
        })
    }

    /// Messages that were no orders, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn inbox_parked(&self, limit: usize) -> Result<Vec<ParkedMessage>, ReadError> {
        self.readers.read(|conn| parked(conn, limit))
    }

    /// The kinds of fault there are among the parked messages, each with the newest one's reason.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn inbox_faults(&self) -> Result<Vec<(String, String)>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT why, parked, max(received_ms) FROM inbox
                 WHERE parked IS NOT NULL GROUP BY 1",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
        })
    }
}

pub(super) fn parked(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<ParkedMessage>> {
    let limit = i64::try_from(limit.min(LIST_BOUND)).unwrap_or(0);
    conn.prepare_cached(
        "SELECT message_id, source, received_ms, parked, body, why, document FROM inbox
         WHERE parked IS NOT NULL ORDER BY received_ms DESC LIMIT ?1",
    )?
    .query_map([limit], parked_message)?
    .collect()
}

/// A row of `message_id, source, received_ms, parked, body, why, document`.
pub(super) fn parked_message(row: &Row<'_>) -> rusqlite::Result<ParkedMessage> {
    Ok(ParkedMessage {
        message_id: row.get(0)?,
        source: Source::numbered(row.get(1)?).ok_or_else(|| foreign(1))?,
        received_at_ms: row.get(2)?,
        reason: row.get(3)?,
        body: row.get::<_, Option<Vec<u8>>>(4)?.unwrap_or_default(),
        why: row.get(5)?,
        document: row.get(6)?,
    })
}

pub(super) fn find(conn: &Connection, order_id: &str) -> rusqlite::Result<Option<OrderView>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM orders WHERE order_id = ?1"))?
        .query_row([order_id], view)
        .optional()
}

pub(super) fn view(row: &Row<'_>) -> rusqlite::Result<OrderView> {
    let number = |index| row.get::<_, i64>(index);
    Ok(OrderView {
        order_id: row.get(0)?,
        seq: number(1)?,
        source: Source::numbered(number(2)?).ok_or_else(|| foreign(2))?,
        state: OrderState::numbered(number(3)?).ok_or_else(|| foreign(3))?,
        role: row.get(4)?,
        placed_at_ms: number(5)?,
        received_at_ms: number(6)?,
        updated_at_ms: number(7)?,
        body: raw(row, 8)?,
    })
}

/// Column `index` as JSON. It was checked before it was stored; should the disk have altered it since, its text is given
/// as a JSON string, so that one bad row stands in nobody's way and is refused where it is read.
pub(super) fn raw(row: &Row<'_>, index: usize) -> rusqlite::Result<Box<RawValue>> {
    let bytes: Vec<u8> = row.get(index)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    RawValue::from_string(text)
        .or_else(|_| serde_json::value::to_raw_value(&String::from_utf8_lossy(&bytes)))
        .map_err(|_| foreign(index))
}

/// Column `index` holds what this firmware never writes.
pub(super) fn foreign(index: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(
        index,
        "a value this firmware never writes".into(),
        Type::Blob,
    )
}
