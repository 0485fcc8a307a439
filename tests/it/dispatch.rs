//! Commands on their way to a device: the real dispatch and store against the real device emulator, over TCP.

use std::time::Duration;

use comptoir::devices::LinkState;
use comptoir::store::orders::{Lane, OrderState};
use comptoir::telemetry::Code;
use serde_json::{Value, json};

use crate::kitchen::{Kitchen, wait_for};
use crate::shop::{Shop, identity, ok};

#[test]
fn orders_reach_the_kitchen_in_order_and_their_results_the_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let ids: Vec<String> = (0..20).map(|n| format!("o-{n}")).collect();
    for id in &ids[..5] {
        shop.order(id);
    }
    let (kitchen, _) = shop.kitchen(dir.path());
    for id in &ids[5..] {
        shop.order(id);
    }
    assert_eq!(kitchen.wait_seen(20), ids);
    let expected: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(shop.wait_told(20), ok(&expected));
    shop.wait_state("o-19", OrderState::Done);
    assert!(
        kitchen
            .lines()
            .iter()
            .all(|line| line["marked_as_duplicate"] == false)
    );
    assert_eq!(kitchen.report()["sessions"], 1);
}

#[test]
fn a_cut_between_accept_and_done_leaves_one_visible_effect() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"drop_after_accept": 1}));
    shop.order("o-1");
    assert_eq!(shop.wait_told(1), ok(&["o-1"]));
    assert_eq!(kitchen.seen(), ["o-1"]);
    assert_eq!(
        kitchen.report()["sessions"],
        2,
        "the result came over a second session"
    );
}

#[test]
fn cuts_before_and_after_the_device_took_the_command_leave_one_visible_effect() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"drop_before_accept": 1, "lose_accept": 1}));
    shop.order("o-1");
    shop.order("o-2");
    assert_eq!(shop.wait_told(2), ok(&["o-1", "o-2"]));
    assert_eq!(kitchen.seen(), ["o-1", "o-2"]);
    // Both were sent again, but the device remembers and knows that nobody saw them before.
    assert!(
        kitchen
            .lines()
            .iter()
            .all(|line| line["marked_as_duplicate"] == false)
    );
}

#[test]
fn a_restart_of_the_box_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"done_delay_ms": 600_000}));
    for id in ["o-1", "o-2", "o-3"] {
        shop.order(id);
    }
    shop.wait_state("o-1", OrderState::Accepted);
    shop.close();

    kitchen.faults(&json!({"done_delay_ms": 0}));
    let shop = Shop::open(dir.path());
    assert_eq!(shop.wait_told(3), ok(&["o-1", "o-2", "o-3"]));
    assert_eq!(kitchen.seen(), ["o-1", "o-2", "o-3"]);
}

#[test]
fn a_power_cut_of_the_device_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (mut kitchen, paired) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"done_delay_ms": 600_000}));
    shop.order("o-1");
    shop.order("o-2");
    shop.wait_state("o-1", OrderState::Accepted);
    kitchen.kill();
    assert!(kitchen.seen().is_empty(), "it had only accepted");
    shop.meet(&mut kitchen, &paired);
    assert_eq!(shop.wait_told(2), ok(&["o-1", "o-2"]));
    assert_eq!(kitchen.seen(), ["o-1", "o-2"]);
}

#[test]
fn a_device_that_lost_its_memory_marks_what_may_be_a_duplicate() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"done_delay_ms": 600_000}));
    shop.order("o-1");
    shop.wait_state("o-1", OrderState::Accepted);
    kitchen.forget();
    kitchen.faults(&json!({"done_delay_ms": 0}));
    // The box asks again, and the device cannot know whether somebody saw it.
    assert_eq!(kitchen.wait_seen(1), ["o-1"]);
    assert_eq!(kitchen.lines()[0]["marked_as_duplicate"], true);
    assert_eq!(shop.wait_told(1), ok(&["o-1"]));
}

#[test]
fn a_device_with_the_wrong_key_gets_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let paired = shop.pair("kitchen");
    let mut kitchen = Kitchen::paired(
        &dir.path().join("kitchen"),
        &paired,
        identity().id(),
        &identity().public_key(),
    )
    .with(&["--fault", "wrong_key=true"]);
    shop.order("o-1");
    shop.meet(&mut kitchen, &paired);
    wait_for("the wrong key to be refused", || {
        match shop.dispatch.link(&paired.device_id)? {
            LinkState::Unreachable { reason, .. } => (reason == "bad_proof").then_some(()),
            LinkState::Connected => panic!("connected with the wrong key"),
        }
    });
    assert!(kitchen.seen().is_empty());
    assert_eq!(kitchen.report()["sessions"], 0);
    shop.wait_state("o-1", OrderState::Received);

    // And the same device with the right one is served.
    kitchen.faults(&json!({"wrong_key": false}));
    assert_eq!(kitchen.wait_seen(1), ["o-1"]);
}

