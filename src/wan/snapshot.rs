//! Taking documents out of a body: line by line, in batches, accepted only when it is whole.

use std::io::{self, Read};

use super::contract::FlowId;
use super::egress::{EgressError, bad_answer};
use super::lines::{Line, LineReader};
use super::members::{Counted, Members, Places};
use super::pull::PullReport;
use super::wire::{SnapshotLine, UnreadableItem, read_snapshot_line};
use super::worker::{Life, StepError};
use crate::store::catalogue::{Applied, DocumentChange, SnapshotPlace, SnapshotRun};
use crate::store::{Catalogue, Reply, WriteError};

/// A document with its frame at most; a longer line is counted, told and passed over.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Documents a transaction: large enough that a commit costs little, small enough to be served soon.
pub const BATCH_DOCUMENTS: usize = 2000;
/// A batch is also closed at this size, so that memory does not depend on the size of documents.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Documents that were not taken whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    /// The transfer broke, or what came is no gzip.
    #[error("the transfer broke")]
    Transfer(#[source] io::Error),
    /// It ended before its end line.
    #[error("the snapshot ends without its end line, after {lines} lines")]
    Truncated { lines: u64 },
    /// The end line counts other than what came.
    #[error("the snapshot says it has {said} documents, {came} came")]
    Count { said: u64, came: u64 },
    /// The store.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What goes on beside the taking.
    #[error(transparent)]
    Beside(#[from] Box<StepError>),
}

impl TakeError {
    pub(super) fn into_step(self, sort: impl Fn(io::Error) -> EgressError) -> StepError {
        match self {
            Self::Transfer(error) => sort(error).into(),
            Self::Write(error) => error.into(),
            Self::Beside(error) => *error,
            whole => bad_answer(FlowId::Api, whole.to_string()).into(),
        }
    }
}

/// Lines out of a body that begins at byte `at` of what is sent.
pub(super) fn lines<'r>(
    reader: impl Read + 'r,
    gzip: bool,
    at: u64,
) -> LineReader<Box<dyn Places + 'r>> {
    let places: Box<dyn Places + 'r> = if gzip {
        Box::new(Members::new(reader, at))
    } else {
        Box::new(Counted::new(reader, at))
    };
    LineReader::new(places, MAX_LINE_BYTES)
}

/// A line that is no end.
pub(super) enum Item {
    Document(DocumentChange),
    /// With the bytes that were read of it.
    Refused(UnreadableItem, Vec<u8>),
}

/// An item, and the place where its line began, if reading may begin anew there.
pub(super) struct Placed {
    pub(super) item: Item,
    begins: Option<Begins>,
}

/// A place in the body as sent, and how many items are before it.
struct Begins {
    at: u64,
    items: u64,
}

impl From<Item> for Placed {
    /// Of an item that was held back: its place has passed.
    fn from(item: Item) -> Self {
        Self { item, begins: None }
    }
}

/// Reads items until the end line; `came` is how many were before the first one read here.
pub(super) struct Items<'r> {
    lines: LineReader<Box<dyn Places + 'r>>,
    came: u64,
    /// Told only when another line follows: a line that is cut with the transfer is no refused document.
    held: Option<Item>,
    ended: bool,
}

impl<'r> Items<'r> {
    pub(super) fn new(lines: LineReader<Box<dyn Places + 'r>>, came: u64) -> Self {
        Self {
            lines,
            came,
            held: None,
            ended: false,
        }
    }

