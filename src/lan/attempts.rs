//! How often a pairing code may be tried: per source, and by all together.
//!
//! A code has at least 8 characters; with these bounds a machine on the shop's network tries some 20,000 a day.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// Wrong codes a source may send before it waits, and how long one of them counts.
const PER_SOURCE: u32 = 5;
const SOURCE_FORGETS: Duration = Duration::from_secs(12);

/// Wrong codes of all sources together.
const GLOBAL: u32 = 30;
const GLOBAL_FORGETS: Duration = Duration::from_secs(4);

/// Sources remembered; when there are more, those that have waited longest are forgotten, the global bound stays.
const MAX_SOURCES: usize = 1024;

/// Counts wrong codes.
#[derive(Debug)]
pub struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sources: HashMap<IpAddr, Bucket>,
    all: Bucket,
}

/// A bucket that leaks one failure per period.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    failures: u32,
    since: Duration,
}

impl Bucket {
    fn leak(&mut self, period: Duration, now: Duration) {
        let elapsed = now.saturating_sub(self.since);
        let forgotten = u32::try_from(elapsed.as_millis() / period.as_millis()).unwrap_or(u32::MAX);
        if forgotten >= self.failures {
            *self = Self {
                failures: 0,
                since: now,
            };
        } else {
            self.failures -= forgotten;
            self.since += period * forgotten;
        }
    }
}

impl Attempts {
    /// Nobody has failed yet.
    pub fn new() -> Self {
        Self(Mutex::default())
    }

    /// Whether `source` may try now; if not, how long it waits.
    ///
    /// # Errors
    /// The wait.
    pub fn may_try(&self, source: IpAddr, now: Duration) -> Result<(), Duration> {
        let mut state = self.lock();
        state.all.leak(GLOBAL_FORGETS, now);
        if state.all.failures >= GLOBAL {
            return Err(GLOBAL_FORGETS);
        }
        let Some(bucket) = state.sources.get_mut(&source) else {
            return Ok(());
        };
        bucket.leak(SOURCE_FORGETS, now);
        if bucket.failures >= PER_SOURCE {
            return Err(SOURCE_FORGETS);
        }
        Ok(())
    }

    /// `source` sent a wrong code.
    pub fn failed(&self, source: IpAddr, now: Duration) {
        let mut state = self.lock();
        state.all.leak(GLOBAL_FORGETS, now);
        state.all.failures += 1;
        if state.sources.len() >= MAX_SOURCES && !state.sources.contains_key(&source) {
            let oldest = state.sources.iter().min_by_key(|(_, bucket)| bucket.since);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                state.sources.remove(&oldest);
            }
        }
        let bucket = state.sources.entry(source).or_insert(Bucket {
            failures: 0,
            since: now,
        });
        bucket.leak(SOURCE_FORGETS, now);
        bucket.failures += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    #[test]
    fn a_source_waits_after_five_wrong_codes_and_others_do_not() {
        let attempts = Attempts::new();
        let now = Duration::from_secs(100);
        for _ in 0..PER_SOURCE {
            assert_eq!(attempts.may_try(source(1), now), Ok(()));
            attempts.failed(source(1), now);
        }
        assert_eq!(attempts.may_try(source(1), now), Err(SOURCE_FORGETS));
        assert_eq!(attempts.may_try(source(2), now), Ok(()));
        let later = now + SOURCE_FORGETS;
        assert_eq!(attempts.may_try(source(1), later), Ok(()));
        attempts.failed(source(1), later);
        assert_eq!(attempts.may_try(source(1), later), Err(SOURCE_FORGETS));
    }

    #[test]
    fn many_sources_together_meet_the_global_bound_and_a_bounded_memory() {
        let attempts = Attempts::new();
        let now = Duration::from_secs(100);
        for n in 0..GLOBAL {
            attempts.failed(source(n), now);
        }
        assert_eq!(attempts.may_try(source(9999), now), Err(GLOBAL_FORGETS));
        for n in 0..3000 {
            attempts.failed(source(n), now + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(attempts.lock().sources.len(), MAX_SOURCES);
    }
}
