//! Orders over the platform's API, for shops whose network lets no bus through, and as a second way beside it.
//!
//! ```text
//!   GET orders/feed?cursor=C&wait_s=S --> page: every item into the inbox, with the cursor behind it, one transaction
//!     the bus works: no long poll, then a rest of `period`       410: the cursor is void, begin without one
//!     the bus does not: long poll after long poll                404, 405, 501: this platform has no such feed
//! ```
//! An order that came by the bus as well is known by its message id, or by its own.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::Api;
use super::bus::claim::{self, Claims};
use super::bus::report::OrdersReport;
use super::bus::{CLAIM_TRIES, MAX_MESSAGE};
use super::contract::FlowId;
use super::egress::{Answer, Cause, EgressError, bad_answer};
use super::outcome::{Outcomes, Worker};
use super::sas::percent_encoded;
use super::time::PlatformTime;
use super::worker::{Life, Next, StepError, Work};
use crate::config::OrdersFeedConfig;
use crate::digest::Digest;
use crate::shutdown::Shutdown;
use crate::store::Orders;
use crate::store::orders::{Content, InboxMessage, ParkCode, Source};
use crate::telemetry::Telemetry;
use crate::units::ByteSize;

/// Orders asked for at once; halved when a page is too large.
const PAGE_ITEMS: u32 = 16;
/// A page at most: that many of the largest messages.
const MAX_PAGE: ByteSize = ByteSize::mib(5);
/// A platform without this feed is asked again so seldom.
const NOT_OFFERED: Duration = Duration::from_secs(900);
/// While the feed rests it looks this often whether the bus still works.
const LOOK_AT_BUS: Duration = Duration::from_secs(2);
/// An empty page that came sooner than this was no long poll.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// What the feed works with.
pub(super) struct OrdersFeedParts {
    pub(super) api: Api,
    pub(super) claims: Claims,
    pub(super) orders: Orders,
    pub(super) config: OrdersFeedConfig,
    pub(super) outcomes: Outcomes,
    pub(super) time: PlatformTime,
    pub(super) telemetry: Telemetry,
}

/// The worker.
pub(super) struct OrdersFeed {
    parts: OrdersFeedParts,
    report: OrdersReport,
    page_items: u32,
    /// The claim check whose document could not be fetched, and how often.
    stuck: Option<(String, u64)>,
    /// The rest may end early when the bus fails.
    stands_in: bool,
}

/// An item of a page.
struct Item {
    cursor: Option<String>,
    message: InboxMessage,
}

struct Page {
    items: Vec<Item>,
    next: String,
    caught_up: bool,
}

impl OrdersFeed {
    pub(super) fn new(parts: OrdersFeedParts) -> Self {
        Self {
            report: OrdersReport::of_feed(&parts.telemetry),
            parts,
            page_items: PAGE_ITEMS,
            stuck: None,
            stands_in: false,
        }
    }

    fn bus_works(&self) -> bool {
        bus_works(&self.parts.outcomes)
    }

    /// `None`: there is no page to be had now, and how long to rest.
    fn page(&mut self, wait: Duration) -> Result<Result<Page, Next>, StepError> {
        let cursor = self.parts.orders.cursor()?;
        let mut path = format!(
            "/orders/feed?limit={}&wait_s={}",
            self.page_items,
            wait.as_secs()
        );
        if let Some(cursor) = &cursor {
            path.push_str("&cursor=");
            path.push_str(&percent_encoded(cursor));
        }
        let answer = self.parts.api.get(&path, false, wait)?;
        match answer.status() {
            404 | 405 | 501 => {
                let _ = answer.into_error(Cause::NotFound);
                tracing::debug!(event = "orders_feed.not_offered");
                Ok(Err(Next::Rest(NOT_OFFERED)))
            }
            410 if cursor.is_some() => {
                let _ = answer.into_error(Cause::Gone);
                tracing::info!(event = "orders_feed.cursor_void");
                self.parts.orders.forget_cursor().wait()?;
                Ok(Err(Next::Again))
            }
            _ => self.read(answer.success()?).map(Ok).map_err(Into::into),
        }
    }

    fn read(&mut self, answer: Answer) -> Result<Page, EgressError> {
        let bytes = answer.bytes(MAX_PAGE).inspect_err(|error| {
            if error.cause == Cause::TooLarge {
                self.page_items = (self.page_items / 2).max(1);
            }
        })?;
        read_page(&bytes).map_err(|error| bad_answer(FlowId::Api, error))
    }

