//! What no foreign client checks: waits, lock expiry, duplicates, the Content-Length rule.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use ureq::http::Request;

use crate::emulator::{Answer, Emulator};

/// A token for the whole namespace.
fn token() -> String {
    let resource = "https%3A%2F%2F127.0.0.1%2F";
    let expiry = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 60;
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a2V5").unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=Root")
}

fn call(emulator: &Emulator, method: &str, path: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(format!("{}/{path}", emulator.url("bus")));
    emulator
        .send(
            request
                .header("Authorization", token())
                .body(String::new())
                .unwrap(),
        )
        .unwrap()
}

#[test]
fn waiting_receiver_gets_an_order_at_once() {
    let emulator = Emulator::start(&[]);
    let started = Instant::now();
    let answer = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| call(&emulator, "POST", "site-s1/messages/head?timeout=60"));
        emulator.control(
            "POST",
            "/orders",
            r#"{"order_id":"o1","lines":[{"sku":"a"}]}"#,
        );
        receiver.join().unwrap()
    });
    // Not by the end of the poll, which would be answered 204.
    assert!(started.elapsed() < Duration::from_secs(50));
    assert_eq!(answer.status, 201);
    let order = answer.json();
    assert_eq!(
        (
            order["order_id"].as_str(),
            order["lines"][0]["sku"].as_str()
        ),
        (Some("o1"), Some("a"))
    );
    assert!(order["placed_at"].is_string());
    let location = answer.header("location");
    assert!(
        location.starts_with(&format!("{}/site-s1/messages/", emulator.url("bus"))),
        "{location}"
    );
    let settled = call(
        &emulator,
        "DELETE",
        location
            .split_once("/site-s1/")
            .map(|(_, rest)| format!("site-s1/{rest}"))
            .unwrap()
            .as_str(),
    );
    assert_eq!(settled.status, 200);
    assert_eq!(
        emulator.control("GET", "/bus/site-s1", "")["messages"],
        serde_json::json!([])
    );
}

#[test]
fn waiting_receiver_gets_a_message_whose_lock_expires() {
    let emulator = Emulator::start(&[]);
    emulator.control("PUT", "/bus/queues/short", r#"{"lock_ms":500}"#);
    emulator.control("POST", "/bus/short/messages", "body");
    assert_eq!(
        call(&emulator, "POST", "short/messages/head?timeout=0").status,
        201
    );
    assert_eq!(emulator.control("GET", "/bus/short", "")["locked"], 1);
    let again = call(&emulator, "POST", "short/messages/head?timeout=60");
    assert_eq!((again.status, again.body.as_str()), (201, "body"));
    assert!(
        again
            .header("brokerproperties")
            .contains("\"DeliveryCount\":2")
    );
}

#[test]
fn lock_holds_over_a_restart() {
    let mut emulator = Emulator::start(&[]);
    emulator.control("POST", "/orders", r#"{"order_id":"o1"}"#);
    let first = call(&emulator, "POST", "site-s1/messages/head?timeout=0");
    emulator.restart();
    assert_eq!(
        call(&emulator, "POST", "site-s1/messages/head?timeout=0").status,
        204
    );
    let path = first
        .header("location")
        .split_once("/site-s1/")
        .unwrap()
        .1
        .to_owned();
    assert_eq!(
        call(&emulator, "POST", &format!("site-s1/{path}")).status,
        200,
        "renew"
    );
    assert_eq!(
        call(&emulator, "DELETE", &format!("site-s1/{path}")).status,
        200,
        "complete"
    );
}

#[test]
fn duplicate_order_is_sent_once_where_the_queue_detects_it() {
    let emulator = Emulator::start(&[]);
    let order = r#"{"order_id":"o1"}"#;
    emulator.control("POST", "/orders", order);
    emulator.control("POST", "/orders", order);
    assert_eq!(emulator.control("GET", "/bus/site-s1", "")["active"], 2);
    emulator.control(
        "PUT",
        "/bus/queues/careful",
        r#"{"duplicate_window_ms":60000}"#,
    );
    emulator.control("POST", "/orders?queue=careful", order);
    let second = emulator.control("POST", "/orders?queue=careful", order);
    assert!(second["sequence_number"].is_null());
    assert_eq!(emulator.control("GET", "/bus/careful", "")["active"], 1);
}
