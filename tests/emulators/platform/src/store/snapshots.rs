//! Snapshots as files, so that a body stays the same byte for byte while it is kept, over restarts too.
//!
//! ```text
//!  snapshots/{id}/plan.json        the plan, written last: a folder without it is a snapshot that was never finished
//!  snapshots/{id}/{part}.gz        gzip members of whole lines
//!  snapshots/{id}/{part}.json      where each member begins, in the packed and in the plain body, and both lengths
//! ```
//! All parts are read from one read transaction, so a snapshot is the state at its cursor and nothing else.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, documents, feed};

/// Text of one member, about: it ends with the line that reaches this.
const MEMBER_BYTES: u64 = 256 * 1024;
/// Snapshots kept; an older one is answered 410.
const KEPT: usize = 2;
/// Documents read at once.
const PAGE: usize = 500;

/// What is how urgent. A collection that no class names is of the middle one.
pub const CLASSES: [(&str, &[&str]); 3] = [
    ("prices", &["prices", "stock"]),
    ("descriptions", &[]),
    ("history", &["history"]),
];

/// The class of a collection.
pub fn class_of(collection: &str) -> &'static str {
    CLASSES
        .iter()
        .find(|(_, collections)| collections.contains(&collection))
        .map_or("descriptions", |(class, _)| class)
}

/// What a snapshot consists of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub snapshot: String,
    /// Where the feed goes on.
    pub cursor: String,
    /// Its parts, the most urgent first.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub part: String,
    /// How urgent it is.
    pub class: String,
    /// Documents in it.
    pub documents: u64,
    /// Length of the body without compression.
    pub bytes: u64,
}

/// Where the members of a part begin.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// In the packed body and in the plain one.
    members: Vec<(u64, u64)>,
    /// Length of the packed body.
    pub packed: u64,
    /// Length of the plain body.
    pub plain: u64,
}

/// A part that can be read.
pub struct Body {
    file: File,
    /// Its members and lengths.
    pub index: Index,
}

