//! Whose word counts, what it adds up to, and what changes by itself.

use super::*;

#[test]
fn a_snapshot_replaces_what_a_restored_platform_counts_lower() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let page = vec![product("a", 9, "{}"), deleted("b", 9)];
    catalogue.apply_page(page, "c1").wait().unwrap();
    let run = catalogue.begin_snapshot(plan("c2")).wait().unwrap();
    let held = vec![product("a", 2, "[]"), product("b", 1, "{}")];
    assert_eq!(take(&catalogue, &run, held).changed, 2);
    catalogue.finish_snapshot(run).wait().unwrap();
    let a = catalogue.document("products", "a").unwrap().unwrap();
    assert_eq!((a.version, &*a.body), (2, &b"[]"[..]));
    // In the feed a lower version is old news, as before.
    let old = catalogue.apply_ahead(vec![product("a", 1, "{}")]).wait();
    assert_eq!(old.unwrap().unchanged, 1);
}

#[test]
fn a_sweep_of_very_many_goes_in_several_transactions_and_only_the_last_sets_the_cursor() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let page = (0..2500)
        .map(|n| product(&format!("p{n}"), 1, "{}"))
        .collect();
    catalogue.apply_page(page, "c1").wait().unwrap();
    let run = catalogue.begin_snapshot(plan("c2")).wait().unwrap();
    take(&catalogue, &run, vec![product("p7", 1, "{}")]);
    let end = |run: &SnapshotRun| catalogue.finish_sweeping(run.clone(), 2000).wait().unwrap();
    assert_eq!(end(&run), SnapshotEnd::More { swept: 2000 });
    assert_eq!(catalogue.cursor().unwrap().as_deref(), Some("c1"));
    assert!(catalogue.running_snapshot().unwrap().is_some());
    assert_eq!(end(&run), SnapshotEnd::Finished { swept: 499 });
    assert_eq!(catalogue.cursor().unwrap().as_deref(), Some("c2"));
    assert_eq!(catalogue.collections().unwrap()[0].documents, 1);
}

#[test]
fn a_price_that_is_switched_meanwhile_does_not_save_a_document_from_the_sweep() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let body = r#"{"prices":[{"amount":"2"},{"amount":"1","valid_from":"2026-05-02T10:00:00Z","valid_until":"2026-05-03T10:00:00Z"}]}"#;
    let old = ["gone", "same", "newer"].map(|id| product(id, 1, body));
    catalogue.apply_page(old.into(), "c1").wait().unwrap();
    let run = catalogue.begin_snapshot(plan("c2")).wait().unwrap();
    let day = 24 * 3600 * 1000;
    // Twice, so that the second switch finds what the first one noted.
    for (days, ids) in [(1, ["same"].as_slice()), (2, &["newer"])] {
        let now_ms = bench.now_ms() + days * day;
        assert_eq!(catalogue.switch_prices(now_ms).wait().unwrap(), 3);
        let held = ids.iter().map(|id| match *id {
            "newer" => product(id, 2, "{}"),
            _ => product(id, 1, body),
        });
        take(&catalogue, &run, held.collect());
    }
    assert_eq!(
        catalogue.finish_snapshot(run).wait().unwrap(),
        SnapshotEnd::Finished { swept: 1 }
    );
    let there = |id| catalogue.document("products", id).unwrap().is_some();
    assert!(!there("gone") && there("same") && there("newer"));
}

#[test]
fn checksums_follow_every_way_a_document_can_go() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    let apply = |changes, cursor| catalogue.apply_page(changes, cursor).wait().unwrap();
    apply(
        vec![
            product("a", 1, "{}"),
            product("b", 1, "{}"),
            product("c", 1, "{}"),
        ],
        "c1",
    );
    apply(
        vec![
            product("a", 2, "{}"),
            deleted("b", 2),
            product("a", 1, "{}"),
            deleted("never", 1),
        ],
        "c2",
    );
    apply(vec![product("b", 3, "{}"), product("a", 3, "[]")], "c3");
    // Swept: c. New: d.
    let run = catalogue.begin_snapshot(plan("c4")).wait().unwrap();
    let held = vec![
        product("a", 3, "[]"),
        product("b", 3, "{}"),
        product("d", 7, "{}"),
    ];
    take(&catalogue, &run, held);
    catalogue.finish_snapshot(run).wait().unwrap();
    catalogue
        .apply_repair(vec![product("d", 6, "{}")])
        .wait()
        .unwrap();
    let expected = [("a", 3), ("b", 3), ("d", 6)];
    let sum = expected
        .iter()
        .map(|(id, version)| checksum::number(id, *version))
        .fold(0_u64, u64::wrapping_add);
    let (cursor, sums) = catalogue.checksums().unwrap();
    assert_eq!(cursor.as_deref(), Some("c4"));
    assert_eq!(sums["products"], checksum::Sum { count: 3, sum });
    let (_, buckets) = catalogue.bucket_sums("products").unwrap();
    assert_eq!(buckets.values().map(|sum| sum.count).sum::<i64>(), 3);
    for (id, version) in expected {
        let found = catalogue
            .bucket_documents("products", checksum::bucket(id))
            .unwrap();
        assert!(found.contains(&(id.to_owned(), version)), "{found:?}");
    }
}

