//! The four calls of the service's REST runtime API that the box needs, each signed for the entity.
//!
//! | call | request | answers |
//! |---|---|---|
//! | peek-lock | `POST …/messages/head?timeout=S` | 201 message, 204 none in time |
//! | complete, unlock, renew | `DELETE`, `PUT`, `POST …/messages/{number}/{lock}` | 200; 404: the lock is lost |

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::MAX_MESSAGE;
use super::lock::{Lock, read_lock};
use crate::config::HttpsUrl;
use crate::identity::Secret;
use crate::wan::contract::FlowId;
use crate::wan::credentials::{BusAccess, Credentials, entity_url};
use crate::wan::egress::{Answer, Cause, Client, EgressError, Request, bad_answer, no_credentials};
use crate::wan::sas;
use crate::wan::time::PlatformTime;

/// A signature is valid this long; a new one is made at half of it.
const SIGNATURE_LIFE_S: i64 = 20 * 60;
/// Two clocks within this are taken for equal.
const CLOCK_TOLERANCE_S: i64 = 60;
/// After a refusal by another clock, how long the hosts' word about the time is waited for.
const CLOCK_WAIT: Duration = Duration::from_secs(10);

/// The way to the entity.
pub(super) struct Door {
    client: Client,
    url: HttpsUrl,
    credentials: Credentials,
    time: PlatformTime,
    /// The one in use, as long as it is fresh.
    signature: Mutex<Option<Signature>>,
}

/// A signature this box made.
struct Signature {
    text: Secret,
    made_at_s: i64,
    /// Of the credentials it was made with.
    version: u64,
}

/// A message under a lock.
pub(super) struct Delivery {
    pub(super) lock: Lock,
    pub(super) received_at: Instant,
    /// `None`: it has more than [`MAX_MESSAGE`].
    pub(super) body: Option<Vec<u8>>,
}

impl Door {
    pub(super) fn new(
        client: Client,
        url: &HttpsUrl,
        credentials: Credentials,
        time: PlatformTime,
    ) -> Self {
        Self {
            client,
            url: url.clone(),
            credentials,
            time,
            signature: Mutex::default(),
        }
    }

    /// The next message, waited for at most `wait`.
    pub(super) fn receive(&self, wait: Duration) -> Result<Option<Delivery>, EgressError> {
        let path = format!("head?timeout={}", wait.as_secs());
        let answer = self.ask(&Method::POST, &path, wait)?;
        if answer.status() == 204 {
            return Ok(None);
        }
        let answer = self.success(answer)?;
        let received_at = Instant::now();
        let properties = answer.header("brokerproperties").map(str::to_owned);
        let location = answer.header("location").map(str::to_owned);
        let date = answer.date();
        let body = match answer.bytes(MAX_MESSAGE) {
            Ok(body) => Some(body),
            Err(error) if error.cause == Cause::TooLarge => None,
            Err(error) => return Err(error),
        };
        let read = body.as_deref().unwrap_or_default();
        let lock = read_lock(properties.as_deref(), location.as_deref(), date, read)
            .map_err(|error| bad_answer(FlowId::Bus, error.to_string()))?;
        Ok(Some(Delivery {
            lock,
            received_at,
            body,
        }))
    }

    /// Takes the message off the queue; false when the lock is lost.
    pub(super) fn complete(&self, lock: &Lock) -> Result<bool, EgressError> {
        self.settle(&Method::DELETE, lock)
    }

    /// Gives the message back at once instead of when its lock ends; false when it is lost.
    pub(super) fn unlock(&self, lock: &Lock) -> Result<bool, EgressError> {
        self.settle(&Method::PUT, lock)
    }

    /// Begins the lock's time anew; false when it is lost.
    pub(super) fn renew(&self, lock: &Lock) -> Result<bool, EgressError> {
        self.settle(&Method::POST, lock)
    }

