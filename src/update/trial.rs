//! A trial: the way of a new version from the other slot to being kept, or back. Pure.
//!
//! ```text
//!  Writing ──cut short──▶ forgotten
//!     │ read back
//!     ▼       booted into it, counted          healthy for long enough
//!   Staged ──────────────────────────▶ Running ─────────────────────────▶ Committed
//!     │                                 │  ▲ │
//!     │ booted into the other slot      └──┘ │ booted into the other slot
//!     ▼                     one more try     ▼
//!   RolledBack ◀─────────────────────────────┘
//! ```
//!
//! The boot loader counts the tries and takes the old slot by itself when they are used up; what is decided here is
//! what that means. No wall clock takes part: boots are told apart by the kernel's boot id, waits are monotonic.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::boot::{BootFacts, Slot};

/// A new version on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Where it was written.
    pub slot: Slot,
    /// Which version it is.
    pub version: String,
    /// The version that was running when it was installed.
    pub from_version: String,
    /// The platform answered then: it must answer again before this version is kept.
    #[serde(default)]
    pub platform_was_up: bool,
    /// The boot in which it was installed.
    pub staged_in_boot: String,
    /// How far it has come.
    pub phase: Phase,
    /// What the gate last complained about.
    pub last_failure: Option<String>,
}

/// How far a trial has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Phase {
    /// RAUC is writing it.
    Writing,
    /// Written and read back, not yet booted.
    Staged,
    /// Booted, not yet kept.
    Running {
        /// Boots so far.
        attempt: u32,
    },
    /// Another version wrote it, so that one ran, or was to.
    #[serde(other)]
    Unknown,
}

/// What happened to a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A boot into the trial's slot which the boot loader counts.
    BootedCounted,
    /// A boot into the trial's slot which the boot loader does not count: it is kept already.
    BootedKept,
    /// A boot into another slot.
    BootedOther,
    /// The gate was satisfied and RAUC has kept the slot.
    Kept,
    /// The gate gave up.
    GateFailed(String),
}

/// What is to be remembered after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The trial goes on like this.
    Goes(Trial),
    /// The version is kept.
    Committed,
    /// It was never whole, so nothing is known of the version.
    CutShort,
    /// The version was left again.
    RolledBack {
        /// Why, for people.
        reason: String,
    },
}

/// An event that has no meaning in this phase.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event:?} does not belong to a trial that is {phase:?}")]
pub struct UnexpectedEvent {
    phase: Phase,
    event: Event,
}

impl Trial {
    /// The table.
    ///
    /// # Errors
    /// When the event has no meaning in the present phase.
    pub fn on(&self, event: Event) -> Result<Outcome, UnexpectedEvent> {
        match (self.phase, event) {
            // Also from Writing: the power went between RAUC's last word and ours.
            (Phase::Writing | Phase::Staged | Phase::Unknown, Event::BootedCounted) => {
                Ok(self.running(1))
            }
            (Phase::Writing, Event::BootedOther) => Ok(Outcome::CutShort),
            (Phase::Running { attempt }, Event::BootedCounted) => {
                Ok(self.running(attempt.saturating_add(1)))
            }
            (_, Event::BootedKept) => Ok(Outcome::Committed),
            (Phase::Running { .. }, Event::Kept) => Ok(Outcome::Committed),
            (Phase::Staged, Event::BootedOther) => Ok(Outcome::RolledBack {
                reason: "the new version never came to run".to_owned(),
            }),
            (Phase::Running { attempt }, Event::BootedOther) => {
                let without_gate =
                    || format!("{attempt} boot(s) ended before the gate could judge");
                Ok(Outcome::RolledBack {
                    reason: self.last_failure.clone().unwrap_or_else(without_gate),
                })
            }
            (Phase::Unknown, Event::BootedOther) => {
                let unsaid = || "it was left in a state that this version does not know".to_owned();
                Ok(Outcome::RolledBack {
                    reason: self.last_failure.clone().unwrap_or_else(unsaid),
                })
            }
            (Phase::Running { .. }, Event::GateFailed(why)) => Ok(Outcome::Goes(Self {
                last_failure: Some(why),
                ..self.clone()
            })),
            (phase, event) => Err(UnexpectedEvent { phase, event }),
        }
    }

    /// What a boot means for this trial; `None` when nothing has been booted since the installation.
    #[must_use]
    pub fn event_of_boot(&self, facts: &BootFacts) -> Option<Event> {
        if facts.boot_id == self.staged_in_boot {
            return None;
        }
        Some(match facts.slot.as_ref() {
            Some(slot) if *slot == self.slot && facts.trial => Event::BootedCounted,
            Some(slot) if *slot == self.slot => Event::BootedKept,
            _ => Event::BootedOther,
        })
    }

    fn running(&self, attempt: u32) -> Outcome {
        Outcome::Goes(Self {
            phase: Phase::Running { attempt },
            ..self.clone()
        })
    }
}

/// Holds the gate open until health has lasted, or time is up.
#[derive(Debug)]
pub struct Vigil {
    stability: Duration,
    deadline: Duration,
    healthy_since: Option<Duration>,
    last_problem: Option<String>,
}

/// What the vigil says after a look at the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    Wait,
    /// Healthy for long enough.
    Keep,
    /// Time is up.
    GiveUp {
        /// What was wrong last.
        reason: String,
    },
}