    /// Takes a page; what is behind a document that can't be fetched now is taken later.
    fn take(&mut self, page: Page, life: &Life) -> Result<(), StepError> {
        let mut taken = Vec::with_capacity(page.items.len());
        let (mut cursor, mut failed) = (Some(page.next), None);
        let mut last_cursor = None;
        for item in page.items {
            life.sign();
            match self.content(&item.message) {
                Ok(content) => taken.push((item.message, content)),
                Err(StepError::Egress(error)) => {
                    failed = Some(error);
                    cursor = last_cursor;
                    break;
                }
                Err(error) => return Err(error),
            }
            last_cursor = item.cursor.or(last_cursor);
        }
        let received = self.parts.orders.receive_page(taken, cursor).wait()?;
        for received in &received {
            self.report.took(received);
        }
        self.report
            .look(&self.parts.orders, self.parts.time.now_ms())?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn content(&mut self, message: &InboxMessage) -> Result<Content, StepError> {
        let Some(claim) = claim::read(&message.body) else {
            return Ok(Content::Itself);
        };
        if self
            .parts
            .orders
            .has_message(&message.message_id, &message.body)?
        {
            return Ok(Content::Itself);
        }
        let error = match self.parts.claims.fetch(&claim) {
            Ok(content) => {
                self.stuck = None;
                return Ok(content);
            }
            Err(error) => error,
        };
        let tries = match &self.stuck {
            Some((id, tries)) if *id == message.message_id => tries + 1,
            _ => 1,
        };
        self.stuck = Some((message.message_id.clone(), tries));
        if tries < CLAIM_TRIES {
            return Err(error.into());
        }
        let cause = error.cause.as_str();
        Ok(Content::Missing {
            why: ParkCode::NoDocument,
            reason: format!("its document can't be fetched: {cause}"),
        })
    }
}

fn bus_works(outcomes: &Outcomes) -> bool {
    outcomes
        .list()
        .iter()
        .any(|outcome| outcome.worker == Worker::Bus && outcome.cause.is_none())
}

/// Reads a page. What an item's body is, the inbox decides; an item that is none at all goes there as it is, to be parked,
/// and holds up nothing.
fn read_page(text: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    struct RawPage<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
        next: String,
        #[serde(default)]
        caught_up: bool,
    }
    #[derive(Deserialize)]
    struct RawItem<'a> {
        cursor: Option<String>,
        message_id: Option<String>,
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let page: RawPage<'_> =
        serde_json::from_slice(text).map_err(|error| format!("column {}", error.column()))?;
    if page.next.is_empty() {
        return Err("no cursor".to_owned());
    }
    let items = page.items.into_iter().map(|whole| {
        let item = serde_json::from_str(whole.get()).unwrap_or(RawItem {
            cursor: None,
            message_id: None,
            body: whole,
        });
        let body = item.body.get().as_bytes();
        let message_id = item
            .message_id
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| format!("sha256-{}", Digest::of(body)));
        Item {
            cursor: item.cursor,
            message: InboxMessage {
                message_id,
                source: Source::Api,
                body: body.to_vec(),
            },
        }
    });
    Ok(Page {
        items: items.collect(),
        next: page.next,
        caught_up: page.caught_up,
    })
}

impl Work for OrdersFeed {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let bus_works = self.bus_works();
        let wait = if bus_works {
            Duration::ZERO
        } else {
            self.parts.config.wait
        };
        let asked_at = Instant::now();
        self.stands_in = false;
        let page = match self.page(wait)? {
            Ok(page) => page,
            Err(next) => return Ok(next),
        };
        let (caught_up, was_empty) = (page.caught_up, page.items.is_empty());
        self.take(page, life)?;
        if !caught_up {
            return Ok(Next::Again);
        }
        self.stands_in = bus_works;
        Ok(if bus_works {
            Next::Rest(self.parts.config.period)
        } else if was_empty && asked_at.elapsed() < SHORTEST_POLL {
            Next::Rest(SHORTEST_POLL)
        } else {
            Next::Again
        })
    }

    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        let mut left = wait;
        while !left.is_zero() {
            let slice = left.min(LOOK_AT_BUS);
            if shutdown.wait(slice) {
                return true;
            }
            left -= slice;
            if self.stands_in && !self.bus_works() {
                break;
            }
        }
        false
    }
}

// A page of the largest messages fits.
const _: () = assert!(MAX_PAGE.as_u64() >= PAGE_ITEMS as u64 * (256 << 10));
const _: () = assert!(MAX_PAGE.as_u64() >= MAX_MESSAGE.as_u64());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_each_body_byte_for_byte() {
        let page = br#"{"items":[{"cursor":"o-1","message_id":"m1","body":{"price":1.10, "x":[]}},
            {"body":"no order"}],"next":"o-2","caught_up":true,"new":1}"#;
        let page = read_page(page).unwrap();
        assert_eq!(page.items[0].message.body, br#"{"price":1.10, "x":[]}"#);
        assert_eq!(page.items[0].cursor.as_deref(), Some("o-1"));
        let digest = Digest::of(br#""no order""#);
        assert_eq!(page.items[1].message.message_id, format!("sha256-{digest}"));
        assert!(page.caught_up);
        for wrong in [
            &br#"{"items":[],"next":""}"#[..],
            b"<html>",
            br#"{"items":{},"next":"a"}"#,
        ] {
            assert!(read_page(wrong).is_err());
        }
    }

    #[test]
    fn an_item_that_is_none_is_kept_as_it_is_and_the_page_goes_on() {
        let odd = ["{}", r#"{"message_id":5,"body":{}}"#, "null", "[1, 2]"];
        for odd in odd {
            let good = r#"{"cursor":"o-1","message_id":"m1","body":{}}"#;
            let page = format!(r#"{{"items":[{odd},{good}],"next":"o-2"}}"#);
            let page = read_page(page.as_bytes()).unwrap();
            let [kept, next] = &page.items[..] else {
                panic!("{odd}");
            };
            assert_eq!(kept.message.body, odd.as_bytes());
            let id = format!("sha256-{}", Digest::of(odd.as_bytes()));
            assert_eq!(kept.message.message_id, id);
            assert_eq!(next.message.message_id, "m1");
            assert_eq!(page.next, "o-2");
        }
    }
}
