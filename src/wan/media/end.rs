//! How a try to have a blob may end, and what is read of an answer to decide it.

use crate::store::ReadError;
use crate::store::blobs::WriteBlobError;
use crate::wan::egress::{Answer, EgressError};

/// How one try ended.
#[derive(Debug)]
pub(super) enum End {
    Published,
    /// Its document went or changed, or somebody else fetched it.
    NotWanted,
    Stopped,
    /// Something between here and the host, or the host itself.
    Host(EgressError, Came),
    /// The host does not show it.
    Refused(EgressError, Access),
    Missing(EgressError),
    /// Not what was announced; the state that was transferred, if it was.
    Wrong(String, Option<String>),
    /// Known to be wrong, and still the same.
    StillWrong,
    NoRoom(WriteBlobError),
    Store(ReadError),
}

/// What a refused request showed of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The document's own signature.
    Own,
    /// What the site has, of this version of its credentials.
    Site { version: u64, has_signature: bool },
}

/// What a failed try brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Bytes,
    /// The host began to answer, or failed over this blob.
    Nothing,
    /// The way to the host is broken, or the host is busy: that says nothing of this blob.
    NoAnswer,
}

/// Whether the host does not show it to who asked so.
pub(super) fn is_refused(answer: &Answer) -> bool {
    matches!(answer.status(), 401 | 403)
}

/// The entity tag, if it stands for bytes (RFC 9110 section 8.8.1): a weak one does not.
pub(super) fn strong_etag(answer: &Answer) -> Option<String> {
    let etag = answer.header("etag")?;
    (!etag.starts_with("W/")).then(|| etag.to_owned())
}

/// `Content-Range: bytes {start}-{end}/{total}`, RFC 9110 section 14.4.
pub(super) fn is_range(answer: &Answer, start: u64, total: u64) -> bool {
    answer
        .header("content-range")
        .is_some_and(|text| range_fits(text, start, total))
}

fn range_fits(text: &str, start: u64, total: u64) -> bool {
    let Some((range, said_total)) = text
        .strip_prefix("bytes ")
        .and_then(|text| text.split_once('/'))
    else {
        return false;
    };
    let said_start = range.split_once('-').map(|(start, _)| start.parse());
    said_start == Some(Ok(start)) && (said_total == "*" || said_total.parse() == Ok(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_on_only_where_the_transfer_broke_off() {
        assert!(range_fits("bytes 5-9/10", 5, 10));
        assert!(range_fits("bytes 5-9/*", 5, 10));
        assert!(!range_fits("bytes 0-9/10", 5, 10));
        assert!(!range_fits("bytes 5-9/11", 5, 10));
        assert!(!range_fits("5-9/10", 5, 10));
    }
}
