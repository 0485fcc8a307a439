//! Azure Blob storage, as far as a box uses it: GET and HEAD with ranges and conditions; containers that everybody may
//! read, and closed ones that a signature opens ([`sas`]).

pub mod range;
pub mod reply;
pub mod sas;

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, IF_MATCH, IF_NONE_MATCH, RANGE,
};
use hyper::{Method, Request, StatusCode};

use crate::percent::{self, Query};
use crate::platform::Platform;
use crate::serve::body::{self, ChunkSender, Payload};
use crate::serve::reply::{Reply, empty, set, with_body};
use crate::store::StoreError;
use crate::store::blobs::{self, Blob};
use range::Wanted;
use reply::{error, set_blob, set_common};

/// Bytes read from disk at once.
const CHUNK: usize = 64 * 1024;

/// Answers one request to the blob storage.
pub async fn answer(request: Request<Payload>, platform: &Arc<Platform>) -> Reply {
    let client_request_id = header(request.headers(), "x-ms-client-request-id").map(str::to_owned);
    let mut reply = read(&request, platform).await.unwrap_or_else(|failure| {
        tracing::error!(event = "store.call_failed", error = %failure);
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "The server encountered an internal error.",
        )
    });
    set_common(&mut reply, client_request_id.as_deref());
    reply
}

async fn read(request: &Request<Payload>, platform: &Arc<Platform>) -> Result<Reply, StoreError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = error(
            StatusCode::METHOD_NOT_ALLOWED,
            "UnsupportedHttpVerb",
            "The resource doesn't support this verb.",
        );
        set(&mut refusal, ALLOW, "GET, HEAD");
        return Ok(refusal);
    }
    let path = request.uri().path();
    let name = percent::decode(path.trim_start_matches('/'));
    if !name.contains('/') {
        return Ok(error(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            "The specified resource does not exist.",
        ));
    }
    let container = name.split('/').next().unwrap_or_default().to_owned();
    let is_closed = platform
        .store
        .call(move |connection| blobs::is_closed(connection, &container))
        .await?;
    if is_closed {
        let query = Query::parse(request.uri().query());
        if let Err(refused) = sas::verify(&query, &name, platform.clock.now_ms()) {
            return Ok(refused.reply());
        }
    }
    let found = platform
        .store
        .call(move |connection| blobs::find(connection, &name))
        .await?;
    let Some(blob) = found else {
        return Ok(error(
            StatusCode::NOT_FOUND,
            "BlobNotFound",
            "The specified blob does not exist.",
        ));
    };
    if let Some(refusal) = condition(request.headers(), &blob) {
        return Ok(refusal);
    }
    let asked = header(request.headers(), "x-ms-range")
        .or_else(|| header(request.headers(), RANGE.as_str()));
    let (status, first, last) = match range::parse(asked, blob.size) {
        Wanted::Whole => (StatusCode::OK, 0, blob.size.checked_sub(1)),
        Wanted::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, Some(last)),
        Wanted::Unsatisfiable => {
            let message = "The range specified is invalid for the current size of the resource.";
            let mut refusal = error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message);
            set(
                &mut refusal,
                CONTENT_RANGE,
                &format!("bytes */{}", blob.size),
            );
            return Ok(refusal);
        }
    };
    let length = last.map_or(0, |last| last - first + 1);
    let mut answer = with_body(status, body::full(""));
    set_blob(&mut answer, &blob);
    set(&mut answer, CONTENT_TYPE, &blob.content_type);
    set(&mut answer, CONTENT_LENGTH, &length.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        set(
            &mut answer,
            CONTENT_RANGE,
            &format!("bytes {first}-{}/{}", first + length - 1, blob.size),
        );
    }
    if *request.method() == Method::GET {
        let (sender, stream) = body::streamed();
        let path = platform.store.blobs_dir().join(&blob.sha256);
        tokio::task::spawn_blocking(move || {
            if let Err(failure) = send_part(&path, first, length, &sender) {
                tracing::error!(event = "blob.read_failed", error = %failure);
                sender.fail(failure);
            }
        });
        *answer.body_mut() = stream;
    }
    Ok(answer)
}

/// The answer if a condition of the request decides it.
fn condition(headers: &HeaderMap, blob: &Blob) -> Option<Reply> {
    let lists = |name: &str| {
        header(headers, name).map(|tags| {
            tags.split(',')
                .any(|tag| matches!(tag.trim(), tag if tag == "*" || tag == blob.etag))
        })
    };
    if lists(IF_MATCH.as_str()) == Some(false) {
        let message = "The condition specified using HTTP conditional header(s) is not met.";
        return Some(error(
            StatusCode::PRECONDITION_FAILED,
            "ConditionNotMet",
            message,
        ));
    }
    if lists(IF_NONE_MATCH.as_str()) == Some(true) {
        let mut unchanged = empty(StatusCode::NOT_MODIFIED);
        set_blob(&mut unchanged, blob);
        set(&mut unchanged, reply::X_MS_ERROR_CODE, "ConditionNotMet");
        return Some(unchanged);
    }
    None
}

/// Sends a part of a file, as far as the client takes it.
pub fn send_part(
    path: &std::path::Path,
    first: u64,
    length: u64,
    sender: &ChunkSender,
) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(first))?;
    let mut part = file.take(length);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        part.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() || !sender.send(Bytes::from(chunk)) {
            return Ok(());
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
