//! Platform to store: a snapshot, then the change feed.
//!
//! ```text
//!            no cursor                       410 (unknown cursor, or older than the horizon)
//!  start ----------------> snapshot <-----------------------------------------------.
//!    |                        | end line seen, all lines counted                    |
//!    |                        v documents swept and cursor set in one transaction   |
//!    '--- has a cursor -----> feed: page -> documents and cursor in one transaction-'
//! ```
//! Where it stands is the cursor in the catalogue and nothing else, so a restart at any point loses nothing: a snapshot
//! that was cut is taken again (its documents are served meanwhile), a page that was not committed is asked again.
//! A document that can't be kept is counted and told (`pull.item_refused`), never fatal.

use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use super::api::Api;
use super::contract::FlowId;
use super::egress::{Answer, Cause, EgressError, bad_answer};
use super::sas::percent_encoded;
use super::snapshot;
use super::wire::{UnreadableItem, read_feed_page};
use super::worker::{Life, Next, StepError, Work};
use crate::clock::Clock;
use crate::config::PullConfig;
use crate::store::Catalogue;
use crate::telemetry::{Code, Counter, Gauge, Telemetry};
use crate::units::ByteSize;

/// A page of the feed at most; a larger one is asked again with fewer items.
const MAX_PAGE: ByteSize = ByteSize::mib(16);
/// An empty page that came sooner than this was not held by the platform: wait, so that no loop spins.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// The worker.
pub(super) struct Pull {
    api: Api,
    catalogue: Catalogue,
    config: PullConfig,
    report: PullReport,
    /// The platform no longer knows the cursor.
    refetch: bool,
    page_items: u32,
}

impl Pull {
    pub(super) fn new(
        api: Api,
        catalogue: Catalogue,
        config: PullConfig,
        report: PullReport,
    ) -> Self {
        let page_items = config.page_items;
        Self {
            api,
            catalogue,
            config,
            report,
            refetch: false,
            page_items,
        }
    }

    fn follow(&mut self, cursor: &str) -> Result<Next, StepError> {
        let wait = self.config.wait;
        let path = format!(
            "/feed?cursor={}&limit={}&wait_s={}",
            percent_encoded(cursor),
            self.page_items,
            wait.as_secs()
        );
        let asked_at = Instant::now();
        let answer = self.api.get(&path, true, wait)?;
        if answer.status() == 410 {
            tracing::info!(event = "pull.refetch_asked");
            self.refetch = true;
            return Ok(Next::Again);
        }
        let answer = expect_type(answer.success()?, "application/json")?;
        let body = match decoded_bytes(answer, MAX_PAGE) {
            Err(error) if error.cause == Cause::TooLarge && self.page_items > 1 => {
                self.page_items = (self.page_items / 2).max(1);
                tracing::info!(event = "pull.page_shrunk", items = self.page_items);
                return Ok(Next::Again);
            }
            Err(error) if error.cause == Cause::TooLarge => {
                // One change larger than a page: a snapshot passes over it, and its cursor leads past it.
                self.report
                    .refused(&UnreadableItem::TooLong(MAX_PAGE.as_usize()));
                self.page_items = self.config.page_items;
                self.refetch = true;
                return Ok(Next::Again);
            }
            other => other?,
        };
        let page = read_feed_page(&body, snapshot::MAX_LINE_BYTES)
            .map_err(|why| bad_answer(FlowId::Api, why.to_string()))?;
        self.report.heard();
        for why in &page.unreadable {
            self.report.refused(why);
        }
        let count = page.changes.len();
        let is_empty = count == 0 && page.unreadable.is_empty();
        if page.next == cursor && !is_empty {
            // Taking it would ask for the same page for ever.
            return Err(bad_answer(FlowId::Api, "the cursor does not move on").into());
        }
        if page.next != cursor {
            self.catalogue.apply_page(page.changes, &page.next).wait()?;
            self.report.documents.add(count as u64);
            tracing::debug!(
                event = "pull.page_applied",
                documents = count,
                caught_up = page.caught_up
            );
            self.page_items = self.config.page_items.min(self.page_items * 2);
        }
        if is_empty && asked_at.elapsed() < SHORTEST_POLL {
            return Ok(Next::Rest(SHORTEST_POLL));
        }
        Ok(Next::Again)
    }

