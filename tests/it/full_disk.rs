//! A disk that is really full: a small file system in memory, in a mount namespace of the child's own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use comptoir::clock::SystemClock;
use comptoir::config::StoreConfig;
use comptoir::store::{DiskTrouble, InboxMessage, Source, Store, WriteError};
use comptoir::telemetry::{Code, Conditions};
use comptoir::units::ByteSize;

use crate::kitchen::wait_for;

/// Names the small file system, and makes this process the child.
const CHILD_DIR: &str = "COMPTOIR_SMALL_DISK_DIR";

/// Runs `work` on a file system of `size` (`3m`): in a child that is this binary again, for `test` alone.
pub fn on_a_small_disk(test: &str, size: &str, work: fn(&Path)) {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        return work(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size={size} none \"${CHILD_DIR}\" && exec \"$0\" --exact {test}"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir.path())
        .output()
        .expect("unshare (util-linux) is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    // A child that found no such test would be content, too.
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn orders_are_refused_while_it_lasts_and_none_acknowledged_is_lost() {
    on_a_small_disk(
        "full_disk::orders_are_refused_while_it_lasts_and_none_acknowledged_is_lost",
        "3m",
        child,
    );
}

fn child(dir: &Path) {
    let filler_path = dir.join("filler");
    fs::write(&filler_path, vec![1; 1 << 20]).unwrap();
    let store = open(dir);
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let mut n = 0;
    // Refused for good, not just once: small orders may still fit where a larger write did not.
    while refused.len() < 50 {
        match receive(&store, n) {
            Ok(()) => taken.push(n),
            Err(WriteError::Disk(_)) => refused.push(n),
            Err(other) => panic!("{other}"),
        }
        n += 1;
        assert!(n < 20_000, "the disk never got full");
    }
    assert!(!taken.is_empty());
    for n in &taken {
        assert!(is_there(&store, *n), "reads go on");
    }
    for n in &refused {
        assert!(!is_there(&store, *n), "{n} was refused and is there");
    }
    assert!(store.damaged().is_empty());
    let conditions = Conditions::default();
    store.disk.tell(&conditions, 1);
    assert!(conditions.holds(Code::DiskFull));
    let trouble = store.disk.trouble();
    assert!(matches!(trouble, Some(DiskTrouble::Full(_))), "{trouble:?}");
    fs::remove_file(filler_path).unwrap();
    // More than the log alone would hold: it is emptied where it is in the way.
    let later = n..n + 300;
    for n in refused.into_iter().chain(later) {
        receive(&store, n).expect("there is room again");
        taken.push(n);
    }
    wait_for("the writer to find out by itself", || {
        store.disk.tell(&conditions, 2);
        conditions.list().is_empty().then_some(())
    });
    drop(store);
    let store = open(dir);
    assert!(store.recovered().is_empty());
    for n in taken {
        assert!(is_there(&store, n), "{n} was acknowledged");
    }
}

fn receive(store: &Store, n: usize) -> Result<(), WriteError> {
    let note = "x".repeat(500);
    let body = format!(
        r#"{{"order_id":"o{n}","placed_at":"2026-05-01T10:00:00Z","lines":[],"note":"{note}"}}"#
    );
    let message = InboxMessage {
        message_id: format!("m{n}"),
        source: Source::Bus,
        body: body.into_bytes(),
    };
    store.orders.receive(message).wait().map(drop)
}

fn is_there(store: &Store, n: usize) -> bool {
    store.orders.order(&format!("o{n}")).unwrap().is_some()
}

fn open(dir: &Path) -> Store {
    let config = StoreConfig {
        data_dir: dir.join("data"),
        catalogue_cache: ByteSize::mib(1),
        blob_quota: ByteSize::mib(1),
        orders_reserve: ByteSize::bytes(0),
    };
    Store::open(&config, Arc::new(SystemClock::default())).unwrap()
}
