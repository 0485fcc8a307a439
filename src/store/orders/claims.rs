//! Parked claim checks whose document could not be had: which one is due, and what came of the try.
//!
//! How often each was tried and when it is due stands beside it, so that a restart does not begin anew and a person can
//! make it due at once ([`super::Desk::fetch_again`]). They end with everything that is parked: after 30 days.

use rusqlite::OptionalExtension;

use super::desk::drop_message;
use super::inbox::{Content, InboxMessage, Incoming, ParkCode, Received, take};
use super::view::{ParkedMessage, parked_message};
use super::{Orders, ReadError};
use crate::store::writer::Reply;

/// A parked claim check that is to be tried now.
#[derive(Debug, Clone)]
pub struct DueClaim {
    /// The message.
    pub message: ParkedMessage,
    /// Tries since it was parked, or since a person asked for one.
    pub tries: u32,
}

impl Orders {
    /// The claim check that is due for longest. One that is due more than `longest_ms` ahead was put off by a clock that
    /// was wrong: it is due, too.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn claim_due(&self, now_ms: i64, longest_ms: i64) -> Result<Option<DueClaim>, ReadError> {
        self.readers.read(|conn| {
            conn.prepare_cached(
                "SELECT message_id, source, received_ms, parked, body, why, document, tries FROM inbox
                 WHERE parked IS NOT NULL AND why = ?3 AND (due_ms <= ?1 OR due_ms > ?1 + ?2)
                 ORDER BY due_ms LIMIT 1",
            )?
            .query_row(
                (now_ms, longest_ms, ParkCode::NoDocument.as_str()),
                |row| {
                    Ok(DueClaim {
                        message: parked_message(row)?,
                        tries: row.get(7)?,
                    })
                },
            )
            .optional()
        })
    }

    /// A try failed: the next one is due at `due_ms`. False when the message is not parked any more.
    pub fn claim_put_off(&self, message_id: &str, reason: String, due_ms: i64) -> Reply<bool> {
        let message_id = message_id.to_owned();
        self.writer.submit(move |tx| {
            let known = tx
                .conn
                .prepare_cached(
                    "UPDATE inbox SET parked = ?2, due_ms = ?3, tries = tries + 1
                     WHERE message_id = ?1 AND parked IS NOT NULL AND why = ?4",
                )?
                .execute((&message_id, &reason, due_ms, ParkCode::NoDocument.as_str()))?;
            Ok(known == 1)
        })
    }

    /// Takes a parked message once more, by what its document turned out to be; `None` when it is not parked any more.
    /// Whatever came of its order meanwhile by another way counts: it is one order.
    pub fn claim_take(&self, parked: ParkedMessage, content: Content) -> Reply<Option<Received>> {
        let incoming = Incoming::of_parked(parked, content, &self.rules.default_role);
        let (rules, idle) = (self.rules.clone(), self.idle.clone());
        self.writer.submit(move |tx| {
            if !drop_message(tx, incoming.message_id())? {
                return Ok(None);
            }
            take(tx, &incoming, &rules, &idle).map(Some)
        })
    }
}

impl Incoming {
    /// A parked message, under the id it has in the inbox.
    pub(super) fn of_parked(parked: ParkedMessage, content: Content, default_role: &str) -> Self {
        let ParkedMessage {
            message_id,
            source,
            body,
            ..
        } = parked;
        let message = InboxMessage {
            message_id: String::new(),
            source,
            body,
        };
        Self::read(message, content, default_role).under(message_id)
    }
}
