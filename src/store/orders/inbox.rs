//! How the platform's orders come in: by the bus, by the API's feed, or by both.
//!
//! ```text
//!  message --known id, same content-------------------------------------------------> nothing (a redelivery)
//!     |----no order, unknown version, too large, document not to be had-------------> parked, told
//!     |----order that is here already: same content --> noted; other content -------> parked, told
//!     '----new ---------------------------------------------------------------------> order and command
//! ```
//! One transaction a message, or one a page of the feed together with the cursor behind it. Contents are the same when
//! their JSON says the same: one way of delivery may write it with other spaces than another.

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use serde_json::Value;

use super::document::{OrderDocument, OrderShapeError};
use super::idle::Idle;
use super::intake::{Source, insert};
use super::outbox::{self, Lane};
use super::{OrderRules, Orders, ReadError, commands};
use crate::digest::Digest;
use crate::store::writer::{Reply, Tx};

/// Longest message id kept as it is; a longer one is kept as its digest.
const MAX_MESSAGE_ID: usize = 256;
/// The fact that holds the cursor of the orders feed.
const CURSOR: &str = "orders_cursor";

/// A message from the platform that should be an order.
#[derive(Debug, Clone)]
pub struct InboxMessage {
    /// The sender's id, the same on every redelivery and by every way.
    pub message_id: String,
    /// Who brought it.
    pub source: Source,
    /// The message, whatever it is.
    pub body: Vec<u8>,
}

/// What a message's order is.
#[derive(Debug, Clone)]
pub enum Content {
    /// The message itself.
    Itself,
    /// This document, which the message only points to (a claim check).
    Claimed(Vec<u8>),
    /// There is none: the document can't be had.
    Missing {
        /// Which kind of fault it is.
        why: ParkCode,
        /// Why not, without any content.
        reason: String,
    },
}

/// Why a message is parked. The text form is stable: it is stored, told to the platform and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkCode {
    /// Not JSON, or not an order.
    Unreadable,
    /// More bytes than an order may have.
    TooLarge,
    /// An order in a form that this version of the box does not know.
    UnknownVersion,
    /// An order that is here already, with other content.
    Conflict,
    /// It points to a document that is not there, or is not the one it should be.
    NoDocument,
}

impl ParkCode {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Unreadable,
        Self::TooLarge,
        Self::UnknownVersion,
        Self::Conflict,
        Self::NoDocument,
    ];

    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::UnknownVersion => "unknown_version",
            Self::Conflict => "conflict",
            Self::NoDocument => "no_document",
        }
    }

    fn of_shape(error: &OrderShapeError) -> Self {
        match error {
            OrderShapeError::TooLarge(_) => Self::TooLarge,
            OrderShapeError::UnknownVersion(_) => Self::UnknownVersion,
            _ => Self::Unreadable,
        }
    }
}

/// What became of a message. In every case it is durable and may be completed at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A new order, with a command for its role.
    New {
        /// The order.
        order_id: String,
    },
    /// This message was here before, with the same content.
    DuplicateMessage,
    /// Another message brought this order before.
    DuplicateOrder {
        /// The order.
        order_id: String,
    },
    /// No order that can be taken; kept for somebody to look at.
    Parked {
        /// Which kind of fault.
        why: ParkCode,
        /// The fault in words, without any content.
        reason: String,
    },
}

impl Orders {
    /// Takes a message from the platform. A new order comes with one command for its role, in one transaction.
    pub fn receive(&self, message: InboxMessage) -> Reply<Received> {
        self.receive_as(message, Content::Itself)
    }

    /// The same for a message whose order is elsewhere.
    pub fn receive_as(&self, message: InboxMessage, content: Content) -> Reply<Received> {
        let incoming = Incoming::read(message, content, &self.rules.default_role);
        let (rules, idle) = (self.rules.clone(), self.idle.clone());
        self.writer
            .submit(move |tx| take(tx, &incoming, &rules, &idle))
    }

