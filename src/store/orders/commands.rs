//! Commands: what an order asks of a device, and what became of it.
//!
//! ```text
//!  open ──claim──► claimed ──► sent ──► accepted ──► ok | failed | unknown
//!   │ ▲               │          │          │
//!   │ └───────────────┴──release─┴──────────┘   the device is gone; the next one is warned of a possible duplicate
//!   ├──► expired (nobody took it)   claimed, sent ──► unknown (nobody answered in time)
//!   │                                      accepted ──► unknown (nobody said what came of it)
//!   └──► withdrawn (the order was closed first)
//! ```
//! A late answer of a device still counts after expired, unknown and withdrawn. A claimed command may have been sent
//! before a crash, so whoever gets it again is told of a possible duplicate: sending need not wait for an fsync.

use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::document::OrderDocument;
use super::idle::Idle;
use super::outbox::{self, Lane};
use super::view::find;
use super::{LIST_BOUND, OrderRules, OrderState, Orders, ReadError, intake};
use crate::clock::Reckoning;
use crate::digest::hex;
use crate::store::events::StoreEvent;
use crate::store::writer::{Reply, Tx};

/// Kind of the command that carries an order.
pub const ORDER_KIND: &str = "order";
/// Characters of a device's explanation that are kept.
const MAX_DETAIL: usize = 500;
/// An accepted command may take its whole life and this part of it more to be done. Then it is unknown, so that the ones
/// behind it go on; a late answer still counts.
const ACCEPTED_PART: i64 = 4;
/// Commands expired in one transaction.
const EXPIRY_SLICE: i64 = 64;

/// A command for one device.
#[derive(Debug, Clone)]
pub struct Command {
    /// The same on every repeat, and of no other command of this or another box.
    pub id: [u8; 16],
    /// Position in the device's own sequence, from 1.
    pub seq: u64,
    /// What kind of command this is.
    pub kind: String,
    /// The order it carries.
    pub order_id: String,
    /// The role it was issued for.
    pub role: String,
    /// When it was issued, milliseconds since 1970, as the clock now counts: the device compares it with the box's time.
    pub issued_at_ms: i64,
    /// When it is no longer to be begun, by the same clock.
    pub expires_at_ms: i64,
    /// It may have reached this or another device before.
    pub possible_duplicate: bool,
    /// The device has said that it has it.
    pub accepted: bool,
    /// The order's document.
    pub body: Vec<u8>,
}

/// What a device made of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Carried out.
    Ok,
    /// Tried, and could not.
    Failed,
    /// Came too late and was not begun.
    Expired,
    /// Nobody can say.
    Unknown,
}

/// Who has something to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkWaiting {
    /// Roles for which commands are open that no device holds.
    pub roles: Vec<String>,
    /// Devices that hold a command.
    pub devices: Vec<String>,
}

/// What became of news about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandChanged {
    /// It was news.
    Changed,
    /// It was known already.
    Unchanged,
    /// The box has no such command.
    NoSuchCommand,
}

// Stored numbers; 0 to 3 are open in the partial indexes of the schema.
const OPEN: i64 = 0;
const CLAIMED: i64 = 1;
const SENT: i64 = 2;
const ACCEPTED: i64 = 3;
const OK: i64 = 4;
const FAILED: i64 = 5;
const EXPIRED: i64 = 6;
const UNKNOWN: i64 = 7;
const WITHDRAWN: i64 = 8;

impl Outcome {
    fn number(self) -> i64 {
        match self {
            Self::Ok => OK,
            Self::Failed => FAILED,
            Self::Expired => EXPIRED,
            Self::Unknown => UNKNOWN,
        }
    }

    /// Where the outcome takes the order; `None` leaves it to people.
    fn order_state(self) -> Option<OrderState> {
        match self {
            Self::Ok => Some(OrderState::Done),
            Self::Failed => Some(OrderState::Failed),
            Self::Expired => Some(OrderState::Expired),
            Self::Unknown => None,
        }
    }
}

struct Held {
    id: [u8; 16],
    key: i64,
    order_id: String,
    state: i64,
    device_id: Option<String>,
}

