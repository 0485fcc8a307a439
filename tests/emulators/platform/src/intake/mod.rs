//! The log input: Logmatic's HTTP input and Datadog's log intake, version 2, told apart by the path.
//!
//! README.md says what of both is documented and what is assumed. Received entries are kept in memory, the last
//! [`KEPT_ENTRIES`]; a restart forgets them.

mod read;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::percent::{self, Query};
use crate::platform::{Platform, now_ms};
use crate::serve::body::Payload;
use crate::serve::reply::{Reply, json as json_reply};
use read::{Dialect, Refusal};

/// Entries kept; older ones are forgotten first.
const KEPT_ENTRIES: usize = 20_000;
/// Datadog takes times no further back than this (documented); older ones are marked, as what it then does is not.
const OLDEST_MS: i64 = 18 * 3600 * 1000;

/// An entry as it came.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// By which dialect.
    dialect: Dialect,
    /// Number of its batch, from 1.
    batch: u64,
    /// When it came.
    received_ms: i64,
    /// Its time is further back than the dialect takes.
    too_old: bool,
    /// Itself.
    entry: Value,
}

/// What was received. Its bounds can be made narrower through control.
#[derive(Debug, Default)]
pub struct Intake(Mutex<Received>);

#[derive(Debug, Default)]
struct Received {
    batches: u64,
    total: u64,
    last: VecDeque<Entry>,
    max_entries: Option<usize>,
}

impl Intake {
    /// Batches and entries so far, and the last entries.
    pub fn list(&self) -> Value {
        let received = self.lock();
        json!({"batches": received.batches, "total": received.total, "entries": received.last})
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut received = self.lock();
        let max_entries = received.max_entries;
        *received = Received {
            max_entries,
            ..Received::default()
        };
    }

    /// From now on more entries than this at once are answered 413; `None`: the dialect's own bound.
    pub fn set_max_entries(&self, max: Option<usize>) {
        self.lock().max_entries = max;
    }

    fn take(&self, dialect: Dialect, entries: Vec<Value>) -> Result<(), Refusal> {
        let now = now_ms();
        let mut received = self.lock();
        if received.max_entries.is_some_and(|max| entries.len() > max) {
            return Err(Refusal::TooLarge);
        }
        received.batches += 1;
        received.total += entries.len() as u64;
        let batch = received.batches;
        for entry in entries {
            if received.last.len() == KEPT_ENTRIES {
                received.last.pop_front();
            }
            let at_ms = entry["timestamp"]
                .as_str()
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .map(jiff::Timestamp::as_millisecond);
            let too_old =
                dialect == Dialect::Datadog && at_ms.is_some_and(|at| now - at > OLDEST_MS);
            received.last.push_back(Entry {
                dialect,
                batch,
                received_ms: now,
                too_old,
                entry,
            });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.0
            .lock()
            .expect("no holder of the intake's lock panics")
    }
}

/// Answers one request to the log input.
pub fn answer(request: &Request<Payload>, platform: &Arc<Platform>) -> Reply {
    let segments = percent::segments(request.uri().path());
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let key = request
        .headers()
        .get("dd-api-key")
        .and_then(|value| value.to_str().ok());
    let (dialect, key) = match path.as_slice() {
        ["v1", "input", key] => (Dialect::Logmatic, Some(*key)),
        ["api", "v2", "logs"] => (Dialect::Datadog, key),
        _ => return json_reply(StatusCode::NOT_FOUND, &json!({"errors": ["Not found"]})),
    };
    let outcome = if request.method() != Method::POST {
        Err(Refusal::Method)
    } else if key != Some(platform.credentials.logs_key.as_str()) {
        Err(Refusal::Key)
    } else {
        read::entries(dialect, request).and_then(|entries| {
            let attributes = Query::parse(request.uri().query());
            let entries = read::with_attributes(dialect, entries, &attributes);
            platform.intake.take(dialect, entries)
        })
    };
    match (dialect, outcome) {
        (Dialect::Logmatic, Ok(())) => json_reply(StatusCode::OK, &json!({"ok": true})),
        (Dialect::Datadog, Ok(())) => json_reply(StatusCode::ACCEPTED, &json!({})),
        (dialect, Err(refusal)) => error(dialect, refusal.status(), refusal.text()),
    }
}

/// An error in the manner of the dialect.
pub fn error(dialect: Dialect, status: StatusCode, text: &str) -> Reply {
    match dialect {
        Dialect::Logmatic => json_reply(status, &json!({"ok": false, "error": text})),
        Dialect::Datadog => json_reply(
            status,
            &json!({"errors": [{"title": text, "status": status.as_str()}]}),
        ),
    }
}

/// An error of an armed fault: the path is not known any more, so it is Datadog's.
pub fn fault(status: StatusCode) -> Reply {
    error(Dialect::Datadog, status, "armed through the control API")
}
