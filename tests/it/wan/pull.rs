//! Snapshot and feed.

use std::collections::BTreeSet;

use comptoir::store::catalogue::Faults;
use comptoir::store::{Catalogue, Changes};
use comptoir::telemetry::Code;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::shop::Shop;

#[test]
fn a_snapshot_fills_the_catalogue_and_the_feed_keeps_it() {
    let platform = Platform::start();
    platform.load_products(5000);
    let data = json!({"name": "Thé", "barcodes": ["4006381333931"], "new_field": [1, null]});
    platform.put_document("products", "tea", &data);
    let mut shop = Shop::of(&platform).start();
    shop.filled();
    assert_eq!(shop.documents("products"), 5001);
    let tea = shop.document("products", "tea").unwrap();
    let body: serde_json::Value = serde_json::from_slice(&tea.body).unwrap();
    assert_eq!(body, data, "unknown fields are kept");
    assert_eq!(
        shop.store()
            .catalogue
            .by_barcode("4006381333931")
            .unwrap()
            .len(),
        1
    );

    platform.put_document("products", "tea", &json!({"name": "Thé vert"}));
    platform.put_document(
        "notices",
        "n1",
        &json!({"text": "a collection nobody knew"}),
    );
    platform.delete_document("products", "p17");
    eventually("the feed brings a change", || {
        let tea = shop.document("products", "tea")?;
        String::from_utf8(tea.body)
            .unwrap()
            .contains("vert")
            .then_some(())
    });
    eventually("the feed brings a deletion", || {
        shop.document("products", "p17").is_none().then_some(())
    });
    eventually("the feed brings a new collection", || {
        shop.document("notices", "n1")
    });
    assert_eq!(shop.condition(Code::FeedItemRefused), None);

    // After a restart the cursor goes on: no second snapshot.
    shop.stop();
    platform.put_document("products", "tea", &json!({"name": "Thé noir"}));
    shop.start_again();
    eventually("the feed goes on after a restart", || {
        let tea = shop.document("products", "tea")?;
        String::from_utf8(tea.body)
            .unwrap()
            .contains("noir")
            .then_some(())
    });
    assert_eq!(platform.asked(&["/snapshot\""]), 1);
}

/// What the oracle asks of a box that was filled: the platform's documents byte for byte, each once in the shop's feed.
pub(super) fn holds_what_the_platform_holds(
    catalogue: &Catalogue,
    platform: &Platform,
    collections: &[&str],
) {
    let mut live = 0;
    for collection in collections {
        let (mut ours, mut after) = (Vec::new(), String::new());
        loop {
            let page = catalogue.list(collection, &after, 1000).unwrap();
            let Some(last) = page.last() else { break };
            after.clone_from(&last.id);
            ours.extend(page.iter().map(|stored| {
                let body = std::str::from_utf8(&stored.body).unwrap();
                let (id, version) = (json!(stored.id), stored.version);
                format!("{{\"collection\":\"{collection}\",\"id\":{id},\"version\":{version},\"data\":{body}}}")
            }));
        }
        let theirs = platform.documents(collection);
        live += theirs.len();
        assert_eq!(ours.len(), theirs.len(), "{collection}");
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!(our, their);
        }
    }
    let (mut told, mut cursor) = (BTreeSet::new(), None);
    loop {
        let Changes::Page(page) = catalogue.changes(cursor.as_ref(), 1000).unwrap() else {
            panic!("the feed begins anew under its reader");
        };
        for change in page.items {
            assert!(told.insert((change.collection, change.id)), "told twice");
        }
        cursor = Some(page.next);
        if page.caught_up {
            break;
        }
    }
    assert_eq!(told.len(), live);
}

#[test]
fn a_snapshot_goes_on_at_the_byte_after_every_kind_of_cut() {
    let platform = Platform::start();
    platform.generate("products", 3000, 600);
    platform.generate("stock", 500, 80);
    let cuts = [
        "truncate_after_bytes:0",
        "truncate_after_bytes:3",
        "truncate_after_bytes:20000",
        "stall_after_bytes:150000",
        "truncate_after_bytes:200001",
        "refuse",
        "status:503",
        "status:503",
        "truncate_after_bytes:65536",
        "truncate_after_bytes:100000",
        "lose_answer",
        "stall",
        "truncate_after_bytes:99999",
    ];
    for cut in cuts {
        platform.arm(cut, "api", 1, None, "/snapshot/");
    }
    let shop = Shop::of(&platform).impatient().start();
    shop.filled();
    assert!(platform.faults_are_spent());
    holds_what_the_platform_holds(&shop.store().catalogue, &platform, &["products", "stock"]);
    assert_eq!(
        shop.condition(Code::FeedItemRefused),
        None,
        "a cut line is no refused item"
    );
    assert!(shop.metric("comptoir_pull_resumed_total") >= 3);
    assert_eq!(
        platform.asked(&["/snapshot\""]),
        1,
        "one snapshot, however often it was cut"
    );
    // Every number of the shop's feed was given once: nothing was written twice on the way.
    let feed_end = shop.store().catalogue.feed_end().unwrap().to_string();
    assert!(feed_end.ends_with("-3500"), "{feed_end}");
}

