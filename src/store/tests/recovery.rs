//! Bytes are flipped for real, and nothing ends in a crash loop.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use crate::store::recover::CHECK_AT_OPEN_BYTES;
use crate::store::testing::{Bench, order_json, product};
use crate::store::{Changes, InboxMessage, Lane, NewDevice, ReadError, Received, Source, Store};

fn flip(path: &Path, from: u64, len: usize) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, from).unwrap();
    for byte in &mut bytes {
        *byte ^= 0xa5;
    }
    file.write_all_at(&bytes, from).unwrap();
}

fn receive(store: &Store, n: usize) -> Received {
    let message = InboxMessage {
        message_id: format!("m{n}"),
        source: Source::Bus,
        body: order_json(&format!("o{n}")).into_bytes(),
    };
    store.orders.receive(message).wait().unwrap()
}

/// A closed store with `orders` orders, all in the main file.
fn with_orders(bench: &Bench, orders: usize) {
    let store = bench.open();
    let replies: Vec<_> = (0..orders).map(|n| receive(&store, n)).collect();
    assert_eq!(replies.len(), orders);
    drop(store);
    assert!(!bench.dir.path().join("orders.db-wal").exists());
}

#[test]
fn a_database_that_a_cut_left_half_made_is_made_again_and_is_no_damage() {
    let bench = Bench::new();
    for name in ["orders", "catalogue", "devices"] {
        let half = bench.dir.path().join(format!("{name}.db.new"));
        fs::write(&half, vec![0xa5; 3584]).unwrap();
        fs::write(half.with_extension("new-wal"), b"torn").unwrap();
    }
    let store = bench.open();
    assert!(store.recovered().is_empty());
    receive(&store, 1);
    drop(store);
    let names = fs::read_dir(bench.dir.path()).unwrap();
    let left = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.contains(".new"));
    assert_eq!(left, None);
    let store = bench.open();
    assert!(store.orders.order("o1").unwrap().is_some());
}

#[test]
fn a_catalogue_with_a_broken_head_is_made_anew_under_another_generation() {
    let bench = Bench::new();
    let store = bench.open();
    store
        .catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c1")
        .wait()
        .unwrap();
    let cursor = store.catalogue.feed_end().unwrap();
    drop(store);
    let path = bench.dir.path().join("catalogue.db");
    flip(&path, 0, 100);
    let store = bench.open();
    assert_eq!(store.recovered().len(), 1);
    assert_eq!(store.recovered()[0].database, "catalogue");
    assert!(bench.dir.path().join("catalogue.db.damaged").exists());
    assert_eq!(store.catalogue.cursor().unwrap(), None);
    assert!(matches!(
        store.catalogue.changes(Some(&cursor), 1).unwrap(),
        Changes::Refetch
    ));
    store
        .catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c1")
        .wait()
        .unwrap();
    drop(store);
    assert!(bench.open().recovered().is_empty());
}

#[test]
fn a_catalogue_damaged_in_the_middle_is_found_and_replaced() {
    let bench = Bench::new();
    let store = bench.open();
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(500));
    let changes = (0..500)
        .map(|n| product(&format!("p{n}"), 1, &body))
        .collect();
    store.catalogue.apply_page(changes, "c1").wait().unwrap();
    drop(store);
    let path = bench.dir.path().join("catalogue.db");
    let middle = fs::metadata(&path).unwrap().len() / 2 / 4096 * 4096;
    flip(&path, middle, 4096);
    let store = bench.open();
    assert_eq!(store.recovered()[0].database, "catalogue");
    assert_eq!(store.catalogue.collections().unwrap(), []);
}

#[test]
fn damage_found_while_in_use_is_told_and_cured_at_the_next_start() {
    let bench = Bench::new();
    let store = bench.open();
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(500));
    let changes = (0..500)
        .map(|n| product(&format!("p{n}"), 1, &body))
        .collect();
    store.catalogue.apply_page(changes, "c1").wait().unwrap();
    drop(store);
    let store = bench.open();
    assert!(store.damaged().is_empty());
    let path = bench.dir.path().join("catalogue.db");
    let middle = fs::metadata(&path).unwrap().len() / 2 / 4096 * 4096;
    flip(&path, middle, 4096);
    let running = Mutex::new(None);
    let sound: Vec<_> = store
        .care
        .suspicions
        .iter()
        .map(|suspicion| (suspicion.name(), suspicion.check(&running)))
        .collect();
    assert_eq!(
        sound,
        [("orders", true), ("devices", true), ("catalogue", false)]
    );
    assert_eq!(store.damaged(), ["catalogue"]);
    assert!(store.wants_restart());
    drop(store);
    let store = bench.open();
    assert!(store.recovered()[0].reason.contains("in use"));
    assert!(store.damaged().is_empty() && !store.wants_restart());
    drop(store);
    assert!(bench.open().recovered().is_empty());
}

