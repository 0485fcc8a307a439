//! The loop that feeds the policy with what happens and does what it says.
//!
//! One thread, which waits for a signal, a beat or the next tick, whichever comes first. Signals are handled, not
//! blocked: the server would inherit a blocked one and never hear SIGTERM.

use std::future::{pending, poll_fn};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tracing::{error, info, warn};

use super::child::{Child, Program};
use super::heartbeat::Message;
use super::notify::Notifier;
use super::policy::{Action, Escalation, Event, Limits, Policy, State};
use super::reasons::{Cause, Kind, Reason, Reasons};
use super::sockets::LanSockets;
use crate::clock::{BootStamp, Clock};
use crate::units::ByteSize;

/// Exit code that asks the init system for a reboot: in the unit, `RestartPreventExitStatus=` names it and
/// `FailureAction=reboot` answers it, so that nothing of ours needs the right to reboot. The server ends with the same
/// code when a new version is installed and its trial is to begin.
pub const REBOOT_EXIT_CODE: u8 = 75;

/// Longest wait between two looks at the state of things; also the finest step of the back-off.
const TICK: Duration = Duration::from_millis(250);

/// What the loop needs to know.
pub struct Options {
    /// The server.
    pub program: Program,
    /// Where the reasons are kept.
    pub data_dir: PathBuf,
    /// The policy's numbers.
    pub limits: Limits,
    /// A server that grew beyond this is restarted.
    pub max_rss: ByteSize,
    /// A crash loop may reboot the box.
    pub reboot_allowed: bool,
    /// Whether this boot is the trial of an update; asked again at every failure, since a trial ends while we run.
    pub in_trial: Box<dyn Fn() -> bool>,
    /// Whether a version that was installed in this boot waits for its trial: only then is the server's wish for a reboot
    /// more than an exit code.
    pub reboot_is_due: Box<dyn Fn() -> bool>,
}

/// How the supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// The box is to be rebooted; exit with [`REBOOT_EXIT_CODE`].
    RebootAsked,
}

/// The supervisor could not do its work at all.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Signals could not be taken over.
    #[error("cannot take over signals")]
    Signals(#[source] io::Error),
    /// Nothing can be waited for.
    #[error("cannot wait for the server")]
    Wait(#[source] io::Error),
}

/// Runs the server until somebody asks for the end.
///
/// # Errors
/// Only when the operating system denies what every process has.
pub fn supervise(
    options: Options,
    sockets: LanSockets,
    clock: &dyn Clock,
) -> Result<Ending, SuperviseError> {
    let runtime = runtime()?;
    let signals = runtime.block_on(async { Signals::taken() });
    run(
        options,
        sockets,
        clock,
        &runtime,
        signals.map_err(SuperviseError::Signals)?,
    )
}

fn runtime() -> Result<Runtime, SuperviseError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SuperviseError::Wait)
}

fn run(
    options: Options,
    sockets: LanSockets,
    clock: &dyn Clock,
    runtime: &Runtime,
    mut signals: Signals,
) -> Result<Ending, SuperviseError> {
    let reasons = Reasons::load(&options.data_dir);
    let escalation = Escalation {
        reboot_allowed: options.reboot_allowed,
        in_trial: (options.in_trial)(),
        reboots_used: reasons.reboots(),
    };
    let mut supervisor = Supervisor {
        policy: Policy::new(options.limits.clone(), escalation, clock.monotonic()),
        weighed_at: clock.monotonic(),
        options,
        sockets,
        clock,
        reasons,
        notifier: Notifier::default(),
        child: None,
        ending: None,
    };
    supervisor.run(runtime, &mut signals)
}

struct Supervisor<'a> {
    options: Options,
    sockets: LanSockets,
    clock: &'a dyn Clock,
    policy: Policy,
    reasons: Reasons,
    notifier: Notifier,
    child: Option<Child>,
    weighed_at: Duration,
    ending: Option<Ending>,
}

