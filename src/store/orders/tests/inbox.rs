//! Both ways meet in one inbox.

use super::super::*;
use super::{kinds, message};
use crate::store::testing::{Bench, order_json};

fn take(orders: &Orders, message_id: &str, source: Source, body: &str) -> Received {
    let message = InboxMessage {
        message_id: message_id.into(),
        source,
        body: body.as_bytes().to_vec(),
    };
    orders.receive(message).wait().unwrap()
}

fn parked_as(received: &Received) -> ParkCode {
    match received {
        Received::Parked { why, .. } => *why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_order_that_comes_by_both_ways_is_one() {
    let bench = Bench::new();
    let orders = bench.open().orders;
    let compact = order_json("o1");
    let spaced = compact
        .replace(':', " : ")
        .replace("T09 : 59 : 00", "T09:59:00");
    assert!(matches!(
        take(&orders, "m1", Source::Bus, &compact),
        Received::New { .. }
    ));
    assert_eq!(
        take(&orders, "m1", Source::Api, &spaced),
        Received::DuplicateMessage
    );
    assert!(matches!(
        take(&orders, "feed-1", Source::Api, &spaced),
        Received::DuplicateOrder { .. }
    ));
    assert_eq!(orders.list(0, None, 10).unwrap().len(), 1);
    assert!(orders.inbox_parked(10).unwrap().is_empty());
}

#[test]
fn the_same_order_with_other_content_is_parked_whole_and_told_whichever_way_it_comes() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    orders.receive(message("m1", "o1")).wait().unwrap();
    let other = order_json("o1").replace("\"n\":2", "\"n\":3");
    let by_feed = take(orders, "m2", Source::Api, &other);
    assert_eq!(parked_as(&by_feed), ParkCode::Conflict);
    // The same id, too.
    let by_bus = take(orders, "m1", Source::Bus, &other);
    assert_eq!(parked_as(&by_bus), ParkCode::Conflict);
    assert_eq!(
        take(orders, "m2", Source::Bus, &other),
        Received::DuplicateMessage
    );
    let parked = orders.inbox_parked(10).unwrap();
    assert_eq!(parked.len(), 2);
    assert_eq!(parked[0].body, other.as_bytes());
    assert_eq!(parked[0].why, "conflict");
    assert_eq!(
        orders.order("o1").unwrap().unwrap().body.get(),
        order_json("o1")
    );
    assert_eq!(
        kinds(&store, bench.now_ms()),
        ["order.parked", "order.parked"]
    );
    let faults = orders.inbox_faults().unwrap();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].0, "conflict");
}

#[test]
fn what_this_box_does_not_know_yet_is_parked_under_its_own_name() {
    let bench = Bench::new();
    let orders = bench.open().orders;
    let newer = r#"{"format_version":2,"order":{}}"#;
    let received = take(&orders, "m1", Source::Bus, newer);
    assert_eq!(parked_as(&received), ParkCode::UnknownVersion);
    let large = format!("\"{}\"", "x".repeat(MAX_ORDER_BYTES));
    let received = take(&orders, "m2", Source::Bus, &large);
    assert_eq!(parked_as(&received), ParkCode::TooLarge);
    assert_eq!(orders.inbox_parked(10).unwrap()[0].body.len(), large.len());
    let today = order_json("o1").replacen('{', "{\"format_version\":1,", 1);
    assert!(matches!(
        take(&orders, "m3", Source::Bus, &today),
        Received::New { .. }
    ));
}

