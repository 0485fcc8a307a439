//! How every flow to the internet stands: told by the WAN side, drawn by the front page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;

use crate::language::Sentence;

/// Where a flow goes with this box's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowSetup {
    /// Its name in the network contract.
    pub name: &'static str,
    /// What it is for.
    pub purpose: Sentence,
    /// Whether a shop can do without it.
    pub need: Sentence,
    /// `HOST:PORT`.
    pub host: String,
    /// `HOST:PORT` of the proxy it goes through.
    pub proxy: Option<String>,
    /// Whether the settings switch it on.
    pub used: bool,
}

/// What is wrong with a flow, for three kinds of readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Stable code of the cause.
    pub cause: &'static str,
    /// For the shop's staff.
    pub staff: Sentence,
    /// For whoever runs the shop's network.
    pub action: Sentence,
    /// For support: what was seen, each with its name. Never a secret.
    pub evidence: Vec<(Sentence, String)>,
}

/// How a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// Switched off.
    Off,
    /// What was tried last went well.
    Up,
    /// Nothing was tried yet, or it waits for credentials.
    Waiting,
    /// It failed once and is tried again; that passes by itself as a rule.
    Shaky,
    /// It fails.
    Down,
}

/// One flow as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct FlowStatus {
    /// Where it goes.
    #[serde(flatten)]
    pub setup: FlowSetup,
    /// How it stands.
    pub state: FlowState,
    /// Since when, milliseconds since 1970; `null`: nothing was tried yet.
    pub since_ms: Option<i64>,
    /// When it last went well.
    pub well_ms: Option<i64>,
    /// What is wrong.
    pub trouble: Option<Trouble>,
}

/// How one worker's last try went.
#[derive(Debug, Clone)]
pub struct Try {
    /// The flow it uses.
    pub flow: &'static str,
    /// How it went.
    pub state: FlowState,
    /// Since when it goes so.
    pub since_ms: i64,
    /// When it was made.
    pub at_ms: i64,
    /// Whether the host has answered since the try before.
    pub was_heard: bool,
    /// What was wrong.
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Default)]
struct Written {
    setups: Vec<FlowSetup>,
    tries: BTreeMap<&'static str, Try>,
    well_ms: BTreeMap<&'static str, i64>,
    latency_ms: i64,
}

/// The board it is written on. Clones share it; it is bounded by the number of flows and workers.
#[derive(Debug, Clone, Default)]
pub struct FlowBoard(Arc<Mutex<Written>>);

impl FlowBoard {
    /// Says where the flows go.
    pub fn set_up(&self, setups: Vec<FlowSetup>) {
        self.lock().setups = setups;
    }

    /// Notes how `worker`'s last try went.
    pub fn tried(&self, worker: &'static str, last: Try) {
        let mut written = self.lock();
        if last.state == FlowState::Up && last.was_heard {
            written.well_ms.insert(last.flow, last.at_ms);
        }
        written.tries.insert(worker, last);
    }

    /// The platform answered a question that it does not hold, after so many milliseconds.
    pub fn answered_after_ms(&self, latency_ms: i64) {
        let mut written = self.lock();
        written.latency_ms = written.latency_ms.max(latency_ms.max(1));
    }

    /// The slowest such answer since the last call; 0: there was none.
    #[must_use]
    pub fn take_latency_ms(&self) -> i64 {
        std::mem::take(&mut self.lock().latency_ms)
    }

    /// All flows in the contract's order. Workers share flows: the worst of a flow's tries is shown.
    #[must_use]
    pub fn list(&self) -> Vec<FlowStatus> {
        let written = self.lock();
        let status = |setup: &FlowSetup| {
            let worst = written
                .tries
                .values()
                .filter(|last| last.flow == setup.name)
                .max_by_key(|last| (last.state, -last.since_ms));
            let state = match worst {
                _ if !setup.used => FlowState::Off,
                None => FlowState::Waiting,
                Some(last) => last.state,
            };
            FlowStatus {
                state,
                since_ms: worst.map(|last| last.since_ms),
                well_ms: written.well_ms.get(setup.name).copied(),
                trouble: worst.and_then(|last| last.trouble.clone()),
                setup: setup.clone(),
            }
        };
        written.setups.iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(name: &'static str, used: bool) -> FlowSetup {
        FlowSetup {
            name,
            purpose: Sentence::EMPTY,
            need: Sentence::EMPTY,
            host: "host:443".to_owned(),
            proxy: None,
            used,
        }
    }

    fn try_at(flow: &'static str, state: FlowState, at_ms: i64) -> Try {
        Try {
            flow,
            state,
            since_ms: at_ms,
            at_ms,
            was_heard: true,
            trouble: None,
        }
    }

    #[test]
    fn the_worst_of_a_flows_workers_is_shown_and_the_last_good_try_is_kept() {
        let board = FlowBoard::default();
        board.set_up(vec![
            setup("api", true),
            setup("bus", true),
            setup("logs", false),
        ]);
        board.tried("pull", try_at("api", FlowState::Up, 10));
        board.tried("push", try_at("api", FlowState::Down, 20));
        board.tried("logs", try_at("logs", FlowState::Down, 20));
        let [api, bus, logs] = &board.list()[..] else {
            panic!("three flows were set up");
        };
        assert_eq!(
            (api.state, api.since_ms, api.well_ms),
            (FlowState::Down, Some(20), Some(10))
        );
        assert_eq!((bus.state, bus.since_ms), (FlowState::Waiting, None));
        assert_eq!(logs.state, FlowState::Off);
        board.tried("push", try_at("api", FlowState::Up, 30));
        assert_eq!(board.list()[0].state, FlowState::Up);
        assert_eq!(board.list()[0].well_ms, Some(30));
    }

    #[test]
    fn the_slowest_answer_is_told_once() {
        let board = FlowBoard::default();
        board.answered_after_ms(40);
        board.answered_after_ms(7);
        assert_eq!((board.take_latency_ms(), board.take_latency_ms()), (40, 0));
        board.answered_after_ms(0);
        assert_eq!(board.take_latency_ms(), 1, "an answer at once is an answer");
    }
}
