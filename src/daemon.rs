//! `comptoir serve`, wired: read this page first.
//!
//! ```text
//!   settings -> identity -> store -> telemetry told what the store had to repair
//!   sockets ----------------------> lan (tasks) · discovery (task) · dispatch (task)
//!                                   wan (threads)
//!   heartbeat <- progress of the LAN's loops, the store's writer, dispatch
//! ```
//! SIGTERM, SIGINT or the loss of the supervisor give one [`Shutdown`]; every part ends by itself, within a deadline.

mod facts;
mod state;
mod updater;

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use facts::Facts;

use crate::clock::{BootStamp, Clock, SystemClock};
use crate::config::{Config, LanPort, LoadConfigError};
use crate::devices::{Dispatch, DispatchHandle, DispatchParts};
use crate::diagnose::checks::Asked;
use crate::diagnose::report::{Report, Scope};
use crate::digest::hex;
use crate::durable::{ReplaceFileError, replace_file};
use crate::identity::{BoxIdentity, LoadIdentityError, Secret, random_bytes};
use crate::lan::discovery::{Announcement, Discovery};
use crate::lan::{self, LanDeps, LanHandle, StartLanError};
use crate::shutdown::Shutdown;
use crate::store::{OpenStoreError, OrderRules, Recovery, Store};
use crate::supervisor::heartbeat::{Progress, Sender};
use crate::supervisor::reasons::{Reason, Reasons};
use crate::supervisor::sockets::{ClaimError, LanSockets};
use crate::telemetry::outgoing::Outgoing;
use crate::telemetry::{Code, Telemetry};
use crate::version::running;
use crate::wan::credentials::Credentials;
use crate::wan::time::PlatformTime;
use crate::wan::time::floor::Floor;
use crate::wan::{RolloutSetup, StartWanError, Wan, WanParts};

use updater::{BoxUpdater, RestartWish};

/// Parts that have not ended by then are left behind; all that was acknowledged is on disk.
const END_WITHIN: Duration = Duration::from_secs(8);

/// The WAN's threads get this long to put on the disk what is still to be sent.
const WAN_ENDS_WITHIN: Duration = Duration::from_secs(1);

/// From one look at the disk to the next.
const DISK_PERIOD: Duration = Duration::from_secs(1);

/// From one question for damage to the next.
const DAMAGE_PERIOD: Duration = Duration::from_secs(5);

/// How long a restart is shown.
const RESTART_SHOWS: Duration = Duration::from_secs(15 * 60);

/// Threads of the LAN side at most: a box has four cores at best, and each thread costs memory.
const MAX_LAN_THREADS: usize = 4;