impl Vigil {
    /// Health must last for `stability` without a gap, and must have done so at monotonic time `deadline`.
    #[must_use]
    pub fn new(stability: Duration, deadline: Duration) -> Self {
        Self {
            stability,
            deadline,
            healthy_since: None,
            last_problem: None,
        }
    }

    /// One look: `problem` is what is wrong at `now`, if anything.
    pub fn look(&mut self, problem: Option<String>, now: Duration) -> Verdict {
        match problem {
            Some(problem) => {
                self.healthy_since = None;
                self.last_problem = Some(problem);
            }
            None => {
                let since = *self.healthy_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.stability {
                    return Verdict::Keep;
                }
            }
        }
        if now < self.deadline {
            return Verdict::Wait;
        }
        let short = || "healthy, but not for long enough".to_owned();
        Verdict::GiveUp {
            reason: self.last_problem.clone().unwrap_or_else(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged() -> Trial {
        Trial {
            slot: Slot::named("B"),
            version: "2".into(),
            from_version: "1".into(),
            platform_was_up: false,
            staged_in_boot: "boot-1".into(),
            phase: Phase::Staged,
            last_failure: None,
        }
    }

    fn boot(id: &str, slot: &str, trial: bool) -> BootFacts {
        BootFacts {
            boot_id: id.into(),
            slot: Some(Slot::named(slot)),
            trial,
        }
    }

    fn goes(trial: &Trial, event: Event) -> Trial {
        match trial.on(event).unwrap() {
            Outcome::Goes(trial) => trial,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_version_is_tried_and_kept() {
        let trial = staged();
        assert_eq!(
            trial.event_of_boot(&boot("boot-1", "A", false)),
            None,
            "still the boot that installed it"
        );
        let event = trial.event_of_boot(&boot("boot-2", "B", true)).unwrap();
        let running = goes(&trial, event);
        assert_eq!(running.phase, Phase::Running { attempt: 1 });
        assert_eq!(running.on(Event::Kept), Ok(Outcome::Committed));
    }

    #[test]
    fn a_power_cut_between_keeping_and_remembering_is_still_a_commit() {
        let running = goes(&staged(), Event::BootedCounted);
        let event = running.event_of_boot(&boot("boot-3", "B", false)).unwrap();
        assert_eq!(running.on(event), Ok(Outcome::Committed));
    }

    #[test]
    fn a_rollback_has_the_gates_reason() {
        let running = goes(&staged(), Event::BootedCounted);
        let failed = goes(
            &running,
            Event::GateFailed("port orders does not answer".into()),
        );
        let again = goes(&failed, Event::BootedCounted);
        assert_eq!(again.phase, Phase::Running { attempt: 2 });
        let event = again.event_of_boot(&boot("boot-4", "A", false)).unwrap();
        let reason = "port orders does not answer".to_owned();
        assert_eq!(again.on(event), Ok(Outcome::RolledBack { reason }));
    }

    #[test]
    fn a_version_that_never_ran_is_rolled_back_too() {
        let trial = staged();
        let event = trial.event_of_boot(&boot("boot-2", "A", false)).unwrap();
        assert!(matches!(trial.on(event), Ok(Outcome::RolledBack { .. })));
    }

    #[test]
    fn an_installation_that_was_cut_short_says_nothing_of_the_version() {
        let writing = Trial {
            phase: Phase::Writing,
            ..staged()
        };
        assert_eq!(writing.on(Event::BootedOther), Ok(Outcome::CutShort));
        let running = goes(&writing, Event::BootedCounted);
        assert_eq!(running.phase, Phase::Running { attempt: 1 });
        assert!(writing.on(Event::Kept).is_err());
    }

    #[test]
    fn what_has_no_meaning_is_an_error() {
        assert!(staged().on(Event::Kept).is_err());
        assert!(staged().on(Event::GateFailed("x".into())).is_err());
    }

    #[test]
    fn health_must_last_and_a_gap_starts_it_anew() {
        let second = Duration::from_secs;
        let mut vigil = Vigil::new(second(20), second(600));
        assert_eq!(vigil.look(None, second(0)), Verdict::Wait);
        assert_eq!(vigil.look(None, second(19)), Verdict::Wait);
        assert_eq!(vigil.look(Some("disk".into()), second(20)), Verdict::Wait);
        assert_eq!(vigil.look(None, second(21)), Verdict::Wait);
        assert_eq!(vigil.look(None, second(40)), Verdict::Wait);
        assert_eq!(vigil.look(None, second(41)), Verdict::Keep);
    }

    #[test]
    fn the_deadline_ends_it_with_the_last_problem() {
        let second = Duration::from_secs;
        let mut vigil = Vigil::new(second(20), second(60));
        assert_eq!(vigil.look(Some("disk".into()), second(59)), Verdict::Wait);
        assert_eq!(
            vigil.look(Some("port".into()), second(60)),
            Verdict::GiveUp {
                reason: "port".into()
            }
        );
        let mut late = Vigil::new(second(20), second(60));
        late.look(None, second(50));
        assert!(matches!(
            late.look(None, second(60)),
            Verdict::GiveUp { .. }
        ));
    }
}
