//! Bodies of both dialects.

use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};
use hyper::header::CONTENT_ENCODING;
use hyper::{Request, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::percent::Query;
use crate::serve::body::Payload;

/// Datadog: uncompressed at most 5 MB a payload, 1000 entries (documented).
const DATADOG_BYTES: u64 = 5 * 1000 * 1000;
const DATADOG_ENTRIES: usize = 1000;
/// Logmatic's own clients send at most this; that the server refuses more is assumed.
const LOGMATIC_BYTES: u64 = 200 * 1024;

/// Which API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `/v1/input/{KEY}`
    Logmatic,
    /// `/api/v2/logs`
    Datadog,
}

/// Why a batch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not a POST.
    Method,
    /// Not the site's key.
    Key,
    /// More than is taken at once.
    TooLarge,
    /// Neither an object nor an array of objects.
    Form,
    /// An encoding that is not known.
    Encoding,
}

impl Refusal {
    /// Its status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Key => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Form => StatusCode::BAD_REQUEST,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// A few words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Method => "Method Not Allowed",
            Self::Key => "Forbidden",
            Self::TooLarge => "Payload Too Large",
            Self::Form => "Bad Request",
            Self::Encoding => "Unsupported Media Type",
        }
    }
}

/// The entries of a body.
pub fn entries(dialect: Dialect, request: &Request<Payload>) -> Result<Vec<Value>, Refusal> {
    let max_bytes = match dialect {
        Dialect::Logmatic => LOGMATIC_BYTES,
        Dialect::Datadog => DATADOG_BYTES,
    };
    let body = request.body().as_ref().ok_or(Refusal::TooLarge)?;
    let encoding = request
        .headers()
        .get(CONTENT_ENCODING)
        .map_or(Ok("identity"), |value| value.to_str())
        .map_err(|_| Refusal::Encoding)?;
    let bytes = match (dialect, encoding) {
        (_, "identity") => read(&body[..], max_bytes),
        (Dialect::Datadog, "gzip") => read(GzDecoder::new(&body[..]), max_bytes),
        (Dialect::Datadog, "deflate") => read(ZlibDecoder::new(&body[..]), max_bytes),
        _ => Err(Refusal::Encoding),
    }?;
    let entries = match serde_json::from_slice(&bytes) {
        Ok(Value::Array(entries)) if !entries.is_empty() => entries,
        Ok(entry @ Value::Object(_)) => vec![entry],
        _ => return Err(Refusal::Form),
    };
    if !entries.iter().all(Value::is_object) {
        return Err(Refusal::Form);
    }
    if dialect == Dialect::Datadog && entries.len() > DATADOG_ENTRIES {
        return Err(Refusal::TooLarge);
    }
    Ok(entries)
}

fn read(reader: impl Read, max_bytes: u64) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    reader
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| Refusal::Form)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Refusal::TooLarge);
    }
    Ok(bytes)
}

/// Logmatic: query parameters are attributes of every entry.
pub fn with_attributes(dialect: Dialect, mut entries: Vec<Value>, query: &Query) -> Vec<Value> {
    if dialect == Dialect::Logmatic {
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            for (name, value) in query.pairs() {
                entry.entry(name).or_insert_with(|| value.into());
            }
        }
    }
    entries
}
