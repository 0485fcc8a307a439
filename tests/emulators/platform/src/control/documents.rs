//! Documents: put, delete, read, load many.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Call, CallError};
use crate::catalogue;
use crate::platform::{Platform, now_ms};
use crate::serve::reply::{Reply, json as json_reply, text_of};
use crate::store::documents::{self, Rewrite};
use crate::store::feed;

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
    if is_silent(call) {
        return in_silence(platform, collection, id, Some(text)).await;
    }
    let written = store_text(platform, collection, id, text).await?;
    Ok(json_reply(StatusCode::OK, &written))
}

/// `?silent=1`: the feed never tells of it.
fn is_silent(call: &Call<'_>) -> bool {
    call.query.value("silent") == Some("1")
}

/// Writes (or deletes, without a text) a document of which the feed never tells, as a platform with a mistake would.
async fn in_silence(
    platform: &Arc<Platform>,
    collection: &str,
    id: &str,
    text: Option<String>,
) -> Result<Reply, CallError> {
    let (collection, id) = (collection.to_owned(), id.to_owned());
    let written = platform
        .store
        .call(move |connection| {
            let transaction = connection.transaction()?;
            let written = match &text {
                Some(text) => Some(documents::put(
                    &transaction,
                    (&collection, &id),
                    text,
                    Rewrite::Always,
                    now_ms(),
                )?),
                None => documents::delete(&transaction, &collection, &id, now_ms())?,
            };
            if let Some(written) = &written {
                feed::hide(&transaction, written.seq)?;
            }
            transaction.commit()?;
            Ok(written)
        })
        .await?;
    let written = written.ok_or(CallError::Absent("the document"))?;
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
    call: &Call<'_>,
    platform: &Arc<Platform>,
    collection: &str,
    id: &str,
) -> Result<Reply, CallError> {
    if is_silent(call) {
        return in_silence(platform, collection, id, None).await;
    }
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

/// All documents of a collection by id, a line each, as a snapshot has them.
pub async fn list(platform: &Arc<Platform>, collection: &str) -> Result<Reply, CallError> {
    let collection = collection.to_owned();
    let text = platform
        .store
        .call(move |connection| {
            let mut text = String::new();
            documents::each(
                connection,
                &collection,
                |_, _| Ok(true),
                |document| {
                    text += &document.line();
                    text.push('\n');
                },
            )?;
            Ok(text)
        })
        .await?;
    Ok(text_of(StatusCode::OK, "application/x-ndjson", text))
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

/// Documents written in one transaction.
const GENERATED_TOGETHER: u64 = 5000;

/// `{"count":N,"bytes":B,"from":F}`: documents `g{F}`, `g{F+1}`, … of about B bytes each, made here and never in memory
/// together. The same numbers make the same documents.
pub async fn generate(
    call: &Call<'_>,
    platform: &Arc<Platform>,
    collection: &str,
) -> Result<Reply, CallError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Generate {
        count: u64,
        bytes: usize,
        #[serde(default)]
        from: u64,
    }
    let Generate { count, bytes, from } = call.json()?;
    let end = from.saturating_add(count);
    let mut first = from;
    while first < end {
        let last = first.saturating_add(GENERATED_TOGETHER).min(end);
        let collection = collection.to_owned();
        platform
            .store
            .call(move |connection| {
                let transaction = connection.transaction()?;
                for number in first..last {
                    let (id, text) = (format!("g{number}"), made(number, bytes));
                    let rewrite = Rewrite::OnlyIfDifferent;
                    documents::put(&transaction, (&collection, &id), &text, rewrite, now_ms())?;
                }
                Ok(transaction.commit()?)
            })
            .await?;
        first = last;
    }
    platform.documents_changed.send_replace(());
    Ok(json_reply(StatusCode::OK, &json!({"documents": count})))
}

/// A document of about `bytes` bytes, of words that compress as text does.
fn made(number: u64, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "arabica",
        "moulu",
        "bio",
        "café",
        "intense",
        "noix",
        "sachet",
        "grain",
        "doux",
        "corsé",
        "filtre",
        "torréfié",
        "équitable",
        "mousse",
        "capsule",
        "décaféiné",
    ];
    let mut text = format!(
        "{{\"id\":\"g{number}\",\"name\":\"Produit {number}\",\"barcodes\":[\"{:013}\"],\"price\":{{\"amount\":\"{}.{:02}\",\"currency\":\"EUR\"}},\"description\":\"",
        2_000_000_000_000 + number,
        number % 90,
        number % 100,
    );
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while text.len() + 2 < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[usize::try_from(state % 16).unwrap_or(0)]);
        text.push_str(&format!(" {} ", state % 1000));
    }
    text.push_str("\"}");
    text
}
