//! The WAN side against the real platform emulator, over TLS with its own authority.

mod platform;
mod proxy;
mod shop;

use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::{Clock, SystemClock};
use comptoir::digest::Digest;
use comptoir::store::orders::Lane;
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::json;
use serde_json::value::RawValue;

use platform::{Platform, eventually};
use shop::Shop;

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
        br#"{"order_id":"order-1","placed_at":"2026-01-01T00:00:00Z"}"#,
    );
    platform.arm("lose_answer", "bus", 1, Some("DELETE"), "/messages/");
    platform.order("order-2");
    eventually("both are done", || (platform.queued() == 0).then_some(()));
    eventually("the second order is stored", || {
        (shop.order_ids() == ["order-1", "order-2"]).then_some(())
    });
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
    let shop = Shop::of(&platform).with(platform::KEY, "d3Jvbmc=").start();
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
    let years_ms = 20 * 365 * 24 * 3_600_000_i64;
    let offset_ms = shop.offset_ms().unwrap();
    assert!((offset_ms - years_ms).abs() < 5000, "{offset_ms}");
    assert_eq!(shop.condition(Code::Unauthorized), None);
}

#[test]
fn an_event_is_pushed_once_although_its_answer_is_lost() {
    let platform = Platform::start();
    platform.arm("lose_answer", "api", 2, Some("POST"), "/events");
    platform.arm("status:503", "api", 1, Some("POST"), "/events");
    let shop = Shop::of(&platform).start();
    for (n, lane) in Lane::ALL.into_iter().enumerate() {
        let body = RawValue::from_string(format!(r#"{{"n":{n},"price":1.10}}"#)).unwrap();
        let kind = format!("test.{n}");
        shop.store()
            .orders
            .outbox_push(lane, &kind, body)
            .wait()
            .unwrap();
    }
    eventually("the outbox is empty", || {
        let counts = shop.store().orders.outbox_counts().unwrap();
        let waiting: i64 = counts
            .lanes
            .iter()
            .map(|lane| lane.waiting + lane.parked)
            .sum();
        (waiting == 0).then_some(())
    });
    assert!(platform.faults_are_spent());
    let events = platform.events();
    assert_eq!(events.len(), 3, "{events:?}");
    for n in 0..3 {
        let kind = format!("\"test.{n}\"");
        let found: Vec<_> = events
            .iter()
            .filter(|event| event.to_string().contains(&kind))
            .collect();
        assert_eq!(found.len(), 1, "{events:?}");
    }
}

#[test]
fn a_poison_event_is_parked_and_the_others_go_on() {
    let platform = Platform::start();
    platform.arm("status:422", "api", 1, Some("POST"), "/events");
    let shop = Shop::of(&platform).start();
    for n in 0..4 {
        let body = RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap();
        let push = shop
            .store()
            .orders
            .outbox_push(Lane::Orders, "test.poison", body);
        push.wait().unwrap();
    }
    eventually("the others are delivered", || {
        (platform.events().len() == 3).then_some(())
    });
    let detail = eventually("the parked one is told", || {
        shop.condition(Code::OutboxParked)
    });
    assert_eq!(detail, "1 items");
    let parked = shop.store().orders.outbox_parked(10).unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].error.as_deref(), Some("refused"));
    // Put back by hand, it goes out and the condition ends.
    shop.store()
        .orders
        .outbox_unpark(parked[0].id)
        .wait()
        .unwrap();
    eventually("the fourth is delivered", || {
        (platform.events().len() == 4).then_some(())
    });
    eventually("the condition ends", || {
        shop.condition(Code::OutboxParked).is_none().then_some(())
    });
}

#[test]
fn a_lane_whose_credentials_are_refused_pauses_and_loses_nothing() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .with(platform::TOKEN, "another-token")
        .start();
    let body = RawValue::from_string("{}".to_owned()).unwrap();
    shop.store()
        .orders
        .outbox_push(Lane::Orders, "test.kept", body)
        .wait()
        .unwrap();
    eventually("the refusal is told", || {
        let detail = shop.condition(Code::Unauthorized)?;
        detail.contains("push: unauthorized").then_some(())
    });
    let counts = shop.store().orders.outbox_counts().unwrap();
    assert_eq!((counts.lanes[0].waiting, counts.lanes[0].parked), (1, 0));
    assert!(platform.events().is_empty());
}

fn media_bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

