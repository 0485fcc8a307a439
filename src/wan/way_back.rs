//! After an outage the first answer ends the waits of all: a wait for the way to a host is over when the way is back.
//!
//! ```text
//!   no answer --> wait(back-off) ----------------------------------------> next try
//!                   '-- an answer came where none had come, or a link
//!                       is back, and the floor has passed -----------------> next try
//! ```
//! The floor is what keeps a worker that fails where others succeed from spinning: it is the back-off's first wait, and
//! the next one after every early try that was in vain, so that such a worker comes to wait like everybody else. What a
//! host *answered* (busy, refused) ends no wait early: it was asked for, or a person has to act.

use std::time::Duration;

use super::egress::EgressError;
use crate::backoff::Backoff;

/// How a worker's wait stands.
#[derive(Debug, Default)]
pub(super) struct WayBack {
    /// Returns of the way before the request that got no answer.
    lost_at: Option<u64>,
    /// The floor (monotonic).
    not_before: Duration,
    /// Early tries since the last success.
    in_vain: u32,
}

impl WayBack {
    /// A try failed at `now`; `dice` is a random number.
    pub(super) fn failed(&mut self, error: &EgressError, now: Duration, retry: Backoff, dice: u32) {
        self.lost_at = error.way_lost_at;
        self.not_before = now + retry.wait(self.in_vain + 1, dice);
    }

    /// Whether the wait is over at `now`, the way having come back `returns` times so far. Says so once.
    pub(super) fn ends_wait(&mut self, returns: u64, now: Duration) -> bool {
        let ends = self.would_end_wait(returns, now);
        if ends {
            self.lost_at = None;
            self.in_vain = self.in_vain.saturating_add(1);
        }
        ends
    }

    /// The same without saying so.
    pub(super) fn would_end_wait(&self, returns: u64, now: Duration) -> bool {
        let is_back = self.lost_at.is_some_and(|lost_at| lost_at != returns);
        is_back && now >= self.not_before
    }

    /// A try did what it should.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::egress::Cause;

    fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn no_answer(returns: u64) -> EgressError {
        let mut error = EgressError::new(Cause::TcpTimeout, "host", "");
        error.way_lost_at = Some(returns);
        error
    }

    fn retry() -> Backoff {
        Backoff::new(second(1), second(60)).unwrap()
    }

    #[test]
    fn a_wait_ends_once_when_the_way_is_back_and_the_floor_has_passed() {
        let mut way = WayBack::default();
        way.failed(&no_answer(3), second(100), retry(), u32::MAX);
        assert!(!way.ends_wait(3, second(150)), "it is not back");
        assert!(!way.ends_wait(4, second(100)), "not at once");
        assert!(way.ends_wait(4, second(101)));
        assert!(!way.ends_wait(5, second(200)), "it was said");
    }

    #[test]
    fn who_is_called_in_vain_again_and_again_comes_to_wait_like_everybody_else() {
        let (mut way, mut now) = (WayBack::default(), second(0));
        for (returns, floor_s) in (0..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            way.failed(&no_answer(returns), now, retry(), u32::MAX);
            now += second(floor_s);
            assert!(!way.ends_wait(returns + 1, now - Duration::from_millis(1)));
            assert!(way.ends_wait(returns + 1, now));
        }
        way.succeeded();
        way.failed(&no_answer(9), now, retry(), u32::MAX);
        assert!(way.ends_wait(10, now + second(1)), "a success forgives");
    }

    #[test]
    fn what_a_host_answered_is_not_hurried() {
        let mut way = WayBack::default();
        let busy = EgressError::new(Cause::Throttled, "host", "");
        way.failed(&busy, second(0), retry(), 0);
        assert!(!way.ends_wait(7, second(1000)));
    }
}
