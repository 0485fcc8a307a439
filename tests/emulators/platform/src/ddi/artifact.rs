//! Downloads of bundles: whole, in parts, under If-Match; hawkBit's ETag is the SHA-1 without quotes.

use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, IF_MATCH, LOCATION, RANGE,
};
use hyper::{Method, StatusCode};
use serde_json::json;

use super::{Call, not_found};
use crate::blob::send_part;
use crate::platform::{Platform, now_ms};
use crate::serve::body;
use crate::serve::reply::{Reply, empty, set, text_of, with_body};
use crate::store::StoreError;
use crate::store::rollouts::{self, Artifact};

pub async fn answer(
    call: &Call<'_>,
    module: &str,
    file: &str,
    head: &HeaderMap,
    platform: &Arc<Platform>,
) -> Result<Reply, StoreError> {
    debug_assert_eq!(call.method, Method::GET);
    let Ok(id) = module.parse() else {
        return Ok(not_found());
    };
    let range = text(head, RANGE.as_str());
    let (controller, is_whole) = (call.controller.to_owned(), range.is_none());
    let found = platform
        .store
        .call(move |connection| {
            let found = rollouts::find(connection, id)?
                .filter(|action| action.controller.as_deref() == Some(&*controller));
            if let Some(action) = found.as_ref().filter(|_| is_whole) {
                // hawkBit notes whole downloads only: of ranges there could be too many.
                let note = json!({"filename": action.artifact.filename}).to_string();
                rollouts::note(connection, action.id, "download", &note, now_ms())?;
            }
            Ok(found)
        })
        .await?;
    let Some(action) = found else {
        return Ok(not_found());
    };
    let artifact = &action.artifact;
    if file.strip_suffix(".MD5SUM") == Some(&*artifact.filename) {
        let text = format!("{}  {}", artifact.md5, artifact.filename);
        return Ok(text_of(StatusCode::OK, "text/plain", text));
    }
    if file != artifact.filename {
        return Ok(not_found());
    }
    if let Some(place) = &action.redirect {
        let mut answer = empty(StatusCode::FOUND);
        set(&mut answer, LOCATION, place);
        return Ok(answer);
    }
    let if_match = text(head, IF_MATCH.as_str());
    let matches = |list: &str| {
        list.split(',')
            .any(|tag| [&*artifact.served_sha1, "*"].contains(&tag.trim()))
    };
    if if_match.is_some_and(|list| !matches(list)) {
        return Ok(empty(StatusCode::PRECONDITION_FAILED));
    }
    Ok(send(artifact, range, platform))
}

fn send(artifact: &Artifact, range: Option<&str>, platform: &Arc<Platform>) -> Reply {
    let size = artifact.served_size;
    let part = match range.map(|range| bounds(range, size)) {
        None => None,
        Some(Some((first, last))) if first <= last => Some((first, last)),
        Some(_) => {
            let mut refusal = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut refusal, CONTENT_RANGE, &format!("bytes */{size}"));
            return refusal;
        }
    };
    let (first, last) = part.unwrap_or((0, size.saturating_sub(1)));
    // A range that is all of it is answered as a whole.
    let is_whole = first == 0 && last + 1 >= size;
    let status = if is_whole {
        StatusCode::OK
    } else {
        StatusCode::PARTIAL_CONTENT
    };
    let length = if size == 0 { 0 } else { last - first + 1 };
    let (sender, stream) = body::streamed();
    let mut answer = with_body(status, stream);
    set(&mut answer, CONTENT_TYPE, "application/octet-stream");
    set(&mut answer, CONTENT_LENGTH, &length.to_string());
    set(&mut answer, ETAG, &artifact.served_sha1);
    set(&mut answer, ACCEPT_RANGES, "bytes");
    let name = format!("attachment;filename={}", artifact.filename);
    set(&mut answer, CONTENT_DISPOSITION, &name);
    let range = format!("bytes {first}-{last}/{size}");
    set(&mut answer, CONTENT_RANGE, &range);
    let path = platform.store.blobs_dir().join(&artifact.served);
    tokio::task::spawn_blocking(move || {
        if let Err(failure) = send_part(&path, first, length, &sender) {
            tracing::error!(event = "ddi.read_failed", error = %failure);
            sender.fail(failure);
        }
    });
    answer
}

/// First and last byte of a range with one part; several parts are not served here.
fn bounds(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    if first.is_empty() {
        return Some((size.saturating_sub(last.parse().ok()?), end));
    }
    let last = match last {
        "" => end,
        last => last.parse::<u64>().ok()?.min(end),
    };
    Some((first.parse().ok()?, last))
}

fn text<'a>(head: &'a HeaderMap, name: &str) -> Option<&'a str> {
    head.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_hawkbit_reads_them() {
        assert_eq!(bounds("bytes=4-", 10), Some((4, 9)));
        assert_eq!(bounds("bytes=4-99", 10), Some((4, 9)));
        assert_eq!(bounds("bytes=-3", 10), Some((7, 9)));
        assert_eq!(
            bounds("bytes=10-", 10),
            Some((10, 9)),
            "begins behind the end"
        );
        assert_eq!(bounds("items=1-2", 10), None);
    }
}
