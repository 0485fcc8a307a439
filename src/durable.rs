//! Replacing a small file so that a power cut leaves the old or the new content, never half of it; and asking a disk
//! whether it keeps what it is given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// A file that could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {path}")]
pub struct ReplaceFileError {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes `bytes` to `path` with permission bits `mode`: temporary file beside it, fsync, rename, fsync of the folder.
///
/// # Errors
/// Names the step and the path; the old file then still stands.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ReplaceFileError> {
    let failed = |attempt, path: &Path| {
        let path = path.to_path_buf();
        move |source| ReplaceFileError {
            attempt,
            path,
            source,
        }
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let mut temp_path = path.as_os_str().to_owned();
    temp_path.push(".new");
    let temp_path = PathBuf::from(temp_path);
    match fs::remove_file(&temp_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temp_path)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temp_path)
        .map_err(failed("create", &temp_path))?;
    file.write_all(bytes).map_err(failed("write", &temp_path))?;
    file.sync_all().map_err(failed("fsync", &temp_path))?;
    fs::rename(&temp_path, path).map_err(failed("replace", path))?;
    fsync_dir(dir).map_err(failed("fsync", dir))
}

/// Makes the entries of `dir` (created, renamed, removed files) durable.
///
/// # Errors
/// As the operating system says.
pub fn fsync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A disk that does not keep what it is given.
#[derive(Debug, thiserror::Error)]
pub enum ProbeDiskError {
    /// It takes or gives nothing.
    #[error("the data disk can't {attempt}: {source}")]
    Io {
        /// Write, or read back.
        attempt: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// It gave back something else.
    #[error("the data disk gave back something else than was written")]
    Altered,
}

/// Writes `len` random bytes to `path`, makes them durable, drops them from memory and reads them back from the disk.
///
/// # Errors
/// When any of it fails; the file is removed in every case.
pub fn probe_disk(path: &Path, len: usize) -> Result<(), ProbeDiskError> {
    let mut written = vec![0; len];
    let failed = |attempt| move |source| ProbeDiskError::Io { attempt, source };
    getrandom::fill(&mut written)
        .map_err(io::Error::other)
        .map_err(failed("be tried"))?;
    let result = write_through(path, &written)
        .map_err(failed("be written"))
        .and_then(|()| fs::read(path).map_err(failed("be read")));
    let _ = fs::remove_file(path);
    if result? == written {
        Ok(())
    } else {
        Err(ProbeDiskError::Altered)
    }
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(posix_fadvise(
        &file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_and_survives_a_leftover_of_an_earlier_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state.json");
        replace_file(&path, b"one", 0o600).unwrap();
        fs::write(dir.path().join("a/state.json.new"), b"ha").unwrap();
        replace_file(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
