//! What orders promise, each promise a test.

mod ahead;
mod commands;
mod inbox;
mod outbox;

use super::*;
use crate::digest::Digest;
use crate::store::testing::{Bench, json, order_json};
use crate::store::{Store, StoreEvent};

fn message(id: &str, order_id: &str) -> InboxMessage {
    InboxMessage {
        message_id: id.to_owned(),
        source: Source::Bus,
        body: order_json(order_id).into_bytes(),
    }
}

fn submission(key: &str, order_id: &str, request: &str) -> Submission {
    Submission {
        device_id: "dev-1".to_owned(),
        idempotency_key: key.to_owned(),
        request_digest: Digest::of(request.as_bytes()),
        order: OrderDocument::parse(order_json(order_id).as_bytes(), "kitchen").unwrap(),
    }
}

fn kinds(store: &Store, now_ms: i64) -> Vec<String> {
    let due = store.orders.outbox_due(Lane::Orders, now_ms, 100).unwrap();
    due.into_iter().map(|item| item.kind).collect()
}

#[test]
fn a_message_makes_one_order_and_one_command_however_often_it_comes() {
    let bench = Bench::new();
    let store = bench.open();
    let new = store.orders.receive(message("m1", "o1")).wait().unwrap();
    assert_eq!(
        new,
        Received::New {
            order_id: "o1".into()
        }
    );
    let again = store.orders.receive(message("m1", "o1")).wait().unwrap();
    assert_eq!(again, Received::DuplicateMessage);
    let other = store.orders.receive(message("m2", "o1")).wait().unwrap();
    assert_eq!(
        other,
        Received::DuplicateOrder {
            order_id: "o1".into()
        }
    );
    let other = store.orders.receive(message("m2", "o1")).wait().unwrap();
    assert_eq!(other, Received::DuplicateMessage);
    assert_eq!(store.orders.list(0, None, 10).unwrap().len(), 1);
    let first = store
        .orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap();
    assert_eq!(first.unwrap().order_id, "o1");
    let second = store
        .orders
        .next_command("dev-2", "kitchen")
        .wait()
        .unwrap();
    assert!(second.is_none());
}

#[test]
fn an_id_that_the_broker_gives_again_to_another_message_hides_no_order() {
    let bench = Bench::new();
    let store = bench.open();
    let receive = |body: &[u8]| {
        let message = InboxMessage {
            message_id: "sequence-1".into(),
            source: Source::Bus,
            body: body.to_vec(),
        };
        store.orders.receive(message).wait().unwrap()
    };
    let new = |order_id: &str| Received::New {
        order_id: order_id.into(),
    };
    // A queue that was made anew counts from 1 again.
    assert_eq!(receive(order_json("o1").as_bytes()), new("o1"));
    assert_eq!(receive(order_json("o2").as_bytes()), new("o2"));
    assert!(matches!(receive(b"no order"), Received::Parked { .. }));
    for known in [
        order_json("o1").as_bytes(),
        order_json("o2").as_bytes(),
        b"no order",
    ] {
        assert_eq!(receive(known), Received::DuplicateMessage);
    }
    assert_eq!(store.orders.list(0, None, 10).unwrap().len(), 2);
    assert_eq!(store.orders.inbox_parked(10).unwrap().len(), 1);
}

#[test]
fn a_message_that_is_no_order_is_parked_with_its_bytes_and_its_reason() {
    let bench = Bench::new();
    let store = bench.open();
    let message = InboxMessage {
        message_id: "m1".into(),
        source: Source::Bus,
        body: b"\xff no order".to_vec(),
    };
    let Received::Parked { reason, why } = store.orders.receive(message.clone()).wait().unwrap()
    else {
        panic!("not parked");
    };
    assert!(reason.contains("UTF-8"));
    assert_eq!(why, ParkCode::Unreadable);
    assert_eq!(
        store.orders.receive(message).wait().unwrap(),
        Received::DuplicateMessage
    );
    let parked = store.orders.inbox_parked(10).unwrap();
    assert_eq!(
        (parked.len(), store.orders.parked_messages().unwrap()),
        (1, 1)
    );
    assert_eq!(parked[0].body, b"\xff no order");
    assert_eq!(parked[0].reason, reason);
}

