//! Port 80.

use comptoir::config::LanPort;
use comptoir::telemetry::Code;
use serde_json::json;

use super::served::Served;
use crate::kitchen::wait_for;

const PORT: LanPort = LanPort::Front;

#[test]
fn the_box_says_that_it_lives_is_ready_and_who_it_is() {
    let served = Served::start();
    assert_eq!(
        served.stranger(PORT, "GET", "/livez").send().json(),
        json!({"live": true})
    );
    let ready = served.stranger(PORT, "GET", "/readyz").send().json();
    assert_eq!(
        ready,
        json!({"ready": true, "parts": {"disk": "ok", "orders": "ok", "catalogue": "ok"}})
    );
    let known = served
        .stranger(PORT, "GET", "/.well-known/comptoir")
        .send()
        .json();
    assert!(known["box_id"].as_str().unwrap().starts_with("box-"));
    assert_eq!(known["ports"]["orders"], 8001);
    assert_eq!(known["site_id"], "s1");
    let api = served.stranger(PORT, "GET", "/openapi.json").send().json();
    assert_eq!(api["openapi"], "3.1.0");
}

#[test]
fn the_status_is_what_the_store_and_the_conditions_say() {
    let served = Served::start();
    let status = || served.stranger(PORT, "GET", "/status.json").send().json();
    let first = status();
    assert_eq!(first["verdict"]["level"], "good");
    assert_eq!(first["catalogue"]["caught_up"], false);
    assert_eq!(first["devices"][0]["name"], "Till");
    served.publish(&[("products", "p1", 1, Some("{}"))]);
    let condition = Code::ApiUnreachable;
    served
        .telemetry
        .conditions
        .raise(condition, "secret detail", 1_000);
    let changed = wait_for("a fresh status", || {
        let status = status();
        let is_fresh =
            status["verdict"]["level"] == "warning" && status["catalogue"]["documents"] == 1;
        is_fresh.then_some(status)
    });
    assert_eq!(changed["verdict"]["since_ms"], 1_000);
    assert_eq!(changed["platform"]["data"], "down");
    assert_eq!(changed["conditions"][0]["code"], condition.as_str());
    assert!(
        !changed.to_string().contains("secret detail"),
        "details are for support"
    );
    served.telemetry.conditions.clear(condition);
    let well = wait_for("all well again", || {
        let status = status();
        (status["verdict"]["level"] == "good").then_some(status)
    });
    assert!(well["catalogue"]["caught_up"].as_bool().unwrap());
}

#[test]
fn requests_and_orders_show_in_the_last_hour() {
    let served = Served::start();
    let order = json!({"order_id": "o1", "placed_at": "2026-05-01T10:00:00Z", "lines": []});
    served
        .ask(LanPort::Orders, "POST", "/v1/orders")
        .header("idempotency-key", "k")
        .json(&order)
        .send();
    wait_for("the minute", || {
        let status = served.stranger(PORT, "GET", "/status.json").send().json();
        let minutes = status["minutes"].as_array().unwrap().clone();
        assert_eq!(minutes.len(), 60);
        let sum = |of: &str| -> i64 {
            minutes
                .iter()
                .map(|minute| minute[of].as_i64().unwrap())
                .sum()
        };
        (sum("requests") >= 1 && sum("orders") == 1).then_some(())
    });
}

#[test]
fn the_page_speaks_the_readers_language_and_allows_nothing_foreign() {
    let served = Served::start();
    let page = |path: &str, accepted: &str| {
        served
            .stranger(PORT, "GET", path)
            .header("accept-language", accepted)
            .send()
    };
    for (path, accepted, word, tag) in [
        ("/", "fr-FR,fr;q=0.9,en;q=0.5", "Tout va bien", "fr"),
        ("/", "en-US", "All is well", "en"),
        ("/?lang=fr", "en-US", "Tout va bien", "fr"),
        ("/?lang=xx", "de", "All is well", "en"),
    ] {
        let answer = page(path, accepted);
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(answer.header("content-language"), Some(tag));
        let html = String::from_utf8(answer.body.clone()).unwrap();
        assert!(
            html.contains(word) && html.contains("Chez Léa") && html.contains("Support 01 23 45")
        );
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    }
    let first = page("/", "en");
    let second = page("/", "en");
    assert_ne!(
        first.header("content-security-policy"),
        second.header("content-security-policy"),
        "a nonce is used once"
    );
    let part = served
        .stranger(PORT, "GET", "/status.json?page=fr")
        .send()
        .json();
    assert!(part["page"].as_str().unwrap().contains("Tout va bien"));
}
