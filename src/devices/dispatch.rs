//! Dispatch: sees to it that every device that has something to do has a courier.
//!
//! ```text
//!   store: a command is new or released --.
//!   discovery: a device is at an address --+--> look --> one courier per device with work --> session --> device
//!   every 5 s: expiry, beats, conditions --'               (at most SESSIONS_LIMIT)
//! ```
//! The truth is in the store and nothing here is: a look starts what should run and is not running, so a lost hint costs at
//! most one tick. What a courier does is told in [`super::courier`].

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::courier::{Bells, Courier};
use super::handshake::CommandKey;
use super::links::{LinkState, Links};
use super::presence::{Presence, tell_turn};
use crate::clock::Clock;
use crate::config::DevicesConfig;
use crate::identity::BoxIdentity;
use crate::lan::discovery::Sighting;
use crate::shutdown::Shutdown;
use crate::store::orders::WorkWaiting;
use crate::store::{Store, StoreEvent};
use crate::telemetry::{Code, Telemetry};

/// Sessions at a time. Further devices wait until a session has been idle for [`super::courier::IDLE_CLOSE`].
pub const SESSIONS_LIMIT: usize = 512;

/// Hints that may wait; one more is dropped, the next tick sees what it was about.
const INBOX_LIMIT: usize = 64;

/// Between two looks when nobody gives a hint.
const TICK: Duration = Duration::from_secs(5);

/// Slices of expiry in one tick, each with an fsync of its own: a great many late commands must not keep the loop from
/// proving that it turns. The rest expires at the next ticks.
const EXPIRY_SLICES: usize = 16;

/// An order that was given up is a condition for so long: it is no longer open and shows nowhere else.
const EXPIRED_SHOWS: Duration = Duration::from_secs(3600);

/// A device that cannot be reached for so long is a condition.
const UNREACHABLE_SHOWS_AFTER: Duration = Duration::from_secs(30);

/// A device that cannot be reached for so long gives what it holds to another one of its role that can be. The command is
/// marked as a possible duplicate; where there is no other device, it waits for this one.
pub const RELEASE_AFTER: Duration = Duration::from_secs(300);

/// What dispatch is made of.
#[derive(Clone)]
pub struct DispatchParts {
    /// Where commands and devices are.
    pub store: Store,
    /// Whose box this is.
    pub identity: Arc<BoxIdentity>,
    /// Port and patience.
    pub config: DevicesConfig,
    /// Time for devices and expiry.
    pub clock: Arc<dyn Clock>,
    /// Where to tell.
    pub telemetry: Telemetry,
}

/// A handle on dispatch. All calls return at once.
#[derive(Clone)]
pub struct DispatchHandle {
    inbox: mpsc::Sender<Message>,
    woken: Arc<Notify>,
    links: Links,
}

enum Message {
    Seen(Sighting),
    Probe(Box<dyn FnOnce() + Send>),
}

impl DispatchHandle {
    /// Looks now whether there is something to do. The store's events do this by themselves.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Discovery heard of a device. It is believed once its proof was checked; dropped when too many wait.
    pub fn device_seen(&self, sighting: Sighting) {
        let _ = self.inbox.try_send(Message::Seen(sighting));
    }

    /// Runs `answer` in the loop of dispatch: proof that it turns. Dropped when too many wait.
    pub fn probe(&self, answer: impl FnOnce() + Send + 'static) {
        let _ = self.inbox.try_send(Message::Probe(Box::new(answer)));
    }

    /// How the box stands with a device; `None` when it has nothing to tell it.
    #[must_use]
    pub fn link(&self, device_id: &str) -> Option<LinkState> {
        self.links.of(device_id)
    }
}

