//! The outbox.

use comptoir::store::orders::Lane;
use comptoir::telemetry::Code;
use serde_json::value::RawValue;

use super::platform::{Platform, TOKEN, eventually};
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
