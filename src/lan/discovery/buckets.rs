//! How often the box answers: two token buckets, one for each source and one for all.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Answers a second to one source, and at once.
const PER_SOURCE: u32 = 2;

/// Answers a second to all sources together, and at once.
const OVERALL: u32 = 20;

/// Sources remembered. A bucket that is full again is forgotten, and [`OVERALL`] keeps the others few, so that this bound
/// is never what refuses an honest source.
const SOURCES_LIMIT: usize = 256;

/// What is left of the right to be answered. Times are monotonic.
#[derive(Debug)]
pub struct Buckets {
    overall: Bucket,
    sources: HashMap<Ipv4Addr, Bucket>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            overall: Bucket::full(OVERALL),
            sources: HashMap::new(),
        }
    }
}

impl Buckets {
    /// Takes one answer for `source`, if there is one left.
    pub fn take(&mut self, source: Ipv4Addr, now: Duration) -> bool {
        if !self.overall.has_one(now) {
            return false;
        }
        if !self.sources.contains_key(&source) {
            if self.sources.len() >= SOURCES_LIMIT {
                self.sources.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.sources.len() >= SOURCES_LIMIT {
                return false;
            }
        }
        let bucket = self
            .sources
            .entry(source)
            .or_insert_with(|| Bucket::full(PER_SOURCE));
        if !bucket.has_one(now) {
            return false;
        }
        bucket.take_one();
        self.overall.take_one();
        true
    }
}

/// Holds up to a second's worth of tokens, and gets as many back a second.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn full(per_second: u32) -> Self {
        Self {
            per_second,
            tokens: f64::from(per_second),
            at: Duration::ZERO,
        }
    }

    fn refill(&mut self, now: Duration) {
        let most = f64::from(self.per_second);
        let gained = now.saturating_sub(self.at).as_secs_f64() * most;
        self.tokens = (self.tokens + gained).min(most);
        self.at = self.at.max(now);
    }

    fn has_one(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= 1.0
    }

    fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= f64::from(self.per_second)
    }

    fn take_one(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n)
    }

    #[test]
    fn one_source_gets_two_answers_a_second() {
        let mut buckets = Buckets::default();
        let mut given = 0;
        for ms in 0..10_000 {
            given += u32::from(buckets.take(source(1), Duration::from_millis(ms)));
        }
        assert!((20..=22).contains(&given), "{given} answers in 10 s");
    }

    #[test]
    fn all_sources_together_get_twenty_answers_a_second() {
        let mut buckets = Buckets::default();
        let mut given = 0;
        for ms in 0..10_000_u32 {
            given += u32::from(buckets.take(source(ms), Duration::from_millis(ms.into())));
        }
        assert!((200..=220).contains(&given), "{given} answers in 10 s");
    }

    #[test]
    fn a_million_spoofed_sources_cost_a_bounded_table() {
        let mut buckets = Buckets::default();
        for n in 0..1_000_000_u32 {
            buckets.take(source(n), Duration::from_micros(u64::from(n) * 10));
        }
        assert!(buckets.sources.len() <= SOURCES_LIMIT);
        let later = Duration::from_secs(12);
        assert!(
            buckets.take(source(5), later),
            "an honest source afterwards"
        );
    }
}
