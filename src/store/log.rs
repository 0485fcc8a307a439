//! Finding damage in a write-ahead log, and reading past it.
//!
//! SQLite takes a log as far as its chain of checksums holds and forgets the rest in silence: right after a power cut,
//! where the rest was never acknowledged, wrong when a card lost a sector in the middle. With `synchronous=FULL` each
//! commit is on the disk before the next one begins, so a cut leaves at most one commit behind the break; two or more
//! intact commits behind it are damage. Every frame can be checked by itself, from the checksum its predecessor
//! stores, so what is intact behind the break is brought into a copy of the database and salvaged from there.
//!
//! Format: sqlite.org/fileformat2.html, 4 (the write-ahead log); all numbers big-endian.

use std::fs;
use std::io;
use std::path::Path;

use super::db::{PAGE_BYTES, wal_path};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);
const FRAME: usize = FRAME_HEADER + PAGE;
/// The last bit says that checksums are made of big-endian words.
const MAGIC: u32 = 0x377f_0682;
/// Commits behind a break that a power cut can't explain.
const SUSPICIOUS_COMMITS: usize = 2;

/// A log as it lies on the disk.
pub(super) struct Log {
    bytes: Vec<u8>,
    big_endian: bool,
    /// Frames of this generation that hold by themselves.
    intact: Vec<usize>,
    /// Frames SQLite would take.
    taken: usize,
}

impl Log {
    /// The log beside the database at `path`, if there is one that can be read.
    pub(super) fn beside(path: &Path) -> Option<Self> {
        let bytes = fs::read(wal_path(path)).ok()?;
        if bytes.len() < HEADER + FRAME {
            return None;
        }
        let mut log = Self {
            big_endian: be32(&bytes, 0) & 1 == 1,
            bytes,
            intact: Vec::new(),
            taken: 0,
        };
        log.look();
        Some(log)
    }

    /// What is wrong with it, if a power cut does not explain it.
    pub(super) fn fault(&self) -> Option<String> {
        let behind = self
            .intact
            .iter()
            .filter(|frame| **frame > self.taken && self.is_commit(**frame))
            .count();
        (behind >= SUSPICIOUS_COMMITS)
            .then(|| format!("the log is damaged: {behind} commits lie behind a broken frame"))
    }

    /// Writes what the log holds, broken frames left out, into the database bytes `db`.
    pub(super) fn replay_into(&self, db: &mut Vec<u8>) {
        let last_commit = self.intact.iter().rfind(|frame| self.is_commit(**frame));
        let Some(&last_commit) = last_commit else {
            return;
        };
        for &frame in self.intact.iter().filter(|frame| **frame <= last_commit) {
            let at = frame_at(frame);
            let page = be32(&self.bytes, at) as usize;
            let end = page * PAGE;
            if db.len() < end {
                db.resize(end, 0);
            }
            db[end - PAGE..end].copy_from_slice(&self.bytes[at + FRAME_HEADER..at + FRAME]);
        }
        let pages = be32(&self.bytes, frame_at(last_commit) + 4) as usize;
        db.truncate(pages * PAGE);
    }

    fn look(&mut self) {
        let header_holds = be32(&self.bytes, 0) & !1 == MAGIC
            && be32(&self.bytes, 8) as usize == PAGE
            && self.sum((0, 0), 0, 24) == self.stored(24);
        // Without its header SQLite takes nothing; the frames know their generation themselves.
        let salts_at = if header_holds { 16 } else { frame_at(0) + 8 };
        let salts = self.bytes[salts_at..salts_at + 8].to_vec();
        let frames = (self.bytes.len() - HEADER) / FRAME;
        let mut chain_holds = header_holds;
        for frame in 0..frames {
            let at = frame_at(frame);
            let before = if frame == 0 {
                24
            } else {
                frame_at(frame - 1) + 16
            };
            let sum = self.sum(self.stored(before), at, 8);
            let sum = self.sum(sum, at + FRAME_HEADER, PAGE);
            let holds = self.bytes[at + 8..at + 16] == salts
                && sum == self.stored(at + 16)
                && self.is_sane(be32(&self.bytes, at));
            if holds {
                self.intact.push(frame);
            }
            chain_holds &= holds;
            if chain_holds {
                self.taken = frame + 1;
            }
        }
    }

    // No page of ours lies a gigabyte behind the rest: a broken number would make a file of that size.
    fn is_sane(&self, page: u32) -> bool {
        page > 0 && u64::from(page) * PAGE_BYTES < self.bytes.len() as u64 + (1 << 30)
    }

