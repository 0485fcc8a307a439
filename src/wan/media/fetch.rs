//! One blob, from the first request to its name: in ranges, gone on with at the byte where it broke off.
//!
//! ```text
//!   partial file? --no--> GET -----------------------> 200: first byte
//!        |yes                                            |            breaks, stalls, must yield
//!        '--> GET, Range: bytes=n-, If-Match: ETag --> 206 at n ------------> partial file, later
//!                 | 412, 416, another range: from the start                '-> whole: digest --> published
//!                 | 200 (ranges are not kept): this is the start                   '--wrong--> discarded
//!                 | 401, 403: the signature is over; asked again with the next one, at the same byte
//!                 '- 404 and the like: set aside
//! ```
//! Azure checks a signature when a request begins, so one that ends in mid-file shows at the next request only.

use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use ureq::http::Method;

use super::aside::Why;
use super::board::{Board, Note, Refusal};
use super::bucket::Bucket;
use super::document::{self, Announced};
use super::end::{Access, Came, End, is_range, is_refused, strong_etag};
use super::manifest::source_of;
use super::plan::Job;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::HttpsUrl;
use crate::identity::{Secret, dice};
use crate::shutdown::Shutdown;
use crate::store::Catalogue;
use crate::store::blobs::{BlobWriter, Blobs, WriteBlobError};
use crate::store::catalogue::MEDIA_COLLECTION;
use crate::telemetry::{Counter, chain};
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::credentials::Credentials;
use crate::wan::egress::{Answer, Cause, Client, EgressError, Request, bad_answer};
use crate::wan::outcome::{Outcomes, Worker};
use crate::wan::time::PlatformTime;
use crate::wan::way_back::WayBack;
use crate::wan::worker::{Life, wait_after};

/// Read and written at a time.
const CHUNK: usize = 64 * 1024;
/// Transfers of one blob begun anew in a row; then the host is left alone for a while.
const RESTARTS: u32 = 3;
/// Broken transfers of one blob without a new byte, after which the next blob gets its turn.
const BARREN_TRIES: u32 = 3;
/// A transfer that brings less than [`SLOW_BYTES`] in this time is no transfer.
const SLOW_WINDOW: Duration = Duration::from_secs(120);
/// See [`SLOW_WINDOW`].
const SLOW_BYTES: u64 = 16 * 1024;
/// While the cap makes a transfer wait, it looks this often whether it is to stop.
const WAIT_SLICE: Duration = Duration::from_millis(250);
/// Version of the Blob service's REST API.
const API_VERSION: &str = "2021-12-02";

/// What the fetching threads share.
pub(super) struct Fetcher {
    pub(super) client: Client,
    pub(super) media_url: HttpsUrl,
    pub(super) credentials: Credentials,
    pub(super) max_blob: ByteSize,
    pub(super) catalogue: Catalogue,
    pub(super) blobs: Blobs,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) time: PlatformTime,
    pub(super) retry: Backoff,
    pub(super) outcomes: Outcomes,
    pub(super) shutdown: Shutdown,
    pub(super) life: Life,
    pub(super) bucket: Option<Mutex<Bucket>>,
    pub(super) fetched: Counter,
    pub(super) refused: Counter,
    pub(super) wrong: Counter,
    pub(super) bytes: Counter,
}

impl Fetcher {
    /// Takes jobs until the shutdown.
    pub(super) fn run(&self, board: &Board) {
        let version = || self.credentials.version();
        let returns = || self.outcomes.returns();
        let mut barren: Option<(Job, u32)> = None;
        while let Some(job) = board.take(&*self.clock, version, returns, &self.shutdown) {
            self.life.sign();
            let end = self.fetch(&job, board);
            self.life.sign();
            let tries = match (&end, barren.take()) {
                (End::Host(_, Came::Nothing), Some((last, tries))) if last.key == job.key => {
                    tries + 1
                }
                (End::Host(_, Came::Nothing), _) => 1,
                (_, other) => {
                    barren = other;
                    0
                }
            };
            if tries > 0 && tries < BARREN_TRIES {
                barren = Some((job.clone(), tries));
            }
            self.note(&job, end, tries >= BARREN_TRIES, board);
        }
    }