/// The long-lived part.
pub struct Dispatch {
    parts: Arc<DispatchParts>,
    inbox: mpsc::Receiver<Message>,
    woken: Arc<Notify>,
    links: Links,
    couriers: JoinSet<String>,
    bells: HashMap<String, Arc<Bells>>,
    crowded: bool,
    release_after: Duration,
    /// When a command was last given up.
    expired_at: Option<Instant>,
    /// Who the platform was told is lost.
    presence: Presence,
    lost_after: Duration,
}

impl Dispatch {
    /// Dispatch and a handle on it.
    #[must_use]
    pub fn new(parts: DispatchParts) -> (Self, DispatchHandle) {
        let (sender, inbox) = mpsc::channel(INBOX_LIMIT);
        let woken = Arc::new(Notify::new());
        let links = Links::new(&parts.telemetry);
        let handle = DispatchHandle {
            inbox: sender,
            woken: Arc::clone(&woken),
            links: links.clone(),
        };
        let dispatch = Self {
            parts: Arc::new(parts),
            inbox,
            woken,
            links,
            couriers: JoinSet::new(),
            bells: HashMap::new(),
            crowded: false,
            release_after: RELEASE_AFTER,
            expired_at: None,
            presence: Presence::default(),
            lost_after: UNREACHABLE_SHOWS_AFTER,
        };
        (dispatch, handle)
    }

    /// Gives what an unreachable device holds to another one after `wait`, in place of [`RELEASE_AFTER`].
    #[must_use]
    pub fn releasing_after(self, wait: Duration) -> Self {
        Self {
            release_after: wait,
            ..self
        }
    }

    /// Says that a device cannot be reached after `wait`, in place of half a minute.
    #[must_use]
    pub fn telling_after(self, wait: Duration) -> Self {
        Self {
            lost_after: wait,
            ..self
        }
    }