    /// Takes what a page of the feed brought, and the cursor behind it, in one transaction.
    pub fn receive_page(
        &self,
        page: Vec<(InboxMessage, Content)>,
        cursor: Option<String>,
    ) -> Reply<Vec<Received>> {
        let (rules, idle) = (self.rules.clone(), self.idle.clone());
        let page: Vec<_> = page
            .into_iter()
            .map(|(message, content)| Incoming::read(message, content, &rules.default_role))
            .collect();
        self.writer.submit(move |tx| {
            let received = page
                .iter()
                .map(|incoming| take(tx, incoming, &rules, &idle))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            if let Some(cursor) = &cursor {
                tx.conn
                    .prepare_cached(
                        "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
                    )?
                    .execute((CURSOR, cursor))?;
            }
            Ok(received)
        })
    }

    /// Forgets the cursor of the feed: it begins anew, and what it brings again changes nothing.
    pub fn forget_cursor(&self) -> Reply<()> {
        self.writer.submit(|tx| {
            tx.conn
                .execute("DELETE FROM facts WHERE name = ?1", [CURSOR])
                .map(drop)
        })
    }

    /// How far the feed of orders was taken.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn cursor(&self) -> Result<Option<String>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached("SELECT value FROM facts WHERE name = ?1")?
                .query_row([CURSOR], |row| row.get(0))
                .optional()
        })
    }

    /// Whether this very message was taken before.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn has_message(&self, message_id: &str, body: &[u8]) -> Result<bool, ReadError> {
        let message_id = kept_id(message_id);
        self.readers.read(|conn| {
            let kept = brought(conn, &message_id)?;
            Ok(kept.is_some_and(|kept| same(&kept, body)))
        })
    }
}

/// A message that was looked at.
pub(super) struct Incoming {
    message_id: String,
    source: Source,
    body: Vec<u8>,
    /// What the message points to.
    document: Option<Vec<u8>>,
    order: Result<OrderDocument, (ParkCode, String)>,
}

impl Incoming {
    pub(super) fn read(message: InboxMessage, content: Content, default_role: &str) -> Self {
        let parse = |bytes: &[u8]| {
            OrderDocument::parse(bytes, default_role)
                .map_err(|error| (ParkCode::of_shape(&error), error.to_string()))
        };
        let (order, document) = match content {
            Content::Itself => (parse(&message.body), None),
            Content::Claimed(document) => (parse(&document), Some(document)),
            Content::Missing { why, reason } => (Err((why, reason)), None),
        };
        Self {
            order,
            document,
            message_id: kept_id(&message.message_id),
            source: message.source,
            body: message.body,
        }
    }

    /// The same under an id that the inbox made.
    pub(super) fn under(mut self, message_id: String) -> Self {
        self.message_id = message_id;
        self
    }

    pub(super) fn message_id(&self) -> &str {
        &self.message_id
    }
}

/// Takes one message inside `tx`.
pub(super) fn take(
    tx: &mut Tx<'_>,
    incoming: &Incoming,
    rules: &OrderRules,
    idle: &Idle,
) -> rusqlite::Result<Received> {
    let mut message_id = incoming.message_id.clone();
    match brought(tx.conn, &message_id)? {
        None => {}
        Some(before) if same(&before, &incoming.body) => return Ok(Received::DuplicateMessage),
        // An id is the sender's to choose, and a queue that was made anew counts from 1 again: another message
        // under a known id is one of its own.
        Some(_) => {
            message_id = format!("{message_id}#{}", Digest::of(&incoming.body));
            if brought(tx.conn, &message_id)?.is_some() {
                return Ok(Received::DuplicateMessage);
            }
        }
    }
    let order_id = incoming.order.as_ref().ok().map(|order| &*order.order_id);
    let received = place(tx, incoming, rules, idle)?;
    let parked = match &received {
        Received::Parked { why, reason } => Some((why.as_str(), reason)),
        _ => None,
    };
    // The order's own document stands for a message that is one, and for one that points to it.
    let kept = parked.is_some() || incoming.document.is_some();
    let document = incoming.document.as_ref().filter(|_| parked.is_some());
    tx.conn
        .prepare_cached(
            "INSERT INTO inbox (message_id, source, received_ms, order_id, parked, body, why, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            &message_id,
            incoming.source.number(),
            tx.now_ms,
            order_id,
            parked.map(|(_, reason)| reason),
            kept.then_some(&incoming.body),
            parked.map(|(why, _)| why),
            document,
        ))?;
    if let Some((why, reason)) = parked {
        tell(tx, incoming, (&message_id, why, reason))?;
    }
    Ok(received)
}