impl Store {
    fn snapshots_dir(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// The newest snapshot if nothing has changed since, or else a new one; `None` while one is being made. `cursor` writes
    /// a sequence number as one.
    pub fn snapshot(
        &self,
        cursor: impl Fn(&feed::Position) -> String,
    ) -> Result<Option<Plan>, StoreError> {
        let Ok(_one_at_a_time) = self.snapshotting.try_lock() else {
            return Ok(None);
        };
        let reader = self.reader()?;
        let state = reader.unchecked_transaction()?;
        let position = feed::position(&state)?;
        let cursor = cursor(&position);
        let kept = self.kept_snapshots()?;
        if let Some(newest) = kept.last()
            && let Some(plan) = self.plan(newest)?
            && plan.cursor == cursor
        {
            return Ok(Some(plan));
        }
        let number = kept
            .last()
            .and_then(|name| name.split('-').next()?.parse::<u64>().ok());
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let snapshot = format!(
            "{:08}-{:08x}",
            number.unwrap_or(0) + 1,
            u32::from_be_bytes(salt)
        );
        let dir = self.snapshots_dir().join(&snapshot);
        fs::create_dir_all(&dir)?;
        let collections = documents::collections(&state)?;
        let mut parts = Vec::new();
        for (class, _) in CLASSES {
            let mut writer = PartWriter::create(&dir.join(format!("{class}.gz")))?;
            let mut count = 0;
            for collection in collections.iter().filter(|name| class_of(name) == class) {
                count += write_collection(&state, collection, &mut writer)?;
            }
            writer.line(&format!("{{\"end\":true,\"count\":{count}}}"))?;
            let index = writer.finish()?;
            fs::write(
                dir.join(format!("{class}.json")),
                serde_json::to_vec(&index).map_err(io::Error::other)?,
            )?;
            parts.push(Part {
                part: class.to_owned(),
                class: class.to_owned(),
                documents: count,
                bytes: index.plain,
            });
        }
        let plan = Plan {
            snapshot,
            cursor,
            parts,
        };
        fs::write(
            dir.join("plan.json"),
            serde_json::to_vec(&plan).map_err(io::Error::other)?,
        )?;
        for old in kept.iter().rev().skip(KEPT - 1) {
            fs::remove_dir_all(self.snapshots_dir().join(old))?;
        }
        Ok(Some(plan))
    }

    /// Drops all snapshots.
    pub fn drop_snapshots(&self) -> Result<(), StoreError> {
        for name in self.kept_snapshots()? {
            fs::remove_dir_all(self.snapshots_dir().join(name))?;
        }
        Ok(())
    }

    /// The body of a part; `None` when it is not kept.
    pub fn snapshot_part(&self, snapshot: &str, part: &str) -> Result<Option<Body>, StoreError> {
        let known = CLASSES.iter().any(|(class, _)| *class == part)
            && self.kept_snapshots()?.iter().any(|name| name == snapshot)
            && self.plan(snapshot)?.is_some();
        if !known {
            return Ok(None);
        }
        let dir = self.snapshots_dir().join(snapshot);
        let index = fs::read(dir.join(format!("{part}.json")))?;
        Ok(Some(Body {
            file: File::open(dir.join(format!("{part}.gz")))?,
            index: serde_json::from_slice(&index).map_err(io::Error::other)?,
        }))
    }

    fn plan(&self, snapshot: &str) -> Result<Option<Plan>, StoreError> {
        match fs::read(self.snapshots_dir().join(snapshot).join("plan.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Names, the oldest first.
    fn kept_snapshots(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        match fs::read_dir(self.snapshots_dir()) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry?.file_name().to_string_lossy().into_owned());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        names.sort();
        Ok(names)
    }
}

fn write_collection(
    state: &rusqlite::Connection,
    collection: &str,
    writer: &mut PartWriter,
) -> Result<u64, StoreError> {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let page = documents::page_of(state, collection, &after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after.clone_from(&last.id);
        for document in page {
            writer.line(&document.line())?;
            count += 1;
        }
    }
}

struct PartWriter {
    /// Always there between two calls.
    encoder: Option<GzEncoder<Counting>>,
    index: Index,
    member: u64,
}

struct Counting {
    file: BufWriter<File>,
    written: u64,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PartWriter {
    fn create(path: &std::path::Path) -> io::Result<Self> {
        let file = Counting {
            file: BufWriter::new(File::create(path)?),
            written: 0,
        };
        Ok(Self {
            encoder: Some(GzEncoder::new(file, Compression::fast())),
            index: Index {
                members: vec![(0, 0)],
                ..Index::default()
            },
            member: 0,
        })
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        if self.member >= MEMBER_BYTES {
            let file = self.take_encoder().finish()?;
            self.index.members.push((file.written, self.index.plain));
            self.encoder = Some(GzEncoder::new(file, Compression::fast()));
            self.member = 0;
        }
        let encoder = self.encoder.as_mut().expect("it is put back by every call");
        encoder.write_all(text.as_bytes())?;
        encoder.write_all(b"\n")?;
        let bytes = text.len() as u64 + 1;
        self.member += bytes;
        self.index.plain += bytes;
        Ok(())
    }

    fn take_encoder(&mut self) -> GzEncoder<Counting> {
        self.encoder.take().expect("it is put back by every call")
    }

    fn finish(mut self) -> io::Result<Index> {
        let mut file = self.take_encoder().finish()?;
        file.flush()?;
        Ok(Index {
            packed: file.written,
            ..self.index
        })
    }
}

impl Body {
    /// The packed body from `first` on.
    pub fn packed(mut self, first: u64) -> io::Result<impl Read> {
        self.file.seek(SeekFrom::Start(first))?;
        Ok(self.file)
    }

    /// The plain body from `first` on.
    pub fn plain(mut self, first: u64) -> io::Result<impl Read> {
        let at = self
            .index
            .members
            .partition_point(|(_, plain)| *plain <= first);
        let (packed, plain) = self.index.members[at.saturating_sub(1)];
        self.file.seek(SeekFrom::Start(packed))?;
        let mut reader = BufReader::new(MultiGzDecoder::new(self.file));
        let mut left = first - plain;
        while left > 0 {
            let bytes = reader.fill_buf()?.len();
            if bytes == 0 {
                break;
            }
            let used = left.min(bytes as u64);
            reader.consume(usize::try_from(used).unwrap_or(bytes));
            left -= used;
        }
        Ok(reader)
    }
}
