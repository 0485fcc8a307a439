//! What the catalogue promises, each promise a test.

use super::*;
use crate::store::testing::{Bench, deleted, product};

mod truth;

/// A plan of one part, that leads to `cursor`.
fn plan(cursor: &str) -> SnapshotPlan {
    SnapshotPlan {
        snapshot: "s1".to_owned(),
        cursor: cursor.to_owned(),
        parts: vec![SnapshotPart {
            part: "all".to_owned(),
            class: "descriptions".to_owned(),
            documents: 3,
        }],
    }
}

fn take(catalogue: &Catalogue, run: &SnapshotRun, changes: Vec<DocumentChange>) -> Applied {
    let place = SnapshotPlace::default();
    catalogue
        .apply_snapshot(run, changes, place)
        .wait()
        .unwrap()
}

fn page(changes: Changes) -> ChangesPage {
    match changes {
        Changes::Page(page) => page,
        Changes::Refetch => panic!("refetch"),
    }
}

#[test]
fn documents_are_found_by_id_and_by_barcode_and_follow_their_changes() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let body = r#"{"name":"Thé","barcodes":["111","222"],"x":1.10}"#;
    catalogue
        .apply_page(vec![product("p1", 1, body)], "c1")
        .wait()
        .unwrap();
    let stored = catalogue.document("products", "p1").unwrap().unwrap();
    assert_eq!(stored.body, body.as_bytes());
    assert_eq!(
        catalogue.by_barcode("222").unwrap(),
        std::slice::from_ref(&stored)
    );
    let changed = product("p1", 2, r#"{"barcodes":["222","333"]}"#);
    catalogue.apply_page(vec![changed], "c2").wait().unwrap();
    assert!(catalogue.by_barcode("111").unwrap().is_empty());
    assert_eq!(catalogue.by_barcode("333").unwrap().len(), 1);
    assert_ne!(
        catalogue.document("products", "p1").unwrap().unwrap().etag,
        stored.etag
    );
    catalogue
        .apply_page(vec![deleted("p1", 3)], "c3")
        .wait()
        .unwrap();
    assert!(catalogue.document("products", "p1").unwrap().is_none());
    assert!(catalogue.by_barcode("333").unwrap().is_empty());
    assert_eq!(catalogue.collections().unwrap()[0].documents, 0);
    assert_eq!(catalogue.cursor().unwrap().as_deref(), Some("c3"));
}

#[test]
fn what_is_unchanged_or_older_takes_no_new_number() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let apply = |changes, cursor| catalogue.apply_page(changes, cursor).wait().unwrap();
    apply(vec![product("p1", 5, "{}"), product("p2", 5, "{}")], "c1");
    let again = apply(
        vec![
            product("p1", 5, "{}"),
            product("p1", 4, "[]"),
            deleted("p2", 4),
        ],
        "c2",
    );
    assert_eq!(
        (again.seq, again.unchanged, again.changed, again.deleted),
        (2, 3, 0, 0)
    );
    assert_eq!(
        catalogue.document("products", "p1").unwrap().unwrap().body,
        b"{}"
    );
}

#[test]
fn a_snapshot_sweeps_what_it_did_not_hold() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let old = vec![
        product("a", 1, r#"{"barcodes":["1"]}"#),
        product("b", 1, "{}"),
        product("c", 1, "{}"),
    ];
    catalogue.apply_page(old, "c1").wait().unwrap();
    let lost = catalogue.begin_snapshot(plan("x")).wait().unwrap();
    take(&catalogue, &lost, vec![product("z", 1, "{}")]);
    let run = catalogue.begin_snapshot(plan("c9")).wait().unwrap();
    let held = vec![
        product("b", 1, "{}"),
        product("c", 2, "{}"),
        product("d", 1, "{}"),
    ];
    take(&catalogue, &run, held);
    assert_eq!(catalogue.cursor().unwrap().as_deref(), Some("c1"));
    assert_eq!(
        catalogue.finish_snapshot(lost).wait().unwrap(),
        SnapshotEnd::Superseded
    );
    assert_eq!(
        catalogue.finish_snapshot(run).wait().unwrap(),
        SnapshotEnd::Finished { swept: 2 }
    );
    let ids: Vec<_> = catalogue
        .list("products", "", 10)
        .unwrap()
        .into_iter()
        .map(|d| d.id)
        .collect();
    assert_eq!(ids, ["b", "c", "d"]);
    assert!(catalogue.by_barcode("1").unwrap().is_empty());
    assert_eq!(catalogue.cursor().unwrap().as_deref(), Some("c9"));
    assert_eq!(catalogue.collections().unwrap()[0].documents, 3);
}