/// The server could not start, or ended for a reason.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener.
    #[error("the server can't have its ports")]
    Sockets(#[from] ClaimError),
    /// The key.
    #[error("the server does not know who it is")]
    Identity(#[from] LoadIdentityError),
    /// The claim code.
    #[error("cannot keep the claim code")]
    ClaimCode(#[from] ReplaceFileError),
    /// The store.
    #[error("the server has no store")]
    Store(#[from] OpenStoreError),
    /// A database was found damaged while in use; the next start replaces it.
    #[error("the server starts anew to replace what is damaged: {0}")]
    Damaged(String),
    /// The LAN side.
    #[error("the server can't serve the shop")]
    Lan(#[from] StartLanError),
    /// The WAN side.
    #[error("the server can't speak to the platform")]
    Wan(#[from] StartWanError),
    /// The operating system.
    #[error("cannot {attempt}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Why the server ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Asked,
    /// A new version is installed: the box is to restart into its trial.
    RestartDue,
}

/// Runs the server until it is told to end. `refused` says why the shop's settings were left out, if they were.
///
/// # Errors
/// [`ServeError`]: before anything is served, or when only a new start can repair the store.
pub fn serve(
    config: Config,
    refused: Option<&LoadConfigError>,
    outgoing: Outgoing,
) -> Result<Ended, ServeError> {
    let mut sockets = LanSockets::claim(&config.lan, &config.discovery)?;
    let data_dir = &config.store.data_dir;
    let time = PlatformTime::above(Floor::load(data_dir), Arc::new(SystemClock::default()));
    let clock: Arc<dyn Clock> = Arc::new(time.clone());
    let telemetry = Telemetry::default();
    if let Some(refused) = refused {
        error!(event = "config.site_refused", problems = %refused);
        let now_ms = clock.wall_ms();
        telemetry
            .conditions
            .raise(Code::SettingsRefused, refused.to_string(), now_ms);
    }
    let identity = Arc::new(BoxIdentity::load_or_create(&data_dir.join("identity.key"))?);
    let rules = OrderRules {
        default_role: config.devices.order_role.clone(),
        command_ttl: config.devices.command_ttl,
    };
    let store = Store::open_with(&config.store, rules, Arc::clone(&clock))?;
    tell_recoveries(store.recovered(), &telemetry, clock.wall_ms());

    let runtime = runtime()?;
    let (shutdown, restart) = (Shutdown::default(), RestartWish::default());
    runtime.spawn(tell_restart(
        Reasons::load(data_dir).list().last().cloned(),
        telemetry.clone(),
        Arc::clone(&clock),
        shutdown.clone(),
    ));
    if outgoing.support.is_some() {
        let facts = Facts::new(data_dir, asked_of(&config, refused));
        runtime.spawn(facts.tell(shutdown.clone()));
    }
    if let Some(period) = config.wan.push.telemetry_period {
        let state = state::State::new(store.clone(), telemetry.clone());
        runtime.spawn(state.tell(period, shutdown.clone()));
    }
    end_on_signals(&runtime, &shutdown)?;
    runtime.spawn(end_on_damage(store.clone(), shutdown.clone()));
    runtime.spawn(tell_disk(
        store.clone(),
        telemetry.clone(),
        Arc::clone(&clock),
        shutdown.clone(),
    ));
    let (dispatch, dispatcher) = Dispatch::new(DispatchParts {
        store: store.clone(),
        identity: Arc::clone(&identity),
        config: config.devices.clone(),
        clock: Arc::clone(&clock),
        telemetry: telemetry.clone(),
    });
    let dispatching = runtime.spawn(dispatch.run(shutdown.clone()));
    let discovering = discovery(&runtime, &mut sockets, &config, &identity, &dispatcher)
        .map(|discovery| runtime.spawn(discovery.run(shutdown.clone())));
    let claim_code = claim_code(&config, data_dir)?;
    let lan = lan::start(
        runtime.handle(),
        listeners(&mut sockets),
        LanDeps {
            lan: config.lan.clone(),
            site: config.site.clone(),
            devices: config.devices.clone(),
            store: store.clone(),
            identity: Arc::clone(&identity),
            claim_code: claim_code.clone(),
            clock: Arc::clone(&clock),
            time: time.clone(),
            telemetry: telemetry.clone(),
            checks: checks_of(&config, refused),
        },
        &shutdown,
    )?;
    let wan = Wan::start(WanParts {
        config: config.wan.clone(),
        credentials: Credentials::from_settings(&config.site.site_id, &config.wan),
        rollouts: Some(RolloutSetup {
            box_id: identity.id().to_owned(),
            update: config.update.clone(),
            updater: Box::new(BoxUpdater::new(
                data_dir,
                config.lan.addr(LanPort::Front),
                restart.clone(),
                shutdown.clone(),
            )),
        }),
        store: store.clone(),
        telemetry,
        time,
        identity: Arc::clone(&identity),
        claim_code,
        data_dir: data_dir.clone(),
        shutdown: shutdown.clone(),
        outgoing: Outgoing {
            box_id: identity.id().to_owned(),
            ..outgoing
        },
    })?;
    info!(
        event = "daemon.serves",
        box_id = identity.id(),
        version = running()
    );

    let progress = progress(&lan, &store, &dispatcher);
    let beating = sockets.take_heartbeat().map(|socket| {
        let shutdown = shutdown.clone();
        thread::spawn(move || Sender::new(socket).run(&progress, &shutdown))
    });

    runtime.block_on(shutdown.triggered());
    info!(event = "daemon.ending");
    let parts_end = async {
        lan.ended().await;
        let _ = dispatching.await;
        if let Some(discovering) = discovering {
            let _ = discovering.await;
        }
    };
    // The timer is made inside: outside the runtime there is none.
    let ended = runtime.block_on(async { tokio::time::timeout(END_WITHIN, parts_end).await });
    if ended.is_err() {
        warn!(event = "daemon.end_forced", after_s = END_WITHIN.as_secs());
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    // The WAN's threads may wait for the platform; what they hold is redelivered. They end with the process.
    let _ = wan.join(WAN_ENDS_WITHIN);
    drop(beating);
    info!(event = "daemon.ended");
    if store.wants_restart() {
        return Err(ServeError::Damaged(store.damaged().join(" ")));
    }
    Ok(if restart.is_made() {
        Ended::RestartDue
    } else {
        Ended::Asked
    })
}

/// Ends the server when a database was found damaged: the supervisor starts it again, and the start repairs.
async fn end_on_damage(store: Store, shutdown: Shutdown) {
    let ended = shutdown.clone();
    let watch = async {
        while !store.wants_restart() {
            tokio::time::sleep(DAMAGE_PERIOD).await;
        }
        warn!(
            event = "daemon.repair_due",
            damaged = store.damaged().join(" ")
        );
        shutdown.trigger();
    };
    tokio::select! {
        () = watch => {}
        () = ended.triggered() => {}
    }
}

/// Keeps the conditions of the disk as the store finds it.
async fn tell_disk(store: Store, telemetry: Telemetry, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    while !shutdown.is_triggered() {
        store.disk.tell(&telemetry.conditions, clock.wall_ms());
        tokio::select! {
            () = shutdown.triggered() => {}
            () = tokio::time::sleep(DISK_PERIOD) => {}
        }
    }
}

fn runtime() -> Result<Runtime, ServeError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_LAN_THREADS))
        .thread_name("lan")
        .enable_all()
        .build()
        .map_err(|source| ServeError::System {
            attempt: "start the LAN's threads",
            source,
        })
}

fn end_on_signals(runtime: &Runtime, shutdown: &Shutdown) -> Result<(), ServeError> {
    let _on_runtime = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|source| ServeError::System {
            attempt: "listen for signals",
            source,
        })?;
        let shutdown = shutdown.clone();
        runtime.spawn(async move {
            signals.recv().await;
            shutdown.trigger();
        });
    }
    Ok(())
}

fn listeners(sockets: &mut LanSockets) -> Vec<(LanPort, TcpListener)> {
    LanPort::ALL
        .into_iter()
        .flat_map(|port| {
            sockets
                .take_tcp(port)
                .into_iter()
                .map(move |listener| (port, listener))
        })
        .collect()
}

/// Discovery is optional: without it devices still find the box by name, code or typed address.
fn discovery(
    runtime: &Runtime,
    sockets: &mut LanSockets,
    config: &Config,
    identity: &Arc<BoxIdentity>,
    dispatcher: &DispatchHandle,
) -> Option<Discovery> {
    let socket = sockets.take_discovery()?;
    let announcement = Announcement {
        ports: config
            .lan
            .ports_on()
            .map(|port| config.lan.addr(port).port())
            .collect(),
        front_port: config.lan.addr(LanPort::Front).port(),
        command_port: config.devices.command_port,
    };
    let dispatcher = dispatcher.clone();
    let _on_runtime = runtime.enter();
    Discovery::new(
        socket,
        Arc::clone(identity),
        announcement,
        move |sighting| {
            dispatcher.device_seen(sighting);
        },
    )
    .inspect_err(|error| error!(event = "daemon.discovery_failed", %error))
    .ok()
}

/// The claim code of the settings, or the one made at first start and kept with mode 0600.
fn claim_code(config: &Config, data_dir: &Path) -> Result<Secret, ServeError> {
    if !config.site.claim_code.is_empty() {
        return Ok(config.site.claim_code.clone());
    }
    let path = data_dir.join("state/claim_code");
    if let Ok(code) = std::fs::read_to_string(&path)
        && !code.is_empty()
    {
        return Ok(Secret::new(code));
    }
    let code = hex(&random_bytes::<5>());
    replace_file(&path, code.as_bytes(), 0o600)?;
    info!(event = "daemon.claim_code_made", path = %path.display());
    Ok(Secret::new(code))
}

fn asked_of(config: &Config, refused: Option<&LoadConfigError>) -> Asked {
    Asked {
        config: config.clone(),
        refused: refused.map(ToString::to_string),
    }
}

fn checks_of(config: &Config, refused: Option<&LoadConfigError>) -> lan::Checks {
    let asked = asked_of(config, refused);
    Arc::new(move || {
        let report = Report::make(&asked, Scope::Everything);
        serde_json::to_string(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    })
}

fn tell_recoveries(recoveries: &[Recovery], telemetry: &Telemetry, now_ms: i64) {
    for recovery in recoveries {
        // After a rollback nothing is lost as long as all could be brought over; the catalogue comes again.
        if recovery.was_newer && recovery.incomplete.is_empty() && recovery.database != "catalogue"
        {
            continue;
        }
        // The catalogue comes again from the platform; what orders and devices lost does not.
        let code = match recovery.database {
            "catalogue" => Code::StoreRebuilt,
            _ => Code::OrdersSalvaged,
        };
        let detail = format!(
            "{}: {}; {} rows saved; kept as {}",
            recovery.database,
            recovery.reason,
            recovery.salvaged_rows,
            recovery.kept_as.display()
        );
        telemetry.conditions.raise(code, detail, now_ms);
    }
}

/// Shows for a while that this server stands in for one that failed.
async fn tell_restart(
    last: Option<Reason>,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) {
    let Some(restart) = last else { return };
    let now_ms = clock.wall_ms();
    let Some(age) = BootStamp::now()
        .ok()
        .and_then(|now| restart.age(&now, now_ms))
    else {
        return;
    };
    let left = RESTART_SHOWS.saturating_sub(age);
    if left.is_zero() {
        return;
    }
    let at_ms = now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(0));
    telemetry
        .conditions
        .raise(Code::ServerRestarted, restart.cause.to_string(), at_ms);
    tokio::select! {
        () = shutdown.triggered() => {}
        () = tokio::time::sleep(left) => {
            telemetry.conditions.clear(Code::ServerRestarted);
        }
    }
}

/// What proves work to the supervisor: each part moves in its own loop when it is asked.
fn progress(lan: &LanHandle, store: &Store, dispatcher: &DispatchHandle) -> Progress {
    let progress = Progress::default();
    for (port, probe) in lan.probes() {
        progress.watch(port.name(), move |part| probe.ask(move || part.moved()));
    }
    let orders = store.orders.clone();
    let answered = AtomicU64::new(orders.progress());
    progress.watch("store", move |part| {
        // The writer itself counts what it has answered, so a queue that is full but moves is no hang.
        let now = orders.progress();
        if answered.swap(now, Ordering::Relaxed) != now {
            part.moved();
        }
        // So that there is something to answer; refused only when there is a queue full of it.
        drop(orders.tick());
    });
    let dispatcher = dispatcher.clone();
    progress.watch("dispatch", move |part| {
        dispatcher.probe(move || part.moved());
    });
    progress
}
