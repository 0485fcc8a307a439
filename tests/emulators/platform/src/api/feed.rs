//! `GET /v1/sites/{site}/feed`: changes after a cursor, held while there are none.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, StatusCode};
use tokio::time::Instant;

use super::encoding::{accepts_gzip, fill};
use super::{bad_request, cursor};
use crate::percent::Query;
use crate::platform::{Platform, now_ms, rfc3339};
use crate::serve::body::Payload;
use crate::serve::reply::{NothingNew, Reply, problem, text_of};
use crate::store::StoreError;
use crate::store::documents::head;
use crate::store::feed::{self, Change, Position, Wanted};
use crate::store::snapshots::CLASSES;

const DEFAULT_LIMIT: u64 = 500;
const MAX_LIMIT: u64 = 5000;
const MAX_WAIT_S: u64 = 60;

pub async fn answer(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let query = Query::parse(request.uri().query());
    let Some(cursor) = query.value("cursor").map(str::to_owned) else {
        return Ok(bad_request("cursor is missing: take a snapshot first"));
    };
    let (limit, wait_s) = match (
        query.number("limit", DEFAULT_LIMIT, 1..=MAX_LIMIT),
        query.number("wait_s", 0, 0..=MAX_WAIT_S),
    ) {
        (Ok(limit), Ok(wait_s)) => (limit, wait_s),
        (Err(detail), _) | (_, Err(detail)) => return Ok(bad_request(&detail)),
    };
    let limit = usize::try_from(limit).expect("the range fits");
    let class = query.value("class").map(str::to_owned);
    if let Some(class) = &class
        && !CLASSES.iter().any(|(known, _)| known == class)
    {
        return Ok(bad_request("there is no such class"));
    }
    let until = query.value("until").map(str::to_owned);
    let gzip = accepts_gzip(request);
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    let mut changed = platform.documents_changed.subscribe();
    let mut stopped = platform.stopped();
    loop {
        changed.mark_unchanged();
        let (cursor, until, class) = (cursor.clone(), until.clone(), class.clone());
        let bounded = until.is_some();
        let page = platform
            .store
            .call(move |connection| read_page(connection, &cursor, until.as_deref(), limit, class))
            .await?;
        let Some(page) = page else {
            let detail = "the cursor is unknown or older than the horizon: take a new snapshot";
            return Ok(problem(StatusCode::GONE, "refetch", detail));
        };
        if !page.changes.is_empty() || bounded || Instant::now() >= deadline {
            let mut answer = text_of(StatusCode::OK, "application/json", "");
            fill(&mut answer, page.to_json().into_bytes(), gzip);
            if page.changes.is_empty() {
                answer.extensions_mut().insert(NothingNew);
            }
            return Ok(answer);
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {
                return Ok(problem(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the platform is stopping"));
            }
        }
    }
}

struct Page {
    position: Position,
    next: i64,
    ends: bool,
    changes: Vec<Change>,
}

/// `None`: the cursor is void.
fn read_page(
    connection: &mut rusqlite::Connection,
    cursor: &str,
    until: Option<&str>,
    limit: usize,
    class: Option<String>,
) -> Result<Option<Page>, StoreError> {
    let position = feed::position(connection)?;
    let Some(after) = cursor::decode(cursor, &position) else {
        return Ok(None);
    };
    let until = match until.map(|until| cursor::decode(until, &position)) {
        None => position.last_seq,
        Some(Some(until)) => until.max(after),
        Some(None) => return Ok(None),
    };
    let wanted = Wanted {
        after,
        until,
        limit,
        class,
    };
    let (changes, ends) = feed::page(connection, &wanted)?;
    let next = match changes.last() {
        Some(last) if !ends => last.seq,
        _ => until,
    };
    Ok(Some(Page {
        position,
        next,
        ends,
        changes,
    }))
}

impl Page {
    /// Written by hand so that each document's text goes out byte for byte as it came in.
    fn to_json(&self) -> String {
        let mut out = String::from("{\"items\":[");
        for (at, change) in self.changes.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out += &item(change);
        }
        let horizon = rfc3339(self.position.horizon_ms.unwrap_or_else(now_ms));
        out += &format!(
            "],\"next\":\"{}\",\"caught_up\":{},\"horizon\":\"{horizon}\"}}",
            cursor::encode(&self.position, self.next),
            self.ends && self.next >= self.position.last_seq,
        );
        out
    }
}

fn item(change: &Change) -> String {
    let head = head(&change.collection, &change.id, change.version);
    match &change.data {
        Some(data) => format!("{head},\"deleted\":false,\"data\":{data}}}"),
        None => format!("{head},\"deleted\":true}}"),
    }
}
