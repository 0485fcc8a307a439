//! Customer orders from Azure Service Bus, by its REST runtime API: peek-lock, store, complete.
//!
//! ```text
//!   POST .../messages/head?timeout=S
//!     204 -------------------------------------------------------> ask again (nothing came in time)
//!     201 message --> inbox, order and command in one transaction, fsync
//!                       new, duplicate or parked: all durable ----> DELETE .../messages/{number}/{lock}
//!                       the store can't -------------------------> PUT (unlock): the broker brings it again
//!                                   200 completed, 404 lock lost -> ask again (a redelivery is a duplicate)
//!     401 403 pause, with a condition · 410 no such queue: slowly · 429 5xx: two seconds at least
//! ```
//! Nothing is completed before it is durable, so a cut anywhere costs a redelivery and never an order. A message that is
//! no order is kept in the inbox (parked), told, and completed: the next one is not kept waiting.

use std::time::Duration;

use ureq::http::Method;

use super::broker::{Lock, read_lock};
use super::contract::FlowId;
use super::credentials::{BusAccess, Credentials, entity_url};
use super::egress::{Answer, Cause, Client, EgressError, Request, bad_answer, no_credentials};
use super::sas;
use super::time::PlatformTime;
use super::worker::{Life, Next, StepError, Work};
use crate::config::{BusConfig, HttpsUrl};
use crate::identity::Secret;
use crate::store::orders::{InboxMessage, Received, Source};
use crate::store::{Orders, ReadError, WriteError};
use crate::telemetry::{Code, Counter, Telemetry, chain};
use crate::units::ByteSize;

/// The service takes 256 KB a message in its usual tiers; a larger one is left to the broker's dead-letter queue.
pub const MAX_MESSAGE: ByteSize = ByteSize::mib(1);
/// A signature is valid this long; a new one is made at half of it.
const SIGNATURE_LIFE_S: i64 = 20 * 60;
/// Two clocks within this are taken for equal.
const CLOCK_TOLERANCE_S: i64 = 60;
/// After a refusal by another clock, how long the hosts' word about the time is waited for.
const CLOCK_WAIT: Duration = Duration::from_secs(10);
/// A 204 that came sooner than this was no long poll: wait, so that no loop spins.
const SHORTEST_POLL: Duration = Duration::from_secs(1);

/// The worker.
pub(super) struct Bus {
    client: Client,
    url: HttpsUrl,
    credentials: Credentials,
    config: BusConfig,
    orders: Orders,
    time: PlatformTime,
    signature: Option<Signature>,
    report: BusReport,
}

/// A signature this box made.
struct Signature {
    text: Secret,
    made_at_s: i64,
    /// Of the credentials it was made with.
    version: u64,
}

/// What the bus tells of itself.
struct BusReport {
    received: Counter,
    duplicates: Counter,
    parked: Counter,
    telemetry: Telemetry,
    /// Parked messages are there, or may be (of an earlier run): the condition has to be looked after.
    may_have_parked: bool,
}

impl Bus {
    pub(super) fn new(
        client: Client,
        url: &HttpsUrl,
        credentials: Credentials,
        config: BusConfig,
        orders: Orders,
        time: PlatformTime,
        telemetry: &Telemetry,
    ) -> Self {
        let metrics = &telemetry.metrics;
        Self {
            client,
            url: url.clone(),
            credentials,
            config,
            orders,
            time,
            signature: None,
            report: BusReport {
                received: metrics.counter(
                    "comptoir_bus_orders_total",
                    "",
                    "New orders from the bus.",
                ),
                duplicates: metrics.counter(
                    "comptoir_bus_duplicates_total",
                    "",
                    "Messages of the bus that were here before.",
                ),
                parked: metrics.counter(
                    "comptoir_bus_parked_total",
                    "",
                    "Messages of the bus that are no order; they are kept.",
                ),
                telemetry: telemetry.clone(),
                may_have_parked: true,
            },
        }
    }

    fn ask(&mut self, method: &Method, path: &str, hold: Duration) -> Result<Answer, EgressError> {
        let rounds = self.time.rounds();
        let (answer, is_clock_off) = self.ask_once(method, path, hold)?;
        if answer.status() == 401 && is_clock_off {
            // The host's time is another than the signature was made by: the clock is wrong, not the key.
            self.time.wait_for_round(rounds, CLOCK_WAIT);
            let machine_ahead_ms = self.time.machine_ahead_ms();
            tracing::info!(event = "bus.clock_corrected", machine_ahead_ms);
            return Ok(self.ask_once(method, path, hold)?.0);
        }
        Ok(answer)
    }

    /// The answer, and whether it says that our time is far off.
    fn ask_once(
        &mut self,
        method: &Method,
        path: &str,
        hold: Duration,
    ) -> Result<(Answer, bool), EgressError> {
        let missing = || no_credentials(FlowId::Bus);
        let entity = self.credentials.bus_entity().ok_or_else(missing)?;
        let entity_url = entity_url(self.url.as_str(), &entity);
        let signature = self.signature(&entity_url).ok_or_else(missing)?;
        let asked = self.time.asked();
        let answer = self.client.send(&Request {
            method: method.clone(),
            url: &format!("{entity_url}/messages/{path}"),
            headers: &[("authorization", signature.expose())],
            body: None,
            hold,
        })?;
        let is_clock_off = self.time.observe(FlowId::Bus, &answer, asked);
        Ok((answer, is_clock_off))
    }

