//! Replacing a small file so that a power cut leaves the old or the new content, never half of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
