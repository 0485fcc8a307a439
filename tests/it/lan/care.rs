//! Port 8004.

use std::sync::Arc;

use comptoir::clock::ManualClock;
use comptoir::config::LanPort;
use comptoir::store::orders::Lane;
use comptoir::units::ByteSize;
use serde_json::{Value, json};

use super::client::Answer;
use super::served::{CLAIM_CODE, Served};

const PORT: LanPort = LanPort::Care;

fn pair(served: &Served, code: &str) -> Answer {
    served
        .stranger(PORT, "POST", "/v1/pair")
        .json(&json!({"code": code, "name": "Kiosk 1", "role": "kiosk"}))
        .send()
}

#[test]
fn the_code_pairs_a_device_that_then_gets_in() {
    let served = Served::start();
    let answer = pair(&served, CLAIM_CODE);
    assert_eq!(answer.status, 201);
    let paired = answer.json();
    assert_eq!(paired["command_key"].as_str().unwrap().len(), 64);
    assert_eq!(paired["box_key"].as_str().unwrap().len(), 64);
    let token = format!("Bearer {}", paired["token"].as_str().unwrap());
    let asked = served
        .stranger(LanPort::Orders, "GET", "/v1/orders")
        .header("authorization", &token)
        .send();
    assert_eq!(asked.status, 200);
    let device = served
        .store
        .devices
        .by_id(paired["device_id"].as_str().unwrap())
        .unwrap();
    assert_eq!(
        (device.name.as_str(), device.role.as_str()),
        ("Kiosk 1", "kiosk")
    );
    assert_eq!(device.address, Some([127, 0, 0, 1].into()));
    // The platform learns of it, not of its secrets.
    let told = served.store.orders.outbox_due(Lane::Events, i64::MAX, 10);
    let told = &told.unwrap()[0];
    assert_eq!(told.kind, "device.paired");
    let body: Value = serde_json::from_str(told.body.get()).unwrap();
    let expected = json!({"device_id": device.device_id, "role": "kiosk"});
    assert_eq!(body, expected);
}

#[test]
fn wrong_codes_are_refused_and_soon_not_even_looked_at() {
    // Its clock stands still, so that nothing is forgotten meanwhile.
    let now = "2026-05-01T10:00:00Z".parse().unwrap();
    let served = Served::with_clock(Arc::new(ManualClock::at(now)));
    for _ in 0..5 {
        pair(&served, "CODE-9999").is_problem(403, "pairing-code-refused");
    }
    for code in ["CODE-9999", CLAIM_CODE] {
        let answer = pair(&served, code);
        answer.is_problem(429, "too-many-requests");
        assert!(
            answer
                .header("retry-after")
                .unwrap()
                .parse::<u64>()
                .unwrap()
                > 0
        );
    }
    assert_eq!(served.store.devices.count(), 1);
}

#[test]
fn a_pairing_that_says_too_little_or_too_much_is_refused() {
    let served = Served::start();
    let send = |body: &Value| served.stranger(PORT, "POST", "/v1/pair").json(body).send();
    for body in [
        json!({}),
        json!([]),
        json!([CLAIM_CODE, "Kiosk", "kiosk"]),
        json!({"code": CLAIM_CODE, "name": "", "role": "kiosk"}),
        json!({"code": CLAIM_CODE, "name": "a\nb", "role": "kiosk"}),
        json!({"code": CLAIM_CODE, "name": "x".repeat(65), "role": "kiosk"}),
        json!({"code": CLAIM_CODE, "name": "x", "role": "ki osk"}),
        json!({"code": CLAIM_CODE, "name": "x", "role": "kiosk", "admin": true}),
    ] {
        send(&body).is_problem(422, "unprocessable");
    }
    assert_eq!(served.store.devices.count(), 1);
}

#[test]
fn the_box_takes_as_many_devices_as_the_settings_say() {
    let served = Served::with("[devices]\nmax_devices = 2\n");
    assert_eq!(pair(&served, CLAIM_CODE).status, 201);
    pair(&served, CLAIM_CODE).is_problem(409, "devices-full");
}

