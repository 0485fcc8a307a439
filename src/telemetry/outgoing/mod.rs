//! What support may see from afar: a selection of the log's events, redacted by type, kept until it is sent.
//!
//! ```text
//!  any thread --event--> layer --allow-list--> bounded channel --pump--> memory --sender--> log input, support bus
//!                          |  (full: dropped, counted)          (waits too long: spilled)
//!                          |                                      disk ring (full: the oldest dropped, counted)
//! ```
//! Two streams of the same shape: `logs` takes events from a level upwards, `support` those that are named in
//! [`SUPPORT_EVENTS`]. The senders are workers of `wan/`; this room never opens a connection.
//!
//! # Layout (below `store.data_dir`)
//! ```text
//! outgoing/logs/00000007.seg      records that wait, oldest segment first
//! outgoing/logs/damaged.bad       the last segment that could not be read whole, for support
//! outgoing/logs/sent.json         the last batches that left, for whoever wants to know
//! outgoing/support/…              the same
//! ```
//!
//! # Invariants
//! - Telling never blocks and never allocates without bound: at [`CHANNEL_BOUND`] the event is dropped and counted.
//! - Nothing leaves that is not on the allow-list ([`allowed`]): no free text, no `Secret`, nothing of a customer.
//! - While the host takes what is sent nothing is written to flash; a record is spilled when it has waited
//!   [`Bounds::spill_after`], in one write with all others, without fsync: a power cut costs the last minutes of logs.
//! - A damaged ring is told, set aside and gone on without; it never keeps the box from starting.
//! - At least once: what was on its way in a crash is sent again under the same record id.

mod allowed;
mod board;
mod layer;
mod record;
mod ring;
mod spool;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::config::WanConfig;
use crate::digest::hex;
use crate::identity::random_bytes;
use crate::version::running;

pub use allowed::{FIELDS, SUPPORT_EVENTS};
pub use board::{SENT_BATCHES, SENT_TEXT_BYTES, SentBatch, SentBoard, StreamStatus};
pub use layer::OutgoingLayer;
pub use record::{Level, Record, Scalar, Version, Word};
pub use ring::{Found, OpenRingError, Ring};
pub use spool::{Batch, Bounds, Moment, Spool, SpoolCounts, Stamp};

use record::Fresh;

/// Events between the threads that tell and the pump that takes; beyond it they are dropped and counted.
pub const CHANNEL_BOUND: usize = 1024;

/// The giving end of a stream. Clones share it.
#[derive(Clone)]
pub struct Tell {
    sender: SyncSender<Fresh>,
    /// Someone will send it; closed, nothing is even looked at.
    open: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    seq: Arc<AtomicU64>,
    run: Arc<str>,
    version: Version,
}

impl Tell {
    /// Hands a record over; never waits.
    pub(crate) fn tell(&self, level: Level, event: Word, fields: Vec<(&'static str, Scalar)>) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let number = self.seq.fetch_add(1, Ordering::Relaxed);
        let fresh = Fresh {
            told: std::time::Instant::now(),
            id: format!("{}-{number}", self.run),
            level,
            event,
            version: self.version.clone(),
            fields,
        };
        if self.sender.try_send(fresh).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The taking end of a stream, handed to the one who sends.
pub struct Stream {
    /// What was told.
    pub(crate) receiver: Receiver<Fresh>,
    /// Events lost at [`CHANNEL_BOUND`].
    pub(crate) dropped: Arc<AtomicU64>,
    open: Arc<AtomicBool>,
    dir: PathBuf,
}

impl Stream {
    /// A stream and the folder in which what waits is kept.
    #[must_use]
    pub fn new(dir: &Path) -> (Tell, Self) {
        let (sender, receiver) = sync_channel(CHANNEL_BOUND);
        let (open, dropped) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let tell = Tell {
            sender,
            open: Arc::clone(&open),
            dropped: Arc::clone(&dropped),
            seq: Arc::default(),
            run: hex(&random_bytes::<6>()).into(),
            version: Version::new(running())
                .or_else(|| Version::new(env!("CARGO_PKG_VERSION")))
                .expect("the package's version is a version"),
        };
        let stream = Self {
            receiver,
            dropped,
            open,
            dir: dir.to_path_buf(),
        };
        (tell, stream)
    }

    /// Where what waits is kept.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether events are taken at all: they are not while nobody may send them.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }
}

/// Both streams' taking ends; `None`: switched off, so that nothing is even collected.
#[derive(Default)]
pub struct Outgoing {
    /// Which box speaks.
    pub box_id: String,
    /// For the log input.
    pub logs: Option<Stream>,
    /// For the support bus.
    pub support: Option<Stream>,
}

/// Where a stream keeps what it keeps.
#[must_use]
pub fn stream_dir(data_dir: &Path, stream: &str) -> PathBuf {
    data_dir.join("outgoing").join(stream)
}

/// Makes the streams that `config` has switched on, and the layer that fills them; `None` when there is none.
#[must_use]
pub fn streams(config: &WanConfig, data_dir: &Path) -> (Option<OutgoingLayer>, Outgoing) {
    let open = |is_on: bool, name: &str| is_on.then(|| Stream::new(&stream_dir(data_dir, name)));
    let (logs, logs_stream) = open(config.logs.enabled, "logs").unzip();
    let (support, support_stream) = open(config.support.enabled, "support").unzip();
    let level = match config.logs.level.as_str() {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "debug" => Level::Debug,
        _ => Level::Info,
    };
    let is_any = logs.is_some() || support.is_some();
    let layer = is_any.then(|| OutgoingLayer::new(logs.map(|tell| (tell, level)), support));
    let outgoing = Outgoing {
        box_id: String::new(),
        logs: logs_stream,
        support: support_stream,
    };
    (layer, outgoing)
}
