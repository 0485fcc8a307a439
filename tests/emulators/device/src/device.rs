//! The device: what it knows, and how a command becomes a visible effect, once.
//!
//! ```text
//!   command --> accept: on disk --> Accepted --> queue --> kitchen (visible, on disk) --> finish: on disk --> Done
//! ```
//! A cut at any arrow is made good: before *accept* the box sends again; after it the device executes at its next start; a command that
//! the kitchen still shows was executed; where the kitchen cannot tell (a terminal), the outcome is `Unknown`.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::Args;
use crate::faults::{Faults, strike};
use crate::kitchen::{Kitchen, wall_ms};
use crate::memory::{Memory, State};
use crate::pairing::Pairing;
use crate::session::Link;
use crate::wire::{Command, Outcome, ToBox};

/// The commands this device knows how to do.
const KINDS: [&str; 1] = ["order"];

/// How often a device at work looks whether it may be done sooner.
const LOOK: Duration = Duration::from_millis(5);

/// What a session says to a command.
pub enum Verdict {
    /// It is on disk.
    Accepted,
    /// It is over.
    Done(Outcome, String),
}

/// A device. Its parts are locked one at a time, never two.
pub struct Device {
    pairing: Pairing,
    boot_id: [u8; 16],
    memory: Mutex<Memory>,
    kitchen: Mutex<Kitchen>,
    faults: Mutex<Faults>,
    link: Mutex<Option<Arc<Link>>>,
    box_time: Mutex<Option<(u64, Instant)>>,
    executed: AtomicU64,
    sessions: AtomicU64,
    queue: Mutex<Sender<Command>>,
    work: Mutex<Option<Receiver<Command>>>,
    beat_now: (Mutex<Sender<()>>, Mutex<Option<Receiver<()>>>),
}

impl Device {
    /// The device of the state folder.
    pub fn open(args: &Args, (pairing, paired_before): (Pairing, bool)) -> anyhow::Result<Self> {
        fs::create_dir_all(&args.state)
            .with_context(|| format!("cannot make {}", args.state.display()))?;
        let (queue, work) = mpsc::channel();
        let (beat, beats) = mpsc::channel();
        Ok(Self {
            pairing,
            boot_id: random()?,
            memory: Mutex::new(Memory::open(&args.state, paired_before)?),
            kitchen: Mutex::new(Kitchen::open(args.log.as_deref())?),
            faults: Mutex::new(args.first_faults()?),
            link: Mutex::new(None),
            box_time: Mutex::new(None),
            executed: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            queue: Mutex::new(queue),
            work: Mutex::new(Some(work)),
            beat_now: (Mutex::new(beat), Mutex::new(Some(beats))),
        })
    }

    /// Who it is.
    pub fn pairing(&self) -> &Pairing {
        &self.pairing
    }

    /// New at each start.
    pub fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// The faults in force, to read or to use up.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// See section 4 of the protocol.
    pub fn last_seq(&self) -> u64 {
        lock(&self.memory).last_seq()
    }

    /// What the box's clock said just now.
    pub fn hear_time(&self, now_ms: u64) {
        *lock(&self.box_time) = Some((now_ms, Instant::now()));
    }

