//! The cap of the rate: a bucket of bytes that fills at the rate and holds one second's worth.

use std::time::Duration;

use crate::units::ByteSize;

/// The bucket. Time is handed in, monotonic.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// When it would be full.
    full_at: Duration,
}

/// How much it holds.
const DEPTH: Duration = Duration::from_secs(1);

impl Bucket {
    /// A full bucket that fills at `rate` bytes a second.
    pub(super) fn new(rate: ByteSize) -> Self {
        Self {
            rate: rate.as_u64().max(1),
            full_at: Duration::ZERO,
        }
    }

    /// Takes `bytes` that came at `now`; how long to wait before the next ones are asked for.
    pub(super) fn take(&mut self, bytes: usize, now: Duration) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now).saturating_add(cost);
        self.full_at.saturating_sub(now).saturating_sub(DEPTH)
    }

    /// Bytes worth reading at a time, so that waits stay short.
    pub(super) fn sip(&self, most: usize) -> usize {
        usize::try_from(self.rate / 4)
            .unwrap_or(usize::MAX)
            .clamp(256, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_an_hour_is_an_hour_of_the_rate_and_the_buckets_depth() {
        let mut bucket = Bucket::new(ByteSize::kib(100));
        let (hour, mut now, mut bytes) = (Duration::from_secs(3600), Duration::ZERO, 0_u64);
        while now < hour {
            bytes += 16_384;
            now += bucket.take(16_384, now);
        }
        let seconds = bytes / (100 << 10);
        assert!((3600..=3601).contains(&seconds), "{seconds}");
    }

    #[test]
    fn an_idle_hour_saves_up_one_second_and_no_more() {
        let mut bucket = Bucket::new(ByteSize::bytes(1000));
        let later = Duration::from_secs(3600);
        assert_eq!(bucket.take(1000, later), Duration::ZERO);
        assert_eq!(bucket.take(1000, later), Duration::from_secs(1));
        assert_eq!(bucket.sip(64 << 10), 256);
        assert_eq!(Bucket::new(ByteSize::mib(100)).sip(64 << 10), 64 << 10);
    }
}
