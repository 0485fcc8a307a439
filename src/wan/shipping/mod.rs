//! What leaves for support: logs and support events, from the streams of [`crate::telemetry::outgoing`] to their hosts.
//!
//! ```text
//!  stream --pump--> spool (memory, ring) --batch--> letter --budget--> host
//!                                           ^                           |
//!     2xx: gone · 413: half of it · other 4xx: dropped, counted, told --+-- 401 403 404 410 429 5xx, no answer: it waits
//! ```
//! # Bounds
//! | what | bound | at the bound |
//! |---|---|---|
//! | a batch | the host's [`Limits`] | the next batch |
//! | bytes a day | `daily_budget_kib` | what still fits leaves, then nothing until the day is over; `*.budget_used` |
//! | what waits | `disk_kib` | the oldest go, counted |

mod budget;
mod logs;
mod pump;
mod sink;
mod support;
#[cfg(test)]
mod testing;
mod verdict;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::outcome::{Outcomes, Worker};
use super::time::{PlatformTime, Quality};
use super::worker::{Life, Next, StepError, Work};
use crate::clock::Clock;
use crate::config::{LogsConfig, ShippingBounds, SupportConfig, WanConfig};
use crate::store::Room;
use crate::telemetry::outgoing::{
    Batch, Bounds, Moment, Record, SentBatch, Spool, Stamp, Stream, Word,
};
use crate::telemetry::{Code, Telemetry};
use crate::units::ByteSize;
use crate::wan::credentials::Credentials;
use crate::wan::egress::Client;

use budget::Budget;
use logs::LogInput;
use sink::{Sender, Sink};
use support::SupportBus;
use verdict::Verdict;

pub(super) use pump::Pump;

/// Between two looks at whether a batch is due.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at whether there is a budget again.
const BUDGET_LOOK: Duration = Duration::from_secs(15);
/// Head of a request, TLS and TCP around it: counted to the budget with each batch.
const REQUEST_OVERHEAD: u64 = 1024;
/// Logs wait this long in memory before they cost a write.
const LOGS_SPILL_AFTER: Duration = Duration::from_secs(300);
/// Support events are few and each may be the last one before a power cut.
const SUPPORT_SPILL_AFTER: Duration = Duration::from_secs(5);

/// Names that differ from stream to stream.
struct Names {
    worker: Worker,
    /// In the status and the folder's name.
    stream: &'static str,
    refused: Code,
    budget_used: Code,
}

const LOGS: Names = Names {
    worker: Worker::Logs,
    stream: "logs",
    refused: Code::LogsRefused,
    budget_used: Code::LogsBudgetUsed,
};

const SUPPORT: Names = Names {
    worker: Worker::Support,
    stream: "support",
    refused: Code::SupportRefused,
    budget_used: Code::SupportBudgetUsed,
};

/// What both workers need.
#[derive(Clone)]
pub(super) struct ShippingParts {
    pub(super) box_id: String,
    pub(super) credentials: Credentials,
    pub(super) time: PlatformTime,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) room: Arc<Room>,
    pub(super) outcomes: Outcomes,
    pub(super) telemetry: Telemetry,
}

impl ShippingParts {
    /// Runs `work` with the present moment, for the spool. `is_on`: nothing is written for a stream that may not send.
    fn at_this_moment<T>(&self, is_on: bool, work: impl FnOnce(&Moment<'_>) -> T) -> T {
        let now_ms = self.time.now_ms();
        let quality = match self.time.quality() {
            Quality::Unset => "unset",
            Quality::Floor => "floor",
            Quality::Weak => "weak",
            Quality::Good => "good",
        };
        let quality = Word::new(quality).expect("these are words");
        work(&Moment {
            now: Instant::now(),
            stamp: &|age| Stamp {
                at_ms: now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
                quality: quality.clone(),
            },
            may_write: &|bytes| is_on && self.room.check(ByteSize::bytes(bytes)).is_ok(),
        })
    }
}

type SharedSpool = Arc<Mutex<Spool>>;

fn lock(spool: &SharedSpool) -> MutexGuard<'_, Spool> {
    spool.lock().expect("no holder of this lock panics")
}