    /// Makes `link` the one session of this device.
    pub fn take_over(&self, link: Arc<Link>) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let old = lock(&self.link).replace(link);
        if let Some(old) = old {
            let _ = old.send(self, &ToBox::Bye("superseded"));
            old.close();
        }
    }

    /// The session is over.
    pub fn leave(&self, link: &Arc<Link>) {
        let mut current = lock(&self.link);
        if current.as_ref().is_some_and(|now| Arc::ptr_eq(now, link)) {
            *current = None;
        }
    }

    /// Closes the session, if there is one.
    pub fn hang_up(&self) {
        if let Some(link) = lock(&self.link).take() {
            link.close();
        }
    }

    /// Takes a command on, or says what it knows of it.
    pub fn take(&self, command: Command) -> anyhow::Result<Verdict> {
        let now_ms = self.now_ms();
        let mut memory = lock(&self.memory);
        match memory.state(&command.id) {
            Some(State::Accepted(_)) => return Ok(Verdict::Accepted),
            Some(State::Done { outcome, detail }) => {
                return Ok(Verdict::Done(*outcome, detail.clone()));
            }
            None => {}
        }
        let refused = if command.expires_at_ms <= now_ms {
            Some((Outcome::Expired, ""))
        } else if !KINDS.contains(&command.kind.as_str()) {
            Some((Outcome::Failed, "unknown_kind"))
        } else {
            None
        };
        if let Some((outcome, detail)) = refused {
            memory.finish(command.id, command.seq, outcome, detail)?;
            return Ok(Verdict::Done(outcome, detail.into()));
        }
        memory.accept(&command)?;
        drop(memory);
        let _ = lock(&self.queue).send(command);
        Ok(Verdict::Accepted)
    }

    /// Starts the thread that executes, first what an earlier life left behind.
    pub fn start_executing(self: &Arc<Self>) {
        let device = Arc::clone(self);
        let work = lock(&self.work).take().expect("started once");
        thread::spawn(move || {
            let open = lock(&device.memory).open_commands();
            let shown = lock(&device.kitchen).shown();
            let finished_before = open.into_iter().try_for_each(|command| match &shown {
                Ok(Some(shown)) if shown.contains(&command.id) => {
                    device.finish(&command, Outcome::Ok, "")
                }
                Ok(Some(_)) => device.execute(&command),
                _ => device.finish(&command, Outcome::Unknown, "cut off while executing"),
            });
            let result = finished_before
                .and_then(|()| work.iter().try_for_each(|command| device.execute(&command)));
            if let Err(error) = result {
                // Without a disk it can promise nothing any more.
                eprintln!("device-emulator: {error:#}");
                std::process::exit(1);
            }
        });
    }

    /// Loses the memory of commands.
    pub fn forget(&self) -> anyhow::Result<()> {
        self.hang_up();
        lock(&self.memory).forget()
    }

    /// Beats at once.
    pub fn beat(&self) {
        let _ = lock(&self.beat_now.0).send(());
    }

    /// Where [`Device::beat`] arrives; there once.
    pub fn beats(&self) -> Receiver<()> {
        lock(&self.beat_now.1).take().expect("taken once")
    }

    /// For the control port.
    pub fn report(&self) -> Value {
        let connected = lock(&self.link).is_some();
        let (remembered, last_seq, lost) = {
            let memory = lock(&self.memory);
            (memory.len(), memory.last_seq(), memory.was_lost())
        };
        json!({
            "device_id": self.pairing.device_id,
            "box_id": self.pairing.box_id,
            "connected": connected,
            "sessions": self.sessions.load(Ordering::Relaxed),
            "executed": self.executed.load(Ordering::Relaxed),
            "remembered": remembered,
            "last_seq": last_seq,
            "memory_lost": lost,
            "faults": *self.faults(),
        })
    }

    fn execute(&self, command: &Command) -> anyhow::Result<()> {
        self.take_its_time();
        // A device that lost its memory meanwhile lost this too; what it was sent again counts.
        let command = match lock(&self.memory).state(&command.id) {
            Some(State::Accepted(command)) => command.as_ref().clone(),
            _ => return Ok(()),
        };
        let command = &command;
        let failed = {
            let mut faults = self.faults();
            strike(&mut faults.fail).then_some(faults.fail_outcome)
        };
        if let Some(outcome) = failed {
            return self.finish(command, outcome, "failed on demand");
        }
        if command.expires_at_ms <= self.now_ms() {
            return self.finish(command, Outcome::Expired, "");
        }
        let marked = command.possible_duplicate && lock(&self.memory).was_lost();
        lock(&self.kitchen).show(command, marked)?;
        self.executed.fetch_add(1, Ordering::Relaxed);
        self.finish(command, Outcome::Ok, "")
    }

    /// Waits as long as executing takes, also when that changes meanwhile.
    fn take_its_time(&self) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(self.faults().done_delay_ms) {
            thread::sleep(LOOK);
        }
    }

    fn finish(&self, command: &Command, outcome: Outcome, detail: &str) -> anyhow::Result<()> {
        lock(&self.memory).finish(command.id, command.seq, outcome, detail)?;
        if strike(&mut self.faults().drop_after_accept) {
            self.hang_up();
            return Ok(());
        }
        let link = lock(&self.link).clone();
        if let Some(link) = link {
            // A session that broke meanwhile gets the result when the box asks again.
            let _ = link.send(
                self,
                &ToBox::Done {
                    id: command.id,
                    outcome,
                    detail: detail.into(),
                },
            );
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        match *lock(&self.box_time) {
            Some((at, since)) => {
                at.saturating_add(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
            }
            None => wall_ms(),
        }
    }
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
    Ok(bytes)
}

/// A thread that panicked leaves nothing half done under these locks.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
