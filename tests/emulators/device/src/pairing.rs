//! What the device keeps of its pairing, in `pairing.json` of its state folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

const FILE: &str = "pairing.json";

/// The answer of `POST /v1/pair`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pairing {
    /// Who this device is.
    pub device_id: String,
    /// For the box's HTTP ports.
    pub token: String,
    /// The shared key.
    #[serde(with = "crate::hex::array")]
    pub command_key: [u8; 32],
    /// Whose device this is.
    pub box_id: String,
    /// The box's public key.
    #[serde(with = "crate::hex::array")]
    pub box_key: [u8; 32],
}

impl Pairing {
    /// What the state folder holds.
    pub fn load(state: &Path) -> anyhow::Result<Option<Self>> {
        let path = state.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                    format!("{} is damaged", path.display())
                })?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps it.
    pub fn store(&self, state: &Path) -> anyhow::Result<()> {
        replace_file(&state.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}

/// A whole file or the one before: temporary file, fsync, rename, fsync of the folder.
pub fn replace_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
