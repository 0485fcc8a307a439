//! A blob on its way: written piece by piece, gone on with after any interruption, named only when it is whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Blobs, Coming, Held, Shared, Table, WriteBlobError};
use crate::digest::{Digest, Hasher};
use crate::durable::{fsync_dir, replace_file};
use crate::telemetry::chain;

/// Partial files kept at most.
pub const MAX_PARTIALS: usize = 32;
/// Bytes written after which they are made durable.
pub const SYNC_BYTES: u64 = 8 << 20;
/// Time after which the bytes written are made durable.
pub const SYNC_EVERY: Duration = Duration::from_secs(30);

/// The folder of partial files, beside those of whole ones.
pub(super) const FOLDER: &str = "partial";
/// A record is far smaller than this.
const MAX_RECORD_BYTES: u64 = 16 << 10;

/// What is known of a partial file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Bytes of the whole blob.
    size: u64,
    /// Bytes that were fsynced.
    length: u64,
    /// The state of the far file they are of.
    etag: String,
    /// Where they came from, without a signature.
    source: String,
}

/// A blob being written. Dropped before [`BlobWriter::publish`], it stays as a partial file if its state has a name (an
/// ETag), and leaves nothing behind otherwise.
pub struct BlobWriter {
    shared: Arc<Shared>,
    file: File,
    path: PathBuf,
    digest: Digest,
    size: u64,
    source: String,
    etag: Option<String>,
    hasher: Hasher,
    written: Arc<AtomicU64>,
    /// Bytes the record stands for.
    recorded: u64,
    /// Monotonic time of the last record.
    recorded_at: Duration,
    is_done: bool,
}

impl Blobs {
    /// Begins a blob of `size` bytes, or goes on with it when a partial file of the same size and `source` (its address,
    /// without a signature) is here. Quota and free space are claimed now, so that a download does not fail half-way for
    /// want of them; blobs of less worth make room.
    ///
    /// # Errors
    /// [`WriteBlobError`].
    pub fn begin(
        &self,
        digest: &Digest,
        size: u64,
        source: &str,
    ) -> Result<BlobWriter, WriteBlobError> {
        let shared = &self.shared;
        let path = file_path(&shared.dir, digest);
        let written = {
            let mut table = shared.lock();
            if table.coming.get(digest).is_some_and(|blob| blob.is_open) {
                return Err(WriteBlobError::Busy);
            }
            let record =
                read_record(&path).filter(|record| record.size == size && record.source == source);
            if record.is_none() {
                discard(&shared.dir, &mut table, digest);
            }
            let had = record.map_or(0, |record| record.length);
            let is_new = !table.coming.contains_key(digest);
            let claim = if is_new { size } else { 0 };
            shared.make_room(&mut table, digest, claim, size.saturating_sub(had))?;
            while table.coming.len() >= MAX_PARTIALS && is_new {
                let before = table.coming.len();
                shared.drop_partial(&mut table);
                if table.coming.len() == before {
                    return Err(WriteBlobError::Busy);
                }
            }
            table.used += claim;
            let blob = table.coming.entry(*digest).or_insert_with(|| Coming {
                size,
                is_open: true,
                written: Arc::default(),
            });
            blob.is_open = true;
            Arc::clone(&blob.written)
        };
        let opened = open(&path, size, source);
        let (file, hasher, record) = opened.map_err(|source| {
            discard(&shared.dir, &mut shared.lock(), digest);
            WriteBlobError::Disk {
                attempt: "open",
                path: path.clone(),
                source,
            }
        })?;
        let length = record.as_ref().map_or(0, |record| record.length);
        written.store(length, Ordering::Relaxed);
        Ok(BlobWriter {
            shared: Arc::clone(shared),
            file,
            path,
            digest: *digest,
            size,
            source: source.to_owned(),
            etag: record.map(|record| record.etag),
            hasher,
            written,
            recorded: length,
            recorded_at: shared.clock.monotonic(),
            is_done: false,
        })
    }
}

