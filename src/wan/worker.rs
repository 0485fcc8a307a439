//! What all workers share: steps, back-off, and proof of life.
//!
//! ```text
//!   credentials missing: wait until there are some
//!            Ok(Again)                      Err: wait(back-off, Retry-After)
//!   step ---------------> step      step ------------------------------------> step   (sooner when the way is back)
//!        ---------------> step           Err(401, 403): pause ---------------> step
//!         Ok(Idle): rest
//! ```
//! A worker is a value with one `step`; a thread per worker calls it until the shutdown. Each wait inside a step has a
//! deadline of its own; a watchdog looks that steps end at all, and ends the connections of one that does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::credentials::Credentials;
use super::egress::{Cause, EgressError};
use super::outcome::{Outcomes, Worker, is_refusal};
use super::way_back::WayBack;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::identity::dice;
use crate::shutdown::Shutdown;
use crate::store::{Bell, ReadError, WriteError};
use crate::telemetry::chain;

/// Refused credentials are tried again this seldom, unless back-off is slower still: a person has to act first.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// A host that is overloaded or at fault is left alone this long at least (Azure's throttling asks for about that).
pub const BUSY_HOST_PAUSE: Duration = Duration::from_secs(2);

/// A worker shows life at least this often, or its connections are ended. Longer than the longest request that is read as
/// a whole (240 s and a hold of 60 s at the most); who streams shows life by what comes.
pub const LIFE_SIGN: Duration = Duration::from_secs(330);

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There may be more to do.
    Again,
    /// Nothing to do for so long, unless the worker's own bell rings.
    Rest(Duration),
}

/// A step that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// Network or host.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The store can't take it now.
    #[error("the store can't be written")]
    Write(#[from] WriteError),
    /// The store can't be read.
    #[error("the store can't be read")]
    Read(#[from] ReadError),
    /// The disk.
    #[error("the disk refuses")]
    Disk(#[from] std::io::Error),
}

impl StepError {
    /// The host knows the box and refuses it, or its access has ended.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Egress(error) if is_refusal(error.cause) || error.cause == Cause::SasExpired)
    }
}

/// One flow's work.
pub(super) trait Work: Send {
    /// Does one piece of work, in bounded time.
    fn step(&mut self, life: &Life) -> Result<Next, StepError>;

    /// Whether it tells its outcomes itself, as one whose steps may succeed in part.
    fn tells_outcomes(&self) -> bool {
        false
    }

    /// Waits for `wait` or until there is something to do; true when the box shuts down.
    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        shutdown.wait(wait)
    }
}

/// A worker's proof of life. Clones share it.
#[derive(Clone)]
pub(super) struct Life {
    clock: Arc<dyn Clock>,
    /// Monotonic milliseconds by which the next sign is due.
    due_ms: Arc<AtomicU64>,
    signs: Arc<AtomicU64>,
}

