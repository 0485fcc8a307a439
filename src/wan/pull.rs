//! Platform to store: a snapshot, then the change feed, and now and then a look whether both sides hold the same.
//!
//! ```text
//!            no cursor                       410 (unknown cursor), or last heard before the horizon
//!  start ----------------> snapshot <-----------------------------------------------.
//!    |                        | plan -> parts in order of urgency, each resumed at its byte
//!    |                        v documents swept, and cursor set with the last       |
//!    '--- has a cursor -----> feed: page -> documents and cursor in one transaction-'
//!                             |  ^ far behind: what is urgent overtakes (class=prices)
//!                             v  |
//!                          checksums at the same place of the feed: a bucket that differs is fetched anew
//! ```
//! Where it stands is in the catalogue and nowhere else, written with the documents before it, so a restart at any point
//! loses nothing. A document that can't be kept is set aside, counted and told (`pull.item_refused`), never fatal.

mod body;
mod follow;
mod refill;
mod report;
mod verify;

use std::time::{Duration, Instant};

use super::api::Api;
use super::worker::{Life, Next, StepError, Work};
use crate::config::PullConfig;
use crate::store::Catalogue;
use crate::units::ByteSize;

pub(super) use report::PullReport;

use follow::Ahead;
use verify::Verify;

/// A page of the feed at most; a larger one is asked again with fewer items.
const MAX_PAGE: ByteSize = ByteSize::mib(16);
/// An empty page that came sooner than this was not held by the platform: wait, so that no loop spins.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
/// The class of the contract that overtakes: prices and stock.
const URGENT_CLASS: &str = "prices";

/// The worker.
pub(super) struct Pull {
    api: Api,
    catalogue: Catalogue,
    config: PullConfig,
    report: PullReport,
    /// The platform no longer knows the cursor.
    refetch: bool,
    /// Since when the horizon alone asks for no other refetch.
    horizon_refetched: Option<Instant>,
    page_items: u32,
    /// Deleted at the end of a snapshot so far.
    swept: usize,
    ahead: Ahead,
    verify: Verify,
}

impl Pull {
    pub(super) fn new(
        api: Api,
        catalogue: Catalogue,
        config: PullConfig,
        report: PullReport,
    ) -> Self {
        Self {
            page_items: config.page_items,
            ahead: Ahead::new(api.clone(), catalogue.clone(), config.page_items),
            verify: Verify::new(config.verify),
            api,
            catalogue,
            config,
            report,
            refetch: false,
            horizon_refetched: None,
            swept: 0,
        }
    }
}

impl Work for Pull {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        if let Some(run) = self.catalogue.running_snapshot()? {
            return self.take(run, life);
        }
        match self.catalogue.cursor()? {
            Some(cursor) if !self.refetch => self.follow(&cursor, life),
            _ => self.begin(),
        }
    }
}

#[cfg(test)]
mod tests;
