//! What all ports share, and the way from a request to the handler of its path.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hyper::Method;
use hyper::body::Body as _;
use hyper::header::{self, HeaderMap, HeaderValue};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::answer::{Answer, Answered, Body};
use super::attempts::Attempts;
use super::day::{Day, Look};
use super::events::Ring;
use super::history::History;
use super::problem::{Kind, Problem};
use super::request::Ask;
use super::route::{self, Endpoint};
use super::server::{self, PortCount};
use super::status::StatusBoard;
use super::{care, catalogue, events, front, media, orders, prices, support};
use crate::clock::Clock;
use crate::config::{DevicesConfig, LanConfig, LanPort, SiteConfig};
use crate::identity::{BoxIdentity, Secret};
use crate::shutdown::Shutdown;
use crate::store::disk::written_bytes;
use crate::store::{ReadError, Store, StoreEvent, WriteError};
use crate::telemetry::{Gauge, Telemetry, chain};
use crate::wan::time::PlatformTime;

/// Runs the self-diagnosis and gives its report as JSON text. Called on a blocking thread, one call at a time.
pub type Checks = Arc<dyn Fn() -> String + Send + Sync>;

/// What the LAN side is made of.
#[derive(Clone)]
pub struct LanDeps {
    /// Its ports and bounds.
    pub lan: LanConfig,
    /// Which shop this is.
    pub site: SiteConfig,
    /// Bounds on devices, their roles and ports.
    pub devices: DevicesConfig,
    /// Truth at rest.
    pub store: Store,
    /// Who this box is.
    pub identity: Arc<BoxIdentity>,
    /// What pairs devices: the code of the settings, or the one made at first start.
    pub claim_code: Secret,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How well the time is known.
    pub time: PlatformTime,
    /// Conditions and counters.
    pub telemetry: Telemetry,
    /// The self-diagnosis.
    pub checks: Checks,
}

/// Between two looks at what answers say in passing, such as the catalogue's age.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks between two counts of what waits to leave.
const OUTBOX_EVERY: u64 = 10;

/// Pages and pieces of files on their way to clients, all together, in KiB. Beyond: 503, ask again. So clients that are slow to
/// take what they asked for cost a bounded part of the box's memory; a single document or order is not counted.
const ANSWERS_KIB: usize = 32 * 1024;

/// "Never" as a time.
const NEVER: i64 = i64::MIN;

/// Everything the handlers share.
pub struct House {
    pub(super) lan: LanConfig,
    pub(super) site: SiteConfig,
    pub(super) devices: DevicesConfig,
    pub(super) store: Store,
    pub(super) identity: Arc<BoxIdentity>,
    pub(super) claim_code: Secret,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) time: PlatformTime,
    pub(super) telemetry: Telemetry,
    pub(super) checks: Checks,
    pub(super) open: BTreeSet<LanPort>,
    /// Monotonic: a clock that is put right must not age the server.
    started_at: Duration,
    pub(super) shutdown: Shutdown,
    pub(super) ring: Arc<Ring>,
    pub(super) history: History,
    pub(super) day: Day,
    pub(super) attempts: Attempts,
    pub(super) board: StatusBoard,
    pub(super) streams: events::Streams,
    pub(super) checking: Semaphore,
    answers: Arc<Semaphore>,
    feed_heard: Gauge,
    last_heard: AtomicI64,
    well_since_ms: AtomicI64,
}

