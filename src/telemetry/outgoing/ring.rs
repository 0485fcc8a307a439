//! Records that wait, on disk: segments of bounded size, the oldest dropped at the cap.
//!
//! # Layout
//! A segment `NUMBER.seg` begins with [`MAGIC`]; then records, each `length: u32 LE, crc32: u32 LE, bytes`. It is only ever
//! appended to, by the process that made it: a start begins a new one. What was sent goes segment by segment.
//!
//! # Recovery
//! - A tail that ends early, or in zeros, is a write that a power cut tore: it is read past and counted.
//! - Anything else that does not fit its checksum is damage: what stands before it is still sent, then the segment is kept as
//!   `damaged.bad` (one, the last) and the ring goes on behind it.
//! - Nothing is fsynced: these records are worth less than the flash.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Crc;

use crate::units::ByteSize;

/// First bytes of a segment.
pub const MAGIC: &[u8; 8] = b"CMPTOUT1";
/// A segment that has grown beyond this is closed.
pub const SEGMENT: ByteSize = ByteSize::kib(64);
/// Segments at most, however small: each start begins one.
pub const MAX_SEGMENTS: usize = 256;
/// A record's length and checksum.
const HEAD: usize = 8;
/// Longest record that is read back.
const MAX_RECORD_BYTES: usize = 64 * 1024;
/// A segment file beyond this is none of ours.
const MAX_SEGMENT_BYTES: u64 = 1024 * 1024;
/// Where the last damaged segment is kept.
const QUARANTINE: &str = "damaged.bad";

/// The ring can't be used; the box goes on with what memory holds.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {path}")]
pub struct OpenRingError {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What a start or a read came across.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Tails torn by a cut.
    pub torn: u64,
    /// Segments with damage in them.
    pub damaged: u64,
    /// Records that a newer one had to displace.
    pub dropped: u64,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.torn += other.torn;
        self.damaged += other.damaged;
        self.dropped += other.dropped;
    }
}

/// Up to where a reader came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    segment: u64,
    offset: usize,
    records: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// Bytes that can be read.
    good: usize,
    /// Bytes on the disk.
    size: u64,
    /// Records not forgotten yet.
    records: u64,
    is_damaged: bool,
}

/// The ring of one stream.
#[derive(Debug)]
pub struct Ring {
    dir: PathBuf,
    cap: ByteSize,
    segments: VecDeque<Segment>,
    /// Of the oldest segment: what was sent.
    read: usize,
    writer: Option<File>,
    next: u64,
}

impl Ring {
    /// Opens the ring in `dir`, making it, and looks through what is there.
    ///
    /// # Errors
    /// When the folder can't be made or listed. A segment that can't be read is damage, not an error.
    pub fn open(dir: &Path, cap: ByteSize) -> Result<(Self, Found), OpenRingError> {
        let failed = |attempt| {
            move |source| OpenRingError {
                attempt,
                path: dir.to_path_buf(),
                source,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("make"))?;
        let mut numbers: Vec<u64> = fs::read_dir(dir)
            .map_err(failed("list"))?
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_suffix(".seg")?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        let mut ring = Self {
            dir: dir.to_path_buf(),
            cap,
            segments: VecDeque::new(),
            read: MAGIC.len(),
            writer: None,
            next: numbers.last().map_or(1, |last| last.saturating_add(1)),
        };
        let mut found = Found::default();
        for number in numbers {
            ring.take_over(number, &mut found);
        }
        found.add(ring.make_room(0));
        Ok((ring, found))
    }

    fn take_over(&mut self, number: u64, found: &mut Found) {
        let bytes = self.load(number).unwrap_or_default();
        let look = look_through(&bytes);
        found.torn += u64::from(look.end == End::Torn);
        found.damaged += u64::from(look.end == End::Damaged);
        let segment = Segment {
            number,
            good: look.good,
            size: bytes.len() as u64,
            records: look.records,
            is_damaged: look.end == End::Damaged,
        };
        if segment.records == 0 {
            self.remove(&segment);
        } else {
            self.segments.push_back(segment);
        }
    }

    fn load(&self, number: u64) -> io::Result<Vec<u8>> {
        let path = self.path(number);
        let size = fs::metadata(&path)?.len();
        if size > MAX_SEGMENT_BYTES {
            return Err(io::Error::other("larger than any segment"));
        }
        fs::read(&path)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}.seg"))
    }

