//! What can't be had now, and when it is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::digest::Digest;

/// Set-asides remembered; beyond it all are tried again, which costs requests and nothing else.
pub(super) const MAX_ASIDE: usize = 4096;
/// Whole transfers of one state (ETag) of a file that turned out wrong, after which it is not transferred again: only
/// asked for whether it has another state now.
pub(super) const WRONG_TRANSFERS: u32 = 3;

/// Why it is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// The host does not have it, or refuses the request for another reason that will not pass by itself.
    Missing,
    /// Not the bytes that were announced.
    Wrong,
    /// The host does not show it to this box.
    Refused,
    /// No place on the box.
    NoRoom,
    /// Its transfers break before they bring anything; another one gets its turn.
    Barren,
}

impl Why {
    /// First pause and longest pause, in seconds. Each further failure doubles it.
    const fn pauses_s(self) -> (u64, u64) {
        match self {
            Self::Missing | Self::Wrong => (10 * 60, 6 * 3600),
            // The first time it may be the signature's end, which the second time shows.
            Self::Refused => (4, 3600),
            // What holds the place may be about to go.
            Self::NoRoom => (4, 600),
            Self::Barren => (20, 1800),
        }
    }

    fn backoff(self) -> Backoff {
        let (first, max) = self.pauses_s();
        Backoff::new(Duration::from_secs(first), Duration::from_secs(max))
            .expect("no pause is zero and none exceeds its longest")
    }
}

/// A blob as one state of one document names it: another address is another try.
pub(super) type Key = (Digest, u64);

#[derive(Debug, Clone)]
struct Failure {
    why: Why,
    tries: u32,
    /// Monotonic time.
    not_before: Duration,
    wrong: Option<Wrong>,
}

/// A state of a file that is not what was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    etag: String,
    transfers: u32,
}

/// The set-asides.
#[derive(Debug, Default)]
pub(super) struct Aside {
    table: BTreeMap<Key, Failure>,
}

impl Aside {
    /// Sets `key` aside at `now`; for how long. `etag` is the wrong state that was transferred, if it was.
    pub(super) fn put(
        &mut self,
        key: Key,
        why: Why,
        etag: Option<String>,
        now: Duration,
        dice: u32,
    ) -> Duration {
        if self.table.len() >= MAX_ASIDE && !self.table.contains_key(&key) {
            self.table.clear();
        }
        let failure = self.table.entry(key).or_insert(Failure {
            why,
            tries: 0,
            not_before: now,
            wrong: None,
        });
        if failure.why != why {
            (failure.why, failure.tries) = (why, 0);
        }
        failure.tries = failure.tries.saturating_add(1);
        if let Some(etag) = etag {
            match &mut failure.wrong {
                Some(wrong) if wrong.etag == etag => wrong.transfers += 1,
                _ => failure.wrong = Some(Wrong { etag, transfers: 1 }),
            }
        }
        let pause = why.backoff().wait(failure.tries, dice);
        failure.not_before = now + pause;
        pause
    }

    /// There are other credentials: what was refused may be tried at once.
    pub(super) fn forgive_refusals(&mut self) {
        self.table.retain(|_, failure| failure.why != Why::Refused);
    }

    /// It was had.
    pub(super) fn clear(&mut self, key: &Key) {
        self.table.remove(key);
    }

    /// Why it may not be tried at `now`.
    pub(super) fn holds(&self, key: &Key, now: Duration) -> Option<Why> {
        let failure = self.table.get(key)?;
        (now < failure.not_before).then_some(failure.why)
    }

    /// Why it failed last, also when it may be tried again.
    pub(super) fn last(&self, key: &Key) -> Option<Why> {
        self.table.get(key).map(|failure| failure.why)
    }

    /// The state that is known to be wrong and was transferred often enough.
    pub(super) fn wrong_state(&self, key: &Key) -> Option<String> {
        let wrong = self.table.get(key)?.wrong.as_ref()?;
        (wrong.transfers >= WRONG_TRANSFERS).then(|| wrong.etag.clone())
    }

    /// From `now` until the next one may be tried.
    pub(super) fn next_in(&self, now: Duration) -> Option<Duration> {
        self.table
            .values()
            .filter_map(|failure| failure.not_before.checked_sub(now))
            .filter(|wait| !wait.is_zero())
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        (Digest::of(&[n]), 0)
    }

    #[test]
    fn pauses_grow_to_a_bound_and_another_address_is_another_try() {
        let mut aside = Aside::default();
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = aside.put(key(1), Why::Missing, None, now, u32::MAX);
            assert_eq!(aside.holds(&key(1), now), Some(Why::Missing));
            assert_eq!(aside.next_in(now), Some(pause));
            now += pause;
            assert_eq!(aside.holds(&key(1), now), None);
            pauses.push(pause.as_secs() / 60);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 360, 360]);
        assert_eq!(aside.holds(&(key(1).0, 1), Duration::ZERO), None);
        assert_eq!(aside.last(&key(1)), Some(Why::Missing));
        // A failure of another kind begins anew.
        let pause = aside.put(key(1), Why::Refused, None, now, u32::MAX);
        assert_eq!(pause, Duration::from_secs(4));
        aside.put(key(2), Why::Missing, None, now, u32::MAX);
        aside.forgive_refusals();
        assert_eq!(aside.holds(&key(1), now), None);
        assert_eq!(aside.holds(&key(2), now), Some(Why::Missing));
        aside.put(key(1), Why::Refused, None, now, u32::MAX);
        aside.clear(&key(1));
        assert_eq!(aside.last(&key(1)), None);
    }

    #[test]
    fn a_wrong_state_is_transferred_three_times_and_another_one_again() {
        let mut aside = Aside::default();
        let mut wrong = |etag: &str| {
            let etag = Some(etag.to_owned());
            aside.put(key(1), Why::Wrong, etag, Duration::ZERO, 0);
            aside.wrong_state(&key(1))
        };
        assert_eq!(wrong("a"), None);
        assert_eq!(wrong("a"), None);
        assert_eq!(wrong("a").as_deref(), Some("a"));
        assert_eq!(wrong("b"), None);
    }

    #[test]
    fn a_full_table_forgets_and_does_not_grow() {
        let mut aside = Aside::default();
        for n in 0..=MAX_ASIDE as u64 {
            aside.put((key(0).0, n), Why::Missing, None, Duration::ZERO, 0);
        }
        assert_eq!(aside.table.len(), 1);
    }
}
