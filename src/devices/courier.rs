//! A courier: carries the commands of one device to it, one after the other, until there is nothing left to carry.
//!
//! ```text
//!              .---------------- wait: 1 s, doubling to 60 s; cut short when the device is heard of -----------.
//!              v                                                                                               |
//!   start --> connect, shake hands --(failed)----------------------------------------------------------------->+
//!              |                                                                                               |
//!              v                                        .-- done_timeout passed: ask again, same id --.        |
//!   .-----> next command --> send --> wait for Accepted --> wait for Done <---------------------------'        |
//!   |          |                            |                   |                                              |
//!   |          | none for IDLE_CLOSE        '--(deadline, cut)--+--(cut)---------------------------------------'
//!   |          v                                                v
//!   |         end: farewell                            recorded in the store
//!   '-----------------------------------------------------------'
//! ```
//! *Accepted* and *done* are in the store, fsynced, before the courier goes on; a repeat of either changes nothing there. A
//! command that goes out again has the same id, so a device that remembers it does not execute it twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::dispatch::{DispatchParts, command_address, in_time};
use super::handshake::CommandKey;
use super::links::Links;
use super::session::{Introduction, Parties, Said, Session, SessionError, connect};
use super::wire::{self, BODY_LIMIT, Message};
use crate::backoff::Backoff;
use crate::digest::hex;
use crate::identity::{dice, random_bytes};
use crate::shutdown::Shutdown;
use crate::store::WriteError;
use crate::store::devices::Device;
use crate::store::orders::{Command, CommandChanged, MAX_ORDER_BYTES, Outcome};

// An order that is taken fits a command: there is nothing to find out at the device's door.
const _: () = assert!(MAX_ORDER_BYTES <= BODY_LIMIT);

/// A session without work is closed after this, so that devices beyond the limit get their turn.
pub const IDLE_CLOSE: Duration = Duration::from_secs(60);

/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The box's time may move against what a device was told of it by so much; then the device is greeted anew.
const TOLD_TIME_HOLDS_MS: u64 = 60_000;

/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What dispatch rings for a courier. A stroke between two waits is not lost.
#[derive(Debug, Default)]
pub(super) struct Bells {
    /// There may be a command.
    pub(super) work: Notify,
    /// The device was heard of, perhaps at another address.
    pub(super) reachable: Notify,
}

/// The courier of one device.
pub(super) struct Courier {
    device_id: String,
    parts: Arc<DispatchParts>,
    links: Links,
    bells: Arc<Bells>,
    backoff: Backoff,
    met: Option<Introduction>,
    /// What the device was told of the time, less monotonic time.
    told_base_ms: i64,
    /// Since the last wait something was recorded: the next failure is the first of a new row.
    progressed: bool,
}

/// Why a trip did not end well.
#[derive(Debug, thiserror::Error)]
enum TripError {
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The device said something that could not be recorded. It will say it again.
    #[error("what the device said could not be recorded")]
    Store(#[from] WriteError),
}

impl TripError {
    fn name(&self) -> &'static str {
        match self {
            Self::Session(error) => error.name(),
            Self::Store(_) => "store",
        }
    }
}

/// Why a courier stops.
enum End {
    /// Nothing to carry.
    Idle,
    /// The device is no more, or nobody knows where.
    Gone,
}

