//! The `[update]` section: when a new version may come in, and when it is kept.

use std::time::Duration;

use super::reader::Reader;
use super::window::DailyWindow;

/// New versions.
#[derive(Debug, Clone)]
pub struct UpdateConfig {
    /// A trial must stay healthy this long.
    pub stability: Duration,
    /// A trial ends by then.
    pub trial_deadline: Duration,
    /// When a roll-out may disturb the shop; `None`: at any time.
    pub window: Option<DailyWindow>,
    /// Whether a roll-out may lead to an older version.
    pub downgrade: Downgrade,
}

/// What is done with an order for an older version than the one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// Only when the platform forces it: somebody takes a version back on purpose.
    Forced,
    /// Never.
    Never,
}

impl UpdateConfig {
    pub(super) fn check(reader: &mut Reader) -> Self {
        let downgrade = match &*reader.choice("update.downgrade", &["forced", "never"]) {
            "never" => Downgrade::Never,
            _ => Downgrade::Forced,
        };
        Self {
            stability: reader.seconds("update.stability_s", 1..=3600),
            trial_deadline: reader.seconds("update.trial_deadline_s", 60..=7200),
            window: reader.window("update.window"),
            downgrade,
        }
    }
}
