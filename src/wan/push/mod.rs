//! Store to platform: the outbox, lane by lane, each item under its idempotency key.
//!
//! ```text
//!   lane: read what is due behind `after` --> one request (a batch, or an item alone) --> verdict an item
//!          ^                                                                               |
//!          '---- at the end of the lane, once all removals are on disk: from its start -----'
//! ```
//! | answer | what happens |
//! |---|---|
//! | 2xx | the item is taken out of the outbox, with the store's next commit |
//! | 401, 403 | the lane pauses until the credentials change, or for a long while; with a condition; nothing is lost |
//! | 408, 425, 429, 502, 503, 504, 3xx, network | the lane waits (back-off, `Retry-After`), in memory only: a month offline writes nothing |
//! | other 5xx | the item is tried again later (those of its order wait for it), and the lane goes on; several in a row make the lane wait |
//! | other 4xx | the item is parked, with a condition, and the lane goes on |
//!
//! A lane that got no answer goes on at once when the way to a host is back (`way_back`).
//!
//! The lanes take turns, a request each, so that a month's backlog of one delays no order. An item that was sent but not
//! yet taken out when the power is cut is sent again under the same key, and the platform knows it. A platform that has
//! no batches is sent items one by one.

mod report;
mod verdict;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use super::api::Api;
use super::credentials::Credentials;
use super::egress::{Cause, EgressError, bad_answer};
use super::outcome::{Outcomes, Worker, is_refusal};
use super::time::milliseconds;
use super::way_back::WayBack;
use super::worker::{BUSY_HOST_PAUSE, Life, Next, REFUSED_PAUSE, StepError, Work, rest_on_bell};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::PushConfig;
use crate::identity::dice;
use crate::shutdown::Shutdown;
use crate::store::orders::{Lane, OutboxItem};
use crate::store::{Bell, Orders, Reply};
use crate::telemetry::Telemetry;
use crate::units::ByteSize;
use crate::wan::contract::FlowId;

use report::PushReport;
use verdict::{Verdict, verdict};

/// Body of a batch at most, unless a single item is larger.
const BATCH_BYTES: ByteSize = ByteSize::kib(512);
/// Answer to a batch at most.
const MAX_RESULTS: ByteSize = ByteSize::mib(1);
/// Faults of the platform in a row, one item each, after which the lane waits: it is then not the items' fault.
const FAULTS_BEFORE_WAIT: u32 = 3;
/// Items whose next try lies ahead are looked for this often.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A removal that is not on disk is looked after this often.
const LOOK_AFTER_REMOVALS: Duration = Duration::from_millis(100);
/// After a batch that was refused as a whole, items go one by one for so long.
const ALONE_AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// A platform that knows no batches is asked again after this.
const BATCHES_AGAIN: Duration = Duration::from_secs(3600);
/// The lanes' bounds are looked at this often.
const LOOK_AT_BOUNDS: Duration = Duration::from_secs(300);

/// What push works with.
pub(super) struct PushParts {
    pub(super) api: Api,
    pub(super) credentials: Credentials,
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
    /// Items a request, halved when the platform finds a batch too large.
    batch_items: usize,
    /// Monotonic time until which items go one by one.
    alone_until: Duration,
    bounds_looked_at: Duration,
}

struct LaneState {
    lane: Lane,
    /// Monotonic time.
    waits_until: Duration,
    /// The credentials were refused that had this version: with others the lane goes on.
    refused: Option<u64>,
    way: WayBack,
    failures: u32,
    faults: u32,
    /// Up to this id the lane was gone through.
    after: i64,
    /// Removals that are not on disk yet.
    removals: Vec<Reply<usize>>,
}

impl LaneState {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            waits_until: Duration::ZERO,
            refused: None,
            way: WayBack::default(),
            failures: 0,
            faults: 0,
            after: 0,
            removals: Vec::new(),
        }
    }

    /// Whether all removals are on disk. One that failed leaves its items in the outbox: they are sent again.
    fn has_removed(&mut self) -> bool {
        self.removals = std::mem::take(&mut self.removals)
            .into_iter()
            .filter_map(|removal| match removal.wait_for(Duration::ZERO) {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => {
                    tracing::warn!(event = "push.removal_failed", %error);
                    None
                }
                Err(removal) => Some(removal),
            })
            .collect();
        self.removals.is_empty()
    }
}

/// What a step came to.
#[derive(Default)]
struct Round {
    looked_at: usize,
    sent: u64,
    parked: u64,
    /// The platform took the box's word and judged items, for good or ill.
    was_heard: bool,
    failed: Option<EgressError>,
    writes: Vec<Reply<bool>>,
}

