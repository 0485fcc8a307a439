//! Behind the work: a thread that reads each database through, soon after the start and once a day, and that has media
//! make room when the disk is nearly full, and asks the disk whether it still keeps what it is given.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;
use tracing::error;

use super::blobs::Blobs;
use super::db;
use super::disk::Disk;
use super::recover::{fault, suspect_path};
use crate::durable::replace_file;
use crate::shutdown::Shutdown;

/// From the start to the first look: the shop's first requests go first.
const FIRST_CHECK_AFTER: Duration = Duration::from_secs(60);
/// From one look to the next.
const CHECK_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// From one question for the free space to the next.
const ROOM_PERIOD: Duration = Duration::from_secs(30);
/// Of these questions, every so many the disk is written and read back, so that one that nobody writes is found out too.
const PROBE_EVERY: u32 = 2;

/// Suspicion against one database. Once raised it stays, on disk too, until the database is replaced at the next start.
#[derive(Debug)]
pub(super) struct Suspicion {
    name: &'static str,
    path: PathBuf,
    raised: AtomicBool,
    noted: AtomicBool,
    disk: Arc<Disk>,
}

impl Suspicion {
    pub(super) fn new(name: &'static str, path: &Path, disk: Arc<Disk>) -> Arc<Self> {
        Arc::new(Self {
            name,
            path: path.to_path_buf(),
            raised: AtomicBool::new(false),
            noted: AtomicBool::new(false),
            disk,
        })
    }

    pub(super) fn raise(&self, why: &str) {
        if self.raised.swap(true, Ordering::Relaxed) {
            return;
        }
        error!(
            event = "store.damage_found",
            database = self.name,
            why,
            "the database is damaged; it is replaced at the next start"
        );
        // Where it can't be noted, a restart would not cure it: the damage is found again later.
        let noted = replace_file(&suspect_path(&self.path), why.as_bytes(), 0o600).is_ok();
        self.noted.store(noted, Ordering::Relaxed);
    }

    /// Raises it if `error` says that the content is broken.
    pub(super) fn weigh(&self, error: &rusqlite::Error) {
        if super::readers::is_damage(error) {
            self.raise(&error.to_string());
        }
    }

    /// The same for an error of a write, for which the disk may be to blame, too.
    pub(super) fn weigh_write(&self, error: &rusqlite::Error) {
        self.weigh(error);
        self.disk.weigh(self.name, error);
    }

    /// The disk refused this database, and has not taken it again.
    pub(super) fn is_refused(&self) -> bool {
        self.disk.ails(self.name)
    }

    /// The disk took a write again.
    pub(super) fn is_written(&self) {
        self.disk.proven(self.name);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// Raised, and the next start will know.
    pub(super) fn is_noted(&self) -> bool {
        self.noted.load(Ordering::Relaxed)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Reads the whole database; true when it is sound.
    pub(super) fn check(&self, running: &Mutex<Option<InterruptHandle>>) -> bool {
        let Ok(conn) = db::open_reader(&self.path, 0) else {
            return true;
        };
        set(running, Some(conn.get_interrupt_handle()));
        let found = fault(&conn);
        set(running, None);
        match found {
            Ok(None) => {}
            Ok(Some(found)) => self.raise(&found),
            Err(error) => self.weigh(&error),
        }
        !self.is_raised()
    }
}

/// The thread that looks. Its drop ends it, in the middle of a look too.
pub(super) struct Checker {
    shutdown: Shutdown,
    running: Arc<Mutex<Option<InterruptHandle>>>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    pub(super) fn start(
        suspicions: Vec<Arc<Suspicion>>,
        blobs: Blobs,
        disk: Arc<Disk>,
    ) -> std::io::Result<Self> {
        let shutdown = Shutdown::default();
        let running = Arc::new(Mutex::new(None));
        let thread = std::thread::Builder::new()
            .name("store-check".into())
            .spawn({
                let (shutdown, running) = (shutdown.clone(), Arc::clone(&running));
                move || {
                    let mut next_check = Instant::now() + FIRST_CHECK_AFTER;
                    let mut looks = 0_u32;
                    while !shutdown.wait(ROOM_PERIOD) {
                        blobs.relieve();
                        if looks.is_multiple_of(PROBE_EVERY) {
                            disk.probe();
                        }
                        looks = looks.wrapping_add(1);
                        if Instant::now() < next_check {
                            continue;
                        }
                        for suspicion in &suspicions {
                            if !shutdown.is_triggered() && !suspicion.is_raised() {
                                suspicion.check(&running);
                            }
                        }
                        next_check = Instant::now() + CHECK_PERIOD;
                    }
                }
            })?;
        Ok(Self {
            shutdown,
            running,
            thread: Some(thread),
        })
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(handle) = &*self.running.lock().expect("no holder of this lock panics") {
            handle.interrupt();
        }
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn set(running: &Mutex<Option<InterruptHandle>>, handle: Option<InterruptHandle>) {
    *running.lock().expect("no holder of this lock panics") = handle;
}
