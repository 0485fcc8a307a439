//! How roll-outs stand, for people.

use std::fs;
use std::path::Path;

use super::Rollouts;
use super::record::{Record, Stage};
use crate::telemetry::{LastUpdate, OrderedUpdate, UpdateState, UpdateStatus, UpdateWait};

impl Rollouts {
    pub(super) fn show(&self, waits_until_ms: Option<i64>, waits_for: Option<UpdateWait>) {
        self.telemetry.update.write(|status| {
            let percent = status.ordered.as_ref().and_then(|ordered| ordered.percent);
            *status = status_of(&self.records.now, self.bundle.had());
            if let Some(ordered) = &mut status.ordered {
                ordered.waits_for = waits_for;
                ordered.waits_until_ms = waits_until_ms;
                if ordered.state == UpdateState::Installing {
                    ordered.percent = percent;
                }
            }
        });
    }

    pub(super) fn show_state(&self, state: UpdateState) {
        self.telemetry.update.write(|status| {
            if let Some(ordered) = &mut status.ordered {
                ordered.state = state;
            }
        });
    }
}

pub(super) fn percent(had: u64, size: u64) -> u8 {
    let percent = had.saturating_mul(100).checked_div(size).unwrap_or(100);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// Per cent in steps of 25: hawkBit keeps every report, and bounds them.
pub(super) fn quarter(had: u64, size: u64) -> u8 {
    percent(had, size) / 25 * 25
}

/// How roll-outs stand by what is on the disk, for who asks while the server may or may not run.
#[must_use]
pub fn status_on_disk(data_dir: &Path) -> UpdateStatus {
    let had = fs::metadata(data_dir.join("rollout/bundle.partial"));
    status_of(&Record::peek(data_dir), had.map_or(0, |meta| meta.len()))
}

fn status_of(record: &Record, had: u64) -> UpdateStatus {
    let ordered = record.order.as_ref().map(|order| {
        let state = match order.stage {
            Stage::Fetching => UpdateState::Fetching,
            Stage::Fetched => UpdateState::Fetched,
            Stage::Installing { .. } => UpdateState::Installing,
            Stage::Written { .. } | Stage::Unknown => UpdateState::Restarting,
            Stage::Ended { .. } => UpdateState::Ended,
        };
        let size = order.artifact.as_ref().map_or(0, |artifact| artifact.size);
        OrderedUpdate {
            version: order.version.clone(),
            state,
            percent: (state == UpdateState::Fetching).then(|| percent(had, size)),
            waits_for: None,
            waits_until_ms: None,
        }
    });
    let last = record.last.as_ref().map(|last| LastUpdate {
        version: last.version.clone(),
        success: last.success,
        detail: last.detail.clone(),
        at_ms: last.at_ms,
    });
    UpdateStatus { ordered, last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_told_in_quarters() {
        assert_eq!(percent(0, 0), 100, "nothing to fetch is all of it");
        assert_eq!((percent(1, 3), quarter(1, 3)), (33, 25));
        assert_eq!(
            (quarter(0, 10), quarter(9, 10), quarter(10, 10)),
            (0, 75, 100)
        );
        assert_eq!(percent(u64::MAX, 10), 100);
    }
}