impl Push {
    pub(super) fn new(parts: PushParts) -> Self {
        Self {
            report: PushReport::new(&parts.telemetry),
            lanes: Lane::ALL.map(LaneState::new).into(),
            batch_items: usize::try_from(parts.config.batch_items).unwrap_or(1),
            alone_until: Duration::ZERO,
            bounds_looked_at: Duration::ZERO,
            parts,
        }
    }

    /// One request for a lane, if it has something and does not wait.
    fn serve(&mut self, lane: usize, round: &mut Round) -> Result<(), StepError> {
        let now = self.parts.clock.monotonic();
        let now_ms = self.parts.clock.wall_ms();
        let version = self.parts.credentials.version();
        let returns = self.parts.outcomes.returns();
        let state = &mut self.lanes[lane];
        let has_others = state.refused.take_if(|refused| *refused != version);
        if has_others.is_some() || state.way.ends_wait(returns, now) {
            state.waits_until = now;
        }
        if state.waits_until > now {
            return Ok(());
        }
        let limit = if self.alone_until > now {
            1
        } else {
            self.batch_items
        };
        let due = self
            .parts
            .orders
            .outbox_due_after(state.lane, state.after, now_ms, limit)?;
        if due.is_empty() {
            let state = &mut self.lanes[lane];
            if state.after > 0 && state.has_removed() {
                // Items that are to be tried again, or were put back, lie before.
                state.after = 0;
                round.looked_at += 1;
            }
            return Ok(());
        }
        round.looked_at += due.len();
        let verdicts = match &due[..] {
            [item] => self.send_alone(item).map(|verdict| vec![verdict]),
            items => self.send_batch(items),
        };
        match verdicts {
            Ok(verdicts) => self.apply(lane, &due, verdicts, round),
            Err(error) => self.lane_waits(lane, error, round),
        }
        Ok(())
    }

    fn send_alone(&self, item: &OutboxItem) -> Result<Verdict, EgressError> {
        let answer = self
            .parts
            .api
            .post("/events", &item.key, &wire::alone(item))?;
        match verdict(answer.status()) {
            Verdict::LaneWaits(cause) => Err(answer.into_error(cause)),
            verdict => {
                // Read to its end, the connection serves the next item.
                let _ = answer.into_error(Cause::Refused);
                Ok(verdict)
            }
        }
    }

    /// A verdict for each item from the first on; none when the next try is to be another.
    fn send_batch(&mut self, items: &[OutboxItem]) -> Result<Vec<Verdict>, EgressError> {
        let (body, count) = wire::batch(items, BATCH_BYTES.as_usize());
        // The keys inside are what makes it safe to repeat; this one only says which request it was.
        let answer = self.parts.api.post("/events/batch", &items[0].key, &body)?;
        match answer.status() {
            404 | 405 | 501 => {
                tracing::info!(event = "push.batches_unknown", status = answer.status());
                let _ = answer.into_error(Cause::NotFound);
                self.alone_until = self.parts.clock.monotonic() + BATCHES_AGAIN;
                Ok(Vec::new())
            }
            413 => {
                let _ = answer.into_error(Cause::Refused);
                self.batch_items = (self.batch_items / 2).max(1);
                tracing::info!(event = "push.batch_too_large", items = self.batch_items);
                Ok(Vec::new())
            }
            status => {
                if let Verdict::Park(cause) | Verdict::RetryItem(cause) = verdict(status) {
                    // One of them may be to blame: alone it holds up nothing.
                    tracing::info!(event = "push.batch_refused", status);
                    let _ = answer.into_error(cause);
                    self.alone_until = self.parts.clock.monotonic() + ALONE_AFTER_REFUSAL;
                    return Ok(Vec::new());
                }
                let bytes = answer.success()?.bytes(MAX_RESULTS)?;
                let verdicts = wire::read_results(&bytes, count).unwrap_or_default();
                if verdicts.is_empty() {
                    return Err(bad_answer(FlowId::Api, "a batch without results"));
                }
                Ok(verdicts)
            }
        }
    }

    fn apply(
        &mut self,
        lane: usize,
        items: &[OutboxItem],
        verdicts: Vec<Verdict>,
        round: &mut Round,
    ) {
        let mut sent = Vec::new();
        for (item, verdict) in items.iter().zip(verdicts) {
            let state = &mut self.lanes[lane];
            match verdict {
                Verdict::Sent => {
                    round.was_heard = true;
                    (state.failures, state.faults) = (0, 0);
                    state.way.succeeded();
                    sent.push(item.id);
                }
                Verdict::Park(cause) => {
                    round.was_heard = true;
                    (state.failures, state.faults) = (0, 0);
                    let (id, kind, cause) = (item.id, &item.kind, cause.as_str());
                    tracing::warn!(event = "push.item_parked", id, kind, cause);
                    round.parked += 1;
                    round.writes.push(self.parts.orders.outbox_park(id, cause));
                }
                Verdict::RetryItem(cause) => self.retry_item(lane, item, cause, round),
                Verdict::LaneWaits(cause) => {
                    let error = EgressError::new(cause, FlowId::Api.flow().name, "of an event");
                    self.lane_waits(lane, error, round);
                    break;
                }
            }
            self.lanes[lane].after = item.id;
        }
        round.sent += sent.len() as u64;
        if !sent.is_empty() {
            let removal = self.parts.orders.outbox_sent(sent);
            self.lanes[lane].removals.push(removal);
        }
    }

