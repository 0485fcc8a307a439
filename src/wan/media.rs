//! Blobs: for every `media` document whose blob is not here, a download that goes on where it broke off, checked against
//! size and SHA-256 before it gets its name.
//!
//! ```text
//!   walk the collection --> no blob yet --> claim room --> GET (Range, If-Match) --> digest fits --> published
//!        ^                                                  |  the transfer breaks: again from the byte it broke at
//!        |                                                  |  200, 412, 416: the blob is another or ranges are not
//!        |                                                  |                 kept: again from the start
//!        '---- rest until a media document changes <--------'  4xx, wrong digest, no room: later, the next one meanwhile
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::Method;

use super::contract::FlowId;
use super::credentials::Credentials;
use super::egress::{Answer, Cause, Client, EgressError, Request, bad_answer};
use super::media_document::{self, Wanted};
use super::worker::{Life, Next, StepError, Work, rest_on_bell};
use crate::clock::Clock;
use crate::config::{HttpsUrl, MediaConfig};
use crate::digest::Digest;
use crate::shutdown::Shutdown;
use crate::store::blobs::{BlobWriter, WriteBlobError};
use crate::store::catalogue::MEDIA_COLLECTION;
use crate::store::{Bell, Blobs, Catalogue};
use crate::telemetry::{Counter, Telemetry, chain};

/// Documents read at a time while walking.
const WALK_ITEMS: usize = 100;
/// A blob that can't be had now is tried again after this.
const SET_ASIDE: Duration = Duration::from_secs(600);
/// Blobs set aside that are remembered; beyond it all are tried again, which costs requests and nothing else.
const MAX_SET_ASIDE: usize = 4096;
/// Broken transfers of one blob without a new byte, after which the next blob gets its turn.
const BARREN_TRIES: u32 = 3;
/// Even without a bell the collection is walked again after this.
const WALK_AGAIN: Duration = Duration::from_secs(60);
/// Read and written at a time.
const CHUNK: usize = 64 * 1024;

/// What media works with.
pub(super) struct MediaParts {
    pub(super) client: Client,
    pub(super) media_url: HttpsUrl,
    pub(super) credentials: Credentials,
    pub(super) config: MediaConfig,
    pub(super) catalogue: Catalogue,
    pub(super) blobs: Blobs,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bell: Bell,
    pub(super) telemetry: Telemetry,
}

/// The worker.
pub(super) struct Media {
    parts: MediaParts,
    /// Id after which the walk goes on.
    walked_to: String,
    /// By address, so that a document with a new one is followed at once; not before (monotonic time).
    set_aside: BTreeMap<Digest, Duration>,
    partial: Option<Partial>,
    fetched: Counter,
    refused: Counter,
}

struct Partial {
    wanted: Wanted,
    writer: BlobWriter,
    etag: Option<String>,
    barren_tries: u32,
}

/// A blob that can't be had as things are; others may.
#[derive(Debug, thiserror::Error)]
enum FetchBlobError {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Store(#[from] WriteBlobError),
}

/// What became of one request.
enum Fetched {
    Published,
    /// From the start.
    Again,
}

impl Media {
    pub(super) fn new(parts: MediaParts) -> Self {
        let metrics = &parts.telemetry.metrics;
        Self {
            walked_to: String::new(),
            set_aside: BTreeMap::new(),
            partial: None,
            fetched: metrics.counter("comptoir_media_fetched_total", "", "Blobs published."),
            refused: metrics.counter(
                "comptoir_media_refused_total",
                "",
                "Tries to have a blob that ended in a refusal.",
            ),
            parts,
        }
    }

    /// The next blob that is wanted, not here and not set aside; `None` at the collection's end.
    fn next_wanted(&mut self) -> Result<Option<Wanted>, StepError> {
        let now = self.parts.clock.monotonic();
        self.set_aside.retain(|_, until| *until > now);
        loop {
            let documents =
                self.parts
                    .catalogue
                    .list(MEDIA_COLLECTION, &self.walked_to, WALK_ITEMS)?;
            if documents.is_empty() {
                self.walked_to.clear();
                return Ok(None);
            }
            for document in documents {
                self.walked_to = document.id.clone();
                let limit = self.parts.config.max_blob;
                match media_document::read(
                    &document.id,
                    &document.body,
                    &self.parts.media_url,
                    limit,
                ) {
                    Ok(wanted) => {
                        let address = Digest::of(wanted.url.as_bytes());
                        let is_set_aside = self.set_aside.contains_key(&address);
                        if !is_set_aside && !self.parts.blobs.contains(&wanted.digest) {
                            return Ok(Some(wanted));
                        }
                    }
                    Err(why) => {
                        tracing::debug!(event = "media.document_refused", id = document.id, %why);
                    }
                }
            }
        }
    }