/// Makes the order, or says why not.
fn place(
    tx: &mut Tx<'_>,
    incoming: &Incoming,
    rules: &OrderRules,
    idle: &Idle,
) -> rusqlite::Result<Received> {
    let order = match &incoming.order {
        Err((why, reason)) => {
            let (why, reason) = (*why, reason.clone());
            return Ok(Received::Parked { why, reason });
        }
        Ok(order) => order,
    };
    let order_id = order.order_id.clone();
    let held: Option<Vec<u8>> = tx
        .conn
        .prepare_cached("SELECT body FROM orders WHERE order_id = ?1")?
        .query_row([&order_id], |row| row.get(0))
        .optional()?;
    Ok(match held {
        None => {
            let (key, _) = insert(tx, order, incoming.source, None)?;
            commands::issue(tx, key, order, rules, idle)?;
            Received::New { order_id }
        }
        Some(held) if same(&held, order.body.get().as_bytes()) => {
            Received::DuplicateOrder { order_id }
        }
        Some(_) => Received::Parked {
            why: ParkCode::Conflict,
            reason: format!("order {order_id} is here already with other content"),
        },
    })
}

/// The platform hears of what the box could not take.
fn tell(
    tx: &mut Tx<'_>,
    incoming: &Incoming,
    (message_id, why, reason): (&str, &str, &str),
) -> rusqlite::Result<()> {
    let order_id = incoming.order.as_ref().ok().map(|order| &*order.order_id);
    let body = serde_json::json!({
        "message_id": message_id,
        "source": incoming.source,
        "why": why,
        "reason": reason,
        "order_id": order_id,
        "bytes": incoming.body.len(),
    });
    outbox::push(
        tx,
        Lane::Orders,
        "order.parked",
        order_id,
        &body.to_string(),
    )
    .map(drop)
}

fn kept_id(message_id: &str) -> String {
    if message_id.len() > MAX_MESSAGE_ID {
        Digest::of(message_id.as_bytes()).to_string()
    } else {
        message_id.to_owned()
    }
}

/// What the message `message_id` brought, if it is known: what was kept of it, or else the order it made.
fn brought(conn: &Connection, message_id: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let kept: Option<Option<Vec<u8>>> = conn
        .prepare_cached(
            "SELECT coalesce(i.body, o.body) FROM inbox i LEFT JOIN orders o ON o.order_id = i.order_id
             WHERE i.message_id = ?1",
        )?
        .query_row([message_id], |row| row.get(0))
        .optional()?;
    Ok(kept.map(Option::unwrap_or_default))
}

/// Whether two contents say the same.
fn same(one: &[u8], other: &[u8]) -> bool {
    if one.trim_ascii() == other.trim_ascii() {
        return true;
    }
    let read = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    matches!((read(one), read(other)), (Some(one), Some(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_compared_by_what_they_say() {
        assert!(same(b" {\"a\":1} ", b"{\"a\":1}"));
        assert!(same(
            b"{\"a\":1,\"b\":[1.10]}",
            b"{ \"b\": [1.1], \"a\": 1 }"
        ));
        assert!(!same(b"{\"a\":1}", b"{\"a\":2}"));
        assert!(same(b"\xff no json", b"\xff no json"));
        assert!(!same(b"\xff no json", b"{}"));
    }

    #[test]
    fn every_code_has_one_text() {
        let texts: std::collections::BTreeSet<_> =
            ParkCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ParkCode::ALL.len());
        for code in ParkCode::ALL {
            let json = serde_json::to_value(code).unwrap();
            assert_eq!(json.as_str(), Some(code.as_str()));
        }
    }
}
