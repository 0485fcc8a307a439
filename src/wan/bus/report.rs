//! What is told of the platform's orders, whichever way they come: counters, and conditions that follow the inbox.

use std::time::Duration;

use crate::store::orders::{ParkCode, Received};
use crate::store::{Orders, ReadError};
use crate::telemetry::{Code, Conditions, Counter, Telemetry};

/// A message that is too large stays with the broker, where the box can't see it: it is shown so long after it came.
const TOO_LARGE_SHOWS: Duration = Duration::from_secs(24 * 3600);

/// Codes of the inbox, each with the faults it stands for.
const CODES: [(Code, &[ParkCode]); 4] = [
    (
        Code::OrderParked,
        &[ParkCode::Unreadable, ParkCode::TooLarge],
    ),
    (Code::OrderDocumentMissing, &[ParkCode::NoDocument]),
    (Code::OrderVersionUnknown, &[ParkCode::UnknownVersion]),
    (Code::OrderConflict, &[ParkCode::Conflict]),
];

/// Counters and conditions of one way.
pub(in crate::wan) struct OrdersReport {
    way: &'static str,
    received: Counter,
    duplicates: Counter,
    parked: Counter,
    conditions: Conditions,
    /// Parked messages are there, or may be (of an earlier run): the conditions have to be looked after.
    may_have_parked: bool,
    /// Monotonic time until which a message that was too large is shown.
    too_large_until: Option<Duration>,
}

impl OrdersReport {
    /// Of the bus.
    pub(in crate::wan) fn of_bus(telemetry: &Telemetry) -> Self {
        Self::new(
            telemetry,
            "bus",
            [
                "comptoir_bus_orders_total",
                "comptoir_bus_duplicates_total",
                "comptoir_bus_parked_total",
            ],
        )
    }

    /// Of the API's feed.
    pub(in crate::wan) fn of_feed(telemetry: &Telemetry) -> Self {
        Self::new(
            telemetry,
            "orders_feed",
            [
                "comptoir_orders_feed_orders_total",
                "comptoir_orders_feed_duplicates_total",
                "comptoir_orders_feed_parked_total",
            ],
        )
    }

    /// Of parked orders whose document was fetched later.
    pub(in crate::wan) fn of_claims(telemetry: &Telemetry) -> Self {
        Self::new(
            telemetry,
            "claims",
            [
                "comptoir_claims_orders_total",
                "comptoir_claims_duplicates_total",
                "comptoir_claims_parked_total",
            ],
        )
    }

    fn new(telemetry: &Telemetry, way: &'static str, names: [&'static str; 3]) -> Self {
        let counter = |name, help| telemetry.metrics.counter(name, "", help);
        let [received, duplicates, parked] = names;
        Self {
            way,
            received: counter(received, "New orders that came this way."),
            duplicates: counter(duplicates, "Messages that were here before."),
            parked: counter(parked, "Messages that could not be taken; they are kept."),
            conditions: telemetry.conditions.clone(),
            may_have_parked: true,
            too_large_until: None,
        }
    }

    /// A message was taken.
    pub(in crate::wan) fn took(&mut self, received: &Received) {
        let way = self.way;
        match received {
            Received::New { order_id } => {
                self.received.add_one();
                tracing::info!(event = "orders.order_received", way, order_id);
            }
            Received::DuplicateMessage => {
                self.duplicates.add_one();
                tracing::debug!(event = "orders.message_repeated", way);
            }
            Received::DuplicateOrder { order_id } => {
                self.duplicates.add_one();
                tracing::info!(event = "orders.order_repeated", way, order_id);
            }
            Received::Parked { why, reason } => {
                self.parked.add_one();
                self.may_have_parked = true;
                let why = why.as_str();
                tracing::warn!(event = "orders.message_parked", way, why, reason);
            }
        }
    }

    /// Holds the conditions to what is parked.
    pub(in crate::wan) fn look(&mut self, orders: &Orders, now_ms: i64) -> Result<(), ReadError> {
        if !self.may_have_parked {
            return Ok(());
        }
        let faults = orders.inbox_faults()?;
        self.may_have_parked = !faults.is_empty();
        for (code, whys) in CODES {
            let found = faults
                .iter()
                .find(|(why, _)| whys.iter().any(|known| known.as_str() == why));
            match found {
                Some((_, reason)) => {
                    self.conditions.raise(code, reason.clone(), now_ms);
                }
                None => {
                    self.conditions.clear(code);
                }
            }
        }
        Ok(())
    }

    /// A message is larger than can be held.
    pub(in crate::wan) fn too_large(&mut self, detail: &str, now: Duration, now_ms: i64) {
        self.too_large_until = Some(now + TOO_LARGE_SHOWS);
        self.conditions.raise(Code::OrderTooLarge, detail, now_ms);
    }

    /// Ends what is shown for a while only.
    pub(in crate::wan) fn let_go(&mut self, now: Duration) {
        if self
            .too_large_until
            .take_if(|until| *until <= now)
            .is_some()
        {
            self.conditions.clear(Code::OrderTooLarge);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::Config;
    use crate::store::Store;
    use crate::store::orders::{InboxMessage, Source};

    #[test]
    fn each_fault_has_its_own_condition_which_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::from_layers(&[]).unwrap().store;
        config.data_dir = dir.path().to_path_buf();
        let orders = Store::open(&config, Arc::new(SystemClock::default()))
            .unwrap()
            .orders;
        let telemetry = Telemetry::default();
        let mut report = OrdersReport::of_bus(&telemetry);
        let mut take = |id: &str, body: &str| {
            let message = InboxMessage {
                message_id: id.into(),
                source: Source::Bus,
                body: body.into(),
            };
            report.took(&orders.receive(message).wait().unwrap());
            report.look(&orders, 1).unwrap();
        };
        let holds = |code| telemetry.conditions.holds(code);
        take(
            "1",
            r#"{"order_id":"o","placed_at":"2026-01-01T00:00:00Z","lines":[]}"#,
        );
        assert!(!holds(Code::OrderConflict) && !holds(Code::OrderParked));
        take(
            "2",
            r#"{"order_id":"o","placed_at":"2026-01-02T00:00:00Z","lines":[]}"#,
        );
        assert!(holds(Code::OrderConflict) && !holds(Code::OrderParked));
        take("3", r#"{"format_version":9}"#);
        assert!(holds(Code::OrderVersionUnknown));
        take("4", "no order");
        assert!(holds(Code::OrderParked));
        for id in ["2", "3", "4"] {
            assert!(orders.inbox_drop(id).wait().unwrap());
        }
        report.look(&orders, 2).unwrap();
        for (code, _) in CODES {
            assert!(!holds(code), "{code:?}");
        }
    }

    #[test]
    fn a_message_that_stays_with_the_broker_is_shown_for_a_day() {
        let telemetry = Telemetry::default();
        let mut report = OrdersReport::of_bus(&telemetry);
        report.too_large("more than 1 MiB", Duration::ZERO, 1);
        report.let_go(TOO_LARGE_SHOWS - Duration::from_secs(1));
        assert!(telemetry.conditions.holds(Code::OrderTooLarge));
        report.let_go(TOO_LARGE_SHOWS);
        assert!(!telemetry.conditions.holds(Code::OrderTooLarge));
    }
}