    /// Tells everybody whom it concerns how a try ended.
    fn note(&self, job: &Job, end: End, is_barren: bool, board: &Board) {
        let digest = job.digest;
        let now = self.clock.monotonic();
        let aside = |why, etag| Note::Aside { why, etag };
        let mut reason = String::new();
        let note = match end {
            End::Published => {
                self.fetched.add_one();
                tracing::info!(event = "media.blob_published", %digest);
                self.answered(board);
                Note::Done
            }
            End::NotWanted => Note::Done,
            End::Stopped => {
                tracing::debug!(event = "media.transfer_stopped", %digest);
                Note::Stopped
            }
            // What the shutdown broke is no failure of the host.
            End::Host(..) if self.shutdown.is_triggered() => Note::Stopped,
            End::Host(error, came) => {
                if came == Came::Bytes {
                    // It works, though it breaks: a new count of failures.
                    board.host_answers();
                }
                self.failed(error, now, board);
                match is_barren {
                    true => aside(Why::Barren, None),
                    false => Note::Stopped,
                }
            }
            End::Refused(error, access) => {
                reason = chain(&error).to_string();
                self.note_refusal(error, access, now, board);
                aside(Why::Refused, None)
            }
            End::Missing(error) => {
                self.refused.add_one();
                reason = chain(&error).to_string();
                self.answered(board);
                aside(Why::Missing, None)
            }
            End::Wrong(what, etag) => {
                self.refused.add_one();
                self.wrong.add_one();
                reason = what;
                self.answered(board);
                aside(Why::Wrong, etag)
            }
            End::StillWrong => {
                self.refused.add_one();
                "the file is as wrong as it was".clone_into(&mut reason);
                self.answered(board);
                aside(Why::Wrong, None)
            }
            End::NoRoom(error) => {
                reason = chain(&error).to_string();
                aside(Why::NoRoom, None)
            }
            End::Store(error) => {
                reason = chain(&error).to_string();
                aside(Why::NoRoom, None)
            }
        };
        if let Some(pause) = board.finish(job, note, now, dice()) {
            let pause_s = pause.as_secs();
            tracing::warn!(event = "media.blob_set_aside", %digest, reason, pause_s);
        }
    }

    fn note_refusal(&self, error: EgressError, access: Access, now: Duration, board: &Board) {
        let Access::Site {
            version,
            has_signature,
        } = access
        else {
            return;
        };
        let is_over = error.cause == Cause::SasExpired;
        if let Refusal::Signature { wants_renewal } = board.host_refuses(version, is_over, now) {
            if wants_renewal && has_signature {
                self.credentials.refused(version);
            }
            self.failed(error, now, board);
        }
    }

    fn answered(&self, board: &Board) {
        board.host_answers();
        self.outcomes.succeeded(Worker::Media);
    }

    fn failed(&self, error: EgressError, now: Duration, board: &Board) {
        let is_news = self.outcomes.failed(Worker::Media, &error);
        let (cause, text) = (error.cause.as_str(), error.to_string());
        let no_answer = |way: &mut WayBack| way.failed(&error, now, self.retry, dice());
        let pause = |failures| wait_after(&error, failures, self.retry);
        let wait = board.host_fails(now, no_answer, pause);
        let (worker, wait_ms) = (Worker::Media.name(), wait.as_millis());
        if is_news {
            tracing::warn!(
                event = "wan.step_failed",
                worker,
                cause,
                error = text,
                wait_ms
            );
        } else {
            let event = "wan.step_failed_again";
            tracing::debug!(event, worker, cause, error = text, wait_ms);
        }
    }

    fn fetch(&self, job: &Job, board: &Board) -> End {
        match self.try_fetch(job, board) {
            Ok(end) | Err(end) => end,
        }
    }

