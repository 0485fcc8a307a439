//! Orders by the bus.

use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::{Clock, SystemClock};
use comptoir::identity::Secret;
use comptoir::store::orders::ParkCode;
use comptoir::telemetry::Code;
use comptoir::wan::credentials::{BusAccess, Granted};
use comptoir::wan::{Worker, sas};
use rusqlite::Connection;
use serde_json::json;

use super::platform::{KEY, KEY_NAME, Platform, SITE, SOONER_THAN_A_PAUSE, eventually, within};
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
    shop.counts("comptoir_bus_duplicates_total", 1);

    // Another message with the same order, and one whose completion is done but not answered.
    let order = shop.store().orders.order("order-1").unwrap().unwrap();
    platform.message("another-message", order.body.get().as_bytes());
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
    eventually("it is told", || shop.condition(Code::OrderParked));
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
    shop.is_over(Code::Unauthorized);
}

#[test]
fn a_poll_that_is_never_answered_is_given_up_and_the_next_one_brings_the_order() {
    let platform = Platform::start();
    platform.arm("stall", "bus", 2, Some("POST"), "/messages/head");
    let shop = Shop::of(&platform).impatient().start();
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
    platform.arm("throttle:3", "bus", 1, None, "/messages/head");
    platform.arm("status:410", "bus", 1, None, "/messages/head");
    platform.order("order-1");
    let shop = Shop::of(&platform).start();
    let outcome = eventually("the queue is missing", || {
        shop.outcome(Worker::Bus)
            .filter(|outcome| outcome.cause == Some("gone"))
    });
    assert_eq!(outcome.failures, 2);
    eventually("it is told", || shop.condition(Code::QueueMissing));
    assert_eq!(shop.condition(Code::BusUnreachable), None);
    let asked = platform.asked(&["/messages/head"]);
    assert_eq!(asked, 2, "{:?}", platform.requests());
}

/// An order's document.
fn document(order_id: &str, note: &str) -> String {
    json!({"order_id": order_id, "placed_at": "2026-01-01T00:00:00Z", "lines": [], "note": note})
        .to_string()
}

/// Waits until the box has exactly these orders.
fn has(shop: &Shop, order_ids: &[&str]) {
    eventually("the orders are there", || {
        (shop.order_ids() == order_ids).then_some(())
    });
}

/// Waits until the site's queue is empty.
fn is_empty(platform: &Platform) {
    eventually("the queue is empty", || {
        (platform.queued() == 0).then_some(())
    });
}

#[test]
fn what_can_not_be_taken_is_kept_told_and_shown_until_somebody_has_looked() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).start();
    platform.message("m1", document("order-1", "first").as_bytes());
    platform.message("m2", document("order-1", "second").as_bytes());
    platform.message("m3", br#"{"format_version":2,"order":{}}"#);
    platform.message("m4", document("order-2", "").as_bytes());
    has(&shop, &["order-1", "order-2"]);
    is_empty(&platform);
    let orders = &shop.store().orders;
    let kept = orders.order("order-1").unwrap().unwrap();
    assert!(kept.body.get().contains("first"));
    let parked = orders.inbox_parked(10).unwrap();
    assert!(
        parked
            .iter()
            .any(|message| message.body == document("order-1", "second").as_bytes())
    );
    for code in [Code::OrderConflict, Code::OrderVersionUnknown] {
        let detail = eventually("the condition is there", || shop.condition(code));
        assert!(!detail.contains("second"), "no content in {detail}");
    }
    let told = eventually("the platform hears of both", || {
        let events = platform.events();
        (events.len() == 2).then_some(events)
    });
    let whys: Vec<_> = told
        .iter()
        .map(|event| &event["event"]["body"]["why"])
        .collect();
    assert_eq!(whys, ["conflict", "unknown_version"]);
    // Somebody looked.
    for message in parked {
        assert!(orders.inbox_drop(&message.message_id).wait().unwrap());
    }
    for code in [Code::OrderConflict, Code::OrderVersionUnknown] {
        eventually("the condition ends", || {
            shop.condition(code).is_none().then_some(())
        });
    }
}

