//! What the supervisor does about what it sees: pure, so that an hour of crashes is tested in a millisecond.
//!
//! ```text
//!            due                says it serves
//!  Waiting ───────▶ Starting ───────────────────▶ Serving
//!     ▲               │ late, gone                  │ hung, grown, gone, asked to stop
//!     │               ▼                             ▼
//!     └── gone ─── Ending (SIGTERM or SIGKILL sent, exit not yet seen)
//!     │               │ asked to stop and gone
//!     │               ▼
//!     └─ too often ─▶ Down (stopped, or the last word was "reboot")
//! ```
//!
//! The rate of restarts is bounded by the number of failures inside one sliding window of monotonic time: the more
//! there are, the longer the wait. A loop is said once when it is entered, then answered by a reboot where that is
//! allowed and not yet used up, and by slow restarts for ever where it is not.

use std::collections::VecDeque;
use std::time::Duration;

use super::reasons::{Cause, Kind};

/// The waits before the next start, by the number of failures in the window; the last one stays.
pub const LADDER: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];

/// Parts of the server that may prove their work; a longer list is cut, which only makes the proof weaker.
pub const MAX_PARTS: usize = 16;

/// Failures remembered at most; older ones are forgotten first. More than any step below asks for.
const MAX_FAILURES: usize = 32;

/// The numbers of the policy.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A part that has not moved for so long is hung.
    pub hang_after: Duration,
    /// Progress younger than this feeds the watchdog.
    pub fresh_within: Duration,
    /// From the spawn to "I serve": migrations and repairs run here.
    pub start_within: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// Between two looks at the server's memory.
    pub weigh_every: Duration,
    /// Failures older than this no longer count.
    pub window: Duration,
    /// So many failures in the window are a crash loop.
    pub loop_after: usize,
    /// So many failures in the window ask for a reboot.
    pub reboot_after: usize,
    /// So many reboots without a stable run between them are enough.
    pub reboots_max: u32,
    /// A server that has served for so long is stable: earlier reboots are forgiven.
    pub stable_after: Duration,
    /// The supervisor itself slept when two of its ticks lie further apart than this; then nobody is blamed for silence.
    pub own_stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hang_after: Duration::from_secs(10),
            fresh_within: Duration::from_secs(3),
            start_within: Duration::from_secs(180),
            stop_grace: Duration::from_secs(10),
            weigh_every: Duration::from_secs(60),
            window: Duration::from_secs(30 * 60),
            loop_after: 5,
            reboot_after: 8,
            reboots_max: 3,
            stable_after: Duration::from_secs(10 * 60),
            own_stall: Duration::from_secs(5),
        }
    }
}

/// What the policy may do beyond restarting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Escalation {
    /// A crash loop may end in a reboot.
    pub reboot_allowed: bool,
    /// This boot is the trial of an update: a crash loop ends in a reboot at once, and that leads to the rollback.
    pub in_trial: bool,
    /// Reboots asked for since the last stable run, from the record.
    pub reboots_used: u32,
}

/// Where the server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing runs; the next start is due at `until`.
    Waiting {
        /// Monotonic time of the next start.
        until: Duration,
    },
    /// Started, and not serving yet.
    Starting {
        /// Monotonic time of the spawn.
        since: Duration,
    },
    /// At work.
    Serving {
        /// Monotonic time of "I serve".
        since: Duration,
        /// The run has lasted long enough to forgive earlier reboots.
        stable: bool,
    },
    /// A signal was sent and the exit is awaited.
    Ending {
        /// When SIGKILL follows.
        kill_at: Duration,
        /// What counts as the cause once the exit is seen; `None` when somebody asked us to stop.
        cause: Option<Cause>,
    },
    /// The last word is said.
    Down,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed; sent at least twice a second.
    Tick,
    /// The server names the parts whose work it will prove.
    Parts(Vec<String>),
    /// These parts moved, by their place in the list.
    Moved(Vec<u8>),
    /// The server answers on its ports.
    Serves,
    /// The server's memory passed its limit.
    Grown {
        /// Resident size.
        rss_mib: u64,
    },
    /// The server is gone.
    Exited(Cause),
    /// The server could not be started at all.
    SpawnFailed(String),
    /// Somebody (systemd, an operator) wants us to stop.
    StopAsked,
}

/// What to do about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the server.
    Spawn,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
    /// Tell systemd that the server serves.
    Ready,
    /// Tell systemd that work was proved, or that a bounded wait of ours is going on.
    FeedWatchdog,
    /// Write down why.
    Record(Kind, Cause),
    /// A crash loop has begun.
    SayLoop {
        /// Failures in the window.
        failures: usize,
    },
    /// The record of reboots may be forgiven.
    ForgiveReboots,
    /// Give up in the way that makes the init system reboot.
    Reboot,
    /// End, all is well.
    Finish,
}

