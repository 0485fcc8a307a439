//! Why the server was restarted and the box rebooted: a short list on the data partition.
//!
//! `state/restarts.json` holds the last [`MAX_REASONS`] reasons, oldest first, and the number of reboots the
//! supervisor asked for since the server last ran stable. It is replaced whole (temporary file, fsync, rename, fsync of
//! the folder). A kind that a newer version wrote is `Unknown` here. A file that cannot be read is put aside as
//! `restarts.json.bad` and a new one begun: why the box restarted last week is worth less than a box that starts.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::clock::BootStamp;
use crate::durable::{ReplaceFileError, replace_file};

/// Reasons kept; the oldest is dropped for a new one.
pub const MAX_REASONS: usize = 64;

/// Longest file that is read back; a longer one is not ours.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The one place of the list inside the data folder.
const FILE: &str = "state/restarts.json";

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The server was started again.
    Restart,
    /// The box was asked to reboot.
    Reboot,
    /// Another version wrote it.
    #[serde(other)]
    Unknown,
}

/// Why a run of the server ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it that the supervisor had not sent.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// It ran and did no work.
    Hung {
        /// The first part found standing still.
        part: String,
    },
    /// It never came to serve.
    StartTooSlow,
    /// Its memory passed the limit, so it was restarted in good order.
    MemoryGrown {
        /// Resident size at that moment.
        rss_mib: u64,
    },
    /// It could not be started.
    SpawnFailed {
        /// What the operating system said.
        why: String,
    },
    /// Another version wrote it.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Killed { signal } => write!(f, "killed by signal {signal}"),
            Self::Hung { part } => write!(f, "hung: {part} stood still"),
            Self::StartTooSlow => write!(f, "did not come to serve in time"),
            Self::MemoryGrown { rss_mib } => write!(f, "grown to {rss_mib} MiB"),
            Self::SpawnFailed { why } => write!(f, "could not be started: {why}"),
            Self::Unknown => f.write_str("ended in a way that this version does not know"),
        }
    }
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Wall time, RFC 3339; as wrong as the box's clock was then.
    pub at: String,
    /// The kernel's id of that boot, which no clock can falsify.
    pub boot_id: String,
    /// How long after that boot, which no clock can falsify either; absent in lists of older versions.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
    /// What was done.
    pub kind: Kind,
    /// Why.
    #[serde(flatten)]
    pub cause: Cause,
    /// How long that run had lasted.
    pub ran_s: u64,
    /// Failures inside the policy's window, this one included.
    pub failures: usize,
}

impl Reason {
    /// How long ago it was: within one boot by the boot's own time, whatever the clocks did meanwhile; across boots by
    /// `now_ms` (wall time), if that makes sense at all. `None`: nobody can tell.
    #[must_use]
    pub fn age(&self, now: &BootStamp, now_ms: i64) -> Option<Duration> {
        if self.boot_id == now.boot_id
            && let Some(uptime_ms) = self.uptime_ms
        {
            return now
                .uptime_ms
                .checked_sub(uptime_ms)
                .map(Duration::from_millis);
        }
        let at_ms = self.at.parse::<Timestamp>().ok()?.as_millisecond();
        let age_ms = now_ms.checked_sub(at_ms)?;
        u64::try_from(age_ms).ok().map(Duration::from_millis)
    }
}

/// The list and where it lies.
#[derive(Debug)]
pub struct Reasons {
    path: PathBuf,
    kept: Kept,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    reboots: u32,
    reasons: Vec<Reason>,
}

