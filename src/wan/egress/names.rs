//! Names to addresses, with a short memory.
//!
//! ```text
//!   known for less than FRESH ----------------------------> taken from memory
//!   otherwise: look up --- found --------------------------> remembered, taken
//!                     \--- failed or late, known before ---> taken from memory, up to STALE old
//!                      \-- failed or late, unknown --------> an error
//! ```
//! The system's own look-up can't be interrupted, so it runs in a thread: one a name however many ask, and whoever asks
//! waits with a deadline of its own. A thread left behind ends when the system gives up.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::Duration;

use super::failure::{ConnectError, Until};
use super::stop::{STOP_SLICE, Stop};
use super::{Cause, Phase, link};
use crate::clock::Clock;

/// A look-up younger than this is not repeated: new connections and long polls then ask no DNS question each.
const FRESH: Duration = Duration::from_secs(60);
/// An address this old is still better than none, while the name server is away.
const STALE: Duration = Duration::from_secs(15 * 60);
/// Names kept; the contract has five, and each flow may have a proxy. The oldest makes room, and what is being looked up stays.
const MAX_NAMES: usize = 16;

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The memory. Clones share it.
#[derive(Clone)]
pub(super) struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Box<Lookup>,
    clock: Arc<dyn Clock>,
    table: Mutex<BTreeMap<String, Entry>>,
    ended: Condvar,
}

#[derive(Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// Monotonic time at which they were found.
    found_at: Option<Duration>,
    /// A connection to them failed since.
    is_doubted: bool,
    /// A thread is at it.
    is_running: bool,
    /// Look-ups that ended, well or not.
    rounds: u64,
    /// Why the last one failed.
    failure: Option<String>,
}

impl Names {
    /// By the system's resolver.
    pub(super) fn of_system(clock: Arc<dyn Clock>) -> Self {
        Self::new(clock, |name| {
            let found: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|a| a.ip()).collect();
            Ok(found)
        })
    }

    pub(super) fn new(
        clock: Arc<dyn Clock>,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                lookup: Box::new(lookup),
                clock,
                table: Mutex::default(),
                ended: Condvar::new(),
            }),
        }
    }

    /// The addresses of `name`, at least one.
    pub(super) fn resolve(
        &self,
        name: &str,
        until: Until,
        stop: &Stop,
    ) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let mut table = self.table();
        if let Some(addresses) = fresh(&table, name, self.shared.clock.monotonic()) {
            return Ok(addresses);
        }
        make_room(&mut table, name)?;
        let entry = table.entry(name.to_owned()).or_default();
        let round = entry.rounds;
        if !entry.is_running {
            entry.is_running = true;
            self.begin(name).map_err(|error| {
                entry.is_running = false;
                ConnectError::new(Cause::Dns, Phase::Resolve, format!("no thread: {error}"))
            })?;
        }
        loop {
            if stop.is_given() {
                return Err(ConnectError::stopped(Phase::Resolve));
            }
            let ended = table.get(name).is_none_or(|entry| entry.rounds > round);
            if ended || until.left().is_zero() {
                return self.outcome(&table, name, ended, until);
            }
            let wait = until.left().min(STOP_SLICE);
            (table, _) = self
                .shared
                .ended
                .wait_timeout(table, wait)
                .expect("no holder of this lock panics");
        }
    }

    /// An address of `name` does not answer: the next connection asks anew, and falls back on it when nobody can be asked.
    pub(super) fn doubt(&self, name: &str) {
        if let Some(entry) = self.table().get_mut(name) {
            entry.is_doubted = true;
        }
    }

    fn outcome(
        &self,
        table: &BTreeMap<String, Entry>,
        name: &str,
        ended: bool,
        until: Until,
    ) -> Result<Vec<IpAddr>, ConnectError> {
        let now = self.shared.clock.monotonic();
        let failure = table.get(name).and_then(|entry| entry.failure.clone());
        let failure = failure.filter(|_| ended);
        if failure.is_none()
            && let Some(addresses) = fresh(table, name, now).filter(|_| ended)
        {
            return Ok(addresses);
        }
        if let Some(addresses) = known(table, name, now, STALE) {
            tracing::debug!(event = "egress.name_stale", name);
            return Ok(addresses);
        }
        let no_link = !link::is_up();
        Err(match failure {
            _ if no_link => {
                ConnectError::new(Cause::NoLink, Phase::Resolve, "no interface has an address")
            }
            Some(failure) => ConnectError::new(Cause::Dns, Phase::Resolve, failure),
            None if ended => ConnectError::new(Cause::Dns, Phase::Resolve, "no address"),
            None => until.passed(
                Phase::Resolve,
                format!("{name}: no answer of the name server"),
            ),
        })
    }

    fn begin(&self, name: &str) -> io::Result<()> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        Builder::new()
            .name("wan-resolve".to_owned())
            .spawn(move || {
                let found = (shared.lookup)(&name);
                let now = shared.clock.monotonic();
                let mut table = shared.table.lock().expect("no holder of this lock panics");
                let entry = table.entry(name).or_default();
                entry.is_running = false;
                entry.rounds += 1;
                match found {
                    Ok(addresses) if !addresses.is_empty() => {
                        entry.addresses = addresses;
                        entry.found_at = Some(now);
                        entry.is_doubted = false;
                        entry.failure = None;
                    }
                    Ok(_) => entry.failure = Some("no address".to_owned()),
                    Err(error) => entry.failure = Some(error.to_string()),
                }
                drop(table);
                shared.ended.notify_all();
            })
            .map(drop)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.shared
            .table
            .lock()
            .expect("no holder of this lock panics")
    }
}