/// An event that cannot happen in this state. The caller says so and goes on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event:?} does not belong to state {state:?}")]
pub struct UnexpectedEvent {
    state: State,
    event: Event,
}

/// The table and what it remembers.
#[derive(Debug)]
pub struct Policy {
    limits: Limits,
    escalation: Escalation,
    state: State,
    parts: Vec<Part>,
    failures: VecDeque<Duration>,
    loop_said: bool,
    last_tick: Duration,
}

#[derive(Debug)]
struct Part {
    name: String,
    moved_at: Duration,
}

impl Policy {
    /// A policy whose first start is due at `now`.
    #[must_use]
    pub fn new(limits: Limits, escalation: Escalation, now: Duration) -> Self {
        Self {
            limits,
            escalation,
            state: State::Waiting { until: now },
            parts: Vec::new(),
            failures: VecDeque::new(),
            loop_said: false,
            last_tick: now,
        }
    }

    /// Where the server stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Failures inside the window that ends at `now`.
    #[must_use]
    pub fn failures(&self, now: Duration) -> usize {
        let limit = self.limits.window;
        self.failures
            .iter()
            .filter(|at| now.saturating_sub(**at) <= limit)
            .count()
    }

    /// Whether the failures that end at `now` are a crash loop.
    #[must_use]
    pub fn is_looping(&self, now: Duration) -> bool {
        self.failures(now) >= self.limits.loop_after
    }

    /// Whether this boot is, by now, the trial of an update.
    pub fn set_trial(&mut self, in_trial: bool) {
        self.escalation.in_trial = in_trial;
    }

    /// The table.
    ///
    /// # Errors
    /// When the event cannot happen in the present state; nothing is changed then.
    pub fn on(&mut self, event: Event, now: Duration) -> Result<Vec<Action>, UnexpectedEvent> {
        if event == Event::Tick {
            self.forgive_own_stall(now);
        }
        match (self.state.clone(), event) {
            (State::Waiting { until }, Event::Tick) if now < until => {
                Ok(vec![Action::FeedWatchdog])
            }
            (State::Waiting { .. }, Event::Tick) => {
                self.parts.clear();
                self.state = State::Starting { since: now };
                Ok(vec![Action::FeedWatchdog, Action::Spawn])
            }
            (State::Waiting { .. }, Event::StopAsked) => Ok(self.finish()),

            (State::Starting { .. }, Event::Parts(names)) => {
                let named = names.into_iter().take(MAX_PARTS);
                self.parts = named
                    .map(|name| Part {
                        name,
                        moved_at: now,
                    })
                    .collect();
                Ok(vec![])
            }
            (State::Starting { .. }, Event::Serves) if !self.parts.is_empty() => {
                // Parts start to move now; each gets a full period from here.
                self.parts.iter_mut().for_each(|part| part.moved_at = now);
                self.state = State::Serving {
                    since: now,
                    stable: false,
                };
                Ok(vec![Action::Ready, Action::FeedWatchdog])
            }
            (State::Starting { since }, Event::Tick) => {
                if now.saturating_sub(since) < self.limits.start_within {
                    return Ok(vec![Action::FeedWatchdog]);
                }
                Ok(self.end(Action::Kill, Some(Cause::StartTooSlow), now))
            }
            (State::Starting { .. }, Event::SpawnFailed(why)) => {
                Ok(self.fail(Cause::SpawnFailed { why }, now))
            }

            (State::Serving { since, stable }, Event::Tick) => Ok(self.watch(since, stable, now)),
            (State::Starting { .. } | State::Serving { .. }, Event::Moved(parts)) => {
                for place in parts {
                    if let Some(part) = self.parts.get_mut(usize::from(place)) {
                        part.moved_at = now;
                    }
                }
                Ok(vec![])
            }
            (State::Starting { .. } | State::Serving { .. }, Event::Grown { rss_mib }) => {
                Ok(self.end(Action::Terminate, Some(Cause::MemoryGrown { rss_mib }), now))
            }
            (State::Starting { .. } | State::Serving { .. }, Event::StopAsked) => {
                Ok(self.end(Action::Terminate, None, now))
            }
            (State::Starting { .. } | State::Serving { .. }, Event::Exited(cause)) => {
                Ok(self.fail(cause, now))
            }

            (State::Ending { cause: None, .. }, Event::Exited(_)) => Ok(self.finish()),
            (
                State::Ending {
                    cause: Some(cause), ..
                },
                Event::Exited(_),
            ) => Ok(self.fail(cause, now)),
            (State::Ending { kill_at, .. }, Event::Tick) if now < kill_at => {
                Ok(vec![Action::FeedWatchdog])
            }
            (State::Ending { cause, .. }, Event::Tick) => Ok(self.end(Action::Kill, cause, now)),
            (State::Ending { kill_at, .. }, Event::StopAsked) => {
                self.state = State::Ending {
                    kill_at,
                    cause: None,
                };
                Ok(vec![])
            }
            // What a server still says on its way out changes nothing.
            (
                State::Ending { .. },
                Event::Parts(_) | Event::Moved(_) | Event::Serves | Event::Grown { .. },
            ) => Ok(vec![]),
            (State::Down, Event::Tick | Event::StopAsked) => Ok(vec![]),

            (state, event) => Err(UnexpectedEvent { state, event }),
        }
    }

