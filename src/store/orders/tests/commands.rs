//! What commands promise.

use std::time::Duration;

use super::*;
use crate::clock::Reckoning;

#[test]
fn a_command_is_held_by_one_device_until_it_is_done() {
    let bench = Bench::new();
    let store = bench.open();
    let mut events = store.events.subscribe();
    for n in 1..=2 {
        let message = message(&format!("m{n}"), &format!("o{n}"));
        store.orders.receive(message).wait().unwrap();
    }
    let next = |device| store.orders.next_command(device, "kitchen").wait().unwrap();
    let first = next("dev-1").unwrap();
    assert_eq!((first.seq, first.possible_duplicate), (1, false));
    let again = next("dev-1").unwrap();
    assert_eq!(
        (again.id, again.seq, again.possible_duplicate),
        (first.id, 1, true)
    );
    store.orders.command_sent(first.id).wait().unwrap();
    let accepted = store.orders.command_accepted(first.id).wait().unwrap();
    assert_eq!(accepted, CommandChanged::Changed);
    assert!(next("dev-1").unwrap().accepted);
    assert_eq!(
        store.orders.order("o1").unwrap().unwrap().state,
        OrderState::Accepted
    );
    let done = |detail| {
        store
            .orders
            .command_done(first.id, Outcome::Ok, detail)
            .wait()
            .unwrap()
    };
    assert_eq!(done("printed"), CommandChanged::Changed);
    assert_eq!(done("printed"), CommandChanged::Unchanged);
    assert_eq!(
        store.orders.order("o1").unwrap().unwrap().state,
        OrderState::Done
    );
    assert_eq!(kinds(&store, bench.now_ms()), ["command.done"]);
    let second = next("dev-1").unwrap();
    assert_eq!((second.order_id.as_str(), second.seq), ("o2", 2));
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(told.contains(&StoreEvent::Order {
        order_id: "o1".into(),
        state: OrderState::Done,
        seq: 4
    }));
}

#[test]
fn a_command_nobody_takes_expires_and_one_that_was_taken_does_not() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    for n in 1..=3 {
        let message = message(&format!("m{n}"), &format!("o{n}"));
        orders.receive(message).wait().unwrap();
    }
    let accepted = orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    orders.command_accepted(accepted.id).wait().unwrap();
    let silent = orders
        .next_command("dev-2", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    orders.command_sent(silent.id).wait().unwrap();
    assert_eq!(
        orders
            .expire_commands(bench.clock.reckoning())
            .wait()
            .unwrap(),
        0
    );
    bench.clock.advance(Duration::from_secs(4 * 3600 + 60));
    assert!(
        orders
            .next_command("dev-3", "kitchen")
            .wait()
            .unwrap()
            .is_none()
    );
    assert_eq!(
        orders
            .expire_commands(bench.clock.reckoning())
            .wait()
            .unwrap(),
        2
    );
    assert_eq!(
        orders
            .expire_commands(bench.clock.reckoning())
            .wait()
            .unwrap(),
        0
    );
    let state = |order_id| orders.order(order_id).unwrap().unwrap().state;
    assert_eq!(state("o1"), OrderState::Accepted);
    assert_eq!(
        (state("o2"), state("o3")),
        (OrderState::Expired, OrderState::Expired)
    );
    let due = orders.outbox_due(Lane::Orders, i64::MAX, 10).unwrap();
    let told: Vec<_> = due.iter().map(|item| item.body.get()).collect();
    assert!(
        told[0].contains("unknown") && told[1].contains("expired"),
        "{told:?}"
    );
    // The device was out of reach, and proves late that it did it.
    let late = orders
        .command_done(silent.id, Outcome::Ok, "printed")
        .wait()
        .unwrap();
    assert_eq!(late, CommandChanged::Changed);
    assert_eq!(state("o2"), OrderState::Done);
}

