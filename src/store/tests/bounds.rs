//! Every bound is reached, and what happens there is what the first page says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use crate::store::db::{WAL_BOUND_BYTES, wal_path};
use crate::store::testing::{Bench, json, order_json, product};
use crate::store::writer::{BATCH_BOUND, QUEUE_BOUND};
use crate::store::{InboxMessage, Lane, Received, Source, Store, WriteError};

/// Longest wait of a test for what must happen anyway.
const DEADLINE: Duration = Duration::from_secs(60);

fn receive(store: &Store, n: usize) -> Result<Received, WriteError> {
    let message = InboxMessage {
        message_id: format!("m{n}"),
        source: Source::Bus,
        body: order_json(&format!("o{n}")).into_bytes(),
    };
    store.orders.receive(message).wait()
}

/// Holds the writer of orders in a job until the sender is dropped.
fn hold_writer(store: &Store) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let entered = Arc::new(Barrier::new(2));
    let in_job = Arc::clone(&entered);
    drop(store.orders.writer.submit(move |_| {
        in_job.wait();
        let _ = held.recv();
        Ok(())
    }));
    entered.wait();
    release
}

#[test]
fn a_full_queue_refuses_at_once_and_loses_nothing_it_took() {
    let bench = Bench::new();
    let store = bench.open();
    let release = hold_writer(&store);
    let taken: Vec<_> = (0..QUEUE_BOUND)
        .map(|n| {
            store
                .orders
                .outbox_push(Lane::Events, "e", json(&n.to_string()))
        })
        .collect();
    let refused = store
        .orders
        .outbox_push(Lane::Events, "e", json("1"))
        .wait();
    assert!(matches!(refused, Err(WriteError::Busy)));
    drop(release);
    for reply in taken {
        reply.wait().unwrap();
    }
    assert_eq!(
        store.orders.outbox_counts().unwrap().lanes[2].waiting,
        QUEUE_BOUND as i64
    );
    assert_eq!(store.orders.progress(), QUEUE_BOUND as u64 + 1);
}

#[test]
fn one_failing_job_undoes_no_other_and_is_told_so() {
    let bench = Bench::new();
    let store = bench.open();
    let mut events = store.events.subscribe();
    let release = hold_writer(&store);
    let push = |n: &str| store.orders.outbox_push(Lane::Events, "e", json(n));
    let before = push("1");
    let failing = store.orders.writer.submit(|tx| {
        tx.conn.execute(
            "INSERT INTO outbox (lane, kind, occurred_ms, body) VALUES (2, 'half', 0, '2')",
            [],
        )?;
        tx.tell(crate::store::StoreEvent::Command);
        tx.conn.execute("INSERT INTO nowhere VALUES (1)", [])
    });
    let after = push("3");
    drop(release);
    assert!(matches!(failing.wait(), Err(WriteError::Disk(_))));
    before.wait().unwrap();
    after.wait().unwrap();
    let due = store.orders.outbox_due(Lane::Events, i64::MAX, 10).unwrap();
    let bodies: Vec<_> = due.iter().map(|item| item.body.get()).collect();
    assert_eq!(bodies, ["1", "3"]);
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(!told.contains(&crate::store::StoreEvent::Command));
}