impl Orders {
    /// Who has something to do; at most [`LIST_BOUND`] roles and as many devices.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn work_waiting(&self) -> Result<WorkWaiting, ReadError> {
        self.readers.read_together(|conn| {
            let names = |query: &str| {
                conn.prepare_cached(query)?
                    .query_map([LIST_BOUND as i64], |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<String>>>()
            };
            Ok(WorkWaiting {
                roles: names("SELECT DISTINCT role FROM commands WHERE state = 0 LIMIT ?1")?,
                devices: names(
                    "SELECT DISTINCT device_id FROM commands WHERE state IN (1, 2, 3)
                     AND device_id IS NOT NULL LIMIT ?1",
                )?,
            })
        })
    }

    /// The command `device_id` is to work on: the one it holds already, or else the oldest open one for `role`, which
    /// it holds from now on, under the next number of its own sequence.
    pub fn next_command(&self, device_id: &str, role: &str) -> Reply<Option<Command>> {
        let (device_id, role) = (device_id.to_owned(), role.to_owned());
        let idle = self.idle.clone();
        self.writer.submit(move |tx| {
            let (waits, of, role) = (idle.clone(), device_id.clone(), role.clone());
            if let Some(command) = held_by(tx, &device_id)? {
                let is_new = idle.is_set_by(&device_id, key_of(&command.id));
                tx.once_durable(move || waits.given(&of));
                return Ok(Some(Command {
                    possible_duplicate: command.possible_duplicate && !is_new,
                    ..command
                }));
            }
            let Reckoning {
                now_ms,
                since_ms,
                earliest_ms,
            } = tx.reckoning;
            let oldest: Option<(i64, i64)> = tx
                .conn
                .prepare_cached(
                    "SELECT key, sends FROM commands WHERE role = ?1 AND state = 0
                     AND expires_ms > CASE WHEN issued_ms < ?3 THEN ?4 ELSE ?2 END
                     ORDER BY key LIMIT 1",
                )?
                .query_row((&role, now_ms, since_ms, earliest_ms), |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((key, sends)) = oldest else {
                tx.once_durable(move || waits.waits(&of, &role));
                return Ok(None);
            };
            hold(tx, key, &device_id)?;
            Ok(held_by(tx, &device_id)?.map(|command| Command {
                possible_duplicate: sends > 0,
                ..command
            }))
        })
    }

    /// The device can take nothing any more: what comes is for others.
    pub fn device_left(&self, device_id: &str) {
        self.idle.left(device_id);
    }

    /// The command goes out now. Need not be waited for; unchanged when no device holds it any more.
    pub fn command_sent(&self, id: [u8; 16]) -> Reply<CommandChanged> {
        self.writer.submit(move |tx| {
            let Some(held) = by_id(tx, &id)? else {
                return Ok(CommandChanged::NoSuchCommand);
            };
            let state = match held.state {
                CLAIMED => SENT,
                SENT | ACCEPTED => held.state,
                _ => return Ok(CommandChanged::Unchanged),
            };
            tx.conn
                .prepare_cached("UPDATE commands SET state = ?2, sends = sends + 1 WHERE key = ?1")?
                .execute((held.key, state))?;
            Ok(CommandChanged::Changed)
        })
    }

    /// The device has it: it has a while longer, and the order is accepted.
    pub fn command_accepted(&self, id: [u8; 16]) -> Reply<CommandChanged> {
        self.writer.submit(move |tx| {
            let Some(held) = by_id(tx, &id)? else {
                return Ok(CommandChanged::NoSuchCommand);
            };
            if !matches!(held.state, CLAIMED | SENT) {
                return Ok(CommandChanged::Unchanged);
            }
            set_state(tx, held.key, ACCEPTED, None)?;
            move_order(tx, &held.order_id, OrderState::Accepted)?;
            Ok(CommandChanged::Changed)
        })
    }

    /// The device is through with it. Outcome, order and the event `command.done` are one transaction.
    pub fn command_done(
        &self,
        id: [u8; 16],
        outcome: Outcome,
        detail: &str,
    ) -> Reply<CommandChanged> {
        let detail: String = detail.chars().take(MAX_DETAIL).collect();
        self.writer.submit(move |tx| {
            let Some(held) = by_id(tx, &id)? else {
                return Ok(CommandChanged::NoSuchCommand);
            };
            if matches!(held.state, OK | FAILED) || held.state == outcome.number() {
                return Ok(CommandChanged::Unchanged);
            }
            finish(tx, &held, outcome, outcome.order_state(), &detail)?;
            // Its next command may go out.
            tx.tell(StoreEvent::Command);
            Ok(CommandChanged::Changed)
        })
    }

    /// Gives up on commands that by `at` nobody has accepted in time, or that were accepted and not done a quarter of their
    /// life later; how many. A bounded slice: call again while it is not zero.
    pub fn expire_commands(&self, at: Reckoning) -> Reply<usize> {
        self.writer.submit(move |tx| {
            let late = tx
                .conn
                .prepare_cached(
                    // In the words of the partial indexes: what is closed is not looked at.
                    "SELECT c.key, c.state, c.device_id, o.order_id, p.value, c.sends
                     FROM (SELECT * FROM commands WHERE state = 0
                           UNION ALL
                           SELECT * FROM commands WHERE state IN (1, 2, 3)) c
                     JOIN orders o ON o.key = c.key JOIN facts p ON p.name = 'command_prefix'
                     WHERE c.expires_ms + (c.state = 3) * (c.expires_ms - c.issued_ms) / ?5
                        <= CASE WHEN c.issued_ms < ?2 THEN ?3 ELSE ?1 END
                     ORDER BY c.key LIMIT ?4",
                )?
                .query_map(
                    (
                        at.now_ms,
                        at.since_ms,
                        at.earliest_ms,
                        EXPIRY_SLICE,
                        ACCEPTED_PART,
                    ),
                    |row| Ok((held(row)?, row.get::<_, i64>(5)?)),
                )?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for (held, sends) in &late {
                if held.state == ACCEPTED {
                    let detail = "the device never said what came of it";
                    finish(tx, held, Outcome::Unknown, None, detail)?;
                    continue;
                }
                let (outcome, detail) = if held.state == OPEN && *sends == 0 {
                    (Outcome::Expired, "no device took it in time")
                } else {
                    (Outcome::Unknown, "the device never said that it has it")
                };
                finish(tx, held, outcome, Some(OrderState::Expired), detail)?;
            }
            Ok(late.len())
        })
    }

    /// Takes from `device_id` what it holds and offers it to the others of the role, as a possible duplicate; how many.
    pub fn release_commands(&self, device_id: &str) -> Reply<usize> {
        let device_id = device_id.to_owned();
        self.writer.submit(move |tx| {
            let released = tx
                .conn
                .prepare_cached(
                    "UPDATE commands SET state = 0, device_id = NULL, device_seq = NULL, sends = max(sends, 1)
                     WHERE device_id = ?1 AND state IN (1, 2, 3)",
                )?
                .execute([&device_id])?;
            if released > 0 {
                tx.tell(StoreEvent::Command);
            }
            Ok(released)
        })
    }
}

/// Gives the command `key` to `device_id`, under the next number of its own sequence.
fn hold(tx: &Tx<'_>, key: i64, device_id: &str) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO device_seqs VALUES (?1, 1)
             ON CONFLICT DO UPDATE SET last_seq = last_seq + 1",
        )?
        .execute([device_id])?;
    tx.conn
        .prepare_cached(
            "UPDATE commands SET state = ?2, device_id = ?3,
                device_seq = (SELECT last_seq FROM device_seqs WHERE device_id = ?3) WHERE key = ?1",
        )?
        .execute((key, CLAIMED, device_id))
        .map(drop)
}

