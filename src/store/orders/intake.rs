//! How orders of the shop's own devices come in, and how all orders move on. Those of the platform: [`super::inbox`].

use rusqlite::OptionalExtension;
use serde::Serialize;

use super::document::OrderDocument;
use super::outbox::{self, Lane};
use super::view::{OrderView, find};
use super::{OrderState, Orders, commands};
use crate::digest::Digest;
use crate::store::events::StoreEvent;
use crate::store::writer::{Reply, Tx};

/// Where an order came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The service bus.
    Bus,
    /// The platform's API.
    Api,
    /// A device of the shop.
    Device,
}

impl Source {
    pub(super) fn number(self) -> i64 {
        self as i64
    }

    pub(super) fn numbered(number: i64) -> Option<Self> {
        [Self::Bus, Self::Api, Self::Device]
            .into_iter()
            .find(|source| source.number() == number)
    }
}

/// An order submitted by a device of the shop.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who submits.
    pub device_id: String,
    /// The request's `Idempotency-Key`.
    pub idempotency_key: String,
    /// Digest of the request, to tell a repeat from another request with the same key.
    pub request_digest: Digest,
    /// The order.
    pub order: OrderDocument,
}

/// What became of a submission.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// A new order.
    New(OrderView),
    /// The same request was here before; the order as it stands now.
    Replayed(OrderView),
    /// The key was used for another request.
    KeyConflict,
    /// The order's id is taken, by the order given.
    OrderExists(OrderView),
}

/// What became of the wish to move an order on.
#[derive(Debug, Clone)]
pub enum Advanced {
    /// It moved.
    Done(OrderView),
    /// It stood there already.
    Unchanged(OrderView),
    /// The machine has no such step.
    Refused(super::AdvanceOrderError),
    /// The box has no such order.
    NoSuchOrder,
}

impl Orders {
    /// Takes an order of a device: order, command for its role and the event `order.submitted`, in one transaction.
    pub fn submit(&self, submission: Submission) -> Reply<Submitted> {
        let (rules, idle) = (self.rules.clone(), self.idle.clone());
        self.writer.submit(move |tx| {
            let Submission {
                device_id,
                idempotency_key,
                request_digest,
                order,
            } = &submission;
            let request = Request {
                key: request_key(device_id, idempotency_key),
                digest: request_digest,
                device_id,
            };
            if let Some((digest, order_id)) = earlier(tx, &request.key)? {
                if digest != request_digest.as_bytes() {
                    return Ok(Submitted::KeyConflict);
                }
                if let Some(view) = find(tx.conn, &order_id)? {
                    return Ok(Submitted::Replayed(view));
                }
            }
            if let Some(view) = find(tx.conn, &order.order_id)? {
                return Ok(Submitted::OrderExists(view));
            }
            let (key, view) = insert(tx, order, Source::Device, Some(&request))?;
            commands::issue(tx, key, order, &rules, &idle)?;
            let body = serde_json::json!({
                "order_id": order.order_id,
                "device_id": device_id,
                "role": order.role,
                "order": order.body,
            });
            outbox::push(
                tx,
                Lane::Orders,
                "order.submitted",
                Some(&order.order_id),
                &body.to_string(),
            )?;
            Ok(Submitted::New(view))
        })
    }

    /// Moves an order on in the name of `by` (a device, or a person at the portal) and tells the platform. An order
    /// that is closed takes its unsent commands with it.
    pub fn advance(&self, order_id: &str, to: OrderState, by: &str) -> Reply<Advanced> {
        let (order_id, by) = (order_id.to_owned(), by.to_owned());
        self.writer.submit(move |tx| {
            let Some(view) = find(tx.conn, &order_id)? else {
                return Ok(Advanced::NoSuchOrder);
            };
            match view.state.advance(to) {
                Err(error) => Ok(Advanced::Refused(error)),
                Ok(to) if to == view.state => Ok(Advanced::Unchanged(view)),
                Ok(to) => {
                    let view = set_state(tx, view, to)?;
                    if to.is_closed() {
                        commands::withdraw(tx, &order_id)?;
                    }
                    let body = serde_json::json!({"order_id": order_id, "state": to, "by": by});
                    outbox::push(
                        tx,
                        Lane::Orders,
                        "order.advanced",
                        Some(&order_id),
                        &body.to_string(),
                    )?;
                    Ok(Advanced::Done(view))
                }
            }
        })
    }
}

/// Stores the order's new state under a new change number.
pub(super) fn set_state(
    tx: &mut Tx<'_>,
    mut view: OrderView,
    to: OrderState,
) -> rusqlite::Result<OrderView> {
    let seq = next_seq(tx)?;
    tx.conn
        .prepare_cached(
            "UPDATE orders SET state = ?2, seq = ?3, updated_ms = ?4 WHERE order_id = ?1",
        )?
        .execute((&view.order_id, to.number(), seq, tx.now_ms))?;
    (view.state, view.seq, view.updated_at_ms) = (to, seq, tx.now_ms);
    tx.tell(StoreEvent::Order {
        order_id: view.order_id.clone(),
        state: to,
        seq,
    });
    Ok(view)
}

/// The request that brought an order, by which a repeat is known.
pub(super) struct Request<'a> {
    key: [u8; 16],
    digest: &'a Digest,
    device_id: &'a str,
}

/// 128 bits that stand for device and `Idempotency-Key`, whatever their length.
fn request_key(device_id: &str, idempotency_key: &str) -> [u8; 16] {
    let text = format!("{device_id}\0{idempotency_key}");
    let mut key = [0; 16];
    key.copy_from_slice(&Digest::of(text.as_bytes()).as_bytes()[..16]);
    key
}

/// The digest of an earlier request with that key, and the order it brought. It is remembered as long as the order.
fn earlier(tx: &Tx<'_>, key: &[u8; 16]) -> rusqlite::Result<Option<(Vec<u8>, String)>> {
    tx.conn
        .prepare_cached("SELECT request_digest, order_id FROM orders WHERE request_key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Stores a new order; its key, and how others see it.
pub(super) fn insert(
    tx: &mut Tx<'_>,
    order: &OrderDocument,
    source: Source,
    request: Option<&Request<'_>>,
) -> rusqlite::Result<(i64, OrderView)> {
    let seq = next_seq(tx)?;
    let view = OrderView {
        order_id: order.order_id.clone(),
        seq,
        source,
        state: OrderState::Received,
        role: order.role.clone(),
        placed_at_ms: order.placed_at_ms,
        received_at_ms: tx.now_ms,
        updated_at_ms: tx.now_ms,
        body: order.body.clone(),
    };
    tx.conn
        .prepare_cached(
            "INSERT INTO orders (order_id, seq, source, state, role, placed_ms, received_ms, updated_ms, body,
                device_id, request_key, request_digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute((
            &view.order_id,
            seq,
            source.number(),
            view.state.number(),
            &view.role,
            view.placed_at_ms,
            tx.now_ms,
            view.body.get().as_bytes(),
            request.map(|request| request.device_id),
            request.map(|request| request.key),
            request.map(|request| request.digest.as_bytes()),
        ))?;
    let key = tx.conn.last_insert_rowid();
    tx.tell(StoreEvent::Order {
        order_id: view.order_id.clone(),
        state: view.state,
        seq,
    });
    Ok((key, view))
}

// The order with the highest number is never pruned (see `keep`), so a number is never given twice.
fn next_seq(tx: &Tx<'_>) -> rusqlite::Result<i64> {
    tx.conn
        .prepare_cached("SELECT coalesce(max(seq), 0) + 1 FROM orders")?
        .query_row([], |row| row.get(0))
}
