//! Everything between the box and the internet: one worker a flow, one door out.
//!
//! ```text
//!  platform API --pull--> catalogue         outbox  --push--> platform API
//!  service bus  --bus---> orders            media documents --media--> blobs <-- blob storage
//!         every arrow through [`egress`]; what may leave at all is the [`contract`]
//! ```
//! # Invariants
//! - Nothing is taken off the far side (a bus message, a feed position) before it is durable here.
//! - Nothing is taken off the outbox before the far side said that it has it.
//! - Every wait has a deadline; a watchdog ends the connections of a worker that shows no life ([`LIFE_SIGN`]).
//! - Credentials go to configured hosts only, never to an address that an answer or a document names.
//! - No worker's failure touches another, and none of them touches the LAN side. That the way is back after an outage,
//!   all learn from the first answer (`way_back`).
//!
//! What failed last and why is [`WanHandle::outcomes`]; what lasts becomes a condition.

mod api;
mod bus;
pub mod contract;
pub mod credentials;
pub mod egress;
mod enrol;
mod lines;
mod media;
mod members;
mod orders_feed;
mod outcome;
mod pull;
mod push;
pub mod rollouts;
pub mod sas;
mod shipping;
mod snapshot;
pub mod time;
#[cfg(test)]
mod tls_host;
mod watchdog;
mod way_back;
pub mod wire;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{UpdateConfig, WanConfig};
use crate::identity::{BoxIdentity, Secret};
use crate::shutdown::Shutdown;
use crate::store::{Store, Topic};
use crate::telemetry::outgoing::Outgoing;
use crate::telemetry::{Code, Telemetry};

pub use bus::MAX_MESSAGE;
pub use enrol::kept_credentials;
pub use outcome::{Outcome, Outcomes, Worker};
pub use snapshot::{BATCH_BYTES, BATCH_DOCUMENTS, MAX_LINE_BYTES};
pub use worker::{LIFE_SIGN, REFUSED_PAUSE};

use api::Api;
use bus::again::ClaimsAgain;
use bus::claim::Claims;
use bus::{Bus, BusParts};
use contract::{CONTRACT, FlowId};
use credentials::Credentials;
use egress::{Client, Egress};
use enrol::{Enrol, EnrolParts};
use media::Media;
use orders_feed::{OrdersFeed, OrdersFeedParts};
use pull::{Pull, PullReport};
use push::Push;
use rollouts::{RolloutParts, Rollouts, Updater};
use shipping::{Pump, ShippingParts};
use time::PlatformTime;
use time::worker::{AskTime, AskTimeParts};
use watchdog::{LinkWatch, WATCH_PERIOD, watch};
use worker::{Frame, Life, Work};

/// What the workers work with.
pub struct WanParts {
    /// The `[wan]` section.
    pub config: WanConfig,
    /// What may be shown to the platform's hosts; it may come later.
    pub credentials: Credentials,
    /// What roll-outs need; `None` where no version can be installed.
    pub rollouts: Option<RolloutSetup>,
    /// The store.
    pub store: Store,
    /// Where conditions and metrics go.
    pub telemetry: Telemetry,
    /// The box's best time, and its clocks.
    pub time: PlatformTime,
    /// Who the box is, and what proves that a person has it in hands.
    pub identity: Arc<BoxIdentity>,
    /// The code printed on the box.
    pub claim_code: Secret,
    /// Where small facts are kept: the data folder.
    pub data_dir: PathBuf,
    /// The end.
    pub shutdown: Shutdown,
    /// What may leave for support.
    pub outgoing: Outgoing,
}

/// What roll-outs need beside.
pub struct RolloutSetup {
    /// Who this box is.
    pub box_id: String,
    /// The `[update]` section.
    pub update: UpdateConfig,
    /// The slots.
    pub updater: Box<dyn Updater>,
}

/// The workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartWanError {
    /// The system gives no thread.
    #[error("a worker's thread can't be started")]
    Thread(#[source] io::Error),
}