#[test]
fn an_order_that_lies_elsewhere_is_known_again_by_the_message_alone() {
    let bench = Bench::new();
    let orders = bench.open().orders;
    let pointer = br#"{"claim_check":{"url":"https://h/c/o1"}}"#;
    let message = || InboxMessage {
        message_id: "m1".into(),
        source: Source::Bus,
        body: pointer.to_vec(),
    };
    assert!(!orders.has_message("m1", pointer).unwrap());
    let document = order_json("o1").into_bytes();
    let received = orders.receive_as(message(), Content::Claimed(document));
    assert!(matches!(received.wait().unwrap(), Received::New { .. }));
    assert!(orders.has_message("m1", pointer).unwrap());
    assert!(!orders.has_message("m1", b"{}").unwrap());
    assert_eq!(
        orders.receive(message()).wait().unwrap(),
        Received::DuplicateMessage
    );
    let body = orders.order("o1").unwrap().unwrap().body;
    assert_eq!(body.get(), order_json("o1"));
    // One that could not be had is kept as it came, with what was found instead.
    let mut other = message();
    other.message_id = "m2".into();
    let found = Content::Claimed(b"<html>".to_vec());
    let received = orders.receive_as(other, found).wait().unwrap();
    assert_eq!(parked_as(&received), ParkCode::Unreadable);
    let parked = orders.inbox_parked(1).unwrap().remove(0);
    assert_eq!(parked.body, pointer);
    assert_eq!(parked.document.as_deref(), Some(&b"<html>"[..]));
}

#[test]
fn a_page_of_the_feed_and_its_cursor_are_there_together() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    assert_eq!(orders.cursor().unwrap(), None);
    let page = |ids: &[&str]| -> Vec<(InboxMessage, Content)> {
        let messages = ids.iter().map(|id| message(id, &format!("o-{id}")));
        messages.map(|message| (message, Content::Itself)).collect()
    };
    let received = orders.receive_page(page(&["1", "2", "1"]), Some("c1".into()));
    let received = received.wait().unwrap();
    assert_eq!(received[2], Received::DuplicateMessage);
    assert_eq!(orders.cursor().unwrap().as_deref(), Some("c1"));
    drop(store);
    let orders = bench.open().orders;
    orders
        .receive_page(page(&["3"]), Some("c2".into()))
        .wait()
        .unwrap();
    assert_eq!(orders.cursor().unwrap().as_deref(), Some("c2"));
    assert_eq!(orders.list(0, None, 10).unwrap().len(), 3);
    orders.forget_cursor().wait().unwrap();
    assert_eq!(orders.cursor().unwrap(), None);
}

#[test]
fn a_claim_check_without_its_document_is_due_by_its_back_off_and_not_by_a_wrong_clock() {
    let bench = Bench::new();
    let store = bench.open();
    let orders = &store.orders;
    let missing = Content::Missing {
        why: ParkCode::NoDocument,
        reason: "HTTP 404".into(),
    };
    for id in ["c1", "c2"] {
        let received = orders.receive_as(message(id, "o1"), missing.clone());
        assert_eq!(parked_as(&received.wait().unwrap()), ParkCode::NoDocument);
    }
    let due = |now_ms| {
        let due = orders.claim_due(now_ms, 1000).unwrap();
        due.map(|due| (due.message.message_id, due.tries))
    };
    assert_eq!(due(5000), Some(("c1".into(), 0)));
    let put_off = |id, due_ms| orders.claim_put_off(id, "later".into(), due_ms).wait();
    assert!(put_off("c1", 6000).unwrap());
    assert_eq!(due(5000), Some(("c2".into(), 0)));
    assert!(put_off("c2", 5900).unwrap());
    assert_eq!(due(5000), None);
    assert_eq!(due(6000), Some(("c2".into(), 1)));
    assert_eq!(due(4000), Some(("c2".into(), 1)), "no wait is that long");
    // What somebody dropped meanwhile is not taken again.
    let parked = orders.claim_due(6000, 1000).unwrap().unwrap().message;
    assert!(orders.inbox_drop("c2").wait().unwrap());
    let document = Content::Claimed(order_json("o1").into_bytes());
    let taken = orders.claim_take(parked, document.clone());
    assert_eq!(taken.wait().unwrap(), None);
    assert!(orders.list(0, None, 10).unwrap().is_empty());
    let parked = orders.claim_due(6000, 1000).unwrap().unwrap().message;
    let taken = orders.claim_take(parked, document).wait().unwrap();
    assert!(matches!(taken, Some(Received::New { .. })), "{taken:?}");
    assert_eq!(due(i64::MAX - 1000), None);
}
