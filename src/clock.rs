//! Time as a thing that is handed in, so that a test of an hour runs in a millisecond.

use std::fs;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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

    /// What the age of a record is told by. As good as the wall clock, unless the clock knows better.
    fn reckoning(&self) -> Reckoning {
        Reckoning::by(self.wall_ms())
    }
}

/// What the age of a record is told by, when nobody may vouch for the wall clock.
///
/// A clock that runs ahead must not make old what was stamped before it did. So a record that this start stamped goes by
/// the wall clock, which stamped it, and an older one by the earliest that it can be now: it then lasts too long at
/// worst, by as long as the box was off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reckoning {
    /// Wall time.
    pub now_ms: i64,
    /// Stamps from here on are the wall clock's own.
    pub since_ms: i64,
    /// The present is not earlier than this; the wall time itself when that is vouched for.
    pub earliest_ms: i64,
}

impl Reckoning {
    /// By a wall clock that is right.
    #[must_use]
    pub fn by(now_ms: i64) -> Self {
        Self {
            now_ms,
            since_ms: i64::MIN,
            earliest_ms: now_ms,
        }
    }

    /// A deadline that was set at `stamped_ms`, as the wall clock now counts.
    #[must_use]
    pub fn deadline(&self, stamped_ms: i64, deadline_ms: i64) -> i64 {
        if stamped_ms >= self.since_ms {
            return deadline_ms;
        }
        deadline_ms.saturating_add(self.now_ms.saturating_sub(self.earliest_ms).max(0))
    }
}

/// No time before this is the present: this software was not made yet. 2026-01-01T00:00:00Z.
pub const SOFTWARE_MADE_MS: i64 = 1_767_225_600_000;

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

/// A moment that no wall clock can falsify: of which boot, and how long after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStamp {
    /// The kernel's id of that boot.
    pub boot_id: String,
    /// Since that boot.
    pub uptime_ms: u64,
}

impl BootStamp {
    /// Now.
    ///
    /// # Errors
    /// Where there is no Linux `/proc`.
    pub fn now() -> io::Result<Self> {
        let uptime = fs::read_to_string("/proc/uptime")?;
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .and_then(|seconds| seconds.parse().ok())
            .filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
            .ok_or(io::ErrorKind::InvalidData)?;
        let uptime = Duration::from_secs_f64(seconds);
        Ok(Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// From `earlier` to this one; `None` when `earlier` is of another boot, or not earlier.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        if self.boot_id != earlier.boot_id {
            return None;
        }
        let milliseconds = self.uptime_ms.checked_sub(earlier.uptime_ms)?;
        Some(Duration::from_millis(milliseconds))
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

    /// Sets the wall clock, as a person or a program does; monotonic time goes on.
    pub fn set_wall(&self, wall: Timestamp) {
        self.state.lock().expect("no holder of this lock panics").0 = wall;
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
    fn an_old_deadline_goes_by_the_earliest_time_and_a_new_one_by_the_clock() {
        let ahead = Reckoning {
            now_ms: 5000,
            since_ms: 4000,
            earliest_ms: 100,
        };
        assert_eq!(ahead.deadline(4000, 6000), 6000);
        assert_eq!(ahead.deadline(50, 150), 5050, "50 ms are left of it");
        assert_eq!(ahead.deadline(50, 90), 4990, "that is over all the same");
        assert_eq!(Reckoning::by(5000).deadline(50, 150), 150);
    }

    #[test]
    fn a_stamp_of_another_boot_or_of_later_says_nothing() {
        let now = BootStamp::now().unwrap();
        assert_eq!(now.since(&now), Some(Duration::ZERO));
        let later = BootStamp {
            uptime_ms: now.uptime_ms + 7,
            ..now.clone()
        };
        assert_eq!(later.since(&now), Some(Duration::from_millis(7)));
        assert_eq!(now.since(&later), None);
        let other = BootStamp {
            boot_id: "other".into(),
            uptime_ms: 0,
        };
        assert_eq!(now.since(&other), None);
    }

    #[test]
    fn a_time_outside_the_calendar_is_none_and_not_a_panic() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(i64::MAX), None);
    }
}
