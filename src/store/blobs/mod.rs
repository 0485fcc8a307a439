//! Media files, each named by its SHA-256.
//!
//! ```text
//! blobs/ab/abcd…            whole: size and digest were checked and the bytes are on the disk
//! blobs/partial/abcd…       coming
//! blobs/partial/abcd….json  how many of its bytes are on the disk, of which state of which address (ETag)
//! ```
//! # Limits
//! | what | bound | at the bound |
//! |---|---|---|
//! | blobs and what is announced of those that come | `store.blob_quota_mib` | those of less [`Worth`] go; none left: refused |
//! | free space | `store.orders_reserve_mib` | the same; at half of it blobs go until it is whole again |
//! | partial files | [`MAX_PARTIALS`] | one that nobody writes goes, the least worth first |
//! | bytes of a partial file that a power cut may take | [`SYNC_BYTES`], [`SYNC_EVERY`] | fsync, then the record |
//!
//! # Invariants
//! - Whatever has a blob's name has its bytes.
//! - A record never says more than was fsynced before it; what a file has beyond its record is cut off.
//! - A blob never makes place for one of equal or less worth, so two can't push each other out in turn.
//! - A whole blob that is scheduled makes place for orders only; until the manifest is whole, every blob counts as scheduled.
//!
//! # Recovery
//! At a start a partial file with a sound record waits to be gone on with; everything else in `partial/` is removed.

mod keep;
mod partial;
mod report;
mod shelf;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::room::{Room, RoomError};
use crate::clock::Clock;
use crate::digest::{Digest, Hasher};
use crate::units::ByteSize;

pub use partial::{BlobWriter, MAX_PARTIALS, SYNC_BYTES, SYNC_EVERY};
pub use report::{Download, MediaReport};
pub use shelf::{Listed, Phase, SOON_MS, Shelf, by_claim};

use shelf::Worth;

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
    /// The quota of media is used up by blobs that are worth as much.
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
    /// Somebody is writing this blob.
    #[error("the blob is being written already")]
    Busy,
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
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    held: HashMap<Digest, Held>,
    coming: BTreeMap<Digest, Coming>,
    /// Bytes of those held, and announced bytes of those coming.
    used: u64,
    shelf: Arc<Shelf>,
    report: MediaReport,
}

/// A whole blob.
struct Held {
    len: u64,
    /// When it came or was last served, seconds since 1970.
    served_s: i64,
}

/// A partial blob.
struct Coming {
    size: u64,
    is_open: bool,
    written: Arc<AtomicU64>,
}

impl Coming {
    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// "Last served" is noted on the disk when it is off by more than this.
const SERVED_STEP: Duration = Duration::from_secs(24 * 60 * 60);

impl Blobs {
    pub(super) fn start(
        dir: PathBuf,
        quota: ByteSize,
        room: Arc<Room>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenBlobError> {
        let failed = |attempt, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenBlobError {
                attempt,
                path,
                source,
            }
        };
        let partial_dir = dir.join(partial::FOLDER);
        fs::create_dir_all(&partial_dir).map_err(failed("create", &partial_dir))?;
        let coming = partial::recover(&partial_dir).map_err(failed("clean", &partial_dir))?;
        let held = held(&dir).map_err(failed("add up", &dir))?;
        let used = held.values().map(|blob| blob.len).sum::<u64>()
            + coming.values().map(|blob| blob.size).sum::<u64>();
        Ok(Self {
            shared: Arc::new(Shared {
                dir,
                room,
                quota,
                clock,
                table: Mutex::new(Table {
                    held,
                    coming,
                    used,
                    ..Table::default()
                }),
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.shared.lock().forget(digest);
                return Ok(None);
            }
            other => other.map_err(failed("open"))?,
        };
        let len = file.metadata().map_err(failed("measure"))?.len();
        self.shared.note_served(digest, &file);
        Ok(Some(Blob { file, len }))
    }

    /// Whether a blob is here.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.shared.lock().held.contains_key(digest)
    }

    /// Of `digests`, whether each is here; one look for all of them.
    pub fn are_here<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Vec<bool> {
        let table = self.shared.lock();
        digests
            .map(|digest| table.held.contains_key(digest))
            .collect()
    }

    /// Removes a blob; whether it was here. Who reads it meanwhile reads it to its end.
    ///
    /// # Errors
    /// [`OpenBlobError`].
    pub fn remove(&self, digest: &Digest) -> Result<bool, OpenBlobError> {
        let mut table = self.shared.lock();
        self.shared.remove(&mut table, digest)
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

    /// Bytes of all blobs, those that are coming included at their announced size.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.shared.lock().used
    }

    /// Bytes that blobs may have in all as things are: the quota, or less on a disk that is too small for it.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let quota = self.shared.quota.as_u64();
        let Ok(free) = self.shared.room.free() else {
            return quota;
        };
        let beyond_reserve = free
            .as_u64()
            .saturating_sub(self.shared.room.reserve().as_u64());
        let table = self.shared.lock();
        let on_disk = table.held.values().map(|blob| blob.len).sum::<u64>()
            + table.coming.values().map(Coming::written).sum::<u64>();
        quota.min(on_disk.saturating_add(beyond_reserve))
    }