#[test]
fn a_heartbeat_tells_the_time_and_what_waits() {
    let served = Served::start();
    let order = json!({"order_id": "o1", "placed_at": "2026-05-01T10:00:00Z", "lines": []});
    served
        .ask(LanPort::Orders, "POST", "/v1/orders")
        .header("idempotency-key", "k")
        .json(&order)
        .send();
    let beat = |body: &Value| served.ask(PORT, "POST", "/v1/heartbeat").json(body).send();
    let answer = beat(&json!({"uptime_s": 5, "version": "1", "anything": [1]})).json();
    assert_eq!(answer["pending_commands"], 1);
    assert_eq!(answer["command_port"], 8081);
    assert!(answer["now"].as_str().unwrap().ends_with('Z'));
    assert!(answer["now_ms"].as_i64().unwrap() > 1_700_000_000_000);
    let device = served.store.devices.by_id(&served.device_id).unwrap();
    assert!(device.seen_at_ms.is_some());
    assert_eq!(device.address, Some([127, 0, 0, 1].into()));

    assert_eq!(
        beat(&json!({"command_port": 8081.0})).json()["command_port"],
        8081
    );
    let device = served.store.devices.by_id(&served.device_id).unwrap();
    assert_eq!(device.command_port, Some(8081));
    for no_port in [
        json!(0),
        json!(9000), // the contract knows one port for commands
        json!(70_000),
        json!(1.5),
        json!(-1),
        json!("8081"),
    ] {
        beat(&json!({"command_port": no_port})).is_problem(422, "unprocessable");
    }
    beat(&json!([8081])).is_problem(422, "unprocessable");
    served
        .ask(PORT, "POST", "/v1/heartbeat")
        .body("{")
        .send()
        .is_problem(400, "bad-request");
}

#[test]
fn what_is_reserved_for_orders_is_not_filled_with_receipts() {
    // More than any disk has.
    let served = Served::reserving(ByteSize::mib(1 << 30), "");
    let send = |port, path, body: &Value| {
        served
            .ask(port, "POST", path)
            .header("idempotency-key", "k1")
            .json(body)
            .send()
    };
    let receipt = json!({"kind": "printed", "body": {}});
    let refused = send(PORT, "/v1/receipts", &receipt);
    refused.is_problem(503, "storage");
    assert_eq!(refused.header("retry-after"), Some("30"));
    let order = json!({"order_id": "o1", "placed_at": "2026-05-01T10:00:00Z", "lines": []});
    assert_eq!(send(LanPort::Orders, "/v1/orders", &order).status, 201);
}

#[test]
fn a_receipt_is_taken_once_and_goes_to_the_platform() {
    let served = Served::start();
    let send = |key: &str, body: &Value| {
        served
            .ask(PORT, "POST", "/v1/receipts")
            .header("idempotency-key", key)
            .json(body)
            .send()
    };
    let receipt = json!({"kind": "printed", "body": {"paper": "out"}});
    assert_eq!(send("k1", &receipt).status, 201);
    assert_eq!(send("k1", &receipt).status, 200);
    send("k1", &json!({"kind": "printed", "body": {}})).is_problem(409, "idempotency-key-conflict");
    send("k2", &json!({"kind": "a b", "body": {}})).is_problem(422, "unprocessable");
    send("k2", &json!(["x", {}])).is_problem(422, "unprocessable");
    send("k2", &json!({"kind": "x"})).is_problem(422, "unprocessable");
    let lane = comptoir::store::Lane::Receipts;
    let items = served.store.orders.outbox_due(lane, i64::MAX, 10).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].kind, "receipt.printed");
    assert_eq!(items[0].body.get(), r#"{"paper":"out"}"#);
}

#[test]
fn a_developers_machine_with_shifted_ports_takes_other_command_ports() {
    let served = Served::with("[lan]\nport_offset = 1\n");
    let body = json!({"command_port": 9000});
    let answer = served.ask(PORT, "POST", "/v1/heartbeat").json(&body).send();
    assert_eq!(answer.json()["command_port"], 9000);
    let device = served.store.devices.by_id(&served.device_id).unwrap();
    assert_eq!(device.command_port, Some(9000));
}
