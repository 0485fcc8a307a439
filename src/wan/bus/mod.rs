//! Customer orders from Azure Service Bus, by its REST runtime API: peek-lock, store, complete.
//!
//! ```text
//!   peek-lock
//!     204 -----------------------------------------------------------------------> again (nothing came in time)
//!     201 message --claim check: its document is fetched first, the lock renewed meanwhile
//!          |          can't be had now: the lock is left to end, others go by
//!          '--> inbox, order and command in one transaction, fsync; a slow disk: the lock is renewed at half its time
//!                 new, duplicate or parked: all durable ----> complete -----------> again
//!                 the store can't -------------------------> unlock: it comes again
//!                                           200, or 404: the lock is lost, a redelivery is a duplicate
//!     401 403 pause until the credentials change · 410 no such queue: slowly · 429 5xx: two seconds at least
//! ```
//! Nothing is completed before it is durable, so a cut anywhere costs a redelivery and never an order. A message that is
//! no order is kept in the inbox (parked), told, and completed: the next one is not kept waiting. Only one that can't be
//! held ([`MAX_MESSAGE`]) stays with the broker, told and shown; its lock is left to end, so that others go by.

pub(super) mod again;
pub(super) mod claim;
mod door;
mod lock;
pub(super) mod report;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::to_raw_value;

use super::credentials::Credentials;
use super::egress::{Client, EgressError};
use super::time::PlatformTime;
use super::worker::{Life, Next, StepError, Work};
use crate::clock::Clock;
use crate::config::{BusConfig, HttpsUrl};
use crate::store::orders::{Content, InboxMessage, Lane, ParkCode, Received, Source};
use crate::store::{Orders, Reply, WriteError};
use crate::telemetry::{Telemetry, chain};
use crate::units::ByteSize;

use claim::Claims;
use door::{Delivery, Door};
use lock::Lock;
use report::OrdersReport;

/// The service takes 256 KB a message in its usual tiers; a larger one is left to the broker's dead-letter queue.
pub const MAX_MESSAGE: ByteSize = ByteSize::mib(1);
/// A 204 that came sooner than this was no long poll: wait, so that no loop spins.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
/// Deliveries of a claim check whose document can't be fetched; then it is parked, before the broker (which gives up
/// after ten by default) puts it where nobody in the shop sees it.
pub(super) const CLAIM_TRIES: u64 = 8;
/// Renewals for one message that count as life: a work that takes longer is stuck.
const MAX_RENEWALS: u32 = 20;

/// What the bus is made of.
pub(super) struct BusParts {
    pub(super) client: Client,
    pub(super) url: HttpsUrl,
    pub(super) credentials: Credentials,
    pub(super) config: BusConfig,
    pub(super) claims: Claims,
    pub(super) orders: Orders,
    pub(super) time: PlatformTime,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: Telemetry,
}

/// The worker.
pub(super) struct Bus {
    door: Door,
    wait: Duration,
    claims: Claims,
    orders: Orders,
    time: PlatformTime,
    clock: Arc<dyn Clock>,
    report: OrdersReport,
}

impl Bus {
    pub(super) fn new(parts: BusParts) -> Self {
        let time = parts.time.clone();
        Self {
            door: Door::new(parts.client, &parts.url, parts.credentials, time),
            wait: parts.config.wait,
            claims: parts.claims,
            orders: parts.orders,
            time: parts.time,
            clock: parts.clock,
            report: OrdersReport::of_bus(&parts.telemetry),
        }
    }

    fn handle(&mut self, delivery: Delivery, life: &Life) -> Result<(), StepError> {
        let Delivery {
            lock,
            received_at,
            body,
        } = delivery;
        let Some(body) = body else {
            return self.leave(&lock);
        };
        let message = InboxMessage {
            message_id: lock.message_id.clone(),
            source: Source::Bus,
            body,
        };
        let content = match claim::read(&message.body) {
            None => Content::Itself,
            // What was taken before is not fetched again.
            Some(_)
                if self
                    .orders
                    .has_message(&message.message_id, &message.body)? =>
            {
                Content::Itself
            }
            Some(claim) => match self.fetch(&claim, &lock, life) {
                Ok(content) => content,
                Err(error) => match given_up(&lock, &error) {
                    Some(content) => content,
                    None => return Ok(()),
                },
            },
        };
        let reply = self.orders.receive_as(message, content);
        match self.commit(reply, &lock, received_at, life) {
            Ok(received) => self.report.took(&received),
            Err(error) => {
                if let Err(error) = self.door.unlock(&lock) {
                    tracing::debug!(event = "bus.unlock_failed", error = chain(&error));
                }
                return Err(error.into());
            }
        }
        self.report.look(&self.orders, self.time.now_ms())?;
        if !self.door.complete(&lock)? {
            tracing::info!(event = "bus.lock_lost");
        }
        Ok(())
    }

