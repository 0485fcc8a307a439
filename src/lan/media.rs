//! Port 8003: images, videos, documents. A blob is named by its SHA-256, so its bytes never change.

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::answer::{Answer, Answered, Body, FILE_CHUNK};
use super::auth;
use super::catalogue::is_known;
use super::house::House;
use super::problem::{Kind, Problem};
use super::request::Ask;
use crate::digest::Digest;
use crate::store::catalogue::MEDIA_COLLECTION;
use crate::telemetry::chain;

/// Kinds that browsers only show. Anything else is served as bytes, whatever its document says.
const SHOWN: &[&str] = &[
    "image/",
    "video/",
    "audio/",
    "font/",
    "application/pdf",
    "text/plain",
];

/// The part of a media document that is needed here.
#[derive(Deserialize)]
struct MediaDocument {
    content_type: Option<String>,
}

/// `GET /v1/media/{sha256}`, also in part: one range (RFC 9110 §14). Several ranges get the whole file.
pub fn blob(house: &House, ask: &Ask, name: &str) -> Answered {
    auth::device(house, ask)?;
    let digest: Digest = name.parse().map_err(|_| not_found(name))?;
    let blob = house
        .store
        .blobs
        .open(&digest)
        .map_err(|error| {
            tracing::warn!(event = "lan.blob_failed", error = chain(&error));
            Problem::new(Kind::Internal, "the box can't read this file")
        })?
        .ok_or_else(|| not_found(name))?;
    let tag = format!("\"{digest}\"");
    if is_known(&ask.head.headers, &tag) {
        let mut answer = Answer::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        describe(answer.headers_mut(), &tag)?;
        return Ok(answer);
    }
    let whole = || (StatusCode::OK, 0, blob.len);
    let (status, at, length) = match wanted_range(ask, &tag) {
        None => whole(),
        Some(text) => match parse_range(text, blob.len) {
            Range::Part { at, length } => (StatusCode::PARTIAL_CONTENT, at, length),
            Range::Ignored => whole(),
            Range::Outside => {
                let size = HeaderValue::try_from(format!("bytes */{}", blob.len))
                    .map_err(|_| Problem::new(Kind::Internal, "a number is no header"))?;
                return Err(Problem::new(
                    Kind::RangeRefused,
                    format!("the file has {} bytes", blob.len),
                )
                .header(header::CONTENT_RANGE, size));
            }
        },
    };
    let total = blob.len;
    let in_memory = usize::try_from(length).map_or(FILE_CHUNK, |length| length.min(FILE_CHUNK));
    let share = house.share(in_memory)?;
    let mut answer = Answer::new(Body::file(blob.file, at, length).holding(share));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    describe(headers, &tag)?;
    headers.insert(header::CONTENT_TYPE, content_type(house, &digest, name)?);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {at}-{}/{total}", at + length - 1);
        let range = HeaderValue::try_from(range)
            .map_err(|_| Problem::new(Kind::Internal, "a number is no header"))?;
        headers.insert(header::CONTENT_RANGE, range);
    }
    Ok(answer)
}

fn not_found(name: &str) -> Box<Problem> {
    Problem::new(Kind::NotFound, format!("the box has no media file {name}"))
}

fn describe(headers: &mut HeaderMap, tag: &str) -> Result<(), Box<Problem>> {
    let tag = HeaderValue::from_str(tag)
        .map_err(|_| Problem::new(Kind::Internal, "a digest is no header"))?;
    headers.insert(header::ETAG, tag);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    // A drawing may carry script; opened by itself it runs without the box's origin.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(())
}

/// As the manifest says; before it was read, as the document says that has the digest as its id.
fn content_type(house: &House, digest: &Digest, name: &str) -> Result<HeaderValue, Box<Problem>> {
    let named = match house.store.blobs.content_type(digest) {
        Some(kind) => Some(kind),
        None => house
            .store
            .catalogue
            .document(MEDIA_COLLECTION, name)?
            .and_then(|stored| serde_json::from_slice::<MediaDocument>(&stored.body).ok())
            .and_then(|document| document.content_type),
    };
    let named = named
        .filter(|kind| SHOWN.iter().any(|shown| kind.starts_with(shown)))
        .and_then(|kind| HeaderValue::try_from(kind).ok());
    Ok(named.unwrap_or(HeaderValue::from_static("application/octet-stream")))
}

/// The `Range` to heed: none when `If-Range` names another state of the file.
fn wanted_range<'a>(ask: &'a Ask, tag: &str) -> Option<&'a str> {
    let range = ask.header(&header::RANGE)?;
    match ask.head.headers.get(header::IF_RANGE) {
        Some(condition) if condition.as_bytes() != tag.as_bytes() => None,
        _ => Some(range),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Part {
        at: u64,
        length: u64,
    },
    /// Not one range of bytes: the whole file is the answer.
    Ignored,
    Outside,
}

fn parse_range(text: &str, total: u64) -> Range {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .filter(|ranges| !ranges.contains(','))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Range::Ignored;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a file can have bytes are a number beyond its end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Range::Ignored,
        (Some(_), None) if !last.is_empty() => Range::Ignored,
        (Some(first), _) if first >= total => Range::Outside,
        (Some(first), last) => {
            let last = last.unwrap_or(u64::MAX).min(total - 1);
            Range::Part {
                at: first,
                length: last - first + 1,
            }
        }
        (None, Some(_)) if !first.is_empty() => Range::Ignored,
        (None, Some(0)) => Range::Outside,
        (None, Some(_)) if total == 0 => Range::Outside,
        (None, Some(tail)) => {
            let length = tail.min(total);
            Range::Part {
                at: total - length,
                length,
            }
        }
        (None, None) => Range::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let part = |at, length| Range::Part { at, length };
        for (text, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-19", part(10, 10)),
            ("bytes=90-", part(90, 10)),
            ("bytes=90-9999", part(90, 10)),
            ("bytes=-5", part(95, 5)),
            ("bytes=-500", part(0, 100)),
            ("bytes=99-99999999999999999999999", part(99, 1)),
            ("bytes=100-", Range::Outside),
            ("bytes=99999999999999999999999-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-4", Range::Ignored),
            ("bytes=0-1,5-6", Range::Ignored),
            ("bytes=-", Range::Ignored),
            ("bytes=a-b", Range::Ignored),
            ("bytes=1-b", Range::Ignored),
            ("bytes=a-1", Range::Ignored),
            ("bytes=+1-2", Range::Ignored),
            ("lines=1-2", Range::Ignored),
        ] {
            assert_eq!(parse_range(text, 100), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Outside);
        assert_eq!(parse_range("bytes=-1", 0), Range::Outside);
    }
}
