//! The last outcome of every worker, and the conditions that follow from them.
//!
//! Workers share hosts and credentials, so none of them raises or clears a condition alone: each tells its outcome here, and
//! the conditions are drawn from all of them together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::contract::{CONTRACT, Flow, FlowId};
use super::egress::{Cause, EgressError, Evidence, Heard, proofs, way_of};
use crate::clock::Clock;
use crate::config::WanConfig;
use crate::language::Sentence;
use crate::telemetry::{Code, Conditions, FlowBoard, FlowSetup, FlowState, Trouble, Try};

/// Failures in a row after which a fault that may pass by itself becomes a condition.
const SHOWN_AFTER: u32 = 2;

/// Who works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Worker {
    /// Platform to store.
    Pull,
    /// Orders by the bus.
    Bus,
    /// Orders by the API.
    OrdersFeed,
    /// Documents of parked orders.
    Claims,
    /// Store to platform.
    Push,
    /// Blobs.
    Media,
    /// What time it is.
    Time,
    /// Logs for support.
    Logs,
    /// Events for support.
    Support,
    /// New versions.
    Rollouts,
    /// Credentials.
    Enrol,
}

impl Worker {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Pull,
        Self::Bus,
        Self::OrdersFeed,
        Self::Claims,
        Self::Push,
        Self::Media,
        Self::Time,
        Self::Logs,
        Self::Support,
        Self::Rollouts,
        Self::Enrol,
    ];

    /// Its name in logs and thread names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Bus => "bus",
            Self::OrdersFeed => "orders_feed",
            Self::Claims => "claims",
            Self::Push => "push",
            Self::Media => "media",
            Self::Time => "time",
            Self::Logs => "logs",
            Self::Support => "support",
            Self::Rollouts => "rollouts",
            Self::Enrol => "enrol",
        }
    }

    /// The flow of the contract it uses.
    #[must_use]
    pub const fn flow(self) -> FlowId {
        match self {
            Self::Pull
            | Self::OrdersFeed
            | Self::Push
            | Self::Time
            | Self::Rollouts
            | Self::Enrol => FlowId::Api,
            Self::Bus => FlowId::Bus,
            Self::Claims | Self::Media => FlowId::Media,
            Self::Logs => FlowId::Logs,
            Self::Support => FlowId::Support,
        }
    }
}

/// How a worker's last try ended.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Who.
    pub worker: Worker,
    /// Stable code of the failure, `None` after a success.
    pub cause: Option<&'static str>,
    /// What was seen, for support.
    pub detail: String,
    /// Failures in a row.
    pub failures: u32,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Since when it is so, milliseconds since 1970.
    pub since_ms: i64,
    #[serde(skip)]
    ended: Ended,
    /// Answers of the flow's host by then.
    #[serde(skip)]
    heard: u64,
}

/// How a try ended, sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    /// It was not made: credentials are missing.
    Waits,
    Failed(Cause),
}

impl Ended {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Well => None,
            Self::Waits => Some("no_credentials"),
            Self::Failed(cause) => Some(cause.as_str()),
        }
    }
}

impl Outcome {
    /// One passing fault is not; two are, and what only a person can change is at once.
    const fn is_worth_showing(&self, cause: Cause) -> bool {
        self.failures >= SHOWN_AFTER || cause.needs_a_person()
    }
}

/// For the board: what went wrong, said to people.
fn as_shown(outcome: &Outcome, heard_before: u64, evidence: Option<&Evidence>) -> Try {
    let (state, trouble) = match outcome.ended {
        // There was nothing to ask yet: no proof of anything.
        Ended::Well if outcome.heard == 0 => (FlowState::Waiting, None),
        Ended::Well => (FlowState::Up, None),
        Ended::Waits => (FlowState::Waiting, None),
        Ended::Failed(cause) => {
            let state = if outcome.is_worth_showing(cause) {
                FlowState::Down
            } else {
                FlowState::Shaky
            };
            let advice = cause.advice();
            let said = Sentence {
                en: "what was seen",
                fr: "constat",
            };
            let mut seen = evidence.map(proofs).unwrap_or_default();
            seen.push((said, outcome.detail.clone()));
            let trouble = Trouble {
                cause: cause.as_str(),
                staff: advice.staff,
                action: advice.action,
                evidence: seen,
            };
            (state, Some(trouble))
        }
    };
    Try {
        flow: outcome.worker.flow().flow().name,
        state,
        since_ms: outcome.since_ms,
        at_ms: outcome.at_ms,
        was_heard: outcome.heard > heard_before,
        trouble,
    }
}

/// The last outcomes. Clones share them.
#[derive(Clone)]
pub struct Outcomes {
    table: Arc<Mutex<BTreeMap<Worker, Outcome>>>,
    conditions: Conditions,
    board: FlowBoard,
    heard: Heard,
    clock: Arc<dyn Clock>,
}

