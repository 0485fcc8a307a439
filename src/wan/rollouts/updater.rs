//! The box's slots as a roll-out needs them. What stands behind it (RAUC, the boot history, the supervisor) is not this
//! room's business, and tests replace it.

use std::path::Path;

/// What runs here, and what is on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version that runs.
    pub version: String,
    /// The slot it runs from; `None` on a machine without slots.
    pub slot: Option<String>,
    /// What the image is made for.
    pub hardware: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// This boot is a trial that is not decided yet.
    pub in_trial: bool,
    /// A version that was installed by somebody else and waits for the next boot.
    pub staged: Option<String>,
    /// Versions that failed here, with their reasons.
    pub failed: Vec<(String, String)>,
}

impl Standing {
    /// Why `version` failed here, if it did.
    #[must_use]
    pub fn failure_of(&self, version: &str) -> Option<&str> {
        let found = self.failed.iter().rev().find(|(known, _)| known == version);
        found.map(|(_, reason)| &**reason)
    }
}

/// A bundle that was not installed. The running slot is untouched in every case.
#[derive(Debug, thiserror::Error)]
pub enum InstallBundleError {
    /// Something else is being installed or tried; later.
    #[error("another update is on its way")]
    Busy,
    /// It will not do, however often it is tried.
    #[error("{0}")]
    Refused(String),
}

/// Installs bundles and restarts the box.
pub trait Updater: Send {
    /// What runs here, and what is on its way.
    fn standing(&mut self) -> Standing;

    /// Verifies the bundle's signature, writes it to the other slot and marks it for its trial. The bundle must be of
    /// `version`. Blocks for minutes and tells `progress` in per cent.
    ///
    /// # Errors
    /// [`InstallBundleError`].
    fn install(
        &mut self,
        bundle_path: &Path,
        version: &str,
        progress: &mut dyn FnMut(u8),
    ) -> Result<(), InstallBundleError>;

    /// Asks for the restart that begins the trial.
    fn restart(&mut self);
}
