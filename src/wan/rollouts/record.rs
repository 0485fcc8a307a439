//! What is remembered of roll-outs over restarts, power cuts and changes of the slot: `state/rollout.json` on the data
//! partition.
//!
//! It lies outside the slots: the version that takes an order writes it, the version that is tried reads it. So a field
//! keeps its meaning for ever, one that a version does not know has a default, and a stage that it does not know is
//! `Unknown`. The file is replaced whole. One that
//! can't be read is put aside as `rollout.json.bad`; the platform then offers its action anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::documents::{Artifact, Terms};
use crate::durable::{ReplaceFileError, replace_file};

const FILE: &str = "state/rollout.json";

/// A longer file is not ours.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The order under way.
    #[serde(default)]
    pub(super) order: Option<Order>,
    /// How the last one ended.
    #[serde(default)]
    pub(super) last: Option<Last>,
    /// The version the platform was told with the box's data.
    #[serde(default)]
    pub(super) told_version: String,
}

/// An order of the platform: hawkBit's action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// hawkBit's number of the action.
    pub(super) action_id: String,
    /// The link it was read from; another one means that its terms have changed.
    pub(super) href: String,
    /// Which version.
    pub(super) version: String,
    /// Its bundle; `None` when the order could not be used.
    pub(super) artifact: Option<Artifact>,
    /// When what is to be done.
    pub(super) terms: Terms,
    /// How far it has come.
    pub(super) stage: Stage,
    /// ETag of the download, as given.
    #[serde(default)]
    pub(super) etag: Option<String>,
    /// Downloads that were not what was announced.
    #[serde(default)]
    pub(super) misses: u32,
    /// Installations that were interrupted.
    #[serde(default)]
    pub(super) interruptions: u32,
    /// What the platform was last told of it.
    #[serde(default)]
    pub(super) told: String,
}

/// How far an order has come.
///
/// ```text
///  Fetching ──▶ Fetched ──▶ Installing ──▶ Written ──▶ (restart, trial) ──▶ Ended ──▶ told, forgotten
///     ▲  wrong hash │ ▲         │ cut short                                   ▲
///     └─────────────┘ └─────────┘          every refusal and failure ─────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub(super) enum Stage {
    /// The bundle is coming in.
    Fetching,
    /// It is whole and verified, and waits for its time.
    Fetched,
    /// RAUC is writing it; began in this boot.
    Installing { boot_id: String },
    /// It is in the other slot; the restart is due in this boot, and what any other boot is, is decided by the history.
    Written { boot_id: String },
    /// Over; the platform is to be told.
    Ended { success: bool, detail: String },
    /// Another version wrote it, and what runs now decides, as after `Written`.
    #[serde(other)]
    Unknown,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// hawkBit's number of the action.
    pub action_id: String,
    /// Which version.
    pub version: String,
    /// Whether it is the version that runs since.
    pub success: bool,
    /// Why, for people.
    pub detail: String,
    /// When, milliseconds since 1970 by the best clock there was.
    pub at_ms: i64,
}

/// The record and where it lies.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    pub(super) now: Record,
}

impl Records {
    pub(super) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let now = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let kept_aside = fs::rename(&path, path.with_extension("json.bad")).is_ok();
                tracing::warn!(event = "rollouts.record_unreadable", path = %path.display(), %error, kept_aside);
            }
            Record::default()
        });
        Self { path, now }
    }

    /// Makes what `now` says durable.
    pub(super) fn keep(&self) -> Result<(), ReplaceFileError> {
        let bytes = serde_json::to_vec_pretty(&self.now).expect("plain data always serialises");
        replace_file(&self.path, &bytes, 0o600)
    }
}

impl Record {
    /// What is remembered in this data folder, for people who ask while the server may or may not run.
    #[must_use]
    pub fn peek(data_dir: &Path) -> Self {
        read(&data_dir.join(FILE)).unwrap_or_default()
    }
}

fn read(path: &Path) -> io::Result<Record> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("longer than this record can be"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_a_damaged_one_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Records::load(dir.path());
        assert_eq!(records.now, Record::default());
        records.now.told_version = "1".into();
        records.keep().unwrap();
        assert_eq!(Records::load(dir.path()).now.told_version, "1");
        fs::write(dir.path().join(FILE), "{\"order\":7}").unwrap();
        assert_eq!(Records::load(dir.path()).now, Record::default());
        assert!(dir.path().join("state/rollout.json.bad").exists());
    }

    #[test]
    fn what_a_newer_version_wrote_costs_no_more_than_its_own_meaning() {
        let golden = include_str!("../../../tests/golden/kept/newer/rollout.json");
        let record: Record = serde_json::from_str(golden).unwrap();
        let order = record.order.unwrap();
        assert_eq!((&*order.version, order.stage), ("9", Stage::Unknown));
        assert_eq!(record.last.unwrap().version, "8");
        assert_eq!(record.told_version, "7");
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let text = r#"{"order":{"action_id":"7","href":"h","version":"2","artifact":null,
            "terms":{"download":"forced","update":"forced","window_closed":false},
            "stage":{"step":"written","boot_id":"b1"},"unknown":1}}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        let order = record.order.unwrap();
        assert_eq!(
            order.stage,
            Stage::Written {
                boot_id: "b1".into()
            }
        );
        assert_eq!((order.misses, &*order.told), (0, ""));
    }
}
