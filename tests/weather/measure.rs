//! What a box used to catch up, held against the least that the contract allows. No clock is read: requests and bytes are
//! counted as the platform saw them.
//!
//! | what was left | the ideal |
//! |---|---|
//! | documents changed | pages of as many items as the feed gives at once; bytes as a bare loop gets them |
//! | orders at the bus | one receive and one complete each. Its lock is no part of that: a message received before the cut comes again when the lock is over, for any client |
//! | orders in the feed of orders | pages of as many items as the box asks for |
//! | reports of the box | a batch for every [`BATCH`] of a lane; what is reported only now, of orders that came now, may go alone |
//! | images | a request each, each byte once |
//!
//! A poll that was held and had nothing to give is free: it is what waits for the next change.

use std::ops::Range;

use serde_json::Value;

/// At most so many times the ideal.
const AT_MOST: u64 = 2;
/// Items of a page of the feed (`wan.pull.page_items`).
const PAGE: u64 = 1000;
/// Items of a page of orders.
const ORDER_PAGE: u64 = 16;
/// Items of a batch of reports (`wan.push.batch_items`).
const BATCH: u64 = 100;
/// A poll that was held at least this long, in milliseconds, is free when it brings nothing.
const HELD_MS: u64 = 1000;

/// What is left when the weather is over.
#[derive(Debug, Clone, Default)]
pub struct Left {
    pub documents: u64,
    /// Bytes of their pages, as a bare loop gets them.
    pub page_bytes: u64,
    pub orders_at_bus: u64,
    pub orders_in_feed: u64,
    /// Reports of each lane that waits.
    pub reports: Vec<u64>,
    /// Reported while it caught up, beside those.
    pub news: u64,
    pub images: u64,
    pub image_bytes: u64,
}

/// Requests that did something, and what they brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    pub pages: u64,
    pub page_bytes: u64,
    pub received: u64,
    pub completed: u64,
    pub order_pages: u64,
    pub pushes: u64,
    pub images: u64,
    pub image_bytes: u64,
    /// Time, checksums, roll-outs, refused and empty ones: all that is neither work nor a held poll.
    pub others: u64,
}

impl Used {
    /// Of the requests of one range of the platform's record; what a fault hit counts for the weather.
    pub fn of(requests: &[Value]) -> Self {
        let mut used = Self::default();
        let whole = requests.iter().filter(|request| request["fault"].is_null());
        for request in whole {
            let text = |key: &str| request[key].as_str().unwrap_or_default();
            let number = |key: &str| request[key].as_u64().unwrap_or_default();
            let (path, is_empty) = (text("path"), request["empty"] == true);
            let is_good = matches!(number("status"), 200..=299);
            match (text("flow"), text("method")) {
                _ if is_empty && number("held_ms") >= HELD_MS => {}
                _ if is_empty || !is_good => used.others += 1,
                ("api", "GET") if path.ends_with("/orders/feed") => used.order_pages += 1,
                ("api", "GET") if path.ends_with("/feed") => {
                    used.pages += 1;
                    used.page_bytes += number("bytes");
                }
                ("api", "POST") if path.contains("/events") => used.pushes += 1,
                ("bus", "POST") if path.ends_with("/head") => used.received += 1,
                ("bus", "DELETE") => used.completed += 1,
                ("blob", "GET") => {
                    used.images += 1;
                    used.image_bytes += number("bytes");
                }
                _ => used.others += 1,
            }
        }
        used
    }

    fn requests(&self) -> u64 {
        let work = [self.pages, self.received, self.completed, self.order_pages];
        work.iter().sum::<u64>() + self.pushes + self.images + self.others
    }
}

/// Where more than [`AT_MOST`] times the ideal was used, or anything was fetched twice that came whole.
pub fn complaints(left: &Left, used: &Used) -> Vec<String> {
    let (pages, order_pages) = (
        left.documents.div_ceil(PAGE),
        left.orders_in_feed.div_ceil(ORDER_PAGE),
    );
    let batches = left
        .reports
        .iter()
        .map(|reports| reports.div_ceil(BATCH))
        .sum::<u64>();
    let ideal = pages + 2 * left.orders_at_bus + order_pages + batches + left.news + left.images;
    let twice = |least: u64| 0..AT_MOST * least + 1;
    let exactly = |least: u64| least..least + 1;
    let rules: [(&str, u64, Range<u64>); 9] = [
        ("pages of the feed", used.pages, twice(pages)),
        ("bytes of pages", used.page_bytes, twice(left.page_bytes)),
        (
            "messages received",
            used.received,
            exactly(left.orders_at_bus),
        ),
        (
            "messages completed",
            used.completed,
            exactly(left.orders_at_bus),
        ),
        ("pages of orders", used.order_pages, twice(order_pages)),
        (
            "reports sent",
            used.pushes,
            0..AT_MOST * batches + left.news + 1,
        ),
        ("images asked for", used.images, twice(left.images)),
        (
            "bytes of images",
            used.image_bytes,
            exactly(left.image_bytes),
        ),
        ("requests in all", used.requests(), twice(ideal)),
    ];
    let broken = rules
        .iter()
        .filter(|(_, found, allowed)| !allowed.contains(found));
    broken
        .map(|(what, found, allowed)| {
            format!(
                "{what}: {found}, allowed {} to {}",
                allowed.start,
                allowed.end - 1
            )
        })
        .collect()
}