    fn settle(&self, method: &Method, lock: &Lock) -> Result<bool, EgressError> {
        let answer = self.ask(method, &lock.settle_path, Duration::ZERO)?;
        if answer.status() == 404 {
            // Read to its end, the connection serves the next call.
            let _ = answer.into_error(Cause::NotFound);
            return Ok(false);
        }
        self.success(answer).map(|_| true)
    }

    /// A refused signature of the platform's that has ended is no wrong one.
    fn success(&self, answer: Answer) -> Result<Answer, EgressError> {
        match Cause::of_status(answer.status()) {
            None => Ok(answer),
            Some(Cause::Unauthorized) if self.has_expired() => {
                Err(answer.into_error(Cause::SasExpired))
            }
            Some(cause) => Err(answer.into_error(cause)),
        }
    }

    fn has_expired(&self) -> bool {
        matches!(
            self.credentials.bus(),
            Some(BusAccess::Sas { expires_at_s, .. }) if expires_at_s <= self.time.now_s()
        )
    }

    fn ask(&self, method: &Method, path: &str, hold: Duration) -> Result<Answer, EgressError> {
        let mark = self.time.mark();
        let (answer, is_off) = self.ask_once(method, path, hold)?;
        if answer.status() == 401 && self.time.moved_since(mark, is_off, CLOCK_WAIT) {
            let machine_ahead_ms = self.time.machine_ahead_ms();
            tracing::info!(event = "bus.clock_corrected", machine_ahead_ms);
            return Ok(self.ask_once(method, path, hold)?.0);
        }
        Ok(answer)
    }

    /// The answer, and whether it says that our time is far off.
    fn ask_once(
        &self,
        method: &Method,
        path: &str,
        hold: Duration,
    ) -> Result<(Answer, bool), EgressError> {
        let missing = || no_credentials(FlowId::Bus);
        let entity = self.credentials.bus_entity().ok_or_else(missing)?;
        // A rule belongs to a queue or a topic, never to a subscription.
        let signed = entity.split('/').next().unwrap_or_default();
        let signed_url = entity_url(self.url.as_str(), signed);
        let signature = self.signature(&signed_url).ok_or_else(missing)?;
        let entity_url = entity_url(self.url.as_str(), &entity);
        let asked = self.time.asked();
        let answer = self.client.send(&Request {
            method: method.clone(),
            url: &format!("{entity_url}/messages/{path}"),
            headers: &[("authorization", signature.expose())],
            body: None,
            hold,
        })?;
        let is_off = self.time.observe(FlowId::Bus, &answer, asked);
        Ok((answer, is_off))
    }

    /// A signature of a later time than now is none: it was made by a wrong clock.
    fn fresh(&self) -> Option<Secret> {
        let (now_s, version) = (self.time.now_s(), self.credentials.version());
        let kept = self.kept();
        let kept = kept.as_ref().filter(|signature| {
            let age_s = now_s - signature.made_at_s;
            signature.version == version
                && (-CLOCK_TOLERANCE_S..SIGNATURE_LIFE_S / 2).contains(&age_s)
        })?;
        Some(kept.text.clone())
    }

    /// The platform's signature, or one of our own with the installer's key; `None` without either.
    fn signature(&self, signed_url: &str) -> Option<Secret> {
        let version = self.credentials.version();
        let (name, key) = match self.credentials.bus()? {
            BusAccess::Sas { token, .. } => return Some(token),
            BusAccess::Key { name, key } => (name, key),
        };
        if let Some(signature) = self.fresh() {
            return Some(signature);
        }
        let now_s = self.time.now_s();
        let expiry = u64::try_from(now_s + SIGNATURE_LIFE_S).unwrap_or(0);
        let text = sas::sign(signed_url, &name, &key, expiry);
        *self.kept() = Some(Signature {
            text: text.clone(),
            made_at_s: now_s,
            version,
        });
        Some(text)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Signature>> {
        self.signature
            .lock()
            .expect("no holder of this lock panics")
    }
}
