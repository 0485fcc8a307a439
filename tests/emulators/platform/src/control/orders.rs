//! Orders from behind: onto the bus, into the feed of orders, or both.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::bus::find;
use super::{Call, CallError};
use crate::bus::{properties, store as store_messages};
use crate::platform::{Platform, now_ms, rfc3339};
use crate::serve::reply::{Reply, empty, json as json_reply};
use crate::store::messages::NewMessage;
use crate::store::orders;

/// A customer's order: the body's fields, completed with `order_id` and `placed_at`, sent under `?message_id=` (the
/// order's id if none is given) by `?via=bus` (the default), `feed` or `both`; on the bus to `?queue=` (the site's own if
/// none is named).
pub async fn order(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let mut order: Map<String, Value> = if call.body.is_empty() {
        Map::new()
    } else {
        call.json()?
    };
    let order_id = match order.get("order_id") {
        Some(Value::String(id)) => id.clone(),
        Some(_) => return Err(CallError::Bad("order_id must be a string".into())),
        None => format!("o-{}", properties::guid()),
    };
    order.insert("order_id".into(), json!(order_id));
    order
        .entry("placed_at")
        .or_insert_with(|| json!(rfc3339(now_ms())));
    order.entry("lines").or_insert_with(|| json!([]));
    let message_id = call
        .query
        .value("message_id")
        .unwrap_or(&order_id)
        .to_owned();
    let body = Value::Object(order).to_string();
    let (by_bus, by_feed) = match call.query.value("via").unwrap_or("bus") {
        "bus" => (true, false),
        "feed" => (false, true),
        "both" => (true, true),
        other => return Err(CallError::Bad(format!("{other:?} is no way of an order"))),
    };
    let mut answer = json!({"order_id": order_id, "message_id": message_id});
    if by_bus {
        answer["sequence_number"] = json!(send(call, platform, &message_id, &body).await?);
    }
    if by_feed {
        answer["feed_number"] = json!(feed(platform, message_id, body).await?);
    }
    Ok(json_reply(StatusCode::CREATED, &answer))
}

async fn send(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    message_id: &str,
    body: &str,
) -> Result<Option<i64>, CallError> {
    let queue = call.query.value("queue").map_or_else(
        || format!("site-{}", platform.credentials.site),
        str::to_owned,
    );
    let entity = find(platform, &queue.to_lowercase()).await?;
    let mut message = NewMessage {
        content_type: Some("application/json".into()),
        custom: "[]".into(),
        body: body.as_bytes().to_vec(),
        ..NewMessage::default()
    };
    let broker = Map::from_iter([("MessageId".to_owned(), json!(message_id))]);
    properties::read_broker(&broker, &mut message, now_ms()).map_err(CallError::Bad)?;
    Ok(store_messages(platform, entity, vec![message]).await?)
}

async fn feed(
    platform: &Arc<Platform>,
    message_id: String,
    body: String,
) -> Result<i64, CallError> {
    let number = platform
        .store
        .call(move |connection| orders::add(connection, &message_id, &body))
        .await?;
    platform.orders_changed.send_replace(());
    Ok(number)
}

/// Any JSON into the feed of orders, under `?message_id=`.
pub async fn raw(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let body: &RawValue = serde_json::from_slice(&call.body)
        .map_err(|error| CallError::Bad(format!("the feed carries JSON only: {error}")))?;
    let message_id = call
        .query
        .value("message_id")
        .map_or_else(properties::guid, str::to_owned);
    let number = feed(platform, message_id, body.get().to_owned()).await?;
    Ok(json_reply(
        StatusCode::CREATED,
        &json!({"feed_number": number}),
    ))
}

/// How many orders are in the feed.
pub async fn list(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let last = platform
        .store
        .call(|connection| orders::last_seq(connection))
        .await?;
    Ok(json_reply(StatusCode::OK, &json!({"orders": last})))
}

/// Every cursor so far is void.
pub async fn forget(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    platform
        .store
        .call(|connection| orders::void_cursors(connection))
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