#[test]
fn a_reader_of_the_feed_sees_every_change_and_every_deletion() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let changes = (0..10)
        .map(|n| product(&format!("p{n}"), 1, "{}"))
        .collect();
    catalogue.apply_page(changes, "c1").wait().unwrap();
    let first = page(catalogue.changes(None, 4).unwrap());
    assert_eq!((first.items.len(), first.caught_up), (4, false));
    catalogue
        .apply_page(vec![deleted("p0", 2)], "c2")
        .wait()
        .unwrap();
    let cursor: FeedCursor = first.next.to_string().parse().unwrap();
    let rest = page(catalogue.changes(Some(&cursor), 100).unwrap());
    assert!(rest.caught_up);
    assert_eq!(rest.items.len(), 7);
    assert!(rest.items[6].body.is_none());
    let none = page(catalogue.changes(Some(&rest.next), 100).unwrap());
    assert!(none.items.is_empty() && none.caught_up);
    assert_eq!(none.next, catalogue.feed_end().unwrap());
    let foreign: FeedCursor = "0123456789ab-3".parse().unwrap();
    assert!(matches!(
        catalogue.changes(Some(&foreign), 1).unwrap(),
        Changes::Refetch
    ));
}

fn forget(catalogue: &Catalogue, before_ms: i64, bound: i64) {
    let slice =
        move |tx: &mut crate::store::writer::Tx<'_>| feed::forget(tx.conn, before_ms, bound);
    while catalogue.writer.submit(slice).wait().unwrap() {}
}

#[test]
fn a_reader_from_before_the_horizon_refetches_and_nobody_else_does() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let changes = (0..10)
        .map(|n| product(&format!("p{n}"), 1, "{}"))
        .collect();
    catalogue.apply_page(changes, "c1").wait().unwrap();
    let away = page(catalogue.changes(None, 100).unwrap()).next;
    bench.days(1);
    catalogue
        .apply_page(vec![deleted("p3", 2), deleted("p4", 2)], "c2")
        .wait()
        .unwrap();
    // One that began with nothing after the deletions, and is still on its way.
    let beginner = page(catalogue.changes(None, 2).unwrap());
    // Before time passes: housekeeping may forget as soon as it has.
    let horizon = page(catalogue.changes(None, 1).unwrap()).horizon;
    bench.days(31);
    catalogue
        .apply_page(vec![deleted("p5", 2)], "c3")
        .wait()
        .unwrap();
    forget(
        &catalogue,
        bench.now_ms() - TOMBSTONES_KEPT_MS,
        TOMBSTONE_BOUND,
    );
    assert!(matches!(
        catalogue.changes(Some(&away), 100).unwrap(),
        Changes::Refetch
    ));
    let rest = page(catalogue.changes(Some(&beginner.next), 100).unwrap());
    assert!(rest.caught_up);
    assert!(rest.horizon > horizon);
    let live = rest
        .items
        .iter()
        .filter(|change| change.body.is_some())
        .count();
    assert_eq!(
        (beginner.items.len() + live, rest.items.len() - live),
        (7, 1)
    );
    let caught_up = page(catalogue.changes(Some(&rest.next), 100).unwrap());
    assert!(caught_up.items.is_empty());
    // At the bound too, whatever their age.
    forget(&catalogue, 0, 0);
    assert!(matches!(
        catalogue.changes(Some(&beginner.next), 100).unwrap(),
        Changes::Refetch
    ));
    assert_eq!(page(catalogue.changes(None, 100).unwrap()).items.len(), 7);
}

#[test]
fn numbers_are_not_given_twice_after_deletions_were_forgotten() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c1")
        .wait()
        .unwrap();
    let first = catalogue.document("products", "p1").unwrap().unwrap().etag;
    catalogue
        .apply_page(vec![deleted("p1", 2)], "c2")
        .wait()
        .unwrap();
    forget(&catalogue, i64::MAX, 0);
    let again = catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c3")
        .wait()
        .unwrap();
    assert_eq!(again.seq, 3);
    assert_ne!(
        catalogue.document("products", "p1").unwrap().unwrap().etag,
        first
    );
}

#[test]
fn text_that_is_no_cursor_is_refused() {
    for text in [
        "",
        "-",
        "abc",
        "abc-",
        "abc-x",
        "abc--1",
        "abc-1-",
        "é-1",
        "abc-99999999999999999999",
    ] {
        assert_eq!(text.parse::<FeedCursor>(), Err(ParseCursorError), "{text}");
    }
    let cursor: FeedCursor = "abc-5-9".parse().unwrap();
    assert_eq!(cursor.to_string(), "abc-5-9");
}

