//! Bringing a site file in from an installer's USB stick: checked first, then replaced in one step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Config, LoadConfigError, MAX_FILE_BYTES};
use crate::durable::{ReplaceFileError, replace_file};

/// What an import did.
#[derive(Debug, PartialEq, Eq)]
pub enum Imported {
    /// The stick says what the box has already.
    Unchanged,
    /// The site file and so many certificate files were taken.
    Taken {
        /// Certificate files.
        ca_files: usize,
    },
}

/// A stick whose settings were not taken; the box keeps what it had.
#[derive(Debug, thiserror::Error)]
pub enum ImportSiteError {
    /// No site file in the folder.
    #[error("there is no {0}")]
    Missing(PathBuf),
    /// The settings on the stick are wrong.
    #[error("the settings were not taken, the box keeps those it had")]
    Load(#[from] LoadConfigError),
    /// A certificate file lies outside the folder, is too large or can't be read.
    #[error("cannot take the certificate file {path}")]
    CaFile {
        /// The file on the stick.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data partition did not take them.
    #[error("cannot store the settings")]
    Store(#[from] ReplaceFileError),
}

/// Takes `site.toml` and the certificate files it names from `from_dir` into the folder of `site_file`.
///
/// # Errors
/// Says what was wrong; nothing is changed then. The certificates are written before the site file that names them.
pub fn import_site(
    from_dir: &Path,
    image_file: &Path,
    site_file: &Path,
) -> Result<Imported, ImportSiteError> {
    let source_path = from_dir.join("site.toml");
    if !source_path.is_file() {
        return Err(ImportSiteError::Missing(source_path));
    }
    let config = Config::load(image_file, &source_path)?;
    let text = fs::read(&source_path).map_err(|source| LoadConfigError::Read {
        path: source_path.clone(),
        source,
    })?;
    let site_dir = site_file.parent().unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for path in &config.wan.ca_files {
        let bytes = read_ca_file(from_dir, path).map_err(|source| ImportSiteError::CaFile {
            path: path.clone(),
            source,
        })?;
        let name = path.file_name().unwrap_or_default();
        files.push((site_dir.join(name), bytes));
    }
    let ca_files = files.len();
    files.push((site_file.to_path_buf(), text));
    if files
        .iter()
        .all(|(path, bytes)| fs::read(path).is_ok_and(|have| have == *bytes))
    {
        return Ok(Imported::Unchanged);
    }
    for (path, bytes) in files {
        replace_file(&path, &bytes, 0o600)?;
    }
    Ok(Imported::Taken { ca_files })
}

fn read_ca_file(from_dir: &Path, path: &Path) -> io::Result<Vec<u8>> {
    if path.parent() != Some(from_dir) {
        return Err(io::Error::other("it does not stand beside site.toml"));
    }
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    fs::read(path)
}
