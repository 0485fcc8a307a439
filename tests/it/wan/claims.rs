//! Orders whose document could not be had when they came.

use std::process::Command;

use comptoir::store::orders::{ParkCode, Source};
use comptoir::telemetry::Code;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::shop::Shop;

fn document(order_id: &str) -> String {
    json!({"order_id": order_id, "placed_at": "2026-01-01T00:00:00Z", "lines": []}).to_string()
}

/// A claim check for a document that does not stand there yet, under this name.
fn claim(platform: &Platform, name: &str, order_id: &str) -> String {
    let blob = platform.put_blob("elsewhere", document(order_id).as_bytes(), false);
    let url = blob["url"].as_str().unwrap().replace("elsewhere", name);
    json!({"claim_check": {"url": url, "sha256": blob["sha256"], "size": blob["size"]}}).to_string()
}

fn put(platform: &Platform, name: &str, order_id: &str) {
    platform.put_blob(name, document(order_id).as_bytes(), false);
}

/// Asks again after a second at most.
fn impatient(platform: &Platform) -> Shop {
    let settings = "[wan]\nclaim_retry_first_s = 1\nclaim_retry_max_s = 1\n";
    Shop::of(platform).with("[wan]\n", settings)
}

/// Asks again after half an hour at least.
fn patient(platform: &Platform) -> Shop {
    Shop::of(platform).with("[wan]\n", "[wan]\nclaim_retry_first_s = 3600\n")
}

fn has(shop: &Shop, order_ids: &[&str]) {
    eventually("the orders are there", || {
        (shop.order_ids() == order_ids).then_some(())
    });
}

/// Tries for the document so far.
fn tries(platform: &Platform, name: &str) -> usize {
    platform.asked(&["\"GET\"", name])
}

#[test]
fn a_document_that_comes_late_makes_the_order_and_ends_the_condition() {
    let platform = Platform::start();
    let shop = impatient(&platform).start();
    let message = claim(&platform, "late", "order-1");
    platform.message("c1", message.as_bytes());
    let detail = eventually("it is told", || shop.condition(Code::OrderDocumentMissing));
    assert!(detail.contains("404"), "{detail}");
    eventually("it is asked for again and again", || {
        (tries(&platform, "late") >= 3).then_some(())
    });
    assert_eq!(shop.store().orders.parked_messages().unwrap(), 1);
    put(&platform, "late", "order-1");
    has(&shop, &["order-1"]);
    eventually("the condition ends", || {
        shop.condition(Code::OrderDocumentMissing)
            .is_none()
            .then_some(())
    });
    let order = shop.store().orders.order("order-1").unwrap().unwrap();
    assert_eq!(order.source, Source::Bus);
    assert_eq!(order.body.get(), document("order-1"));
    assert_eq!(shop.metric("comptoir_claims_orders_total"), 1);
    // A redelivery is known, and its document is not fetched again.
    let asked = tries(&platform, "late");
    platform.message("c1", message.as_bytes());
    eventually("it is known", || {
        (shop.metric("comptoir_bus_duplicates_total") == 1).then_some(())
    });
    assert_eq!(tries(&platform, "late"), asked);
    assert_eq!(shop.order_ids(), ["order-1"]);
}

#[test]
fn what_both_ways_bring_meanwhile_stays_one_order() {
    let platform = Platform::start();
    let shop = impatient(&platform)
        .with(
            "[wan.bus]\n",
            "[wan.orders_feed]\nperiod_s = 1\n[wan.bus]\n",
        )
        .start();
    let message = claim(&platform, "late", "order-1");
    platform.message("c1", message.as_bytes());
    eventually("it is told", || shop.condition(Code::OrderDocumentMissing));
    // The same message by the other way: known, parked as it is.
    platform.feed_item("c1", &message);
    eventually("it is known", || {
        (shop.metric("comptoir_orders_feed_duplicates_total") == 1).then_some(())
    });
    assert_eq!(shop.store().orders.parked_messages().unwrap(), 1);
    // The order itself by the other way, then by the first.
    platform.feed_item("m2", &document("order-1"));
    has(&shop, &["order-1"]);
    platform.message("m3", document("order-1").as_bytes());
    put(&platform, "late", "order-1");
    eventually("the claim check is the same order", || {
        (shop.metric("comptoir_claims_duplicates_total") == 1).then_some(())
    });
    eventually("nothing is set aside any more", || {
        let nothing = shop.store().orders.parked_messages().unwrap() == 0;
        (nothing && shop.condition(Code::OrderDocumentMissing).is_none()).then_some(())
    });
    eventually("the queue is empty", || {
        (platform.queued() == 0).then_some(())
    });
    assert_eq!(shop.order_ids(), ["order-1"]);
    let source = shop
        .store()
        .orders
        .order("order-1")
        .unwrap()
        .unwrap()
        .source;
    assert_eq!(source, Source::Api);
}

#[test]
fn a_person_has_it_fetched_at_once_and_a_restart_does_not() {
    let platform = Platform::start();
    let mut shop = patient(&platform).start();
    let message = claim(&platform, "late", "order-1");
    platform.message("c1", message.as_bytes());
    let put_off = |shop: &Shop| {
        eventually("it is put off", || {
            let now_ms = shop.time().now_ms();
            let parked = shop.store().orders.parked_messages().unwrap() == 1;
            let due = shop.store().orders.claim_due(now_ms, 3_600_000).unwrap();
            (parked && due.is_none()).then_some(())
        });
    };
    put_off(&shop);
    let asked = tries(&platform, "late");
    assert_eq!(asked, 2, "when it came, and once at once");
    shop.stop();
    put(&platform, "late", "order-1");
    shop.start_again();
    eventually("the condition is back", || {
        shop.condition(Code::OrderDocumentMissing)
    });
    assert_eq!(tries(&platform, "late"), asked);

    let site_file = shop.path("desk.toml");
    let text = format!("[store]\ndata_dir = \"{}\"\n", shop.data_dir().display());
    std::fs::write(&site_file, text).unwrap();
    let retry = |id: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_comptoir"))
            .arg("--site-file")
            .arg(&site_file)
            .args(["inbox", "retry", id])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = retry("c1");
    assert!(
        said.contains("fetched again by the running server"),
        "{said}"
    );
    has(&shop, &["order-1"]);
    assert_eq!(retry("c1"), "c1: not set aside\n");
}

#[test]
fn a_document_that_turns_out_another_fault_is_parked_for_that() {
    let platform = Platform::start();
    let shop = impatient(&platform).start();
    platform.message("m1", document("order-1").as_bytes());
    has(&shop, &["order-1"]);
    let other = document("order-1").replace("2026-01-01", "2026-01-02");
    let blob = platform.put_blob("elsewhere", other.as_bytes(), false);
    let url = blob["url"].as_str().unwrap().replace("elsewhere", "late");
    let message =
        json!({"claim_check": {"url": url, "sha256": blob["sha256"], "size": blob["size"]}});
    platform.message("c1", message.to_string().as_bytes());
    eventually("it is told", || shop.condition(Code::OrderDocumentMissing));
    platform.put_blob("late", other.as_bytes(), false);
    eventually("it is told", || shop.condition(Code::OrderConflict));
    eventually("the first fault is none any more", || {
        shop.condition(Code::OrderDocumentMissing)
            .is_none()
            .then_some(())
    });
    let parked = shop.store().orders.inbox_parked(10).unwrap();
    assert_eq!(parked[0].why, ParkCode::Conflict.as_str());
    assert_eq!(parked[0].document.as_deref(), Some(other.as_bytes()));
    assert_eq!(shop.order_ids(), ["order-1"]);
}