    fn fetch(&mut self, partial: Partial, life: &Life) -> Result<(), StepError> {
        let (digest, url) = (partial.wanted.digest, partial.wanted.url.clone());
        let (had, tries) = (partial.writer.written(), partial.barren_tries);
        match self.ask(partial, life) {
            Ok(Fetched::Published) => {
                self.fetched.add_one();
                tracing::info!(event = "media.blob_published", %digest);
                Ok(())
            }
            Ok(Fetched::Again) => Ok(()),
            Err(FetchBlobError::Egress(error)) if error.is_retryable() => {
                if let Some(partial) = &mut self.partial {
                    let is_barren = partial.writer.written() == had;
                    partial.barren_tries = if is_barren { tries + 1 } else { 0 };
                    if partial.barren_tries >= BARREN_TRIES {
                        self.partial = None;
                        self.set_aside(digest, &url, &error);
                    }
                }
                Err(error.into())
            }
            Err(error) => {
                self.set_aside(digest, &url, &error);
                Ok(())
            }
        }
    }

    fn set_aside(&mut self, digest: Digest, url: &str, error: &dyn std::error::Error) {
        self.refused.add_one();
        tracing::warn!(event = "media.blob_set_aside", %digest, error = chain(error));
        if self.set_aside.len() >= MAX_SET_ASIDE {
            self.set_aside.clear();
        }
        let until = self.parts.clock.monotonic() + SET_ASIDE;
        self.set_aside.insert(Digest::of(url.as_bytes()), until);
    }

    /// One request and its transfer; what was transferred before it broke stays in `self.partial`.
    fn ask(&mut self, mut partial: Partial, life: &Life) -> Result<Fetched, FetchBlobError> {
        let had = partial.writer.written();
        let range = format!("bytes={had}-");
        let mut headers = vec![("x-ms-version", API_VERSION)];
        if had > 0 {
            headers.push(("range", range.as_str()));
            if let Some(etag) = &partial.etag {
                headers.push(("if-match", etag));
            }
        }
        let signature = self.parts.credentials.media_sas();
        let url = media_document::signed(&partial.wanted.url, signature.as_ref());
        let request = Request {
            method: Method::GET,
            url: &url,
            headers: &headers,
            body: None,
            hold: Duration::ZERO,
        };
        let answer = match self.parts.client.send(&request) {
            Ok(answer) => answer,
            Err(error) => {
                self.partial = Some(partial);
                return Err(error.into());
            }
        };
        match answer.status() {
            200 if had == 0 => partial.etag = answer.header("etag").map(str::to_owned),
            206 if had > 0 && is_range(&answer, had, partial.wanted.size) => {}
            // Another blob, or a host that keeps no ranges: its first bytes are not ours.
            200 | 206 | 412 | 416 if had > 0 => {
                tracing::info!(event = "media.transfer_restarted", status = answer.status());
                let wanted = partial.wanted.clone();
                drop(partial);
                self.partial = Some(self.begin(wanted)?);
                return Ok(Fetched::Again);
            }
            status => {
                let cause = Cause::of_status(status).unwrap_or(Cause::BadAnswer);
                let error = answer.into_error(cause);
                if error.is_retryable() {
                    self.partial = Some(partial);
                }
                return Err(error.into());
            }
        }
        let (mut reader, sort) = answer.into_reader();
        let mut chunk = vec![0; CHUNK];
        let mut unsigned = 0;
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    partial.writer.write(&chunk[..read])?;
                    unsigned += read;
                    // A trickle is no life: the watchdog then ends the transfer, which goes on later.
                    if unsigned >= CHUNK {
                        unsigned = 0;
                        life.sign();
                    }
                }
                Err(error) => {
                    self.partial = Some(partial);
                    return Err(sort(error).into());
                }
            }
        }
        if partial.writer.written() < partial.wanted.size {
            self.partial = Some(partial);
            return Err(bad_answer(FlowId::Media, "the blob ends early").into());
        }
        partial.writer.publish()?;
        Ok(Fetched::Published)
    }

    fn begin(&self, wanted: Wanted) -> Result<Partial, WriteBlobError> {
        Ok(Partial {
            writer: self.parts.blobs.begin(&wanted.digest, wanted.size, "")?,
            wanted,
            etag: None,
            barren_tries: 0,
        })
    }
}

/// Version of the Blob service's REST API.
const API_VERSION: &str = "2021-12-02";

/// `Content-Range: bytes {start}-{end}/{total}`, RFC 9110 section 14.4.
fn is_range(answer: &Answer, start: u64, total: u64) -> bool {
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

impl Work for Media {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let partial = match self.partial.take() {
            Some(partial) => partial,
            None => {
                let Some(wanted) = self.next_wanted()? else {
                    return Ok(Next::Rest(WALK_AGAIN));
                };
                let (digest, url) = (wanted.digest, wanted.url.clone());
                match self.begin(wanted) {
                    Ok(partial) => partial,
                    Err(error) => {
                        self.set_aside(digest, &url, &error);
                        return Ok(Next::Again);
                    }
                }
            }
        };
        self.fetch(partial, life)?;
        Ok(Next::Again)
    }

    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        rest_on_bell(&self.parts.bell, wait, shutdown)
    }
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
