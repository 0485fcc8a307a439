//! What every boot was and how it ended, and which versions failed: `state/boots.json` on the data partition.
//!
//! It lies outside the slots, so that both versions write and read the same one: a field that one of them does not know
//! is kept out of the way (`default`), a kind that one of them does not know is `Unknown`, and no field changes its meaning.
//! The file is replaced whole, through the one helper. A file that cannot be read is put aside as `boots.json.bad`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::boot::{BootFacts, Slot};
use super::trial::{Event, Outcome, Phase, Trial};
use crate::durable::{ReplaceFileError, replace_file};

/// Boots kept; the oldest is dropped for a new one.
pub const MAX_BOOTS: usize = 64;

/// Failed versions kept; the oldest is dropped for a new one.
pub const MAX_FAILED: usize = 32;

const MAX_FILE_BYTES: u64 = 256 * 1024;

const FILE: &str = "state/boots.json";

/// One boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's id of the boot.
    pub boot_id: String,
    /// Wall time, RFC 3339; as wrong as the box's clock was then.
    pub at: String,
    /// The slot, where there are slots.
    pub slot: Option<Slot>,
    /// The version that ran.
    pub version: String,
    /// Why this slot.
    pub why: Why,
    /// What became of it.
    pub verdict: Verdict,
}

/// Why a boot took the slot it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Why {
    /// It is the one that is kept.
    Kept,
    /// A new version is tried.
    Trial {
        /// Which try.
        attempt: u32,
    },
    /// A new version was left.
    Rollback {
        /// The version that failed.
        version: String,
        /// Why it failed.
        reason: String,
    },
    /// Another version wrote it.
    #[serde(other)]
    Unknown,
}

/// What became of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Verdict {
    /// A version that needs no proof any more.
    Good,
    /// A trial that is not decided.
    Open,
    /// A trial that was kept.
    Committed,
    /// A trial that was left.
    Failed {
        /// Why.
        reason: String,
    },
    /// Another version wrote it.
    #[serde(other)]
    Unknown,
}

/// A version that must not be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedVersion {
    /// Which.
    pub version: String,
    /// Why.
    pub reason: String,
    /// When that was found, wall time, RFC 3339.
    pub at: String,
}

/// The history and where it lies.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    kept: Kept,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    boots: Vec<Boot>,
    #[serde(default)]
    trial: Option<Trial>,
    #[serde(default)]
    failed: Vec<FailedVersion>,
}

