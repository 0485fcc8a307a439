//! What push tells of itself: counters, and conditions that follow the outbox.

use crate::store::{Orders, ReadError};
use crate::telemetry::{Code, Conditions, Counter, Telemetry};

pub(super) struct PushReport {
    pub(super) sent: Counter,
    parked: Counter,
    conditions: Conditions,
    /// Parked items are there, or may be: the condition has to be looked after.
    may_have_parked: bool,
    /// Items that waited for too long and were dropped, when last looked.
    aged: Option<i64>,
}

impl PushReport {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let metrics = &telemetry.metrics;
        Self {
            sent: metrics.counter(
                "comptoir_push_sent_total",
                "",
                "Events the platform has taken.",
            ),
            parked: metrics.counter(
                "comptoir_push_parked_total",
                "",
                "Events the platform has refused; they are kept.",
            ),
            conditions: telemetry.conditions.clone(),
            // Of an earlier run.
            may_have_parked: true,
            aged: None,
        }
    }

    /// Items were set aside.
    pub(super) fn parked(&mut self, count: u64) {
        self.parked.add(count);
        self.may_have_parked |= count > 0;
    }

    /// Holds the condition of parked items to what is in the outbox.
    pub(super) fn look(&mut self, orders: &Orders, now_ms: i64) -> Result<(), ReadError> {
        if !self.may_have_parked {
            return Ok(());
        }
        let waiting = orders.outbox_parked_count()?;
        self.may_have_parked = waiting > 0;
        if waiting > 0 {
            self.conditions
                .raise(Code::OutboxParked, format!("{waiting} items"), now_ms);
        } else {
            self.conditions.clear(Code::OutboxParked);
        }
        Ok(())
    }

    /// Says that items were given up because nobody took them for a month, until a lane has room again.
    pub(super) fn look_at_bounds(&mut self, orders: &Orders, now_ms: i64) -> Result<(), ReadError> {
        let counts = orders.outbox_counts()?;
        let lost = counts.aged - self.aged.replace(counts.aged).unwrap_or(counts.aged);
        if lost > 0 {
            self.conditions
                .raise(Code::OutboxAged, format!("{lost} items"), now_ms);
        } else if counts
            .lanes
            .iter()
            .all(|lane| lane.waiting < lane.lane.bound())
        {
            self.conditions.clear(Code::OutboxAged);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;
    use crate::store::{Lane, Store};

    #[test]
    fn the_condition_of_parked_items_comes_and_goes_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::from_layers(&[]).unwrap().store;
        config.data_dir = dir.path().to_path_buf();
        let orders = Store::open(&config, Arc::new(SystemClock::default()))
            .unwrap()
            .orders;
        let telemetry = Telemetry::default();
        let body = RawValue::from_string("{}".into()).unwrap();
        let id = orders.outbox_push(Lane::Events, "e", body).wait().unwrap();
        let mut report = PushReport::new(&telemetry);
        let mut holds = || {
            report.look(&orders, 1).unwrap();
            let holds = telemetry.conditions.holds(Code::OutboxParked);
            report.parked(1);
            holds
        };
        assert!(!holds());
        orders.outbox_park(id, "refused").wait().unwrap();
        assert!(holds());
        orders.outbox_unpark(id).wait().unwrap();
        assert!(!holds());
        report.look_at_bounds(&orders, 1).unwrap();
        assert!(!telemetry.conditions.holds(Code::OutboxAged));
    }
}