impl Courier {
    pub(super) fn new(
        device_id: String,
        parts: Arc<DispatchParts>,
        links: Links,
        bells: Arc<Bells>,
    ) -> Self {
        Self {
            device_id,
            parts,
            links,
            bells,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT).expect("1 s is less than 60 s"),
            met: None,
            told_base_ms: 0,
            progressed: false,
        }
    }

    /// Carries until there is nothing to carry or `shutdown`; gives the device's id back.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> String {
        let mut failures = 0_u32;
        loop {
            let trip = tokio::select! {
                trip = self.trip(&shutdown) => trip,
                // A trip that connects or writes is given up where it stands: the store knows how far it got.
                () = after_grace(&shutdown) => return self.device_id,
            };
            let error = match trip {
                Ok(End::Idle | End::Gone) => return self.device_id,
                Err(_) if shutdown.is_triggered() => return self.device_id,
                Err(error) => error,
            };
            failures = if std::mem::take(&mut self.progressed) {
                1
            } else {
                failures.saturating_add(1)
            };
            let wait = self.backoff.wait(failures, dice());
            self.report(&error, failures, wait);
            tokio::select! {
                () = shutdown.triggered() => return self.device_id,
                () = sleep(wait) => {}
                () = self.bells.reachable.notified() => {}
            }
            if !self.has_work().await {
                return self.device_id;
            }
        }
    }

    fn report(&self, error: &TripError, failures: u32, wait: Duration) {
        let now_ms = self.parts.clock.wall_ms();
        self.links.failed(&self.device_id, error.name(), now_ms);
        let cause = std::error::Error::source(error).map(ToString::to_string);
        // The first failure of a row is a change of state, the others are the same news again.
        if failures == 1 {
            warn!(event = "devices.session_failed", device_id = %self.device_id, reason = error.name(), %error,
                cause, retry_ms = wait.as_millis());
        } else {
            debug!(event = "devices.session_failed", device_id = %self.device_id, reason = error.name(), %error,
                cause, failures, retry_ms = wait.as_millis());
        }
    }

    /// One session, from connecting to its end.
    async fn trip(&mut self, shutdown: &Shutdown) -> Result<End, TripError> {
        let Some(device) = self.parts.store.devices.by_id(&self.device_id) else {
            return Ok(End::Gone);
        };
        let Some(address) = command_address(&device, &self.parts.config) else {
            return Ok(End::Gone);
        };
        let stream = connect(address).await?;
        let parties = Parties {
            box_id: self.parts.identity.id(),
            device_id: &self.device_id,
            key: &CommandKey::new(device.command_key),
        };
        self.told_base_ms = self.base_ms();
        let now_ms = to_wire_ms(self.parts.clock.wall_ms());
        let (mut session, introduction) =
            Session::shake_hands(stream, &parties, random_bytes(), now_ms).await?;
        self.welcome(&device, introduction);
        let carried = self.carry(&mut session, &device, shutdown).await;
        self.parts.store.orders.device_left(&self.device_id);
        match carried {
            Ok(end) => {
                let reason = if shutdown.is_triggered() {
                    "stopping"
                } else {
                    "idle"
                };
                session.close(reason).await;
                Ok(end)
            }
            Err(error) => {
                if let TripError::Session(SessionError::Wire(_) | SessionError::OutOfPlace { .. }) =
                    &error
                {
                    session.close("protocol").await;
                }
                Err(error)
            }
        }
    }

    fn welcome(&mut self, device: &Device, introduction: Introduction) {
        self.links.connected(&self.device_id);
        let now_ms = self.parts.clock.wall_ms();
        self.parts.store.devices.seen(&self.device_id, None, now_ms);
        let restarted = self
            .met
            .is_some_and(|before| before.boot_id != introduction.boot_id);
        let forgot = self
            .met
            .is_some_and(|before| before.last_seq > introduction.last_seq);
        info!(event = "devices.session_opened", device_id = %self.device_id, role = %device.role,
            last_seq = introduction.last_seq, restarted);
        if forgot {
            warn!(event = "devices.memory_lost", device_id = %self.device_id, last_seq = introduction.last_seq);
        }
        self.met = Some(introduction);
    }

    /// Carries commands until none came for [`IDLE_CLOSE`].
    async fn carry(
        &mut self,
        session: &mut Session<TcpStream>,
        device: &Device,
        shutdown: &Shutdown,
    ) -> Result<End, TripError> {
        let mut idle_until = in_time(IDLE_CLOSE);
        loop {
            if shutdown.is_triggered() {
                return Ok(End::Idle);
            }
            if self.parts.store.devices.by_id(&self.device_id).is_none() {
                return Ok(End::Gone);
            }
            // A device told of a time that was years ahead would take every command for late. The next greeting says
            // the time anew; who has work is met again at once.
            if self.base_ms().abs_diff(self.told_base_ms) > TOLD_TIME_HOLDS_MS {
                info!(event = "devices.time_moved", device_id = %self.device_id);
                return Ok(End::Idle);
            }
            let next = self
                .parts
                .store
                .orders
                .next_command(&self.device_id, &device.role)
                .await?;
            if let Some(command) = next {
                tokio::select! {
                    delivered = self.deliver(session, &command) => delivered?,
                    () = shutdown.triggered() => return Ok(End::Idle),
                }
                idle_until = in_time(IDLE_CLOSE);
                continue;
            }
            self.links.works(&self.device_id);
            tokio::select! {
                () = shutdown.triggered() => return Ok(End::Idle),
                () = self.bells.work.notified() => {}
                said = session.receive(idle_until) => {
                    // With nothing in flight an answer is one that comes late: the store knows whether it is news.
                    match said? {
                        Some(said) => self.record_late(said).await?,
                        None => return Ok(End::Idle),
                    }
                }
            }
        }
    }

    /// Carries one command to its end.
    async fn deliver(
        &mut self,
        session: &mut Session<TcpStream>,
        command: &Command,
    ) -> Result<(), TripError> {
        let mut accepted = command.accepted;
        let mut again = command.possible_duplicate;
        loop {
            if self.send(session, command, again).await? != CommandChanged::Changed {
                // It was given up meanwhile: the next one has waited long enough.
                return Ok(());
            }
            again = true;
            // A device that accepted before says so again, or is done: either way it has to say something soon.
            let mut until = in_time(self.parts.config.accept_timeout);
            let mut answered = false;
            loop {
                match session.receive(until).await? {
                    Some(Said::Accepted { id }) if id == command.id => {
                        if !accepted {
                            self.parts.store.orders.command_accepted(id).await?;
                            self.note_progress();
                            accepted = true;
                            debug!(event = "devices.command_accepted", device_id = %self.device_id, command_id = hex(&id));
                        }
                        answered = true;
                        until = in_time(self.parts.config.done_timeout);
                    }
                    Some(Said::Done {
                        id,
                        outcome,
                        detail,
                    }) if id == command.id => {
                        return self.record_done(id, from_wire(outcome), &detail).await;
                    }
                    Some(other) => self.record_late(other).await?,
                    // It is there, for it answers pings, and at work: ask how it goes.
                    None if answered => break,
                    None => {
                        return Err(SessionError::Deadline {
                            waited_for: "accepting a command",
                            deadline: self.parts.config.accept_timeout,
                        }
                        .into());
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        session: &mut Session<TcpStream>,
        command: &Command,
        again: bool,
    ) -> Result<CommandChanged, TripError> {
        // Claimed is on disk already, and whoever holds a claimed command again says "possible duplicate": the
        // command need not wait for this write.
        let marked = self.parts.store.orders.command_sent(command.id);
        self.links.counters.sent.add_one();
        session
            .send(&Message::Command {
                id: command.id,
                seq: command.seq,
                issued_at_ms: to_wire_ms(command.issued_at_ms),
                expires_at_ms: to_wire_ms(command.expires_at_ms),
                possible_duplicate: again,
                kind: &command.kind,
                body: &command.body,
            })
            .await?;
        let changed = marked.await?;
        debug!(event = "devices.command_sent", device_id = %self.device_id, command_id = hex(&command.id),
            seq = command.seq, again);
        Ok(changed)
    }

    async fn record_done(
        &mut self,
        id: [u8; 16],
        outcome: Outcome,
        detail: &str,
    ) -> Result<(), TripError> {
        self.parts
            .store
            .orders
            .command_done(id, outcome, detail)
            .await?;
        self.note_progress();
        self.links.counters.done.add_one();
        // The device's own words stay out of the log: they can name a customer.
        info!(event = "devices.command_done", device_id = %self.device_id, command_id = hex(&id), ?outcome);
        Ok(())
    }

    /// Wall time less monotonic time: moves only when the box learns that its time was wrong.
    fn base_ms(&self) -> i64 {
        let clock = &self.parts.clock;
        let monotonic_ms = i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        clock.wall_ms().saturating_sub(monotonic_ms)
    }

    fn note_progress(&mut self) {
        self.progressed = true;
        self.links.works(&self.device_id);
    }

    /// An answer to a command that is not in flight any more.
    async fn record_late(&mut self, said: Said) -> Result<(), TripError> {
        match said {
            Said::Accepted { .. } => Ok(()),
            Said::Done {
                id,
                outcome,
                detail,
            } => self.record_done(id, from_wire(outcome), &detail).await,
        }
    }

    async fn has_work(&self) -> bool {
        let orders = self.parts.store.orders.clone();
        let role = self
            .parts
            .store
            .devices
            .by_id(&self.device_id)
            .map(|device| device.role.clone());
        match tokio::task::spawn_blocking(move || orders.work_waiting()).await {
            Ok(Ok(work)) => {
                work.devices.contains(&self.device_id)
                    || role.is_some_and(|role| work.roles.contains(&role))
            }
            // Trying once more for nothing does no harm; giving up would.
            _ => true,
        }
    }
}

/// Some time after the signal: a session that is asked to close has had its chance by then.
async fn after_grace(shutdown: &Shutdown) {
    shutdown.triggered().await;
    sleep(FIRST_WAIT).await;
}

fn to_wire_ms(at_ms: i64) -> u64 {
    u64::try_from(at_ms).unwrap_or(0)
}

fn from_wire(outcome: wire::Outcome) -> Outcome {
    match outcome {
        wire::Outcome::Ok => Outcome::Ok,
        wire::Outcome::Failed => Outcome::Failed,
        wire::Outcome::Expired => Outcome::Expired,
        wire::Outcome::Unknown => Outcome::Unknown,
    }
}