    fn retry_item(&mut self, lane: usize, item: &OutboxItem, cause: Cause, round: &mut Round) {
        let retry = self.parts.retry;
        let (id, kind, cause) = (item.id, &item.kind, cause.as_str());
        tracing::warn!(event = "push.item_failed", id, kind, cause);
        let wait = retry.wait(item.attempts.saturating_add(1), dice());
        let at_ms = self
            .parts
            .clock
            .wall_ms()
            .saturating_add(milliseconds(wait));
        round
            .writes
            .push(self.parts.orders.outbox_retry(id, at_ms, cause));
        let now = self.parts.clock.monotonic();
        let state = &mut self.lanes[lane];
        state.faults += 1;
        if state.faults >= FAULTS_BEFORE_WAIT {
            state.failures += 1;
            state.waits_until = now + retry.wait(state.failures, dice());
        }
    }

    fn lane_waits(&mut self, lane: usize, error: EgressError, round: &mut Round) {
        let now = self.parts.clock.monotonic();
        let version = self.parts.credentials.version();
        let state = &mut self.lanes[lane];
        state.failures += 1;
        state.refused = is_refusal(error.cause).then_some(version);
        let floor = match error.cause {
            cause if is_refusal(cause) => REFUSED_PAUSE,
            Cause::Throttled => BUSY_HOST_PAUSE,
            _ => Duration::ZERO,
        };
        let floor = floor.max(error.retry_after.unwrap_or(Duration::ZERO));
        state.way.failed(&error, now, self.parts.retry, dice());
        let wait = self.parts.retry.wait(state.failures, dice()).max(floor);
        state.waits_until = now + wait;
        tracing::debug!(
            event = "push.lane_waits",
            lane = ?state.lane,
            cause = error.cause.as_str(),
            error = %error,
            wait_ms = milliseconds(wait)
        );
        round.failed = Some(error);
    }

    /// How long there is nothing to do, unless the bell rings.
    fn rest_after(&self, now: Duration) -> Duration {
        let waits = self
            .lanes
            .iter()
            .filter(|state| state.waits_until > now)
            .map(|state| state.waits_until - now);
        let removals = self
            .lanes
            .iter()
            .filter(|state| !state.removals.is_empty())
            .map(|_| LOOK_AFTER_REMOVALS);
        waits
            .chain(removals)
            .chain([LOOK_AGAIN])
            .min()
            .unwrap_or(LOOK_AGAIN)
    }

    fn tell(&mut self, round: Round) -> Result<(), StepError> {
        let (orders, now_ms) = (&self.parts.orders, self.parts.clock.wall_ms());
        self.report.sent.add(round.sent);
        self.report.parked(round.parked);
        self.report.look(orders, now_ms)?;
        let now = self.parts.clock.monotonic();
        if now >= self.bounds_looked_at {
            self.bounds_looked_at = now + LOOK_AT_BOUNDS;
            self.report.look_at_bounds(orders, now_ms)?;
        }
        if let Some(error) = round.failed {
            if self.parts.outcomes.failed(Worker::Push, &error) {
                let cause = error.cause.as_str();
                tracing::warn!(event = "push.outbox_waits", cause, error = %error);
            }
        } else if round.was_heard && self.lanes.iter().all(|state| state.failures == 0) {
            self.parts.outcomes.succeeded(Worker::Push);
        }
        Ok(())
    }
}

impl Work for Push {
    /// One round: a request of each lane in turn.
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let mut round = Round::default();
        for lane in 0..self.lanes.len() {
            life.sign();
            self.serve(lane, &mut round)?;
        }
        let did_something = round.looked_at > 0;
        // One wait for all: the store commits them together. What follows a failed item must not be read before.
        for write in std::mem::take(&mut round.writes) {
            write.wait()?;
        }
        self.tell(round)?;
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
        let (outcomes, clock) = (&self.parts.outcomes, &self.parts.clock);
        let lanes = &self.lanes;
        rest_on_bell(&self.parts.bell, wait, shutdown, || {
            let (returns, now) = (outcomes.returns(), clock.monotonic());
            lanes
                .iter()
                .any(|lane| lane.way.would_end_wait(returns, now))
        })
    }
}
