//! Whether both sides hold the same, and the silent repair when they do not.
//!
//! ```text
//!  due --> totals at place Y of the feed --> own place is Y? --no--> follow the feed until Y
//!   ^                                             | yes
//!   |            same: condition cleared          v
//!   '<---------------------------------- compare collections
//!   |                                             | one differs: its buckets, the same way
//!   '<-- fetch the buckets that differ <----------'     (at once again, to see whether it helped)
//! ```
//! What is fetched is as new as Y or newer, so it replaces what is here whatever its version, and what is here and not
//! there is deleted; the feed brings later changes once more. Of a bucket that holds something unreadable nothing is deleted:
//! what can't be read may be the newer state of any document here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::body::{JSON, LINES, decoded_bytes, expect_type, is_gzip};
use super::{Pull, PullReport};
use crate::identity::dice;
use crate::store::Catalogue;
use crate::store::catalogue::DocumentChange;
use crate::store::catalogue::checksum::Sum;
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::egress::bad_answer;
use crate::wan::sas::percent_encoded;
use crate::wan::snapshot::{self, Batch, Item, Items, TakeError};
use crate::wan::wire::{Checksums, read_checksums};
use crate::wan::worker::{Life, Next, StepError};

/// Checksums of all collections, or of all buckets of one, at most.
const MAX_CHECKSUMS: ByteSize = ByteSize::mib(1);
/// Repairs in a row after which it is told that they do not help; then the ordinary period goes on.
const REPAIRS_IN_A_ROW: u32 = 3;

/// What the platform's documents add up to at a place of its feed.
struct Pending {
    cursor: String,
    /// The collection whose buckets these are; `None`: totals of all.
    collection: Option<String>,
    sums: Checksums,
    /// A feed that can't be brought to that place is not followed there for ever.
    since: Instant,
}

/// A place that was not reached by then is given up.
const REACH_WITHIN: Duration = Duration::from_secs(120);

/// When it is looked, and what is being compared.
pub(super) struct Verify {
    period: Duration,
    due_at: Instant,
    caught_up: bool,
    pending: Option<Pending>,
    /// A collection that differed.
    suspect: Option<String>,
    repairs: u32,
    /// Platforms without checksums are not asked again until the next start.
    unsupported: bool,
}

impl Verify {
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            // Not all boxes of a platform at once.
            due_at: Instant::now() + period.mul_f64(f64::from(dice()) / f64::from(u32::MAX)),
            caught_up: false,
            pending: None,
            suspect: None,
            repairs: 0,
            unsupported: false,
        }
    }

    /// Looks as soon as the feed is caught up.
    pub(super) fn soon(&mut self) {
        self.due_at = Instant::now();
        self.caught_up = false;
    }

    pub(super) fn caught_up(&mut self) {
        self.caught_up = true;
    }

    pub(super) fn due_in(&self) -> Duration {
        if self.unsupported {
            return Duration::MAX;
        }
        self.due_at.saturating_duration_since(Instant::now())
    }

    /// Whether the next step looks.
    pub(super) fn is_ready(&self) -> bool {
        self.caught_up && self.pending.is_none() && self.due_in().is_zero()
    }

    /// Where the feed is to be brought, and not beyond.
    pub(super) fn until(&self) -> Option<String> {
        self.pending.as_ref().map(|pending| pending.cursor.clone())
    }

    fn rest(&mut self) {
        (self.pending, self.suspect, self.repairs) = (None, None, 0);
        self.due_at = Instant::now() + self.period;
    }
}

impl Pull {
    /// Does what is due of the comparison; `None`: the feed is to be followed.
    pub(super) fn verify(&mut self, cursor: &str, life: &Life) -> Result<Option<Next>, StepError> {
        if let Some(pending) = &self.verify.pending {
            if pending.cursor != cursor {
                if pending.since.elapsed() > REACH_WITHIN {
                    tracing::info!(event = "pull.checksums_given_up");
                    self.verify.rest();
                }
                return Ok(None);
            }
            let pending = self.verify.pending.take().expect("it was just seen");
            return match pending.collection {
                None => self.compare_totals(&pending.sums),
                Some(collection) => self.compare_buckets(&collection, &pending.sums, life),
            }
            .map(Some);
        }
        if self.verify.is_ready() && !self.ahead.is_on() {
            return Ok(self.ask_checksums()?.then_some(Next::Again));
        }
        Ok(None)
    }

    /// False when the platform has none.
    fn ask_checksums(&mut self) -> Result<bool, StepError> {
        let collection = self.verify.suspect.clone();
        let path = match &collection {
            None => "/checksums".to_owned(),
            Some(collection) => format!("/checksums/{}", percent_encoded(collection)),
        };
        let answer = self.api.get(&path, true, Duration::ZERO)?;
        if answer.status() == 404 {
            self.verify.unsupported = collection.is_none();
            self.verify.rest();
            return Ok(false);
        }
        let body = decoded_bytes(expect_type(answer.success()?, JSON)?, MAX_CHECKSUMS)?;
        let sums = read_checksums(&body)
            .map_err(|why| bad_answer(FlowId::Api, format!("no checksums: {why}")))?;
        self.verify.pending = Some(Pending {
            cursor: sums.cursor.clone(),
            collection,
            sums,
            since: Instant::now(),
        });
        Ok(true)
    }

