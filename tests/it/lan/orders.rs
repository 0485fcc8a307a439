//! Port 8001.

use comptoir::config::LanPort;
use serde_json::{Value, json};

use super::client::Answer;
use super::served::Served;

const PORT: LanPort = LanPort::Orders;

fn order(id: &str) -> Value {
    json!({"order_id": id, "placed_at": "2026-05-01T10:00:00Z", "lines": [{"product": "p1", "note": "é"}]})
}

fn submit(served: &Served, key: &str, order: &Value) -> Answer {
    served
        .ask(PORT, "POST", "/v1/orders")
        .header("idempotency-key", key)
        .json(order)
        .send()
}

#[test]
fn an_order_is_taken_once_however_often_it_is_sent() {
    let served = Served::start();
    let first = submit(&served, "k1", &order("o1"));
    assert_eq!(first.status, 201);
    assert_eq!(first.header("location"), Some("/v1/orders/o1"));
    assert_eq!(first.header("idempotent-replay"), None);
    let view = first.json();
    assert_eq!(view["state"], "received");
    assert_eq!(view["source"], "device");
    assert_eq!(view["role"], "kitchen");
    assert_eq!(view["body"], order("o1"));

    let again = submit(&served, "k1", &order("o1"));
    assert_eq!(again.status, 200);
    assert_eq!(again.header("idempotent-replay"), Some("true"));
    assert_eq!(again.body, first.body);

    submit(&served, "k1", &order("o2")).is_problem(409, "idempotency-key-conflict");
    let other_key = submit(&served, "k2", &order("o1"));
    assert_eq!(
        (other_key.status, other_key.header("idempotent-replay")),
        (200, Some("true"))
    );
    // Space around a document is no part of it.
    let in_a_file = served
        .ask(PORT, "POST", "/v1/orders")
        .header("idempotency-key", "k2b")
        .header("content-type", "application/json")
        .body(format!("{}\n", order("o1")))
        .send();
    assert_eq!(in_a_file.status, 200);
    let mut changed = order("o1");
    changed["lines"] = json!([]);
    submit(&served, "k3", &changed).is_problem(409, "order-exists");

    assert_eq!(served.get(PORT, "/v1/orders/o1").body, first.body);
    let all = served.get(PORT, "/v1/orders").json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    served
        .get(PORT, "/v1/orders/o2")
        .is_problem(404, "not-found");
}

#[test]
fn an_order_that_was_answered_is_in_the_database() {
    let served = Served::start();
    submit(&served, "k1", &order("o1"));
    let kept = served.store.orders.order("o1").unwrap().unwrap();
    assert_eq!(kept.body.get(), order("o1").to_string());
    let command = served
        .store
        .orders
        .next_command("d", "kitchen")
        .wait()
        .unwrap();
    assert_eq!(command.unwrap().order_id, "o1");
}

#[test]
fn a_write_without_a_key_is_refused_before_its_body_is_looked_at() {
    let served = Served::start();
    let ask = || served.ask(PORT, "POST", "/v1/orders");
    ask()
        .json(&order("o1"))
        .send()
        .is_problem(400, "idempotency-key-missing");
    let long = "k".repeat(129);
    for key in ["", "a b", "é", &long] {
        ask()
            .header("idempotency-key", key)
            .json(&order("o1"))
            .send()
            .is_problem(400, "idempotency-key-missing");
    }
    assert!(served.store.orders.order("o1").unwrap().is_none());
}

