//! A connection that did not come about, on its way through the HTTP client to whoever asked.

use std::time::{Duration, Instant};

use super::{Cause, Evidence, Phase};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct ConnectError {
    pub(super) cause: Cause,
    pub(super) detail: String,
    pub(super) evidence: Box<Evidence>,
}

impl ConnectError {
    pub(super) fn new(cause: Cause, phase: Phase, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            evidence: Box::new(Evidence::at(phase)),
        }
    }

    /// The request was ended from this side.
    pub(super) fn stopped(phase: Phase) -> Self {
        Self::new(Cause::Stopped, phase, "ended from this side")
    }
}

impl From<ConnectError> for ureq::Error {
    fn from(error: ConnectError) -> Self {
        Self::Other(Box::new(error))
    }
}

/// A point in time that a wait may not pass, and what it means when it would.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) at: Instant,
    pub(super) cause: Cause,
}

impl Until {
    /// From now on; the whole request's end comes first when it is nearer.
    pub(super) fn within(limit: Duration, cause: Cause) -> Self {
        let at = Instant::now() + limit;
        match super::total::end() {
            Some(end) if end < at => Self {
                at: end,
                cause: Cause::TotalTimeout,
            },
            _ => Self { at, cause },
        }
    }

    /// Then.
    pub(super) const fn at(at: Instant, cause: Cause) -> Self {
        Self { at, cause }
    }

    /// What is left; zero when it has passed.
    pub(super) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The error of having passed it.
    pub(super) fn passed(self, phase: Phase, detail: impl Into<String>) -> ConnectError {
        ConnectError::new(self.cause, phase, detail)
    }
}
