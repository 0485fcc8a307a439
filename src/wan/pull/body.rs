//! Bodies of the platform's answers: of the agreed kind, unpacked, bounded.

use std::io::{BufReader, Read};

use flate2::read::MultiGzDecoder;

use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::egress::{Answer, Cause, EgressError, bad_answer};

pub(super) const JSON: &str = "application/json";
pub(super) const LINES: &str = "application/x-ndjson";

/// Networks' login pages and proxies answer with HTML.
pub(super) fn expect_type(answer: Answer, expected: &str) -> Result<Answer, EgressError> {
    if answer.is_of_type(expected) {
        return Ok(answer);
    }
    let found = answer.header("content-type").unwrap_or("none").to_owned();
    Err(bad_answer(
        FlowId::Api,
        format!("{found} where {expected} was agreed"),
    ))
}

pub(super) fn is_gzip(answer: &Answer) -> Result<bool, EgressError> {
    match answer.header("content-encoding").map(str::trim) {
        None | Some("" | "identity") => Ok(false),
        Some("gzip" | "x-gzip") => Ok(true),
        Some(other) => Err(bad_answer(
            FlowId::Api,
            format!("the encoding {other} was not asked for"),
        )),
    }
}

/// The whole body, decompressed; `limit` counts decompressed bytes, so a small answer can't become a large one.
pub(super) fn decoded_bytes(answer: Answer, limit: ByteSize) -> Result<Vec<u8>, EgressError> {
    if !is_gzip(&answer)? {
        return answer.bytes(limit);
    }
    let (reader, sort) = answer.into_reader();
    let mut bytes = Vec::new();
    MultiGzDecoder::new(BufReader::new(reader))
        .take(limit.as_u64().saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(sort)?;
    if bytes.len() > limit.as_usize() {
        let mut error = bad_answer(FlowId::Api, format!("more than {limit}"));
        error.cause = Cause::TooLarge;
        return Err(error);
    }
    Ok(bytes)
}
