//! Taking a snapshot: line by line, in batches, accepted only when it is whole.

use std::io::{self, BufReader, Read};
use std::time::Instant;

use super::contract::FlowId;
use super::egress::{EgressError, bad_answer};
use super::lines::{Line, LineReader};
use super::pull::PullReport;
use super::wire::{SnapshotLine, UnreadableItem, read_snapshot_line};
use super::worker::{Life, StepError};
use crate::store::catalogue::{Applied, DocumentChange, SnapshotEnd};
use crate::store::{Catalogue, Reply, WriteError};

/// A document with its frame at most; a longer line is counted, told and passed over.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Documents a transaction: large enough that a commit costs little, small enough to be served soon.
pub const BATCH_DOCUMENTS: usize = 2000;
/// A batch is also closed at this size, so that memory does not depend on the size of documents.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A snapshot that was taken whole.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) documents: u64,
    pub(super) refused: u64,
    pub(super) swept: usize,
    pub(super) seconds: f64,
}

/// A snapshot that was not.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeSnapshotError {
    /// The transfer broke, or what came is no gzip.
    #[error("the transfer broke")]
    Transfer(#[source] io::Error),
    /// It ended before its end line.
    #[error("the snapshot ends without its end line, after {lines} lines")]
    Truncated { lines: u64 },
    /// The end line counts other than what came.
    #[error("the snapshot says it has {said} documents, {came} came")]
    Count { said: u64, came: u64 },
    /// Only one worker takes snapshots, so this is a mistake in the code; the catalogue is as good as before.
    #[error("another snapshot began meanwhile")]
    Superseded,
    /// The store.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl TakeSnapshotError {
    pub(super) fn into_step(self, sort: impl Fn(io::Error) -> EgressError) -> StepError {
        match self {
            Self::Transfer(error) => sort(error).into(),
            Self::Write(error) => error.into(),
            whole => bad_answer(FlowId::Api, whole.to_string()).into(),
        }
    }
}

/// Reads a snapshot to its end line and makes it the catalogue, with `cursor` to follow the feed from.
pub(super) fn take(
    reader: impl Read,
    cursor: &str,
    catalogue: &Catalogue,
    report: &mut PullReport,
    life: &Life,
) -> Result<Taken, TakeSnapshotError> {
    let start = Instant::now();
    let run = catalogue.begin_snapshot().wait()?;
    let mut batch = Batch::default();
    // One batch is written while the next one is read, never more.
    let mut writing: Option<Reply<Applied>> = None;
    let mut lines = LineReader::new(BufReader::with_capacity(64 * 1024, reader), MAX_LINE_BYTES);
    let (mut documents, mut refused) = (0_u64, 0_u64);
    // Told only when another line follows: a line that is cut with the transfer is no refused document.
    let mut unreadable: Option<UnreadableItem> = None;
    loop {
        let line = lines.next_line().map_err(TakeSnapshotError::Transfer)?;
        if let (Some(why), true) = (unreadable.take(), line.is_some()) {
            report.refused(&why);
        }
        let read = match line {
            None => {
                let lines = documents + refused;
                return Err(TakeSnapshotError::Truncated { lines });
            }
            Some(Line::TooLong) => Err(UnreadableItem::TooLong(MAX_LINE_BYTES)),
            Some(Line::Text(text)) => read_snapshot_line(text),
        };
        match read {
            Ok(SnapshotLine::Document(document)) => {
                documents += 1;
                batch.push(document);
                if batch.is_full() {
                    if let Some(write) =
                        writing.replace(catalogue.apply_snapshot(&run, batch.take(report)))
                    {
                        write.wait()?;
                    }
                    life.sign();
                }
            }
            Ok(SnapshotLine::End { count }) => {
                let came = documents + refused;
                if count != came {
                    return Err(TakeSnapshotError::Count { said: count, came });
                }
                break;
            }
            Err(why) => {
                refused += 1;
                unreadable = Some(why);
            }
        }
    }
    if let Some(write) = writing {
        write.wait()?;
    }
    catalogue.apply_snapshot(&run, batch.take(report)).wait()?;
    life.sign();
    let SnapshotEnd::Finished { swept } = catalogue.finish_snapshot(run, cursor).wait()? else {
        return Err(TakeSnapshotError::Superseded);
    };
    Ok(Taken {
        documents,
        refused,
        swept,
        seconds: start.elapsed().as_secs_f64(),
    })
}

#[derive(Default)]
struct Batch {
    documents: Vec<DocumentChange>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, document: DocumentChange) {
        self.bytes += document.data.as_ref().map_or(0, |data| data.get().len());
        self.documents.push(document);
    }

    fn is_full(&self) -> bool {
        self.documents.len() >= BATCH_DOCUMENTS || self.bytes >= BATCH_BYTES
    }

    fn take(&mut self, report: &PullReport) -> Vec<DocumentChange> {
        self.bytes = 0;
        report.documents.add(self.documents.len() as u64);
        std::mem::take(&mut self.documents)
    }
}
