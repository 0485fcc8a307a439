//! What time it is, on a box that may have no clock chip and may speak HTTPS only.
//!
//! ```text
//!  floor: image's release, what was kept on the data partition --.
//!  the machine's clock, when it is not below the floor ----------+--> unset | floor     (nobody vouches)
//!  `Date` of authenticated answers of the contract's hosts ------+--> weak (one host) | good (two agree)
//! ```
//! [`PlatformTime`] is monotonic time on a base, and the base moves only by a [`vote`]: what happens to the machine's clock
//! meanwhile does not matter. It is the [`Clock`] of every room, what TLS judges certificates by, and what signatures
//! expire by. A small correction is taken where it is seen; a large one ([`NEAR`]) only by the [`worker`], which asks the
//! hosts anew, checks that the new time lies inside the validity of their certificates, and moves what the store stamped
//! meanwhile, so that a jump neither expires open commands nor forgets what is kept for 30 days. Until two hosts have
//! agreed, what an earlier start stamped is judged by the floor ([`Clock::reckoning`]): a clock that is ahead makes
//! nothing old.

pub mod floor;
pub mod hand_over;
mod vote;
pub(super) mod worker;

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Serialize;

use super::contract::FlowId;
use super::egress::Answer;
use crate::clock::{Clock, Reckoning, SystemClock, rfc3339};
use floor::Floor;
use vote::{Sample, Vote};

/// A host whose answer took longer says too little about when it wrote the `Date`.
pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(2);
/// Corrections up to this are taken at once; beyond it certificates, deadlines and what is kept are concerned.
pub const NEAR: Duration = Duration::from_secs(600);

/// A time that was off by less makes no signature wrong.
const WORTH_ASKING_AGAIN: Duration = Duration::from_secs(60);

/// What two hosts agreed on stands against one host's word this long; then the box's own drift counts for more.
pub const GOOD_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How well the time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Not at all: the machine's clock as it is, and nobody vouches for it.
    Unset,
    /// The machine's clock was earlier than it can be: the box goes by the earliest it can be.
    Floor,
    /// One host of the contract said so.
    Weak,
    /// Two hosts of the contract agree.
    Good,
}

/// How the time stands, for people.
#[derive(Debug, Clone, Serialize)]
pub struct TimeStatus {
    /// How well it is known.
    pub quality: Quality,
    /// RFC 3339.
    pub now: String,
    /// How far the machine's clock is ahead, in milliseconds.
    pub machine_ahead_ms: i64,
    /// Since a host confirmed it.
    pub confirmed_s_ago: Option<u64>,
}

/// The box's best time. Clones share it.
#[derive(Clone)]
pub struct PlatformTime(Arc<Shared>);

struct Shared {
    machine: Arc<dyn Clock>,
    /// Best time less monotonic time, in milliseconds.
    base_ms: AtomicI64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    quality: Quality,
    /// The floor less the monotonic time at which it was taken: it rises with time.
    floor_base_ms: i64,
    /// When this start began, monotonic: stamps since then are by our base.
    started_ms: i64,
    samples: Vec<Sample>,
    /// Monotonic.
    confirmed_at: Option<Duration>,
    /// Two hosts agreed last at this monotonic time.
    good_at: Duration,
    /// Stamps since this wall time were made by a time that nobody vouched for.
    unsure_since_ms: Option<i64>,
    /// Somebody saw that the hosts should be asked.
    wants_round: bool,
    /// Rounds that ended.
    rounds: u64,
}

/// The time as something was signed by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    base_ms: i64,
    rounds: u64,
}

/// A correction too large to be taken on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Stamps from here on are concerned (wall time by the old base).
    pub(super) since_ms: i64,
    /// By how much the time moves.
    pub(super) delta_ms: i64,
    vote: Vote,
}

impl State {
    fn quality(&self, now: Duration) -> Quality {
        if self.quality == Quality::Good && now.saturating_sub(self.good_at) > GOOD_LIFE {
            Quality::Weak
        } else {
            self.quality
        }
    }
}

impl PlatformTime {
    /// Begins with the machine's clock and no floor.
    #[must_use]
    pub fn new(machine: Arc<dyn Clock>) -> Self {
        Self::starting(machine, None)
    }

    /// Begins with the machine's clock, or with `floor` when that is later.
    #[must_use]
    pub fn above(floor: Floor, machine: Arc<dyn Clock>) -> Self {
        Self::starting(machine, Some(floor))
    }