    /// The next item; `None` after the end line.
    pub(super) fn next_item(&mut self) -> Result<Option<Placed>, TakeError> {
        loop {
            if self.ended {
                return Ok(self.held.take().map(Placed::from));
            }
            let line = self.lines.next_line().map_err(TakeError::Transfer)?;
            let read = match line {
                None => return Err(TakeError::Truncated { lines: self.came }),
                Some(Line::TooLong) => Err((UnreadableItem::TooLong(MAX_LINE_BYTES), Vec::new())),
                Some(Line::Text(text)) => {
                    read_snapshot_line(text).map_err(|why| (why, text.to_vec()))
                }
            };
            let items = self.came;
            let begins = self.lines.place().map(|at| Begins { at, items });
            match read {
                Ok(SnapshotLine::End { count }) if count == self.came => self.ended = true,
                Ok(SnapshotLine::End { count }) => {
                    let (said, came) = (count, self.came);
                    return Err(TakeError::Count { said, came });
                }
                Ok(SnapshotLine::Document(document)) => {
                    self.came += 1;
                    match self.held.take() {
                        None => {
                            let item = Item::Document(document);
                            return Ok(Some(Placed { item, begins }));
                        }
                        Some(held) => {
                            self.held = Some(Item::Document(document));
                            return Ok(Some(held.into()));
                        }
                    }
                }
                Err((why, text)) => {
                    self.came += 1;
                    if let Some(held) = self.held.replace(Item::Refused(why, text)) {
                        return Ok(Some(held.into()));
                    }
                }
            }
        }
    }
}

/// Reads the part at `run.place` to its end; `run.place` follows what is kept and ends at the next part. `between` is
/// called after each batch.
pub(super) fn take_part(
    mut items: Items<'_>,
    run: &mut SnapshotRun,
    catalogue: &Catalogue,
    report: &mut PullReport,
    life: &Life,
    mut between: impl FnMut(&mut PullReport) -> Result<(), Box<StepError>>,
) -> Result<(), TakeError> {
    let before = run.place.clone();
    let mut batch = Batch::default();
    // One batch is written while the next one is read, never more.
    let mut writing: Option<(Reply<Applied>, SnapshotPlace)> = None;
    // Everything before it is in this batch or an earlier one.
    let mut place = before.clone();
    let mut refused = before.refused;
    loop {
        let Placed { item, begins } = match items.next_item() {
            Ok(Some(placed)) => placed,
            Ok(None) => break,
            Err(error) => {
                // What was read whole is kept: the next try begins after it.
                settle(writing, run)?;
                if place != run.place {
                    let write = catalogue.apply_snapshot(run, batch.take(report), place.clone());
                    settle(Some((write, place)), run)?;
                }
                return Err(error);
            }
        };
        if let Some(Begins { at, items }) = begins {
            place.offset = at;
            place.documents = before.documents + (items - before.lines);
            place.bytes = before.bytes + (at - before.offset);
            place.lines = items;
            place.refused = refused;
        }
        match item {
            Item::Refused(why, text) => {
                refused += 1;
                report.refused(&why, &text);
            }
            Item::Document(document) => batch.push(document),
        }
        if batch.is_full() {
            settle(writing.take(), run)?;
            let write = catalogue.apply_snapshot(run, batch.take(report), place.clone());
            writing = Some((write, place.clone()));
            life.sign();
            between(report)?;
        }
    }
    settle(writing, run)?;
    let end = SnapshotPlace {
        part: before.part + 1,
        documents: before.documents + (items.came - before.lines),
        bytes: before.bytes + (items.lines.taken() - before.offset),
        refused,
        ..SnapshotPlace::default()
    };
    let write = catalogue.apply_snapshot(run, batch.take(report), end.clone());
    settle(Some((write, end)), run)?;
    life.sign();
    Ok(())
}

/// Waits for a batch; what is kept then is the run's place.
fn settle(
    writing: Option<(Reply<Applied>, SnapshotPlace)>,
    run: &mut SnapshotRun,
) -> Result<(), WriteError> {
    if let Some((write, place)) = writing {
        write.wait()?;
        run.place = place;
    }
    Ok(())
}

/// Documents for one transaction.
#[derive(Default)]
pub(super) struct Batch {
    documents: Vec<DocumentChange>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, document: DocumentChange) {
        self.bytes += document.data.as_ref().map_or(0, |data| data.get().len());
        self.documents.push(document);
    }

    pub(super) fn is_full(&self) -> bool {
        self.documents.len() >= BATCH_DOCUMENTS || self.bytes >= BATCH_BYTES
    }

    pub(super) fn take(&mut self, report: &PullReport) -> Vec<DocumentChange> {
        self.bytes = 0;
        report.documents.add(self.documents.len() as u64);
        std::mem::take(&mut self.documents)
    }
}
