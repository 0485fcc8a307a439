//! Orders over the API, alone and beside the bus.

use comptoir::store::orders::Source;
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::json;

use super::platform::{Platform, eventually};
use super::shop::Shop;

/// A shop whose network lets no bus through.
fn without_bus(platform: &Platform) -> Shop {
    Shop::of(platform).with("[wan.bus]\n", "[wan.bus]\nenabled = false\n")
}

fn has(shop: &Shop, count: usize) {
    eventually("the orders are there", || {
        (shop.order_ids().len() == count).then_some(())
    });
}

#[test]
fn the_feed_alone_suffices_and_goes_on_where_it_was() {
    let platform = Platform::start();
    for n in 0..40 {
        platform.order_via(&format!("order-{n}"), "feed");
    }
    let mut shop = without_bus(&platform).start();
    has(&shop, 40);
    let order = shop.store().orders.order("order-7").unwrap().unwrap();
    assert_eq!(order.source, Source::Api);
    shop.stop();
    platform.order_via("order-40", "feed");
    shop.start_again();
    has(&shop, 41);
    assert_eq!(
        shop.metric("comptoir_orders_feed_duplicates_total"),
        0,
        "nothing is taken again"
    );
    // Long poll: the next one comes while the question is held.
    platform.order_via("order-41", "feed");
    has(&shop, 42);
    assert_eq!(shop.condition(Code::BusUnreachable), None);
}

#[test]
fn a_void_cursor_begins_anew_and_makes_no_second_order() {
    let platform = Platform::start();
    platform.order_via("order-1", "feed");
    let mut shop = without_bus(&platform).start();
    has(&shop, 1);
    shop.stop();
    platform.void_order_cursors();
    platform.order_via("order-2", "feed");
    shop.start_again();
    has(&shop, 2);
    shop.counts("comptoir_orders_feed_duplicates_total", 1);
}

#[test]
fn both_ways_together_make_one_order() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .with(
            "[wan.bus]\n",
            "[wan.orders_feed]\nperiod_s = 1\n[wan.bus]\n",
        )
        .start();
    for n in 0..10 {
        platform.order_via(&format!("order-{n}"), "both");
    }
    has(&shop, 10);
    eventually("both ways brought them all", || {
        let repeated = shop.metric("comptoir_bus_duplicates_total")
            + shop.metric("comptoir_orders_feed_duplicates_total");
        (repeated == 10 && platform.queued() == 0).then_some(())
    });
    assert_eq!(shop.order_ids().len(), 10);
    assert!(shop.store().orders.inbox_parked(1).unwrap().is_empty());
    // Beside a bus that works nobody waits at the feed.
    assert!(
        shop.outcome(Worker::OrdersFeed)
            .is_some_and(|outcome| outcome.cause.is_none())
    );
}

#[test]
fn when_the_bus_fails_the_feed_stands_in_at_once() {
    let platform = Platform::start();
    // An hour between two looks, unless the bus fails.
    let shop = Shop::of(&platform)
        .with(
            "[wan.bus]\n",
            "[wan.orders_feed]\nperiod_s = 3600\n[wan.bus]\n",
        )
        .start();
    platform.order("order-1");
    has(&shop, 1);
    eventually("the feed rests", || shop.outcome(Worker::OrdersFeed));
    platform.arm("status:503", "bus", 1000, None, "/messages/head");
    eventually("the bus fails", || {
        shop.outcome(Worker::Bus)?.cause.map(drop)
    });
    platform.order_via("order-2", "both");
    has(&shop, 2);
}

#[test]
fn an_item_that_is_no_order_holds_up_nothing() {
    let platform = Platform::start();
    let shop = without_bus(&platform).start();
    platform.feed_item("m1", "\"no order\"");
    platform.feed_item("m2", "{\"format_version\":3}");
    let text = json!({"order_id": "order-1", "placed_at": "2026-01-01T00:00:00Z", "lines": []});
    let blob = platform.put_blob("order-1", text.to_string().as_bytes(), false);
    let claim = json!({"claim_check": {"url": blob["url"], "sha256": blob["sha256"], "size": blob["size"]}});
    // Its document is out of reach for a while: what is before it is taken, it is not lost.
    platform.arm("status:503", "blob", 2, Some("GET"), "order-1");
    platform.feed_item("m3", &claim.to_string());
    platform.order_via("order-2", "feed");
    has(&shop, 2);
    assert_eq!(shop.store().orders.inbox_parked(10).unwrap().len(), 2);
    eventually("it is told", || shop.condition(Code::OrderParked));
    eventually("it is told", || shop.condition(Code::OrderVersionUnknown));
    assert!(platform.faults_are_spent());
}

#[test]
fn a_platform_without_such_a_feed_is_left_alone() {
    let platform = Platform::start();
    platform.arm("status:404", "api", 5, None, "/orders/feed");
    let shop = Shop::of(&platform).start();
    platform.order("order-1");
    has(&shop, 1);
    eventually("it is asked", || shop.outcome(Worker::OrdersFeed));
    assert_eq!(platform.asked(&["/orders/feed"]), 1);
    assert_eq!(shop.condition(Code::ApiUnreachable), None);
}
