//! Where the platform stands.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Call, CallError};
use crate::platform::{Platform, rfc3339};
use crate::serve::reply::{Reply, json as json_reply};
use crate::store::{documents, events, feed};

pub fn ready(platform: &Platform) -> Reply {
    json_reply(StatusCode::OK, &platform.addresses)
}

pub async fn summary(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let offline = *platform.offline().borrow();
    let state = platform
        .store
        .call(move |connection| {
            let position = feed::position(connection)?;
            Ok(json!({
                "documents": documents::count(connection)?,
                "events": events::count(connection)?,
                "last_seq": position.last_seq,
                "horizon_seq": position.horizon_seq,
                "horizon": position.horizon_ms.map(rfc3339),
                "offline": offline,
            }))
        })
        .await?;
    Ok(json_reply(StatusCode::OK, &state))
}

pub fn requests(platform: &Platform) -> Reply {
    let (total, last) = platform.requests.list();
    json_reply(StatusCode::OK, &json!({"total": total, "last": last}))
}

/// `{"keep_changes": N}`: changes older than the newest N fall off the feed, now and later.
pub async fn keep_changes(call: &Call<'_>, platform: &Arc<Platform>) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keep {
        keep_changes: u32,
    }
    let keep: Keep = call.json()?;
    platform
        .store
        .call(move |connection| feed::keep(connection, keep.keep_changes.into()))
        .await?;
    platform.documents_changed.send_replace(());
    summary(platform).await
}

/// Every change so far falls off the feed: only a cursor at its very end stays good.
pub async fn forget_changes(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    platform
        .store
        .call(|connection| feed::forget_all(connection))
        .await?;
    platform.documents_changed.send_replace(());
    summary(platform).await
}

/// No snapshot is kept any more: parts of those begun are answered 410.
pub async fn drop_snapshots(platform: &Arc<Platform>) -> Result<Reply, CallError> {
    let store = platform.store.clone();
    tokio::task::spawn_blocking(move || store.drop_snapshots())
        .await
        .expect("dropping files does not panic and is not aborted")?;
    summary(platform).await
}