    fn try_fetch(&self, job: &Job, board: &Board) -> Result<End, End> {
        let Some(announced) = self.announced(job)? else {
            return Ok(End::NotWanted);
        };
        if self.blobs.contains(&job.digest) {
            return Ok(End::NotWanted);
        }
        let source = document::bare(&announced.url);
        let begun = self.blobs.begin(&job.digest, announced.size, source);
        let mut writer = match begun {
            Err(WriteBlobError::Busy) => return Ok(End::NotWanted),
            other => other.map_err(End::NoRoom)?,
        };
        self.life.sign();
        let known_wrong = board.with_aside(|aside| aside.wrong_state(&job.key));
        for _ in 0..=RESTARTS {
            if writer.written() == announced.size {
                return publish(writer);
            }
            let asked = self.ask(&announced, &mut writer, known_wrong.as_deref(), board)?;
            let Some(answer) = asked else {
                tracing::info!(event = "media.transfer_restarted", digest = %job.digest);
                continue;
            };
            return self.transfer(job, writer, answer, board);
        }
        let detail = "the host keeps neither ranges nor states of files";
        Err(End::Host(bad_answer(FlowId::Media, detail), Came::Nothing))
    }

    /// The document as it stands now, if it still names this blob.
    fn announced(&self, job: &Job) -> Result<Option<Announced>, End> {
        let id = match &job.document {
            Some(id) => id.to_string(),
            None => job.digest.to_string(),
        };
        let stored = self.catalogue.document(MEDIA_COLLECTION, &id);
        let Some(stored) = stored.map_err(End::Store)? else {
            return Ok(None);
        };
        let announced = document::read(&stored.body, &self.media_url, self.max_blob).ok();
        Ok(announced.filter(|announced| {
            announced.digest == job.digest && source_of(&stored, announced) == job.key.1
        }))
    }

    /// Asks for what is missing. `None`: the writer was emptied and the question is to be repeated.
    fn ask(
        &self,
        announced: &Announced,
        writer: &mut BlobWriter,
        known_wrong: Option<&str>,
        board: &Board,
    ) -> Result<Option<Answer>, End> {
        let version = self.credentials.version();
        let signature = self.credentials.media_sas();
        let mut answer = self.send(announced, writer, known_wrong, signature.as_ref(), false)?;
        let site = Access::Site {
            version,
            has_signature: signature.is_some(),
        };
        let mut access = match document::has_signature(&announced.url) {
            true => Access::Own,
            false => site,
        };
        if is_refused(&answer) && access == Access::Own && signature.is_some() {
            // The document's own signature is over: the site's may do.
            answer = self.send(announced, writer, known_wrong, signature.as_ref(), true)?;
            access = site;
        }
        if !is_refused(&answer) && access == site {
            board.host_takes(version);
        }
        let had = writer.written();
        match answer.status() {
            200 => {
                let length = answer.header("content-length");
                let length: Option<u64> = length.and_then(|length| length.parse().ok());
                let etag = strong_etag(&answer);
                if let Some(length) = length.filter(|length| *length != announced.size) {
                    let expected = announced.size;
                    let what =
                        format!("the file has {length} bytes where {expected} were announced");
                    return Err(End::Wrong(what, etag));
                }
                writer.restart(etag).map_err(End::NoRoom)?;
                Ok(Some(answer))
            }
            206 if had > 0 && is_range(&answer, had, announced.size) => Ok(Some(answer)),
            304 => Err(End::StillWrong),
            206 | 412 | 416 => {
                writer.restart(None).map_err(End::NoRoom)?;
                Ok(None)
            }
            401 | 403 => {
                let error = answer.into_error(Cause::Forbidden);
                Err(End::Refused(error, access))
            }
            status => {
                let cause = Cause::of_status(status).unwrap_or(Cause::BadAnswer);
                let error = answer.into_error(cause);
                Err(if error.cause == Cause::Server {
                    End::Host(error, Came::Nothing)
                } else if error.is_retryable() {
                    End::Host(error, Came::NoAnswer)
                } else {
                    End::Missing(error)
                })
            }
        }
    }