#[test]
fn a_blob_is_published_only_when_it_is_what_was_announced() {
    let platform = Platform::start();
    let (good, other) = (media_bytes(1, 70_000), media_bytes(2, 70_000));
    let forged = Digest::of(b"what was announced");
    let data = platform.put_blob("other.bin", &other, false);
    // Right size, right place, wrong bytes.
    let document = json!({"url": data["url"], "sha256": forged.to_string(), "size": other.len()});
    platform.put_document("media", &forged.to_string(), &document);
    // A place that is not the media host: the API's, with its token in reach.
    let elsewhere = Digest::of(b"elsewhere");
    let url = format!("{}/v1/steal", platform.text("api_url"));
    let document = json!({"url": url, "sha256": elsewhere.to_string(), "size": 1});
    platform.put_document("media", &elsewhere.to_string(), &document);
    platform.put_blob("good%20name.png", &good, true);
    let shop = Shop::of(&platform).start();
    let blobs = &shop.store().blobs;
    eventually("the good one is published", || {
        blobs.contains(&Digest::of(&good)).then_some(())
    });
    eventually("the forged one is refused", || {
        (shop.metric("comptoir_media_refused_total") == 1).then_some(())
    });
    assert!(!blobs.contains(&forged));
    assert!(!blobs.contains(&Digest::of(&other)));
    assert_eq!(platform.asked(&["/v1/steal"]), 0);
    let blob = blobs.open(&Digest::of(&good)).unwrap().unwrap();
    assert_eq!(blob.len, 70_000);
    assert_eq!(
        blobs.total_bytes(),
        70_000,
        "nothing is left of the refused one"
    );
}

#[test]
fn a_broken_transfer_goes_on_at_the_byte_where_it_broke() {
    let platform = Platform::start();
    let bytes = media_bytes(3, 500_000);
    platform.arm("truncate_after_bytes:200000", "blob", 2, None, "/images/");
    let shop = Shop::of(&platform).start();
    shop.filled();
    platform.put_blob("large.bin", &bytes, true);
    eventually("the blob is published", || {
        shop.store()
            .blobs
            .contains(&Digest::of(&bytes))
            .then_some(())
    });
    assert!(platform.faults_are_spent());
    assert_eq!(
        platform.asked(&["/images/large.bin", "206"]),
        2,
        "{:?}",
        platform.requests()
    );
}

#[test]
fn a_blob_that_changed_under_way_is_fetched_from_the_start() {
    let platform = Platform::start();
    let (old, new) = (media_bytes(4, 400_000), media_bytes(5, 400_000));
    platform.arm("truncate_after_bytes:100000", "blob", 1, None, "/images/");
    platform.arm("status:503", "blob", 1, None, "/images/");
    let data = platform.put_blob("changing.bin", &old, false);
    let digest = Digest::of(&new);
    let document = json!({"url": data["url"], "sha256": digest.to_string(), "size": new.len()});
    platform.put_document("media", &digest.to_string(), &document);
    let shop = Shop::of(&platform).start();
    // The box has the first bytes of the old one and waits out the 503; then the new one stands there.
    eventually("the transfer broke", || {
        platform.faults_are_spent().then_some(())
    });
    platform.put_blob("changing.bin", &new, false);
    eventually("the new one is published", || {
        shop.store().blobs.contains(&digest).then_some(())
    });
    assert!(
        platform.asked(&["/images/changing.bin", "412"]) >= 1,
        "{:?}",
        platform.requests()
    );
}

#[test]
fn an_unknown_authority_is_refused_by_name_on_every_flow() {
    let platform = Platform::start();
    platform.load_products(5);
    platform.order("order-1");
    let ca_files = format!("ca_files = [\"{}\"]", platform.ca_file().display());
    let shop = Shop::of(&platform).with(&ca_files, "ca_files = []").start();
    for worker in [Worker::Pull, Worker::Bus] {
        let outcome = eventually("the refusal is known", || {
            shop.outcome(worker)
                .filter(|outcome| outcome.cause.is_some())
        });
        assert_eq!(
            outcome.cause,
            Some("tls_unknown_issuer"),
            "{}",
            outcome.detail
        );
    }
    let detail = eventually("it is told", || shop.condition(Code::ApiUnreachable));
    assert!(detail.contains("tls_unknown_issuer"), "{detail}");
    assert!(
        platform.requests().is_empty(),
        "nothing was said to a host nobody vouches for"
    );
}

#[test]
fn a_broken_ca_file_is_told_and_a_box_without_site_waits() {
    let platform = Platform::start();
    let ca_file = platform.ca_file().display().to_string();
    let shop = Shop::of(&platform)
        .with(&ca_file, "/nonexistent/ca.pem")
        .with(platform::TOKEN, "")
        .start();
    let detail = shop.condition(Code::CaFileRefused).unwrap();
    assert!(detail.contains("/nonexistent/ca.pem"), "{detail}");
    let detail = shop.condition(Code::NotEnrolled).unwrap();
    assert_eq!(detail, "wan.token is empty");
    assert!(platform.requests().is_empty());
}

#[test]
fn a_shutdown_does_not_wait_for_a_long_poll() {
    let platform = Platform::start();
    platform.arm("stall", "bus", 1, None, "/messages/head");
    let mut shop = Shop::of(&platform)
        .with("[wan.pull]\nwait_s = 5", "[wan.pull]\nwait_s = 60")
        .with(
            "first_byte_s = 2\nstall_s = 2",
            "first_byte_s = 120\nstall_s = 300",
        )
        .start();
    shop.filled();
    eventually("the bus is asked", || {
        platform.faults_are_spent().then_some(())
    });
    let start = std::time::Instant::now();
    shop.stop();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}
