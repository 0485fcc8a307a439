//! How long to wait before the next try: exponential, capped, with jitter.

use std::time::Duration;

/// Settings of a back-off. A value of this type is valid by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
}

/// Why a back-off was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BackoffError {
    /// Without a first wait the retries would spin.
    #[error("the first wait is zero")]
    ZeroFirst,
    /// The cap lies below the first wait.
    #[error("the longest wait ({max:?}) is shorter than the first ({first:?})")]
    MaxBelowFirst {
        /// The first wait.
        first: Duration,
        /// The cap.
        max: Duration,
    },
}

impl Backoff {
    /// Waits double from `first` up to `max`.
    ///
    /// # Errors
    /// When `first` is zero or `max` is shorter than `first`.
    pub fn new(first: Duration, max: Duration) -> Result<Self, BackoffError> {
        if first.is_zero() {
            return Err(BackoffError::ZeroFirst);
        }
        if max < first {
            return Err(BackoffError::MaxBelowFirst { first, max });
        }
        Ok(Self { first, max })
    }

    /// The longest wait.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        self.max
    }

    /// The wait after `failures` failures in a row (1 = the first), between 50 and 100 % of the exponential value.
    ///
    /// `dice` is a random number; handing it in keeps this pure.
    #[must_use]
    pub fn wait(&self, failures: u32, dice: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1_u32 << doublings).min(self.max);
        full / 2 + (full / 2).mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_settings_that_would_spin() {
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::from_secs(1)),
            Err(BackoffError::ZeroFirst)
        );
        assert!(Backoff::new(Duration::from_secs(2), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn doubles_up_to_the_cap_and_jitters_downwards() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).unwrap();
        assert_eq!(backoff.wait(1, u32::MAX), Duration::from_secs(1));
        assert_eq!(backoff.wait(3, u32::MAX), Duration::from_secs(4));
        assert_eq!(backoff.wait(3, 0), Duration::from_secs(2));
        assert_eq!(backoff.wait(u32::MAX, u32::MAX), Duration::from_secs(60));
    }
}