    fn send(
        &self,
        announced: &Announced,
        writer: &BlobWriter,
        known_wrong: Option<&str>,
        signature: Option<&Secret>,
        is_only_signature: bool,
    ) -> Result<Answer, End> {
        let url = match is_only_signature {
            true => document::bare(&announced.url),
            false => &announced.url,
        };
        let url = document::signed(url, signature);
        let had = writer.written();
        let range = format!("bytes={had}-");
        let mut headers = vec![("x-ms-version", API_VERSION)];
        if had > 0 {
            headers.push(("range", &range));
            headers.extend(writer.etag().map(|etag| ("if-match", etag)));
        } else {
            headers.extend(known_wrong.map(|etag| ("if-none-match", etag)));
        }
        let request = Request {
            method: Method::GET,
            url: &url,
            headers: &headers,
            body: None,
            hold: Duration::ZERO,
        };
        let asked = self.time.asked();
        let answer = self.client.send(&request);
        let answer = answer.map_err(|error| End::Host(error, Came::NoAnswer))?;
        let _ = self.time.observe(FlowId::Media, &answer, asked);
        Ok(answer)
    }

    /// Writes what comes until it is whole, breaks, or must stop.
    fn transfer(
        &self,
        job: &Job,
        mut writer: BlobWriter,
        answer: Answer,
        board: &Board,
    ) -> Result<End, End> {
        let had = writer.written();
        let came = |writer: &BlobWriter| match writer.written() > had {
            true => Came::Bytes,
            false => Came::Nothing,
        };
        let (mut reader, sort) = answer.into_reader();
        let sip = self.with_bucket(job, |bucket| bucket.sip(CHUNK));
        let mut chunk = vec![0; sip.unwrap_or(CHUNK)];
        let mut mark = (self.clock.monotonic(), had);
        while writer.written() < writer.size() {
            if board.must_yield(&job.digest) || self.shutdown.is_triggered() {
                return Ok(End::Stopped);
            }
            let read = match reader.read(&mut chunk) {
                Ok(0) => {
                    let error = bad_answer(FlowId::Media, "the blob ends early");
                    return Err(End::Host(error, came(&writer)));
                }
                Ok(read) => read,
                Err(error) => return Err(End::Host(sort(error), came(&writer))),
            };
            if let Err(error) = writer.write(&chunk[..read]) {
                let is_too_long = matches!(error, WriteBlobError::Size { .. });
                let etag = writer.etag().map(str::to_owned);
                return Err(if is_too_long {
                    writer.discard();
                    End::Wrong(error.to_string(), etag)
                } else {
                    End::NoRoom(error)
                });
            }
            self.bytes.add(u64::try_from(read).unwrap_or(u64::MAX));
            self.life.sign();
            let now = self.clock.monotonic();
            if now.saturating_sub(mark.0) >= SLOW_WINDOW {
                if writer.written() - mark.1 < SLOW_BYTES {
                    let error = EgressError::new(Cause::Slow, self.media_url.host(), "");
                    return Err(End::Host(error, came(&writer)));
                }
                mark = (now, writer.written());
            }
            let wait = self.with_bucket(job, |bucket| bucket.take(read, now));
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                self.wait(wait, job, board);
                // Time spent waiting is not the host's.
                mark = (self.clock.monotonic(), writer.written());
            }
        }
        publish(writer)
    }

    /// With the bucket, if there is a cap and the job is under it.
    fn with_bucket<T>(&self, job: &Job, look: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        let bucket = self.bucket.as_ref().filter(|_| !job.urgent)?;
        let mut bucket = bucket.lock().expect("no holder of this lock panics");
        Some(look(&mut bucket))
    }

    fn wait(&self, wait: Duration, job: &Job, board: &Board) {
        let mut left = wait;
        while !left.is_zero() && !board.must_yield(&job.digest) {
            let slice = left.min(WAIT_SLICE);
            if self.shutdown.wait(slice) {
                return;
            }
            self.life.sign();
            left -= slice;
        }
    }
}

fn publish(writer: BlobWriter) -> Result<End, End> {
    let etag = writer.etag().map(str::to_owned);
    match writer.publish() {
        Ok(()) => Ok(End::Published),
        Err(error @ (WriteBlobError::Digest { .. } | WriteBlobError::Size { .. })) => {
            Err(End::Wrong(error.to_string(), etag))
        }
        Err(error) => Err(End::NoRoom(error)),
    }
}
