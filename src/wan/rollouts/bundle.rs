//! The bundle while it comes in: one file below `rollout/` on the data partition, never more.
//!
//! ```text
//! rollout/bundle.partial   grows; what it holds after a power cut is checked by the digest over the whole file
//! rollout/bundle.raucb     whole and verified; the only one RAUC is ever shown
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ddi::Ddi;
use super::documents::{Artifact, Place};
use crate::digest::{Digest, Hasher};
use crate::durable::fsync_dir;
use crate::store::{Room, RoomError};
use crate::units::ByteSize;
use crate::wan::contract::FlowId;
use crate::wan::egress::{Answer, Cause, EgressError, bad_answer};

/// Read and written at a time.
const CHUNK: usize = 64 * 1024;

/// A power cut costs so much of a download at most.
const FSYNC_EVERY: u64 = 8 << 20;

/// While a bundle comes in, the room on the disk is looked at after so much.
const ROOM_EVERY: u64 = 1 << 20;

/// The folder of the bundle.
pub(super) struct BundleDir {
    dir: PathBuf,
    room: Arc<Room>,
}

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The bundle is there, verified.
    Whole,
    /// Something else is due; it goes on where it is.
    Paused,
    /// Not what was announced, or another than before: what was there is thrown away.
    Another(&'static str),
}

/// A transfer that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchBundleError {
    /// Network or host; goes on later.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The rest of the disk belongs to orders; what was here of the bundle does, too.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The address that the API led to does not take its own signature (any more): the API gives another, and nothing is
    /// wrong with what this box signs in with.
    #[error("the bundle's own address answers HTTP {0}")]
    Address(u16),
    /// The disk.
    #[error("the disk refuses the bundle")]
    Disk(#[source] io::Error),
}

impl BundleDir {
    pub(super) fn new(data_dir: &Path, room: Arc<Room>) -> Self {
        Self {
            dir: data_dir.join("rollout"),
            room,
        }
    }

