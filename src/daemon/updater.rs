//! The box's slots, as roll-outs need them: RAUC, the boot history and, for the restart, the supervisor.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shutdown::Shutdown;
use crate::telemetry::chain;
use crate::update::boot::BootFacts;
use crate::update::boot_control::{BootControl, BootControlError, Rauc};
use crate::update::history::History;
use crate::update::install::{InstallError, Now, Wish, install};
use crate::update::probe::platform_is_up;
use crate::version::running;
use crate::wan::rollouts::{InstallBundleError, Standing, Updater};

/// What RAUC's service says while it installs for somebody else.
const RAUC_IS_BUSY: &str = "already processing";

/// Whether the server ends so that the box restarts. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct RestartWish(Arc<AtomicBool>);

impl RestartWish {
    pub(super) fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The real one.
pub(super) struct BoxUpdater {
    data_dir: PathBuf,
    /// Where this box's own front port is asked.
    front: SocketAddr,
    facts: BootFacts,
    hardware: Option<String>,
    control: Rauc,
    restart: RestartWish,
    shutdown: Shutdown,
}

impl BoxUpdater {
    pub(super) fn new(
        data_dir: &Path,
        front: SocketAddr,
        restart: RestartWish,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            front,
            facts: BootFacts::of_this_boot(),
            hardware: None,
            control: Rauc::default(),
            restart,
            shutdown,
        }
    }
}

impl Updater for BoxUpdater {
    fn standing(&mut self) -> Standing {
        if self.hardware.is_none() {
            // Asked once: RAUC's answer costs a process, and the image's own name does not change under us.
            let slots = self.control.slots();
            self.hardware =
                Some(slots.map_or_else(|_| "unknown".to_owned(), |slots| slots.compatible));
        }
        let history = History::load(&self.data_dir);
        let staged = history
            .trial()
            .filter(|_| history.trial_is_due(&self.facts));
        let failed = history.failed().iter();
        Standing {
            version: running().to_owned(),
            slot: self.facts.slot.as_ref().map(ToString::to_string),
            hardware: self.hardware.clone().unwrap_or_default(),
            boot_id: self.facts.boot_id.clone(),
            in_trial: history.in_trial(&self.facts),
            staged: staged.map(|trial| trial.version.clone()),
            failed: failed
                .map(|failed| (failed.version.clone(), failed.reason.clone()))
                .collect(),
        }
    }

    fn install(
        &mut self,
        bundle_path: &Path,
        version: &str,
        progress: &mut dyn FnMut(u8),
    ) -> Result<(), InstallBundleError> {
        let now = Now {
            facts: &self.facts,
            version: running(),
            // As the gate of the trial will ask: it has ordered this, but data may not come for another reason.
            platform_is_up: platform_is_up(self.front) == Some(true),
        };
        let wish = Wish {
            bundle_path,
            version: Some(version),
            force: false,
        };
        let mut history = History::load(&self.data_dir);
        let mut told = |line: &str| {
            if let Some(percent) = percent_of(line) {
                progress(percent);
            }
        };
        let result = install(wish, now, &mut history, &self.control, &mut told);
        result.map(drop).map_err(|error| match error {
            InstallError::TrialRuns => InstallBundleError::Busy,
            InstallError::Rauc(BootControlError::Refused { ref says, .. })
                if says.contains(RAUC_IS_BUSY) =>
            {
                InstallBundleError::Busy
            }
            error => InstallBundleError::Refused(chain(&error)),
        })
    }

    fn restart(&mut self) {
        self.restart.0.store(true, Ordering::Relaxed);
        self.shutdown.trigger();
    }
}

/// `" 40% Checking slot"` is 40.
fn percent_of(line: &str) -> Option<u8> {
    line.split_once('%')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raucs_progress_is_read_from_its_lines() {
        assert_eq!(percent_of("  0% Installing"), Some(0));
        assert_eq!(percent_of("100% Installing done."), Some(100));
        assert_eq!(percent_of("idle"), None);
    }

    #[test]
    fn a_trial_of_another_boot_waits_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let restart = RestartWish::default();
        let front = SocketAddr::from(([127, 0, 0, 1], 1));
        let end = Shutdown::default();
        let mut updater = BoxUpdater::new(dir.path(), front, restart.clone(), end);
        let standing = updater.standing();
        assert_eq!((standing.in_trial, standing.staged), (false, None));
        assert_eq!(standing.version, running());
        updater.restart();
        assert!(restart.is_made() && updater.shutdown.is_triggered());
    }
}