    /// Deletes the segment, or keeps it for support when it is damaged.
    fn remove(&self, segment: &Segment) {
        let path = self.path(segment.number);
        let result = if segment.is_damaged {
            fs::rename(&path, self.dir.join(QUARANTINE))
        } else {
            fs::remove_file(&path)
        };
        if let Err(error) = result {
            tracing::debug!(event = "outgoing.segment_stays", %error);
        }
    }

    /// Records that wait.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    /// Bytes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Appends `records`, each at most 64 KiB and not far beyond [`SEGMENT`] together, in one write. At the cap the oldest segments go first.
    ///
    /// # Errors
    /// As the operating system says; what a failed write left behind is cut off or, if that fails too, read past.
    pub fn append(&mut self, records: &[Vec<u8>]) -> io::Result<Found> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for record in records
            .iter()
            .filter(|record| record.len() <= MAX_RECORD_BYTES)
        {
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&crc(record).to_le_bytes());
            bytes.extend_from_slice(record);
            count += 1;
        }
        let found = self.make_room(bytes.len() as u64 + MAGIC.len() as u64);
        let is_full = |segment: &Segment| segment.size >= SEGMENT.as_u64();
        if self.writer.is_none() || self.segments.back().is_none_or(is_full) {
            self.begin_segment()?;
        }
        let (Some(writer), Some(segment)) = (&mut self.writer, self.segments.back_mut()) else {
            return Ok(found);
        };
        match writer.write_all(&bytes) {
            Ok(()) => {
                segment.size += bytes.len() as u64;
                segment.good += bytes.len();
                segment.records += count;
                Ok(found)
            }
            Err(error) => {
                // No space for half of it: the next append begins a new segment, and this one ends where it was good.
                let _ = writer.set_len(segment.size);
                self.writer = None;
                if segment.records == 0
                    && let Some(empty) = self.segments.pop_back()
                {
                    self.remove(&empty);
                }
                Err(error)
            }
        }
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(number))?;
        let segment = Segment {
            number,
            good: MAGIC.len(),
            size: MAGIC.len() as u64,
            records: 0,
            is_damaged: false,
        };
        if let Err(error) = file.write_all(MAGIC) {
            self.remove(&segment);
            return Err(error);
        }
        self.writer = Some(file);
        self.segments.push_back(segment);
        Ok(())
    }

    /// Drops the oldest until `more` bytes fit under the cap.
    fn make_room(&mut self, more: u64) -> Found {
        let mut found = Found::default();
        while let Some(oldest) = self.segments.front() {
            let fits = self.bytes() + more <= self.cap.as_u64();
            if fits && self.segments.len() < MAX_SEGMENTS {
                break;
            }
            found.dropped += oldest.records;
            self.drop_oldest();
        }
        found
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.remove(&oldest);
        }
        if self.segments.is_empty() {
            self.writer = None;
        }
        self.read = MAGIC.len();
    }

    /// The oldest records, within the bounds, and up to where they reach. Damage met on the way is in the second part.
    pub fn oldest(
        &mut self,
        max_records: usize,
        max_bytes: usize,
    ) -> (Vec<Vec<u8>>, Option<Mark>, Found) {
        let mut found = Found::default();
        while let Some(segment) = self.segments.front() {
            let bytes = self.load(segment.number).unwrap_or_default();
            let (mut records, mut offset, mut total) = (Vec::new(), self.read, 0);
            while offset < segment.good && records.len() < max_records {
                let Some(record) = record_at(&bytes, offset) else {
                    break;
                };
                if !records.is_empty() && total + record.len() > max_bytes {
                    break;
                }
                total += record.len();
                offset += HEAD + record.len();
                records.push(record.to_vec());
            }
            if !records.is_empty() {
                let mark = Mark {
                    segment: segment.number,
                    offset,
                    records: records.len() as u64,
                };
                return (records, Some(mark), found);
            }
            // It was whole when it was looked through or written, and is not any more.
            found.damaged += 1;
            found.dropped += segment.records;
            if let Some(segment) = self.segments.front_mut() {
                segment.is_damaged = true;
            }
            self.drop_oldest();
        }
        (Vec::new(), None, found)
    }

    /// What was read up to `mark` is not needed any more. A mark in a segment that is gone changes nothing.
    pub fn forget(&mut self, mark: Mark) {
        let Some(segment) = self.segments.front_mut() else {
            return;
        };
        if segment.number != mark.segment || mark.offset <= self.read {
            return;
        }
        self.read = mark.offset;
        segment.records = segment.records.saturating_sub(mark.records);
        if self.read >= segment.good {
            self.drop_oldest();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    Torn,
    Damaged,
}

struct Look {
    good: usize,
    records: u64,
    end: End,
}

fn look_through(bytes: &[u8]) -> Look {
    let mut look = Look {
        good: MAGIC.len(),
        records: 0,
        end: End::Whole,
    };
    if !bytes.starts_with(MAGIC) {
        let is_torn = bytes.len() < MAGIC.len() || bytes.iter().all(|byte| *byte == 0);
        look.end = if is_torn { End::Torn } else { End::Damaged };
        return look;
    }
    while look.good < bytes.len() {
        let Some(record) = record_at(bytes, look.good) else {
            let rest = &bytes[look.good..];
            look.end = if ends_early(rest) {
                End::Torn
            } else {
                End::Damaged
            };
            break;
        };
        look.good += HEAD + record.len();
        look.records += 1;
    }
    look
}

/// Whether a cut in the middle of a write explains what stands there: too few bytes, or blocks that were never written.
fn ends_early(rest: &[u8]) -> bool {
    let length = rest
        .first_chunk::<4>()
        .map_or(usize::MAX, |length| u32::from_le_bytes(*length) as usize);
    rest.iter().all(|byte| *byte == 0)
        || (length <= MAX_RECORD_BYTES && rest.len() < HEAD + length)
        || rest.len() < HEAD
}

fn record_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let rest = bytes.get(offset..)?;
    let length = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
    let sum = u32::from_le_bytes(*rest.get(4..)?.first_chunk::<4>()?);
    let record = rest.get(HEAD..HEAD.checked_add(length)?)?;
    (length > 0 && length <= MAX_RECORD_BYTES && crc(record) == sum).then_some(record)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: ByteSize = ByteSize::kib(256);

    fn record(n: usize) -> Vec<u8> {
        format!("record {n}").into_bytes()
    }

    fn open(dir: &Path) -> (Ring, Found) {
        Ring::open(dir, CAP).unwrap()
    }

    fn drain(ring: &mut Ring) -> Vec<String> {
        let mut all = Vec::new();
        while let (records, Some(mark), _) = ring.oldest(3, 1000) {
            all.extend(records.into_iter().map(|r| String::from_utf8(r).unwrap()));
            ring.forget(mark);
        }
        all
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_written_comes_back_in_order_after_a_start_and_then_goes_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, found) = open(dir.path());
        assert_eq!(found, Found::default());
        ring.append(&[record(1), record(2)]).unwrap();
        ring.append(&[record(3)]).unwrap();
        let (mut ring, found) = open(dir.path());
        assert_eq!((found, ring.records()), (Found::default(), 3));
        ring.append(&[record(4)]).unwrap();
        assert_eq!(
            drain(&mut ring),
            ["record 1", "record 2", "record 3", "record 4"]
        );
        assert_eq!((ring.records(), ring.bytes()), (0, 0));
        assert_eq!(files(dir.path()), Vec::<String>::new());
        ring.append(&[record(5)]).unwrap();
        assert_eq!(drain(&mut ring), ["record 5"]);
    }

    #[test]
    fn at_the_cap_the_oldest_go_and_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, _) = open(dir.path());
        let mut dropped = 0;
        for n in 0..1000_usize {
            let mut record = record(n);
            record.resize(1000, b'.');
            dropped += ring.append(&[record]).unwrap().dropped;
            assert!(ring.bytes() <= CAP.as_u64());
        }
        assert!(dropped > 700, "{dropped}");
        assert_eq!(dropped + ring.records(), 1000);
        let (records, _, _) = ring.oldest(1, 10);
        assert!(records[0].starts_with(format!("record {dropped}.").as_bytes()));
    }

    #[test]
    fn a_mark_in_a_segment_that_was_dropped_meanwhile_forgets_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, _) = open(dir.path());
        ring.append(&[record(1)]).unwrap();
        let (_, mark, _) = ring.oldest(1, 100);
        ring.drop_oldest();
        ring.append(&[record(2)]).unwrap();
        ring.forget(mark.unwrap());
        assert_eq!(drain(&mut ring), ["record 2"]);
    }

    /// Cuts the file at every length, and zeroes its tail from every length on.
    #[test]
    fn a_torn_tail_costs_the_torn_record_only() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, _) = open(dir.path());
        ring.append(&[record(1), record(2)]).unwrap();
        let path = dir.path().join("00000001.seg");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            for zeros in [0, whole.len() - length] {
                let mut cut = whole[..length].to_vec();
                cut.resize(length + zeros, 0);
                fs::write(&path, &cut).unwrap();
                let (mut ring, found) = open(dir.path());
                // Zeros over the end of a record look as damage does: all that is asked is that nothing false is read.
                assert!(found.torn + found.damaged <= 1, "{length}");
                assert!(zeros > 0 || found.damaged == 0, "{length}: {found:?}");
                let read = drain(&mut ring);
                assert!(
                    ["record 1", "record 2"]
                        .starts_with(&read.iter().map(String::as_str).collect::<Vec<_>>())
                );
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_found_and_what_stands_before_it_is_still_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, _) = open(dir.path());
        ring.append(&[record(1), record(2), record(3)]).unwrap();
        let whole = fs::read(dir.path().join("00000001.seg")).unwrap();
        for at in 0..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            fs::write(dir.path().join("00000001.seg"), &bad).unwrap();
            let (mut ring, found) = open(dir.path());
            assert_eq!(found.torn + found.damaged, 1, "bit of byte {at}");
            ring.append(&[record(9)]).unwrap();
            let read = drain(&mut ring);
            let before = at.saturating_sub(MAGIC.len()) / (HEAD + 8);
            let before = if at < MAGIC.len() { 0 } else { before };
            assert_eq!(read.len(), before + 1, "byte {at}: {read:?}");
            assert_eq!(read.last().unwrap(), "record 9");
            assert_eq!(found.damaged == 1, files(dir.path()) == [QUARANTINE]);
        }
    }

    #[test]
    fn a_segment_that_is_damaged_while_in_use_is_given_up_and_the_next_one_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, _) = open(dir.path());
        ring.append(&[record(1)]).unwrap();
        ring.writer = None;
        ring.append(&[record(2)]).unwrap();
        fs::remove_file(dir.path().join("00000001.seg")).unwrap();
        let (records, _, found) = ring.oldest(9, 999);
        assert_eq!(records, [record(2)]);
        assert_eq!((found.damaged, found.dropped), (1, 1));
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_the_ring_readable() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ring, _) = open(dir.path());
        ring.append(&[record(1)]).unwrap();
        ring.writer = Some(File::open(dir.path().join("00000001.seg")).unwrap());
        assert!(ring.append(&[record(2)]).is_err());
        ring.append(&[record(3)]).unwrap();
        assert_eq!(drain(&mut ring), ["record 1", "record 3"]);
    }
}