    fn is_commit(&self, frame: usize) -> bool {
        be32(&self.bytes, frame_at(frame) + 4) != 0
    }

    fn stored(&self, at: usize) -> (u32, u32) {
        (be32(&self.bytes, at), be32(&self.bytes, at + 4))
    }

    fn sum(&self, start: (u32, u32), at: usize, len: usize) -> (u32, u32) {
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if self.big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            }
        };
        self.bytes[at..at + len]
            .chunks_exact(8)
            .fold(start, |(a, b), pair| {
                let a = a.wrapping_add(word(pair)).wrapping_add(b);
                (a, b.wrapping_add(word(&pair[4..])).wrapping_add(a))
            })
    }
}

/// Makes `to` the database at `path` with all of its log that holds.
pub(super) fn replay(path: &Path, log: &Log, to: &Path) -> io::Result<()> {
    let mut db = fs::read(path)?;
    log.replay_into(&mut db);
    fs::write(to, db)
}

fn frame_at(frame: usize) -> usize {
    HEADER + frame * FRAME
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Bench, order_json};
    use crate::store::{InboxMessage, Source, Store};

    fn receive(store: &Store, n: usize) {
        let message = InboxMessage {
            message_id: format!("m{n}"),
            source: Source::Bus,
            body: order_json(&format!("o{n}")).into_bytes(),
        };
        store.orders.receive(message).wait().unwrap();
    }

    /// What lies on the disk after `orders` commits of an order each, as a power cut finds it.
    fn cut_after(orders: usize) -> (Vec<u8>, Vec<u8>) {
        let bench = Bench::new();
        let store = bench.open();
        for n in 0..orders {
            receive(&store, n);
        }
        let path = bench.dir.path().join("orders.db");
        (fs::read(&path).unwrap(), fs::read(wal_path(&path)).unwrap())
    }

    fn open_on(db: &[u8], log: &[u8]) -> (Bench, Store) {
        let bench = Bench::new();
        let path = bench.dir.path().join("orders.db");
        fs::write(&path, db).unwrap();
        fs::write(wal_path(&path), log).unwrap();
        let store = bench.open();
        (bench, store)
    }

    fn there(store: &Store, orders: usize) -> usize {
        (0..orders)
            .filter(|n| store.orders.order(&format!("o{n}")).unwrap().is_some())
            .count()
    }

    #[test]
    fn a_broken_frame_costs_no_order_that_lies_elsewhere() {
        let orders = 40;
        let (db, log) = cut_after(orders);
        let frames = (log.len() - HEADER) / FRAME;
        assert!(frames > 200);
        let last_commits = frames - 30;
        for frame in (0..last_commits).step_by(17) {
            let mut broken = log.clone();
            let at = frame_at(frame) + FRAME_HEADER + 1000;
            broken[at..at + 512].fill(0xa5);
            let (_bench, store) = open_on(&db, &broken);
            let recovery = &store.recovered()[0];
            assert!(
                recovery.reason.contains("the log is damaged"),
                "{}",
                recovery.reason
            );
            // Its page was written again by a later commit.
            assert_eq!(there(&store, orders), orders, "frame {frame}");
        }
    }

    #[test]
    fn a_broken_head_costs_no_order() {
        let orders = 40;
        let (db, mut log) = cut_after(orders);
        log[5] ^= 0xff;
        let (_bench, store) = open_on(&db, &log);
        assert!(store.recovered()[0].reason.contains("the log is damaged"));
        assert_eq!(there(&store, orders), orders);
    }

    #[test]
    fn what_a_power_cut_leaves_is_no_damage() {
        let orders = 10;
        let (db, log) = cut_after(orders);
        let (_bench, store) = open_on(&db, &log);
        assert!(store.recovered().is_empty());
        assert_eq!(there(&store, orders), orders);
        // The last commit torn at each of its frames, the commit frame itself on the disk.
        let frames = (log.len() - HEADER) / FRAME;
        let first = (0..frames - 1)
            .rev()
            .find(|frame| be32(&log, frame_at(*frame) + 4) != 0)
            .unwrap()
            + 1;
        for frame in first..frames {
            let mut torn = log.clone();
            torn[frame_at(frame)..frame_at(frame) + FRAME].fill(0);
            let (_bench, store) = open_on(&db, &torn);
            assert!(
                store.recovered().is_empty(),
                "frame {frame} of {first}..{frames}"
            );
            assert_eq!(there(&store, orders), orders - 1);
        }
    }
}