#[test]
fn a_snapshot_goes_on_after_a_restart_of_the_box_and_anew_when_the_platform_dropped_it() {
    let platform = Platform::start();
    platform.generate("products", 6000, 600);
    platform.arm("slow:150000", "api", 1, None, "/descriptions");
    let mut shop = Shop::of(&platform);
    shop.start_again();
    let place = eventually("a first batch is kept and served", || {
        let run = shop.store().catalogue.running_snapshot().unwrap()?;
        (run.place.offset > 0).then_some(run.place)
    });
    assert!(shop.documents("products") > 0);
    assert_eq!(shop.store().catalogue.cursor().unwrap(), None);
    shop.stop();
    platform.arm("slow:150000", "api", 1, None, "/descriptions");
    shop.start_again();
    eventually("it goes on", || {
        let run = shop.store().catalogue.running_snapshot().unwrap()?;
        (run.place.offset > place.offset).then_some(())
    });
    // Once after the restart; a line that breaks on a slow machine is one more. Never from the beginning.
    assert!(shop.metric("comptoir_pull_resumed_total") >= 1);
    assert_eq!(platform.asked(&["/snapshot\""]), 1);
    shop.stop();
    assert_eq!(platform.asked(&["/descriptions\"", "\"status\":200"]), 1);

    platform.put_document("products", "late", &json!({"name": "made meanwhile"}));
    platform.drop_snapshots();
    shop.start_again();
    shop.filled();
    assert_eq!(shop.metric("comptoir_pull_snapshots_changed_total"), 1);
    assert_eq!(platform.asked(&["/snapshot\""]), 2);
    holds_what_the_platform_holds(&shop.store().catalogue, &platform, &["products"]);
}

#[test]
fn prices_come_before_descriptions_and_overtake_them() {
    let platform = Platform::start();
    platform.generate("history", 200, 300);
    platform.generate("products", 3000, 600);
    platform.generate("prices", 300, 100);
    platform.arm("slow:60000", "api", 1, None, "/descriptions");
    let mut shop = Shop::of(&platform).start();
    eventually("descriptions are on their way", || {
        let run = shop.store().catalogue.running_snapshot().unwrap()?;
        (run.place.part == 1 && shop.documents("products") > 0).then_some(())
    });
    assert_eq!(shop.documents("prices"), 300);
    assert_eq!(shop.documents("history"), 0);
    shop.filled();
    holds_what_the_platform_holds(
        &shop.store().catalogue,
        &platform,
        &["products", "prices", "history"],
    );

    // After an absence, with more to catch up than one page holds.
    shop.stop();
    platform.generate_from("products", 3000, 2500, 300);
    platform.put_document("prices", "g7", &json!({"amount": "0.99"}));
    shop.start_again();
    eventually("the price has overtaken", || {
        (shop.metric("comptoir_pull_overtaking_total") == 1).then_some(())
    });
    eventually("the rest follows", || {
        (shop.documents("products") == 5500).then_some(())
    });
    holds_what_the_platform_holds(
        &shop.store().catalogue,
        &platform,
        &["products", "prices", "history"],
    );
}