#[test]
fn a_submission_is_replayed_by_its_key_and_told_to_the_platform_once() {
    let bench = Bench::new();
    let store = bench.open();
    let submit = |key, order, request| store.orders.submit(submission(key, order, request)).wait();
    assert!(matches!(submit("k1", "o1", "r1").unwrap(), Submitted::New(view) if view.seq == 1));
    assert!(
        matches!(submit("k1", "o1", "r1").unwrap(), Submitted::Replayed(view) if view.order_id == "o1")
    );
    assert!(matches!(
        submit("k1", "o2", "r2").unwrap(),
        Submitted::KeyConflict
    ));
    assert!(matches!(
        submit("k2", "o1", "r1").unwrap(),
        Submitted::OrderExists(_)
    ));
    assert_eq!(kinds(&store, bench.now_ms()), ["order.submitted"]);
    let view = store.orders.order("o1").unwrap().unwrap();
    assert_eq!(view.body.get(), order_json("o1"));
}

#[test]
fn everything_acknowledged_is_there_after_a_restart() {
    let bench = Bench::new();
    let store = bench.open();
    store.orders.receive(message("m1", "o1")).wait().unwrap();
    let held = store
        .orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    let key = {
        store
            .orders
            .advance("o1", OrderState::Ready, "dev-1")
            .wait()
            .unwrap();
        store
            .orders
            .outbox_due(Lane::Orders, bench.now_ms(), 1)
            .unwrap()[0]
            .key
            .clone()
    };
    drop(store);
    let store = bench.open();
    assert_eq!(
        store.orders.order("o1").unwrap().unwrap().state,
        OrderState::Ready
    );
    let again = store
        .orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    assert_eq!((again.id, again.possible_duplicate), (held.id, true));
    assert_eq!(
        store
            .orders
            .outbox_due(Lane::Orders, bench.now_ms(), 1)
            .unwrap()[0]
            .key,
        key
    );
}

#[test]
fn a_poison_item_is_set_aside_and_the_lane_goes_on() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    let push = |n: u32| {
        orders
            .outbox_push(Lane::Events, "e", json(&n.to_string()))
            .wait()
            .unwrap()
    };
    let ids = [push(1), push(2), push(3)];
    assert!(orders.outbox_park(ids[0], "400").wait().unwrap());
    let later = bench.now_ms() + 5000;
    assert!(orders.outbox_retry(ids[1], later, "503").wait().unwrap());
    let due = |now| -> Vec<i64> {
        let due = orders.outbox_due(Lane::Events, now, 10).unwrap();
        due.iter().map(|item| item.id).collect()
    };
    assert_eq!(due(bench.now_ms()), [ids[2]]);
    assert_eq!(due(later), [ids[1], ids[2]]);
    assert_eq!(orders.outbox_sent(vec![ids[2]]).wait().unwrap(), 1);
    assert_eq!(orders.outbox_sent(vec![ids[2]]).wait().unwrap(), 0);
    let counts = orders.outbox_counts().unwrap();
    assert_eq!((counts.lanes[2].waiting, counts.lanes[2].parked), (1, 1));
    let parked = orders.outbox_parked(10).unwrap();
    assert_eq!(
        (parked[0].error.as_deref(), parked[0].attempts),
        (Some("400"), 1)
    );
    assert!(orders.outbox_unpark(ids[0]).wait().unwrap());
    assert_eq!(due(bench.now_ms()), [ids[0]]);
}

#[test]
fn a_retry_set_by_a_clock_that_was_ahead_is_due() {
    let bench = Bench::new();
    let orders = bench.open().orders;
    let id = orders.outbox_push(Lane::Orders, "e", json("1")).wait();
    let in_a_minute = bench.now_ms() + 60_000;
    let retried = orders.outbox_retry(id.unwrap(), in_a_minute, "500").wait();
    assert!(retried.unwrap());
    let due = |now| orders.outbox_due(Lane::Orders, now, 10).unwrap().len();
    assert_eq!(due(bench.now_ms()), 0);
    // A box without a clock chip starts again at its release.
    assert_eq!(due(bench.now_ms() - 5 * 86_400_000), 1);
}

#[test]
fn what_is_old_is_forgotten_and_what_is_open_is_not() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    for n in 1..=3 {
        let submission = submission(&format!("k{n}"), &format!("o{n}"), "r");
        orders.submit(submission).wait().unwrap();
    }
    orders.receive(message("m1", "o9")).wait().unwrap();
    for closed in ["o1", "o3"] {
        orders
            .advance(closed, OrderState::Done, "till")
            .wait()
            .unwrap();
    }
    let keep_house = |store: &Store| {
        let now_ms = bench.now_ms();
        let house =
            move |tx: &mut crate::store::writer::Tx<'_>| keep::forget(tx.conn, now_ms - KEPT_MS);
        while store.orders.writer.submit(house).wait().unwrap() {}
    };
    bench.days(29);
    keep_house(&store);
    assert_eq!(orders.list(0, None, 10).unwrap().len(), 4);
    bench.days(2);
    keep_house(&store);
    let left: Vec<_> = orders
        .list(0, None, 10)
        .unwrap()
        .into_iter()
        .map(|o| o.order_id)
        .collect();
    // o2 and o9 are open, o3 has the highest number.
    assert_eq!(left, ["o2", "o9", "o3"]);
    // Its message id is forgotten, the order is not: the same message makes no second one.
    assert!(matches!(
        orders.receive(message("m1", "o9")).wait().unwrap(),
        Received::DuplicateOrder { .. }
    ));
    assert!(matches!(
        orders.submit(submission("k2", "o2", "r")).wait().unwrap(),
        Submitted::Replayed(_)
    ));
    // What is forgotten may come again, and is new.
    assert!(matches!(
        orders.submit(submission("k1", "o1", "r")).wait().unwrap(),
        Submitted::New(_)
    ));
}

