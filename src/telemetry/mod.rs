//! What the box says of itself: logs for support, [`Metrics`] for curves, [`Conditions`] for people.
//!
//! A log tells an event, a metric counts, a condition is a fact that lasts ("the platform has not answered since …").
//! Conditions have stable codes; the front page, `comptoir status` and the platform show the same ones.

mod conditions;
mod logs;
mod metrics;

pub use conditions::{Code, Condition, Conditions, Severity};
pub use logs::start_logs;
pub use metrics::{Counter, Gauge, Metrics};

/// What every long-lived part is handed to tell about itself. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Long-lived facts.
    pub conditions: Conditions,
    /// Counters and gauges.
    pub metrics: Metrics,
}