/// The running workers.
pub struct WanHandle {
    outcomes: Outcomes,
    time: PlatformTime,
    lives: Vec<Life>,
    /// Each thread holds a sender, and nothing is ever sent: the last one gone says that all have ended.
    ended: Receiver<()>,
}

impl WanHandle {
    /// How each worker's last try ended.
    #[must_use]
    pub fn outcomes(&self) -> Outcomes {
        self.outcomes.clone()
    }

    /// The platform's time as far as it is known.
    #[must_use]
    pub fn time(&self) -> PlatformTime {
        self.time.clone()
    }

    /// Signs of life of all workers so far.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.lives.iter().map(Life::signs).sum()
    }

    /// After the shutdown: waits until all workers have ended, at most `wait`; true when they have. Nothing is lost by
    /// leaving one behind.
    #[must_use]
    pub fn join(self, wait: Duration) -> bool {
        matches!(
            self.ended.recv_timeout(wait),
            Err(RecvTimeoutError::Disconnected)
        )
    }
}

/// The room's entrance.
pub struct Wan;

impl Wan {
    /// Starts a thread for every flow that is switched on and set up, and one that looks after them.
    ///
    /// A worker whose credentials are missing waits for them: the shop is served meanwhile, and the condition
    /// `wan.not_enrolled` says why nothing comes in.
    ///
    /// # Errors
    /// [`StartWanError`]
    pub fn start(mut parts: WanParts) -> Result<WanHandle, StartWanError> {
        let conditions = parts.telemetry.conditions.clone();
        let outcomes = Outcomes::new(conditions.clone(), parts.clock())
            .with_board(parts.telemetry.flows.clone());
        parts
            .telemetry
            .flows
            .set_up(outcome::flow_setups(&parts.config));
        let (running, ended) = channel();
        let mut handle = WanHandle {
            outcomes,
            time: parts.time.clone(),
            lives: Vec::new(),
            ended,
        };
        let now_ms = parts.time.now_ms();
        let (egress, problems) = Egress::new(&parts.config, &handle.time);
        handle.outcomes = handle.outcomes().hearing(egress.heard());
        if !problems.is_empty() {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            tracing::error!(event = "wan.ca_file_refused", problems = text.join("; "));
            conditions.raise(Code::CaFileRefused, text.join("; "), now_ms);
        }
        let setup = parts.rollouts.take();
        let mut list = workers(&parts, &egress, &handle);
        list.push(ask_time(&parts, &egress));
        list.push(enrol(&parts, &egress));
        let pump = ship(&mut parts, &egress, &handle, &mut list);
        list.extend(setup.and_then(|setup| rollouts(&parts, setup, &egress, &handle)));
        let mut watched = Vec::new();
        for (worker, clients, work) in list {
            let life = Life::new(parts.clock());
            handle.lives.push(life.clone());
            watched.extend(
                clients
                    .into_iter()
                    .map(|client| (worker, client, life.clone())),
            );
            let frame = Frame {
                worker,
                life,
                retry: parts.config.retry,
                credentials: parts.credentials.clone(),
                outcomes: handle.outcomes.clone(),
                shutdown: parts.shutdown.clone(),
            };
            spawn(frame, work, running.clone())?;
        }
        if !pump.is_idle() {
            let (shutdown, running) = (parts.shutdown.clone(), running.clone());
            Builder::new()
                .name("wan-pump".to_owned())
                .spawn(move || {
                    pump.run(&shutdown);
                    drop(running);
                })
                .map_err(StartWanError::Thread)?;
        }
        let (shutdown, clock) = (parts.shutdown.clone(), parts.clock());
        let mut link = LinkWatch::new(egress.heard());
        Builder::new()
            .name("wan-watchdog".to_owned())
            .spawn(move || {
                let look = || link.look(egress::has_link());
                watch(
                    &watched,
                    &conditions,
                    &*clock,
                    WATCH_PERIOD,
                    look,
                    &shutdown,
                );
                drop(running);
            })
            .map_err(StartWanError::Thread)?;
        Ok(handle)
    }
}

