//! How far media are, for people and programs.

use serde::Serialize;

use crate::digest::Digest;

/// How the fetching of media stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MediaReport {
    /// Blobs that the manifest names and whose time is not over.
    pub listed: u64,
    /// Of these, here.
    pub fetched: u64,
    /// Of these, to be fetched.
    pub waiting: u64,
    /// Of these, set aside after failures: missing at the platform, not shown to this box, or not what was announced.
    pub failed: u64,
    /// Of these, without a place: the quota or the disk is too small.
    pub without_place: u64,
    /// Documents of the manifest that can't be followed.
    pub refused_documents: u64,
    /// Bytes of all blobs here, and the announced bytes of those that are coming.
    pub bytes: u64,
    /// The most they may have.
    pub quota_bytes: u64,
    /// Whether media that are not urgent may be fetched now.
    pub window_open: bool,
    /// When it opens next, milliseconds since 1970; `None` while it is open.
    pub window_opens_ms: Option<i64>,
    /// What is being fetched now.
    pub downloads: Vec<Download>,
}

/// A blob that is being fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Download {
    /// Its name.
    pub sha256: Digest,
    /// Bytes here.
    pub bytes: u64,
    /// Bytes in all.
    pub size: u64,
    /// The same in hundredths, rounded down.
    pub percent: u8,
}

impl Download {
    pub(super) fn new(sha256: Digest, bytes: u64, size: u64) -> Self {
        let percent = if size == 0 {
            100
        } else {
            u8::try_from(u128::from(bytes) * 100 / u128::from(size)).unwrap_or(100)
        };
        Self {
            sha256,
            bytes,
            size,
            percent,
        }
    }
}