    /// A paused machine delivers no heartbeats to anybody: after our own sleep every part gets a fresh period.
    fn forgive_own_stall(&mut self, now: Duration) {
        if now.saturating_sub(self.last_tick) > self.limits.own_stall {
            self.parts.iter_mut().for_each(|part| part.moved_at = now);
        }
        self.last_tick = now;
    }

    fn watch(&mut self, since: Duration, stable: bool, now: Duration) -> Vec<Action> {
        let silence = |part: &Part| now.saturating_sub(part.moved_at);
        if let Some(hung) = self
            .parts
            .iter()
            .find(|part| silence(part) >= self.limits.hang_after)
        {
            let cause = Cause::Hung {
                part: hung.name.clone(),
            };
            return self.end(Action::Kill, Some(cause), now);
        }
        let mut actions = Vec::new();
        if self
            .parts
            .iter()
            .all(|part| silence(part) < self.limits.fresh_within)
        {
            actions.push(Action::FeedWatchdog);
        }
        if !stable && now.saturating_sub(since) >= self.limits.stable_after {
            self.state = State::Serving {
                since,
                stable: true,
            };
            self.escalation.reboots_used = 0;
            actions.push(Action::ForgiveReboots);
        }
        actions
    }

    fn end(&mut self, signal: Action, cause: Option<Cause>, now: Duration) -> Vec<Action> {
        self.state = State::Ending {
            kill_at: now + self.limits.stop_grace,
            cause,
        };
        vec![signal]
    }

    fn finish(&mut self) -> Vec<Action> {
        self.state = State::Down;
        vec![Action::Finish]
    }

    fn fail(&mut self, cause: Cause, now: Duration) -> Vec<Action> {
        if self.failures.len() == MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let failures = self.failures(now);
        let looping = failures >= self.limits.loop_after;
        let mut actions = Vec::new();
        if looping && !self.loop_said {
            actions.push(Action::SayLoop { failures });
        }
        self.loop_said = looping;
        if self.reboot_due(failures) {
            self.state = State::Down;
            actions.push(Action::Record(Kind::Reboot, cause));
            actions.push(Action::Reboot);
            return actions;
        }
        let step = failures.saturating_sub(1).min(LADDER.len() - 1);
        self.state = State::Waiting {
            until: now + LADDER[step],
        };
        actions.push(Action::Record(Kind::Restart, cause));
        actions
    }

