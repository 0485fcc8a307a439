//! The earliest it can be: the image's release, and what the box last knew.
//!
//! `state/time.json` on the data partition is replaced whole (fsync, rename) at most every ten minutes. A file that can't be
//! read, or that says what can't be, counts as absent: it is a help, not a truth.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::clock::SOFTWARE_MADE_MS;
use crate::durable::{ReplaceFileError, replace_file};

/// The image's release time is this file's, as systemd has it.
const RELEASE_FILE: &str = "/usr/lib/clock-epoch";
/// Below the data folder.
const FILE: &str = "state/time.json";
/// The file has one short line.
const MAX_FILE_BYTES: u64 = 4096;
/// A time this far after the release is a mistake, not a floor (30 years).
const MAX_AFTER_RELEASE_MS: i64 = 30 * 365 * 24 * 3_600_000;

/// The earliest it can be, and since when the box goes by no better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Milliseconds since 1970.
    #[serde(rename = "floor_ms")]
    pub at_ms: i64,
    /// Stamps since this wall time may be wrong; `None`: the time was good.
    pub unsure_since_ms: Option<i64>,
}

impl Floor {
    /// Release and kept time, the later of both.
    #[must_use]
    pub fn load(data_dir: &Path) -> Self {
        Self::of(release_ms(Path::new(RELEASE_FILE)), data_dir)
    }

    /// The same with a known release.
    #[must_use]
    pub fn of(release_ms: i64, data_dir: &Path) -> Self {
        let release_ms = release_ms.max(SOFTWARE_MADE_MS);
        let kept = read(&data_dir.join(FILE))
            .filter(|kept| kept.at_ms < release_ms.saturating_add(MAX_AFTER_RELEASE_MS));
        Self {
            at_ms: kept.map_or(release_ms, |kept| kept.at_ms.max(release_ms)),
            unsure_since_ms: kept.and_then(|kept| kept.unsure_since_ms),
        }
    }
}

/// The release of the running image; of this software at least.
#[must_use]
pub fn release_floor_ms() -> i64 {
    release_ms(Path::new(RELEASE_FILE)).max(SOFTWARE_MADE_MS)
}

fn release_ms(path: &Path) -> i64 {
    fs::metadata(path)
        .and_then(|facts| facts.modified())
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(SOFTWARE_MADE_MS)
}

fn read(path: &Path) -> Option<Floor> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where the floor is kept, and what was written last.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
}

impl Keeper {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join(FILE),
        }
    }

    /// Durable when this returns.
    pub(super) fn keep(&self, floor: Floor) -> Result<(), ReplaceFileError> {
        let text = serde_json::to_vec(&floor).expect("two numbers are JSON");
        replace_file(&self.path, &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE_MS: i64 = SOFTWARE_MADE_MS + 1000;

    #[test]
    fn the_later_of_release_and_kept_time_is_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Floor::of(RELEASE_MS, dir.path());
        assert_eq!(load().at_ms, RELEASE_MS);
        let later = Floor {
            at_ms: RELEASE_MS + 5,
            unsure_since_ms: Some(3),
        };
        Keeper::new(dir.path()).keep(later).unwrap();
        assert_eq!(load(), later);
        let earlier = Floor {
            at_ms: 5,
            unsure_since_ms: None,
        };
        Keeper::new(dir.path()).keep(earlier).unwrap();
        assert_eq!(load().at_ms, RELEASE_MS);
    }

    #[test]
    fn a_torn_file_or_one_of_the_far_future_is_no_floor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for text in [
            "",
            "{\"floor_ms\":1",
            "{\"floor_ms\":9223372036854775807,\"unsure_since_ms\":null}",
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(
                Floor::of(RELEASE_MS, dir.path()).at_ms,
                RELEASE_MS,
                "{text}"
            );
        }
    }

    #[test]
    fn a_release_from_before_this_software_is_a_wrong_release() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Floor::of(0, dir.path()).at_ms, SOFTWARE_MADE_MS);
        assert_eq!(release_ms(Path::new("/nonexistent")), SOFTWARE_MADE_MS);
    }
}