fn fresh(table: &BTreeMap<String, Entry>, name: &str, now: Duration) -> Option<Vec<IpAddr>> {
    if table.get(name)?.is_doubted {
        return None;
    }
    known(table, name, now, FRESH)
}

fn known(
    table: &BTreeMap<String, Entry>,
    name: &str,
    now: Duration,
    max_age: Duration,
) -> Option<Vec<IpAddr>> {
    let entry = table.get(name)?;
    let age = now.saturating_sub(entry.found_at?);
    (age < max_age).then(|| entry.addresses.clone())
}

fn make_room(table: &mut BTreeMap<String, Entry>, name: &str) -> Result<(), ConnectError> {
    if table.len() < MAX_NAMES || table.contains_key(name) {
        return Ok(());
    }
    let oldest = table
        .iter()
        .filter(|(_, entry)| !entry.is_running)
        .min_by_key(|(_, entry)| entry.found_at)
        .map(|(name, _)| name.clone());
    let oldest = oldest.ok_or_else(|| {
        let detail = format!("{MAX_NAMES} names are being looked up already");
        ConnectError::new(Cause::Dns, Phase::Resolve, detail)
    })?;
    table.remove(&oldest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::clock::ManualClock;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const PATIENCE: Duration = Duration::from_secs(20);

    fn until(limit: Duration) -> Until {
        Until::within(limit, Cause::ResolveTimeout)
    }

    fn ask(names: &Names, name: &str) -> Result<Vec<IpAddr>, Cause> {
        names
            .resolve(name, until(PATIENCE), &Stop::default())
            .map_err(|error| error.cause)
    }

    /// Answers as long as `works`, counting the questions.
    fn server(works: &Arc<AtomicU32>) -> (Names, Arc<AtomicU32>, Arc<ManualClock>) {
        let asked = Arc::new(AtomicU32::new(0));
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let names = Names::new(clock.clone(), {
            let (asked, works) = (Arc::clone(&asked), Arc::clone(works));
            move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                if works.load(Ordering::SeqCst) == 1 {
                    Ok(vec![ADDRESS])
                } else {
                    Err(io::Error::other("nobody answers"))
                }
            }
        });
        (names, asked, clock)
    }

    #[test]
    fn a_name_is_asked_for_once_a_minute_and_outlives_its_server_for_a_while() {
        let works = Arc::new(AtomicU32::new(1));
        let (names, asked, clock) = server(&works);
        for _ in 0..50 {
            assert_eq!(ask(&names, "host"), Ok(vec![ADDRESS]));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.advance(FRESH);
        assert_eq!(ask(&names, "host"), Ok(vec![ADDRESS]));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        works.store(0, Ordering::SeqCst);
        clock.advance(FRESH);
        assert_eq!(
            ask(&names, "host"),
            Ok(vec![ADDRESS]),
            "stale is better than none"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        clock.advance(STALE);
        assert_eq!(ask(&names, "host"), Err(Cause::Dns));
        works.store(1, Ordering::SeqCst);
        assert_eq!(ask(&names, "host"), Ok(vec![ADDRESS]));
        names.doubt("host");
        assert_eq!(ask(&names, "host"), Ok(vec![ADDRESS]));
        assert_eq!(
            asked.load(Ordering::SeqCst),
            6,
            "a doubted address is asked for again"
        );
    }

    #[test]
    fn an_address_is_no_question() {
        let (names, asked, _) = server(&Arc::new(AtomicU32::new(1)));
        assert_eq!(ask(&names, "fd00::1").unwrap()[0].to_string(), "fd00::1");
        assert_eq!(
            ask(&names, "127.0.0.1").unwrap()[0].to_string(),
            "127.0.0.1"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_silent_server_costs_each_asker_its_deadline_and_all_of_them_one_thread() {
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let asked = Arc::new(AtomicU32::new(0));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let names = Names::new(clock, {
            let asked = Arc::clone(&asked);
            move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = held.lock().unwrap().recv();
                Ok(vec![ADDRESS])
            }
        });
        for _ in 0..3 {
            let late = names.resolve("host", until(Duration::from_millis(20)), &Stop::default());
            assert_eq!(late.unwrap_err().cause, Cause::ResolveTimeout);
        }
        let stop = Stop::default();
        stop.give();
        let stopped = names.resolve("host", until(Duration::from_secs(600)), &stop);
        assert_eq!(stopped.unwrap_err().cause, Cause::Stopped);
        drop(release);
        assert_eq!(ask(&names, "host"), Ok(vec![ADDRESS]));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (names, _, _) = server(&Arc::new(AtomicU32::new(1)));
        for n in 0..3 * MAX_NAMES {
            ask(&names, &format!("host-{n}")).unwrap();
        }
        assert_eq!(names.table().len(), MAX_NAMES);
    }
}