    /// The machine's own clock, for a program that asks once and ends.
    #[must_use]
    pub fn of_system() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }

    fn starting(machine: Arc<dyn Clock>, floor: Option<Floor>) -> Self {
        let (wall_ms, monotonic_ms) = (machine.wall_ms(), milliseconds(machine.monotonic()));
        let floor_ms = floor.map_or(i64::MIN, |floor| floor.at_ms);
        let start_ms = wall_ms.max(floor_ms);
        let state = State {
            quality: if wall_ms < floor_ms {
                Quality::Floor
            } else {
                Quality::Unset
            },
            floor_base_ms: floor_ms.saturating_sub(monotonic_ms),
            started_ms: monotonic_ms,
            samples: Vec::new(),
            confirmed_at: None,
            good_at: Duration::ZERO,
            unsure_since_ms: Some(
                floor
                    .and_then(|floor| floor.unsure_since_ms)
                    .map_or(start_ms, |since_ms| since_ms.min(start_ms)),
            ),
            wants_round: false,
            rounds: 0,
        };
        Self(Arc::new(Shared {
            base_ms: AtomicI64::new(start_ms - monotonic_ms),
            machine,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }))
    }

    /// Now, in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        let base_ms = self.0.base_ms.load(Ordering::Relaxed);
        base_ms.saturating_add(self.monotonic_ms())
    }

    /// The same in whole seconds.
    #[must_use]
    pub fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// How well it is known.
    #[must_use]
    pub fn quality(&self) -> Quality {
        let now = self.0.machine.monotonic();
        self.lock().quality(now)
    }

    /// How it stands, for people.
    #[must_use]
    pub fn status(&self) -> TimeStatus {
        let quality = self.quality();
        let confirmed_at = self.lock().confirmed_at;
        let now_ms = self.now_ms();
        TimeStatus {
            quality,
            now: rfc3339(now_ms).unwrap_or_default(),
            machine_ahead_ms: self.machine_ahead_ms(),
            confirmed_s_ago: confirmed_at
                .map(|at| self.0.machine.monotonic().saturating_sub(at).as_secs()),
        }
    }

    /// How far the machine's clock is ahead.
    #[must_use]
    pub fn machine_ahead_ms(&self) -> i64 {
        self.0.machine.wall_ms().saturating_sub(self.now_ms())
    }

    /// The earliest it can be.
    #[must_use]
    pub fn floor_ms(&self) -> i64 {
        let monotonic_ms = self.monotonic_ms();
        self.lock().floor_base_ms.saturating_add(monotonic_ms)
    }

    /// To hand to [`Self::observe`] with the answer: taken just before the request.
    #[must_use]
    pub fn asked(&self) -> Duration {
        self.0.machine.monotonic()
    }

    /// Hears what an answer says by the way, that TLS has authenticated and that was received just now. What is far from
    /// the present time is not believed, but a reason to ask: then true.
    pub fn observe(&self, flow: FlowId, answer: &Answer, asked: Duration) -> bool {
        let answered = self.0.machine.monotonic();
        let Some(sample) = read(flow, answer, asked, answered) else {
            return false;
        };
        let base_ms = self.0.base_ms.load(Ordering::Relaxed);
        let is_far = sample.base_ms.abs_diff(base_ms) > milliseconds(NEAR).unsigned_abs()
            || self.consider(sample).is_some();
        if is_far {
            self.lock().wants_round = true;
            self.0.changed.notify_all();
        }
        is_far
    }

    /// Takes a host's word into the vote; a correction too large for the way is given back.
    pub(super) fn consider(&self, sample: Sample) -> Option<Step> {
        let now = self.0.machine.monotonic();
        let old_base_ms = self.0.base_ms.load(Ordering::Relaxed);
        let mut state = self.lock();
        if sample.base_ms < state.floor_base_ms.saturating_sub(vote::AGREE_MS) {
            tracing::warn!(
                event = "time.host_below_floor",
                host = sample.flow.flow().name
            );
            return None;
        }
        vote::put(&mut state.samples, sample, now);
        let vote = vote::count(&state.samples)?;
        let delta_ms = vote.base_ms - old_base_ms;
        if vote.quality < state.quality(now) {
            // One host does not move what two agreed on.
            if delta_ms.abs() > vote::AGREE_MS + vote::DRIFT_MS {
                tracing::warn!(event = "time.host_disagrees", delta_ms);
            } else {
                state.confirmed_at = Some(now);
            }
            return None;
        }
        if delta_ms.unsigned_abs() > milliseconds(NEAR).unsigned_abs() {
            let now_ms = milliseconds(now);
            let unsure_since_ms = state
                .unsure_since_ms
                .unwrap_or(old_base_ms.saturating_add(now_ms));
            // An earlier start may have had the right time, and its stamps are then in the past where they belong: only
            // this start's go back, and what lies in the future.
            let started_ms = old_base_ms.saturating_add(state.started_ms);
            let not_before_ms = if delta_ms < 0 {
                started_ms.min(vote.base_ms.saturating_add(now_ms))
            } else {
                i64::MIN
            };
            return Some(Step {
                since_ms: unsure_since_ms.max(not_before_ms),
                delta_ms,
                vote,
            });
        }
        self.adopt(&mut state, vote, now);
        None
    }

    /// The large correction, now that it is prepared.
    pub(super) fn take(&self, step: Step) {
        let now = self.0.machine.monotonic();
        let mut state = self.lock();
        tracing::info!(
            event = "time.stepped",
            delta_ms = step.delta_ms,
            quality = ?step.vote.quality
        );
        self.adopt(&mut state, step.vote, now);
    }

    fn adopt(&self, state: &mut State, vote: Vote, now: Duration) {
        let base_ms = vote.base_ms.max(state.floor_base_ms);
        self.0.base_ms.store(base_ms, Ordering::Relaxed);
        if vote.quality != state.quality {
            tracing::info!(event = "time.known", quality = ?vote.quality);
        }
        state.quality = vote.quality;
        state.confirmed_at = Some(now);
        if vote.quality == Quality::Good {
            state.good_at = now;
            state.unsure_since_ms = None;
        } else {
            state.unsure_since_ms = Some(base_ms.saturating_add(milliseconds(now)));
        }
    }

    /// What is worth keeping for the next start.
    pub(super) fn to_keep(&self) -> Floor {
        let (floor_ms, now_ms) = (self.floor_ms(), self.now_ms());
        let state = self.lock();
        Floor {
            // One host's word is good enough to live by, not to be held to for ever.
            at_ms: if state.quality == Quality::Good {
                now_ms
            } else {
                floor_ms
            },
            unsure_since_ms: state.unsure_since_ms,
        }
    }

    /// Rounds of questions to the hosts that have ended so far.
    pub(super) fn rounds(&self) -> u64 {
        self.lock().rounds
    }

    /// To hand to [`Self::moved_since`]: taken just before something is signed by this time.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            base_ms: self.0.base_ms.load(Ordering::Relaxed),
            rounds: self.rounds(),
        }
    }

    /// Whether a refusal of what was signed at `mark` says that our time was wrong, not the key: it has moved since. That may
    /// have been before the refusal came, or too slow an answer for [`Self::observe`]; while nobody vouches for the time, or
    /// when `is_off` says that the host's is another, the hosts' word about it is waited for, `wait` at most.
    pub(super) fn moved_since(&self, mark: Mark, is_off: bool, wait: Duration) -> bool {
        let has_moved = || {
            let base_ms = self.0.base_ms.load(Ordering::Relaxed);
            base_ms.abs_diff(mark.base_ms) > milliseconds(WORTH_ASKING_AGAIN).unsigned_abs()
        };
        if !has_moved() && (is_off || self.quality() < Quality::Weak) {
            self.lock().wants_round = true;
            self.0.changed.notify_all();
            self.wait_for_round(mark.rounds, wait);
        }
        has_moved()
    }

    /// A round has ended.
    pub(super) fn round_ended(&self) {
        self.lock().rounds += 1;
        self.0.changed.notify_all();
    }

    /// Waits at most `wait` until more than `seen` rounds have ended.
    pub(super) fn wait_for_round(&self, seen: u64, wait: Duration) {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.lock(), wait, |state| state.rounds == seen);
        drop(waited.expect("no holder of this lock panics"));
    }

    /// Waits at most `wait` until a round is wanted; takes the wish.
    pub(super) fn wait_for_wish(&self, wait: Duration) -> bool {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.lock(), wait, |state| !state.wants_round);
        let (mut state, _) = waited.expect("no holder of this lock panics");
        std::mem::take(&mut state.wants_round)
    }

    fn monotonic_ms(&self) -> i64 {
        milliseconds(self.0.machine.monotonic())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder of this lock panics")
    }
}

