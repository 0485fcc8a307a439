//! Blobs, and the `media` documents that tell boxes of them.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::documents::store_text;
use super::{Call, CallError};
use crate::bus::properties::guid;
use crate::percent;
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, empty, json as json_reply};
use crate::store::blobs::{self, Blob};

/// PUT stores the body under `name` (`?document=1`: and puts the media document); DELETE drops the name.
pub async fn route(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    name: &str,
) -> Result<Reply, CallError> {
    match call.method.as_str() {
        "PUT" => put(call, platform, name).await,
        "DELETE" => delete(platform, name).await,
        _ => Err(CallError::NoSuchCall),
    }
}

async fn put(call: &Call<'_>, platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let content_type = call
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type
        .unwrap_or("application/octet-stream")
        .to_owned();
    let (dir, bytes, stored) = (
        platform.store.blobs_dir(),
        call.body.clone(),
        name.to_owned(),
    );
    let blob = platform
        .store
        .call(move |connection| {
            let blob = Blob {
                sha256: blobs::write_bytes(&dir, &bytes)?,
                size: bytes.len() as u64,
                content_type,
                etag: format!("\"0x{}\"", &guid().replace('-', "").to_uppercase()[..15]),
                modified_ms: now_ms(),
            };
            blobs::put(connection, &stored, &blob)?;
            Ok(blob)
        })
        .await?;
    let encoded: Vec<String> = name.split('/').map(percent::encode).collect();
    let url = format!("{}/{}", platform.blob_url, encoded.join("/"));
    let data = json!({"url": url, "sha256": blob.sha256, "size": blob.size, "content_type": blob.content_type});
    if call
        .query
        .value("document")
        .is_some_and(|value| value != "0")
    {
        store_text(platform, "media", &blob.sha256, data.to_string()).await?;
    }
    Ok(json_reply(StatusCode::OK, &data))
}

/// `{"access":"blob"}`: everybody may read its blobs; `{"access":null}`: only who has a signature.
pub async fn set_access(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    container: &str,
) -> Result<Reply, CallError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        access: Option<String>,
    }
    let wanted: Wanted = call.json()?;
    let closed = match wanted.access.as_deref() {
        None => true,
        Some("blob") => false,
        Some(_) => return Err(CallError::Bad("access is \"blob\" or null".to_owned())),
    };
    let container = container.to_owned();
    platform
        .store
        .call(move |connection| blobs::set_closed(connection, &container, closed))
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn delete(platform: &Arc<Platform>, name: &str) -> Result<Reply, CallError> {
    let name = name.to_owned();
    match platform
        .store
        .call(move |connection| blobs::delete(connection, &name))
        .await?
    {
        true => Ok(empty(StatusCode::NO_CONTENT)),
        false => Err(CallError::Absent("the blob")),
    }
}
