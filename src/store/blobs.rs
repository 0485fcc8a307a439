//! Media files, each named by its SHA-256: `blobs/<2 hex>/<64 hex>`.
//!
//! A file is written to `blobs/tmp/`, and gets its name only when its size and digest fit and its bytes are on the
//! disk; so whatever has a name is whole. What a crash left in `tmp` is removed at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tracing::warn;

use super::room::{Room, RoomError};
use crate::digest::{Digest, Hasher};
use crate::durable::fsync_dir;
use crate::telemetry::chain;
use crate::units::ByteSize;

/// An open blob.
#[derive(Debug)]
pub struct Blob {
    /// Its bytes.
    pub file: File,
    /// How many.
    pub len: u64,
}

/// A blob could not be opened or looked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {path}")]
pub struct OpenBlobError {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A blob could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteBlobError {
    /// The quota of media is used up.
    #[error("{wanted} more would exceed the quota of {quota} for media, {used} are used")]
    Quota {
        /// The blob's size.
        wanted: ByteSize,
        /// All blobs together at most.
        quota: ByteSize,
        /// All blobs together now.
        used: ByteSize,
    },
    /// The rest of the disk is reserved for orders.
    #[error("no room for media")]
    Room(#[from] RoomError),
    /// More or fewer bytes than announced.
    #[error("the blob has {found} bytes where {expected} were announced")]
    Size {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Other bytes than announced.
    #[error("the blob's digest is {found} where {expected} was announced")]
    Digest {
        /// Digest announced.
        expected: Digest,
        /// Digest of what came.
        found: Digest,
    },
    /// The disk refused.
    #[error("cannot {attempt} {path}")]
    Disk {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Handle on the blobs. Clones share it.
#[derive(Clone)]
pub struct Blobs {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    room: Arc<Room>,
    quota: ByteSize,
    // Published and announced bytes.
    used: AtomicU64,
    names: AtomicU64,
}

/// A blob being written. Dropped before [`BlobWriter::publish`], it leaves nothing behind.
pub struct BlobWriter {
    shared: Arc<Shared>,
    file: File,
    temp_path: PathBuf,
    digest: Digest,
    size: u64,
    written: u64,
    hasher: Hasher,
    published: bool,
}

impl Blobs {
    pub(super) fn start(
        dir: PathBuf,
        quota: ByteSize,
        room: Arc<Room>,
    ) -> Result<Self, OpenBlobError> {
        let failed = |attempt, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenBlobError {
                attempt,
                path,
                source,
            }
        };
        let temp_dir = dir.join("tmp");
        match fs::remove_dir_all(&temp_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("clean", &temp_dir)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&temp_dir).map_err(failed("create", &temp_dir))?;
        let used = total(&dir).map_err(failed("add up", &dir))?;
        Ok(Self {
            shared: Arc::new(Shared {
                dir,
                room,
                quota,
                used: AtomicU64::new(used),
                names: AtomicU64::new(0),
            }),
        })
    }

    /// Opens a blob for reading; `None` when it is not here.
    ///
    /// # Errors
    /// [`OpenBlobError`].
    pub fn open(&self, digest: &Digest) -> Result<Option<Blob>, OpenBlobError> {
        let path = self.shared.path(digest);
        let failed = |attempt| {
            let path = path.clone();
            move |source| OpenBlobError {
                attempt,
                path,
                source,
            }
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("open"))?,
        };
        let len = file.metadata().map_err(failed("measure"))?.len();
        Ok(Some(Blob { file, len }))
    }

    /// Whether a blob is here.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.shared.path(digest).is_file()
    }

    /// Begins a blob of `size` bytes. Quota and free space are claimed now, so that a download never fails half-way for
    /// want of them.
    ///
    /// # Errors
    /// [`WriteBlobError`].
    pub fn begin(&self, digest: &Digest, size: u64) -> Result<BlobWriter, WriteBlobError> {
        let shared = &self.shared;
        shared.room.check(ByteSize::bytes(size))?;
        let claimed = shared
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(size)
                    .filter(|used| *used <= shared.quota.as_u64())
            });
        if let Err(used) = claimed {
            return Err(WriteBlobError::Quota {
                wanted: ByteSize::bytes(size),
                quota: shared.quota,
                used: ByteSize::bytes(used),
            });
        }
        let name = shared.names.fetch_add(1, Ordering::Relaxed);
        let temp_path = shared.dir.join("tmp").join(format!("{digest}.{name}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temp_path)
            .map_err(|source| {
                shared.used.fetch_sub(size, Ordering::Relaxed);
                WriteBlobError::Disk {
                    attempt: "create",
                    path: temp_path.clone(),
                    source,
                }
            })?;
        Ok(BlobWriter {
            shared: Arc::clone(shared),
            file,
            temp_path,
            digest: *digest,
            size,
            written: 0,
            hasher: Hasher::default(),
            published: false,
        })
    }

    /// Removes a blob; whether it was here. Who reads it meanwhile reads it to its end.
    ///
    /// # Errors
    /// [`OpenBlobError`].
    pub fn remove(&self, digest: &Digest) -> Result<bool, OpenBlobError> {
        let path = self.shared.path(digest);
        let failed = |attempt| {
            let path = path.clone();
            move |source| OpenBlobError {
                attempt,
                path,
                source,
            }
        };
        let len = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(failed("measure"))?.len(),
        };
        fs::remove_file(&path).map_err(failed("remove"))?;
        self.shared.used.fetch_sub(len, Ordering::Relaxed);
        Ok(true)
    }