impl WanParts {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.time.clone())
    }
}

/// The worker that brings credentials.
fn enrol(parts: &WanParts, egress: &Egress) -> Started {
    let client = egress.client(Worker::Enrol.flow());
    let work = Enrol::new(
        EnrolParts {
            client: client.clone(),
            api_url: parts.config.api_url.clone(),
            identity: Arc::clone(&parts.identity),
            claim_code: parts.claim_code.clone(),
            credentials: parts.credentials.clone(),
            time: parts.time.clone(),
            telemetry: parts.telemetry.clone(),
        },
        &parts.data_dir,
    );
    (Worker::Enrol, vec![client], Box::new(work))
}

/// The worker that asks for the time: every host in use, the required one first.
fn ask_time(parts: &WanParts, egress: &Egress) -> Started {
    let config = &parts.config;
    let hosts: Vec<(Client, String)> = CONTRACT
        .iter()
        .map(|flow| flow.id)
        .filter(|flow| flow.is_used(config))
        .map(|flow| (egress.client(flow), format!("{}/", flow.url(config))))
        .collect();
    let clients = hosts.iter().map(|(client, _)| client.clone()).collect();
    let work = AskTime::new(
        AskTimeParts {
            time: parts.time.clone(),
            hosts,
            credentials: parts.credentials.clone(),
            store: parts.store.clone(),
            telemetry: parts.telemetry.clone(),
            shutdown: parts.shutdown.clone(),
        },
        &parts.data_dir,
    );
    (Worker::Time, clients, Box::new(work))
}

/// Starts a worker's thread, which holds `running` until it ends.
fn spawn(frame: Frame, mut work: Box<dyn Work>, running: Sender<()>) -> Result<(), StartWanError> {
    Builder::new()
        .name(format!("wan-{}", frame.worker.name()))
        .spawn(move || {
            worker::run(&frame, &mut *work);
            drop(running);
        })
        .map_err(StartWanError::Thread)?;
    Ok(())
}

/// A worker, its clients for the watchdog, its work.
type Started = (Worker, Vec<Client>, Box<dyn Work>);

/// The workers that are switched on.
fn workers(parts: &WanParts, egress: &Egress, handle: &WanHandle) -> Vec<Started> {
    let WanParts {
        config,
        store,
        telemetry,
        ..
    } = parts;
    let clock = &parts.clock();
    let mut list: Vec<Started> = Vec::new();
    let client = |worker: Worker| egress.client(worker.flow());
    let api = |client: &Client| {
        let credentials = parts.credentials.clone();
        Api::new(client.clone(), &config.api_url, credentials, handle.time())
            .with_board(telemetry.flows.clone())
    };
    let claims = || {
        let client = egress.client(FlowId::Media);
        Claims::new(client, parts.credentials.clone())
    };
    if config.pull.enabled {
        let client = client(Worker::Pull);
        let report = PullReport::new(telemetry, store.catalogue.clone(), Arc::clone(clock));
        let pull = Pull::new(
            api(&client),
            store.catalogue.clone(),
            config.pull.clone(),
            report,
        );
        list.push((Worker::Pull, vec![client], Box::new(pull)));
    }
    if config.bus.enabled {
        let client = client(Worker::Bus);
        let bus_claims = claims();
        let bus = Bus::new(BusParts {
            client: client.clone(),
            url: config.bus_url.clone(),
            credentials: parts.credentials.clone(),
            config: config.bus.clone(),
            claims: bus_claims.clone(),
            orders: store.orders.clone(),
            time: handle.time(),
            clock: Arc::clone(clock),
            telemetry: telemetry.clone(),
        });
        let clients = vec![client, bus_claims.client()];
        list.push((Worker::Bus, clients, Box::new(bus)));
    }
    if config.orders_feed.enabled {
        let client = client(Worker::OrdersFeed);
        let feed_claims = claims();
        let feed = OrdersFeed::new(OrdersFeedParts {
            api: api(&client),
            claims: feed_claims.clone(),
            orders: store.orders.clone(),
            config: config.orders_feed.clone(),
            outcomes: handle.outcomes(),
            time: handle.time(),
            telemetry: telemetry.clone(),
        });
        let clients = vec![client, feed_claims.client()];
        list.push((Worker::OrdersFeed, clients, Box::new(feed)));
    }
    if config.bus.enabled || config.orders_feed.enabled {
        let claims = claims();
        let clients = vec![claims.client()];
        let work = ClaimsAgain::new(
            claims,
            store.orders.clone(),
            config.claim_retry,
            handle.time(),
            telemetry,
        );
        list.push((Worker::Claims, clients, Box::new(work)));
    }
    if config.push.enabled {
        let client = client(Worker::Push);
        let push = Push::new(push::PushParts {
            api: api(&client),
            credentials: parts.credentials.clone(),
            orders: store.orders.clone(),
            config: config.push.clone(),
            retry: config.retry,
            clock: Arc::clone(clock),
            outcomes: handle.outcomes(),
            bell: store.events.bell(Topic::Outbox),
            telemetry: telemetry.clone(),
        });
        list.push((Worker::Push, vec![client], Box::new(push)));
    }
    if config.media.enabled {
        let client = client(Worker::Media);
        let media = Media::new(media::MediaParts {
            client: client.clone(),
            media_url: config.media_url.clone(),
            credentials: parts.credentials.clone(),
            config: config.media.clone(),
            catalogue: store.catalogue.clone(),
            blobs: store.blobs.clone(),
            clock: Arc::clone(clock),
            time: handle.time(),
            bell: store.events.bell(Topic::Blobs),
            retry: config.retry,
            outcomes: handle.outcomes(),
            telemetry: telemetry.clone(),
            shutdown: parts.shutdown.clone(),
        });
        list.push((Worker::Media, vec![client], Box::new(media)));
    }
    list
}

