//! One writer thread per database: a bounded queue, group commit, and replies only after COMMIT returned.
//!
//! ```text
//!  submit --(queue, 1024)--> BEGIN, up to 64 jobs, each in a savepoint, COMMIT --> events told, replies given
//!     |                                        |                           |
//!     '-- full: WriteError::Busy at once       '-- a job fails: it alone   '-- COMMIT fails: each job again, alone
//!  submit_with_next: rides on the next commit; without one it leaves alone after RIDERS_WAIT
//! ```
//! A job may run more than once (its transaction was lost and it is tried alone); only the last run's outcome counts,
//! and only a run whose transaction was committed is answered with success.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::warn;

use super::check::Suspicion;
use super::db::OpenDatabaseError;
use super::disk::write_a_page;
use super::events::{StoreEvent, StoreEvents};
use super::job::{Job, Typed};
pub use super::reply::Reply;
use crate::clock::{Clock, Reckoning};
use crate::telemetry::chain;

/// Jobs that may wait for a writer; one more is refused with [`WriteError::Busy`].
pub const QUEUE_BOUND: usize = 1024;
/// Jobs committed together at most, so that the first of them never waits for an endless transaction.
pub const BATCH_BOUND: usize = 64;
/// How long a write that may ride on another's commit waits for one.
pub const RIDERS_WAIT: Duration = Duration::from_secs(1);
/// Pause between two rounds of housekeeping when the last one left nothing to do.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(60);
/// Pause between two tries whether a disk that refused takes a write again.
const PROOF_PERIOD: Duration = Duration::from_secs(2);
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

/// What a job works with: the open transaction, the time, and the events to tell once it is durable.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    pub(super) now_ms: i64,
    /// What deadlines on the disk are judged by.
    pub(super) reckoning: Reckoning,
    told: Vec<StoreEvent>,
    then: Vec<Box<dyn FnOnce() + Send>>,
    house_is_due: bool,
}

impl<'c> Tx<'c> {
    /// For work in a transaction that no writer thread has begun: what it tells, nobody hears.
    pub(super) fn apart(conn: &'c Connection, now_ms: i64) -> Self {
        Self::reckoned(conn, Reckoning::by(now_ms))
    }

    fn reckoned(conn: &'c Connection, reckoning: Reckoning) -> Self {
        Self {
            conn,
            now_ms: reckoning.now_ms,
            reckoning,
            told: Vec::new(),
            then: Vec::new(),
            house_is_due: false,
        }
    }

    /// Housekeeping follows soon after the commit, not only with its period.
    pub(super) fn call_for_housekeeping(&mut self) {
        self.house_is_due = true;
    }

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
#[derive(Default)]
struct Aftermath {
    told: Vec<StoreEvent>,
    then: Vec<Box<dyn FnOnce() + Send>>,
    house_is_due: bool,
}

/// A job in the queue.
enum Ticket {
    /// Committed as soon as the writer comes to it.
    Now(Box<dyn Job>),
    /// Committed with the next one, or after [`RIDERS_WAIT`].
    WithNext(Box<dyn Job>),
}

impl Ticket {
    fn job(self) -> Box<dyn Job> {
        match self {
            Self::Now(job) | Self::WithNext(job) => job,
        }
    }
}

/// Housekeeping of one database, told the earliest it can be now, so that a clock that runs ahead forgets nothing: a
/// bounded slice of work in a transaction; true when there is more to do.
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
    queue: Option<SyncSender<Ticket>>,
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
            has_cleaned: false,
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
        self.queue(work, Ticket::Now)
    }

    /// The same for what loses nothing when a power cut comes first: it needs no fsync of its own.
    pub(super) fn submit_with_next<T, F>(&self, work: F) -> Reply<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.queue(work, Ticket::WithNext)
    }

    fn queue<T, F>(&self, work: F, ticket: impl FnOnce(Box<dyn Job>) -> Ticket) -> Reply<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed::new(work, reply));
        let Some(queue) = &self.0.queue else {
            return Reply::known(Err(WriteError::Closed));
        };
        match queue.try_send(ticket(job)) {
            Ok(()) => Reply::coming(answer),
            Err(TrySendError::Full(_)) => Reply::known(Err(WriteError::Busy)),
            Err(TrySendError::Disconnected(_)) => Reply::known(Err(WriteError::Closed)),
        }
    }

    /// Jobs answered so far, with success or not.
    pub(super) fn progress(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }
}

struct Worker {
    parts: WriterParts,
    jobs: Receiver<Ticket>,
    done: Arc<AtomicU64>,
    /// Housekeeping has removed something since the log last went home.
    has_cleaned: bool,
}