    /// The whole bundle.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join("bundle.raucb")
    }

    fn partial_path(&self) -> PathBuf {
        self.dir.join("bundle.partial")
    }

    /// Bytes that are there of a bundle that is not whole.
    pub(super) fn had(&self) -> u64 {
        fs::metadata(self.partial_path()).map_or(0, |meta| meta.len())
    }

    /// Gives all its space back.
    pub(super) fn clear(&self) {
        for path in [self.path(), self.partial_path()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(event = "rollouts.clear_failed", path = %path.display(), %error);
                }
                _ => {}
            }
        }
    }

    /// Whether the whole bundle is there and is what was announced; reads all of it.
    pub(super) fn is_whole(&self, artifact: &Artifact) -> bool {
        let digest = || -> io::Result<Digest> {
            let mut hasher = Hasher::default();
            feed(&mut File::open(self.path())?, &mut hasher)?;
            Ok(hasher.finish())
        };
        digest().is_ok_and(|digest| digest == artifact.sha256)
    }

    /// Fetches what is missing. `go_on` is told after every piece how much is there, and says whether to go on.
    pub(super) fn fetch(
        &self,
        ddi: &Ddi,
        artifact: &Artifact,
        etag: &mut Option<String>,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Fetched, FetchBundleError> {
        fs::create_dir_all(&self.dir).map_err(FetchBundleError::Disk)?;
        let mut had = self.had();
        if had > artifact.size {
            self.clear();
            had = 0;
        }
        self.room.check(ByteSize::bytes(artifact.size - had))?;
        let mut hasher = Hasher::default();
        if had > 0 {
            let mut partial = File::open(self.partial_path()).map_err(FetchBundleError::Disk)?;
            feed(&mut partial, &mut hasher).map_err(FetchBundleError::Disk)?;
        }
        if had < artifact.size || artifact.size == 0 {
            let answer = ask(ddi, &artifact.url, had, etag.as_deref())?;
            match answer.status() {
                206 if had > 0 && is_range(&answer, had, artifact.size) => {}
                // All of it: the host keeps no ranges, or it is the first question.
                200 => {
                    if had > 0 {
                        self.clear();
                        (had, hasher) = (0, Hasher::default());
                    }
                    *etag = answer.header("etag").map(str::to_owned);
                }
                206 | 412 | 416 if had > 0 => {
                    self.clear();
                    *etag = None;
                    return Ok(Fetched::Another("another bundle stands there than before"));
                }
                status => {
                    let cause = Cause::of_status(status).unwrap_or(Cause::BadAnswer);
                    return Err(answer.into_error(cause).into());
                }
            }
            if !self.receive(answer, had, artifact.size, &mut hasher, go_on)? {
                return Ok(Fetched::Paused);
            }
        }
        if hasher.finish() != artifact.sha256 {
            self.clear();
            *etag = None;
            return Ok(Fetched::Another(
                "the bundle has another SHA-256 than announced",
            ));
        }
        self.publish().map_err(FetchBundleError::Disk)?;
        Ok(Fetched::Whole)
    }

    /// Appends the answer's body; false when it was left before its end.
    fn receive(
        &self,
        answer: Answer,
        had: u64,
        size: u64,
        hasher: &mut Hasher,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, FetchBundleError> {
        let disk = FetchBundleError::Disk;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.partial_path())
            .map_err(disk)?;
        let (mut reader, sort) = answer.into_reader();
        let (mut written, mut unsynced, mut unchecked) = (had, 0, 0);
        let mut chunk = vec![0; CHUNK];
        let ended = loop {
            match reader.read(&mut chunk) {
                Ok(0) => break Ok(true),
                Ok(read) => {
                    let part = &chunk[..read];
                    written += read as u64;
                    if written > size {
                        let what = "the bundle is longer than announced";
                        break Err(bad_answer(FlowId::Api, what));
                    }
                    file.write_all(part).map_err(disk)?;
                    hasher.update(part);
                    unchecked += read as u64;
                    if unchecked >= ROOM_EVERY {
                        unchecked = 0;
                        self.room.check(ByteSize::bytes(size - written))?;
                    }
                    unsynced += read as u64;
                    if unsynced >= FSYNC_EVERY {
                        unsynced = 0;
                        file.sync_data().map_err(disk)?;
                    }
                    if written < size && !go_on(written) {
                        break Ok(false);
                    }
                }
                Err(error) => break Err(sort(error)),
            }
        };
        file.sync_data().map_err(disk)?;
        if ended? && written < size {
            return Err(bad_answer(FlowId::Api, "the bundle ends early").into());
        }
        Ok(written == size)
    }

    fn publish(&self) -> io::Result<()> {
        fs::rename(self.partial_path(), self.path())?;
        fsync_dir(&self.dir)
    }
}

/// Asks, and follows one redirection; the door refuses one that leads out of the contract.
fn ask(ddi: &Ddi, url: &str, had: u64, etag: Option<&str>) -> Result<Answer, FetchBundleError> {
    let answer = ddi.bundle(url, had, etag)?;
    if !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
        return Ok(answer);
    }
    let target = answer.header("location").unwrap_or_default().to_owned();
    let answer = ddi.bundle(&target, had, etag)?;
    match answer.status() {
        status @ (401 | 403) if matches!(ddi.places.of(&target), Ok(Place::Media)) => {
            Err(FetchBundleError::Address(status))
        }
        _ => Ok(answer),
    }
}

/// `Content-Range: bytes {start}-{end}/{total}`, RFC 9110 section 14.4.
fn is_range(answer: &Answer, start: u64, total: u64) -> bool {
    let text = answer.header("content-range").unwrap_or_default();
    text.strip_prefix("bytes ")
        .and_then(|text| text.split_once('/'))
        .and_then(|(range, said)| Some((range.split_once('-')?.0, said)))
        .is_some_and(|(said_start, said)| {
            said_start.parse() == Ok(start) && (said == "*" || said.parse() == Ok(total))
        })
}

fn feed(reader: &mut impl Read, hasher: &mut Hasher) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(()),
            read => hasher.update(&chunk[..read]),
        }
    }
}