impl Supervisor<'_> {
    fn run(&mut self, runtime: &Runtime, signals: &mut Signals) -> Result<Ending, SuperviseError> {
        let mut stop_asked = false;
        loop {
            self.look(stop_asked)?;
            if self.ending.is_none() {
                self.tell(Event::Tick);
            }
            if let Some(ending) = self.ending {
                return Ok(ending);
            }
            self.notifier.status(&self.status());
            let beats = self.child.as_ref().map(|child| child.beats().socket());
            stop_asked = runtime
                .block_on(signals.wait(beats))
                .map_err(SuperviseError::Wait)?;
        }
    }

    /// Everything that has happened, in an order in which a request to stop explains an exit that follows it.
    fn look(&mut self, stop_asked: bool) -> Result<(), SuperviseError> {
        if stop_asked {
            info!(event = "supervisor.stop_asked");
            self.notifier.stopping();
            self.tell(Event::StopAsked);
        }
        let Some(child) = self.child.as_mut() else {
            return Ok(());
        };
        let exit = child.try_exit().map_err(SuperviseError::Wait)?;
        for message in child.beats().drain() {
            self.tell(match message {
                Message::Parts(names) => Event::Parts(names),
                Message::Moved(parts) => Event::Moved(parts),
                Message::Serves => Event::Serves,
            });
        }
        if let Some(cause) = exit {
            let wish = Cause::Exited {
                code: REBOOT_EXIT_CODE.into(),
            };
            if cause == wish && (self.options.reboot_is_due)() {
                info!(event = "supervisor.reboot_asked_by_server");
                self.notifier
                    .status("rebooting into the trial of a new version");
                self.child = None;
                self.ending = Some(Ending::RebootAsked);
                return Ok(());
            }
            self.tell(Event::Exited(cause));
            self.child = None;
            return Ok(());
        }
        self.weigh();
        Ok(())
    }

    fn weigh(&mut self) {
        let now = self.clock.monotonic();
        if now.saturating_sub(self.weighed_at) < self.options.limits.weigh_every {
            return;
        }
        self.weighed_at = now;
        let rss_mib = self.child.as_ref().and_then(Child::rss_mib);
        if let Some(rss_mib) = rss_mib.filter(|mib| ByteSize::mib(*mib) > self.options.max_rss) {
            self.tell(Event::Grown { rss_mib });
        }
    }

    fn tell(&mut self, event: Event) {
        if matches!(event, Event::Exited(_) | Event::SpawnFailed(_)) {
            self.policy.set_trial((self.options.in_trial)());
        }
        match self.policy.on(event, self.clock.monotonic()) {
            Ok(actions) => actions.into_iter().for_each(|action| self.act(action)),
            Err(error) => warn!(event = "supervisor.event_unexpected", %error),
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.clock.monotonic();
        match action {
            Action::Spawn => self.spawn(now),
            Action::Terminate => self.signal(Signal::SIGTERM),
            Action::Kill => self.signal(Signal::SIGKILL),
            Action::Ready => {
                let started_ms = self.child.as_ref().map(|child| child.ran(now).as_millis());
                info!(event = "supervisor.server_serves", started_ms);
                self.notifier.ready();
            }
            Action::FeedWatchdog => self.notifier.feed(now),
            Action::Record(kind, cause) => self.record(kind, cause, now),
            Action::SayLoop { failures } => {
                error!(
                    event = "supervisor.crash_loop",
                    failures, "the server keeps failing; restarts are slowed"
                );
            }
            Action::ForgiveReboots => {
                if let Err(error) = self.reasons.forgive_reboots() {
                    warn!(event = "supervisor.record_failed", %error);
                }
            }
            Action::Reboot => {
                error!(
                    event = "supervisor.reboot_asked",
                    failures = self.policy.failures(now)
                );
                self.notifier.status("rebooting: the server keeps failing");
                self.ending = Some(Ending::RebootAsked);
            }
            Action::Finish => self.ending = Some(Ending::Stopped),
        }
    }

    fn spawn(&mut self, now: Duration) {
        match Child::spawn(&self.options.program, &self.sockets, now) {
            Ok(child) => {
                info!(event = "supervisor.server_started", pid = child.pid());
                self.weighed_at = now;
                self.child = Some(child);
            }
            Err(error) => {
                self.child = None;
                self.tell(Event::SpawnFailed(error.to_string()));
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            info!(
                event = "supervisor.server_signalled",
                pid = child.pid(),
                signal = signal.as_str()
            );
            child.signal(signal);
        }
    }

    fn record(&mut self, kind: Kind, cause: Cause, now: Duration) {
        let ran_s = self
            .child
            .as_ref()
            .map_or(0, |child| child.ran(now).as_secs());
        let failures = self.policy.failures(now);
        warn!(event = "supervisor.server_ended", %cause, ran_s, failures, next = ?kind);
        let stamp = BootStamp::now().ok();
        let reason = Reason {
            at: self.clock.wall().to_string(),
            uptime_ms: stamp.as_ref().map(|stamp| stamp.uptime_ms),
            boot_id: stamp.map(|stamp| stamp.boot_id).unwrap_or_default(),
            kind,
            cause,
            ran_s,
            failures,
        };
        if let Err(error) = self.reasons.record(reason) {
            error!(event = "supervisor.record_failed", %error);
        }
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let now = self.clock.monotonic();
        let doing = match self.policy.state() {
            State::Waiting { until } => {
                format!("next start in {} s", until.saturating_sub(now).as_secs())
            }
            State::Starting { .. } => "starting".to_owned(),
            State::Serving { .. } => "serving".to_owned(),
            State::Ending { .. } => "ending".to_owned(),
            State::Down => "down".to_owned(),
        };
        let failures = self.policy.failures(now);
        match self.reasons.list().last() {
            Some(last) if failures > 0 => {
                let verdict = if self.policy.is_looping(now) {
                    "CRASH LOOP, "
                } else {
                    ""
                };
                format!(
                    "{doing}; {verdict}{failures} restarts lately, last: {}",
                    last.cause
                )
            }
            _ => doing,
        }
    }
}

/// Signals that were taken over.
#[derive(Default)]
struct Signals {
    /// SIGTERM, SIGINT and SIGHUP ask for the end.
    end: Vec<Stream>,
    /// SIGCHLD only wakes the loop.
    wake: Vec<Stream>,
}

impl Signals {
    fn taken() -> io::Result<Self> {
        let end = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        Ok(Self {
            end: end.into_iter().map(signal).collect::<io::Result<_>>()?,
            wake: vec![signal(SignalKind::child())?],
        })
    }

    /// Waits for a signal, a beat or the next tick; true when somebody asks for the end.
    async fn wait(&mut self, beats: Option<&UnixDatagram>) -> io::Result<bool> {
        let beats = beats
            .map(|socket| tokio::net::UnixDatagram::from_std(socket.try_clone()?))
            .transpose()?;
        let beat = async {
            match &beats {
                Some(beats) => beats.readable().await,
                None => pending().await,
            }
        };
        Ok(tokio::select! {
            biased;
            () = any(&mut self.end) => true,
            () = any(&mut self.wake) => false,
            beat = beat => beat.map(|()| false)?,
            () = tokio::time::sleep(TICK) => false,
        })
    }
}

async fn any(streams: &mut [Stream]) {
    poll_fn(|context| {
        let mut came = streams
            .iter_mut()
            .filter_map(|stream| match stream.poll_recv(context) {
                Poll::Ready(came) => came,
                Poll::Pending => None,
            });
        came.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn limits() -> Limits {
        let start_within = Duration::from_millis(300);
        Limits {
            start_within,
            loop_after: 2,
            reboot_after: 3,
            ..Limits::default()
        }
    }

    /// Supervises a server that is a shell script until the loop ends by itself.
    fn supervise_script(
        data_dir: &std::path::Path,
        script: &str,
        limits: Limits,
        in_trial: bool,
    ) -> Ending {
        let options = Options {
            program: Program {
                path: "/bin/sh".into(),
                args: vec!["-c".into(), script.into()],
            },
            data_dir: data_dir.to_owned(),
            limits,
            max_rss: ByteSize::kib(1),
            reboot_allowed: true,
            in_trial: Box::new(move || in_trial),
            reboot_is_due: Box::new(move || !in_trial),
        };
        let runtime = runtime().unwrap();
        // Signals stay the test runner's.
        run(
            options,
            LanSockets::default(),
            &SystemClock::default(),
            &runtime,
            Signals::default(),
        )
        .unwrap()
    }

    fn kinds_and_causes(data_dir: &std::path::Path) -> Vec<(Kind, Cause)> {
        let reasons = Reasons::load(data_dir);
        reasons
            .list()
            .iter()
            .map(|reason| (reason.kind, reason.cause.clone()))
            .collect()
    }

    #[test]
    fn a_server_that_keeps_crashing_ends_in_a_recorded_reboot() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            supervise_script(dir.path(), "exit 7", limits(), false),
            Ending::RebootAsked
        );
        let crash = || Cause::Exited { code: 7 };
        let expected = [
            (Kind::Restart, crash()),
            (Kind::Restart, crash()),
            (Kind::Reboot, crash()),
        ];
        assert_eq!(kinds_and_causes(dir.path()), expected);
        assert_eq!(Reasons::load(dir.path()).reboots(), 1);
    }

    #[test]
    fn a_server_that_asks_for_the_trial_of_a_new_version_gets_its_reboot_and_no_blame() {
        let dir = tempfile::tempdir().unwrap();
        let ending = supervise_script(dir.path(), "exit 75", limits(), false);
        assert_eq!(ending, Ending::RebootAsked);
        assert_eq!(kinds_and_causes(dir.path()), []);
        // Nothing is installed: the same exit code is a failure like any other.
        let dir = tempfile::tempdir().unwrap();
        supervise_script(dir.path(), "exit 75", limits(), true);
        let causes = kinds_and_causes(dir.path());
        assert_eq!(causes[0], (Kind::Restart, Cause::Exited { code: 75 }));
    }

    #[test]
    fn a_server_that_never_serves_is_killed_and_in_a_trial_soon_leads_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            supervise_script(dir.path(), "exec sleep 600", limits(), true),
            Ending::RebootAsked
        );
        let expected = [
            (Kind::Restart, Cause::StartTooSlow),
            (Kind::Reboot, Cause::StartTooSlow),
        ];
        assert_eq!(kinds_and_causes(dir.path()), expected);
    }

    #[test]
    fn a_server_that_grows_is_asked_to_end_and_the_reason_is_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let start_within = Duration::from_secs(60);
        let limits = Limits {
            weigh_every: Duration::from_millis(100),
            start_within,
            ..limits()
        };
        assert_eq!(
            supervise_script(dir.path(), "exec sleep 600", limits, true),
            Ending::RebootAsked
        );
        let causes = kinds_and_causes(dir.path());
        assert!(
            causes
                .iter()
                .all(|(_, cause)| matches!(cause, Cause::MemoryGrown { rss_mib: 1.. })),
            "{causes:?}"
        );
    }
}