impl History {
    /// Reads the history of this data folder; begins an empty one where there is none or none that can be read.
    #[must_use]
    pub fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let kept = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let kept_aside = fs::rename(&path, path.with_extension("json.bad")).is_ok();
                warn!(event = "update.history_unreadable", path = %path.display(), %error, kept_aside);
            }
            Kept::default()
        });
        Self { path, kept }
    }

    /// The boots, oldest first.
    #[must_use]
    pub fn boots(&self) -> &[Boot] {
        &self.kept.boots
    }

    /// The version on its way, if any.
    #[must_use]
    pub fn trial(&self) -> Option<&Trial> {
        self.kept.trial.as_ref()
    }

    /// Versions that failed, oldest first.
    #[must_use]
    pub fn failed(&self) -> &[FailedVersion] {
        &self.kept.failed
    }

    /// Whether this boot is a trial that is not decided yet.
    #[must_use]
    pub fn in_trial(&self, facts: &BootFacts) -> bool {
        let decided = |boot: &Boot| boot.boot_id == facts.boot_id && boot.verdict != Verdict::Open;
        facts.trial && !self.kept.boots.iter().any(decided)
    }

    /// Whether a version was installed in this boot, so that the next one is its trial.
    #[must_use]
    pub fn trial_is_due(&self, facts: &BootFacts) -> bool {
        let trial = self.kept.trial.as_ref();
        trial.is_some_and(|trial| {
            trial.phase == Phase::Staged && trial.staged_in_boot == facts.boot_id
        })
    }

    /// Writes down this boot and decides what it means for a trial. Later calls of the same boot change nothing.
    ///
    /// # Errors
    /// When the file cannot be replaced; the same boot then tries again.
    pub fn record_boot(
        &mut self,
        facts: &BootFacts,
        version: &str,
        at: &str,
    ) -> Result<(), ReplaceFileError> {
        if self
            .kept
            .boots
            .iter()
            .any(|boot| boot.boot_id == facts.boot_id)
        {
            return Ok(());
        }
        let mut why = if facts.trial {
            Why::Trial { attempt: 1 }
        } else {
            Why::Kept
        };
        if let Some(trial) = self.kept.trial.take() {
            match trial.event_of_boot(facts).map(|event| trial.on(event)) {
                None => self.kept.trial = Some(trial),
                Some(Ok(Outcome::Goes(next))) => {
                    if let Phase::Running { attempt } = next.phase {
                        why = Why::Trial { attempt };
                    }
                    self.kept.trial = Some(next);
                }
                Some(Ok(Outcome::Committed)) => self.decide(&Verdict::Committed),
                Some(Ok(Outcome::CutShort)) => {
                    info!(event = "update.install_cut_short", version = trial.version);
                }
                Some(Ok(Outcome::RolledBack { reason })) => {
                    self.decide(&Verdict::Failed {
                        reason: reason.clone(),
                    });
                    self.remember_failed(&trial.version, &reason, at);
                    why = Why::Rollback {
                        version: trial.version,
                        reason,
                    };
                }
                Some(Err(error)) => warn!(event = "update.trial_confused", %error),
            }
        }
        if !facts.trial {
            // A trial that nobody staged through us (RAUC was called by hand) is decided by the boot loader alone.
            self.decide_by_boot(facts);
        }
        let verdict = if facts.trial {
            Verdict::Open
        } else {
            Verdict::Good
        };
        info!(event = "update.boot_recorded", slot = ?facts.slot, version, ?why);
        let boot = Boot {
            boot_id: facts.boot_id.clone(),
            at: at.to_owned(),
            slot: facts.slot.clone(),
            version: version.to_owned(),
            why,
            verdict,
        };
        push_bounded(&mut self.kept.boots, boot, MAX_BOOTS);
        self.write()
    }

    /// A version is about to be written to the other slot.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn begin_writing(&mut self, trial: Trial) -> Result<(), ReplaceFileError> {
        self.kept.trial = Some(Trial {
            phase: Phase::Writing,
            ..trial
        });
        self.write()
    }

    /// It was not written.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn give_up_writing(&mut self) -> Result<(), ReplaceFileError> {
        self.kept.trial = None;
        self.write()
    }

    /// A version was written to the other slot.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn stage(&mut self, trial: Trial) -> Result<(), ReplaceFileError> {
        // A version that an operator insists on gets its second chance.
        self.kept
            .failed
            .retain(|failed| failed.version != trial.version);
        self.kept.trial = Some(trial);
        self.write()
    }

    /// RAUC has kept the running slot.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn commit(&mut self, facts: &BootFacts) -> Result<(), ReplaceFileError> {
        if let Some(trial) = self
            .kept
            .trial
            .take_if(|trial| facts.slot.as_ref() == Some(&trial.slot))
        {
            info!(event = "update.trial_committed", version = trial.version);
        }
        self.decide(&Verdict::Committed);
        self.write()
    }

    /// The gate gave up on this boot; the rollback that follows will have this reason.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn gate_failed(&mut self, reason: &str) -> Result<(), ReplaceFileError> {
        if let Some(trial) = &self.kept.trial {
            match trial.on(Event::GateFailed(reason.to_owned())) {
                Ok(Outcome::Goes(next)) => self.kept.trial = Some(next),
                Ok(other) => warn!(event = "update.trial_confused", ?other),
                Err(error) => warn!(event = "update.trial_confused", %error),
            }
        }
        self.write()
    }

    fn decide(&mut self, verdict: &Verdict) {
        for boot in self
            .kept
            .boots
            .iter_mut()
            .filter(|boot| boot.verdict == Verdict::Open)
        {
            boot.verdict = verdict.clone();
        }
    }

    fn decide_by_boot(&mut self, facts: &BootFacts) {
        for boot in self
            .kept
            .boots
            .iter_mut()
            .filter(|boot| boot.verdict == Verdict::Open)
        {
            boot.verdict = if boot.slot == facts.slot {
                Verdict::Committed
            } else {
                Verdict::Failed {
                    reason: "the boot loader left it".to_owned(),
                }
            };
        }
    }

    fn remember_failed(&mut self, version: &str, reason: &str, at: &str) {
        warn!(event = "update.trial_rolled_back", version, reason);
        let (version, reason, at) = (version.to_owned(), reason.to_owned(), at.to_owned());
        self.kept.failed.retain(|failed| failed.version != version);
        push_bounded(
            &mut self.kept.failed,
            FailedVersion {
                version,
                reason,
                at,
            },
            MAX_FAILED,
        );
    }

    fn write(&self) -> Result<(), ReplaceFileError> {
        let bytes = serde_json::to_vec_pretty(&self.kept).expect("plain data always serialises");
        replace_file(&self.path, &bytes, 0o644)
    }
}

fn push_bounded<T>(list: &mut Vec<T>, item: T, bound: usize) {
    list.push(item);
    let surplus = list.len().saturating_sub(bound);
    list.drain(..surplus);
}

