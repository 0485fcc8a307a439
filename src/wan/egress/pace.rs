//! A transfer that never stalls and never ends either: a byte now and then. It is judged by what comes while it is waited
//! for, so that a reader which takes its time (a rate cap, a slow disk) does not count against the line.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::failure::ConnectError;
use super::{Cause, Phase};

/// How much has to come in a stretch of waiting.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    stretch: Duration,
    least_bytes: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) const fn new(stretch: Duration, least_bytes: u64) -> Self {
        Self {
            stretch,
            least_bytes,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// After `waited` more, `bytes` more have come. False when that is too slow.
    fn keeps_up(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < self.stretch {
            return true;
        }
        let kept_up = self.bytes >= self.least_bytes;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        kept_up
    }
}

/// A reader that fails when its bytes come too slowly.
pub(super) struct Paced<R> {
    pub(super) reader: R,
    pub(super) pace: Pace,
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let amount = self.reader.read(buffer)?;
        if amount > 0 && !self.pace.keeps_up(began.elapsed(), amount) {
            let detail = format!(
                "less than {} bytes in {} s",
                self.pace.least_bytes,
                self.pace.stretch.as_secs()
            );
            let error = ConnectError::new(Cause::Slow, Phase::Body, detail);
            return Err(ureq::Error::from(error).into_io());
        }
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_too_slow_and_a_pause_of_the_reader_is_not() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(60 * second, 1000);
        assert!((0..59).all(|_| pace.keeps_up(second, 10)));
        assert!(!pace.keeps_up(second, 10));
        // A burst after a silence makes up for it; the next stretch is judged anew.
        assert!((0..59).all(|_| pace.keeps_up(second, 0)));
        assert!(pace.keeps_up(second, 1000));
        // What waits in the socket already costs no waiting, however late it is read.
        assert!((0..1000).all(|_| pace.keeps_up(Duration::ZERO, 1)));
    }
}
