//! Orders and power cuts, judged by what the store asked of the kernel.
//!
//! A child process takes orders under `strace`. Its trace says which bytes went to which file, and which of them were
//! behind a finished fsync when an order was acknowledged. A cut is then any moment of that trace: what was fsynced is
//! on the disk; of what was only written, each 512-byte sector made it or not, as a die decides. The store is opened
//! on such a disk and must hold every order acknowledged before the cut.
//!
//! What this proves: that no acknowledgement comes before the fsync that carries it, checkpoints of the log included,
//! and that torn and missing sectors are recovered from. What it does not: that kernel, file system and disk keep what
//! they say they have fsynced (the image tests cut at block level), nor the directory entries of new files: cuts begin when
//! the database, made under another name, has been fsynced and renamed. The weak controls
//! show that the method sees a missing fsync.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use comptoir::clock::SystemClock;
use comptoir::config::StoreConfig;
use comptoir::store::{InboxMessage, Outcome, Recovery, Source, Store};
use comptoir::units::ByteSize;

/// Names the folder, and makes this process the child.
const CHILD_DIR: &str = "COMPTOIR_POWER_CUT_DIR";
/// The child's way of writing: `store`, or a `synchronous` setting of SQLite that is too weak.
const CHILD_WAY: &str = "COMPTOIR_POWER_CUT_WAY";
const WRITERS: usize = 8;
const ORDERS_EACH: usize = 60;
/// Cuts of one run; `COMPTOIR_POWER_CUTS` asks for more.
const CUTS: usize = 100;
/// The assumed write unit of the disk.
const SECTOR: usize = 512;

#[test]
fn no_acknowledged_order_is_lost_in_a_power_cut() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        return child(Path::new(&dir), &std::env::var(CHILD_WAY).unwrap());
    }
    let cuts = std::env::var("COMPTOIR_POWER_CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    let trace = trace_of("store");
    let (acks, syncs, checkpoints) = trace.counts();
    assert!(
        syncs < acks,
        "{syncs} fsyncs for {acks} orders: no group commit"
    );
    assert!(checkpoints > 0, "the log was never checkpointed");
    let mut die = Die(0x9e37_79b9_7f4a_7c15);
    for _ in 0..cuts {
        let cut = trace.cut(&mut die);
        assert_eq!(trace.harm_at(cut, &mut die), None, "cut at {cut}");
    }
}

#[test]
fn the_method_catches_a_store_that_does_not_fsync() {
    for way in ["OFF", "NORMAL"] {
        let trace = trace_of(way);
        let mut die = Die(0x9e37_79b9_7f4a_7c15);
        let caught = (0..CUTS).any(|_| {
            let cut = trace.cut(&mut die);
            trace.harm_at(cut, &mut die).is_some()
        });
        assert!(caught, "synchronous={way} was not caught");
    }
}

struct Trace {
    events: Vec<Event>,
    /// So many events made the database, and its last fsync was the last of them.
    made_by: usize,
}

/// What a cut did.
#[derive(Debug, PartialEq)]
enum Harm {
    Damaged(Recovery),
    Lost(BTreeSet<String>),
}

/// Runs the child in `way` and reads what it asked of the kernel.
fn trace_of(way: &str) -> Trace {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let trace_path = dir.path().join("trace");
    fs::create_dir(&data_dir).unwrap();
    let output = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "70000", "-e", "signal=none", "-o"])
        .arg(&trace_path)
        .args(["-e", "trace=write,pwrite64,lseek,ftruncate,fsync,fdatasync"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "power_cut::no_acknowledged_order_is_lost_in_a_power_cut",
        ])
        .env(CHILD_DIR, &data_dir)
        .env(CHILD_WAY, way)
        .output()
        .expect("strace is installed (scripts/setup host-build)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (events, made_by) = read_trace(&trace_path);
    assert!(
        matches!(&events[made_by - 1], Event::Sync { name } if name == "orders.db"),
        "the database was given its name before it was durable"
    );
    let trace = Trace { events, made_by };
    assert!(trace.counts().0 >= WRITERS * ORDERS_EACH);
    trace
}

impl Trace {
    /// Acknowledgements, fsyncs, and fsyncs of the main file.
    fn counts(&self) -> (usize, usize, usize) {
        let count = |which: fn(&Event) -> bool| self.events.iter().filter(|e| which(e)).count();
        (
            count(|event| matches!(event, Event::Ack(_))),
            count(|event| matches!(event, Event::Sync { .. })),
            count(|event| matches!(event, Event::Sync { name } if name == "orders.db")),
        )
    }

