//! Media: the blobs that the platform's manifest (collection `media`) names are fetched, in an order and at times that
//! suit the shop, and kept where the store keeps them.
//!
//! ```text
//!  documents --manifest--> shelf --plan(now, room, window)--> queue --board--> fetching threads --> blobs
//!      ^ bell                                                  ^ news            | partial files stay
//!      '--------------------------- the worker: walks, plans, tells -------------'
//! ```
//! # Limits
//! | what | bound | at the bound |
//! |---|---|---|
//! | blobs followed | [`manifest::MAX_LISTED`] | documents of further ones are refused and told |
//! | jobs handed out | [`plan::QUEUE_BOUND`] | the next plan |
//! | blobs fetched at a time | `wan.media.parallel` | the next waits; an urgent one makes another stop |
//! | rate | `wan.media.rate_cap_kib_s` | reads wait; urgent ones do not |
//! | set-asides | [`aside::MAX_ASIDE`] | forgotten, so tried again |
//!
//! # Invariants
//! - A blob is fetched once however many documents name it, and published only as what was announced.
//! - What was transferred is not transferred again: over broken lines, new signatures, restarts and power cuts (there
//!   as far as it was fsynced), as long as the far file has the same state.
//! - No document, blob or refusal holds up another one.

mod aside;
mod board;
mod bucket;
pub(super) mod document;
mod end;
mod fetch;
mod manifest;
mod plan;

use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::credentials::Credentials;
use super::egress::Client;
use super::outcome::{Outcomes, Worker};
use super::time::PlatformTime;
use super::worker::{Life, Next, StepError, Work};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{HttpsUrl, MediaConfig};
use crate::shutdown::Shutdown;
use crate::store::blobs::{MediaReport, Shelf};
use crate::store::{Bell, Blobs, Catalogue, ReadError};
use crate::telemetry::{Code, Telemetry};

use aside::Why;
use board::Board;
use bucket::Bucket;
use fetch::Fetcher;
use manifest::Refused;
use plan::{Circumstances, Plan};

/// Even without a bell the collection is walked again after this.
const WALK_AGAIN: Duration = Duration::from_secs(600);
/// A walk is not repeated before so many times its own duration: a large manifest that changes all the time must not
/// keep the box busy.
const WALK_SHARE: u32 = 10;
/// Even without news a plan is drawn again after this: times come and go.
const PLAN_AGAIN: Duration = Duration::from_secs(30);
/// News are looked for this often.
const SLICE: Duration = Duration::from_millis(250);

/// What media works with.
pub(super) struct MediaParts {
    pub(super) client: Client,
    pub(super) media_url: HttpsUrl,
    pub(super) credentials: Credentials,
    pub(super) config: MediaConfig,
    pub(super) catalogue: Catalogue,
    pub(super) blobs: Blobs,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) time: PlatformTime,
    pub(super) bell: Bell,
    pub(super) retry: Backoff,
    pub(super) outcomes: Outcomes,
    pub(super) telemetry: Telemetry,
    pub(super) shutdown: Shutdown,
}

/// The worker.
pub(super) struct Media {
    parts: MediaParts,
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
    shelf: Arc<Shelf>,
    refused: Refused,
    /// Documents changed since the last walk.
    is_stale: bool,
    /// Of the credentials, as last seen.
    version: u64,
    /// Monotonic times of the next walk: at the earliest, and in any case.
    walk_due: (Duration, Duration),
}

impl Media {
    pub(super) fn new(parts: MediaParts) -> Self {
        Self {
            board: Arc::new(Board::new(parts.config.parallel)),
            threads: Vec::new(),
            shelf: Arc::default(),
            refused: Refused::default(),
            is_stale: true,
            version: parts.credentials.version(),
            walk_due: (Duration::ZERO, Duration::ZERO),
            parts,
        }
    }

