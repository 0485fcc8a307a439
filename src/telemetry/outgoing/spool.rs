//! What waits to be sent: in memory first, on disk when it waits long.
//!
//! A record gets its wall time when it leaves the memory, not when it is told: a box that starts in 1970 knows better by then.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use super::record::{Fresh, Record, Word};
use super::ring::{Found, Mark, OpenRingError, Ring, SEGMENT};
use crate::units::ByteSize;

/// Records in memory at most; then they are spilled, or the oldest dropped where the disk takes none.
pub const MEMORY_RECORDS: usize = 512;
/// Spilled in a day at most: a storm of events must not wear the flash out.
pub const DAILY_SPILL: ByteSize = ByteSize::mib(16);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a stream may keep, and how long it keeps it off the disk.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// On disk.
    pub disk: ByteSize,
    /// In memory, after which it goes to the disk.
    pub spill_after: Duration,
}

/// When something was told, as well as it can be said now.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// How well that is known.
    pub quality: Word,
}

/// What became of records, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Dropped: the oldest at a bound, or too long.
    pub dropped: u64,
    /// Torn tails.
    pub torn: u64,
    /// Damaged segments.
    pub damaged: u64,
}

/// A batch to send: the records' JSON, oldest first.
#[derive(Debug)]
pub struct Batch {
    /// One JSON object each.
    pub records: Vec<Vec<u8>>,
    from: From,
}

#[derive(Debug, Clone, Copy)]
enum From {
    Disk(Mark),
    Memory { up_to: u64 },
}

struct Waiting {
    number: u64,
    fresh: Fresh,
}

/// What a spool can't know by itself.
pub struct Moment<'a> {
    /// Now.
    pub now: Instant,
    /// When something was told that was told so long ago.
    pub stamp: &'a dyn Fn(Duration) -> Stamp,
    /// Whether the disk has room for so many bytes beside what orders need.
    pub may_write: &'a dyn Fn(u64) -> bool,
}

impl Moment<'_> {
    /// The record as it is kept and sent: its time is as good as it can be said now.
    fn write(&self, fresh: &Fresh) -> Vec<u8> {
        let stamp = (self.stamp)(self.now.saturating_duration_since(fresh.told));
        let record = Record {
            id: fresh.id.clone(),
            at_ms: stamp.at_ms,
            time: stamp.quality,
            level: fresh.level,
            event: fresh.event.clone(),
            version: fresh.version.clone(),
            fields: fresh
                .fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        serde_json::to_vec(&record).expect("a record has text keys and scalar values only")
    }
}

/// One stream's waiting records.
pub struct Spool {
    memory: VecDeque<Waiting>,
    ring: Option<Ring>,
    bounds: Bounds,
    counts: SpoolCounts,
    next: u64,
    /// Part of the memory is on its way; it must not be spilled as well.
    on_its_way: bool,
    /// Start of the day that counts, and what was spilled in it.
    spilled: (Instant, u64),
}

impl Spool {
    /// Opens the ring in `dir`. Without a usable disk the stream lives in memory, and the error is returned beside.
    #[must_use]
    pub fn open(dir: &Path, bounds: Bounds, now: Instant) -> (Self, Option<OpenRingError>) {
        let mut spool = Self {
            memory: VecDeque::new(),
            ring: None,
            bounds,
            counts: SpoolCounts::default(),
            next: 0,
            on_its_way: false,
            spilled: (now, 0),
        };
        match Ring::open(dir, bounds.disk) {
            Ok((ring, found)) => {
                spool.ring = Some(ring);
                spool.count(found);
                (spool, None)
            }
            Err(error) => (spool, Some(error)),
        }
    }

    fn count(&mut self, found: Found) {
        self.counts.dropped += found.dropped;
        self.counts.torn += found.torn;
        self.counts.damaged += found.damaged;
    }

    /// What became of records.
    #[must_use]
    pub const fn counts(&self) -> SpoolCounts {
        self.counts
    }

