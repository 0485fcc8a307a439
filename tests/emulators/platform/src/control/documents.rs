//! Documents: put, delete, read, load many.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Call, CallError};
use crate::catalogue;
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, json as json_reply};
use crate::store::documents::{self, Rewrite};

/// The body is the document's data; always makes a new version.
pub async fn put(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    collection: &str,
    id: &str,
) -> Result<Reply, CallError> {
    // Only that it is an object is checked: the text is stored as it came, on one line.
    call.json::<Map<String, Value>>()?;
    let text = call
        .json::<Box<RawValue>>()?
        .get()
        .replace(['\r', '\n'], " ");
    let written = store_text(platform, collection, id, text).await?;
    Ok(json_reply(StatusCode::OK, &written))
}

/// Stores a document and wakes who waits for changes.
pub async fn store_text(
    platform: &Arc<Platform>,
    collection: &str,
    id: &str,
    text: String,
) -> Result<documents::Written, CallError> {
    let (collection, id) = (collection.to_owned(), id.to_owned());
    let written = platform
        .store
        .call(move |connection| {
            let transaction = connection.transaction()?;
            let written = documents::put(
                &transaction,
                (&collection, &id),
                &text,
                Rewrite::Always,
                now_ms(),
            )?;
            transaction.commit()?;
            Ok(written)
        })
        .await?;
    platform.documents_changed.send_replace(());
    Ok(written)
}

pub async fn delete(
    platform: &Arc<Platform>,
    collection: &str,
    id: &str,
) -> Result<Reply, CallError> {
    let (collection, id) = (collection.to_owned(), id.to_owned());
    let written = platform
        .store
        .call(move |connection| {
            let transaction = connection.transaction()?;
            let written = documents::delete(&transaction, &collection, &id, now_ms())?;
            transaction.commit()?;
            Ok(written)
        })
        .await?;
    let written = written.ok_or(CallError::Absent("the document"))?;
    platform.documents_changed.send_replace(());
    Ok(json_reply(StatusCode::OK, &written))
}

pub async fn read(
    platform: &Arc<Platform>,
    collection: &str,
    id: &str,
) -> Result<Reply, CallError> {
    let (collection, id) = (collection.to_owned(), id.to_owned());
    let document = platform
        .store
        .call(move |connection| documents::read(connection, &collection, &id))
        .await?;
    let document = document.ok_or(CallError::Absent("the document"))?;
    let data = RawValue::from_string(document.data).expect("only JSON was stored");
    let answer = json!({"collection": document.collection, "id": document.id, "version": document.version, "data": data});
    Ok(json_reply(StatusCode::OK, &answer))
}

/// The body is NDJSON as of `--catalogue`.
pub async fn load(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    collection: &str,
) -> Result<Reply, CallError> {
    let (store, body, collection) = (
        platform.store.clone(),
        call.body.clone(),
        collection.to_owned(),
    );
    let loaded = tokio::task::spawn_blocking(move || {
        catalogue::load(&store, &collection, body.as_ref(), now_ms(), |_| {})
    })
    .await
    .expect("loading does not panic and is not aborted")?;
    platform.documents_changed.send_replace(());
    Ok(json_reply(StatusCode::OK, &loaded))
}
