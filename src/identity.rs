//! Who this box is: its key, made at first start, and the id derived from it. Also the type that keeps secrets out of logs.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use serde::Deserialize;

use crate::digest::{Digest, hex};
use crate::durable::{ReplaceFileError, replace_file};

/// The box's Ed25519 key (RFC 8032) and the id that stands for it.
pub struct BoxIdentity {
    id: String,
    key: SigningKey,
}

/// The identity could not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum LoadIdentityError {
    /// The key file exists and cannot be read.
    #[error("cannot read the box's key {path}")]
    Read {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file has the wrong length.
    #[error("the box's key {path} has {found} bytes where 32 were expected")]
    Length {
        /// The key file.
        path: PathBuf,
        /// Its length in bytes.
        found: usize,
    },
    /// A new key could not be stored.
    #[error("cannot store the box's new key")]
    Store(#[from] ReplaceFileError),
}

impl BoxIdentity {
    /// Loads the key at `path` (32 bytes, mode 0600), or makes one there.
    ///
    /// # Errors
    /// A key that exists but can't be used is an error, never replaced: devices have pinned it.
    pub fn load_or_create(path: &Path) -> Result<Self, LoadIdentityError> {
        match fs::read(path) {
            Ok(bytes) => {
                let found = bytes.len();
                let seed = bytes.try_into().map_err(|_| LoadIdentityError::Length {
                    path: path.into(),
                    found,
                })?;
                Ok(Self::from_seed(seed))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seed = random_bytes();
                replace_file(path, &seed, 0o600)?;
                Ok(Self::from_seed(seed))
            }
            Err(source) => Err(LoadIdentityError::Read {
                path: path.into(),
                source,
            }),
        }
    }

    /// The identity of a known 32-byte seed (tests, golden files).
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let fingerprint = Digest::of(key.verifying_key().as_bytes()).to_string();
        Self {
            id: format!("box-{}", &fingerprint[..12]),
            key,
        }
    }

    /// `box-` and the first 12 hexadecimal digits of the public key's SHA-256.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key, 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// An Ed25519 signature over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for BoxIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoxIdentity({})", self.id)
    }
}

/// A secret text: prints as `<secret>`, whatever formats it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// `N` bytes from the operating system's random number generator.
///
/// # Panics
/// When the operating system has none to give, where going on would make guessable keys.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes
}

/// A random number, for jitter.
#[must_use]
pub fn dice() -> u32 {
    u32::from_le_bytes(random_bytes())
}

/// A random token of 256 bits as 64 hexadecimal digits.
#[must_use]
pub fn random_token() -> Secret {
    Secret(hex(&random_bytes::<32>()))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let first = BoxIdentity::load_or_create(&path).unwrap();
        let again = BoxIdentity::load_or_create(&path).unwrap();
        assert_eq!(first.id(), again.id());
        let key = VerifyingKey::from_bytes(&again.public_key()).unwrap();
        let signature = Signature::from_bytes(&first.sign(b"hello"));
        key.verify_strict(b"hello", &signature).unwrap();
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        fs::write(&path, b"short").unwrap();
        let error = BoxIdentity::load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("5 bytes"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "<secret>");
    }
}