    /// Records that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::records) + self.memory.len() as u64
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::bytes)
    }

    /// Takes a record in.
    pub(crate) fn take(&mut self, fresh: Fresh) {
        let number = self.next;
        self.next += 1;
        self.memory.push_back(Waiting { number, fresh });
    }

    /// Spills what has waited long enough or is too much.
    pub fn tend(&mut self, moment: &Moment<'_>) {
        let is_late = self.memory.front().is_some_and(|oldest| {
            moment.now.saturating_duration_since(oldest.fresh.told) >= self.bounds.spill_after
        });
        let is_much = self.memory.len() > MEMORY_RECORDS;
        if (is_late || is_much) && !self.on_its_way {
            self.spill(moment);
        }
        while self.memory.len() > MEMORY_RECORDS {
            self.memory.pop_front();
            self.counts.dropped += 1;
        }
    }

    /// Puts everything on the disk, at the end of the process.
    pub fn close(&mut self, moment: &Moment<'_>) {
        self.spill(moment);
    }

    /// All of the memory, a segment's worth a write.
    fn spill(&mut self, moment: &Moment<'_>) {
        if moment.now.saturating_duration_since(self.spilled.0) >= DAY {
            self.spilled = (moment.now, 0);
        }
        while !self.memory.is_empty() && self.spill_some(moment) {}
    }

    /// False when the disk, or the day's share of it, takes no more: the rest stays in memory, whose bound holds.
    fn spill_some(&mut self, moment: &Moment<'_>) -> bool {
        let Some(ring) = &mut self.ring else {
            return false;
        };
        let (mut records, mut bytes) = (Vec::new(), 0);
        for waiting in &self.memory {
            let json = moment.write(&waiting.fresh);
            bytes += json.len() as u64;
            records.push(json);
            if bytes >= SEGMENT.as_u64() {
                break;
            }
        }
        if self.spilled.1 + bytes > DAILY_SPILL.as_u64() || !(moment.may_write)(bytes) {
            return false;
        }
        match ring.append(&records) {
            Ok(found) => {
                self.memory.drain(..records.len());
                self.spilled.1 += bytes;
                self.count(found);
                true
            }
            Err(error) => {
                // A full or failing disk has conditions of its own.
                tracing::debug!(event = "outgoing.spill_failed", %error);
                false
            }
        }
    }

    /// The oldest records, if there is a full batch of them or the oldest has waited for `linger`.
    pub fn next_batch(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        linger: Duration,
        moment: &Moment<'_>,
    ) -> Option<Batch> {
        if let Some(ring) = &mut self.ring {
            let (records, mark, found) = ring.oldest(max_records, max_bytes);
            self.count(found);
            if let Some(mark) = mark {
                let from = From::Disk(mark);
                return Some(Batch { records, from });
            }
        }
        let oldest = self.memory.front()?;
        let is_due = self.memory.len() >= max_records
            || moment.now.saturating_duration_since(oldest.fresh.told) >= linger;
        if !is_due {
            return None;
        }
        let (mut records, mut total, mut up_to) = (Vec::new(), 0, 0);
        for waiting in self.memory.iter().take(max_records) {
            let json = moment.write(&waiting.fresh);
            if !records.is_empty() && total + json.len() > max_bytes {
                break;
            }
            total += json.len();
            up_to = waiting.number;
            records.push(json);
        }
        self.on_its_way = true;
        let from = From::Memory { up_to };
        Some(Batch { records, from })
    }

    /// The batch needs to wait no longer: it was taken, or refused for good.
    pub fn done(&mut self, batch: &Batch) {
        self.on_its_way = false;
        match batch.from {
            From::Disk(mark) => {
                if let Some(ring) = &mut self.ring {
                    ring.forget(mark);
                }
            }
            From::Memory { up_to } => {
                while self
                    .memory
                    .front()
                    .is_some_and(|oldest| oldest.number <= up_to)
                {
                    self.memory.pop_front();
                }
            }
        }
    }

    /// The batch was not taken; it waits on.
    pub fn keep(&mut self) {
        self.on_its_way = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Level, Version};
    use super::*;

    const LINGER: Duration = Duration::from_secs(10);

    struct Bench {
        dir: tempfile::TempDir,
        start: Instant,
        spool: Spool,
    }

    impl Bench {
        fn new() -> Self {
            let (dir, start) = (tempfile::tempdir().unwrap(), Instant::now());
            let (spool, error) = Spool::open(dir.path(), bounds(), start);
            assert!(error.is_none());
            Self { dir, start, spool }
        }

        fn tell(&mut self, from: usize, to: usize) {
            for n in from..to {
                let fresh = Fresh {
                    told: self.start,
                    id: format!("r-{n}"),
                    level: Level::Info,
                    event: Word::new("test.told").unwrap(),
                    version: Version::new("0.1.0").unwrap(),
                    fields: Vec::new(),
                };
                self.spool.take(fresh);
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn batch(&mut self, seconds: u64) -> Option<Batch> {
            let moment = moment(self.at(seconds), true);
            self.spool.next_batch(100, 100_000, LINGER, &moment)
        }

        fn tend(&mut self, seconds: u64, may_write: bool) {
            let moment = moment(self.at(seconds), may_write);
            self.spool.tend(&moment);
        }

        fn start_again(&mut self) {
            self.spool = Spool::open(self.dir.path(), bounds(), self.start).0;
        }
    }

    fn moment(now: Instant, may_write: bool) -> Moment<'static> {
        Moment {
            now,
            stamp: &|age| Stamp {
                at_ms: 1_000_000 - i64::try_from(age.as_millis()).unwrap(),
                quality: Word::new("good").unwrap(),
            },
            may_write: if may_write { &|_| true } else { &|_| false },
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            disk: ByteSize::kib(256),
            spill_after: Duration::from_secs(300),
        }
    }

    fn ids(batch: &Batch) -> Vec<String> {
        batch
            .records
            .iter()
            .map(|json| serde_json::from_slice::<Record>(json).unwrap().id)
            .collect()
    }

    #[test]
    fn what_is_taken_in_time_never_touches_the_disk() {
        let mut bench = Bench::new();
        bench.tell(0, 3);
        assert!(bench.batch(1).is_none(), "it lingers for company");
        let batch = bench.batch(10).unwrap();
        assert_eq!(ids(&batch), ["r-0", "r-1", "r-2"]);
        let record: Record = serde_json::from_slice(&batch.records[0]).unwrap();
        assert_eq!(
            record.at_ms, 990_000,
            "ten seconds ago, by the clock of now"
        );
        bench.tend(1000, true);
        assert_eq!(bench.spool.disk_bytes(), 0, "it is on its way");
        bench.spool.done(&batch);
        assert_eq!(bench.spool.waiting(), 0);
    }

    #[test]
    fn what_waits_long_is_spilled_in_one_write_and_survives_a_start_in_order() {
        let mut bench = Bench::new();
        bench.tell(0, 2);
        let batch = bench.batch(20).unwrap();
        bench.spool.keep();
        drop(batch);
        bench.tend(300, true);
        assert!(bench.spool.disk_bytes() > 0);
        bench.tell(2, 3);
        let end = moment(bench.at(300), true);
        bench.spool.close(&end);
        bench.start_again();
        bench.tell(3, 4);
        let batch = bench.batch(0).unwrap();
        assert_eq!(ids(&batch), ["r-0", "r-1", "r-2"]);
        bench.spool.done(&batch);
        let batch = bench.batch(20).unwrap();
        assert_eq!(ids(&batch), ["r-3"]);
        bench.spool.done(&batch);
        assert_eq!((bench.spool.waiting(), bench.spool.disk_bytes()), (0, 0));
    }

    #[test]
    fn without_room_on_the_disk_memory_is_bounded_and_the_oldest_go() {
        let mut bench = Bench::new();
        bench.tell(0, MEMORY_RECORDS + 7);
        bench.tend(9999, false);
        assert_eq!(bench.spool.waiting(), MEMORY_RECORDS as u64);
        assert_eq!(bench.spool.counts().dropped, 7);
        assert_eq!(ids(&bench.batch(20).unwrap())[0], "r-7");
    }

    #[test]
    fn a_storm_wears_the_flash_no_more_than_its_daily_share() {
        let mut bench = Bench::new();
        let mut rounds = 0;
        while bench.spool.spilled.1 + 100_000 < DAILY_SPILL.as_u64() {
            bench.tell(0, MEMORY_RECORDS + 1);
            bench.tend(0, true);
            rounds += 1;
            assert!(rounds < 1000, "each round spills");
        }
        bench.tell(0, 4 * MEMORY_RECORDS);
        bench.tend(0, true);
        assert!(bench.spool.spilled.1 <= DAILY_SPILL.as_u64());
        assert!(bench.spool.counts().dropped > 0);
        bench.tend(24 * 3600, true);
        assert!(
            bench.spool.spilled.1 < 200_000,
            "the next day has its own share"
        );
    }
}