    /// Reads a blob again and removes it when its bytes are no longer those of its name; whether it is whole. `None`
    /// when it is not here.
    ///
    /// # Errors
    /// [`OpenBlobError`].
    pub fn verify(&self, digest: &Digest) -> Result<Option<bool>, OpenBlobError> {
        let Some(mut blob) = self.open(digest)? else {
            return Ok(None);
        };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match blob.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(OpenBlobError {
                        attempt: "read",
                        path: self.shared.path(digest),
                        source,
                    });
                }
            }
        }
        let whole = hasher.finish() == *digest;
        if !whole {
            self.remove(digest)?;
        }
        Ok(Some(whole))
    }

    /// Removes the blobs that came first while less than half the reserve for orders is free, until it is whole again;
    /// how many bytes went. They come again when there is room: the catalogue still names them.
    pub fn relieve(&self) -> u64 {
        match self.shared.room.free() {
            Ok(free) => self.relieve_at(free),
            Err(error) => {
                warn!(event = "store.room_unknown", error = &*chain(&error));
                0
            }
        }
    }

    pub(super) fn relieve_at(&self, free: ByteSize) -> u64 {
        let reserve = self.shared.room.reserve();
        if free.as_u64() >= reserve.as_u64() / 2 {
            return 0;
        }
        let wanted = reserve.as_u64() - free.as_u64();
        let mut blobs = by_age(&self.shared.dir).unwrap_or_default();
        blobs.sort();
        let (mut gone, mut count) = (0, 0);
        for (_, digest, len) in blobs {
            if gone >= wanted {
                break;
            }
            if matches!(self.remove(&digest), Ok(true)) {
                gone += len;
                count += 1;
            }
        }
        if count > 0 {
            warn!(
                event = "store.media_evicted",
                blobs = count,
                bytes = gone,
                free = %free,
                "the disk is nearly full: media made room for orders"
            );
        }
        gone
    }

    /// Bytes of all blobs, those being written included at their announced size.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(name)
    }
}

impl BlobWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`WriteBlobError`]; more bytes than announced are refused before they reach the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteBlobError> {
        let found = self.written.saturating_add(bytes.len() as u64);
        if found > self.size {
            return Err(WriteBlobError::Size {
                expected: self.size,
                found,
            });
        }
        self.file
            .write_all(bytes)
            .map_err(|source| self.failed("write", source))?;
        self.hasher.update(bytes);
        self.written = found;
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Gives the blob its name, if it is what was announced: fsync, rename, fsync of the folders.
    ///
    /// # Errors
    /// [`WriteBlobError`]; nothing is then left behind.
    pub fn publish(mut self) -> Result<(), WriteBlobError> {
        if self.written != self.size {
            return Err(WriteBlobError::Size {
                expected: self.size,
                found: self.written,
            });
        }
        let found = self.hasher.clone().finish();
        if found != self.digest {
            return Err(WriteBlobError::Digest {
                expected: self.digest,
                found,
            });
        }
        self.file
            .sync_all()
            .map_err(|source| self.failed("fsync", source))?;
        let path = self.shared.path(&self.digest);
        let dir = path
            .parent()
            .expect("a blob lies in a folder")
            .to_path_buf();
        if !dir.is_dir() {
            fs::create_dir_all(&dir).map_err(|source| self.failed("make a folder for", source))?;
            fsync_dir(&self.shared.dir)
                .map_err(|source| self.failed("fsync the folder of", source))?;
        }
        let replaced = fs::metadata(&path).map_or(0, |meta| meta.len());
        fs::rename(&self.temp_path, &path).map_err(|source| self.failed("publish", source))?;
        self.published = true;
        self.shared.used.fetch_sub(replaced, Ordering::Relaxed);
        fsync_dir(&dir).map_err(|source| self.failed("fsync the folder of", source))
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> WriteBlobError {
        WriteBlobError::Disk {
            attempt,
            path: self.temp_path.clone(),
            source,
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.published {
            self.shared.used.fetch_sub(self.size, Ordering::Relaxed);
            // What can't be removed now is removed at the next start.
            let _ = fs::remove_file(&self.temp_path);
        }
    }
}

/// All blobs: when they came, their names and sizes.
fn by_age(dir: &Path) -> io::Result<Vec<(SystemTime, Digest, u64)>> {
    let mut blobs = Vec::new();
    for folder in fs::read_dir(dir)? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for blob in fs::read_dir(folder)? {
            let blob = blob?;
            // What is not named like a blob (still coming) is not one.
            if let Ok(digest) = blob.file_name().to_string_lossy().parse() {
                let meta = blob.metadata()?;
                blobs.push((meta.modified()?, digest, meta.len()));
            }
        }
    }
    Ok(blobs)
}

fn total(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        if folder.file_type()?.is_dir() {
            for blob in fs::read_dir(folder.path())? {
                bytes += blob?.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}
