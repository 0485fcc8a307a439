//! One writer thread per database: a bounded queue, group commit, and replies only after COMMIT returned.
//!
//! ```text
//!  submit --(queue, 1024)--> BEGIN, up to 64 jobs, each in a savepoint, COMMIT --> events told, replies given
//!     |                                        |                           |
//!     '-- full: WriteError::Busy at once       '-- a job fails: it alone   '-- COMMIT fails: each job again, alone
//! ```
//! A job may run more than once (its transaction was lost and it is tried alone); only the last run's outcome counts,
//! and only a run whose transaction was committed is answered with success.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::warn;

use super::check::Suspicion;
use super::db::OpenDatabaseError;
use super::events::{StoreEvent, StoreEvents};
use crate::clock::Clock;
use crate::telemetry::chain;

/// Jobs that may wait for a writer; one more is refused with [`WriteError::Busy`].
pub const QUEUE_BOUND: usize = 1024;
/// Jobs committed together at most, so that the first of them never waits for an endless transaction.
pub const BATCH_BOUND: usize = 64;
/// Pause between two rounds of housekeeping when the last one left nothing to do.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(60);
/// Pause between two slices of housekeeping when there is more to do: jobs go first.
const HOUSEKEEPING_SLICE_PAUSE: Duration = Duration::from_millis(20);

/// Why a write is not durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The writer's queue is full; try again shortly.
    #[error("the store is busy: {QUEUE_BOUND} writes wait already")]
    Busy,
    /// The disk or the database refused. Nothing of the write was kept.
    #[error("the store could not write")]
    Disk(#[source] Arc<dyn Error + Send + Sync>),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl WriteError {
    pub(super) fn disk(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Disk(Arc::new(error))
    }

    /// Whether the same write may succeed later without anybody's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Closed)
    }
}

/// The answer to a write, given after its commit. Threads call [`Reply::wait`], tasks `.await` it.
#[must_use = "a write is durable only once its reply says so"]
pub struct Reply<T>(Answer<T>);

enum Answer<T> {
    Known(Option<Result<T, WriteError>>),
    Coming(oneshot::Receiver<Result<T, WriteError>>),
}

impl<T> Reply<T> {
    pub(super) fn known(result: Result<T, WriteError>) -> Self {
        Self(Answer::Known(Some(result)))
    }

    /// Blocks until the write is durable or refused.
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// # Panics
    /// In a task: there the reply is awaited.
    pub fn wait(self) -> Result<T, WriteError> {
        match self.0 {
            Answer::Known(result) => result.unwrap_or(Err(WriteError::Closed)),
            Answer::Coming(answer) => answer.blocking_recv().unwrap_or(Err(WriteError::Closed)),
        }
    }
}

impl<T> Unpin for Reply<T> {}

impl<T> Future for Reply<T> {
    type Output = Result<T, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Known(result) => Poll::Ready(result.take().unwrap_or(Err(WriteError::Closed))),
            Answer::Coming(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(WriteError::Closed))),
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// What a job works with: the open transaction, the time, and the events to tell once it is durable.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    pub(super) now_ms: i64,
    told: Vec<StoreEvent>,
    then: Vec<Box<dyn FnOnce() + Send>>,
}

impl Tx<'_> {
    /// Runs `then` after the commit, before the reply.
    pub(super) fn once_durable(&mut self, then: impl FnOnce() + Send + 'static) {
        self.then.push(Box::new(then));
    }

    pub(super) fn tell(&mut self, event: StoreEvent) {
        if self.told.last() != Some(&event) {
            self.told.push(event);
        }
    }
}

/// What follows a commit: events to tell, steps in memory to take.
type Aftermath = (Vec<StoreEvent>, Vec<Box<dyn FnOnce() + Send>>);

/// Housekeeping of one database: a bounded slice of work in a transaction; true when there is more to do.
pub(super) type Housekeeping = Box<dyn FnMut(&Connection, i64) -> rusqlite::Result<bool> + Send>;
/// Called after each commit, outside any transaction.
pub(super) type AfterCommit = Box<dyn FnMut(&Connection) + Send>;

/// What a writer thread is made of.
pub(super) struct WriterParts {
    pub(super) name: &'static str,
    pub(super) suspicion: Arc<Suspicion>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: StoreEvents,
    pub(super) housekeeping: Housekeeping,
    pub(super) after_commit: AfterCommit,
    // Dropped last: the last connection to close empties the log, and only a writing one can.
    pub(super) conn: Connection,
}

/// Handle on a writer thread. The last clone's drop ends the queue and waits until what it held is committed.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    done: Arc<AtomicU64>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            // A panic in the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Starts the writer thread of the database at `path`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(path: &Path, parts: WriterParts) -> Result<Self, OpenDatabaseError> {
        let (queue, jobs) = mpsc::sync_channel(QUEUE_BOUND);
        let done = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            parts,
            jobs,
            done: Arc::clone(&done),
        };
        let thread = std::thread::Builder::new()
            .name(format!("write-{}", worker.parts.name))
            .spawn(move || worker.run())
            .map_err(|source| OpenDatabaseError::File {
                attempt: "start the writer of",
                path: path.to_path_buf(),
                source,
            })?;
        Ok(Self(Arc::new(Shared {
            queue: Some(queue),
            thread: Mutex::new(Some(thread)),
            done,
        })))
    }

    /// Queues `work`. It runs inside a transaction of the writer thread, possibly more than once.
    pub(super) fn submit<T, F>(&self, work: F) -> Reply<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed {
            work,
            value: None,
            failure: None,
            reply,
        });
        let Some(queue) = &self.0.queue else {
            return Reply::known(Err(WriteError::Closed));
        };
        match queue.try_send(job) {
            Ok(()) => Reply(Answer::Coming(answer)),
            Err(TrySendError::Full(_)) => Reply::known(Err(WriteError::Busy)),
            Err(TrySendError::Disconnected(_)) => Reply::known(Err(WriteError::Closed)),
        }
    }

    /// Jobs answered so far, with success or not.
    pub(super) fn progress(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }
}

