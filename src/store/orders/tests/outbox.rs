//! The outbox: order within a subject, removals that ride along, space given back.

use std::time::{Duration, Instant};

use super::super::*;
use crate::digest::Digest;
use crate::store::testing::{Bench, json, order_json};
use crate::store::writer::RIDERS_WAIT;

fn order(orders: &Orders, order_id: &str) {
    let submission = Submission {
        device_id: "dev-1".into(),
        idempotency_key: order_id.into(),
        request_digest: Digest::of(order_id.as_bytes()),
        order: OrderDocument::parse(order_json(order_id).as_bytes(), "kitchen").unwrap(),
    };
    orders.submit(submission).wait().unwrap();
}

fn advance(orders: &Orders, order_id: &str, to: OrderState) {
    orders.advance(order_id, to, "till").wait().unwrap();
}

/// Subject and kind of what is due behind `after`.
fn due(orders: &Orders, after: i64, now_ms: i64) -> Vec<(i64, String, String)> {
    let due = orders.outbox_due_after(Lane::Orders, after, now_ms, 100);
    due.unwrap()
        .into_iter()
        .map(|item| (item.id, item.subject.unwrap_or_default(), item.kind))
        .collect()
}

#[test]
fn what_follows_a_failed_event_of_its_order_waits_and_other_orders_overtake() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    for id in ["a", "b"] {
        order(orders, id);
        advance(orders, id, OrderState::Ready);
    }
    let now = bench.now_ms();
    let all = due(orders, 0, now);
    let subjects: Vec<_> = all.iter().map(|(_, subject, _)| subject.as_str()).collect();
    assert_eq!(subjects, ["a", "a", "b", "b"]);
    let ids: Vec<i64> = all.iter().map(|(id, ..)| *id).collect();
    let later = now + 5000;
    orders.outbox_retry(ids[0], later, "500").wait().unwrap();
    let left = |after, now| -> Vec<i64> {
        let due = due(orders, after, now);
        due.into_iter().map(|(id, ..)| id).collect()
    };
    assert_eq!(left(0, now), [ids[2], ids[3]], "a waits, b overtakes");
    assert_eq!(left(0, later), ids, "its time has come: in their order");
    // Gone through up to the failed one: what follows it must not overtake it, though its time has come meanwhile.
    assert_eq!(left(ids[0], later), [ids[2], ids[3]]);
    // Parked, it holds up nothing.
    orders.outbox_park(ids[0], "422").wait().unwrap();
    assert_eq!(left(0, now), [ids[1], ids[2], ids[3]]);
}

#[test]
fn a_removal_rides_on_the_next_commit_or_goes_alone_after_a_while() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    let push = || orders.outbox_push(Lane::Events, "e", json("{}")).wait();
    let (first, second) = (push().unwrap(), push().unwrap());
    let removal = orders.outbox_sent(vec![first]);
    let removal = removal.wait_for(Duration::ZERO).unwrap_err();
    // Another write takes it along, and both are answered.
    order(orders, "a");
    assert_eq!(removal.wait_for(Duration::ZERO).unwrap().unwrap(), 1);
    let asked = Instant::now();
    assert_eq!(orders.outbox_sent(vec![second]).wait().unwrap(), 1);
    assert!(asked.elapsed() >= RIDERS_WAIT / 2, "it waited for company");
}

#[test]
fn a_removal_that_waits_is_not_lost_at_the_end() {
    let bench = Bench::new();
    let store = bench.open();
    let push = store.orders.outbox_push(Lane::Events, "e", json("{}"));
    let removal = store.orders.outbox_sent(vec![push.wait().unwrap()]);
    drop(store);
    assert_eq!(removal.wait().unwrap(), 1);
}
