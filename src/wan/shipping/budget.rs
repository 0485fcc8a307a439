//! How much may still leave today.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::replace_file;
use crate::telemetry::chain;
use crate::units::ByteSize;

/// The file is written when this part of the budget has been used since, so some ten times a day: a box that starts again and
/// again must not have a budget each time, and a write a batch would wear the flash.
const PART: u64 = 16;

/// A day's budget in bytes. Which day it is, is said by the platform's clock.
#[derive(Debug)]
pub(super) struct Budget {
    path: PathBuf,
    per_day: u64,
    state: State,
    /// As it is on disk: never less than what was used.
    written: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Days since 1970.
    day: i64,
    used_bytes: u64,
}

impl Budget {
    /// Goes on where the file at `path` says; one that can't be read says nothing.
    pub(super) fn open(path: &Path, per_day: ByteSize) -> Self {
        let state: State = fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            path: path.to_path_buf(),
            per_day: per_day.as_u64(),
            state,
            written: state,
        }
    }

    /// Whether `bytes` more may leave at `now_ms`.
    pub(super) fn allows(&mut self, bytes: u64, now_ms: i64) -> bool {
        let today = now_ms.div_euclid(24 * 3600 * 1000);
        if today > self.state.day {
            self.state.used_bytes = 0;
        }
        // A clock that was set back gives no second budget.
        self.state.day = today;
        self.state.used_bytes.saturating_add(bytes) <= self.per_day
    }

    /// `bytes` have left.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.state.used_bytes = self.state.used_bytes.saturating_add(bytes);
        if self.state.day == self.written.day && self.state.used_bytes <= self.written.used_bytes {
            return;
        }
        self.written = State {
            used_bytes: self.state.used_bytes.saturating_add(self.per_day / PART),
            ..self.state
        };
        let text = serde_json::to_vec(&self.written).expect("two numbers are JSON");
        if let Err(error) = replace_file(&self.path, &text, 0o600) {
            tracing::debug!(event = "outgoing.budget_unwritten", error = &*chain(&error));
        }
    }

    /// Used today.
    pub(super) const fn used(&self) -> u64 {
        self.state.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    #[test]
    fn a_day_has_one_budget_and_the_next_day_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut budget = Budget::open(&dir.path().join("b"), ByteSize::bytes(100));
        assert!(budget.allows(60, DAY_MS));
        budget.spend(60);
        assert!(!budget.allows(60, DAY_MS + 7));
        assert!(budget.allows(40, DAY_MS + 7));
        assert!(!budget.allows(60, 0), "a clock set back brings nothing");
        assert!(budget.allows(60, 2 * DAY_MS));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_start_brings_no_new_budget_and_the_file_is_written_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let mut budget = Budget::open(&path, ByteSize::bytes(1600));
        let mut writes = 0;
        for _ in 0..160 {
            assert!(budget.allows(10, DAY_MS));
            let before = budget.written;
            budget.spend(10);
            writes += u32::from(budget.written != before);
        }
        assert!((10..=17).contains(&writes), "{writes}");
        let mut again = Budget::open(&path, ByteSize::bytes(1600));
        assert!(!again.allows(101, DAY_MS), "a part is lost at most");
        fs::write(&path, b"{ no json").unwrap();
        assert!(Budget::open(&path, ByteSize::bytes(1600)).allows(1600, DAY_MS));
    }
}