    fn refill(&mut self, life: &Life) -> Result<Next, StepError> {
        let answer = self.api.get("/snapshot", true, Duration::ZERO)?.success()?;
        let answer = expect_type(answer, "application/x-ndjson")?;
        let cursor = answer
            .header("feed-cursor")
            .filter(|cursor| !cursor.is_empty())
            .ok_or_else(|| bad_answer(FlowId::Api, "a snapshot without Feed-Cursor"))?
            .to_owned();
        tracing::info!(event = "pull.snapshot_started", refetch = self.refetch);
        let gzip = is_gzip(&answer)?;
        let (reader, sort) = answer.into_reader();
        let reader: Box<dyn Read + '_> = if gzip {
            Box::new(MultiGzDecoder::new(BufReader::new(reader)))
        } else {
            Box::new(reader)
        };
        let taken = snapshot::take(reader, &cursor, &self.catalogue, &mut self.report, life);
        let taken = taken.map_err(|error| error.into_step(sort))?;
        self.refetch = false;
        self.report.snapshot_finished(&taken);
        Ok(Next::Again)
    }
}

impl Work for Pull {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        match self.catalogue.cursor()? {
            Some(cursor) if !self.refetch => self.follow(&cursor),
            _ => self.refill(life),
        }
    }
}

/// Networks' login pages and proxies answer with HTML.
fn expect_type(answer: Answer, expected: &str) -> Result<Answer, EgressError> {
    if answer.is_of_type(expected) {
        return Ok(answer);
    }
    let found = answer.header("content-type").unwrap_or("none").to_owned();
    Err(bad_answer(
        FlowId::Api,
        format!("{found} where {expected} was agreed"),
    ))
}

fn is_gzip(answer: &Answer) -> Result<bool, EgressError> {
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
fn decoded_bytes(answer: Answer, limit: ByteSize) -> Result<Vec<u8>, EgressError> {
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

/// What pull tells of itself.
pub(super) struct PullReport {
    pub(super) documents: Counter,
    refused: Counter,
    snapshots: Counter,
    heard_ms: Gauge,
    /// Since start or the last snapshot without any.
    refused_now: u64,
    telemetry: Telemetry,
    clock: std::sync::Arc<dyn Clock>,
}

impl PullReport {
    pub(super) fn new(telemetry: &Telemetry, clock: std::sync::Arc<dyn Clock>) -> Self {
        let metrics = &telemetry.metrics;
        Self {
            documents: metrics.counter(
                "comptoir_pull_documents_total",
                "",
                "Documents and deletions taken from the platform.",
            ),
            refused: metrics.counter(
                "comptoir_pull_refused_total",
                "",
                "Items of the platform that could not be kept.",
            ),
            snapshots: metrics.counter(
                "comptoir_pull_snapshots_total",
                "",
                "Snapshots taken whole.",
            ),
            heard_ms: telemetry.feed_heard_ms(),
            refused_now: 0,
            telemetry: telemetry.clone(),
            clock,
        }
    }

    fn heard(&self) {
        self.heard_ms.set(self.clock.wall_ms());
    }

    pub(super) fn refused(&mut self, why: &UnreadableItem) {
        self.refused.add_one();
        self.refused_now += 1;
        let detail = format!("{} items, the last one: {why}", self.refused_now);
        self.telemetry
            .conditions
            .raise(Code::FeedItemRefused, detail, self.clock.wall_ms());
    }

    fn snapshot_finished(&mut self, taken: &snapshot::Taken) {
        self.snapshots.add_one();
        if taken.refused == 0 {
            self.refused_now = 0;
            self.telemetry.conditions.clear(Code::FeedItemRefused);
        }
        tracing::info!(
            event = "pull.snapshot_finished",
            documents = taken.documents,
            refused = taken.refused,
            swept = taken.swept,
            seconds = taken.seconds
        );
    }
}

#[cfg(test)]
mod tests;