/// Issues the command of the order with `key`; to a device that waits for work of its role, if one does.
pub(super) fn issue(
    tx: &mut Tx<'_>,
    key: i64,
    order: &OrderDocument,
    rules: &OrderRules,
    idle: &Idle,
) -> rusqlite::Result<()> {
    let ttl_ms = i64::try_from(rules.command_ttl.as_millis()).unwrap_or(i64::MAX);
    tx.conn
        .prepare_cached(
            "INSERT INTO commands (key, role, issued_ms, expires_ms) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((
            key,
            &order.role,
            tx.now_ms,
            tx.now_ms.saturating_add(ttl_ms),
        ))?;
    if let Some(device_id) = idle.take(&order.role) {
        hold(tx, key, &device_id)?;
        let idle = idle.clone();
        tx.once_durable(move || idle.set_by(device_id, key));
    }
    tx.tell(StoreEvent::Command);
    Ok(())
}

/// Takes back what no device holds yet of an order that was closed.
pub(super) fn withdraw(tx: &Tx<'_>, order_id: &str) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached(
            "UPDATE commands SET state = ?2
             WHERE key = (SELECT key FROM orders WHERE order_id = ?1) AND state = 0",
        )?
        .execute((order_id, WITHDRAWN))
        .map(drop)
}

