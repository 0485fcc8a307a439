//! What must be so when the weather is over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::platform::SITE;
use crate::traffic::Told;
use crate::world::World;

/// Whatever waits longer than this waits for ever: many times the longest pause between two tries of these boxes.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What is still under way, if anything is.
pub fn still_waits(world: &World, told: &Told) -> Option<String> {
    let queued = world.platform.queued();
    if queued > 0 {
        return Some(format!("{queued} messages in the queue of {SITE}"));
    }
    let (orders, seen) = (
        told.internet.len() + told.counter.len(),
        world.kitchen.seen().len(),
    );
    if seen < orders {
        return Some(format!("the kitchen saw {seen} of {orders} orders"));
    }
    let done = events(world, "command.done").len();
    if done < orders {
        return Some(format!(
            "the platform knows of {done} of {orders} made orders"
        ));
    }
    let submitted = events(world, "order.submitted").len();
    if submitted < told.counter.len() {
        return Some(format!(
            "the platform knows {submitted} of {} orders of the counter",
            told.counter.len()
        ));
    }
    let to_send = world.to_send();
    if to_send > 0 {
        return Some(format!("{to_send} reports wait on the box"));
    }
    let stale = told
        .documents
        .iter()
        .find(|(id, data)| document(world, id).as_ref() != data.as_ref());
    if let Some((id, _)) = stale {
        return Some(format!("product {id} is not as the platform has it"));
    }
    let missing = told
        .images
        .iter()
        .find(|(sha256, bytes)| image(world, sha256).as_ref() != Some(*bytes));
    missing.map(|(sha256, _)| format!("image {sha256} is not served"))
}

/// The verdict.
pub fn everything_is_there_exactly_once(world: &World, told: &Told) {
    let mut orders: Vec<String> = told.internet.iter().chain(&told.counter).cloned().collect();
    orders.sort();
    let name = world.name;

    let mut seen = world.kitchen.seen();
    seen.sort();
    assert_eq!(differences(&orders, &seen), NONE, "{name}: in the kitchen");

    let held = held_orders(world);
    let mut ids: Vec<String> = held.iter().map(|order| text(order, "order_id")).collect();
    ids.sort();
    assert_eq!(differences(&orders, &ids), NONE, "{name}: on the box");
    for order in &held {
        assert_eq!(text(order, "state"), "done", "{name}: {order}");
    }

    let made = ids_of(&events(world, "command.done"));
    assert_eq!(
        differences(&orders, &made),
        NONE,
        "{name}: made orders at the platform"
    );
    let mut counter = told.counter.clone();
    counter.sort();
    let submitted = ids_of(&events(world, "order.submitted"));
    assert_eq!(
        differences(&counter, &submitted),
        NONE,
        "{name}: orders of the counter at the platform"
    );
}

const NONE: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());

/// What is missing from `found`, and what is there too often or without reason.
fn differences(wanted: &[String], found: &[String]) -> (Vec<String>, Vec<String>) {
    let mut counts: BTreeMap<&String, i32> = BTreeMap::new();
    for id in wanted {
        *counts.entry(id).or_default() += 1;
    }
    for id in found {
        *counts.entry(id).or_default() -= 1;
    }
    let those = |wrong: fn(i32) -> bool| {
        let those = counts.iter().filter(|(_, count)| wrong(**count));
        those.map(|(id, _)| (*id).clone()).collect()
    };
    (those(|count| count > 0), those(|count| count < 0))
}

fn events(world: &World, kind: &str) -> Vec<Value> {
    world
        .platform
        .events()
        .into_iter()
        .filter(|event| event["kind"] == kind)
        .collect()
}

fn ids_of(events: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = events
        .iter()
        .map(|event| text(&event["event"]["body"], "order_id"))
        .collect();
    ids.sort();
    ids
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// All orders the box holds, page by page.
fn held_orders(world: &World) -> Vec<Value> {
    let mut held = Vec::new();
    let mut after = 0;
    loop {
        let path = format!("/v1/orders?after={after}&limit=500");
        let page = world.server.json(8001, &path, Some(world.token()));
        let orders = page["items"]
            .as_array()
            .unwrap_or_else(|| panic!("no items in {page}"));
        held.extend(orders.iter().cloned());
        match page["next"].as_i64() {
            Some(next) if !orders.is_empty() => after = next,
            _ => return held,
        }
    }
}

/// A product's data as a device gets them.
fn document(world: &World, id: &str) -> Option<Value> {
    let path = format!("/v1/documents/products/{id}");
    let (status, body) = world.server.get(8000, &path, Some(world.token()))?;
    let document: Value = serde_json::from_slice(&body).ok()?;
    (status == 200).then(|| document["data"].clone())
}

fn image(world: &World, sha256: &str) -> Option<Vec<u8>> {
    let path = format!("/v1/media/{sha256}");
    let (status, body) = world.server.get(8003, &path, Some(world.token()))?;
    (status == 200).then_some(body)
}

/// The oracle itself: it must see an order that is missing, one that is there twice, and one that nobody gave.
pub fn catches_what_is_wrong(world: &World, told: &Told) {
    let mut more = told.clone();
    more.internet.push("never-given".to_owned());
    assert!(still_waits(world, &more).is_some(), "a missing order waits");
    let orders: Vec<String> = told.internet.clone();
    let mut twice = orders.clone();
    twice.push(orders[0].clone());
    assert_eq!(
        differences(&orders, &twice),
        (Vec::new(), vec![orders[0].clone()])
    );
    assert_eq!(
        differences(&orders, &orders[1..]),
        (vec![orders[0].clone()], Vec::new())
    );
    let mut stale = told.clone();
    let (id, _) = told.documents.first_key_value().unwrap();
    stale
        .documents
        .insert(id.clone(), Some(Value::String("another".into())));
    assert!(still_waits(world, &stale).is_some(), "an old price waits");
    let mut other = told.clone();
    for bytes in other.images.values_mut() {
        bytes[0] ^= 1;
    }
    assert!(
        still_waits(world, &other).is_some(),
        "a damaged image waits"
    );
}