impl House {
    /// Since when the server runs.
    pub(super) fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started_at)
    }

    /// The shop: the settings' or, once the box was claimed, the platform's; empty before.
    pub(super) fn site_id(&self) -> String {
        if self.site.site_id.is_empty() {
            let enrolment = self.telemetry.standing.enrolment();
            enrolment.site_id.unwrap_or_default()
        } else {
            self.site.site_id.clone()
        }
    }

    pub(super) fn new(deps: LanDeps, open: BTreeSet<LanPort>, shutdown: Shutdown) -> Self {
        let counts = open
            .iter()
            .map(|port| PortCount::of(*port, &deps.telemetry.metrics))
            .collect();
        Self {
            history: History::new(counts, deps.clock.wall_ms()),
            day: Day::new(deps.clock.wall_ms()),
            attempts: Attempts::new(),
            board: StatusBoard::default(),
            streams: events::Streams::new(&deps.telemetry.metrics),
            ring: Arc::default(),
            checking: Semaphore::new(1),
            answers: Arc::new(Semaphore::new(ANSWERS_KIB)),
            started_at: deps.clock.monotonic(),
            feed_heard: deps.telemetry.feed_heard_ms(),
            last_heard: AtomicI64::new(NEVER),
            well_since_ms: AtomicI64::new(deps.clock.wall_ms()),
            open,
            shutdown,
            lan: deps.lan,
            site: deps.site,
            devices: deps.devices,
            store: deps.store,
            identity: deps.identity,
            claim_code: deps.claim_code,
            clock: deps.clock,
            time: deps.time,
            telemetry: deps.telemetry,
            checks: deps.checks,
        }
    }

    /// The tasks beside the ports.
    pub(super) fn start_tasks(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let looking = tokio::spawn(Arc::clone(self).look_around());
        let pumping = tokio::spawn(Arc::clone(self).pump_events());
        let switching = tokio::spawn(prices::switch(Arc::clone(self)));
        vec![looking, pumping, switching]
    }

    /// Under which number `port` is reached.
    pub(super) fn number_of(&self, port: LanPort) -> u16 {
        self.lan.addr(port).port()
    }

    /// Seconds since the platform was last heard by the pull; `None` when it never was.
    pub(super) fn catalogue_age_s(&self) -> Option<u64> {
        match self.last_heard.load(Ordering::Relaxed) {
            NEVER => None,
            at_ms => Some(u64::try_from((self.clock.wall_ms() - at_ms) / 1000).unwrap_or(0)),
        }
    }

    /// When the pull last heard the platform: since the start, or else when it last took something.
    pub(super) fn last_heard_ms(&self) -> Result<Option<i64>, ReadError> {
        let took = self.store.catalogue.last_pull()?;
        let heard = Some(self.feed_heard.value()).filter(|at_ms| *at_ms > 0);
        Ok(took.max(heard))
    }

    /// Since when no condition holds; the start at the earliest.
    pub(super) fn well_since_ms(&self) -> i64 {
        self.well_since_ms.load(Ordering::Relaxed)
    }

    /// A share of the memory for answers, for an answer of `bytes`.
    pub(super) fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Box<Problem>> {
        let kib = bytes.div_ceil(1024).clamp(1, ANSWERS_KIB);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        Arc::clone(&self.answers)
            .try_acquire_many_owned(kib)
            .map_err(|_| {
                Problem::new(
                    Kind::Busy,
                    "too many answers wait for their clients to take them",
                )
                .retry_after(1)
            })
    }

    async fn look_around(self: Arc<Self>) {
        let (mut was_well, mut looks) = (true, 0_u64);
        while !self.shutdown.is_triggered() {
            self.history.look(self.clock.wall_ms());
            let is_well = self.telemetry.conditions.list().is_empty();
            if is_well && !was_well {
                self.well_since_ms
                    .store(self.clock.wall_ms(), Ordering::Relaxed);
            }
            was_well = is_well;
            match self.last_heard_ms() {
                Ok(at_ms) => self
                    .last_heard
                    .store(at_ms.unwrap_or(NEVER), Ordering::Relaxed),
                Err(error) => debug!(event = "lan.look_failed", %error),
            }
            if looks % OUTBOX_EVERY == 0 {
                self.look_out().await;
            }
            looks += 1;
            tokio::select! {
                () = self.shutdown.triggered() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// What waits to leave is counted in the database, so less often than the rest.
    async fn look_out(self: &Arc<Self>) {
        let reader = Arc::clone(self);
        let counted = blocking(move || reader.store.orders.outbox_counts()).await;
        let outbox = match counted {
            Ok(Ok(counts)) => Some(counts.lanes.iter().map(|lane| lane.waiting).sum()),
            _ => None,
        };
        let look = Look {
            outbox,
            latency_ms: self.telemetry.flows.take_latency_ms(),
            orders: self.history.orders(),
            written_bytes: written_bytes().unwrap_or(0),
        };
        self.day.look(look, self.clock.wall_ms());
    }

    async fn pump_events(self: Arc<Self>) {
        let mut events = self.store.events.subscribe();
        loop {
            let event = tokio::select! {
                () = self.shutdown.triggered() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(StoreEvent::Order {
                    order_id,
                    state,
                    seq,
                }) => {
                    self.history.order_changed(state);
                    self.ring.order(&order_id, state, seq);
                }
                Ok(StoreEvent::Catalogue { seq }) => self.ring.catalogue(seq),
                Ok(StoreEvent::Device { device_id }) => self.ring.device(&device_id),
                Ok(StoreEvent::Outbox | StoreEvent::Command | StoreEvent::Media) => {}
                Err(RecvError::Lagged(lost)) => {
                    warn!(event = "lan.events_lost", lost);
                    self.ring.restart();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn handle(self: &Arc<Self>, port: LanPort, path: &str, ask: &mut Ask) -> Answered {
        let (route, parameters) =
            route::find(port, &ask.head.method, path, |port| self.number_of(port))?;
        match route.endpoint {
            Endpoint::Page => front::page(self, ask).await,
            Endpoint::Live => Ok(front::live()),
            Endpoint::Ready => front::ready(self).await,
            Endpoint::WellKnown => front::well_known(self),
            Endpoint::Status => front::status(self, ask).await,
            Endpoint::OpenApi => Ok(front::open_api()),
            Endpoint::Document => {
                catalogue::document(self, ask, parameters.first(), parameters.second())
            }
            Endpoint::Barcode => catalogue::barcode(self, ask, parameters.first()),
            Endpoint::Documents => catalogue::documents(self, ask, parameters.first()).await,
            Endpoint::Changes => catalogue::changes(self, ask).await,
            Endpoint::SubmitOrder => orders::submit(self, ask).await,
            Endpoint::Orders => orders::list(self, ask).await,
            Endpoint::Order => orders::order(self, ask, parameters.first()),
            Endpoint::AdvanceOrder => orders::advance(self, ask, parameters.first()).await,
            Endpoint::Events => events::events(self, ask).await,
            Endpoint::Media => media::blob(self, ask, parameters.first()),
            Endpoint::Pair => care::pair(self, ask).await,
            Endpoint::Heartbeat => care::heartbeat(self, ask).await,
            Endpoint::Receipt => care::receipt(self, ask).await,
            Endpoint::Metrics => support::metrics(self),
            Endpoint::Checks => support::checks(self).await,
            Endpoint::Sent => support::sent(self),
        }
    }
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").finish_non_exhaustive()
    }
}

impl server::Service for Arc<House> {
    async fn answer(&self, port: LanPort, mut ask: Ask) -> Answer {
        let uri = ask.head.uri.clone();
        let mut answer = match self.handle(port, uri.path(), &mut ask).await {
            Ok(answer) => answer,
            Err(problem) => {
                debug!(
                    event = "lan.refused",
                    port = port.name(),
                    kind = problem.kind.urn()
                );
                problem.into_answer(uri.path())
            }
        };
        answer.headers_mut().insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if ask.head.method == Method::HEAD {
            headers_only(&mut answer);
        }
        answer
    }

    fn stamp(&self) -> HeaderMap {
        catalogue::stamp(self)
    }
}

/// Leaves of an answer what HEAD gets (RFC 9110 §9.3.2).
fn headers_only(answer: &mut Answer) {
    if let Some(length) = answer.body().size_hint().exact() {
        answer
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    *answer.body_mut() = Body::empty();
}

impl From<ReadError> for Box<Problem> {
    fn from(error: ReadError) -> Self {
        warn!(event = "lan.read_failed", error = chain(&error));
        Problem::new(Kind::Internal, "the box can't read its store")
    }
}

impl From<WriteError> for Box<Problem> {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Busy => {
                Problem::new(Kind::Busy, "more writes wait than the box takes").retry_after(1)
            }
            WriteError::Disk(_) => {
                warn!(event = "lan.write_failed", error = chain(&error));
                Problem::new(
                    Kind::Storage,
                    "the box can't write to its disk; nothing was kept",
                )
                .retry_after(30)
            }
            WriteError::Closed => {
                Problem::new(Kind::NotReady, "the box is restarting").retry_after(2)
            }
        }
    }
}

/// Runs `work` on the blocking threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Problem>> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::new(Kind::Internal, "a read met a mistake in the box's program"))
}