/// Adds the workers of the streams that are switched on, and gives what fills their spools.
fn ship(
    parts: &mut WanParts,
    egress: &Egress,
    handle: &WanHandle,
    workers: &mut Vec<Started>,
) -> Pump {
    let shipping = ShippingParts {
        box_id: parts.outgoing.box_id.clone(),
        credentials: parts.credentials.clone(),
        time: handle.time(),
        clock: parts.clock(),
        room: Arc::clone(&parts.store.room),
        outcomes: handle.outcomes(),
        telemetry: parts.telemetry.clone(),
    };
    let mut pump = Pump::new(shipping.clone());
    let config = &parts.config;
    if let Some(stream) = parts.outgoing.logs.take() {
        let client = egress.client(FlowId::Logs);
        let work = shipping::logs(config, stream, client.clone(), shipping.clone(), &mut pump);
        workers.push((Worker::Logs, vec![client], Box::new(work)));
    }
    if let Some(stream) = parts.outgoing.support.take() {
        let client = egress.client(FlowId::Support);
        let work = shipping::support(config, stream, client.clone(), shipping, &mut pump);
        workers.push((Worker::Support, vec![client], Box::new(work)));
    }
    pump
}

/// The worker of new versions, where it is switched on.
fn rollouts(
    parts: &WanParts,
    setup: RolloutSetup,
    egress: &Egress,
    handle: &WanHandle,
) -> Option<Started> {
    if !parts.config.rollouts.enabled {
        return None;
    }
    let client = egress.client(Worker::Rollouts.flow());
    let media_client = egress.client(FlowId::Media);
    let rollouts = Rollouts::new(RolloutParts {
        client: client.clone(),
        media_client: media_client.clone(),
        wan: parts.config.clone(),
        update: setup.update,
        credentials: parts.credentials.clone(),
        box_id: setup.box_id,
        data_dir: parts.data_dir.clone(),
        orders: parts.store.orders.clone(),
        room: Arc::clone(&parts.store.room),
        time: handle.time(),
        telemetry: parts.telemetry.clone(),
        updater: setup.updater,
    });
    Some((
        Worker::Rollouts,
        vec![client, media_client],
        Box::new(rollouts),
    ))
}
