//! The outbox.

use comptoir::digest::Digest;
use comptoir::identity::Secret;
use comptoir::store::orders::{Lane, OrderDocument, OrderState, Submission};
use comptoir::telemetry::Code;
use comptoir::wan::Worker;
use comptoir::wan::credentials::Granted;
use serde_json::value::RawValue;

use super::platform::{Platform, SITE, SOONER_THAN_A_PAUSE, TOKEN, eventually, within};
use super::shop::Shop;

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
    assert_eq!(events.len(), 4, "{events:?}");
    for n in 0..4 {
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
    platform.refuse_events("test.poison", 422, 1);
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
fn a_platform_that_only_refuses_an_item_is_reached() {
    let platform = Platform::start();
    platform.refuse_events("test.poison", 422, 1);
    platform.set_offline(true);
    let shop = Shop::of(&platform).start();
    let body = RawValue::from_string("{}".to_owned()).unwrap();
    let orders = &shop.store().orders;
    let push = orders.outbox_push(Lane::Orders, "test.poison", body);
    push.wait().unwrap();
    let cause = || shop.outcome(Worker::Push)?.cause;
    eventually("push fails", cause);
    platform.set_offline(false);
    eventually("the item is set aside", || {
        shop.condition(Code::OutboxParked)
    });
    eventually("push is well", || cause().is_none().then_some(()));
}

#[test]
fn a_lane_whose_credentials_are_refused_pauses_and_loses_nothing() {
    let platform = Platform::start();
    let shop = Shop::of(&platform).with(TOKEN, "another-token").start();
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

#[test]
fn a_stumbling_platform_delays_a_lane_and_every_event_arrives() {
    let platform = Platform::start();
    platform.arm("status:500", "api", 5, Some("POST"), "/events");
    let shop = Shop::of(&platform).start();
    for n in 0..4 {
        let body = RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap();
        let push = shop
            .store()
            .orders
            .outbox_push(Lane::Receipts, "test.later", body);
        push.wait().unwrap();
    }
    eventually("all are delivered", || {
        (platform.events().len() == 4).then_some(())
    });
    eventually("the outbox is empty", || {
        let counts = shop.store().orders.outbox_counts().unwrap();
        counts
            .lanes
            .iter()
            .all(|lane| lane.waiting + lane.parked == 0)
            .then_some(())
    });
    assert!(platform.faults_are_spent());
}

/// An order of a device of the shop, and its way to "ready": two events.
fn order_and_advance(shop: &Shop, order_id: &str) {
    let body =
        format!(r#"{{"order_id":"{order_id}","placed_at":"2026-01-01T00:00:00Z","lines":[]}}"#);
    let orders = &shop.store().orders;
    let submission = Submission {
        device_id: "till".into(),
        idempotency_key: order_id.into(),
        request_digest: Digest::of(order_id.as_bytes()),
        order: OrderDocument::parse(body.as_bytes(), "kitchen").unwrap(),
    };
    orders.submit(submission).wait().unwrap();
    let ready = orders.advance(order_id, OrderState::Ready, "till");
    ready.wait().unwrap();
}

/// Place of the event of `kind` about `order_id` among those the platform has.
fn place(events: &[serde_json::Value], kind: &str, order_id: &str) -> usize {
    let found = events
        .iter()
        .position(|event| event["kind"] == kind && event["event"]["body"]["order_id"] == order_id);
    found.unwrap_or_else(|| panic!("no {kind} of {order_id} in {events:?}"))
}

#[test]
fn events_of_an_order_stay_in_their_order_and_other_orders_overtake() {
    let platform = Platform::start();
    platform.set_offline(true);
    let shop = Shop::of(&platform).start();
    for order_id in ["a", "b", "c"] {
        order_and_advance(&shop, order_id);
    }
    // The first event of all, twice.
    platform.refuse_events("order.submitted", 500, 2);
    platform.set_offline(false);
    let events = eventually("all are delivered", || {
        let events = platform.events();
        (events.len() == 6).then_some(events)
    });
    for order_id in ["a", "b", "c"] {
        let submitted = place(&events, "order.submitted", order_id);
        assert!(
            submitted < place(&events, "order.advanced", order_id),
            "{order_id}"
        );
    }
    let last = place(&events, "order.submitted", "c");
    assert!(
        place(&events, "order.submitted", "a") > last,
        "c overtakes a"
    );
    assert!(events.iter().all(|event| event["repeats"] == 0));
}

#[test]
fn a_platform_without_batches_is_told_one_by_one() {
    let platform = Platform::start();
    platform.arm("status:404", "api", 1, Some("POST"), "/events/batch");
    platform.set_offline(true);
    let shop = Shop::of(&platform).start();
    for order_id in ["a", "b"] {
        order_and_advance(&shop, order_id);
    }
    platform.set_offline(false);
    eventually("all are delivered", || {
        (platform.events().len() == 4).then_some(())
    });
    assert_eq!(platform.asked(&["/events/batch"]), 1);
    assert_eq!(platform.asked(&["POST", "/events\""]), 4);
}

#[test]
fn a_batch_refused_as_a_whole_is_sent_one_by_one() {
    let platform = Platform::start();
    platform.arm("status:413", "api", 1, Some("POST"), "/events/batch");
    platform.arm("status:400", "api", 1, Some("POST"), "/events/batch");
    platform.set_offline(true);
    let shop = Shop::of(&platform).start();
    for order_id in ["a", "b"] {
        order_and_advance(&shop, order_id);
    }
    platform.set_offline(false);
    eventually("all are delivered", || {
        (platform.events().len() == 4).then_some(())
    });
    assert!(platform.faults_are_spent());
    assert!(shop.store().orders.outbox_parked(1).unwrap().is_empty());
}

#[test]
fn new_credentials_end_the_pause_of_a_refused_lane() {
    let platform = Platform::start();
    let shop = Shop::of(&platform)
        .with(&format!("token = \"{TOKEN}\"\n"), "")
        .start();
    let grant = |token: &str| {
        shop.credentials().grant(Some(Granted {
            site_id: SITE.into(),
            api_token: Some(Secret::new(token)),
            ..Granted::default()
        }));
    };
    grant("another-token");
    order_and_advance(&shop, "a");
    eventually("the refusal is told", || {
        let detail = shop.condition(Code::Unauthorized)?;
        detail.contains("push: unauthorized").then_some(())
    });
    grant(TOKEN);
    within(SOONER_THAN_A_PAUSE, "all are delivered", || {
        (platform.events().len() == 2).then_some(())
    });
}

/// Days of a busy shop without internet. More with `COMPTOIR_BACKLOG=200000`.
const BACKLOG: usize = 8000;

#[test]
fn a_months_backlog_drains_in_order_and_gives_its_space_back() {
    let backlog = std::env::var("COMPTOIR_BACKLOG").map_or(BACKLOG, |text| text.parse().unwrap());
    let platform = Platform::start();
    platform.set_offline(true);
    let shop = Shop::of(&platform).start();
    let orders = &shop.store().orders;
    let body = |n: usize| {
        let text = format!("{{\"n\":{n},\"text\":\"{}\"}}", "é".repeat(600));
        RawValue::from_string(text).unwrap()
    };
    for from in (0..backlog).step_by(500) {
        let pushes = (from..backlog.min(from + 500))
            .map(|n| orders.outbox_push(Lane::Orders, "test.backlog", body(n)));
        for push in pushes.collect::<Vec<_>>() {
            push.wait().unwrap();
        }
    }
    let size = |name| std::fs::metadata(shop.data_dir().join(name)).unwrap().len();
    let full = size("orders.db");
    assert!(full > backlog as u64 * 1000, "{full} bytes");
    // What happens now is told without waiting for the month before.
    let receipt = orders.outbox_push(Lane::Receipts, "test.now", body(0));
    receipt.wait().unwrap();
    platform.set_offline(false);
    let started = std::time::Instant::now();
    let waiting = || orders.outbox_counts().unwrap().lanes[0].waiting;
    let mut left = backlog as i64;
    while left > 0 {
        // As long as it moves.
        left = eventually("the backlog shrinks", || {
            let now = waiting();
            (now < left || now == 0).then_some(now)
        });
    }
    println!("{backlog} events in {:?}", started.elapsed());
    let numbers = platform.event_numbers("test.backlog");
    assert_eq!(numbers.len(), backlog);
    assert!(numbers.is_sorted(), "in their order");
    let arrived = |kind: &str| {
        let last = platform.events_of(kind).pop();
        last.map(|event| event["number"].as_i64().unwrap())
    };
    let now = eventually("what is new is told", || arrived("test.now"));
    assert!(
        Some(now) < arrived("test.backlog"),
        "it did not wait for the backlog"
    );
    // 4 MiB of free pages stay for the next orders, and a log within its bound.
    eventually("the space is given back", || {
        (size("orders.db") < 5 << 20).then_some(())
    });
    assert!(size("orders.db-wal") < 17 << 20);
}

#[test]
fn what_was_set_aside_is_listed_sent_again_and_dropped_by_hand_beside_the_running_server() {
    let platform = Platform::start();
    platform.refuse_events("test.poison", 422, 2);
    let shop = Shop::of(&platform).start();
    let orders = &shop.store().orders;
    for n in 0..2 {
        let body = RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap();
        let push = orders.outbox_push(Lane::Orders, "test.poison", body);
        push.wait().unwrap();
    }
    eventually("both are set aside", || {
        (orders.outbox_parked_count().unwrap() == 2).then_some(())
    });
    let site_file = shop.data_dir().join("desk.toml");
    let text = format!("[store]\ndata_dir = \"{}\"\n", shop.data_dir().display());
    std::fs::write(&site_file, text).unwrap();
    let comptoir = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_comptoir"))
            .arg("--site-file")
            .arg(&site_file)
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text)
    };
    let (_, list) = comptoir(&["outbox", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let ids: Vec<String> = list["outbox"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(list["outbox"][0]["cause"], "refused");
    assert_eq!(comptoir(&["outbox", "show", &ids[1]]).1, "{\"n\":1}\n");
    assert!(comptoir(&["outbox", "resend", &ids[0]]).0);
    eventually("it is delivered", || {
        (platform.events().len() == 1).then_some(())
    });
    eventually("the other one is told", || {
        shop.condition(Code::OutboxParked)
    });
    assert!(comptoir(&["outbox", "drop", &ids[1]]).0);
    assert!(!comptoir(&["outbox", "drop", &ids[1]]).0, "it is gone");
    eventually("the condition ends", || {
        shop.condition(Code::OutboxParked).is_none().then_some(())
    });
    assert_eq!(platform.events().len(), 1);
}