#[test]
fn what_a_lost_device_held_goes_to_the_next_one_with_a_warning() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    orders.receive(message("m1", "o1")).wait().unwrap();
    let held = orders
        .next_command("dev-1", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    assert_eq!(orders.release_commands("dev-1").wait().unwrap(), 1);
    let taken = orders
        .next_command("dev-2", "kitchen")
        .wait()
        .unwrap()
        .unwrap();
    assert_eq!((taken.id, taken.possible_duplicate), (held.id, true));
    assert!(
        orders
            .next_command("dev-1", "kitchen")
            .wait()
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_closed_order_takes_its_unsent_command_back() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    orders.receive(message("m1", "o1")).wait().unwrap();
    let advance = |to| orders.advance("o1", to, "till").wait().unwrap();
    assert!(matches!(advance(OrderState::Cancelled), Advanced::Done(_)));
    assert!(matches!(
        advance(OrderState::Cancelled),
        Advanced::Unchanged(_)
    ));
    assert!(matches!(advance(OrderState::Ready), Advanced::Refused(_)));
    assert!(matches!(
        orders
            .advance("o2", OrderState::Ready, "till")
            .wait()
            .unwrap(),
        Advanced::NoSuchOrder
    ));
    assert!(
        orders
            .next_command("dev-1", "kitchen")
            .wait()
            .unwrap()
            .is_none()
    );
    assert_eq!(kinds(&store, bench.now_ms()), ["order.advanced"]);
}

#[test]
fn nothing_done_for_every_command_reads_a_whole_table() {
    let bench = Bench::new();
    let store = bench.open();
    for _ in 0..2 {
        store
            .orders
            .expire_commands(Reckoning::by(0))
            .wait()
            .unwrap();
    }
    let plan = store.orders.writer.submit(|tx| {
        let mut steps = Vec::new();
        for sql in [
            "SELECT * FROM commands WHERE state = 0 AND expires_ms <= CASE WHEN issued_ms < 2 THEN 3 ELSE 1 END",
            "SELECT * FROM commands WHERE state IN (1, 2, 3) AND expires_ms <= CASE WHEN issued_ms < 2 THEN 3 ELSE 1 END",
            "SELECT key FROM commands WHERE role = 'x' AND state = 0 AND expires_ms > 1 ORDER BY key LIMIT 1",
            "SELECT c.key FROM commands c WHERE c.device_id = 'x' AND c.state IN (1, 2, 3) ORDER BY c.device_seq",
            "SELECT id FROM outbox WHERE lane = 1 AND parked = 0 AND due_ms <= 1 ORDER BY id LIMIT 1",
            "SELECT order_id FROM orders WHERE seq > 1 AND state = 0 AND state IN (0, 1, 2, 3) ORDER BY seq LIMIT 1",
            "SELECT order_id FROM orders WHERE request_key = x'00'",
            "SELECT count(*) FROM inbox WHERE parked IS NOT NULL",
            "SELECT coalesce(i.body, o.body) FROM inbox i LEFT JOIN orders o ON o.order_id = i.order_id
             WHERE i.message_id = 'x'",
        ] {
            let mut explain = tx.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let mut rows = explain.query([])?;
            while let Some(row) = rows.next()? {
                steps.push(row.get::<_, String>(3)?);
            }
        }
        Ok(steps)
    });
    for step in plan.wait().unwrap() {
        let by_key = step.starts_with("SEARCH") && step.contains("PRIMARY KEY");
        assert!(by_key || step.contains("INDEX"), "{step}");
    }
}

#[test]
fn the_next_order_belongs_to_the_device_that_waits_as_soon_as_it_is_there() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    let next =
        |orders: &Orders, device: &str| orders.next_command(device, "kitchen").wait().unwrap();
    for device in ["dev-1", "dev-2"] {
        assert!(next(orders, device).is_none());
    }
    // Who asks again asks last.
    assert!(next(orders, "dev-1").is_none());
    orders.receive(message("m1", "o1")).wait().unwrap();
    assert_eq!(orders.work_waiting().unwrap().devices, ["dev-2"]);
    assert!(next(orders, "dev-1").is_none(), "it is another's");
    let command = next(orders, "dev-2").unwrap();
    assert!(!command.possible_duplicate, "it was never sent");
    assert!(
        next(orders, "dev-2").unwrap().possible_duplicate,
        "now it may have been"
    );
    orders
        .command_done(command.id, Outcome::Ok, "")
        .wait()
        .unwrap();
    // One that has left gets nothing.
    orders.device_left("dev-1");
    orders.receive(message("m2", "o2")).wait().unwrap();
    assert_eq!(orders.work_waiting().unwrap().roles, ["kitchen"]);
    assert_eq!(next(orders, "dev-2").unwrap().order_id, "o2");
    // What was set by is found after a restart, by whoever it is for, as what may have been sent.
    assert!(next(orders, "dev-1").is_none());
    orders.receive(message("m3", "o3")).wait().unwrap();
    drop(store);
    let orders = bench.open().orders;
    let command = next(&orders, "dev-1").unwrap();
    assert!(command.order_id == "o3" && command.possible_duplicate);
}
