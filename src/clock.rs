//! Time as a thing that is handed in, so that a test of an hour runs in a millisecond.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Where a part takes its time from.
///
/// Wall time stamps records and can jump; monotonic time measures waits, leases and deadlines and cannot.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, UTC.
    fn wall(&self) -> Timestamp;
    /// Time since an arbitrary start, never going back.
    fn monotonic(&self) -> Duration;

    /// Wall time in milliseconds since 1970, the shape in which the store keeps time.
    fn wall_ms(&self) -> i64 {
        self.wall().as_millisecond()
    }
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when told, for tests.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock standing at `wall`, with monotonic time zero.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        Self {
            state: Mutex::new((wall, Duration::ZERO)),
        }
    }

    /// Moves both clocks forward by `step`.
    pub fn advance(&self, step: Duration) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state.0 += step;
        state.1 += step;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.state.lock().expect("no holder of this lock panics").0
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().expect("no holder of this lock panics").1
    }
}

/// `at` (milliseconds since 1970) as RFC 3339 text, or `None` when it lies outside the years that format can say.
#[must_use]
pub fn rfc3339(at_ms: i64) -> Option<String> {
    Timestamp::from_millisecond(at_ms)
        .ok()
        .map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.wall_ms(), 0);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(clock.wall_ms(), 3_600_000);
        assert_eq!(clock.monotonic(), Duration::from_secs(3600));
    }

    #[test]
    fn a_time_outside_the_calendar_is_none_and_not_a_panic() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(i64::MAX), None);
    }
}