#[test]
fn a_message_too_large_to_be_held_stays_with_the_broker_and_the_next_goes_by() {
    let platform = Platform::start();
    let settings = json!({"lock_ms": 2000, "max_delivery_count": 3});
    platform.entity(&format!("queues/site-{SITE}"), &settings);
    platform.message("large", &vec![b'x'; 2 << 20]);
    platform.order("order-1");
    let shop = Shop::of(&platform).start();
    has(&shop, &["order-1"]);
    eventually("it is shown", || shop.condition(Code::OrderTooLarge));
    let events = eventually("the platform hears of it once", || {
        let events = platform.events();
        (!events.is_empty()).then_some(events)
    });
    assert_eq!(events[0]["kind"], "order.left");
    eventually("the broker puts it aside", || {
        (platform.state_of(&format!("site-{SITE}"))["dead"] == 1).then_some(())
    });
    platform.order("order-2");
    has(&shop, &["order-1", "order-2"]);
    assert_eq!(platform.events().len(), 1);
}

#[test]
fn orders_come_from_a_topics_subscription_too() {
    let platform = Platform::start();
    platform.entity("topics/orders", &json!({"duplicate_window_ms": 60_000}));
    for name in ["shop-1", "shop-2"] {
        platform.entity(&format!("topics/orders/subscriptions/{name}"), &json!({}));
    }
    let shop = Shop::of(&platform)
        .with(
            "[wan.bus]\n",
            "[wan.bus]\ntopic = \"orders\"\nsubscription = \"shop-1\"\n",
        )
        .start();
    platform.message_to("orders", "m1", document("order-1", "").as_bytes());
    platform.message_to("orders", "m1", document("order-1", "").as_bytes());
    has(&shop, &["order-1"]);
    let waiting = |name: &str| {
        let state = platform.state_of(&format!("orders/subscriptions/{name}"));
        state["messages"].as_array().unwrap().len()
    };
    eventually("it is completed", || (waiting("shop-1") == 0).then_some(()));
    assert_eq!(waiting("shop-2"), 1, "the other shop's copy, once");
}

#[test]
fn a_slow_disk_costs_renewals_and_no_redelivery() {
    let platform = Platform::start();
    platform.entity(&format!("queues/site-{SITE}"), &json!({"lock_ms": 2000}));
    let shop = Shop::of(&platform).start();
    has(&shop, &[]);
    // Another holder of the database's lock, as a slow disk would be.
    let path = shop.data_dir().join("orders.db");
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    platform.order("order-1");
    let renewals = || {
        platform
            .requests()
            .iter()
            .filter(|line| {
                line.contains("\"POST\"")
                    && line.contains("/messages/")
                    && !line.contains("/messages/head")
            })
            .count()
    };
    eventually("the lock is renewed", || (renewals() >= 3).then_some(()));
    other.execute_batch("COMMIT").unwrap();
    has(&shop, &["order-1"]);
    is_empty(&platform);
    assert_eq!(
        shop.metric("comptoir_bus_duplicates_total"),
        0,
        "it came once"
    );
}

#[test]
fn a_lock_that_is_lost_meanwhile_costs_a_redelivery_and_no_second_order() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).start();
    let path = shop.data_dir().join("orders.db");
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    platform.order("order-1");
    eventually("the box has it in hand", || {
        (platform.state_of(&format!("site-{SITE}"))["locked"] == 1).then_some(())
    });
    platform.drop_locks();
    other.execute_batch("COMMIT").unwrap();
    is_empty(&platform);
    has(&shop, &["order-1"]);
    shop.counts("comptoir_bus_duplicates_total", 1);
}

#[test]
fn a_claim_check_is_followed_verified_and_taken_as_the_order() {
    let platform = Platform::start();
    platform.arm("status:503", "blob", 1, Some("GET"), "order-1");
    let settings = json!({"lock_ms": 2000});
    platform.entity(&format!("queues/site-{SITE}"), &settings);
    let shop = Shop::of(&platform).start();
    let claim = |order_id: &str| {
        let blob = platform.put_blob(order_id, document(order_id, "é").as_bytes(), false);
        json!({"claim_check": {"url": blob["url"], "sha256": blob["sha256"], "size": blob["size"]}})
    };
    // Its host fails once: it comes again when its lock has ended.
    platform.message("c1", claim("order-1").to_string().as_bytes());
    has(&shop, &["order-1"]);
    is_empty(&platform);
    let order = shop.store().orders.order("order-1").unwrap().unwrap();
    assert_eq!(order.body.get(), document("order-1", "é"));

    // Those that no try will help.
    let mut other = claim("order-2");
    other["claim_check"]["sha256"] = json!("00".repeat(32));
    platform.message("c2", other.to_string().as_bytes());
    let mut elsewhere = claim("order-3");
    elsewhere["claim_check"]["url"] = json!("https://elsewhere.example/order-3");
    platform.message("c3", elsewhere.to_string().as_bytes());
    let mut gone = claim("order-4");
    let url = gone["claim_check"]["url"].as_str().unwrap().to_owned();
    gone["claim_check"]["url"] = json!(format!("{url}-gone"));
    platform.message("c4", gone.to_string().as_bytes());
    is_empty(&platform);
    let parked = shop.store().orders.inbox_parked(10).unwrap();
    assert_eq!(parked.len(), 3, "{parked:?}");
    assert!(
        parked
            .iter()
            .all(|message| message.why == ParkCode::NoDocument.as_str())
    );
    assert!(
        parked
            .iter()
            .any(|message| message.body == gone.to_string().as_bytes())
    );
    assert_eq!(platform.asked(&["elsewhere"]), 0);
    assert_eq!(shop.order_ids(), ["order-1"]);
}