/// Sends one stream.
pub(super) struct Shipping {
    names: Names,
    parts: ShippingParts,
    spool: SharedSpool,
    sink: Box<dyn Sink>,
    bounds: ShippingBounds,
    budget: Budget,
    /// Records at once: the host's bound, or less after it said that it was too much.
    at_once: usize,
    report: Report,
}

#[derive(Default)]
struct Report {
    sent: u64,
    refused: u64,
}

/// The logs' worker, and what the pump needs of it.
pub(super) fn logs(
    config: &WanConfig,
    stream: Stream,
    client: Client,
    parts: ShippingParts,
    pump: &mut Pump,
) -> Shipping {
    let LogsConfig {
        dialect, bounds, ..
    } = config.logs;
    let sink = LogInput {
        client,
        url: config.logs_url.clone(),
        dialect,
        credentials: parts.credentials.clone(),
        time: parts.time.clone(),
    };
    let host = config.logs_url.host();
    Shipping::new(
        LOGS,
        parts,
        host,
        Box::new(sink),
        bounds,
        LOGS_SPILL_AFTER,
        stream,
        pump,
    )
}

/// The support events' worker, and what the pump needs of it.
pub(super) fn support(
    config: &WanConfig,
    stream: Stream,
    client: Client,
    parts: ShippingParts,
    pump: &mut Pump,
) -> Shipping {
    let SupportConfig { kind, bounds, .. } = config.support;
    let sink = SupportBus {
        client,
        url: config.support_url.clone(),
        kind,
        box_id: parts.box_id.clone(),
        credentials: parts.credentials.clone(),
        time: parts.time.clone(),
    };
    let host = config.support_url.host();
    Shipping::new(
        SUPPORT,
        parts,
        host,
        Box::new(sink),
        bounds,
        SUPPORT_SPILL_AFTER,
        stream,
        pump,
    )
}