impl Worker {
    fn run(mut self) {
        let mut next_housekeeping = Instant::now() + HOUSEKEEPING_SLICE_PAUSE;
        let mut riders = Vec::new();
        let mut riders_leave = None;
        loop {
            let until = riders_leave.map_or(next_housekeeping, |at| next_housekeeping.min(at));
            let wait = until.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(wait) {
                Ok(Ticket::Now(job)) => {
                    riders.push(job);
                    riders_leave = Some(Instant::now());
                }
                Ok(Ticket::WithNext(job)) => {
                    riders.push(job);
                    riders_leave.get_or_insert_with(|| Instant::now() + RIDERS_WAIT);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit_batch(riders);
                    return;
                }
            }
            let leaves = riders_leave.is_some_and(|at| at <= Instant::now());
            if leaves || riders.len() >= BATCH_BOUND {
                riders_leave = None;
                if self.commit_batch(std::mem::take(&mut riders)) {
                    next_housekeeping =
                        next_housekeeping.min(Instant::now() + HOUSEKEEPING_SLICE_PAUSE);
                }
            }
            if self.parts.suspicion.is_refused() {
                next_housekeeping = next_housekeeping.min(Instant::now() + PROOF_PERIOD);
            }
            if Instant::now() >= next_housekeeping {
                self.prove();
                next_housekeeping = Instant::now() + self.keep_house();
            }
        }
    }

    /// Commits `batch` and what else waits, up to [`BATCH_BOUND`]; true when housekeeping is due.
    fn commit_batch(&mut self, mut batch: Vec<Box<dyn Job>>) -> bool {
        while batch.len() < BATCH_BOUND {
            let Ok(ticket) = self.jobs.try_recv() else {
                break;
            };
            batch.push(ticket.job());
        }
        if batch.is_empty() {
            return false;
        }
        let mut house_is_due = false;
        match self.attempt(&mut batch) {
            Ok(after) => {
                house_is_due = after.house_is_due;
                self.answer(batch, after, Ok(()));
            }
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
                        Ok(after) => self.answer(alone, after, Ok(())),
                        Err(error) => self.answer(alone, Aftermath::default(), Err(error)),
                    }
                }
            }
        }
        house_is_due
    }

    fn attempt(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Aftermath, WriteError> {
        let conn = &self.parts.conn;
        let mut tx = Tx::reckoned(conn, self.parts.clock.reckoning());
        let result = transact(&mut tx, batch, &self.parts.suspicion);
        if result.is_err() && !conn.is_autocommit() {
            // Fails only when SQLite has rolled back already.
            let _ = run(conn, "ROLLBACK");
        }
        result
            .inspect_err(|error| self.parts.suspicion.weigh_write(error))
            .map(|()| Aftermath {
                told: tx.told,
                then: tx.then,
                house_is_due: tx.house_is_due,
            })
            .map_err(WriteError::disk)
    }

    fn answer(
        &mut self,
        batch: Vec<Box<dyn Job>>,
        after: Aftermath,
        commit: Result<(), WriteError>,
    ) {
        for then in after.then {
            then();
        }
        for event in after.told {
            self.parts.events.tell(event);
        }
        for job in batch {
            // Before the reply, so that whoever has it also finds it counted.
            self.done.fetch_add(1, Ordering::Relaxed);
            job.finish(commit.clone());
        }
        (self.parts.after_commit)(&self.parts.conn);
    }

    /// On a disk that refused: a real write, which is one page, and the end of the trouble when it is committed.
    fn prove(&mut self) {
        if !self.parts.suspicion.is_refused() {
            return;
        }
        let suspicion = Arc::clone(&self.parts.suspicion);
        let work = move |tx: &mut Tx<'_>| {
            write_a_page(tx.conn)?;
            let suspicion = Arc::clone(&suspicion);
            tx.once_durable(move || suspicion.is_written());
            Ok(())
        };
        let (reply, _) = oneshot::channel();
        self.commit_batch(vec![Box::new(Typed::new(work, reply))]);
    }

    fn one_slice(&mut self, earliest_ms: i64) -> rusqlite::Result<bool> {
        // One transaction; without anything to do it writes nothing and costs no fsync.
        run(&self.parts.conn, "BEGIN IMMEDIATE")?;
        let more = (self.parts.housekeeping)(&self.parts.conn, earliest_ms)?;
        run(&self.parts.conn, "COMMIT")?;
        Ok(more)
    }

    fn keep_house(&mut self) -> Duration {
        let earliest_ms = self.parts.clock.reckoning().earliest_ms;
        match self.one_slice(earliest_ms) {
            Ok(true) => {
                self.has_cleaned = true;
                HOUSEKEEPING_SLICE_PAUSE
            }
            Ok(false) => {
                if std::mem::take(&mut self.has_cleaned) {
                    // The file gets shorter only when the log goes home. Readers in the way: the next checkpoint does it.
                    let conn = &self.parts.conn;
                    let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                }
                HOUSEKEEPING_PERIOD
            }
            Err(error) => {
                if !self.parts.conn.is_autocommit() {
                    let _ = run(&self.parts.conn, "ROLLBACK");
                }
                self.parts.suspicion.weigh_write(&error);
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
                suspicion.weigh_write(&error);
                job.fail(WriteError::disk(error));
            }
        }
    }
    run(tx.conn, "COMMIT")
}

fn run(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}
