//! What left: in numbers for `/status.json`, and the last batches word by word for whoever wants to know.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Batches that are kept to be read.
pub const SENT_BATCHES: usize = 20;
/// Of a batch's text; the rest is cut.
pub const SENT_TEXT_BYTES: usize = 4 * 1024;
/// The file is written this seldom, and at the end: reading it is rare, and flash wears.
const WRITE_PERIOD: Duration = Duration::from_secs(300);

/// One stream in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// It may send: switched on, and a key is there.
    pub on: bool,
    /// The host it goes to.
    pub host: String,
    /// Records sent since the start.
    pub sent: u64,
    /// Records that wait.
    pub waiting: u64,
    /// Records lost since the start: at a bound, by damage, or refused.
    pub lost: u64,
    /// Of the lost ones, those that found the channel full.
    #[serde(skip)]
    pub untold: u64,
    /// Bytes sent today.
    pub today_bytes: u64,
    /// Bytes that may be sent a day.
    pub budget_bytes: u64,
    /// When something was sent last, milliseconds since 1970.
    pub last_ms: Option<i64>,
}

/// A batch that a host has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SentBatch {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Records in it.
    pub records: u64,
    /// Bytes of its body as it went over the line.
    pub bytes: u64,
    /// HTTP status of the answer.
    pub status: u16,
    /// Its text before it was compressed, cut at 4 KiB.
    pub body: String,
}

#[derive(Debug, Default)]
struct Shown {
    status: StreamStatus,
    batches: VecDeque<SentBatch>,
    file: Option<PathBuf>,
    written: Option<Instant>,
    is_changed: bool,
}

/// Both streams by name. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SentBoard(Arc<Mutex<BTreeMap<&'static str, Shown>>>);

impl SentBoard {
    /// Changes one stream's numbers.
    pub fn update(&self, stream: &'static str, change: impl FnOnce(&mut StreamStatus)) {
        change(&mut self.lock().entry(stream).or_default().status);
    }

    /// The stream's last batches are also kept in `file`.
    pub fn keep_in(&self, stream: &'static str, file: PathBuf) {
        self.lock().entry(stream).or_default().file = Some(file);
    }

    /// A batch was taken.
    pub fn sent(&self, stream: &'static str, mut batch: SentBatch) {
        let end = batch.body.floor_char_boundary(SENT_TEXT_BYTES);
        batch.body.truncate(end);
        let mut table = self.lock();
        let shown = table.entry(stream).or_default();
        shown.status.last_ms = Some(batch.at_ms);
        if shown.batches.len() == SENT_BATCHES {
            shown.batches.pop_front();
        }
        shown.batches.push_back(batch);
        shown.is_changed = true;
        if shown.written.is_none_or(|at| at.elapsed() >= WRITE_PERIOD) {
            shown.write();
        }
    }

    /// Writes what was not written yet.
    pub fn flush(&self) {
        for shown in self.lock().values_mut().filter(|shown| shown.is_changed) {
            shown.write();
        }
    }

    /// All streams that are there.
    #[must_use]
    pub fn list(&self) -> BTreeMap<&'static str, StreamStatus> {
        let table = self.lock();
        table
            .iter()
            .map(|(name, shown)| (*name, shown.status.clone()))
            .collect()
    }

    /// The last batches of each stream, oldest first.
    #[must_use]
    pub fn batches(&self) -> BTreeMap<&'static str, Vec<SentBatch>> {
        let table = self.lock();
        table
            .iter()
            .map(|(name, shown)| (*name, shown.batches.iter().cloned().collect()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Shown>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Shown {
    fn write(&mut self) {
        let Some(file) = &self.file else { return };
        let text = serde_json::to_vec_pretty(&self.batches).expect("batches are JSON");
        // Not durable on purpose: it is a copy for readers.
        match fs::write(file, text) {
            Ok(()) => self.is_changed = false,
            Err(error) => tracing::debug!(event = "outgoing.sent_unwritten", %error),
        }
        self.written = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(n: usize) -> SentBatch {
        SentBatch {
            at_ms: 7,
            records: 1,
            bytes: 9,
            status: 202,
            body: format!("{n:05}{}", "é".repeat(SENT_TEXT_BYTES)),
        }
    }

    #[test]
    fn the_last_batches_are_kept_cut_and_written_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let (board, file) = (SentBoard::default(), dir.path().join("sent.json"));
        board.keep_in("logs", file.clone());
        for n in 0..SENT_BATCHES + 3 {
            board.sent("logs", batch(n));
        }
        let kept = &board.batches()["logs"];
        assert_eq!(kept.len(), SENT_BATCHES);
        assert!(kept[0].body.starts_with("00003"));
        assert!(kept[0].body.len() <= SENT_TEXT_BYTES);
        let read = |file: &PathBuf| -> Vec<serde_json::Value> {
            serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
        };
        assert_eq!(read(&file).len(), 1, "the first is written at once");
        board.flush();
        assert_eq!(read(&file).len(), SENT_BATCHES);
        assert_eq!(board.list()["logs"].last_ms, Some(7));
    }
}
