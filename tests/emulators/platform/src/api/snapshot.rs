//! `GET /v1/sites/{site}/snapshot`: what a snapshot consists of; `…/snapshot/{snapshot}/{part}`: one part of it.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderName, IF_RANGE, RANGE, RETRY_AFTER, VARY,
};
use hyper::{Request, StatusCode};

use super::cursor;
use super::encoding::accepts_gzip;
use crate::blob::range::{self, Wanted};
use crate::platform::Platform;
use crate::serve::body::{self, ChunkSender, Payload};
use crate::serve::reply::{self, Reply, problem};
use crate::store::StoreError;

/// Bytes read before they are sent.
const CHUNK: usize = 64 * 1024;
/// A snapshot that is not made by then is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn plan(platform: &Arc<Platform>) -> Result<Reply, StoreError> {
    let store = platform.store.clone();
    let making = tokio::task::spawn_blocking(move || {
        store.snapshot(|position| cursor::encode(position, position.last_seq))
    });
    // What takes longer goes on, and is given to who asks again.
    let made = match tokio::time::timeout(PATIENCE, making).await {
        Ok(made) => made.expect("making a snapshot does not panic and is not aborted")?,
        Err(_) => None,
    };
    let Some(plan) = made else {
        let mut answer = reply::empty(StatusCode::ACCEPTED);
        reply::set(&mut answer, RETRY_AFTER, "2");
        return Ok(answer);
    };
    let mut answer = reply::json(StatusCode::OK, &plan);
    reply::set(&mut answer, CACHE_CONTROL, "no-store");
    Ok(answer)
}

pub async fn part(
    request: &Request<Payload>,
    platform: &Arc<Platform>,
    snapshot: &str,
    part: &str,
) -> Result<Reply, StoreError> {
    let Some(found) = platform.store.snapshot_part(snapshot, part)? else {
        let detail = "this snapshot is not kept any more: ask for a new one";
        return Ok(problem(StatusCode::GONE, "snapshot-gone", detail));
    };
    let gzip = accepts_gzip(request);
    let size = if gzip {
        found.index.packed
    } else {
        found.index.plain
    };
    // Two representations, two tags (RFC 9110, 8.8.3.3).
    let tag = format!("\"{snapshot}-{part}{}\"", if gzip { "-gzip" } else { "" });
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok();
    let same = header(IF_RANGE).is_none_or(|wanted| wanted == tag);
    let wanted = range::parse(header(RANGE).filter(|_| same), size);
    let (status, first, last) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0, size - 1),
        Wanted::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last),
        Wanted::Unsatisfiable => {
            let mut refusal = problem(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range",
                "the range begins behind the end",
            );
            reply::set(&mut refusal, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(refusal);
        }
    };
    let (sender, streamed) = body::streamed();
    let length = last - first + 1;
    tokio::task::spawn_blocking(move || {
        let sent = if gzip {
            found
                .packed(first)
                .and_then(|reader| send(reader, length, &sender))
        } else {
            found
                .plain(first)
                .and_then(|reader| send(reader, length, &sender))
        };
        if let Err(error) = sent {
            tracing::error!(event = "api.snapshot_failed", %error);
            sender.fail(error);
        }
    });
    let mut answer = reply::with_body(status, streamed);
    reply::set(&mut answer, CONTENT_TYPE, "application/x-ndjson");
    reply::set(&mut answer, CONTENT_LENGTH, &length.to_string());
    reply::set(&mut answer, ACCEPT_RANGES, "bytes");
    reply::set(&mut answer, CACHE_CONTROL, "no-store");
    reply::set(&mut answer, VARY, "Accept-Encoding");
    reply::set(&mut answer, ETAG, &tag);
    if gzip {
        reply::set(&mut answer, CONTENT_ENCODING, "gzip");
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{last}/{size}");
        reply::set(&mut answer, CONTENT_RANGE, &range);
    }
    Ok(answer)
}

fn send(mut reader: impl Read, length: u64, sender: &ChunkSender) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let mut chunk = vec![0; wanted];
        reader.read_exact(&mut chunk)?;
        left -= wanted as u64;
        if !sender.send(Bytes::from(chunk)) {
            // The client went away: nobody is left to tell.
            return Ok(());
        }
    }
    Ok(())
}