    fn compare_totals(&mut self, theirs: &Checksums) -> Result<Next, StepError> {
        let (_, ours) = self.catalogue.checksums()?;
        let theirs: BTreeMap<String, Option<Sum>> = theirs
            .sums
            .iter()
            .map(|one| (one.collection.clone(), one.sum()))
            .collect();
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let differing: Vec<&String> = names
            .into_iter()
            .filter(|name| {
                let ours = ours.get(*name).copied().unwrap_or_default();
                Some(ours) != theirs.get(*name).copied().unwrap_or(Some(Sum::default()))
            })
            .collect();
        self.report.compared(differing.len());
        let Some(first) = differing.first() else {
            self.report.agrees();
            self.verify.rest();
            return Ok(Next::Again);
        };
        if self.verify.repairs == REPAIRS_IN_A_ROW {
            let names: Vec<&str> = differing.iter().map(|name| name.as_str()).collect();
            self.report.differs(names.join(", "));
            self.verify.rest();
            return Ok(Next::Again);
        }
        self.verify.suspect = Some((*first).clone());
        self.verify.due_at = Instant::now();
        Ok(Next::Again)
    }

    fn compare_buckets(
        &mut self,
        collection: &str,
        theirs: &Checksums,
        life: &Life,
    ) -> Result<Next, StepError> {
        let (_, ours) = self.catalogue.bucket_sums(collection)?;
        let theirs: BTreeMap<u8, Option<Sum>> = theirs
            .sums
            .iter()
            .map(|one| (one.bucket, one.sum()))
            .collect();
        for bucket in 0..=u8::MAX {
            let our_sum = ours.get(&bucket).copied().unwrap_or_default();
            let their_sum = theirs.get(&bucket).copied().unwrap_or(Some(Sum::default()));
            if Some(our_sum) == their_sum {
                continue;
            }
            self.fetch_bucket(collection, bucket, life)?;
            life.sign();
        }
        self.verify.suspect = None;
        self.verify.repairs += 1;
        // At once again, to see whether it helped, and whether another collection differs.
        self.verify.due_at = Instant::now();
        Ok(Next::Again)
    }

    fn fetch_bucket(&mut self, collection: &str, bucket: u8, life: &Life) -> Result<(), StepError> {
        let path = format!("/buckets/{}/{bucket}", percent_encoded(collection));
        let answer = self.api.get(&path, true, Duration::ZERO)?.success()?;
        let answer = expect_type(answer, LINES)?;
        let gzip = is_gzip(&answer)?;
        let (reader, sort) = answer.into_reader();
        let items = Items::new(snapshot::lines(reader, gzip, 0), 0);
        let fetched = take_bucket(items, collection, &self.catalogue, &self.report, life)
            .map_err(|error| error.into_step(sort))?;
        let surplus: Vec<DocumentChange> = self
            .catalogue
            .bucket_documents(collection, bucket)?
            .into_iter()
            .filter(|(id, _)| fetched.refused == 0 && !fetched.ids.contains(id))
            .map(|(id, version)| DocumentChange {
                collection: collection.to_owned(),
                id,
                version,
                data: None,
            })
            .collect();
        let deleted = surplus.len();
        self.catalogue.apply_repair(surplus).wait()?;
        self.report
            .repaired(collection, bucket, fetched.changed, deleted);
        Ok(())
    }
}

/// What a bucket brought. Its ids are in memory: a bucket is a 256th of a collection.
#[derive(Default)]
struct Fetched {
    ids: BTreeSet<String>,
    changed: usize,
    refused: usize,
}

fn take_bucket(
    mut items: Items<'_>,
    collection: &str,
    catalogue: &Catalogue,
    report: &PullReport,
    life: &Life,
) -> Result<Fetched, TakeError> {
    let (mut fetched, mut batch) = (Fetched::default(), Batch::default());
    loop {
        let item = items.next_item()?;
        let ends = item.is_none();
        match item.map(|placed| placed.item) {
            Some(Item::Document(document)) if document.collection == collection => {
                fetched.ids.insert(document.id.clone());
                batch.push(document);
            }
            // It was told when it first came.
            Some(Item::Refused(..)) => fetched.refused += 1,
            Some(Item::Document(_)) | None => {}
        }
        if ends || batch.is_full() {
            let applied = catalogue.apply_repair(batch.take(report)).wait()?;
            fetched.changed += applied.changed;
            life.sign();
        }
        if ends {
            return Ok(fetched);
        }
    }
}
