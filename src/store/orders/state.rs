//! The life of an order.
//!
//! ```text
//!              accepted ──────► in_progress ─────► ready
//!             ▲    │  device has it   │ work began   │ to be handed over
//!             │    ▼                  ▼              ▼
//!  received ──┴────────────────► done: the command was carried out, or a person said so
//!     │
//!     ├──► failed: the device could not       ┐ from every open state
//!     ├──► cancelled: a person said so        ┘
//!     └──► expired: no device took it in time   (from received and accepted)
//!
//!  expired ──► done | failed: the device was out of reach, and proves late what became of it
//! ```
//! Steps forward may be left out: a printer knows no "in progress".

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// The box has it, durably.
    Received,
    /// A device has taken it.
    Accepted,
    /// Somebody works on it.
    InProgress,
    /// It waits to be handed over.
    Ready,
    /// Finished.
    Done,
    /// The device could not carry it out.
    Failed,
    /// No device took it in time.
    Expired,
    /// Withdrawn by a person.
    Cancelled,
}

/// A step the machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {from} cannot become {to}")]
pub struct AdvanceOrderError {
    /// Where the order stands.
    pub from: OrderState,
    /// Where it was to go.
    pub to: OrderState,
}

impl OrderState {
    /// All states, in the order of their stored numbers.
    pub const ALL: [Self; 8] = [
        Self::Received,
        Self::Accepted,
        Self::InProgress,
        Self::Ready,
        Self::Done,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The state after the step to `to`. A step to where the order stands already changes nothing and is no error.
    ///
    /// # Errors
    /// [`AdvanceOrderError`] for every step that is not drawn above.
    pub fn advance(self, to: Self) -> Result<Self, AdvanceOrderError> {
        use OrderState::{Accepted, Cancelled, Done, Expired, Failed, InProgress, Ready, Received};
        match (self, to) {
            (from, to) if from == to => Ok(to),
            (Received, Accepted | InProgress | Ready | Done | Failed | Expired | Cancelled)
            | (Accepted, InProgress | Ready | Done | Failed | Expired | Cancelled)
            | (InProgress, Ready | Done | Failed | Cancelled)
            | (Ready, Done | Failed | Cancelled)
            | (Expired, Done | Failed) => Ok(to),
            (from, to) => Err(AdvanceOrderError { from, to }),
        }
    }

    /// Whether nothing more is to be done for the order.
    #[must_use]
    pub fn is_closed(self) -> bool {
        matches!(
            self,
            Self::Done | Self::Failed | Self::Expired | Self::Cancelled
        )
    }

    /// The name used in JSON, paths and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Accepted => "accepted",
            Self::InProgress => "in_progress",
            Self::Ready => "ready",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The number under which the database keeps it.
    pub(super) fn number(self) -> i64 {
        self as i64
    }

    /// The state kept under `number`.
    pub(super) fn numbered(number: i64) -> Option<Self> {
        usize::try_from(number)
            .ok()
            .and_then(|number| Self::ALL.get(number).copied())
    }
}

impl fmt::Display for OrderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_states_is_decided_as_drawn() {
        use OrderState::*;
        let drawn: &[(OrderState, &[OrderState])] = &[
            (
                Received,
                &[
                    Accepted, InProgress, Ready, Done, Failed, Expired, Cancelled,
                ],
            ),
            (
                Accepted,
                &[InProgress, Ready, Done, Failed, Expired, Cancelled],
            ),
            (InProgress, &[Ready, Done, Failed, Cancelled]),
            (Ready, &[Done, Failed, Cancelled]),
            (Done, &[]),
            (Failed, &[]),
            (Expired, &[Done, Failed]),
            (Cancelled, &[]),
        ];
        for (from, targets) in drawn {
            for to in OrderState::ALL {
                let expected = if targets.contains(&to) || *from == to {
                    Ok(to)
                } else {
                    Err(AdvanceOrderError { from: *from, to })
                };
                assert_eq!(from.advance(to), expected);
            }
        }
    }

    #[test]
    fn names_and_numbers_lead_back() {
        for state in OrderState::ALL {
            assert_eq!(OrderState::by_name(state.name()), Some(state));
            assert_eq!(OrderState::numbered(state.number()), Some(state));
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{state}\"")
            );
        }
        assert_eq!(OrderState::numbered(8), None);
        assert_eq!(OrderState::numbered(-1), None);
    }
}
