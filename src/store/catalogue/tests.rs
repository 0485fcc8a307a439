//! What the catalogue promises, each promise a test.

use super::*;
use crate::store::testing::{Bench, deleted, product};

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
    let lost = catalogue.begin_snapshot().wait().unwrap();
    catalogue
        .apply_snapshot(&lost, vec![product("z", 1, "{}")])
        .wait()
        .unwrap();
    let run = catalogue.begin_snapshot().wait().unwrap();
    let held = vec![
        product("b", 1, "{}"),
        product("c", 2, "{}"),
        product("d", 1, "{}"),
    ];
    catalogue.apply_snapshot(&run, held).wait().unwrap();
    assert_eq!(catalogue.cursor().unwrap().as_deref(), Some("c1"));
    assert_eq!(
        catalogue.finish_snapshot(lost, "x").wait().unwrap(),
        SnapshotEnd::Superseded
    );
    assert_eq!(
        catalogue.finish_snapshot(run, "c9").wait().unwrap(),
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