impl Shipping {
    #[expect(
        clippy::too_many_arguments,
        reason = "called from the two functions above only"
    )]
    fn new(
        names: Names,
        parts: ShippingParts,
        host: &str,
        sink: Box<dyn Sink>,
        bounds: ShippingBounds,
        spill_after: Duration,
        stream: Stream,
        pump: &mut Pump,
    ) -> Self {
        let disk = Bounds {
            disk: bounds.disk,
            spill_after,
        };
        let (spool, error) = Spool::open(stream.dir(), disk, Instant::now());
        if let Some(error) = error {
            let error = crate::telemetry::chain(&error);
            tracing::warn!(event = "outgoing.ring_unusable", error);
        }
        if spool.counts().damaged > 0 {
            let (code, now_ms) = (Code::OutgoingDamaged, parts.clock.wall_ms());
            parts.telemetry.conditions.raise(code, names.stream, now_ms);
        }
        let budget = Budget::open(&stream.dir().join("budget.json"), bounds.daily_budget);
        parts.telemetry.sent.update(names.stream, |status| {
            host.clone_into(&mut status.host);
            status.budget_bytes = bounds.daily_budget.as_u64();
            status.waiting = spool.waiting();
        });
        parts
            .telemetry
            .sent
            .keep_in(names.stream, stream.dir().join("sent.json"));
        let spool = Arc::new(Mutex::new(spool));
        pump.add(names.worker, stream, Arc::clone(&spool));
        Self {
            at_once: sink.limits().records,
            names,
            parts,
            spool,
            sink,
            bounds,
            budget,
            report: Report::default(),
        }
    }

    fn next_batch(&self) -> Option<Batch> {
        let bytes = self.sink.limits().bytes;
        self.parts.at_this_moment(true, |moment| {
            lock(&self.spool).next_batch(self.at_once, bytes, self.bounds.linger, moment)
        })
    }

    /// One letter and what came of it; `Err`: the batch waits.
    fn deliver(&mut self, batch: &Batch) -> Result<Option<Duration>, StepError> {
        let records: Vec<Record> = batch
            .records
            .iter()
            .filter_map(|json| serde_json::from_slice(json).ok())
            .collect();
        if records.is_empty() {
            // Checksums held, but no version of ours wrote them.
            self.drop_batch(batch, "not records of this box");
            return Ok(None);
        }
        let now_ms = self.parts.time.now_ms();
        let sender = Sender {
            box_id: self.parts.box_id.clone(),
            site_id: self.parts.credentials.site_id().unwrap_or_default(),
        };
        let letter = self.sink.write(&sender, &records, now_ms);
        let bytes = letter.body.len() as u64 + REQUEST_OVERHEAD;
        if !self.budget.allows(bytes, now_ms) {
            if batch.records.len() > 1 {
                // A part of it may fit; a batch larger than a whole day's budget would wait for ever.
                lock(&self.spool).keep();
                self.at_once = batch.records.len() / 2;
                return Ok(None);
            }
            let detail = format!("{} a day", self.bounds.daily_budget);
            self.condition(self.names.budget_used, detail);
            return Ok(Some(BUDGET_LOOK));
        }
        self.parts
            .telemetry
            .conditions
            .clear(self.names.budget_used);
        // Whatever becomes of it, it went over the shop's line.
        self.budget.spend(bytes);
        let answer = self.sink.send(&letter)?;
        let status = answer.status();
        match verdict::of_status(status) {
            Verdict::Taken => {
                lock(&self.spool).done(batch);
                self.report.sent += records.len() as u64;
                self.at_once = (self.at_once * 2).min(self.sink.limits().records);
                self.parts.outcomes.succeeded(self.names.worker);
                self.parts.telemetry.conditions.clear(self.names.refused);
                self.parts.telemetry.conditions.clear(Code::OutgoingDamaged);
                let sent = SentBatch {
                    at_ms: now_ms,
                    records: records.len() as u64,
                    bytes: letter.body.len() as u64,
                    status,
                    body: letter.text,
                };
                self.parts.telemetry.sent.sent(self.names.stream, sent);
            }
            Verdict::Halve if batch.records.len() > 1 => {
                lock(&self.spool).keep();
                self.at_once = batch.records.len() / 2;
            }
            Verdict::Halve | Verdict::Drop => self.drop_batch(batch, &format!("HTTP {status}")),
            Verdict::Wait(cause) => {
                let asked = self.sink.asked_wait(&answer);
                let mut error = answer.into_error(cause);
                error.retry_after = error.retry_after.max(asked);
                return Err(error.into());
            }
        }
        Ok(None)
    }

    fn drop_batch(&mut self, batch: &Batch, why: &str) {
        lock(&self.spool).done(batch);
        self.report.refused += batch.records.len() as u64;
        self.condition(self.names.refused, why);
    }

    fn condition(&self, code: Code, detail: impl Into<String>) {
        let now_ms = self.parts.clock.wall_ms();
        self.parts.telemetry.conditions.raise(code, detail, now_ms);
    }

    fn show(&self) {
        let (waiting, counts) = {
            let spool = lock(&self.spool);
            (spool.waiting(), spool.counts())
        };
        self.parts
            .telemetry
            .sent
            .update(self.names.stream, |status| {
                status.on = true;
                status.sent = self.report.sent;
                status.waiting = waiting;
                status.lost = counts.dropped + self.report.refused + status.untold;
                status.today_bytes = self.budget.used();
            });
    }
}

impl Work for Shipping {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        life.sign();
        let Some(batch) = self.next_batch() else {
            self.show();
            return Ok(Next::Rest(LOOK));
        };
        let delivered = self.deliver(&batch);
        if !matches!(delivered, Ok(None)) {
            lock(&self.spool).keep();
        }
        self.show();
        Ok(delivered?.map_or(Next::Again, Next::Rest))
    }

    fn tells_outcomes(&self) -> bool {
        true
    }
}
