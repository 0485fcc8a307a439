//! One line about this boot, for the console and for whoever tests an image.

use std::fs;
use std::path::Path;

use serde::Serialize;
use tracing::warn;

use super::listeners::listeners;
use crate::supervisor::reasons::{Reason, Reasons};
use crate::update::boot::{BootFacts, Slot};
use crate::update::gate::failed_units;
use crate::update::history::{Boot, History};

/// What the line begins with.
pub const MARKER: &str = "comptoir-boot: ";

/// What a boot looks like once it is done.
#[derive(Debug, Serialize)]
pub struct BootReport {
    /// The version that runs.
    pub version: &'static str,
    /// The slot it was started from.
    pub slot: Option<Slot>,
    /// Whether it is on trial and undecided.
    pub in_trial: bool,
    /// What the history says about this boot.
    pub boot: Option<Boot>,
    /// The root file system.
    pub root: Option<Root>,
    /// What became of the data partition at this boot (`kept`, `created`, …), where an initrd says so.
    pub data: Option<String>,
    /// Units that systemd calls failed; `null` when it does not say.
    pub failed_units: Option<Vec<String>>,
    /// Every listening socket.
    pub listeners: Vec<String>,
    /// Restarts of the server in this boot.
    pub restarts: Vec<Reason>,
}

/// The root file system.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Root {
    /// Where it comes from.
    pub device: String,
    /// Its type.
    pub fs: String,
    /// Nothing can be written to it.
    pub read_only: bool,
    /// Every block is verified.
    pub verity: bool,
}

impl BootReport {
    /// Looks around.
    #[must_use]
    pub fn of_this_boot(version: &'static str, data_dir: &Path) -> Self {
        let facts = BootFacts::of_this_boot();
        let history = History::load(data_dir);
        let in_boot = |reason: &&Reason| reason.boot_id == facts.boot_id;
        Self {
            version,
            in_trial: history.in_trial(&facts),
            boot: history
                .boots()
                .iter()
                .find(|boot| boot.boot_id == facts.boot_id)
                .cloned(),
            root: root(&fs::read_to_string("/proc/mounts").unwrap_or_default()),
            data: fs::read_to_string("/run/comptoir/data-state")
                .ok()
                .map(|text| text.trim().to_owned()),
            failed_units: failed_units()
                .inspect_err(|error| warn!(event = "diagnose.units_unknown", %error))
                .ok(),
            listeners: listeners(),
            restarts: Reasons::load(data_dir)
                .list()
                .iter()
                .filter(in_boot)
                .cloned()
                .collect(),
            slot: facts.slot,
        }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{MARKER}{}",
            serde_json::to_string(self).expect("plain data always serialises")
        )
    }
}

/// The last mount on `/`, which is the one that is seen.
fn root(mounts: &str) -> Option<Root> {
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == Some("/"))?;
    let mut fields = line.split(' ');
    let device = fields.next()?.to_owned();
    let fs = fields.nth(1)?.to_owned();
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    let verity = is_verity(&device);
    Some(Root {
        device,
        fs,
        read_only,
        verity,
    })
}

/// Whether the device-mapper device was made as a verity one; cryptsetup's convention for its UUID says so.
fn is_verity(device: &str) -> bool {
    let Some(name) = Path::new(device)
        .canonicalize()
        .ok()
        .and_then(|path| Some(path.file_name()?.to_owned()))
    else {
        return false;
    };
    let uuid = fs::read_to_string(Path::new("/sys/class/block").join(name).join("dm/uuid"))
        .unwrap_or_default();
    uuid.starts_with("CRYPT-VERITY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_that_is_seen_is_the_last_one_mounted() {
        let mounts = "rootfs / rootfs rw 0 0\n/dev/mapper/root / squashfs ro,nodev,relatime 0 0\nproc /proc proc rw 0 0\n";
        let root = root(mounts).unwrap();
        assert_eq!(
            (root.device.as_str(), root.fs.as_str(), root.read_only),
            ("/dev/mapper/root", "squashfs", true)
        );
        assert_eq!(super::root("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn the_report_is_one_line_of_json_behind_a_marker() {
        let dir = tempfile::tempdir().unwrap();
        let line = BootReport::of_this_boot("9.9", dir.path()).line();
        let json = line.strip_prefix(MARKER).unwrap();
        let report: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(report["version"], "9.9");
        assert!(!line.contains('\n'));
        assert!(report["listeners"].is_array());
    }
}
