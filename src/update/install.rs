//! Installing a bundle: what is refused, what is remembered.

use std::path::Path;

use tracing::info;

use super::boot::{BootFacts, Slot};
use super::boot_control::{BootControl, BootControlError};
use super::bundle::BundleInfo;
use super::history::History;
use super::trial::{Phase, Trial};
use crate::durable::ReplaceFileError;

/// A bundle that was not installed. The running slot is untouched in every case.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// One thing at a time.
    #[error("this boot is a trial that is not decided yet; commit it or let it roll back first")]
    TrialRuns,
    /// It failed here before.
    #[error("version {version} failed on this box before ({reason}); --force tries it again")]
    FailedBefore {
        /// Which version.
        version: String,
        /// Why it failed.
        reason: String,
    },
    /// It is for something else.
    #[error("the bundle is made for {bundle:?}, this box is {this:?}")]
    Incompatible {
        /// What the bundle says.
        bundle: String,
        /// What the box says.
        this: String,
    },
    /// It is not what was ordered.
    #[error("the bundle holds version {bundle}, version {ordered} was ordered")]
    OtherVersion {
        /// What the bundle says.
        bundle: String,
        /// What was to come.
        ordered: String,
    },
    /// There is nowhere to write it to.
    #[error("this box has no second slot")]
    NoOtherSlot,
    /// RAUC did not do it.
    #[error(transparent)]
    Rauc(#[from] BootControlError),
    /// It could not be written down what is done, or was.
    #[error("what becomes of the bundle could not be written down")]
    Remember(#[from] ReplaceFileError),
}

/// What was installed.
#[derive(Debug, PartialEq, Eq)]
pub struct Installed {
    /// Which version.
    pub version: String,
    /// Where it lies; the next boot tries it.
    pub slot: Slot,
}

/// The box at the moment of the installation.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// This boot.
    pub facts: &'a BootFacts,
    /// The version that runs.
    pub version: &'a str,
    /// The platform answers.
    pub platform_is_up: bool,
}

/// What is to be installed.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The bundle.
    pub bundle_path: &'a Path,
    /// Which version it must be; `None`: whichever it is.
    pub version: Option<&'a str>,
    /// Also a version that failed here before.
    pub force: bool,
}

