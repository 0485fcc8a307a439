//! Whether the disk takes what is written: each writer tells when it was refused, and a probe tells when nobody writes.
//!
//! ```text
//!  a writer is refused (SQLite's code), the probe fails --> trouble of that finder --> conditions, /readyz
//!  the writer's proof is committed, the probe succeeds  --> gone
//! ```
//! One trouble a finder, so there are as many as databases and one more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::{Connection, ErrorCode};
use tracing::warn;

use super::room::Room;
use crate::durable::{ProbeDiskError, probe_disk};
use crate::telemetry::{Code, Conditions, chain};
use crate::units::ByteSize;

/// Bytes the probe writes and reads back. ext4 writes 20 KB for it with journal and folder (measured over 20 probes), so
/// 28 MiB a day.
const PROBE_BYTES: usize = 4096;
/// A full disk has room again when this much is free; less, and the next order may be refused though a small write is not.
const ROOM_AGAIN: ByteSize = ByteSize::bytes(256 * 1024);
/// The finder that is no database.
const PROBE: &str = "probe";

/// Why the disk does not take what is written, with the words of whoever found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskTrouble {
    /// There is no room.
    Full(String),
    /// It is read-only, broken, or forgets.
    Failing(String),
}

impl std::fmt::Display for DiskTrouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(text) => write!(f, "the disk is full: {text}"),
            Self::Failing(text) => write!(f, "the disk does not take what is written: {text}"),
        }
    }
}

/// What is known of the disk's writing.
#[derive(Debug)]
pub struct Disk {
    room: Arc<Room>,
    probe_path: PathBuf,
    found: Mutex<BTreeMap<&'static str, DiskTrouble>>,
}

impl Disk {
    pub(super) fn new(data_dir: &Path, room: Arc<Room>) -> Self {
        Self {
            room,
            probe_path: data_dir.join("state/store.probe"),
            found: Mutex::default(),
        }
    }

    /// What is wrong now, the worst first: a failing disk before a full one.
    #[must_use]
    pub fn trouble(&self) -> Option<DiskTrouble> {
        let found = self.lock();
        let failing = |trouble: &&DiskTrouble| matches!(trouble, DiskTrouble::Failing(_));
        let worst = found.values().find(failing);
        worst.or_else(|| found.values().next()).cloned()
    }

    /// Raises or clears the two conditions of the disk.
    pub fn tell(&self, conditions: &Conditions, now_ms: i64) {
        let (mut full, mut failing) = (Vec::new(), Vec::new());
        for (finder, trouble) in &*self.lock() {
            let (list, text) = match trouble {
                DiskTrouble::Full(text) => (&mut full, text),
                DiskTrouble::Failing(text) => (&mut failing, text),
            };
            list.push(format!("{finder}: {text}"));
        }
        for (code, list) in [(Code::DiskFull, full), (Code::DiskFailing, failing)] {
            if list.is_empty() {
                conditions.clear(code);
            } else {
                conditions.raise(code, list.join("; "), now_ms);
            }
        }
    }

    /// Takes in why `database` could not be written, if the disk is to blame.
    pub(super) fn weigh(&self, database: &'static str, error: &rusqlite::Error) {
        let trouble = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => DiskTrouble::Full(error.to_string()),
            // The index of the log is a file, too, and has no code of its own for a disk without room.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if self.is_short() => {
                DiskTrouble::Full(error.to_string())
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                DiskTrouble::Failing(error.to_string())
            }
            _ => return,
        };
        self.note(database, trouble);
    }

    /// `database` was written again.
    pub(super) fn proven(&self, database: &'static str) {
        let mut found = self.lock();
        if matches!(found.get(database), Some(DiskTrouble::Full(_))) && self.is_short() {
            return;
        }
        found.remove(database);
    }

    /// Whether `database` is in trouble.
    pub(super) fn ails(&self, database: &'static str) -> bool {
        self.lock().contains_key(database)
    }

    /// Writes a small file, has it fsynced, and reads it back.
    pub(super) fn probe(&self) {
        match probe_disk(&self.probe_path, PROBE_BYTES) {
            Ok(()) => {
                self.lock().remove(PROBE);
            }
            Err(error) => {
                let text = chain(&error);
                self.note(
                    PROBE,
                    match error {
                        ProbeDiskError::Io { source, .. } if is_full(&source) => {
                            DiskTrouble::Full(text)
                        }
                        _ => DiskTrouble::Failing(text),
                    },
                );
            }
        }
    }

    fn note(&self, finder: &'static str, trouble: DiskTrouble) {
        let text = trouble.to_string();
        if self.lock().insert(finder, trouble).is_none() {
            warn!(event = "store.disk_refused", finder, error = text);
        }
    }

    /// A disk that does not say how much is free is not called full.
    fn is_short(&self) -> bool {
        self.room.free().is_ok_and(|free| free < ROOM_AGAIN)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, DiskTrouble>> {
        self.found.lock().expect("no holder of this lock panics")
    }
}

/// A real write that changes nothing: the same version number once more, for which SQLite writes its page all the same.
pub(super) fn write_a_page(conn: &Connection) -> rusqlite::Result<()> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    conn.pragma_update(None, "user_version", version)
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Bytes this process has had written to the disk since its start (`write_bytes` of proc(5)'s `/proc/pid/io`, which counts
/// whole pages when they become dirty); `None` where the kernel does not count.
#[must_use]
pub fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn disk(dir: &Path) -> Disk {
        let room = Room::new(dir.to_path_buf(), ByteSize::bytes(0));
        Disk::new(dir, Arc::new(room))
    }

    fn refused(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_refusal_is_told_by_its_kind_until_that_database_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, conditions) = (disk(dir.path()), Conditions::default());
        let held = || {
            disk.tell(&conditions, 1);
            let list = conditions.list();
            list.iter().map(|(code, _)| *code).collect::<Vec<_>>()
        };
        disk.weigh("orders", &refused(ffi::SQLITE_CONSTRAINT));
        assert_eq!(held(), []);
        disk.weigh("orders", &refused(ffi::SQLITE_FULL));
        assert_eq!(held(), [Code::DiskFull]);
        disk.weigh("orders", &refused(ffi::SQLITE_IOERR_WRITE));
        disk.weigh("devices", &refused(ffi::SQLITE_READONLY));
        assert_eq!(held(), [Code::DiskFailing]);
        disk.proven("orders");
        assert_eq!(held(), [Code::DiskFailing]);
        disk.proven("devices");
        assert_eq!(held(), []);
        assert_eq!(disk.trouble(), None);
    }

    #[test]
    fn the_probe_finds_a_disk_that_takes_nothing_and_nobody_elses_word_takes_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path());
        disk.probe();
        assert_eq!(disk.trouble(), None);
        // Where its folder should be there is a file.
        let state_path = dir.path().join("state");
        std::fs::remove_dir(&state_path).unwrap();
        std::fs::write(&state_path, b"").unwrap();
        disk.probe();
        assert!(matches!(disk.trouble(), Some(DiskTrouble::Failing(_))));
        disk.proven("orders");
        assert!(disk.trouble().is_some());
        std::fs::remove_file(&state_path).unwrap();
        disk.probe();
        assert_eq!(disk.trouble(), None);
    }

    #[test]
    fn what_this_process_writes_is_counted() {
        // Kernels without task accounting have no such file, and then there is no count.
        let there = Path::new("/proc/self/io").exists();
        assert_eq!(written_bytes().is_some(), there);
    }
}
