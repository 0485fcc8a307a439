//! `state/enrolment.json`: what the platform handed out, readable to the service alone.
//!
//! Replaced whole and fsynced *before* anything of it is used, so that a box never lives on credentials it forgets with the
//! next power cut. The first line is the SHA-256 of the second: a file that a dying disk tore is refused by name, not
//! half believed; the platform hands out new ones to a box that it knows.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::protocol::{HandedOut, RefuseCredentialsError};
use crate::digest::Digest;
use crate::durable::{ReplaceFileError, fsync_dir, replace_file};

/// Below the data folder.
const FILE: &str = "state/enrolment.json";
/// Larger is not ours.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The file can't be used. Nothing of its content is repeated here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadEnrolmentError {
    #[error("cannot read the kept credentials {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the kept credentials {path} are damaged")]
    Damaged { path: PathBuf },
    #[error("the kept credentials {path} are not what was agreed")]
    Refused {
        path: PathBuf,
        source: RefuseCredentialsError,
    },
}

/// The file.
pub(super) struct Keeper {
    path: PathBuf,
}

impl Keeper {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join(FILE),
        }
    }

    /// What is kept, `None` when there is nothing.
    pub(super) fn read(&self) -> Result<Option<HandedOut>, ReadEnrolmentError> {
        let path = || self.path.clone();
        let mut text = String::new();
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ReadEnrolmentError::Read {
                    path: path(),
                    source,
                });
            }
        };
        match file.take(MAX_FILE_BYTES).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ReadEnrolmentError::Damaged { path: path() });
            }
            Err(source) => {
                return Err(ReadEnrolmentError::Read {
                    path: path(),
                    source,
                });
            }
        }
        let handed_out: HandedOut = text
            .split_once('\n')
            .filter(|(digest, line)| digest.parse() == Ok(Digest::of(line.as_bytes())))
            .and_then(|(_, line)| serde_json::from_str(line).ok())
            .ok_or_else(|| ReadEnrolmentError::Damaged { path: path() })?;
        handed_out
            .check()
            .map_err(|source| ReadEnrolmentError::Refused {
                path: path(),
                source,
            })?;
        Ok(Some(handed_out))
    }

    /// Durable when this returns.
    pub(super) fn keep(&self, handed_out: &HandedOut) -> Result<(), ReplaceFileError> {
        let line = serde_json::to_string(handed_out).expect("numbers and text are JSON");
        let text = format!("{}\n{line}", Digest::of(line.as_bytes()));
        replace_file(&self.path, text.as_bytes(), 0o600)
    }

    /// Forgets what is kept, for good.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => fsync_dir(self.path.parent().unwrap_or(Path::new("."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::protocol::tests::handed_out;
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_only_the_service_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path());
        assert!(keeper.read().unwrap().is_none());
        keeper.keep(&handed_out()).unwrap();
        assert!(keeper.read().unwrap() == Some(handed_out()));
        let granted = super::super::kept_credentials(dir.path());
        assert!(granted == Some(handed_out().granted()));
        let mode = fs::metadata(&keeper.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        keeper.forget().unwrap();
        keeper.forget().unwrap();
        assert!(keeper.read().unwrap().is_none());
        assert!(super::super::kept_credentials(dir.path()).is_none());
    }

    #[test]
    fn a_torn_file_is_refused_at_every_length_and_tells_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path());
        keeper.keep(&handed_out()).unwrap();
        let whole = fs::read(&keeper.path).unwrap();
        for length in 0..whole.len() {
            fs::write(&keeper.path, &whole[..length]).unwrap();
            let error = keeper.read().err().unwrap().to_string();
            assert!(error.ends_with("are damaged"), "{length}: {error}");
        }
        let mut turned = whole.clone();
        let last = turned.len() - 2;
        turned[last] ^= 1;
        fs::write(&keeper.path, turned).unwrap();
        assert!(matches!(
            keeper.read(),
            Err(ReadEnrolmentError::Damaged { .. })
        ));
    }
}
