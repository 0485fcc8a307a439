//! How the box is, told the platform at the start and then every hour, in the lane of telemetry: what is dropped first
//! when the disk is short. Codes and counts only, nothing of a customer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::to_raw_value;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::shutdown::Shutdown;
use crate::store::orders::Lane;
use crate::store::{ReadError, Store};
use crate::telemetry::{Telemetry, chain};
use crate::version::running;

/// Kind of the event.
const KIND: &str = "box.state";

/// The event's body.
#[derive(Debug, Serialize)]
struct Body {
    version: &'static str,
    /// Of this server, not of the box.
    up_s: u64,
    /// Codes of what holds now.
    conditions: Vec<&'static str>,
    devices: usize,
    documents: i64,
    /// Events that wait for the platform, this one aside.
    waiting: i64,
}

/// Looks and tells.
pub(super) struct State {
    store: Store,
    telemetry: Telemetry,
    started: Instant,
}

impl State {
    pub(super) fn new(store: Store, telemetry: Telemetry) -> Self {
        Self {
            store,
            telemetry,
            started: Instant::now(),
        }
    }

    /// Until the shutdown, every `period`.
    pub(super) async fn tell(self, period: Duration, shutdown: Shutdown) {
        let state = Arc::new(self);
        loop {
            let state = Arc::clone(&state);
            match spawn_blocking(move || state.tell_once()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(event = "daemon.state_untold", error = &*error),
                Err(error) => warn!(event = "daemon.state_untold", error = &*chain(&error)),
            }
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    fn tell_once(&self) -> Result<(), String> {
        let body = self.body().map_err(|error| chain(&error))?;
        let body = to_raw_value(&body).map_err(|error| chain(&error))?;
        let push = self.store.orders.outbox_push(Lane::Telemetry, KIND, body);
        push.wait().map_err(|error| chain(&error))?;
        Ok(())
    }

    fn body(&self) -> Result<Body, ReadError> {
        let conditions = self.telemetry.conditions.list();
        let collections = self.store.catalogue.collections()?;
        let lanes = self.store.orders.outbox_counts()?.lanes;
        Ok(Body {
            version: running(),
            up_s: self.started.elapsed().as_secs(),
            conditions: conditions.iter().map(|(code, _)| code.as_str()).collect(),
            devices: self.store.devices.count(),
            documents: collections.iter().map(|each| each.documents).sum(),
            waiting: lanes.iter().map(|lane| lane.waiting).sum(),
        })
    }
}