trait Job: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;
    fn fail(&mut self, error: WriteError);
    fn finish(self: Box<Self>, commit: Result<(), WriteError>);
}

struct Typed<T, F> {
    work: F,
    value: Option<T>,
    failure: Option<WriteError>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.failure = None;
        self.value = None;
        self.value = Some((self.work)(tx)?);
        Ok(())
    }

    fn fail(&mut self, error: WriteError) {
        self.failure = Some(error);
    }

    fn finish(self: Box<Self>, commit: Result<(), WriteError>) {
        let result = match (commit, self.failure, self.value) {
            (Err(error), _, _) | (Ok(()), Some(error), _) => Err(error),
            (Ok(()), None, Some(value)) => Ok(value),
            (Ok(()), None, None) => Err(WriteError::Closed),
        };
        // Whoever asked may have gone; the write stands all the same.
        let _ = self.reply.send(result);
    }
}

struct Worker {
    parts: WriterParts,
    jobs: Receiver<Box<dyn Job>>,
    done: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self) {
        let mut next_housekeeping = Instant::now() + HOUSEKEEPING_SLICE_PAUSE;
        loop {
            let wait = next_housekeeping.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(wait) {
                Ok(job) => self.commit_batch(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_housekeeping {
                next_housekeeping = Instant::now() + self.keep_house();
            }
        }
    }

    fn commit_batch(&mut self, first: Box<dyn Job>) {
        let mut batch = vec![first];
        while batch.len() < BATCH_BOUND {
            let Ok(job) = self.jobs.try_recv() else { break };
            batch.push(job);
        }
        match self.attempt(&mut batch) {
            Ok(told) => self.answer(batch, told, Ok(())),
            Err(error) if batch.len() == 1 => self.answer(batch, Aftermath::default(), Err(error)),
            Err(error) => {
                warn!(
                    event = "store.batch_lost",
                    database = self.parts.name,
                    jobs = batch.len(),
                    error = &*chain(&error),
                    "the transaction was lost; its jobs are tried one by one"
                );
                for job in batch {
                    let mut alone = vec![job];
                    match self.attempt(&mut alone) {
                        Ok(told) => self.answer(alone, told, Ok(())),
                        Err(error) => self.answer(alone, Aftermath::default(), Err(error)),
                    }
                }
            }
        }
    }

    fn attempt(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Aftermath, WriteError> {
        let conn = &self.parts.conn;
        let mut tx = Tx {
            conn,
            now_ms: self.parts.clock.wall_ms(),
            told: Vec::new(),
            then: Vec::new(),
        };
        let result = transact(&mut tx, batch, &self.parts.suspicion);
        if result.is_err() && !conn.is_autocommit() {
            // Fails only when SQLite has rolled back already.
            let _ = run(conn, "ROLLBACK");
        }
        result
            .map(|()| (tx.told, tx.then))
            .map_err(WriteError::disk)
    }

    fn answer(
        &mut self,
        batch: Vec<Box<dyn Job>>,
        (told, then): Aftermath,
        commit: Result<(), WriteError>,
    ) {
        for then in then {
            then();
        }
        for event in told {
            self.parts.events.tell(event);
        }
        for job in batch {
            // Before the reply, so that whoever has it also finds it counted.
            self.done.fetch_add(1, Ordering::Relaxed);
            job.finish(commit.clone());
        }
        (self.parts.after_commit)(&self.parts.conn);
    }

    fn one_slice(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        // One transaction; without anything to do it writes nothing and costs no fsync.
        run(&self.parts.conn, "BEGIN IMMEDIATE")?;
        let more = (self.parts.housekeeping)(&self.parts.conn, now_ms)?;
        run(&self.parts.conn, "COMMIT")?;
        Ok(more)
    }

    fn keep_house(&mut self) -> Duration {
        let now_ms = self.parts.clock.wall_ms();
        match self.one_slice(now_ms) {
            Ok(true) => HOUSEKEEPING_SLICE_PAUSE,
            Ok(false) => HOUSEKEEPING_PERIOD,
            Err(error) => {
                if !self.parts.conn.is_autocommit() {
                    let _ = run(&self.parts.conn, "ROLLBACK");
                }
                self.parts.suspicion.weigh(&error);
                warn!(
                    event = "store.housekeeping_failed",
                    database = self.parts.name,
                    error = &*chain(&error),
                    "housekeeping is tried again later"
                );
                HOUSEKEEPING_PERIOD
            }
        }
    }
}

fn transact(
    tx: &mut Tx<'_>,
    batch: &mut [Box<dyn Job>],
    suspicion: &Suspicion,
) -> rusqlite::Result<()> {
    run(tx.conn, "BEGIN IMMEDIATE")?;
    for job in batch {
        let (told, then) = (tx.told.len(), tx.then.len());
        run(tx.conn, "SAVEPOINT job")?;
        match job.run(tx) {
            Ok(()) => run(tx.conn, "RELEASE job")?,
            // SQLite itself has undone the whole transaction (disk full, I/O error): nobody's work stands.
            Err(error) if tx.conn.is_autocommit() => return Err(error),
            Err(error) => {
                run(tx.conn, "ROLLBACK TO job")?;
                run(tx.conn, "RELEASE job")?;
                tx.told.truncate(told);
                tx.then.truncate(then);
                suspicion.weigh(&error);
                job.fail(WriteError::disk(error));
            }
        }
    }
    run(tx.conn, "COMMIT")
}

fn run(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}
