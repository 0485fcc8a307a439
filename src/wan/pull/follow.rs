//! The feed: page by page, and what overtakes when there is much of it.

use std::time::{Duration, Instant};

use super::body::{JSON, decoded_bytes, expect_type};
use super::{MAX_PAGE, Pull, PullReport, SHORTEST_POLL, URGENT_CLASS};
use crate::store::Catalogue;
use crate::telemetry::chain;
use crate::wan::api::Api;
use crate::wan::contract::FlowId;
use crate::wan::egress::{Cause, EgressError, bad_answer};
use crate::wan::sas::percent_encoded;
use crate::wan::snapshot;
use crate::wan::wire::{FeedPage, UnreadableItem, read_feed_page};
use crate::wan::worker::{Life, Next, StepError};

/// Between two looks for what is urgent, while the rest is being caught up.
const OVERTAKE_EVERY: Duration = Duration::from_secs(10);

/// Pages of what is urgent taken in a row, before the rest goes on.
const OVERTAKE_PAGES: usize = 50;

/// The feed may begin this much later than the box last heard of it: clocks differ, and the platform holds questions.
const HORIZON_MARGIN_MS: i64 = 3_600_000;

/// From one refetch because of the horizon to the next: a clock that is wrong must not become a loop.
const HORIZON_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// What became of a question to the feed.
enum Asked {
    Body(Vec<u8>),
    /// The cursor is void.
    Refetch,
    /// More than a page may be.
    TooLarge,
}

struct Question<'a> {
    cursor: &'a str,
    items: u32,
    wait: Duration,
    class: Option<&'a str>,
    until: Option<&'a str>,
}

fn ask(api: &Api, question: &Question<'_>) -> Result<Asked, EgressError> {
    let mut path = format!(
        "/feed?cursor={}&limit={}&wait_s={}",
        percent_encoded(question.cursor),
        question.items,
        question.wait.as_secs()
    );
    for (name, value) in [("class", question.class), ("until", question.until)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
    }
    let answer = api.get(&path, true, question.wait)?;
    if answer.status() == 410 {
        return Ok(Asked::Refetch);
    }
    let answer = expect_type(answer.success()?, JSON)?;
    match decoded_bytes(answer, MAX_PAGE) {
        Err(error) if error.cause == Cause::TooLarge => Ok(Asked::TooLarge),
        other => Ok(Asked::Body(other?)),
    }
}

fn read<'a>(
    body: &'a [u8],
    cursor: &str,
    report: &mut PullReport,
) -> Result<FeedPage<'a>, EgressError> {
    let page = read_feed_page(body, snapshot::MAX_LINE_BYTES)
        .map_err(|why| bad_answer(FlowId::Api, why.to_string()))?;
    let is_empty = page.changes.is_empty() && page.unreadable.is_empty();
    if page.next == cursor && !is_empty {
        // Taking it would ask for the same page for ever.
        return Err(bad_answer(FlowId::Api, "the cursor does not move on"));
    }
    report.heard();
    Ok(page)
}

impl Pull {
    pub(super) fn follow(&mut self, cursor: &str, life: &Life) -> Result<Next, StepError> {
        if let Some(next) = self.verify(cursor, life)? {
            return Ok(next);
        }
        let asked_at = Instant::now();
        let until = self.verify.until();
        let wait = if self.ahead.is_on() || until.is_some() {
            Duration::ZERO
        } else {
            // A look at the checksums that is due soon is not slept over.
            self.config.wait.min(self.verify.due_in())
        };
        let question = Question {
            cursor,
            items: self.page_items,
            wait,
            class: None,
            until: until.as_deref(),
        };
        let body = match ask(&self.api, &question)? {
            Asked::Body(body) => body,
            Asked::Refetch => {
                tracing::info!(event = "pull.refetch_asked");
                self.refetch = true;
                return Ok(Next::Again);
            }
            Asked::TooLarge => return Ok(self.page_too_large()),
        };
        let heard_ms = self.catalogue.last_pull()?.max(self.report.last_heard_ms());
        let page = read(&body, cursor, &mut self.report)?;
        if self.has_missed(&page, heard_ms) {
            tracing::warn!(
                event = "pull.horizon_passed",
                heard_ms,
                horizon_ms = page.horizon_ms
            );
            self.horizon_refetched = Some(Instant::now());
            self.refetch = true;
            return Ok(Next::Again);
        }
        for (why, text) in &page.unreadable {
            self.report.refused(why, text.get().as_bytes());
        }
        let (count, caught_up) = (page.changes.len(), page.caught_up);
        let is_empty = count == 0 && page.unreadable.is_empty();
        let moved = page.next != cursor;
        if moved {
            self.catalogue.apply_page(page.changes, &page.next).wait()?;
            self.report.documents.add(count as u64);
            tracing::debug!(event = "pull.page_applied", documents = count, caught_up);
            self.page_items = self.config.page_items.min(self.page_items * 2);
        }
        if caught_up {
            self.ahead.end();
            self.verify.caught_up();
        } else if moved && until.is_none() {
            self.ahead.begin(&page.next);
            self.ahead.overtake(&mut self.report)?;
        }
        let was_held = asked_at.elapsed() >= SHORTEST_POLL;
        if is_empty && !moved && !was_held && !self.verify.is_ready() {
            return Ok(Next::Rest(SHORTEST_POLL));
        }
        Ok(Next::Again)
    }

