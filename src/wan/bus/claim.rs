//! Claim checks: a message that is too large for the bus brings the address of its document instead.
//!
//! `{"claim_check":{"url":"https://MEDIA-HOST/…","sha256":"…","size":N}}`. The address is followed on the media host only (the
//! door refuses any other), and the document is taken only if it is the one announced.

use std::io::Read;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::Method;

use crate::digest::Digest;
use crate::store::orders::{Content, ParkCode};
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::credentials::Credentials;
use crate::wan::egress::{Cause, Client, EgressError, Request, bad_answer};
use crate::wan::media::document::signed;

/// A larger document is not fetched: no order of that size can be taken.
pub(in crate::wan) const MAX_CLAIMED: ByteSize = ByteSize::mib(1);
/// Fetching one document takes no longer, however it trickles.
const FETCH_DEADLINE: Duration = Duration::from_secs(120);
/// Read at once.
const CHUNK: usize = 16 * 1024;

/// What a message points to.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(in crate::wan) struct Claim {
    url: String,
    sha256: Digest,
    size: u64,
}

/// The claim check that `body` is, if it is one.
pub(in crate::wan) fn read(body: &[u8]) -> Option<Claim> {
    #[derive(Deserialize)]
    struct Pointer {
        claim_check: Claim,
    }
    let pointer: Pointer = serde_json::from_slice(body).ok()?;
    Some(pointer.claim_check)
}

/// Fetches documents.
#[derive(Clone)]
pub(in crate::wan) struct Claims {
    client: Client,
    credentials: Credentials,
}

impl Claims {
    /// `client` is one of the media flow's.
    pub(in crate::wan) fn new(client: Client, credentials: Credentials) -> Self {
        Self {
            client,
            credentials,
        }
    }

    /// The client it asks by, for the watchdog.
    pub(in crate::wan) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The document, or why it can't be had by anybody.
    ///
    /// # Errors
    /// What may pass by itself: the network, the host, its credentials.
    pub(in crate::wan) fn fetch(&self, claim: &Claim) -> Result<Content, EgressError> {
        if claim.size > MAX_CLAIMED.as_u64() {
            return Ok(Content::Missing {
                why: ParkCode::TooLarge,
                reason: format!("its document has more than {MAX_CLAIMED}"),
            });
        }
        let asked = self.client.send(&Request {
            method: Method::GET,
            url: &signed(&claim.url, self.credentials.media_sas().as_ref()),
            headers: &[],
            body: None,
            hold: Duration::ZERO,
        });
        let answer = match asked {
            Err(error) if error.cause == Cause::OutsideContract => {
                let reason = format!("its document's address is refused: {error}");
                return Ok(missing(&reason));
            }
            asked => asked?,
        };
        match answer.status() {
            401 | 403 | 408 | 429 => answer.success().map(|_| missing("")),
            status @ 400..=499 => {
                let _ = answer.into_error(Cause::NotFound);
                Ok(missing(&format!(
                    "its document is not there: HTTP {status}"
                )))
            }
            _ => {
                let document = read_within(answer.success()?.into_reader(), claim.size)?;
                let is_it =
                    document.len() as u64 == claim.size && Digest::of(&document) == claim.sha256;
                Ok(if is_it {
                    Content::Claimed(document)
                } else {
                    missing("its document is not the one announced")
                })
            }
        }
    }
}

fn missing(reason: &str) -> Content {
    Content::Missing {
        why: ParkCode::NoDocument,
        reason: reason.to_owned(),
    }
}

/// At most one byte more than `size`.
fn read_within(
    (reader, sort): (impl Read, impl Fn(std::io::Error) -> EgressError),
    size: u64,
) -> Result<Vec<u8>, EgressError> {
    let until = Instant::now() + FETCH_DEADLINE;
    let mut reader = reader.take(size.saturating_add(1));
    let mut document = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk).map_err(&sort)? {
            0 => return Ok(document),
            read => document.extend_from_slice(&chunk[..read]),
        }
        if Instant::now() > until {
            return Err(bad_answer(
                FlowId::Media,
                "an order's document takes too long",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_claim_check_is_told_from_an_order() {
        let claim = format!(
            r#"{{"claim_check":{{"url":"https://h/c/o","sha256":"{DIGEST}","size":3}},"trace":1}}"#
        );
        assert_eq!(read(claim.as_bytes()).unwrap().size, 3);
        for other in [
            &br#"{"order_id":"o","lines":[]}"#[..],
            br#"{"claim_check":{"url":"https://h/c/o"}}"#,
            br#"{"claim_check":"https://h/c/o"}"#,
            b"[]",
            b"\xff",
        ] {
            assert_eq!(read(other), None);
        }
    }

    #[test]
    fn no_more_is_read_than_was_announced_and_one_byte() {
        let sort = |error: std::io::Error| bad_answer(FlowId::Media, error.to_string());
        let read = |size| read_within((&b"0123456789"[..], sort), size).unwrap().len();
        assert_eq!((read(3), read(10), read(50)), (4, 10, 10));
    }
}
