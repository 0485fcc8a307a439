//! Receiving and settling.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, LOCATION};
use tokio::time::Instant;

use super::properties::{broker_header, guid, set_custom};
use super::reply::error;
use crate::percent::Query;
use crate::platform::{Platform, now_ms};
use crate::serve::body;
use crate::serve::reply::{Reply, empty, set, with_body};
use crate::store::StoreError;
use crate::store::messages::{self, Message, Settle, Source};

/// Longest wait for a message (assumed; the service's true maximum is not documented).
const MAX_WAIT_S: u64 = 60;
/// Wait when the request names none (assumed; users saw about this much).
const DEFAULT_WAIT_S: u64 = 5;

const BROKER_PROPERTIES: HeaderName = HeaderName::from_static("brokerproperties");

/// Where messages are taken from.
pub struct Place {
    /// URL of the entity, as the client wrote it.
    pub base: String,
    /// Queue, subscription, or dead-letter queue of one.
    pub source: Source,
}

/// Peek-lock (`lock`) or receive-and-delete, waiting for a message while there is none.
pub async fn next(
    place: Place,
    query: &Query,
    lock: bool,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let Ok(wait_s) = query.number("timeout", DEFAULT_WAIT_S, 0..=u64::MAX) else {
        return Ok(error(
            StatusCode::BAD_REQUEST,
            "timeout must be a number of seconds.",
        ));
    };
    let deadline = Instant::now() + Duration::from_secs(wait_s.min(MAX_WAIT_S));
    let mut changed = platform.messages_changed.subscribe();
    let mut stopped = platform.stopped();
    loop {
        changed.mark_unchanged();
        let source = place.source.clone();
        let (message, due_ms) = platform
            .store
            .call(move |connection| {
                let (transaction, token, now) =
                    (connection.transaction()?, lock.then(guid), now_ms());
                let message = messages::receive(&transaction, &source, token.as_deref(), now)?;
                let due_ms = messages::next_due(&transaction, &source, now)?;
                transaction.commit()?;
                Ok((message, due_ms))
            })
            .await?;
        if let Some(message) = message {
            return Ok(delivery(&place.base, message));
        }
        if Instant::now() >= deadline {
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let wake = due_ms.map_or(deadline, |due_ms| {
            let ms = u64::try_from(due_ms - now_ms()).unwrap_or(0);
            deadline.min(Instant::now() + Duration::from_millis(ms))
        });
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(empty(StatusCode::NO_CONTENT)),
        }
    }
}

fn delivery(base: &str, message: Message) -> Reply {
    let status = if message.lock.is_some() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut reply = with_body(status, body::full(""));
    set_custom(&message, reply.headers_mut());
    set(&mut reply, BROKER_PROPERTIES, &broker_header(&message));
    if let Some(content_type) = &message.content_type {
        set(&mut reply, CONTENT_TYPE, content_type);
    }
    if let Some((token, _)) = &message.lock {
        set(
            &mut reply,
            LOCATION,
            &format!("{base}/messages/{}/{token}", message.seq),
        );
    }
    *reply.body_mut() = body::full(message.body);
    reply
}

/// Complete, unlock or renew.
pub async fn settle(
    source: Source,
    (id, lock): (String, String),
    how: Settle,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let found = platform
        .store
        .call(move |connection| messages::settle(connection, &source, (&id, &lock), how, now_ms()))
        .await?;
    if !found {
        let detail = "The message or its lock could not be found: the lock was lost, or it is settled already.";
        return Ok(error(StatusCode::NOT_FOUND, detail));
    }
    if how == Settle::Unlock {
        platform.messages_changed.send_replace(());
    }
    Ok(empty(StatusCode::OK))
}