#[test]
fn orders_outside_the_damage_are_all_brought_over() {
    let bench = Bench::new();
    let orders = 400;
    with_orders(&bench, orders);
    let path = bench.dir.path().join("orders.db");
    // One page in the middle; which table it belongs to is the disk's choice, not ours.
    let middle = fs::metadata(&path).unwrap().len() / 2 / 4096 * 4096;
    flip(&path, middle, 4096);
    let store = bench.open();
    let recovery = store.recovered()[0].clone();
    assert_eq!(recovery.database, "orders");
    assert!(recovery.salvaged_rows > 0);
    let there = (0..orders)
        .filter(|n| store.orders.order(&format!("o{n}")).unwrap().is_some())
        .count();
    // A page holds 30 of these orders at most.
    assert!(there >= orders - 30, "{there} of {orders}");
    assert!(matches!(receive(&store, orders + 1), Received::New { .. }));
    // Every waiting order still reaches a device.
    let mut dispatched = 0;
    while let Some(command) = store
        .orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap()
    {
        store
            .orders
            .command_done(command.id, crate::store::Outcome::Ok, "")
            .wait()
            .unwrap();
        dispatched += 1;
    }
    assert_eq!(dispatched, there + 1);
}

#[test]
fn orders_survive_the_loss_of_any_page() {
    let bench = Bench::new();
    let orders = 60;
    with_orders(&bench, orders);
    let path = bench.dir.path().join("orders.db");
    let sound = fs::read(&path).unwrap();
    let mut worst = orders;
    for page in 0..sound.len() as u64 / 4096 {
        fs::write(&path, &sound).unwrap();
        flip(&path, page * 4096, 4096);
        let store = bench.open();
        let there = (0..orders)
            .filter(|n| store.orders.order(&format!("o{n}")).unwrap().is_some())
            .count();
        if there < orders {
            assert!(
                !store.recovered().is_empty(),
                "page {page} lost orders in silence"
            );
            assert!(
                store.recovered()[0]
                    .incomplete
                    .contains(&"orders".to_owned()),
                "page {page}"
            );
        }
        assert!(matches!(receive(&store, orders + 1), Received::New { .. }));
        store.orders.outbox_due(Lane::Orders, i64::MAX, 1).unwrap();
        worst = worst.min(there);
        drop(store);
        fs::remove_file(bench.dir.path().join("orders.db.damaged")).ok();
    }
    // What goes is what lay on the lost page itself.
    assert!(
        (orders - 30..orders).contains(&worst),
        "{worst} of {orders}"
    );
}

#[test]
fn orders_survive_the_loss_of_the_first_page_and_keys_stay_what_they_were() {
    let bench = Bench::new();
    with_orders(&bench, 60);
    let keys = |store: &Store| {
        let command = store
            .orders
            .next_command("dev-1", "kitchen")
            .wait()
            .unwrap()
            .unwrap();
        let due = store.orders.outbox_due(Lane::Orders, i64::MAX, 1).unwrap();
        (command.id, command.seq, due[0].key.clone())
    };
    let store = bench.open();
    store
        .orders
        .advance("o9", crate::store::OrderState::Ready, "till")
        .wait()
        .unwrap();
    let before = keys(&store);
    drop(store);
    flip(&bench.dir.path().join("orders.db"), 0, 4096);
    let store = bench.open();
    assert_eq!(store.recovered()[0].incomplete, Vec::<String>::new());
    assert_eq!(store.orders.list(0, None, 100).unwrap().len(), 60);
    assert_eq!(keys(&store), before);
}

#[test]
fn a_file_that_is_no_database_or_cut_short_is_replaced() {
    for len in [1, 100, 4095, 4096, 5000, 20_000] {
        let bench = Bench::new();
        with_orders(&bench, 60);
        let path = bench.dir.path().join("orders.db");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len)
            .unwrap();
        let store = bench.open();
        assert_eq!(store.recovered().len(), 1, "{len} bytes");
        assert!(matches!(receive(&store, 99), Received::New { .. }));
    }
    let bench = Bench::new();
    fs::write(
        bench.dir.path().join("devices.db"),
        "what is this?".repeat(1000),
    )
    .unwrap();
    let store = bench.open();
    assert_eq!(store.recovered()[0].database, "devices");
    let new = NewDevice {
        name: "till".into(),
        role: "till".into(),
        address: None,
    };
    store.devices.pair(new).wait().unwrap();
}