#[test]
fn jobs_that_wait_together_are_committed_together() {
    let bench = Bench::new();
    let store = bench.open();
    // The data version of another connection changes once a commit.
    let watcher = rusqlite::Connection::open(bench.dir.path().join("orders.db")).unwrap();
    let release = hold_writer(&store);
    let replies: Vec<_> = (0..BATCH_BOUND - 1)
        .map(|n| {
            store.orders.writer.submit(move |tx| {
                tx.conn
                    .execute("INSERT INTO device_seqs VALUES (?1, 0)", [format!("d{n}")])?;
                tx.conn
                    .query_row("SELECT count(*) FROM device_seqs", [], |row| {
                        row.get::<_, i64>(0)
                    })
            })
        })
        .collect();
    let seen = || -> i64 {
        watcher
            .query_row("SELECT count(*) FROM device_seqs", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(seen(), 0);
    drop(release);
    let mut replies = replies.into_iter();
    // By the time the first of them is answered, all of them are there for everybody.
    assert_eq!(replies.next().unwrap().wait().unwrap(), 1);
    assert_eq!(seen(), BATCH_BOUND as i64 - 1);
    for reply in replies {
        reply.wait().unwrap();
    }
}

#[test]
fn a_full_disk_refuses_acknowledges_nothing_falsely_and_heals() {
    let bench = Bench::new();
    let store = bench.open();
    assert!(matches!(receive(&store, 0).unwrap(), Received::New { .. }));
    let set_room = |pages: i64| {
        let job = store.orders.writer.submit(move |tx| {
            tx.conn
                .query_row(&format!("PRAGMA max_page_count={pages}"), [], |row| {
                    row.get::<_, i64>(0)
                })
        });
        job.wait().unwrap()
    };
    // SQLite answers SQLITE_FULL, the code of a full disk, beyond this size.
    let now = set_room(1);
    set_room(now + 4);
    let mut acknowledged = vec![0];
    let mut refused = Vec::new();
    for n in 1..400 {
        match receive(&store, n) {
            Ok(_) => acknowledged.push(n),
            Err(WriteError::Disk(_)) => refused.push(n),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused.len() > 100);
    // A group of small writes and a large one: the small ones are not taken down with it.
    let release = hold_writer(&store);
    let large = store.orders.outbox_push(
        Lane::Events,
        "e",
        json(&format!("\"{}\"", "x".repeat(1 << 20))),
    );
    let small = store
        .orders
        .writer
        .submit(|tx| tx.conn.execute("UPDATE facts SET value = value", []));
    drop(release);
    assert!(matches!(large.wait(), Err(WriteError::Disk(_))));
    small.wait().unwrap();
    for n in &refused {
        assert!(store.orders.order(&format!("o{n}")).unwrap().is_none());
    }
    set_room(1 << 20);
    for n in refused {
        assert!(matches!(receive(&store, n).unwrap(), Received::New { .. }));
    }
    drop(store);
    let store = bench.open();
    assert!(store.recovered().is_empty());
    for n in acknowledged {
        assert!(store.orders.order(&format!("o{n}")).unwrap().is_some());
    }
}

#[test]
fn the_log_stays_bounded_under_a_load_with_readers_that_overlap() {
    let bench = Bench::new();
    let store = bench.open();
    let path = bench.dir.path().join("catalogue.db");
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (catalogue, stop) = (store.catalogue.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    catalogue.list("products", "", 200).unwrap();
                }
            })
        })
        .collect();
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(4000));
    let batch_bytes = 250 * 2 * 4096;
    let (mut written, mut largest) = (0, 0);
    let mut version = 0;
    while written < 6 * WAL_BOUND_BYTES {
        version += 1;
        let changes = (0..250)
            .map(|n| product(&format!("p{n}"), version, &body))
            .collect();
        store
            .catalogue
            .apply_page(changes, &version.to_string())
            .wait()
            .unwrap();
        written += batch_bytes;
        largest = largest.max(std::fs::metadata(wal_path(&path)).unwrap().len());
    }
    stop.store(true, Ordering::Relaxed);
    readers
        .into_iter()
        .for_each(|reader| reader.join().unwrap());
    let slack = 4 * batch_bytes;
    assert!(largest <= WAL_BOUND_BYTES + slack, "{largest}");
    // It did fill up: the bound was at work.
    assert!(largest > WAL_BOUND_BYTES / 2, "{largest}");
}

