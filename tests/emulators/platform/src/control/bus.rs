//! The bus from behind: entities, raw messages, what is in a queue, lost locks.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::{Call, CallError};
use crate::bus::{read_messages, store as store_messages};
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, empty, json as json_reply};
use crate::store::entities::{self, Entity, Kind, Settings};
use crate::store::messages;

pub async fn route(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    path: &[&str],
) -> Result<Reply, CallError> {
    let names: Vec<String> = path.iter().map(|name| name.to_lowercase()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (call.method.as_str(), names.as_slice()) {
        ("GET", []) => list(platform).await,
        ("PUT", ["queues", name]) => create(call, platform, name, Kind::Queue).await,
        ("PUT", ["topics", name]) => create(call, platform, name, Kind::Topic).await,
        ("PUT", ["topics", topic, "subscriptions", name]) => {
            find(platform, topic).await?;
            create(
                call,
                platform,
                &format!("{topic}/subscriptions/{name}"),
                Kind::Subscription,
            )
            .await
        }
        ("POST", [entity @ .., "messages"]) if !entity.is_empty() => {
            send(call, platform, &entity.join("/")).await
        }
        ("DELETE", [entity @ .., "messages"]) if !entity.is_empty() => {
            purge(platform, &entity.join("/")).await
        }
        ("DELETE", [entity @ .., "locks"]) if !entity.is_empty() => {
            drop_locks(platform, &entity.join("/")).await
        }
        ("GET", [entity @ .., "bodies"]) if !entity.is_empty() => {
            bodies(platform, &entity.join("/")).await
        }
        ("GET", entity) => show(platform, &entity.join("/")).await,
        _ => Err(CallError::NoSuchCall),
    }
}

pub(super) async fn find(platform: &Arc<Platform>, name: &str) -> Result<Entity, CallError> {
    let name = name.to_owned();
    let entity = platform
        .store
        .call(move |connection| entities::find(connection, &name))
        .await?;
    entity.ok_or(CallError::Absent("the entity"))
}

async fn list(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let entities = platform
        .store
        .call(|connection| entities::list(connection))
        .await?;
    Ok(json_reply(StatusCode::OK, &json!({"entities": entities})))
}

/// The body holds settings that differ from the defaults; it may be empty.
async fn create(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    name: &str,
    kind: Kind,
) -> Result<Reply, CallError> {
    let settings = if call.body.is_empty() {
        Settings::default()
    } else {
        call.json()?
    };
    let created = name.to_owned();
    platform
        .store
        .call(move |connection| entities::create(connection, &created, kind, &settings))
        .await?;
    Ok(json_reply(StatusCode::OK, &find(platform, name).await?))
}

/// The body is the message's; Content-Type, BrokerProperties and further headers are as of a send on the bus.
async fn send(call: &Call<'_>, platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let entity = find(platform, name).await?;
    let messages = read_messages(&call.headers, &call.body, now_ms()).map_err(CallError::Bad)?;
    let sequence_number = store_messages(platform, entity, messages).await?;
    Ok(json_reply(
        StatusCode::CREATED,
        &json!({"sequence_number": sequence_number}),
    ))
}

async fn show(platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let entity = find(platform, name).await?;
    let shown = entity.clone();
    let messages = platform
        .store
        .call(move |connection| messages::list(connection, &shown, now_ms()))
        .await?;
    let count = |state| {
        messages
            .iter()
            .filter(|message| message.state == state)
            .count()
    };
    let answer = json!({
        "entity": entity,
        "active": count("active"),
        "scheduled": count("scheduled"),
        "locked": count("locked"),
        "dead": count("dead"),
        "messages": messages,
    });
    Ok(json_reply(StatusCode::OK, &answer))
}

/// `{bodies:[…]}`: as text, oldest first, whatever state they are in.
async fn bodies(platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let entity = find(platform, name).await?;
    let bodies = platform
        .store
        .call(move |connection| messages::bodies(connection, &entity))
        .await?;
    let bodies: Vec<_> = bodies
        .iter()
        .map(|body| String::from_utf8_lossy(body))
        .collect();
    Ok(json_reply(StatusCode::OK, &json!({"bodies": bodies})))
}

async fn drop_locks(platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let entity = find(platform, name).await?;
    let dropped = platform
        .store
        .call(move |connection| messages::drop_locks(connection, &entity, now_ms()))
        .await?;
    platform.messages_changed.send_replace(());
    Ok(json_reply(StatusCode::OK, &json!({"dropped": dropped})))
}

async fn purge(platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let entity = find(platform, name).await?;
    platform
        .store
        .call(move |connection| messages::purge(connection, &entity))
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