#[test]
fn what_is_open_is_counted_by_state_and_by_device() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    for id in ["o1", "o2", "o3"] {
        orders.receive(message(id, id)).wait().unwrap();
    }
    let waiting = |device: &str, role: &str| orders.open_commands(device, role).unwrap();
    assert_eq!(
        (waiting("dev-1", "kitchen"), waiting("dev-1", "bar")),
        (3, 0)
    );
    let command = orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    assert_eq!(
        (waiting("dev-1", "kitchen"), waiting("dev-2", "kitchen")),
        (3, 2)
    );
    orders.command_accepted(command.id).wait().unwrap();
    let counts = orders.open_orders().unwrap();
    let of = |state| {
        counts
            .iter()
            .find(|count| count.state == state)
            .unwrap()
            .orders
    };
    assert_eq!((of(OrderState::Received), of(OrderState::Accepted)), (2, 1));
    orders
        .command_done(command.id, Outcome::Ok, "")
        .wait()
        .unwrap();
    assert_eq!(waiting("dev-1", "kitchen"), 2);
}

#[test]
fn a_receipt_is_taken_once_per_key() {
    let bench = Bench::new();
    let store = bench.open();
    let receipt = |key: &str, request: &str| Receipt {
        device_id: "dev-1".into(),
        idempotency_key: key.into(),
        request_digest: Digest::of(request.as_bytes()),
        kind: "receipt.printed".into(),
        body: json("{}"),
    };
    let take = |key, request| store.orders.receipt(receipt(key, request)).wait().unwrap();
    assert!(matches!(take("k1", "a"), ReceiptTaken::New { .. }));
    assert_eq!(take("k1", "a"), ReceiptTaken::Replayed);
    assert_eq!(take("k1", "b"), ReceiptTaken::KeyConflict);
    assert_eq!(store.orders.outbox_counts().unwrap().lanes[1].waiting, 1);
}

#[test]
fn orders_are_listed_by_their_last_change() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    for n in 1..=3 {
        orders
            .receive(message(&format!("m{n}"), &format!("o{n}")))
            .wait()
            .unwrap();
    }
    orders
        .advance("o1", OrderState::Ready, "till")
        .wait()
        .unwrap();
    let ids = |after, state, limit| -> Vec<String> {
        let list = orders.list(after, state, limit).unwrap();
        list.into_iter().map(|order| order.order_id).collect()
    };
    assert_eq!(ids(0, None, 10), ["o2", "o3", "o1"]);
    assert_eq!(ids(3, None, 10), ["o1"]);
    assert_eq!(ids(0, Some(OrderState::Received), 1), ["o2"]);
    assert_eq!(ids(0, Some(OrderState::Ready), 10), ["o1"]);
    assert!(ids(0, Some(OrderState::Done), 10).is_empty());
    let json = serde_json::to_string(&orders.order("o1").unwrap().unwrap()).unwrap();
    assert!(
        json.contains(r#""state":"ready""#) && json.contains(r#""body":{"order_id":"o1""#),
        "{json}"
    );
}

#[test]
fn keys_of_the_outbox_are_never_used_again() {
    let bench = Bench::new();
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let store = bench.open();
        let id = store
            .orders
            .outbox_push(Lane::Events, "e", json("1"))
            .wait()
            .unwrap();
        let due = store.orders.outbox_due(Lane::Events, i64::MAX, 1).unwrap();
        assert!(keys.insert(due[0].key.clone()));
        store.orders.outbox_sent(vec![id]).wait().unwrap();
    }
    let other = Bench::new();
    let store = other.open();
    store
        .orders
        .outbox_push(Lane::Events, "e", json("1"))
        .wait()
        .unwrap();
    let due = store.orders.outbox_due(Lane::Events, i64::MAX, 1).unwrap();
    assert!(keys.insert(due[0].key.clone()));
}
