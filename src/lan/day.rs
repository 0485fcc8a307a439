//! The last day in steps of ten minutes: what waited to leave, how quickly the platform answered, what orders came, what the
//! disk was given to write. In memory only, bounded by [`STEPS`]; a restart begins it anew.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::Serialize;

/// Steps that are kept: a day of them.
pub const STEPS: usize = 144;

const STEP_MS: i64 = 600_000;

/// Ten minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The most that waited for the platform; `null`: the box was off.
    pub outbox: Option<i64>,
    /// The slowest answer of the platform to a question it does not hold, in milliseconds; `null`: none was asked.
    pub latency_ms: Option<i64>,
    /// Orders that came in.
    pub orders: u64,
    /// Bytes the server gave the disk to write.
    pub written_bytes: u64,
}

/// What is seen at one look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// What waits for the platform.
    pub outbox: Option<i64>,
    /// The platform's last answer took so long, in milliseconds; negative or zero: none since the last look.
    pub latency_ms: i64,
    /// Orders so far, since the start.
    pub orders: u64,
    /// Bytes written so far, since the start.
    pub written_bytes: u64,
}

/// The ring.
#[derive(Debug)]
pub struct Day(Mutex<State>);

#[derive(Debug)]
struct State {
    steps: VecDeque<Step>,
    /// Number of the newest step since 1970.
    newest: i64,
    orders_seen: u64,
    written_seen: u64,
}

impl Day {
    /// A day without anything, ending at `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        Self(Mutex::new(State {
            steps: VecDeque::from(vec![Step::default(); STEPS]),
            newest: now_ms.div_euclid(STEP_MS),
            orders_seen: 0,
            written_seen: 0,
        }))
    }

    /// Adds a look to the step of `now_ms`.
    pub fn look(&self, look: Look, now_ms: i64) {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        let step = now_ms.div_euclid(STEP_MS);
        // A clock that was set back does not take steps back: what follows is added to the newest.
        let missed = usize::try_from(step - state.newest).unwrap_or(0);
        for _ in 0..missed.min(STEPS) {
            state.steps.pop_front();
            state.steps.push_back(Step::default());
        }
        state.newest = state.newest.max(step);
        let orders = look.orders.saturating_sub(state.orders_seen);
        state.orders_seen = look.orders;
        let written = look.written_bytes.saturating_sub(state.written_seen);
        state.written_seen = look.written_bytes;
        if let Some(newest) = state.steps.back_mut() {
            newest.outbox = newest.outbox.max(look.outbox);
            newest.latency_ms = newest
                .latency_ms
                .max(Some(look.latency_ms).filter(|ms| *ms > 0));
            newest.orders += orders;
            newest.written_bytes += written;
        }
    }

    /// The steps, oldest first.
    pub fn steps(&self) -> Vec<Step> {
        let state = self.0.lock().expect("no holder of this lock panics");
        state.steps.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_the_worst_and_the_oldest_is_forgotten() {
        let day = Day::new(0);
        let look = |outbox, latency_ms, orders| Look {
            outbox: Some(outbox),
            latency_ms,
            orders,
            written_bytes: orders * 100,
        };
        day.look(look(5, 80, 1), 1000);
        day.look(look(2, 0, 3), 2000);
        let newest = day.steps()[STEPS - 1];
        assert_eq!(
            (newest.outbox, newest.latency_ms, newest.orders),
            (Some(5), Some(80), 3)
        );
        assert_eq!(newest.written_bytes, 300);
        day.look(look(0, 0, 3), STEP_MS * 2);
        let steps = day.steps();
        assert_eq!(
            steps[STEPS - 1],
            Step {
                outbox: Some(0),
                latency_ms: None,
                orders: 0,
                written_bytes: 0
            }
        );
        assert_eq!(steps[STEPS - 2], Step::default(), "nobody looked");
        assert_eq!(steps[STEPS - 3].outbox, Some(5));
        day.look(look(0, 0, 3), STEP_MS * 1000);
        assert!(
            day.steps()[..STEPS - 1]
                .iter()
                .all(|step| *step == Step::default())
        );
        assert_eq!(day.steps().len(), STEPS);
        day.look(look(9, 0, 3), 0);
        assert_eq!(
            day.steps()[STEPS - 1].outbox,
            Some(9),
            "a clock set back adds to the newest"
        );
    }
}