impl Clock for PlatformTime {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms()).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.machine.monotonic()
    }

    fn reckoning(&self) -> Reckoning {
        let monotonic_ms = self.monotonic_ms();
        let state = self.lock();
        let base_ms = self.0.base_ms.load(Ordering::Relaxed);
        let now_ms = base_ms.saturating_add(monotonic_ms);
        // The vote itself, not how old it is: what two agreed on drifts by seconds and jumps nowhere.
        if state.quality == Quality::Good {
            return Reckoning::by(now_ms);
        }
        Reckoning {
            now_ms,
            since_ms: base_ms.saturating_add(state.started_ms),
            earliest_ms: state.floor_base_ms.saturating_add(monotonic_ms).min(now_ms),
        }
    }
}

impl fmt::Debug for PlatformTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformTime({} ms)", self.now_ms())
    }
}

/// What an answer says of the time, if it may be believed at all: not a cache's answer, not a page for people, not one
/// that took so long that its `Date` may be of any moment.
pub(super) fn read(
    flow: FlowId,
    answer: &Answer,
    asked: Duration,
    answered: Duration,
) -> Option<Sample> {
    let is_page = (300..400).contains(&answer.status()) || answer.is_of_type("text/html");
    let round_trip = answered.saturating_sub(asked);
    if is_page || answer.header("age").is_some() || round_trip > MAX_ROUND_TRIP {
        return None;
    }
    let date = answer.date()?.duration_since(UNIX_EPOCH).ok()?;
    // `Date` has whole seconds: the middle of its second is the best guess.
    let date_ms = milliseconds(date).saturating_add(500);
    Some(Sample {
        flow,
        base_ms: date_ms.saturating_sub(milliseconds(asked + round_trip / 2)),
        at: answered,
    })
}

/// Of a duration; the most there are when it is longer.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
