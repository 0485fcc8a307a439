//! `GET /v1/sites/{site}/orders/feed`: the site's orders after a cursor, held while there are none.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::bad_request;
use crate::percent::Query;
use crate::platform::Platform;
use crate::serve::body::Payload;
use crate::serve::reply::{NothingNew, Reply, problem, text_of};
use crate::store::StoreError;
use crate::store::orders::{self, FeedOrder};

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 500;
const MAX_WAIT_S: u64 = 60;

pub async fn answer(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    let query = Query::parse(request.uri().query());
    let (limit, wait_s) = match (
        query.number("limit", DEFAULT_LIMIT, 1..=MAX_LIMIT),
        query.number("wait_s", 0, 0..=MAX_WAIT_S),
    ) {
        (Ok(limit), Ok(wait_s)) => (limit, wait_s),
        (Err(detail), _) | (_, Err(detail)) => return Ok(bad_request(&detail)),
    };
    let limit = i64::try_from(limit).expect("the range fits");
    let after = query.value("cursor").map(decode);
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    let mut changed = platform.orders_changed.subscribe();
    let mut stopped = platform.stopped();
    loop {
        changed.mark_unchanged();
        let page = platform
            .store
            .call(move |connection| read_page(connection, after, limit))
            .await?;
        let Some(page) = page else {
            let detail = "the cursor is unknown: begin without one";
            return Ok(problem(StatusCode::GONE, "refetch", detail));
        };
        if !page.orders.is_empty() || Instant::now() >= deadline {
            let mut answer = text_of(StatusCode::OK, "application/json", page.to_json());
            if page.orders.is_empty() {
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
    after: i64,
    last: i64,
    orders: Vec<FeedOrder>,
}

/// `after`: none, or a cursor that may be nonsense. `None`: the cursor is void.
fn read_page(
    connection: &mut rusqlite::Connection,
    after: Option<Option<i64>>,
    limit: i64,
) -> Result<Option<Page>, StoreError> {
    let last = orders::last_seq(connection)?;
    let after = match after {
        None => 0,
        Some(Some(seq)) if seq > orders::horizon(connection)? && seq <= last => seq,
        Some(_) => return Ok(None),
    };
    let orders = orders::page_after(connection, after, limit)?;
    Ok(Some(Page {
        after,
        last,
        orders,
    }))
}

impl Page {
    /// Written by hand so that each order's text goes out byte for byte as it came in.
    fn to_json(&self) -> String {
        let mut out = String::from("{\"items\":[");
        for (at, order) in self.orders.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}{{\"cursor\":\"{}\",\"message_id\":{},\"body\":{}}}",
                encode(order.seq),
                json!(order.message_id),
                order.body
            );
        }
        let next = self.orders.last().map_or(self.after, |order| order.seq);
        let _ = write!(
            out,
            "],\"next\":\"{}\",\"caught_up\":{}}}",
            encode(next),
            next >= self.last
        );
        out
    }
}

fn encode(seq: i64) -> String {
    format!("o-{seq}")
}

fn decode(cursor: &str) -> Option<i64> {
    cursor.strip_prefix("o-")?.parse().ok()
}
