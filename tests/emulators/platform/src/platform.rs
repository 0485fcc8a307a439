//! What all parts of the emulator share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::api::checksums::Sums;
use crate::enrol::Enrolment;
use crate::intake::Intake;
use crate::serve::Flow;
use crate::serve::fault::{Faults, Refusals};
use crate::store::Store;

/// Who may come in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The one site.
    pub site: String,
    /// Its bearer token.
    pub token: String,
    /// Name of the bus's shared access rule.
    pub bus_key_name: String,
    /// Its key.
    pub bus_key: String,
    /// Key of the log input.
    pub logs_key: String,
}

/// hawkBit's `config.polling.sleep` unless control says otherwise.
const POLL_SLEEP: &str = "00:05:00";

/// The platform: state, who waits for it, and what was armed against its clients.
pub struct Platform {
    /// Everything that survives a restart.
    pub store: Store,
    /// Who may come in.
    pub credentials: Credentials,
    /// Start of the URLs in media documents, without a slash at the end.
    pub blob_url: String,
    /// What `/control/ready` and the ready file say.
    pub addresses: serde_json::Value,
    /// Armed faults.
    pub faults: Faults,
    /// Kinds of events that are refused.
    pub refusals: Refusals,
    /// The last requests.
    pub requests: RequestLog,
    /// What came in at the log input.
    pub intake: Intake,
    /// What the documents add up to, as it was last asked for.
    pub sums: Mutex<Option<Arc<Sums>>>,
    /// The time of the platform.
    pub clock: Clock,
    /// Boxes that enrol.
    pub enrol: Enrolment,
    /// Told at every change of a document.
    pub documents_changed: watch::Sender<()>,
    /// Told at every stored event.
    pub events_changed: watch::Sender<()>,
    /// Told at every order in the feed of orders.
    pub orders_changed: watch::Sender<()>,
    /// Told whenever a message may have become receivable.
    pub messages_changed: watch::Sender<()>,
    poll_sleep: Mutex<String>,
    offline: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    open_doors: watch::Sender<usize>,
    all_doors: usize,
}

impl Platform {
    /// A platform that is online and will be served by `all_doors` doors.
    pub fn new(
        store: Store,
        credentials: Credentials,
        blob_url: String,
        addresses: serde_json::Value,
        all_doors: usize,
    ) -> Self {
        Self {
            store,
            credentials,
            blob_url,
            addresses,
            faults: Faults::default(),
            refusals: Refusals::default(),
            requests: RequestLog::default(),
            intake: Intake::default(),
            sums: Mutex::default(),
            clock: Clock::default(),
            enrol: Enrolment::default(),
            documents_changed: watch::Sender::new(()),
            events_changed: watch::Sender::new(()),
            orders_changed: watch::Sender::new(()),
            messages_changed: watch::Sender::new(()),
            poll_sleep: Mutex::new(POLL_SLEEP.to_owned()),
            offline: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
            open_doors: watch::Sender::new(0),
            all_doors,
        }
    }

    /// Closes (true) or opens (false) the flows' listeners, and waits until it is so; open connections are reset.
    pub async fn set_offline(&self, offline: bool) {
        self.offline.send_replace(offline);
        self.wait_for_doors(if offline { 0 } else { self.all_doors })
            .await;
    }

    /// Waits until every door is open.
    pub async fn opened(&self) {
        self.wait_for_doors(self.all_doors).await;
    }

    /// A door tells that it has opened (true) or closed (false).
    pub fn door_moved(&self, open: bool) {
        self.open_doors
            .send_modify(|doors| *doors = if open { *doors + 1 } else { *doors - 1 });
    }

    async fn wait_for_doors(&self, wanted: usize) {
        let mut doors = self.open_doors.subscribe();
        doors
            .wait_for(|open| *open == wanted)
            .await
            .expect("the platform holds the sender");
    }

    /// Whether the flows are closed.
    pub fn offline(&self) -> watch::Receiver<bool> {
        self.offline.subscribe()
    }

    /// Ends every listener and every wait.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// How long boxes are to wait between two polls for roll-outs, `HH:MM:SS`.
    pub fn poll_sleep(&self) -> String {
        let sleep = self.poll_sleep.lock();
        sleep.expect("no holder of this lock panics").clone()
    }

    /// Sets it.
    pub fn set_poll_sleep(&self, sleep: &str) {
        let mut known = self
            .poll_sleep
            .lock()
            .expect("no holder of this lock panics");
        sleep.clone_into(&mut known);
    }

    /// Whether the platform is ending.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.subscribe()
    }
}

/// The time clients are told, and by which their tokens are judged: this machine's, moved by what control says. Locks
/// and other spans of time go on by [`now_ms`].
#[derive(Debug, Default)]
pub struct Clock(AtomicI64);

impl Clock {
    /// Now, in Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        now_ms().saturating_add(self.0.load(Ordering::Relaxed))
    }

    /// Sets how far the platform's time is ahead of this machine's.
    pub fn set_offset_s(&self, offset_s: i32) {
        self.0.store(i64::from(offset_s) * 1000, Ordering::Relaxed);
    }
}

/// Now, in Unix milliseconds.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A moment in Unix milliseconds as RFC 3339 text.
pub fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// A moment in Unix milliseconds as RFC 1123 text ("Wed, 02 Jul 2014 01:32:27 GMT").
pub fn rfc1123(ms: i64) -> String {
    let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&moment)
        .expect("years 1 to 9999 print")
}

/// One request of a flow, as a test may want to know it.
#[derive(Debug, Clone, Serialize)]
pub struct RequestRecord {
    /// Which flow.
    pub flow: Flow,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Status answered; 0 if the connection was reset instead.
    pub status: u16,
    /// Bytes of the answer's body; 0 when it was reset instead, or has no end that is known.
    pub bytes: u64,
    /// Nothing was there to be given: a poll that came too early.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// How long it was held, in milliseconds.
    pub held_ms: u64,
    /// The fault that hit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How many requests are remembered; older ones are forgotten first.
const KEPT_REQUESTS: usize = 2000;

/// The last [`KEPT_REQUESTS`] requests of all flows.
#[derive(Debug, Default)]
pub struct RequestLog(Mutex<(u64, VecDeque<RequestRecord>)>);

impl RequestLog {
    /// Notes one.
    pub fn record(&self, request: RequestRecord) {
        tracing::debug!(
            event = "serve.request_answered",
            flow = ?request.flow, method = request.method, path = request.path, status = request.status
        );
        let mut log = self.0.lock().expect("no holder of the log's lock panics");
        if log.1.len() == KEPT_REQUESTS {
            log.1.pop_front();
        }
        log.0 += 1;
        log.1.push_back(request);
    }

    /// How many there were in all, and the last ones.
    pub fn list(&self) -> (u64, Vec<RequestRecord>) {
        let log = self.0.lock().expect("no holder of the log's lock panics");
        (log.0, log.1.iter().cloned().collect())
    }
}