impl Outcomes {
    /// Nothing tried yet.
    #[must_use]
    pub fn new(conditions: Conditions, clock: Arc<dyn Clock>) -> Self {
        Self {
            table: Arc::default(),
            conditions,
            board: FlowBoard::default(),
            heard: Heard::default(),
            clock,
        }
    }

    /// The same, telling a board that people see, too.
    #[must_use]
    pub fn with_board(mut self, board: FlowBoard) -> Self {
        self.board = board;
        self
    }

    /// The same, knowing whether the hosts were heard at all.
    #[must_use]
    pub fn hearing(mut self, heard: Heard) -> Self {
        self.heard = heard;
        self
    }

    /// How often the way to a host came back.
    pub(super) fn returns(&self) -> u64 {
        self.heard.returns()
    }

    /// All last outcomes.
    #[must_use]
    pub fn list(&self) -> Vec<Outcome> {
        let table = self.table.lock().expect("no holder of this lock panics");
        table.values().cloned().collect()
    }

    /// The worker's try did what it should.
    pub(super) fn succeeded(&self, worker: Worker) {
        self.record(worker, Ended::Well, String::new(), None);
    }

    /// The worker can't begin for want of `missing`. True when that is new.
    pub(super) fn waits(&self, worker: Worker, missing: &str) -> bool {
        self.record(worker, Ended::Waits, missing.to_owned(), None)
    }

    /// The worker's try failed at the network or the host. True when the last one did not, or for another cause: worth a
    /// line in the log, where a month offline must not write one a minute.
    pub(super) fn failed(&self, worker: Worker, error: &EgressError) -> bool {
        let ended = Ended::Failed(error.cause);
        self.record(worker, ended, error.to_string(), Some(error.evidence()))
    }

    fn record(
        &self,
        worker: Worker,
        ended: Ended,
        detail: String,
        evidence: Option<&Evidence>,
    ) -> bool {
        let now_ms = self.clock.wall_ms();
        let mut table = self.table.lock().expect("no holder of this lock panics");
        let last = table.get(&worker);
        let failures = match ended {
            Ended::Well | Ended::Waits => 0,
            Ended::Failed(_) => last.map_or(0, |last| last.failures).saturating_add(1),
        };
        let same = last.filter(|last| last.ended == ended);
        let (is_new, since_ms) = (same.is_none(), same.map_or(now_ms, |last| last.since_ms));
        let outcome = Outcome {
            worker,
            cause: ended.code(),
            detail,
            failures,
            at_ms: now_ms,
            since_ms,
            ended,
            heard: self.heard.of(worker.flow()),
        };
        let heard_before = last.map_or(0, |last| last.heard);
        self.board
            .tried(worker.name(), as_shown(&outcome, heard_before, evidence));
        table.insert(worker, outcome);
        self.tell(&table, now_ms);
        is_new
    }

    fn tell(&self, table: &BTreeMap<Worker, Outcome>, now_ms: i64) {
        let draw = |code, holds: &dyn Fn(&Outcome, Cause) -> bool| {
            let found: Vec<String> = table
                .values()
                .filter(|outcome| match outcome.ended {
                    Ended::Failed(cause) => holds(outcome, cause),
                    Ended::Well | Ended::Waits => false,
                })
                .map(|outcome| {
                    let code = outcome.cause.unwrap_or_default();
                    format!("{}: {code}: {}", outcome.worker.name(), outcome.detail)
                })
                .collect();
            if found.is_empty() {
                self.conditions.clear(code);
            } else {
                self.conditions.raise(code, found.join("; "), now_ms);
            }
        };
        let mut of_api = table
            .values()
            .filter(|outcome| outcome.worker.flow() == FlowId::Api);
        match of_api.find(|outcome| outcome.ended == Ended::Waits) {
            Some(waiting) => {
                self.conditions
                    .raise(Code::NotEnrolled, waiting.detail.clone(), now_ms);
            }
            None => {
                self.conditions.clear(Code::NotEnrolled);
            }
        }
        let for_support = |worker: Worker| matches!(worker, Worker::Logs | Worker::Support);
        draw(Code::Unauthorized, &|outcome, cause| {
            is_refusal(cause) && !for_support(outcome.worker)
        });
        let has_no_queue =
            |outcome: &Outcome, cause| outcome.worker == Worker::Bus && cause == Cause::Gone;
        draw(Code::QueueMissing, &has_no_queue);
        for (code, flow) in [
            (Code::ApiUnreachable, FlowId::Api),
            (Code::BusUnreachable, FlowId::Bus),
            (Code::MediaUnreachable, FlowId::Media),
            (Code::LogsUnreachable, FlowId::Logs),
            (Code::SupportUnreachable, FlowId::Support),
        ] {
            draw(code, &|outcome, cause| {
                outcome.worker.flow() == flow
                    && (!is_refusal(cause) || for_support(outcome.worker))
                    && !has_no_queue(outcome, cause)
                    && outcome.is_worth_showing(cause)
            });
        }
    }
}