#[test]
fn what_the_feed_never_told_is_found_by_checksum_and_repaired_in_silence() {
    let platform = Platform::start();
    platform.load_products(2000);
    platform.put_document("notices", "n1", &json!({"text": "x"}));
    let mut shop = Shop::of(&platform)
        .with("[wan.pull]\n", "[wan.pull]\nverify_s = 1\n")
        .start();
    shop.filled();
    eventually("both sides were compared", || {
        (shop.metric("comptoir_pull_checksums_total") > 0).then_some(())
    });
    assert_eq!(shop.metric("comptoir_pull_buckets_repaired_total"), 0);
    platform.put_in_silence("products", "p7", &json!({"name": "changed in silence"}));
    platform.put_in_silence("products", "new", &json!({"name": "made in silence"}));
    platform.delete_in_silence("products", "p8");
    platform.put_in_silence(
        "other",
        "o1",
        &json!({"text": "a collection made in silence"}),
    );
    platform.delete_in_silence("notices", "n1");
    eventually("what differs is repaired", || {
        (shop.metric("comptoir_pull_buckets_repaired_total") == 5).then_some(())
    });
    eventually("nothing differs any more", || {
        let before = shop.metric("comptoir_pull_checksums_total");
        eventually("one more comparison", || {
            (shop.metric("comptoir_pull_checksums_total") > before).then_some(())
        });
        (shop.metric("comptoir_pull_buckets_repaired_total") == 5).then_some(())
    });
    holds_what_the_platform_holds(
        &shop.store().catalogue,
        &platform,
        &["products", "other", "notices"],
    );
    assert!(shop.document("products", "p8").is_none());
    shop.is_over(Code::CatalogueDiffers);
    // Buckets, not the collection: five of them were asked for, and no second snapshot.
    assert_eq!(platform.asked(&["/buckets/"]), 5);
    assert_eq!(platform.asked(&["/snapshot\""]), 1);

    // A document that the box can't keep can't be repaired either: that is told, until it is gone. What stood there stays.
    let long = "x".repeat(1 << 20);
    platform.put_document("products", "p9", &json!({"text": long}));
    let told = eventually("it is told", || shop.condition(Code::CatalogueDiffers));
    assert_eq!(told, "products");
    eventually("it is told", || shop.condition(Code::FeedItemRefused));
    assert_eq!(shop.store().catalogue.aside_count().unwrap(), 1);
    assert!(shop.document("products", "p9").is_some());
    // A restart does not make it unseen, even if the platform can't be asked.
    eventually("it is noted", || {
        shop.store().catalogue.faults().unwrap().differs
    });
    shop.stop();
    platform.set_offline(true);
    shop.start_again();
    assert_eq!(
        shop.condition(Code::CatalogueDiffers).as_deref(),
        Some("products")
    );
    assert!(shop.condition(Code::FeedItemRefused).is_some());
    platform.set_offline(false);
    platform.delete_document("products", "p9");
    eventually("it is over", || {
        shop.condition(Code::CatalogueDiffers)
            .is_none()
            .then_some(())
    });
    // Both sides hold the same: what was refused on the way is not missing.
    eventually("nothing is wrong any more", || {
        let noted = shop.store().catalogue.faults().unwrap();
        let told = shop.condition(Code::FeedItemRefused);
        (noted == Faults::default() && told.is_none()).then_some(())
    });
}

#[test]
fn nobody_sees_a_half_empty_catalogue_while_it_is_fetched_anew() {
    let platform = Platform::start();
    platform.generate("products", 3000, 600);
    let mut shop = Shop::of(&platform).start();
    shop.filled();
    let before = shop.store().catalogue.feed_end().unwrap();
    shop.stop();
    platform.delete_document("products", "g11");
    platform.put_document("products", "late", &json!({"name": "Late"}));
    platform.forget_changes();
    platform.arm("slow:150000", "api", 1, None, "/descriptions");
    platform.arm(
        "truncate_after_bytes:120000",
        "api",
        1,
        None,
        "/descriptions",
    );
    shop.start_again();
    eventually("all is fetched anew", || {
        assert!(
            shop.documents("products") >= 3000,
            "never fewer than before"
        );
        (shop.metric("comptoir_pull_snapshots_total") == 1).then_some(())
    });
    holds_what_the_platform_holds(&shop.store().catalogue, &platform, &["products"]);
    let Changes::Page(page) = shop.store().catalogue.changes(Some(&before), 10).unwrap() else {
        panic!("devices need not begin anew");
    };
    let told: Vec<_> = page
        .items
        .iter()
        .map(|change| (&*change.id, change.body.is_some()))
        .collect();
    assert_eq!(told, [("late", true), ("g11", false)]);
}

#[test]
fn a_forgotten_cursor_leads_to_a_new_snapshot_that_sweeps() {
    let platform = Platform::start();
    platform.load_products(50);
    let mut shop = Shop::of(&platform).start();
    shop.filled();
    shop.stop();
    platform.delete_document("products", "p7");
    platform.put_document("products", "late", &json!({"name": "Late"}));
    platform.forget_changes();
    shop.start_again();
    eventually("the new snapshot brings what was missed", || {
        shop.document("products", "late")
    });
    eventually("what is gone is swept", || {
        shop.document("products", "p7").is_none().then_some(())
    });
    assert_eq!(shop.documents("products"), 50);
    assert_eq!(platform.asked(&["/snapshot\""]), 2);
}

#[test]
fn faults_of_the_platform_become_a_condition_that_ends_with_them() {
    let platform = Platform::start();
    platform.load_products(10);
    // Until somebody has seen it.
    platform.arm("status:503", "api", 100_000, None, "/snapshot");
    let shop = Shop::of(&platform).start();
    let detail = eventually("the outage is told", || {
        shop.condition(Code::ApiUnreachable)
    });
    assert!(detail.contains("throttled"), "{detail}");
    platform.call("DELETE", "faults", &[], b"");
    shop.filled();
    eventually("the outage ends", || {
        shop.condition(Code::ApiUnreachable).is_none().then_some(())
    });
}