#[test]
fn a_pull_without_news_writes_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    let catalogue = &store.catalogue;
    catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c1")
        .wait()
        .unwrap();
    let wal_path = bench.dir.path().join("catalogue.db-wal");
    let before = std::fs::read(&wal_path).unwrap();
    let mut events = store.events.subscribe();
    catalogue.apply_page(vec![], "c1").wait().unwrap();
    catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c1")
        .wait()
        .unwrap();
    assert!(std::fs::read(&wal_path).unwrap() == before);
    assert!(events.try_recv().is_err());
}

#[test]
fn a_page_is_cut_where_it_gets_large_and_goes_on_after() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let body = format!("\"{}\"", "x".repeat(PAGE_BYTES_BOUND / 2));
    let changes = (0..5)
        .map(|n| product(&format!("p{n}"), 1, &body))
        .collect();
    catalogue.apply_page(changes, "c1").wait().unwrap();
    let first = page(catalogue.changes(None, 100).unwrap());
    assert_eq!((first.items.len(), first.caught_up), (2, false));
    let second = page(catalogue.changes(Some(&first.next), 100).unwrap());
    assert_eq!((second.items.len(), second.items[0].id.as_str()), (2, "p2"));
    assert_eq!(catalogue.list("products", "", 100).unwrap().len(), 2);
    assert_eq!(catalogue.list("products", "p1", 100).unwrap()[0].id, "p2");
}

#[test]
fn messy_barcodes_harm_no_document() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let long = "9".repeat(200);
    let messy = [
        r#"{"barcodes":null}"#.to_owned(),
        r#"{"barcodes":"123"}"#.to_owned(),
        r#"{"barcodes":[1,2]}"#.to_owned(),
        r#"{"barcodes":["7","7","","8 9"]}"#.to_owned(),
        format!(r#"{{"barcodes":["{long}"]}}"#),
        r#"[1]"#.to_owned(),
        r#""text""#.to_owned(),
    ];
    let changes: Vec<_> = messy
        .iter()
        .enumerate()
        .map(|(n, body)| product(&format!("p{n}"), 1, body))
        .collect();
    let applied = catalogue.apply_page(changes, "c1").wait().unwrap();
    assert_eq!(applied.changed, messy.len());
    assert_eq!(catalogue.by_barcode("7").unwrap().len(), 1);
    assert_eq!(catalogue.by_barcode("8 9").unwrap().len(), 1);
    assert!(catalogue.by_barcode("").unwrap().is_empty());
    assert!(catalogue.by_barcode(&long).unwrap().is_empty());
    catalogue
        .apply_page(vec![deleted("p3", 2)], "c2")
        .wait()
        .unwrap();
    assert!(catalogue.by_barcode("7").unwrap().is_empty());
}

#[test]
fn media_documents_ring_for_blobs_and_others_do_not() {
    let bench = Bench::new();
    let store = bench.open();
    let bell = store.events.bell(crate::store::Topic::Blobs);
    store
        .catalogue
        .apply_page(vec![product("p1", 1, "{}")], "c1")
        .wait()
        .unwrap();
    assert!(!bell.wait(std::time::Duration::ZERO));
    let mut media = product("m1", 1, "{}");
    media.collection = MEDIA_COLLECTION.to_owned();
    store
        .catalogue
        .apply_page(vec![media], "c2")
        .wait()
        .unwrap();
    assert!(bell.wait(std::time::Duration::ZERO));
}

#[test]
fn a_snapshot_is_served_before_it_ends_and_goes_on_after_a_restart() {
    let bench = Bench::new();
    let store = bench.open();
    let run = store.catalogue.begin_snapshot(plan("c1")).wait().unwrap();
    let place = SnapshotPlace {
        etag: Some("\"t\"".to_owned()),
        offset: 77,
        lines: 1,
        documents: 1,
        ..SnapshotPlace::default()
    };
    store
        .catalogue
        .apply_snapshot(&run, vec![product("a", 1, "{}")], place.clone())
        .wait()
        .unwrap();
    assert!(store.catalogue.document("products", "a").unwrap().is_some());
    drop(store);
    let store = bench.open();
    assert_eq!(store.catalogue.cursor().unwrap(), None);
    let run = store.catalogue.running_snapshot().unwrap().unwrap();
    assert_eq!((&run.place, run.documents()), (&place, 3));
    let seq = store.catalogue.feed_end().unwrap();
    take(&store.catalogue, &run, vec![product("a", 1, "{}")]);
    assert_eq!(
        store.catalogue.finish_snapshot(run).wait().unwrap(),
        SnapshotEnd::Finished { swept: 0 }
    );
    assert_eq!(store.catalogue.feed_end().unwrap(), seq);
    assert_eq!(store.catalogue.running_snapshot().unwrap(), None);
    assert_eq!(store.catalogue.cursor().unwrap().as_deref(), Some("c1"));
}
