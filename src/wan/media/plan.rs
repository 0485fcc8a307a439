//! What is fetched next: decided on values in memory, at a given time.
//!
//! ```text
//!  manifest --> expired: never
//!           --> scheduled (valid now or within a week), by claim: here, priority, size  \  as far as there is room:
//!           --> later, the nearest first                                                /  the others have no place
//!  with a place and not here --> set aside? window? --> queue: urgent, due, soon, later
//! ```

use std::cmp::Reverse;
use std::time::Duration;

use super::aside::{Aside, Key, Why};
use crate::digest::Digest;
use crate::store::blobs::{Listed, Phase, Shelf, by_claim};

/// Jobs handed out at a time; the rest come with the next plan.
pub(super) const QUEUE_BOUND: usize = 64;
/// What becomes valid within this time is due, as what is valid now.
const DUE_MS: i64 = 24 * 60 * 60 * 1000;

/// A blob to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) urgent: bool,
    /// The document that says where; `None`: the one named by the digest.
    pub(super) document: Option<Box<str>>,
    pub(super) key: Key,
    /// Other documents name it, too, perhaps at another address.
    pub(super) has_others: bool,
}

/// What follows from the manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) queue: Vec<Job>,
    pub(super) counts: Counts,
    /// Of those in hand, the ones that nobody wants any more.
    pub(super) useless: Vec<Digest>,
    /// Something is wanted that the host has, as far as is known.
    pub(super) needs_host: bool,
    /// A blob that failed, for support.
    pub(super) failed_first: Option<(Digest, Why)>,
}

/// Blobs whose time is not over, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) listed: u64,
    pub(super) fetched: u64,
    pub(super) waiting: u64,
    pub(super) failed: u64,
    /// Scheduled, and without a place.
    pub(super) without_place: u64,
}

/// What a plan is drawn from beside the manifest.
pub(super) struct Circumstances<'a> {
    /// Of each item of the shelf, whether it is here.
    pub(super) here: &'a [bool],
    pub(super) aside: &'a Aside,
    /// What is being fetched.
    pub(super) in_hand: &'a [Digest],
    /// Wall time, by the platform's clock.
    pub(super) now_ms: i64,
    /// Monotonic time.
    pub(super) now: Duration,
    /// Bytes that there is room for in all.
    pub(super) capacity: u64,
    pub(super) window_open: bool,
}

/// Draws the plan.
pub(super) fn draw(shelf: &Shelf, at: &Circumstances<'_>) -> Plan {
    let mut plan = Plan::default();
    let (mut scheduled, mut later) = (Vec::new(), Vec::new());
    for (item, is_here) in shelf.items().iter().zip(at.here) {
        match item.phase(at.now_ms) {
            Phase::Expired => continue,
            Phase::Scheduled => scheduled.push((item, *is_here)),
            Phase::Later => later.push((item, *is_here)),
        }
        plan.counts.listed += 1;
        plan.counts.fetched += u64::from(*is_here);
    }
    scheduled.sort_by(|a, b| by_claim(*a, *b));
    later.sort_by_key(|(item, _)| (item.from_ms, Reverse(item.priority), item.digest));
    let mut left = at.capacity;
    let mut wanted = Vec::new();
    let all = scheduled.into_iter().map(|entry| (entry, true));
    for ((item, is_here), is_scheduled) in all.chain(later.into_iter().map(|entry| (entry, false)))
    {
        let rest = left.checked_sub(item.size);
        if let Some(rest) = rest {
            left = rest;
        }
        match (rest, is_here) {
            (_, true) => {}
            (Some(_), false) => wanted.push(item),
            (None, false) => plan.counts.without_place += u64::from(is_scheduled),
        }
    }
    plan.useless = at
        .in_hand
        .iter()
        .filter(|digest| wanted.iter().all(|item| item.digest != **digest))
        .copied()
        .collect();
    let mut queue = Vec::new();
    for item in wanted {
        let key = (item.digest, item.source);
        match at.aside.last(&key) {
            Some(why @ (Why::Missing | Why::Wrong | Why::Refused)) => {
                plan.counts.failed += 1;
                plan.failed_first = plan.failed_first.or(Some((item.digest, why)));
                plan.needs_host |= why == Why::Refused;
            }
            _ => {
                plan.counts.waiting += 1;
                plan.needs_host = true;
            }
        }
        let held_back = at.aside.holds(&key, at.now);
        if held_back == Some(Why::NoRoom) {
            plan.counts.without_place += 1;
        }
        if held_back.is_none() && (item.urgent || at.window_open) {
            queue.push(item);
        }
    }
    queue.sort_by_key(|item| rank(item, at.now_ms));
    plan.queue = queue
        .into_iter()
        .take(QUEUE_BOUND)
        .map(|item| Job {
            digest: item.digest,
            size: item.size,
            urgent: item.urgent,
            document: item.document.clone(),
            key: (item.digest, item.source),
            has_others: item.documents > 1,
        })
        .collect();
    plan
}

/// Urgent ones; then what is due, by priority; then what comes, by its time.
fn rank(item: &Listed, now_ms: i64) -> impl Ord + use<> {
    let is_due = item.from_ms <= now_ms.saturating_add(DUE_MS);
    let from_ms = item.from_ms.max(now_ms);
    let priority = Reverse(item.priority);
    let (first, second) = if is_due {
        ((priority, i64::MIN), from_ms)
    } else {
        ((Reverse(0), from_ms), i64::from(9 - item.priority.min(9)))
    };
    (!item.urgent, !is_due, first, second, item.size, item.digest)
}

#[cfg(test)]
mod tests;
