//! How the box stands with each device it has something to tell: shared between couriers, dispatch and the status page.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::telemetry::{Counter, Gauge, Telemetry};

/// How the box stands with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// A session is open.
    Connected,
    /// The last try failed.
    Unreachable {
        /// When the first try of the row failed, milliseconds since 1970.
        since_ms: i64,
        /// When the last one did.
        last_ms: i64,
        /// Why, as a stable name.
        reason: &'static str,
    },
}

/// The table; clones share it. Its bound is the number of couriers.
#[derive(Debug, Clone)]
pub struct Links {
    table: Arc<Mutex<HashMap<String, Entry>>>,
    /// Counters of this room.
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct Entry {
    state: LinkState,
    /// Since when nothing came of it. A session alone ends no row of failures: a device that shakes hands and then takes
    /// nothing is of no more use than one that cannot be reached.
    failing: Option<Failing>,
}

/// When a row of failures began.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    since_ms: i64,
}

/// What this room counts.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    pub(super) sent: Counter,
    pub(super) done: Counter,
    pub(super) failed_sessions: Counter,
    sessions: Gauge,
}

impl Links {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let metrics = &telemetry.metrics;
        Self {
            table: Arc::default(),
            counters: Counters {
                sent: metrics.counter(
                    "comptoir_commands_sent_total",
                    "",
                    "Commands sent to devices, repeats included.",
                ),
                done: metrics.counter(
                    "comptoir_commands_done_total",
                    "",
                    "Commands whose result a device told.",
                ),
                failed_sessions: metrics.counter(
                    "comptoir_device_sessions_failed_total",
                    "",
                    "Device sessions that failed or could not be opened.",
                ),
                sessions: metrics.gauge("comptoir_device_sessions", "", "Open device sessions."),
            },
        }
    }

    /// How the box stands with a device.
    #[must_use]
    pub fn of(&self, device_id: &str) -> Option<LinkState> {
        self.lock().get(device_id).map(|entry| entry.state)
    }

    pub(super) fn connected(&self, device_id: &str) {
        let failing = self.failing(device_id);
        self.set(device_id, LinkState::Connected, failing);
    }

    /// The session is of use: something was recorded, or there is nothing to carry.
    pub(super) fn works(&self, device_id: &str) {
        if let Some(entry) = self.lock().get_mut(device_id) {
            entry.failing = None;
        }
    }

    pub(super) fn failed(&self, device_id: &str, reason: &'static str, now_ms: i64) {
        self.counters.failed_sessions.add_one();
        let failing = self.failing(device_id).unwrap_or_else(|| Failing {
            since: Instant::now(),
            since_ms: now_ms,
        });
        let state = LinkState::Unreachable {
            since_ms: failing.since_ms,
            last_ms: now_ms,
            reason,
        };
        self.set(device_id, state, Some(failing));
    }

    pub(super) fn forget(&self, device_id: &str) {
        let mut table = self.lock();
        table.remove(device_id);
        self.count_sessions(&table);
    }

    pub(super) fn is_connected(&self, device_id: &str) -> bool {
        self.of(device_id) == Some(LinkState::Connected)
    }

    /// Connected, and took what it was given since it last could not be reached.
    pub(super) fn is_of_use(&self, device_id: &str) -> bool {
        let table = self.lock();
        table
            .get(device_id)
            .is_some_and(|entry| entry.state == LinkState::Connected && entry.failing.is_none())
    }

    /// Who cannot be reached, and when that was last tried.
    pub(super) fn unreachable(&self) -> Vec<(String, i64)> {
        self.lock()
            .iter()
            .filter_map(|(device_id, entry)| match entry.state {
                LinkState::Unreachable { last_ms, .. } => Some((device_id.clone(), last_ms)),
                LinkState::Connected => None,
            })
            .collect()
    }

    pub(super) fn is_unreachable_for(&self, device_id: &str, at_least: Duration) -> bool {
        let table = self.lock();
        table
            .get(device_id)
            .is_some_and(|entry| entry.is_unreachable_for(at_least))
    }

    /// Who has not been reached for so long.
    pub(super) fn unreachable_for(&self, at_least: Duration) -> Vec<String> {
        let mut gone: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, entry)| entry.is_unreachable_for(at_least))
            .map(|(device_id, _)| device_id.clone())
            .collect();
        gone.sort();
        gone
    }

    fn failing(&self, device_id: &str) -> Option<Failing> {
        self.lock().get(device_id).and_then(|entry| entry.failing)
    }

    fn set(&self, device_id: &str, state: LinkState, failing: Option<Failing>) {
        let mut table = self.lock();
        table.insert(device_id.to_owned(), Entry { state, failing });
        self.count_sessions(&table);
    }

    fn count_sessions(&self, table: &HashMap<String, Entry>) {
        let open = table
            .values()
            .filter(|entry| entry.state == LinkState::Connected)
            .count();
        self.counters
            .sessions
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.table.lock().expect("no holder of this lock panics")
    }
}

impl Entry {
    fn is_unreachable_for(&self, at_least: Duration) -> bool {
        self.state != LinkState::Connected
            && self
                .failing
                .is_some_and(|failing| failing.since.elapsed() >= at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_failures_keeps_its_beginning_until_a_session_is_of_use() {
        let links = Links::new(&Telemetry::default());
        links.failed("a", "connect", 10);
        links.failed("a", "deadline", 20);
        assert_eq!(
            links.of("a"),
            Some(LinkState::Unreachable {
                since_ms: 10,
                last_ms: 20,
                reason: "deadline"
            })
        );
        assert_eq!(links.unreachable(), [("a".to_owned(), 20)]);
        assert!(links.is_unreachable_for("a", Duration::ZERO));
        assert!(!links.is_unreachable_for("a", Duration::from_secs(60)));
        links.connected("a");
        assert!(links.is_connected("a"));
        assert!(links.unreachable_for(Duration::ZERO).is_empty());
        // It shakes hands and then takes nothing: the row goes on.
        links.failed("a", "deadline", 30);
        assert!(matches!(
            links.of("a"),
            Some(LinkState::Unreachable { since_ms: 10, .. })
        ));
        links.connected("a");
        links.works("a");
        links.failed("a", "closed", 40);
        assert!(matches!(
            links.of("a"),
            Some(LinkState::Unreachable { since_ms: 40, .. })
        ));
        links.forget("a");
        assert_eq!(links.of("a"), None);
    }
}
