//! What boxes reported, with a wait for it.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::{Call, CallError};
use crate::platform::Platform;
use crate::serve::reply::{Reply, json as json_reply};
use crate::store::events;

const DEFAULT_LIMIT: u64 = 1000;
const MAX_LIMIT: u64 = 100_000;

/// `?after=&kind=&limit=&count=&wait_s=`: waits until there are `count` events, at most `wait_s`.
pub async fn list(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let number = |name, default, max| call.number(name, default, max);
    let after = i64::try_from(number("after", 0, u64::from(u32::MAX))?).expect("the range fits");
    let limit = i64::try_from(number("limit", DEFAULT_LIMIT, MAX_LIMIT)?).expect("the range fits");
    let wanted = usize::try_from(number("count", 1, MAX_LIMIT)?).expect("the range fits");
    let deadline = Instant::now() + Duration::from_secs(number("wait_s", 0, 300)?);
    let mut changed = platform.events_changed.subscribe();
    loop {
        changed.mark_unchanged();
        let kind = call.query.value("kind").map(str::to_owned);
        let events = platform
            .store
            .call(move |connection| events::list(connection, after, kind.as_deref(), limit))
            .await?;
        if events.len() >= wanted || Instant::now() >= deadline {
            return Ok(json_reply(StatusCode::OK, &json!({"events": events})));
        }
        // Either way the loop looks again.
        let _ = tokio::time::timeout_at(deadline, changed.changed()).await;
    }
}
