//! Store to platform: the outbox, lane by lane, each item under its idempotency key.
//!
//! | answer | what happens |
//! |---|---|
//! | 2xx | the item is taken out of the outbox |
//! | 401, 403 | the lane pauses, with a condition; nothing is lost |
//! | 408, 425, 429, 502, 503, 504, 3xx, network | the lane waits (back-off, `Retry-After`), in memory only: a month offline writes nothing |
//! | other 5xx | the item is tried again later and the lane goes on; several in a row make the lane wait |
//! | other 4xx | the item is parked, with a condition, and the lane goes on |
//!
//! An item that was sent but could not be taken out is sent again under the same key, and the platform knows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::api::Api;
use super::egress::{Cause, EgressError};
use super::outcome::{Outcomes, Worker, is_refusal};
use super::wire::Event;
use super::worker::{Life, Next, REFUSED_PAUSE, StepError, Work, rest_on_bell};
use crate::backoff::Backoff;
use crate::clock::{Clock, rfc3339};
use crate::config::PushConfig;
use crate::identity::dice;
use crate::shutdown::Shutdown;
use crate::store::orders::{Lane, OutboxItem};
use crate::store::{Bell, Orders};
use crate::telemetry::{Code, Counter, Telemetry};

/// Faults of the platform in a row, one item each, after which the lane waits: it is then not the items' fault.
const FAULTS_BEFORE_WAIT: u32 = 3;
/// Items whose next try lies ahead are looked for this often.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What push works with.
pub(super) struct PushParts {
    pub(super) api: Api,
    pub(super) orders: Orders,
    pub(super) config: PushConfig,
    pub(super) retry: Backoff,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outcomes: Outcomes,
    pub(super) bell: Bell,
    pub(super) telemetry: Telemetry,
}

/// The worker.
pub(super) struct Push {
    parts: PushParts,
    report: PushReport,
    lanes: Vec<LaneState>,
}

struct LaneState {
    lane: Lane,
    /// Monotonic time.
    waits_until: Duration,
    failures: u32,
    faults: u32,
}

/// What is done with an item after a try.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Sent,
    /// The platform will never take it.
    Park(Cause),
    /// The platform stumbled over it.
    RetryItem(Cause),
    /// The platform, or the way to it, takes nothing now.
    LaneWaits(Cause),
}

fn verdict(status: u16) -> Verdict {
    match (status, Cause::of_status(status)) {
        (_, None) => Verdict::Sent,
        (502 | 504, Some(cause)) => Verdict::LaneWaits(cause),
        (_, Some(cause)) if is_refusal(cause) => Verdict::LaneWaits(cause),
        (_, Some(cause @ Cause::Server)) => Verdict::RetryItem(cause),
        (_, Some(cause)) if cause.is_retryable() => Verdict::LaneWaits(cause),
        (_, Some(cause)) => Verdict::Park(cause),
    }
}

impl Push {
    pub(super) fn new(parts: PushParts) -> Self {
        let lanes = Lane::ALL.map(|lane| LaneState {
            lane,
            waits_until: Duration::ZERO,
            failures: 0,
            faults: 0,
        });
        Self {
            report: PushReport::new(&parts.telemetry),
            lanes: lanes.into(),
            parts,
        }
    }

    fn due(&self, now: Duration) -> Result<Vec<VecDeque<OutboxItem>>, StepError> {
        let limit = usize::try_from(self.parts.config.batch_items).unwrap_or(1);
        let now_ms = self.parts.clock.wall_ms();
        self.lanes
            .iter()
            .map(|state| {
                if state.waits_until > now {
                    return Ok(VecDeque::new());
                }
                Ok(self
                    .parts
                    .orders
                    .outbox_due(state.lane, now_ms, limit)?
                    .into())
            })
            .collect()
    }

    fn try_item(&self, item: &OutboxItem) -> Result<Verdict, EgressError> {
        let event = Event {
            kind: &item.kind,
            occurred_at: rfc3339(item.occurred_at_ms).unwrap_or_default(),
            body: &item.body,
        };
        let body = serde_json::to_vec(&event).expect("an event of JSON parts is JSON");
        let answer = self.parts.api.post("/events", &item.key, &body)?;
        match verdict(answer.status()) {
            Verdict::LaneWaits(cause) => Err(answer.into_error(cause)),
            verdict => {
                // Read to its end, the connection serves the next item.
                let _ = answer.into_error(Cause::Refused);
                Ok(verdict)
            }
        }
    }

