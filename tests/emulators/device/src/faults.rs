//! What the device does wrong on demand. Counts go down by one each time the fault happens; times and switches stay.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::Outcome;

/// The faults in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// For so many commands: closes the connection on receipt, keeps nothing.
    pub drop_before_accept: u32,
    /// For so many commands: keeps and executes it, but closes the connection before it says `Accepted`.
    pub lose_accept: u32,
    /// For so many commands: says `Accepted`, executes, but closes the connection before `Done`.
    pub drop_after_accept: u32,
    /// For so many commands: answers with a frame over the limit.
    pub oversized_frame: u32,
    /// For so many commands: answers with a frame whose tag is wrong.
    pub bad_tag: u32,
    /// For so many commands: `outcome` in place of executing.
    pub fail: u32,
    /// What `fail` answers.
    pub fail_outcome: Outcome,
    /// How long executing a command takes.
    pub done_delay_ms: u64,
    /// Answers nothing any more, not even pings, but keeps connections open.
    pub mute: bool,
    /// Does not listen.
    pub refuse_connections: bool,
    /// Proves itself with another key.
    pub wrong_key: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            drop_before_accept: 0,
            lose_accept: 0,
            drop_after_accept: 0,
            oversized_frame: 0,
            bad_tag: 0,
            fail: 0,
            fail_outcome: Outcome::Failed,
            done_delay_ms: 0,
            mute: false,
            refuse_connections: false,
            wrong_key: false,
        }
    }
}

impl Faults {
    /// These faults, with the fields of `patch` replaced.
    pub fn patched(&self, patch: Value) -> anyhow::Result<Self> {
        let mut whole = serde_json::to_value(self)?;
        let patch = patch.as_object().context("faults are a JSON object")?;
        let fields = whole.as_object_mut().expect("a struct is an object");
        fields.extend(patch.clone());
        Ok(serde_json::from_value(whole)?)
    }
}

/// Uses up one of a count.
pub fn strike(count: &mut u32) -> bool {
    let strikes = *count > 0;
    *count = count.saturating_sub(1);
    strikes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_replaces_its_fields_and_no_other() {
        let faults = Faults::default().patched(json!({"mute": true})).unwrap();
        let faults = faults.patched(json!({"drop_after_accept": 2})).unwrap();
        assert!(faults.mute);
        assert_eq!(faults.drop_after_accept, 2);
        assert!(faults.patched(json!({"no_such_fault": 1})).is_err());
    }

    #[test]
    fn a_count_strikes_that_often() {
        let mut count = 2;
        assert_eq!(
            [strike(&mut count), strike(&mut count), strike(&mut count)],
            [true, true, false]
        );
    }
}
