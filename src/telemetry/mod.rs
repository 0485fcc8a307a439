//! What the box says of itself: logs for support, [`Metrics`] for curves, [`Conditions`] for people.
//!
//! A log tells an event, a metric counts, a condition is a fact that lasts ("the platform has not answered since …").
//! Conditions have stable codes; the front page, `comptoir status` and the platform show the same ones.

mod conditions;
mod flows;
mod logs;
mod metrics;
pub mod outgoing;
mod standing;
mod update;

pub use conditions::{Code, Condition, Conditions, Severity};
pub use flows::{FlowBoard, FlowSetup, FlowState, FlowStatus, Trouble, Try};
pub use logs::{chain, start_logs};
pub use metrics::{Counter, Gauge, Metrics};
pub use standing::{EnrolmentState, EnrolmentStatus, Standing};
pub use update::{LastUpdate, OrderedUpdate, UpdateBoard, UpdateState, UpdateStatus, UpdateWait};

use outgoing::SentBoard;

/// What every long-lived part is handed to tell about itself. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Long-lived facts.
    pub conditions: Conditions,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// How the flows to the internet stand.
    pub flows: FlowBoard,
    /// How the box stands with the platform.
    pub standing: Standing,
    /// What left for support, in numbers.
    pub sent: SentBoard,
    /// How roll-outs stand.
    pub update: UpdateBoard,
}

impl Telemetry {
    /// When the platform's feed last answered, also with nothing new, milliseconds since 1970; 0: not since the start.
    /// The pull sets it and the LAN side tells devices how old their data may be; on disk it would cost a write a poll.
    #[must_use]
    pub fn feed_heard_ms(&self) -> Gauge {
        self.metrics.gauge(
            "comptoir_pull_heard_ms",
            "",
            "When the platform's feed last answered, milliseconds since 1970.",
        )
    }
}