#[test]
fn frames_that_break_the_protocol_end_the_session_and_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"oversized_frame": 1, "bad_tag": 1}));
    shop.order("o-1");
    assert_eq!(shop.wait_told(1), ok(&["o-1"]));
    assert_eq!(kitchen.seen(), ["o-1"]);
    let sessions = kitchen.report()["sessions"].as_u64().unwrap();
    assert!(sessions >= 2, "{sessions} sessions");
    assert!(
        !kitchen.errors().contains("panicked"),
        "{}",
        kitchen.errors()
    );
}

#[test]
fn a_command_nobody_took_in_time_is_never_executed_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open_with(dir.path(), Duration::from_secs(1));
    shop.order("o-late");
    shop.wait_state("o-late", OrderState::Expired);
    wait_for("the shop to be told", || {
        shop.telemetry
            .conditions
            .holds(Code::OrdersExpired)
            .then_some(())
    });
    assert_eq!(
        shop.wait_told(1),
        [("o-late".to_owned(), "expired".to_owned())]
    );
    // A device comes after all: it is given what is new and not what was given up.
    shop.close();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    shop.order("o-new");
    assert_eq!(kitchen.wait_seen(1), ["o-new"]);
    shop.wait_state("o-new", OrderState::Done);
    assert_eq!(kitchen.seen(), ["o-new"]);
}

#[test]
fn a_device_that_accepts_and_never_finishes_holds_up_the_next_order_for_a_while_only() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open_with(dir.path(), Duration::from_secs(20));
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"done_delay_ms": 3_600_000}));
    shop.order("o-stuck");
    shop.wait_state("o-stuck", OrderState::Accepted);
    let gone = "unknown".to_owned();
    assert_eq!(shop.wait_told(1), [("o-stuck".to_owned(), gone)]);
    wait_for("the shop to be told", || {
        shop.telemetry
            .conditions
            .holds(Code::OrdersExpired)
            .then_some(())
    });
    // What became of it, people have to say; the next one is taken.
    shop.order("o-next");
    shop.wait_state("o-next", OrderState::Accepted);
    shop.wait_state("o-stuck", OrderState::Accepted);
}

#[test]
fn a_command_that_comes_too_late_to_the_device_is_refused_by_it_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    // The device loses the command twice: when it comes for the third time, 1.5 s have passed at the least.
    let shop = Shop::open_with(dir.path(), Duration::from_millis(1500));
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"drop_before_accept": 2}));
    shop.order("o-1");
    let told = shop.wait_told(1);
    // The device refuses it, or, when that took long, the box gave it up before.
    assert_eq!(told[0].0, "o-1");
    assert!(
        ["expired", "unknown"].contains(&told[0].1.as_str()),
        "{told:?}"
    );
    shop.wait_state("o-1", OrderState::Expired);
    shop.close();

    let shop = Shop::open(dir.path());
    shop.order("o-2");
    assert_eq!(kitchen.wait_seen(1), ["o-2"], "never executed");
    shop.wait_told(2);
    assert_eq!(shop.told().len(), 2, "and told once");
}

#[test]
fn a_failure_on_the_device_is_reported_and_does_not_hold_up_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    kitchen.faults(&json!({"fail": 1}));
    shop.order("o-1");
    shop.order("o-2");
    let told = shop.wait_told(2);
    assert_eq!(told[0], ("o-1".to_owned(), "failed".to_owned()));
    assert_eq!(told[1], ("o-2".to_owned(), "ok".to_owned()));
    shop.wait_state("o-1", OrderState::Failed);
    assert_eq!(kitchen.seen(), ["o-2"]);
}

#[test]
fn the_longest_order_that_fits_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (kitchen, _) = shop.kitchen(dir.path());
    let note = "é".repeat(130_000);
    shop.order_with("o-1", &json!([note]));
    kitchen.wait_seen(1);
    assert_eq!(kitchen.lines()[0]["body"]["lines"][0], note);
}