    /// What the manifest says from now on.
    pub fn set_shelf(&self, shelf: Arc<Shelf>) {
        self.shared.lock().shelf = shelf;
    }

    /// The media type of a blob, if the manifest names one.
    #[must_use]
    pub fn content_type(&self, digest: &Digest) -> Option<String> {
        let table = self.shared.lock();
        table.shelf.content_type(digest).map(str::to_owned)
    }

    /// Takes in how the fetching stands; what the store itself knows of it is filled in when it is read.
    pub fn tell(&self, report: MediaReport) {
        self.shared.lock().report = report;
    }

    /// How the fetching stands.
    #[must_use]
    pub fn report(&self) -> MediaReport {
        let table = self.shared.lock();
        MediaReport {
            bytes: table.used,
            quota_bytes: self.shared.quota.as_u64(),
            downloads: table
                .coming
                .iter()
                .filter(|(_, blob)| blob.is_open)
                .map(|(digest, blob)| Download::new(*digest, blob.written(), blob.size))
                .collect(),
            ..table.report.clone()
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(name)
    }

    fn remove(&self, table: &mut Table, digest: &Digest) -> Result<bool, OpenBlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenBlobError {
                attempt: "remove",
                path,
                source: error,
            }),
            result => {
                table.forget(digest);
                Ok(result.is_ok())
            }
        }
    }

    fn note_served(&self, digest: &Digest, file: &File) {
        let now_s = self.clock.wall().as_second();
        let mut table = self.lock();
        let Some(held) = table.held.get_mut(digest) else {
            return;
        };
        let is_off = now_s.abs_diff(held.served_s) > SERVED_STEP.as_secs();
        held.served_s = now_s;
        drop(table);
        if is_off {
            // Only the order in which blobs go depends on it.
            let _ = file.set_modified(SystemTime::from(self.clock.wall()));
        }
    }
}

impl Table {
    fn forget(&mut self, digest: &Digest) {
        if let Some(held) = self.held.remove(digest) {
            self.used = self.used.saturating_sub(held.len);
        }
    }

    fn worth(&self, digest: &Digest, now_ms: i64) -> Worth {
        self.shelf.worth(digest, now_ms)
    }
}

/// All whole blobs below `dir`.
fn held(dir: &Path) -> io::Result<HashMap<Digest, Held>> {
    let mut blobs = HashMap::new();
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() || folder.file_name() == partial::FOLDER {
            continue;
        }
        for blob in fs::read_dir(folder.path())? {
            let blob = blob?;
            if let Ok(digest) = blob.file_name().to_string_lossy().parse() {
                let meta = blob.metadata()?;
                let served_s = meta
                    .modified()?
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| {
                        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
                    });
                let len = meta.len();
                blobs.insert(digest, Held { len, served_s });
            }
        }
    }
    Ok(blobs)
}