#[test]
fn space_is_given_back_after_a_backlog() {
    let bench = Bench::new();
    let store = bench.open();
    let body = json(&format!("\"{}\"", "x".repeat(8000)));
    let ids: Vec<_> = (0..2000)
        .map(|_| store.orders.outbox_push(Lane::Events, "e", body.clone()))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|reply| match reply.wait() {
            Err(WriteError::Busy) => store
                .orders
                .outbox_push(Lane::Events, "e", body.clone())
                .wait()
                .unwrap(),
            other => other.unwrap(),
        })
        .collect();
    drop(store);
    let path = bench.dir.path().join("orders.db");
    let size = || std::fs::metadata(&path).unwrap().len();
    let full = size();
    assert!(full > 16_000_000, "{full}");
    // Housekeeping is called for by the removal; its own period would be longer than the test.
    let store = bench.open();
    assert_eq!(store.orders.outbox_sent(ids).wait().unwrap(), 2000);
    let deadline = Instant::now() + DEADLINE;
    while store.orders.free_pages().unwrap() >= 1024 {
        assert!(Instant::now() < deadline, "no space was given back");
        std::thread::yield_now();
    }
    drop(store);
    assert!(size() < full / 2, "{} of {full}", size());
}

#[test]
fn telemetry_goes_at_its_bound_and_what_matters_only_after_a_month() {
    let bench = Bench::new();
    let store = bench.open();
    for n in 0..10 {
        for lane in Lane::ALL {
            let push = store.orders.outbox_push(lane, "e", json(&n.to_string()));
            push.wait().unwrap();
        }
    }
    let hold = |lane, bound| {
        let now_ms = bench.now_ms();
        let job = store
            .orders
            .writer
            .submit(move |tx| crate::store::orders::hold_bound(tx.conn, lane, bound, now_ms));
        job.wait().unwrap()
    };
    let bodies = |lane| -> Vec<String> {
        let due = store.orders.outbox_due(lane, i64::MAX, 100).unwrap();
        due.iter().map(|item| item.body.get().to_owned()).collect()
    };
    assert!(!hold(Lane::Telemetry, 10));
    assert!(hold(Lane::Telemetry, 4));
    assert!(!hold(Lane::Telemetry, 4));
    assert_eq!(bodies(Lane::Telemetry), ["6", "7", "8", "9"]);
    bench.days(30);
    for lane in [Lane::Orders, Lane::Receipts, Lane::Events] {
        assert!(!hold(lane, 1), "{lane:?}: a month is not over");
        assert_eq!(bodies(lane).len(), 10);
    }
    bench.days(1);
    assert!(hold(Lane::Orders, 9));
    assert_eq!(bodies(Lane::Orders)[0], "1");
    assert_eq!(bodies(Lane::Receipts).len(), 10);
    let counts = store.orders.outbox_counts().unwrap();
    assert_eq!((counts.dropped, counts.aged), (6, 1));
}

#[test]
fn an_order_alone_writes_few_pages_and_in_company_fewer() {
    let bench = Bench::new();
    let store = bench.open();
    let path = bench.dir.path().join("orders.db");
    let frames = || std::fs::metadata(wal_path(&path)).unwrap().len() / 4120;
    let submit = |n: usize| {
        let id = format!("o{}", crate::digest::Digest::of(&n.to_be_bytes()));
        store.orders.submit(crate::store::Submission {
            device_id: "dev-1".into(),
            idempotency_key: id.clone(),
            request_digest: crate::digest::Digest::of(id.as_bytes()),
            order: crate::store::OrderDocument::parse(order_json(&id[..40]).as_bytes(), "kitchen")
                .unwrap(),
        })
    };
    submit(0).wait().unwrap();
    let before = frames();
    for n in 1..=50 {
        submit(n).wait().unwrap();
    }
    let alone = frames() - before;
    let release = hold_writer(&store);
    let before = frames();
    let together: Vec<_> = (100..150).map(submit).collect();
    drop(release);
    for reply in together {
        reply.wait().unwrap();
    }
    let company = frames() - before;
    assert!(alone <= 50 * 11, "{alone} pages for 50 orders");
    assert!(company <= 50, "{company} pages for 50 orders in one commit");
}