#[test]
fn what_is_no_order_is_refused_with_the_reason_and_the_place() {
    let served = Served::start();
    let send = |body: &str| {
        served
            .ask(PORT, "POST", "/v1/orders")
            .header("idempotency-key", "k")
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    for (body, place) in [
        ("", json!({"line": 1, "column": 0})),
        ("{\n  \"order_id\": }", json!({"line": 2, "column": 15})),
        ("[]", json!(null)),
        ("{}", json!({"field": "order_id"})),
        (
            r#"{"order_id":"a/b","placed_at":"2026-05-01T10:00:00Z","lines":[]}"#,
            json!({"field": "order_id"}),
        ),
        (
            r#"{"order_id":"a","placed_at":"soon","lines":[]}"#,
            json!({"field": "placed_at"}),
        ),
    ] {
        let answer = send(body);
        answer.is_problem(422, "unprocessable");
        assert_eq!(answer.json()["where"], place, "{body}");
    }
    let answer = send(r#"{"placed_at":"2026-05-01T10:00:00Z","lines":[]}"#);
    assert_eq!(answer.json()["detail"], "order_id is missing");
    served
        .ask(PORT, "POST", "/v1/orders")
        .header("idempotency-key", "k")
        .header("content-type", "text/xml")
        .body("<order/>")
        .send()
        .is_problem(415, "unsupported-media-type");
    assert_eq!(served.get(PORT, "/v1/orders").json()["items"], json!([]));
}

#[test]
fn an_order_moves_along_its_states_and_nowhere_else() {
    let served = Served::start();
    submit(&served, "k1", &order("o1"));
    let advance = |id: &str, body: &str| {
        served
            .ask(PORT, "POST", &format!("/v1/orders/{id}/advance"))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let to = |state: &str| advance("o1", &format!("{{\"to\":\"{state}\"}}"));
    assert_eq!(to("accepted").json()["state"], "accepted");
    assert_eq!(to("accepted").status, 200);
    assert_eq!(to("done").json()["state"], "done");
    let refused = to("received");
    refused.is_problem(409, "state-refused");
    assert_eq!(refused.json()["from"], "done");
    to("eaten").is_problem(422, "unprocessable");
    advance("o1", "{").is_problem(400, "bad-request");
    advance("o9", "{\"to\":\"done\"}").is_problem(404, "not-found");
}

#[test]
fn orders_are_listed_by_change_and_by_state() {
    let served = Served::start();
    for n in 0..5 {
        submit(&served, &format!("k{n}"), &order(&format!("o{n}")));
    }
    let page = served.get(PORT, "/v1/orders?limit=3").json();
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    let next = page["next"].as_i64().unwrap();
    let rest = served.get(PORT, &format!("/v1/orders?after={next}")).json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    assert_eq!(rest["next"], Value::Null);
    let done = served.get(PORT, "/v1/orders?state=done").json();
    assert_eq!(done["items"], json!([]));
    served
        .get(PORT, "/v1/orders?state=eaten")
        .is_problem(400, "bad-request");
    served
        .get(PORT, "/v1/orders?after=x")
        .is_problem(400, "bad-request");
}

#[test]
fn many_devices_at_once_get_one_answer_each_and_lose_nothing() {
    let served = Served::start();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let served = &served;
            scope.spawn(move || {
                for n in 0..20 {
                    let id = format!("o-{writer}-{n}");
                    assert_eq!(submit(served, &id, &order(&id)).status, 201);
                }
            });
        }
    });
    let all = served.get(PORT, "/v1/orders?limit=1000").json();
    assert_eq!(all["items"].as_array().unwrap().len(), 160);
}

#[test]
fn a_page_of_large_orders_ends_early_and_goes_on_without_gap() {
    let served = Served::start();
    for n in 0..40 {
        let mut large = order(&format!("o{n}"));
        large["note"] = json!("n".repeat(60_000));
        assert_eq!(submit(&served, &format!("k{n}"), &large).status, 201);
    }
    let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = served
            .get(PORT, &format!("/v1/orders?limit=1000&after={after}"))
            .json();
        pages += 1;
        for item in page["items"].as_array().unwrap() {
            seen.push(item["order_id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    let expected: Vec<_> = (0..40).map(|n| format!("o{n}")).collect();
    assert_eq!(seen, expected);
    assert!(pages > 1, "2.4 MB came as one page");
}