#[test]
fn a_repair_cut_at_any_step_ends_the_same() {
    let bench = Bench::new();
    with_orders(&bench, 60);
    let path = |suffix: &str| bench.dir.path().join(format!("orders.db{suffix}"));
    flip(&path(""), 0, 4096);
    drop(bench.open());
    let (damaged, repaired) = (
        fs::read(path(".damaged")).unwrap(),
        fs::read(path("")).unwrap(),
    );
    // What stands on the disk at each step: database, its log, .new, .ready.
    let steps: [(bool, bool, bool, bool); 4] = [
        (true, true, true, false),
        (true, true, false, true),
        (true, false, false, true),
        (false, false, false, true),
    ];
    for (db, wal, new, ready) in steps {
        for suffix in ["", "-wal", "-shm", ".new", ".ready", ".damaged"] {
            fs::remove_file(path(suffix)).ok();
        }
        let put = |there: bool, suffix: &str, bytes: &[u8]| {
            if there {
                fs::write(path(suffix), bytes).unwrap();
            }
        };
        put(db, "", &damaged);
        put(wal, "-wal", b"");
        put(new, ".new", &repaired[..5000]);
        put(ready, ".ready", &repaired);
        let store = bench.open();
        assert_eq!(
            store.orders.list(0, None, 100).unwrap().len(),
            60,
            "{:?}",
            (db, wal, new, ready)
        );
        drop(store);
        assert!(!path(".ready").exists() && !path(".new").exists());
    }
}

/// What a newer firmware did in its trial: its migration, by the rules, and one more order.
fn migrated(bench: &Bench, database: &str, sql: &str) {
    let path = bench.dir.path().join(format!("{database}.db"));
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(&format!(
        "BEGIN; CREATE TABLE of_the_newer (a); {sql} PRAGMA user_version = 2; COMMIT;"
    ))
    .unwrap();
}

#[test]
fn after_a_rollback_every_order_is_there_also_those_of_the_trial() {
    let bench = Bench::new();
    let orders = 60;
    with_orders(&bench, orders);
    migrated(
        &bench,
        "orders",
        "ALTER TABLE orders ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
         CREATE INDEX orders_priority ON orders (priority);
         INSERT INTO orders (key, order_id, seq, source, state, role, placed_ms, received_ms, updated_ms, body, priority)
            SELECT 1000, 'of-the-trial', 1000, source, state, role, placed_ms, received_ms, updated_ms, body, 7
            FROM orders WHERE order_id = 'o1';
         INSERT INTO commands (key, role, issued_ms, expires_ms)
            SELECT 1000, role, issued_ms, expires_ms FROM commands WHERE key = 1;",
    );
    migrated(&bench, "devices", "");
    let store = bench.open();
    let recovered = store.recovered();
    assert_eq!(recovered.len(), 2);
    for recovery in recovered {
        assert!(recovery.was_newer, "{recovery:?}");
        assert_eq!(recovery.incomplete, Vec::<String>::new());
        assert!(
            recovery
                .reason
                .contains("version 2, this firmware knows up to 1")
        );
        assert!(recovery.kept_as.exists());
    }
    let all = store.orders.list(0, None, 1000).unwrap();
    assert_eq!(all.len(), orders + 1);
    assert!(store.orders.order("of-the-trial").unwrap().is_some());
    // What came before is known, and numbers go on behind those of the trial.
    assert!(matches!(receive(&store, 1), Received::DuplicateMessage));
    assert!(matches!(receive(&store, orders + 1), Received::New { .. }));
    let last = store.orders.list(1000, None, 10).unwrap();
    assert_eq!(last.len(), 1);
    assert!(last[0].seq > 1000);
    drop(store);
    assert!(bench.open().recovered().is_empty());
}

#[test]
fn after_a_rollback_the_catalogue_is_fetched_again_under_another_generation() {
    let bench = Bench::new();
    let store = bench.open();
    let page = vec![product("p1", 1, "{}")];
    store.catalogue.apply_page(page, "c1").wait().unwrap();
    let version = store.catalogue.version();
    drop(store);
    migrated(&bench, "catalogue", "");
    let store = bench.open();
    assert!(store.recovered()[0].was_newer);
    assert_eq!(store.catalogue.cursor().unwrap(), None);
    assert_ne!(store.catalogue.version(), version);
}

#[test]
fn a_read_that_meets_damage_in_a_large_database_asks_for_a_restart() {
    let bench = Bench::new();
    let store = bench.open();
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(3500));
    for from in (0..3000).step_by(1000) {
        let changes = (from..from + 1000)
            .map(|n| product(&format!("p{n}"), 1, &body))
            .collect();
        store
            .catalogue
            .apply_page(changes, &from.to_string())
            .wait()
            .unwrap();
    }
    drop(store);
    let path = bench.dir.path().join("catalogue.db");
    let size = fs::metadata(&path).unwrap().len();
    assert!(size > CHECK_AT_OPEN_BYTES);
    flip(&path, size / 2 / 4096 * 4096, 64 * 4096);
    let store = bench.open();
    assert!(store.recovered().is_empty() && !store.wants_restart());
    let damaged = (0..3000)
        .filter(|n| {
            let read = store.catalogue.document("products", &format!("p{n}"));
            matches!(read, Err(ReadError::Damaged(_)))
        })
        .count();
    assert!(damaged > 0);
    assert!(store.wants_restart());
    drop(store);
    let store = bench.open();
    assert_eq!(store.recovered()[0].database, "catalogue");
    assert!(!store.wants_restart());
}