    /// A signature of a later time than now is none: it was made by a wrong clock.
    fn is_signature_fresh(&self) -> bool {
        let now_s = self.time.now_ms() / 1000;
        self.signature.as_ref().is_some_and(|signature| {
            signature.version == self.credentials.version()
                && (-CLOCK_TOLERANCE_S..SIGNATURE_LIFE_S / 2)
                    .contains(&(now_s - signature.made_at_s))
        })
    }

    /// The platform's signature, or one of our own with the installer's key; `None` without either.
    fn signature(&mut self, entity_url: &str) -> Option<Secret> {
        let version = self.credentials.version();
        let (name, key) = match self.credentials.bus()? {
            BusAccess::Sas { token, .. } => {
                self.signature = None;
                return Some(token);
            }
            BusAccess::Key { name, key } => (name, key),
        };
        if let Some(signature) = self
            .signature
            .as_ref()
            .filter(|_| self.is_signature_fresh())
        {
            return Some(signature.text.clone());
        }
        let now_s = self.time.now_ms() / 1000;
        let expiry = u64::try_from(now_s + SIGNATURE_LIFE_S).unwrap_or(0);
        let text = sas::sign(entity_url, &name, &key, expiry);
        self.signature = Some(Signature {
            text: text.clone(),
            made_at_s: now_s,
            version,
        });
        Some(text)
    }

    fn receive(&mut self) -> Result<Option<(Lock, Vec<u8>)>, StepError> {
        let wait = self.config.wait;
        let path = format!("head?timeout={}", wait.as_secs());
        let answer = self.ask(&Method::POST, &path, wait)?;
        if answer.status() == 204 {
            return Ok(None);
        }
        let answer = answer.success()?;
        let properties = answer.header("brokerproperties").map(str::to_owned);
        let location = answer.header("location").map(str::to_owned);
        let body = answer.bytes(MAX_MESSAGE).inspect_err(|error| {
            if error.cause == Cause::TooLarge {
                let reason = format!("a message of more than {MAX_MESSAGE} stays with the broker");
                self.report.told(&reason, self.time.now_ms());
            }
        })?;
        let lock = read_lock(properties.as_deref(), location.as_deref(), &body)
            .map_err(|error| bad_answer(FlowId::Bus, error.to_string()))?;
        Ok(Some((lock, body)))
    }

    /// Makes the message durable.
    fn keep(&mut self, lock: &Lock, body: Vec<u8>) -> Result<(), WriteError> {
        let received = self
            .orders
            .receive(InboxMessage {
                message_id: lock.message_id.clone(),
                source: Source::Bus,
                body,
            })
            .wait()?;
        match received {
            Received::New { order_id } => {
                self.report.received.add_one();
                tracing::info!(event = "bus.order_received", order_id);
            }
            Received::DuplicateMessage => {
                self.report.duplicates.add_one();
                tracing::info!(
                    event = "bus.message_repeated",
                    delivery_count = lock.delivery_count
                );
            }
            Received::DuplicateOrder { order_id } => {
                self.report.duplicates.add_one();
                tracing::info!(event = "bus.order_repeated", order_id);
            }
            Received::Parked { reason } => {
                self.report.parked.add_one();
                self.report.may_have_parked = true;
                self.report.told(&reason, self.time.now_ms());
                tracing::warn!(event = "bus.message_parked", reason);
            }
        }
        Ok(())
    }

    /// Takes the message off the queue. A lost lock is no failure: it comes again and is then a duplicate.
    fn complete(&mut self, lock: &Lock) -> Result<(), EgressError> {
        let answer = self.ask(&Method::DELETE, &lock.settle_path, Duration::ZERO)?;
        if answer.status() == 404 {
            tracing::info!(event = "bus.lock_lost");
            return Ok(());
        }
        answer.success().map(drop)
    }

    /// Gives the message back at once instead of when its lock ends.
    fn unlock(&mut self, lock: &Lock) {
        let given_back = self
            .ask(&Method::PUT, &lock.settle_path, Duration::ZERO)
            .and_then(Answer::success);
        if let Err(error) = given_back {
            tracing::debug!(event = "bus.unlock_failed", error = chain(&error));
        }
    }
}

impl Work for Bus {
    fn step(&mut self, life: &Life) -> Result<Next, StepError> {
        let asked_at = std::time::Instant::now();
        let Some((lock, body)) = self.receive()? else {
            self.report
                .look_after_parked(&self.orders, self.time.now_ms())?;
            let held = asked_at.elapsed() >= SHORTEST_POLL;
            return Ok(if held {
                Next::Again
            } else {
                Next::Rest(SHORTEST_POLL)
            });
        };
        life.sign();
        if let Err(error) = self.keep(&lock, body) {
            self.unlock(&lock);
            return Err(error.into());
        }
        self.complete(&lock)?;
        Ok(Next::Again)
    }
}

impl BusReport {
    /// Keeps the condition as long as messages are parked.
    fn look_after_parked(&mut self, orders: &Orders, now_ms: i64) -> Result<(), ReadError> {
        if !self.may_have_parked {
            return Ok(());
        }
        let parked = orders.inbox_parked(1)?;
        self.may_have_parked = !parked.is_empty();
        match parked.first() {
            Some(message) => self.told(&message.reason, now_ms),
            None => {
                self.telemetry.conditions.clear(Code::OrderParked);
            }
        }
        Ok(())
    }

    fn told(&self, reason: &str, now_ms: i64) {
        self.telemetry
            .conditions
            .raise(Code::OrderParked, reason, now_ms);
    }
}