    fn reboot_due(&self, failures: usize) -> bool {
        let Escalation {
            reboot_allowed,
            in_trial,
            reboots_used,
        } = self.escalation;
        let after = if in_trial {
            self.limits.loop_after
        } else {
            self.limits.reboot_after
        };
        (reboot_allowed || in_trial) && reboots_used < self.limits.reboots_max && failures >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Cause = Cause::Exited { code: 101 };

    /// A policy, its time, and a server that is nothing but events.
    struct Bench {
        policy: Policy,
        now: Duration,
        done: Vec<(Duration, Action)>,
    }

    impl Bench {
        fn new(escalation: Escalation) -> Self {
            let policy = Policy::new(Limits::default(), escalation, Duration::ZERO);
            Self {
                policy,
                now: Duration::ZERO,
                done: Vec::new(),
            }
        }

        fn on(&mut self, event: Event) -> Vec<Action> {
            let actions = self.policy.on(event, self.now).unwrap();
            self.done
                .extend(actions.iter().cloned().map(|action| (self.now, action)));
            actions
        }

        /// Ticks twice a second for `span`; the server `works` or is silent.
        fn run(&mut self, span: Duration, works: bool) {
            let end = self.now + span;
            while self.now < end {
                self.now += Duration::from_millis(250);
                if works && matches!(self.policy.state(), State::Serving { .. }) {
                    self.on(Event::Moved(vec![0, 1]));
                }
                self.on(Event::Tick);
            }
        }

        fn start(&mut self) {
            while !matches!(self.policy.state(), State::Starting { .. }) {
                self.on(Event::Tick);
                self.now += Duration::from_millis(250);
            }
        }

        fn serve(&mut self) {
            self.start();
            self.on(Event::Parts(vec!["lan".to_owned(), "store".to_owned()]));
            self.on(Event::Serves);
        }

        fn times(&self, wanted: &Action) -> Vec<Duration> {
            self.done
                .iter()
                .filter(|(_, done)| done == wanted)
                .map(|(at, _)| *at)
                .collect()
        }

        fn count(&self, wanted: &Action) -> usize {
            self.times(wanted).len()
        }
    }

    #[test]
    fn a_server_at_work_is_left_alone_and_the_watchdog_fed() {
        let mut bench = Bench::new(Escalation::default());
        bench.serve();
        bench.run(Duration::from_secs(3600), true);
        assert_eq!(bench.count(&Action::Spawn), 1);
        assert_eq!(bench.count(&Action::Kill), 0);
        assert!(bench.count(&Action::FeedWatchdog) > 3600);
        assert_eq!(bench.count(&Action::ForgiveReboots), 1);
    }

    #[test]
    fn a_silent_part_stops_the_watchdog_first_and_is_killed_then() {
        let mut bench = Bench::new(Escalation::default());
        bench.serve();
        bench.run(Duration::from_secs(60), true);
        let silent_from = bench.now;
        while bench.count(&Action::Kill) == 0 {
            bench.now += Duration::from_millis(250);
            bench.on(Event::Moved(vec![0]));
            bench.on(Event::Tick);
        }
        assert_eq!(bench.now - silent_from, Duration::from_secs(10));
        let last_fed = *bench.times(&Action::FeedWatchdog).last().unwrap();
        assert!(last_fed - silent_from < Duration::from_secs(3));
        bench.on(Event::Exited(Cause::Killed { signal: 9 }));
        let hung = Cause::Hung {
            part: "store".to_owned(),
        };
        assert_eq!(
            bench.done.last().unwrap().1,
            Action::Record(Kind::Restart, hung)
        );
        assert_eq!(bench.on(Event::Tick), [Action::FeedWatchdog, Action::Spawn]);
    }

    #[test]
    fn a_server_that_never_serves_is_killed_and_named_so() {
        let mut bench = Bench::new(Escalation::default());
        bench.start();
        bench.run(Duration::from_secs(195), false);
        assert_eq!(
            bench.count(&Action::Kill),
            2,
            "and once more while it does not go"
        );
        bench.on(Event::Exited(Cause::Killed { signal: 9 }));
        assert_eq!(
            bench.count(&Action::Record(Kind::Restart, Cause::StartTooSlow)),
            1
        );
    }

    #[test]
    fn serving_without_named_parts_proves_nothing() {
        let mut bench = Bench::new(Escalation::default());
        bench.start();
        assert!(bench.policy.on(Event::Serves, bench.now).is_err());
        bench.on(Event::Parts(vec![]));
        assert!(bench.policy.on(Event::Serves, bench.now).is_err());
        assert!(matches!(bench.policy.state(), State::Starting { .. }));
    }

    #[test]
    fn a_day_of_crashes_is_slowed_said_and_never_fast() {
        let mut bench = Bench::new(Escalation::default());
        let mut crashes = 0;
        while bench.now < Duration::from_secs(24 * 3600) {
            bench.serve();
            bench.on(Event::Exited(CRASH));
            crashes += 1;
        }
        let spawns = bench.times(&Action::Spawn);
        assert!(
            spawns[1] < Duration::from_secs(1),
            "the first restart is immediate"
        );
        for hour in 1..24 {
            let in_hour = |at: &&Duration| at.as_secs() / 3600 == hour;
            let starts = spawns.iter().filter(in_hour).count();
            assert!((10..=30).contains(&starts), "hour {hour}: {starts} starts");
        }
        assert_eq!(bench.count(&Action::Record(Kind::Restart, CRASH)), crashes);
        assert_eq!(
            bench
                .done
                .iter()
                .filter(|(_, done)| matches!(done, Action::SayLoop { .. }))
                .count(),
            1
        );
        assert_eq!(bench.count(&Action::Reboot), 0);
    }

    #[test]
    fn a_loop_ends_in_a_reboot_where_that_is_allowed_and_not_used_up() {
        let fail_for_an_hour = |reboots_used| {
            let escalation = Escalation {
                reboot_allowed: true,
                reboots_used,
                ..Escalation::default()
            };
            let mut bench = Bench::new(escalation);
            while bench.now < Duration::from_secs(3600) && *bench.policy.state() != State::Down {
                bench.serve();
                bench.on(Event::Exited(CRASH));
            }
            bench
        };
        let fresh = fail_for_an_hour(0);
        assert_eq!(fresh.count(&Action::Reboot), 1);
        assert_eq!(fresh.count(&Action::Spawn), 8);
        assert_eq!(fresh.count(&Action::Record(Kind::Reboot, CRASH)), 1);
        assert!(fresh.now > Duration::from_secs(90));
        assert_eq!(fail_for_an_hour(2).count(&Action::Reboot), 1);
        assert_eq!(fail_for_an_hour(3).count(&Action::Reboot), 0);
    }

    #[test]
    fn a_loop_in_a_trial_reboots_at_once_into_the_rollback() {
        let mut bench = Bench::new(Escalation {
            in_trial: true,
            ..Escalation::default()
        });
        while *bench.policy.state() != State::Down {
            bench.serve();
            bench.on(Event::Exited(CRASH));
        }
        assert_eq!(bench.count(&Action::Spawn), 5);
        assert!(bench.now < Duration::from_secs(30));
    }

    #[test]
    fn a_stop_ends_in_good_order_and_a_deaf_server_is_killed() {
        let mut bench = Bench::new(Escalation::default());
        bench.serve();
        assert_eq!(bench.on(Event::StopAsked), [Action::Terminate]);
        bench.run(Duration::from_secs(9), false);
        assert_eq!(bench.count(&Action::Kill), 0);
        bench.run(Duration::from_secs(2), false);
        assert_eq!(bench.count(&Action::Kill), 1);
        assert_eq!(
            bench.on(Event::Exited(Cause::Killed { signal: 9 })),
            [Action::Finish]
        );
        assert!(bench.on(Event::StopAsked).is_empty());
    }

    #[test]
    fn a_stop_during_a_restart_wins() {
        let mut bench = Bench::new(Escalation::default());
        bench.serve();
        assert_eq!(bench.on(Event::Grown { rss_mib: 300 }), [Action::Terminate]);
        bench.on(Event::StopAsked);
        assert_eq!(
            bench.on(Event::Exited(Cause::Exited { code: 0 })),
            [Action::Finish]
        );

        let mut waiting = Bench::new(Escalation::default());
        assert_eq!(waiting.on(Event::StopAsked), [Action::Finish]);
    }

    #[test]
    fn a_grown_server_is_replaced_and_the_reason_is_its_size() {
        let mut bench = Bench::new(Escalation::default());
        bench.serve();
        bench.on(Event::Grown { rss_mib: 300 });
        let actions = bench.on(Event::Exited(Cause::Exited { code: 0 }));
        assert_eq!(
            actions,
            [Action::Record(
                Kind::Restart,
                Cause::MemoryGrown { rss_mib: 300 }
            )]
        );
        assert_eq!(bench.on(Event::Tick), [Action::FeedWatchdog, Action::Spawn]);
    }

    #[test]
    fn a_pause_of_the_whole_machine_is_nobodys_fault() {
        let mut bench = Bench::new(Escalation::default());
        bench.serve();
        bench.run(Duration::from_secs(5), true);
        bench.now += Duration::from_secs(3600);
        bench.on(Event::Tick);
        bench.run(Duration::from_secs(5), true);
        assert_eq!(bench.count(&Action::Kill), 0);
    }

    #[test]
    fn a_server_that_cannot_be_started_is_tried_again_slower() {
        let mut bench = Bench::new(Escalation::default());
        for _ in 0..6 {
            bench.start();
            bench.on(Event::SpawnFailed("no such file".to_owned()));
        }
        assert_eq!(
            *bench.policy.state(),
            State::Waiting {
                until: bench.now + LADDER[5]
            }
        );
    }

    #[test]
    fn what_cannot_happen_is_an_error_and_changes_nothing() {
        let mut bench = Bench::new(Escalation::default());
        let before = bench.policy.state().clone();
        let error = bench
            .policy
            .on(Event::Exited(CRASH), bench.now)
            .unwrap_err();
        assert!(error.to_string().contains("Exited"), "{error}");
        assert_eq!(*bench.policy.state(), before);
    }
}
