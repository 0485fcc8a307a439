//! The platform's time, taken from the `Date` of authenticated HTTPS answers, for what must carry a right time although the
//! box's clock may be wrong (expiry of signatures).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, SystemClock};

/// No answer seen yet.
const UNKNOWN: i64 = i64::MIN;

/// How far the platform's clock is ahead of the box's. Clones share it.
#[derive(Clone)]
pub struct PlatformTime {
    clock: Arc<dyn Clock>,
    offset_ms: Arc<AtomicI64>,
}

impl PlatformTime {
    /// Starts with the box's own time.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            offset_ms: Arc::new(AtomicI64::new(UNKNOWN)),
        }
    }

    /// The machine's own clock, for a program that asks once and ends.
    #[must_use]
    pub fn of_system() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }

    /// Takes over the time of an answer that TLS has authenticated and that was received just now.
    pub fn observe(&self, date: Option<SystemTime>) {
        let Some(date) = date else { return };
        let Ok(since_1970) = date.duration_since(UNIX_EPOCH) else {
            return;
        };
        let Ok(date_ms) = i64::try_from(since_1970.as_millis()) else {
            return;
        };
        // `Date` has whole seconds: the middle of its second is the best guess.
        let offset = date_ms
            .saturating_add(500)
            .saturating_sub(self.clock.wall_ms());
        self.offset_ms.store(offset, Ordering::Relaxed);
    }

    /// How far the platform is ahead, or `None` before the first answer.
    #[must_use]
    pub fn offset_ms(&self) -> Option<i64> {
        Some(self.offset_ms.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN)
    }

    /// The same in whole seconds.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// Now, by the platform's clock as far as it is known.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.clock
            .wall_ms()
            .saturating_add(self.offset_ms().unwrap_or(0))
    }
}

impl fmt::Debug for PlatformTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformTime({} ms)", self.now_ms())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn follows_the_platform_when_the_box_stands_in_1970() {
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let time = PlatformTime::new(clock.clone());
        assert_eq!((time.now_ms(), time.offset_ms()), (0, None));
        time.observe(Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        clock.advance(Duration::from_secs(10));
        assert_eq!(time.now_ms(), 1_700_000_010_500);
    }
}
