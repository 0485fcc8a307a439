//! Orders by the bus.

use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::{Clock, SystemClock};
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::json;

use super::platform::{KEY, Platform, eventually};
use super::shop::Shop;

#[test]
fn an_order_is_stored_before_it_is_completed_and_a_redelivery_is_no_second_order() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).start();
    // The completion never arrives, so the broker brings the message again.
    platform.arm("refuse", "bus", 1, Some("DELETE"), "/messages/");
    platform.order("order-1");
    eventually("the order is stored", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    eventually("the completion is lost", || {
        platform.faults_are_spent().then_some(())
    });
    assert_eq!(
        platform.queued(),
        1,
        "not completed: it is still the broker's"
    );
    platform.drop_locks();
    eventually("the repeat is completed", || {
        (platform.queued() == 0).then_some(())
    });
    assert_eq!(shop.order_ids(), ["order-1"]);
    assert_eq!(shop.metric("comptoir_bus_duplicates_total"), 1);

    // Another message with the same order, and one whose completion is done but not answered.
    platform.message(
        "another-message",
        br#"{"order_id":"order-1","placed_at":"2026-01-01T00:00:00Z","lines":[]}"#,
    );
    platform.arm("lose_answer", "bus", 1, Some("DELETE"), "/messages/");
    platform.order("order-2");
    eventually("both are done", || (platform.queued() == 0).then_some(()));
    eventually("the second order is stored", || {
        (shop.order_ids() == ["order-1", "order-2"]).then_some(())
    });
    assert!(shop.metric("comptoir_bus_duplicates_total") >= 2);
    assert!(shop.store().orders.inbox_parked(10).unwrap().is_empty());
}

#[test]
fn a_message_that_is_no_order_is_kept_and_told_and_holds_up_nothing() {
    let platform = Platform::start();
    let mut shop = Shop::of(&platform).start();
    let poison = b"<xml>\xff not an order</xml>";
    platform.message("poison", poison);
    platform.message("poison", poison);
    platform.order("order-1");
    eventually("the next order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    eventually("the queue is empty", || {
        (platform.queued() == 0).then_some(())
    });
    let parked = shop.store().orders.inbox_parked(10).unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].body, poison, "kept byte for byte");
    assert!(shop.condition(Code::OrderParked).is_some());
    // The condition is not forgotten by a restart.
    shop.stop();
    shop.start_again();
    eventually("the condition is back", || {
        shop.condition(Code::OrderParked)
    });
}

#[test]
fn a_wrong_bus_key_pauses_the_bus_and_nothing_else() {
    let platform = Platform::start();
    platform.load_products(10);
    platform.order("order-1");
    let shop = Shop::of(&platform).with(KEY, "d3Jvbmc=").start();
    let detail = eventually("the refusal is told", || shop.condition(Code::Unauthorized));
    assert!(detail.contains("bus: unauthorized"), "{detail}");
    assert!(!detail.contains("d3Jvbmc"), "no secret in {detail}");
    shop.filled();
    platform.put_document("products", "late", &json!({"name": "Late"}));
    eventually("the feed goes on", || shop.document("products", "late"));
    assert_eq!(
        platform.asked(&["/messages/head"]),
        1,
        "the bus is not hammered"
    );
    assert_eq!(shop.condition(Code::BusUnreachable), None);
    assert!(shop.order_ids().is_empty());
}

/// A box whose battery-less clock stands twenty years back.
struct LateClock(SystemClock);

impl Clock for LateClock {
    fn wall(&self) -> jiff::Timestamp {
        self.0.wall() - jiff::SignedDuration::from_hours(20 * 365 * 24)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[test]
fn a_clock_of_years_ago_costs_one_refused_signature() {
    let platform = Platform::start();
    platform.order("order-1");
    let shop = Shop::of(&platform)
        .with("[wan.pull]\n", "[wan.pull]\nenabled = false\n")
        .with_clock(Arc::new(LateClock(SystemClock::default())))
        .start();
    eventually("the order comes all the same", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    let right_ms = SystemClock::default().wall_ms();
    assert!((shop.time().now_ms() - right_ms).abs() < 5000);
    assert_eq!(shop.condition(Code::Unauthorized), None);
}

#[test]
fn a_poll_that_is_never_answered_is_given_up_and_the_next_one_brings_the_order() {
    let platform = Platform::start();
    platform.arm("stall", "bus", 2, Some("POST"), "/messages/head");
    let shop = Shop::of(&platform).start();
    eventually("a poll hangs", || {
        shop.outcome(Worker::Bus)
            .filter(|outcome| outcome.cause == Some("timeout_first_byte"))
    });
    platform.order("order-1");
    eventually("the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
}

#[test]
fn an_overloaded_bus_is_left_alone_and_a_missing_queue_is_no_reason_to_hurry() {
    let platform = Platform::start();
    platform.arm("status:429", "bus", 1, None, "/messages/head");
    platform.arm("status:410", "bus", 1, None, "/messages/head");
    platform.order("order-1");
    let shop = Shop::of(&platform).start();
    let outcome = eventually("the queue is missing", || {
        shop.outcome(Worker::Bus)
            .filter(|outcome| outcome.cause == Some("gone"))
    });
    assert_eq!(outcome.failures, 2);
    let asked = platform.asked(&["/messages/head"]);
    assert_eq!(asked, 2, "{:?}", platform.requests());
}