/// Where the flows go, for people to see.
pub(super) fn flow_setups(config: &WanConfig) -> Vec<FlowSetup> {
    let setup = |flow: &Flow| {
        let url = flow.id.url(config);
        FlowSetup {
            name: flow.name,
            purpose: flow.purpose(),
            need: flow.need.sentence(),
            host: format!("{}:{}", url.host(), url.port()),
            proxy: way_of(config, flow.id).map(|(host, port)| format!("{host}:{port}")),
            used: flow.id.is_used(config),
        }
    };
    CONTRACT.iter().map(setup).collect()
}

/// The host answers, but not to this box.
pub(super) const fn is_refusal(cause: Cause) -> bool {
    matches!(cause, Cause::Unauthorized | Cause::Forbidden)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    fn error(cause: Cause) -> EgressError {
        EgressError::new(cause, "host", "")
    }

    fn outcomes() -> (Outcomes, Conditions, Arc<ManualClock>) {
        let conditions = Conditions::default();
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let outcomes = Outcomes::new(conditions.clone(), clock.clone());
        (outcomes, conditions, clock)
    }

    #[test]
    fn a_line_that_carried_nothing_yet_is_not_shown_as_working() {
        let (outcomes, _, clock) = outcomes();
        let (board, heard) = (FlowBoard::default(), Heard::default());
        let outcomes = outcomes.with_board(board.clone()).hearing(heard.clone());
        board.set_up(flow_setups(
            &crate::config::Config::from_layers(&[]).unwrap().wan,
        ));
        let media = || board.list().remove(2);
        outcomes.succeeded(Worker::Media);
        assert_eq!((media().state, media().well_ms), (FlowState::Waiting, None));
        clock.advance(Duration::from_secs(1));
        heard.add_one(FlowId::Media);
        outcomes.succeeded(Worker::Media);
        assert_eq!(
            (media().state, media().well_ms),
            (FlowState::Up, Some(1000))
        );
        clock.advance(Duration::from_secs(1));
        outcomes.succeeded(Worker::Media);
        assert_eq!(media().well_ms, Some(1000), "it had nothing to ask");
    }

    #[test]
    fn one_passing_fault_is_no_condition_but_two_are() {
        let (outcomes, conditions, clock) = outcomes();
        assert!(outcomes.failed(Worker::Pull, &error(Cause::TcpTimeout)));
        assert!(!conditions.holds(Code::ApiUnreachable));
        clock.advance(Duration::from_secs(1));
        assert!(!outcomes.failed(Worker::Pull, &error(Cause::TcpTimeout)));
        assert!(conditions.holds(Code::ApiUnreachable));
        assert_eq!(outcomes.list()[0].since_ms, 0);
        // Another worker's success at the same host says nothing of this one's.
        outcomes.succeeded(Worker::Push);
        assert!(conditions.holds(Code::ApiUnreachable));
        outcomes.succeeded(Worker::Pull);
        assert!(!conditions.holds(Code::ApiUnreachable));
    }

    #[test]
    fn what_needs_a_person_is_shown_at_once_and_a_refusal_is_not_an_outage() {
        let (outcomes, conditions, _) = outcomes();
        outcomes.failed(Worker::Bus, &error(Cause::Unauthorized));
        outcomes.failed(Worker::Bus, &error(Cause::Unauthorized));
        assert!(conditions.holds(Code::Unauthorized));
        assert!(!conditions.holds(Code::BusUnreachable));
        outcomes.failed(Worker::Media, &error(Cause::TlsUnknownIssuer));
        assert!(conditions.holds(Code::MediaUnreachable));
        outcomes.succeeded(Worker::Bus);
        assert!(!conditions.holds(Code::Unauthorized));
        outcomes.failed(Worker::Bus, &error(Cause::Gone));
        outcomes.failed(Worker::Bus, &error(Cause::Gone));
        assert!(conditions.holds(Code::QueueMissing) && !conditions.holds(Code::BusUnreachable));
        outcomes.succeeded(Worker::Bus);
        assert!(!conditions.holds(Code::QueueMissing));
    }

    #[test]
    fn what_only_support_misses_is_never_more_than_a_notice() {
        let (outcomes, conditions, _) = outcomes();
        outcomes.failed(Worker::Logs, &error(Cause::Forbidden));
        outcomes.failed(Worker::Support, &error(Cause::Unauthorized));
        assert!(!conditions.holds(Code::Unauthorized));
        for code in [Code::LogsUnreachable, Code::SupportUnreachable] {
            assert!(conditions.holds(code));
            assert_eq!(code.severity(), crate::telemetry::Severity::Notice);
        }
        outcomes.succeeded(Worker::Logs);
        outcomes.succeeded(Worker::Support);
        assert!(conditions.list().is_empty());
    }
}
