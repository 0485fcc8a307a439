//! What pull tells of itself.

use std::sync::Arc;
use std::time::Instant;

use super::refill::seconds_since;
use crate::clock::Clock;
use crate::store::Catalogue;
use crate::store::catalogue::SnapshotPlace;
use crate::telemetry::{Code, Counter, Gauge, Telemetry};
use crate::wan::wire::UnreadableItem;

/// Items set aside in a row; of those beyond, only their number is told.
const ASIDE_IN_A_ROW: u64 = 100;

/// Counters, conditions and what was set aside.
pub(in crate::wan) struct PullReport {
    pub(in crate::wan) documents: Counter,
    overtaking: Counter,
    refused: Counter,
    snapshots: Counter,
    resumed: Counter,
    started_over: Counter,
    compared: Counter,
    repaired: Counter,
    heard_ms: Gauge,
    /// Since the last snapshot without any or the last agreement, also over restarts.
    refused_now: u64,
    /// The catalogue is noted to differ.
    differs: bool,
    began: Option<Instant>,
    catalogue: Catalogue,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
}

impl PullReport {
    pub(in crate::wan) fn new(
        telemetry: &Telemetry,
        catalogue: Catalogue,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let counter = |name, help| telemetry.metrics.counter(name, "", help);
        // What can't be read now is said by whoever needs it next.
        let faults = catalogue.faults().unwrap_or_default();
        let now_ms = clock.wall_ms();
        if let Some((count, why)) = &faults.refused {
            let code = Code::FeedItemRefused;
            telemetry
                .conditions
                .raise(code, refused_detail(*count, why), now_ms);
        }
        if let Some(detail) = &faults.differs {
            let code = Code::CatalogueDiffers;
            telemetry.conditions.raise(code, detail, now_ms);
        }
        Self {
            documents: counter(
                "comptoir_pull_documents_total",
                "Documents and deletions taken from the platform.",
            ),
            overtaking: counter(
                "comptoir_pull_overtaking_total",
                "Urgent changes taken before their turn.",
            ),
            refused: counter(
                "comptoir_pull_refused_total",
                "Items of the platform that could not be kept.",
            ),
            snapshots: counter("comptoir_pull_snapshots_total", "Snapshots taken whole."),
            resumed: counter(
                "comptoir_pull_resumed_total",
                "Parts of snapshots taken up again in their middle.",
            ),
            started_over: counter(
                "comptoir_pull_snapshots_changed_total",
                "Snapshots begun anew because the platform no longer had the one begun.",
            ),
            compared: counter(
                "comptoir_pull_checksums_total",
                "Comparisons with the platform's checksums.",
            ),
            repaired: counter(
                "comptoir_pull_buckets_repaired_total",
                "Buckets of documents fetched anew because they differed.",
            ),
            heard_ms: telemetry.feed_heard_ms(),
            refused_now: faults.refused.map_or(0, |(count, _)| count),
            differs: faults.differs.is_some(),
            began: None,
            catalogue,
            telemetry: telemetry.clone(),
            clock,
        }
    }

    /// When the platform was last heard since the start.
    pub(super) fn last_heard_ms(&self) -> Option<i64> {
        Some(self.heard_ms.value()).filter(|at_ms| *at_ms > 0)
    }

    pub(super) fn heard(&self) {
        self.heard_ms.set(self.clock.wall_ms());
    }

    pub(super) fn overtook(&self, count: usize) {
        self.overtaking.add(count as u64);
        tracing::debug!(event = "pull.overtaken", documents = count);
    }

    /// An item that can't be kept, with the bytes that came of it.
    pub(in crate::wan) fn refused(&mut self, why: &UnreadableItem, text: &[u8]) {
        self.refused.add_one();
        self.refused_now += 1;
        if self.refused_now <= ASIDE_IN_A_ROW {
            // For support; the pull does not wait for it.
            drop(self.catalogue.set_aside(why.to_string(), text));
        }
        let detail = refused_detail(self.refused_now, why);
        self.telemetry
            .conditions
            .raise(Code::FeedItemRefused, detail, self.clock.wall_ms());
    }

    pub(super) fn snapshot_begun(&mut self) {
        self.began = Some(Instant::now());
    }

    pub(super) fn resumed(&self, part: &str, at: u64, from: u64) {
        self.resumed.add_one();
        tracing::info!(event = "pull.part_resumed", part, at, from);
    }

    pub(super) fn started_over(&self, snapshot: &str, why: &str) {
        self.started_over.add_one();
        tracing::warn!(event = "pull.snapshot_changed", snapshot, why);
    }

    pub(super) fn snapshot_finished(&mut self, taken: &SnapshotPlace, swept: usize) {
        self.snapshots.add_one();
        if taken.refused == 0 {
            self.nothing_refused();
        }
        tracing::info!(
            event = "pull.snapshot_finished",
            documents = taken.documents - taken.refused.min(taken.documents),
            refused = taken.refused,
            bytes = taken.bytes,
            swept,
            seconds = seconds_since(self.began.take())
        );
    }

    pub(super) fn compared(&self, differing: usize) {
        self.compared.add_one();
        tracing::debug!(event = "pull.checksums_compared", differing);
    }

    pub(super) fn repaired(&self, collection: &str, bucket: u8, changed: usize, deleted: usize) {
        self.repaired.add_one();
        tracing::warn!(
            event = "pull.bucket_repaired",
            collection,
            bucket,
            changed,
            deleted
        );
    }

    fn nothing_refused(&mut self) {
        if std::mem::take(&mut self.refused_now) > 0 {
            drop(self.catalogue.nothing_refused());
        }
        self.telemetry.conditions.clear(Code::FeedItemRefused);
    }

    /// Both sides hold the same: what was refused on the way is not missing.
    pub(super) fn agrees(&mut self) {
        if std::mem::replace(&mut self.differs, false) {
            drop(self.catalogue.note_differing(None));
        }
        self.nothing_refused();
        self.telemetry.conditions.clear(Code::CatalogueDiffers);
    }

    /// They do not, although it was repaired.
    pub(super) fn differs(&mut self, detail: String) {
        self.differs = true;
        drop(self.catalogue.note_differing(Some(detail.clone())));
        self.telemetry
            .conditions
            .raise(Code::CatalogueDiffers, detail, self.clock.wall_ms());
    }
}

fn refused_detail(count: u64, why: impl std::fmt::Display) -> String {
    format!("{count} items, the last one: {why}")
}