#[test]
fn a_price_is_switched_at_its_dates_and_back_when_the_clock_is() {
    let bench = Bench::new();
    let store = bench.open();
    let catalogue = &store.catalogue;
    let minute = 60_000;
    let (start, day) = (bench.now_ms(), 24 * 60 * minute);
    let body = r#"{"prices":[{"amount":"2"},{"amount":"1","valid_from":"2026-05-02T10:00:00Z","valid_until":"2026-05-03T10:00:00Z"}]}"#;
    let page = vec![
        product("a", 1, body),
        product("b", 1, r#"{"prices":[{"amount":"5"}]}"#),
    ];
    catalogue.apply_page(page, "c1").wait().unwrap();
    let price = || {
        let stored = catalogue.document("products", "a").unwrap().unwrap();
        let price = String::from_utf8(stored.price.clone().unwrap()).unwrap();
        (price.contains("\"1\""), stored.etag)
    };
    let (offer, before) = price();
    assert!(!offer);
    assert_eq!(catalogue.next_switch_ms().unwrap(), Some(start + day));
    assert_eq!(catalogue.switch_prices(start + day - 1).wait().unwrap(), 0);
    assert_eq!(price(), (false, before.clone()));
    let feed_end = catalogue.feed_end().unwrap();
    let mut events = store.events.subscribe();

    assert_eq!(catalogue.switch_prices(start + day).wait().unwrap(), 1);
    let (offer, during) = price();
    assert!(offer && during != before);
    assert!(events.try_recv().is_ok(), "devices are told");
    let Changes::Page(told) = catalogue.changes(Some(&feed_end), 10).unwrap() else {
        panic!("refetch");
    };
    assert_eq!((told.items.len(), told.items[0].id.as_str()), (1, "a"));
    assert!(told.items[0].price.is_some());
    assert_eq!(catalogue.next_switch_ms().unwrap(), Some(start + 2 * day));

    assert_eq!(catalogue.switch_prices(start + 2 * day).wait().unwrap(), 1);
    assert!(!price().0);
    assert_eq!(catalogue.next_switch_ms().unwrap(), None);
    // The clock was two days ahead, and is set right.
    assert!(catalogue.was_set_back(start + day + minute).unwrap());
    assert_eq!(
        catalogue
            .switch_prices(start + day + minute)
            .wait()
            .unwrap(),
        1
    );
    assert!(price().0);
    assert!(!catalogue.was_set_back(start + day + minute).unwrap());
    // A document that is deleted has no dates any more.
    catalogue
        .apply_page(vec![deleted("a", 2)], "c2")
        .wait()
        .unwrap();
    assert_eq!(catalogue.next_switch_ms().unwrap(), None);
}

#[test]
fn what_is_set_aside_is_bounded_and_the_newest_stay() {
    let bench = Bench::new();
    let catalogue = bench.open().catalogue;
    for n in 0..ASIDE_BOUND + 5 {
        let text = vec![b'x'; ASIDE_HEAD + 10];
        catalogue
            .set_aside(format!("item {n}"), &text)
            .wait()
            .unwrap();
    }
    let aside = catalogue.aside().unwrap();
    assert_eq!(aside.len(), usize::try_from(ASIDE_BOUND).unwrap());
    assert_eq!(i64::from(catalogue.aside_count().unwrap()), ASIDE_BOUND);
    assert_eq!(aside[0].reason, format!("item {}", ASIDE_BOUND + 4));
    assert_eq!((aside[0].head.len(), aside[0].bytes), (ASIDE_HEAD, 2058));
    drop(catalogue);
    // Their number is known until a whole look finds nothing; what is kept for support stays.
    let catalogue = bench.open().catalogue;
    let (all, last) = (ASIDE_BOUND.unsigned_abs() + 5, aside[0].reason.clone());
    assert_eq!(catalogue.faults().unwrap().refused, Some((all, last)));
    catalogue.nothing_refused().wait().unwrap();
    assert_eq!(catalogue.faults().unwrap(), Faults::default());
    assert_eq!(i64::from(catalogue.aside_count().unwrap()), ASIDE_BOUND);
}