impl Reasons {
    /// Reads the list of this data folder; begins an empty one where there is none or none that can be read.
    #[must_use]
    pub fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let kept = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let aside_path = path.with_extension("json.bad");
                let kept_aside = fs::rename(&path, &aside_path).is_ok();
                warn!(event = "supervisor.reasons_unreadable", path = %path.display(), %error, kept_aside);
            }
            Kept::default()
        });
        Self { path, kept }
    }

    /// The reasons, oldest first.
    #[must_use]
    pub fn list(&self) -> &[Reason] {
        &self.kept.reasons
    }

    /// Reboots asked for since the last stable run.
    #[must_use]
    pub fn reboots(&self) -> u32 {
        self.kept.reboots
    }

    /// Adds a reason; durable when this returns.
    ///
    /// # Errors
    /// When the file cannot be replaced; the entry then still stands in memory.
    pub fn record(&mut self, reason: Reason) -> Result<(), ReplaceFileError> {
        if reason.kind == Kind::Reboot {
            self.kept.reboots = self.kept.reboots.saturating_add(1);
        }
        self.kept.reasons.push(reason);
        let surplus = self.kept.reasons.len().saturating_sub(MAX_REASONS);
        self.kept.reasons.drain(..surplus);
        self.write()
    }

    /// Starts the count of reboots anew.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn forgive_reboots(&mut self) -> Result<(), ReplaceFileError> {
        if self.kept.reboots == 0 {
            return Ok(());
        }
        self.kept.reboots = 0;
        self.write()
    }

    fn write(&self) -> Result<(), ReplaceFileError> {
        let bytes = serde_json::to_vec_pretty(&self.kept).expect("plain data always serialises");
        replace_file(&self.path, &bytes, 0o644)
    }
}

fn read(path: &Path) -> io::Result<Kept> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "longer than this list can be",
        ));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(kind: Kind, cause: Cause) -> Reason {
        let at = "2026-11-24T21:00:00Z".to_owned();
        Reason {
            at,
            boot_id: "b".to_owned(),
            uptime_ms: Some(60_000),
            kind,
            cause,
            ran_s: 3,
            failures: 1,
        }
    }

    #[test]
    fn a_reasons_age_does_not_follow_a_clock_that_jumps() {
        let reason = reason(Kind::Restart, Cause::StartTooSlow);
        let boot = |boot_id: &str, uptime_ms| BootStamp {
            boot_id: boot_id.into(),
            uptime_ms,
        };
        for now_ms in [0, i64::MAX] {
            let age = reason.age(&boot("b", 70_000), now_ms);
            assert_eq!(age, Some(Duration::from_secs(10)), "{now_ms}");
        }
        let said: Timestamp = "2026-11-24T21:00:05Z".parse().unwrap();
        let age = reason.age(&boot("other", 1), said.as_millisecond());
        assert_eq!(age, Some(Duration::from_secs(5)));
        assert_eq!(reason.age(&boot("other", 1), 0), None, "it lies ahead");
    }

    #[test]
    fn reasons_survive_and_stay_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut reasons = Reasons::load(dir.path());
        assert!(reasons.list().is_empty());
        for code in 0..70 {
            reasons
                .record(reason(Kind::Restart, Cause::Exited { code }))
                .unwrap();
        }
        let hung = reason(
            Kind::Reboot,
            Cause::Hung {
                part: "store".to_owned(),
            },
        );
        reasons.record(hung.clone()).unwrap();

        let mut again = Reasons::load(dir.path());
        assert_eq!(again.list().len(), MAX_REASONS);
        assert_eq!(again.list().last(), Some(&hung));
        assert_eq!(again.reboots(), 1);
        again.forgive_reboots().unwrap();
        assert_eq!(Reasons::load(dir.path()).reboots(), 0);
    }

    #[test]
    fn what_a_newer_version_wrote_costs_no_more_than_its_own_meaning() {
        let golden = include_str!("../../tests/golden/kept/newer/restarts.json");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state")).unwrap();
        fs::write(dir.path().join(FILE), golden).unwrap();
        let reasons = Reasons::load(dir.path());
        let read: Vec<_> = reasons
            .list()
            .iter()
            .map(|reason| (reason.kind, reason.cause.clone()))
            .collect();
        let expected = [
            (Kind::Restart, Cause::Exited { code: 101 }),
            (Kind::Unknown, Cause::Unknown),
        ];
        assert_eq!(read, expected);
        assert_eq!(reasons.reboots(), 1);
    }

    #[test]
    fn a_damaged_list_is_put_aside_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"{\"reboots\":1,").unwrap();
        let mut reasons = Reasons::load(dir.path());
        assert!(reasons.list().is_empty());
        assert_eq!(
            fs::read(path.with_extension("json.bad")).unwrap(),
            b"{\"reboots\":1,"
        );
        reasons
            .record(reason(Kind::Restart, Cause::StartTooSlow))
            .unwrap();
        assert_eq!(Reasons::load(dir.path()).list().len(), 1);
    }
}
