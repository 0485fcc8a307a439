//! Port 8000.

use std::sync::Arc;
use std::time::Duration;

use comptoir::clock::ManualClock;
use comptoir::config::LanPort;
use serde_json::json;

use super::served::Served;

const PORT: LanPort = LanPort::Catalogue;

fn filled() -> Served {
    let served = Served::start();
    served.publish(&[
        (
            "products",
            "p1",
            3,
            Some(r#"{"name":"Quiche","barcodes":["3017620422003"],"price":{"amount":"4.50"}}"#),
        ),
        (
            "products",
            "p2",
            1,
            Some(r#"{"name":"Espresso","barcodes":["1","2"]}"#),
        ),
        ("products", "a/b é", 1, Some(r#"{"n": 1.10}"#)),
        ("stores", "s1", 1, Some("{}")),
    ]);
    served
}

#[test]
fn a_document_comes_as_it_was_published_with_its_version_and_tag() {
    let served = filled();
    let answer = served.get(PORT, "/v1/documents/products/p1");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("comptoir-document-version"), Some("3"));
    let document = answer.json();
    assert_eq!(document["id"], "p1");
    assert_eq!(document["version"], 3);
    assert_eq!(document["data"]["price"]["amount"], "4.50");

    let escaped = served.get(PORT, "/v1/documents/products/a%2Fb%20%C3%A9");
    assert!(
        String::from_utf8(escaped.body)
            .unwrap()
            .contains(r#""data":{"n": 1.10}"#)
    );

    let tag = answer.header("etag").unwrap();
    let ask = |method| {
        served
            .ask(PORT, method, "/v1/documents/products/p1")
            .header("if-none-match", tag)
            .send()
    };
    for known in [ask("GET"), ask("HEAD")] {
        assert_eq!(known.status, 304);
        assert_eq!(known.header("etag"), Some(tag));
        assert!(known.body.is_empty());
    }
    served.publish(&[("products", "p1", 4, Some("{}"))]);
    assert_eq!(ask("GET").status, 200);

    let head = served.ask(PORT, "HEAD", "/v1/documents/products/p2").send();
    let body = served.get(PORT, "/v1/documents/products/p2").body;
    assert_eq!(
        head.header("content-length"),
        Some(body.len().to_string().as_str())
    );
    assert!(head.body.is_empty());

    served
        .get(PORT, "/v1/documents/products/p9")
        .is_problem(404, "not-found");
    served
        .get(PORT, "/v1/documents/nothing/p1")
        .is_problem(404, "not-found");
}

#[test]
fn a_barcode_leads_to_its_products() {
    let served = filled();
    let answer = served.get(PORT, "/v1/barcodes/3017620422003");
    assert_eq!(answer.json()["items"][0]["id"], "p1");
    let tag = answer.header("etag").unwrap();
    let known = served
        .ask(PORT, "GET", "/v1/barcodes/3017620422003")
        .header("if-none-match", tag)
        .send();
    assert_eq!(known.status, 304);
    served
        .get(PORT, "/v1/barcodes/999")
        .is_problem(404, "not-found");
    served.publish(&[("products", "p3", 1, Some(r#"{"barcodes":["1"]}"#))]);
    let both = served.get(PORT, "/v1/barcodes/1").json();
    assert_eq!(both["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_collection_is_read_page_by_page_without_gap_or_repeat() {
    let served = Served::start();
    let ids: Vec<String> = (0..25).map(|n| format!("p{n:03}")).collect();
    let documents: Vec<_> = ids
        .iter()
        .map(|id| ("products", id.as_str(), 1, Some("{}")))
        .collect();
    served.publish(&documents);
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = served
            .get(
                PORT,
                &format!("/v1/documents/products?limit=10&after={after}"),
            )
            .json();
        for item in page["items"].as_array().unwrap() {
            seen.push(item["id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    for limit in ["0", "1001", "-1", "x", "", "1&limit=2"] {
        served
            .get(PORT, &format!("/v1/documents/products?limit={limit}"))
            .is_problem(400, "bad-request");
    }
    let empty = served.get(PORT, "/v1/documents/nothing").json();
    assert_eq!(empty, json!({"items": [], "next": null}));
}

#[test]
fn the_feed_tells_changes_and_deletions_and_sends_strangers_back_to_the_start() {
    let served = filled();
    let first = served.get(PORT, "/v1/changes?limit=1000").json();
    assert_eq!(first["items"].as_array().unwrap().len(), 4);
    assert_eq!(first["caught_up"], true);
    let cursor = first["next"].as_str().unwrap();
    served.publish(&[
        ("products", "p1", 4, None),
        ("products", "p2", 2, Some("{\"x\":1}")),
    ]);
    let second = served
        .get(PORT, &format!("/v1/changes?cursor={cursor}"))
        .json();
    assert_eq!(
        second["items"],
        json!([
            {"collection": "products", "id": "p1", "version": 4, "deleted": true},
            {"collection": "products", "id": "p2", "version": 2, "deleted": false, "data": {"x": 1}},
        ])
    );
    let end = second["next"].as_str().unwrap();
    let third = served
        .get(PORT, &format!("/v1/changes?cursor={end}"))
        .json();
    assert_eq!(third["items"], json!([]));
    assert_eq!(third["next"], end);
    for cursor in ["rubbish", "00000000-5", "%00", "..%2F.."] {
        served
            .get(PORT, &format!("/v1/changes?cursor={cursor}"))
            .is_problem(410, "refetch");
    }
}

#[test]
fn the_age_of_what_is_known_is_told() {
    let served = Served::start();
    let age = |served: &Served| {
        let answer = served.get(PORT, "/v1/changes");
        answer.header("comptoir-catalogue-age").map(str::to_owned)
    };
    assert_eq!(age(&served), None, "nothing was ever pulled");
    served.publish(&[("products", "p1", 1, Some("{}"))]);
    let age = crate::kitchen::wait_for("the age", || age(&served));
    assert!(age.parse::<u64>().unwrap() < 60, "{age}");
}

#[test]
fn pages_that_nobody_takes_have_a_bound_and_single_documents_are_served_on() {
    let served = Served::start();
    let megabyte = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
    for id in ["a", "b", "c", "d"] {
        served.publish(&[("large", id, 1, Some(&megabyte))]);
    }
    let mut slow = Vec::new();
    let refused = crate::kitchen::wait_for("the bound", || {
        // Another one each time: a page of this test itself may have held the place of one that was refused.
        slow.push(served.ask(PORT, "GET", "/v1/documents/large").open_narrow());
        let answer = served.get(PORT, "/v1/documents/large");
        (answer.status == 503).then_some(answer)
    });
    refused.is_problem(503, "busy");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(served.get(PORT, "/v1/documents/large/a").status, 200);
    drop(slow);
    crate::kitchen::wait_for("room again", || {
        (served.get(PORT, "/v1/documents/large").status == 200).then_some(())
    });
}

#[test]
fn every_answer_names_the_state_of_the_catalogue_a_refusal_too() {
    let served = Served::start();
    let version = |answer: &super::client::Answer| {
        let version = answer.header("comptoir-catalogue-version");
        version.expect("every answer has one").to_owned()
    };
    let first = version(&served.get(PORT, "/v1/changes"));
    served.publish(&[("products", "p1", 1, Some("{}"))]);
    let then = crate::kitchen::wait_for("another state", || {
        let then = version(&served.get(PORT, "/v1/documents/products/p1"));
        (then != first).then_some(then)
    });
    for path in [
        "/v1/documents/products",
        "/v1/changes",
        "/v1/documents/products/none",
        "/v1/nowhere",
    ] {
        assert_eq!(version(&served.get(PORT, path)), then, "{path}");
    }
    let stranger = served.stranger(PORT, "GET", "/v1/changes").send();
    assert_eq!((stranger.status, version(&stranger)), (401, then));
}

#[test]
fn a_price_is_switched_when_its_moment_comes_and_devices_are_told() {
    let start: jiff::Timestamp = "2026-05-01T10:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let served = Served::with_clock(clock.clone());
    let until_then = Duration::from_secs(2);
    let soon = start + until_then;
    let body = format!(
        r#"{{"barcodes":["9"],"prices":[{{"amount":"2.00"}},{{"amount": "1.50","valid_from":"{soon}"}}]}}"#
    );
    served.publish(&[("products", "p1", 1, Some(&body))]);
    let ask = || served.get(PORT, "/v1/documents/products/p1");
    let before = ask();
    assert_eq!(before.json()["price"]["amount"], "2.00");
    let cursor = served.get(PORT, "/v1/changes").json()["next"].clone();
    clock.advance(until_then);
    let after = crate::kitchen::wait_for("the offer", || {
        let answer = ask();
        (answer.json()["price"]["amount"] == "1.50").then_some(answer)
    });
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(after.json()["data"], before.json()["data"]);
    assert_eq!(after.json()["version"], 1);
    let path = format!("/v1/changes?cursor={}", cursor.as_str().unwrap());
    let told = served.get(PORT, &path).json();
    assert_eq!(told["items"][0]["id"], "p1");
    assert_eq!(told["items"][0]["price"]["amount"], "1.50");
    let found = served.get(PORT, "/v1/barcodes/9").json();
    assert_eq!(found["items"][0]["price"]["amount"], "1.50");
}