    /// Tries one item; false when its lane waits now.
    fn deliver(&mut self, lane: usize, item: &OutboxItem, round: &mut Round) -> bool {
        let result = self.try_item(item);
        let now = self.parts.clock.monotonic();
        let (orders, retry) = (&self.parts.orders, self.parts.retry);
        let state = &mut self.lanes[lane];
        match result {
            Ok(Verdict::Sent) => {
                (state.failures, state.faults) = (0, 0);
                round.sent += 1;
                round.writes.push(orders.outbox_sent(item.id));
                true
            }
            Ok(Verdict::Park(cause)) => {
                (state.failures, state.faults) = (0, 0);
                tracing::warn!(
                    event = "push.item_parked",
                    id = item.id,
                    kind = item.kind,
                    cause = cause.as_str()
                );
                round.parked += 1;
                round
                    .writes
                    .push(orders.outbox_park(item.id, cause.as_str()));
                true
            }
            Ok(Verdict::RetryItem(cause) | Verdict::LaneWaits(cause)) => {
                state.faults += 1;
                let wait = retry.wait(item.attempts.saturating_add(1), dice());
                let at_ms = self
                    .parts
                    .clock
                    .wall_ms()
                    .saturating_add(milliseconds(wait));
                tracing::warn!(
                    event = "push.item_failed",
                    id = item.id,
                    kind = item.kind,
                    cause = cause.as_str()
                );
                round
                    .writes
                    .push(orders.outbox_retry(item.id, at_ms, cause.as_str()));
                if state.faults >= FAULTS_BEFORE_WAIT {
                    state.failures += 1;
                    state.waits_until = now + retry.wait(state.failures, dice());
                }
                state.faults < FAULTS_BEFORE_WAIT
            }
            Err(error) => {
                state.failures += 1;
                let floor = if is_refusal(error.cause) {
                    REFUSED_PAUSE
                } else {
                    error.retry_after.unwrap_or(Duration::ZERO)
                };
                let wait = retry.wait(state.failures, dice()).max(floor);
                state.waits_until = now + wait;
                tracing::debug!(
                    event = "push.lane_waits",
                    lane = ?state.lane,
                    cause = error.cause.as_str(),
                    error = %error,
                    wait_ms = milliseconds(wait)
                );
                round.failed = Some(error);
                false
            }
        }
    }

    /// How long there is nothing to do, unless the bell rings.
    fn rest_after(&self, now: Duration) -> Duration {
        self.lanes
            .iter()
            .filter(|state| state.waits_until > now)
            .map(|state| state.waits_until - now)
            .chain([LOOK_AGAIN])
            .min()
            .unwrap_or(LOOK_AGAIN)
    }
}

#[derive(Default)]
struct Round {
    sent: u64,
    parked: u64,
    failed: Option<EgressError>,
    writes: Vec<crate::store::Reply<bool>>,
}

impl Work for Push {
    /// One round: an item of each lane in turn, until the batches are done.
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let mut due = self.due(self.parts.clock.monotonic())?;
        let mut round = Round::default();
        while due.iter().any(|items| !items.is_empty()) {
            for (lane, items) in due.iter_mut().enumerate() {
                let Some(item) = items.pop_front() else {
                    continue;
                };
                life.sign();
                if !self.deliver(lane, &item, &mut round) {
                    items.clear();
                }
            }
        }
        let did_something = !round.writes.is_empty();
        // One wait for all: the store commits them together.
        for write in round.writes {
            write.wait()?;
        }
        self.report.told(
            &self.parts.orders,
            round.sent,
            round.parked,
            self.parts.clock.wall_ms(),
        )?;
        if let Some(error) = round.failed {
            if self.parts.outcomes.failed(Worker::Push, &error) {
                let cause = error.cause.as_str();
                tracing::warn!(event = "push.outbox_waits", cause, error = %error);
            }
        } else if round.sent > 0 && self.lanes.iter().all(|state| state.failures == 0) {
            self.parts.outcomes.succeeded(Worker::Push);
        }
        Ok(if did_something {
            Next::Again
        } else {
            Next::Rest(self.rest_after(self.parts.clock.monotonic()))
        })
    }

    fn tells_outcomes(&self) -> bool {
        true
    }

    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        rest_on_bell(&self.parts.bell, wait, shutdown)
    }
}

fn milliseconds(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

/// What push tells of itself.
pub(super) struct PushReport {
    sent: Counter,
    parked: Counter,
    telemetry: Telemetry,
    /// Parked items are there, or may be: the condition has to be looked after.
    may_have_parked: bool,
}

impl PushReport {
    fn new(telemetry: &Telemetry) -> Self {
        let metrics = &telemetry.metrics;
        Self {
            sent: metrics.counter(
                "comptoir_push_sent_total",
                "",
                "Events the platform has taken.",
            ),
            parked: metrics.counter(
                "comptoir_push_parked_total",
                "",
                "Events the platform has refused; they are kept.",
            ),
            telemetry: telemetry.clone(),
            // Of an earlier run.
            may_have_parked: true,
        }
    }

    fn told(
        &mut self,
        orders: &Orders,
        sent: u64,
        parked: u64,
        now_ms: i64,
    ) -> Result<(), StepError> {
        self.sent.add(sent);
        self.parked.add(parked);
        self.may_have_parked |= parked > 0;
        if !self.may_have_parked {
            return Ok(());
        }
        let waiting: i64 = orders
            .outbox_counts()?
            .lanes
            .iter()
            .map(|lane| lane.parked)
            .sum();
        self.may_have_parked = waiting > 0;
        let conditions = &self.telemetry.conditions;
        if waiting > 0 {
            conditions.raise(Code::OutboxParked, format!("{waiting} items"), now_ms);
        } else {
            conditions.clear(Code::OutboxParked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_verdict() {
        for status in [200, 201, 204] {
            assert_eq!(verdict(status), Verdict::Sent);
        }
        for status in [400, 404, 409, 410, 413, 422] {
            assert!(matches!(verdict(status), Verdict::Park(_)), "{status}");
        }
        for status in [302, 401, 403, 408, 425, 429, 502, 503, 504] {
            assert!(matches!(verdict(status), Verdict::LaneWaits(_)), "{status}");
        }
        for status in [500, 501, 507] {
            assert!(matches!(verdict(status), Verdict::RetryItem(_)), "{status}");
        }
    }
}