    /// Waits for the commit, and renews the lock while it takes long. A lost lock stops nothing: what is durable by then
    /// is known when it comes again.
    fn commit(
        &self,
        mut reply: Reply<Received>,
        lock: &Lock,
        received_at: Instant,
        life: &Life,
    ) -> Result<Received, WriteError> {
        let mut patience = (lock.holds / 2).saturating_sub(received_at.elapsed());
        for renewals in 0_u32.. {
            reply = match reply.wait_for(patience) {
                Ok(result) => return result,
                Err(still_coming) => still_coming,
            };
            if renewals < MAX_RENEWALS {
                life.sign();
            }
            renew(&self.door, lock);
            patience = lock.holds / 2;
        }
        reply.wait()
    }

    /// Fetches a document, and renews the lock meanwhile.
    fn fetch(
        &self,
        claim: &claim::Claim,
        lock: &Lock,
        life: &Life,
    ) -> Result<Content, EgressError> {
        let (done, ended) = channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                for renewals in 0_u32.. {
                    match ended.recv_timeout(lock.holds / 2) {
                        Err(RecvTimeoutError::Timeout) => {}
                        _ => break,
                    }
                    if renewals < MAX_RENEWALS {
                        life.sign();
                    }
                    renew(&self.door, lock);
                }
            });
            let content = self.claims.fetch(claim);
            drop(done);
            content
        })
    }

    /// A message that can't be held: told upwards the first time, shown, and left to the broker.
    fn leave(&mut self, lock: &Lock) -> Result<(), StepError> {
        let detail = format!("a message of more than {MAX_MESSAGE} stays with the broker");
        tracing::warn!(event = "bus.message_too_large", lock.delivery_count);
        let (now, now_ms) = (self.clock.monotonic(), self.time.now_ms());
        self.report.too_large(&detail, now, now_ms);
        if lock.delivery_count.unwrap_or(1) <= 1 {
            let body = serde_json::json!({
                "message_id": lock.message_id,
                "why": ParkCode::TooLarge,
                "reason": detail,
            });
            let body = to_raw_value(&body).expect("a JSON value is JSON");
            self.orders
                .outbox_push(Lane::Orders, "order.left", body)
                .wait()?;
        }
        Ok(())
    }
}

fn renew(door: &Door, lock: &Lock) {
    match door.renew(lock) {
        Ok(true) => tracing::debug!(event = "bus.lock_renewed"),
        Ok(false) => tracing::info!(event = "bus.lock_lost"),
        Err(error) => tracing::info!(event = "bus.renewal_failed", error = chain(&error)),
    }
}

/// Whether a claim check whose document can't be fetched is parked now; `None`: it comes again.
fn given_up(lock: &Lock, error: &EgressError) -> Option<Content> {
    let (cause, tries) = (error.cause.as_str(), lock.delivery_count.unwrap_or(1));
    tracing::warn!(event = "bus.document_missing", cause, tries);
    (tries >= CLAIM_TRIES).then(|| Content::Missing {
        why: ParkCode::NoDocument,
        reason: format!("its document can't be fetched: {cause}"),
    })
}

impl Work for Bus {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let asked_at = Instant::now();
        if let Some(delivery) = self.door.receive(self.wait)? {
            life.sign();
            self.handle(delivery, life)?;
            return Ok(Next::Again);
        }
        self.report.look(&self.orders, self.time.now_ms())?;
        self.report.let_go(self.clock.monotonic());
        let held = asked_at.elapsed() >= SHORTEST_POLL;
        Ok(if held {
            Next::Again
        } else {
            Next::Rest(SHORTEST_POLL)
        })
    }
}
