//! RAUC's report on the slots: `rauc status --output-format=json`, as 1.8 prints it and later versions extend it.
//!
//! Only what is used is read; fields that a later RAUC adds (system version, artifact repositories) are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::boot::Slot;

/// What RAUC knows about the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// What a bundle must be made for.
    pub compatible: String,
    /// The slot that is running.
    pub booted: Option<Slot>,
    /// The slot that the next boot tries first.
    pub primary: Option<Slot>,
    /// Every slot that can be booted, by boot name.
    pub all: Vec<SlotState>,
}

/// One bootable slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotState {
    /// Its boot name.
    pub slot: Slot,
    /// Where it lies.
    pub device: String,
    /// The boot loader may boot it.
    pub good: bool,
}

/// RAUC printed something else than a report.
#[derive(Debug, thiserror::Error)]
#[error("cannot read RAUC's report on the slots")]
pub struct ReadSlotsError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Report {
    compatible: String,
    booted: Option<String>,
    boot_primary: Option<String>,
    slots: Vec<BTreeMap<String, SlotReport>>,
}

#[derive(Deserialize)]
struct SlotReport {
    device: Option<String>,
    bootname: Option<String>,
    boot_status: Option<String>,
}

impl Slots {
    /// Reads the report.
    ///
    /// # Errors
    /// When it is no JSON of that shape.
    pub fn read(json: &[u8]) -> Result<Self, ReadSlotsError> {
        let report: Report = serde_json::from_slice(json)?;
        let mut all = Vec::new();
        let mut primary = None;
        for (name, slot) in report.slots.into_iter().flatten() {
            // Slots without a boot name (a kernel beside its root) belong to a slot that has one.
            let Some(bootname) = slot.bootname else {
                continue;
            };
            let named = Slot::named(&bootname);
            if report.boot_primary.as_ref() == Some(&name) {
                primary = Some(named.clone());
            }
            let good = slot.boot_status.as_deref() == Some("good");
            all.push(SlotState {
                slot: named,
                device: slot.device.unwrap_or_default(),
                good,
            });
        }
        all.sort_by(|a, b| a.slot.as_str().cmp(b.slot.as_str()));
        Ok(Self {
            compatible: report.compatible,
            booted: report.booted.map(|name| Slot::named(&name)),
            primary,
            all,
        })
    }

    /// The slot an installation goes to: the one that is not running.
    #[must_use]
    pub fn other(&self) -> Option<&Slot> {
        let running = self.booted.as_ref()?;
        self.all
            .iter()
            .map(|state| &state.slot)
            .find(|slot| *slot != running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Slots {
        let path = format!(
            "{}/tests/golden/rauc-status/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        Slots::read(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_report_after_an_installation_names_the_next_slot() {
        let slots = golden("1.8-installed-to-b");
        assert_eq!(slots.booted, Some(Slot::named("A")));
        assert_eq!(slots.primary, Some(Slot::named("B")));
        assert_eq!(slots.other(), Some(&Slot::named("B")));
        assert_eq!(slots.all.iter().filter(|state| state.good).count(), 2);
    }

    #[test]
    fn slots_without_a_boot_name_and_unknown_fields_are_passed_over() {
        let slots = golden("extended-with-boot-slots");
        let names: Vec<_> = slots.all.iter().map(|state| state.slot.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        assert!(
            !slots.all[0].good,
            "a status this version does not know is not good"
        );
    }

    #[test]
    fn something_else_than_a_report_is_an_error() {
        assert!(Slots::read(b"Error retrieving slot status").is_err());
        assert!(Slots::read(b"{}").is_err());
    }
}