fn read(path: &Path) -> io::Result<Kept> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "longer than this history can be",
        ));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-24T21:00:00Z";

    fn facts(id: &str, slot: &str, trial: bool) -> BootFacts {
        BootFacts {
            boot_id: id.into(),
            slot: Some(Slot::named(slot)),
            trial,
        }
    }

    fn staged(version: &str, boot_id: &str) -> Trial {
        Trial {
            slot: Slot::named("B"),
            version: version.into(),
            from_version: "1".into(),
            platform_was_up: false,
            staged_in_boot: boot_id.into(),
            phase: Phase::Staged,
            last_failure: None,
        }
    }

    #[test]
    fn an_update_that_is_kept_leaves_a_readable_story() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::load(dir.path());
        history
            .record_boot(&facts("1", "A", false), "1", AT)
            .unwrap();
        history.stage(staged("2", "1")).unwrap();
        history
            .record_boot(&facts("1", "A", false), "1", AT)
            .unwrap();
        assert!(history.trial().is_some(), "the same boot decides nothing");

        let mut tried = History::load(dir.path());
        let boot = facts("2", "B", true);
        tried.record_boot(&boot, "2", AT).unwrap();
        assert!(tried.in_trial(&boot));
        tried.commit(&boot).unwrap();

        let kept = History::load(dir.path());
        assert!(!kept.in_trial(&boot));
        assert_eq!(kept.trial(), None);
        assert_eq!(kept.boots().len(), 2);
        assert_eq!(kept.boots()[1].why, Why::Trial { attempt: 1 });
        assert_eq!(kept.boots()[1].verdict, Verdict::Committed);
        assert!(kept.failed().is_empty());
    }

    #[test]
    fn what_a_newer_version_wrote_costs_no_more_than_its_own_meaning() {
        let golden = include_str!("../../tests/golden/kept/newer/boots.json");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state")).unwrap();
        fs::write(dir.path().join(FILE), golden).unwrap();
        let mut history = History::load(dir.path());
        assert_eq!(history.boots()[1].why, Why::Unknown);
        assert_eq!(history.boots()[1].verdict, Verdict::Unknown);
        assert_eq!(history.failed()[0].version, "8");
        assert_eq!(history.trial().unwrap().phase, Phase::Unknown);
        // Back in the old slot: the version whose way is not understood was left, and is not tried again.
        history
            .record_boot(&facts("b3", "A", false), "7", AT)
            .unwrap();
        let failed: Vec<_> = history.failed().iter().map(|one| &*one.version).collect();
        assert_eq!(failed, ["8", "9"]);
        assert_eq!(History::load(dir.path()).boots().len(), 3);
    }

    #[test]
    fn an_update_that_fails_is_remembered_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::load(dir.path());
        history
            .record_boot(&facts("1", "A", false), "1", AT)
            .unwrap();
        history.stage(staged("2", "1")).unwrap();
        history
            .record_boot(&facts("2", "B", true), "2", AT)
            .unwrap();
        history.gate_failed("port orders does not answer").unwrap();
        let mut history = History::load(dir.path());
        history
            .record_boot(&facts("3", "A", false), "1", AT)
            .unwrap();

        let reason = "port orders does not answer".to_owned();
        assert_eq!(
            history.boots()[1].verdict,
            Verdict::Failed {
                reason: reason.clone()
            }
        );
        assert_eq!(
            history.boots()[2].why,
            Why::Rollback {
                version: "2".into(),
                reason: reason.clone()
            }
        );
        assert_eq!(history.failed()[0].version, "2");
        assert_eq!(history.failed()[0].reason, reason);
        history.stage(staged("2", "3")).unwrap();
        assert!(history.failed().is_empty(), "an operator insisted");
    }

    #[test]
    fn a_power_cut_while_a_version_is_written_is_not_held_against_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::load(dir.path());
        history
            .record_boot(&facts("1", "A", false), "1", AT)
            .unwrap();
        history.begin_writing(staged("2", "1")).unwrap();
        let mut after = History::load(dir.path());
        after.record_boot(&facts("2", "A", false), "1", AT).unwrap();
        assert_eq!(after.trial(), None);
        assert!(after.failed().is_empty());
        assert_eq!(after.boots()[1].why, Why::Kept);
    }

    #[test]
    fn the_history_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::load(dir.path());
        for n in 0..70 {
            history
                .record_boot(&facts(&n.to_string(), "A", false), "1", AT)
                .unwrap();
        }
        let history = History::load(dir.path());
        assert_eq!(history.boots().len(), MAX_BOOTS);
        assert_eq!(history.boots()[MAX_BOOTS - 1].boot_id, "69");
    }

    #[test]
    fn a_damaged_history_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state")).unwrap();
        fs::write(dir.path().join(FILE), "{\"boots\":[{]").unwrap();
        let mut history = History::load(dir.path());
        history
            .record_boot(&facts("1", "A", false), "1", AT)
            .unwrap();
        assert!(dir.path().join("state/boots.json.bad").exists());
        assert_eq!(History::load(dir.path()).boots().len(), 1);
    }
}
