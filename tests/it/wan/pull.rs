//! Snapshot and feed.

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
    assert_eq!(platform.asked(&["/snapshot"]), 1);
}

#[test]
fn a_snapshot_that_breaks_off_is_never_taken_for_whole() {
    let platform = Platform::start();
    platform.load_products(6000);
    // The body is compressed: cut in its first part, then near its end.
    platform.arm("truncate_after_bytes:20000", "api", 1, None, "/snapshot");
    platform.arm("truncate_after_bytes:60000", "api", 1, None, "/snapshot");
    let mut shop = Shop::of(&platform).start();
    eventually("both cuts have hit", || {
        platform.faults_are_spent().then_some(())
    });
    shop.filled();
    assert_eq!(shop.documents("products"), 6000);
    assert_eq!(
        shop.condition(Code::FeedItemRefused),
        None,
        "a cut line is no refused item"
    );

    // A box that is stopped in the middle of one begins again at the next start.
    shop.stop();
    let mut other = Shop::of(&platform);
    platform.arm("slow:20000", "api", 1, None, "/snapshot");
    other.start_again();
    eventually("the first batch is served before the end", || {
        (other.documents("products") > 0).then_some(())
    });
    assert_eq!(other.store().catalogue.cursor().unwrap(), None);
    other.stop();
    other.start_again();
    other.filled();
    assert_eq!(other.documents("products"), 6000);
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
    assert_eq!(platform.asked(&["/snapshot"]), 2);
}

#[test]
fn faults_of_the_platform_become_a_condition_that_ends_with_them() {
    let platform = Platform::start();
    platform.load_products(10);
    platform.arm("status:503", "api", 3, None, "/snapshot");
    let shop = Shop::of(&platform).start();
    let detail = eventually("the outage is told", || {
        shop.condition(Code::ApiUnreachable)
    });
    assert!(detail.contains("throttled"), "{detail}");
    shop.filled();
    eventually("the outage ends", || {
        shop.condition(Code::ApiUnreachable).is_none().then_some(())
    });
}