    /// Runs until `shutdown`; then the sessions are closed.
    pub async fn run(mut self, shutdown: Shutdown) {
        info!(
            event = "devices.dispatch_started",
            port = self.parts.config.command_port
        );
        let mut events = self.parts.store.events.subscribe();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.triggered() => break,
                _ = tick.tick() => self.handle_tick(&shutdown).await,
                () = self.woken.notified() => { self.look(&shutdown).await; }
                event = events.recv() => {
                    let mut wanted = self.concerns(event);
                    // A burst of orders is one look.
                    while let Ok(event) = events.try_recv() {
                        wanted |= self.concerns(Ok(event));
                    }
                    if wanted {
                        self.look(&shutdown).await;
                    }
                }
                Some(message) = self.inbox.recv() => match message {
                    Message::Seen(sighting) => self.handle_seen(&sighting),
                    Message::Probe(answer) => answer(),
                },
                Some(ended) = self.couriers.join_next() => {
                    self.handle_ended(ended);
                    self.look(&shutdown).await;
                }
            }
        }
        // Each courier has heard the same signal and says farewell within its write deadline.
        while self.couriers.join_next().await.is_some() {}
        info!(event = "devices.dispatch_stopped");
    }

    /// Whether an event of the store asks for a look.
    fn concerns(&self, event: Result<StoreEvent, RecvError>) -> bool {
        match event {
            Ok(StoreEvent::Command) | Err(RecvError::Lagged(_)) => true,
            Ok(StoreEvent::Device { device_id }) => {
                self.ring_reachable(&device_id);
                true
            }
            // The channel closes only with the store, which this holds.
            Ok(_) | Err(RecvError::Closed) => false,
        }
    }

    async fn handle_tick(&mut self, shutdown: &Shutdown) {
        let at = self.parts.clock.reckoning();
        for _ in 0..EXPIRY_SLICES {
            match self.parts.store.orders.expire_commands(at).await {
                Ok(0) => break,
                Ok(count) => {
                    warn!(event = "devices.commands_expired", count);
                    self.expired_at = Some(Instant::now());
                }
                Err(error) => {
                    warn!(event = "devices.expiry_failed", %error);
                    break;
                }
            }
        }
        self.hear_beats();
        let work = self.look(shutdown).await;
        self.call_stand_ins(&work, shutdown);
    }

    /// Starts and rings who has something to do, and says who that is.
    async fn look(&mut self, shutdown: &Shutdown) -> WorkWaiting {
        let orders = self.parts.store.orders.clone();
        let work = match tokio::task::spawn_blocking(move || orders.work_waiting()).await {
            Ok(Ok(work)) => work,
            Ok(Err(error)) => {
                warn!(event = "devices.look_failed", %error);
                return WorkWaiting::default();
            }
            Err(_) => return WorkWaiting::default(),
        };
        let devices = self.parts.store.devices.list();
        let mut crowded = false;
        for device in &devices {
            let wanted =
                work.roles.contains(&device.role) || work.devices.contains(&device.device_id);
            if !wanted || device.address.is_none() {
                continue;
            }
            if let Some(bells) = self.bells.get(&device.device_id) {
                bells.work.notify_one();
            } else if self.couriers.len() < SESSIONS_LIMIT {
                self.start(&device.device_id, shutdown);
            } else {
                crowded = true;
            }
        }
        if crowded && !self.crowded {
            warn!(event = "devices.sessions_exhausted", limit = SESSIONS_LIMIT);
        }
        self.crowded = crowded;
        self.release(&work).await;
        let gone = self.links.unreachable_for(self.lost_after);
        self.tell(&work, &gone);
        self.tell_platform(&gone);
        work
    }

    /// Meets those who could take over what a lost device holds. In a quiet shop they have nothing to do and so no session,
    /// and nobody would be known to be within reach. Once a tick at most, for the attempt may be in vain.
    fn call_stand_ins(&mut self, work: &WorkWaiting, shutdown: &Shutdown) {
        let devices = self.parts.store.devices.list();
        let roles: BTreeSet<_> = devices
            .iter()
            .filter(|device| {
                work.devices.contains(&device.device_id)
                    && self
                        .links
                        .is_unreachable_for(&device.device_id, self.release_after)
            })
            .map(|device| &device.role)
            .collect();
        for device in &devices {
            if roles.contains(&device.role)
                && device.address.is_some()
                && !self.bells.contains_key(&device.device_id)
                && self.couriers.len() < SESSIONS_LIMIT
            {
                self.start(&device.device_id, shutdown);
            }
        }
    }

    fn start(&mut self, device_id: &str, shutdown: &Shutdown) {
        let bells = Arc::new(Bells::default());
        let courier = Courier::new(
            device_id.to_owned(),
            Arc::clone(&self.parts),
            self.links.clone(),
            Arc::clone(&bells),
        );
        self.bells.insert(device_id.to_owned(), bells);
        self.couriers.spawn(courier.run(shutdown.clone()));
    }

    fn handle_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(device_id) => {
                self.bells.remove(&device_id);
                self.links.forget(&device_id);
            }
            Err(error) => {
                // A courier does not say which one it was when it panics; the bells of finished ones are swept.
                warn!(event = "devices.courier_failed", %error);
                self.bells.retain(|_, bells| Arc::strong_count(bells) > 1);
            }
        }
    }

    fn handle_seen(&mut self, sighting: &Sighting) {
        let Some(device) = self.parts.store.devices.by_id(&sighting.device_id) else {
            return;
        };
        let key = CommandKey::new(device.command_key);
        if !key.verifies_here(&sighting.proven_part, &sighting.mac) {
            warn!(event = "devices.sighting_refused", device_id = %device.device_id, address = %sighting.address);
            return;
        }
        debug!(event = "devices.device_sighted", device_id = %device.device_id, address = %sighting.address);
        let now_ms = self.parts.clock.wall_ms();
        self.parts
            .store
            .devices
            .seen(&device.device_id, Some(sighting.address), now_ms);
        self.ring_reachable(&device.device_id);
    }

    /// Who beats can be reached, whatever the back-off says.
    fn hear_beats(&self) {
        for (device_id, failed_at_ms) in self.links.unreachable() {
            let beaten = self
                .parts
                .store
                .devices
                .by_id(&device_id)
                .and_then(|device| device.seen_at_ms)
                .is_some_and(|seen_at_ms| seen_at_ms > failed_at_ms);
            if beaten {
                self.ring_reachable(&device_id);
            }
        }
    }

    fn ring_reachable(&self, device_id: &str) {
        if let Some(bells) = self.bells.get(device_id) {
            bells.reachable.notify_one();
        }
    }

    /// Frees what is held by devices that are no more, or not to be reached while others of their role are.
    async fn release(&self, work: &WorkWaiting) {
        let devices = &self.parts.store.devices;
        for device_id in &work.devices {
            let free = match devices.by_id(device_id) {
                None => true,
                Some(device) => {
                    self.links.is_unreachable_for(device_id, self.release_after)
                        && devices.list().iter().any(|other| {
                            other.role == device.role && self.links.is_connected(&other.device_id)
                        })
                }
            };
            if !free {
                continue;
            }
            match self.parts.store.orders.release_commands(device_id).await {
                Ok(0) => {}
                Ok(count) => warn!(event = "devices.commands_released", device_id, count),
                Err(error) => warn!(event = "devices.release_failed", device_id, %error),
            }
        }
    }

    /// Raises and clears the conditions of this room.
    fn tell(&self, work: &WorkWaiting, gone: &[String]) {
        let now_ms = self.parts.clock.wall_ms();
        let conditions = &self.parts.telemetry.conditions;
        let roles: BTreeSet<_> = self
            .parts
            .store
            .devices
            .list()
            .iter()
            .map(|device| device.role.clone())
            .collect();
        let vacant: Vec<_> = work
            .roles
            .iter()
            .filter(|role| !roles.contains(*role))
            .map(String::as_str)
            .collect();
        if vacant.is_empty() {
            conditions.clear(Code::NoDeviceForRole);
        } else {
            conditions.raise(Code::NoDeviceForRole, vacant.join(", "), now_ms);
        }
        match self.expired_at.map(|at| at.elapsed() < EXPIRED_SHOWS) {
            Some(true) => {
                conditions.raise(Code::OrdersExpired, "", now_ms);
            }
            Some(false) => {
                conditions.clear(Code::OrdersExpired);
            }
            None => {}
        }
        if gone.is_empty() {
            conditions.clear(Code::DeviceUnreachable);
        } else {
            conditions.raise(Code::DeviceUnreachable, gone.join(", "), now_ms);
        }
    }

    /// Tells the platform who is lost and who is back. Not waited for: what finds no room on the disk is said there.
    fn tell_platform(&mut self, gone: &[String]) {
        let (links, devices) = (&self.links, &self.parts.store.devices);
        let now_ms = self.parts.clock.wall_ms();
        let turns = self.presence.turns(gone, now_ms, |device_id, since_ms| {
            let device = devices.by_id(device_id)?;
            let beaten = device.seen_at_ms.is_some_and(|seen_ms| seen_ms > since_ms);
            Some(beaten || links.is_of_use(device_id))
        });
        for (device_id, turn) in turns {
            info!(
                event = "devices.presence_changed",
                device_id,
                turn = turn.kind()
            );
            if let Some(device) = devices.by_id(&device_id) {
                let orders = &self.parts.store.orders;
                drop(tell_turn(orders, turn, &device_id, &device.role));
            }
        }
    }
}

/// Where a device listens; `None` when the box was never told.
pub(super) fn command_address(
    device: &crate::store::devices::Device,
    config: &DevicesConfig,
) -> Option<SocketAddr> {
    let port = device.command_port.unwrap_or(config.command_port);
    Some(SocketAddr::new(device.address?, port))
}

/// When the wait that begins now ends.
pub(super) fn in_time(wait: Duration) -> Instant {
    Instant::now() + wait
}
