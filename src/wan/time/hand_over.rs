//! Setting the machine's clock, which the server itself may not.
//!
//! The server has no privilege at all, and its sandbox forbids the clock. It writes a [`Note`] into its runtime folder when
//! the machine's clock is off by more than a second; `comptoir-clock.path` sees that and starts `comptoir-clock.service`,
//! which runs `comptoir set-clock` with the one capability `CAP_SYS_TIME`, no network and nothing to write. The note is not
//! obeyed but judged: it must be of this boot, and no earlier than the image's release nor absurdly later.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::BootStamp;
use crate::durable::{ReplaceFileError, replace_file};

/// Below this, the machine's clock is right enough.
pub const WORTH_SETTING_MS: i64 = 1000;
/// Name of the note in the runtime folder.
pub const FILE: &str = "clock";
/// The note has one short line.
const MAX_FILE_BYTES: u64 = 4096;
/// A time this far after the image's release is a mistake (30 years).
const MAX_AFTER_RELEASE_MS: i64 = 30 * 365 * 24 * 3_600_000;

/// What time it was at a moment of this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Milliseconds since 1970.
    pub wall_ms: i64,
    /// When that was.
    #[serde(flatten)]
    pub at: BootStamp,
}

/// A note that is not followed.
#[derive(Debug, thiserror::Error)]
pub enum JudgeNoteError {
    /// There is none, or it can't be read.
    #[error("the note can't be read")]
    Read(#[source] io::Error),
    /// Not what the server writes.
    #[error("the note is not what the server writes")]
    Shape(#[source] serde_json::Error),
    /// Left over.
    #[error("the note is of another boot, or of a time to come")]
    OtherBoot,
    /// A time that can't be.
    #[error("{wall_ms} ms is before the image's release, or decades after it")]
    Absurd {
        /// The time said.
        wall_ms: i64,
    },
}

/// The folder systemd gave the server, if it runs under systemd with one.
#[must_use]
pub fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from)
}

/// Writes the note.
///
/// # Errors
/// When the folder can't be written.
pub fn write(dir: &Path, note: &Note) -> Result<(), ReplaceFileError> {
    let text = serde_json::to_vec(note).expect("numbers and text are JSON");
    replace_file(&dir.join(FILE), &text, 0o644)
}

/// What time the note at `path` says it is now, at `now`.
///
/// # Errors
/// [`JudgeNoteError`]; the clock is then left alone.
pub fn judge(path: &Path, now: &BootStamp, release_ms: i64) -> Result<i64, JudgeNoteError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(JudgeNoteError::Read)?;
    let note: Note = serde_json::from_str(&text).map_err(JudgeNoteError::Shape)?;
    let since = now.since(&note.at).ok_or(JudgeNoteError::OtherBoot)?;
    let since_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let wall_ms = note.wall_ms.saturating_add(since_ms);
    if !(release_ms..release_ms.saturating_add(MAX_AFTER_RELEASE_MS)).contains(&wall_ms) {
        return Err(JudgeNoteError::Absurd { wall_ms });
    }
    Ok(wall_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE_MS: i64 = 1_800_000_000_000;

    fn stamp(boot_id: &str, uptime_ms: u64) -> BootStamp {
        BootStamp {
            boot_id: boot_id.into(),
            uptime_ms,
        }
    }

    fn judged(note: &str, now: &BootStamp) -> Result<i64, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, note).unwrap();
        judge(&path, now, RELEASE_MS).map_err(|error| error.to_string())
    }

    #[test]
    fn a_note_of_this_boot_goes_on_with_the_boots_own_time() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note {
            wall_ms: RELEASE_MS + 50,
            at: stamp("b", 1000),
        };
        write(dir.path(), &note).unwrap();
        let path = dir.path().join(FILE);
        let now = judge(&path, &stamp("b", 1700), RELEASE_MS).unwrap();
        assert_eq!(now, RELEASE_MS + 750);
    }

    #[test]
    fn what_is_stale_absurd_or_forged_is_not_followed() {
        let note = |wall_ms: i64, boot: &str, uptime_ms: u64| {
            format!("{{\"wall_ms\":{wall_ms},\"boot_id\":\"{boot}\",\"uptime_ms\":{uptime_ms}}}")
        };
        let now = stamp("b", 1700);
        let of = |note: &str| judged(note, &now).unwrap_err();
        assert!(of(&note(RELEASE_MS, "a", 1000)).contains("another boot"));
        assert!(of(&note(RELEASE_MS, "b", 1701)).contains("to come"));
        assert!(of(&note(0, "b", 1000)).contains("before the image"));
        assert!(of(&note(i64::MAX, "b", 1000)).contains("decades"));
        assert!(of("").contains("not what the server writes"));
        assert!(of(&"x".repeat(10_000)).contains("not what the server writes"));
    }
}