    fn start_threads(&mut self, life: &Life) -> Result<(), StepError> {
        let parts = &self.parts;
        let metrics = &parts.telemetry.metrics;
        let fetcher = Arc::new(Fetcher {
            client: parts.client.clone(),
            media_url: parts.media_url.clone(),
            credentials: parts.credentials.clone(),
            max_blob: parts.config.max_blob,
            catalogue: parts.catalogue.clone(),
            blobs: parts.blobs.clone(),
            clock: Arc::clone(&parts.clock),
            retry: parts.retry,
            outcomes: parts.outcomes.clone(),
            time: parts.time.clone(),
            shutdown: parts.shutdown.clone(),
            life: life.clone(),
            bucket: parts.config.rate_cap.map(Bucket::new).map(Mutex::new),
            fetched: metrics.counter("comptoir_media_fetched_total", "", "Blobs published."),
            refused: metrics.counter(
                "comptoir_media_refused_total",
                "",
                "Tries to have a blob that ended in a refusal.",
            ),
            wrong: metrics.counter(
                "comptoir_media_wrong_total",
                "",
                "Files that were not what was announced.",
            ),
            bytes: metrics.counter(
                "comptoir_media_bytes_total",
                "",
                "Bytes of blobs transferred.",
            ),
        });
        while self.threads.len() < parts.config.parallel {
            let (fetcher, board) = (Arc::clone(&fetcher), Arc::clone(&self.board));
            let name = format!("wan-media-{}", self.threads.len() + 1);
            let thread = Builder::new()
                .name(name)
                .spawn(move || fetcher.run(&board))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Reads the manifest anew, when that is due.
    fn walk(&mut self, life: &Life) -> Result<(), ReadError> {
        let start = self.parts.clock.monotonic();
        let (earliest, latest) = self.walk_due;
        if start < earliest || (!self.is_stale && start < latest) {
            return Ok(());
        }
        self.is_stale = false;
        let manifest = manifest::read(
            &self.parts.catalogue,
            &self.parts.media_url,
            self.parts.config.max_blob,
            |digest, source| {
                let last = self
                    .board
                    .with_aside(|aside| aside.last(&(*digest, source)));
                !matches!(last, Some(Why::Missing | Why::Wrong))
            },
            || life.sign(),
        )?;
        if manifest.refused != self.refused && manifest.refused.count > 0 {
            let documents = manifest.refused.detail();
            tracing::warn!(event = "media.document_refused", documents);
        }
        self.refused = manifest.refused;
        self.shelf = Arc::new(manifest.shelf);
        self.parts.blobs.set_shelf(Arc::clone(&self.shelf));
        let end = self.parts.clock.monotonic();
        let pause = end.saturating_sub(start) * WALK_SHARE;
        self.walk_due = (end + pause, end + WALK_AGAIN);
        Ok(())
    }

    /// Draws a plan and puts it up.
    fn plan(&self) -> (Plan, bool) {
        let parts = &self.parts;
        let now_ms = parts.clock.wall_ms();
        let window = parts.config.window.as_ref();
        let window_open = window.is_none_or(|window| window.is_open(now_ms));
        let items = self.shelf.items();
        let here = parts.blobs.are_here(items.iter().map(|item| &item.digest));
        let in_hand = self.board.in_hand();
        let plan = self.board.with_aside(|aside| {
            plan::draw(
                &self.shelf,
                &Circumstances {
                    here: &here,
                    aside,
                    in_hand: &in_hand,
                    now_ms,
                    now: parts.clock.monotonic(),
                    capacity: parts.blobs.capacity(),
                    window_open,
                },
            )
        });
        (plan, window_open)
    }

    /// Tells people and programs how it stands.
    fn tell(&self, plan: &Plan, window_open: bool) {
        let counts = plan.counts;
        let now_ms = self.parts.clock.wall_ms();
        let window = self.parts.config.window.as_ref();
        let opens_in = window
            .filter(|_| !window_open)
            .map(|window| window.opens_in(now_ms));
        self.hold(Code::MediaDocumentRefused, self.refused.count > 0, || {
            self.refused.detail()
        });
        self.hold(Code::MediaFailed, counts.failed > 0, || {
            let (digest, why) = match plan.failed_first {
                Some((digest, Why::Missing)) => (digest, "the host does not have it"),
                Some((digest, Why::Refused)) => (digest, "the host does not show it to this box"),
                Some((digest, _)) => (digest, "it is not what was announced"),
                None => return String::new(),
            };
            format!("{} files; {digest}: {why}", counts.failed)
        });
        self.hold(Code::MediaWithoutPlace, counts.without_place > 0, || {
            let room = crate::units::ByteSize::bytes(self.parts.blobs.capacity());
            format!(
                "{} files; there is room for {room} in all",
                counts.without_place
            )
        });
        // Last: who reads this report finds the conditions that belong to it.
        self.parts.blobs.tell(MediaReport {
            listed: counts.listed,
            fetched: counts.fetched,
            waiting: counts.waiting,
            failed: counts.failed,
            without_place: counts.without_place,
            refused_documents: self.refused.count,
            window_open,
            window_opens_ms: opens_in.map(|wait| {
                let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                now_ms.saturating_add(wait_ms)
            }),
            ..MediaReport::default()
        });
    }

    fn hold(&self, code: Code, holds: bool, detail: impl FnOnce() -> String) {
        let conditions = &self.parts.telemetry.conditions;
        if holds {
            conditions.raise(code, detail(), self.parts.clock.wall_ms());
        } else {
            conditions.clear(code);
        }
    }

    /// From now until a plan is due that nobody rings for.
    fn rest_at_most(&self) -> Duration {
        let now = self.parts.clock.monotonic();
        let next = self.board.with_aside(|aside| aside.next_in(now));
        let walk = self.is_stale.then(|| self.walk_due.0.saturating_sub(now));
        let waits = [next, walk].into_iter().flatten();
        waits.fold(PLAN_AGAIN, Duration::min).max(SLICE)
    }
}

impl Work for Media {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        if self.threads.is_empty() {
            self.start_threads(life)?;
        }
        self.is_stale |= self.parts.bell.wait(Duration::ZERO);
        let version = self.parts.credentials.version();
        if std::mem::replace(&mut self.version, version) != version {
            self.board.forgive_refusals();
        }
        self.walk(life)?;
        let (mut plan, window_open) = self.plan();
        self.tell(&plan, window_open);
        self.board
            .offer(std::mem::take(&mut plan.queue), &plan.useless, window_open);
        if !plan.needs_host && self.board.in_hand().is_empty() {
            // Nothing is wanted of the host, so nothing is wrong with it.
            self.parts.outcomes.succeeded(Worker::Media);
        }
        Ok(Next::Rest(self.rest_at_most()))
    }

    fn tells_outcomes(&self) -> bool {
        true
    }

    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        let mut left = wait;
        while !left.is_zero() && !shutdown.is_triggered() {
            let slice = left.min(SLICE);
            let news = self.board.take_news();
            self.is_stale |= news.address_failed;
            if news.is_any || self.parts.credentials.version() != self.version {
                break;
            }
            if self.parts.bell.wait(slice) {
                self.is_stale = true;
                break;
            }
            left -= slice;
        }
        shutdown.is_triggered()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        // They end with the shutdown; one that opens a connection ends with its deadline.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