impl BlobWriter {
    /// Bytes that are here, from the blob's start.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The state of the far file that the bytes here are of.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// Throws away the bytes that are here; the next ones are the first of the far file's state `etag`.
    ///
    /// # Errors
    /// [`WriteBlobError::Disk`].
    pub fn restart(&mut self, etag: Option<String>) -> Result<(), WriteBlobError> {
        remove(&record_path(&self.path)).map_err(|source| self.failed("forget", source))?;
        self.recorded = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)).map(drop))
            .map_err(|source| self.failed("empty", source))?;
        self.hasher = Hasher::default();
        self.written.store(0, Ordering::Relaxed);
        self.etag = etag;
        Ok(())
    }

    /// Appends bytes; now and then makes them durable.
    ///
    /// # Errors
    /// [`WriteBlobError`]; more bytes than announced are refused before they reach the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteBlobError> {
        let found = self.written().saturating_add(bytes.len() as u64);
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
        self.written.store(found, Ordering::Relaxed);
        let waited = self
            .shared
            .clock
            .monotonic()
            .saturating_sub(self.recorded_at);
        if found - self.recorded >= SYNC_BYTES || waited >= SYNC_EVERY {
            self.record()?;
        }
        Ok(())
    }

    /// Gives the blob its name, if it is what was announced: fsync, rename, fsync of the folders.
    ///
    /// # Errors
    /// [`WriteBlobError`]; of wrong bytes nothing is left behind.
    pub fn publish(mut self) -> Result<(), WriteBlobError> {
        if self.written() != self.size {
            return Err(WriteBlobError::Size {
                expected: self.size,
                found: self.written(),
            });
        }
        let found = self.hasher.clone().finish();
        if found != self.digest {
            let expected = self.digest;
            self.discard();
            return Err(WriteBlobError::Digest { expected, found });
        }
        let now = self.shared.clock.wall();
        self.file
            .set_modified(now.into())
            .and_then(|()| self.file.sync_all())
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
        let mut table = self.shared.lock();
        fs::rename(&self.path, &path).map_err(|source| self.failed("publish", source))?;
        self.is_done = true;
        table.coming.remove(&self.digest);
        table.forget(&self.digest);
        let (len, served_s) = (self.size, now.as_second());
        table.held.insert(self.digest, Held { len, served_s });
        drop(table);
        fsync_dir(&dir).map_err(|source| self.failed("fsync the folder of", source))?;
        // Without its file a record is removed at the next start at the latest.
        let _ = remove(&record_path(&self.path));
        Ok(())
    }

    /// Leaves nothing behind.
    pub fn discard(mut self) {
        self.is_done = true;
        discard(&self.shared.dir, &mut self.shared.lock(), &self.digest);
    }

    /// Makes what is here durable, and then the record of it.
    fn record(&mut self) -> Result<(), WriteBlobError> {
        self.recorded_at = self.shared.clock.monotonic();
        let Some(etag) = self.etag.clone() else {
            return Ok(());
        };
        let length = self.written();
        self.file
            .sync_data()
            .map_err(|source| self.failed("fsync", source))?;
        let record = Record {
            size: self.size,
            length,
            etag,
            source: self.source.clone(),
        };
        let path = record_path(&self.path);
        serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|bytes| replace_file(&path, &bytes, 0o600).map_err(io::Error::other))
            .map_err(|source| self.failed("note the state of", source))?;
        self.recorded = length;
        Ok(())
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> WriteBlobError {
        WriteBlobError::Disk {
            attempt,
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if self.written() > self.recorded
            && let Err(error) = self.record()
        {
            warn!(event = "store.partial_blob_cut", error = &*chain(&error));
        }
        let mut table = self.shared.lock();
        if self.recorded == 0 {
            discard(&self.shared.dir, &mut table, &self.digest);
        } else if let Some(blob) = table.coming.get_mut(&self.digest) {
            blob.is_open = false;
            blob.written.store(self.recorded, Ordering::Relaxed);
        }
    }
}

/// The partial files that can be gone on with; everything else in their folder is removed.
pub(super) fn recover(dir: &Path) -> io::Result<BTreeMap<Digest, Coming>> {
    let mut coming = BTreeMap::new();
    let mut others = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        match name.and_then(|name| name.parse::<Digest>().ok()) {
            Some(digest) => match read_record(&path) {
                Some(record) if coming.len() < MAX_PARTIALS => {
                    let blob = Coming {
                        size: record.size,
                        is_open: false,
                        written: Arc::new(AtomicU64::new(record.length)),
                    };
                    coming.insert(digest, blob);
                }
                _ => others.extend([record_path(&path), path]),
            },
            None => others.push(path),
        }
    }
    for path in others {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        let digest = stem.and_then(|stem| stem.parse::<Digest>().ok());
        let is_record = path
            .extension()
            .is_some_and(|extension| extension == "json");
        if !(is_record && digest.is_some_and(|digest| coming.contains_key(&digest))) {
            remove(&path)?;
        }
    }
    Ok(coming)
}

/// Opens the partial file at the end of what its record vouches for, and digests what is there.
fn open(path: &Path, size: u64, source: &str) -> io::Result<(File, Hasher, Option<Record>)> {
    let record = read_record(path).filter(|record| record.size == size && record.source == source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(record.is_none())
        .open(path)?;
    let mut hasher = Hasher::default();
    if let Some(record) = &record {
        file.set_len(record.length)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok((file, hasher, record))
}

/// Removes a partial file and gives back what it claims.
pub(super) fn discard(dir: &Path, table: &mut Table, digest: &Digest) {
    let path = file_path(dir, digest);
    // What can't be removed now is removed at the next start. The record goes first: it vouches for the file.
    let _ = remove(&record_path(&path));
    let _ = remove(&path);
    if let Some(blob) = table.coming.remove(digest) {
        table.used = table.used.saturating_sub(blob.size);
    }
}

/// A sound record whose bytes are there.
fn read_record(path: &Path) -> Option<Record> {
    let record_path = record_path(path);
    if fs::metadata(&record_path).ok()?.len() > MAX_RECORD_BYTES {
        return None;
    }
    let record: Record = serde_json::from_slice(&fs::read(record_path).ok()?).ok()?;
    let there = fs::metadata(path).ok()?.len();
    (record.length <= record.size && record.length <= there).then_some(record)
}

fn file_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(FOLDER).join(digest.to_string())
}

fn record_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
