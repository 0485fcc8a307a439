//! The last hour, minute by minute: what the front page draws. In memory only.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::server::PortCount;
use crate::store::OrderState;

/// Minutes that are kept.
pub const MINUTES: usize = 60;

const MINUTE_MS: i64 = 60_000;

/// Counts of one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// Requests answered on all ports.
    pub requests: u64,
    /// Orders that came in.
    pub orders: u64,
}

/// A ring of [`MINUTES`] minutes.
#[derive(Debug)]
pub struct History {
    counts: Vec<PortCount>,
    orders: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    minutes: VecDeque<Minute>,
    /// Number of the newest minute since 1970.
    minute: i64,
    seen: Minute,
}

impl History {
    /// An hour without anything, ending at `now_ms`.
    pub fn new(counts: Vec<PortCount>, now_ms: i64) -> Self {
        Self {
            counts,
            orders: AtomicU64::new(0),
            state: Mutex::new(State {
                minutes: VecDeque::from(vec![Minute::default(); MINUTES]),
                minute: now_ms.div_euclid(MINUTE_MS),
                seen: Minute::default(),
            }),
        }
    }

    /// An order has come into `state`.
    pub fn order_changed(&self, state: OrderState) {
        if state == OrderState::Received {
            self.orders.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Orders that came in since the start.
    pub fn orders(&self) -> u64 {
        self.orders.load(Ordering::Relaxed)
    }

    /// Adds what was counted since the last look to the minute of `now_ms`.
    pub fn look(&self, now_ms: i64) {
        let total = Minute {
            requests: self.counts.iter().map(|count| count.requests.value()).sum(),
            orders: self.orders.load(Ordering::Relaxed),
        };
        self.add(total, now_ms);
    }

    fn add(&self, total: Minute, now_ms: i64) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let minute = now_ms.div_euclid(MINUTE_MS);
        // A clock that was set back does not take minutes back: what follows is added to the newest.
        let steps = usize::try_from(minute - state.minute).unwrap_or(0);
        for _ in 0..steps.min(MINUTES) {
            state.minutes.pop_front();
            state.minutes.push_back(Minute::default());
        }
        state.minute = state.minute.max(minute);
        let seen = std::mem::replace(&mut state.seen, total);
        if let Some(newest) = state.minutes.back_mut() {
            newest.requests += total.requests.saturating_sub(seen.requests);
            newest.orders += total.orders.saturating_sub(seen.orders);
        }
    }

    /// The minutes, oldest first.
    pub fn minutes(&self) -> Vec<Minute> {
        let state = self.state.lock().expect("no holder of this lock panics");
        state.minutes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fall_into_their_minute_and_the_oldest_is_forgotten() {
        let history = History::new(Vec::new(), 0);
        let total = |requests| Minute {
            requests,
            orders: requests / 10,
        };
        history.add(total(10), 1_000);
        history.add(total(15), 59_999);
        history.add(total(45), 61_000);
        let minutes = history.minutes();
        assert_eq!(minutes.len(), MINUTES);
        assert_eq!(
            minutes[58..],
            [
                Minute {
                    requests: 15,
                    orders: 1
                },
                Minute {
                    requests: 30,
                    orders: 3
                }
            ]
        );
        history.add(total(46), 61_000 + 60 * MINUTE_MS);
        let minutes = history.minutes();
        assert_eq!(minutes.iter().map(|minute| minute.requests).sum::<u64>(), 1);
    }

    #[test]
    fn a_clock_set_back_loses_nothing() {
        let history = History::new(Vec::new(), 10 * MINUTE_MS);
        history.add(
            Minute {
                requests: 5,
                orders: 0,
            },
            0,
        );
        assert_eq!(history.minutes()[59].requests, 5);
    }
}
