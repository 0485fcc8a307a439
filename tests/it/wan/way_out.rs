//! Trust, set-up and the end.

use std::time::Duration;

use comptoir::digest::Digest;
use comptoir::store::orders::Lane;
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use serde_json::json;
use serde_json::value::RawValue;

use super::platform::{Platform, TOKEN, eventually};
use super::shop::Shop;

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
        assert_eq!(outcome.cause, Some("tls_intercepted"), "{}", outcome.detail);
    }
    let detail = eventually("it is told", || shop.condition(Code::ApiUnreachable));
    assert!(detail.contains("tls_intercepted"), "{detail}");
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
        .with(TOKEN, "")
        .start();
    let detail = shop.condition(Code::CaFileRefused).unwrap();
    assert!(detail.contains("/nonexistent/ca.pem"), "{detail}");
    let detail = eventually("the missing token is told", || {
        shop.condition(Code::NotEnrolled)
    });
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
            "first_byte_s = 10\nstall_s = 5",
            "first_byte_s = 120\nstall_s = 120",
        )
        .start();
    shop.filled();
    eventually("the bus is asked", || {
        platform.faults_are_spent().then_some(())
    });
    let start = std::time::Instant::now();
    shop.stop();
    // Long before the first of both polls would have ended.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_outage_in_the_middle_of_everything_costs_time_and_nothing_else() {
    let platform = Platform::start();
    platform.load_products(20);
    let shop = Shop::of(&platform).start();
    shop.filled();
    let push = |kind: &str| {
        let body = RawValue::from_string("{}".to_owned()).unwrap();
        let push = shop.store().orders.outbox_push(Lane::Orders, kind, body);
        push.wait().unwrap();
    };
    platform.set_offline(true);
    push("test.offline-1");
    push("test.offline-2");
    eventually("the outage is told", || {
        shop.condition(Code::ApiUnreachable)
            .and(shop.condition(Code::BusUnreachable))
    });
    platform.order("order-1");
    platform.put_document("products", "new", &json!({"name": "New"}));
    platform.delete_document("products", "p3");
    let bytes = vec![9; 5000];
    platform.put_blob("late.png", &bytes, true);
    platform.set_offline(false);
    eventually("the order comes", || {
        (shop.order_ids() == ["order-1"]).then_some(())
    });
    eventually("the events go", || {
        (platform.events().len() == 2).then_some(())
    });
    eventually("the documents come", || shop.document("products", "new"));
    eventually("the blob comes", || {
        shop.store()
            .blobs
            .contains(&Digest::of(&bytes))
            .then_some(())
    });
    eventually("the deletion comes", || {
        shop.document("products", "p3").is_none().then_some(())
    });
    eventually("all conditions end", || {
        [
            Code::ApiUnreachable,
            Code::BusUnreachable,
            Code::MediaUnreachable,
        ]
        .iter()
        .all(|code| shop.condition(*code).is_none())
        .then_some(())
    });
    assert_eq!(platform.asked(&["/snapshot\""]), 1);
}