#[test]
fn a_document_that_comes_slowly_keeps_its_lock() {
    let platform = Platform::start();
    platform.entity(&format!("queues/site-{SITE}"), &json!({"lock_ms": 2000}));
    let shop = Shop::of(&platform).start();
    let text = document("order-1", &"x".repeat(30_000));
    let blob = platform.put_blob("slow", text.as_bytes(), false);
    let claim = json!({"claim_check": {"url": blob["url"], "sha256": blob["sha256"], "size": blob["size"]}});
    platform.arm("slow:10000", "blob", 1, Some("GET"), "slow");
    platform.message("c1", claim.to_string().as_bytes());
    has(&shop, &["order-1"]);
    is_empty(&platform);
    assert_eq!(
        shop.metric("comptoir_bus_duplicates_total"),
        0,
        "it came once"
    );
}

#[test]
fn an_expired_signature_of_the_platform_is_named_and_a_new_one_ends_the_wait() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .with(&format!("key_name = \"{KEY_NAME}\"\nkey = \"{KEY}\"\n"), "")
        .start();
    let url = format!("{}/site-{SITE}", platform.text("bus_url"));
    let now_s = SystemClock::default().wall().as_second();
    let grant = |expires_at_s: i64| {
        let expiry = u64::try_from(expires_at_s).unwrap();
        let token = sas::sign(&url, KEY_NAME, &Secret::new(KEY), expiry);
        shop.credentials().grant(Some(Granted {
            site_id: SITE.into(),
            bus: Some(BusAccess::Sas {
                token,
                expires_at_s,
            }),
            ..Granted::default()
        }));
    };
    platform.order("order-1");
    grant(now_s - 60);
    eventually("the expiry is named", || {
        let outcome = shop.outcome(Worker::Bus)?;
        (outcome.cause == Some("sas_expired")).then_some(())
    });
    grant(now_s + 3600);
    within(SOONER_THAN_A_PAUSE, "the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
}

#[test]
fn a_parked_message_is_shown_and_taken_again_by_hand_beside_the_running_server() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).start();
    platform.message("m1", document("order-1", "first").as_bytes());
    platform.message("m2", document("order-1", "second").as_bytes());
    platform.message("m3", b"no order");
    has(&shop, &["order-1"]);
    is_empty(&platform);
    let site_file = shop.data_dir().join("desk.toml");
    let text = format!("[store]\ndata_dir = \"{}\"\n", shop.data_dir().display());
    std::fs::write(&site_file, text).unwrap();
    let comptoir = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_comptoir"))
            .arg("--site-file")
            .arg(&site_file)
            .arg("inbox")
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text)
    };
    let (_, list) = comptoir(&["list"]);
    assert!(
        list.contains("m2") && list.contains("conflict") && list.ends_with("2 set aside\n"),
        "{list}"
    );
    assert!(!list.contains("second"), "a list shows no content: {list}");
    assert_eq!(comptoir(&["show", "m3"]).1, "no order\n");
    // As it is, it makes no order now either, and it stays.
    assert!(!comptoir(&["retry", "m3"]).0);
    // The first one is forgotten after a month; then the other may be taken.
    let path = shop.data_dir().join("orders.db");
    let other = Connection::open(path).unwrap();
    other
        .execute_batch("DELETE FROM commands; DELETE FROM orders")
        .unwrap();
    drop(other);
    assert!(comptoir(&["retry", "m2"]).0);
    let order = shop.store().orders.order("order-1").unwrap().unwrap();
    assert!(order.body.get().contains("second"));
    assert!(comptoir(&["drop", "m3"]).0);
    eventually("the conditions end", || {
        let holds = [Code::OrderConflict, Code::OrderParked].map(|code| shop.condition(code));
        (holds == [None, None]).then_some(())
    });
}