#[test]
fn a_device_that_does_not_listen_is_a_condition_and_is_served_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    shop.order("o-1");
    wait_for("the vacant role to be told", || {
        let conditions = &shop.telemetry.conditions;
        conditions.holds(Code::NoDeviceForRole).then_some(())
    });
    let (kitchen, paired) = shop.kitchen(dir.path());
    shop.wait_told(1);
    kitchen.faults(&json!({"refuse_connections": true}));
    wait_for("the device to stop listening", || {
        (kitchen.report()["connected"] == false).then_some(())
    });
    shop.order("o-2");
    wait_for("the box to notice", || {
        match shop.dispatch.link(&paired.device_id)? {
            LinkState::Unreachable { .. } => Some(()),
            LinkState::Connected => None,
        }
    });
    kitchen.faults(&json!({"refuse_connections": false}));
    assert_eq!(kitchen.wait_seen(2), ["o-1", "o-2"]);
    wait_for("the condition to end", || {
        (!shop.telemetry.conditions.holds(Code::NoDeviceForRole)).then_some(())
    });
}

#[test]
fn what_a_lost_device_holds_goes_to_another_one_and_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open_releasing(dir.path(), Duration::from_secs(3600), Duration::ZERO);
    let (mut lost, _) = shop.another_kitchen(dir.path(), "lost");
    lost.faults(&json!({"done_delay_ms": 600_000}));
    shop.order("o-1");
    shop.wait_state("o-1", OrderState::Accepted);
    lost.kill();

    // Nobody else could take it: it stays with the lost one, which may come back.
    shop.order("o-2");
    let (kitchen, paired) = shop.another_kitchen(dir.path(), "kitchen");
    assert_eq!(kitchen.wait_seen(2).len(), 2);
    let mut told = shop.wait_told(2);
    told.sort();
    assert_eq!(told, ok(&["o-1", "o-2"]));
    let repeated = kitchen
        .lines()
        .into_iter()
        .find(|line| line["body"]["order_id"] == "o-1")
        .unwrap();
    assert_eq!(repeated["possible_duplicate"], true);

    // The end of a pairing takes it away at once, and gives it to who is left.
    kitchen.faults(&json!({"done_delay_ms": 600_000}));
    shop.order("o-3");
    shop.wait_state("o-3", OrderState::Accepted);
    let (third, _) = shop.another_kitchen(dir.path(), "third");
    assert!(shop.store.devices.revoke(&paired.device_id).wait().unwrap());
    assert_eq!(third.wait_seen(1), ["o-3"]);
    assert_eq!(third.lines()[0]["possible_duplicate"], true);
}

#[test]
fn the_only_order_of_a_quiet_shop_leaves_a_lost_device_too() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open_releasing(dir.path(), Duration::from_secs(3600), Duration::ZERO);
    let (mut lost, _) = shop.another_kitchen(dir.path(), "lost");
    lost.faults(&json!({"done_delay_ms": 600_000}));
    shop.order("o-1");
    shop.wait_state("o-1", OrderState::Accepted);
    // It has nothing to do, so the box holds no session with it.
    let (kitchen, _) = shop.another_kitchen(dir.path(), "kitchen");
    lost.kill();
    assert_eq!(kitchen.wait_seen(1), ["o-1"]);
    assert_eq!(kitchen.lines()[0]["possible_duplicate"], true);
    assert_eq!(shop.wait_told(1), ok(&["o-1"]));
}

#[test]
fn the_shop_and_the_platform_are_told_who_is_lost_and_who_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open_telling(dir.path());
    let (mut kitchen, paired) = shop.kitchen(dir.path());
    kitchen.kill();
    shop.order("o-1");
    let told = |count: usize| {
        wait_for(&format!("{count} events of the device"), || {
            let orders = &shop.store.orders;
            let items = orders.outbox_due(Lane::Events, i64::MAX, 100).unwrap();
            (items.len() == count).then_some(items)
        })
    };
    let lost = told(1);
    assert_eq!(lost[0].kind, "device.lost");
    let body: Value = serde_json::from_str(lost[0].body.get()).unwrap();
    let expected = json!({"device_id": paired.device_id, "role": "kitchen"});
    assert_eq!(body, expected);
    wait_for("the condition", || {
        let conditions = &shop.telemetry.conditions;
        conditions.holds(Code::DeviceUnreachable).then_some(())
    });
    shop.meet(&mut kitchen, &paired);
    assert_eq!(kitchen.wait_seen(1), ["o-1"]);
    let back = told(2).pop().unwrap();
    assert_eq!(back.kind, "device.back");
    let body: Value = serde_json::from_str(back.body.get()).unwrap();
    assert_eq!(body, expected);
    wait_for("the condition to end", || {
        let conditions = &shop.telemetry.conditions;
        (!conditions.holds(Code::DeviceUnreachable)).then_some(())
    });
}

#[test]
fn the_loop_of_dispatch_answers_a_probe() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let (tell, answer) = std::sync::mpsc::channel();
    shop.dispatch.probe(move || tell.send(()).unwrap());
    answer
        .recv_timeout(crate::kitchen::DEADLINE)
        .expect("dispatch is alive");
}