    /// Whether changes may have left the feed between what was last heard of it and its beginning, although the platform
    /// takes the cursor. A feed without news has lost none.
    fn has_missed(&self, page: &FeedPage<'_>, heard_ms: Option<i64>) -> bool {
        let (Some(horizon_ms), Some(heard_ms)) = (page.horizon_ms, heard_ms) else {
            return false;
        };
        let has_news = !(page.changes.is_empty() && page.unreadable.is_empty());
        has_news
            && horizon_ms.saturating_sub(heard_ms) > HORIZON_MARGIN_MS
            && self
                .horizon_refetched
                .is_none_or(|at| at.elapsed() > HORIZON_PAUSE)
    }

    fn page_too_large(&mut self) -> Next {
        if self.page_items > 1 {
            self.page_items = (self.page_items / 2).max(1);
            tracing::info!(event = "pull.page_shrunk", items = self.page_items);
        } else {
            // One change larger than a page: a snapshot passes over it, and its cursor leads past it.
            let why = UnreadableItem::TooLong(MAX_PAGE.as_usize());
            self.report.refused(&why, &[]);
            self.page_items = self.config.page_items;
            self.refetch = true;
        }
        Next::Again
    }
}

/// A second place in the feed, for what is urgent alone: on while there is much to catch up. It is only in memory: after
/// a restart the urgent changes come once more, and a change that is there already does nothing.
pub(super) struct Ahead {
    api: Api,
    catalogue: Catalogue,
    items: u32,
    cursor: Option<String>,
    asked_at: Option<Instant>,
}

impl Ahead {
    pub(super) fn new(api: Api, catalogue: Catalogue, items: u32) -> Self {
        Self {
            api,
            catalogue,
            items,
            cursor: None,
            asked_at: None,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.cursor.is_some()
    }

    /// Goes ahead from `cursor` on, unless it is ahead already.
    pub(super) fn begin(&mut self, cursor: &str) {
        if self.cursor.is_none() {
            self.cursor = Some(cursor.to_owned());
            self.asked_at = None;
        }
    }

    pub(super) fn end(&mut self) {
        self.cursor = None;
    }

    /// Takes what is urgent, unless that was tried just now. What the platform or the network does not give is no failure
    /// of the rest: it comes in its turn.
    pub(super) fn overtake(&mut self, report: &mut PullReport) -> Result<(), StepError> {
        let is_early = self
            .asked_at
            .is_some_and(|at| at.elapsed() < OVERTAKE_EVERY);
        let Some(cursor) = self.cursor.clone().filter(|_| !is_early) else {
            return Ok(());
        };
        let taken = self.take_ahead(cursor, report);
        self.asked_at = Some(Instant::now());
        match taken {
            Err(StepError::Egress(error)) => {
                tracing::debug!(event = "pull.overtaking_failed", error = chain(&error));
                Ok(())
            }
            other => other,
        }
    }

    fn take_ahead(&mut self, mut cursor: String, report: &mut PullReport) -> Result<(), StepError> {
        for _ in 0..OVERTAKE_PAGES {
            let question = Question {
                cursor: &cursor,
                items: self.items,
                wait: Duration::ZERO,
                class: Some(URGENT_CLASS),
                until: None,
            };
            let Asked::Body(body) = ask(&self.api, &question)? else {
                // The ordinary way brings it too, and finds out what is the matter.
                break;
            };
            // What can't be kept is told when it comes on the ordinary way.
            let page = read(&body, &cursor, report)?;
            let count = page.changes.len();
            if count > 0 {
                self.catalogue.apply_ahead(page.changes).wait()?;
                report.overtook(count);
            }
            let ends = page.caught_up || page.next == cursor;
            cursor = page.next;
            self.cursor = Some(cursor.clone());
            if ends {
                break;
            }
        }
        Ok(())
    }
}