impl Life {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let life = Self {
            clock,
            due_ms: Arc::default(),
            signs: Arc::default(),
        };
        life.sign();
        life
    }

    /// The worker got somewhere.
    pub(super) fn sign(&self) {
        self.sign_before_rest(Duration::ZERO);
    }

    /// The worker will be silent for `rest` on purpose.
    pub(super) fn sign_before_rest(&self, rest: Duration) {
        let due = self.clock.monotonic() + rest + LIFE_SIGN;
        self.due_ms.store(milliseconds(due), Ordering::Relaxed);
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a sign is overdue.
    pub(super) fn is_overdue(&self) -> bool {
        milliseconds(self.clock.monotonic()) > self.due_ms.load(Ordering::Relaxed)
    }

    /// Signs so far.
    pub(super) fn signs(&self) -> u64 {
        self.signs.load(Ordering::Relaxed)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a worker's thread needs beside its work.
pub(super) struct Frame {
    pub(super) worker: Worker,
    pub(super) life: Life,
    pub(super) retry: Backoff,
    pub(super) credentials: Credentials,
    pub(super) outcomes: Outcomes,
    pub(super) shutdown: Shutdown,
}

/// Calls `work.step` until the shutdown.
pub(super) fn run(frame: &Frame, work: &mut dyn Work) {
    let Frame {
        worker,
        life,
        retry,
        credentials,
        outcomes,
        shutdown,
    } = frame;
    let (worker, retry) = (*worker, *retry);
    let (mut failures, mut way) = (0_u32, WayBack::default());
    while !shutdown.is_triggered() {
        life.sign();
        let version = credentials.version();
        if let Some(missing) = credentials.missing_for(worker) {
            if outcomes.waits(worker, missing) {
                tracing::info!(event = "wan.worker_waits", worker = worker.name(), missing);
            }
            let _ = credentials.wait_change(version, LOOK_SLICE);
            continue;
        }
        let mut was_refused = false;
        let (rest, is_idle) = match work.step(life) {
            Ok(next) => {
                failures = 0;
                way.succeeded();
                if !work.tells_outcomes() {
                    outcomes.succeeded(worker);
                }
                match next {
                    Next::Again => continue,
                    Next::Rest(rest) => (rest, true),
                }
            }
            Err(_) if shutdown.is_triggered() => break,
            Err(error) => {
                failures = failures.saturating_add(1);
                let is_news = match &error {
                    StepError::Egress(error) => {
                        way.failed(error, life.clock.monotonic(), retry, dice());
                        outcomes.failed(worker, error)
                    }
                    _ => failures == 1,
                };
                let wait = match &error {
                    StepError::Egress(error) => wait_after(error, failures, retry),
                    _ => retry.wait(failures, dice()),
                };
                was_refused = error.is_refusal();
                let (cause, wait_ms) = (cause_of(&error), milliseconds(wait));
                let (worker, error) = (worker.name(), chain(&error));
                if is_news {
                    tracing::warn!(event = "wan.step_failed", worker, cause, error, wait_ms);
                } else {
                    let event = "wan.step_failed_again";
                    tracing::debug!(event, worker, cause, error, failures, wait_ms);
                }
                (wait, false)
            }
        };
        life.sign_before_rest(rest);
        let ends = if is_idle {
            work.rest(rest, shutdown)
        } else {
            // A bell must not cut a back-off short; other credentials may cut the wait of a refusal, and a way that is
            // back the wait for it.
            wait_out(rest, shutdown, |slice| {
                if was_refused {
                    return credentials.wait_change(version, slice);
                }
                shutdown.wait(slice) || way.ends_wait(outcomes.returns(), life.clock.monotonic())
            })
        };
        if ends {
            break;
        }
    }
}

/// The shutdown, other credentials and a way that is back are looked for this often.
pub(super) const LOOK_SLICE: Duration = Duration::from_millis(250);

/// Waits for `wait`, or until a look, which lasts as long as it is told, says that it is over; true when the box shuts down.
fn wait_out(
    wait: Duration,
    shutdown: &Shutdown,
    mut is_over_within: impl FnMut(Duration) -> bool,
) -> bool {
    let mut left = wait;
    while !shutdown.is_triggered() && !left.is_zero() {
        let slice = left.min(LOOK_SLICE);
        if is_over_within(slice) {
            break;
        }
        left -= slice;
    }
    shutdown.is_triggered()
}

/// Waits for `wait`, the bell, or whatever `is_over` says; true when the box shuts down.
pub(super) fn rest_on_bell(
    bell: &Bell,
    wait: Duration,
    shutdown: &Shutdown,
    mut is_over: impl FnMut() -> bool,
) -> bool {
    wait_out(wait, shutdown, |slice| bell.wait(slice) || is_over())
}

/// How long to wait after the `failures`-th failure in a row.
pub(super) fn wait_after(error: &EgressError, failures: u32, retry: Backoff) -> Duration {
    let wait = retry.wait(failures, dice());
    let asked = error.retry_after.unwrap_or(Duration::ZERO);
    let floor = match error.cause {
        cause if is_refusal(cause) => REFUSED_PAUSE,
        Cause::Gone | Cause::SasExpired => REFUSED_PAUSE,
        Cause::Throttled | Cause::Server => BUSY_HOST_PAUSE,
        _ => Duration::ZERO,
    };
    wait.max(asked).max(floor)
}

fn cause_of(error: &StepError) -> &'static str {
    match error {
        StepError::Egress(error) => error.cause.as_str(),
        StepError::Write(_) | StepError::Read(_) => "store",
        StepError::Disk(_) => "disk",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::thread;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::config::Config;
    use crate::telemetry::{Code, Conditions};
    use crate::wan::credentials::Granted;
    use crate::wan::egress::Heard;

    struct Script {
        steps: Vec<Result<Next, Cause>>,
        rests: Arc<AtomicU64>,
        shutdown: Shutdown,
    }

    fn error(cause: Cause, retry_after: Option<Duration>) -> EgressError {
        let mut error = EgressError::new(cause, "host", "");
        error.retry_after = retry_after;
        error
    }

    impl Work for Script {
        fn step(&mut self, _: &Life) -> Result<Next, StepError> {
            if self.steps.is_empty() {
                self.shutdown.trigger();
                return Ok(Next::Again);
            }
            let step = self.steps.remove(0);
            step.map_err(|cause| error(cause, None).into())
        }

        fn rest(&mut self, _: Duration, _: &Shutdown) -> bool {
            self.rests.fetch_add(1, Ordering::Relaxed);
            false
        }
    }

    fn credentials(site_file: &str) -> Credentials {
        let config = Config::from_layers(&[(Path::new("site.toml"), site_file)]).unwrap();
        Credentials::from_settings(&config.site.site_id, &config.wan)
    }

    fn retry() -> Backoff {
        Backoff::new(Duration::from_millis(1), Duration::from_millis(2)).unwrap()
    }

    #[test]
    fn steps_follow_each_other_until_the_shutdown() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let outcomes = Outcomes::new(Conditions::default(), Arc::clone(&clock));
        let (shutdown, rests) = (Shutdown::default(), Arc::new(AtomicU64::new(0)));
        let mut work = Script {
            steps: vec![
                Ok(Next::Again),
                Err(Cause::Dns),
                Err(Cause::Dns),
                Ok(Next::Rest(Duration::from_secs(9))),
            ],
            rests: Arc::clone(&rests),
            shutdown: shutdown.clone(),
        };
        let frame = Frame {
            worker: Worker::Pull,
            life: Life::new(clock),
            retry: retry(),
            credentials: credentials("[site]\nsite_id = 's'\n[wan]\ntoken = 't'\n"),
            outcomes: outcomes.clone(),
            shutdown,
        };
        run(&frame, &mut work);
        assert!(work.steps.is_empty());
        assert_eq!(rests.load(Ordering::Relaxed), 1, "a back-off is no rest");
        assert_eq!(outcomes.list()[0].failures, 0);
    }

    /// Fails for want of a way once, and wants to wait for an hour.
    struct Stranded {
        heard: Heard,
        shutdown: Shutdown,
        steps: Arc<AtomicU64>,
    }

    impl Work for Stranded {
        fn step(&mut self, _: &Life) -> Result<Next, StepError> {
            if self.steps.fetch_add(1, Ordering::SeqCst) > 0 {
                self.shutdown.trigger();
                return Ok(Next::Again);
            }
            let mut error = error(Cause::TcpTimeout, Some(Duration::from_secs(3600)));
            error.way_lost_at = Some(self.heard.returns());
            Err(error.into())
        }
    }

    #[test]
    fn the_first_answer_after_an_outage_ends_the_waits_of_all() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (heard, shutdown) = (Heard::default(), Shutdown::default());
        let outcomes =
            Outcomes::new(Conditions::default(), Arc::clone(&clock)).hearing(heard.clone());
        let steps = Arc::new(AtomicU64::new(0));
        let mut work = Stranded {
            heard: heard.clone(),
            shutdown: shutdown.clone(),
            steps: Arc::clone(&steps),
        };
        let frame = Frame {
            worker: Worker::Pull,
            life: Life::new(clock),
            retry: retry(),
            credentials: credentials("[site]\nsite_id = 's'\n[wan]\ntoken = 't'\n"),
            outcomes,
            shutdown,
        };
        let working = thread::spawn(move || run(&frame, &mut work));
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let mut is_told = false;
        while !working.is_finished() {
            assert!(std::time::Instant::now() < deadline, "it sleeps on");
            if steps.load(Ordering::SeqCst) == 1 && !is_told {
                // Another worker of the box gets through.
                heard.way_is_back();
                is_told = true;
            }
            thread::yield_now();
        }
        working.join().unwrap();
        assert_eq!(steps.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_worker_without_credentials_waits_and_says_so_and_begins_when_they_come() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let conditions = Conditions::default();
        let frame = Frame {
            worker: Worker::Push,
            life: Life::new(Arc::clone(&clock)),
            retry: retry(),
            credentials: credentials(""),
            outcomes: Outcomes::new(conditions.clone(), clock),
            shutdown: Shutdown::default(),
        };
        let (credentials, outcomes) = (frame.credentials.clone(), frame.outcomes.clone());
        let working = thread::spawn(move || {
            let mut work = Script {
                steps: vec![Ok(Next::Again)],
                rests: Arc::default(),
                shutdown: frame.shutdown.clone(),
            };
            run(&frame, &mut work);
        });
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !conditions.holds(Code::NotEnrolled) {
            assert!(std::time::Instant::now() < deadline, "it does not say so");
            thread::yield_now();
        }
        assert_eq!(outcomes.list()[0].cause, Some("no_credentials"));
        credentials.grant(Some(Granted {
            site_id: "s".into(),
            api_token: Some(crate::identity::Secret::new("t")),
            ..Granted::default()
        }));
        working.join().unwrap();
        assert_eq!(outcomes.list()[0].cause, None);
        assert!(!conditions.holds(Code::NotEnrolled));
    }

    #[test]
    fn a_refusal_pauses_and_a_host_that_asks_for_time_gets_it() {
        let refused = wait_after(&error(Cause::Unauthorized, None), 1, retry());
        assert!(refused >= REFUSED_PAUSE);
        let asked = Duration::from_secs(7);
        let wait = wait_after(&error(Cause::Throttled, Some(asked)), 1, retry());
        assert_eq!(wait, asked);
        let wait = wait_after(&error(Cause::ConnectionLost, None), 1, retry());
        assert!(wait <= Duration::from_millis(2));
    }

    #[test]
    fn life_is_overdue_only_beyond_an_announced_rest() {
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let life = Life::new(clock.clone());
        life.sign_before_rest(Duration::from_secs(600));
        clock.advance(Duration::from_secs(600) + LIFE_SIGN);
        assert!(!life.is_overdue());
        clock.advance(Duration::from_secs(1));
        assert!(life.is_overdue());
        life.sign();
        assert!(!life.is_overdue());
        assert_eq!(life.signs(), 3);
    }
}