    /// A moment after the database was made.
    fn cut(&self, die: &mut Die) -> usize {
        self.made_by + die.below(self.events.len() - self.made_by)
    }

    /// Cuts the power after `cut` events, and opens the store on what is left.
    fn harm_at(&self, cut: usize, die: &mut Die) -> Option<Harm> {
        let mut disk = Disk::default();
        let mut lost = BTreeSet::new();
        for event in &self.events[..cut] {
            match event {
                Event::Write { name, at, bytes } => disk.write(name, *at, bytes),
                Event::Truncate { name, len } => disk.truncate(name, *len),
                Event::Sync { name } => disk.sync(name),
                Event::Ack(order_id) => {
                    lost.insert(order_id.clone());
                }
            }
        }
        // Memory, where there is some: what the disk does is played already.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        for (name, bytes) in disk.cut(die) {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let store = open(dir.path());
        if let Some(recovery) = store.recovered().first() {
            return Some(Harm::Damaged(recovery.clone()));
        }
        lost.retain(|order_id| store.orders.order(order_id).unwrap().is_none());
        (!lost.is_empty()).then_some(Harm::Lost(lost))
    }
}

fn open(dir: &Path) -> Store {
    let config = StoreConfig {
        data_dir: dir.to_path_buf(),
        catalogue_cache: ByteSize::mib(1),
        blob_quota: ByteSize::mib(1),
        orders_reserve: ByteSize::bytes(0),
    };
    Store::open(&config, Arc::new(SystemClock::default())).unwrap()
}

// The child: takes orders and says which, in a file that is only the trace's business.

fn child(dir: &Path, way: &str) {
    let acks = Mutex::new(File::create(dir.join("acks")).unwrap());
    let acknowledge = |order_id: &str| acks.lock().unwrap().write_all(order_id.as_bytes()).unwrap();
    let store = open(dir);
    if way == "store" {
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (store, acknowledge) = (&store, &acknowledge);
                scope.spawn(move || {
                    for n in 0..ORDERS_EACH {
                        take_order(store, writer, n, acknowledge);
                    }
                });
            }
        });
    } else {
        let conn = rusqlite::Connection::open(dir.join("orders.db")).unwrap();
        conn.pragma_update(None, "synchronous", way).unwrap();
        for n in 0..WRITERS * ORDERS_EACH {
            let order_id = format!("{n}");
            conn.execute(
                "INSERT INTO orders (order_id, seq, source, state, role, placed_ms, received_ms, updated_ms, body)
                 VALUES (?1, ?2, 0, 0, 'kitchen', 0, 0, 0, ?3)",
                (&order_id, i64::try_from(n).unwrap(), order(&order_id)),
            )
            .unwrap();
            acknowledge(&order_id);
        }
    }
    // Like a cut: nothing is closed in good order.
    std::process::exit(0);
}

fn take_order(store: &Store, writer: usize, n: usize, acknowledge: &impl Fn(&str)) {
    let order_id = format!("{writer}-{n}");
    let message = InboxMessage {
        message_id: order_id.clone(),
        source: Source::Bus,
        body: order(&order_id),
    };
    store.orders.receive(message).wait().unwrap();
    acknowledge(&order_id);
    let device_id = format!("dev-{writer}");
    if let Some(command) = store
        .orders
        .next_command(&device_id, "kitchen")
        .wait()
        .unwrap()
    {
        store
            .orders
            .command_done(command.id, Outcome::Ok, "")
            .wait()
            .unwrap();
    }
}

fn order(order_id: &str) -> Vec<u8> {
    let note = "x".repeat(700);
    format!(r#"{{"order_id":"{order_id}","placed_at":"2026-05-01T10:00:00Z","lines":[],"note":"{note}"}}"#)
        .into_bytes()
}

// The disk: what is durable, and what is only written.

#[derive(Default)]
struct Disk {
    durable: BTreeMap<String, Vec<u8>>,
    pending: Vec<(String, Change)>,
}

#[derive(Clone)]
enum Change {
    Bytes(usize, Vec<u8>),
    Len(usize),
}

impl Disk {
    fn write(&mut self, name: &str, at: usize, bytes: &[u8]) {
        // Sector by sector, for each has its own fate.
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
            let change = Change::Bytes(at + from, bytes[from..to].to_vec());
            self.pending.push((name.to_owned(), change));
            from = to;
        }
    }

    fn truncate(&mut self, name: &str, len: usize) {
        self.pending.push((name.to_owned(), Change::Len(len)));
    }

    fn sync(&mut self, name: &str) {
        for (_, change) in self.pending.extract_if(.., |(of, _)| of == name) {
            apply(self.durable.entry(name.to_owned()).or_default(), &change);
        }
    }

    fn cut(mut self, die: &mut Die) -> BTreeMap<String, Vec<u8>> {
        let fate = die.below(3);
        for (name, change) in &self.pending {
            // All lost, all there, or each as it falls.
            if fate == 1 || (fate == 2 && die.below(2) == 1) {
                apply(self.durable.entry(name.clone()).or_default(), change);
            }
        }
        self.durable
    }
}

fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => file.resize(*len, 0),
        Change::Bytes(at, bytes) => {
            file.resize(file.len().max(at + bytes.len()), 0);
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

struct Die(u64);

impl Die {
    fn below(&mut self, n: usize) -> usize {
        // Xorshift64 (Marsaglia, 2003): the same cuts on every run.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

// The trace.

enum Event {
    Write {
        name: String,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        len: usize,
    },
    Sync {
        name: String,
    },
    Ack(String),
}

/// The events, and how many of them made the database.
fn read_trace(path: &Path) -> (Vec<Event>, usize) {
    let (mut events, mut made_by) = (Vec::new(), 0);
    let mut offsets: BTreeMap<String, usize> = BTreeMap::new();
    let mut unfinished: BTreeMap<String, String> = BTreeMap::new();
    for line in BufReader::new(File::open(path).unwrap()).lines() {
        let line = line.unwrap();
        let (pid, call) = line.split_once(char::is_whitespace).unwrap();
        let call = call.trim_start();
        // A call that another thread's interrupted in the log counts where it ended.
        let call = if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(pid.to_owned(), begun.to_owned());
            continue;
        } else if call.starts_with("<... ") {
            let rest = call.split_once("resumed>").unwrap().1;
            unfinished.remove(pid).unwrap() + rest
        } else {
            call.to_owned()
        };
        if read_call(&call, &mut offsets, &mut events) == Some(Of::TheMaking) {
            made_by = events.len();
        }
    }
    (events, made_by)
}

/// Which files a call concerns.
#[derive(PartialEq, Eq)]
enum Of {
    /// Those under the name that the database has until it is whole.
    TheMaking,
    TheWork,
}

fn read_call(
    call: &str,
    offsets: &mut BTreeMap<String, usize>,
    events: &mut Vec<Event>,
) -> Option<Of> {
    let (kind, rest) = call.split_once('(')?;
    let (handle, rest) = rest.split_once('>')?;
    let (handle, path) = handle.split_once('<')?;
    let path = String::from_utf8_lossy(&unescape(path)).into_owned();
    let called = path.rsplit('/').next().unwrap_or_default();
    let name = called.replace("orders.db.new", "orders.db");
    if !["orders.db", "orders.db-wal", "acks"].contains(&name.as_str()) {
        return None;
    }
    let of = if name == called {
        Of::TheWork
    } else {
        Of::TheMaking
    };
    let result: usize = call
        .rsplit_once("= ")
        .and_then(|(_, result)| result.trim().parse().ok())
        .expect("the call succeeded");
    let numbers: Vec<usize> = rest
        .rsplit_once(')')
        .map_or(rest, |(arguments, _)| arguments)
        .rsplit(", ")
        .map_while(|part| part.trim().parse().ok())
        .collect();
    let offset = offsets.entry(format!("{handle} {path}")).or_default();
    match kind {
        "lseek" => *offset = result,
        "fsync" | "fdatasync" => events.push(Event::Sync { name }),
        "ftruncate" => events.push(Event::Truncate {
            name,
            len: numbers[0],
        }),
        "write" | "pwrite64" => {
            let text = rest.split('"').nth(1).expect("a write has bytes");
            let bytes = unescape(text);
            assert_eq!(bytes.len(), result, "a short write");
            if name == "acks" {
                events.push(Event::Ack(String::from_utf8(bytes).unwrap()));
                return Some(of);
            }
            let at = if kind == "pwrite64" {
                numbers[0]
            } else {
                *offset
            };
            *offset = at + bytes.len();
            events.push(Event::Write { name, at, bytes });
        }
        _ => {}
    }
    Some(of)
}

/// `\x41\x42` as bytes, and text without it as it is.
fn unescape(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    text.split("\\x")
        .skip(1)
        .map(|digits| u8::from_str_radix(digits, 16).unwrap())
        .collect()
}