/// Verifies the bundle, writes it to the other slot and remembers that its trial is due.
///
/// # Errors
/// When it is refused or fails; see [`InstallError`].
pub fn install(
    wish: Wish<'_>,
    now: Now<'_>,
    history: &mut History,
    control: &dyn BootControl,
    progress: &mut dyn FnMut(&str),
) -> Result<Installed, InstallError> {
    if history.in_trial(now.facts) {
        return Err(InstallError::TrialRuns);
    }
    let slots = control.slots()?;
    let BundleInfo {
        compatible,
        version,
    } = control.inspect(wish.bundle_path)?;
    if compatible != slots.compatible {
        return Err(InstallError::Incompatible {
            bundle: compatible,
            this: slots.compatible,
        });
    }
    if let Some(ordered) = wish.version.filter(|ordered| *ordered != version) {
        return Err(InstallError::OtherVersion {
            bundle: version,
            ordered: ordered.to_owned(),
        });
    }
    let failed = history
        .failed()
        .iter()
        .find(|failed| failed.version == version);
    if let Some(failed) = failed.filter(|_| !wish.force) {
        return Err(InstallError::FailedBefore {
            version,
            reason: failed.reason.clone(),
        });
    }
    let slot = slots.other().cloned().ok_or(InstallError::NoOtherSlot)?;
    info!(event = "update.install_started", version, %slot);
    let trial = Trial {
        slot: slot.clone(),
        version: version.clone(),
        from_version: now.version.to_owned(),
        platform_was_up: now.platform_is_up,
        staged_in_boot: now.facts.boot_id.clone(),
        phase: Phase::Staged,
        last_failure: None,
    };
    history.begin_writing(trial.clone())?;
    if let Err(error) = control.install(wish.bundle_path, progress) {
        history.give_up_writing()?;
        return Err(error.into());
    }
    history.stage(trial)?;
    info!(event = "update.install_done", version, %slot);
    Ok(Installed { version, slot })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::slots::{SlotState, Slots};
    use super::*;

    /// Two slots in memory, A running.
    struct TwoSlots {
        bundle_compatible: &'static str,
        installs: Cell<u32>,
        breaks: bool,
    }

    impl Default for TwoSlots {
        fn default() -> Self {
            Self {
                bundle_compatible: "box",
                installs: Cell::new(0),
                breaks: false,
            }
        }
    }

    impl BootControl for TwoSlots {
        fn slots(&self) -> Result<Slots, BootControlError> {
            let state = |name| SlotState {
                slot: Slot::named(name),
                device: String::new(),
                good: true,
            };
            Ok(Slots {
                compatible: "box".into(),
                booted: Some(Slot::named("A")),
                primary: Some(Slot::named("A")),
                all: vec![state("A"), state("B")],
            })
        }
        fn inspect(&self, _: &Path) -> Result<BundleInfo, BootControlError> {
            Ok(BundleInfo {
                compatible: self.bundle_compatible.into(),
                version: "2".into(),
            })
        }
        fn install(
            &self,
            _: &Path,
            progress: &mut dyn FnMut(&str),
        ) -> Result<(), BootControlError> {
            self.installs.set(self.installs.get() + 1);
            progress("50% half");
            if self.breaks {
                return Err(BootControlError::Refused {
                    attempt: "install the bundle",
                    says: "No space".into(),
                });
            }
            Ok(())
        }
        fn commit(&self) -> Result<(), BootControlError> {
            unreachable!("an installation keeps nothing")
        }
    }

    fn boot(id: &str, slot: &str, trial: bool) -> BootFacts {
        BootFacts {
            boot_id: id.into(),
            slot: Some(Slot::named(slot)),
            trial,
        }
    }

    fn go(
        dir: &Path,
        control: &TwoSlots,
        facts: &BootFacts,
        force: bool,
    ) -> Result<Installed, InstallError> {
        let mut history = History::load(dir);
        history.record_boot(facts, "1", "").unwrap();
        let now = Now {
            facts,
            version: "1",
            platform_is_up: true,
        };
        let wish = Wish {
            bundle_path: Path::new("x"),
            version: None,
            force,
        };
        install(wish, now, &mut history, control, &mut |_| {})
    }

    #[test]
    fn an_installed_bundle_is_staged_in_the_other_slot() {
        let dir = tempfile::tempdir().unwrap();
        let installed = go(
            dir.path(),
            &TwoSlots::default(),
            &boot("1", "A", false),
            false,
        )
        .unwrap();
        assert_eq!(
            installed,
            Installed {
                version: "2".into(),
                slot: Slot::named("B")
            }
        );
        let history = History::load(dir.path());
        assert_eq!(history.trial().unwrap().phase, Phase::Staged);
        assert_eq!(history.trial().unwrap().from_version, "1");
        assert!(history.trial().unwrap().platform_was_up);
    }

    #[test]
    fn nothing_is_installed_while_a_trial_runs() {
        let dir = tempfile::tempdir().unwrap();
        let control = TwoSlots::default();
        let error = go(dir.path(), &control, &boot("1", "A", true), true).unwrap_err();
        assert!(matches!(error, InstallError::TrialRuns));
        assert_eq!(control.installs.get(), 0);
    }

    #[test]
    fn a_version_that_failed_is_refused_unless_somebody_insists() {
        let dir = tempfile::tempdir().unwrap();
        let control = TwoSlots::default();
        go(dir.path(), &control, &boot("1", "A", false), false).unwrap();
        let error = go(dir.path(), &control, &boot("2", "A", false), false).unwrap_err();
        assert!(
            matches!(&error, InstallError::FailedBefore { version, .. } if version == "2"),
            "{error}"
        );
        assert_eq!(control.installs.get(), 1);
        go(dir.path(), &control, &boot("2", "A", false), true).unwrap();
        assert_eq!(control.installs.get(), 2);
    }

    #[test]
    fn a_bundle_of_another_version_than_ordered_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let control = TwoSlots::default();
        let wish = Wish {
            bundle_path: Path::new("x"),
            version: Some("3"),
            force: false,
        };
        let now = Now {
            facts: &boot("1", "A", false),
            version: "1",
            platform_is_up: true,
        };
        let mut history = History::load(dir.path());
        let error = install(wish, now, &mut history, &control, &mut |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the bundle holds version 2, version 3 was ordered"
        );
        assert_eq!(control.installs.get(), 0);
    }

    #[test]
    fn a_bundle_for_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let control = TwoSlots {
            bundle_compatible: "toaster",
            ..TwoSlots::default()
        };
        let error = go(dir.path(), &control, &boot("1", "A", false), false).unwrap_err();
        assert!(
            matches!(error, InstallError::Incompatible { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_failed_installation_stages_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let control = TwoSlots {
            breaks: true,
            ..TwoSlots::default()
        };
        let error = go(dir.path(), &control, &boot("1", "A", false), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RAUC failed to install the bundle: No space"
        );
        assert_eq!(History::load(dir.path()).trial(), None);
    }
}
