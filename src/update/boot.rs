//! What the boot loader and the kernel say about this boot.
//!
//! The one place that knows the names on the kernel command line, which the boards' boot scripts write:
//! `comptoir.slot=A|B` (`rauc.slot=` says the same to RAUC) and `comptoir.trial=0|1`.

use std::fs;

use serde::{Deserialize, Serialize};

/// One of the two complete systems on the disk, by its boot name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(String);

impl Slot {
    /// The slot with this boot name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its boot name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The facts of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFacts {
    /// The kernel's random id of this boot.
    pub boot_id: String,
    /// Where we were started from; `None` on a machine without slots.
    pub slot: Option<Slot>,
    /// The boot loader counts this boot as a try of a slot that is not committed.
    pub trial: bool,
}

impl BootFacts {
    /// Of the running kernel.
    #[must_use]
    pub fn of_this_boot() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self::read(&boot_id, &command_line)
    }

    fn read(boot_id: &str, command_line: &str) -> Self {
        let value = |key: &str| {
            command_line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(key))
        };
        let slot = value("comptoir.slot=").or_else(|| value("rauc.slot="));
        Self {
            boot_id: boot_id.trim().to_owned(),
            slot: slot.map(Slot::named),
            trial: value("comptoir.trial=") == Some("1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_and_trial_come_from_the_command_line() {
        let facts = BootFacts::read(
            "b1\n",
            "console=ttyAMA0 rauc.slot=B comptoir.slot=B comptoir.trial=1\n",
        );
        assert_eq!(
            facts,
            BootFacts {
                boot_id: "b1".into(),
                slot: Some(Slot::named("B")),
                trial: true
            }
        );
        let committed = BootFacts::read("b2", "rauc.slot=A comptoir.trial=0");
        assert_eq!(
            (committed.slot, committed.trial),
            (Some(Slot::named("A")), false)
        );
        assert_eq!(BootFacts::read("b3", "root=/dev/sda1 quiet").slot, None);
    }
}