fn finish(
    tx: &mut Tx<'_>,
    held: &Held,
    outcome: Outcome,
    order_state: Option<OrderState>,
    detail: &str,
) -> rusqlite::Result<()> {
    set_state(tx, held.key, outcome.number(), Some(detail))?;
    let state = match order_state {
        Some(to) => move_order(tx, &held.order_id, to)?,
        None => find(tx.conn, &held.order_id)?.map(|view| view.state),
    };
    let body = serde_json::json!({
        "order_id": held.order_id,
        "command_id": hex(&held.id),
        "device_id": held.device_id,
        "outcome": outcome,
        "detail": detail,
        "state": state,
    });
    outbox::push(
        tx,
        Lane::Orders,
        "command.done",
        Some(&held.order_id),
        &body.to_string(),
    )?;
    Ok(())
}

/// Moves the order if the machine has the step; people may have been faster. The state it is in afterwards.
fn move_order(
    tx: &mut Tx<'_>,
    order_id: &str,
    to: OrderState,
) -> rusqlite::Result<Option<OrderState>> {
    let Some(view) = find(tx.conn, order_id)? else {
        return Ok(None);
    };
    match view.state.advance(to) {
        Ok(to) if to != view.state => {
            intake::set_state(tx, view, to)?;
            Ok(Some(to))
        }
        _ => Ok(Some(view.state)),
    }
}

fn set_state(tx: &Tx<'_>, key: i64, state: i64, detail: Option<&str>) -> rusqlite::Result<()> {
    tx.conn
        .prepare_cached("UPDATE commands SET state = ?2, detail = ?3 WHERE key = ?1")?
        .execute((key, state, detail))
        .map(drop)
}

fn held_by(tx: &Tx<'_>, device_id: &str) -> rusqlite::Result<Option<Command>> {
    tx.conn
        .prepare_cached(
            "SELECT c.key, c.device_seq, o.order_id, c.role, p.value, c.issued_ms, c.expires_ms, c.state, o.body
             FROM commands c JOIN orders o ON o.key = c.key JOIN facts p ON p.name = 'command_prefix'
             WHERE c.device_id = ?1 AND c.state IN (1, 2, 3) ORDER BY c.device_seq LIMIT 1",
        )?
        .query_row([device_id], |row| {
            let (issued_at_ms, expires_at_ms) = (row.get(5)?, row.get(6)?);
            Ok(Command {
                id: id(row.get(4)?, row.get(0)?),
                seq: row.get::<_, i64>(1)?.unsigned_abs(),
                kind: ORDER_KIND.to_owned(),
                order_id: row.get(2)?,
                role: row.get(3)?,
                issued_at_ms: tx.reckoning.deadline(issued_at_ms, issued_at_ms),
                expires_at_ms: tx.reckoning.deadline(issued_at_ms, expires_at_ms),
                possible_duplicate: true,
                accepted: row.get::<_, i64>(7)? == ACCEPTED,
                body: row.get(8)?,
            })
        })
        .optional()
}

/// The database's own random prefix, and the key of order and command.
fn id(prefix: [u8; 8], key: i64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&prefix);
    id[8..].copy_from_slice(&key.to_be_bytes());
    id
}

fn key_of(id: &[u8; 16]) -> i64 {
    let (_, key) = id.split_at(8);
    key.try_into().map_or(0, i64::from_be_bytes)
}

fn by_id(tx: &Tx<'_>, id: &[u8; 16]) -> rusqlite::Result<Option<Held>> {
    let (prefix, _) = id.split_at(8);
    let key = key_of(id);
    tx.conn
        .prepare_cached(
            "SELECT c.key, c.state, c.device_id, o.order_id, p.value
             FROM commands c JOIN orders o ON o.key = c.key JOIN facts p ON p.name = 'command_prefix'
             WHERE c.key = ?1 AND p.value = ?2",
        )?
        .query_row((key, prefix), held)
        .optional()
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    let key = row.get(0)?;
    Ok(Held {
        id: id(row.get(4)?, key),
        key,
        state: row.get(1)?,
        device_id: row.get(2)?,
        order_id: row.get(3)?,
    })
}
