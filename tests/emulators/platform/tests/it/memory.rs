//! Nothing a box was told or told us is forgotten over a kill.

use crate::emulator::Emulator;

const EVENT: &str = r#"{"kind":"order.advanced","occurred_at":"2026-01-02T03:04:05Z","body":{}}"#;

#[test]
fn state_survives_a_kill() {
    let mut emulator = Emulator::start(&[]);
    emulator.control("PUT", "/documents/products/a", r#"{"name":"one"}"#);
    emulator.control("POST", "/orders", r#"{"order_id":"o1"}"#);
    emulator.control("PUT", "/blobs/media/x.png", "bytes");
    assert_eq!(
        emulator
            .api("POST", "/events", &[("Idempotency-Key", "k")], EVENT)
            .unwrap()
            .status,
        201
    );
    let snapshot = emulator.snapshot();
    let cursor = snapshot.0["cursor"].as_str().unwrap();
    let ca = std::fs::read(emulator.dir.path().join("ca/ca.pem")).unwrap();

    emulator.restart();

    assert_eq!(
        std::fs::read(emulator.dir.path().join("ca/ca.pem")).unwrap(),
        ca
    );
    // The same snapshot, part by part.
    assert_eq!(emulator.snapshot(), snapshot);
    emulator.control("PUT", "/documents/products/a", r#"{"name":"two"}"#);
    let page = emulator
        .api("GET", &format!("/feed?cursor={cursor}"), &[], "")
        .unwrap()
        .json();
    assert_eq!(page["items"][0]["version"], 2);
    assert_eq!(
        emulator
            .api("POST", "/events", &[("Idempotency-Key", "k")], EVENT)
            .unwrap()
            .status,
        200
    );
    let queue = emulator.control("GET", "/bus/site-s1", "");
    assert_eq!(queue["messages"][0]["message_id"], "o1");
    let blob = ureq::http::Request::get(format!("{}/media/x.png", emulator.url("blob")));
    assert_eq!(
        emulator
            .send(blob.body(String::new()).unwrap())
            .unwrap()
            .body,
        "bytes"
    );
}

#[test]
fn large_messy_catalogue_is_served_and_loads_once() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let mut text = String::new();
    for number in 0..20_000 {
        text += &format!(
            "{{\"sku\":\"s{number}\",\"name\":\"Café {number}\",\"price\":{number}.50}}\n"
        );
        if number % 1000 == 0 {
            text += "half a {line\n\n";
        }
    }
    std::fs::write(list.path(), text).unwrap();
    let mut emulator = Emulator::start(&["--catalogue", list.path().to_str().unwrap()]);
    assert_eq!(emulator.snapshot().1.lines().count(), 20_000);
    let before = emulator.control("GET", "/state", "");
    emulator.restart();
    assert_eq!(emulator.control("GET", "/state", ""), before);
}

#[test]
fn changes_beyond_those_kept_answer_refetch() {
    let emulator = Emulator::start(&[]);
    emulator.control("PUT", "/feed", r#"{"keep_changes":2}"#);
    let (plan, _) = emulator.snapshot();
    let feed = format!("/feed?cursor={}", plan["cursor"].as_str().unwrap());
    for name in ["one", "two"] {
        emulator.control(
            "PUT",
            "/documents/products/a",
            format!("{{\"name\":\"{name}\"}}"),
        );
    }
    assert_eq!(
        emulator.api("GET", &feed, &[], "").unwrap().json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    emulator.control("PUT", "/documents/products/a", "{}");
    let gone = emulator.api("GET", &feed, &[], "").unwrap();
    assert_eq!(
        (gone.status, gone.json()["type"].as_str()),
        (410, Some("urn:comptoir:refetch"))
    );
    assert_eq!(
        emulator.snapshot().1,
        "{\"collection\":\"products\",\"id\":\"a\",\"version\":3,\"data\":{}}\n"
    );
}
